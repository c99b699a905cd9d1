package broker

import (
	"github.com/muster-iot/muster/internal/mqtt"
)

// routed is the message that a batch is routing: its parts may point into the
// input buffer, its encodings are made once and shared by all receivers.
type routed struct {
	topic      string
	payload    []byte
	qos        byte
	properties *mqtt.Properties
	from       *connection // for no-local; nil for the server's own
	retain     bool        // the flag for receivers that want to see it
	frames     [2][3]frame
	kept       *Kept
}

// frame is one encoding, by version and quality of service.
type frame struct {
	b     []byte
	valid bool
}

// maxFrame is the largest encoding whose memory is kept for the next message.
const maxFrame = 16 << 10

// clear drops what points elsewhere and keeps the encoding buffers.
func (m *routed) clear() {
	m.topic, m.payload, m.properties, m.from, m.kept, m.retain = "", nil, nil, nil, nil, false
	for v := range m.frames {
		for q := range m.frames[v] {
			f := &m.frames[v][q]
			f.valid = false
			if cap(f.b) > maxFrame {
				f.b = nil
			}
		}
	}
}

// target is one receiver of a message that several filters selected.
type target struct {
	session *session
	parcel
}

// route delivers the batch's message to all subscribers of its topic, each
// session once and one member of each shared group, and reports whether there
// are any.
func (b *batch) route(r *router) bool {
	r.lookup(b.message.topic, &b.found)
	if len(b.found.ends) > 1 {
		b.routeMerged()
	} else {
		for _, list := range b.found.lists {
			for i := range list {
				sub := &list[i]
				if sub.noLocal && b.isFrom(sub.session) {
					continue
				}
				var p parcel
				p.add(sub, b.message.retain)
				b.deliver(sub.session, p)
			}
		}
	}
	for _, g := range b.found.groups {
		b.deliverShared(g)
	}
	return len(b.found.ends) > 0 || len(b.found.groups) > 0
}

// isFrom reports whether the message was published by a session.
func (b *batch) isFrom(s *session) bool { return b.message.from != nil && b.message.from.session == s }

// routeMerged delivers when several filters match: a session gets one copy
// with the highest quality of service and the identifiers of all of them. The
// filter with the most subscribers is streamed past an index of the others.
func (b *batch) routeMerged() {
	largest, from, to := b.largest()
	start := 0
	for i, end := range b.found.ends {
		if i != largest {
			for _, list := range b.found.lists[start:end] {
				b.merge(list)
			}
		}
		start = end
	}
	for _, list := range b.found.lists[from:to] {
		for i := range list {
			sub := &list[i]
			if sub.noLocal && b.isFrom(sub.session) {
				continue
			}
			if at, ok := b.index[sub.session]; ok {
				b.merged[at].add(sub, b.message.retain)
				continue
			}
			var p parcel
			p.add(sub, b.message.retain)
			b.deliver(sub.session, p)
		}
	}
	for i := range b.merged {
		b.deliver(b.merged[i].session, b.merged[i].parcel)
	}
	clear(b.merged)
	b.merged = b.merged[:0]
	clear(b.index)
}

// largest returns the filter with the most subscriber slices and their range.
func (b *batch) largest() (filter, from, to int) {
	start, most := 0, -1
	for i, end := range b.found.ends {
		size := 0
		for _, list := range b.found.lists[start:end] {
			size += len(list)
		}
		if size > most {
			most, filter, from, to = size, i, start, end
		}
		start = end
	}
	return filter, from, to
}

// merge adds subscribers to the index.
func (b *batch) merge(list []subscriber) {
	for i := range list {
		sub := &list[i]
		if sub.noLocal && b.isFrom(sub.session) {
			continue
		}
		at, ok := b.index[sub.session]
		if !ok {
			at = len(b.merged)
			b.index[sub.session] = at
			b.merged = append(b.merged, target{session: sub.session})
		}
		b.merged[at].add(sub, b.message.retain)
	}
}

// add widens a parcel by one more subscription that selects it.
func (p *parcel) add(sub *subscriber, retained bool) {
	p.qos = max(p.qos, sub.qos)
	p.retain = p.retain || retained && sub.retainAsPublished
	if sub.id != 0 {
		p.ids = append(p.ids, sub.id)
	}
}

// deliver appends the batch's message to a session's output, or queues it.
func (b *batch) deliver(s *session, p parcel) {
	m := &b.message
	p.qos = min(p.qos, m.qos)
	c := s.link.Load()
	for {
		if c != nil && !c.guard.CanReceive(m.topic) {
			b.broker.metrics.dropped[dropDenied].Inc()
			c.deny(m.topic)
			return
		}
		s.mu.Lock()
		now := s.link.Load()
		if now == c {
			break
		}
		s.mu.Unlock()
		c = now // somebody else may receive other topics
	}
	defer s.mu.Unlock()
	if s.over {
		return
	}
	if c != nil && c.dead {
		c = nil
	}
	switch {
	case p.qos == 0:
		if c != nil && (c.allowance == nil || c.allowance.takeOut()) {
			b.deliverNow(c, p)
		}
	case c == nil && !s.persistentLocked():
	case c != nil && len(s.queue.items) == 0 && !s.refilling && s.hasRoomLocked(c):
		p.message = b.keep()
		s.keepLocked(&p, b.receiptFor)
		b.deliverNow(c, p)
	default:
		p.message = b.keep()
		// Room is made sure of first, so that nothing is kept for nothing.
		if !s.enqueueLocked(p) {
			return
		}
		last := &s.queue.items[len(s.queue.items)-1]
		s.keepLocked(last, b.receiptFor)
	}
}

// deliverNow encodes the message into a connection's output; the session is
// locked.
func (b *batch) deliverNow(c *connection, p parcel) {
	s := c.session
	out := c.pendingLocked()
	if p.qos == 0 && len(out.b) > b.broker.limits.MaxPending {
		b.broker.metrics.dropped[dropSlow].Inc()
		return
	}
	if p.qos > 0 {
		s.order++
		p.order, p.id = s.order, s.nextIDLocked()
	}
	if !b.append(c, &p) {
		b.broker.metrics.dropped[dropTooLarge].Inc()
		s.unkeepLocked(&p)
		return
	}
	if p.qos > 0 {
		p.onWire, p.sent = true, b.broker.wheel.now.Load()
		p.since = p.sent
		s.inflight = append(s.inflight, p)
		c.probeLocked(&p)
		c.watchRetryLocked()
		if c.allowance != nil {
			c.allowance.sentOut()
		}
	}
	b.sent[p.qos]++
	c.touchLocked(b)
}

// append encodes the message for one receiver: by a copy of the shared
// encoding where nothing in it is the receiver's own.
func (b *batch) append(c *connection, p *parcel) bool {
	if len(p.ids) > 0 && c.version == mqtt.V5 || c.maxOutAlias > 0 {
		own := b.packet(c.version, p.qos)
		own.PacketID, own.Retain = p.id, p.retain
		if c.version == mqtt.V5 {
			own.Properties.SubscriptionIDs = p.ids
		}
		return c.appendLocked(&own)
	}
	encoded := b.encode(c.version, p.qos)
	if len(encoded) == 0 || len(encoded) > c.maxPacket {
		return false
	}
	out := c.pendingLocked()
	at := len(out.b)
	out.b = append(out.b, encoded...)
	if p.retain {
		out.b[at] |= 1
	}
	if p.qos > 0 {
		mqtt.SetPacketID(out.b[at:], p.id)
	}
	return true
}

// encode returns the message as a packet for a version and quality of service,
// valid until the next call. It returns nothing for a message that the wire
// has no room for.
func (b *batch) encode(v mqtt.Version, qos byte) []byte {
	class := 0
	if v == mqtt.V5 {
		class = 1
	}
	f := &b.message.frames[class][qos]
	if !f.valid {
		p := b.packet(v, qos)
		var err error
		if f.b, err = p.Append(f.b[:0], v); err != nil {
			f.b = f.b[:0]
		}
		f.valid = true
	}
	return f.b
}

// packet returns the message as a PUBLISH; the packet id is set later.
func (b *batch) packet(v mqtt.Version, qos byte) mqtt.Publish {
	m := &b.message
	b.topicBytes = append(b.topicBytes[:0], m.topic...)
	p := mqtt.Publish{QoS: qos, Topic: b.topicBytes, Payload: m.payload}
	if v == mqtt.V5 && m.properties != nil {
		p.Properties = *m.properties
	}
	return p
}

// keep returns the message as a copy that outlives the batch.
func (b *batch) keep() *Kept {
	m := &b.message
	if m.kept == nil {
		k := &Kept{Topic: m.topic, Payload: append([]byte(nil), m.payload...), QoS: m.qos}
		if m.properties != nil && !m.properties.Empty() {
			properties := *m.properties
			k.Properties = &properties
			if properties.Set.Has(mqtt.PropMessageExpiry) {
				k.ExpiresAt = expiresAt(&properties, b.broker.now())
			}
		}
		m.kept = k
	}
	return m.kept
}
