package shadowhistory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
	"github.com/muster-iot/muster/internal/store/postgres"
	"github.com/muster-iot/muster/internal/testkit"
)

// cluster is the PostgreSQL of this binary's tests.
var cluster testkit.PostgresPool

func TestMain(m *testing.M) {
	code := m.Run()
	if err := cluster.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const account fleet.Account = "000000000001"

// world is shadows and their history, whose events are applied by hand.
type world struct {
	*Service
	t       testing.TB
	engine  store.Store
	shadows *shadow.Service
	now     time.Time
	applied store.Cursor
}

func newWorld(tb testing.TB, o Options) *world {
	tb.Helper()
	engine, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = engine.Close() })
	return newWorldOn(tb, engine, o)
}

// newWorldOn is newWorld on another engine.
func newWorldOn(tb testing.TB, engine store.Store, o Options) *world {
	tb.Helper()
	w := &world{t: tb, engine: engine, now: time.UnixMilli(1_750_000_000_000).UTC()}
	w.open(true)
	o.Store, o.Shadows, o.Now, o.Logger = engine, w, func() time.Time { return w.now }, slog.New(slog.DiscardHandler)
	if o.CatchUp == nil {
		o.CatchUp = func(context.Context) error { w.follow(1000); return nil }
	}
	w.Service = New(o)
	return w
}

// open starts the shadow service anew.
func (w *world) open(whole bool) {
	w.shadows = shadow.New(shadow.Options{Store: w.engine, Now: func() time.Time { return w.now }, TellWhole: whole})
}

// Peek and Restore implement Shadows by the service of the moment.
func (w *world) Peek(ctx context.Context, of fleet.Account, thing, name string) (shadow.Document, error) {
	return w.shadows.Peek(ctx, of, thing, name)
}

func (w *world) Restore(ctx context.Context, cmd shadow.RestoreCommand) (*shadow.Updated, error) {
	return w.shadows.Restore(ctx, cmd)
}

// follow applies what is new, at most n events at once, as the log's consumer
// does.
func (w *world) follow(n int) {
	w.t.Helper()
	for {
		events, next, err := w.engine.Events(w.t.Context(), w.applied, n)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(events) == 0 {
			return
		}
		b, err := w.Apply(w.t.Context(), events)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(b.Writes) > 0 {
			if _, err := w.engine.Commit(w.t.Context(), b); err != nil {
				w.t.Fatal(err)
			}
		}
		w.applied = next
	}
}

func (w *world) as(name string) context.Context {
	return fleet.WithActor(w.t.Context(), fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: name, ARN: "arn:aws:iam::000000000001:user/ops/" + name}, RequestID: "r-" + name, SourceAddress: "192.0.2.1"})
}

func (w *world) update(by, thing, name, body string) int64 {
	w.t.Helper()
	u, err := w.shadows.Update(w.as(by), shadow.UpdateCommand{Account: account, Thing: thing, Shadow: name, Body: []byte(body)})
	if err != nil {
		w.t.Fatal(err)
	}
	return u.Version
}

func (w *world) delete(by, thing, name string) {
	w.t.Helper()
	if _, err := w.shadows.Delete(w.as(by), shadow.DeleteCommand{Account: account, Thing: thing, Shadow: name}); err != nil {
		w.t.Fatal(err)
	}
}

// list is a shadow's list, one line each.
func (w *world) list(thing, name string, q Query) (lines []string, truncated bool) {
	w.t.Helper()
	for {
		page, err := w.List(w.t.Context(), account, thing, name, q)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, v := range page.Versions {
			lines = append(lines, fmt.Sprintf("%d %s %s delta=%t restored=%d deleted=%t", v.Version, v.Actor.Principal.ID, v.Patch, v.Delta, v.Restored, v.Deleted))
		}
		if page.Next == "" {
			return lines, page.Truncated
		}
		q.After = page.Next
	}
}

// check compares the counts with what is stored.
func (w *world) check() {
	w.t.Helper()
	filed, err1 := readTotal(w.t.Context(), w.engine, kindSize, account)
	gone, err2 := readTotal(w.t.Context(), w.engine, kindTrimmed, account)
	if err := errors.Join(err1, err2); err != nil {
		w.t.Fatal(err)
	}
	var entries, bytes uint64
	rows := map[string]int{}
	for _, kind := range []string{kindEntry, kindSegment, kindTime} {
		if err := w.engine.Scan(w.t.Context(), store.Under(kind), func(r store.Record) error {
			rows[kind]++
			bytes += uint64(len(r.Key) + len(r.Value))
			return nil
		}); err != nil {
			w.t.Fatal(err)
		}
	}
	entries = uint64(rows[kindEntry])
	if filed.Entries-gone.Entries != entries || kept(filed, gone) != bytes || rows[kindSegment] != rows[kindTime] {
		w.t.Errorf("counted %d entries of %d bytes, there are %d of %d; %v", filed.Entries-gone.Entries, kept(filed, gone), entries, bytes, rows)
	}
}

func TestHistoryTellsWhoDidWhat(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{Versions: 100})
	w.update("ann", "pump", "cfg", `{"state":{"desired":{"mode":"eco","rate":1.50}}}`)
	w.now = w.now.Add(time.Hour)
	w.update("dev", "pump", "cfg", `{"state":{"reported":{"mode":"eco","rate":1.5}}}`)
	w.update("bob", "pump", "cfg", `{"state":{"desired":{"mode":"max","rate":null}}}`)
	w.update("dev", "pump", "", `{"state":{"reported":{"a":1}}}`)
	w.delete("bob", "pump", "cfg")
	restored := false
	u, err := w.Service.Restore(w.as("eve"), RestoreCommand{
		Account: account, Thing: "pump", Shadow: "cfg", Version: 1, Expect: new(int64(3)), Committed: func(*shadow.Updated) { restored = true },
	})
	if err != nil || !restored || u.Version != 4 {
		t.Fatalf("%+v, %v", u, err)
	}
	lines, truncated := w.list("pump", "cfg", Query{Limit: 2})
	want := []string{
		`4 eve {"desired":{"mode":"eco","rate":1.50}} delta=true restored=1 deleted=false`,
		`3 bob  delta=false restored=0 deleted=true`,
		`3 bob {"desired":{"mode":"max","rate":null}} delta=true restored=0 deleted=false`,
		`2 dev {"reported":{"mode":"eco","rate":1.5}} delta=false restored=0 deleted=false`,
		`1 ann {"desired":{"mode":"eco","rate":1.50}} delta=true restored=0 deleted=false`,
	}
	if diff := cmp.Diff(want, lines); diff != "" || truncated {
		t.Error(diff, truncated)
	}
	begun := time.UnixMilli(1_750_000_000_000)
	if lines, _ := w.list("pump", "cfg", Query{Limit: 9, To: begun.Add(time.Minute)}); cmp.Diff(want[4:], lines) != "" {
		t.Error(lines)
	}
	if lines, truncated := w.list("pump", "cfg", Query{Limit: 9, From: begun.Add(time.Hour)}); cmp.Diff(want[:4], lines) != "" || truncated {
		t.Error(lines, truncated)
	}
	at, err := w.At(t.Context(), account, "pump", "cfg", 3)
	if err != nil || string(at.State()) != `{"desired":{"mode":"max"},"reported":{"mode":"eco","rate":1.5}}` || at.Made.Actor != fleet.ActorFrom(w.as("bob")) || at.Made.Deleted {
		t.Errorf("version 3: %s %+v %v", at.State(), at.Made, err)
	}
	d, err := w.Diff(t.Context(), account, "pump", "cfg", new(int64(1)), new(int64(3)))
	if err != nil || d.From != 1 || d.To != 3 || len(d.Differences) != 4 || string(d.Differences[0].Old) != `"eco"` || d.Differences[1].New != nil {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := w.Diff(t.Context(), account, "pump", "cfg", nil, nil); err != nil || d.From != 3 || d.To != 4 {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := w.Diff(t.Context(), account, "pump", "", nil, nil); err != nil || d.From != 0 || len(d.Differences) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	w.check()
}

func TestHistoryRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{Versions: 100})
	w.update("ann", "pump", "", `{"state":{"desired":{"a":1}}}`)
	ctx := t.Context()
	list := func(thing, name string, q Query) error {
		_, err := w.List(ctx, account, thing, name, q)
		return err
	}
	diff := func(from, to int64) error {
		_, err := w.Diff(ctx, account, "pump", "", &from, &to)
		return err
	}
	at := func(thing string, version int64) error {
		_, err := w.At(ctx, account, thing, "", version)
		return err
	}
	restore := func(version, expect int64) error {
		_, err := w.Service.Restore(ctx, RestoreCommand{Account: account, Thing: "pump", Version: version, Expect: &expect})
		return err
	}
	off := newWorld(t, Options{})
	off.update("ann", "pump", "", `{"state":{}}`)
	off.follow(10)
	_, offErr := off.List(ctx, account, "pump", "", Query{Limit: 1})
	for name, x := range map[string]struct {
		err  error
		code fault.Code
		says string
	}{
		"thing":        {list("a b", "", Query{Limit: 1}), fault.InvalidRequest, "thing name"},
		"shadow":       {list("a", "x y", Query{Limit: 1}), fault.InvalidRequest, "shadow name"},
		"limit":        {list("a", "", Query{Limit: 251}), fault.InvalidRequest, "maxResults"},
		"no limit":     {list("a", "", Query{}), fault.InvalidRequest, "maxResults"},
		"span":         {list("a", "", Query{Limit: 1, From: w.now, To: w.now}), fault.InvalidRequest, "before to"},
		"version 0":    {at("pump", 0), fault.InvalidRequest, "version"},
		"future":       {at("pump", 2), fault.ResourceNotFound, "Version 2 of the shadow is not in its history"},
		"stranger":     {at("nobody", 1), fault.ResourceNotFound, "not in its history"},
		"diff":         {diff(0, 2), fault.ResourceNotFound, "Version 2"},
		"negative":     {diff(-1, 1), fault.InvalidRequest, "from"},
		"restore":      {restore(7, 1), fault.ResourceNotFound, "Version 7"},
		"not expected": {restore(1, 3), fault.Conflict, "Version conflict"},
		"off":          {offErr, fault.InvalidRequest, "shadow.history-versions"},
	} {
		if fault.CodeOf(x.err) != x.code || !strings.Contains(x.err.Error(), x.says) {
			t.Errorf("%s: %v", name, x.err)
		}
	}
	if lines, truncated := w.list("nobody", "", Query{Limit: 1}); lines != nil || truncated {
		t.Error(lines, truncated)
	}
	// Another account sees nothing.
	if page, err := w.List(ctx, "000000000002", "pump", "", Query{Limit: 1}); err != nil || len(page.Versions) != 0 {
		t.Error(page, err)
	}
	late := newWorld(t, Options{Versions: 1, CatchUp: func(context.Context) error { return errors.New("late") }})
	if page, err := late.List(ctx, account, "pump", "", Query{Limit: 1}); err != nil || !page.Behind {
		t.Error(page, err)
	}
}

// A history that begins late, or has a gap, says what it cannot tell.
func TestHistoryThatBeganLateIsHonest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{Versions: 1000})
	w.open(false)
	for i := range 5 {
		w.update("old", "pump", "", fmt.Sprintf(`{"state":{"desired":{"a":%d}}}`, i))
	}
	head, err := w.engine.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.engine.Trim(t.Context(), store.CursorAt(store.Position{Seq: head.Seq(0) - 2})); err != nil {
		t.Fatal(err)
	}
	w.applied = store.CursorAt(store.Position{Seq: head.Seq(0) - 2})
	// The present document is known all the same.
	if at, err := w.At(t.Context(), account, "pump", "", 5); err != nil || string(at.State()) != `{"desired":{"a":4}}` || at.Made.Actor.Principal.ID != "old" {
		t.Errorf("%+v, %v", at, err)
	}
	w.open(true)
	w.update("new", "pump", "", `{"state":{"desired":{"b":1}}}`)
	w.update("new", "pump", "", `{"state":{"desired":{"b":2}}}`)
	lines, truncated := w.list("pump", "", Query{Limit: 10})
	if len(lines) != 4 || !truncated {
		t.Errorf("%v %t", lines, truncated)
	}
	for version, says := range map[int64]string{
		1: "Version 1 of the shadow is not in its history", 3: "not in its history", 4: "cannot be told", 5: "cannot be told", 6: "", 7: "",
	} {
		at, err := w.At(t.Context(), account, "pump", "", version)
		if says == "" && (err != nil || string(at.State()) != fmt.Sprintf(`{"desired":{"a":4,"b":%d}}`, version-5)) || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("version %d: %v", version, err)
		}
	}
	// Two events never arrive.
	w.follow(10)
	for i := range 4 {
		w.update("new", "pump", "", fmt.Sprintf(`{"state":{"desired":{"b":%d}}}`, 10+i))
		if i == 1 {
			if w.applied, err = w.engine.Head(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := w.At(t.Context(), account, "pump", "", 10); err == nil || !strings.Contains(err.Error(), "cannot be told") {
		t.Errorf("behind the gap: %v", err)
	}
	if at, err := w.At(t.Context(), account, "pump", "", 11); err != nil || string(at.State()) != `{"desired":{"a":4,"b":13}}` {
		t.Errorf("the present one: %v", err)
	}
	w.check()
}

// Random changes of some shadows, applied in random batches: every version that
// is kept is what it was, by whom it was; what must be kept is.
func TestEveryKeptVersionIsWhatItWas(t *testing.T) {
	t.Parallel()
	for _, versions := range []int{1, 40, 100000} {
		everyKeptVersion(t, newWorld(t, Options{Versions: versions}), versions, 1500)
	}
}

// The history is held against the shadows.
func TestCheckFindsWhatDiffers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{Versions: 100})
	for i := range 40 {
		w.update("a", "one", "", fmt.Sprintf(`{"state":{"desired":{"n":%d}}}`, i))
	}
	w.update("a", "two", "", `{"state":{"desired":{"n":1}}}`)
	w.follow(10)
	w.delete("a", "two", "")
	w.update("a", "three", "", `{"state":{"desired":{"n":1}}}`)
	w.follow(10)
	check := func() (told []string) {
		t.Helper()
		n, err := w.Check(t.Context(), w.engine, func(of shadow.Document, detail string) { told = append(told, of.Thing+": "+detail) })
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		return told
	}
	if told := check(); told != nil {
		t.Errorf("%q", told)
	}
	w.update("a", "three", "", `{"state":{"desired":{"n":2}}}`)
	of := subject{account, "one", ""}
	entries, err := entriesIn(t.Context(), w.engine, of.entries())
	if err != nil {
		t.Fatal(err)
	}
	last := entries[len(entries)-1]
	last.Patch = json.RawMessage(`{"desired":{"n":7}}`)
	var at store.Key
	if err := w.engine.Scan(t.Context(), of.entries(), func(r store.Record) error { at = r.Key; return store.Stop }); err != nil {
		t.Fatal(err)
	}
	if _, err := w.engine.Commit(t.Context(), store.Batch{Writes: []store.Write{{Key: at, Value: last.encode([]byte("{}"))}}}); err != nil {
		t.Fatal(err)
	}
	if told := check(); len(told) != 2 || !strings.Contains(told[0], `one: the history makes {"state":{"desired":{"n":7}`) ||
		told[1] != "three: the shadow has version 2, the newest in its history is 1, deleted: false" {
		t.Errorf("%q", told)
	}
}

// The same on PostgreSQL.
func TestEveryKeptVersionOnPostgreSQL(t *testing.T) {
	t.Parallel()
	engine, err := postgres.Open(t.Context(), postgres.Options{URL: cluster.Get(t).Database(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	everyKeptVersion(t, newWorldOn(t, engine, Options{Versions: 40}), 40, 400)
}

// everyKeptVersion makes so many random changes and compares.
func everyKeptVersion(t *testing.T, w *world, versions, steps int) {
	t.Helper()
	random := rand.New(rand.NewPCG(7, uint64(versions)))
	type made struct{ document, by string }
	was := map[string]map[int64]made{}
	newest := map[string]int64{}
	lives := map[string]int64{}
	for step := range steps {
		w.now = w.now.Add(time.Duration(random.IntN(300)) * time.Second)
		thing, by := fmt.Sprintf("t%d", random.IntN(3)), fmt.Sprintf("u%d", random.IntN(3))
		if was[thing] == nil {
			was[thing] = map[int64]made{}
		}
		switch n := random.IntN(200); {
		case n == 0 && newest[thing] > 0:
			w.delete(by, thing, "")
			if random.IntN(2) == 0 {
				w.now = w.now.Add(49 * time.Hour)
				newest[thing], was[thing] = 0, map[int64]made{}
				lives[thing]++
			}
		case n == 1:
			w.now = w.now.Add(30 * time.Hour)
		case n == 2:
			w.open(true)
		case n < 10:
			w.follow(1 + random.IntN(100))
		default:
			v := w.update(by, thing, "", fmt.Sprintf(`{"state":{"desired":{"p%d":{"q%d":%d.0}},"reported":{"p%d":%s}}}`,
				random.IntN(4), random.IntN(4), step, random.IntN(4), []string{"null", "1.50", `{"q1":[1]}`}[random.IntN(3)]))
			d, err := w.Peek(t.Context(), account, thing, "")
			if err != nil {
				t.Fatal(err)
			}
			was[thing][v], newest[thing] = made{string(d.GetDocument("", 0)), by}, v
		}
	}
	w.follow(64)
	for thing, versionsOf := range was {
		for v, want := range versionsOf {
			at, err := w.At(t.Context(), account, thing, "", v)
			if err != nil && v > newest[thing]-int64(versions) {
				t.Fatalf("versions=%d: %s version %d of %d: %v", versions, thing, v, newest[thing], err)
			}
			if err != nil {
				continue
			}
			if got := string(at.GetDocument("", 0)); got != want.document || at.Made.Actor.Principal.ID != want.by {
				t.Fatalf("versions=%d: %s version %d by %s\nis  %s\nwas %s", versions, thing, v, at.Made.Actor.Principal.ID, got, want.document)
			}
		}
		lines, _ := w.list(thing, "", Query{Limit: MaxPage})
		if most := versions + 2*32 + 20; len(lines) > most && versions < 1000 {
			t.Errorf("versions=%d: %d entries of %s are kept", versions, len(lines), thing)
		}
	}
	w.check()
}

func TestRetentionByAgeAndBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Options{Versions: 1000, Age: 48 * time.Hour})
	for day := range 6 {
		for i := range 3 {
			w.update("a", "busy", "", fmt.Sprintf(`{"state":{"reported":{"n":%d}}}`, 10*day+i))
			if day == 0 {
				w.update("a", fmt.Sprintf("quiet%d", i), "", `{"state":{"reported":{"n":1}}}`)
			}
		}
		w.now = w.now.Add(24 * time.Hour)
	}
	w.follow(7)
	if err := w.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines, truncated := w.list("busy", "", Query{Limit: 100})
	if len(lines) < 6 || len(lines) > 9 || !truncated {
		t.Errorf("%d lines, %t: %v", len(lines), truncated, lines)
	}
	if lines, _ := w.list("quiet1", "", Query{Limit: 100}); len(lines) != 0 {
		t.Errorf("%v", lines)
	}
	// A shadow without history is not one without versions.
	w.update("a", "quiet1", "", `{"state":{"reported":{"n":2}}}`)
	if at, err := w.At(t.Context(), account, "quiet1", "", 2); err != nil || string(at.State()) != `{"reported":{"n":2}}` {
		t.Errorf("%v", err)
	}
	w.check()
	w.o.Bytes = 1 << 10
	for i := range 100 {
		w.update("a", fmt.Sprintf("t%d", i%5), "", fmt.Sprintf(`{"state":{"reported":{"n":%d}}}`, i))
	}
	w.follow(33)
	for range 3 {
		w.now = w.now.Add(time.Second)
		if err := w.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.check()
	}
	// What goes on is not told whole for a while, and the history says so.
	w.update("a", "t1", "", `{"state":{"reported":{"m":1}}}`)
	w.update("a", "t1", "", `{"state":{"reported":{"m":2}}}`)
	if _, err := w.At(t.Context(), account, "t1", "", 21); err == nil || !strings.Contains(err.Error(), "cannot be told") {
		t.Errorf("%v", err)
	}
	if lines, truncated := w.list("t1", "", Query{Limit: 9}); len(lines) != 2 || !truncated {
		t.Errorf("%v", lines)
	}
	w.now = w.now.Add(60 * 24 * time.Hour)
	if err := w.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := readTotal(t.Context(), w.engine, kindSize, account); err != nil || n.Entries == 0 {
		t.Error(n, err)
	}
	if lines, _ := w.list("t1", "", Query{Limit: 9}); len(lines) != 0 {
		t.Errorf("%v", lines)
	}
	w.check()
}

// BenchmarkApply is what the history costs for each update of telemetry, in
// batches as the log's consumer takes them, with the commit.
func BenchmarkApply(b *testing.B) {
	engine, err := embedded.Open(embedded.Options{Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close()
	s := New(Options{Store: engine, Versions: 100, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	const things, batch = 10_000, 1000
	versions := make([]int64, things)
	document := json.RawMessage(`{"v":1,"version":1,"at":1750000000000000000,"base":[1,1750000000],"desired":{"led":"on","interval":30},"reported":{"battery":77,"temperature":21.5,"position":{"lat":53.79648,"lon":-1.54785},"uptime":86399},"ages":[0,0,0,0,0,0,0]}`)
	seq := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		events := make([]event.Envelope, batch)
		for i := range events {
			seq++
			t := int(seq*7919) % things
			versions[t]++
			fact := event.ShadowUpdated{
				Thing: fmt.Sprintf("thing-%06d", t), Version: versions[t], Patch: json.RawMessage(`{"reported":{"battery":77,"temperature":21.5,"uptime":86400}}`),
				Timestamp: 1_750_000_000, Base: versions[t] - (versions[t]-1)%32,
			}
			if fact.Base == fact.Version {
				fact.Document = document
			}
			events[i] = event.Envelope{Seq: seq, Account: account, At: time.Unix(1_750_000_000, int64(seq)), Event: fact, Actor: fleet.Actor{
				Principal:     fleet.Principal{Kind: fleet.PrincipalCertificate, ID: strings.Repeat("c", 64), ARN: "arn:aws:iot:us-east-1:000000000001:cert/" + strings.Repeat("c", 64)},
				SourceAddress: "192.0.2.1", ClientID: fact.Thing,
			}}
		}
		changes, err := s.Apply(b.Context(), events)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := engine.Commit(b.Context(), changes); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/batch, "µs/update")
}
