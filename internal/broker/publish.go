package broker

import (
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// Reasons for which a PUBLISH ends its connection.
var (
	errQoS2            = errors.New("quality of service 2 is not supported")
	errRetain          = errors.New("reserved topics and those of more than 1024 bytes retain no messages")
	errPayload         = errors.New("payload exceeds the limit")
	errAlias           = errors.New("topic alias is out of range or unknown")
	errSubscriptionID  = errors.New("subscription identifier in a client's PUBLISH")
	errUnknownReserved = errors.New("reserved topic does not exist")
	errProperties      = errors.New("properties exceed the limits")
)

// publish takes in one PUBLISH: checks, policy, the reserved topics' service,
// subscribers, acknowledgement.
func (c *connection) publish(b *batch, packet []byte) *cause {
	p := &b.in
	if err := p.Decode(packet, c.version); err != nil {
		return causeOf(err)
	}
	name, why := c.topicOf(p)
	if why == nil {
		why = c.checkPublish(p, name)
	}
	if why != nil {
		return why
	}
	if p.QoS == 2 && c.session.repeated(p.PacketID) {
		c.acknowledge(b, mqtt.TypePubrec, p.PacketID, mqtt.Success)
		return nil
	}
	if c.allowance != nil {
		if over, why := c.overQuota(b, p); over {
			return why
		}
	}
	if p.QoS > 0 {
		if why := c.waitForAcks(b); why != nil {
			return why
		}
	}
	if p.QoS == 2 {
		c.session.note(p.PacketID)
	}
	if !c.guard.CanPublish(name, p.Retain) {
		return c.refusePublish(b, p, name)
	}
	b.received[p.QoS]++
	c.lastPublish.Store(c.broker.wheel.now.Load() + 1)
	return c.accept(b, p, name)
}

// topicOf returns the topic behind name and alias. The last name is kept, so
// that a client that stays with one topic costs no allocation.
func (c *connection) topicOf(p *mqtt.Publish) (string, *cause) {
	if p.Properties.Set.Has(mqtt.PropTopicAlias) {
		return c.resolveAlias(p)
	}
	if string(p.Topic) != c.lastTopic {
		c.lastTopic = string(p.Topic)
	}
	return c.lastTopic, nil
}

// resolveAlias sets or looks up a topic alias.
func (c *connection) resolveAlias(p *mqtt.Publish) (string, *cause) {
	alias := int(p.Properties.TopicAlias)
	if alias > c.broker.limits.MaxAlias {
		return "", clientError(mqtt.TopicAliasInvalid, errAlias)
	}
	if c.aliases == nil {
		c.aliases = make([]string, c.broker.limits.MaxAlias)
	}
	if len(p.Topic) > 0 {
		c.aliases[alias-1] = string(p.Topic)
	}
	if c.aliases[alias-1] == "" {
		return "", clientError(mqtt.TopicAliasInvalid, errAlias)
	}
	return c.aliases[alias-1], nil
}

// checkPublish applies the limits that do not depend on policy.
func (c *connection) checkPublish(p *mqtt.Publish, name string) *cause {
	limits := &c.broker.limits
	switch {
	case len(p.Properties.SubscriptionIDs) > 0:
		return clientError(mqtt.ProtocolError, errSubscriptionID)
	case p.QoS > limits.MaxQoS:
		return clientError(mqtt.QoSNotSupported, errQoS2)
	case len(p.Payload) > limits.MaxPayload:
		return clientError(mqtt.PacketTooLarge, errPayload)
	}
	if err := topic.ValidateName(name, limits.Topic); err != nil {
		return clientError(mqtt.TopicNameInvalid, err)
	}
	if p.Retain && (topic.Reserved(name) || len(name) > maxKeptName) {
		return clientError(mqtt.TopicNameInvalid, errRetain)
	}
	if err := c.broker.checkProperties(&p.Properties); err != nil {
		return clientError(mqtt.QuotaExceeded, err)
	}
	return nil
}

// checkProperties applies the size limits of properties that are passed on.
func (b *Broker) checkProperties(p *mqtt.Properties) error {
	// Empty ones cost memory too, at every subscriber.
	const leastBytes = 8
	if len(p.UserProperties) > b.limits.MaxUserProperties/leastBytes {
		return errProperties
	}
	size := 0
	for i := range p.UserProperties {
		size += len(p.UserProperties[i].Key) + len(p.UserProperties[i].Value)
	}
	if size > b.limits.MaxUserProperties || len(p.ContentType) > b.limits.MaxContentType || len(p.CorrelationData) > b.limits.MaxCorrelationData {
		return errProperties
	}
	return nil
}

// refusePublish answers a PUBLISH that policy forbids: MQTT 5 can say so where
// it is acknowledged, everybody else is disconnected.
func (c *connection) refusePublish(b *batch, p *mqtt.Publish, name string) *cause {
	action := ActionPublish
	if p.Retain && c.guard.CanPublish(name, false) {
		action = ActionRetain
	}
	c.tellDenied(action, name, mqtt.TypePublish)
	if c.version == mqtt.V5 && p.QoS > 0 {
		c.refuse(b, p, mqtt.NotAuthorized)
		return nil
	}
	return because(ReasonAuthError)
}

// refuse answers a PUBLISH that was not taken in.
func (c *connection) refuse(b *batch, p *mqtt.Publish, code mqtt.ReasonCode) {
	if p.QoS == 2 {
		c.session.release2(p.PacketID)
	}
	c.acknowledge(b, ackKind(p.QoS), p.PacketID, code)
}

// accept hands a permitted message to the service of its topic, to what is
// retained and to subscribers, and acknowledges it when all that is done.
func (c *connection) accept(b *batch, p *mqtt.Publish, name string) *cause {
	b.forwarded = c.broker.forward(&p.Properties)
	b.forwarded.UserProperties = c.guard.Enrich(b.forwarded.UserProperties)
	m := &b.message
	m.clear()
	m.topic, m.payload, m.qos, m.properties, m.from = name, p.Payload, p.QoS, &b.forwarded, c
	m.retain = p.Retain
	b.acknowledged = p.QoS > 0
	defer func() { b.acknowledged, b.receipt = false, nil }()
	reserved := strings.HasPrefix(name, "$")
	if reserved {
		if why := c.reserved(b, p, name); why != nil {
			return why
		}
	}
	if p.Retain {
		if err := b.retain(c.session.realm, b.receiptFor()); err != nil {
			return c.refuseRetained(b, p, err)
		}
	}
	matched := true
	if !reserved || !c.broker.service.Private(name) {
		matched = b.route(c.session.realm.router)
	}
	if p.QoS == 0 {
		return nil
	}
	code := mqtt.Success
	if !matched && !reserved && p.QoS == 1 && c.broker.profile == topic.Standard {
		code = mqtt.NoMatchingSubscribers // the service does not tell
	}
	c.confirm(b, p, code)
	return nil
}

// confirm acknowledges a message now, or when its receipt is complete.
func (c *connection) confirm(b *batch, p *mqtt.Publish, code mqtt.ReasonCode) {
	if b.receipt == nil {
		c.acknowledge(b, ackKind(p.QoS), p.PacketID, code)
		return
	}
	slot := c.holdAck(ackKind(p.QoS), p.PacketID)
	b.receipt.finish(b, func(by *batch, err error) { c.settled(by, slot, code, err) })
}

// refuseRetained answers a message that cannot be retained.
func (c *connection) refuseRetained(b *batch, p *mqtt.Publish, err error) *cause {
	switch {
	case p.QoS == 0:
		return nil // dropped and counted
	case c.version == mqtt.V5:
		c.refuse(b, p, pubackCode(err))
		return nil
	default:
		return &cause{reason: ReasonThrottled, err: err}
	}
}

// retain keeps the batch's message for later subscribers. An error means that
// it was refused; done is then called all the same.
func (b *batch) retain(r *realm, done func(error)) error {
	k := b.keep()
	k.StoredAt = b.broker.now() // nobody else holds it yet
	err := r.retained.store(k, done)
	if err != nil {
		b.broker.metrics.dropped[dropRetained].Inc()
	}
	return err
}

// reserved asks the service about a message to a `$` topic.
func (c *connection) reserved(b *batch, p *mqtt.Publish, name string) *cause {
	request := &Publish{
		Account: c.info.Account, Principal: c.info.Principal, ClientID: c.info.ClientID, SessionID: c.info.SessionID,
		ConnectionID: c.info.ConnectionID, Indexed: c.info.Indexed, ThingName: c.info.ThingName, RemoteAddr: c.info.RemoteAddr, Topic: name, Payload: append([]byte{}, p.Payload...),
		QoS: p.QoS, Properties: b.forwarded, ReplyTo: c.reply,
	}
	var taken *receipt
	if p.QoS > 0 {
		taken = newReceipt()
		taken.claim()
	}
	realm, broker := c.session.realm, c.broker
	deferred, ok := c.broker.service.Reserved(request, func(err error, answers ...Message) { realm.answer(broker, taken, err, answers) })
	if !ok {
		return clientError(mqtt.TopicNameInvalid, errUnknownReserved)
	}
	if deferred {
		b.receipt = taken
	}
	return nil
}

// answer ends a service's part in a publish and routes what it answers. What of
// both goes to one client is written at once.
func (r *realm) answer(b *Broker, taken *receipt, err error, answers []Message) {
	w := b.batch()
	defer b.release(w)
	if taken != nil {
		taken.settleIn(w, err)
	}
	for i := range answers {
		if err := b.checkMessage(&answers[i]); err != nil {
			b.logger.Error("answer of our own cannot be published", slog.String("topic", answers[i].Topic), slog.Any("err", err))
			continue
		}
		w.begin(&answers[i])
		w.route(r.router)
	}
}

// forward returns the properties that travel with a message, its expiry
// brought into the service's range.
func (b *Broker) forward(p *mqtt.Properties) mqtt.Properties {
	if p.Empty() {
		return mqtt.Properties{}
	}
	const maxExpiry = 604800 // seven days
	forwarded := mqtt.Properties{
		Set: p.Set & mqtt.Of(mqtt.PropPayloadFormat, mqtt.PropMessageExpiry, mqtt.PropContentType, mqtt.PropResponseTopic,
			mqtt.PropCorrelationData),
		PayloadFormat: p.PayloadFormat, MessageExpiry: p.MessageExpiry, ContentType: p.ContentType,
		ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, UserProperties: p.UserProperties,
	}
	if b.profile == topic.AWS && forwarded.Set.Has(mqtt.PropMessageExpiry) {
		forwarded.MessageExpiry = min(max(forwarded.MessageExpiry, 1), maxExpiry)
	}
	return forwarded
}

// reply delivers a message to this connection alone, as Publish.Reply says.
func (c *connection) reply(name string, payload []byte) {
	b := c.broker.batch()
	defer c.broker.release(b)
	b.begin(&Message{Topic: name, Payload: payload, QoS: 1})
	if c.session.link.Load() == c {
		b.deliver(c.session, parcel{qos: c.session.replyQoS(name)})
	}
}

// replyQoS returns the quality of service of a reply.
func (s *session) replyQoS(name string) byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.persistentLocked() {
		return 0
	}
	qos, subscribed := s.subscribedLocked(name)
	if !subscribed {
		return 1
	}
	return min(qos, 1)
}

// subscribedQoSLocked returns the highest quality of service of the subscriptions
// that match a topic, 0 without one.
func (s *session) subscribedQoSLocked(name string) byte {
	qos, _ := s.subscribedLocked(name)
	return qos
}

// subscribedLocked is subscribedQoSLocked that tells whether there is one.
func (s *session) subscribedLocked(name string) (qos byte, subscribed bool) {
	for i := range s.subs {
		if s.subs[i].group == nil && topic.Match(s.subs[i].filter, name, s.broker.profile) {
			qos, subscribed = max(qos, s.subs[i].qos), true
		}
	}
	return qos, subscribed
}

// checkMessage refuses what cannot be published for the server itself or by
// HTTP.
func (b *Broker) checkMessage(m *Message) error {
	if err := topic.ValidateName(m.Topic, topic.Limits{}); err != nil {
		return fault.Wrap(fault.InvalidRequest, err, "topic %q is not valid: %v", m.Topic, err)
	}
	if m.QoS > 1 {
		return fault.New(fault.InvalidRequest, "quality of service %d of %q is neither 0 nor 1", m.QoS, m.Topic)
	}
	if m.Retain && (topic.Reserved(m.Topic) || len(m.Topic) > maxKeptName) {
		return fault.New(fault.InvalidRequest, "topic %q retains no messages: it is reserved, or longer than %d bytes", m.Topic, maxKeptName)
	}
	return nil
}

// expiresAt returns when a message that arrives now becomes worthless, zero for
// never.
func expiresAt(p *mqtt.Properties, now time.Time) time.Time {
	if p == nil || !p.Set.Has(mqtt.PropMessageExpiry) {
		return time.Time{}
	}
	return now.Add(time.Duration(p.MessageExpiry) * time.Second)
}
