package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// ErrDraining is returned when a drain is under way already.
var ErrDraining = errors.New("broker is draining already")

// ErrDrainEnded is returned by a drain that EndDrain has called off.
var ErrDrainEnded = errors.New("drain was called off")

const (
	// drainAtOnce is the number of clients that may come back elsewhere together
	// without anybody noticing.
	drainAtOnce = 100
	// drainStep is how often a drain looks: clients whose time has come meanwhile
	// leave together.
	drainStep = 10 * time.Millisecond
	// drainSpread is how far apart those are asked to come back who come while
	// the broker drains.
	drainSpread = 30 * time.Second
)

// DrainStatus is how far a drain has come.
type DrainStatus struct {
	// Draining says that new connections are refused.
	Draining bool
	// Since is when it began, Until when the last client is told to leave.
	Since, Until time.Time
	// Connected was the number of clients when it began, Remaining is that of now.
	Connected, Remaining int
}

// drain is a drain under way, or done and not ended.
type drain struct {
	since, until time.Time
	connected    atomic.Int64
	off          chan struct{} // closed by EndDrain
}

// Drain refuses new connections from now on and tells the connected clients to
// leave, one after the other in random order over a time, a small number at
// once. Their wills are published. It returns when all are gone, or when ctx
// ends or EndDrain is called; only the latter lets clients in again.
func (b *Broker) Drain(ctx context.Context, over time.Duration) error {
	all := b.allConnections()
	if len(all) <= drainAtOnce {
		over = 0
	}
	now := b.now()
	d := &drain{since: now, until: now.Add(over), off: make(chan struct{})}
	d.connected.Store(int64(len(all)))
	if b.stopped() {
		return ErrClosed
	}
	if !b.draining.CompareAndSwap(nil, d) {
		return ErrDraining
	}
	// Whoever came in before that could be seen is told with the others.
	all = b.allConnections()
	d.connected.Store(int64(len(all)))
	b.logger.InfoContext(ctx, "clients are told to leave", slog.Int("connected", len(all)), slog.Duration("over", over))
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] }) //nolint:gosec // it spreads load and keeps no secret
	told := 0
	for {
		due := len(all)
		if elapsed := b.now().Sub(now); elapsed < over {
			due = int(float64(len(all)) * float64(elapsed) / float64(over))
		}
		for ; told < due; told++ {
			all[told].end(because(ReasonServerInitiated))
			all[told] = nil
		}
		if told == len(all) {
			// Those who slipped in while the drain began.
			left := b.allConnections()
			if len(left) == 0 {
				return nil
			}
			for _, c := range left {
				c.end(because(ReasonServerInitiated))
			}
		}
		if err := d.rest(ctx, b.stop); err != nil {
			return err
		}
	}
}

// rest waits for the next look.
func (d *drain) rest(ctx context.Context, stop <-chan struct{}) error {
	timer := time.NewTimer(drainStep)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-d.off:
		return ErrDrainEnded
	case <-stop:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("drain: %w", ctx.Err())
	}
}

// EndDrain lets clients in again and tells nobody else to leave. It reports
// false when the broker does not drain.
func (b *Broker) EndDrain() bool {
	d := b.draining.Swap(nil)
	if d == nil {
		return false
	}
	close(d.off)
	b.logger.Info("clients are let in again", slog.Int("connected", len(b.allConnections())))
	return true
}

// Draining reports whether new connections are refused because of a drain.
func (b *Broker) Draining() bool { return b.draining.Load() != nil }

// DrainStatus describes the drain under way, if any.
func (b *Broker) DrainStatus() DrainStatus {
	s := DrainStatus{}
	for _, r := range b.allRealms() {
		s.Remaining += int(r.usage.connections.Load())
	}
	if d := b.draining.Load(); d != nil {
		s.Draining, s.Since, s.Until, s.Connected = true, d.since, d.until, int(d.connected.Load())
	}
	return s
}

// comeBackAfter is what a client is told that comes while the broker drains.
func (d *drain) comeBackAfter(now time.Time) time.Duration {
	return max(0, d.until.Sub(now)) + time.Duration(rand.Int64N(int64(drainSpread))) //nolint:gosec // it spreads load and keeps no secret
}

// allConnections returns the connections of all accounts at this moment.
func (b *Broker) allConnections() []*connection {
	var all []*connection
	for _, r := range b.allRealms() {
		all = append(all, r.connections()...)
	}
	return all
}
