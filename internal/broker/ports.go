package broker

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
)

// Guard answers for one connection. It is asked on every packet and delivery,
// by many goroutines at once, so that the answer must be cheap. A question may
// still arrive while Close runs and after it; any answer is good then.
type Guard interface {
	CanPublish(topic string, retain bool) bool
	CanSubscribe(filter string) bool
	// CanReceive is asked with the prefix `$share/{group}/` before the topic for
	// the messages of a shared subscription.
	CanReceive(topic string) bool
	// Enrich appends to a message's own user properties those that messages of
	// this connection gain at this moment; subscribers, the reserved topics'
	// service and whoever keeps the message see them. It is asked for each
	// message that the connection publishes, its will included.
	Enrich(own []mqtt.UserProperty) []mqtt.UserProperty
	// Close releases the guard when the connection has ended.
	Close()
}

// Gatekeeper decides on a CONNECT: identity, state of the certificate, policy,
// the will's topic included. The error's fault code chooses the answer:
// Forbidden and Unauthorized become "not authorized", Throttling "quota
// exceeded", everything else "server unavailable". Admit may fill in Account
// and Principal of the request as soon as it knows them: a refusal is reported
// with what it left there.
type Gatekeeper interface {
	Admit(ctx context.Context, c *ConnectRequest) (Admission, error)
}

// ConnectRequest is a well-formed CONNECT with its surroundings.
type ConnectRequest struct {
	// Account is the listener's choice by ServerName.
	Account   fleet.Account
	Principal fleet.Principal
	ClientID  string
	// RemoteAddr is the peer's address with port.
	RemoteAddr string
	// ServerName is the name from TLS, empty without.
	ServerName      string
	PeerCertificate *x509.Certificate
	Version         byte
	CleanStart      bool
	// SessionExpiry is what the client asked for, in seconds.
	SessionExpiry uint32
	// Will is nil when there is none.
	Will         *Message
	Username     string
	Password     []byte
	ListenerName string
	// LocalAddr is the address that the peer reached, with port.
	LocalAddr string
	// Secured says that the connection ran over TLS.
	Secured bool
	// ALPN is the protocol that TLS agreed on, empty without.
	ALPN string
	// Transport and Attachment are the listener's.
	Transport  Transport
	Attachment any
}

// Transport is what carries the packets of a connection.
type Transport string

// Transports.
const (
	TransportTCP       Transport = "tcp"
	TransportTLS       Transport = "tls"
	TransportWebSocket Transport = "websocket"
)

// Persistent reports whether the client asked for a session that outlives the
// connection.
func (c *ConnectRequest) Persistent() bool {
	if mqtt.Version(c.Version) == mqtt.V5 {
		return c.SessionExpiry > 0
	}
	return !c.CleanStart
}

// Admission is a Gatekeeper's consent.
type Admission struct {
	Account   fleet.Account
	Principal fleet.Principal
	// ThingName is set for a certificate attached exclusively to one thing.
	ThingName string
	// Indexed is handed on to the Observer: the connection counts as that of
	// the thing named like the client id.
	Indexed bool
	// Transient begins a session anew and ends it with the connection, whatever the
	// client asks for.
	Transient bool
	Guard     Guard
	// Until ends the connection at that time for the reason UntilReason; zero
	// lets it last.
	Until       time.Time
	UntilReason DisconnectReason
}

// Done ends a service's part in a publish: the publisher's acknowledgement waits
// for it, and acknowledgements leave in the order in which publishes arrived. An
// error means that the message was not taken in. Answers, which are not retained,
// go to their subscribers behind the acknowledgement, in one write where both go
// to one client.
type Done func(err error, answers ...Message)

// Service receives publishes to reserved topics (`$…`), after policy.
type Service interface {
	// Reserved is asked for each publish to a reserved topic. With ok false there
	// is no such topic and the connection ends. Otherwise the message is also
	// routed to subscribers, unless its topic is private. It must not block: a service that needs the disk
	// returns deferred and calls done exactly once later, from any goroutine.
	// When deferred is false done must not be called. p and all it refers to
	// belong to the service from now on.
	Reserved(p *Publish, done Done) (deferred, ok bool)
	// Private reports whether publishes to a reserved topic are for the service
	// alone and not routed to subscribers.
	Private(topic string) bool
	// CanSubscribeReserved reports whether a reserved filter can match a topic
	// that exists.
	CanSubscribeReserved(filter string) bool
	// CanPublishReserved reports whether clients may publish to a reserved topic.
	// It is asked for wills, which only subscribers receive.
	CanPublishReserved(topic string) bool
}

// Observer is told of the life of sessions. It must not block, nor call the
// broker. Connected comes before Disconnected of the same session, and of
// sessions of one client id in the order in which they take over; the
// Disconnected of a session that was taken over may come after the Connected of
// its successor.
type Observer interface {
	Connected(s *SessionInfo)
	Disconnected(s *SessionInfo, reason DisconnectReason, initiatedByClient bool, at time.Time)
	// ConnectFailed is a CONNECT that was refused after it was understood.
	ConnectFailed(s *SessionInfo, reason string)
	// Subscribed and Unsubscribed are told once for each packet that changed a
	// subscription, with the filters that were granted or given up.
	Subscribed(s *SessionInfo, filters []string, at time.Time)
	Unsubscribed(s *SessionInfo, filters []string, at time.Time)
	// Denied is a packet, or a delivery, that policy refused. Refused deliveries
	// are told at most once a second for each session and topic.
	Denied(d Denial)
}

// ConnectFailureReason is what ConnectFailed is told when policy or identity
// was the reason.
const (
	ConnectFailureAuthorization = "AUTHORIZATION_FAILED"
	ConnectFailureThrottled     = "THROTTLED"
	ConnectFailureUnavailable   = "SERVER_ERROR"
)

// Policy actions of a Denial.
const (
	ActionConnect   = "iot:Connect"
	ActionPublish   = "iot:Publish"
	ActionRetain    = "iot:RetainPublish"
	ActionSubscribe = "iot:Subscribe"
	ActionReceive   = "iot:Receive"
)

// Denial is one refusal.
type Denial struct {
	Account   fleet.Account
	Principal fleet.Principal
	ClientID  string
	SessionID string
	Action    string
	// Resource is the topic, filter or client id.
	Resource string
	// Packet is the type of the packet that was refused, or PUBLISH for a delivery.
	Packet string
	// Detail is the gatekeeper's message for a refused CONNECT.
	Detail string
	At     time.Time
}

// Message is an application message outside of any packet.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
	// Properties travel to MQTT 5 receivers: format, content type, response
	// topic, correlation data, expiry and user properties.
	Properties mqtt.Properties
}

// Publish is a message to a reserved topic.
type Publish struct {
	Account   fleet.Account
	Principal fleet.Principal
	ClientID  string
	SessionID string
	// ConnectionID is empty for what did not come by MQTT.
	ConnectionID string
	ThingName    string
	// Indexed says that the connection counts as that of the thing named like
	// the client id.
	Indexed    bool
	RemoteAddr string
	Topic      string
	Payload    []byte
	QoS        byte
	// Properties are those of MQTT 5, empty before.
	Properties mqtt.Properties
	// ReplyTo delivers to the connection that published.
	ReplyTo func(topic string, payload []byte)
}

// Reply delivers a message to the publishing connection alone, whether it has
// subscribed or not, and to no one else: with the quality of service of its
// subscription, or 1 without one. It is never stored: when the connection has
// ended, the message is dropped, and to a session that outlives its connection it
// goes with quality of service 0. It may be called from any goroutine.
func (p *Publish) Reply(topic string, payload []byte) {
	if p.ReplyTo != nil {
		p.ReplyTo(topic, payload)
	}
}

// SessionInfo describes one connection of a session; it does not change.
type SessionInfo struct {
	Account   fleet.Account
	Principal fleet.Principal
	ClientID  string
	// SessionID lives as long as the session, ConnectionID as long as one
	// connection of it.
	SessionID    string
	ConnectionID string
	ThingName    string
	Indexed      bool
	// Transient is as in Admission.
	Transient  bool
	RemoteAddr string
	// RemoteIP is RemoteAddr without the port.
	RemoteIP string
	// LocalAddr is the address that the peer reached, with port.
	LocalAddr    string
	ListenerName string
	Transport    Transport
	ServerName   string
	Version      byte
	CleanStart   bool
	// SessionExpiry is how many seconds the session outlives the connection,
	// 0 for a clean one.
	SessionExpiry uint32
	// KeepAlive is the effective value in seconds.
	KeepAlive   uint16
	ConnectedAt time.Time
}
