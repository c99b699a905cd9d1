package fleetquery

import (
	"strings"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fault"
)

// Options adapt the language to what is indexed.
type Options struct {
	Limits Limits
	// Resolve maps a field name to the one that is indexed, or refuses it.
	// Nil takes every name as it is.
	Resolve func(field string) (string, error)
	// Leaf sees each test with its resolved field and gives the one to use in
	// its place, which may be a tree, or refuses it. Nil takes every test as it
	// is.
	Leaf func(Node) (Node, error)
}

// Parse reads a query within the published limits.
func Parse(text string) (Query, error) {
	return Options{Limits: DefaultLimits()}.Parse(text)
}

// Parse reads a query. Every error is an InvalidQuery whose message says what
// is wrong and where.
func (o Options) Parse(text string) (Query, error) {
	if len(text) > o.Limits.Bytes {
		return Query{}, fault.New(fault.InvalidQuery, "Invalid query: longer than %d bytes", o.Limits.Bytes)
	}
	if !utf8.ValidString(text) {
		return Query{}, fault.New(fault.InvalidQuery, "Invalid query: not valid UTF-8")
	}
	p := &parser{scanner: scanner{text: text}, options: o}
	root, err := p.or("")
	if err != nil {
		return Query{}, err
	}
	if p.peek() != 0 || p.pos < len(p.text) {
		return Query{}, p.unexpected()
	}
	if err := p.checkLimits(); err != nil {
		return Query{}, err
	}
	return Query{Text: text, Root: root, Terms: p.terms}, nil
}

// parser is one run over a query by recursive descent.
type parser struct {
	scanner
	options Options
	terms   int
	leading int
	depth   int
	// overAt is where the first term beyond the limit stands, leadingAt where the
	// first one too many with a leading wildcard does.
	overAt, leadingAt int
}

// checkLimits applies the limits that hold for the query as a whole.
func (p *parser) checkLimits() error {
	l := p.options.Limits
	switch {
	case p.terms > l.Terms:
		return p.errorAt(p.overAt, "%d terms, at most %d are allowed, the first too many", p.terms, l.Terms)
	case p.leading > l.LeadingWildcards:
		return p.errorAt(p.leadingAt, "%d terms start with a wildcard, at most %d may, the first too many", p.leading, l.LeadingWildcards)
	case p.leading > 0 && utf8.RuneCountInString(p.text) > l.LeadingWildcardCharacters:
		return fault.New(fault.InvalidQuery,
			"Invalid query: a query with a leading wildcard may have at most %d characters", l.LeadingWildcardCharacters)
	}
	return nil
}

// nest runs fn one level deeper.
func (p *parser) nest(fn func() (Node, error)) (Node, error) {
	if p.depth++; p.depth > p.options.Limits.Depth {
		return nil, p.errorAt(p.pos, "nested deeper than %d levels", p.options.Limits.Depth)
	}
	defer func() { p.depth-- }()
	return fn()
}

// keyword moves over the keyword k if it comes next.
func (p *parser) keyword(k string) bool {
	p.skipSpace()
	if !strings.HasPrefix(p.text[p.pos:], k) {
		return false
	}
	at := p.pos
	if w, err := p.word(); err != nil || !w.keyword(k) {
		p.pos = at
		return false
	}
	return true
}

// or parses alternatives; field is that of the enclosing group, if any.
func (p *parser) or(field string) (Node, error) {
	nodes, err := p.list(func() (Node, error) { return p.and(field) }, func() bool { return p.keyword("OR") })
	if err != nil || len(nodes) == 1 {
		return first(nodes), err
	}
	return Or{Nodes: nodes}, nil
}

// and parses a conjunction, written with AND or side by side.
func (p *parser) and(field string) (Node, error) {
	more := func() bool {
		if p.keyword("AND") {
			return true
		}
		at := p.pos
		if c := p.peek(); c == 0 || c == ')' || p.keyword("OR") {
			p.pos = at
			return false
		}
		return true
	}
	nodes, err := p.list(func() (Node, error) { return p.not(field) }, more)
	if err != nil || len(nodes) == 1 {
		return first(nodes), err
	}
	return And{Nodes: nodes}, nil
}

// list parses items for as long as more says that another follows.
func (p *parser) list(item func() (Node, error), more func() bool) ([]Node, error) {
	var nodes []Node
	for {
		n, err := item()
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
		if !more() {
			return nodes, nil
		}
	}
}

// first returns the only node of a list, nil for none.
func first(nodes []Node) Node {
	if len(nodes) == 0 {
		return nil
	}
	return nodes[0]
}

// not parses any number of negations and what they stand before.
func (p *parser) not(field string) (Node, error) {
	if p.take('-') || p.keyword("NOT") {
		n, err := p.nest(func() (Node, error) { return p.not(field) })
		if err != nil {
			return nil, err
		}
		return Not{Node: n}, nil
	}
	return p.primary(field)
}

// primary parses a group, a test of a field, or a value for the field at hand.
func (p *parser) primary(field string) (Node, error) {
	switch p.peek() {
	case '(':
		return p.group(field)
	case '[', '{':
		return p.rangeOf(field)
	}
	w, err := p.word()
	if err != nil {
		return nil, err
	}
	if err := p.noKeyword(w); err != nil {
		return nil, err
	}
	switch p.peek() {
	case ':', '<', '>':
		return p.fielded(w)
	}
	return p.value(field, w)
}

// noKeyword refuses a keyword where a word must stand; quotes make an
// ordinary word of it.
func (p *parser) noKeyword(w word) error {
	for _, k := range []string{"AND", "OR", "NOT", "TO"} {
		if w.keyword(k) {
			return p.errorAt(w.at, "unexpected %s", k)
		}
	}
	return nil
}

// leaf counts a test and lets the options have their say about it.
func (p *parser) leaf(at int, n Node) (Node, error) {
	if p.terms++; p.terms == p.options.Limits.Terms+1 {
		p.overAt = at
	}
	if p.options.Leaf == nil {
		return n, nil
	}
	n, err := p.options.Leaf(n)
	if err != nil {
		return nil, p.errorAt(at, "%s", fault.From(err).Message)
	}
	return n, nil
}

// group parses what stands in parentheses.
func (p *parser) group(field string) (Node, error) {
	at := p.pos
	p.take('(')
	n, err := p.nest(func() (Node, error) { return p.or(field) })
	if err != nil {
		return nil, err
	}
	if !p.take(')') {
		if p.pos < len(p.text) {
			return nil, p.unexpected()
		}
		return nil, p.errorAt(at, "the parenthesis is not closed")
	}
	return n, nil
}

// fielded parses what follows a field name.
func (p *parser) fielded(name word) (Node, error) {
	field, err := p.field(name)
	if err != nil {
		return nil, err
	}
	if !p.take(':') {
		return p.comparison(field)
	}
	switch p.peek() {
	case '(':
		return p.group(field)
	case '[', '{':
		return p.rangeOf(field)
	}
	w, err := p.word()
	if err != nil {
		return nil, err
	}
	return p.value(field, w)
}

// field checks a name and maps it to the indexed one.
func (p *parser) field(name word) (string, error) {
	if name.quoted || name.function || !name.plain() {
		return "", p.errorAt(name.at, "a field name may not be quoted, have wildcards or be a function")
	}
	for part := range strings.SplitSeq(name.text, ".") {
		if part == "" {
			return "", p.errorAt(name.at, "field %q has an empty part", name.text)
		}
	}
	if p.options.Resolve == nil {
		return name.text, nil
	}
	field, err := p.options.Resolve(name.text)
	if err != nil {
		return "", p.errorAt(name.at, "%s", fault.From(err).Message)
	}
	return field, nil
}
