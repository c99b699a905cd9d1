package fleetquery

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fault"
)

// Character classes of the language.
const (
	// special characters need a backslash to stand for themselves.
	special = `+-&|!(){}[]^"~*?:\<>=`
	// unsupported characters are allowed inside quotes only.
	unsupported = "`@#%/';,"
	// enders end a word wherever they stand unescaped.
	enders = `(){}[]":<>=`
	// refused are operators of the wider query syntax that is not offered.
	refused = `&|!^~`
)

// scanner walks over the text; the parser asks for what the grammar allows at
// each place, since - and * mean different things in different places.
type scanner struct {
	text string
	pos  int
}

// word is a scanned run of characters.
type word struct {
	at    int
	parts []part
	// text is the unescaped, unfolded text; wildcards are left out.
	text string
	// escaped is true when a backslash took part: it is no keyword then.
	escaped bool
	// quoted marks a phrase.
	quoted bool
	// function marks a function with its arguments, which text holds.
	function bool
}

// plain reports whether the word has no wildcards.
func (w word) plain() bool {
	return len(w.parts) == 0 || (len(w.parts) == 1 && w.parts[0].kind == partText)
}

// star reports whether the word is a lone *.
func (w word) star() bool { return len(w.parts) == 1 && w.parts[0].kind == partAny }

// keyword reports whether the word is exactly the upper-case keyword k.
func (w word) keyword(k string) bool {
	return !w.escaped && !w.quoted && w.plain() && w.text == k
}

// errorAt returns an InvalidQuery that names the place, counted in characters
// from 1.
func (s *scanner) errorAt(at int, format string, args ...any) error {
	args = append(args, s.character(at))
	return fault.New(fault.InvalidQuery, "Invalid query: "+format+" at character %d", args...)
}

// character is a place in the text in characters from 1.
func (s *scanner) character(at int) int { return utf8.RuneCountInString(s.text[:at]) + 1 }

// skipSpace moves to the next character that is not white space.
func (s *scanner) skipSpace() {
	for s.pos < len(s.text) {
		r, n := utf8.DecodeRuneInString(s.text[s.pos:])
		if !unicode.IsSpace(r) {
			return
		}
		s.pos += n
	}
}

// peek returns the next byte after white space, 0 at the end.
func (s *scanner) peek() byte {
	s.skipSpace()
	if s.pos == len(s.text) {
		return 0
	}
	return s.text[s.pos]
}

// take moves over the next byte if it is c.
func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.pos++
	return true
}

// word scans a phrase or a run of characters up to white space or an ender.
func (s *scanner) word() (word, error) {
	if s.peek() == '"' {
		return s.phrase()
	}
	w := word{at: s.pos}
	var all, piece strings.Builder
	flush := func() {
		if piece.Len() > 0 {
			w.parts = append(w.parts, part{kind: partText, text: Fold(piece.String())})
			piece.Reset()
		}
	}
	for s.pos < len(s.text) {
		r, n := utf8.DecodeRuneInString(s.text[s.pos:])
		if unicode.IsSpace(r) || strings.ContainsRune(enders, r) {
			break
		}
		switch {
		case r == '*' || r == '?':
			flush()
			w.parts = append(w.parts, part{kind: map[rune]partKind{'*': partAny, '?': partOne}[r]})
		case r == '\\':
			next, width, err := s.escaped()
			if err != nil {
				return word{}, err
			}
			w.escaped = true
			piece.WriteRune(next)
			all.WriteRune(next)
			n += width
		case r == ',' && !w.escaped && len(w.parts) == 0 && geoFunction(all.String()):
			return s.function(w), nil
		case r == '+' && s.pos == w.at:
			return word{}, s.errorAt(s.pos, "character %q is no operator here, put a backslash before it", r)
		case strings.ContainsRune(unsupported, r) || unicode.IsControl(r):
			return word{}, s.errorAt(s.pos, "character %q is not supported outside quotes", r)
		case strings.ContainsRune(refused, r):
			return word{}, s.errorAt(s.pos, "character %q is no operator here, put a backslash before it", r)
		default:
			piece.WriteRune(r)
			all.WriteRune(r)
		}
		s.pos += n
	}
	flush()
	w.text = all.String()
	if len(w.parts) == 0 {
		return word{}, s.unexpected()
	}
	return w, nil
}

// function scans the rest of a function, up to where a word ends.
func (s *scanner) function(w word) word {
	for s.pos < len(s.text) {
		r, n := utf8.DecodeRuneInString(s.text[s.pos:])
		if unicode.IsSpace(r) || strings.ContainsRune(enders, r) {
			break
		}
		s.pos += n
	}
	w.text, w.function = s.text[w.at:s.pos], true
	return w
}

// escaped returns the special character after the backslash at the current
// place and its width, without moving.
func (s *scanner) escaped() (rune, int, error) {
	r, n := utf8.DecodeRuneInString(s.text[s.pos+1:])
	if n == 0 || !strings.ContainsRune(special, r) {
		return 0, 0, s.errorAt(s.pos, "a backslash must stand before a special character")
	}
	return r, n, nil
}

// phrase scans a quoted run. A backslash before a special character stands
// for that character, any other one for itself.
func (s *scanner) phrase() (word, error) {
	w := word{at: s.pos, quoted: true}
	var b strings.Builder
	for s.pos++; s.pos < len(s.text); {
		r, n := utf8.DecodeRuneInString(s.text[s.pos:])
		if r == '"' {
			s.pos++
			w.text = b.String()
			return w, nil
		}
		if r == '\\' {
			if next, width, err := s.escaped(); err == nil {
				r, n = next, n+width
			}
		}
		b.WriteRune(r)
		s.pos += n
	}
	return word{}, s.errorAt(w.at, "the quote is not closed")
}

// unexpected describes what stands at the current place.
func (s *scanner) unexpected() error {
	s.skipSpace()
	if s.pos == len(s.text) {
		return s.errorAt(s.pos, "unexpected end")
	}
	r, _ := utf8.DecodeRuneInString(s.text[s.pos:])
	switch r {
	case ':':
		return s.errorAt(s.pos, "unexpected ':', put a backslash before it or quote the value,")
	case '=':
		return s.errorAt(s.pos, "'=' is no operator, use ':'")
	default:
		return s.errorAt(s.pos, "unexpected %q", r)
	}
}
