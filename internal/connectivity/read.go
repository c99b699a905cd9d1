package connectivity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Change is one settled change of a thing's state.
type Change struct {
	Version      int64
	From, To     State
	Since, At    time.Time
	Reason       string
	Wait, Outage time.Duration
	Alert        bool
}

// Status is what is known of one thing. Times are zero for never.
type Status struct {
	Thing        string
	State        State
	StateVersion int64
	// Since is when the cause of the state happened, Settled when it was found.
	Since, Settled time.Time
	// Connected is the raw truth of this moment: there is a live connection, or
	// the gateway before the thing holds it to be there.
	Connected bool
	// ClientID, SessionID and ConnectionVersion are those of the newest connection.
	ClientID, SessionID string
	ConnectionVersion   int64
	DisconnectReason    string
	KeepAlive           time.Duration
	// LastSeen is when it was last heard of in any way.
	LastSeen time.Time
	NoHello  bool
	Flapping bool
	// FlapScore is the score of this moment.
	FlapScore float64
	Blips     int64
	// Outages counts those that have ended; CurrentOutage is how long the present
	// one lasts.
	Outages                                int64
	LastOutage, TotalOutage, CurrentOutage time.Duration
	LastGap                                time.Duration
	Heartbeat                              time.Duration
	// NextContact is the end of the announced absence.
	NextContact time.Time
	// TimerDue is when the state changes if nothing happens, ReleaseDue when
	// flapping ends at the earliest.
	TimerDue, ReleaseDue time.Time
	Gateway              string
	// Assigned says that an operator named the gateway.
	Assigned bool
	// Children counts the things for which this one speaks.
	Children int
	// Latency is nil for a thing whose round trips were never measured.
	Latency  *Latency
	Settings InForce
	// Recent are the newest changes, newest first.
	Recent []Change
}

// Of returns what is known of a thing, or ResourceNotFound for one that does not
// exist.
func (s *Service) Of(ctx context.Context, account fleet.Account, thing string) (Status, error) {
	exists, _, err := s.o.Registry.ThingExists(ctx, account, thing)
	if err != nil {
		return Status{}, fmt.Errorf("look at thing %q: %w", thing, err)
	}
	if !exists {
		return Status{}, fault.New(fault.ResourceNotFound, "there is no thing %s", thing)
	}
	k := thingKey{account, thing}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return Status{}, err
	}
	b := s.newBatch()
	one, err := b.at(ctx, k)
	if err != nil {
		return Status{}, err
	}
	r := one.record
	if r == nil {
		r = newRecord()
	}
	status := s.status(k, r, b.now)
	if status.Settings, err = s.inForce(ctx, k); err != nil {
		return Status{}, err
	}
	status.Latency, err = s.latencyOf(ctx, k)
	return status, err
}

// status describes a record.
func (s *Service) status(k thingKey, r *record, now int64) Status {
	v := Status{
		Thing: k.thing, State: r.State, StateVersion: r.StateVersion, Since: moment(r.Since), Settled: moment(r.Settled),
		Connected: r.Session.Live, ClientID: r.Session.ClientID, SessionID: r.Session.SessionID, ConnectionVersion: r.Session.Version,
		DisconnectReason: r.Session.Reason, KeepAlive: time.Duration(r.Session.KeepAlive) * time.Second, LastSeen: moment(r.LastSeen),
		NoHello: r.NoHello, Flapping: r.Flapping, FlapScore: r.flapScore(now), Blips: r.Blips,
		Outages: r.Outages, LastOutage: duration(r.LastOutage), TotalOutage: duration(r.TotalOutage), LastGap: duration(r.LastGap),
		Heartbeat: duration(r.Interval), TimerDue: moment(r.Due), ReleaseDue: moment(r.FlapDue),
		Gateway: r.Gateway, Assigned: r.Assigned, Children: s.gateways[k],
	}
	if r.OutageBegan != 0 {
		v.CurrentOutage = duration(max(0, now-r.OutageBegan))
	}
	if r.Plan != nil {
		v.NextContact = moment(r.Plan.NextContact)
	}
	if heard := moment(s.heard[k]); heard.After(v.LastSeen) {
		v.LastSeen = heard
	}
	if r.Session.ClientID != "" {
		activity, ok := s.o.Sessions.Activity(k.account, r.Session.ClientID)
		if v.Connected = ok; ok && activity.LastPacket.After(v.LastSeen) {
			v.LastSeen = activity.LastPacket.UTC()
		}
	}
	for i := len(r.Recent) - 1; i >= 0; i-- {
		c := &r.Recent[i]
		v.Recent = append(v.Recent, Change{
			Version: c.Version, From: c.From, To: c.To, Since: moment(c.Since), At: moment(c.At), Reason: c.Reason,
			Wait: duration(c.Wait), Outage: duration(c.Outage), Alert: c.Alert,
		})
	}
	return v
}

func duration(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

// latencyOf reads a thing's latency.
func (s *Service) latencyOf(ctx context.Context, k thingKey) (*Latency, error) {
	stored, err := s.store.Get(ctx, latencyKey(k))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil //nolint:nilnil // never measured is neither
	}
	if err != nil {
		return nil, fmt.Errorf("read latency of %q: %w", k.thing, err)
	}
	var v latencyRecord
	if err := json.Unmarshal(stored.Value, &v); err != nil {
		return nil, fmt.Errorf("decode %s: %w", stored.Key, err)
	}
	return &v.Latency, nil
}

// Summary counts an account's things.
type Summary struct {
	Things   int
	ByState  map[State]int
	Flapping int
}

// Summarize counts the things of an account by state.
func (s *Service) Summarize(ctx context.Context, account fleet.Account) (Summary, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return Summary{}, err
	}
	c := s.counts[account]
	if c == nil {
		c = newCounts()
	}
	return Summary{Things: c.Things, ByState: c.byState(), Flapping: c.Flapping}, nil
}

// Indexed is what projections hold of a thing, as the newest event told it.
type Indexed struct {
	State        State
	StateVersion int64
	Since        time.Time
	Flapping     bool
	LastSeen     time.Time
	Blips        int64
	Gateway      string
	NoHello      bool
	Reason       string
}

// EachState calls fn for every thing of every account whose state has ever
// changed, in the state that r shows.
func EachState(ctx context.Context, r store.Reader, fn func(account fleet.Account, thing string, v Indexed) error) error {
	return r.Scan(ctx, store.Under(kindRecord), func(stored store.Record) error {
		found, err := decode(stored)
		if err != nil {
			return err
		}
		if found.StateVersion == 0 {
			return nil
		}
		v := Indexed{
			State: found.State, StateVersion: found.StateVersion, Since: moment(found.Since), Flapping: found.Flapping,
			LastSeen: moment(found.Told.LastSeen), Blips: found.Told.Blips, Gateway: found.Gateway, NoHello: found.NoHello,
		}
		if n := len(found.Recent); n > 0 {
			v.Reason = found.Recent[n-1].Reason
		}
		parts := stored.Key.Parts()
		return fn(fleet.Account(parts[1]), parts[2], v)
	})
}

// EachLatency calls fn for every thing whose round trips were measured.
func EachLatency(ctx context.Context, r store.Reader, fn func(account fleet.Account, thing string, v Latency) error) error {
	return r.Scan(ctx, store.Under(kindLatency), func(stored store.Record) error {
		var v latencyRecord
		if err := json.Unmarshal(stored.Value, &v); err != nil {
			return fmt.Errorf("decode %s: %w", stored.Key, err)
		}
		parts := stored.Key.Parts()
		return fn(fleet.Account(parts[1]), parts[2], v.Latency)
	})
}
