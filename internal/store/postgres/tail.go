package postgres

import (
	"context"
	"slices"
	"sync"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

// tail keeps the newest known events decoded, for readers near the end of the
// log, and wakes those who wait for more. Other processes append to the log
// too, so what it knows may lag behind the server; it is never ahead.
type tail struct {
	maxEvents, maxBytes int

	mu sync.Mutex
	// envs are contiguous and end before next; sizes runs beside them.
	envs  []event.Envelope
	sizes []int
	bytes int
	next  uint64
	// head is the highest sequence that is known to be committed.
	head uint64
	wake chan struct{}
}

// newTail starts at a log that ends with head.
func newTail(head uint64, maxEvents, maxBytes int) *tail {
	return &tail{maxEvents: maxEvents, maxBytes: maxBytes, next: head + 1, head: head, wake: make(chan struct{})}
}

// add takes committed events in log order, their encoded sizes beside them.
// Known ones are skipped; after a gap the tail starts anew.
func (t *tail) add(envs []event.Envelope, sizes []int) {
	if len(envs) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, env := range envs {
		if env.Seq < t.next {
			continue
		}
		if env.Seq > t.next {
			t.envs, t.sizes, t.bytes = nil, nil, 0
		}
		t.envs, t.sizes = append(t.envs, env), append(t.sizes, sizes[i])
		t.bytes += sizes[i]
		t.next = env.Seq + 1
	}
	t.shrink()
	t.advance(envs[len(envs)-1].Seq)
}

// shrink cuts to half of the bounds once one of them is exceeded, so that each
// event is moved about once.
func (t *tail) shrink() {
	if len(t.envs) <= t.maxEvents && t.bytes <= t.maxBytes {
		return
	}
	drop := 0
	for drop < len(t.envs) && (len(t.envs)-drop > t.maxEvents/2 || t.bytes > t.maxBytes/2) {
		t.bytes -= t.sizes[drop]
		drop++
	}
	t.envs, t.sizes = slices.Clone(t.envs[drop:]), slices.Clone(t.sizes[drop:])
}

// note records that the log reaches at least to head.
func (t *tail) note(head uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.advance(head)
}

// advance wakes the waiting when the head has moved.
func (t *tail) advance(head uint64) {
	if head <= t.head {
		return
	}
	t.head = head
	close(t.wake)
	t.wake = make(chan struct{})
}

// after returns up to limit events behind seq, none when they are not here.
func (t *tail) after(seq uint64, limit int) []event.Envelope {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.next - uint64(len(t.envs))
	if seq+1 < first || seq+1 >= t.next {
		return nil
	}
	from := int(seq + 1 - first)
	return slices.Clone(t.envs[from:min(len(t.envs), from+limit)])
}

// trim forgets the events up to seq.
func (t *tail) trim(seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.next - uint64(len(t.envs))
	if seq < first {
		return
	}
	drop := min(len(t.envs), int(seq-first)+1)
	for _, size := range t.sizes[:drop] {
		t.bytes -= size
	}
	t.envs, t.sizes = slices.Clone(t.envs[drop:]), slices.Clone(t.sizes[drop:])
}

// reset starts anew at a log that ends with head.
func (t *tail) reset(head uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.envs, t.sizes, t.bytes, t.next = nil, nil, 0, head+1
	t.advance(head)
}

// wait blocks until the log reaches past seq, ctx ends or closed closes.
func (t *tail) wait(ctx context.Context, seq uint64, closed <-chan struct{}) error {
	for {
		t.mu.Lock()
		head, wake := t.head, t.wake
		t.mu.Unlock()
		if head > seq {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		case <-closed:
			return store.ErrClosed
		}
	}
}
