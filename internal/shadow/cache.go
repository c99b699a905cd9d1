package shadow

import (
	"container/list"
	"hash/maphash"
	"sync"
)

// cache keeps documents lately used, bounded by their bytes. An entry is the
// last committed version known to this process.
type cache struct {
	seed   maphash.Seed
	limit  int64
	shards [shards]cacheShard
}

// cacheShard is one part with its own order of use.
type cacheShard struct {
	mu    sync.Mutex
	bytes int64
	// order has the latest used document in front.
	order *list.List
	byID  map[identity]*list.Element
}

// entry is one cached document.
type entry struct {
	id identity
	d  *document
	// version is the stored record's.
	version uint64
	bytes   int64
}

// newCache returns an empty cache for about limit bytes.
func newCache(limit int64) *cache {
	c := &cache{seed: maphash.MakeSeed(), limit: limit / shards}
	for i := range c.shards {
		c.shards[i].order = list.New()
		c.shards[i].byID = map[identity]*list.Element{}
	}
	return c
}

// shard returns the part that an identity belongs to.
func (c *cache) shard(id identity) *cacheShard { return &c.shards[id.hash(c.seed)%shards] }

// get returns a document and its record's version.
func (c *cache) get(id identity) (*document, uint64, bool) {
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	element, ok := s.byID[id]
	if !ok {
		return nil, 0, false
	}
	s.order.MoveToFront(element)
	e := entryOf(element)
	return e.d, e.version, true
}

// put stores a document and makes room for it.
func (c *cache) put(id identity, d *document, version uint64) {
	e := &entry{id: id, d: d, version: version, bytes: d.footprint()}
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(id)
	if e.bytes > c.limit {
		return
	}
	s.byID[id] = s.order.PushFront(e)
	s.bytes += e.bytes
	for s.bytes > c.limit {
		s.remove(entryOf(s.order.Back()).id)
	}
}

// drop forgets a document.
func (c *cache) drop(id identity) {
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(id)
}

// remove takes an entry out of a locked part.
func (s *cacheShard) remove(id identity) {
	element, ok := s.byID[id]
	if !ok {
		return
	}
	s.bytes -= entryOf(element).bytes
	s.order.Remove(element)
	delete(s.byID, id)
}

// entryOf returns what an element of the order holds.
func entryOf(element *list.Element) *entry {
	e, _ := element.Value.(*entry)
	return e
}
