package presence

import (
	"context"
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
)

// what is the kind of a fact.
type what int

// Kinds of facts.
const (
	connected what = iota
	disconnected
	refused
)

// fact is one thing the broker told.
type fact struct {
	session Session
	what    what
	reason  string
	at      time.Time
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
	if f.what == refused {
		if q.refused >= maxRefused {
			return 1
		}
		q.refused++
	}
	key := clientKey{f.session.Account, f.session.ClientID}
	waiting := q.facts[key]
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

// merge removes connections that both began and ended while they waited, and
// refusals, but never the newest state.
func (q *queue) merge(waiting []fact) (kept []fact, dropped int) {
	ended := map[string]bool{}
	begun := map[string]bool{}
	for _, f := range waiting {
		switch f.what {
		case connected:
			begun[f.session.SessionID] = true
		case disconnected:
			ended[f.session.SessionID] = true
		case refused:
		}
	}
	last := len(waiting) - 1
	newest := waiting[last].session.SessionID
	for i, f := range waiting {
		id := f.session.SessionID
		whole := begun[id] && ended[id] && id != newest
		if i < last && (whole || f.what == refused) {
			if f.what == refused {
				q.refused--
			}
			dropped++
			continue
		}
		kept = append(kept, f)
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
			if f.what == refused {
				q.refused--
			}
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
