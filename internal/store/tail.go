package store

import (
	"context"
	"sync"

	"github.com/muster-iot/muster/internal/event"
)

// Tail keeps the newest durable events decoded in memory, so that readers at
// the end of the log neither read nor decode, and wakes those that wait. It is
// safe for concurrent use.
type Tail struct {
	mu sync.Mutex
	// events are contiguous; the last one has sequence head.
	events []event.Envelope
	head   uint64
	limit  int
	wake   chan struct{}
	closed bool
}

// NewTail starts at a log that ends with head and keeps up to limit events.
func NewTail(head uint64, limit int) *Tail {
	return &Tail{head: head, limit: limit, wake: make(chan struct{})}
}

// Append adds durable events that continue the log and wakes the waiting.
func (t *Tail) Append(events []*event.Envelope) {
	if len(events) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if events[0].Seq != t.head+1 {
		t.events = t.events[:0]
	}
	for _, e := range events {
		t.events = append(t.events, *e)
	}
	t.head = events[len(events)-1].Seq
	if surplus := len(t.events) - 2*t.limit; surplus > 0 {
		// Cut to the limit at twice of it: each event is then copied once.
		t.events = append(make([]event.Envelope, 0, 2*t.limit), t.events[len(t.events)-t.limit:]...)
	}
	t.signal()
}

// signal wakes the waiting.
func (t *Tail) signal() {
	if t.closed {
		return
	}
	close(t.wake)
	t.wake = make(chan struct{})
}

// Advance notes that the log ends at head, for events that came from
// elsewhere and are not kept here.
func (t *Tail) Advance(head uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if head <= t.head {
		return
	}
	t.head, t.events = head, nil
	t.signal()
}

// Head is the sequence of the last durable event.
func (t *Tail) Head() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.head
}

// Read returns up to limit events after seq. ok is false when some of them
// are not kept here.
func (t *Tail) Read(seq uint64, limit int) (events []event.Envelope, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq >= t.head {
		return nil, true
	}
	behind := t.head - seq
	if behind > uint64(len(t.events)) {
		return nil, false
	}
	from := len(t.events) - int(behind)
	to := min(len(t.events), from+limit)
	return append([]event.Envelope(nil), t.events[from:to]...), true
}

// Close ends every Wait.
func (t *Tail) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.closed = true
		close(t.wake)
	}
}

// Wait blocks until there is an event after seq, ctx ends or the tail is
// closed.
func (t *Tail) Wait(ctx context.Context, seq uint64) error {
	for {
		t.mu.Lock()
		head, wake, closed := t.head, t.wake, t.closed
		t.mu.Unlock()
		switch {
		case closed:
			return ErrClosed
		case head > seq:
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
