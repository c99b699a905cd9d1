package fleetquery

// value makes the leaf for a term or phrase.
func (p *parser) value(field string, w word) (Node, error) {
	if err := p.noKeyword(w); err != nil {
		return nil, err
	}
	switch {
	case w.function:
		return p.geo(field, w)
	case w.quoted:
		return p.phraseOf(field, w)
	case w.star() && field == "":
		return p.leaf(w.at, All{})
	case w.star():
		return p.leaf(w.at, Exists{Field: field})
	case !w.plain():
		return p.wildcard(field, w)
	}
	return p.leaf(w.at, match(field, w.text))
}

// match makes the test for one whole word.
func match(field, text string) Node {
	n, isNumber := ParseNumber(text)
	return Match{Field: field, Word: Fold(text), Number: n, IsNumber: isNumber}
}

// phraseOf makes the test for quoted text; one word is an ordinary term whose
// special characters stand for themselves.
func (p *parser) phraseOf(field string, w word) (Node, error) {
	words := Words(w.text)
	switch len(words) {
	case 0:
		return nil, p.errorAt(w.at, "the quotes are empty")
	case 1:
		return p.leaf(w.at, match(field, words[0]))
	}
	return p.leaf(w.at, Phrase{Field: field, Words: words})
}

// wildcard makes the test for a term with * or ?.
func (p *parser) wildcard(field string, w word) (Node, error) {
	stars, marks := 0, 0
	for _, piece := range w.parts {
		switch piece.kind {
		case partAny:
			stars++
		case partOne:
			marks++
		case partText:
		}
	}
	if l := p.options.Limits; stars > l.Stars || marks > l.QuestionMarks {
		return nil, p.errorAt(w.at, "a term may have at most %d '*' and %d '?',", l.Stars, l.QuestionMarks)
	}
	pattern := Pattern{parts: w.parts}
	if pattern.Leading() {
		if p.leading++; p.leading == p.options.Limits.LeadingWildcards+1 {
			p.leadingAt = w.at
		}
	}
	return p.leaf(w.at, Wildcard{Field: field, Pattern: pattern})
}

// literal scans the right side of a comparison or one end of a range.
func (p *parser) literal() (word, error) {
	w, err := p.word()
	if err != nil {
		return word{}, err
	}
	if err := p.noKeyword(w); err != nil {
		return word{}, err
	}
	switch {
	case w.function:
		return word{}, p.errorAt(w.at, "a bound may not be a function")
	case w.quoted || w.plain() || w.star():
		return w, nil
	}
	return word{}, p.errorAt(w.at, "a bound may not have wildcards")
}

// comparison parses < <= > >= and a literal: a range with one open end.
func (p *parser) comparison(field string) (Node, error) {
	less := p.peek() == '<'
	p.pos++
	inclusive := p.pos < len(p.text) && p.text[p.pos] == '='
	if inclusive {
		p.pos++
	}
	w, err := p.literal()
	if err != nil {
		return nil, err
	}
	if w.star() {
		return nil, p.errorAt(w.at, "a comparison needs a number or text")
	}
	given, open := bound{word: w, inclusive: inclusive}, bound{open: true}
	if less {
		return p.leaf(w.at, rangeNode(field, open, given))
	}
	return p.leaf(w.at, rangeNode(field, given, open))
}

// rangeOf parses [low TO high] with square (inclusive) or curly brackets.
func (p *parser) rangeOf(field string) (Node, error) {
	at := p.pos
	lowInclusive := p.text[p.pos] == '['
	p.pos++
	low, err := p.literal()
	if err != nil {
		return nil, err
	}
	if !p.keyword("TO") {
		return nil, p.errorAt(p.pos, "TO is missing in the range")
	}
	high, err := p.literal()
	if err != nil {
		return nil, err
	}
	highInclusive := p.take(']')
	if !highInclusive && !p.take('}') {
		return nil, p.errorAt(at, "the range is not closed")
	}
	return p.leaf(at, rangeNode(field,
		bound{word: low, open: low.star(), inclusive: lowInclusive},
		bound{word: high, open: high.star(), inclusive: highInclusive}))
}

// bound is one end of a range before it is known to be numeric or text.
type bound struct {
	word      word
	open      bool
	inclusive bool
}

// number returns the bound as a number; an open one is any number. Quoted
// numbers are text.
func (b bound) number() (NumberBound, bool) {
	if b.open {
		return NumberBound{Open: true}, true
	}
	n, ok := ParseNumber(b.word.text)
	return NumberBound{Value: n, Inclusive: b.inclusive}, ok && !b.word.quoted
}

// text returns the bound as folded text.
func (b bound) text() TextBound {
	if b.open {
		return TextBound{Open: true}
	}
	return TextBound{Value: Fold(b.word.text), Inclusive: b.inclusive}
}

// rangeNode chooses between numbers and text: numbers only if both ends are.
// A range that is open on both sides asks for existence.
func rangeNode(field string, low, high bound) Node {
	if low.open && high.open {
		if field == "" {
			return All{}
		}
		return Exists{Field: field}
	}
	l, lowIsNumber := low.number()
	h, highIsNumber := high.number()
	if lowIsNumber && highIsNumber {
		return NumberRange{Field: field, Low: l, High: h}
	}
	return TextRange{Field: field, Low: low.text(), High: high.text()}
}
