package broker

import (
	"errors"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// Reasons for which a SUBSCRIBE ends its connection.
var (
	errIdentifiers   = errors.New("subscription identifiers are not supported")
	errReservedTopic = errors.New("filter matches no reserved topic")
	errSharedNoLocal = errors.New("no-local on a shared subscription")
)

// subscribing is one SUBSCRIBE under way.
type subscribing struct {
	connection *connection
	answer     mqtt.Suback
	granted    []string
	// fresh are the filters that were not held before.
	fresh []string
	// retained are those that get what their topics retain.
	retained []string
	qos      []byte
	id       uint32
}

// subscribe answers a SUBSCRIBE, filter by filter: at once, or for a persistent
// session when its subscriptions are durable.
func (c *connection) subscribe(b *batch, packet []byte) *cause {
	var p mqtt.Subscribe
	if err := p.Decode(packet, c.version); err != nil {
		return causeOf(err)
	}
	id := uint32(0)
	if len(p.Properties.SubscriptionIDs) > 0 {
		if c.broker.profile == topic.AWS {
			return clientError(mqtt.SubscriptionIDNotSupported, errIdentifiers)
		}
		id = p.Properties.SubscriptionIDs[0]
	}
	limits := &c.broker.limits
	tooMany := limits.MaxFilters > 0 && len(p.Subscriptions) > limits.MaxFilters
	w := &subscribing{connection: c, id: id, answer: mqtt.Suback{PacketID: p.PacketID, Reasons: make([]mqtt.ReasonCode, len(p.Subscriptions))}}
	for i := range p.Subscriptions {
		code := mqtt.QuotaExceeded
		if !tooMany {
			var why *cause
			if code, why = w.one(&p.Subscriptions[i]); why != nil {
				return why
			}
		}
		w.answer.Reasons[i] = versionedCode(c.version, code)
	}
	s := c.session
	s.mu.Lock()
	if len(w.granted) > 0 && s.persistentLocked() && !s.over {
		s.recordLocked(w.recorded)
		s.mu.Unlock()
		return nil
	}
	w.answerLocked()
	c.touchLocked(b)
	s.mu.Unlock()
	w.granting(b)
	return nil
}

// recorded answers when the subscriptions are durable; without that they are
// given up again, and the client is told.
func (w *subscribing) recorded(err error) {
	c := w.connection
	if err != nil {
		for i := range w.answer.Reasons {
			w.answer.Reasons[i] = versionedCode(c.version, mqtt.UnspecifiedError)
		}
		for _, filter := range w.fresh {
			c.session.release(filter)
		}
		c.session.mu.Lock()
		c.session.recordLocked(nil)
		c.session.mu.Unlock()
		w.granted, w.retained = nil, nil
	}
	b := c.broker.batch()
	defer c.broker.release(b)
	c.session.mu.Lock()
	w.answerLocked()
	c.touchLocked(b)
	c.session.mu.Unlock()
	w.granting(b)
}

// answerLocked appends the SUBACK.
func (w *subscribing) answerLocked() { w.connection.sendLocked(&w.answer) }

// granting tells the observer, sends what the new filters' topics retain and
// what waits in shared groups.
func (w *subscribing) granting(b *batch) {
	c := w.connection
	if len(w.granted) == 0 {
		return
	}
	c.broker.observer.Subscribed(&c.info, w.granted, c.broker.now())
	// Only now: what was retained when the subscription was asked for may be older
	// than what has been delivered to it since.
	for i, filter := range w.retained {
		for _, k := range c.session.realm.retained.match(filter) {
			p := parcel{message: k, qos: w.qos[i], retain: true}
			if w.id != 0 {
				p.ids = []uint32{w.id}
			}
			c.sendRetained(b, p)
		}
	}
	c.session.refill(b)
}

// sendRetained delivers one retained message to a new subscription.
func (c *connection) sendRetained(b *batch, p parcel) {
	k := p.message
	b.begin(&Message{Topic: k.Topic, Payload: k.Payload, QoS: k.QoS})
	m := &b.message
	m.properties = nil
	if k.Properties != nil {
		properties := *k.Properties
		if !k.ExpiresAt.IsZero() {
			properties.MessageExpiry = uint32(max(0, k.ExpiresAt.Sub(c.broker.now()).Seconds()))
		}
		m.properties = &properties
	}
	m.kept = k
	if c.session.link.Load() == c {
		b.deliver(c.session, p)
	}
}

// one decides on one filter and takes it in.
func (w *subscribing) one(want *mqtt.Subscription) (mqtt.ReasonCode, *cause) {
	c := w.connection
	err := topic.ValidateFilter(want.Filter, c.broker.limits.Topic)
	switch {
	case errors.Is(err, topic.ErrTooLong), errors.Is(err, topic.ErrTooDeep), isShared(want.Filter) && len(want.Filter) > maxKeptName:
		return mqtt.TopicFilterInvalid, nil
	case err != nil:
		return 0, clientError(mqtt.TopicFilterInvalid, err)
	}
	shared := isShared(want.Filter)
	switch {
	case shared && want.NoLocal:
		return 0, clientError(mqtt.ProtocolError, errSharedNoLocal)
	case want.QoS > c.broker.limits.MaxQoS:
		return 0, clientError(mqtt.QoSNotSupported, errQoS2)
	case !c.guard.CanSubscribe(want.Filter):
		c.tellDenied(ActionSubscribe, want.Filter, mqtt.TypeSubscribe)
		return mqtt.NotAuthorized, nil
	case topic.Reserved(want.Filter) && !c.broker.service.CanSubscribeReserved(withoutShare(want.Filter)):
		return 0, clientError(mqtt.TopicFilterInvalid, errReservedTopic)
	}
	code, fresh := c.hold(want, w.id)
	if code.Failed() {
		return code, nil
	}
	w.granted = append(w.granted, want.Filter)
	if fresh {
		w.fresh = append(w.fresh, want.Filter)
	}
	const always, ifNew = 0, 1
	if !shared && (want.RetainHandling == always || want.RetainHandling == ifNew && fresh) {
		w.retained, w.qos = append(w.retained, want.Filter), append(w.qos, want.QoS)
	}
	return code, nil
}

// withoutShare returns the filter behind the prefix of a shared one.
func withoutShare(filter string) string {
	if shared, ok, err := topic.ParseShared(filter); ok && err == nil {
		return shared.Filter
	}
	return filter
}

// hold adds a subscription, or changes the one that the session holds already.
func (c *connection) hold(want *mqtt.Subscription, id uint32) (code mqtt.ReasonCode, fresh bool) {
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.dead || s.over || s.link.Load() != c {
		return mqtt.UnspecifiedError, false
	}
	fresh = true
	for i := range s.subs {
		fresh = fresh && s.subs[i].filter != want.Filter
	}
	if fresh && len(s.subs) >= c.broker.limits.MaxSubscriptions {
		return mqtt.QuotaExceeded, false
	}
	if fresh && c.allowance != nil && !c.allowance.takeSubscription() {
		return mqtt.QuotaExceeded, false
	}
	if !s.holdLocked(SubscriptionRecord{
		Filter: want.Filter, QoS: want.QoS, Identifier: id, NoLocal: want.NoLocal, RetainAsPublished: want.RetainAsPublished && c.broker.limits.HonourRetain,
	}) {
		return mqtt.QuotaExceeded, false
	}
	return mqtt.ReasonCode(want.QoS), fresh
}

// holdLocked makes a subscription what want says. It reports false when a
// shared group has no room.
func (s *session) holdLocked(want SubscriptionRecord) bool {
	sub := subscriber{
		session: s, id: want.Identifier, qos: want.QoS, noLocal: want.NoLocal, retainAsPublished: want.RetainAsPublished,
		persistent: s.persistentLocked(),
	}
	held := subscription{
		filter: want.Filter, id: want.Identifier, qos: want.QoS, noLocal: want.NoLocal, retainAsPublished: want.RetainAsPublished,
	}
	at := -1
	for i := range s.subs {
		if s.subs[i].filter == want.Filter {
			at = i
			held.bucket, held.group, held.filter = s.subs[i].bucket, s.subs[i].group, s.subs[i].filter
		}
	}
	router := s.realm.router
	switch {
	case isShared(want.Filter):
		if held.group = router.share(want.Filter, withoutShare(want.Filter), sub); held.group == nil {
			return false
		}
		held.filter = held.group.name
	case held.bucket != nil:
		router.replace(held.bucket, sub)
	default:
		held.bucket = router.subscribe(want.Filter, sub)
		held.filter = held.bucket.entry.filter
	}
	if at >= 0 {
		s.subs[at] = held
		return true
	}
	s.subs = append(s.subs, held)
	s.broker.metrics.subscriptions.Inc()
	s.realm.usage.subscriptions.Add(1)
	return true
}

// unsubscribe answers an UNSUBSCRIBE, for a persistent session when that is
// durable.
func (c *connection) unsubscribe(b *batch, packet []byte) *cause {
	var p mqtt.Unsubscribe
	if err := p.Decode(packet, c.version); err != nil {
		return causeOf(err)
	}
	answer := &mqtt.Unsuback{PacketID: p.PacketID, Reasons: make([]mqtt.ReasonCode, len(p.Filters))}
	var released []string
	for i, filter := range p.Filters {
		err := topic.ValidateFilter(filter, c.broker.limits.Topic)
		if err != nil && !errors.Is(err, topic.ErrTooLong) && !errors.Is(err, topic.ErrTooDeep) {
			return clientError(mqtt.TopicFilterInvalid, err)
		}
		switch {
		case c.session.link.Load() == c && c.session.release(filter):
			released = append(released, filter)
		case c.broker.profile == topic.Standard:
			answer.Reasons[i] = mqtt.NoSubscriptionExisted
		}
	}
	if len(released) > 0 {
		c.broker.observer.Unsubscribed(&c.info, released, c.broker.now())
	}
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(released) > 0 && s.persistentLocked() && !s.over {
		s.recordLocked(func(err error) { c.answerLater(answer, err) })
		return nil
	}
	c.sendLocked(answer)
	c.touchLocked(b)
	return nil
}

// answerLater sends an UNSUBACK whose changes are durable, or not: then the
// client is told, and asks again.
func (c *connection) answerLater(answer *mqtt.Unsuback, err error) {
	if err != nil {
		for i := range answer.Reasons {
			answer.Reasons[i] = mqtt.UnspecifiedError
		}
	}
	c.session.mu.Lock()
	c.sendLocked(answer)
	c.session.mu.Unlock()
	c.flush()
}

// release gives up one subscription and reports whether there was one.
func (s *session) release(filter string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.subs {
		if s.subs[i].filter != filter {
			continue
		}
		s.realm.router.leave(&s.subs[i], s)
		last := len(s.subs) - 1
		s.subs[i], s.subs[last] = s.subs[last], subscription{}
		s.subs = s.subs[:last]
		s.broker.metrics.subscriptions.Dec()
		s.realm.usage.subscriptions.Add(-1)
		return true
	}
	return false
}
