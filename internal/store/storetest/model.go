package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/muster-iot/muster/internal/store"
)

// model is the contract in its simplest form: maps and slices, one caller.
// Versions are the engine's own choice, so the model knows them by asking.
type model struct {
	values  map[store.Key]string
	log     []int64
	trimmed int
}

// testModel runs random operations on engine and model and compares after
// each. The seed is in the name of a failing test's log.
func testModel(t *testing.T, s Suite) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	place := s.NewPlace(t)
	e := place.open(t)
	m := &model{values: map[store.Key]string{}}
	for step := range 300 {
		switch n := rng.IntN(100); {
		case n < 70:
			m.commit(t, e, rng, step)
		case n < 80:
			m.scan(t, e, rng)
		case n < 86:
			m.trim(t, e, rng)
		case n < 98:
			m.get(t, e, rng)
		default:
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			e = place.open(t)
		}
		if t.Failed() {
			t.Fatalf("at step %d", step)
		}
	}
	m.compare(t, e)
}

// key returns one of few keys, so that operations meet.
func (m *model) key(rng *rand.Rand) store.Key {
	return store.K("k", fmt.Sprintf("%02d", rng.IntN(20)))
}

// commit makes a random batch, with right and wrong expectations.
func (m *model) commit(t *testing.T, e Engine, rng *rand.Rand, step int) {
	t.Helper()
	var b store.Batch
	fails := false
	for range rng.IntN(3) {
		key := m.key(rng)
		record, err := e.Get(t.Context(), key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
		if rng.IntN(5) == 0 {
			record.Version += uint64(1 + rng.IntN(3))
			fails = true
		}
		b.Expect = append(b.Expect, store.Expect{Key: key, Version: record.Version})
	}
	for i := range rng.IntN(5) {
		if key := m.key(rng); rng.IntN(4) == 0 {
			b.Writes = append(b.Writes, Delete(key))
		} else {
			b.Writes = append(b.Writes, Put(key, fmt.Sprintf("%d-%d", step, i)))
		}
	}
	for i := range rng.IntN(4) {
		b.Events = append(b.Events, Fact("m", int64(10*step+i)))
	}
	_, err := e.Commit(t.Context(), b)
	if fails {
		if !errors.Is(err, store.ErrConflict) {
			t.Errorf("commit: %v, want a conflict", err)
		}
		return
	}
	if err != nil {
		t.Errorf("commit: %v", err)
		return
	}
	for _, w := range b.Writes {
		if delete(m.values, w.Key); !w.Delete {
			m.values[w.Key] = string(w.Value)
		}
	}
	for i := range b.Events {
		m.log = append(m.log, int64(10*step+i))
	}
}

// get compares one key.
func (m *model) get(t *testing.T, e Engine, rng *rand.Rand) {
	t.Helper()
	key := m.key(rng)
	want, ok := m.values[key]
	record, err := e.Get(t.Context(), key)
	if ok && (err != nil || string(record.Value) != want) || !ok && !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get %s: %q, %v; want %q, %v", key, record.Value, err, want, ok)
	}
}

// scan compares a random range.
func (m *model) scan(t *testing.T, e Engine, rng *rand.Rand) {
	t.Helper()
	r := store.Range{From: m.key(rng), To: m.key(rng)}
	want := []string{}
	for key := range m.values {
		if key >= r.From && key < r.To {
			want = append(want, key.String())
		}
	}
	slices.Sort(want)
	wantSame(t, "scan", want, keys(content(t, e, r)))
}

// trim cuts the log somewhere.
func (m *model) trim(t *testing.T, e Engine, rng *rand.Rand) {
	t.Helper()
	m.trimmed = max(m.trimmed, rng.IntN(len(m.log)+1))
	if err := e.Trim(t.Context(), store.CursorAt(store.Position{Seq: uint64(m.trimmed)})); err != nil {
		t.Errorf("trim: %v", err)
	}
	m.compare(t, e)
}

// compare looks at everything.
func (m *model) compare(t *testing.T, e Engine) {
	t.Helper()
	got := map[store.Key]string{}
	for _, rec := range content(t, e, store.Range{}) {
		got[rec.Key] = string(rec.Value)
	}
	wantSame(t, "state", m.values, got)
	log := []int64{}
	for _, env := range Log(t, e) {
		_, n := FactOf(t, env)
		log = append(log, n)
	}
	wantSame(t, "log", append([]int64{}, m.log[m.trimmed:]...), log)
	if want := (store.Stats{Events: uint64(len(m.log) - m.trimmed)}); stats(t, e).Events != want.Events {
		t.Errorf("stats count %d events, want %d", stats(t, e).Events, want.Events)
	}
}
