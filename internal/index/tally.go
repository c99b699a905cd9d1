package index

import (
	"cmp"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// sparseRatio is how many texts a field must have for each document, so that
// counts are kept in a map.
const sparseRatio = 8

// tally counts for texts, by their numbers, how many documents hold them.
type tally struct {
	dense  []uint32
	sparse map[uint32]uint32
}

// each visits the texts that some document holds.
func (t *tally) each(visit func(id, count uint32)) {
	for id, n := range t.dense {
		if n > 0 {
			visit(uint32(id), n)
		}
	}
	for id, n := range t.sparse {
		visit(id, n)
	}
}

// of is the count of one text.
func (t *tally) of(id uint32) uint32 {
	if t.dense != nil {
		return t.dense[id]
	}
	return t.sparse[id]
}

// tally counts the documents for each text of the field: by the sets of
// documents where there are few texts, else by a walk through the documents.
func (f *field) tally(m *matched) *tally {
	texts := len(f.vocab.posts)
	// An intersection goes through whole containers of 65,536 documents; what a
	// step of the walk costs is the unit.
	const perContainer = 400
	containers := len(m.dense) * 64 >> 16
	if m.all || f.vocab.len()*containers*perContainer < m.count {
		t := &tally{dense: make([]uint32, texts)}
		for id := range t.dense {
			t.dense[id] = uint32(f.vocab.posting(uint32(id)).countIn(m))
		}
		return t
	}
	t := &tally{}
	if m.count*sparseRatio < texts {
		t.sparse = map[uint32]uint32{}
		f.walkTexts(m, func(ids []uint32) {
			for _, id := range ids {
				t.sparse[id]++
			}
		})
		return t
	}
	t.dense = make([]uint32, texts)
	f.walkTexts(m, func(ids []uint32) {
		for _, id := range ids {
			t.dense[id]++
		}
	})
	return t
}

// walkTexts hands the texts of the documents to visit. A text that an array
// has twice is handed out once.
func (f *field) walkTexts(m *matched, visit func(ids []uint32)) {
	f.texts.gather(m, visit)
	var once []uint32
	f.textLists.gather(m, func(list []uint32) {
		once = append(once[:0], list...)
		slices.Sort(once)
		visit(slices.Compact(once))
	})
}

// numberTally counts numbers. The empty value does not exist: see
// newNumberTally.
type numberTally struct {
	// keys are the numbers' bits, counts is 0 for an empty slot; their length is
	// a power of two.
	keys   []uint64
	counts []uint32
	used   int
	// factor spreads the keys; it is chosen anew each time, so that nobody can
	// send numbers that collide.
	factor uint64
}

// newNumberTally returns an empty one.
func newNumberTally() *numberTally {
	const slots = 1024
	return &numberTally{keys: make([]uint64, slots), counts: make([]uint32, slots), factor: rand.Uint64() | 1} //nolint:gosec // no secret
}

// len is how many distinct numbers there are.
func (t *numberTally) len() int { return t.used }

// slot is the place of a key, or the empty one that it belongs in.
func (t *numberTally) slot(key uint64) int {
	high, low := bits.Mul64(key, t.factor)
	mask := len(t.keys) - 1
	i := int((high^low)>>32) & mask
	for t.counts[i] != 0 && t.keys[i] != key {
		i = (i + 1) & mask
	}
	return i
}

// add counts a number.
func (t *numberTally) add(v float64) {
	key := math.Float64bits(v)
	i := t.slot(key)
	t.counts[i]++
	if t.counts[i] > 1 {
		return
	}
	t.keys[i] = key
	if t.used++; t.used*2 > len(t.keys) {
		t.grow()
	}
}

// grow makes room.
func (t *numberTally) grow() {
	old := *t
	t.keys, t.counts = make([]uint64, 2*len(old.keys)), make([]uint32, 2*len(old.counts))
	for i, n := range old.counts {
		if n > 0 {
			at := t.slot(old.keys[i])
			t.keys[at], t.counts[at] = old.keys[i], n
		}
	}
}

// each visits the numbers in no order.
func (t *numberTally) each(visit func(v float64, count uint32)) {
	for i, n := range t.counts {
		if n > 0 {
			visit(math.Float64frombits(t.keys[i]), n)
		}
	}
}

// numberHash spreads the bits of a number evenly.
func numberHash(v float64) uint64 {
	h := math.Float64bits(v) + 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// best returns the first of all items in an order, at most limit of them.
type best[T any] struct {
	limit   int
	compare func(a, b T) int
	kept    []T
	// full tells that the last of the first limit is known.
	full bool
}

// offer takes an item in if it may be one of the first.
func (b *best[T]) offer(item T) {
	if b.full && b.compare(item, b.kept[b.limit-1]) >= 0 {
		return
	}
	if b.kept = append(b.kept, item); len(b.kept) >= 2*b.limit {
		b.settle()
	}
}

// settle orders what is kept and drops what is too much.
func (b *best[T]) settle() []T {
	slices.SortFunc(b.kept, b.compare)
	if len(b.kept) >= b.limit {
		b.kept, b.full = b.kept[:b.limit], true
	}
	return b.kept
}

// descending orders counts.
func descending(a, b uint32) int { return cmp.Compare(b, a) }
