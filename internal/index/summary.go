package index

import (
	"context"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Summary is all that aggregations tell of one field.
type Summary struct {
	Field string
	// Type is the declared one, or that of most values.
	Type fleet.FieldType
	// Declared tells that the field is a managed or a custom one, which
	// aggregations may name.
	Declared bool
	// Matching is how many documents match; WithValue, how many of them have a
	// value of the type.
	Matching, WithValue int
	// Mistyped is how many documents of the whole index have values of other types
	// only.
	Mistyped    int
	Cardinality int
	Statistics  Statistics
	// Percentiles are there for a Number field.
	Percentiles []Percentile
	Buckets     []Bucket
}

// Summarize computes every aggregation over a field that has a value somewhere,
// whether it is a custom field or not. Without a type it is the declared one, or
// that of most values.
func (x *Index) Summarize(ctx context.Context, account fleet.Account, a Aggregation, of fleet.FieldType, limit int) (Summary, error) {
	if limit < 1 || limit > MaxBuckets {
		return Summary{}, fault.New(fault.InvalidRequest, "buckets must be from 1 to %d", MaxBuckets)
	}
	out := Summary{Field: a.Field, Buckets: []Bucket{}}
	var numbers, once []float64
	var terms []term
	var path string
	err := x.examine(account, a, func(s *shard, a Aggregation) (subject, error) {
		at, declared, err := s.anyField(a)
		if out.Declared = declared; of != "" {
			at.of, at.custom = of, false
		}
		return at, err
	}, func(at *subject) error {
		path, out.Type = at.path, at.of
		out.Matching, out.Statistics, out.Mistyped = at.docs.count, at.statistics(), at.field.mistyped(at.of)
		if at.of == fleet.FieldNumber {
			numbers, once = at.field.numbersOf(at.docs), at.field.numbersPerDocument(at.docs)
			out.WithValue = at.field.numbers.countIn(at.docs) + at.field.lists.countIn(at.docs)
			return nil
		}
		out.Cardinality, terms = at.distinctTexts(), at.terms(limit)
		out.WithValue = at.withValue()
		return nil
	})
	if err != nil {
		return Summary{}, err
	}
	if out.Type == fleet.FieldNumber {
		out.Cardinality, out.Percentiles = distinctNumbers(numbers), percentilesOf(numbers, DefaultPercents())
		out.Buckets = numberBuckets(once, limit)
		return out, nil
	}
	out.Buckets, err = x.spell(ctx, account, a.Groups, path, terms)
	return out, err
}

// withValue is how many of the documents have a text, or a truth value.
func (at *subject) withValue() int {
	f := at.field
	if at.of == fleet.FieldString {
		return f.texts.countIn(at.docs) + f.textLists.countIn(at.docs)
	}
	return int(roaring.And(f.truths(), at.docs.set).GetCardinality())
}

// anyField finds a declared field, or any that has a value.
func (s *shard) anyField(a Aggregation) (found subject, declared bool, err error) {
	if at, ok := s.declared(a.Field, a.Groups); ok {
		return at, true, nil
	}
	path := fieldPath(a.Field, a.Groups)
	if n := s.corpusOf(a.Groups).nodes[path]; n != nil && n.field != nil && !n.field.exists.IsEmpty() {
		return subject{path: path, of: n.field.mainType()}, false, nil
	}
	return subject{}, false, fault.New(fault.ResourceNotFound, "nothing in the index has a value at %q", a.Field)
}
