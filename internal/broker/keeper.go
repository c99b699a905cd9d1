package broker

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
)

// Keeper makes durable what must outlive the process: persistent sessions, the
// messages that wait for them or for their shared groups, and retained
// messages. Changes of one key are applied in the order of their calls.
type Keeper interface {
	// Save takes one change. It must not block, nor call the broker. done, unless
	// nil, is called exactly once from any other goroutine: with nil when the
	// change is durable, with an error when it could not be made so.
	Save(c Change, done func(error))
	// Load tells of everything kept, sessions before messages, and the messages
	// of one box in the order of their numbers. It is called before anything is
	// saved.
	Load(ctx context.Context, fn func(Change) error) error
}

// ChangeKind says what a Change is about.
type ChangeKind uint8

// Kinds of changes.
const (
	// PutSession writes Session under Box, the client id.
	PutSession ChangeKind = iota
	// DropSession removes a session's record; its messages are dropped one by
	// one.
	DropSession
	// PutMessage writes Message as number Seq of Box: a client id, or the filter
	// of a shared subscription with its prefix.
	PutMessage
	// DropMessage removes number Seq of Box.
	DropMessage
	// PutRetained writes Message as what the topic Box retains.
	PutRetained
	// DropRetained removes what the topic Box retains.
	DropRetained
)

// Change is one durable fact. Which fields count depends on Kind.
type Change struct {
	Kind    ChangeKind
	Account fleet.Account
	Box     string
	Seq     uint64
	Message *Kept
	// Retain is the flag that the receiver of a PutMessage will see.
	Retain  bool
	Session *SessionRecord
}

// Kept is a message that outlives the buffer it arrived in. It is shared by
// everybody who holds it and never changes.
type Kept struct {
	Topic   string
	Payload []byte
	QoS     byte
	// Properties may be nil.
	Properties *mqtt.Properties
	// StoredAt is when it arrived.
	StoredAt time.Time
	// ExpiresAt is when it becomes worthless; zero for never.
	ExpiresAt time.Time
}

// size is what a message counts for in bounds of memory.
func (k *Kept) size() int {
	const overhead = 160
	return overhead + len(k.Topic) + len(k.Payload)
}

// expired reports whether the message is worthless.
func (k *Kept) expired(now time.Time) bool {
	return !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt)
}

// SessionRecord is the durable form of a persistent session.
type SessionRecord struct {
	SessionID string
	// Version is the protocol level; only the same one may resume.
	Version byte
	// Expiry is how many seconds the session outlives a connection;
	// NeverExpires for ever.
	Expiry    uint32
	Principal fleet.Principal
	// After is the number of the newest message that may be left of a session
	// before with the same client id; this one has none up to it.
	After     uint64
	ThingName string
	Indexed   bool
	KeepAlive uint16
	// ConnectedAt is the time of the newest connection.
	ConnectedAt time.Time
	// DisconnectedAt is zero while connected: the process may have ended since.
	DisconnectedAt time.Time
	Reason         DisconnectReason
	Subscriptions  []SubscriptionRecord
	// Will is the will of the connection, or of the one before while it waits;
	// nil without.
	Will *WillRecord
}

// WillRecord is a will that is not published yet.
type WillRecord struct {
	Message Message
	// Delay is in seconds from the end of the connection.
	Delay uint32
	// Due is when it is to be published; zero while the client is connected.
	Due time.Time
}

// NeverExpires is the session expiry that lasts for ever.
const NeverExpires = 1<<32 - 1

// SubscriptionRecord is one subscription of a persistent session.
type SubscriptionRecord struct {
	Filter            string
	QoS               byte
	Identifier        uint32
	NoLocal           bool
	RetainAsPublished bool
}

// noKeeper keeps nothing: sessions live as long as the process.
type noKeeper struct{}

// Save forgets; nobody waits for it.
func (noKeeper) Save(_ Change, done func(error)) {
	if done != nil {
		go done(nil)
	}
}

// Load has nothing to tell.
func (noKeeper) Load(context.Context, func(Change) error) error { return nil }
