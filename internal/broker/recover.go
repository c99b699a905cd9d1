package broker

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/mqtt"
)

// sweepTicks is how often expired retained messages are looked for.
const sweepTicks = 60

// Recover brings back what the keeper has kept: sessions, the messages that
// wait for them, and retained messages. Call it before the first connection.
// Sessions that were connected count as away from now on, since the process
// did not see how they ended.
func (b *Broker) Recover(ctx context.Context) error {
	var sessions, messages, retained int
	now := b.now()
	err := b.keeper.Load(ctx, func(c Change) error {
		r := b.realm(c.Account)
		switch c.Kind {
		case PutSession:
			sessions++
			r.restore(c.Box, c.Session, now)
		case PutMessage:
			messages++
			r.restoreMessage(&c)
		case PutRetained:
			retained++
			r.retained.mu.Lock()
			r.retained.put(c.Message)
			r.retained.mu.Unlock()
		case DropSession, DropMessage, DropRetained:
		}
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("recover sessions: %w", err)
	}
	for _, r := range b.allRealms() {
		r.begin(now)
	}
	if sessions+messages+retained > 0 {
		b.logger.InfoContext(ctx, "sessions are back", slog.Int("sessions", sessions), slog.Int("messages", messages), slog.Int("retained", retained))
	}
	return nil
}

// restore brings one session back, without a connection.
func (r *realm) restore(clientID string, record *SessionRecord, now time.Time) {
	b := r.router.broker
	c := &connection{broker: b, version: mqtt.Version(record.Version)}
	c.info = SessionInfo{
		Account: r.account, Principal: record.Principal, ClientID: clientID, SessionID: record.SessionID, ThingName: record.ThingName,
		Indexed: record.Indexed, Version: record.Version, SessionExpiry: record.Expiry, KeepAlive: record.KeepAlive, ConnectedAt: record.ConnectedAt,
	}
	s := b.newSession(r, c, record.Expiry)
	s.recorded, s.after = true, record.After
	b.numbers.Store(max(b.numbers.Load(), record.After)) // nobody else counts yet
	s.away = &absence{info: c.info, at: record.DisconnectedAt, reason: record.Reason}
	if record.DisconnectedAt.IsZero() {
		s.away.at, s.away.reason = now, ReasonServerError
	}
	b.metrics.stored.Inc()
	s.mu.Lock()
	for i := range record.Subscriptions {
		s.holdLocked(record.Subscriptions[i])
	}
	if w := record.Will; w != nil {
		due := w.Due
		if due.IsZero() {
			due = s.away.at.Add(time.Duration(min(w.Delay, s.expiry)) * time.Second)
		}
		s.away.will = &delayedWill{message: &w.Message, due: due}
	}
	s.mu.Unlock()
	r.mu.Lock()
	r.sessions[clientID] = s
	r.mu.Unlock()
}

// restoreMessage brings back a message that waits for a session or a group;
// one whose box is gone, or that is left of a session before, is dropped.
func (r *realm) restoreMessage(c *Change) {
	b := r.router.broker
	b.numbers.Store(max(b.numbers.Load(), c.Seq)) // nobody else counts yet
	if strings.HasPrefix(c.Box, "$share/") {
		if g := r.router.group(c.Box); g != nil {
			g.mu.Lock()
			p := parcel{message: c.Message, qos: c.Message.QoS, box: g, seq: c.Seq, stored: true}
			g.queue.push(p)
			b.queued.Add(int64(p.bytes()))
			g.mu.Unlock()
			return
		}
	} else if s := r.find(c.Box); s != nil && c.Seq > s.after {
		s.mu.Lock()
		p := parcel{message: c.Message, qos: max(1, min(c.Message.QoS, s.subscribedQoSLocked(c.Message.Topic))), seq: c.Seq, stored: true, retain: c.Retain}
		s.queue.push(p)
		b.queued.Add(int64(p.bytes()))
		s.mu.Unlock()
		return
	}
	b.keeper.Save(Change{Kind: DropMessage, Account: c.Account, Box: c.Box, Seq: c.Seq}, nil)
}

// begin starts the clocks of what was brought back.
func (r *realm) begin(now time.Time) {
	b := r.router.broker
	r.mu.Lock()
	all := make([]*session, 0, len(r.sessions))
	for _, s := range r.sessions {
		all = append(all, s)
	}
	r.mu.Unlock()
	for _, s := range all {
		s.mu.Lock()
		if s.away != nil {
			if w := s.away.will; w != nil {
				s.delayWillLocked(w.message, w.due)
			}
			if s.expiry != NeverExpires {
				left := s.away.at.Add(time.Duration(s.expiry) * time.Second).Sub(now)
				b.wheel.add(&s.expire, b.wheel.now.Load()+int64(left/tickLength)+1)
			}
			if s.away.at.Equal(now) {
				// The end is on record now, so that another crash does not begin the
				// absence anew.
				s.recordLocked(nil)
			}
		}
		s.mu.Unlock()
	}
}

// watchRetained clears expired retained messages from time to time.
func (b *Broker) watchRetained() {
	b.sweeper.ring = func(now int64) int64 {
		for _, r := range b.allRealms() {
			r.retained.sweep()
		}
		return now + sweepTicks
	}
	b.wheel.add(&b.sweeper, b.wheel.now.Load()+sweepTicks)
}
