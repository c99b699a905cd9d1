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

// Compare reports where x differs from want, which was built from the store,
// and how many documents it looked at. Both are read under their locks; x may
// have gone on since want was built, so a difference counts only when it stays
// across several comparisons.
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
		have, expected := x.contents(account), want.contents(account)
		for i, name := range []string{"AWS_Things", "AWS_ThingGroups"} {
			documents += len(expected[i])
			compareDocuments(have[i], expected[i], func(d Difference) {
				d.Account, d.Index = account, name
				report(d)
			})
		}
	}
	return documents
}

// contents are the documents of an account: things, then groups.
type contents [2]map[string]map[string]string

// contents reads an account.
func (x *Index) contents(account fleet.Account) contents {
	x.mu.Lock()
	s := x.shards[account]
	x.mu.Unlock()
	if s == nil {
		return contents{}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return contents{s.things.contents(), s.groups.contents()}
}

// contents renders every value of every document.
func (c *corpus) contents() map[string]map[string]string {
	all := make(map[string]map[string]string, c.live.GetCardinality())
	for it := c.live.Iterator(); it.HasNext(); {
		all[c.names.text(it.Next())] = map[string]string{}
	}
	var v values
	for path, n := range c.nodes {
		if n.field == nil {
			continue
		}
		for it := n.field.exists.Iterator(); it.HasNext(); {
			doc := it.Next()
			v.texts, v.numbers = v.texts[:0], v.numbers[:0]
			n.field.appendTo(doc, &v)
			slices.Sort(v.texts)
			slices.Sort(v.numbers)
			document, ok := all[c.names.text(doc)]
			if !ok {
				document = map[string]string{}
				all[c.names.text(doc)] = document
			}
			document[path] = fmt.Sprintf("%q %v", v.texts, v.numbers)
		}
	}
	return all
}

func compareDocuments(have, want map[string]map[string]string, report func(Difference)) {
	for _, name := range keysOf(have, want) {
		h, inHave := have[name]
		w, inWant := want[name]
		if inHave != inWant {
			report(Difference{Document: name, Have: presence(inHave), Want: presence(inWant)})
			continue
		}
		for _, path := range keysOf(h, w) {
			if h[path] != w[path] {
				report(Difference{Document: name, Path: path, Have: h[path], Want: w[path]})
			}
		}
	}
}

func presence(there bool) string {
	if there {
		return "present"
	}
	return "absent"
}

// keysOf returns the keys of both maps in order.
func keysOf[V any](a, b map[string]V) []string {
	keys := maps.Clone(a)
	if keys == nil {
		keys = map[string]V{}
	}
	maps.Copy(keys, b)
	return slices.Sorted(maps.Keys(keys))
}
