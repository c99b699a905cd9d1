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
	from       *session // for no-local; nil for the server's own
	frames     [2][2]frame
	kept       *stored
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
	m.topic, m.payload, m.properties, m.from, m.kept = "", nil, nil, nil, nil
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
	qos     byte
	ids     []uint32
}

// route delivers the batch's message to all subscribers of its topic, each
// session once, and reports whether there are any.
func (b *batch) route(r *router) bool {
	r.lookup(b.message.topic, &b.found)
	if len(b.found.ends) > 1 {
		b.routeMerged()
		return true
	}
	for _, list := range b.found.lists {
		for i := range list {
			sub := &list[i]
			if sub.noLocal && sub.session == b.message.from {
				continue
			}
			if sub.id != 0 {
				b.deliver(sub.session, sub.qos, []uint32{sub.id})
			} else {
				b.deliver(sub.session, sub.qos, nil)
			}
		}
	}
	return len(b.found.ends) > 0
}

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
			if sub.noLocal && sub.session == b.message.from {
				continue
			}
			if at, ok := b.index[sub.session]; ok {
				b.merged[at].add(sub)
				continue
			}
			t := target{session: sub.session}
			t.add(sub)
			b.deliver(t.session, t.qos, t.ids)
		}
	}
	for i := range b.merged {
		b.deliver(b.merged[i].session, b.merged[i].qos, b.merged[i].ids)
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
		if sub.noLocal && sub.session == b.message.from {
			continue
		}
		at, ok := b.index[sub.session]
		if !ok {
			at = len(b.merged)
			b.index[sub.session] = at
			b.merged = append(b.merged, target{session: sub.session})
		}
		b.merged[at].add(sub)
	}
}

// add widens a target by one more subscription.
func (t *target) add(sub *subscriber) {
	t.qos = max(t.qos, sub.qos)
	if sub.id != 0 {
		t.ids = append(t.ids, sub.id)
	}
}

// deliver appends the batch's message to a session's output, or queues it.
func (b *batch) deliver(s *session, qos byte, ids []uint32) {
	m := &b.message
	if !s.guard.CanReceive(m.topic) {
		b.broker.metrics.dropped[dropDenied].Inc()
		s.deny(m.topic)
		return
	}
	qos = min(qos, m.qos)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.dead:
	case qos == 0:
		b.deliverNow(s, 0, ids)
	case len(s.queue.items) == 0 && s.hasRoomLocked():
		b.deliverNow(s, 1, ids)
	default:
		if !s.queue.push(queued{message: b.keep(), ids: ids}, &b.broker.limits) {
			b.broker.metrics.dropped[dropQueue].Inc()
		}
	}
}

// deliverNow encodes the message into a session's output; the session is
// locked.
func (b *batch) deliverNow(s *session, qos byte, ids []uint32) {
	encoded := b.encode(s.version, qos, ids)
	if len(encoded) == 0 || len(encoded) > s.maxPacket {
		b.broker.metrics.dropped[dropTooLarge].Inc()
		return
	}
	out := s.pendingLocked()
	if qos == 0 && len(out.b)+len(encoded) > b.broker.limits.MaxPending && len(out.b) > 0 {
		b.broker.metrics.dropped[dropSlow].Inc()
		return
	}
	at := len(out.b)
	out.b = append(out.b, encoded...)
	if qos == 1 {
		id := s.nextIDLocked()
		s.inflight = append(s.inflight, id)
		mqtt.SetPacketID(out.b[at:], id)
	}
	b.sent[qos]++
	s.touchLocked(b)
}

// encode returns the message as a packet for a version and quality of service,
// valid until the next call. It returns nothing for a message that the wire
// has no room for.
func (b *batch) encode(v mqtt.Version, qos byte, ids []uint32) []byte {
	if len(ids) > 0 && v == mqtt.V5 {
		p := b.packet(v, qos)
		p.Properties.SubscriptionIDs = ids
		encoded, err := p.Append(nil, v)
		if err != nil {
			return nil
		}
		return encoded
	}
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

// keep returns the message as a copy that queues can hold.
func (b *batch) keep() *stored {
	m := &b.message
	if m.kept == nil {
		m.kept = &stored{topic: m.topic, payload: append([]byte(nil), m.payload...)}
		if m.properties != nil {
			m.kept.properties = *m.properties
			if m.properties.Set.Has(mqtt.PropMessageExpiry) {
				m.kept.expires = b.broker.wheel.now.Load() + max(1, int64(m.properties.MessageExpiry))
			}
		}
	}
	return m.kept
}
