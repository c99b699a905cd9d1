package index

import (
	"math"
	"math/bits"
)

// mostCounted bounds how many different numbers a histogram has.
const mostCounted = 1 << 16

// histogram counts numbers that have few decimals and lie close together, as most
// measurements do.
type histogram struct {
	// counts are those of low and the numbers after it, in a form.
	low    int64
	form   uint8
	counts []uint32
	total  int
}

// histogram counts the numbers of the documents; nil if they are not of that kind.
func (f *field) histogram(m *matched) *histogram {
	if f.lists.count > 0 || f.numbers.count == 0 {
		return nil
	}
	h := &histogram{}
	for _, k := range f.numbers.chunks {
		if k != nil {
			h.form = max(h.form, k.form)
		}
	}
	if h.form == formBits {
		return nil
	}
	low, high := int64(math.MaxInt64), int64(math.MinInt64)
	for _, k := range f.numbers.chunks {
		if k == nil {
			continue
		}
		first, last, ok := k.extent(h.form)
		if !ok {
			return nil
		}
		low, high = min(low, first), max(high, last)
	}
	// Room beyond the values is as much as their width at most.
	if high-low >= mostCounted {
		return nil
	}
	h.low, h.counts = low, make([]uint32, high-low+1)
	var buffer [chunkDocs]int64
	for at, k := range f.numbers.chunks {
		if k != nil {
			h.add(k, m.over(at), m.all, &buffer)
		}
	}
	return h
}

// extent is between which whole numbers of a form the values of a chunk lie, and
// whether that can be told.
func (k *pack) extent(form uint8) (low, high int64, ok bool) {
	var buffer [chunkDocs]int64
	whole := k.read(&buffer)
	low, high = whole[0], whole[0]
	for _, v := range whole {
		low, high = min(low, v), max(high, v)
	}
	by := int64(powers[form-k.form])
	if by > 1 && (low < -wholeLimit/by || high > wholeLimit/by) {
		return 0, 0, false
	}
	return low * by, high * by, true
}

// add counts the values of a chunk whose documents are wanted.
func (h *histogram) add(k *pack, words [chunkWords]uint64, all bool, buffer *[chunkDocs]int64) {
	whole, by := k.read(buffer), int64(powers[h.form-k.form])
	from := 0
	for w, mask := range k.mask {
		both, have := mask&words[w], bits.OnesCount64(mask)
		if all || both == mask {
			for _, v := range whole[from : from+have] {
				h.counts[v*by-h.low]++
			}
			h.total += have
		} else {
			h.total += bits.OnesCount64(both)
			for ; both != 0; both &= both - 1 {
				before := both&-both - 1
				h.counts[whole[from+bits.OnesCount64(mask&before)]*by-h.low]++
			}
		}
		from += have
	}
}

// pick finds the numbers of wanted ranks, which are in order.
func (h *histogram) pick(wanted []int, found func(rank int, v float64)) {
	below := 0
	for i, n := range h.counts {
		below += int(n)
		for len(wanted) > 0 && wanted[0] < below {
			found(wanted[0], decode(h.low+int64(i), h.form))
			wanted = wanted[1:]
		}
	}
}
