package broker

import (
	"errors"

	"github.com/muster-iot/muster/internal/mqtt"
)

// ackSlot is the place of one acknowledgement in the order of its publishes.
type ackSlot struct {
	kind mqtt.Type
	id   uint16
	done bool
	code mqtt.ReasonCode
}

// ackKind returns the packet that answers a PUBLISH.
func ackKind(qos byte) mqtt.Type {
	if qos == 2 {
		return mqtt.TypePubrec
	}
	return mqtt.TypePuback
}

// acknowledge appends an acknowledgement, behind those that still wait.
func (c *connection) acknowledge(b *batch, kind mqtt.Type, id uint16, code mqtt.ReasonCode) {
	c.session.mu.Lock()
	if len(c.acks) == 0 {
		c.ackLocked(kind, id, code)
	} else {
		c.acks = append(c.acks, &ackSlot{kind: kind, id: id, done: true, code: code})
	}
	c.touchLocked(b)
	c.session.mu.Unlock()
}

// holdAck reserves the next place for an acknowledgement that comes later.
func (c *connection) holdAck(kind mqtt.Type, id uint16) *ackSlot {
	slot := &ackSlot{kind: kind, id: id}
	c.session.mu.Lock()
	c.acks = append(c.acks, slot)
	c.session.mu.Unlock()
	return slot
}

// settle decides a reserved acknowledgement and appends all that are due now,
// for the batch to write if there is one. It reports whether there is something
// to flush.
func (c *connection) settle(b *batch, slot *ackSlot, code mqtt.ReasonCode) bool {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	slot.done, slot.code = true, code
	released := 0
	for released < len(c.acks) && c.acks[released].done {
		a := c.acks[released]
		c.ackLocked(a.kind, a.id, a.code)
		released++
	}
	if released == 0 {
		return false
	}
	if c.acks = c.acks[released:]; len(c.acks) == 0 {
		c.acks = nil
	}
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
	if b != nil {
		c.touchLocked(b)
	}
	return true
}

// settled is called when everything that a message needs has been done: it
// acknowledges, or ends a connection that cannot be told of a failure.
func (c *connection) settled(b *batch, slot *ackSlot, fine mqtt.ReasonCode, err error) {
	code := fine
	if err != nil {
		code = pubackCode(err)
	}
	if code.Failed() {
		if c.version != mqtt.V5 {
			c.end(&cause{reason: ReasonServerError, err: err})
			return
		}
		c.session.release2(slot.id)
	}
	if c.settle(b, slot, code) && b == nil {
		c.flush()
	}
}

// waitForAcks keeps the reader from taking more than the receive maximum: MQTT
// 5 clients have promised not to send more, earlier ones are made to wait.
func (c *connection) waitForAcks(b *batch) *cause {
	s := c.session
	s.mu.Lock()
	if c.unacknowledgedLocked() < c.broker.limits.MaxInflight || len(c.acks) == 0 && c.version != mqtt.V5 {
		s.mu.Unlock()
		return nil
	}
	if c.version == mqtt.V5 {
		s.mu.Unlock()
		return clientError(mqtt.ReceiveMaximumExceeded, nil)
	}
	room := make(chan struct{})
	c.room = room
	s.mu.Unlock()
	b.flush()
	select {
	case <-room:
		return nil
	case <-c.gone:
		return because(ReasonServerError) // the first cause has been recorded
	}
}

// unacknowledgedLocked returns how many publishes the client waits for. One with
// QoS 2 is among those received until it is released.
func (c *connection) unacknowledgedLocked() int {
	n := len(c.session.received)
	for _, a := range c.acks {
		if a.kind == mqtt.TypePuback {
			n++
		}
	}
	return n
}

// errWrongAck is an acknowledgement that does not fit the message's quality of
// service.
var errWrongAck = errors.New("acknowledgement of another quality of service")

// acknowledged frees a packet id of ours and sends what waited for it: for a
// PUBACK, a PUBCOMP, or a PUBREC that refuses. An id that is not in use is left
// alone: its message may have been given up.
func (c *connection) acknowledged(b *batch, id uint16, qos byte, released bool) *cause {
	s := c.session
	s.mu.Lock()
	i := s.findLocked(id)
	if i < 0 || s.link.Load() != c {
		s.mu.Unlock()
		return nil
	}
	p := &s.inflight[i]
	if p.qos != qos || released && !p.released {
		s.mu.Unlock()
		return clientError(mqtt.ProtocolError, errWrongAck)
	}
	c.probe.acknowledged(p.order, c.broker.now)
	s.unkeepLocked(p)
	if waiter := s.waiters[p.order]; waiter != nil {
		delete(s.waiters, p.order)
		close(waiter)
	}
	s.removeLocked(i)
	more := len(s.queue.items) > 0
	if !more {
		s.sharesLocked(func(sub *subscription) bool { more = sub.group.waits(); return more })
	}
	s.mu.Unlock()
	if more {
		s.refill(b)
	}
	return nil
}

// receivedByClient answers a PUBREC: the message has arrived, its id stays in
// use until PUBCOMP.
func (c *connection) receivedByClient(b *batch, p *mqtt.Ack) *cause {
	if p.Reason.Failed() {
		return c.acknowledged(b, p.PacketID, 2, false)
	}
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.findLocked(p.PacketID); i >= 0 {
		if s.inflight[i].qos != 2 {
			return clientError(mqtt.ProtocolError, errWrongAck)
		}
		s.inflight[i].released = true
		s.inflight[i].sent = c.broker.wheel.now.Load()
	}
	c.ackLocked(mqtt.TypePubrel, p.PacketID, mqtt.Success)
	c.touchLocked(b)
	return nil
}

// releaseOfClient answers a PUBREL: the client will not send the message again.
// It comes for unknown ids as well, when the answer before was lost.
func (c *connection) releaseOfClient(b *batch, p *mqtt.Ack) {
	c.session.release2(p.PacketID)
	c.acknowledge(b, mqtt.TypePubcomp, p.PacketID, mqtt.Success)
}

// release2 forgets a QoS 2 message of the client.
func (s *session) release2(id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.received, id)
}

// repeated reports whether a QoS 2 message of the client is one that was taken in
// before.
func (s *session) repeated(id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.received[id]
	return ok
}

// note remembers a QoS 2 message of the client until it is released.
func (s *session) note(id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.received == nil {
		s.received = make(map[uint16]struct{}, 1)
	}
	s.received[id] = struct{}{}
}
