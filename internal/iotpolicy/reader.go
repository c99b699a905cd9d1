package iotpolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// reader walks the tokens of a document whose syntax is already known to be
// valid, and knows where each of them stands.
type reader struct {
	data []byte
	dec  *json.Decoder
	// read is how far places were counted, and reached the place of that.
	read    int
	reached Place
}

// value is a token that opens, or is, a JSON value.
type value struct {
	token json.Token
	at    int
	place Place
}

// newReader checks encoding, size and syntax before any structure is built.
func newReader(data []byte, limits Limits) (*reader, error) {
	if limits == (Limits{}) {
		limits = DefaultLimits()
	}
	r := &reader{data: data, reached: Place{1, 1}}
	if len(data) > limits.MaxBytes {
		return nil, r.problem(0, "the document is longer than %d bytes", limits.MaxBytes)
	}
	if !utf8.Valid(data) {
		return nil, r.problem(invalidUTF8(data), "the document is not UTF-8")
	}
	if count := characters(data); count > limits.MaxCharacters {
		return nil, r.problem(0, "the document has %d characters without white space, %d are allowed", count, limits.MaxCharacters)
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		offset := len(data)
		if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
			offset = max(0, int(syntax.Offset)-1)
		}
		return nil, r.problem(offset, "the document is not JSON: %v", err)
	}
	r.dec = json.NewDecoder(bytes.NewReader(data))
	r.dec.UseNumber()
	return r, nil
}

// characters counts the characters that the size quota counts.
func characters(data []byte) int {
	count := utf8.RuneCount(data)
	for _, b := range data {
		if b == ' ' || b == '\t' || b == '\r' || b == '\n' {
			count--
		}
	}
	return count
}

// invalidUTF8 returns the offset of the first byte that is no UTF-8.
func invalidUTF8(data []byte) int {
	offset := 0
	for offset < len(data) {
		r, width := utf8.DecodeRune(data[offset:])
		if r == utf8.RuneError && width == 1 {
			break
		}
		offset += width
	}
	return offset
}

// problem returns an error about the text at offset.
func (r *reader) problem(offset int, format string, args ...any) *SyntaxError {
	line, column := r.place(offset)
	return &SyntaxError{Offset: offset, Line: line, Column: column, Problem: fmt.Sprintf(format, args...)}
}

// place turns an offset into line and column, both from 1.
func (r *reader) place(offset int) (line, column int) {
	before := r.data[:min(offset, len(r.data))]
	line = bytes.Count(before, []byte{'\n'}) + 1
	return line, utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
}

// next returns the next token and its offset.
func (r *reader) next() (value, error) {
	at := int(r.dec.InputOffset())
	for at < len(r.data) && bytes.IndexByte([]byte(" \t\r\n,:"), r.data[at]) >= 0 {
		at++
	}
	token, err := r.dec.Token()
	if err != nil {
		return value{}, r.problem(at, "the document cannot be read: %v", err)
	}
	return value{token: token, at: at, place: r.advance(at)}, nil
}

// advance counts on to the place of an offset that is not before the last one,
// so that the places of all tokens together cost one pass.
func (r *reader) advance(offset int) Place {
	passed := r.data[r.read:offset]
	if newlines := bytes.Count(passed, []byte{'\n'}); newlines > 0 {
		passed = passed[bytes.LastIndexByte(passed, '\n')+1:]
		r.reached = Place{Line: r.reached.Line + newlines, Column: 1}
	}
	r.reached.Column += utf8.RuneCount(passed)
	r.read = offset
	return r.reached
}

// object calls member for each member of an object that opened with v. Names
// must not repeat.
func (r *reader) object(v value, what string, member func(name value, key string) error) error {
	if v.token != json.Delim('{') {
		return r.problem(v.at, "%s must be an object", what)
	}
	seen := map[string]bool{}
	for r.dec.More() {
		name, err := r.next()
		if err != nil {
			return err
		}
		key, ok := name.token.(string)
		if !ok {
			return r.problem(name.at, "%s has a member without a name", what)
		}
		if seen[key] {
			return r.problem(name.at, "%s has the member %q twice", what, clip(key))
		}
		seen[key] = true
		if err := member(name, key); err != nil {
			return err
		}
	}
	_, err := r.next()
	return err
}

// elements calls element for a value that is not an array, or for each
// element of one.
func (r *reader) elements(element func(v value) error) error {
	v, err := r.next()
	if err != nil {
		return err
	}
	if v.token != json.Delim('[') {
		return element(v)
	}
	for r.dec.More() {
		v, err := r.next()
		if err != nil {
			return err
		}
		if err := element(v); err != nil {
			return err
		}
	}
	_, err = r.next()
	return err
}

// text returns the next value, which must be a string.
func (r *reader) text(what string) (string, value, error) {
	v, err := r.next()
	if err != nil {
		return "", v, err
	}
	text, ok := v.token.(string)
	if !ok {
		return "", v, r.problem(v.at, "%s must be a string", what)
	}
	return text, v, nil
}
