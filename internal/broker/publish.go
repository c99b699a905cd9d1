package broker

import (
	"errors"
	"strings"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// Reasons for which a PUBLISH ends its connection.
var (
	errQoS2            = errors.New("quality of service 2 is not supported")
	errRetain          = errors.New("retained messages are not supported")
	errPayload         = errors.New("payload exceeds the limit")
	errAlias           = errors.New("topic alias is out of range or unknown")
	errSubscriptionID  = errors.New("subscription identifier in a client's PUBLISH")
	errUnknownReserved = errors.New("reserved topic does not exist")
	errProperties      = errors.New("properties exceed the limits")
)

// publish takes in one PUBLISH: checks, policy, the reserved topics' service,
// subscribers, acknowledgement.
func (s *session) publish(b *batch, packet []byte) *cause {
	p := &b.in
	if err := p.Decode(packet, s.version); err != nil {
		return causeOf(err)
	}
	name, c := s.topicOf(p)
	if c == nil {
		c = s.checkPublish(p, name)
	}
	if c != nil {
		return c
	}
	if p.QoS == 1 {
		if c := s.waitForAcks(b); c != nil {
			return c
		}
	}
	if !s.guard.CanPublish(name, p.Retain) {
		return s.refusePublish(b, p, name)
	}
	if p.Retain {
		return clientError(mqtt.RetainNotSupported, errRetain)
	}
	b.received[p.QoS]++
	return s.accept(b, p, name)
}

// topicOf returns the topic behind name and alias. The last name is kept, so
// that a client that stays with one topic costs no allocation.
func (s *session) topicOf(p *mqtt.Publish) (string, *cause) {
	if p.Properties.Set.Has(mqtt.PropTopicAlias) {
		return s.resolveAlias(p)
	}
	if string(p.Topic) != s.lastTopic {
		s.lastTopic = string(p.Topic)
	}
	return s.lastTopic, nil
}

// resolveAlias sets or looks up a topic alias.
func (s *session) resolveAlias(p *mqtt.Publish) (string, *cause) {
	alias := int(p.Properties.TopicAlias)
	if alias > s.broker.limits.MaxAlias {
		return "", clientError(mqtt.TopicAliasInvalid, errAlias)
	}
	if s.aliases == nil {
		s.aliases = make([]string, s.broker.limits.MaxAlias)
	}
	if len(p.Topic) > 0 {
		s.aliases[alias-1] = string(p.Topic)
	}
	if s.aliases[alias-1] == "" {
		return "", clientError(mqtt.TopicAliasInvalid, errAlias)
	}
	return s.aliases[alias-1], nil
}

// checkPublish applies the limits that do not depend on policy.
func (s *session) checkPublish(p *mqtt.Publish, name string) *cause {
	limits := &s.broker.limits
	switch {
	case len(p.Properties.SubscriptionIDs) > 0:
		return clientError(mqtt.ProtocolError, errSubscriptionID)
	case p.QoS > 1:
		return clientError(mqtt.QoSNotSupported, errQoS2)
	case len(p.Payload) > limits.MaxPayload:
		return clientError(mqtt.PacketTooLarge, errPayload)
	}
	if err := topic.ValidateName(name, limits.Topic); err != nil {
		return clientError(mqtt.TopicNameInvalid, err)
	}
	if err := s.broker.checkProperties(&p.Properties); err != nil {
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

// refusePublish answers a PUBLISH that policy forbids: MQTT 5 can say so for
// QoS 1, everybody else is disconnected.
func (s *session) refusePublish(b *batch, p *mqtt.Publish, name string) *cause {
	action := ActionPublish
	if p.Retain && s.guard.CanPublish(name, false) {
		action = ActionRetain
	}
	s.tellDenied(action, name, mqtt.TypePublish)
	if s.version == mqtt.V5 && p.QoS == 1 {
		s.acknowledge(b, p.PacketID, mqtt.NotAuthorized)
		return nil
	}
	return because(ReasonAuthError)
}

// accept hands a permitted message to the service of its topic and to
// subscribers, and acknowledges it.
func (s *session) accept(b *batch, p *mqtt.Publish, name string) *cause {
	forwarded := s.broker.forward(&p.Properties)
	if strings.HasPrefix(name, "$") {
		deferred, c := s.reserved(p, name, forwarded)
		if c != nil {
			return c
		}
		s.routeFrom(b, p, name, &forwarded)
		if p.QoS == 1 && !deferred {
			s.acknowledge(b, p.PacketID, mqtt.Success)
		}
		return nil
	}
	matched := s.routeFrom(b, p, name, &forwarded)
	if p.QoS == 1 {
		code := mqtt.Success
		if !matched && s.broker.profile == topic.Standard {
			code = mqtt.NoMatchingSubscribers // the service does not tell
		}
		s.acknowledge(b, p.PacketID, code)
	}
	return nil
}

// routeFrom routes a message of this session and reports whether it has
// subscribers.
func (s *session) routeFrom(b *batch, p *mqtt.Publish, name string, properties *mqtt.Properties) bool {
	m := &b.message
	m.clear()
	m.topic, m.payload, m.qos, m.properties, m.from = name, p.Payload, p.QoS, properties, s
	return b.route(s.realm.router)
}

// reserved asks the service about a message to a `$` topic.
func (s *session) reserved(p *mqtt.Publish, name string, properties mqtt.Properties) (deferred bool, c *cause) {
	request := &Publish{
		Account: s.info.Account, Principal: s.info.Principal, ClientID: s.info.ClientID, SessionID: s.info.SessionID,
		ThingName: s.info.ThingName, RemoteAddr: s.info.RemoteAddr, Topic: name, Payload: append([]byte{}, p.Payload...),
		QoS: p.QoS, Properties: properties, ReplyTo: s.reply,
	}
	var slot *ackSlot
	done := func(error) {}
	if p.QoS == 1 {
		slot = s.holdAck(p.PacketID)
		done = func(err error) { s.settled(slot, err) }
	}
	deferred, ok := s.broker.service.Reserved(request, done)
	if !ok {
		return false, clientError(mqtt.TopicNameInvalid, errUnknownReserved)
	}
	if slot != nil && !deferred {
		s.dropAck(slot)
	}
	return deferred, nil
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

// reply delivers a message to this session alone, with the quality of service
// of its own subscription when it has one.
func (s *session) reply(name string, payload []byte) {
	b := s.broker.batch()
	defer s.broker.release(b)
	b.message.topic, b.message.payload, b.message.qos = name, payload, 1
	b.deliver(s, s.subscribedQoS(name), nil)
}

// subscribedQoS returns the highest quality of service of the subscriptions
// that match a topic, 0 without one.
func (s *session) subscribedQoS(name string) byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	qos := byte(0)
	for i := range s.subs {
		if topic.Match(s.subs[i].filter, name, s.broker.profile) {
			qos = max(qos, s.subs[i].qos)
		}
	}
	return qos
}
