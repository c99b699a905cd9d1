package shadow

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fault"
)

// maxNesting bounds the parser's recursion, whatever the settings say.
const maxNesting = 200

// parser reads JSON from valid UTF-8. Syntax errors end it; the first refusal
// of a well-formed document is kept in refusal, and reading goes on without
// building so that a client token behind it is still found.
type parser struct {
	s string
	i int
	// at is the time given to leaves.
	at int64
	// maxDepth is the deepest allowed level of objects and arrays within a
	// section; 0 means maxNesting.
	maxDepth int
	// room is how many bytes of names and values may still be read.
	room int
	// patch is true where null removes; nulls in arrays are then refused.
	patch   bool
	refusal *fault.Error
	// nodes counts what was built.
	nodes int
	// stack collects members until their object is complete.
	stack []node
}

// refuse keeps the first reason why a well-formed document is not accepted.
func (p *parser) refuse(code fault.Code, message string) {
	if p.refusal == nil {
		p.refusal = &fault.Error{Code: code, Message: message}
	}
}

// space skips white space.
func (p *parser) space() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

// take consumes one expected byte.
func (p *parser) take(c byte) bool {
	if p.peek() != c || p.i >= len(p.s) {
		return false
	}
	p.i++
	return true
}

// value reads one value that stands at the given level of nesting. It reports
// false on a syntax error.
func (p *parser) value(depth int, inArray bool) (node, bool) {
	switch c := p.peek(); {
	case c == '{' || c == '[':
		return p.container(c, depth, inArray)
	case c == '"':
		text, ok := p.str()
		return p.leaf(kindString, text), ok
	case c == '-' || c >= '0' && c <= '9':
		text, ok := p.number()
		return p.leaf(kindNumber, text), ok
	case c == 't':
		return p.word(kindBool, "true")
	case c == 'f':
		return p.word(kindBool, "false")
	case c == 'n':
		if inArray && p.patch {
			p.refuse(fault.InvalidRequest, msgInvalidNode)
		}
		return p.word(kindNull, "null")
	default:
		return node{}, false
	}
}

// leaf makes a scalar and charges it.
func (p *parser) leaf(k kind, text string) node {
	p.charge(len(text))
	return node{kind: k, text: text, at: p.at, nulls: k == kindNull}
}

// word reads one of the three literal names.
func (p *parser) word(k kind, text string) (node, bool) {
	if !strings.HasPrefix(p.s[p.i:], text) {
		return node{}, false
	}
	p.i += len(text)
	return p.leaf(k, text), true
}

// charge counts bytes of names and values against the room that is left. It
// bounds memory; the exact size of a document is checked after the merge.
func (p *parser) charge(n int) {
	p.room -= n + 1
	if p.room < 0 {
		p.refuse(fault.RequestEntityTooLarge, msgTooLarge)
	}
}

// container reads an object or an array.
func (p *parser) container(open byte, depth int, inArray bool) (node, bool) {
	if depth > maxNesting {
		return node{}, false
	}
	if p.maxDepth > 0 && depth > p.maxDepth {
		p.refuse(fault.InvalidRequest, fmt.Sprintf(msgTooDeep, p.maxDepth))
	}
	p.i++
	p.charge(1)
	if open == '[' {
		return p.array(depth)
	}
	return p.object(depth, inArray)
}

// array reads elements up to the closing bracket.
func (p *parser) array(depth int) (node, bool) {
	base := len(p.stack)
	p.space()
	if p.take(']') {
		return node{kind: kindArray, at: p.at}, true
	}
	for {
		p.space()
		element, ok := p.value(depth+1, true)
		if !ok {
			return node{}, false
		}
		p.push(element)
		p.space()
		if p.take(']') {
			return node{kind: kindArray, kids: p.pop(base), at: p.at}, true
		}
		if !p.take(',') {
			return node{}, false
		}
	}
}

// object reads members up to the closing brace. Of members with one name the
// last wins.
func (p *parser) object(depth int, inArray bool) (node, bool) {
	base, sorted, nulls := len(p.stack), true, false
	p.space()
	if p.take('}') {
		return node{kind: kindObject, at: p.at}, true
	}
	for {
		key, ok := p.key()
		if !ok {
			return node{}, false
		}
		n, ok := p.value(depth+1, inArray)
		if !ok {
			return node{}, false
		}
		n.key = key
		if len(p.stack) > base && p.stack[len(p.stack)-1].key >= key {
			sorted = false
		}
		p.push(n)
		p.space()
		if p.take('}') {
			break
		}
		if !p.take(',') {
			return node{}, false
		}
	}
	kids := p.pop(base)
	if !sorted {
		kids = lastWins(kids)
	}
	for i := range kids {
		nulls = nulls || kids[i].nulls
	}
	return node{kind: kindObject, kids: kids, at: p.at, nulls: nulls}, true
}

// key reads a member's name and its colon.
func (p *parser) key() (string, bool) {
	p.space()
	if p.peek() != '"' {
		return "", false
	}
	text, ok := p.str()
	if !ok {
		return "", false
	}
	p.space()
	if !p.take(':') {
		return "", false
	}
	p.space()
	p.charge(len(text) + 1)
	return text[1 : len(text)-1], true
}

// push keeps a member unless the document is refused already.
func (p *parser) push(n node) {
	if p.refusal == nil {
		p.stack = append(p.stack, n)
		p.nodes++
	}
}

// pop returns what was collected since base.
func (p *parser) pop(base int) []node {
	if base >= len(p.stack) {
		return nil
	}
	kids := slices.Clone(p.stack[base:])
	p.stack = p.stack[:base]
	return kids
}

// lastWins sorts members by name and keeps the last of equal ones.
func lastWins(kids []node) []node {
	slices.SortStableFunc(kids, compareKeys)
	out := kids[:0]
	for i := range kids {
		if i+1 < len(kids) && kids[i+1].key == kids[i].key {
			continue
		}
		out = append(out, kids[i])
	}
	return slices.Clip(out)
}

// number reads a number and returns it as written.
func (p *parser) number() (string, bool) {
	start := p.i
	p.take('-')
	if !p.take('0') && !p.digits() {
		return "", false
	}
	if p.take('.') && !p.digits() {
		return "", false
	}
	if p.take('e') || p.take('E') {
		if !p.take('+') {
			p.take('-')
		}
		if !p.digits() {
			return "", false
		}
	}
	return p.s[start:p.i], true
}

// digits reads one digit or more.
func (p *parser) digits() bool {
	start := p.i
	for p.i < len(p.s) && p.s[p.i] >= '0' && p.s[p.i] <= '9' {
		p.i++
	}
	return p.i > start
}

// str reads a string and returns its canonical text with quotes: only what
// JSON demands is escaped.
func (p *parser) str() (string, bool) {
	start := p.i
	for j := p.i + 1; j < len(p.s); j++ {
		switch c := p.s[j]; {
		case c == '"':
			p.i = j + 1
			return p.s[start:p.i], true
		case c == '\\':
			return p.escaped(j)
		case c < ' ':
			return "", false
		}
	}
	return "", false
}

// escaped finishes a string whose first backslash is at position j.
func (p *parser) escaped(j int) (string, bool) {
	out := append([]byte(nil), p.s[p.i:j]...)
	for j < len(p.s) {
		switch c := p.s[j]; {
		case c == '"':
			p.i = j + 1
			return string(append(out, '"')), true
		case c < ' ':
			return "", false
		case c == '\\':
			r, next, ok := unescape(p.s, j+1)
			if !ok {
				return "", false
			}
			out, j = appendRune(out, r), next
		default:
			out = append(out, c)
			j++
		}
	}
	return "", false
}

// simpleEscapes maps the byte behind a backslash to its meaning.
const (
	simpleEscapes  = `"\/bfnrt`
	simpleMeanings = "\"\\/\b\f\n\r\t"
)

// unescape reads the escape whose letter is at position j. Half a surrogate
// pair is no character and is refused.
func unescape(s string, j int) (r rune, next int, ok bool) {
	if j >= len(s) {
		return 0, 0, false
	}
	if k := strings.IndexByte(simpleEscapes, s[j]); k >= 0 {
		return rune(simpleMeanings[k]), j + 1, true
	}
	r, ok = hex4(s, j)
	if !ok || !utf16.IsSurrogate(r) {
		return r, j + 5, ok
	}
	if j+5 >= len(s) || s[j+5] != '\\' {
		return 0, 0, false
	}
	low, ok := hex4(s, j+6)
	if !ok {
		return 0, 0, false
	}
	r = utf16.DecodeRune(r, low)
	return r, j + 11, r != utf8.RuneError
}

// hex4 reads the letter u at position j and four hexadecimal digits.
func hex4(s string, j int) (rune, bool) {
	if j+5 > len(s) || s[j] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range []byte(s[j+1 : j+5]) {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// appendRune writes one character of a string in its canonical form.
func appendRune(out []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	switch {
	case r == '"' || r == '\\':
		return append(out, '\\', byte(r))
	case r >= ' ':
		return utf8.AppendRune(out, r)
	case r == '\b' || r == '\f' || r == '\n' || r == '\r' || r == '\t':
		k := strings.IndexRune(simpleMeanings, r)
		return append(out, '\\', simpleEscapes[k])
	default:
		return append(out, '\\', 'u', '0', '0', hex[byte(r)>>4], hex[byte(r)&15])
	}
}
