package index

import (
	"cmp"
	"slices"
	"sort"
)

// maxCells is how many places a block of a cellList holds before it is split.
const maxCells = 512

// cellList holds documents in the order of the S2 cells of their places, so
// that all documents of a larger cell stand in a row. It is a list of sorted
// blocks: a change moves a few kilobytes at most, and the garbage collector
// sees two objects for some hundred places.
type cellList struct {
	blocks []*cellBlock
	count  int
}

// cellBlock is a run of places in order of cell and document.
type cellBlock struct {
	cells []uint64
	docs  []uint32
}

// cellEntry is one place.
type cellEntry struct {
	cell uint64
	doc  uint32
}

func compareEntries(a, b cellEntry) int {
	return cmp.Or(cmp.Compare(a.cell, b.cell), cmp.Compare(a.doc, b.doc))
}

// at returns one place of a block.
func (b *cellBlock) at(i int) cellEntry { return cellEntry{b.cells[i], b.docs[i]} }

// cellPos is a place's position in a list.
type cellPos struct{ block, at int }

// fill replaces the whole list; it sorts the entries.
func (l *cellList) fill(entries []cellEntry) {
	slices.SortFunc(entries, compareEntries)
	l.blocks, l.count = nil, len(entries)
	for part := range slices.Chunk(entries, maxCells*3/4) {
		b := &cellBlock{cells: make([]uint64, len(part), maxCells), docs: make([]uint32, len(part), maxCells)}
		for i, e := range part {
			b.cells[i], b.docs[i] = e.cell, e.doc
		}
		l.blocks = append(l.blocks, b)
	}
}

// seek returns the position of the first entry that is at least e.
func (l *cellList) seek(e cellEntry) cellPos {
	// The block before the first one that begins after e.
	i := sort.Search(len(l.blocks), func(i int) bool { return compareEntries(l.blocks[i].at(0), e) > 0 }) - 1
	if i < 0 {
		return cellPos{}
	}
	b := l.blocks[i]
	at := sort.Search(len(b.cells), func(k int) bool { return compareEntries(b.at(k), e) >= 0 })
	return cellPos{i, at}
}

// insert adds an entry that is not in the list.
func (l *cellList) insert(e cellEntry) {
	l.count++
	if len(l.blocks) == 0 {
		l.blocks = []*cellBlock{{cells: []uint64{e.cell}, docs: []uint32{e.doc}}}
		return
	}
	pos := l.seek(e)
	b := l.blocks[pos.block]
	if len(b.cells) == maxCells {
		const half = maxCells / 2
		upper := &cellBlock{
			cells: append(make([]uint64, 0, maxCells), b.cells[half:]...),
			docs:  append(make([]uint32, 0, maxCells), b.docs[half:]...),
		}
		b.cells, b.docs = b.cells[:half], b.docs[:half]
		l.blocks = slices.Insert(l.blocks, pos.block+1, upper)
		if pos.at > half {
			b, pos.at = upper, pos.at-half
		}
	}
	b.cells = slices.Insert(b.cells, pos.at, e.cell)
	b.docs = slices.Insert(b.docs, pos.at, e.doc)
}

// remove takes out an entry that is in the list.
func (l *cellList) remove(e cellEntry) {
	pos := l.seek(e)
	if pos.block >= len(l.blocks) {
		return
	}
	b := l.blocks[pos.block]
	if pos.at >= len(b.cells) || b.at(pos.at) != e {
		return
	}
	l.count--
	b.cells = slices.Delete(b.cells, pos.at, pos.at+1)
	b.docs = slices.Delete(b.docs, pos.at, pos.at+1)
	if len(b.cells) == 0 {
		l.blocks = slices.Delete(l.blocks, pos.block, pos.block+1)
	}
}

// between counts the entries from one position up to another; blocks that
// neither stands in count as full.
func (l *cellList) between(from, to cellPos) int {
	if from.block == to.block {
		return to.at - from.at
	}
	return len(l.blocks[from.block].cells) - from.at + (to.block-from.block-1)*maxCells + to.at
}

// each visits the documents from one position up to another.
func (l *cellList) each(from, to cellPos, visit func(doc uint32)) {
	for i := from.block; i <= to.block && i < len(l.blocks); i++ {
		docs := l.blocks[i].docs
		if i == to.block {
			docs = docs[:to.at]
		}
		if i == from.block {
			docs = docs[from.at:]
		}
		for _, doc := range docs {
			visit(doc)
		}
	}
}
