package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

func testReadAndWrite(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	key := store.K("acct", "thing", "lamp")
	if _, err := e.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("get of nothing: %v, want ErrNotFound", err)
	}
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put(key, "one")}})
	first := mustGet(t, e, key)
	if string(first.Value) != "one" || first.Key != key || first.Version == 0 {
		t.Fatalf("record is %+v", first)
	}
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put(key, "two")}})
	second := mustGet(t, e, key)
	if string(second.Value) != "two" || second.Version <= first.Version {
		t.Fatalf("after %+v the record is %+v", first, second)
	}
	MustCommit(t, e, store.Batch{Writes: []store.Write{Delete(key), Delete("never was")}})
	if _, err := e.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("get of a deleted key: %v, want ErrNotFound", err)
	}
	MustCommit(t, e, store.Batch{Writes: []store.Write{{Key: key}}})
	third := mustGet(t, e, key)
	if len(third.Value) != 0 || third.Version <= second.Version {
		t.Fatalf("re-created after version %d, the record is %+v", second.Version, third)
	}
	writes := []store.Write{Put(key, "four"), Put("other", "one"), Delete("never was")}
	MustCommit(t, e, store.Batch{Writes: writes})
	for _, w := range writes[:2] {
		if got := mustGet(t, e, w.Key); w.Version != got.Version {
			t.Errorf("commit gave version %d to %q, the record has %d", w.Version, w.Key, got.Version)
		}
	}
	// The last write of a key in a batch counts.
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put(key, "a"), Delete(key), Put(key, "b")}})
	if got := mustGet(t, e, key); string(got.Value) != "b" {
		t.Errorf("value is %q, want the last one of the batch", got.Value)
	}
}

func testExpectations(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put("there", "x"), Put("gone", "x")}})
	MustCommit(t, e, store.Batch{Writes: []store.Write{Delete("gone")}})
	version := mustGet(t, e, "there").Version
	for _, c := range []struct {
		name   string
		expect []store.Expect
		// failing is the key that the conflict names; empty for success.
		failing store.Key
	}{
		{"none exists", []store.Expect{{Key: "new"}}, ""},
		{"deleted does not exist", []store.Expect{{Key: "gone"}}, ""},
		{"exact version", []store.Expect{{Key: "there", Version: version}}, ""},
		{"exists", []store.Expect{{Key: "there"}}, "there"},
		{"older version", []store.Expect{{Key: "there", Version: version - 1}}, "there"},
		{"newer version", []store.Expect{{Key: "there", Version: version + 1}}, "there"},
		{"version of nothing", []store.Expect{{Key: "new", Version: version}}, "new"},
		{"second fails", []store.Expect{{Key: "there", Version: version}, {Key: "new", Version: 1}}, "new"},
	} {
		_, err := e.Commit(t.Context(), store.Batch{Expect: c.expect, Writes: []store.Write{Put("mark", c.name)}})
		if c.failing == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			} else if got := mustGet(t, e, "mark"); string(got.Value) != c.name {
				t.Errorf("%s: not applied", c.name)
			}
			continue
		}
		wantConflict(t, err, c.failing)
		if got := mustGet(t, e, "mark"); string(got.Value) == c.name {
			t.Errorf("%s: applied in spite of the conflict", c.name)
		}
	}
}

func testFailedBatch(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put("a", "1")}, Events: []event.Envelope{Fact("x", 1)}})
	_, err := e.Commit(t.Context(), store.Batch{
		Expect: []store.Expect{{Key: "a"}},
		Writes: []store.Write{Put("a", "2"), Put("b", "2")},
		Events: []event.Envelope{Fact("x", 2)},
	})
	wantConflict(t, err, "a")
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put("c", "3")}, Events: []event.Envelope{Fact("x", 3)}})
	wantSame(t, "keys", []string{"a", "c"}, keys(content(t, e, store.Range{})))
	var got []int64
	for _, env := range Log(t, e) {
		_, n := FactOf(t, env)
		got = append(got, n)
	}
	wantSame(t, "log", []int64{1, 3}, got)
}

func testUnstorableEvent(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	bad := Fact("x", 1)
	bad.Event = event.ShadowUpdated{Thing: "x", Patch: []byte("{")}
	for _, env := range []event.Envelope{bad, {}} {
		if _, err := e.Commit(t.Context(), store.Batch{Writes: []store.Write{Put("bad", "")}, Events: []event.Envelope{env}}); err == nil {
			t.Fatal("an event without a stored form was committed")
		}
	}
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put("good", "")}, Events: []event.Envelope{Fact("x", 2)}})
	wantSame(t, "keys", []string{"good"}, keys(content(t, e, store.Range{})))
	if n := len(Log(t, e)); n != 1 {
		t.Errorf("log has %d events, want 1", n)
	}
}

func testBigBatch(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	var b store.Batch
	for i := range 2500 {
		key := store.K("big", fmt.Sprintf("%05d", i))
		b.Expect = append(b.Expect, store.Expect{Key: key})
		b.Writes = append(b.Writes, Put(key, strings.Repeat("v", 1000)))
		b.Events = append(b.Events, Fact("big", int64(i)))
	}
	p := MustCommit(t, e, b)
	if p.Seq != 2500 || len(content(t, e, store.Under("big"))) != 2500 || len(Log(t, e)) != 2500 {
		t.Errorf("position is %+v, or state or log is incomplete", p)
	}
	for i := range b.Writes {
		b.Writes[i] = Delete(b.Writes[i].Key)
	}
	b.Expect, b.Events = nil, nil
	MustCommit(t, e, b)
	if left := content(t, e, store.Range{}); len(left) != 0 {
		t.Errorf("%d records are left after their deletion", len(left))
	}
}

func testGetMany(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put("a", "1"), Put("c", "3")}})
	asked := []store.Key{"c", "b", "a", "c"}
	snap, err := e.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	for name, r := range map[string]store.Reader{"store": e, "snapshot": snap} {
		got, err := r.GetMany(t.Context(), asked)
		if err != nil {
			t.Fatal(err)
		}
		var summary []string
		for _, rec := range got {
			summary = append(summary, fmt.Sprintf("%s=%s %v", rec.Key, rec.Value, rec.Version != 0))
		}
		wantSame(t, name, []string{"c=3 true", "b= false", "a=1 true", "c=3 true"}, summary)
		if none, err := r.GetMany(t.Context(), nil); err != nil || len(none) != 0 {
			t.Errorf("%s: no keys give %v, %v", name, none, err)
		}
	}
}

func testScan(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	all := []store.Key{
		store.K("a"), store.K("a", ""), store.K("a", "x"), store.K("a", "x", "deep"), store.K("a", "y"),
		store.K("a!"), store.K("ab", "x"), store.K("b"), "\xff\xfe",
	}
	var b store.Batch
	for _, key := range all {
		b.Writes = append(b.Writes, Put(key, "of "+key.String()))
	}
	MustCommit(t, e, b)
	snap, err := e.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	for _, c := range []struct {
		name string
		r    store.Range
		want []string
	}{
		{"all", store.Range{}, []string{"a", "a/", "a/x", "a/x/deep", "a/y", "a!", "ab/x", "b", "\xff\xfe"}},
		{"under a", store.Under("a"), []string{"a/", "a/x", "a/x/deep", "a/y"}},
		{"under a x", store.Under("a", "x"), []string{"a/x/deep"}},
		{"half open", store.Range{From: "a!", To: "b"}, []string{"a!", "ab/x"}},
		{"to the end", store.Range{From: "b"}, []string{"b", "\xff\xfe"}},
		{"empty", store.Range{From: "c", To: "d"}, []string{}},
		{"reversed", store.Range{From: "d", To: "a"}, []string{}},
		// Everything that begins with the last key's parts sorts after it.
		{"after", store.Under("a").After(store.K("a", "x")), []string{"a/x/deep", "a/y"}},
		{"after before the range", store.Under("a").After("A"), []string{"a/", "a/x", "a/x/deep", "a/y"}},
	} {
		wantSame(t, c.name, c.want, keys(content(t, e, c.r)))
		wantSame(t, c.name+" of a snapshot", c.want, keys(content(t, snap, c.r)))
	}
	testScanEnds(t, e)
}

// testScanEnds checks how fn ends a scan.
func testScanEnds(t *testing.T, e Engine) {
	t.Helper()
	seen := 0
	count := func(err error) func(store.Record) error {
		seen = 0
		return func(store.Record) error {
			if seen++; seen == 2 {
				return err
			}
			return nil
		}
	}
	if err := e.Scan(t.Context(), store.Range{}, count(store.Stop)); err != nil || seen != 2 {
		t.Errorf("Stop: error %v after %d records", err, seen)
	}
	own := errors.New("own")
	if err := e.Scan(t.Context(), store.Range{}, count(own)); !errors.Is(err, own) || seen != 2 {
		t.Errorf("own error: %v after %d records", err, seen)
	}
}

func testScanInPages(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	const n = 1700
	for start := 0; start < n; start += 100 {
		var b store.Batch
		for i := start; i < start+100; i++ {
			b.Writes = append(b.Writes, Put(store.K("p", fmt.Sprintf("%05d", i)), "v"))
		}
		MustCommit(t, e, b)
	}
	// One scan over all of it sees one moment, also while others write.
	seen := 0
	err := e.Scan(t.Context(), store.Under("p"), func(rec store.Record) error {
		if want := fmt.Sprintf("%05d", seen); rec.Key.Last() != want {
			return fmt.Errorf("record %s where %s belongs", rec.Key, want)
		}
		if seen++; seen == 1 {
			return removeLast(t, e, n)
		}
		return nil
	})
	if err != nil || seen != n {
		t.Errorf("scan saw %d of %d records: %v", seen, n, err)
	}
	// Pages by After see every key once.
	last, count := store.Key(""), 0
	for {
		got := 0
		err := e.Scan(t.Context(), store.Under("p").After(last), func(rec store.Record) error {
			last = rec.Key
			if got++; got == 300 {
				return store.Stop
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if count += got; got < 300 {
			break
		}
	}
	if count != n-1 {
		t.Errorf("pages had %d records, want %d", count, n-1)
	}
}

// removeLast deletes a key from beside a scan: fn itself must not commit.
func removeLast(t *testing.T, e Engine, n int) error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := e.Commit(t.Context(), store.Batch{Writes: []store.Write{Delete(store.K("p", fmt.Sprintf("%05d", n-1)))}})
		done <- err
	}()
	return <-done
}

func testScanMayRead(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put("a", "b"), Put("b", "c")}})
	snap, err := e.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	for name, r := range map[string]store.Reader{"store": e, "snapshot": snap} {
		err := r.Scan(t.Context(), store.Range{To: "b"}, func(rec store.Record) error {
			got, err := r.Get(t.Context(), store.Key(rec.Value))
			if err == nil && string(got.Value) != "c" {
				return fmt.Errorf("read %q inside of a scan", got.Value)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func testReopen(t *testing.T, s Suite) {
	t.Helper()
	place := s.NewPlace(t)
	e := place.open(t)
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put("kept", "1"), Put("dropped", "1")}, Events: []event.Envelope{Fact("x", 1), Fact("x", 2), Fact("x", 3)}})
	MustCommit(t, e, store.Batch{Writes: []store.Write{Delete("dropped")}})
	if err := e.Trim(t.Context(), store.CursorAt(store.Position{Seq: 1})); err != nil {
		t.Fatal(err)
	}
	state, log := content(t, e, store.Range{}), Log(t, e)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = place.open(t)
	wantSame(t, "state", state, content(t, e, store.Range{}))
	wantSame(t, "log", log, Log(t, e))
	if len(log) != 2 || log[0].Seq != 2 {
		t.Errorf("log is %v, want events 2 and 3", log)
	}
	if p := MustCommit(t, e, store.Batch{Writes: []store.Write{Put("dropped", "2")}, Events: []event.Envelope{Fact("x", 4)}}); p.Seq != 4 {
		t.Errorf("log goes on with %d, want 4", p.Seq)
	}
	if got := mustGet(t, e, "dropped"); got.Version <= state[0].Version {
		t.Errorf("version %d does not grow across a restart", got.Version)
	}
}

func testCancelled(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Commit(ctx, store.Batch{Writes: []store.Write{Put("a", "1")}}); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v, want Canceled", err)
	}
	if err := e.Wait(ctx, store.Cursor{}); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v, want Canceled", err)
	}
	// Callers that leave at any moment leave the engine and their own memory
	// in order: the race detector watches the slice.
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		events := []event.Envelope{Fact("x", int64(i))}
		_, err := e.Commit(ctx, store.Batch{Writes: []store.Write{Put("b", "1")}, Events: events})
		events[0].Seq = 0
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("commit: %v", err)
		}
	}
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put("a", "2")}})
	Log(t, e)
}

func testClosed(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put("a", "1")}})
	waiting := make(chan error, 1)
	go func() { waiting <- e.Wait(t.Context(), store.Cursor{}) }()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, store.ErrClosed) {
		t.Errorf("wait across Close: %v, want ErrClosed", err)
	}
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"Commit":     func() error { _, err := e.Commit(ctx, store.Batch{}); return err },
		"Get":        func() error { _, err := e.Get(ctx, "a"); return err },
		"GetMany":    func() error { _, err := e.GetMany(ctx, []store.Key{"a"}); return err },
		"Scan":       func() error { return e.Scan(ctx, store.Range{}, func(store.Record) error { return nil }) },
		"Snapshot":   func() error { _, err := e.Snapshot(ctx); return err },
		"Events":     func() error { _, _, err := e.Events(ctx, store.Cursor{}, 1); return err },
		"Wait":       func() error { return e.Wait(ctx, store.Cursor{}) },
		"Trim":       func() error { return e.Trim(ctx, store.CursorAt(store.Position{Seq: 1})) },
		"Checkpoint": func() error { return e.Checkpoint(ctx, &strings.Builder{}) },
		"Restore":    func() error { return e.Restore(ctx, strings.NewReader("")) },
	} {
		if err := call(); !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
	if err := e.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
