package index_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/store"
)

// proofAt is a proof that any log passes.
func proofAt(cursor store.Cursor) (index.Proof, error) {
	return index.Proof{Cursor: cursor.String()}, nil
}

func trust(index.Proof) error { return nil }

// stored visits the model's durable memberships.
func (m *model) stored(_ context.Context, visit func(fleet.Account, string, string) error) error {
	for _, group := range slices.Sorted(maps.Keys(m.committed)) {
		for _, thing := range slices.Sorted(maps.Keys(m.committed[group])) {
			if m.committed[group][thing] {
				if err := visit(account, group, thing); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// restartable is an index that can begin with a snapshot.
func (m *model) restartable() *index.Index {
	return index.New(index.Options{Committer: m, Source: m, Certificates: m, Indexing: withPlaces(), Stored: m.stored, Logger: slog.New(slog.DiscardHandler)})
}

// TestRestartFromSnapshots kills an index again and again, often while what it has
// decided is not durable. The next one begins with an older snapshot, follows the
// log in other steps, and is then the index that a build from the stores gives; the
// durable memberships become those of the model, by changes only.
func TestRestartFromSnapshots(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := newModel(seed)
			m.repeats = true
			x := m.restartable()
			m.build(t, x)
			log := m.addGroups(t, x, 30)
			var snapshot bytes.Buffer
			apply := func(events []event.Envelope) {
				t.Helper()
				if err := x.Apply(t.Context(), events); err != nil && !errors.Is(err, errCommit) {
					t.Fatal(err)
				}
			}
			apply(log)
			for round := range 10 / min(slowdown, 4) {
				if round%3 != 2 { // else it begins with the one before
					snapshot.Reset()
					if _, err := x.WriteSnapshot(&snapshot, proofAt); err != nil {
						t.Fatal(err)
					}
				}
				for range 30 {
					m.failing = m.random.IntN(3) == 0
					from := len(log)
					for range 1 + m.random.IntN(20) {
						log = append(log, m.change(40)...)
					}
					if m.random.IntN(10) == 0 {
						log = append(log, m.defineGroup(t, x, one(m, m.groupOrder...), true))
					}
					apply(log[from:])
				}
				m.failing = false

				x = m.restartable()
				cursor, err := x.ReadSnapshot(bytes.NewReader(snapshot.Bytes()), int64(snapshot.Len()), store.CursorAt(store.Position{Seq: m.seq}), trust)
				if err != nil {
					t.Fatal(err)
				}
				for tail := log[cursor.Seq(0):]; len(tail) > 0; {
					n := 1 + m.random.IntN(min(200, len(tail)))
					apply(tail[:n])
					tail = tail[n:]
				}
				// One that was written at the end has nothing to follow.
				apply(nil)
				m.compare(t, x)
				same(t, m, x)
			}
		})
	}
}

// same compares an index with one that is built from the stores.
func same(t *testing.T, m *model, x *index.Index) {
	t.Helper()
	before := fmt.Sprint(m.committed)
	fresh := newIndex(t, m)
	if after := fmt.Sprint(m.committed); after != before {
		t.Errorf("what is durable is not what a build decides\n%s", cmp.Diff(before, after))
	}
	x.Compare(fresh, func(d index.Difference) { t.Errorf("%+v", d) })
}

// A snapshot that was damaged anywhere, or belongs elsewhere, is refused and
// changes nothing.
func TestDamagedSnapshots(t *testing.T) {
	t.Parallel()
	m := newModel(3)
	x := m.restartable()
	m.build(t, x)
	batch := m.addGroups(t, x, 20)
	for range 500 {
		batch = append(batch, m.change(40)...)
	}
	if err := x.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := x.WriteSnapshot(&out, proofAt); err != nil {
		t.Fatal(err)
	}
	whole := out.Bytes()
	refuse := func(what string, data []byte) {
		t.Helper()
		y := m.restartable()
		if _, err := y.ReadSnapshot(bytes.NewReader(data), int64(len(data)), store.Cursor{}, trust); err == nil {
			t.Errorf("%s was taken", what)
		}
		if y.Status() != index.Building {
			t.Errorf("%s left an index", what)
		}
	}
	random := rand.New(rand.NewPCG(1, 1))
	for i := range 240 / slowdown {
		at := random.IntN(len(whole))
		if i < 60 {
			at = i
		}
		damaged := bytes.Clone(whole)
		damaged[at] ^= 1 << random.IntN(8)
		refuse(fmt.Sprintf("a flipped bit at %d of %d", at, len(whole)), damaged)
		refuse(fmt.Sprintf("the first %d bytes", at), whole[:at])
	}
	refuse("one with more behind", append(bytes.Clone(whole), 0))
	foreign := errors.New("foreign")
	if _, err := m.restartable().ReadSnapshot(bytes.NewReader(whole), int64(len(whole)), store.Cursor{}, func(index.Proof) error { return foreign }); !errors.Is(err, foreign) {
		t.Errorf("a foreign snapshot: %v", err)
	}
	limited := index.New(index.Options{Committer: m, Source: m, Certificates: m, Indexing: withPlaces(), GroupLimit: 10, Logger: slog.New(slog.DiscardHandler)})
	if _, err := limited.ReadSnapshot(bytes.NewReader(whole), int64(len(whole)), store.Cursor{}, trust); err == nil {
		t.Error("a snapshot under another group limit was taken")
	}
}

// FuzzReadSnapshot looks for damage that passes the checksums, as of another
// program's mistake.
func FuzzReadSnapshot(f *testing.F) {
	m := newModel(5)
	x := m.restartable()
	b := x.Build()
	if err := b.PutThing(account, index.Thing{Name: "a", Attributes: map[string]string{"site": "York Mill", "n": "1"}}, []string{"g"}, index.State{
		Shadows: []index.Shadow{{Version: 1, Reported: []byte(`{"list":[1,2,"x y"],"b":true}`)}},
	}); err != nil {
		f.Fatal(err)
	}
	b.PutGroup(account, index.Group{Name: "d", Query: "attributes.site:york", CreatedAt: time.Unix(1, 0)})
	if err := b.Finish(context.Background(), store.Cursor{}); err != nil {
		f.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := x.WriteSnapshot(&out, proofAt); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		index.SealSnapshot(data)
		y := m.restartable()
		if _, err := y.ReadSnapshot(bytes.NewReader(data), int64(len(data)), store.Cursor{}, trust); err != nil {
			return
		}
		for _, text := range []string{"*", "york", "attributes.n>0", "thingGroupNames:d", `"x y"`} {
			q, err := y.ParseThings(text)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := y.Search(account, q, "", 10); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// BenchmarkSnapshot writes and reads 100,000 devices.
func BenchmarkSnapshot(b *testing.B) {
	const devices = 100_000
	x, d := benchFleet(b, devices)
	var out bytes.Buffer
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			out.Reset()
			if _, err := x.WriteSnapshot(&out, proofAt); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(out.Len())/devices, "bytes/device")
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			y := index.New(index.Options{Committer: d, Source: d, Logger: slog.New(slog.DiscardHandler)})
			if _, err := y.ReadSnapshot(bytes.NewReader(out.Bytes()), int64(out.Len()), store.Cursor{}, trust); err != nil {
				b.Fatal(err)
			}
		}
	})
}
