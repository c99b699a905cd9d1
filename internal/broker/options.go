package broker

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/topic"
)

// Options are a broker's surroundings. Gatekeeper, Logger and Now are
// required.
type Options struct {
	Profile topic.Profile
	// Limits default to DefaultLimits of the profile.
	Limits *Limits
	// Quotas and Admission are off where they are zero.
	Quotas     Quotas
	Admission  AdmissionOptions
	Gatekeeper Gatekeeper
	// Service may be nil: no reserved topic exists then.
	Service Service
	// Observer may be nil.
	Observer Observer
	// Keeper may be nil: nothing outlives the process then.
	Keeper Keeper
	Logger *slog.Logger
	// Registerer may be nil: metrics are counted and not shown.
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Limits bound what one connection may ask for and hold.
type Limits struct {
	Topic topic.Limits
	// MaxPacket bounds a packet from a client with its fixed header, MaxPayload
	// the message inside; MaxWillPayload is bounded by the encoding.
	MaxPacket  int
	MaxPayload int
	// MaxClientID is in bytes.
	MaxClientID int
	// MaxFilters is the number of filters in one SUBSCRIBE, 0 for no bound.
	MaxFilters int
	// MaxSubscriptions is the number held by one connection.
	MaxSubscriptions int
	// MaxQoS is the highest quality of service that clients may use.
	MaxQoS byte
	// MaxInflight is the number of unacknowledged QoS 1 messages each way.
	MaxInflight int
	// MaxAlias is the highest topic alias a client may use.
	MaxAlias int
	// KeepAlive bounds, in seconds; MinKeepAlive 0 leaves the client's wish alone.
	MinKeepAlive uint16
	MaxKeepAlive uint16
	// MaxQueue and MaxQueueBytes bound the messages that wait for one session,
	// MaxGroupQueue those that wait for one shared group, and MaxQueuedTotal the
	// bytes of all of them; the newest is dropped beyond them.
	MaxQueue       int
	MaxQueueBytes  int
	MaxGroupQueue  int
	MaxQueuedTotal int64
	// MaxGroups and MaxGroupMembers bound the shared groups of an account and
	// the members of one.
	MaxGroups       int
	MaxGroupMembers int
	// MaxRetained is the number of messages that an account retains.
	MaxRetained int
	// MaxSessionExpiry is the longest that a session outlives its connection, in
	// seconds; NeverExpires for no bound. Clients of MQTT 3.1.1 get it.
	MaxSessionExpiry uint32
	// RetryInterval is when an unacknowledged message is sent again on the same
	// connection, then ever more seldom; 0 for never. RetryFor is when it is
	// dropped.
	RetryInterval time.Duration
	RetryFor      time.Duration
	// MarkDuplicates sets the DUP flag on what is sent again.
	MarkDuplicates bool
	// HonourRetain leaves the retain flag as published for subscribers that ask.
	HonourRetain bool
	// MaxPending bounds the encoded bytes that wait for the peer to read; QoS 0
	// messages are dropped beyond it.
	MaxPending int
	// MaxUserProperties, MaxContentType and MaxCorrelationData are in bytes.
	MaxUserProperties  int
	MaxContentType     int
	MaxCorrelationData int
	// HandshakeTimeout bounds TLS, ConnectTimeout the wait for CONNECT, and
	// WriteTimeout how long a peer may take nothing while there is something to
	// send; CloseTimeout is left for the last bytes to a peer that is dismissed.
	HandshakeTimeout time.Duration
	ConnectTimeout   time.Duration
	WriteTimeout     time.Duration
	CloseTimeout     time.Duration
	// MaxHandshakes is the number of TLS handshakes at once, MaxSourceHandshakes
	// that of one peer address; 0 leaves a source all of them. A peer that says
	// nothing keeps its place for HandshakeTimeout.
	MaxHandshakes       int
	MaxSourceHandshakes int
}

// maxKeptName is the longest client id, retained topic and shared filter, in
// bytes: they are parts of keys, which engines bound.
const maxKeptName = 1024

// DefaultLimits returns the service's quotas for the AWS profile, and what
// this broker can bear for the standard one.
func DefaultLimits(p topic.Profile) Limits {
	l := Limits{
		Topic:              topic.DefaultLimits(p),
		MaxPacket:          149504,
		MaxPayload:         128 << 10,
		MaxClientID:        128,
		MaxFilters:         8,
		MaxSubscriptions:   50,
		MaxInflight:        100,
		MaxAlias:           8,
		MinKeepAlive:       30,
		MaxKeepAlive:       1200,
		MaxQoS:             1,
		MaxQueue:           100_000,
		MaxQueueBytes:      64 << 20,
		MaxGroupQueue:      20_000,
		MaxQueuedTotal:     1 << 30,
		MaxGroups:          10_000,
		MaxGroupMembers:    100,
		MaxRetained:        500_000,
		MaxSessionExpiry:   3600,
		RetryInterval:      20 * time.Second,
		RetryFor:           time.Hour,
		MaxPending:         1 << 20,
		MaxUserProperties:  8 << 10,
		MaxContentType:     256,
		MaxCorrelationData: 2 << 10,
		HandshakeTimeout:   10 * time.Second,
		ConnectTimeout:     10 * time.Second,
		WriteTimeout:       20 * time.Second,
		CloseTimeout:       time.Second,
		MaxHandshakes:      256,
		// Behind one address there may be a whole site: its devices take turns.
		MaxSourceHandshakes: 64,
	}
	if p == topic.Standard {
		// A filter costs memory for each of its levels.
		l.Topic.MaxSlashes = 200
		l.MaxPayload = l.MaxPacket
		l.MaxClientID = maxKeptName
		l.MaxQoS = 2
		l.MaxSessionExpiry = NeverExpires
		l.RetryInterval, l.MarkDuplicates, l.HonourRetain = 0, true, true
		l.MaxGroupMembers = 10_000
		l.MaxFilters = 0
		l.MaxSubscriptions = 10000
		l.MinKeepAlive, l.MaxKeepAlive = 0, 65535
		l.MaxUserProperties, l.MaxContentType, l.MaxCorrelationData = l.MaxPacket, 65535, 65535
	}
	return l
}

// retryTicks is RetryInterval in ticks.
func (l *Limits) retryTicks() int64 { return int64(l.RetryInterval / tickLength) }

// ListenerOptions belong to one listener.
type ListenerOptions struct {
	// Name appears in ConnectRequest and SessionInfo.
	Name string
	// Account chooses the account by the server name of TLS, "" without one.
	Account func(serverName string) fleet.Account
	// Transport is TransportTCP when empty and the connection has no TLS, else
	// TransportTLS.
	Transport Transport
	// Attachment is handed to the Gatekeeper with each CONNECT: what whoever
	// accepted the connection has found out about it, such as a caller proven by
	// the request that opened a WebSocket.
	Attachment any
}
