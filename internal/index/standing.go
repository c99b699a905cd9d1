package index

import (
	"cmp"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/muster-iot/muster/internal/fleetquery"
)

// maxRounds bounds how often membership may change membership: a query on
// thingGroupNames sees the groups that this package itself fills.
const maxRounds = 8

// standing keeps the dynamic groups of one account: their queries, who fits
// them, and who is a member.
type standing struct {
	corpus *corpus
	groups []*dynamicGroup
	byName map[string]uint32
	free   []uint32
	// retired are groups dropped in this batch; their numbers are free once
	// the batch's changes were told.
	retired []uint32
	// everywhere holds the tests without a field.
	everywhere *atoms
	// paused is set while documents are loaded: groups are evaluated at once
	// afterwards.
	paused bool
	// eligible lists, for each document, the groups whose query it fits,
	// eldest group first.
	eligible column[[]uint32]
	// onCreate are the groups that a document without any field fits.
	onCreate []uint32
	// marks are (document, group) pairs to decide at the end of the batch.
	marks []uint64
	// toggled holds the memberships that differ from the start of the batch.
	toggled map[uint64]bool
	// limit is the number of groups that a thing may be in; 0 for no limit.
	limit int
	// directGroups counts the static groups of a document.
	directGroups func(doc uint32) int
	// regroup refreshes the group names of a document.
	regroup func(doc uint32)
	// refused is told of a thing that fits a group but has no room for it.
	refused func(group string, doc uint32)
	// unstable counts batches that ended with memberships still changing.
	unstable uint64
	// scratch and guards are buffers.
	scratch, guards values
}

// dynamicGroup is a group defined by a query.
type dynamicGroup struct {
	name  string
	query string
	// born orders groups by age.
	born int64
	// plan is nil when the stored query cannot be read.
	plan    *plan
	members *roaring.Bitmap
	// displaced are documents that fit but have no room.
	displaced *roaring.Bitmap
}

// pair packs a document and a group.
func pair(doc, group uint32) uint64 { return uint64(doc)<<32 | uint64(group) }

// changed marks the groups whose answer may flip by a change of a field. Each
// change is one step: a test behind a guard that the document does not pass
// cannot flip its group now, and when the document comes to pass the guard,
// the guard's own test marks the group.
func (s *standing) changed(n *node, doc uint32, old, now values) {
	if s.paused {
		return
	}
	mark := func(group uint32) { s.marks = append(s.marks, pair(doc, group)) }
	flip := func(a *atoms) { a.flips(old, now, mark) }
	if n.atoms != nil {
		n.atoms.forDocument(doc, &s.guards, flip)
	}
	if n.unfielded && s.everywhere != nil {
		s.everywhere.forDocument(doc, &s.guards, flip)
	}
	if old.empty() == now.empty() {
		return
	}
	for up := n; up != nil; up = up.parent {
		if up.atoms != nil {
			up.atoms.forDocument(doc, &s.guards, func(a *atoms) {
				for _, group := range a.exists {
					mark(group)
				}
			})
		}
	}
}

// created marks the groups that a new document fits before it has a field.
func (s *standing) created(doc uint32) {
	if s.paused {
		return
	}
	for _, group := range s.onCreate {
		s.marks = append(s.marks, pair(doc, group))
	}
}

// removed takes a document that is about to end out of its groups.
func (s *standing) removed(doc uint32) {
	list, _ := s.eligible.get(doc)
	for _, id := range list {
		g := s.groups[id]
		if g.members.CheckedRemove(doc) {
			s.toggle(doc, id)
		}
		g.displaced.Remove(doc)
	}
	s.eligible.remove(doc)
}

// define sets the query of a group, new or known, and evaluates it.
func (s *standing) define(name, query string, root fleetquery.Node, born int64) {
	id, known := s.byName[name]
	switch {
	case known && s.groups[id].query == query:
		return
	case known:
		s.unregister(id)
	case len(s.free) > 0:
		id, s.free = s.free[len(s.free)-1], s.free[:len(s.free)-1]
	default:
		id = uint32(len(s.groups))
		s.groups = append(s.groups, nil)
	}
	if !known {
		s.byName[name] = id
		s.groups[id] = &dynamicGroup{name: name, born: born, members: roaring.New(), displaced: roaring.New()}
	}
	g := s.groups[id]
	g.query, g.plan = query, nil
	if root != nil {
		g.plan = s.corpus.compile(root, true)
	}
	if !s.paused {
		s.register(id)
		s.refill(id)
	}
}

// resume registers and fills all groups after a bulk load.
func (s *standing) resume() {
	s.paused = false
	for id, g := range s.groups {
		if g != nil {
			s.register(uint32(id))
		}
	}
	for id, g := range s.groups {
		if g != nil {
			s.refill(uint32(id))
		}
	}
	s.resolve()
	clear(s.toggled)
}

// register enters the tests of a group.
func (s *standing) register(id uint32) {
	p := s.groups[id].plan
	if p == nil {
		return
	}
	narrow := p.guard()
	p.leaves(func(leaf *plan) {
		at := &s.everywhere
		switch {
		case leaf.op == opAll:
			return
		case !leaf.everywhere && leaf.at == nil:
			return
		case !leaf.everywhere:
			at = &leaf.at.atoms
		}
		if *at == nil {
			*at = &atoms{}
		}
		if leaf == narrow {
			(*at).add(id, leaf)
			return
		}
		(*at).under(narrow).add(id, leaf)
	})
	if fitsNothing(p) {
		s.onCreate = append(s.onCreate, id)
	}
}

// guard returns the test that narrows a conjunction the most at present: a
// whole word that few documents have. Nil means that there is none.
func (p *plan) guard() *plan {
	if p.op != opAnd {
		return nil
	}
	var best *plan
	var fewest uint32
	for _, kid := range p.kids {
		if kid.op != opMatch || kid.match.IsNumber || kid.at == nil {
			continue
		}
		if n := kid.at.documentsWith(kid.match.Word); best == nil || n < fewest {
			best, fewest = kid, n
		}
	}
	return best
}

// documentsWith estimates how many documents have a word as their value.
func (n *node) documentsWith(word string) uint32 {
	if n.field == nil {
		return 0
	}
	id, ok := n.field.vocab.find(word)
	if !ok {
		return 0
	}
	return n.field.vocab.posts[id].count
}

// fitsNothing decides a plan for a document without any field.
func fitsNothing(p *plan) bool {
	switch p.op {
	case opAnd:
		return !slices.ContainsFunc(p.kids, func(kid *plan) bool { return !fitsNothing(kid) })
	case opOr:
		return slices.ContainsFunc(p.kids, fitsNothing)
	case opNot:
		return !fitsNothing(p.kids[0])
	case opAll:
		return true
	case opExists, opMatch, opPhrase, opWildcard, opNumbers, opTexts:
	}
	return false
}

// unregister forgets the tests of a group.
func (s *standing) unregister(id uint32) {
	if p := s.groups[id].plan; p != nil {
		p.leaves(func(leaf *plan) {
			if leaf.at != nil && leaf.at.atoms != nil && !leaf.at.atoms.remove(id) {
				leaf.at.atoms = nil
			}
		})
	}
	if s.everywhere != nil && !s.everywhere.remove(id) {
		s.everywhere = nil
	}
	s.onCreate = slices.DeleteFunc(s.onCreate, func(g uint32) bool { return g == id })
}

// refill evaluates a group's query on all documents.
func (s *standing) refill(id uint32) {
	g := s.groups[id]
	fits := roaring.New()
	if g.plan != nil {
		fits = s.corpus.evaluate(g.plan)
	}
	had := roaring.Or(g.members, g.displaced)
	for it := roaring.Xor(had, fits).Iterator(); it.HasNext(); {
		doc := it.Next()
		s.setEligible(doc, id, !had.Contains(doc))
		s.seat(doc)
	}
}

// drop removes a group with its memberships.
func (s *standing) drop(name string) {
	id, ok := s.byName[name]
	if !ok {
		return
	}
	s.unregister(id)
	g := s.groups[id]
	g.plan, g.query = nil, ""
	s.refill(id)
	delete(s.byName, name)
	s.retired = append(s.retired, id)
}

// settle ends a batch: it hands each change of membership to tell and frees
// the numbers of dropped groups.
func (s *standing) settle(tell func(group string, doc uint32, added bool)) {
	for key := range s.toggled {
		g := s.groups[uint32(key)]
		doc := uint32(key >> 32)
		tell(g.name, doc, g.members.Contains(doc))
	}
	clear(s.toggled)
	for _, id := range s.retired {
		s.groups[id] = nil
		s.free = append(s.free, id)
	}
	s.retired = s.retired[:0]
}

// resolve decides all marks of a batch, and those that come of the decisions,
// until membership is stable.
func (s *standing) resolve() {
	for round := 0; len(s.marks) > 0; round++ {
		if round == maxRounds {
			s.unstable++
			s.marks = s.marks[:0]
			return
		}
		marks := s.marks
		s.marks = nil
		slices.Sort(marks)
		marks = slices.Compact(marks)
		for i := 0; i < len(marks); {
			doc := uint32(marks[i] >> 32)
			next := i + 1
			for next < len(marks) && uint32(marks[next]>>32) == doc {
				next++
			}
			s.decide(doc, marks[i:next])
			i = next
		}
		if s.marks == nil {
			s.marks = marks[:0]
		}
	}
}

// decide evaluates the marked groups of one document.
func (s *standing) decide(doc uint32, marks []uint64) {
	if !s.corpus.live.Contains(doc) {
		return
	}
	moved := false
	for _, m := range marks {
		id := uint32(m)
		g := s.groups[id]
		if g == nil || g.plan == nil {
			continue
		}
		had := g.members.Contains(doc) || g.displaced.Contains(doc)
		if fits := s.corpus.matches(g.plan, doc, &s.scratch); fits != had {
			s.setEligible(doc, id, fits)
			moved = true
		}
	}
	if moved {
		s.seat(doc)
	}
}

// setEligible records whether a document fits a group.
func (s *standing) setEligible(doc, id uint32, fits bool) {
	old, _ := s.eligible.get(doc)
	pos, found := slices.BinarySearchFunc(old, id, s.byAge)
	switch {
	case fits && !found:
		list := make([]uint32, 0, len(old)+1)
		list = append(append(append(list, old[:pos]...), id), old[pos:]...)
		s.eligible.set(doc, list)
	case !fits && found && len(old) == 1:
		s.eligible.remove(doc)
	case !fits && found:
		s.eligible.set(doc, slices.Delete(slices.Clone(old), pos, pos+1))
	}
	if !fits {
		g := s.groups[id]
		g.displaced.Remove(doc)
		if g.members.CheckedRemove(doc) {
			s.toggle(doc, id)
		}
	}
}

// byAge orders groups, eldest first.
func (s *standing) byAge(a, b uint32) int {
	ga, gb := s.groups[a], s.groups[b]
	return cmp.Or(cmp.Compare(ga.born, gb.born), strings.Compare(ga.name, gb.name))
}

// seat gives a document's places to the eldest groups it fits: what the rules
// of §3.3 come to, whatever the order of events.
func (s *standing) seat(doc uint32) {
	list, _ := s.eligible.get(doc)
	places := len(list)
	if s.limit > 0 {
		places = min(places, max(0, s.limit-s.directGroups(doc)))
	}
	for i, id := range list {
		g := s.groups[id]
		member := g.members.Contains(doc)
		switch {
		case i < places && !member:
			g.members.Add(doc)
			g.displaced.Remove(doc)
			s.toggle(doc, id)
		case i >= places:
			if member {
				g.members.Remove(doc)
				s.toggle(doc, id)
			}
			if g.displaced.CheckedAdd(doc) {
				s.refused(g.name, doc)
			}
		}
	}
	s.regroup(doc)
}

// toggle notes a change of membership; a second one cancels the first.
func (s *standing) toggle(doc, id uint32) {
	key := pair(doc, id)
	if s.toggled[key] {
		delete(s.toggled, key)
	} else {
		s.toggled[key] = true
	}
}

// memberNames calls fn for each dynamic group that a document is in.
func (s *standing) memberNames(doc uint32, fn func(name string)) {
	list, _ := s.eligible.get(doc)
	for _, id := range list {
		if g := s.groups[id]; g.members.Contains(doc) {
			fn(g.name)
		}
	}
}
