package index

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
	mask docMask
	vals []T
}

// get returns the value of a document.
func (c *column[T]) get(doc uint32) (T, bool) {
	var none T
	at := int(doc / chunkDocs)
	if at >= len(c.chunks) || c.chunks[at] == nil || !c.chunks[at].mask.has(doc) {
		return none, false
	}
	i, _ := c.chunks[at].mask.rank(doc)
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
	i, ok := k.mask.rank(doc)
	if ok {
		k.vals[i] = v
		return
	}
	k.vals = append(k.vals, v)
	copy(k.vals[i+1:], k.vals[i:])
	k.vals[i] = v
	k.mask.add(doc)
	c.count++
}

// remove forgets the value of a document, and the chunk with its last one.
func (c *column[T]) remove(doc uint32) {
	at := int(doc / chunkDocs)
	if at >= len(c.chunks) || c.chunks[at] == nil {
		return
	}
	k := c.chunks[at]
	i, ok := k.mask.rank(doc)
	if !ok {
		return
	}
	copy(k.vals[i:], k.vals[i+1:])
	var none T
	k.vals[len(k.vals)-1] = none
	k.vals = k.vals[:len(k.vals)-1]
	k.mask.drop(doc)
	c.count--
	if len(k.vals) == 0 {
		c.chunks[at] = nil
	}
}

// each visits all values in order of documents.
func (c *column[T]) each(visit func(doc uint32, v T)) {
	for at, k := range c.chunks {
		if k != nil {
			k.mask.each(at, func(doc uint32, i int) { visit(doc, k.vals[i]) })
		}
	}
}
