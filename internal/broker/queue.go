package broker

import "github.com/muster-iot/muster/internal/mqtt"

// stored is a message that outlives the buffer it arrived in; it is shared by
// all queues that hold it.
type stored struct {
	topic      string
	payload    []byte
	properties mqtt.Properties
	// expires is the tick at which the message is worthless, 0 for never.
	expires int64
}

// queued is a message that waits for a session.
type queued struct {
	message *stored
	ids     []uint32
}

// queue keeps QoS 1 messages behind a session's window, oldest first.
type queue struct {
	items []queued
	bytes int
}

// push appends a message unless the queue is full.
func (q *queue) push(m queued, limits *Limits) bool {
	size := len(m.message.payload) + len(m.message.topic)
	if len(q.items) >= limits.MaxQueue || q.bytes+size > limits.MaxQueueBytes {
		return false
	}
	q.items = append(q.items, m)
	q.bytes += size
	return true
}

// pop removes the oldest message.
func (q *queue) pop() queued {
	m := q.items[0]
	q.items[0] = queued{}
	if q.items = q.items[1:]; len(q.items) == 0 {
		q.items = nil
	}
	q.bytes -= len(m.message.payload) + len(m.message.topic)
	return m
}

// refillLocked moves queued messages into the window as far as window and
// pending output have room, and reports whether it moved any.
func (s *session) refillLocked() bool {
	moved := false
	for len(s.queue.items) > 0 && !s.dead && s.hasRoomLocked() {
		m := s.queue.pop()
		now := s.broker.wheel.now.Load()
		if m.message.expires > 0 && m.message.expires <= now {
			s.broker.metrics.dropped[dropExpired].Inc()
			continue
		}
		if s.appendStoredLocked(m, now) {
			moved = true
		}
	}
	return moved
}

// hasRoomLocked reports whether one more QoS 1 message may be sent.
func (s *session) hasRoomLocked() bool {
	return len(s.inflight) < s.window && (s.pending == nil || len(s.pending.b) < s.broker.limits.MaxPending)
}

// appendStoredLocked encodes a queued message with what is left of its expiry.
func (s *session) appendStoredLocked(m queued, now int64) bool {
	p := mqtt.Publish{QoS: 1, Topic: []byte(m.message.topic), Payload: m.message.payload, PacketID: s.nextIDLocked()}
	if s.version == mqtt.V5 {
		p.Properties = m.message.properties
		p.Properties.SubscriptionIDs = m.ids
		if m.message.expires > 0 {
			p.Properties.MessageExpiry = uint32(m.message.expires - now)
		}
	}
	out := s.pendingLocked()
	before := len(out.b)
	var err error
	if out.b, err = p.Append(out.b, s.version); err != nil || len(out.b)-before > s.maxPacket {
		out.b = out.b[:before]
		s.broker.metrics.dropped[dropTooLarge].Inc()
		return false
	}
	s.inflight = append(s.inflight, p.PacketID)
	s.broker.metrics.sent[1].Inc()
	return true
}
