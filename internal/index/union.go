package index

import "github.com/RoaringBitmap/roaring/v2"

// manyDocs is how many single documents are collected in a list before a
// plain bit array is cheaper.
const manyDocs = 1024

// union gathers documents and whole postings into one set.
type union struct {
	sets  []*roaring.Bitmap
	docs  []uint32
	dense []uint64
}

// addPosting adds all documents of a posting.
func (u *union) addPosting(p posting) {
	switch {
	case p.bits != nil:
		u.sets = append(u.sets, p.bits)
	case p.count == 1:
		u.addDoc(p.one)
	}
}

// addDoc adds one document.
func (u *union) addDoc(doc uint32) {
	if u.dense == nil {
		if len(u.docs) < manyDocs {
			u.docs = append(u.docs, doc)
			return
		}
		for _, d := range u.docs {
			u.mark(d)
		}
		u.docs = nil
	}
	u.mark(doc)
}

// mark sets a bit of the array, which grows to whole containers.
func (u *union) mark(doc uint32) {
	const wordsPerContainer = 1 << 16 / 64
	at := int(doc / 64)
	if at >= len(u.dense) {
		grown := make([]uint64, (at/wordsPerContainer+1)*wordsPerContainer)
		copy(grown, u.dense)
		u.dense = grown
	}
	u.dense[at] |= 1 << (doc % 64)
}

// result returns the set; it may be one of the postings' own.
func (u *union) result() *roaring.Bitmap {
	sets := u.sets
	switch {
	case u.dense != nil:
		sets = append(sets, roaring.FromDense(u.dense, true))
	case len(u.docs) > 0:
		sets = append(sets, roaring.BitmapOf(u.docs...))
	}
	switch len(sets) {
	case 0:
		return roaring.New()
	case 1:
		return sets[0]
	}
	return roaring.FastOr(sets...)
}
