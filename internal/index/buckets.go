package index

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Bounds of how many buckets one call may ask for.
const (
	DefaultBuckets = 10
	MaxBuckets     = 10_000
)

// Bucket is a value and how many documents have it.
type Bucket struct {
	// Key is the value as text, spelled as one of the documents spells it: values
	// that differ only in case are one.
	Key   string
	Count int
}

// Buckets are the values that most documents have.
type Buckets struct {
	// Total is how many documents match the query, with or without a value.
	Total int
	// Buckets come by count, the largest first, then by value.
	Buckets []Bucket
}

// Buckets returns the most frequent values of a field of the things or groups
// that match, at most limit of them.
func (x *Index) Buckets(ctx context.Context, account fleet.Account, a Aggregation, limit int) (Buckets, error) {
	if limit < 1 || limit > MaxBuckets {
		return Buckets{}, fault.New(fault.InvalidRequest, "maxBuckets must be from 1 to %d", MaxBuckets)
	}
	var out Buckets
	var numbers []float64
	var terms []term
	var path string
	err := x.aggregate(account, a, func(at *subject) error {
		path, out.Total = at.path, at.docs.count
		if at.of == fleet.FieldNumber {
			numbers = at.field.numbersPerDocument(at.docs)
		} else {
			terms = at.terms(limit)
		}
		return nil
	})
	if err != nil {
		return Buckets{}, err
	}
	if terms == nil {
		out.Buckets = numberBuckets(numbers, limit)
		return out, nil
	}
	out.Buckets, err = x.spell(ctx, account, a.Groups, path, terms)
	return out, err
}

// term is a text and how many documents hold it.
type term struct {
	text  string
	count int
	// example is the name of one that does.
	example string
}

// terms are the most frequent texts or truth values of the documents.
func (at *subject) terms(limit int) []term {
	f, found := at.field, []term{}
	if at.of == fleet.FieldBoolean {
		for _, text := range []string{falseText, trueText} {
			if n := f.vocab.countIn(text, at.docs); n > 0 {
				found = append(found, term{text: text, count: n})
			}
		}
		slices.SortStableFunc(found, byCount)
		return found[:min(limit, len(found))]
	}
	t := f.tally(at.docs)
	for _, id := range f.topTexts(t, limit) {
		one := term{text: strings.Clone(f.vocab.text(id)), count: int(t.of(id))}
		if doc, ok := f.vocab.posting(id).first(at.docs); ok && cased(one.text) {
			one.example = strings.Clone(at.corpus.names.text(doc))
		}
		found = append(found, one)
	}
	return found
}

// byCount orders terms, the most frequent first.
func byCount(a, b term) int { return cmp.Compare(b.count, a.count) }

// first is the first of the documents that is a member.
func (p posting) first(m *matched) (uint32, bool) {
	if p.bits == nil {
		return p.one, p.count == 1 && m.has(p.one)
	}
	for it := p.bits.Iterator(); it.HasNext(); {
		if doc := it.Next(); m.has(doc) {
			return doc, true
		}
	}
	return 0, false
}

// topTexts are the most frequent texts, those of one count in their order. Texts
// are looked at only where the limit cuts through those of one count.
func (f *field) topTexts(t *tally, limit int) []uint32 {
	counts := best[uint32]{limit: limit, compare: descending}
	t.each(func(_, n uint32) { counts.offer(n) })
	kept := counts.settle()
	if len(kept) == 0 {
		return nil
	}
	least := kept[len(kept)-1]
	var ids, ties []uint32
	t.each(func(id, n uint32) {
		switch {
		case n > least:
			ids = append(ids, id)
		case n == least:
			ties = append(ties, id)
		}
	})
	byText := func(a, b uint32) int { return strings.Compare(f.vocab.text(a), f.vocab.text(b)) }
	const many = 4096
	if room := limit - len(ids); len(ties) > max(room, many) {
		ties = f.firstTexts(room, func(id uint32) bool { return t.of(id) == least })
	}
	slices.SortFunc(ties, byText)
	slices.SortFunc(ids, func(a, b uint32) int { return cmp.Or(descending(t.of(a), t.of(b)), byText(a, b)) })
	ids = append(ids, ties...)
	return ids[:min(limit, len(ids))]
}

// firstTexts are some texts of a kind that include the first limit of them.
func (f *field) firstTexts(limit int, of func(id uint32) bool) []uint32 {
	var ids []uint32
	for _, id := range f.vocab.sorted {
		if len(ids) == limit {
			break
		}
		if of(id) {
			ids = append(ids, id)
		}
	}
	for _, id := range f.vocab.tail {
		if of(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// numbersPerDocument copies the numbers of the documents; one that an array has
// twice is copied once.
func (f *field) numbersPerDocument(m *matched) []float64 {
	numbers := make([]float64, 0, min(m.count, f.numbers.count))
	f.numbers.gather(m, func(more []float64) { numbers = append(numbers, more...) })
	f.lists.gather(m, func(lists [][]float64) {
		for _, list := range lists {
			once := slices.Clone(list)
			slices.Sort(once)
			numbers = append(numbers, slices.Compact(once)...)
		}
	})
	return numbers
}

// numberBuckets are the most frequent numbers.
func numberBuckets(numbers []float64, limit int) []Bucket {
	type counted struct {
		value float64
		count uint32
	}
	t := newNumberTally()
	for _, v := range numbers {
		t.add(v)
	}
	top := best[counted]{limit: limit, compare: func(a, b counted) int {
		return cmp.Or(descending(a.count, b.count), cmp.Compare(a.value, b.value))
	}}
	t.each(func(v float64, n uint32) { top.offer(counted{v, n}) })
	buckets := []Bucket{}
	for _, c := range top.settle() {
		buckets = append(buckets, Bucket{Key: numberText(c.value), Count: int(c.count)})
	}
	return buckets
}

// numberText is a number as JSON has it.
func numberText(v float64) string {
	const plain = 1e21
	if size := math.Abs(v); size != 0 && (size < 1e-6 || size >= plain) {
		return strconv.FormatFloat(v, 'e', -1, 64)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}
