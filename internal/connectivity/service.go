package connectivity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Activity is what is known of a live connection.
type Activity struct {
	ConnectionID string
	// LastPacket and LastPublish are to the second; the latter is zero for a
	// connection that has published nothing.
	LastPacket, LastPublish time.Time
	// Provisioning says that the client is connected only to be provisioned, which
	// does not count as a connection of a thing.
	Provisioning bool
}

// Sessions knows live connections.
type Sessions interface {
	// Activity reports false for a client without a live connection that counts
	// as that of the thing named like it.
	Activity(account fleet.Account, clientID string) (Activity, bool)
	// Draining says that the server sends its devices away.
	Draining() bool
	// RoundTrips returns what was measured since the call before.
	RoundTrips() []RoundTrips
}

// RoundTrips sums up the round trips of one thing's connection.
type RoundTrips struct {
	Account         fleet.Account
	Thing           string
	Last, Mean, Max time.Duration
	Samples         int
}

// Registry knows things, groups and attachments.
type Registry interface {
	// ThingExists reports whether there is such a thing, and whether any
	// certificate is attached to it.
	ThingExists(ctx context.Context, account fleet.Account, thing string) (exists, attached bool, err error)
	// Blocked reports whether certificates are attached to a thing and none of
	// them is active.
	Blocked(ctx context.Context, account fleet.Account, thing string) (bool, error)
	// ThingsOf calls fn for each thing that a certificate is attached to.
	ThingsOf(ctx context.Context, account fleet.Account, certificateID string, fn func(thing string) error) error
	// Groups are all groups that a thing is in, the ancestors of them included;
	// none for a thing that does not exist.
	Groups(ctx context.Context, account fleet.Account, thing string) ([]Group, error)
	// GroupExists reports whether there is such a group.
	GroupExists(ctx context.Context, account fleet.Account, group string) (bool, error)
	// EachInactive calls fn for every certificate that is inactive or revoked in
	// the state that r shows.
	EachInactive(ctx context.Context, r store.Reader, fn func(account fleet.Account, certificateID string) error) error
	// EachThing calls fn for every thing in the state that r shows.
	EachThing(ctx context.Context, r store.Reader, fn func(account fleet.Account, thing string) error) error
}

// Past is the newest connection of a client as presence has it.
type Past struct {
	Account   fleet.Account
	Session   event.Session
	Connected bool
	// ConnectedAt and At are its begin and its end; ConnectedAt may be zero.
	ConnectedAt, At time.Time
	Reason          string
}

// Options of New.
type Options struct {
	Store    store.Store
	Sessions Sessions
	Registry Registry
	// Live lists the newest connection of every client in the state that r shows.
	Live func(ctx context.Context, r store.Reader, fn func(Past) error) error
	// Newest is the newest connection of one client, nil for none.
	Newest func(ctx context.Context, account fleet.Account, clientID string) (*Past, error)
	// Now is the wall clock. Elapsed is a clock that nobody sets.
	Now     func() time.Time
	Elapsed func() time.Duration
	Logger  *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Service watches the things of all accounts. It is safe for concurrent use.
type Service struct {
	o       Options
	store   store.Store
	metrics *metrics
	line    *line
	// opened is closed when the first Rebuild is done.
	opened chan struct{}

	// mu makes Apply, Rebuild, Run and changes of settings take turns. It guards
	// all that follows.
	mu    sync.Mutex
	ready bool
	// stale says that a commit failed in a way that leaves it open what the store
	// holds: memory is read again.
	stale    bool
	applied  store.Cursor
	saved    time.Duration
	counts   map[fleet.Account]*counts
	settings map[fleet.Account]map[string]*Settings
	// gateways counts what lies behind each.
	gateways map[thingKey]int
	clock    clock
	// next is when the next timer may be due; there is none before floor, where
	// only the graves of older ones lie.
	next, floor int64
	// watch are connected things whose next publish changes their state, heard
	// when things behind gateways last gave a sign of life.
	watch map[thingKey]watched
	heard map[thingKey]int64
	// early are declarations of connections whose begin is not applied yet.
	early map[connectionKey][]*Declaration
	// waiting counts the declarations in early.
	waiting int
	// sweeps are accounts whose connected things get timers by new settings.
	sweeps map[fleet.Account]store.Key
	// polled is when Run last looked for activity.
	polled time.Duration

	// measured is when Run last looked for latencies; it belongs to Run.
	measured time.Duration
}

// New returns a service over the records in a store.
func New(o Options) *Service {
	return &Service{
		o: o, store: o.Store, metrics: newMetrics(o.Registerer), line: newLine(), opened: make(chan struct{}),
		counts: map[fleet.Account]*counts{}, settings: map[fleet.Account]map[string]*Settings{}, gateways: map[thingKey]int{},
		watch: map[thingKey]watched{}, heard: map[thingKey]int64{}, early: map[connectionKey][]*Declaration{},
		sweeps: map[fleet.Account]store.Key{},
	}
}

// counts are figures of one account; the stored form.
type counts struct {
	Schema int `json:"v"`
	// Things counts those of the registry, States those that were ever seen or
	// blocked.
	Things   int           `json:"things"`
	States   map[State]int `json:"states,omitempty"`
	Flapping int           `json:"flapping,omitempty"`
	// KeepAlives counts sessions that are live or expected back, by keep-alive in
	// seconds, rounded up.
	KeepAlives map[int]int `json:"keepAlives,omitempty"`
}

func newCounts() *counts {
	return &counts{Schema: schema, States: map[State]int{}, KeepAlives: map[int]int{}}
}

func (c *counts) clone() *counts {
	next := *c
	next.States, next.KeepAlives = maps.Clone(c.States), maps.Clone(c.KeepAlives)
	return &next
}

// add counts a record, or takes it out for n = -1.
func (c *counts) add(r *record, n int) {
	if r == nil {
		return
	}
	if r.State != NeverSeen {
		bump(c.States, r.State, n)
	}
	if r.Flapping {
		c.Flapping += n
	}
	if r.Session.ClientID != "" && (r.State.connected() || r.State == Suspect || r.State == Sleeping) {
		bump(c.KeepAlives, roundedKeepAlive(r.Session.KeepAlive), n)
	}
}

// bump changes a count and forgets it at zero.
func bump[K comparable](m map[K]int, key K, n int) {
	if m[key] += n; m[key] == 0 {
		delete(m, key)
	}
}

// noKeepAlive stands for clients that need not say that they are there.
const noKeepAlive = 60

// roundedKeepAlive keeps the number of different values small.
func roundedKeepAlive(seconds int) int {
	step := 60
	switch {
	case seconds == 0:
		seconds = noKeepAlive
	case seconds > 1200:
		step = 3600
	}
	return (seconds + step - 1) / step * step
}

// load reads what memory holds of the store.
func (s *Service) load(ctx context.Context, r store.Reader) error {
	counted := map[fleet.Account]*counts{}
	err := r.Scan(ctx, store.Under(kindCount), func(stored store.Record) error {
		c := newCounts()
		if err := json.Unmarshal(stored.Value, c); err != nil {
			return fmt.Errorf("decode %s: %w", stored.Key, err)
		}
		counted[fleet.Account(stored.Key.Last())] = c
		return nil
	})
	if err != nil {
		return fmt.Errorf("read connectivity counts: %w", err)
	}
	settings := map[fleet.Account]map[string]*Settings{}
	err = r.Scan(ctx, store.Under(kindSettings), func(stored store.Record) error {
		var v settingsRecord
		if err := json.Unmarshal(stored.Value, &v); err != nil {
			return fmt.Errorf("decode %s: %w", stored.Key, err)
		}
		parts := stored.Key.Parts()
		account := fleet.Account(parts[1])
		if settings[account] == nil {
			settings[account] = map[string]*Settings{}
		}
		settings[account][parts[2]] = &v.Settings
		return nil
	})
	if err != nil {
		return fmt.Errorf("read connectivity settings: %w", err)
	}
	gateways := map[thingKey]int{}
	err = r.Scan(ctx, store.Under(kindChild), func(stored store.Record) error {
		parts := stored.Key.Parts()
		gateways[thingKey{fleet.Account(parts[1]), parts[2]}]++
		return nil
	})
	if err != nil {
		return fmt.Errorf("read gateways: %w", err)
	}
	s.counts, s.settings, s.gateways = counted, settings, gateways
	for account, c := range counted {
		s.metrics.show(account, c)
	}
	s.next, s.floor = 0, 0
	return nil
}

// applied is the stored form of how far the records are.
type applied struct {
	Schema int    `json:"v"`
	Cursor string `json:"cursor"`
}

// readApplied reads how far the records are; ok is false for never.
func readApplied(ctx context.Context, r store.Reader) (cursor store.Cursor, ok bool, err error) {
	stored, err := r.Get(ctx, store.K(kindApplied))
	if errors.Is(err, store.ErrNotFound) {
		return cursor, false, nil
	}
	if err != nil {
		return cursor, false, fmt.Errorf("read %s: %w", kindApplied, err)
	}
	var a applied
	if err := json.Unmarshal(stored.Value, &a); err != nil {
		return cursor, false, fmt.Errorf("decode %s: %w", kindApplied, err)
	}
	if cursor, err = store.ParseCursor(a.Cursor); err != nil {
		return cursor, false, fmt.Errorf("decode %s: %w", kindApplied, err)
	}
	return cursor, true, nil
}

// refresh reads memory again after a commit whose outcome is open.
func (s *Service) refresh(ctx context.Context) error {
	if !s.stale {
		return nil
	}
	cursor, ok, err := readApplied(ctx, s.store)
	if err != nil {
		return err
	}
	if err := s.load(ctx, s.store); err != nil {
		return err
	}
	if ok {
		s.applied = cursor
	}
	err = s.store.Scan(ctx, store.Under(kindRecord), func(stored store.Record) error {
		found, err := decode(stored)
		if err != nil {
			return err
		}
		parts := stored.Key.Parts()
		s.remember(&slot{thingKey: thingKey{fleet.Account(parts[1]), parts[2]}, record: found})
		return nil
	})
	if err != nil {
		return fmt.Errorf("read connectivity: %w", err)
	}
	for account := range s.settings {
		s.sweeps[account] = ""
	}
	// The begin of their connections may have been taken in.
	for k, held := range s.early {
		delete(s.early, k)
		s.waiting -= len(held)
		s.line.back(held)
	}
	s.stale = false
	return nil
}

// inForce resolves the settings of a thing. Without settings of groups nobody
// asks which groups the thing is in.
func (s *Service) inForce(ctx context.Context, k thingKey) (InForce, error) {
	of := s.settings[k.account]
	var groups []Group
	if _, account := of[""]; len(of) > 1 || len(of) == 1 && !account {
		var err error
		if groups, err = s.o.Registry.Groups(ctx, k.account, k.thing); err != nil {
			return InForce{}, fmt.Errorf("find the groups of thing %q: %w", k.thing, err)
		}
	}
	return resolve(groups, func(group string) *Settings { return of[group] }), nil
}

// now is the wall clock in milliseconds.
func (s *Service) now() int64 { return s.o.Now().UnixMilli() }
