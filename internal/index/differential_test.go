package index_test

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/index"
)

// newIndex returns an index over the model's fleet as it is.
func newIndex(t *testing.T, m *model) *index.Index {
	t.Helper()
	x := index.New(index.Options{Committer: m, Source: m, Certificates: m, Indexing: withPlaces(), Logger: slog.New(slog.DiscardHandler)})
	m.build(t, x)
	return x
}

// addGroups defines dynamic groups; a query may name earlier ones.
func (m *model) addGroups(t *testing.T, x *index.Index, n int) []event.Envelope {
	t.Helper()
	var out []event.Envelope
	for i := range n {
		name := fmt.Sprintf("dyn-%d", i)
		m.groupOrder = append(m.groupOrder, name)
		out = append(out, m.defineGroup(t, x, name, false))
	}
	return out
}

// defineGroup gives a group a new query.
func (m *model) defineGroup(t *testing.T, x *index.Index, name string, known bool) event.Envelope {
	t.Helper()
	earlier := m.groupOrder[:slices.Index(m.groupOrder, name)]
	for {
		text := m.query(m.random.IntN(3), earlier)
		root, err := parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if _, err := x.ParseThings(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if known && m.groups[name].query == text {
			continue
		}
		m.groups[name] = &modelGroup{query: text, root: root}
		g := event.ThingGroup{Group: name, Query: text, CreatedAt: time.Unix(1, 0)}
		if known {
			return m.envelope(event.ThingGroupUpdated{ThingGroup: g})
		}
		return m.envelope(event.ThingGroupCreated{ThingGroup: g})
	}
}

var onlySeed = flag.Uint64("seed", 0, "the one seed to run TestDifferential with")

// TestDifferential drives random fleets by events and holds every search and
// every dynamic group against the reference evaluator.
func TestDifferential(t *testing.T) {
	t.Parallel()
	seeds := []uint64{0, 1, 2, 3, rand.Uint64()}
	if *onlySeed != 0 {
		seeds = []uint64{*onlySeed}
	}
	for _, seed := range seeds {
		// The last one is new each time; -args -seed repeats it.
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			differential(t, seed, 40, 8_000/slowdown, 40)
		})
	}
}

// TestDynamicGroups is the long run: many groups, more than 100,000 changes.
func TestDynamicGroups(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a long run")
	}
	differential(t, 99, 120, 105_000/slowdown, 60)
}

// differential makes changes and compares a hundred times on the way.
func differential(t *testing.T, seed uint64, fleetSize, changes, groups int) {
	t.Helper()
	m := newModel(seed)
	x := newIndex(t, m)
	batch := m.addGroups(t, x, groups)
	for range changes {
		batch = append(batch, m.change(fleetSize)...)
		if m.random.IntN(400) == 0 {
			batch = append(batch, m.defineGroup(t, x, one(m, m.groupOrder...), true))
		}
		if m.random.IntN(20) != 0 {
			continue
		}
		m.failing = m.random.IntN(50) == 0
		if err := x.Apply(t.Context(), batch); err != nil && !errors.Is(err, errCommit) {
			t.Fatal(err)
		}
		if m.failing {
			m.failing = false
			if err := x.Apply(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		batch = batch[:0]
		if m.random.IntN(1+changes/1000) == 0 {
			m.compare(t, x)
		}
		if m.random.IntN(1+changes/200) == 0 {
			m.restart(t, x)
			m.compare(t, x)
		}
	}
	if err := x.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	m.compare(t, x)
	m.restart(t, x)
	m.compare(t, x)
}

// restarts are the ways in which an index comes back after a restart, each from
// what the model's stores hold; every one is held against the model.
func (m *model) restarts() []func(*testing.T, *index.Index) {
	return []func(*testing.T, *index.Index){m.build}
}

// restart restarts the index in every way: the result is the same index, and no
// membership changes by it.
func (m *model) restart(t *testing.T, x *index.Index) {
	t.Helper()
	for _, again := range m.restarts() {
		before := fmt.Sprint(m.committed)
		again(t, x)
		if after := fmt.Sprint(m.committed); after != before {
			t.Fatalf("the restart changed memberships\n%s", cmp.Diff(before, after))
		}
	}
}

// compare checks groups and some random queries.
func (m *model) compare(t *testing.T, x *index.Index) {
	t.Helper()
	docs, members := m.documents()
	for _, group := range m.groupOrder {
		want := slices.Sorted(maps.Keys(members[group]))
		got, _, err := x.Members(account, group, "", 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("group %s, %s\n got %v\nwant %v", group, m.groups[group].query, got, want)
		}
		if committed := slices.Sorted(maps.Keys(m.committed[group])); !slices.Equal(committed, want) {
			t.Fatalf("group %s committed %v, want %v", group, committed, want)
		}
	}
	for i := range 15 {
		text := m.query(m.random.IntN(4), m.groupOrder)
		if i%5 == 0 {
			text = m.wildcardQuery()
		}
		q, err := x.ParseThings(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		root, err := parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		want := []string{}
		for name, d := range docs {
			holds := d.holds(root)
			if holds {
				want = append(want, name)
			}
			if fleetquery.Eval(root, d.doc) != holds {
				t.Fatalf("%s: the plain evaluator says %v of %s\n%v", text, !holds, name, d.doc.Fields)
			}
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, search(t, x, q, 1+m.random.IntN(30))); diff != "" {
			t.Fatalf("%s\n%s", text, diff)
		}
		if n, err := x.Count(account, q); err != nil || n != len(want) {
			t.Fatalf("%s: count %d %v, want %d", text, n, err, len(want))
		}
	}
}
