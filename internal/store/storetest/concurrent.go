package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

// engines opens n engines on one place, or one n times where it cannot be
// shared.
func (s Suite) engines(t *testing.T, n int) []Engine {
	t.Helper()
	place := s.NewPlace(t)
	all := make([]Engine, n)
	for i := range all {
		if i > 0 && !s.Shared {
			all[i] = all[0]
			continue
		}
		all[i] = place.open(t)
	}
	return all
}

// Increment adds one to a counter key, with an event that tells the new value,
// and repeats on conflict. It returns the new value.
func Increment(ctx context.Context, e store.Store, key store.Key) (int64, error) {
	for {
		record, err := e.Get(ctx, key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return 0, err
		}
		n, _ := strconv.ParseInt(string(record.Value), 10, 64)
		_, err = e.Commit(ctx, store.Batch{
			Expect: []store.Expect{{Key: key, Version: record.Version}},
			Writes: []store.Write{Put(key, strconv.FormatInt(n+1, 10))},
			Events: []event.Envelope{Fact(string(key), n+1)},
		})
		if err == nil {
			return n + 1, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return 0, err
		}
	}
}

// testCounters: no update is lost when all change the same keys.
func testCounters(t *testing.T, s Suite) {
	t.Helper()
	const writers, rounds = 8, 25
	engines := s.engines(t, writers)
	var wg sync.WaitGroup
	for i, e := range engines {
		wg.Go(func() {
			for r := range rounds {
				if _, err := Increment(t.Context(), e, store.K("counter", strconv.Itoa((i+r)%2))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for _, rec := range content(t, engines[0], store.Under("counter")) {
		n, _ := strconv.Atoi(string(rec.Value))
		total += n
	}
	if total != writers*rounds {
		t.Errorf("counters add up to %d, want %d", total, writers*rounds)
	}
	next := map[string]int64{}
	for _, env := range Log(t, engines[0]) {
		name, n := FactOf(t, env)
		if n != next[name]+1 {
			t.Errorf("event of %q tells %d after %d", name, n, next[name])
		}
		next[name] = n
	}
}

// testFewerThanTen: a guard key keeps a limit under contention.
func testFewerThanTen(t *testing.T, s Suite) {
	t.Helper()
	const limit = 10
	guard := store.K("guard")
	join := func(e Engine, name string) error {
		for {
			record, err := e.Get(t.Context(), guard)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			if len(content(t, e, store.Under("member"))) >= limit-1 {
				return errors.New("full")
			}
			_, err = e.Commit(t.Context(), store.Batch{
				Expect: []store.Expect{{Key: guard, Version: record.Version}, {Key: store.K("member", name)}},
				Writes: []store.Write{Put(guard, ""), Put(store.K("member", name), "")},
			})
			if !errors.Is(err, store.ErrConflict) {
				return err
			}
		}
	}
	engines := s.engines(t, 8)
	var wg sync.WaitGroup
	for i, e := range engines {
		wg.Go(func() {
			for n := range 4 {
				_ = join(e, fmt.Sprintf("%d-%d", i, n)) // most find it full
			}
		})
	}
	wg.Wait()
	if n := len(content(t, engines[0], store.Under("member"))); n != limit-1 {
		t.Errorf("%d members, want %d", n, limit-1)
	}
}

// testNoHalfBatch: who has read one record of a batch is not given another one
// from before it, whether the first is new or not.
func testNoHalfBatch(t *testing.T, s Suite) {
	t.Helper()
	const rounds = 300
	e := s.fresh(t)
	fresh := func(n int) store.Key { return store.K("fresh", strconv.Itoa(n)) }
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put("kept", "0")}})
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := 1; n <= rounds; {
				_, err := e.Get(t.Context(), fresh(n))
				if errors.Is(err, store.ErrNotFound) {
					select {
					case <-done:
						return
					default:
						continue
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
				record, err := e.Get(t.Context(), "kept")
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := strconv.Atoi(string(record.Value)); err != nil || got < n {
					t.Errorf("record %d of a batch is there, and the other one is %q", n, record.Value)
					return
				}
				n++
			}
		})
	}
	for n := range rounds {
		MustCommit(t, e, store.Batch{Writes: []store.Write{Put(fresh(n+1), ""), Put("kept", strconv.Itoa(n+1))}})
	}
	close(done)
	wg.Wait()
}

func testSnapshotIsolation(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	p := MustCommit(t, e, store.Batch{Writes: []store.Write{Put("a", "1"), Put("b", "1")}, Events: []event.Envelope{Fact("x", 1)}})
	snap, err := e.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put("a", "2"), Delete("b"), Put("c", "2")}, Events: []event.Envelope{Fact("x", 2)}})
	if got := mustGet(t, snap, "a"); string(got.Value) != "1" {
		t.Errorf("snapshot sees %q", got.Value)
	}
	wantSame(t, "keys of the snapshot", []string{"a", "b"}, keys(content(t, snap, store.Range{})))
	if _, err := snap.Get(t.Context(), "c"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("snapshot sees a later key: %v", err)
	}
	wantSame(t, "cursor", store.CursorAt(p).String(), snap.Cursor().String())
	if err := snap.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	wantSame(t, "keys of the store", []string{"a", "c"}, keys(content(t, e, store.Range{})))
}

// testSnapshotAgreesWithLog: state and cursor of a snapshot are of one moment,
// and the events behind the cursor lead from one to the other.
func testSnapshotAgreesWithLog(t *testing.T, s Suite) {
	t.Helper()
	const writers, rounds = 4, 40
	engines := s.engines(t, writers+1)
	e := engines[writers]
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range rounds {
				if _, err := Increment(t.Context(), engines[i], store.K("c", strconv.Itoa(i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		snap, err := e.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sum := uint64(0)
		for _, rec := range content(t, snap, store.Under("c")) {
			n, _ := strconv.ParseUint(string(rec.Value), 10, 64)
			sum += n
		}
		if got := snap.Cursor().Seq(0); got != sum {
			t.Errorf("snapshot counts %d increments and its cursor %d", sum, got)
		}
		if err := snap.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// testEventsOnceAndInOrder: eight writers, and readers on other engines that
// follow by cursor, see every event once, without gaps, in the writers' order.
func testEventsOnceAndInOrder(t *testing.T, s Suite) {
	t.Helper()
	const writers, rounds = 8, 60
	engines := s.engines(t, writers+2)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for r := range rounds {
				b := store.Batch{
					Writes: []store.Write{Put(store.K("w", strconv.Itoa(i)), strconv.Itoa(r))},
					Events: []event.Envelope{Fact(strconv.Itoa(i), int64(2*r)), Fact(strconv.Itoa(i), int64(2*r+1))},
				}
				if _, err := engines[i].Commit(t.Context(), b); err != nil {
					t.Error(err)
					return
				}
				if b.Events[1].Seq != b.Events[0].Seq+1 {
					t.Errorf("events of one batch are at %d and %d", b.Events[0].Seq, b.Events[1].Seq)
				}
			}
		})
	}
	for _, reader := range []Engine{engines[0], engines[writers], engines[writers+1]} {
		wg.Go(func() { follow(t, reader, 2*writers*rounds) })
	}
	wg.Wait()
}

// follow reads n events and checks them.
func follow(t *testing.T, e Engine, n int) {
	t.Helper()
	var at store.Cursor
	next := map[string]int64{}
	for seen := 0; seen < n; {
		if err := e.Wait(t.Context(), at); err != nil {
			t.Errorf("wait: %v", err)
			return
		}
		part, cursor, err := e.Events(t.Context(), at, 17)
		if err != nil {
			t.Errorf("events: %v", err)
			return
		}
		for _, env := range part {
			if seen++; env.Seq != uint64(seen) {
				t.Errorf("event %d where %d belongs", env.Seq, seen)
				return
			}
			name, i := FactOf(t, env)
			if i != next[name] {
				t.Errorf("writer %s: event %d where %d belongs", name, i, next[name])
				return
			}
			next[name]++
		}
		at = cursor
	}
}
