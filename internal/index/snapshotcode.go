package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
)

// errSnapshot is a snapshot that this program cannot have written.
var errSnapshot = errors.New("index snapshot is malformed")

// The stored forms below are little-endian; every list comes behind its length.

func appendU32(b []byte, v int) []byte { return binary.LittleEndian.AppendUint32(b, uint32(v)) }

func appendU32s(b []byte, list []uint32) []byte {
	b = appendU32(b, len(list))
	for _, v := range list {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func appendString(b []byte, text string) []byte {
	return append(appendU32(b, len(text)), text...)
}

func appendFlag(b []byte, flag bool) []byte {
	if flag {
		return append(b, 1)
	}
	return append(b, 0)
}

// writer collects what a bitmap writes.
type writer struct{ b []byte }

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

func appendBitmap(b []byte, set *roaring.Bitmap) []byte {
	b = appendU32(b, 0)
	at := len(b)
	w := writer{b}
	_, _ = set.WriteTo(&w) // a writer to memory does not fail
	binary.LittleEndian.PutUint32(w.b[at-4:], uint32(len(w.b)-at))
	return w.b
}

// appendChunks writes the chunks of a column; put writes what is in one.
func appendChunks[K any](b []byte, chunks []*K, count int, put func(b []byte, k *K) []byte) []byte {
	used := 0
	for _, k := range chunks {
		if k != nil {
			used++
		}
	}
	b = appendU32(appendU32(appendU32(b, len(chunks)), used), count)
	for at, k := range chunks {
		if k != nil {
			b = put(appendU32(b, at), k)
		}
	}
	return b
}

func appendMask(b []byte, mask *docMask) []byte {
	for _, word := range mask {
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	return b
}

// appendPacked writes a packed column as it is laid out.
func appendPacked(b []byte, c *packed) []byte {
	return appendChunks(b, c.chunks, c.count, func(b []byte, k *pack) []byte {
		b = append(appendMask(b, &k.mask), k.form, k.width)
		return append(binary.LittleEndian.AppendUint64(b, uint64(k.base)), k.vals...)
	})
}

func appendIDLists(b []byte, c *listColumn) []byte {
	return appendChunks(b, c.chunks, c.count, func(b []byte, k *listChunk) []byte {
		return appendU32s(appendU32s(appendMask(b, &k.mask), k.ends), k.ids)
	})
}

func appendNumberLists(b []byte, c *column[[]float64]) []byte {
	return appendChunks(b, c.chunks, c.count, func(b []byte, k *chunk[[]float64]) []byte {
		b = appendMask(b, &k.mask)
		for _, list := range k.vals {
			b = appendU32(b, len(list))
			for _, v := range list {
				b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
			}
		}
		return b
	})
}

// appendDict writes a dictionary; its table is made anew at load.
func appendDict(b []byte, d *dict) []byte {
	b = appendU32(b, len(d.chunks))
	for _, c := range d.chunks {
		b = appendString(b, c.String())
	}
	b = appendU32(b, len(d.entries))
	for _, e := range d.entries {
		b = binary.LittleEndian.AppendUint32(b, e.chunk)
		b = binary.LittleEndian.AppendUint16(b, e.pos)
		b = binary.LittleEndian.AppendUint16(b, e.n)
	}
	b = appendU32s(appendU32s(appendU32s(b, d.sorted), d.tail), d.free)
	return appendU32(appendU32(appendU32(b, d.dead), d.wasted), d.size)
}

// appendVocab writes a vocabulary. A set of one member is written by itself.
func appendVocab(b []byte, v *vocab) []byte {
	b = appendDict(b, &v.dict)
	for id := range v.posts {
		p := v.posting(uint32(id))
		b = appendU32(b, int(p.count))
		switch {
		case p.bits != nil:
			b = appendBitmap(b, p.bits)
		case p.count == 1:
			b = appendU32(b, int(p.one))
		}
	}
	return b
}

// appendField writes all values at one path.
func appendField(b []byte, path string, f *field) []byte {
	b = appendBitmap(appendString(b, path), f.exists)
	b = appendIDLists(appendPacked(b, &f.texts.packed), &f.textLists)
	b = appendNumberLists(appendPacked(b, &f.numbers.packed), &f.lists)
	b = appendVocab(b, &f.vocab)
	b = appendFlag(b, f.words != nil)
	if f.words != nil {
		b = appendVocab(appendBitmap(b, f.compound), f.words)
	}
	return b
}

// decoder reads one section. After the first mistake it answers zeros, and err
// says that there was one. Nothing is allocated that the section has no bytes
// for.
type decoder struct {
	b   []byte
	err error
}

// fail notes a mistake.
func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%s: %w", what, errSnapshot)
	}
	d.b = nil
}

// take returns the next n bytes, nil when there are fewer.
func (d *decoder) take(n int, what string) []byte {
	if n < 0 || n > len(d.b) {
		d.fail(what)
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) u32(what string) uint32 {
	b := d.take(4, what)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint32(b)
}

// length reads the length of a list whose elements take at least size bytes.
func (d *decoder) length(size int, what string) int {
	n := int(d.u32(what))
	if n > len(d.b)/size {
		d.fail(what)
		return 0
	}
	return n
}

func (d *decoder) text(what string) string { return string(d.take(d.length(1, what), what)) }

func (d *decoder) flag(what string) bool {
	b := d.take(1, what)
	if b != nil && b[0] > 1 {
		d.fail(what)
	}
	return b != nil && b[0] == 1
}

// u32s reads numbers that are below a bound.
func (d *decoder) u32s(below int, what string) []uint32 {
	n := d.length(4, what)
	if n == 0 {
		return nil
	}
	list := make([]uint32, n)
	d.fill(list, below, what)
	return list
}

// fill reads numbers into a list.
func (d *decoder) fill(list []uint32, below int, what string) {
	b := d.take(4*len(list), what)
	if b == nil {
		return
	}
	for i := range list {
		v := binary.LittleEndian.Uint32(b[4*i:])
		if int(v) >= below {
			d.fail(what)
			return
		}
		list[i] = v
	}
}

// bitmap reads a set of numbers below a bound.
func (d *decoder) bitmap(below int, what string) *roaring.Bitmap {
	set := roaring.New()
	b := d.take(d.length(1, what), what)
	if b == nil {
		return set
	}
	n, err := set.ReadFrom(bytes.NewReader(b))
	if err == nil {
		err = set.Validate()
	}
	if err != nil || int(n) != len(b) || !set.IsEmpty() && int(set.Maximum()) >= below {
		d.fail(what)
		return roaring.New()
	}
	return set
}

// decodeChunks reads the chunks of a column of documents below a bound. read reads
// what is in chunk at, which takes size bytes at least, and returns how many values
// that are.
func decodeChunks[K any](d *decoder, below, size int, what string, read func(k *K, at int) int) (chunks []*K, count int) {
	length, used := int(d.u32(what)), d.length(size, what)
	count = int(d.u32(what))
	if length > (below+chunkDocs-1)/chunkDocs || used > length || count > used*chunkDocs {
		d.fail(what)
	}
	if d.err != nil || count == 0 {
		return nil, 0
	}
	chunks = make([]*K, length)
	all, left := make([]K, used), count
	for i := range all {
		at := int(d.u32(what))
		if at >= length || chunks[at] != nil {
			d.fail(what)
			return nil, 0
		}
		n := read(&all[i], at)
		if left -= n; n == 0 || left < 0 {
			d.fail(what)
		}
		if d.err != nil {
			return nil, 0
		}
		chunks[at] = &all[i]
	}
	if left > 0 {
		d.fail(what)
		return nil, 0
	}
	return chunks, count
}

// mask reads which documents of a chunk have a value and returns how many do.
func (d *decoder) mask(mask *docMask, at, below int, what string) int {
	n := 0
	for w := range mask {
		if b := d.take(8, what); b != nil {
			mask[w] = binary.LittleEndian.Uint64(b)
		}
		n += bits.OnesCount64(mask[w])
		if top := at*chunkDocs + w*64 + 63 - bits.LeadingZeros64(mask[w]); mask[w] != 0 && top >= below {
			d.fail(what)
		}
	}
	return n
}

// chunkHead is what a chunk takes before its values.
const chunkHead = 4 + chunkDocs/8

// packHead is what a chunk of a packed column takes before its values: its form,
// width and base beside what every chunk has.
const packHead = chunkHead + 1 + 1 + 8

// packed reads a packed column of documents below a bound; check judges what is in
// a chunk.
func (d *decoder) packed(below int, what string, check func(form uint8, values []int64) bool) packed {
	var buffer [chunkDocs]int64
	chunks, count := decodeChunks(d, below, packHead, what, func(k *pack, at int) int {
		k.n = uint16(d.mask(&k.mask, at, below, what))
		head := d.take(packHead-chunkHead, what)
		if head == nil {
			return 0
		}
		k.form, k.width, k.base = head[0], head[1], int64(binary.LittleEndian.Uint64(head[2:]))
		if k.width != widest && !slices.Contains(widths[:], k.width) {
			d.fail(what)
			return 0
		}
		k.vals = slices.Clone(d.take(int(k.n)*int(k.width), what))
		if d.err == nil && k.n > 0 && !check(k.form, k.read(&buffer)) {
			d.fail(what)
		}
		return int(k.n)
	})
	return packed{chunks, count}
}

// ids reads a column of numbers of texts that are below a bound.
func (d *decoder) ids(docs, below int, what string) idColumn {
	return idColumn{d.packed(docs, what, func(form uint8, values []int64) bool {
		return form == 0 && slices.Min(values) >= 0 && slices.Max(values) < int64(min(below, 1<<32))
	})}
}

func (d *decoder) numbers(docs int, what string) numberColumn {
	return numberColumn{d.packed(docs, what, func(form uint8, values []int64) bool {
		return form == formBits || form < formBits && slices.Min(values) > -wholeLimit && slices.Max(values) < wholeLimit
	})}
}

func (d *decoder) floats(vals []float64, what string) {
	b := d.take(8*len(vals), what)
	if b == nil {
		return
	}
	for i := range vals {
		vals[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
}

// idLists reads a column of lists of documents, with numbers below a bound.
func (d *decoder) idLists(docs, below int, what string) listColumn {
	chunks, count := decodeChunks(d, docs, chunkHead, what, func(k *listChunk, at int) int {
		n := d.mask(&k.mask, at, docs, what)
		k.ends, k.ids = d.u32s(math.MaxInt, what), d.u32s(below, what)
		before := uint32(0)
		for _, end := range k.ends {
			if end <= before {
				d.fail(what)
			}
			before = end
		}
		if len(k.ends) != n || int(before) != len(k.ids) {
			d.fail(what)
		}
		return n
	})
	return listColumn{chunks, count}
}

// numberLists reads a column of lists of numbers.
func (d *decoder) numberLists(docs int, what string) column[[]float64] {
	chunks, count := decodeChunks(d, docs, chunkHead, what, func(k *chunk[[]float64], at int) int {
		n := d.mask(&k.mask, at, docs, what)
		k.vals = make([][]float64, n)
		for i := range k.vals {
			k.vals[i] = make([]float64, d.length(8, what))
			d.floats(k.vals[i], what)
		}
		return n
	})
	return column[[]float64]{chunks, count}
}

// dict reads a dictionary and makes its table.
func (d *decoder) dict(what string) dict {
	out := newDict(false)
	out.chunks = make([]*strings.Builder, 0, d.length(4, what))
	builders := make([]strings.Builder, cap(out.chunks))
	for i := range builders {
		text := d.take(d.length(1, what), what)
		room := len(text)
		if i == len(builders)-1 && room < maxChunk {
			room = min(2*room+minChunk, maxChunk) // there will be more
		}
		builders[i].Grow(room)
		_, _ = builders[i].Write(text) // a builder does not fail
		out.chunks = append(out.chunks, &builders[i])
	}
	out.entries = make([]entry, d.length(8, what))
	b := d.take(8*len(out.entries), what)
	if b == nil {
		return newDict(false)
	}
	for i := range out.entries {
		e := entry{
			chunk: binary.LittleEndian.Uint32(b[8*i:]), pos: binary.LittleEndian.Uint16(b[8*i+4:]), n: binary.LittleEndian.Uint16(b[8*i+6:]),
		}
		if int(e.chunk) >= len(out.chunks) || int(e.pos)+int(e.n) > out.chunks[e.chunk].Len() {
			d.fail(what)
			return newDict(false)
		}
		out.entries[i] = e
	}
	n := len(out.entries)
	out.sorted, out.tail, out.free = d.u32s(n, what), d.u32s(n, what), d.u32s(n, what)
	out.dead, out.wasted, out.size = int(d.u32(what)), int(d.u32(what)), int(d.u32(what))
	if len(out.sorted)+len(out.tail)+len(out.free) != n {
		d.fail(what)
	}
	if d.err != nil {
		return newDict(false)
	}
	out.rehash()
	return out
}

// vocab reads a vocabulary whose sets hold numbers below a bound.
func (d *decoder) vocab(below int, what string) vocab {
	v := vocab{dict: d.dict(what)}
	v.posts = make([]uint32, len(v.entries))
	for id := range v.posts {
		switch count := d.u32(what); count {
		case 0:
		case 1:
			one := d.u32(what)
			if int(one) >= below {
				d.fail(what)
			}
			v.posts[id] = one + 1
		default:
			set := memberSet{count, d.bitmap(below, what)}
			if set.bits.GetCardinality() != uint64(count) {
				d.fail(what)
			}
			v.posts[id] = v.addSet(set)
		}
		if d.err != nil {
			return newVocab(false)
		}
	}
	return v
}

// field reads all values at one path of a corpus with so many numbers of
// documents.
func (d *decoder) field(docs int) (path string, f *field) {
	path = d.text("path")
	what := "field " + path
	f = &field{exists: d.bitmap(docs, what)}
	// The numbers of texts are known after the columns that name them.
	f.texts, f.textLists = d.ids(docs, math.MaxInt, what), d.idLists(docs, math.MaxInt, what)
	f.numbers, f.lists = d.numbers(docs, what), d.numberLists(docs, what)
	f.vocab = d.vocab(docs, what)
	texts := len(f.vocab.entries)
	f.texts.each(func(_, id uint32) {
		if int(id) >= texts {
			d.fail(what)
		}
	})
	f.textLists.each(func(_ uint32, list []uint32) {
		for _, id := range list {
			if int(id) >= texts {
				d.fail(what)
			}
		}
	})
	if d.flag(what) {
		f.compound = d.bitmap(texts, what)
		words := d.vocab(texts, what)
		f.words = &words
	}
	return path, f
}
