package index

import (
	"github.com/axiomhq/hyperloglog"

	"github.com/muster-iot/muster/internal/fleet"
)

// exactNumbers is how many distinct numbers are counted one by one; more are
// estimated.
const exactNumbers = 100_000

// Cardinality returns how many distinct values a field of the things or groups
// that match has: exactly for texts, and for numbers up to 100,000 of them.
// Beyond that it is estimated, with a standard error of 0.8 %.
func (x *Index) Cardinality(account fleet.Account, a Aggregation) (int, error) {
	var numbers []float64
	n := 0
	err := x.aggregate(account, a, func(at *subject) error {
		if at.of == fleet.FieldNumber {
			numbers = at.field.numbersOf(at.docs)
		} else {
			n = at.distinctTexts()
		}
		return nil
	})
	return n + distinctNumbers(numbers), err
}

// distinctTexts is how many texts or truth values the documents have.
func (at *subject) distinctTexts() int {
	f := at.field
	if at.of == fleet.FieldBoolean {
		return min(1, f.vocab.countIn(falseText, at.docs)) + min(1, f.vocab.countIn(trueText, at.docs))
	}
	n := 0
	f.tally(at.docs).each(func(uint32, uint32) { n++ })
	return n
}

// distinctNumbers counts or estimates.
func distinctNumbers(numbers []float64) int {
	t := newNumberTally()
	for i, v := range numbers {
		t.add(v)
		if t.len() > exactNumbers {
			return estimateNumbers(t, numbers[i+1:])
		}
	}
	return t.len()
}

// estimateNumbers estimates how many numbers there are in both together.
func estimateNumbers(t *numberTally, more []float64) int {
	sketch := hyperloglog.New14()
	t.each(func(v float64, _ uint32) { sketch.InsertHash(numberHash(v)) })
	for _, v := range more {
		sketch.InsertHash(numberHash(v))
	}
	return int(sketch.Estimate())
}
