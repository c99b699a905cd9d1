package provtemplate

import (
	"bytes"
	"encoding/json"
	"strings"
)

// operation is what an expression does.
type operation int

const (
	opLiteral operation = iota
	opNull
	opList
	opDocument
	opRef
	opJoin
	opSelect
	opSplit
	opFindInMap
	opSub
)

// Function names.
const (
	fnRef       = "Ref"
	fnJoin      = "Fn::Join"
	fnSelect    = "Fn::Select"
	fnSplit     = "Fn::Split"
	fnFindInMap = "Fn::FindInMap"
	fnSub       = "Fn::Sub"
)

// name returns the function that an operation is, "" if it is none.
func (o operation) name() string {
	return map[operation]string{
		opRef: fnRef, opJoin: fnJoin, opSelect: fnSelect, opSplit: fnSplit, opFindInMap: fnFindInMap, opSub: fnSub,
	}[o]
}

// expression is a value of a template. Names are bound when it is parsed, and
// what a function refers to is never another resource: there are no cycles.
type expression struct {
	op      operation
	pointer string
	// text is the literal, or the parameter of a Ref.
	text string
	// args are the arguments, the elements of a list, the variables of a Sub,
	// or the functions inside a document.
	args []*expression
	// pieces are what a Sub or a document is put together from.
	pieces []piece
}

// piece is literal text, a parameter, or an argument of the expression.
type piece struct {
	literal   string
	parameter string
	// argument counts from 1.
	argument int
}

// isFunction reports whether an object is a call: exactly one member with the
// name of a function.
func isFunction(n *node) bool {
	return n.shape == shapeObject && len(n.members) == 1 && functionName(n.members[0].name)
}

// functionName reports whether a member can only be meant as a function.
func functionName(name string) bool { return name == fnRef || strings.HasPrefix(name, "Fn::") }

// text parses a value that is one text. Numbers and booleans stand for what is
// written (ours): every value on the wire is a string.
func (p *parser) text(n *node) (*expression, error) {
	switch n.shape {
	case shapeText, shapeNumber, shapeBoolean:
		return &expression{op: opLiteral, pointer: n.pointer(), text: n.text}, nil
	case shapeObject:
		if !isFunction(n) {
			return nil, p.problem(n, RuleType, "there must be a text or one function, not an object of %d members", len(n.members))
		}
		return p.call(n)
	default:
		return nil, p.problem(n, RuleType, "there must be a text or a function, not %s", n.shape)
	}
}

// call parses a function that gives a text.
func (p *parser) call(n *node) (*expression, error) {
	e := &expression{pointer: n.pointer()}
	m := n.members[0]
	switch m.name {
	case fnRef:
		return e, p.ref(e, m)
	case fnJoin:
		return e, p.join(e, m)
	case fnSelect:
		return e, p.choose(e, m)
	case fnFindInMap:
		return e, p.findInMap(e, m)
	case fnSub:
		return e, p.sub(e, m)
	case fnSplit:
		return nil, p.problemName(m, RuleType, "%s gives a list where a text must be; take an element with %s", fnSplit, fnSelect)
	default:
		return nil, p.problemName(m, RuleUnknown, "there is no function %q", clip(m.name))
	}
}

// list parses a value that is a list of texts. With nulls it may have null
// elements, which only fail when they are selected (documented).
func (p *parser) list(n *node, nulls bool) (*expression, error) {
	e := &expression{op: opList, pointer: n.pointer()}
	if isFunction(n) {
		m := n.members[0]
		if m.name != fnSplit {
			return nil, p.problemName(m, RuleType, "there must be a list or %s", fnSplit)
		}
		return e, p.split(e, m)
	}
	if n.shape != shapeList {
		return nil, p.problem(n, RuleType, "there must be a list or %s, not %s", fnSplit, n.shape)
	}
	for _, element := range n.elements {
		if nulls && element.shape == shapeNull {
			e.args = append(e.args, &expression{op: opNull, pointer: element.pointer()})
			continue
		}
		arg, err := p.text(element)
		if err != nil {
			return nil, err
		}
		e.args = append(e.args, arg)
	}
	return e, nil
}

// ref parses {"Ref": parameter}.
func (p *parser) ref(e *expression, m member) error {
	e.op = opRef
	if m.value.shape != shapeText {
		return p.problem(m.value, RuleFunction, "%s takes the name of a parameter, not %s", fnRef, m.value.shape)
	}
	e.text = m.value.text
	return p.reference(m.value, e.text)
}

// reference checks that a parameter is declared.
func (p *parser) reference(n *node, name string) error {
	switch {
	case p.template.declared(name):
		return nil
	case p.logical[name]:
		return p.problem(n, RuleReference, "%q is a resource; only parameters can be referred to", clip(name))
	default:
		return p.problem(n, RuleReference, "the parameter %q is not declared", clip(name))
	}
}

// arguments checks that a function has a list of so many arguments.
func (p *parser) arguments(m member, count int, what string) ([]*node, error) {
	if m.value.shape != shapeList || len(m.value.elements) != count {
		return nil, p.problem(m.value, RuleFunction, "%s takes a list of %s", m.name, what)
	}
	return m.value.elements, nil
}

// join parses {"Fn::Join": [delimiter, list]}.
func (p *parser) join(e *expression, m member) error {
	e.op = opJoin
	args, err := p.arguments(m, 2, "a delimiter and a list")
	if err != nil {
		return err
	}
	return p.textAndList(e, args, false)
}

// textAndList parses the arguments of functions that take one of each.
func (p *parser) textAndList(e *expression, args []*node, nulls bool) error {
	first, err := p.text(args[0])
	if err != nil {
		return err
	}
	second, err := p.list(args[1], nulls)
	e.args = []*expression{first, second}
	return err
}

// choose parses {"Fn::Select": [index, list]}. The index is a number, or
// digits in a text (ours).
func (p *parser) choose(e *expression, m member) error {
	e.op = opSelect
	args, err := p.arguments(m, 2, "an index and a list")
	if err != nil {
		return err
	}
	if err := p.textAndList(e, args, true); err != nil {
		return err
	}
	if index := e.args[0]; index.op == opLiteral {
		if _, ok := indexOf(index.text); !ok {
			return p.problem(args[0], RuleFunction, "the index of %s must be a whole number from 0", fnSelect)
		}
	}
	return nil
}

// split parses {"Fn::Split": [delimiter, text]}.
func (p *parser) split(e *expression, m member) error {
	e.op = opSplit
	args, err := p.arguments(m, 2, "a delimiter and a text")
	if err != nil {
		return err
	}
	for _, arg := range args {
		value, err := p.text(arg)
		if err != nil {
			return err
		}
		e.args = append(e.args, value)
	}
	if e.args[0].op == opLiteral && e.args[0].text == "" {
		return p.problem(args[0], RuleFunction, "the delimiter of %s must not be empty", fnSplit)
	}
	return nil
}

// findInMap parses {"Fn::FindInMap": [map, key, key]}. Names that are literal
// must be there.
func (p *parser) findInMap(e *expression, m member) error {
	e.op = opFindInMap
	args, err := p.arguments(m, 3, "a map and two keys")
	if err != nil {
		return err
	}
	for _, arg := range args {
		value, err := p.text(arg)
		if err != nil {
			return err
		}
		e.args = append(e.args, value)
	}
	name, first, second := e.args[0], e.args[1], e.args[2]
	if name.op != opLiteral {
		return nil
	}
	table, ok := p.template.mappings[name.text]
	if !ok {
		return p.problem(args[0], RuleReference, "there is no map %q", clip(name.text))
	}
	if first.op != opLiteral {
		return nil
	}
	row, ok := table[first.text]
	if !ok {
		return p.problem(args[1], RuleReference, "the map %q has no key %q", clip(name.text), clip(first.text))
	}
	if _, ok := row[second.text]; second.op == opLiteral && !ok {
		return p.problem(args[2], RuleReference, "the map %q has no key %q under %q", clip(name.text), clip(second.text), clip(first.text))
	}
	return nil
}

// sub parses {"Fn::Sub": text} and {"Fn::Sub": [text, variables]}. Variables
// hide parameters of the same name, in the text and not in each other
// (recalled).
func (p *parser) sub(e *expression, m member) error {
	e.op = opSub
	source := m.value
	variables := map[string]int{}
	if source.shape == shapeList {
		args, err := p.arguments(m, 2, "a text and an object of variables")
		if err != nil {
			return err
		}
		source = args[0]
		if args[1].shape != shapeObject {
			return p.problem(args[1], RuleFunction, "the variables of %s must be an object, not %s", fnSub, args[1].shape)
		}
		for _, variable := range args[1].members {
			value, err := p.text(variable.value)
			if err != nil {
				return err
			}
			e.args = append(e.args, value)
			variables[variable.name] = len(e.args)
		}
	}
	if source.shape != shapeText {
		return p.problem(source, RuleFunction, "%s takes a text, or a list of a text and an object of variables, not %s", fnSub, source.shape)
	}
	return p.pieces(e, source, variables)
}

// pieces cuts the text of a Sub at its ${…}. ${!name} is a literal ${name}
// (recalled), which is how a policy variable is written in one.
func (p *parser) pieces(e *expression, source *node, variables map[string]int) error {
	rest := source.text
	for {
		before, after, found := strings.Cut(rest, "${")
		if before != "" {
			e.pieces = append(e.pieces, piece{literal: before})
		}
		if !found {
			return nil
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed {
			return p.problem(source, RuleFunction, "%s has ${ without }", fnSub)
		}
		rest = tail
		switch literal, escaped := strings.CutPrefix(name, "!"); {
		case escaped:
			e.pieces = append(e.pieces, piece{literal: "${" + literal + "}"})
		case variables[name] != 0:
			e.pieces = append(e.pieces, piece{argument: variables[name]})
		default:
			if err := p.reference(source, name); err != nil {
				return err
			}
			e.pieces = append(e.pieces, piece{parameter: name})
		}
	}
}

// document parses an object that is a JSON document with functions in it.
func (p *parser) document(n *node) (*expression, error) {
	d := &documentParser{parser: p, e: &expression{op: opDocument, pointer: n.pointer()}}
	if err := d.write(n); err != nil {
		return nil, err
	}
	d.flush()
	return d.e, nil
}

// documentParser writes a document without white space, in pieces between its
// functions.
type documentParser struct {
	*parser
	e   *expression
	raw bytes.Buffer
}

// flush ends a literal piece.
func (d *documentParser) flush() {
	if d.raw.Len() > 0 {
		d.e.pieces = append(d.e.pieces, piece{literal: d.raw.String()})
		d.raw.Reset()
	}
}

// write appends a value.
func (d *documentParser) write(n *node) error {
	switch n.shape {
	case shapeNull:
		d.raw.WriteString("null")
	case shapeText:
		d.raw.Write(quote(n.text))
	case shapeNumber, shapeBoolean:
		d.raw.WriteString(n.text)
	case shapeList:
		d.raw.WriteByte('[')
		for i, element := range n.elements {
			if i > 0 {
				d.raw.WriteByte(',')
			}
			if err := d.write(element); err != nil {
				return err
			}
		}
		d.raw.WriteByte(']')
	case shapeObject:
		return d.object(n)
	}
	return nil
}

// object appends an object, or a function as an argument.
func (d *documentParser) object(n *node) error {
	if isFunction(n) {
		parse := d.text
		if n.members[0].name == fnSplit {
			parse = func(n *node) (*expression, error) { return d.list(n, false) }
		}
		arg, err := parse(n)
		if err != nil {
			return err
		}
		d.flush()
		d.e.args = append(d.e.args, arg)
		d.e.pieces = append(d.e.pieces, piece{argument: len(d.e.args)})
		return nil
	}
	d.raw.WriteByte('{')
	for i, m := range n.members {
		if functionName(m.name) {
			return d.problemName(m, RuleFunction, "the function %s must be the only member of its object", clip(m.name))
		}
		if i > 0 {
			d.raw.WriteByte(',')
		}
		d.raw.Write(quote(m.name))
		d.raw.WriteByte(':')
		if err := d.write(m.value); err != nil {
			return err
		}
	}
	d.raw.WriteByte('}')
	return nil
}

// quote returns a text as JSON, with < > and & as they are.
func quote(text string) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	// A string always encodes.
	_ = enc.Encode(text)
	return bytes.TrimSuffix(out.Bytes(), []byte{'\n'})
}
