package index_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/store"
)

// nothingStored is a registry without any membership.
func nothingStored(context.Context, func(fleet.Account, string, string) error) error { return nil }

// written returns a snapshot of an index.
func written(t *testing.T, x *index.Index) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := x.WriteSnapshot(&out, proofAt); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// read begins an index with a snapshot, on a log that ends at a place.
func read(t *testing.T, x *index.Index, snapshot []byte, head uint64) error {
	t.Helper()
	_, err := x.ReadSnapshot(bytes.NewReader(snapshot), int64(len(snapshot)), store.CursorAt(store.Position{Seq: head}), trust)
	return err
}

// fleetOf builds an index of some things and dynamic groups by query, whose memberships go to the ledger.
func fleetOf(t *testing.T, o index.Options, things int, groups map[string]string) *index.Index {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	x := index.New(o)
	b := x.Build()
	for i := range things {
		if err := b.PutThing(account, index.Thing{Name: fmt.Sprintf("t%06d", i), ID: fmt.Sprint(i)}, nil, index.State{}); err != nil {
			t.Fatal(err)
		}
	}
	for name, query := range groups {
		b.PutGroup(account, index.Group{Name: name, Query: query, CreatedAt: time.Unix(1, 0)})
	}
	if err := b.Finish(t.Context(), store.Cursor{}); err != nil {
		t.Fatal(err)
	}
	return x
}

// A setting or an upgrade that makes another index of the same fleet is not
// overruled by a snapshot of before.
func TestSnapshotOfOtherRules(t *testing.T) {
	t.Parallel()
	l := newLedger()
	base := index.Options{Committer: l, Source: l, Program: "1.0"}
	snapshot := written(t, fleetOf(t, base, 3, nil))
	for name, change := range map[string]func(o *index.Options){
		"nothing":            func(*index.Options) {},
		"index.default-off":  func(o *index.Options) { o.IndexingOff = true },
		"the bound on paths": func(o *index.Options) { o.MaxPaths = index.DefaultMaxPaths + 1 },
		"the group limit":    func(o *index.Options) { o.GroupLimit = 10 },
		"the program":        func(o *index.Options) { o.Program = "1.1" },
	} {
		o := base
		o.Logger = slog.New(slog.DiscardHandler)
		change(&o)
		if err := read(t, index.New(o), snapshot, 0); (err == nil) != (name == "nothing") {
			t.Errorf("%s has changed: %v", name, err)
		}
	}
}

// A group whose query could not be read when the snapshot was written gets its
// members when it can be, and they become durable.
func TestQueryOfSnapshotCanBeReadAgain(t *testing.T) {
	t.Parallel()
	l := newLedger()
	o := index.Options{Committer: l, Source: l, Stored: nothingStored, Limits: fleetquery.DefaultLimits()}
	o.Limits.Terms = 1
	snapshot := written(t, fleetOf(t, o, 3, map[string]string{"g": "(thingName:t000000 OR thingName:t000002) AND NOT shadow.reported.out:1"}))
	o.Limits, o.Logger = fleetquery.DefaultLimits(), slog.New(slog.DiscardHandler)
	x := index.New(o)
	if err := read(t, x, snapshot, 0); err != nil {
		t.Fatal(err)
	}
	if err := x.Apply(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	want := []string{"t000000", "t000002"}
	if got, _, err := x.Members(account, "g", "", 10); err != nil || !slices.Equal(got, want) {
		t.Errorf("members are %v, %v; want %v", got, err, want)
	}
	if got := l.of("g"); !slices.Equal(got, want) {
		t.Errorf("durable members are %v, want %v", got, want)
	}
	// What was compared is no change of the next batch, which it would cancel.
	feed(t, x, reported("t000002", 1, `{"out":1}`))
	if got := l.of("g"); !slices.Equal(got, want[:1]) {
		t.Errorf("durable members are %v, want %v", got, want[:1])
	}
}

// An index that has not followed the log from its snapshot to the end says that it
// answers from before.
func TestIndexBehindItsSnapshotIsNotActive(t *testing.T) {
	t.Parallel()
	l := newLedger()
	o := index.Options{Committer: l, Source: l, Stored: nothingStored}
	snapshot := written(t, fleetOf(t, o, 3, map[string]string{"g": "*"}))
	o.Logger = slog.New(slog.DiscardHandler)
	x := index.New(o)
	if err := read(t, x, snapshot, 2); err != nil {
		t.Fatal(err)
	}
	config := fleet.DefaultIndexing()
	for at, want := range []index.Status{index.Rebuilding, index.Rebuilding, index.Active} {
		things, groups := x.StatusOf(account, &config)
		if got := []index.Status{x.Status(), things, groups, x.GroupStatus(account, "g", "*")}; slices.ContainsFunc(got, func(s index.Status) bool { return s != want }) {
			t.Errorf("%d of 2 events behind the snapshot, index, things, groups and dynamic group are %v, want %s", at, got, want)
		}
		feed(t, x, thing(fmt.Sprint("new", at)))
	}
}

// What a comparison finds waits for room as what devices do, however many members
// no row is stored of.
func TestReconciliationOfManyIsBounded(t *testing.T) {
	t.Parallel()
	l := newLedger()
	o := index.Options{Committer: l, Source: l, Stored: nothingStored}
	const things = index.MaxWaiting + 10_000
	snapshot := written(t, fleetOf(t, o, things, map[string]string{"g": "*"}))
	synctest.Test(t, func(t *testing.T) {
		slow := newLedger()
		slow.gate = make(chan struct{})
		x := index.New(index.Options{Committer: slow, Source: slow, Stored: nothingStored, Logger: slog.New(slog.DiscardHandler)})
		if err := read(t, x, snapshot, 0); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- x.Run(ctx) }()
		synctest.Wait()
		if n := x.Waiting(); n < index.MaxWaiting/2 || n > index.MaxWaiting+2000 {
			t.Errorf("%d decisions wait for the store, want about %d", n, index.MaxWaiting)
		}
		close(slow.gate)
		synctest.Wait()
		if n := len(slow.of("g")); n != things {
			t.Errorf("%d members are durable, want %d", n, things)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A comparison that is asked for while another is under way is made: what that one
// has looked at already may differ since.
func TestComparisonAskedForMeanwhile(t *testing.T) {
	t.Parallel()
	l := newLedger()
	o := index.Options{Committer: l, Source: l, Logger: slog.New(slog.DiscardHandler)}
	snapshot := written(t, fleetOf(t, o, 3, map[string]string{"g": "*"}))
	synctest.Test(t, func(t *testing.T) {
		var x *index.Index
		visits := 0
		o.Stored = func(ctx context.Context, _ func(fleet.Account, string, string) error) error {
			if visits++; visits == 1 {
				// The log was trimmed: all is built anew.
				return x.Build().Finish(ctx, store.Cursor{})
			}
			return nil
		}
		x = index.New(o)
		if err := read(t, x, snapshot, 0); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- x.Run(ctx) }()
		synctest.Wait()
		stop()
		if err := <-done; err != nil || visits != 2 {
			t.Errorf("compared %d times, %v; want 2", visits, err)
		}
	})
}

// A group of which some members were found before the log's end was reached is
// recorded as complete when those are durable too.
func TestCompleteAfterComparison(t *testing.T) {
	t.Parallel()
	l := newLedger()
	o := index.Options{Committer: l, Source: l, Stored: nothingStored}
	const things = 3000
	snapshot := written(t, fleetOf(t, o, things, nil))
	o.Logger = slog.New(slog.DiscardHandler)
	x := index.New(o)
	if err := read(t, x, snapshot, 2); err != nil {
		t.Fatal(err)
	}
	leave := x.Attend()
	feed(t, x, dynamic("g", "*", 1))
	x.FillStep() // before the end of the log
	feed(t, x, thing("last"))
	for x.FillStep() {
	}
	if err := x.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, complete := len(l.of("g")), l.complete["g"]; complete != "" && n <= things {
		t.Errorf("recorded as complete with %d members of %d", n, things+1)
	}
	leave()
	if err := x.Apply(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if n, complete := len(l.of("g")), l.complete["g"]; complete != "*" || n != things+1 {
		t.Errorf("complete is %q with %d members, want all %d", complete, n, things+1)
	}
}

// account1 serves rebuilds of one account from a frozen view that nothing follows.
type account1 struct {
	load func(b *index.Builder) store.Cursor
}

// LoadAccount implements index.Reloader.
func (a account1) LoadAccount(_ context.Context, _ fleet.Account, b *index.Builder) (store.Cursor, error) {
	return a.load(b), nil
}

// Events implements index.Reloader.
func (account1) Events(_ context.Context, after store.Cursor, _ int) ([]event.Envelope, store.Cursor, error) {
	return nil, after, nil
}

// A large group is deleted; while the index still takes its members out, the
// account is rebuilt and the group comes back with few of them. Those are durable.
func TestGroupComesBackAfterARebuildWhileItIsDrained(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const things = 5000
		l := newLedger()
		var x *index.Index
		x = fleetOf(t, index.Options{Committer: l, Source: l, Reloader: account1{func(b *index.Builder) store.Cursor {
			for i := range things {
				if err := b.PutThing(account, index.Thing{Name: fmt.Sprintf("t%06d", i), ID: fmt.Sprint(i)}, nil, index.State{}); err != nil {
					t.Error(err)
				}
			}
			return x.Applied()
		}}}, things, map[string]string{"g": "*"})
		if n := len(l.of("g")); n != things {
			t.Fatalf("%d members are durable, want %d", n, things)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- x.Run(ctx) }()
		synctest.Wait()
		l.gate = make(chan struct{})
		delete(l.members, "g")
		feed(t, x, event.ThingGroupDeleted{Group: "g"})
		synctest.Wait() // a part is taken out and waits for the store
		if err := x.Rebuild(t.Context(), account); err != nil {
			t.Fatal(err)
		}
		last := fmt.Sprintf("t%06d", things-1)
		feed(t, x, dynamic("g", "thingName:"+last, 2))
		close(l.gate)
		synctest.Wait()
		if got := l.of("g"); !slices.Equal(got, []string{last}) {
			t.Errorf("durable members are %v, want %s", got, last)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A stop does not wait until a large group is filled.
func TestStopEndsAFill(t *testing.T) {
	t.Parallel()
	l := newLedger()
	x := fleetOf(t, index.Options{Committer: l, Source: l}, 10_000, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := x.Apply(ctx, []event.Envelope{{Seq: 1, Account: account, Event: dynamic("g", "*", 1)}})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n := x.Waiting(); n > 5000 {
		t.Errorf("%d things were decided after the stop", n)
	}
}
