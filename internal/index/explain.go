package index

import (
	"slices"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// text renders a test in the query language.
func (p *plan) text() string {
	field := ""
	if p.at != nil {
		field = p.at.path + ":"
	}
	switch p.op {
	case opAll:
		return "*"
	case opExists:
		return field + "*"
	case opGeo:
		return field + areaText(p.area)
	case opMatch:
		return field + p.match.Word
	case opPhrase:
		return field + `"` + strings.Join(p.phrase, " ") + `"`
	case opWildcard:
		return field + p.pattern.String()
	case opNumbers:
		n := p.numbers
		return rangeText(strings.TrimSuffix(field, ":"),
			end{n.Low.Open, n.Low.Inclusive, formatNumber(n.Low.Value)}, end{n.High.Open, n.High.Inclusive, formatNumber(n.High.Value)})
	case opTexts:
		t := p.texts
		return rangeText(strings.TrimSuffix(field, ":"),
			end{t.Low.Open, t.Low.Inclusive, t.Low.Value}, end{t.High.Open, t.High.Inclusive, t.High.Value})
	case opAnd, opOr, opNot:
	}
	return ""
}

// end is one end of a range in words.
type end struct {
	open, inclusive bool
	text            string
}

// rangeText renders a range: a comparison where one end is open and there is a
// field to compare.
func rangeText(field string, low, high end) string {
	equal := func(inclusive bool) string {
		if inclusive {
			return "="
		}
		return ""
	}
	switch {
	case field != "" && low.open && !high.open:
		return field + "<" + equal(high.inclusive) + high.text
	case field != "" && high.open && !low.open:
		return field + ">" + equal(low.inclusive) + low.text
	}
	left, right := "{", "}"
	if low.inclusive {
		left = "["
	}
	if high.inclusive {
		right = "]"
	}
	if low.open {
		left, low.text = "[", "*"
	}
	if high.open {
		right, high.text = "]", "*"
	}
	text := left + low.text + " TO " + high.text + right
	if field != "" {
		text = field + ":" + text
	}
	return text
}

// Kinds of the parts of a query.
const (
	PartAnd  = "AND"
	PartOr   = "OR"
	PartNot  = "NOT"
	PartTest = "TEST"
)

const (
	// maxShownFields bounds the fields that a part without one shows.
	maxShownFields = 10
	// maxShownText bounds the values of a field, in bytes.
	maxShownText = 1024
)

// Explanation tells why a thing is in a dynamic group or not, as the index has
// both at the moment.
type Explanation struct {
	Query  string
	Status Status
	// Known says that the thing is in the index.
	Known bool
	// Fits says that the thing meets the query, Member that it is in the group.
	Fits, Member bool
	// Limit is the number of groups that a thing may be in, 0 for any number. A
	// thing that fits and is no member has no room: Static and Elder are the
	// groups that have its places, Elder those with the older definitions.
	Limit         int
	Static, Elder []string
	// Query's parts; nil when the stored query cannot be read.
	Root *Part
}

// Part is a part of a query, decided for one thing.
type Part struct {
	Kind  string
	Parts []*Part
	// Text is the part in words, Field what it looks at, empty for every field;
	// for PartTest.
	Text, Field string
	Holds       bool
	// Values are what it looks at: the field, fields below it, or those of all
	// fields that it holds for.
	Values []FieldValue
	// Change says that the thing would be on the other side of the query if this
	// part and all others of the kind were the opposite: the fewest that are
	// enough.
	Change bool
}

// FieldValue is what a thing has at a field.
type FieldValue struct {
	Field string
	// Values are as they are indexed: folded words, numbers.
	Values []string
	// Since is when the value came to be there, as the shadow's metadata or the
	// connection tell; zero where the index does not know.
	Since time.Time
}

// Explain decides a dynamic group's query for a thing, part by part. False says
// that the index has no such group.
func (x *Index) Explain(account fleet.Account, group, thing string) (Explanation, bool, error) {
	s, err := x.shard(account)
	if err != nil {
		return Explanation{}, false, err
	}
	if s == nil {
		return Explanation{}, false, nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	id, ok := s.standing.byName[group]
	if !ok {
		return Explanation{}, false, nil
	}
	g := s.standing.groups[id]
	out := Explanation{Query: g.query, Status: Active, Limit: s.standing.limit}
	switch {
	case g.plan == nil:
		out.Status = Building
	case g.todo != nil || x.Status() == Rebuilding:
		out.Status = Rebuilding
	}
	doc, known := s.things.doc(thing)
	if out.Known = known; !known || g.plan == nil {
		return out, true, nil
	}
	var scratch values
	out.Root = s.things.explain(g.plan, doc, &scratch)
	out.Fits, out.Member = out.Root.Holds, g.members.Contains(doc)
	for _, part := range out.Root.flip(!out.Fits) {
		part.Change = true
	}
	if out.Limit > 0 {
		direct, _ := s.direct.get(doc)
		for _, at := range direct {
			out.Static = append(out.Static, strings.Clone(s.groupNames.text(at)))
		}
		s.standing.members(doc, func(other *dynamicGroup) {
			if other != g {
				out.Elder = append(out.Elder, other.name)
			}
		})
	}
	return out, true, nil
}

// explain decides a plan for one document, part by part.
func (c *corpus) explain(p *plan, doc uint32, scratch *values) *Part {
	kinds := map[opcode]string{opAnd: PartAnd, opOr: PartOr, opNot: PartNot}
	out := &Part{Kind: PartTest, Holds: c.matches(p, doc, scratch)}
	if kind, inner := kinds[p.op]; inner {
		out.Kind = kind
		for _, kid := range p.kids {
			out.Parts = append(out.Parts, c.explain(kid, doc, scratch))
		}
		return out
	}
	out.Text = p.text()
	show := func(n *node) {
		if len(out.Values) < maxShownFields {
			if texts := n.texts(doc, maxShownText); len(texts) > 0 {
				out.Values = append(out.Values, FieldValue{Field: n.path, Values: texts, Since: c.since(n, doc)})
			}
		}
	}
	switch {
	case p.everywhere:
		for _, n := range c.open {
			if n.mayPass(p) && n.passes(p, doc, scratch) {
				show(n)
			}
		}
	case p.at != nil:
		out.Field = p.at.path
		show(p.at)
		if p.op == opExists || p.op == opGeo {
			p.at.below(show)
		}
	}
	slices.SortFunc(out.Values, func(a, b FieldValue) int { return strings.Compare(a.Field, b.Field) })
	return out
}

// below visits all nodes under a node that can be searched.
func (n *node) below(visit func(*node)) {
	for _, kid := range n.kids {
		if !kid.hidden {
			visit(kid)
		}
		kid.below(visit)
	}
}

// since is when the value at a node came to be there: the shadow's metadata say
// so in seconds, the connection in milliseconds.
func (c *corpus) since(n *node, doc uint32) time.Time {
	if strings.HasPrefix(n.path, "connectivity.") {
		if ms, ok := c.number(fieldConnTimestamp, doc); ok {
			return time.UnixMilli(int64(ms)).UTC()
		}
		return time.Time{}
	}
	root, rest := prefixShadow, strings.TrimPrefix(n.path, prefixShadow+".")
	if named, ok := strings.CutPrefix(n.path, prefixNamedShadow); ok {
		name, inside, _ := strings.Cut(named, ".")
		root, rest = prefixNamedShadow+name, inside
	} else if rest == n.path {
		return time.Time{}
	}
	section, path, ok := strings.Cut(rest, ".")
	if section == sectionDelta {
		section = sectionDesired // what is desired last makes the difference
	}
	if !ok || (section != sectionDesired && section != sectionReported) {
		return time.Time{}
	}
	if seconds, ok := c.number(root+"."+sectionMetadata+"."+section+"."+path+".timestamp", doc); ok {
		return time.Unix(int64(seconds), 0).UTC()
	}
	return time.Time{}
}

// flip returns the fewest tests that would have to be the opposite for the part
// to be as wanted.
func (p *Part) flip(want bool) []*Part {
	if p.Holds == want {
		return nil
	}
	if p.Kind == PartTest {
		return []*Part{p}
	}
	if p.Kind == PartNot {
		return p.Parts[0].flip(!want)
	}
	// A conjunction holds when all parts do, and fails with one; an alternative
	// the other way round.
	all := (p.Kind == PartAnd) == want
	var out []*Part
	for _, kid := range p.Parts {
		part := kid.flip(want)
		switch {
		case all:
			out = append(out, part...)
		case out == nil || len(part) < len(out):
			out = part
		}
	}
	return out
}
