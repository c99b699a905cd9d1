package index_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
)

// TestFields: the list shows every path with a value, by the types that queries
// and aggregations see.
func TestFields(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	for i := range 4 {
		name := fmt.Sprintf("t%d", i)
		created := thing(name)
		created.Attributes = map[string]string{"floor": fmt.Sprint(i), "site": "oslo"}
		m.apply(t, x, created, reported(name, 1, fmt.Sprintf(`{"on":%v,"load":%d,"mix":["a",%d],"gone":1}`, i%2 == 0, i, i)))
		m.apply(t, x, reported(name, 2, `{"gone":null}`))
	}
	m.apply(t, x, event.ThingGroupCreated{ThingGroup: event.ThingGroup{Group: "north", Description: "all of it"}})
	fields, next, err := x.Fields(account, false, "shadow.reported.", "", 10)
	if err != nil || next != "" {
		t.Fatal(next, err)
	}
	want := []index.Field{
		{Name: "shadow.reported.load", Documents: 4, ByType: map[fleet.FieldType]int{fleet.FieldNumber: 4}, Searchable: true},
		{Name: "shadow.reported.mix", Documents: 4, ByType: map[fleet.FieldType]int{fleet.FieldNumber: 4, fleet.FieldString: 4}, Searchable: true},
		{Name: "shadow.reported.on", Documents: 4, ByType: map[fleet.FieldType]int{fleet.FieldBoolean: 4}, Searchable: true},
	}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Error(diff)
	}
	var names []string
	for after := ""; ; after = next {
		if fields, next, err = x.Fields(account, false, "", after, 3); err != nil || len(fields) > 3 {
			t.Fatal(fields, err)
		}
		for _, f := range fields {
			names = append(names, f.Name)
			if searchable := f.Name != "registry.version" && f.Name != "shadow.version"; f.Searchable != searchable {
				t.Errorf("%s is searchable: %v", f.Name, f.Searchable)
			}
			if f.Name == "attributes.floor" {
				if diff := cmp.Diff(map[fleet.FieldType]int{fleet.FieldString: 4, fleet.FieldNumber: 4}, f.ByType); diff != "" {
					t.Error(diff)
				}
			}
		}
		if next == "" {
			break
		}
	}
	if !slices.IsSorted(names) || !slices.Contains(names, "attributes.site") || slices.Contains(names, "shadow.reported.gone") ||
		slices.Compact(slices.Clone(names))[len(names)-1] != names[len(names)-1] {
		t.Error(names)
	}
	groups, _, err := x.Fields(account, true, "", "", 10)
	if err != nil || len(groups) != 3 || groups[0].Name != "description" {
		t.Error(groups, err)
	}
	if _, _, err := x.Fields(account, false, "", "", 0); fault.CodeOf(err) != fault.InvalidRequest {
		t.Error(err)
	}
	if none, _, err := x.Fields("000000000009", false, "", "", 10); err != nil || len(none) != 0 {
		t.Error(none, err)
	}
}

// TestReport: numbers of documents are exact, memory grows with the fleet and is
// of the size that Go's allocator reports for it.
func TestReport(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	empty := x.Report(account)
	m.apply(t, x, dynamic("oslo", "attributes.site:oslo", 1))
	for i := range 500 {
		created := thing(fmt.Sprintf("thing-%d", i))
		created.Attributes = map[string]string{"site": "oslo", "serial": fmt.Sprintf("SN%08d", i)}
		m.apply(t, x, created)
	}
	r := x.Report(account)
	if r.Things.Documents != 500 || r.Groups.Documents != 1 || r.DynamicGroups != 1 || r.Loading != nil || r.Things.Paths < 6 {
		t.Errorf("%+v", r)
	}
	if empty.Things.Bytes >= r.Things.Bytes || r.Things.Bytes < 500*40 || r.Things.Bytes > 500*2000 {
		t.Errorf("%d bytes, %d before", r.Things.Bytes, empty.Things.Bytes)
	}
	b := x.Build()
	for i := range 3 {
		if err := b.PutThing(account, index.Thing{Name: fmt.Sprint(i)}, nil, index.State{}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(&index.Progress{Things: 3, Expected: 500}, x.Report(account).Loading); diff != "" {
		t.Error(diff)
	}
	b.Abandon()
	if x.Report(account).Loading != nil {
		t.Error("an abandoned build is under way")
	}
}
