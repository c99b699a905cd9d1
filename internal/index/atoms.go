package index

import (
	"cmp"
	"maps"
	"slices"

	"github.com/muster-iot/muster/internal/fleetquery"
)

// atoms are the tests of standing queries on one path, arranged so that a
// change of a value finds the tests whose answer it may flip without looking
// at the others: numeric bounds by the interval between old and new value,
// words by hash, patterns by their literal prefix.
type atoms struct {
	// cuts are the ends of all numeric intervals in order.
	cuts []cut
	// numeric are all tests on numbers, for values that appear or vanish.
	numeric []*atom
	words   map[string][]*atom
	// prefixes holds patterns by literal prefix, whose lengths are in lengths.
	prefixes map[string][]*atom
	lengths  map[int]int
	// ranges are tests of text between bounds; they are rare and all tried.
	ranges []*atom
	// exists are the groups that ask for a value here or below.
	exists []uint32
	// geo are the tests on places.
	geo geoAtoms
	// guarded holds, per guard path and word, the tests that matter only to
	// documents with that word there.
	guarded []guard
}

// guard groups tests by the words of another path: most queries are narrowed
// by a site, a type or a group, and what else they ask for can only matter to
// the documents which have that.
type guard struct {
	at     *node
	byWord map[string]*atoms
}

// atom is one test of one group.
type atom struct {
	group uint32
	test  *plan
}

// cut is the place on the number line where an atom's answer changes: just
// before the value, or just after it.
type cut struct {
	value float64
	after bool
	atom  *atom
}

// compareCuts orders cuts by place.
func compareCuts(a, b cut) int {
	if c := cmp.Compare(a.value, b.value); c != 0 {
		return c
	}
	switch {
	case a.after == b.after:
		return 0
	case b.after:
		return -1
	}
	return 1
}

// under returns the place for tests that a guard narrows.
func (a *atoms) under(guardPlan *plan) *atoms {
	if guardPlan == nil {
		return a
	}
	i := slices.IndexFunc(a.guarded, func(g guard) bool { return g.at == guardPlan.at })
	if i < 0 {
		i = len(a.guarded)
		a.guarded = append(a.guarded, guard{at: guardPlan.at, byWord: map[string]*atoms{}})
	}
	word := guardPlan.match.Word
	if a.guarded[i].byWord[word] == nil {
		a.guarded[i].byWord[word] = &atoms{}
	}
	return a.guarded[i].byWord[word]
}

// forDocument visits the tests that can matter to a document.
func (a *atoms) forDocument(doc uint32, visit func(*atoms)) {
	visit(a)
	for i := range a.guarded {
		g := &a.guarded[i]
		if g.at.field == nil {
			continue
		}
		for _, text := range g.at.guarding(doc) {
			if isWord(text) {
				if narrowed := g.byWord[text]; narrowed != nil {
					visit(narrowed)
				}
				continue
			}
			for _, word := range fleetquery.Words(text) {
				if narrowed := g.byWord[word]; narrowed != nil {
					visit(narrowed)
				}
			}
		}
	}
}

// lookout remembers the texts of the document that a guard was last asked about:
// one update changes several fields of one document.
type lookout struct {
	doc   uint32
	known bool
	seen  values
}

// guarding returns the texts of a document at a guard.
func (n *node) guarding(doc uint32) []string {
	if n.lookout == nil {
		n.lookout = &lookout{}
	}
	l := n.lookout
	if !l.known || l.doc != doc {
		l.seen.texts, l.seen.numbers = l.seen.texts[:0], l.seen.numbers[:0]
		n.field.appendTo(doc, &l.seen)
		l.doc, l.known = doc, true
	}
	return l.seen.texts
}

// add registers a test.
func (a *atoms) add(group uint32, p *plan) {
	at := &atom{group: group, test: p}
	switch p.op {
	case opExists:
		a.exists = append(a.exists, group)
	case opMatch:
		a.addWord(p.match.Word, at)
		if p.match.IsNumber {
			a.addNumeric(at,
				cut{value: p.match.Number, atom: at},
				cut{value: p.match.Number, after: true, atom: at})
		}
	case opPhrase:
		a.addWord(p.phrase[0], at)
	case opWildcard:
		prefix := p.pattern.Prefix()
		if a.prefixes == nil {
			a.prefixes, a.lengths = map[string][]*atom{}, map[int]int{}
		}
		a.prefixes[prefix] = append(a.prefixes[prefix], at)
		a.lengths[len(prefix)]++
	case opTexts:
		a.ranges = append(a.ranges, at)
	case opNumbers:
		var cuts []cut
		if low := p.numbers.Low; !low.Open {
			cuts = append(cuts, cut{value: low.Value, after: !low.Inclusive, atom: at})
		}
		if high := p.numbers.High; !high.Open {
			cuts = append(cuts, cut{value: high.Value, after: high.Inclusive, atom: at})
		}
		a.addNumeric(at, cuts...)
	case opGeo:
		a.geo.add(at)
	case opAnd, opOr, opNot, opAll:
	}
}

// addWord registers a test under a word that must be there for it to hold.
func (a *atoms) addWord(word string, at *atom) {
	if a.words == nil {
		a.words = map[string][]*atom{}
	}
	a.words[word] = append(a.words[word], at)
}

// addNumeric registers a test under the ends of its interval.
func (a *atoms) addNumeric(at *atom, cuts ...cut) {
	a.numeric = append(a.numeric, at)
	for _, c := range cuts {
		pos, _ := slices.BinarySearchFunc(a.cuts, c, compareCuts)
		a.cuts = slices.Insert(a.cuts, pos, c)
	}
}

// remove forgets all tests of a group and reports whether any are left.
func (a *atoms) remove(group uint32) bool {
	of := func(at *atom) bool { return at.group == group }
	a.cuts = slices.DeleteFunc(a.cuts, func(c cut) bool { return of(c.atom) })
	a.numeric = slices.DeleteFunc(a.numeric, of)
	a.ranges = slices.DeleteFunc(a.ranges, of)
	a.exists = slices.DeleteFunc(a.exists, func(g uint32) bool { return g == group })
	for word, list := range a.words {
		if list = slices.DeleteFunc(list, of); len(list) == 0 {
			delete(a.words, word)
		} else {
			a.words[word] = list
		}
	}
	for prefix, list := range a.prefixes {
		kept := slices.DeleteFunc(list, of)
		if a.lengths[len(prefix)] -= len(list) - len(kept); a.lengths[len(prefix)] == 0 {
			delete(a.lengths, len(prefix))
		}
		if len(kept) == 0 {
			delete(a.prefixes, prefix)
		} else {
			a.prefixes[prefix] = kept
		}
	}
	a.geo.remove(group)
	a.guarded = slices.DeleteFunc(a.guarded, func(g guard) bool {
		maps.DeleteFunc(g.byWord, func(_ string, narrowed *atoms) bool { return !narrowed.remove(group) })
		return len(g.byWord) == 0
	})
	return len(a.numeric)+len(a.ranges)+len(a.exists)+len(a.words)+len(a.prefixes)+len(a.guarded)+len(a.geo.byCell) > 0
}

// flips calls mark for each group with a test whose answer differs between
// the old and the new values of one field. A group may be marked twice.
func (a *atoms) flips(old, now values, mark func(group uint32)) {
	try := func(list []*atom) {
		for _, at := range list {
			if at.test.holdsFor(old) != at.test.holdsFor(now) {
				mark(at.group)
			}
		}
	}
	a.numericFlips(old, now, try)
	if slices.Equal(old.texts, now.texts) {
		return
	}
	try(a.ranges)
	gone, come := differing(old.texts, now.texts)
	for _, texts := range [2][]string{gone, come} {
		anyWord(texts, func(word string) bool {
			try(a.words[word])
			for n := range a.lengths {
				if n <= len(word) {
					try(a.prefixes[word[:n]])
				}
			}
			return false
		})
	}
}

// differing returns what is left of two lists without what they begin and end
// with alike. What a text in both passes, it passes before and after: no answer
// flips by it.
func differing(old, now []string) (gone, come []string) {
	for len(old) > 0 && len(now) > 0 && old[0] == now[0] {
		old, now = old[1:], now[1:]
	}
	for len(old) > 0 && len(now) > 0 && old[len(old)-1] == now[len(now)-1] {
		old, now = old[:len(old)-1], now[:len(now)-1]
	}
	return old, now
}

// numericFlips tries the tests whose interval ends between old and new.
func (a *atoms) numericFlips(old, now values, try func([]*atom)) {
	if len(a.numeric) == 0 || slices.Equal(old.numbers, now.numbers) {
		return
	}
	if len(old.numbers) != 1 || len(now.numbers) != 1 {
		try(a.numeric)
		return
	}
	low, high := min(old.numbers[0], now.numbers[0]), max(old.numbers[0], now.numbers[0])
	from, _ := slices.BinarySearchFunc(a.cuts, cut{value: low, after: true}, compareCuts)
	for _, c := range a.cuts[from:] {
		if c.value > high || (c.value == high && c.after) {
			return
		}
		try([]*atom{c.atom})
	}
}
