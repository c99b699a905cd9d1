package broker

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
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

// sessionOf returns the session of a client id, or nil.
func (b *Broker) sessionOf(account fleet.Account, clientID string) *session {
	r := b.realmIfAny(account)
	if r == nil {
		return nil
	}
	return r.find(clientID)
}

// Connection describes the connection or stored session of a client id, or
// reports false for neither.
func (b *Broker) Connection(account fleet.Account, clientID string) (ConnectionInfo, bool) {
	s := b.sessionOf(account, clientID)
	if s == nil {
		return ConnectionInfo{}, false
	}
	return s.describe()
}

// describe is the session's connection or, while the client is away, what is
// stored; false when it is neither.
func (s *session) describe() (ConnectionInfo, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch c := s.link.Load(); {
	case c != nil && !c.dead:
		return ConnectionInfo{SessionInfo: c.info, Connected: true}, true
	case s.away != nil:
		return ConnectionInfo{SessionInfo: s.away.info, DisconnectedAt: s.away.at, Reason: s.away.reason}, true
	default:
		return ConnectionInfo{}, false
	}
}

// Remove ends a client's connection with API_INITIATED_DISCONNECT, and its
// stored session where that is wanted. It reports false when there was neither.
func (b *Broker) Remove(account fleet.Account, clientID string, o RemoveOptions) bool {
	s := b.sessionOf(account, clientID)
	return s != nil && b.remove(s, o)
}

// RemovePrincipal is Remove for every client whose newest connection is, or
// was, one of the principal. It returns what there was, in no order.
func (b *Broker) RemovePrincipal(account fleet.Account, principalID string, o RemoveOptions) []ConnectionInfo {
	r := b.realmIfAny(account)
	if r == nil {
		return nil
	}
	var removed []ConnectionInfo
	for _, s := range r.all() {
		if info := s.newest(); info.Principal.ID == principalID && b.remove(s, o) {
			removed = append(removed, info)
		}
	}
	return removed
}

// newest is the session's connection, one that is about to end too, or what is
// stored of the last; without any it is empty.
func (s *session) newest() ConnectionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.link.Load(); c != nil {
		return ConnectionInfo{SessionInfo: c.info, Connected: !c.dead}
	}
	if s.away != nil {
		return ConnectionInfo{SessionInfo: s.away.info, DisconnectedAt: s.away.at, Reason: s.away.reason}
	}
	return ConnectionInfo{}
}

// remove ends one session's connection and, if asked, the session.
func (b *Broker) remove(s *session, o RemoveOptions) bool {
	why := because(ReasonAPIInitiated)
	why.noWill, why.endSession = o.WithholdWill, o.EndSession
	s.mu.Lock()
	c := s.link.Load()
	ended := c == nil && !s.over && o.EndSession
	if ended {
		s.endLocked()
		if o.WithholdWill && s.away != nil && s.away.will != nil {
			s.away.will.timer.Stop()
			s.away.will = nil
		}
	}
	if c != nil && o.EndSession {
		s.expiry = 0 // the connection may be ending for another cause already
		s.unrecordLocked(nil)
	}
	known := c != nil || s.away != nil || ended
	s.mu.Unlock()
	if c != nil {
		c.end(why)
	}
	if ended {
		s.realm.leave(s)
		s.discard()
	}
	return known
}

// Subscriptions lists the subscriptions of a connected or stored session in the
// order of their filters, beginning after a filter; next is empty on the last
// page. It reports false when there is no session.
func (b *Broker) Subscriptions(account fleet.Account, clientID, after string, limit int) (page []SubscriptionInfo, next string, ok bool) {
	s := b.sessionOf(account, clientID)
	if s == nil {
		return nil, "", false
	}
	s.mu.Lock()
	for i := range s.subs {
		if s.subs[i].filter > after {
			page = append(page, SubscriptionInfo{Filter: s.subs[i].filter, QoS: s.subs[i].qos})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(page, func(a, b SubscriptionInfo) int { return strings.Compare(a.Filter, b.Filter) })
	if len(page) > limit {
		page = page[:limit]
		next = page[limit-1].Filter
	}
	return page, next, true
}

// Direct delivers a message to one connected client, whether it has subscribed
// or not; its policies for receiving apply. With quality of service 1 it waits
// for the client's acknowledgement. Faults: ResourceNotFound when the client is
// not connected, Forbidden when it may not receive the topic, RequestEntityTooLarge
// when it takes no packet of that size, Throttling when too much waits for it,
// Timeout when ctx ends first.
func (b *Broker) Direct(ctx context.Context, account fleet.Account, clientID string, m Message) error {
	if err := b.checkMessage(&m); err != nil {
		return err
	}
	away := fault.New(fault.ResourceNotFound, "Client %s is not connected", clientID)
	s := b.sessionOf(account, clientID)
	if s == nil {
		return away
	}
	c := s.link.Load()
	if c == nil {
		return away
	}
	if !c.guard.CanReceive(m.Topic) {
		c.deny(m.Topic)
		return fault.New(fault.Forbidden, "Client %s may not receive the topic %s", clientID, m.Topic)
	}
	order, acknowledged, err := c.send(&m)
	if err != nil || m.QoS == 0 {
		return err
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waiters, order)
	}()
	select {
	case <-acknowledged:
		return nil
	case <-c.gone:
		return fault.New(fault.Timeout, "Client %s left before it acknowledged the message", clientID)
	case <-ctx.Done():
		return fault.Wrap(fault.Timeout, ctx.Err(), "Client %s has not acknowledged the message in time", clientID)
	}
}

// send appends a message for this client alone; the channel is closed when the
// client acknowledges it.
func (c *connection) send(m *Message) (order uint64, acknowledged <-chan struct{}, err error) {
	b := c.broker.batch()
	defer c.broker.release(b)
	b.begin(m)
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.link.Load() != c || c.dead:
		return 0, nil, fault.New(fault.ResourceNotFound, "Client %s is not connected", s.clientID)
	case m.QoS > 0 && (len(s.queue.items) > 0 || s.refilling || !s.hasRoomLocked(c)), !s.hasOutputRoomLocked(c):
		return 0, nil, fault.New(fault.Throttling, "Client %s has too many unacknowledged messages", s.clientID)
	}
	p := parcel{qos: m.QoS}
	if m.QoS > 0 {
		p.message = b.keep()
	}
	sent := b.sent[m.QoS]
	b.deliverNow(c, p)
	if b.sent[m.QoS] == sent {
		return 0, nil, fault.New(fault.RequestEntityTooLarge, "Client %s takes no packet of this size", s.clientID)
	}
	if m.QoS == 0 {
		return 0, nil, nil
	}
	told := make(chan struct{})
	if s.waiters == nil {
		s.waiters = make(map[uint64]chan<- struct{}, 1)
	}
	s.waiters[s.order] = told
	return s.order, told, nil
}

// PublishDurably is Publish for a message that must not be lost: it returns
// when the message is stored for every persistent session that it is for and,
// when retained, for later subscribers.
func (b *Broker) PublishDurably(ctx context.Context, account fleet.Account, m Message) error {
	if err := b.checkMessage(&m); err != nil {
		return err
	}
	r := b.realm(account)
	all := newReceipt()
	if err := b.publishWith(r, &m, all); err != nil {
		return err
	}
	stored := make(chan error, 1)
	all.finish(nil, func(_ *batch, err error) { stored <- err })
	select {
	case err := <-stored:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publishWith routes a message, with a claim on all for each thing to wait for.
// An error means that it was refused.
func (b *Broker) publishWith(r *realm, m *Message, all *receipt) error {
	w := b.batch()
	defer b.release(w)
	w.begin(m)
	w.acknowledged, w.receipt = true, all
	if m.Retain {
		if err := w.retain(r, all.claim()); err != nil {
			return err
		}
	}
	w.route(r.router)
	return nil
}

// Retained returns the message that a topic retains.
func (b *Broker) Retained(account fleet.Account, topic string) (RetainedMessage, bool) {
	r := b.realmIfAny(account)
	if r == nil {
		return RetainedMessage{}, false
	}
	k := r.retained.get(topic)
	if k == nil {
		return RetainedMessage{}, false
	}
	return k.retained(), true
}

// RetainedTopics lists retained messages by topic, level by level, beginning
// after a topic; next is empty on the last page.
func (b *Broker) RetainedTopics(account fleet.Account, after string, limit int) (page []RetainedMessage, next string) {
	r := b.realmIfAny(account)
	if r == nil {
		return nil, ""
	}
	found, more := r.retained.page(after, limit)
	for _, k := range found {
		page = append(page, k.retained())
	}
	if more {
		next = page[len(page)-1].Topic
	}
	return page, next
}

// retained returns a kept message as callers see it.
func (k *Kept) retained() RetainedMessage {
	m := RetainedMessage{Message: Message{Topic: k.Topic, Payload: k.Payload, QoS: k.QoS, Retain: true}, StoredAt: k.StoredAt}
	if k.Properties != nil {
		m.Properties = *k.Properties
		m.Properties.Set &^= mqtt.Of(mqtt.PropMessageExpiry)
	}
	return m
}
