package presence

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// Bounds of what waits.
const (
	// maxFacts bounds what waits for one client.
	maxFacts = 16
	// maxRefused bounds the refusals that wait for all clients together;
	// more are dropped and counted: they change no state.
	maxRefused = 10_000
	// maxFilterBytes bounds the filters of changed subscriptions that wait for
	// all clients together, maxClientFilterBytes those of one; more are dropped
	// and counted.
	maxFilterBytes       = 32 << 20
	maxClientFilterBytes = 256 << 10
)

// what is the kind of a fact.
type what int

// Kinds of facts.
const (
	connected what = iota
	disconnected
	refused
	subscribed
	unsubscribed
)

// fact is one thing the broker told.
type fact struct {
	session Session
	what    what
	reason  string
	// filters are those that a change of subscriptions names.
	filters []string
	at      time.Time
}

// optional reports whether the fact changes no state, so that it may be given
// up for one that does.
func (f *fact) optional() bool { return f.what != connected && f.what != disconnected }

// bytes is what its filters take.
func (f *fact) bytes() int {
	n := 0
	for _, filter := range f.filters {
		n += len(filter)
	}
	return n
}

// joins reports whether next is another change of the same connection in the
// same direction.
func (f *fact) joins(next *fact) bool {
	return (f.what == subscribed || f.what == unsubscribed) && f.what == next.what && f.session.ConnectionID == next.session.ConnectionID
}

// clientKey names one client.
type clientKey struct {
	account  fleet.Account
	clientID string
}

// queue holds facts by client, clients in the order of their first fact.
type queue struct {
	mu      sync.Mutex
	facts   map[clientKey][]fact
	order   []clientKey
	refused int
	// filters is the number of bytes in the filters that wait.
	filters int
	// busy is the number of facts taken and not yet done.
	busy int
	wake chan struct{}
	// idle is closed and replaced whenever nothing waits and nothing is busy.
	idle chan struct{}
}

// newQueue returns an empty queue.
func newQueue() *queue {
	return &queue{facts: map[clientKey][]fact{}, wake: make(chan struct{}, 1), idle: make(chan struct{})}
}

// add appends a fact and returns how many were given up for it.
func (q *queue) add(f fact) (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	key := clientKey{f.session.Account, f.session.ClientID}
	waiting := q.facts[key]
	if !q.admits(&f, waiting) {
		return 1
	}
	q.count(&f, 1)
	if len(waiting) == 0 {
		q.order = append(q.order, key)
	}
	waiting = append(waiting, f)
	if len(waiting) > maxFacts {
		waiting, dropped = q.merge(waiting)
	}
	q.facts[key] = waiting
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return dropped
}

// admits reports whether there is room for a fact of a kind that is bounded
// for all clients together.
func (q *queue) admits(f *fact, waiting []fact) bool {
	if f.what == refused {
		return q.refused < maxRefused
	}
	n := f.bytes()
	if n == 0 {
		return true
	}
	own := n
	for i := range waiting {
		own += waiting[i].bytes()
	}
	return own <= maxClientFilterBytes && q.filters+n <= maxFilterBytes
}

// count notes that a fact waits, or with -1 that it no longer does.
func (q *queue) count(f *fact, sign int) {
	if f.what == refused {
		q.refused += sign
	}
	q.filters += sign * f.bytes()
}

// merge makes room among the facts of one client: it removes connections that
// both began and ended while they waited, and refusals, joins changes of
// subscriptions, and gives up the oldest of these as a last resort, but never
// the newest state.
func (q *queue) merge(waiting []fact) (kept []fact, dropped int) {
	ended := map[string]bool{}
	begun := map[string]bool{}
	for _, f := range waiting {
		switch f.what {
		case connected:
			begun[f.session.ConnectionID] = true
		case disconnected:
			ended[f.session.ConnectionID] = true
		case refused, subscribed, unsubscribed:
		}
	}
	last := len(waiting) - 1
	newest := waiting[last].session.ConnectionID
	for i, f := range waiting {
		id := f.session.ConnectionID
		whole := begun[id] && ended[id] && id != newest
		switch {
		case i < last && (whole || f.what == refused):
			q.count(&f, -1)
			dropped++
		case len(kept) > 0 && kept[len(kept)-1].joins(&f):
			before := &kept[len(kept)-1]
			before.filters = slices.Concat(before.filters, f.filters)
		default:
			kept = append(kept, f)
		}
	}
	for i := 0; len(kept) > maxFacts && i < len(kept)-1; {
		if !kept[i].optional() {
			i++
			continue
		}
		q.count(&kept[i], -1)
		kept = slices.Delete(kept, i, i+1)
		dropped++
	}
	return kept, dropped
}

// take returns the facts of up to n clients, in order for each of them.
func (q *queue) take(n int) [][]fact {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.order))
	taken := make([][]fact, 0, n)
	for _, key := range q.order[:n] {
		facts := q.facts[key]
		delete(q.facts, key)
		for _, f := range facts {
			q.count(&f, -1)
		}
		q.busy += len(facts)
		taken = append(taken, facts)
	}
	if q.order = q.order[n:]; len(q.order) == 0 {
		q.order = nil
	}
	return taken
}

// done notes that taken facts are committed.
func (q *queue) done(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy -= n
	if q.busy == 0 && len(q.order) == 0 {
		close(q.idle)
		q.idle = make(chan struct{})
	}
}

// drained blocks until nothing waits or ctx ends.
func (q *queue) drained(ctx context.Context) error {
	for {
		q.mu.Lock()
		empty, idle := q.busy == 0 && len(q.order) == 0, q.idle
		q.mu.Unlock()
		if empty {
			return nil
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
