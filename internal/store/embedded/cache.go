package embedded

import (
	"bytes"
	"hash/maphash"
	"sync"

	"github.com/muster-iot/muster/internal/store"
)

// recordCache keeps recently committed records, so that a hot key costs no read
// of the disk's tables: neither for its expectation nor for the reader that
// prepares the next change. Only the committer fills it, after the sync, and
// forgets before the write what is about to change: a reader who has seen one
// record of a batch must not be given another one from before. A deleted key is
// held as a record of version 0.
type recordCache struct {
	seed   maphash.Seed
	shards [16]cacheShard
}

// cacheShard is bounded by two generations: when the young one is full it
// becomes the old one, and what was read from the old one returns to the young.
type cacheShard struct {
	mu         sync.Mutex
	limit      int
	size       int
	young, old map[store.Key]store.Record
}

// entryOverhead is about what an entry costs beside key and value.
const entryOverhead = 128

func newRecordCache(limit int64) *recordCache {
	c := &recordCache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].limit = int(limit) / len(c.shards) / 2
		c.shards[i].young = map[store.Key]store.Record{}
	}
	return c
}

func (c *recordCache) shard(key store.Key) *cacheShard {
	return &c.shards[maphash.String(c.seed, string(key))%uint64(len(c.shards))]
}

// get returns what is known of a key; its value must not be changed.
func (c *recordCache) get(key store.Key) (store.Record, bool) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.young[key]; ok {
		return r, true
	}
	r, ok := s.old[key]
	if ok {
		delete(s.old, key)
		s.add(r)
	}
	return r, ok
}

// forget drops what is known of a key.
func (c *recordCache) forget(key store.Key) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(key)
}

// drop takes a key out of both generations.
func (s *cacheShard) drop(key store.Key) {
	delete(s.old, key)
	if known, ok := s.young[key]; ok {
		s.size -= cost(known)
		delete(s.young, key)
	}
}

// put records a committed write.
func (c *recordCache) put(key store.Key, f store.Final) {
	r := store.Record{Key: key}
	if !f.Write.Delete {
		r.Version, r.Value = f.Version, bytes.Clone(f.Write.Value)
	}
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(key)
	s.add(r)
}

// add puts a record into the young generation. One that would fill a large
// part of it is not kept.
func (s *cacheShard) add(r store.Record) {
	n := cost(r)
	if n > s.limit/4 {
		return
	}
	if s.size+n > s.limit {
		s.old, s.young, s.size = s.young, make(map[store.Key]store.Record, len(s.young)), 0
	}
	s.young[r.Key] = r
	s.size += n
}

func cost(r store.Record) int { return len(r.Key) + len(r.Value) + entryOverhead }
