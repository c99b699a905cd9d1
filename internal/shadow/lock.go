package shadow

import (
	"context"
	"hash/maphash"
	"sync"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// shards is how many parts the lock table and the cache have.
const shards = 64

// locks lets one request at a time through per shadow and bounds how many of
// one thing are inside. Waiting ends with the caller's context.
type locks struct {
	seed   maphash.Seed
	shards [shards]lockShard
	things [shards]thingShard
}

// lockShard holds the shadows in use of one part.
type lockShard struct {
	mu   sync.Mutex
	held map[identity]*lock
}

// lock is held by whoever put the value into turn.
type lock struct {
	turn chan struct{}
	// users counts the holder and those who wait; guarded by the shard.
	users int
}

// thingName names one thing for counting.
type thingName struct {
	account fleet.Account
	thing   string
}

// thingShard counts requests under way.
type thingShard struct {
	mu    sync.Mutex
	count map[thingName]int
}

// newLocks returns an empty table.
func newLocks() *locks {
	l := &locks{seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].held = map[identity]*lock{}
		l.things[i].count = map[thingName]int{}
	}
	return l
}

// enter counts one more request of a thing; leave must follow when it returns
// nil. A limit of 0 counts nothing.
func (l *locks) enter(id identity, limit int) (leave func(), err error) {
	if limit <= 0 {
		return func() {}, nil
	}
	name := thingName{id.account, id.thing}
	s := &l.things[maphash.Comparable(l.seed, name)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count[name] >= limit {
		return nil, &fault.Error{Code: fault.Throttling, Message: msgThrottled}
	}
	s.count[name]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.count[name]--; s.count[name] == 0 {
			delete(s.count, name)
		}
	}, nil
}

// acquire waits for the shadow's turn; release must follow when it returns nil.
func (l *locks) acquire(ctx context.Context, id identity) (release func(), err error) {
	s := &l.shards[id.hash(l.seed)%shards]
	s.mu.Lock()
	k := s.held[id]
	if k == nil {
		k = &lock{turn: make(chan struct{}, 1)}
		s.held[id] = k
	}
	k.users++
	s.mu.Unlock()
	select {
	case k.turn <- struct{}{}:
		return func() {
			<-k.turn
			s.forget(id, k)
		}, nil
	case <-ctx.Done():
		s.forget(id, k)
		return nil, ctx.Err()
	}
}

// forget drops the lock when nobody uses it any more.
func (s *lockShard) forget(id identity, k *lock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(s.held, id)
	}
}
