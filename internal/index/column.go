package index

import "math/bits"

// chunkDocs is how many documents share a chunk of a column.
const chunkDocs = 256

// column holds at most one value for each document, packed: a chunk has a bit
// for each of its documents and only the values that are there, so that a
// field that few devices have costs little and one that all have is a plain
// array.
type column[T any] struct {
	chunks []*chunk[T]
	count  int
}

// chunk is the part of a column for chunkDocs documents.
type chunk[T any] struct {
	mask [chunkDocs / 64]uint64
	vals []T
}

// has reports whether a document has a value.
func (c *chunk[T]) has(doc uint32) bool { return c.mask[doc%chunkDocs/64]>>(doc%64)&1 == 1 }

// rank returns the place of a document's value and whether there is one.
func (c *chunk[T]) rank(doc uint32) (int, bool) {
	at, bit := doc%chunkDocs/64, doc%64
	n := 0
	for i := range at {
		n += bits.OnesCount64(c.mask[i])
	}
	n += bits.OnesCount64(c.mask[at] & (1<<bit - 1))
	return n, c.mask[at]>>bit&1 == 1
}

// get returns the value of a document.
func (c *column[T]) get(doc uint32) (T, bool) {
	var none T
	at := int(doc / chunkDocs)
	if at >= len(c.chunks) || c.chunks[at] == nil || !c.chunks[at].has(doc) {
		return none, false
	}
	i, _ := c.chunks[at].rank(doc)
	return c.chunks[at].vals[i], true
}

// set stores the value of a document.
func (c *column[T]) set(doc uint32, v T) {
	at := int(doc / chunkDocs)
	for len(c.chunks) <= at {
		c.chunks = append(c.chunks, nil)
	}
	if c.chunks[at] == nil {
		c.chunks[at] = &chunk[T]{}
	}
	k := c.chunks[at]
	i, ok := k.rank(doc)
	if ok {
		k.vals[i] = v
		return
	}
	k.vals = append(k.vals, v)
	copy(k.vals[i+1:], k.vals[i:])
	k.vals[i] = v
	k.mask[doc%chunkDocs/64] |= 1 << (doc % 64)
	c.count++
}

// remove forgets the value of a document, and the chunk with its last one.
func (c *column[T]) remove(doc uint32) {
	at := int(doc / chunkDocs)
	if at >= len(c.chunks) || c.chunks[at] == nil {
		return
	}
	k := c.chunks[at]
	i, ok := k.rank(doc)
	if !ok {
		return
	}
	copy(k.vals[i:], k.vals[i+1:])
	var none T
	k.vals[len(k.vals)-1] = none
	k.vals = k.vals[:len(k.vals)-1]
	k.mask[doc%chunkDocs/64] &^= 1 << (doc % 64)
	c.count--
	if len(k.vals) == 0 {
		c.chunks[at] = nil
	}
}

// each visits all values in order of documents.
func (c *column[T]) each(visit func(doc uint32, v T)) {
	for at, k := range c.chunks {
		if k == nil {
			continue
		}
		i := 0
		for w, mask := range k.mask {
			base := uint32(at*chunkDocs + w*64)
			for mask != 0 {
				visit(base+uint32(bits.TrailingZeros64(mask)), k.vals[i])
				mask &= mask - 1
				i++
			}
		}
	}
}
