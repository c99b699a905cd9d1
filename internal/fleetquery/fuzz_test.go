package fleetquery_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// FuzzParse checks that any text either fails as InvalidQuery or gives a tree
// within the limits whose negation decides the opposite.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"a", "f:a*b?", `f:"x y" AND (a OR -b)`, "f:[1 TO 2} g>=5", `a\:b`, "NOT f:*", "*", "((", "f:geo_distance,1,2,3km", "f:geo_bounding_box,1,170,-1,-170 NOT g:geo_distance,90,0,0m",
	} {
		f.Add(seed, "pump 1")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		q, err := fleetquery.Parse(text)
		if err != nil {
			if fault.CodeOf(err) != fault.InvalidQuery {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		leaves := 0
		fleetquery.Walk(q.Root, func(n fleetquery.Node) {
			switch n.(type) {
			case fleetquery.And, fleetquery.Or, fleetquery.Not:
			default:
				leaves++
			}
		})
		if leaves != q.Terms || leaves > fleetquery.MaxTerms || leaves == 0 {
			t.Fatalf("%q: %d leaves, %d terms", text, leaves, q.Terms)
		}
		doc := fleetquery.Document{Fields: map[string][]fleetquery.Value{"f": fleetquery.Attribute(value)}}
		if fleetquery.Eval(q.Root, doc) == fleetquery.Eval(fleetquery.Not{Node: q.Root}, doc) {
			t.Fatalf("%q: both it and its negation hold", text)
		}
	})
}

// FuzzPattern checks wildcard matching against a plain recursive definition.
func FuzzPattern(f *testing.F) {
	f.Add("a*b?c", "axxbyc")
	f.Add("*a*", "bab")
	f.Add("a*ab", "aabab")
	f.Fuzz(func(t *testing.T, pattern, word string) {
		if len(word) > 30 || !utf8.ValidString(word) {
			return
		}
		q, err := fleetquery.Parse("f:" + pattern)
		if err != nil {
			return
		}
		w, ok := q.Root.(fleetquery.Wildcard)
		if !ok || strings.ContainsRune(pattern, '\\') {
			return
		}
		word = fleetquery.Fold(word)
		if got, want := w.Pattern.Match(word), plainMatch([]rune(w.Pattern.String()), []rune(word)); got != want {
			t.Fatalf("%q against %q: got %v, want %v", pattern, word, got, want)
		}
	})
}

// plainMatch is the definition of * and ?.
func plainMatch(pattern, word []rune) bool {
	switch {
	case len(pattern) == 0:
		return len(word) == 0
	case pattern[0] == '*':
		return plainMatch(pattern[1:], word) || (len(word) > 0 && plainMatch(pattern, word[1:]))
	case len(word) == 0:
		return false
	}
	return (pattern[0] == '?' || pattern[0] == word[0]) && plainMatch(pattern[1:], word[1:])
}

// FuzzPlace checks that a text is a place within the earth or none, and that a
// place is in the smallest circle around it and in the box of its degrees.
func FuzzPlace(f *testing.F) {
	for _, seed := range []string{"59.91,10.75", "POINT(10.75 59.91)", " point ( -180 90 ) ", "91,0", "NaN,1", "1e-300,180", "POINT(1 2 3)"} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, text string, lonLat bool) {
		p, ok := fleetquery.ParsePlace(text, lonLat)
		if !ok {
			return
		}
		if again, ok := fleetquery.MakePlace(p.Lat, p.Lon); !ok || again != p {
			t.Fatalf("%q: %v is no place", text, p)
		}
		areas := []fleetquery.Area{fleetquery.NewCircle(p, 0), fleetquery.Box{North: p.Lat, South: p.Lat, West: p.Lon, East: p.Lon}}
		for _, area := range areas {
			if !area.Contains(p) {
				t.Fatalf("%q: %v is outside %+v", text, p, area)
			}
		}
	})
}
