package index_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/store"
)

// memberLedger is a store with an event log over a model. Its index follows by hand
// and rebuilds by itself.
type memberLedger struct {
	*model

	t  *testing.T
	x  *index.Index
	mu sync.Mutex
	// log is what happened, applied how much of it the index was given.
	log     []event.Envelope
	applied int
	config  fleet.Indexing
	// before and loaded run before a frozen view is taken and after it was read.
	before, loaded func()
	loads          int
	broken         error
}

// newMemberLedger returns a fleet whose index runs, with dynamic groups.
func newMemberLedger(t *testing.T, config fleet.Indexing, groups map[string]string) *memberLedger {
	t.Helper()
	l := &memberLedger{model: newModel(7), t: t, config: config, before: func() {}, loaded: func() {}}
	l.x = index.New(index.Options{Committer: l, Source: l, Reloader: l, Stored: l.stored, Logger: slog.New(slog.DiscardHandler)})
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		q, err := l.x.ParseThings(groups[name])
		if err != nil {
			t.Fatal(err)
		}
		l.groups[name] = &modelGroup{query: groups[name], root: q.Root}
		l.groupOrder = append(l.groupOrder, name)
	}
	b := l.x.Build()
	cursor, err := l.fill(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Finish(t.Context(), cursor); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.x.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l
}

// ThingState implements index.Source.
func (l *memberLedger) ThingState(ctx context.Context, of fleet.Account, thing string) (index.State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.model.ThingState(ctx, of, thing)
}

// CommitMembership implements index.Committer.
func (l *memberLedger) CommitMembership(ctx context.Context, changes []index.MembershipChange, cursor store.Cursor) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.model.CommitMembership(ctx, changes, cursor)
}

// stored visits what is durable, all of one moment.
func (l *memberLedger) stored(ctx context.Context, visit func(fleet.Account, string, string) error) error {
	var rows [][2]string
	l.mu.Lock()
	err := l.model.stored(ctx, func(_ fleet.Account, group, thing string) error {
		rows = append(rows, [2]string{group, thing})
		return nil
	})
	l.mu.Unlock()
	for _, row := range rows {
		err = errors.Join(err, visit(account, row[0], row[1]))
	}
	return err
}

// fill puts the model as it is.
func (l *memberLedger) fill(b *index.Builder) (store.Cursor, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.PutIndexing(account, l.config)
	for _, name := range l.groupOrder {
		b.PutGroup(account, index.Group{Name: name, Query: l.groups[name].query, CreatedAt: time.Unix(1, 0)})
	}
	for name, thing := range l.things {
		state, err := l.model.ThingState(context.Background(), account, name)
		if err != nil {
			return store.Cursor{}, err
		}
		v := thing.Thing
		err = b.PutThing(account, index.Thing{
			Name: name, ID: v.ThingID, TypeName: v.TypeName, Attributes: v.Attributes, BillingGroup: v.BillingGroup, Version: v.Version,
		}, slices.Collect(maps.Keys(thing.groups)), state)
		if err != nil {
			return store.Cursor{}, err
		}
	}
	return store.CursorAt(store.Position{Seq: l.seq}), nil
}

// LoadAccount implements index.Reloader.
func (l *memberLedger) LoadAccount(_ context.Context, of fleet.Account, b *index.Builder) (store.Cursor, error) {
	if of != account {
		return store.Cursor{}, errors.New("another account")
	}
	l.mu.Lock()
	l.loads++
	before, loaded, broken := l.before, l.loaded, l.broken
	l.mu.Unlock()
	before()
	if broken != nil {
		return store.Cursor{}, broken
	}
	cursor, err := l.fill(b)
	loaded()
	return cursor, err
}

// Events implements index.Reloader.
func (l *memberLedger) Events(_ context.Context, after store.Cursor, limit int) ([]event.Envelope, store.Cursor, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []event.Envelope
	for _, e := range l.log {
		if e.Seq > after.Seq(e.Partition) && len(found) < limit {
			found = append(found, e)
			after = after.Advance(store.Position{Partition: e.Partition, Seq: e.Seq})
		}
	}
	return found, after, nil
}

// set changes what the next rebuild meets.
func (l *memberLedger) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// happen makes random changes that the index does not know yet.
func (l *memberLedger) happen(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range n {
		l.log = append(l.log, l.change(40)...)
	}
}

// configure commits a configuration, its version counted on.
func (l *memberLedger) configure(config fleet.Indexing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	config.Version = l.config.Version + 1
	l.config = config
	l.log = append(l.log, l.envelope(event.IndexingConfigurationChanged{Indexing: config}))
}

// follow gives the index what it does not know.
func (l *memberLedger) follow() {
	l.t.Helper()
	l.mu.Lock()
	batch := slices.Clone(l.log[l.applied:])
	l.applied = len(l.log)
	l.mu.Unlock()
	if err := l.x.Apply(context.Background(), batch); err != nil {
		l.t.Error(err)
	}
}

// status are the two states for the stored configuration.
func (l *memberLedger) status() [2]index.Status {
	things, groups := l.x.StatusOf(account, &l.config)
	return [2]index.Status{things, groups}
}

// agree checks queries and memberships against the model.
func (l *memberLedger) agree(queries ...string) {
	l.t.Helper()
	synctest.Wait() // memberships are committed beside
	docs, members := l.documents()
	for group, things := range members {
		if diff := cmp.Diff(slices.Sorted(maps.Keys(things)), slices.Sorted(maps.Keys(l.committed[group]))); diff != "" {
			l.t.Errorf("committed members of %s: %s", group, diff)
		}
		got, _, err := l.x.Members(account, group, "", 1000)
		if err != nil || !slices.Equal(got, slices.Sorted(maps.Keys(things))) {
			l.t.Errorf("members of %s: %v, %v", group, got, err)
		}
	}
	for _, text := range queries {
		q, err := l.x.ParseThings(text)
		if err != nil {
			l.t.Fatal(err)
		}
		want := []string{}
		for name, d := range docs {
			if d.holds(q.Root) {
				want = append(want, name)
			}
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, search(l.t, l.x, q, 7)); diff != "" {
			l.t.Errorf("%s: %s", text, diff)
		}
	}
}

// refused is the code with which a query is refused, "" when it is not.
func (l *memberLedger) refused(text string) fault.Code {
	l.t.Helper()
	q, err := l.x.ParseThings(text)
	if err == nil {
		_, _, err = l.x.Search(account, q, "", 10)
	}
	if err == nil {
		return ""
	}
	return fault.CodeOf(err)
}

// registryQueries ask only for what every configuration here has.
func registryQueries() map[string]string {
	return map[string]string{
		"oslo": "attributes.site:oslo*", "pumps": "thingTypeName:Pump", "rest": "NOT attributes.hw:r1", "within-oslo": "thingGroupNames:oslo attributes.ratio>1",
	}
}

// TestRebuildLosesNothing: things change before, during and after each of many
// rebuilds, and every membership that is committed is a change (the committer
// of the model refuses others), so none flaps.
func TestRebuildLosesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newMemberLedger(t, fleet.DefaultIndexing(), registryQueries())
		l.happen(300)
		l.follow()
		configs := []fleet.Indexing{
			{Things: fleet.ThingIndexing{Registry: true}, Groups: fleet.GroupIndexing{On: true}},
			{Things: fleet.ThingIndexing{Registry: true, Shadows: true, Connectivity: true}},
			{Things: fleet.ThingIndexing{Registry: true, NamedShadows: true, ShadowNames: []string{"gps"}}, Groups: fleet.GroupIndexing{On: true}},
			fleet.DefaultIndexing(),
		}
		for round := range 24 {
			l.set(func() {
				l.before = func() { l.happen(20) } // in the view, and not yet applied
				l.loaded = func() { l.happen(20) } // neither
			})
			l.configure(configs[round%len(configs)])
			l.follow()
			synctest.Wait()
			if got := l.status(); round%4 == 0 && got != [2]index.Status{index.Rebuilding, index.Rebuilding} {
				t.Fatalf("status %v before the rebuild can end", got)
			}
			l.follow()
			synctest.Wait()
			if things, _ := l.x.StatusOf(account, &l.config); things != index.Active {
				t.Fatalf("round %d: status %v", round, things)
			}
			l.happen(10)
			l.follow()
			l.agree("*", "attributes.note:intake", "thingGroupNames:oslo")
		}
		if l.loads != 24 {
			t.Errorf("%d rebuilds", l.loads)
		}
		l.agree("shadow.reported.battery>0", "shadow.name.gps.hasDelta:true", "connectivity.connected:true", "shadow.hasDelta:false")
	})
}

// TestSourcesThatAreOff: what is not indexed cannot be asked for (§4.1).
func TestSourcesThatAreOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newMemberLedger(t, fleet.DefaultIndexing(), nil)
		l.happen(300)
		l.follow()
		if total := len(find(t, l.x, "connectivity.connected:true")); total == 0 {
			t.Fatal("nobody is connected")
		}
		for _, c := range []struct {
			things     fleet.ThingIndexing
			has, lacks []string
		}{
			{fleet.ThingIndexing{Registry: true}, []string{"attributes.site:oslo*"}, []string{
				"shadow.reported.battery>1", "shadow.hasDelta:true", "shadow.name.gps.hasDelta:true", "connectivity.connected:true",
				"deviceDefender.violationCount>0", "shadow:*", "shadow.name:*",
			}},
			{
				fleet.ThingIndexing{Registry: true, Shadows: true, Violations: true},
				[]string{"shadow.hasDelta:true", "deviceDefender.violationCount>0", "shadow:*"},
				[]string{"shadow.name.gps.hasDelta:true", "connectivity.connected:false"},
			},
			{
				fleet.ThingIndexing{Registry: true, NamedShadows: true, ShadowNames: []string{"gps"}, Connectivity: true},
				[]string{"shadow.name.gps.hasDelta:false", "connectivity.connected:false", "shadow:*", "shadow.name:*"},
				[]string{"shadow.name.$package.hasDelta:false", "shadow.hasDelta:true"},
			},
		} {
			l.configure(fleet.Indexing{Things: c.things})
			l.follow()
			synctest.Wait()
			for _, text := range c.has {
				if code := l.refused(text); code != "" {
					t.Errorf("%+v: %s: %s", c.things, text, code)
				}
			}
			for _, text := range c.lacks {
				if code := l.refused(text); code != fault.InvalidQuery {
					t.Errorf("%+v: %s: %q", c.things, text, code)
				}
			}
			l.happen(50)
			l.follow()
			if !c.things.NamedShadows {
				continue
			}
			want := []string{}
			for name := range l.things {
				if l.shadows[name]["gps"] != nil {
					want = append(want, name)
				}
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, find(t, l.x, "shadow.name:*")); diff != "" {
				t.Error(diff)
			}
		}
	})
}

// TestOffAndOn: OFF ends the index at once; the first build afterwards is
// BUILDING and not queryable, that of the other index does not suffer (§4.1).
func TestOffAndOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newMemberLedger(t, fleet.DefaultIndexing(), nil)
		l.happen(100)
		l.follow()
		off := fleet.Indexing{Groups: fleet.GroupIndexing{On: true}}
		l.configure(off)
		if got := l.status(); got != [2]index.Status{"", index.Rebuilding} {
			t.Errorf("status %v", got)
		}
		l.follow()
		if code := l.refused("*"); code != fault.ResourceNotFound {
			t.Errorf("search right after: %q", code)
		}
		synctest.Wait()
		if got := l.status(); got != [2]index.Status{"", index.Active} {
			t.Errorf("status %v", got)
		}
		l.happen(100)
		l.follow()
		if code := l.refused("*"); code != fault.ResourceNotFound {
			t.Errorf("search: %q", code)
		}
		if n := l.x.Stats().Things; n != 0 {
			t.Errorf("%d things are kept", n)
		}
		l.set(func() { l.before = func() { l.happen(1) } }) // holds the build back
		l.configure(fleet.DefaultIndexing())
		l.follow()
		synctest.Wait()
		if got := l.status(); got != [2]index.Status{index.Building, index.Rebuilding} {
			t.Errorf("status %v", got)
		}
		if code := l.refused("*"); code != fault.IndexNotReady {
			t.Errorf("search while building: %q", code)
		}
		q, err := l.x.ParseGroups("*")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.x.SearchGroups(account, q, "", 10); err != nil {
			t.Errorf("groups: %v", err)
		}
		l.follow()
		synctest.Wait()
		if got := l.status(); got != [2]index.Status{index.Active, index.Active} {
			t.Errorf("status %v", got)
		}
		l.agree("*", "shadow.hasDelta:true")
	})
}

// TestConfigurationWithoutRebuild: custom fields hold at once.
func TestConfigurationWithoutRebuild(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newMemberLedger(t, fleet.DefaultIndexing(), nil)
		config := fleet.DefaultIndexing()
		config.Things.CustomFields = []fleet.IndexedField{{Name: "attributes.ratio", Type: fleet.FieldNumber}}
		l.configure(config)
		if got := l.status(); got != [2]index.Status{index.Active, index.Active} {
			t.Errorf("status %v", got)
		}
		l.follow()
		if diff := cmp.Diff(l.config, l.x.Indexing(account)); diff != "" {
			t.Error(diff)
		}
		synctest.Wait()
		if l.loads != 0 {
			t.Errorf("%d rebuilds", l.loads)
		}
		config.Things.GeoLocations = []fleet.GeoLocation{{Name: "shadow.reported.at"}}
		l.configure(config)
		l.follow()
		synctest.Wait()
		if diff := cmp.Diff(l.config, l.x.Indexing(account)); diff != "" || l.loads != 1 {
			t.Errorf("%d rebuilds, %s", l.loads, diff)
		}
	})
}

// TestRebuildIsTriedAgain: a failing store delays a rebuild, and a change in the
// middle of one is not forgotten.
func TestRebuildIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newMemberLedger(t, fleet.DefaultIndexing(), registryQueries())
		l.happen(100)
		l.follow()
		l.set(func() { l.broken = errors.New("no disk") })
		registryOnly := fleet.Indexing{Things: fleet.ThingIndexing{Registry: true}, Groups: fleet.GroupIndexing{On: true}}
		l.configure(registryOnly)
		l.follow()
		synctest.Wait()
		if got := l.status(); got[0] != index.Rebuilding || l.loads != 1 {
			t.Fatalf("status %v after %d tries", got, l.loads)
		}
		settled := make(chan error, 1)
		go func() { settled <- l.x.WaitSettled(t.Context()) }()
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := l.x.WaitSettled(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("settled while a rebuild is to come: %v", err)
		}
		if code := l.refused("shadow.hasDelta:true"); code != "" {
			t.Errorf("the index before has gone: %s", code)
		}
		l.set(func() {
			l.broken = nil
			l.loaded = func() {
				l.set(func() { l.loaded = func() {} })
				l.configure(fleet.DefaultIndexing())
			}
		})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		l.follow()
		synctest.Wait()
		if got := l.status(); got[0] != index.Active || l.loads != 2 && l.loads != 3 {
			t.Errorf("status %v after %d tries", got, l.loads)
		}
		if err := <-settled; err != nil {
			t.Error(err)
		}
		l.agree("*", "shadow.hasDelta:true", "shadow.name.gps.hasDelta:false")
	})
}

// TestWholeBuildEndsRebuild: when the index falls behind the log and is built as
// a whole, the rebuild of an account gives way.
func TestWholeBuildEndsRebuild(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newMemberLedger(t, fleet.DefaultIndexing(), registryQueries())
		l.repeats = true
		l.happen(100)
		l.follow()
		l.set(func() {
			l.loaded = func() {
				l.set(func() { l.loaded = func() {} })
				l.happen(50)
				b := l.x.Build()
				cursor, err := l.fill(b)
				if err != nil {
					t.Error(err)
				}
				l.set(func() {
					for group, things := range l.committed {
						b.LoadMembership(account, group, slices.Collect(maps.Keys(things))...)
					}
				})
				if err := b.Finish(t.Context(), cursor); err != nil {
					t.Error(err)
				}
				l.set(func() { l.applied = len(l.log) })
			}
		})
		l.configure(fleet.Indexing{Things: fleet.ThingIndexing{Registry: true}})
		l.follow()
		synctest.Wait()
		if got := l.status(); got != [2]index.Status{index.Active, ""} {
			t.Errorf("status %v", got)
		}
		l.happen(20)
		l.follow()
		l.agree("*", "attributes.site:oslo*")
		if l.loads != 1 {
			t.Errorf("%d loads", l.loads)
		}
	})
}

// TestIndexingOffByDefault: accounts without a configuration have no index, and
// what is stored of dynamic groups is left as it is.
func TestIndexingOffByDefault(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := index.New(index.Options{Committer: m, Source: m, Logger: slog.New(slog.DiscardHandler), IndexingOff: true})
	b := x.Build()
	b.PutGroup(account, index.Group{Name: "oslo", Query: "attributes.site:oslo", CreatedAt: time.Unix(1, 0)})
	if err := b.PutThing(account, index.Thing{Name: "a", Attributes: map[string]string{"site": "oslo"}}, nil, index.State{}); err != nil {
		t.Fatal(err)
	}
	m.committed["oslo"] = map[string]bool{"a": true}
	b.LoadMembership(account, "oslo", "a")
	if err := b.Finish(t.Context(), store.CursorAt(store.Position{Seq: 1})); err != nil {
		t.Fatal(err)
	}
	m.seq = 1
	m.apply(t, x, thing("b"), event.ThingDeleted{Thing: "b"})
	if !m.committed["oslo"]["a"] {
		t.Error("the membership has ended")
	}
	q, err := x.ParseThings("*")
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []fleet.Account{account, "000000000009"} {
		if _, _, err := x.Search(of, q, "", 10); fault.CodeOf(err) != fault.ResourceNotFound || !strings.Contains(err.Error(), "AWS_Things") {
			t.Errorf("%s: %v", of, err)
		}
		if _, err := x.Count(of, q); fault.CodeOf(err) != fault.ResourceNotFound {
			t.Errorf("%s: %v", of, err)
		}
	}
}
