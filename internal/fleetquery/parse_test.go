package fleetquery_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// TestTree pins the shape of the tree where evaluation alone would not tell.
func TestTree(t *testing.T) {
	t.Parallel()
	cases := []struct {
		query string
		want  fleetquery.Node
		terms int
	}{
		{"a", fleetquery.Match{Word: "a"}, 1},
		{"f:5", fleetquery.Match{Field: "f", Word: "5", Number: 5, IsNumber: true}, 1},
		{"f:(a b)", fleetquery.And{Nodes: []fleetquery.Node{
			fleetquery.Match{Field: "f", Word: "a"}, fleetquery.Match{Field: "f", Word: "b"},
		}}, 2},
		{"f:[* TO *]", fleetquery.Exists{Field: "f"}, 1},
		{"f:[1 TO b]", fleetquery.TextRange{
			Field: "f",
			Low:   fleetquery.TextBound{Value: "1", Inclusive: true}, High: fleetquery.TextBound{Value: "b", Inclusive: true},
		}, 1},
		{"f>\"5\"", fleetquery.TextRange{
			Field: "f",
			Low:   fleetquery.TextBound{Value: "5"}, High: fleetquery.TextBound{Open: true},
		}, 1},
		{"f:\\AND", nil, 0},
		{"f:\"a \\\"b\\\" c\\d\"", fleetquery.Phrase{Field: "f", Words: []string{"a", `"b"`, `c\d`}}, 1},
	}
	for _, c := range cases {
		got, err := fleetquery.Parse(c.query)
		if c.want == nil {
			if err == nil {
				t.Errorf("%s: accepted", c.query)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.query, err)
			continue
		}
		if diff := cmp.Diff(c.want, got.Root); diff != "" || got.Terms != c.terms {
			t.Errorf("%s: %d terms\n%s", c.query, got.Terms, diff)
		}
	}
}

// TestResolve lets the caller rename and refuse fields.
func TestResolve(t *testing.T) {
	t.Parallel()
	o := fleetquery.Options{Limits: fleetquery.DefaultLimits(), Resolve: func(field string) (string, error) {
		if field == "secret" {
			return "", fault.New(fault.InvalidQuery, "field %q is not indexed", field)
		}
		return strings.TrimPrefix(field, "registry."), nil
	}}
	got, err := o.Parse("registry.thingTypeName:a")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fleetquery.Node(fleetquery.Match{Field: "thingTypeName", Word: "a"}), got.Root); diff != "" {
		t.Error(diff)
	}
	_, err = o.Parse("a AND secret:b")
	if fault.CodeOf(err) != fault.InvalidQuery || !strings.Contains(err.Error(), `field "secret" is not indexed at character 7`) {
		t.Errorf("got %v", err)
	}
}

// TestBytes holds the length to 1000 bytes, not characters (§4.3).
func TestBytes(t *testing.T) {
	t.Parallel()
	if _, err := fleetquery.Parse(strings.Repeat("å", 500)); err != nil {
		t.Errorf("1000 bytes: %v", err)
	}
	if _, err := fleetquery.Parse(strings.Repeat("å", 500) + "a"); fault.CodeOf(err) != fault.InvalidQuery {
		t.Errorf("1001 bytes: %v", err)
	}
	if _, err := fleetquery.Parse("a\xff"); fault.CodeOf(err) != fault.InvalidQuery {
		t.Errorf("invalid UTF-8: %v", err)
	}
}

// TestParseNumber reads JSON numbers and nothing else.
func TestParseNumber(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{"0": 0, "-0": 0, "12": 12, "-1.5": -1.5, "1e3": 1000, "1E-2": 0.01, "9007199254740991": 1<<53 - 1} {
		if got, ok := fleetquery.ParseNumber(text); !ok || got != want {
			t.Errorf("%q: %v %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "-", "+1", "01", ".5", "5.", "1e", "0x10", "NaN", "Inf", "1e999", "1 ", "1_0"} {
		if got, ok := fleetquery.ParseNumber(text); ok {
			t.Errorf("%q: read as %v", text, got)
		}
	}
}
