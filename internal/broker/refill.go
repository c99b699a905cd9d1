package broker

import (
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/mqtt"
)

// refill moves messages from the queue, and from shared groups, into the window
// as far as window and pending output have room. Permission to receive is asked
// for each, under no lock. The batch flushes what was moved; without one, refill
// does: it may be another connection's than the caller knew.
func (s *session) refill(b *batch) {
	s.mu.Lock()
	if s.refilling {
		s.mu.Unlock()
		return
	}
	s.refilling = true
	touched, refused := s.moveLocked()
	s.refilling = false
	if touched != nil && b != nil {
		touched.touchLocked(b)
	}
	s.mu.Unlock()
	if touched != nil && b == nil {
		touched.flush()
	}
	for _, g := range refused {
		g.wake(b)
	}
}

// moveLocked does the work of refill. It returns the connection whose output has
// grown, and the groups that got back what this client may not receive.
func (s *session) moveLocked() (touched *connection, refused []*group) {
	for {
		c, order, name := s.takeNextLocked()
		if c == nil {
			break
		}
		allowed := true
		if name != "" {
			s.mu.Unlock()
			if allowed = c.guard.CanReceive(name); !allowed {
				c.deny(name)
			}
			s.mu.Lock()
		}
		if s.link.Load() != c || c.dead {
			continue // taken back into the queue by whoever came, or comes
		}
		i := s.byOrderLocked(order)
		if i < 0 {
			continue // acknowledged before it was sent, or the session is over
		}
		p := s.inflight[i]
		switch {
		case !allowed && p.box != nil && p.box.refuse(p, s):
			s.removeLocked(i)
			if !slices.Contains(refused, p.box) {
				refused = append(refused, p.box)
			}
		case !allowed:
			s.forgetLocked(&p, dropDenied)
			s.removeLocked(i)
		case s.sendParcelLocked(c, i):
			touched = c
		}
	}
	return touched, refused
}

// takeNextLocked reserves a place in the window for the next message that is
// worth sending. The name of its topic is empty when no permission is needed.
// It returns no connection when there is nothing to send, or no room.
func (s *session) takeNextLocked() (c *connection, order uint64, name string) {
	for {
		c := s.liveLocked()
		if c == nil || s.over || !s.hasRoomLocked(c) {
			return nil, 0, ""
		}
		var p parcel
		if len(s.queue.items) > 0 {
			p = s.queue.pop()
			s.broker.queued.Add(-int64(p.bytes()))
		} else if !s.takeSharedLocked(&p) {
			return nil, 0, ""
		}
		if !p.released && p.message.expired(s.broker.expiryClock(p.message)) {
			s.forgetLocked(&p, dropExpired)
			continue
		}
		if p.order == 0 {
			s.order++
			p.order = s.order
		}
		if p.id == 0 {
			p.id = s.nextIDLocked()
		}
		s.inflight = append(s.inflight, p)
		switch {
		case p.released:
			return c, p.order, ""
		case p.box != nil:
			return c, p.order, p.box.prefix + p.message.Topic
		default:
			return c, p.order, p.message.Topic
		}
	}
}

// takeSharedLocked takes the oldest message that waits in a shared group of
// the session.
func (s *session) takeSharedLocked(into *parcel) (found bool) {
	s.sharesLocked(func(sub *subscription) bool {
		p, ok := sub.group.pop(s)
		if !ok {
			return false
		}
		p.qos = min(p.qos, sub.qos)
		p.ids = nil
		if sub.id != 0 {
			p.ids = []uint32{sub.id}
		}
		*into, found = p, true
		return true
	})
	return found
}

// expiryClock returns the time for messages that expire; nobody else needs it.
func (b *Broker) expiryClock(k *Kept) (now time.Time) {
	if k.ExpiresAt.IsZero() {
		return time.Time{}
	}
	return b.now()
}

// byOrderLocked finds a message in flight by its order, from the newest on.
func (s *session) byOrderLocked(order uint64) int {
	for i := range slices.Backward(s.inflight) {
		if s.inflight[i].order == order {
			return i
		}
	}
	return -1
}

// sendParcelLocked encodes the message at place i of the window into the
// connection's output. A message that the client cannot take is dropped.
func (s *session) sendParcelLocked(c *connection, i int) bool {
	p := &s.inflight[i]
	now := s.broker.wheel.now.Load()
	switch {
	case p.released:
		out := c.pendingLocked()
		out.b = mqtt.AppendAck(out.b, mqtt.TypePubrel, p.id, mqtt.Success, c.version)
	case p.qos == 0:
		// Shared with a member that asked for less: nothing to acknowledge.
		ok := c.appendKeptLocked(p)
		s.unkeepLocked(p)
		s.removeLocked(i)
		return ok
	case !c.appendKeptLocked(p):
		s.forgetLocked(p, dropTooLarge)
		s.removeLocked(i)
		return false
	}
	if c.allowance != nil {
		c.allowance.sentOut()
	}
	p.onWire, p.sent = true, now
	if p.since == 0 {
		p.since = now
	}
	c.probeLocked(p)
	c.watchRetryLocked()
	return true
}

// appendKeptLocked encodes a kept message with what is left of its expiry. It
// reports false for one that the client cannot take.
func (c *connection) appendKeptLocked(p *parcel) bool {
	b := c.broker
	out := mqtt.Publish{
		QoS: p.qos, Topic: []byte(p.message.Topic), Payload: p.message.Payload, PacketID: p.id, Retain: p.retain,
		Dup: p.repeat && b.limits.MarkDuplicates,
	}
	if c.version == mqtt.V5 {
		if p.message.Properties != nil {
			out.Properties = *p.message.Properties
		}
		out.Properties.SubscriptionIDs = p.ids
		if !p.message.ExpiresAt.IsZero() {
			out.Properties.MessageExpiry = uint32(max(0, p.message.ExpiresAt.Sub(b.now())/time.Second))
		}
	}
	if !c.appendLocked(&out) {
		return false
	}
	b.metrics.sent[p.qos].Inc()
	return true
}

// appendLocked encodes one PUBLISH, with a topic alias where the client takes
// them, unless it is larger than the client accepts.
func (c *connection) appendLocked(p *mqtt.Publish) bool {
	alias, known := c.aliasOf(p.Topic)
	if alias != 0 {
		p.Properties.Set |= mqtt.Of(mqtt.PropTopicAlias)
		p.Properties.TopicAlias = alias
		if known {
			p.Topic = nil
		}
	}
	out := c.pendingLocked()
	before := len(out.b)
	var err error
	if out.b, err = p.Append(out.b, c.version); err != nil || len(out.b)-before > c.maxPacket {
		out.b = out.b[:before]
		return false
	}
	if alias != 0 && !known {
		c.outAliases[string(p.Topic)] = alias
	}
	return true
}

// aliasOf returns the alias for a topic towards this client, 0 for none, and
// whether the client knows it already.
func (c *connection) aliasOf(name []byte) (alias uint16, known bool) {
	if c.maxOutAlias == 0 {
		return 0, false
	}
	if alias, known = c.outAliases[string(name)]; known {
		return alias, true
	}
	if len(c.outAliases) >= int(c.maxOutAlias) {
		return 0, false
	}
	if c.outAliases == nil {
		c.outAliases = make(map[string]uint16)
	}
	return uint16(len(c.outAliases) + 1), false
}

// watchRetryLocked begins to look for messages that stay unacknowledged.
func (c *connection) watchRetryLocked() {
	if c.retrying || c.broker.limits.RetryInterval == 0 {
		return
	}
	c.retrying = true
	c.broker.wheel.add(&c.retry, c.broker.wheel.now.Load()+c.broker.limits.retryTicks())
}

// lookAtRetries sends again what the client has not acknowledged for too long,
// ever more seldom, and gives up in the end.
func (c *connection) lookAtRetries(now int64) (again int64) {
	s := c.session
	s.mu.Lock()
	if s.link.Load() != c || c.dead || len(s.inflight) == 0 {
		c.retrying = false
		s.mu.Unlock()
		return 0
	}
	interval := c.broker.limits.retryTicks()
	patience := int64(c.broker.limits.RetryFor / tickLength)
	again = now + interval
	resent := false
	for i := 0; i < len(s.inflight); i++ {
		p := &s.inflight[i]
		if !p.onWire {
			continue
		}
		due := p.sent + interval<<min(p.tries, 8)
		switch {
		case now-p.since >= patience:
			s.forgetLocked(p, dropUnacknowledged)
			s.removeLocked(i)
			i--
			continue
		case due <= now && s.hasOutputRoomLocked(c):
			p.tries++
			p.sent, p.repeat = now, true
			c.probe.forget(p.order) // nobody can tell which copy is acknowledged
			if p.released {
				out := c.pendingLocked()
				out.b = mqtt.AppendAck(out.b, mqtt.TypePubrel, p.id, mqtt.Success, c.version)
			} else {
				c.appendKeptLocked(p)
			}
			resent = true
			due = now + interval<<min(p.tries, 8)
		}
		again = min(again, max(due, now+1))
	}
	s.mu.Unlock()
	s.refill(nil)
	if resent {
		c.flush()
	}
	return again
}

// hasOutputRoomLocked reports whether the connection takes more bytes.
func (s *session) hasOutputRoomLocked(c *connection) bool {
	return c.pending == nil || len(c.pending.b) < s.broker.limits.MaxPending
}
