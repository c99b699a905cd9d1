package iotpolicy

import (
	"strings"
	"unicode/utf8"
)

// Markers stand for wildcards inside an encoded text. Neither byte occurs in
// valid UTF-8, so that substituted values stay literal without any escaping.
const (
	markAny = 0xFF // any run of characters, also an empty one
	markOne = 0xFE // exactly one character
	anyRun  = "\xff"
	oneChar = "\xfe"
)

// patternKind selects the cheapest comparison that decides a pattern.
type patternKind uint8

const (
	kindExact patternKind = iota
	kindPrefix
	kindEverything
	kindGlob
)

// pattern is an encoded text made ready for matching.
type pattern struct {
	text string
	// literal is the length of the text before its first wildcard.
	literal int
	kind    patternKind
}

// encode marks the wildcards of a policy text.
func encode(text string) string {
	if !strings.ContainsAny(text, "*?") {
		return text
	}
	return strings.NewReplacer("*", anyRun, "?", oneChar).Replace(text)
}

// decode is the reverse of encode, for messages.
func decode(encoded string) string {
	return strings.NewReplacer(anyRun, "*", oneChar, "?").Replace(encoded)
}

// newPattern classifies an encoded text.
func newPattern(encoded string) pattern {
	p := pattern{text: encoded, literal: firstMark(encoded)}
	switch {
	case p.literal == len(encoded):
		p.kind = kindExact
	case strings.Count(encoded[p.literal:], anyRun) == len(encoded)-p.literal:
		p.kind = kindPrefix
		if p.literal == 0 {
			p.kind = kindEverything
		}
	default:
		p.kind = kindGlob
	}
	return p
}

// firstMark returns the index of the first wildcard, or the length.
func firstMark(encoded string) int {
	for i := range len(encoded) {
		if encoded[i] >= markOne {
			return i
		}
	}
	return len(encoded)
}

// match reports whether the whole of s fits the pattern. It never goes back
// over an earlier asterisk: the leftmost place for each literal run is always
// good enough, which bounds the work by the product of the longest run that
// contains a question mark and the length of s, and by their sum without one.
func (p pattern) match(s string) bool {
	switch p.kind {
	case kindEverything:
		return true
	case kindExact:
		return s == p.text
	case kindPrefix:
		return strings.HasPrefix(s, p.text[:p.literal])
	case kindGlob:
	}
	if !strings.HasPrefix(s, p.text[:p.literal]) {
		return false
	}
	return glob(p.text[p.literal:], s[p.literal:])
}

// glob matches an encoded text against the whole of s.
func glob(p, s string) bool {
	star := strings.IndexByte(p, markAny)
	if star < 0 {
		n, ok := matchRun(p, s)
		return ok && n == len(s)
	}
	n, ok := matchRun(p[:star], s)
	if !ok {
		return false
	}
	p, s = p[star+1:], s[n:]
	for {
		star = strings.IndexByte(p, markAny)
		if star < 0 {
			return matchTail(p, s)
		}
		end, ok := findRun(p[:star], s)
		if !ok {
			return false
		}
		p, s = p[star+1:], s[end:]
	}
}

// matchRun matches a run without asterisks at the start of s and returns how
// many bytes of s it took.
func matchRun(run, s string) (int, bool) {
	n := 0
	for i := range len(run) {
		if n >= len(s) {
			return 0, false
		}
		if run[i] == markOne {
			_, width := utf8.DecodeRuneInString(s[n:])
			n += width
			continue
		}
		if run[i] != s[n] {
			return 0, false
		}
		n++
	}
	return n, true
}

// findRun returns the end of the leftmost place in s where the run matches.
func findRun(run, s string) (int, bool) {
	if strings.IndexByte(run, markOne) < 0 {
		i := strings.Index(s, run)
		return i + len(run), i >= 0
	}
	for i := 0; ; {
		if n, ok := matchRun(run, s[i:]); ok {
			return i + n, true
		}
		if i >= len(s) {
			return 0, false
		}
		_, width := utf8.DecodeRuneInString(s[i:])
		i += width
	}
}

// matchTail matches a run without asterisks at the end of s.
func matchTail(run, s string) bool {
	if strings.IndexByte(run, markOne) < 0 {
		return strings.HasSuffix(s, run)
	}
	start := len(s)
	for i := range len(run) {
		if !utf8.RuneStart(run[i]) {
			continue
		}
		if start == 0 {
			return false
		}
		_, width := utf8.DecodeLastRuneInString(s[:start])
		start -= width
	}
	n, ok := matchRun(run, s[start:])
	return ok && start+n == len(s)
}
