package index_test

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/store"
)

// Compare tells every difference once, whatever page it lies on and whichever
// side has more documents.
func TestCompareFindsEachDifference(t *testing.T) {
	t.Parallel()
	const things = 2600
	build := func(leave func(i int) bool, site func(i int) string) *index.Index {
		d := &discard{}
		x := index.New(index.Options{Committer: d, Source: d, Logger: slog.New(slog.DiscardHandler)})
		b := x.Build()
		for i := range things {
			if leave(i) {
				continue
			}
			thing := index.Thing{Name: fmt.Sprintf("t-%04d", i), ID: "id", Version: 1, Attributes: map[string]string{"site": site(i)}}
			if err := b.PutThing(account, thing, nil, index.State{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Finish(t.Context(), store.Cursor{}); err != nil {
			t.Fatal(err)
		}
		return x
	}
	leeds := func(int) string { return "leeds" }
	want := build(func(i int) bool { return i == 17 || i == 2599 }, leeds)
	have := build(func(i int) bool { return i < 1500 && i != 17 || i == 2000 }, func(i int) string {
		if i == 2500 {
			return "york"
		}
		return "leeds"
	})
	got := map[string]string{}
	if n := have.Compare(want, func(d index.Difference) {
		if _, twice := got[d.Document]; twice {
			t.Errorf("%s is told twice", d.Document)
		}
		got[d.Document] = d.Path + ": " + d.Have + ", " + d.Want
	}); n != things-2 {
		t.Errorf("looked at %d documents", n)
	}
	expected := map[string]string{
		"t-0017": ": present, absent", "t-2000": ": absent, present", "t-2599": ": present, absent",
		"t-2500": `attributes.site: ["york"] [], ["leeds"] []`,
	}
	for i := range 1500 {
		if i != 17 {
			expected[fmt.Sprintf("t-%04d", i)] = ": absent, present"
		}
	}
	if diff := cmp.Diff(expected, got); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
	have.Compare(have, func(d index.Difference) { t.Errorf("an index differs from itself: %+v", d) })
}
