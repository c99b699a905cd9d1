package deviceauth

import (
	"hash/maphash"
	"sync/atomic"

	"github.com/muster-iot/muster/internal/iotpolicy"
)

// cacheSlots bounds the answers that a session remembers. A device talks about
// few topics; a subscriber of everything has a set that needs no cache.
const cacheSlots = 32

// cache is a direct-mapped table: an answer takes the place of an older one
// with the same hash, and readers need no lock.
type cache [cacheSlots]atomic.Pointer[answer]

// answer is one remembered decision. All but the last two is fixed.
type answer struct {
	action string
	// resource is the ARN, and name where the topic in it begins.
	resource string
	name     int
	outcome  iotpolicy.Outcome
	// logged is when a refusal was logged, in nanoseconds since 1970.
	logged atomic.Int64
	// kept is the refusal that repeats count for.
	kept atomic.Pointer[entry]
}

// isAbout reports whether the answer is to this question.
func (a *answer) isAbout(action, name string) bool {
	return a.action == action && a.resource[a.name:] == name
}

// slot returns the place for an answer. The table comes with the first one.
func (c *compiled) slot(seed maphash.Seed, action, name string) *atomic.Pointer[answer] {
	table := c.cache.Load()
	if table == nil {
		c.cache.CompareAndSwap(nil, &cache{})
		table = c.cache.Load()
	}
	hash := maphash.String(seed, name) + uint64(len(action))
	return &table[hash%cacheSlots]
}
