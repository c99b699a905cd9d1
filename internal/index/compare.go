package index

import (
	"fmt"
	"maps"
	"slices"

	"github.com/muster-iot/muster/internal/fleet"
)

// Difference is a value in which two indexes disagree.
type Difference struct {
	Account fleet.Account
	// Index is AWS_Things or AWS_ThingGroups.
	Index string
	// Document is a thing or a group, Path one of its fields.
	Document, Path string
	// Have and Want are the values, in a form for people.
	Have, Want string
}

// comparePage is how many documents are compared under one hold of the locks.
const comparePage = 1000

// Compare reports where x differs from want, which was built from the store,
// and how many documents it looked at. Both are read under their locks, some
// documents at a time; x may have gone on since want was built, so a difference
// counts only when it stays across several comparisons.
func (x *Index) Compare(want *Index, report func(Difference)) (documents int) {
	accounts := map[fleet.Account]bool{}
	for _, side := range []*Index{x, want} {
		side.mu.Lock()
		for account := range side.shards {
			accounts[account] = true
		}
		side.mu.Unlock()
	}
	for _, account := range slices.Sorted(maps.Keys(accounts)) {
		for _, c := range []comparison{
			{name: "AWS_Things", of: func(s *shard) *corpus { return s.things }},
			{name: "AWS_ThingGroups", of: func(s *shard) *corpus { return s.groups }},
		} {
			c.have, c.want = x.held(account), want.held(account)
			c.report = func(d Difference) {
				d.Account, d.Index = account, c.name
				report(d)
			}
			for more := true; more; {
				more = c.page()
			}
			documents += c.documents
		}
	}
	return documents
}

// held returns the shard of an account, an empty one for an account without.
func (x *Index) held(account fleet.Account) *shard {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s := x.shards[account]; s != nil {
		return s
	}
	return newShard(x.options, func(string, string) {})
}

// comparison walks one corpus of two shards in the order of names.
type comparison struct {
	name       string
	of         func(*shard) *corpus
	have, want *shard
	report     func(Difference)
	after      string
	documents  int
}

// page compares the next documents and reports whether there are more.
func (c *comparison) page() bool {
	c.have.mu.RLock()
	defer c.have.mu.RUnlock()
	c.want.mu.RLock()
	defer c.want.mu.RUnlock()
	have, want := c.of(c.have), c.of(c.want)
	there, more := have.page(have.live, c.after, comparePage)
	wanted, moreWanted := want.page(want.live, c.after, comparePage)
	names := slices.Concat(there, wanted)
	slices.Sort(names)
	names = slices.Compact(names)
	// What lies behind the end of a full page belongs to the next one.
	for _, side := range []struct {
		more bool
		page []string
	}{{more, there}, {moreWanted, wanted}} {
		if side.more {
			last, _ := slices.BinarySearch(names, side.page[len(side.page)-1])
			names = names[:last+1]
		}
	}
	twins := twinsOf(have, want)
	for _, name := range names {
		c.compare(name, have, want, twins)
	}
	if len(names) > 0 {
		c.after = names[len(names)-1]
	}
	return more || moreWanted
}

// twin are the nodes of one path on both sides; nil where it has no values.
type twin struct {
	path       string
	have, want *node
}

// twinsOf returns all paths that have values, in order.
func twinsOf(have, want *corpus) []twin {
	byPath := map[string]*twin{}
	at := func(n *node) *twin {
		p := byPath[n.path]
		if p == nil {
			p = &twin{path: n.path}
			byPath[n.path] = p
		}
		return p
	}
	for _, n := range have.nodes {
		if n.field != nil {
			at(n).have = n
		}
	}
	for _, n := range want.nodes {
		if n.field != nil {
			at(n).want = n
		}
	}
	twins := make([]twin, 0, len(byPath))
	for _, path := range slices.Sorted(maps.Keys(byPath)) {
		twins = append(twins, *byPath[path])
	}
	return twins
}

// compare compares one document.
func (c *comparison) compare(name string, have, want *corpus, twins []twin) {
	doc, inHave := have.doc(name)
	wanted, inWant := want.doc(name)
	if inWant {
		c.documents++
	}
	if inHave != inWant {
		c.report(Difference{Document: name, Have: presence(inHave), Want: presence(inWant)})
		return
	}
	var h, w values
	for _, p := range twins {
		p.have.valuesOf(doc, &h)
		p.want.valuesOf(wanted, &w)
		if !same(h, w) {
			c.report(Difference{Document: name, Path: p.path, Have: h.String(), Want: w.String()})
		}
	}
}

// valuesOf replaces v by the values of a document, sorted.
func (n *node) valuesOf(doc uint32, v *values) {
	v.texts, v.numbers = v.texts[:0], v.numbers[:0]
	if n == nil || n.field == nil || !n.field.exists.Contains(doc) {
		return
	}
	n.field.appendTo(doc, v)
	slices.Sort(v.texts)
	slices.Sort(v.numbers)
}

// String renders values for people.
func (v values) String() string {
	if v.empty() {
		return "nothing"
	}
	return fmt.Sprintf("%q %v", v.texts, v.numbers)
}

func presence(there bool) string {
	if there {
		return "present"
	}
	return "absent"
}
