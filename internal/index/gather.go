package index

import "math/bits"

// chunkWords is how many words of a dense set lie over a chunk.
const chunkWords = chunkDocs / 64

// over returns the part of the set that lies over a chunk of a column.
func (m *matched) over(at int) (words [chunkWords]uint64) {
	if from := at * chunkWords; from < len(m.dense) {
		copy(words[:], m.dense[from:])
	}
	return words
}

// gather hands the values of the documents to visit, a chunk at a time; they
// are good until visit returns.
func (c *column[T]) gather(m *matched, visit func(values []T)) {
	if c.count == 0 {
		return
	}
	var buffer [chunkDocs]T
	for at, k := range c.chunks {
		if k == nil {
			continue
		}
		if m.all {
			visit(k.vals)
			continue
		}
		picked, from := buffer[:0], 0
		words := m.over(at)
		for w, mask := range k.mask {
			both, have := mask&words[w], bits.OnesCount64(mask)
			switch both {
			case 0:
			case mask:
				picked = append(picked, k.vals[from:from+have]...)
			default:
				for ; both != 0; both &= both - 1 {
					before := both&-both - 1
					picked = append(picked, k.vals[from+bits.OnesCount64(mask&before)])
				}
			}
			from += have
		}
		if len(picked) > 0 {
			visit(picked)
		}
	}
}

// countIn is how many of the documents have a value.
func (c *column[T]) countIn(m *matched) int {
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

// eachNumber hands all numbers of the documents to visit, those of lists one by
// one.
func (f *field) eachNumber(m *matched, visit func(numbers []float64)) {
	f.numbers.gather(m, visit)
	f.lists.gather(m, func(lists [][]float64) {
		for _, list := range lists {
			visit(list)
		}
	})
}

// numbersOf copies all numbers of the documents.
func (f *field) numbersOf(m *matched) []float64 {
	numbers := make([]float64, 0, min(m.count, f.numbers.count)+4*min(m.count, f.lists.count))
	f.eachNumber(m, func(more []float64) { numbers = append(numbers, more...) })
	return numbers
}
