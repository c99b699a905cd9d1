package shadow

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/fault"
)

// rate bounds the requests of each thing in a second by a bucket that refills
// steadily. Full buckets are forgotten, so that memory holds only things that
// were heard of in the last second.
type rate struct {
	// per is the size of a bucket and what flows in during a second.
	per    float64
	seed   maphash.Seed
	shards [shards]rateShard
}

// rateShard holds the buckets of one part.
type rateShard struct {
	mu      sync.Mutex
	buckets map[thingName]bucket
	swept   time.Time
}

// bucket is what is left of a thing's requests.
type bucket struct {
	left float64
	at   time.Time
}

// newRate returns a bound of so many requests per second, nil for none.
func newRate(perSecond int) *rate {
	if perSecond <= 0 {
		return nil
	}
	r := &rate{per: float64(perSecond), seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i].buckets = map[thingName]bucket{}
	}
	return r
}

// take counts one request and reports whether it is within the bound.
func (r *rate) take(name thingName, now time.Time) bool {
	if r == nil {
		return true
	}
	s := &r.shards[maphash.Comparable(r.seed, name)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.swept) >= time.Second || now.Before(s.swept) {
		s.swept = now
		for name, b := range s.buckets {
			if r.filled(b, now) >= r.per {
				delete(s.buckets, name)
			}
		}
	}
	left := r.per
	if b, ok := s.buckets[name]; ok {
		left = r.filled(b, now)
	}
	if left < 1 {
		return false
	}
	s.buckets[name] = bucket{left: left - 1, at: now}
	return true
}

// filled is what a bucket holds at a time. A clock that went back fills
// nothing.
func (r *rate) filled(b bucket, now time.Time) float64 {
	return min(r.per, b.left+r.per*max(0, now.Sub(b.at).Seconds()))
}

// admit counts a request of a device or an operator against the limits of its
// thing; leave must follow when it returns nil.
func (s *Service) admit(id identity, now time.Time) (leave func(), err error) {
	if !s.rate.take(thingName{id.account, id.thing}, now) {
		return nil, &fault.Error{Code: fault.Throttling, Message: msgTooMany}
	}
	return s.locks.enter(id, s.limits.InFlight)
}
