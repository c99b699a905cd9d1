package index

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// TestFlatten pins the value rules of §4.2.
func TestFlatten(t *testing.T) {
	t.Parallel()
	var r reader
	leaves, err := r.flatten([]byte(`{"a":{"b":"Up","c":[1,"X",true]},"n":null,"bad":[1,{"x":2}],"deep":[[1]],"nil":[1,null],"none":[],"o":{},"a.b":-1.5e1,"e":"\u00C5\ud83d\ude00\ud800"}`))
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Path    string
		Kind    leafKind
		Texts   []string
		Numbers []float64
	}
	var got []row
	for _, l := range leaves {
		got = append(got, row{string(l.path), l.kind, slices.Clone(l.texts), slices.Clone(l.numbers)})
	}
	none, noNumbers := []string{}, []float64{}
	want := []row{
		{"a", leafObject, none, noNumbers},
		{"a.b", leafValue, []string{"up"}, noNumbers},
		{"a.c", leafValue, []string{"x", "true"}, []float64{1}},
		{"n", leafNull, none, noNumbers},
		{"bad", leafOpaque, none, noNumbers},
		{"deep", leafOpaque, none, noNumbers},
		{"nil", leafOpaque, none, noNumbers},
		{"none", leafOpaque, none, noNumbers},
		{"o", leafObject, none, noNumbers},
		{"a.b", leafValue, none, []float64{-15}},
		{"e", leafValue, []string{"å😀\ufffd"}, noNumbers},
	}
	equateEmpty := cmp.Transformer("strings", func(s []string) string { return strings.Join(s, "|") })
	equateNumbers := cmp.Transformer("numbers", func(n []float64) string { return string(mustText(n)) })
	if diff := cmp.Diff(want, got, equateEmpty, equateNumbers); diff != "" {
		t.Error(diff)
	}
	for _, text := range []string{`{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `{"a":01}`, `{"a":"\x"}`, `{"a":1} x`, "{\"a\":\"\n\"}", `{"a":tru}`, strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)} {
		if _, err := r.flatten([]byte(text)); err == nil {
			t.Errorf("%s: accepted", text)
		}
	}
}

// mustText renders numbers for a comparison.
func mustText(n []float64) []byte {
	text, err := json.Marshal(append([]float64{}, n...))
	if err != nil {
		panic(err)
	}
	return text
}

// FuzzFlatten checks that the reader accepts what encoding/json accepts,
// within its depth, and sees the same scalars.
func FuzzFlatten(f *testing.F) {
	for _, seed := range []string{
		`{"a":{"b":[1,"x",true,null]},"c":"\u00e5\n"}`, `[]`, `"x"`, `{"a":1e400}`, `{"a":-0.0}`, ` {"" : {"":1}} `, `nul`, `{"a":[[{}]]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		var r reader
		leaves, err := r.flatten(doc)
		if bytes.Count(doc, []byte("{"))+bytes.Count(doc, []byte("[")) > maxJSONDepth || len(bytes.TrimSpace(doc)) == 0 || bytes.ContainsAny(doc, "eE") {
			return // depth and the range of doubles are our own limits
		}
		if (err == nil) != json.Valid(doc) {
			t.Fatalf("%q: %v", doc, err)
		}
		if err != nil || !utf8.Valid(doc) {
			return
		}
		var tree any
		if err := json.Unmarshal(doc, &tree); err != nil {
			return
		}
		want, got := map[string]bool{}, map[string]bool{}
		collect(want, "", tree)
		for _, l := range leaves {
			if l.kind != leafObject {
				got[string(l.path)] = true
			}
		}
		for path := range maps.Keys(want) {
			if !got[path] {
				t.Fatalf("%q: no leaf at %q", doc, path)
			}
		}
	})
}

// collect names the leaves of a tree.
func collect(paths map[string]bool, at string, v any) {
	if object, ok := v.(map[string]any); ok {
		for key, child := range object {
			if at != "" {
				key = at + "." + key
			}
			collect(paths, key, child)
		}
		return
	}
	if at != "" {
		paths[at] = true
	}
}
