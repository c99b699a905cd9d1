package index

// idColumn is a packed column of numbers of texts.
type idColumn struct{ packed }

// set stores the value of a document.
func (c *idColumn) set(doc, id uint32) { c.packed.set(doc, int64(id)) }

// get returns the value of a document.
func (c *idColumn) get(doc uint32) (uint32, bool) {
	v, ok := c.packed.get(doc)
	return uint32(v), ok
}

// each visits all values in order of documents.
func (c *idColumn) each(visit func(doc, id uint32)) {
	for at, k := range c.chunks {
		if k != nil {
			k.mask.each(at, func(doc uint32, i int) { visit(doc, uint32(k.at(i))) })
		}
	}
}

// gather hands the values of the documents to visit, a chunk at a time; they
// are good until visit returns.
func (c *idColumn) gather(m *matched, visit func(ids []uint32)) {
	var wide [chunkDocs]int64
	var out [chunkDocs]uint32
	var buffer [chunkDocs]uint8
	for at, k := range c.chunks {
		if k == nil {
			continue
		}
		places, all := k.chosen(m, at, &buffer)
		switch {
		case all:
			for i, v := range k.read(&wide) {
				out[i] = uint32(v)
			}
			visit(out[:k.n])
		case len(places) > 0:
			for i, place := range places {
				out[i] = uint32(k.at(int(place)))
			}
			visit(out[:len(places)])
		}
	}
}
