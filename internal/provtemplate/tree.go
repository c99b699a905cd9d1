package provtemplate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// shape is the JSON type of a node.
type shape int

const (
	shapeNull shape = iota
	shapeBoolean
	shapeNumber
	shapeText
	shapeList
	shapeObject
)

// String names the type as messages do.
func (s shape) String() string {
	return [...]string{"null", "a boolean", "a number", "a text", "a list", "an object"}[s]
}

// node is a JSON value that knows where it stands.
type node struct {
	shape shape
	// text is a text, or a number or a boolean as it is written.
	text     string
	elements []*node
	members  []member
	at       int
	parent   *node
	// key is the member or index of the parent under which the node stands.
	key string
}

// member is a member of an object, in the order of the body.
type member struct {
	name  string
	at    int
	value *node
}

// member returns the value under name, nil if there is none.
func (n *node) member(name string) *node {
	for _, m := range n.members {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// pointer returns the JSON pointer of the node.
func (n *node) pointer() string {
	if n.parent == nil {
		return ""
	}
	return n.parent.pointer() + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(n.key)
}

// tree reads a body into nodes.
type tree struct {
	body   []byte
	limits Limits
	dec    *json.Decoder
}

// readTree checks size, encoding and syntax before it builds any node, and
// depth and numbers while it does.
func readTree(body []byte, limits Limits) (*tree, *node, error) {
	t := &tree{body: body, limits: limits}
	// A character takes at most four bytes, so what is longer need not be counted.
	if len(body) > utf8.UTFMax*limits.MaxBody || utf8.RuneCount(body) > limits.MaxBody {
		return nil, nil, t.at(0, "", RuleSize, "the body is longer than %d characters", limits.MaxBody)
	}
	if !utf8.Valid(body) {
		return nil, nil, t.at(invalidUTF8(body), "", RuleSyntax, "the body is not UTF-8")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		offset := len(body)
		if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
			offset = max(0, int(syntax.Offset)-1)
		}
		return nil, nil, t.at(offset, "", RuleSyntax, "the body is not JSON: %v", err)
	}
	t.dec = json.NewDecoder(bytes.NewReader(body))
	t.dec.UseNumber()
	root, err := t.readValue(nil, "", 1)
	return t, root, err
}

// invalidUTF8 returns the offset of the first byte that is no UTF-8.
func invalidUTF8(body []byte) int {
	offset := 0
	for offset < len(body) {
		r, width := utf8.DecodeRune(body[offset:])
		if r == utf8.RuneError && width == 1 {
			break
		}
		offset += width
	}
	return offset
}

// at returns an error about the text at offset.
func (t *tree) at(offset int, pointer string, rule Rule, format string, args ...any) *SyntaxError {
	before := t.body[:min(offset, len(t.body))]
	return &SyntaxError{
		Offset:  offset,
		Line:    bytes.Count(before, []byte{'\n'}) + 1,
		Column:  utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1,
		Pointer: pointer, Rule: rule, Problem: fmt.Sprintf(format, args...),
	}
}

// problem returns an error about a node.
func (t *tree) problem(n *node, rule Rule, format string, args ...any) *SyntaxError {
	return t.at(n.at, n.pointer(), rule, format, args...)
}

// problemName returns an error about the name of a member.
func (t *tree) problemName(m member, rule Rule, format string, args ...any) *SyntaxError {
	return t.at(m.at, m.value.pointer(), rule, format, args...)
}

// next returns the next token and its offset.
func (t *tree) next() (json.Token, int, error) {
	at := int(t.dec.InputOffset())
	for at < len(t.body) && strings.IndexByte(" \t\r\n,:", t.body[at]) >= 0 {
		at++
	}
	token, err := t.dec.Token()
	if err != nil {
		return nil, at, t.at(at, "", RuleSyntax, "the body cannot be read: %v", err)
	}
	return token, at, nil
}

// readValue reads the next value, at a depth from 1.
func (t *tree) readValue(parent *node, key string, depth int) (*node, error) {
	token, at, err := t.next()
	if err != nil {
		return nil, err
	}
	n := &node{at: at, parent: parent, key: key}
	switch token := token.(type) {
	case json.Delim:
		if depth > t.limits.MaxDepth {
			return nil, t.problem(n, RuleDepth, "the body nests deeper than %d levels", t.limits.MaxDepth)
		}
		if token == '[' {
			n.shape = shapeList
			return n, t.readList(n, depth)
		}
		n.shape = shapeObject
		return n, t.readObject(n, depth)
	case string:
		n.shape, n.text = shapeText, token
	case json.Number:
		n.shape, n.text = shapeNumber, token.String()
	case bool:
		n.shape, n.text = shapeBoolean, strconv.FormatBool(token)
	}
	return n, nil
}

// readList reads the elements of a list that was opened.
func (t *tree) readList(n *node, depth int) error {
	for t.dec.More() {
		if len(n.elements) == t.limits.MaxMembers {
			return t.problem(n, RuleSize, "the list has more than %d elements", t.limits.MaxMembers)
		}
		element, err := t.readValue(n, strconv.Itoa(len(n.elements)), depth+1)
		if err != nil {
			return err
		}
		n.elements = append(n.elements, element)
	}
	_, _, err := t.next()
	return err
}

// readObject reads the members of an object that was opened. A name that repeats
// is refused, because readers disagree about which one counts (ours).
func (t *tree) readObject(n *node, depth int) error {
	seen := map[string]bool{}
	for t.dec.More() {
		token, at, err := t.next()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		if len(n.members) == t.limits.MaxMembers {
			return t.problem(n, RuleSize, "the object has more than %d members", t.limits.MaxMembers)
		}
		if seen[name] {
			return t.at(at, (&node{parent: n, key: name}).pointer(), RuleDuplicate, "the member %q comes twice", clip(name))
		}
		seen[name] = true
		value, err := t.readValue(n, name, depth+1)
		if err != nil {
			return err
		}
		n.members = append(n.members, member{name: name, at: at, value: value})
	}
	_, _, err := t.next()
	return err
}
