package index

import "strings"

// text renders a test in the query language.
func (p *plan) text() string {
	field := ""
	if p.at != nil {
		field = p.at.path + ":"
	}
	switch p.op {
	case opAll:
		return "*"
	case opExists:
		return field + "*"
	case opMatch:
		return field + p.match.Word
	case opPhrase:
		return field + `"` + strings.Join(p.phrase, " ") + `"`
	case opWildcard:
		return field + p.pattern.String()
	case opNumbers:
		n := p.numbers
		return rangeText(strings.TrimSuffix(field, ":"),
			end{n.Low.Open, n.Low.Inclusive, formatNumber(n.Low.Value)}, end{n.High.Open, n.High.Inclusive, formatNumber(n.High.Value)})
	case opTexts:
		t := p.texts
		return rangeText(strings.TrimSuffix(field, ":"),
			end{t.Low.Open, t.Low.Inclusive, t.Low.Value}, end{t.High.Open, t.High.Inclusive, t.High.Value})
	case opAnd, opOr, opNot:
	}
	return ""
}

// end is one end of a range in words.
type end struct {
	open, inclusive bool
	text            string
}

// rangeText renders a range: a comparison where one end is open and there is a
// field to compare.
func rangeText(field string, low, high end) string {
	equal := func(inclusive bool) string {
		if inclusive {
			return "="
		}
		return ""
	}
	switch {
	case field != "" && low.open && !high.open:
		return field + "<" + equal(high.inclusive) + high.text
	case field != "" && high.open && !low.open:
		return field + ">" + equal(low.inclusive) + low.text
	}
	left, right := "{", "}"
	if low.inclusive {
		left = "["
	}
	if high.inclusive {
		right = "]"
	}
	if low.open {
		left, low.text = "[", "*"
	}
	if high.open {
		right, high.text = "]", "*"
	}
	text := left + low.text + " TO " + high.text + right
	if field != "" {
		text = field + ":" + text
	}
	return text
}
