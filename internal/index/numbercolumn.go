package index

import (
	"math"

	"github.com/muster-iot/muster/internal/fleetquery"
)

// numberColumn is a packed column of doubles. A chunk whose values all have few
// decimals keeps them as whole numbers of the smallest decimal; any other one
// keeps their bits. What is read is what was stored, bit by bit.
type numberColumn struct{ packed }

// Forms of a chunk: the count of decimals, or formBits.
const (
	maxDecimals = 6
	formBits    = maxDecimals + 1
)

// powers are those of ten.
var powers = [maxDecimals + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6} //nolint:gochecknoglobals // a constant that Go has no literal for

// wholeLimit bounds the whole numbers that a double holds exactly.
const wholeLimit = 1 << 53

// encode returns a number in a form and whether the form can hold it.
func encode(v float64, form uint8) (int64, bool) {
	if form == formBits {
		return int64(math.Float64bits(v)), true
	}
	scaled := math.Round(v * powers[form])
	if !(math.Abs(scaled) < wholeLimit) {
		return 0, false
	}
	n := int64(scaled)
	return n, math.Float64bits(decode(n, form)) == math.Float64bits(v)
}

// decode is the reverse.
func decode(n int64, form uint8) float64 {
	switch form {
	case 0:
		return float64(n)
	case formBits:
		return math.Float64frombits(uint64(n))
	}
	return float64(n) / powers[form]
}

// set stores the value of a document.
func (c *numberColumn) set(doc uint32, v float64) {
	k := c.chunk(doc)
	n, ok := encode(v, k.form)
	if !ok {
		k.reform(v)
		n, _ = encode(v, k.form)
	}
	c.put(k, doc, n)
}

// reform finds a form that can hold v beside what is there.
func (k *pack) reform(v float64) {
	var buffer, coded [chunkDocs]int64
	whole := k.read(&buffer)
	from := k.form
	for form := from + 1; form <= formBits; form++ {
		_, ok := encode(v, form)
		for i := 0; ok && i < len(whole); i++ {
			coded[i], ok = encode(decode(whole[i], from), form)
		}
		if ok {
			k.form = form
			if len(whole) > 0 {
				k.write(coded[:len(whole)])
			}
			return
		}
	}
}

// get returns the value of a document.
func (c *numberColumn) get(doc uint32) (float64, bool) {
	if k, i, ok := c.find(doc); ok {
		return decode(k.at(i), k.form), true
	}
	return 0, false
}

// readNumbers copies all values to the beginning of the buffer.
func (k *pack) readNumbers(into *[chunkDocs]float64) []float64 {
	var buffer [chunkDocs]int64
	out := into[:k.n]
	whole := k.read(&buffer)
	switch k.form {
	case 0:
		for i, n := range whole {
			out[i] = float64(n)
		}
	case formBits:
		for i, n := range whole {
			out[i] = math.Float64frombits(uint64(n))
		}
	default:
		by := powers[k.form]
		for i, n := range whole {
			out[i] = float64(n) / by
		}
	}
	return out
}

// gather hands the values of the documents to visit, a chunk at a time; they
// are good until visit returns.
func (c *numberColumn) gather(m *matched, visit func(numbers []float64)) {
	var out [chunkDocs]float64
	var buffer [chunkDocs]uint8
	for at, k := range c.chunks {
		if k == nil {
			continue
		}
		places, all := k.chosen(m, at, &buffer)
		switch {
		case all:
			visit(k.readNumbers(&out))
		case len(places) > 0:
			for i, place := range places {
				out[i] = decode(k.at(int(place)), k.form)
			}
			visit(out[:len(places)])
		}
	}
}

// within visits the documents with a number in the range.
func (c *numberColumn) within(r fleetquery.NumberRange, visit func(doc uint32)) {
	var buffer [chunkDocs]int64
	for at, k := range c.chunks {
		if k == nil {
			continue
		}
		if k.form == formBits {
			k.mask.each(at, func(doc uint32, i int) {
				if r.Contains(decode(k.at(i), formBits)) {
					visit(doc)
				}
			})
			continue
		}
		low, high := lowest(r.Low, k.form), highest(r.High, k.form)
		if low > high || k.outside(low, high) {
			continue
		}
		whole := k.read(&buffer)
		k.mask.each(at, func(doc uint32, i int) {
			if v := whole[i]; v >= low && v <= high {
				visit(doc)
			}
		})
	}
}

// outside reports whether no value of the chunk can lie between low and high.
func (k *pack) outside(low, high int64) bool {
	return k.width < widest && (high < k.base || low > k.base+int64(1)<<(8*k.width)-1)
}

// lowest is the smallest whole number in a form that a lower bound lets in.
func lowest(b fleetquery.NumberBound, form uint8) int64 {
	scaled := b.Value * powers[form]
	switch {
	case b.Open || scaled <= -wholeLimit:
		return -wholeLimit
	case scaled >= wholeLimit:
		return wholeLimit
	}
	n := int64(math.Floor(scaled)) - 1
	for v := decode(n, form); v < b.Value || v == b.Value && !b.Inclusive; v = decode(n, form) {
		n++
	}
	return n
}

// highest is the greatest whole number in a form that an upper bound lets in.
func highest(b fleetquery.NumberBound, form uint8) int64 {
	scaled := b.Value * powers[form]
	switch {
	case b.Open || scaled >= wholeLimit:
		return wholeLimit
	case scaled <= -wholeLimit:
		return -wholeLimit
	}
	n := int64(math.Ceil(scaled)) + 1
	for v := decode(n, form); v > b.Value || v == b.Value && !b.Inclusive; v = decode(n, form) {
		n--
	}
	return n
}
