package index

import (
	"slices"
	"unsafe"
)

// listColumn holds at most one list of numbers of texts or groups for each
// document. The lists of a chunk lie one after the other.
type listColumn struct {
	chunks []*listChunk
	count  int
}

// listChunk is the part of a listColumn for chunkDocs documents.
type listChunk struct {
	mask docMask
	// ends says for each list where it ends among ids.
	ends []uint32
	ids  []uint32
}

// bounds says where a list lies.
func (k *listChunk) bounds(i int) (from, to int) {
	if i > 0 {
		from = int(k.ends[i-1])
	}
	return from, int(k.ends[i])
}

// shift moves the ends of the lists from one place on.
func (k *listChunk) shift(i, by int) {
	for ; i < len(k.ends); i++ {
		k.ends[i] = uint32(int(k.ends[i]) + by)
	}
}

// find returns the chunk of a document and the place of its list.
func (c *listColumn) find(doc uint32) (k *listChunk, i int, ok bool) {
	at := int(doc / chunkDocs)
	if at >= len(c.chunks) || c.chunks[at] == nil {
		return nil, 0, false
	}
	k = c.chunks[at]
	i, ok = k.mask.rank(doc)
	return k, i, ok
}

// get returns the list of a document. It is good until the next change of the
// column and must not be changed.
func (c *listColumn) get(doc uint32) ([]uint32, bool) {
	k, i, ok := c.find(doc)
	if !ok {
		return nil, false
	}
	from, to := k.bounds(i)
	return k.ids[from:to:to], true
}

// set stores the list of a document, which is not one that get returned.
func (c *listColumn) set(doc uint32, list []uint32) {
	at := int(doc / chunkDocs)
	for len(c.chunks) <= at {
		c.chunks = append(c.chunks, nil)
	}
	if c.chunks[at] == nil {
		c.chunks[at] = &listChunk{}
	}
	k := c.chunks[at]
	i, ok := k.mask.rank(doc)
	if !ok {
		end := uint32(0)
		if i > 0 {
			end = k.ends[i-1]
		}
		k.ends = slices.Insert(k.ends, i, end)
		k.mask.add(doc)
		c.count++
	}
	from, to := k.bounds(i)
	k.ids = slices.Replace(k.ids, from, to, list...)
	k.shift(i, len(list)-(to-from))
}

// insert puts a number into the list of a document, made if need be.
func (c *listColumn) insert(doc uint32, pos int, id uint32) {
	k, i, ok := c.find(doc)
	if !ok {
		c.set(doc, []uint32{id})
		return
	}
	from, _ := k.bounds(i)
	k.ids = slices.Insert(k.ids, from+pos, id)
	k.shift(i, 1)
}

// delete takes a number out of the list of a document, and the list with its
// last one.
func (c *listColumn) delete(doc uint32, pos int) {
	k, i, ok := c.find(doc)
	if !ok {
		return
	}
	from, to := k.bounds(i)
	if to-from == 1 {
		c.remove(doc)
		return
	}
	k.ids = slices.Delete(k.ids, from+pos, from+pos+1)
	k.shift(i, -1)
}

// remove forgets the list of a document, and the chunk with its last one.
func (c *listColumn) remove(doc uint32) {
	k, i, ok := c.find(doc)
	if !ok {
		return
	}
	from, to := k.bounds(i)
	k.ids = slices.Delete(k.ids, from, to)
	k.ends = slices.Delete(k.ends, i, i+1)
	k.shift(i, from-to)
	k.mask.drop(doc)
	c.count--
	if len(k.ends) == 0 {
		c.chunks[doc/chunkDocs] = nil
	}
}

// each visits all lists in order of documents; they are as those of get.
func (c *listColumn) each(visit func(doc uint32, list []uint32)) {
	for at, k := range c.chunks {
		if k == nil {
			continue
		}
		k.mask.each(at, func(doc uint32, i int) {
			from, to := k.bounds(i)
			visit(doc, k.ids[from:to:to])
		})
	}
}

// gather hands the lists of the documents to visit; they are as those of get.
func (c *listColumn) gather(m *matched, visit func(list []uint32)) {
	c.each(func(doc uint32, list []uint32) {
		if m.has(doc) {
			visit(list)
		}
	})
}

// countIn is how many of the documents have a list.
func (c *listColumn) countIn(m *matched) int {
	if m.all || c.count == 0 {
		return c.count
	}
	n := 0
	for at, k := range c.chunks {
		if k != nil {
			n += k.mask.countIn(m, at)
		}
	}
	return n
}

// size estimates the memory of a column.
func (c *listColumn) size() uint64 {
	total := uint64(cap(c.chunks)) * 8
	for _, k := range c.chunks {
		if k != nil {
			total += uint64(unsafe.Sizeof(*k)) + 4*uint64(cap(k.ends)+cap(k.ids))
		}
	}
	return total
}
