package index

import (
	"slices"

	"github.com/muster-iot/muster/internal/fleetquery"
)

// plan is a query made ready for one corpus: names are resolved to nodes.
type plan struct {
	op   opcode
	kids []*plan
	// at is the node of a test; nil for a path that no document ever had.
	at *node
	// everywhere marks a test without a field.
	everywhere bool
	match      fleetquery.Match
	phrase     []string
	pattern    fleetquery.Pattern
	numbers    fleetquery.NumberRange
	texts      fleetquery.TextRange
	// label is the test in words, once somebody asked for it.
	label string
	// geo is the field that an area is looked for in; nil for one without places.
	geo  *geoField
	area fleetquery.Area
}

// opcode is the kind of a plan.
type opcode uint8

// Opcodes, one for each node of the language.
const (
	opAnd opcode = iota
	opOr
	opNot
	opAll
	opExists
	opMatch
	opPhrase
	opWildcard
	opNumbers
	opTexts
	opGeo
)

// compile prepares a query. With create, missing nodes are made, as a
// standing query must see their first value.
func (c *corpus) compile(n fleetquery.Node, create bool) *plan {
	if c.derive != nil {
		n = c.derive(n)
	}
	var p *plan
	var field string
	switch n := n.(type) {
	case fleetquery.And:
		return &plan{op: opAnd, kids: c.compileAll(n.Nodes, create)}
	case fleetquery.Or:
		return &plan{op: opOr, kids: c.compileAll(n.Nodes, create)}
	case fleetquery.Not:
		return &plan{op: opNot, kids: []*plan{c.compile(n.Node, create)}}
	case fleetquery.All:
		return &plan{op: opAll}
	case fleetquery.Exists:
		p, field = &plan{op: opExists}, n.Field
	case fleetquery.Match:
		p, field = &plan{op: opMatch, match: n}, n.Field
	case fleetquery.Phrase:
		p, field = &plan{op: opPhrase, phrase: n.Words}, n.Field
	case fleetquery.Wildcard:
		p, field = &plan{op: opWildcard, pattern: n.Pattern}, n.Field
	case fleetquery.NumberRange:
		p, field = &plan{op: opNumbers, numbers: n}, n.Field
	case fleetquery.TextRange:
		p, field = &plan{op: opTexts, texts: n}, n.Field
	case fleetquery.Geo:
		p, field = &plan{op: opGeo, geo: c.geo[n.Field], area: n.Area}, n.Field
	}
	switch {
	case field == "":
		p.everywhere = true
	case create:
		p.at = c.node(field, true)
	default:
		p.at = c.nodes[field]
	}
	return p
}

// compileAll prepares the parts of a conjunction or alternative.
func (c *corpus) compileAll(nodes []fleetquery.Node, create bool) []*plan {
	plans := make([]*plan, len(nodes))
	for i, n := range nodes {
		plans[i] = c.compile(n, create)
	}
	return plans
}

// leaves visits the tests of a plan.
func (p *plan) leaves(visit func(*plan)) {
	switch p.op {
	case opAnd, opOr, opNot:
		for _, kid := range p.kids {
			kid.leaves(visit)
		}
	default:
		visit(p)
	}
}

// holdsFor decides one test, other than existence, on the values of one field.
func (p *plan) holdsFor(v values) bool {
	switch p.op {
	case opMatch:
		if p.match.IsNumber && slices.Contains(v.numbers, p.match.Number) {
			return true
		}
		return anyWord(v.texts, func(word string) bool { return word == p.match.Word })
	case opPhrase:
		for _, text := range v.texts {
			if fleetquery.HasPhrase(fleetquery.Words(text), p.phrase) {
				return true
			}
		}
	case opWildcard:
		return anyWord(v.texts, p.pattern.Match)
	case opTexts:
		return anyWord(v.texts, p.texts.Contains)
	case opNumbers:
		return slices.ContainsFunc(v.numbers, p.numbers.Contains)
	case opAnd, opOr, opNot, opAll, opExists, opGeo:
	}
	return false
}

// anyWord reports whether a word of one of the folded texts passes the test.
func anyWord(texts []string, test func(string) bool) bool {
	for _, text := range texts {
		if isWord(text) {
			if test(text) {
				return true
			}
			continue
		}
		if slices.ContainsFunc(fleetquery.Words(text), test) {
			return true
		}
	}
	return false
}

// matches decides a plan for one document. scratch is overwritten.
func (c *corpus) matches(p *plan, doc uint32, scratch *values) bool {
	switch p.op {
	case opAnd:
		for _, kid := range p.kids {
			if !c.matches(kid, doc, scratch) {
				return false
			}
		}
		return true
	case opOr:
		for _, kid := range p.kids {
			if c.matches(kid, doc, scratch) {
				return true
			}
		}
		return false
	case opNot:
		return !c.matches(p.kids[0], doc, scratch)
	case opAll:
		return true
	case opExists:
		return p.at != nil && p.at.has(doc)
	case opGeo:
		return p.geo != nil && p.geo.holds(p.area, doc)
	case opMatch, opPhrase, opWildcard, opNumbers, opTexts:
	}
	if !p.everywhere {
		return p.at != nil && p.at.passes(p, doc, scratch)
	}
	for _, n := range c.open {
		if n.mayPass(p) && n.passes(p, doc, scratch) {
			return true
		}
	}
	return false
}

// has reports whether the document has a value here or below.
func (n *node) has(doc uint32) bool {
	if !n.hidden && n.field != nil && n.field.exists.Contains(doc) {
		return true
	}
	for _, kid := range n.kids {
		if kid.has(doc) {
			return true
		}
	}
	return false
}

// mayPass reports whether any document has a value of the kind that a test
// looks at.
func (n *node) mayPass(p *plan) bool {
	f := n.field
	numeric := p.op == opNumbers || (p.op == opMatch && p.match.IsNumber)
	return (numeric && f.numbers.count+f.lists.count > 0) || (p.op != opNumbers && f.vocab.len() > 0)
}

// passes decides a test on the node's own values.
func (n *node) passes(p *plan, doc uint32, scratch *values) bool {
	if n.hidden || n.field == nil {
		return false
	}
	if p.op == opNumbers {
		if v, ok := n.field.numbers.get(doc); ok {
			return p.numbers.Contains(v)
		}
		if n.field.lists.count == 0 {
			return false
		}
	}
	if p.op == opMatch && !p.match.IsNumber {
		if id, ok := n.field.texts.get(doc); ok {
			// A text that has the word among others is longer.
			if text := n.field.vocab.text(id); len(text) <= len(p.match.Word) {
				return text == p.match.Word
			}
		}
	}
	scratch.texts, scratch.numbers = scratch.texts[:0], scratch.numbers[:0]
	n.field.appendTo(doc, scratch)
	return p.holdsFor(*scratch)
}
