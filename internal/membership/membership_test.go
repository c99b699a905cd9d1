package membership

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

const account fleet.Account = "000000000000"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// alice asks for what is asked for in these tests.
var alice = fleet.Actor{Principal: fleet.Principal{ID: "alice"}}

// start is the time of second 0.
var start = time.UnixMilli(1_750_000_000_000).UTC()

// at is a time by seconds.
func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

// fixture is a service whose events are applied by hand.
type fixture struct {
	*Service
	t       *testing.T
	now     time.Time
	live    []Live
	applied store.Cursor
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	s, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	f := &fixture{t: t, now: start}
	f.Service = New(Options{
		Store: s, Now: func() time.Time { return f.now }, Logger: slog.New(slog.DiscardHandler),
		RetentionAge: time.Hour, RetentionBytes: 1 << 30,
		Live: func(_ context.Context, _ store.Reader, fn func(Live) error) error {
			for _, l := range f.live {
				if err := fn(l); err != nil {
					return err
				}
			}
			return nil
		},
	})
	return f
}

// tell appends events to the log.
func (f *fixture) tell(seconds int, events ...event.Event) {
	f.t.Helper()
	var b store.Batch
	for _, e := range events {
		b.Events = append(b.Events, event.Envelope{Account: account, At: at(seconds), Actor: alice, Event: e})
	}
	if _, err := f.store.Commit(f.t.Context(), b); err != nil {
		f.t.Fatal(err)
	}
}

// follow applies what is new, at most n events at once. Each batch is made twice
// and committed once.
func (f *fixture) follow(n int) {
	f.t.Helper()
	for {
		events, next, err := f.store.Events(f.t.Context(), f.applied, n)
		if err != nil {
			f.t.Fatal(err)
		}
		if len(events) == 0 {
			return
		}
		if _, err := f.Apply(f.t.Context(), events); err != nil {
			f.t.Fatal(err)
		}
		b, err := f.Apply(f.t.Context(), events)
		if err != nil {
			f.t.Fatal(err)
		}
		if _, err := f.store.Commit(f.t.Context(), b); err != nil {
			f.t.Fatal(err)
		}
		f.applied = next
	}
}

// all reads a list page by page.
func (f *fixture) all(list func(context.Context, fleet.Account, string, Query) (Page, error), name string, q Query) []Entry {
	f.t.Helper()
	var all []Entry
	for q.Limit = 2; ; {
		page, err := list(f.t.Context(), account, name, q)
		if err != nil {
			f.t.Fatal(err)
		}
		if all = append(all, page.Entries...); page.Next == "" {
			return all
		}
		q.After = page.Next
	}
}

func joined(thing, group string) event.MembershipChanged {
	return event.MembershipChanged{Thing: thing, Group: group, Added: true}
}

func left(thing, group string) event.MembershipChanged {
	return event.MembershipChanged{Thing: thing, Group: group}
}

func TestStory(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	low := &event.MembershipCause{Kind: CauseValue, Field: "shadow.reported.battery", Predicate: "shadow.reported.battery<20", Value: "12", Seq: 7, At: at(19)}
	f.tell(10, joined("a", "north"))
	f.tell(20, event.MembershipChanged{Thing: "a", Group: "low", Added: true, Dynamic: true, Cause: low})
	f.tell(30, left("a", "north"), joined("a", "south"))
	f.tell(40, event.MembershipChanged{Thing: "a", Group: "low", Dynamic: true}) // with the group
	f.tell(50, event.ThingDeleted{Thing: "a", Groups: []string{"south", "never"}})
	f.tell(60, left("b", "north")) // its begin was told before the log began
	f.follow(3)
	by := &Cause{Kind: CauseRequest, Actor: &alice}
	south := Entry{Group: "south", Thing: "a", Began: at(30), Ended: at(50), Joined: by, Left: &Cause{Kind: CauseThing, Actor: &alice}}
	lowEntry := Entry{
		Group: "low", Thing: "a", Dynamic: true, Began: at(20), Ended: at(40), Left: &Cause{Kind: CauseGroup, Actor: &alice},
		Joined: &Cause{
			Kind: CauseValue, Field: "shadow.reported.battery", Predicate: "shadow.reported.battery<20", Value: "12", Seq: 7, SourceAt: at(19).UnixMilli(),
		},
	}
	north := Entry{Group: "north", Thing: "a", Began: at(10), Ended: at(30), Joined: by, Left: by}
	if diff := cmp.Diff([]Entry{south, lowEntry, north}, f.all(f.OfThing, "a", Query{})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Entry{{Group: "north", Thing: "b", Ended: at(60), Left: by}, north}, f.all(f.OfGroup, "north", Query{})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Entry{lowEntry, north}, f.all(f.OfThing, "a", Query{To: at(30)})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Entry{south, lowEntry}, f.all(f.OfThing, "a", Query{From: at(30)})); diff != "" {
		t.Error(diff)
	}
	for _, seconds := range []int{9, 10, 29, 30} {
		got := f.all(f.OfGroup, "north", At(at(seconds)))
		if within := seconds == 10 || seconds == 29; slices.ContainsFunc(got, func(e Entry) bool { return e.Thing == "a" }) != within {
			t.Errorf("at %d: %v", seconds, got)
		}
	}
}

func TestLasting(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.tell(1, joined("a", "north"), joined("a", "south"), left("a", "south"))
	f.follow(10)
	got, ok, err := f.Lasting(t.Context(), account, "north", "a")
	if want := (Entry{Group: "north", Thing: "a", Began: at(1), Joined: &Cause{Kind: CauseRequest, Actor: &alice}}); err != nil || !ok || !cmp.Equal(got, want) {
		t.Errorf("%v %v %v", ok, err, cmp.Diff(want, got))
	}
	for _, c := range [][2]string{{"south", "a"}, {"north", "b"}} {
		if got, ok, err := f.Lasting(t.Context(), account, c[0], c[1]); ok || err != nil {
			t.Errorf("%v: %v %v", c, got, err)
		}
	}
}

func TestHostileQueries(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, c := range []struct {
		name string
		q    Query
	}{
		{"", Query{Limit: 1}},
		{"a\x00b", Query{Limit: 1}},
		{"a", Query{}},
		{"a", Query{Limit: MaxPage + 1}},
		{"a", Query{Limit: 1, From: at(2), To: at(2)}},
	} {
		if _, err := f.OfGroup(t.Context(), account, c.name, c.q); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%q %+v: %v", c.name, c.q, err)
		}
	}
}

// Random comings and goings, deletions among them, against the obvious list; with
// batches of any size.
func TestRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		f := newFixture(t)
		r := rand.New(rand.NewPCG(seed, 1))
		open := map[[2]string]int{}
		var want []Entry
		for second := range 400 {
			thing, group := fmt.Sprintf("t%d", r.IntN(6)), fmt.Sprintf("g%d", r.IntN(4))
			key := [2]string{thing, group}
			i, in := open[key]
			switch {
			case in && r.IntN(4) == 0:
				gone := event.ThingDeleted{Thing: thing}
				for k, i := range open {
					if k[0] == thing {
						gone.Groups = append(gone.Groups, k[1])
						want[i].Ended, want[i].Left = at(second), &Cause{Kind: CauseThing, Actor: &alice}
						delete(open, k)
					}
				}
				f.tell(second, gone)
			case in:
				f.tell(second, left(thing, group))
				want[i].Ended, want[i].Left = at(second), &Cause{Kind: CauseRequest, Actor: &alice}
				delete(open, key)
			default:
				f.tell(second, joined(thing, group))
				open[key] = len(want)
				want = append(want, Entry{Group: group, Thing: thing, Began: at(second), Joined: &Cause{Kind: CauseRequest, Actor: &alice}})
			}
			if r.IntN(20) == 0 {
				f.follow(1 + r.IntN(30))
			}
		}
		f.follow(50)
		slices.Reverse(want)
		for range 60 {
			q := Query{}
			if r.IntN(3) > 0 {
				q.From = at(r.IntN(400))
			}
			if r.IntN(3) > 0 {
				q.To = q.From.Add(time.Duration(1+r.IntN(100_000)) * time.Millisecond)
				if q.From.IsZero() {
					q.To = at(r.IntN(400))
				}
			}
			group := fmt.Sprintf("g%d", r.IntN(4))
			var expected []Entry
			for _, e := range want {
				if e.Group == group && (q.To.IsZero() || e.Began.Before(q.To)) && (q.From.IsZero() || e.Ended.IsZero() || e.Ended.After(q.From)) {
					expected = append(expected, e)
				}
			}
			if diff := cmp.Diff(expected, f.all(f.OfGroup, group, q)); diff != "" {
				t.Fatalf("seed %d, %s %+v: %s", seed, group, q, diff)
			}
		}
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.o.RetentionAge = 100 * time.Second
	for i := range 700 {
		name := fmt.Sprintf("t%03d", i)
		f.tell(i/10, joined(name, "g"))
		f.tell(i/10+1, left(name, "g"))
	}
	f.tell(71, joined("stays", "g"))
	f.follow(1000)
	f.now = at(100 + 60)
	if err := f.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := f.all(f.OfGroup, "g", Query{})
	if n := len(got); n != 1+110 {
		t.Errorf("%d entries are left, want the 110 that ended since and one that lasts", n)
	}
	since, err := f.CompleteSince(t.Context(), account)
	if err != nil || !since.Equal(at(59)) {
		t.Errorf("complete since %v, %v", since, err)
	}
	f.o.RetentionBytes = 0
	if err := f.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Nothing but the one that lasts, with its open row and the counts.
	left := map[string]int{}
	if err := f.store.Scan(t.Context(), store.Range{}, func(r store.Record) error {
		left[r.Key.Parts()[0]]++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{kindOfThing: 1, kindOfGroup: 1, kindOpen: 1, kindSize: 1, kindTrimmed: 1, kindApplied: 1}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Error(diff)
	}
}

// After a gap in the events the history agrees with the registry again, and says
// since when it is whole.
func TestRebuild(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.tell(1, joined("a", "g"), joined("b", "g"))
	f.follow(10)
	f.tell(2, left("a", "g"), joined("c", "g")) // trimmed before it was applied
	f.now = at(10)
	f.live = []Live{{Account: account, Group: "g", Thing: "b"}, {Account: account, Group: "g", Thing: "c", Dynamic: true}}
	for range 2 {
		var err error
		if f.applied, err = f.Rebuild(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.tell(20, left("c", "g"))
	f.follow(10)
	unknown, by := &Cause{Kind: CauseUnknown}, &Cause{Kind: CauseRequest, Actor: &alice}
	want := []Entry{
		{Group: "g", Thing: "c", Dynamic: true, Began: at(10), Ended: at(20), Joined: unknown, Left: by},
		{Group: "g", Thing: "b", Began: at(1), Joined: by},
		{Group: "g", Thing: "a", Began: at(1), Ended: at(10), Joined: by, Left: unknown},
	}
	if diff := cmp.Diff(want, f.all(f.OfGroup, "g", Query{})); diff != "" {
		t.Error(diff)
	}
	if since, err := f.CompleteSince(t.Context(), account); err != nil || !since.Equal(at(10)) {
		t.Errorf("complete since %v, %v", since, err)
	}
}
