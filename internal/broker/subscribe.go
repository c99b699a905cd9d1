package broker

import (
	"errors"
	"strings"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// Reasons for which a SUBSCRIBE ends its connection.
var (
	errIdentifiers   = errors.New("subscription identifiers are not supported")
	errReservedTopic = errors.New("filter matches no reserved topic")
	errSharedNoLocal = errors.New("no-local on a shared subscription")
)

// subscribe answers a SUBSCRIBE, filter by filter.
func (s *session) subscribe(b *batch, packet []byte) *cause {
	var p mqtt.Subscribe
	if err := p.Decode(packet, s.version); err != nil {
		return causeOf(err)
	}
	id := uint32(0)
	if len(p.Properties.SubscriptionIDs) > 0 {
		if s.broker.profile == topic.AWS {
			return clientError(mqtt.SubscriptionIDNotSupported, errIdentifiers)
		}
		id = p.Properties.SubscriptionIDs[0]
	}
	limits := &s.broker.limits
	tooMany := limits.MaxFilters > 0 && len(p.Subscriptions) > limits.MaxFilters
	answer := mqtt.Suback{PacketID: p.PacketID, Reasons: make([]mqtt.ReasonCode, len(p.Subscriptions))}
	for i := range p.Subscriptions {
		code := mqtt.QuotaExceeded
		if !tooMany {
			var c *cause
			if code, c = s.subscribeOne(&p.Subscriptions[i], id); c != nil {
				return c
			}
		}
		answer.Reasons[i] = versionedCode(s.version, code)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sendLocked(&answer)
	s.touchLocked(b)
	return nil
}

// subscribeOne decides on one filter and takes it in.
func (s *session) subscribeOne(want *mqtt.Subscription, id uint32) (mqtt.ReasonCode, *cause) {
	err := topic.ValidateFilter(want.Filter, s.broker.limits.Topic)
	switch {
	case errors.Is(err, topic.ErrTooLong), errors.Is(err, topic.ErrTooDeep):
		return mqtt.TopicFilterInvalid, nil
	case err != nil:
		return 0, clientError(mqtt.TopicFilterInvalid, err)
	}
	shared := strings.HasPrefix(want.Filter, "$share/")
	switch {
	case shared && want.NoLocal:
		return 0, clientError(mqtt.ProtocolError, errSharedNoLocal)
	case want.QoS > 1 && s.broker.profile == topic.AWS:
		return 0, clientError(mqtt.QoSNotSupported, errQoS2)
	case !s.guard.CanSubscribe(want.Filter):
		s.tellDenied(ActionSubscribe, want.Filter, mqtt.TypeSubscribe)
		return mqtt.NotAuthorized, nil
	case shared:
		return mqtt.SharedNotSupported, nil
	case topic.Reserved(want.Filter) && !s.broker.service.CanSubscribeReserved(want.Filter):
		return 0, clientError(mqtt.TopicFilterInvalid, errReservedTopic)
	}
	return s.hold(want, id), nil
}

// hold adds a subscription, or changes the one that the session holds already.
func (s *session) hold(want *mqtt.Subscription, id uint32) mqtt.ReasonCode {
	sub := subscriber{session: s, id: id, qos: min(want.QoS, 1), noLocal: want.NoLocal}
	granted := mqtt.ReasonCode(sub.qos)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return mqtt.UnspecifiedError
	}
	for i := range s.subs {
		if s.subs[i].filter == want.Filter {
			s.subs[i].qos = sub.qos
			s.realm.router.replace(s.subs[i].bucket, sub)
			return granted
		}
	}
	if len(s.subs) >= s.broker.limits.MaxSubscriptions {
		return mqtt.QuotaExceeded
	}
	held := s.realm.router.subscribe(want.Filter, sub)
	s.subs = append(s.subs, subscription{filter: held.entry.filter, bucket: held, qos: sub.qos})
	s.broker.metrics.subscriptions.Inc()
	return granted
}

// unsubscribe answers an UNSUBSCRIBE.
func (s *session) unsubscribe(b *batch, packet []byte) *cause {
	var p mqtt.Unsubscribe
	if err := p.Decode(packet, s.version); err != nil {
		return causeOf(err)
	}
	answer := mqtt.Unsuback{PacketID: p.PacketID, Reasons: make([]mqtt.ReasonCode, len(p.Filters))}
	for i, filter := range p.Filters {
		err := topic.ValidateFilter(filter, s.broker.limits.Topic)
		if err != nil && !errors.Is(err, topic.ErrTooLong) && !errors.Is(err, topic.ErrTooDeep) {
			return clientError(mqtt.TopicFilterInvalid, err)
		}
		if !s.release(filter) && s.broker.profile == topic.Standard {
			answer.Reasons[i] = mqtt.NoSubscriptionExisted
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sendLocked(&answer)
	s.touchLocked(b)
	return nil
}

// release gives up one subscription and reports whether there was one.
func (s *session) release(filter string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.subs {
		if s.subs[i].filter != filter {
			continue
		}
		s.realm.router.unsubscribe(s.subs[i].bucket, s)
		last := len(s.subs) - 1
		s.subs[i], s.subs[last] = s.subs[last], subscription{}
		s.subs = s.subs[:last]
		s.broker.metrics.subscriptions.Dec()
		return true
	}
	return false
}
