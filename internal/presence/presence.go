// Package presence knows which client is connected, since when, and why it is
// not. The broker tells it of sessions; it records them and appends the
// lifecycle events, in order for each client. It knows no packets and makes no
// topics.
//
// Telling never blocks: facts wait in memory, a bounded number for each
// client, and Run, its only goroutine, commits them in batches. When a client
// comes and goes faster than the store takes it, whole connections in the
// middle are merged away and counted; the newest state always gets in.
//
// This is the first cut: wait states, flapping and planned sleep follow.
package presence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// kind is the first part of a connection record's key; account and client id
// follow.
const kind = "connection"

// schema is the version of the stored record.
const schema = 1

// forgetAfter is how long a client must be away for its version to start over
// at 0, as in AWS's lifecycle events.
const forgetAfter = time.Hour

// reasonServerError is why connections ended that a crash of the server cut.
const reasonServerError = "SERVER_ERROR"

// Session is one connection as the broker knows it.
type Session struct {
	Account   fleet.Account
	ClientID  string
	SessionID string
	Principal fleet.Principal
	// ThingName is set for exclusive attachments only.
	ThingName string
	IPAddress string
	// Indexed says that it counts as the connection of the thing named like
	// the client id.
	Indexed bool
	// KeepAlive is in seconds.
	KeepAlive    int
	CleanSession bool
}

// Connection is the recorded state of one client id.
type Connection struct {
	ClientID  string
	Connected bool
	SessionID string
	Principal fleet.Principal
	ThingName string
	IPAddress string
	Indexed   bool
	// KeepAlive is in seconds.
	KeepAlive    int
	CleanSession bool
	// Version is that of the client's newest connection.
	Version int64
	// Timestamp is when it connected, or when it went.
	Timestamp time.Time
	// Reason is why it went; empty while connected.
	Reason string
}

// record is the stored form; times in milliseconds.
type record struct {
	Schema       int             `json:"v"`
	Connected    bool            `json:"connected"`
	SessionID    string          `json:"sessionId"`
	Principal    fleet.Principal `json:"principal"`
	ThingName    string          `json:"thingName,omitempty"`
	IPAddress    string          `json:"ipAddress,omitempty"`
	Indexed      bool            `json:"indexed,omitempty"`
	KeepAlive    int             `json:"keepAlive,omitempty"`
	CleanSession bool            `json:"cleanSession,omitempty"`
	Version      int64           `json:"version"`
	At           int64           `json:"at"`
	Reason       string          `json:"reason,omitempty"`
}

// connection is the record as callers see it.
func (r *record) connection(clientID string) Connection {
	return Connection{
		ClientID: clientID, Connected: r.Connected, SessionID: r.SessionID, Principal: r.Principal, ThingName: r.ThingName,
		IPAddress: r.IPAddress, Indexed: r.Indexed, KeepAlive: r.KeepAlive, CleanSession: r.CleanSession,
		Version: r.Version, Timestamp: time.UnixMilli(r.At).UTC(), Reason: r.Reason,
	}
}

// decode reads a stored record.
func decode(stored store.Record) (*record, error) {
	var r record
	if err := json.Unmarshal(stored.Value, &r); err != nil {
		return nil, fmt.Errorf("decode %s: %w", stored.Key, err)
	}
	if r.Schema != schema {
		return nil, fmt.Errorf("decode %s: schema version %d is not known to this program", stored.Key, r.Schema)
	}
	return &r, nil
}

// Options of New; all but Registerer are required.
type Options struct {
	Store      store.Store
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Service records presence for all accounts. It is safe for concurrent use.
type Service struct {
	store  store.Store
	now    func() time.Time
	log    *slog.Logger
	queue  *queue
	merged prometheus.Counter
	// versions of the sessions that are connected, by session id; they belong
	// to Run.
	versions map[string]int64
}

// New returns a service; Run commits what it is told.
func New(o Options) *Service {
	s := &Service{
		store: o.Store, now: o.Now, log: o.Logger, queue: newQueue(), versions: map[string]int64{},
		merged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_presence_merged_total", Help: "Lifecycle facts merged away because they came faster than they could be stored.",
		}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.merged)
	}
	return s
}

// Connected reports an accepted connection. It does not block.
func (s *Service) Connected(session Session, at time.Time) {
	s.tell(fact{session: session, what: connected, at: at})
}

// Disconnected reports the end of a connection. It does not block.
func (s *Service) Disconnected(session Session, reason string, at time.Time) {
	s.tell(fact{session: session, what: disconnected, reason: reason, at: at})
}

// ConnectFailed reports a refused connection. It does not block.
func (s *Service) ConnectFailed(session Session, reason string, at time.Time) {
	s.tell(fact{session: session, what: refused, reason: reason, at: at})
}

// tell queues a fact and counts what was merged away for it.
func (s *Service) tell(f fact) {
	if n := s.queue.add(f); n > 0 {
		s.merged.Add(float64(n))
	}
}

// Get returns the recorded state of a client, or fault.ResourceNotFound for
// one that never connected.
func (s *Service) Get(ctx context.Context, account fleet.Account, clientID string) (Connection, error) {
	stored, err := s.store.Get(ctx, keyOf(account, clientID))
	if errors.Is(err, store.ErrNotFound) {
		return Connection{}, fault.New(fault.ResourceNotFound, "client %s has never connected", clientID)
	}
	if err != nil {
		return Connection{}, fmt.Errorf("read connection of %q: %w", clientID, err)
	}
	r, err := decode(stored)
	if err != nil {
		return Connection{}, err
	}
	return r.connection(clientID), nil
}

// EachConnection calls fn for every recorded client of every account.
func EachConnection(ctx context.Context, r store.Reader, fn func(fleet.Account, Connection) error) error {
	return r.Scan(ctx, store.Under(kind), func(stored store.Record) error {
		found, err := decode(stored)
		if err != nil {
			return err
		}
		parts := stored.Key.Parts()
		return fn(fleet.Account(parts[1]), found.connection(parts[2]))
	})
}

// keyOf is where a client's record is stored.
func keyOf(account fleet.Account, clientID string) store.Key {
	return store.K(kind, string(account), clientID)
}
