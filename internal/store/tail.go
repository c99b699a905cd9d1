package store

import (
	"context"
	"slices"
	"sync"

	"github.com/muster-iot/muster/internal/event"
)

// Tail keeps the newest durable events decoded in memory, so that readers near
// the end of the log neither read nor decode, and wakes those that wait for
// more. Where several processes append to one log, what it knows may lag
// behind; it is never ahead. It is safe for concurrent use.
type Tail struct {
	maxEvents, maxBytes int

	mu sync.Mutex
	// events are contiguous and end before next; sizes runs beside them.
	events []event.Envelope
	sizes  []int
	bytes  int
	next   uint64
	// head is the highest sequence that is known to be durable.
	head   uint64
	wake   chan struct{}
	closed bool
}

// NewTail starts at a log that ends with head and keeps no more than maxEvents
// events and maxBytes of their stored form.
func NewTail(head uint64, maxEvents, maxBytes int) *Tail {
	return &Tail{maxEvents: maxEvents, maxBytes: maxBytes, next: head + 1, head: head, wake: make(chan struct{})}
}

// Append takes durable events in log order, each with its stored form beside
// it. Known ones are skipped; after a gap the tail starts anew.
func (t *Tail) Append(events []*event.Envelope, data [][]byte) {
	if len(events) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, env := range events {
		if env.Seq < t.next {
			continue
		}
		if env.Seq > t.next {
			t.events, t.sizes, t.bytes = nil, nil, 0
		}
		t.events, t.sizes = append(t.events, *env), append(t.sizes, len(data[i]))
		t.bytes += len(data[i])
		t.next = env.Seq + 1
	}
	t.shrink()
	t.advance(events[len(events)-1].Seq)
}

// shrink cuts to half of the bounds once one of them is exceeded, so that each
// event is moved about once.
func (t *Tail) shrink() {
	if len(t.events) <= t.maxEvents && t.bytes <= t.maxBytes {
		return
	}
	drop := 0
	for drop < len(t.events) && (len(t.events)-drop > t.maxEvents/2 || t.bytes > t.maxBytes/2) {
		t.bytes -= t.sizes[drop]
		drop++
	}
	t.events, t.sizes = slices.Clone(t.events[drop:]), slices.Clone(t.sizes[drop:])
}

// Advance notes that the log reaches at least to head, for events that are not
// at hand here.
func (t *Tail) Advance(head uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.advance(head)
}

func (t *Tail) advance(head uint64) {
	if head <= t.head {
		return
	}
	t.head = head
	if !t.closed {
		close(t.wake)
		t.wake = make(chan struct{})
	}
}

// Head is the highest sequence that is known to be durable.
func (t *Tail) Head() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.head
}

// Read returns up to limit events after seq, none when they are not kept here.
// The events are shared with other readers and must not be changed.
func (t *Tail) Read(seq uint64, limit int) []event.Envelope {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.next - uint64(len(t.events))
	if seq+1 < first || seq+1 >= t.next || limit <= 0 {
		return nil
	}
	from := int(seq + 1 - first)
	return slices.Clone(t.events[from:min(len(t.events), from+limit)])
}

// Trim forgets the events up to seq.
func (t *Tail) Trim(seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.next - uint64(len(t.events))
	if seq < first {
		return
	}
	drop := int(min(uint64(len(t.events)), seq-first+1))
	for _, size := range t.sizes[:drop] {
		t.bytes -= size
	}
	t.events, t.sizes = slices.Clone(t.events[drop:]), slices.Clone(t.sizes[drop:])
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
