package index_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/store"
)

// ledger is what is durable of dynamic groups. It may be made to wait or to fail
// after a part of what it is told.
type ledger struct {
	mu       sync.Mutex
	members  map[string]map[string]bool
	complete map[string]string
	batches  []int
	// gate is taken for each commit; nil for none.
	gate chan struct{}
	// failures is how many commits fail, each after half of its changes.
	failures int
}

func newLedger() *ledger {
	return &ledger{members: map[string]map[string]bool{}, complete: map[string]string{}}
}

// CommitMembership implements index.Committer as the registry does: what is so
// already is passed over.
func (l *ledger) CommitMembership(ctx context.Context, changes []index.MembershipChange, _ store.Cursor) error {
	if l.gate != nil {
		select {
		case <-l.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	fails := l.failures > 0
	if fails {
		l.failures--
		changes = changes[:len(changes)/2]
	}
	l.batches = append(l.batches, len(changes))
	for _, c := range changes {
		if l.members[c.Group] == nil {
			l.members[c.Group] = map[string]bool{}
		}
		if c.Added {
			l.members[c.Group][c.Thing] = true
		} else {
			delete(l.members[c.Group], c.Thing)
		}
	}
	if fails {
		return errCommit
	}
	return nil
}

// CommitComplete implements index.Committer.
func (l *ledger) CommitComplete(_ context.Context, groups []index.CompleteGroup) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range groups {
		l.complete[g.Group] = g.Query
	}
	return nil
}

func (*ledger) ThingState(context.Context, fleet.Account, string) (index.State, error) {
	return index.State{}, nil
}

// of returns the durable members of a group, sorted.
func (l *ledger) of(group string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.members[group]))
}

// beside returns an index whose commits run beside it until the test ends.
func beside(t *testing.T, l *ledger) *index.Index {
	t.Helper()
	x := index.New(index.Options{Committer: l, Source: l, Logger: slog.New(slog.DiscardHandler)})
	if err := x.Build().Finish(t.Context(), store.Cursor{}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- x.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return x
}

// feed applies events with the next numbers.
func feed(t *testing.T, x *index.Index, events ...event.Event) {
	t.Helper()
	next := x.Applied().Seq(0)
	batch := make([]event.Envelope, len(events))
	for i, e := range events {
		next++
		batch[i] = event.Envelope{Seq: next, Account: account, At: time.Unix(int64(next), 0), Event: e}
	}
	if err := x.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

// Commits do not hold up the index, and its cursor does not pass them.
func TestCommitsRunBeside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		x := beside(t, l)
		synctest.Wait()
		l.gate = make(chan struct{})
		feed(t, x, thing("a"), thing("b"), dynamic("low", "shadow.reported.battery<20", 1), reported("a", 1, `{"battery":5}`))
		synctest.Wait()
		// The first commit is under way and does not come on.
		feed(t, x, reported("b", 1, `{"battery":6}`))
		feed(t, x, reported("b", 2, `{"battery":60}`), thing("c"))
		feed(t, x, reported("c", 1, `{"battery":7}`))
		expect(t, x, "thingGroupNames:low", "a c")
		if got := x.CommittedCursor().Seq(0); got != 0 {
			t.Errorf("committed up to %d while nothing was", got)
		}
		close(l.gate)
		synctest.Wait()
		if got, want := x.CommittedCursor(), x.Applied(); got.String() != want.String() {
			t.Errorf("committed up to %s, applied %s", got, want)
		}
		// What b did in the meantime was never told.
		if diff := cmp.Diff([]int{1, 1}, l.batches); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"a", "c"}, l.of("low")); diff != "" {
			t.Error(diff)
		}
		if l.complete["low"] == "" {
			t.Error("nobody was told that the group is complete")
		}
	})
}

// A commit that fails after a part of it is made up for, also when what it said
// is no longer so.
func TestCommitIsRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		x := beside(t, l)
		synctest.Wait()
		l.failures = 3
		feed(t, x, dynamic("low", "shadow.reported.battery<20", 1))
		var events []event.Event
		for i := range 10 {
			name := fmt.Sprintf("t%d", i)
			events = append(events, thing(name), reported(name, 1, `{"battery":5}`))
		}
		feed(t, x, events...)
		synctest.Wait()
		if n := len(l.of("low")); n != 5 {
			t.Fatalf("%d are durable after half of a commit, want 5", n)
		}
		if x.CommittedCursor().CoversAll(x.Applied()) {
			t.Error("the cursor has passed a commit that failed")
		}
		events = nil
		for i := range 10 {
			events = append(events, reported(fmt.Sprintf("t%d", i), 2, fmt.Sprintf(`{"battery":%d}`, 10+i%2*50)))
		}
		feed(t, x, events...)
		time.Sleep(time.Minute)
		synctest.Wait()
		if diff := cmp.Diff([]string{"t0", "t2", "t4", "t6", "t8"}, l.of("low")); diff != "" {
			t.Error(diff)
		}
		if !x.CommittedCursor().CoversAll(x.Applied()) {
			t.Error("the cursor stays behind")
		}
	})
}

// What ends with a thing or a group is not lost when its name comes back at
// once: the registry has forgotten the membership.
func TestNamesThatComeBack(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	low := dynamic("low", "shadow.reported.battery<20", 1)
	m.apply(t, x, thing("a"), thing("b"), low, reported("a", 1, `{"battery":5}`), reported("b", 1, `{"battery":6}`))
	delete(m.committed["low"], "a")
	m.apply(t, x, event.ThingDeleted{Thing: "a"}, thing("a"), reported("a", 2, `{"battery":5}`))
	if diff := cmp.Diff(map[string]bool{"a": true, "b": true}, m.committed["low"]); diff != "" {
		t.Error(diff)
	}
	clear(m.committed)
	m.apply(t, x, event.ThingGroupDeleted{Group: "low", Dynamic: true}, low)
	if diff := cmp.Diff(map[string]bool{"a": true, "b": true}, m.committed["low"]); diff != "" {
		t.Error(diff)
	}
}

// A group of very many things is filled in steps: what devices do comes in
// between, and its status says so.
func TestLargeGroupIsFilledInSteps(t *testing.T) {
	t.Parallel()
	const things = 30_000
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		x := beside(t, l)
		synctest.Wait()
		for i := 0; i < things; i += 1000 {
			events := make([]event.Event, 1000)
			for k := range events {
				events[k] = thing(fmt.Sprintf("t%05d", i+k))
			}
			feed(t, x, events...)
		}
		l.gate = make(chan struct{})
		feed(t, x, dynamic("all", "thingName:t*", 1))
		synctest.Wait()
		// Few wait at a time, so the steps have stopped.
		if got := x.GroupStatus(account, "all", "thingName:t*"); got == index.Active {
			t.Error("a group that is being filled is ACTIVE")
		}
		members, _, err := x.Members(account, "all", "", things)
		if err != nil || len(members) == 0 || len(members) == things {
			t.Errorf("%d members while the group is filled (%v)", len(members), err)
		}
		// Devices go on: some leave the registry, new ones come, one waits for
		// another group.
		feed(t, x, event.ThingDeleted{Thing: "t29999"}, thing("t30000"), thing("x"), dynamic("low", "shadow.reported.battery<20", 2), reported("x", 1, `{"battery":5}`))
		expect(t, x, "thingGroupNames:low", "x")
		close(l.gate)
		synctest.Wait()
		if got := x.GroupStatus(account, "all", "thingName:t*"); got != index.Active {
			t.Errorf("status %s at the end", got)
		}
		got := l.of("all")
		if len(got) != things || got[things-1] != "t30000" || slices.Contains(got, "t29999") {
			t.Errorf("%d members are durable, the last is %s", len(got), got[len(got)-1])
		}
		if most := slices.Max(l.batches); most > 4096 {
			t.Errorf("a commit had %d changes", most)
		}
		if l.complete["all"] == "" || l.complete["low"] == "" {
			t.Errorf("complete are %v", l.complete)
		}
		// It is dropped in steps too, and its name may come back in the middle.
		feed(t, x, event.ThingGroupDeleted{Group: "all", Dynamic: true}, dynamic("all", "thingName:x", 3))
		synctest.Wait()
		if diff := cmp.Diff([]string{"x"}, l.of("all")); diff != "" {
			t.Error(diff)
		}
		expect(t, x, "thingGroupNames:all", "x")
	})
}

// An index that is killed at any moment finds out at the next start what was not
// durable.
func TestRestartBehindTheCommits(t *testing.T) {
	t.Parallel()
	m := newModel(5)
	l := newLedger()
	x := index.New(index.Options{Committer: l, Source: m, Certificates: m, Indexing: withPlaces(), Logger: slog.New(slog.DiscardHandler)})
	load := func() {
		b := x.Build()
		m.load(t, b)
		for group, things := range l.members {
			b.LoadMembership(account, group, slices.Collect(maps.Keys(things))...)
		}
		if err := b.Finish(t.Context(), store.CursorAt(store.Position{Seq: m.seq})); err != nil && !errors.Is(err, errCommit) {
			t.Fatal(err)
		}
	}
	load()
	if err := x.Apply(t.Context(), m.addGroups(t, x, 20)); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		var batch []event.Envelope
		for range 40 {
			batch = append(batch, m.change(40)...)
		}
		l.failures = m.random.IntN(3)
		if err := x.Apply(t.Context(), batch); err != nil && !errors.Is(err, errCommit) {
			t.Fatal(err)
		}
		if m.random.IntN(3) == 0 {
			// Another process, or a rebuild of this one.
			if m.random.IntN(2) == 0 {
				x = index.New(index.Options{Committer: l, Source: m, Certificates: m, Indexing: withPlaces(), Logger: slog.New(slog.DiscardHandler)})
			}
			load()
		}
	}
	l.failures = 0
	if err := x.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, members := m.documents()
	for group, want := range members {
		if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), l.of(group)); diff != "" {
			t.Errorf("%s: %s", group, diff)
		}
	}
}

// What is complete is recorded also after a start from a snapshot, which does not
// tell: a crash may have come before it was, and groups may have been made since.
func TestCompleteAfterSnapshot(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	m.apply(t, x, thing("a"), dynamic("before", "thingName:a", 1))
	var file bytes.Buffer
	if _, err := x.WriteSnapshot(&file, proofAt); err != nil {
		t.Fatal(err)
	}
	l := newLedger()
	x = index.New(index.Options{Committer: l, Source: l, Indexing: withPlaces(), Logger: slog.New(slog.DiscardHandler)})
	head := store.CursorAt(store.Position{Seq: m.seq + 1})
	if _, err := x.ReadSnapshot(&file, int64(file.Len()), head, trust); err != nil {
		t.Fatal(err)
	}
	m.apply(t, x, dynamic("since", "thingName:*", 2))
	if diff := cmp.Diff(map[string]string{"before": "thingName:a", "since": "thingName:*"}, l.complete); diff != "" {
		t.Error(diff)
	}
}
