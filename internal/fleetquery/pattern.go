package fleetquery

import (
	"strings"
	"unicode/utf8"
)

// Pattern is a term with wildcards: literal pieces with * and ? between them.
type Pattern struct{ parts []part }

// part is one piece of a pattern.
type part struct {
	kind partKind
	// text is the folded literal of a partText.
	text string
}

type partKind uint8

// Kinds of pattern pieces.
const (
	partText partKind = iota
	// partAny is *, any number of characters.
	partAny
	// partOne is ?, exactly one character.
	partOne
)

// Prefix returns the literal text that every fitting word starts with.
func (p Pattern) Prefix() string {
	if len(p.parts) > 0 && p.parts[0].kind == partText {
		return p.parts[0].text
	}
	return ""
}

// PrefixOnly reports whether the pattern is its prefix followed by one *, so
// that every word with the prefix fits.
func (p Pattern) PrefixOnly() bool {
	return len(p.parts) == 2 && p.parts[0].kind == partText && p.parts[1].kind == partAny
}

// Leading reports whether the pattern starts with a wildcard.
func (p Pattern) Leading() bool { return len(p.parts) > 0 && p.parts[0].kind != partText }

// String renders the pattern with literal characters unescaped.
func (p Pattern) String() string {
	var b strings.Builder
	for _, piece := range p.parts {
		switch piece.kind {
		case partAny:
			b.WriteByte('*')
		case partOne:
			b.WriteByte('?')
		case partText:
			b.WriteString(piece.text)
		}
	}
	return b.String()
}

// Match reports whether the whole folded word fits. Its cost is bounded by
// the word's length times the pattern's: only the last * is tried again.
func (p Pattern) Match(word string) bool {
	if last := p.parts[len(p.parts)-1]; last.kind == partText && !strings.HasSuffix(word, last.text) {
		return false
	}
	i, retry, from := 0, -1, ""
	for {
		for i < len(p.parts) && p.parts[i].kind == partAny {
			if i++; i == len(p.parts) {
				return true
			}
			retry, from = i, word
		}
		if rest, ok := p.step(i, word); ok {
			i, word = i+1, rest
			continue
		}
		if i == len(p.parts) && word == "" {
			return true
		}
		if retry < 0 {
			return false
		}
		if from = p.next(retry, from); from == "" {
			return false
		}
		i, word = retry, from
	}
}

// step applies the piece at i, other than a *, to the start of word.
func (p Pattern) step(i int, word string) (rest string, ok bool) {
	if i == len(p.parts) {
		return "", false
	}
	switch p.parts[i].kind {
	case partText:
		return strings.CutPrefix(word, p.parts[i].text)
	case partOne:
		_, n := utf8.DecodeRuneInString(word)
		return word[n:], n > 0
	case partAny:
	}
	return word, false
}

// next returns where in from, behind its first character, the piece at i can
// hold; empty for nowhere.
func (p Pattern) next(i int, from string) string {
	if from == "" {
		return ""
	}
	_, n := utf8.DecodeRuneInString(from)
	from = from[n:]
	if p.parts[i].kind != partText {
		return from
	}
	at := strings.Index(from, p.parts[i].text)
	if at < 0 {
		return ""
	}
	return from[at:]
}
