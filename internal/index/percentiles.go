package index

import (
	"math"
	"math/bits"
	"slices"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// maxPercents bounds what one call may ask for.
const maxPercents = 100

// DefaultPercents are those of a call that names none.
func DefaultPercents() []float64 { return []float64{1, 5, 25, 50, 75, 95, 99} }

// Percentile is the value that a percentage of all values are not above,
// interpolated between the two nearest ones.
type Percentile struct {
	Percent, Value float64
}

// Percentiles returns the percentiles of a Number field of the things or groups
// that match, exactly and in the order in which they were asked for; none when
// there is no value.
func (x *Index) Percentiles(account fleet.Account, a Aggregation, percents []float64) ([]Percentile, error) {
	if len(percents) == 0 {
		percents = DefaultPercents()
	}
	if len(percents) > maxPercents {
		return nil, fault.New(fault.InvalidRequest, "percents may have at most %d values", maxPercents)
	}
	for _, p := range percents {
		if !(p >= 0 && p <= 100) {
			return nil, fault.New(fault.InvalidRequest, "percents must be from 0 to 100, %v is not", p)
		}
	}
	var numbers []float64
	var counted *histogram
	err := x.aggregate(account, a, func(at *subject) error {
		if at.of != fleet.FieldNumber {
			return fault.New(fault.InvalidAggregation, "aggregationField %s is of type %s, percentiles need a Number", at.path, at.of)
		}
		if counted = at.field.histogram(at.docs); counted == nil {
			numbers = at.field.numbersOf(at.docs)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case counted != nil:
		return percentiles(counted.total, percents, counted.pick), nil
	}
	return percentilesOf(numbers, percents), nil
}

// percentilesOf are those of the numbers.
func percentilesOf(numbers, percents []float64) []Percentile {
	return percentiles(len(numbers), percents, func(wanted []int, found func(rank int, v float64)) {
		keys := make([]uint64, len(numbers))
		for i, v := range numbers {
			keys[i] = orderedBits(v)
		}
		selectRanks(keys, 0, wanted, func(rank int, key uint64) { found(rank, fromOrderedBits(key)) })
	})
}

// percentiles are those of so many numbers, of which pick finds the ones of wanted
// ranks.
func percentiles(total int, percents []float64, pick func(wanted []int, found func(rank int, v float64))) []Percentile {
	if total == 0 {
		return nil
	}
	// Each lies between the values of two ranks.
	place := func(percent float64) (rank int, beyond float64) {
		whole, part := math.Modf(percent / 100 * float64(total-1))
		return int(whole), part
	}
	wanted := make([]int, 0, 2*len(percents))
	for _, p := range percents {
		rank, _ := place(p)
		wanted = append(wanted, rank, min(rank+1, total-1))
	}
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	value := make(map[int]float64, len(wanted))
	pick(wanted, func(rank int, v float64) { value[rank] = v })
	out := make([]Percentile, len(percents))
	for i, p := range percents {
		rank, beyond := place(p)
		low := value[rank]
		out[i] = Percentile{Percent: p, Value: low}
		if beyond > 0 {
			high := value[rank+1]
			out[i].Value = min(max(low*(1-beyond)+high*beyond, low), high)
		}
	}
	return out
}

// orderedBits maps numbers to integers of the same order.
func orderedBits(v float64) uint64 {
	u := math.Float64bits(v)
	if u>>63 == 1 {
		return ^u
	}
	return u | 1<<63
}

// fromOrderedBits is the reverse.
func fromOrderedBits(u uint64) float64 {
	if u>>63 == 1 {
		return math.Float64frombits(u &^ (1 << 63))
	}
	return math.Float64frombits(^u)
}

const (
	// fewKeys are sorted rather than split.
	fewKeys = 4096
	// splitBits is the logarithm of how many parts a split makes.
	splitBits = 14
)

// selectRanks finds the keys that sorting would put at the wanted ranks, which
// are in order and count from first. Each step splits the range of the keys and
// goes on with the parts that have a wanted rank, five times at most.
func selectRanks(keys []uint64, first int, wanted []int, found func(rank int, key uint64)) {
	if len(keys) <= fewKeys {
		slices.Sort(keys)
		for _, rank := range wanted {
			found(rank, keys[rank-first])
		}
		return
	}
	low, high := keys[0], keys[0]
	for _, k := range keys {
		low, high = min(low, k), max(high, k)
	}
	if low == high {
		for _, rank := range wanted {
			found(rank, low)
		}
		return
	}
	shift := max(0, bits.Len64(high-low)-splitBits)
	parts := make([]uint32, 1<<splitBits)
	for _, k := range keys {
		parts[(k-low)>>shift]++
	}
	type part struct {
		first  int
		wanted []int
		keys   []uint64
	}
	var chosen []part
	// choice is the place of a part among the chosen plus one.
	choice := make([]uint8, 1<<splitBits)
	at := first
	for i, n := range parts {
		end := 0
		for end < len(wanted) && wanted[end] < at+int(n) {
			end++
		}
		if end > 0 {
			chosen = append(chosen, part{first: at, wanted: wanted[:end], keys: make([]uint64, 0, n)})
			choice[i] = uint8(len(chosen))
			wanted = wanted[end:]
		}
		at += int(n)
	}
	for _, k := range keys {
		if c := choice[(k-low)>>shift]; c > 0 {
			p := &chosen[c-1]
			p.keys = append(p.keys, k)
		}
	}
	for _, p := range chosen {
		selectRanks(p.keys, p.first, p.wanted, found)
	}
}
