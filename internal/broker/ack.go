package broker

import (
	"slices"

	"github.com/muster-iot/muster/internal/mqtt"
)

// ackSlot is the place of one PUBACK in the order of its publishes.
type ackSlot struct {
	id   uint16
	done bool
	code mqtt.ReasonCode
}

// acknowledge appends a PUBACK, behind those that still wait.
func (s *session) acknowledge(b *batch, id uint16, code mqtt.ReasonCode) {
	s.mu.Lock()
	if len(s.acks) == 0 {
		s.ackLocked(mqtt.TypePuback, id, code)
	} else {
		s.acks = append(s.acks, &ackSlot{id: id, done: true, code: code})
	}
	s.touchLocked(b)
	s.mu.Unlock()
}

// holdAck reserves the next place for a PUBACK that comes later.
func (s *session) holdAck(id uint16) *ackSlot {
	slot := &ackSlot{id: id}
	s.mu.Lock()
	s.acks = append(s.acks, slot)
	s.mu.Unlock()
	return slot
}

// settle decides a reserved PUBACK and appends all that are due now. It
// reports whether there is something to flush.
func (s *session) settle(slot *ackSlot, code mqtt.ReasonCode) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot.done, slot.code = true, code
	released := 0
	for released < len(s.acks) && s.acks[released].done {
		s.ackLocked(mqtt.TypePuback, s.acks[released].id, s.acks[released].code)
		released++
	}
	if released == 0 {
		return false
	}
	if s.acks = s.acks[released:]; len(s.acks) == 0 {
		s.acks = nil
	}
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
	return true
}

// settled is called when a service has dealt with a message: it acknowledges,
// or ends a connection that cannot be told of the failure.
func (s *session) settled(slot *ackSlot, err error) {
	code := pubackCode(err)
	if code.Failed() && s.version != mqtt.V5 {
		s.end(&cause{reason: ReasonServerError, err: err})
		return
	}
	if s.settle(slot, code) {
		s.flush()
	}
}

// waitForAcks keeps the reader from taking more than the receive maximum: MQTT
// 5 clients have promised not to send more, earlier ones are made to wait.
func (s *session) waitForAcks(b *batch) *cause {
	s.mu.Lock()
	if len(s.acks) < s.broker.limits.MaxInflight {
		s.mu.Unlock()
		return nil
	}
	if s.version == mqtt.V5 {
		s.mu.Unlock()
		return clientError(mqtt.ReceiveMaximumExceeded, nil)
	}
	room := make(chan struct{})
	s.room = room
	s.mu.Unlock()
	b.flush()
	select {
	case <-room:
		return nil
	case <-s.gone:
		return because(ReasonServerError) // the first cause has been recorded
	}
}

// acknowledged frees a packet id of ours and sends what waited for it.
func (s *session) acknowledged(b *batch, id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.inflight, id); i >= 0 {
		s.inflight = slices.Delete(s.inflight, i, i+1)
	}
	if s.refillLocked() {
		s.touchLocked(b)
	}
}

// nextIDLocked returns a packet id that is not in flight.
func (s *session) nextIDLocked() uint16 {
	for {
		s.nextID++
		if s.nextID != 0 && !s.inUseLocked(s.nextID) {
			return s.nextID
		}
	}
}

// inUseLocked reports whether a packet id is in flight.
func (s *session) inUseLocked(id uint16) bool {
	return slices.Contains(s.inflight, id)
}

// dropAck takes back the place of a PUBACK that holdAck reserved last.
func (s *session) dropAck(slot *ackSlot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.acks) - 1; last >= 0 && s.acks[last] == slot {
		s.acks[last] = nil
		s.acks = s.acks[:last]
	}
}
