package index

import "math/bits"

// chunkDocs is how many documents share a chunk of a column.
const chunkDocs = 256

// docMask says which documents of a chunk have a value.
type docMask [chunkDocs / 64]uint64

// has reports whether a document has a value.
func (m *docMask) has(doc uint32) bool { return m[doc%chunkDocs/64]>>(doc%64)&1 == 1 }

// add notes that a document has a value.
func (m *docMask) add(doc uint32) { m[doc%chunkDocs/64] |= 1 << (doc % 64) }

// drop notes that it has none.
func (m *docMask) drop(doc uint32) { m[doc%chunkDocs/64] &^= 1 << (doc % 64) }

// rank returns the place of a document's value and whether there is one.
func (m *docMask) rank(doc uint32) (int, bool) {
	at, bit := doc%chunkDocs/64, doc%64
	n := 0
	for i := range at {
		n += bits.OnesCount64(m[i])
	}
	n += bits.OnesCount64(m[at] & (1<<bit - 1))
	return n, m[at]>>bit&1 == 1
}

// each visits the documents of chunk at and the places of their values.
func (m *docMask) each(at int, visit func(doc uint32, i int)) {
	i := 0
	for w, mask := range m {
		base := uint32(at*chunkDocs + w*64)
		for ; mask != 0; mask &= mask - 1 {
			visit(base+uint32(bits.TrailingZeros64(mask)), i)
			i++
		}
	}
}

// countIn is how many of the documents of chunk at with a value are wanted.
func (m *docMask) countIn(wanted *matched, at int) int {
	words := wanted.over(at)
	n := 0
	for w, mask := range m {
		n += bits.OnesCount64(mask & words[w])
	}
	return n
}
