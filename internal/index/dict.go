package index

import (
	"hash/maphash"
	"math/bits"
	"slices"
	"strings"
)

// Sizes of a dictionary's parts.
const (
	// minChunk and maxChunk bound one block of text; blocks double.
	minChunk = 256
	maxChunk = 1 << 16
	// maxTail is how many texts wait unsorted before they are merged, and
	// maxDead how many unused ones may linger in a small dictionary.
	maxTail = 1024
	maxDead = 1024
)

// dict numbers distinct texts and keeps them ordered. Texts live in large
// blocks that never change, so that a million of them are a few objects to
// the garbage collector. An unused text keeps its number until sweep, so that
// the order never breaks; a text that comes back before finds its old number.
type dict struct {
	seed    maphash.Seed
	chunks  []*strings.Builder
	entries []entry
	// table is open addressing: number plus one, zero for an empty slot; tags has
	// some bits of each text's hash, so that few texts are looked at in vain.
	table []uint32
	tags  []uint8
	// filled counts occupied slots of the table.
	filled int
	// sorted and tail together hold every number in use or lingering.
	sorted []uint32
	tail   []uint32
	free   []uint32
	dead   int
	// wasted counts bytes of texts that were swept but not yet given back.
	wasted int
	size   int
	// bulk puts off sorting until the first build is complete.
	bulk bool
}

// entry locates a text. Texts are shorter than a block.
type entry struct {
	chunk  uint32
	pos, n uint16
}

// newDict returns an empty dictionary.
func newDict(bulk bool) dict { return dict{seed: maphash.MakeSeed(), bulk: bulk} }

// text returns the text with this number.
func (d *dict) text(id uint32) string {
	e := d.entries[id]
	return d.chunks[e.chunk].String()[e.pos:][:e.n]
}

// find returns the number of a text that is in use or lingers.
func (d *dict) find(text string) (uint32, bool) {
	if len(d.table) == 0 {
		return 0, false
	}
	for i, tag := d.slot(text); ; i = d.next(i) {
		v := d.table[i]
		if v == 0 {
			return 0, false
		}
		if d.tags[i] == tag && d.text(v-1) == text {
			return v - 1, true
		}
	}
}

// slot is where to look for a text first, and its tag.
func (d *dict) slot(text string) (int, uint8) {
	hash := maphash.String(d.seed, text)
	at, _ := bits.Mul64(hash, uint64(len(d.table)))
	return int(at), uint8(hash)
}

// next is the slot after one.
func (d *dict) next(i int) int {
	if i++; i == len(d.table) {
		return 0
	}
	return i
}

// add gives a number to a text that find does not know.
func (d *dict) add(text string) uint32 {
	var id uint32
	if n := len(d.free); n > 0 {
		id, d.free = d.free[n-1], d.free[:n-1]
		d.entries[id] = d.put(text)
	} else {
		id = uint32(len(d.entries))
		d.entries = append(roomier(d.entries), d.put(text))
	}
	d.tail = append(roomier(d.tail), id)
	if (d.filled+1)*5 > len(d.table)*4 {
		d.rehash()
	} else {
		d.enter(id)
	}
	return id
}

// roomier returns a full list with room for a sixteenth more: append's quarter
// would be much of what a large fleet takes.
func roomier[T any](list []T) []T {
	const large = 1 << 14
	if len(list) < cap(list) || len(list) < large {
		return list
	}
	out := make([]T, len(list), len(list)+len(list)/16)
	copy(out, list)
	return out
}

// put copies a text into the blocks.
func (d *dict) put(text string) entry {
	var last *strings.Builder
	if n := len(d.chunks); n > 0 {
		last = d.chunks[n-1]
	}
	if last == nil || last.Cap()-last.Len() < len(text) {
		size := minChunk
		if last != nil {
			size = min(2*last.Cap(), maxChunk)
		}
		last = &strings.Builder{}
		last.Grow(max(size, len(text)))
		d.chunks = append(d.chunks, last)
	}
	pos := last.Len()
	last.WriteString(text)
	d.size += len(text)
	return entry{chunk: uint32(len(d.chunks) - 1), pos: uint16(pos), n: uint16(len(text))}
}

// enter puts a number into the table.
func (d *dict) enter(id uint32) {
	i, tag := d.slot(d.text(id))
	for d.table[i] != 0 {
		i = d.next(i)
	}
	d.table[i], d.tags[i] = id+1, tag
	d.filled++
}

// rehash rebuilds the table, a bit more than half full.
func (d *dict) rehash() {
	n := len(d.sorted) + len(d.tail)
	size := 8 + n + n*7/8
	d.table, d.tags, d.filled = make([]uint32, size), make([]uint8, size), 0
	for _, id := range d.sorted {
		d.enter(id)
	}
	for _, id := range d.tail {
		d.enter(id)
	}
}

// settle restores order after a batch of changes; alive tells used numbers
// from lingering ones.
func (d *dict) settle(alive func(uint32) bool) {
	if d.bulk {
		return
	}
	if d.dead > maxDead && d.dead > len(d.sorted)/4 {
		d.sweep(alive)
	}
	if len(d.tail) > maxTail {
		d.merge()
	}
}

// finish ends the bulk phase.
func (d *dict) finish() {
	d.bulk = false
	d.merge()
}

// merge sorts the tail into the rest, from the back, in place.
func (d *dict) merge() {
	byText := func(a, b uint32) int { return strings.Compare(d.text(a), d.text(b)) }
	slices.SortFunc(d.tail, byText)
	end := len(d.sorted)
	if end == 0 {
		d.sorted, d.tail = d.tail, nil
		return
	}
	d.sorted = append(d.sorted, d.tail...)
	for k, id := range slices.Backward(d.tail) {
		pos, _ := slices.BinarySearchFunc(d.sorted[:end], id, byText)
		copy(d.sorted[pos+k+1:end+k+1], d.sorted[pos:end])
		d.sorted[pos+k] = id
		end = pos
	}
	d.tail = d.tail[:0]
}

// sweep gives back the numbers of unused texts, and their bytes when they are
// more than half.
func (d *dict) sweep(alive func(uint32) bool) {
	drop := func(id uint32) bool {
		if alive(id) {
			return false
		}
		d.wasted += int(d.entries[id].n)
		d.free = append(d.free, id)
		return true
	}
	d.sorted = slices.DeleteFunc(d.sorted, drop)
	d.tail = slices.DeleteFunc(d.tail, drop)
	d.dead = 0
	if d.wasted > d.size/2 {
		d.compact()
	}
	d.rehash()
}

// compact copies the texts in use into new blocks.
func (d *dict) compact() {
	old := dict{chunks: d.chunks, entries: slices.Clone(d.entries)}
	d.chunks, d.size, d.wasted = nil, 0, 0
	for _, ids := range [][]uint32{d.sorted, d.tail} {
		for _, id := range ids {
			d.entries[id] = d.put(old.text(id))
		}
	}
}

// ascend visits the texts that are at least low and for which within holds;
// within must hold for a contiguous run in byte order. The unsorted tail
// comes last and in no order.
func (d *dict) ascend(low string, within func(string) bool, visit func(id uint32, text string)) {
	for _, id := range d.sorted[d.search(low):] {
		text := d.text(id)
		if !within(text) {
			break
		}
		visit(id, text)
	}
	for _, id := range d.tail {
		if text := d.text(id); text >= low && within(text) {
			visit(id, text)
		}
	}
}

// search returns the place in sorted of the first text that is at least low.
func (d *dict) search(low string) int {
	pos, _ := slices.BinarySearchFunc(d.sorted, low, func(id uint32, low string) int {
		return strings.Compare(d.text(id), low)
	})
	return pos
}

// len returns the number of texts, lingering ones included.
func (d *dict) len() int { return len(d.sorted) + len(d.tail) }
