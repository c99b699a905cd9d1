package index

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"unsafe"
)

// packed is a column of whole numbers. The values of a chunk take as few bytes
// each as their distance from one another asks for: none where they are equal.
type packed struct {
	chunks []*pack
	count  int
}

// pack is the part of a packed column for chunkDocs documents.
type pack struct {
	mask docMask
	// A value is base and what stands in vals, in width bytes, little endian.
	base int64
	vals []byte
	// n is how many values there are.
	n     uint16
	width uint8
	// form is for the owner of the column: what its values mean.
	form uint8
}

// widths are the sizes that a value may have.
var widths = [...]uint8{0, 1, 2, 4} //nolint:gochecknoglobals // a constant that Go has no literal for

// widest takes every value as it is.
const widest = 8

// at returns the value in a place.
func (k *pack) at(i int) int64 {
	switch k.width {
	case 0:
		return k.base
	case 1:
		return k.base + int64(k.vals[i])
	case 2:
		return k.base + int64(binary.LittleEndian.Uint16(k.vals[2*i:]))
	case 4:
		return k.base + int64(binary.LittleEndian.Uint32(k.vals[4*i:]))
	}
	return int64(binary.LittleEndian.Uint64(k.vals[widest*i:]))
}

// store puts a value in a place and reports whether the width allows it.
func (k *pack) store(i int, v int64) bool {
	off := uint64(v) - uint64(k.base)
	switch {
	case k.width == widest:
		binary.LittleEndian.PutUint64(k.vals[widest*i:], uint64(v))
		return true
	case v < k.base || off>>(8*k.width) != 0:
		return false
	}
	switch k.width {
	case 1:
		k.vals[i] = byte(off)
	case 2:
		binary.LittleEndian.PutUint16(k.vals[2*i:], uint16(off))
	case 4:
		binary.LittleEndian.PutUint32(k.vals[4*i:], uint32(off))
	}
	return true
}

// read copies all values to the beginning of the buffer.
func (k *pack) read(into *[chunkDocs]int64) []int64 {
	out := into[:k.n]
	switch k.width {
	case 0:
		for i := range out {
			out[i] = k.base
		}
	case 1:
		for i, v := range k.vals[:len(out)] {
			out[i] = k.base + int64(v)
		}
	case 2:
		for i := range out {
			out[i] = k.base + int64(binary.LittleEndian.Uint16(k.vals[2*i:]))
		}
	case 4:
		for i := range out {
			out[i] = k.base + int64(binary.LittleEndian.Uint32(k.vals[4*i:]))
		}
	default:
		for i := range out {
			out[i] = int64(binary.LittleEndian.Uint64(k.vals[widest*i:]))
		}
	}
	return out
}

// write lays the values out anew.
func (k *pack) write(values []int64) {
	k.choose(slices.Min(values), slices.Max(values))
	k.n = uint16(len(values))
	k.vals = nil
	if k.width > 0 {
		k.vals = make([]byte, len(values)*int(k.width))
	}
	for i, v := range values {
		k.store(i, v)
	}
}

// choose finds base and width for values from low to high. There is some room on
// both sides, so that values that move on slowly do not ask for another layout
// each time.
func (k *pack) choose(low, high int64) {
	span := uint64(high) - uint64(low)
	for _, width := range widths {
		most := uint64(1)<<(8*width) - 1
		if span <= most-most/8 {
			k.base, k.width = low-int64((most-span)/2), width
			if k.base <= low {
				return
			}
		}
	}
	k.base, k.width = 0, widest
}

// insert makes room for a value in a place; what stands there is not defined.
func (k *pack) insert(i int) {
	w := int(k.width)
	if len(k.vals)+w > cap(k.vals) {
		// No more than a full chunk ever needs.
		grown := make([]byte, len(k.vals), min(max(8, 2*int(k.n)), chunkDocs)*w)
		copy(grown, k.vals)
		k.vals = grown
	}
	k.vals = k.vals[:len(k.vals)+w]
	copy(k.vals[(i+1)*w:], k.vals[i*w:])
	k.n++
}

// set stores the value of a document.
func (c *packed) set(doc uint32, v int64) { c.put(c.chunk(doc), doc, v) }

// chunk returns the chunk of a document, made if need be.
func (c *packed) chunk(doc uint32) *pack {
	at := int(doc / chunkDocs)
	for len(c.chunks) <= at {
		c.chunks = append(c.chunks, nil)
	}
	if c.chunks[at] == nil {
		c.chunks[at] = &pack{}
	}
	return c.chunks[at]
}

// put stores the value of a document in its chunk.
func (c *packed) put(k *pack, doc uint32, v int64) {
	i, ok := k.mask.rank(doc)
	if ok && k.store(i, v) {
		return
	}
	if !ok {
		c.count++
		k.mask.add(doc)
		if k.n > 0 {
			k.insert(i)
			if k.store(i, v) {
				return
			}
		} else {
			k.n = 1
		}
	}
	var buffer [chunkDocs]int64
	if k.n == 1 {
		buffer[0] = v
		k.write(buffer[:1])
		return
	}
	values := k.read(&buffer)
	values[i] = v
	k.write(values)
}

// get returns the value of a document.
func (c *packed) get(doc uint32) (int64, bool) {
	if k, i, ok := c.find(doc); ok {
		return k.at(i), true
	}
	return 0, false
}

// find returns where the value of a document stands.
func (c *packed) find(doc uint32) (k *pack, i int, ok bool) {
	at := int(doc / chunkDocs)
	if at >= len(c.chunks) || c.chunks[at] == nil {
		return nil, 0, false
	}
	k = c.chunks[at]
	i, ok = k.mask.rank(doc)
	return k, i, ok
}

// remove forgets the value of a document, and the chunk with its last one.
func (c *packed) remove(doc uint32) {
	k, i, ok := c.find(doc)
	if !ok {
		return
	}
	w := int(k.width)
	k.vals = slices.Delete(k.vals, i*w, (i+1)*w)
	k.mask.drop(doc)
	k.n--
	c.count--
	if k.n == 0 {
		c.chunks[doc/chunkDocs] = nil
	}
}

// countIn is how many of the documents have a value.
func (c *packed) countIn(m *matched) int {
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

// chosen are the places of the values in a chunk whose documents are wanted; all
// tells that these are all of them.
func (k *pack) chosen(m *matched, at int, buffer *[chunkDocs]uint8) (places []uint8, all bool) {
	if m.all {
		return nil, true
	}
	words := m.over(at)
	all = true
	for w, mask := range k.mask {
		all = all && mask&^words[w] == 0
	}
	if all {
		return nil, true
	}
	places = buffer[:0]
	from := 0
	for w, mask := range k.mask {
		for both := mask & words[w]; both != 0; both &= both - 1 {
			before := both&-both - 1
			places = append(places, uint8(from+bits.OnesCount64(mask&before)))
		}
		from += bits.OnesCount64(mask)
	}
	return places, false
}

// size estimates the memory of a column.
func (c *packed) size() uint64 {
	total := uint64(cap(c.chunks)) * 8
	for _, k := range c.chunks {
		if k != nil {
			total += uint64(unsafe.Sizeof(*k)) + uint64(cap(k.vals))
		}
	}
	return total
}
