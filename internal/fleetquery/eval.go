package fleetquery

import (
	"slices"
	"strings"
)

// Value is one value of a field: text, or a number.
type Value struct {
	Text     string
	Number   float64
	IsNumber bool
}

// Text returns a string value.
func Text(s string) Value { return Value{Text: s} }

// Number returns a numeric value.
func Number(n float64) Value { return Value{Number: n, IsNumber: true} }

// Bool returns a truth value, which is found as the word true or false.
func Bool(b bool) Value {
	if b {
		return Text("true")
	}
	return Text("false")
}

// Attribute returns the values of a registry attribute: its text, and also
// the number when the text is one.
func Attribute(s string) []Value {
	if n, ok := ParseNumber(s); ok {
		return []Value{Text(s), Number(n)}
	}
	return []Value{Text(s)}
}

// Document is a flattened document for the reference evaluator.
type Document struct {
	Fields map[string][]Value
	// Unfielded says which fields a term without a field looks at; nil means
	// all of them.
	Unfielded func(field string) bool
	// LonLat says which fields hold pairs of numbers that begin with the
	// longitude; nil means none.
	LonLat func(field string) bool
}

// Eval decides a query against one document in the plainest way. Indexes are
// tested against it.
func Eval(n Node, d Document) bool {
	switch n := n.(type) {
	case And:
		return !slices.ContainsFunc(n.Nodes, func(c Node) bool { return !Eval(c, d) })
	case Or:
		return slices.ContainsFunc(n.Nodes, func(c Node) bool { return Eval(c, d) })
	case Not:
		return !Eval(n.Node, d)
	case All:
		return true
	case Exists:
		return exists(n.Field, d)
	case Match:
		return anyValue(n.Field, d, func(v Value) bool {
			if v.IsNumber {
				return n.IsNumber && v.Number == n.Number
			}
			return slices.Contains(Words(v.Text), n.Word)
		})
	case Phrase:
		return anyValue(n.Field, d, func(v Value) bool { return !v.IsNumber && HasPhrase(Words(v.Text), n.Words) })
	case Wildcard:
		return anyWord(n.Field, d, n.Pattern.Match)
	case NumberRange:
		return anyValue(n.Field, d, func(v Value) bool { return v.IsNumber && n.Contains(v.Number) })
	case TextRange:
		return anyWord(n.Field, d, n.Contains)
	case Geo:
		return slices.ContainsFunc(places(n.Field, d), n.Area.Contains)
	}
	return false
}

// exists reports whether the field or one below it has a value.
func exists(field string, d Document) bool {
	for name, values := range d.Fields {
		if len(values) > 0 && (name == field || strings.HasPrefix(name, field+".")) {
			return true
		}
	}
	return false
}

// places returns the places that a field holds in any of their forms.
func places(field string, d Document) []Place {
	var texts []string
	var numbers []float64
	for _, v := range d.Fields[field] {
		if v.IsNumber {
			numbers = append(numbers, v.Number)
		} else {
			texts = append(texts, v.Text)
		}
	}
	found := PlacesIn(nil, texts, numbers, d.LonLat != nil && d.LonLat(field))
	lat, hasLat := member(field, LatitudeNames(), d)
	lon, hasLon := member(field, LongitudeNames(), d)
	if p, ok := MakePlace(lat, lon); ok && hasLat && hasLon {
		found = append(found, p)
	}
	return found
}

// member returns the first of the named members that is a number.
func member(field string, names []string, d Document) (float64, bool) {
	for _, name := range names {
		if v := d.Fields[field+"."+name]; len(v) == 1 && v[0].IsNumber {
			return v[0].Number, true
		}
	}
	return 0, false
}

// anyValue reports whether a value of the field, or of any unfielded one when
// field is empty, passes the test.
func anyValue(field string, d Document, test func(Value) bool) bool {
	if field != "" {
		return slices.ContainsFunc(d.Fields[field], test)
	}
	for name, values := range d.Fields {
		if (d.Unfielded == nil || d.Unfielded(name)) && slices.ContainsFunc(values, test) {
			return true
		}
	}
	return false
}

// anyWord reports whether a word of a text value passes the test.
func anyWord(field string, d Document, test func(string) bool) bool {
	return anyValue(field, d, func(v Value) bool { return !v.IsNumber && slices.ContainsFunc(Words(v.Text), test) })
}

// HasPhrase reports whether words contains phrase as a run.
func HasPhrase(words, phrase []string) bool {
	for i := 0; i+len(phrase) <= len(words); i++ {
		if slices.Equal(words[i:i+len(phrase)], phrase) {
			return true
		}
	}
	return false
}
