package index

import (
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// Aggregation says over what to compute: one field of the documents that match.
type Aggregation struct {
	// Groups asks for thing groups instead of things; Query is parsed for them.
	Groups bool
	Query  fleetquery.Query
	// Field is a managed or a custom field; empty means the version.
	Field string
}

// matched are the documents that a query found, ready to be laid over columns.
type matched struct {
	set   *roaring.Bitmap
	count int
	// all tells that every document matches, so that nothing needs to be masked.
	all bool
	// dense has a bit for each document; nil with all.
	dense []uint64
}

// match evaluates a query.
func (c *corpus) match(q fleetquery.Query) *matched {
	set := c.evaluate(c.compile(q.Root, false))
	m := &matched{set: set, count: int(set.GetCardinality())}
	if m.all = m.count == int(c.live.GetCardinality()); !m.all {
		m.dense = set.ToDense()
	}
	return m
}

// subject is what an aggregation works on, under the shard's lock.
type subject struct {
	account fleet.Account
	shard   *shard
	corpus  *corpus
	// path is the field by the name that the index has for it.
	path  string
	field *field
	of    fleet.FieldType
	// custom tells that the type is one that somebody declared.
	custom bool
	docs   *matched
}

// aggregate calls compute with what an aggregation names. Numbers that take
// long to work on are copied there and worked on after it.
func (x *Index) aggregate(account fleet.Account, a Aggregation, compute func(*subject) error) error {
	return x.examine(account, a, (*shard).aggregated, compute)
}

// examine is aggregate with another rule for which fields there are.
func (x *Index) examine(
	account fleet.Account, a Aggregation, resolve func(*shard, Aggregation) (subject, error), compute func(*subject) error,
) error {
	s, err := x.shard(account)
	if err != nil {
		return err
	}
	if s == nil {
		s = newShard(x.options, nil)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.refuses(a.Query, a.Groups); err != nil {
		return err
	}
	at, err := resolve(s, a)
	if err != nil {
		return err
	}
	at.account, at.shard, at.corpus = account, s, s.corpusOf(a.Groups)
	if n := at.corpus.nodes[at.path]; n != nil {
		at.field = n.field
	}
	switch {
	case at.field != nil:
	case at.path == fieldViolations && !a.Groups:
		at.field = at.corpus.zeros()
	default:
		at.field = newField(false)
	}
	at.docs = at.corpus.match(a.Query)
	if at.custom {
		x.reportMistyped(&at, a)
	}
	return compute(&at)
}

// zeros is a field that is 0 for every document: the number of violations, which
// queries answer in the same way.
func (c *corpus) zeros() *field {
	f := newField(false)
	f.exists = c.live.Clone()
	for it := c.live.Iterator(); it.HasNext(); {
		f.numbers.set(it.Next(), 0)
	}
	return f
}

// corpusOf is the corpus of groups or of things.
func (s *shard) corpusOf(groups bool) *corpus {
	if groups {
		return s.groups
	}
	return s.things
}

// aggregated finds the field of an aggregation among the managed and the custom
// ones (§4.5).
func (s *shard) aggregated(a Aggregation) (subject, error) {
	name := a.Field
	if name == "" {
		if name = fieldVersion; a.Groups {
			name = fieldGroupVersion
		}
	}
	if found, ok := s.declared(name, a.Groups); ok {
		return found, nil
	}
	if !a.Groups {
		if why := s.config.Things.Uncovered(name); why != "" {
			return subject{}, fault.New(fault.InvalidAggregation, "aggregationField %s is not indexed: %s", name, why)
		}
	}
	return subject{}, fault.New(fault.InvalidAggregation,
		"aggregationField %s is neither a managed field nor a custom field of the indexing configuration", name)
}

// declared finds a field whose type is known beforehand.
func (s *shard) declared(name string, groups bool) (subject, bool) {
	managed, custom := s.config.Things.ManagedFields(), s.config.Things.CustomFields
	if groups {
		managed, custom = s.config.Groups.ManagedFields(), s.config.Groups.CustomFields
	} else if s.config.Things.Uncovered(name) != "" {
		return subject{}, false
	}
	path := fieldPath(name, groups)
	for _, f := range managed {
		if sameField(fieldPath(f.Name, groups), path) {
			return subject{path: path, of: f.Type}, true
		}
	}
	for _, f := range custom {
		if f.Name == name {
			return subject{path: path, of: f.Type, custom: true}, true
		}
	}
	// What Muster adds of its own has one type each.
	if n := s.corpusOf(groups).nodes[path]; strings.HasPrefix(path, prefixOwn) && n != nil && n.field != nil {
		return subject{path: path, of: n.field.mainType()}, true
	}
	return subject{}, false
}

// fieldPath is the path of a field that has two names.
func fieldPath(name string, groups bool) string {
	if groups {
		switch name {
		case "thingGroupNames":
			return fieldGroupName
		case "thingGroupDescription":
			return fieldGroupDescription
		}
		return name
	}
	if short, ok := strings.CutPrefix(name, prefixRegistry); ok {
		switch short {
		case fieldThingName, fieldThingID, fieldThingType, fieldGroups:
			return short
		}
	}
	return name
}

// sameField compares a path with that of a managed field, which may hold for
// all named shadows.
func sameField(managed, path string) bool {
	before, after, many := strings.Cut(managed, "*")
	if !many {
		return managed == path
	}
	rest, ok := strings.CutPrefix(path, before)
	if !ok {
		return false
	}
	shadow, ok := strings.CutSuffix(rest, after)
	return ok && shadow != "" && shadow != "*" && !strings.Contains(shadow, ".")
}

// mainType is the type that most documents have a value of; a number wins over
// the text that it was read from.
func (f *field) mainType() fleet.FieldType {
	counts := f.byType()
	best := fleet.FieldNumber
	for _, of := range []fleet.FieldType{fleet.FieldBoolean, fleet.FieldString} {
		if counts[of] > counts[best] {
			best = of
		}
	}
	return best
}
