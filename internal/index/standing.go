package index

import (
	"cmp"
	"math"
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
	eligible listColumn
	// onCreate are the groups that a document without any field fits.
	onCreate []uint32
	// filling are the groups that have documents to look at, draining the dropped
	// ones among them by name.
	filling  []uint32
	draining map[string]uint32
	// completed are the groups that got their last members since they were taken.
	completed []uint32
	// marks are what to decide at the end of the batch.
	marks []mark
	// toggles are the changes of membership since the start of the batch, in
	// order. Two of one place cancel each other.
	toggles []toggled
	// reasons says why the document that is being seated came to fit or not.
	reasons []reason
	// folds counts the groups by folded name: two may have the same.
	folds map[string]int
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
	// unsettled are the groups that were found to deny each other, to be told
	// once.
	unsettled []string
	// scratch is a buffer.
	scratch values
}

// dynamicGroup is a group defined by a query.
type dynamicGroup struct {
	name string
	// folded is the name as it is indexed.
	folded string
	query  string
	// born orders groups by age.
	born int64
	// plan is nil when the stored query cannot be read.
	plan *plan
	// unstable says that it was told of a group that does not settle.
	unstable bool
	// complete says that all members under the query were told before.
	complete bool
	// todo are the documents that the query has still to be decided for; nil when
	// there are none.
	todo    *roaring.Bitmap
	members *roaring.Bitmap
	// displaced are documents that fit but have no room.
	displaced *roaring.Bitmap
}

// toggled is a change of a place.
type toggled struct {
	pair uint64
	why  cause
	// gone says that the durable form of the place ended in another way: with its
	// thing or its group.
	gone bool
}

// reason is why a document came to fit a group or not.
type reason struct {
	group uint32
	why   cause
}

// mark is a document and a group to decide, and the field that changed.
type mark struct {
	pair uint64
	at   *node
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
	mark := func(group uint32) { s.marks = append(s.marks, mark{pair(doc, group), n}) }
	flip := func(a *atoms) { a.flips(old, now, mark) }
	if n.atoms != nil {
		n.atoms.forDocument(doc, flip)
	}
	if n.unfielded && s.everywhere != nil {
		s.everywhere.forDocument(doc, flip)
	}
	if old.empty() != now.empty() {
		s.changedExistence(n, doc)
	}
	if n.lookout != nil && n.lookout.doc == doc {
		n.lookout.known = false
	}
}

// changedExistence marks the groups that ask whether there is a value at a field
// or below, when the one at n appears or goes.
func (s *standing) changedExistence(n *node, doc uint32) {
	for up := n; up != nil; up = up.parent {
		if up.atoms != nil {
			up.atoms.forDocument(doc, func(a *atoms) {
				for _, group := range a.exists {
					s.marks = append(s.marks, mark{pair(doc, group), n})
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
		s.marks = append(s.marks, mark{pair(doc, group), nil})
	}
}

// removed takes a document that is about to end out of its groups.
func (s *standing) removed(doc uint32) {
	for i := range s.toggles {
		// A place that it has just lost is durable still, and ends with the thing.
		if uint32(s.toggles[i].pair>>32) == doc {
			s.toggles[i].gone = true
		}
	}
	list, _ := s.eligible.get(doc)
	for _, id := range list {
		g := s.groups[id]
		if g.members.CheckedRemove(doc) {
			// It may come back in this batch: even so, what is durable of it ends
			// with the thing.
			s.toggles = append(s.toggles, toggled{pair(doc, id), cause{kind: CauseThing}, true})
		}
		g.displaced.Remove(doc)
	}
	s.eligible.remove(doc)
}

// define sets the query of a group, new or known, and evaluates it.
func (s *standing) define(definition Group, root fleetquery.Node) {
	name, query := definition.Name, definition.Query
	if id, dying := s.draining[name]; dying {
		s.fill(id, math.MaxInt)
	}
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
		s.folds[fleetquery.Fold(name)]++
		s.groups[id] = &dynamicGroup{
			name: name, folded: fleetquery.Fold(name), born: definition.CreatedAt.UnixNano(), members: roaring.New(), displaced: roaring.New(),
		}
	}
	g := s.groups[id]
	g.query, g.plan, g.complete = query, nil, definition.Complete
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
	s.fillAll()
	s.resolve()
	s.toggles = s.toggles[:0]
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
	return n.field.vocab.posting(id).count
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
	case opExists, opMatch, opPhrase, opWildcard, opNumbers, opTexts, opGeo:
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

// drop removes a group with its memberships.
func (s *standing) drop(name string) {
	id, ok := s.byName[name]
	if !ok {
		return
	}
	s.unregister(id)
	g := s.groups[id]
	g.plan, g.query = nil, ""
	delete(s.byName, name)
	if s.folds[g.folded]--; s.folds[g.folded] == 0 {
		delete(s.folds, g.folded)
	}
	s.draining[name] = id
	s.retired = append(s.retired, id)
	s.refill(id)
}

// settle ends a batch: it hands each change of membership to tell, those of
// dropped groups first, since another group may have the name, and frees the
// numbers of dropped groups.
func (s *standing) settle(tell func(g *dynamicGroup, doc uint32, certain bool, why cause)) {
	slices.SortStableFunc(s.toggles, func(a, b toggled) int { return cmp.Compare(a.pair, b.pair) })
	for _, dropped := range [2]bool{true, false} {
		if dropped && len(s.retired) == 0 {
			continue
		}
		for i := 0; i < len(s.toggles); {
			key, n, gone := s.toggles[i].pair, 0, false
			for ; i < len(s.toggles) && s.toggles[i].pair == key; i++ {
				n++
				gone = gone || s.toggles[i].gone
			}
			id := uint32(key)
			if dropped != slices.Contains(s.retired, id) || n%2 == 0 && !gone {
				continue
			}
			// The durable form of a dropped group's members goes with the group.
			tell(s.groups[id], uint32(key>>32), !gone && !dropped, s.toggles[i-1].why)
		}
	}
	s.toggles = s.toggles[:0]
	s.retired = slices.DeleteFunc(s.retired, func(id uint32) bool {
		if s.groups[id].todo != nil {
			return false
		}
		s.groups[id] = nil
		s.free = append(s.free, id)
		return true
	})
}

// takeCompleted returns the groups that were completed since the last call.
func (s *standing) takeCompleted() []uint32 {
	var taken []uint32
	for _, id := range s.completed {
		if g := s.groups[id]; g != nil && g.plan != nil && g.todo == nil && !g.complete {
			g.complete = true
			taken = append(taken, id)
		}
	}
	s.completed = s.completed[:0]
	return taken
}

// resolve decides all marks of a batch, and those that come of the decisions,
// until membership is stable.
func (s *standing) resolve() {
	for round := 0; len(s.marks) > 0; round++ {
		if round == maxRounds {
			s.unstable++
			for _, m := range s.marks {
				if g := s.groups[uint32(m.pair)]; g != nil && !g.unstable {
					g.unstable = true
					s.unsettled = append(s.unsettled, g.name)
				}
			}
			s.marks = s.marks[:0]
			return
		}
		marks := s.marks
		s.marks = nil
		slices.SortFunc(marks, func(a, b mark) int { return cmp.Compare(a.pair, b.pair) })
		marks = slices.CompactFunc(marks, func(a, b mark) bool { return a.pair == b.pair })
		for i := 0; i < len(marks); {
			doc := uint32(marks[i].pair >> 32)
			next := i + 1
			for next < len(marks) && uint32(marks[next].pair>>32) == doc {
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
func (s *standing) decide(doc uint32, marks []mark) {
	if !s.corpus.live.Contains(doc) {
		return
	}
	s.reasons = s.reasons[:0]
	for _, m := range marks {
		id := uint32(m.pair)
		g := s.groups[id]
		if g == nil || g.plan == nil {
			continue
		}
		list, _ := s.eligible.get(doc)
		if fits := s.corpus.matches(g.plan, doc, &s.scratch); fits != slices.Contains(list, id) {
			s.setEligible(doc, id, fits, causeOf(m.at))
		}
	}
	if len(s.reasons) > 0 {
		s.seat(doc)
	}
}

// setEligible records whether a document fits a group, which was otherwise
// before. Where places are not counted it joins or leaves at once.
func (s *standing) setEligible(doc, id uint32, fits bool, why cause) {
	list, _ := s.eligible.get(doc)
	pos, found := slices.BinarySearchFunc(list, id, s.byAge)
	switch {
	case fits && !found:
		s.eligible.insert(doc, pos, id)
	case !fits && found:
		s.eligible.delete(doc, pos)
	}
	s.reasons = append(s.reasons, reason{id, why})
	g := s.groups[id]
	switch {
	case !fits:
		g.displaced.Remove(doc)
		if g.members.CheckedRemove(doc) {
			s.toggle(doc, id, why)
		}
	case s.limit == 0 && g.members.CheckedAdd(doc):
		s.toggle(doc, id, why)
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
	if s.limit > 0 {
		s.countSeats(doc)
	}
	s.regroup(doc)
}

// countSeats decides which of the groups that a document fits have a place.
func (s *standing) countSeats(doc uint32) {
	list, _ := s.eligible.get(doc)
	places := min(len(list), max(0, s.limit-s.directGroups(doc)))
	for i, id := range list {
		g := s.groups[id]
		member := g.members.Contains(doc)
		switch {
		case i < places && !member:
			g.members.Add(doc)
			g.displaced.Remove(doc)
			s.toggle(doc, id, s.reasonFor(id))
		case i >= places:
			if member {
				g.members.Remove(doc)
				s.toggle(doc, id, cause{kind: CauseLimit})
			}
			if g.displaced.CheckedAdd(doc) {
				s.refused(g.name, doc)
			}
		}
	}
}

// reasonFor is why the document that is being seated fits a group; a place that
// came free when it is not that the document came to fit just now.
func (s *standing) reasonFor(id uint32) cause {
	for _, r := range s.reasons {
		if r.group == id {
			return r.why
		}
	}
	return cause{kind: CauseLimit}
}

// toggle notes a change of membership.
func (s *standing) toggle(doc, id uint32, why cause) {
	s.toggles = append(s.toggles, toggled{pair: pair(doc, id), why: why})
}

// members calls fn for each dynamic group that a document is in.
func (s *standing) members(doc uint32, fn func(g *dynamicGroup)) {
	list, _ := s.eligible.get(doc)
	for _, id := range list {
		if g := s.groups[id]; s.limit == 0 || g.members.Contains(doc) {
			fn(g)
		}
	}
}
