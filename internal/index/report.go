package index

import (
	"slices"
	"strings"
	"unsafe"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// Report is what an operator wants to know of an account's index.
type Report struct {
	Things, Groups CorpusReport
	// Loading is what a build under way has read; nil when there is none.
	Loading *Progress
	// DynamicGroups is how many groups are kept filled.
	DynamicGroups int
	// Unstable counts batches after which memberships were still changing.
	Unstable uint64
}

// CorpusReport is about one of the two indexes.
type CorpusReport struct {
	Documents int
	// Paths counts the fields that have a value somewhere.
	Paths int
	// Bytes estimates the memory that the documents take.
	Bytes uint64
	// Dropped counts values left out by the bounds on paths and texts.
	Dropped uint64
}

// Progress is how far a build has come.
type Progress struct {
	Things, Shadows int64
	// Expected is how many things there were before, 0 when nobody knows.
	Expected int64
}

// Report describes the index of an account. Memory is added up field by field,
// so that changes go on in between.
func (x *Index) Report(account fleet.Account) Report {
	x.mu.Lock()
	s, loading := x.shards[account], x.loading
	if x.builds == 0 {
		loading = nil
	}
	x.mu.Unlock()
	var r Report
	if s == nil {
		r.Loading = progress(loading, 0)
		return r
	}
	s.mu.RLock()
	if s.reloading != nil {
		loading = s.reloading
	}
	r.Loading = progress(loading, int64(s.things.live.GetCardinality()))
	r.DynamicGroups, r.Unstable = len(s.standing.byName), s.standing.unstable
	direct := s.direct.size() + s.billing.size() + s.groupNames.bytes() + s.standing.eligible.size()
	s.mu.RUnlock()
	r.Things, r.Groups = s.corpusReport(s.things), s.corpusReport(s.groups)
	r.Things.Bytes += direct
	return r
}

// progress copies counts, nil for none.
func progress(l *Loaded, expected int64) *Progress {
	if l == nil {
		return nil
	}
	return &Progress{Things: l.Things(), Shadows: l.Shadows(), Expected: expected}
}

// corpusReport adds up one corpus, taking the lock for a field at a time.
func (s *shard) corpusReport(c *corpus) CorpusReport {
	s.mu.RLock()
	r := CorpusReport{
		Documents: int(c.live.GetCardinality()), Dropped: c.dropped, Bytes: c.names.bytes() + c.live.GetSizeInBytes(),
	}
	nodes := make([]*node, 0, len(c.nodes))
	for _, n := range c.nodes {
		nodes = append(nodes, n)
	}
	s.mu.RUnlock()
	for _, n := range nodes {
		s.mu.RLock()
		r.Bytes += uint64(len(n.path)) + uint64(unsafe.Sizeof(*n))
		if n.field != nil {
			r.Bytes += n.field.bytes()
			if !n.field.exists.IsEmpty() {
				r.Paths++
			}
		}
		s.mu.RUnlock()
	}
	return r
}

// bytes estimates the memory of a field.
func (f *field) bytes() uint64 {
	total := uint64(unsafe.Sizeof(*f)) + f.exists.GetSizeInBytes() +
		f.texts.size() + f.textLists.size() + f.numbers.size() + f.lists.size() + f.vocab.bytes()
	f.lists.each(func(_ uint32, list []float64) { total += uint64(cap(list)) * 8 })
	if f.words != nil {
		total += f.words.bytes() + f.compound.GetSizeInBytes()
	}
	return total
}

// size estimates the memory of a column without what its values point to.
func (c *column[T]) size() uint64 {
	var one T
	var k chunk[T]
	total := uint64(cap(c.chunks)) * 8
	for _, at := range c.chunks {
		if at != nil {
			total += uint64(unsafe.Sizeof(k)) + uint64(cap(at.vals))*uint64(unsafe.Sizeof(one))
		}
	}
	return total
}

// bytes estimates the memory of a dictionary.
func (d *dict) bytes() uint64 {
	total := uint64(cap(d.entries))*uint64(unsafe.Sizeof(entry{})) +
		uint64(cap(d.tags)) + 4*uint64(cap(d.table)+cap(d.sorted)+cap(d.tail)+cap(d.free))
	for _, chunk := range d.chunks {
		total += uint64(chunk.Cap())
	}
	return total
}

// Field is a path that some documents have a value at.
type Field struct {
	Name string
	// Documents is how many documents have it.
	Documents int
	// ByType counts those whose values are of a type. An attribute that reads as
	// a number counts as a text and as a number, as queries see it.
	ByType map[fleet.FieldType]int
	// Searchable is false for fields that only results and aggregations show.
	Searchable bool
}

// Fields lists the fields of the index of things or of groups whose names begin
// with the prefix, in order of their names, up to limit of them behind the given
// one; next is empty at the end.
func (x *Index) Fields(account fleet.Account, groups bool, prefix, after string, limit int) (fields []Field, next string, err error) {
	s, err := x.shard(account)
	if err != nil {
		return nil, "", err
	}
	everything := fleetquery.Query{Root: fleetquery.All{}}
	if s == nil {
		return nil, "", x.emptyRefuses(everything, groups)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.refuses(everything, groups); err != nil {
		return nil, "", err
	}
	if limit < 1 {
		return nil, "", fault.New(fault.InvalidRequest, "limit must be positive")
	}
	c := s.things
	if groups {
		c = s.groups
	}
	var names []string
	for path, n := range c.nodes {
		if path > after && strings.HasPrefix(path, prefix) && n.field != nil && !n.field.exists.IsEmpty() {
			names = append(names, path)
		}
	}
	slices.Sort(names)
	if len(names) > limit {
		names, next = names[:limit], names[limit-1]
	}
	for _, name := range names {
		n := c.nodes[name]
		fields = append(fields, Field{
			Name: strings.Clone(name), Documents: int(n.field.exists.GetCardinality()), ByType: n.field.byType(), Searchable: !n.hidden,
		})
	}
	return fields, next, nil
}

// byType counts the documents of a field by the types of their values. Truth
// values are texts in the index.
func (f *field) byType() map[fleet.FieldType]int {
	booleans := roaring.New()
	for _, word := range []string{fleetquery.Bool(true).Text, fleetquery.Bool(false).Text} {
		if id, ok := f.vocab.find(word); ok {
			f.vocab.each(id, booleans.Add)
		}
	}
	counts := map[fleet.FieldType]int{}
	count := func(of fleet.FieldType, n int) {
		if n > 0 {
			counts[of] = n
		}
	}
	count(fleet.FieldBoolean, int(booleans.GetCardinality()))
	count(fleet.FieldString, f.texts.count+f.textLists.count-int(booleans.GetCardinality()))
	count(fleet.FieldNumber, f.numbers.count+f.lists.count)
	return counts
}
