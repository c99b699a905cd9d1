package shadow

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
)

// seeds adds the requests of all scripts.
func seeds(f *testing.F, add func(body []byte)) {
	f.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, section := range txtar.Parse(data).Files {
			if len(section.Name) >= 6 && section.Name[:6] == "update" {
				add(bytes.TrimSpace(section.Data))
			}
		}
	}
}

// FuzzRequest compares the parser with the standard library's: what is
// accepted is JSON with the same meaning, and its normal form is a fixed point.
func FuzzRequest(f *testing.F) {
	seeds(f, func(body []byte) { f.Add(body) })
	f.Add([]byte(`{"state":{"reported":{"a":"\ud83d\ude00\u0000"}},"version":1e0}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseRequest(body, 7, Limits{}.withDefaults())
		if err != nil {
			return
		}
		var outer struct {
			State json.RawMessage `json:"state"`
		}
		if !json.Valid(body) {
			t.Fatalf("accepted text that is no JSON: %q", body)
		}
		u := &Updated{patch: r}
		normal := u.appendPatch(nil)
		if !json.Valid(normal) {
			t.Fatalf("normal form is no JSON: %q", normal)
		}
		again, err := parseRequest(append(append([]byte(`{"state":`), normal...), '}'), 7, Limits{}.withDefaults())
		if err != nil {
			t.Fatalf("normal form %q refused: %v", normal, err)
		}
		if twice := (&Updated{patch: again}).appendPatch(nil); !bytes.Equal(normal, twice) {
			t.Fatalf("normal form is no fixed point: %q, then %q", normal, twice)
		}
		if bytes.Count(body, []byte("tate")) != 1 || bytes.Contains(body, []byte(`\`)) {
			return // the standard library folds case and merges repeated members
		}
		if err := json.Unmarshal(body, &outer); err != nil || outer.State == nil {
			return
		}
		if !reflect.DeepEqual(generic(t, outer.State), generic(t, normal)) {
			t.Fatalf("meaning changed: %s became %s", outer.State, normal)
		}
	})
}

// generic decodes with number text kept.
func generic(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// FuzzMerge checks the algebra of updates on any two accepted requests.
func FuzzMerge(f *testing.F) {
	var last []byte
	seeds(f, func(body []byte) {
		f.Add(last, body)
		last = body
	})
	limits := Limits{StateBytes: 1 << 20}.withDefaults()
	f.Fuzz(func(t *testing.T, first, second []byte) {
		a, errA := parseRequest(first, 100, limits)
		b, errB := parseRequest(second, 200, limits)
		if errA != nil || errB != nil {
			return
		}
		a.version, b.version = -1, -1
		one := mustUpdate(t, absent(), &a, limits)
		before := string(one.current)
		two := mustUpdate(t, one, &b, limits)
		three := mustUpdate(t, two, &b, limits)
		if string(one.current) != before {
			t.Fatal("an update changed the document it started from")
		}
		if got, want := state(three), state(two); got != want {
			t.Fatalf("applying a patch twice: %s, then %s", want, got)
		}
		for _, d := range []*document{one, two, three} {
			checkDocument(t, d)
		}
		// A device that takes the delta over as it is has no delta left.
		reported := merge(two.reported, two.delta)
		if rest := difference(two.desired, reported); len(rest) > 0 {
			t.Fatalf("delta %s applied to reported leaves %s", appendMembers(nil, two.delta), appendMembers(nil, rest))
		}
		// Desired as a report over nothing is desired.
		if got, want := appendMembers(nil, merge(nil, two.desired)), appendMembers(nil, two.desired); !bytes.Equal(got, want) {
			t.Fatalf("merge onto nothing: %s, want %s", got, want)
		}
	})
}

func mustUpdate(t *testing.T, d *document, r *request, limits Limits) *document {
	t.Helper()
	next, err := d.update(r, time.Unix(100*(d.version+1), 5), limits)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func state(d *document) string { return string(appendSections(nil, d.desired, d.reported)) }

// checkDocument checks what holds for every stored document: it survives its
// stored form, holds no nulls, and its metadata mirrors it.
func checkDocument(t *testing.T, d *document) {
	t.Helper()
	back, err := decodeRecord(encodeRecord(d))
	if err != nil {
		t.Fatalf("record of %s: %v", d.current, err)
	}
	if !bytes.Equal(back.current, d.current) || back.at != d.at {
		t.Fatalf("record changed the document from %s to %s", d.current, back.current)
	}
	if !sameRecord(encodeRecord(d), d) {
		t.Fatalf("record of %s is not recognised", d.current)
	}
	for _, kids := range [][]node{d.desired, d.reported} {
		text, _ := size(kids)
		if got := len(appendMembers(nil, kids)); got != text {
			t.Fatalf("size = %d, text has %d bytes", text, got)
		}
		checkTree(t, kids)
		mirrors(t, generic(t, appendMembers(nil, kids)), generic(t, (&stamp{}).members(nil, kids)))
	}
}

func checkTree(t *testing.T, kids []node) {
	t.Helper()
	for i, k := range kids {
		if k.kind == kindNull || k.nulls {
			t.Fatalf("stored tree holds a null at %q", k.key)
		}
		if i > 0 && kids[i-1].key >= k.key {
			t.Fatalf("members %q and %q are out of order", kids[i-1].key, k.key)
		}
		if k.kind == kindObject {
			checkTree(t, k.kids)
		}
	}
}

// mirrors checks that metadata has the shape of state.
func mirrors(t *testing.T, state, metadata any) {
	t.Helper()
	switch s := state.(type) {
	case map[string]any:
		m, ok := metadata.(map[string]any)
		if !ok || len(m) != len(s) {
			t.Fatalf("metadata %v does not mirror %v", metadata, state)
		}
		for k, v := range s {
			mirrors(t, v, m[k])
		}
	case []any:
		if m, ok := metadata.([]any); !ok || len(m) != len(s) {
			t.Fatalf("metadata %v does not mirror %v", metadata, state)
		}
	default:
		m, ok := metadata.(map[string]any)
		if _, at := m["timestamp"].(json.Number); !ok || !at || len(m) != 1 {
			t.Fatalf("metadata of leaf %v is %v", state, metadata)
		}
	}
}

// FuzzRecord feeds the decoder of stored values.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"v":1,"version":8,"at":1795412345000000000,"desired":{"a":[1]},"reported":{"b":{"c":1}},"ages":[0,3]}`))
	f.Add([]byte(`{"v":1,"version":8,"at":1795412345000000000,"deleted":true}`))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		d, err := decodeRecord(value)
		if err != nil {
			return
		}
		if !json.Valid(d.current) {
			t.Fatalf("document of %q is no JSON: %q", value, d.current)
		}
	})
}
