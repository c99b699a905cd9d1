// Package presence knows which client is connected, since when, and why it is
// not. The broker tells it of sessions; it records them and appends the
// lifecycle events, in order for each client. It knows no packets and makes no
// topics.
//
// Versions belong to connections, of which a session that outlives them has
// several: connect and disconnect of one carry the same version, and that of a
// connection which was taken over is the lower one.
//
// Telling never blocks: facts wait in memory, a bounded number for each
// client, and Run commits them in batches. When a client
// comes and goes faster than the store takes it, whole connections in the
// middle are merged away and counted; the newest state always gets in. Changes
// of subscriptions leave no record, only events: under the same pressure those
// of one connection are joined, and the oldest are given up and counted.
//
// These are the raw facts of AWS's lifecycle events. What they mean for a device,
// with wait states, planned sleep and flapping, is for package connectivity.
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
// at 0, as in AWS's lifecycle events. A session that lasts longer keeps the
// version for as long; one that lasts shorter does not shorten the hour, in
// which consumers of the events ignore versions that go down.
const forgetAfter = time.Hour

// reasonServerError is why connections ended that a crash of the server cut.
const reasonServerError = "SERVER_ERROR"

// Session is one connection as the broker knows it.
type Session struct {
	Account  fleet.Account
	ClientID string
	// SessionID stays the same over the connections of a persistent session;
	// ConnectionID is each connection's own.
	SessionID    string
	ConnectionID string
	// Principal is the certificate for most.
	Principal fleet.Principal
	// ThingName is set for exclusive attachments only.
	ThingName string
	// RemoteAddr is the peer's address with port, IPAddress the same without,
	// and LocalAddr what the peer reached, with port.
	RemoteAddr string
	IPAddress  string
	LocalAddr  string
	// Protocol and Transport are as in event.Session.
	Protocol  string
	Transport string
	// Indexed says that it counts as the connection of the thing named like
	// the client id.
	Indexed bool
	// Provisioning is as in event.Session.
	Provisioning bool
	// KeepAlive is in seconds.
	KeepAlive int
	// SessionExpiry is how many seconds the session outlives the connection, 0
	// for a clean one.
	SessionExpiry int64
}

// Connection is the recorded state of one client id: its newest connection.
type Connection struct {
	Session
	Connected bool
	// Version is that of the client's newest connection.
	Version int64
	// ConnectedAt is when it connected; zero in records from before it was kept.
	ConnectedAt time.Time
	// Timestamp is when it connected, or when it went.
	Timestamp time.Time
	// Reason is why it went; empty while connected.
	Reason string
}

// CleanSession reports whether nothing outlives the connection.
func (c *Connection) CleanSession() bool { return c.SessionExpiry == 0 }

// record is the stored form; times in milliseconds. What came after the first
// form is optional, so that both programs read both.
type record struct {
	Schema        int             `json:"v"`
	Connected     bool            `json:"connected"`
	SessionID     string          `json:"sessionId"`
	ConnectionID  string          `json:"connectionId,omitempty"`
	Principal     fleet.Principal `json:"principal"`
	ThingName     string          `json:"thingName,omitempty"`
	IPAddress     string          `json:"ipAddress,omitempty"`
	RemoteAddr    string          `json:"remoteAddr,omitempty"`
	LocalAddr     string          `json:"localAddr,omitempty"`
	Protocol      string          `json:"protocol,omitempty"`
	Transport     string          `json:"transport,omitempty"`
	Indexed       bool            `json:"indexed,omitempty"`
	Provisioning  bool            `json:"provisioning,omitempty"`
	KeepAlive     int             `json:"keepAlive,omitempty"`
	CleanSession  bool            `json:"cleanSession,omitempty"`
	SessionExpiry int64           `json:"sessionExpiry,omitempty"`
	Version       int64           `json:"version"`
	ConnectedAt   int64           `json:"connectedAt,omitempty"`
	At            int64           `json:"at"`
	Reason        string          `json:"reason,omitempty"`
}

// connection is the record as callers see it.
func (r *record) connection(account fleet.Account, clientID string) Connection {
	c := Connection{
		Session: r.session(account, clientID), Connected: r.Connected, Version: r.Version,
		Timestamp: time.UnixMilli(r.At).UTC(), Reason: r.Reason,
	}
	switch {
	case r.ConnectedAt != 0:
		c.ConnectedAt = time.UnixMilli(r.ConnectedAt).UTC()
	case r.Connected:
		c.ConnectedAt = c.Timestamp
	}
	return c
}

// session is the connection that the record is about.
func (r *record) session(account fleet.Account, clientID string) Session {
	return Session{
		Account: account, ClientID: clientID, SessionID: r.SessionID, ConnectionID: r.ConnectionID, Principal: r.Principal,
		ThingName: r.ThingName, RemoteAddr: r.RemoteAddr, IPAddress: r.IPAddress, LocalAddr: r.LocalAddr,
		Protocol: r.Protocol, Transport: r.Transport, Indexed: r.Indexed, Provisioning: r.Provisioning, KeepAlive: r.KeepAlive, SessionExpiry: r.SessionExpiry,
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
	// versions of the connections that are open, by connection id; they belong
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

// Subscribed reports filters that a connection added to its subscriptions. It
// does not block.
func (s *Service) Subscribed(session Session, filters []string, at time.Time) {
	s.tell(fact{session: session, what: subscribed, filters: filters, at: at})
}

// Unsubscribed reports filters that a connection gave up. It does not block.
func (s *Service) Unsubscribed(session Session, filters []string, at time.Time) {
	s.tell(fact{session: session, what: unsubscribed, filters: filters, at: at})
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
	return r.connection(account, clientID), nil
}

// EachConnection calls fn for every recorded client of every account.
func EachConnection(ctx context.Context, r store.Reader, fn func(fleet.Account, Connection) error) error {
	return EachConnectionOf(ctx, r, "", fn)
}

// EachConnectionOf is EachConnection for one account, or all for the empty one.
func EachConnectionOf(ctx context.Context, r store.Reader, of fleet.Account, fn func(fleet.Account, Connection) error) error {
	within := store.Under(kind)
	if of != "" {
		within = store.Under(kind, string(of))
	}
	return r.Scan(ctx, within, func(stored store.Record) error {
		found, err := decode(stored)
		if err != nil {
			return err
		}
		parts := stored.Key.Parts()
		account := fleet.Account(parts[1])
		return fn(account, found.connection(account, parts[2]))
	})
}

// keyOf is where a client's record is stored.
func keyOf(account fleet.Account, clientID string) store.Key {
	return store.K(kind, string(account), clientID)
}
