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

// wheel watches deadlines that move all the time without touching a timer for
// each move: an alarm is looked at when its deadline, as it was then, has come.
type wheel struct {
	// now counts ticks; it is the broker's coarse clock.
	now atomic.Int64

	mu    sync.Mutex
	slots [wheelSlots]*alarm
}

// alarm is one watched deadline. It is part of what it watches.
type alarm struct {
	// ring is called when the deadline has come as it was known, under no lock.
	// It returns the tick at which to look again, 0 for never.
	ring       func(now int64) (again int64)
	prev, next *alarm
	slot       int
	seated     bool
	// set says that the alarm is wanted: between add and remove.
	set bool
}

// add begins to watch; a second add moves the deadline.
func (w *wheel) add(a *alarm, due int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unseat(a)
	a.set = true
	w.place(a, due)
}

// place puts an alarm into the slot of its deadline.
func (w *wheel) place(a *alarm, due int64) {
	now := w.now.Load()
	due = min(max(due, now+1), now+wheelSlots-1)
	a.slot = int(due % wheelSlots)
	a.prev, a.next, a.seated = nil, w.slots[a.slot], true
	if a.next != nil {
		a.next.prev = a
	}
	w.slots[a.slot] = a
}

// remove ends the watch. A call of ring that has begun goes on.
func (w *wheel) remove(a *alarm) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a.set = false
	w.unseat(a)
}

// unseat takes an alarm out of its slot.
func (w *wheel) unseat(a *alarm) {
	if !a.seated {
		return
	}
	if a.prev != nil {
		a.prev.next = a.next
	} else {
		w.slots[a.slot] = a.next
	}
	if a.next != nil {
		a.next.prev = a.prev
	}
	a.prev, a.next, a.seated = nil, nil, false
}

// tick moves on by one tick and rings what is due.
func (w *wheel) tick() {
	w.mu.Lock()
	now := w.now.Add(1)
	slot := int(now % wheelSlots)
	a := w.slots[slot]
	w.slots[slot] = nil
	var due []*alarm
	for a != nil {
		next := a.next
		a.prev, a.next, a.seated = nil, nil, false
		due = append(due, a)
		a = next
	}
	w.mu.Unlock()
	for _, a := range due {
		again := a.ring(now)
		w.mu.Lock()
		switch {
		case a.seated || !a.set: // added again or removed meanwhile
		case again > 0:
			w.place(a, again)
		default:
			a.set = false
		}
		w.mu.Unlock()
	}
}

// turn runs the wheel until stop is closed. Ticks that the process slept
// through are made up for.
func (b *Broker) turn(stop <-chan struct{}) {
	ticker := time.NewTicker(tickLength)
	defer ticker.Stop()
	begun := time.Now()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		for target := int64(time.Since(begun) / tickLength); b.wheel.now.Load() < target; {
			b.wheel.tick()
		}
	}
}
