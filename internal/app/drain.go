package app

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"time"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
)

const (
	// connectsPerCore is how many devices one core lets in per second and has
	// half of its time left for those that are connected: a handshake and all that
	// a CONNECT causes take 0.7 ms.
	connectsPerCore = 700
	// leavesPerSecond is how many devices are told to leave per second at least
	// when the server stops.
	leavesPerSecond = 1000
	// drainGrace is for those who were told last.
	drainGrace = 3 * time.Second
)

// quotas are the broker's as the settings have them.
func (a *App) quotas() broker.Quotas {
	l := &a.settings.Limits
	return broker.Quotas{
		ConnectionPublishes: l.ConnectionPublishes, ConnectionBytes: int(l.ConnectionBytes),
		AccountPublishesIn: l.AccountPublishesIn, AccountPublishesOut: l.AccountPublishesOut,
		AccountSubscribes: l.AccountSubscribes, AccountSubscriptions: l.AccountSubscriptions,
		AccountConnects: l.AccountConnects, ClientConnects: l.ClientConnects, AccountConnections: l.AccountConnections,
		AccountRetains: l.AccountRetains,
	}
}

// admission is the pace at which devices are let in.
func (a *App) admission() broker.AdmissionOptions {
	o := broker.AdmissionOptions{
		ConnectsPerSecond: a.settings.Admission.ConnectsPerSecond, WaitingRoom: a.settings.Admission.WaitingRoom, Storm: a.thrift.Storm,
	}
	if o.ConnectsPerSecond == 0 {
		o.ConnectsPerSecond = connectsPerCore * runtime.GOMAXPROCS(0)
	}
	return o
}

// StartDrain begins to tell devices to leave over a time, that of the settings
// when it is negative. It does not wait for them.
func (a *App) StartDrain(ctx context.Context, over time.Duration) error {
	if over < 0 {
		over = a.settings.Drain.Over
	}
	if a.broker.Draining() {
		return errDraining()
	}
	ctx = context.WithoutCancel(ctx) // the caller goes, the drain goes on
	begun := make(chan error, 1)
	a.drains.Go(func() {
		err := a.broker.Drain(ctx, over)
		begun <- err
		if err == nil {
			a.log.InfoContext(ctx, "all devices have left")
		}
	})
	// A drain that cannot begin says so at once; one that has begun shows.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !a.broker.Draining() {
		select {
		case err := <-begun:
			if errors.Is(err, broker.ErrDraining) {
				return errDraining()
			}
			return err
		case <-tick.C:
		}
	}
	return nil
}

func errDraining() error { return fault.New(fault.Conflict, "the server is draining already") }

// drainStatus shows the broker's drain.
func (a *App) drainStatus() adminapi.DrainStatus {
	s := a.broker.DrainStatus()
	return adminapi.DrainStatus{Draining: s.Draining, Since: s.Since, Until: s.Until, Connected: s.Connected, Remaining: s.Remaining}
}

// endDrain lets devices in again.
func (a *App) endDrain() bool { return a.broker.EndDrain() }

// awaitDrain waits for a drain that the broker's shutdown has ended.
func (a *App) awaitDrain(context.Context) error {
	a.drains.Wait()
	return nil
}

// drainBeforeStop tells devices to leave one after the other, a small fleet
// quickly, until all have left, the time for it is over or somebody is in a
// hurry. A drain that is under way already goes on within the same time.
func (a *App) drainBeforeStop(ctx context.Context) {
	over := min(a.settings.Drain.Over, time.Duration(a.broker.DrainStatus().Remaining)*time.Second/leavesPerSecond)
	ctx, cancel := context.WithTimeout(ctx, over+drainGrace)
	defer cancel()
	hurried := make(chan struct{})
	defer func() { cancel(); <-hurried }()
	go func() {
		defer close(hurried)
		select {
		case <-a.hurry:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := a.broker.Drain(ctx, over)
	if errors.Is(err, broker.ErrDraining) {
		err = a.awaitGone(ctx)
	}
	if err != nil {
		a.log.InfoContext(ctx, "server stops before all devices have left", slog.Int("remaining", a.broker.DrainStatus().Remaining), slog.Any("err", err))
	}
}

// awaitGone waits for the end of somebody else's drain.
func (a *App) awaitGone(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for a.broker.DrainStatus().Remaining > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
