package index

import (
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/muster-iot/muster/internal/fleetquery"
)

// Weights of the two ways to apply a test, relative to one step of a scan.
const (
	// probeCost is the cost of testing one candidate document.
	probeCost = 8
	// setCost is the cost of a ready set, whatever its size.
	setCost = 16
)

// evaluate returns the documents that match. The set may be one of the
// index's own and must not be changed.
func (c *corpus) evaluate(p *plan) *roaring.Bitmap {
	switch p.op {
	case opAnd:
		return c.conjunction(p.kids)
	case opOr:
		sets := make([]*roaring.Bitmap, len(p.kids))
		for i, kid := range p.kids {
			sets[i] = c.evaluate(kid)
		}
		return roaring.FastOr(sets...)
	case opNot:
		return roaring.AndNot(c.live, c.evaluate(p.kids[0]))
	case opAll:
		return c.live
	case opExists:
		return p.at.existing()
	case opGeo:
		if p.geo == nil {
			return roaring.New()
		}
		return p.geo.search(p.area)
	case opMatch, opPhrase, opWildcard, opNumbers, opTexts:
	}
	if !p.everywhere {
		if p.at == nil || p.at.field == nil || p.at.hidden {
			return roaring.New()
		}
		return p.at.field.matchingDocs(p)
	}
	var sets []*roaring.Bitmap
	for _, n := range c.open {
		if n.mayPass(p) {
			sets = append(sets, n.field.matchingDocs(p))
		}
	}
	return roaring.FastOr(sets...)
}

// conjunction intersects, cheapest part first; once few candidates are left,
// dear parts are decided candidate by candidate.
func (c *corpus) conjunction(kids []*plan) *roaring.Bitmap {
	type part struct {
		plan *plan
		cost int
	}
	parts := make([]part, len(kids))
	for i, kid := range kids {
		parts[i] = part{plan: kid, cost: c.cost(kid)}
	}
	slices.SortStableFunc(parts, func(a, b part) int { return a.cost - b.cost })
	var found *roaring.Bitmap
	var scratch values
	for _, part := range parts {
		switch {
		case found == nil:
			found = c.evaluate(part.plan)
		case int(found.GetCardinality())*probeCost < part.cost:
			kept := roaring.New()
			for it := found.Iterator(); it.HasNext(); {
				if doc := it.Next(); c.matches(part.plan, doc, &scratch) {
					kept.Add(doc)
				}
			}
			found = kept
		case part.plan.op == opNot:
			found = roaring.AndNot(found, c.evaluate(part.plan.kids[0]))
		default:
			found = roaring.And(found, c.evaluate(part.plan))
		}
		if found.IsEmpty() {
			return found
		}
	}
	return found
}

// cost estimates the work of evaluate in steps of a scan.
func (c *corpus) cost(p *plan) int {
	switch p.op {
	case opAnd:
		least := 0
		for i, kid := range p.kids {
			if n := c.cost(kid); i == 0 || n < least {
				least = n
			}
		}
		return least + setCost
	case opOr, opNot:
		sum := setCost
		for _, kid := range p.kids {
			sum += c.cost(kid)
		}
		return sum
	case opAll, opExists:
		return setCost
	case opGeo:
		if p.geo == nil {
			return setCost
		}
		return setCost + p.geo.cells.count/16
	case opMatch, opPhrase, opWildcard, opNumbers, opTexts:
	}
	if !p.everywhere {
		return p.at.cost(p)
	}
	sum := setCost
	for _, n := range c.open {
		sum += n.cost(p)
	}
	// A probe looks at every field too, so the two compare per field.
	return sum / max(len(c.open), 1)
}

// cost estimates the work of matchingDocs on this node.
func (n *node) cost(p *plan) int {
	if n == nil || n.field == nil {
		return setCost
	}
	f := n.field
	numbers := f.numbers.count + 4*f.lists.count
	switch p.op {
	case opMatch:
		if p.match.IsNumber {
			return setCost + numbers
		}
		return setCost
	case opNumbers:
		return setCost + numbers
	case opWildcard:
		if p.pattern.Prefix() != "" {
			return setCost + f.vocab.len()/4
		}
		return setCost + 4*f.vocab.len()
	case opTexts:
		return setCost + f.vocab.len()
	case opPhrase, opAnd, opOr, opNot, opAll, opExists, opGeo:
	}
	return setCost
}

// existing returns the documents with a value here or below.
func (n *node) existing() *roaring.Bitmap {
	if n == nil {
		return roaring.New()
	}
	var sets []*roaring.Bitmap
	var collect func(n *node)
	collect = func(n *node) {
		if n.field != nil && !n.hidden {
			sets = append(sets, n.field.exists)
		}
		for _, kid := range n.kids {
			collect(kid)
		}
	}
	collect(n)
	if len(sets) == 1 {
		return sets[0]
	}
	return roaring.FastOr(sets...)
}

// matchingDocs returns the documents of one field that pass a test.
func (f *field) matchingDocs(p *plan) *roaring.Bitmap {
	switch p.op {
	case opMatch:
		return f.matching(p.match)
	case opPhrase:
		return f.withPhrase(p.phrase)
	case opWildcard:
		prefix := p.pattern.Prefix()
		within := func(word string) bool { return strings.HasPrefix(word, prefix) }
		test := p.pattern.Match
		if p.pattern.PrefixOnly() {
			test = nil
		}
		return f.withWords(prefix, within, test)
	case opTexts:
		low := ""
		if !p.texts.Low.Open {
			low = p.texts.Low.Value
		}
		high := fleetquery.TextRange{Low: fleetquery.TextBound{Open: true}, High: p.texts.High}
		return f.withWords(low, high.Contains, p.texts.Contains)
	case opNumbers:
		var u union
		f.numbersIn(p.numbers, &u)
		return u.result()
	case opAnd, opOr, opNot, opAll, opExists, opGeo:
	}
	return roaring.New()
}

// matching returns the documents with a word or number.
func (f *field) matching(m fleetquery.Match) *roaring.Bitmap {
	var u union
	if id, ok := f.vocab.find(m.Word); ok {
		u.addPosting(f.vocab.posting(id))
	}
	if f.words != nil {
		if id, ok := f.words.find(m.Word); ok {
			f.words.each(id, func(text uint32) { u.addPosting(f.vocab.posting(text)) })
		}
	}
	if m.IsNumber {
		at := fleetquery.NumberBound{Value: m.Number, Inclusive: true}
		f.numbersIn(fleetquery.NumberRange{Low: at, High: at}, &u)
	}
	return u.result()
}

// withPhrase returns the documents with a text that has the words in a row:
// the texts that have the first word are looked at one by one.
func (f *field) withPhrase(phrase []string) *roaring.Bitmap {
	var u union
	if f.words != nil {
		if id, ok := f.words.find(phrase[0]); ok {
			f.words.each(id, func(text uint32) {
				if fleetquery.HasPhrase(fleetquery.Words(f.vocab.text(text)), phrase) {
					u.addPosting(f.vocab.posting(text))
				}
			})
		}
	}
	return u.result()
}

// withWords returns the documents with a word that is at least low, within
// the run, and passes the test if there is one.
func (f *field) withWords(low string, within, test func(string) bool) *roaring.Bitmap {
	var u union
	f.vocab.ascend(low, within, func(id uint32, text string) {
		if text == "" || (test != nil && !test(text)) || (f.compound != nil && f.compound.Contains(id)) {
			return
		}
		u.addPosting(f.vocab.posting(id))
	})
	if f.words != nil {
		f.words.ascend(low, within, func(id uint32, word string) {
			if test == nil || test(word) {
				f.words.each(id, func(text uint32) { u.addPosting(f.vocab.posting(text)) })
			}
		})
	}
	return u.result()
}

// numbersIn collects the documents with a number in the range.
func (f *field) numbersIn(r fleetquery.NumberRange, u *union) {
	f.numbers.within(r, u.addDoc)
	if f.lists.count > 0 {
		f.lists.each(func(doc uint32, list []float64) {
			if slices.ContainsFunc(list, r.Contains) {
				u.addDoc(doc)
			}
		})
	}
}
