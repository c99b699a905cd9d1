package presence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Bounds of Run.
const (
	// batchClients bounds one commit.
	batchClients = 500
	// firstPause and longestPause bound the wait after a failed commit.
	firstPause   = 20 * time.Millisecond
	longestPause = 2 * time.Second
)

// Run commits what the service is told until ctx ends. Call Drain first for an
// ordered stop.
func (s *Service) Run(ctx context.Context) error {
	for {
		taken := s.queue.take(batchClients)
		if len(taken) == 0 {
			select {
			case <-s.queue.wake:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		n := 0
		for _, facts := range taken {
			n += len(facts)
		}
		if !s.commitAll(ctx, taken) {
			return nil
		}
		s.queue.done(n)
	}
}

// Drain waits until everything told so far is durable.
func (s *Service) Drain(ctx context.Context) error {
	if err := s.queue.drained(ctx); err != nil {
		return fmt.Errorf("flush presence: %w", err)
	}
	return nil
}

// commitAll retries until the batch is durable; false means that ctx ended.
func (s *Service) commitAll(ctx context.Context, taken [][]fact) bool {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := s.commit(ctx, taken)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		s.log.ErrorContext(ctx, "presence is not stored yet", slog.Int("clients", len(taken)), slog.Any("err", err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
}

// commit reads the clients' records, applies the facts and writes both state
// and events.
func (s *Service) commit(ctx context.Context, taken [][]fact) error {
	keys := make([]store.Key, len(taken))
	for i, facts := range taken {
		keys[i] = keyOf(facts[0].session.Account, facts[0].session.ClientID)
	}
	stored, err := s.store.GetMany(ctx, keys)
	if err != nil {
		return fmt.Errorf("read connections: %w", err)
	}
	var b store.Batch
	change := versionChange{known: s.versions, begun: map[string]int64{}}
	for i, facts := range taken {
		var state *record
		if stored[i].Version != 0 {
			if state, err = decode(stored[i]); err != nil {
				return err
			}
		}
		next, events := apply(state, facts, &change)
		b.Events = append(b.Events, events...)
		if next == state {
			continue
		}
		value, err := json.Marshal(next)
		if err != nil {
			return fmt.Errorf("encode connection: %w", err)
		}
		b.Expect = append(b.Expect, store.Expect{Key: keys[i], Version: stored[i].Version})
		b.Writes = append(b.Writes, store.Write{Key: keys[i], Value: value})
	}
	if _, err := s.store.Commit(ctx, b); err != nil {
		return fmt.Errorf("commit connections: %w", err)
	}
	change.keep()
	return nil
}

// versionChange is what a commit will change about the versions of connections;
// it counts only when the commit succeeds.
type versionChange struct {
	known map[string]int64
	begun map[string]int64
	ended []string
}

// of returns the version that a connection got when it began.
func (c *versionChange) of(connectionID string) (int64, bool) {
	if v, ok := c.begun[connectionID]; ok {
		return v, true
	}
	v, ok := c.known[connectionID]
	return v, ok
}

// keep makes the change count, after the commit.
func (c *versionChange) keep() {
	maps.Copy(c.known, c.begun)
	for _, id := range c.ended {
		delete(c.known, id)
	}
}

// apply carries a client's state over its facts. The result is state itself
// when nothing about it changed.
func apply(state *record, facts []fact, versions *versionChange) (*record, []event.Envelope) {
	var events []event.Envelope
	for _, f := range facts {
		id := f.session.ConnectionID
		switch f.what {
		case connected:
			state = connect(state, f)
			versions.begun[id] = state.Version
			events = append(events, envelope(f, event.DeviceConnected{Session: describe(f, state.Version)}))
		case disconnected:
			version, ok := versions.of(id)
			if !ok {
				// Its connect was merged away: it never counted.
				continue
			}
			versions.ended = append(versions.ended, id)
			if state != nil && state.ConnectionID == id {
				state = disconnect(state, f.reason, f.at)
			}
			events = append(events, envelope(f, event.DeviceDisconnected{Session: describe(f, version), Reason: f.reason}))
		case subscribed, unsubscribed:
			if version, ok := versions.of(id); ok {
				events = append(events, envelope(f, event.SubscriptionsChanged{
					Session: describe(f, version), Subscribed: f.what == subscribed, Filters: f.filters,
				}))
			}
		case refused:
			events = append(events, envelope(f, event.ConnectRefused{Session: describe(f, 0), Reason: f.reason}))
		}
	}
	return state, events
}

// connect is the state after an accepted connection.
func connect(state *record, f fact) *record {
	version := int64(0)
	if state != nil && (state.Connected || f.at.Sub(time.UnixMilli(state.At)) < state.remembered()) {
		version = state.Version + 1
	}
	at, of := f.at.UnixMilli(), &f.session
	return &record{
		Schema: schema, Connected: true, SessionID: of.SessionID, ConnectionID: of.ConnectionID, Principal: of.Principal,
		ThingName: of.ThingName, IPAddress: of.IPAddress, RemoteAddr: of.RemoteAddr, LocalAddr: of.LocalAddr,
		Protocol: of.Protocol, Transport: of.Transport, Indexed: of.Indexed, Provisioning: of.Provisioning, KeepAlive: of.KeepAlive,
		CleanSession: of.SessionExpiry == 0, SessionExpiry: of.SessionExpiry, Version: version, ConnectedAt: at, At: at,
	}
}

// remembered is how long after its end a connection's version is continued.
func (r *record) remembered() time.Duration {
	return max(forgetAfter, time.Duration(r.SessionExpiry)*time.Second)
}

// disconnect is the state after the end of the current connection.
func disconnect(state *record, reason string, at time.Time) *record {
	next := *state
	next.Connected, next.Reason, next.At = false, reason, at.UnixMilli()
	return &next
}

// describe is a fact's connection as events tell it.
func describe(f fact, version int64) event.Session {
	of := &f.session
	return event.Session{
		ClientID: of.ClientID, SessionID: of.SessionID, ConnectionID: of.ConnectionID, Principal: of.Principal.ID, ThingName: of.ThingName,
		IPAddress: of.IPAddress, RemoteAddr: of.RemoteAddr, LocalAddr: of.LocalAddr, Protocol: of.Protocol, Transport: of.Transport,
		Version: version, Indexed: of.Indexed, Provisioning: of.Provisioning, KeepAlive: of.KeepAlive, CleanSession: of.SessionExpiry == 0, SessionExpiry: of.SessionExpiry,
	}
}

// envelope makes an event with the client as its actor.
func envelope(f fact, e event.Event) event.Envelope {
	return event.Envelope{
		Account: f.session.Account, At: f.at, Event: e,
		Actor: fleet.Actor{Principal: f.session.Principal, SourceAddress: f.session.IPAddress, ClientID: f.session.ClientID},
	}
}

// Recover ends the connections that the record still shows from before: the
// process ended without telling. Call it before any session can begin. One
// process works on a store, so every recorded connection was ours.
func (s *Service) Recover(ctx context.Context) error {
	at := s.now()
	var cut []store.Record
	err := s.store.Scan(ctx, store.Under(kind), func(stored store.Record) error {
		found, err := decode(stored)
		if err == nil && found.Connected {
			cut = append(cut, stored)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("look for cut connections: %w", err)
	}
	for len(cut) > 0 {
		n := min(len(cut), batchClients)
		if err := s.recover(ctx, cut[:n], at); err != nil {
			return err
		}
		cut = cut[n:]
	}
	return nil
}

// recover ends one batch of cut connections.
func (s *Service) recover(ctx context.Context, cut []store.Record, at time.Time) error {
	var b store.Batch
	for _, stored := range cut {
		state, err := decode(stored)
		if err != nil {
			return err
		}
		parts := stored.Key.Parts()
		f := fact{reason: reasonServerError, at: at, session: state.session(fleet.Account(parts[1]), parts[2])}
		value, err := json.Marshal(disconnect(state, reasonServerError, at))
		if err != nil {
			return fmt.Errorf("encode connection: %w", err)
		}
		b.Expect = append(b.Expect, store.Expect{Key: stored.Key, Version: stored.Version})
		b.Writes = append(b.Writes, store.Write{Key: stored.Key, Value: value})
		b.Events = append(b.Events, envelope(f, event.DeviceDisconnected{Session: describe(f, state.Version), Reason: reasonServerError}))
	}
	if _, err := s.store.Commit(ctx, b); err != nil {
		return fmt.Errorf("end cut connections: %w", err)
	}
	s.log.InfoContext(ctx, "connections of the process before are ended", slog.Int("clients", len(cut)))
	return nil
}
