package broker

import (
	"sync"
	"sync/atomic"
	"time"
)

// wheelSlots is the horizon of the wheel in ticks; deadlines beyond it are
// looked at once per turn.
const wheelSlots = 2048

// tickLength is the wheel's resolution.
const tickLength = time.Second

// wheel watches keep-alive without touching a timer on each packet: a session
// only stores the tick of its last packet, and is looked at when its deadline,
// as it was then, has come.
type wheel struct {
	// now counts ticks; it is the broker's coarse clock.
	now atomic.Int64

	mu    sync.Mutex
	slots [wheelSlots]*session
}

// seat is a session's place in the wheel.
type seat struct {
	prev, next *session
	slot       int
	seated     bool
}

// add begins to watch a session that expires after idle ticks of silence.
func (w *wheel) add(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.place(s, w.now.Load())
}

// place puts a session into the slot of its deadline.
func (w *wheel) place(s *session, now int64) {
	due := min(s.lastSeen.Load()+s.idleTicks, now+wheelSlots-1)
	slot := int(max(due, now+1) % wheelSlots)
	head := w.slots[slot]
	s.seat = seat{next: head, slot: slot, seated: true}
	if head != nil {
		head.seat.prev = s
	}
	w.slots[slot] = s
}

// remove ends the watch.
func (w *wheel) remove(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !s.seat.seated {
		return
	}
	if s.seat.prev != nil {
		s.seat.prev.seat.next = s.seat.next
	} else {
		w.slots[s.seat.slot] = s.seat.next
	}
	if s.seat.next != nil {
		s.seat.next.seat.prev = s.seat.prev
	}
	s.seat = seat{}
}

// tick moves on by one tick and returns the sessions that were silent too
// long; they are not watched any more.
func (w *wheel) tick(expired []*session) []*session {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now.Add(1)
	slot := int(now % wheelSlots)
	s := w.slots[slot]
	w.slots[slot] = nil
	for s != nil {
		next := s.seat.next
		s.seat = seat{}
		if s.lastSeen.Load()+s.idleTicks <= now {
			expired = append(expired, s)
		} else {
			w.place(s, now)
		}
		s = next
	}
	return expired
}

// turn runs the wheel until stop is closed.
func (b *Broker) turn(stop <-chan struct{}) {
	ticker := time.NewTicker(tickLength)
	defer ticker.Stop()
	var expired []*session
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		expired = b.wheel.tick(expired[:0])
		for _, s := range expired {
			s.end(because(ReasonKeepAliveTimeout))
		}
		clear(expired)
	}
}
