package index

import (
	"math"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// Statistics describe the values of a field. Of a String field there is only
// the count, without any value too; what a double cannot hold is nil.
type Statistics struct {
	// Count is how many values there are of a Number or Boolean field, where each
	// element of an array is one, and how many documents with a text of a String
	// field.
	Count                       int
	Average, Sum                *float64
	Minimum, Maximum            *float64
	SumOfSquares                *float64
	Variance, StandardDeviation *float64
}

// Statistics describes one field of the things or groups that match.
func (x *Index) Statistics(account fleet.Account, a Aggregation) (Statistics, error) {
	var out Statistics
	err := x.aggregate(account, a, func(at *subject) error {
		out = at.statistics()
		return nil
	})
	return out, err
}

// statistics are those of the field.
func (at *subject) statistics() Statistics {
	switch at.of {
	case fleet.FieldNumber:
		return at.field.numberStatistics(at.docs)
	case fleet.FieldBoolean:
		return at.field.truthStatistics(at.docs)
	case fleet.FieldString:
	}
	return Statistics{Count: at.field.texts.countIn(at.docs) + at.field.textLists.countIn(at.docs)}
}

// numberStatistics are those of a Number field.
func (f *field) numberStatistics(m *matched) Statistics {
	var all moments
	f.eachNumber(m, all.add)
	if all.finite() {
		return all.statistics(0)
	}
	// Some intermediate value is beyond a double: the same again on values that
	// are small enough, so that only results that really are beyond are left out.
	const down = -540
	all = moments{}
	var scaled []float64
	f.eachNumber(m, func(numbers []float64) {
		scaled = scaled[:0]
		for _, v := range numbers {
			scaled = append(scaled, math.Ldexp(v, down))
		}
		all.add(scaled)
	})
	return all.statistics(-down)
}

// truthStatistics are those of a Boolean field: false is 0, true is 1.
func (f *field) truthStatistics(m *matched) Statistics {
	var count [2]int
	visit := func(ids []uint32) {
		for _, id := range ids {
			switch f.vocab.text(id) {
			case falseText:
				count[0]++
			case trueText:
				count[1]++
			}
		}
	}
	if f.textLists.count == 0 {
		count = [2]int{f.vocab.countIn(falseText, m), f.vocab.countIn(trueText, m)}
	} else {
		f.texts.gather(m, visit)
		f.textLists.gather(m, visit)
	}
	n := float64(count[0] + count[1])
	if n == 0 {
		return Statistics{}
	}
	average := float64(count[1]) / n
	all := moments{count: count[0] + count[1], sum: float64(count[1]), squares: float64(count[1]), mean: average, spread: n * average * (1 - average)}
	if count[0] == 0 {
		all.low = 1
	}
	if count[1] > 0 {
		all.high = 1
	}
	return all.statistics(0)
}

// The texts of truth values.
var (
	falseText = fleetquery.Bool(false).Text
	trueText  = fleetquery.Bool(true).Text
)

// countIn is how many of the documents hold a text.
func (v *vocab) countIn(text string, m *matched) int {
	id, ok := v.find(text)
	if !ok {
		return 0
	}
	return v.posting(id).countIn(m)
}

// countIn is how many of the documents are members.
func (p posting) countIn(m *matched) int {
	switch {
	case p.count == 0 || m.all:
		return int(p.count)
	case p.bits != nil:
		return int(p.bits.AndCardinality(m.set))
	case m.has(p.one):
		return 1
	}
	return 0
}

// has reports whether a document is one of them.
func (m *matched) has(doc uint32) bool {
	if m.all {
		return true
	}
	at := int(doc / 64)
	return at < len(m.dense) && m.dense[at]>>(doc%64)&1 == 1
}

// moments are what statistics follow from, added up in parts so that nothing
// depends on how far the values are from zero.
type moments struct {
	count        int
	sum, squares float64
	low, high    float64
	// spread is the sum of the squared distances from the mean.
	mean, spread float64
}

// lanes is how many sums are made at a time.
const lanes = 4

// add takes in some values.
func (all *moments) add(values []float64) {
	if len(values) == 0 {
		return
	}
	part := moments{count: len(values), low: values[0], high: values[0]}
	// Several sums at a time, since one addition waits for the one before it.
	var sum, squares, spread [lanes]float64
	for i, v := range values {
		sum[i%lanes] += v
		squares[i%lanes] += v * v
		if v < part.low {
			part.low = v
		}
		if v > part.high {
			part.high = v
		}
	}
	for i := range lanes {
		part.sum += sum[i]
		part.squares += squares[i]
	}
	part.mean = part.sum / float64(part.count)
	for i, v := range values {
		d := v - part.mean
		spread[i%lanes] += d * d
	}
	for _, v := range spread {
		part.spread += v
	}
	if all.count == 0 {
		*all = part
		return
	}
	n, k := float64(all.count), float64(part.count)
	d := part.mean - all.mean
	all.count += part.count
	all.sum += part.sum
	all.squares += part.squares
	all.low, all.high = min(all.low, part.low), max(all.high, part.high)
	all.mean += d * (k / (n + k))
	all.spread += part.spread + d*d*(n*(k/(n+k)))
}

// finite tells that nothing ran over.
func (all *moments) finite() bool {
	for _, v := range []float64{all.sum, all.squares, all.mean, all.spread} {
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return false
		}
	}
	return true
}

// statistics are the results for values that were divided by a power of two.
func (all *moments) statistics(exponent int) Statistics {
	if all.count == 0 {
		return Statistics{}
	}
	result := func(v float64, times int) *float64 {
		for range times {
			v = math.Ldexp(v, exponent)
		}
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return nil
		}
		return &v
	}
	mean := all.mean
	if exponent == 0 {
		mean = all.sum / float64(all.count)
	}
	variance := all.spread / float64(all.count)
	return Statistics{
		Count: all.count, Average: result(mean, 1), Sum: result(all.sum, 1), Minimum: result(all.low, 1), Maximum: result(all.high, 1),
		SumOfSquares: result(all.squares, 2), Variance: result(variance, 2), StandardDeviation: result(math.Sqrt(variance), 1),
	}
}
