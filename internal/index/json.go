package index

import (
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fleetquery"
)

// maxJSONDepth bounds the nesting that the reader follows; shadow documents
// are held to far less where they come in.
const maxJSONDepth = 64

// errJSON is text that is not JSON or is nested too deeply.
var errJSON = errors.New("not a JSON document")

// values are what one field of one document holds. Texts are folded.
type values struct {
	texts   []string
	numbers []float64
}

// empty reports whether there is no value at all.
func (v values) empty() bool { return len(v.texts) == 0 && len(v.numbers) == 0 }

// leafKind says what a place in a JSON document is to the index.
type leafKind uint8

// Leaf kinds.
const (
	// leafValue is a scalar, or an array of scalars only.
	leafValue leafKind = iota
	// leafNull is null: nothing to index, a removal in a patch.
	leafNull
	// leafObject announces an object before its members.
	leafObject
	// leafOpaque is an array with an object, an array or nothing in it,
	// which is not indexed.
	leafOpaque
)

// leaf is one place of a flattened document.
type leaf struct {
	// path is dotted and relative to the document.
	path []byte
	kind leafKind
	values
}

// reader flattens JSON. Its buffers are used again by the next document.
type reader struct {
	in      []byte
	at      int
	path    []byte
	paths   []byte
	texts   []string
	numbers []float64
	leaves  []leaf
}

// flatten returns the leaves of an object in document order. They are valid
// until the next call. A document that is empty or null has none.
func (r *reader) flatten(doc []byte) ([]leaf, error) {
	*r = reader{in: doc, path: r.path[:0], paths: r.paths[:0], texts: r.texts[:0], numbers: r.numbers[:0], leaves: r.leaves[:0]}
	r.space()
	if r.at == len(doc) {
		return nil, nil
	}
	if err := r.value(0); err != nil {
		return nil, err
	}
	if r.space(); r.at != len(doc) {
		return nil, errJSON
	}
	return r.leaves, nil
}

// space skips white space.
func (r *reader) space() {
	for r.at < len(r.in) {
		switch r.in[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// peek returns the next byte after white space, 0 at the end.
func (r *reader) peek() byte {
	if r.space(); r.at < len(r.in) {
		return r.in[r.at]
	}
	return 0
}

// take moves over the byte c or reports false.
func (r *reader) take(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.at++
	return true
}

// emit records a leaf at the current path with the values read since the
// given counts.
func (r *reader) emit(kind leafKind, texts, numbers int) {
	if len(r.path) == 0 {
		return // the document itself
	}
	from := len(r.paths)
	r.paths = append(r.paths, r.path...)
	r.leaves = append(r.leaves, leaf{path: r.paths[from:len(r.paths):len(r.paths)], kind: kind, values: values{
		texts:   r.texts[texts:len(r.texts):len(r.texts)],
		numbers: r.numbers[numbers:len(r.numbers):len(r.numbers)],
	}})
}

// value reads whatever comes next.
func (r *reader) value(depth int) error {
	if depth > maxJSONDepth {
		return errJSON
	}
	texts, numbers := len(r.texts), len(r.numbers)
	switch r.peek() {
	case '{':
		r.emit(leafObject, texts, numbers)
		return r.object(depth)
	case '[':
		return r.array(depth)
	case 'n':
		if !r.word("null") {
			return errJSON
		}
		r.emit(leafNull, texts, numbers)
		return nil
	}
	if err := r.scalar(); err != nil {
		return err
	}
	r.emit(leafValue, texts, numbers)
	return nil
}

// object reads the members of an object, each under its key.
func (r *reader) object(depth int) error {
	r.at++
	if r.take('}') {
		return nil
	}
	for {
		if r.peek() != '"' {
			return errJSON
		}
		key, err := r.text()
		if err != nil || !r.take(':') {
			return errJSON
		}
		outer := len(r.path)
		if outer > 0 {
			r.path = append(r.path, '.')
		}
		r.path = append(r.path, key...)
		if err := r.value(depth + 1); err != nil {
			return err
		}
		r.path = r.path[:outer]
		if r.take(',') {
			continue
		}
		if r.take('}') {
			return nil
		}
		return errJSON
	}
}

// array reads an array as one leaf: its scalars, or nothing when it holds
// anything else than strings, numbers and truth values.
func (r *reader) array(depth int) error {
	texts, numbers, leaves := len(r.texts), len(r.numbers), len(r.leaves)
	opaque := false
	r.at++
	if !r.take(']') {
		for {
			switch r.peek() {
			case '{', '[', 'n':
				opaque = true
				if err := r.value(depth + 1); err != nil {
					return err
				}
			default:
				if err := r.scalar(); err != nil {
					return err
				}
			}
			if r.take(',') {
				continue
			}
			if r.take(']') {
				break
			}
			return errJSON
		}
	}
	r.leaves = r.leaves[:leaves]
	if opaque || (len(r.texts) == texts && len(r.numbers) == numbers) {
		r.texts, r.numbers = r.texts[:texts], r.numbers[:numbers]
		r.emit(leafOpaque, texts, numbers)
		return nil
	}
	r.emit(leafValue, texts, numbers)
	return nil
}

// scalar reads a string, a number or a truth value.
func (r *reader) scalar() error {
	switch c := r.peek(); {
	case c == '"':
		text, err := r.text()
		if err != nil {
			return err
		}
		r.texts = append(r.texts, fleetquery.Fold(text))
		return nil
	case c == 't' && r.word("true"):
		r.texts = append(r.texts, "true")
		return nil
	case c == 'f' && r.word("false"):
		r.texts = append(r.texts, "false")
		return nil
	}
	return r.number()
}

// number reads a number; one beyond the range of a double is not indexed.
func (r *reader) number() error {
	from := r.at
	for r.at < len(r.in) && numeric(r.in[r.at]) {
		r.at++
	}
	text := string(r.in[from:r.at])
	if n, ok := fleetquery.ParseNumber(text); ok {
		r.numbers = append(r.numbers, n)
		return nil
	}
	if _, err := strconv.ParseFloat(text, 64); errors.Is(err, strconv.ErrRange) {
		return nil
	}
	return errJSON
}

// numeric reports whether c may stand in a JSON number.
func numeric(c byte) bool {
	return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'
}

// word moves over a literal name.
func (r *reader) word(name string) bool {
	if len(r.in)-r.at < len(name) || string(r.in[r.at:r.at+len(name)]) != name {
		return false
	}
	r.at += len(name)
	return true
}

// text reads a quoted string.
func (r *reader) text() (string, error) {
	r.at++
	from := r.at
	for r.at < len(r.in) {
		switch c := r.in[r.at]; {
		case c == '"':
			r.at++
			return string(r.in[from : r.at-1]), nil
		case c == '\\':
			return r.escapedText(from)
		case c < ' ':
			return "", errJSON
		}
		r.at++
	}
	return "", errJSON
}

// escapedText reads the rest of a string that has escapes.
func (r *reader) escapedText(from int) (string, error) {
	out := append([]byte(nil), r.in[from:r.at]...)
	for r.at < len(r.in) {
		c := r.in[r.at]
		r.at++
		switch {
		case c == '"':
			return string(out), nil
		case c < ' ':
			return "", errJSON
		case c != '\\':
			out = append(out, c)
			continue
		}
		if r.at == len(r.in) {
			break
		}
		c = r.in[r.at]
		r.at++
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			char, ok := r.unicode()
			if !ok {
				return "", errJSON
			}
			out = utf8.AppendRune(out, char)
		default:
			return "", errJSON
		}
	}
	return "", errJSON
}

// unicode reads the digits of a \u escape, and of the second one when the two
// are a surrogate pair; a lone surrogate becomes the replacement character.
func (r *reader) unicode() (rune, bool) {
	char, ok := r.hex()
	if !ok || !utf16.IsSurrogate(char) {
		return char, ok
	}
	at := r.at
	if r.word(`\u`) {
		if low, ok := r.hex(); ok {
			if pair := utf16.DecodeRune(char, low); pair != utf8.RuneError {
				return pair, true
			}
		}
	}
	r.at = at
	return utf8.RuneError, true
}

// hex reads four hexadecimal digits.
func (r *reader) hex() (rune, bool) {
	if len(r.in)-r.at < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(r.in[r.at:r.at+4]), 16, 16)
	r.at += 4
	return rune(n), err == nil
}
