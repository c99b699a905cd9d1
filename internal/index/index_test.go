package index_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/store"
)

// find returns the things that match a query.
func find(t *testing.T, x *index.Index, text string) []string {
	t.Helper()
	q, err := x.ParseThings(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return search(t, x, q, 100)
}

// expect checks what a query finds; want lists names with spaces.
func expect(t *testing.T, x *index.Index, text, want string) {
	t.Helper()
	if got := strings.Join(find(t, x, text), " "); got != want {
		t.Errorf("%s: got %q, want %q", text, got, want)
	}
}

// apply makes one batch of events.
func (m *model) apply(t *testing.T, x *index.Index, events ...event.Event) {
	t.Helper()
	var batch []event.Envelope
	for _, e := range events {
		batch = append(batch, m.envelope(e))
	}
	if err := x.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

func thing(name string) event.ThingCreated {
	return event.ThingCreated{Thing: event.Thing{Thing: name, ThingID: "id-" + name, Version: 1}}
}

func reported(name string, version int64, state string) event.ShadowUpdated {
	return event.ShadowUpdated{Thing: name, Version: version, Patch: []byte(`{"reported":` + state + `}`), Timestamp: 1_750_000_001}
}

func dynamic(name, query string, born int64) event.ThingGroupCreated {
	return event.ThingGroupCreated{ThingGroup: event.ThingGroup{Group: name, Query: query, CreatedAt: time.Unix(born, 0)}}
}

// TestNotReady: before the first build has finished nothing can be searched
// (§4.1, BUILDING).
func TestNotReady(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := index.New(index.Options{Committer: m, Source: m, Logger: slog.New(slog.DiscardHandler)})
	q, err := x.ParseThings("*")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := x.Search(account, q, "", 10); fault.CodeOf(err) != fault.IndexNotReady {
		t.Errorf("search: %v", err)
	}
	if err := x.Apply(t.Context(), []event.Envelope{m.envelope(thing("a"))}); fault.CodeOf(err) != fault.IndexNotReady {
		t.Errorf("apply: %v", err)
	}
	if got := x.Status(); got != index.Building {
		t.Errorf("status %s", got)
	}
	m.build(t, x)
	if got := x.Status(); got != index.Active {
		t.Errorf("status %s after the build", got)
	}
	b := x.Build()
	if got := x.Status(); got != index.Rebuilding {
		t.Errorf("status %s during the second build", got)
	}
	b.Abandon()
	if got := x.Status(); got != index.Active {
		t.Errorf("status %s after giving up", got)
	}
	if names := find(t, x, "*"); len(names) != 0 {
		t.Errorf("an account without anything has %v", names)
	}
}

// TestThingLifecycle: shadows of unregistered names are not indexed and enter
// with the thing (§4.2); a thing never seen is connected:false.
func TestThingLifecycle(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	m.apply(t, x, reported("p", 1, `{"battery":5}`))
	expect(t, x, "shadow.reported.battery:*", "")
	m.shadows["p"] = map[string]*modelShadow{"": {
		version: 4, state: map[string]any{"reported": map[string]any{"battery": 7.0}},
		stamps: map[string]int64{"reported.battery": 99},
	}}
	m.apply(t, x, thing("p"))
	expect(t, x, "shadow.reported.battery:7 AND connectivity.connected:false", "p")
	expect(t, x, "shadow.metadata.reported.battery.timestamp:99", "p")
	// What the loaded document already contains is not applied again.
	m.apply(t, x, reported("p", 3, `{"battery":6}`))
	expect(t, x, "shadow.reported.battery:7", "p")
	m.apply(t, x, reported("p", 5, `{"battery":8}`))
	expect(t, x, "shadow.reported.battery:8 shadow.metadata.reported.battery.timestamp:1750000001", "p")
	m.apply(t, x, event.ThingDeleted{Thing: "p", Version: 1})
	expect(t, x, "*", "")
	expect(t, x, "shadow.reported.battery:*", "")
}

// TestConnectivity: only connections of a client that is named like the thing
// are indexed, as after a rebuild; the end of a replaced connection is ignored
// (monitoring §8).
func TestConnectivity(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	m.apply(t, x, thing("p"), thing("q"), thing("r"),
		event.DeviceConnected{Session: event.Session{ClientID: "p", Indexed: true, Version: 1}},
		event.DeviceConnected{Session: event.Session{ClientID: "q", Version: 1}},
		event.DeviceConnected{Session: event.Session{ClientID: "any", ThingName: "r", Version: 1}})
	expect(t, x, "connectivity.connected:true", "p")
	m.apply(t, x,
		event.DeviceConnected{Session: event.Session{ClientID: "p", Indexed: true, Version: 2}},
		event.DeviceDisconnected{Session: event.Session{ClientID: "p", Indexed: true, Version: 1}, Reason: "DUPLICATE_CLIENTID"})
	expect(t, x, "connectivity.connected:true", "p")
	m.apply(t, x, event.DeviceDisconnected{Session: event.Session{ClientID: "p", Indexed: true, Version: 2}, Reason: "CONNECTION_LOST"})
	expect(t, x, "connectivity.connected:true", "")
	expect(t, x, "connectivity.disconnectReason:connection_lost", "p")
	expect(t, x, fmt.Sprintf("connectivity.timestamp:%d", m.clock*1000), "p")
	m.apply(t, x, event.DeviceConnected{Session: event.Session{ClientID: "p", Indexed: true, Version: 3}})
	expect(t, x, "connectivity.disconnectReason:*", "")
}

// TestEveryDisconnectReasonIsSearchable: the thirteen of device plane, 3.1.
func TestEveryDisconnectReasonIsSearchable(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	for i, reason := range []string{
		"AUTH_ERROR", "CLIENT_INITIATED_DISCONNECT", "CLIENT_ERROR", "CONNECTION_LOST", "DUPLICATE_CLIENTID", "FORBIDDEN_ACCESS",
		"MQTT_KEEP_ALIVE_TIMEOUT", "SERVER_ERROR", "SERVER_INITIATED_DISCONNECT", "API_INITIATED_DISCONNECT", "THROTTLED",
		"WEBSOCKET_TTL_EXPIRATION", "CUSTOMAUTH_TTL_EXPIRATION",
	} {
		name := fmt.Sprintf("p%02d", i)
		m.apply(t, x, thing(name), event.DeviceDisconnected{Session: event.Session{ClientID: name, Indexed: true}, Reason: reason})
		expect(t, x, "connectivity.disconnectReason:"+reason, name)
	}
}

// TestThingGroupIndex: AWS_ThingGroups, with the names of all ancestors (§4.2).
func TestThingGroupIndex(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	m.apply(t, x,
		event.ThingGroupCreated{ThingGroup: event.ThingGroup{Group: "Top", GroupID: "g1", Description: "All the pumps", Attributes: map[string]string{"owner": "ann", "floor": "3"}, Version: 1}},
		event.ThingGroupCreated{ThingGroup: event.ThingGroup{Group: "mid", Parent: "Top", Ancestors: []string{"Top"}, Version: 1}},
		event.ThingGroupCreated{ThingGroup: event.ThingGroup{Group: "low", Parent: "mid", Ancestors: []string{"Top", "mid"}, Version: 1}})
	check := func(text, want string) {
		t.Helper()
		q, err := x.ParseGroups(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		got, _, err := x.SearchGroups(account, q, "", 10)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: got %v %v, want %q", text, got, err, want)
		}
	}
	check("*", "Top low mid")
	check("parentGroupNames:top", "low mid")
	check("thingGroupNames:MID", "mid")
	check(`thingGroupDescription:"the pumps" AND attributes.floor<4`, "Top")
	check("ann", "Top")
	m.apply(t, x,
		event.ThingGroupUpdated{ThingGroup: event.ThingGroup{Group: "Top", GroupID: "g1", Version: 2}},
		event.ThingGroupDeleted{Group: "low"})
	check("description:*", "")
	check("attributes:*", "")
	check("*", "Top mid")
	if _, err := x.ParseGroups("version>1"); fault.CodeOf(err) != fault.InvalidQuery {
		t.Errorf("version is searchable: %v", err)
	}
}

// TestRefusedFields: versions are returned but not searchable (§4.2).
func TestRefusedFields(t *testing.T) {
	t.Parallel()
	x := newIndex(t, newModel(1))
	for _, text := range []string{
		"registry.version>1", "shadow.version:1", "shadow.name.gps.version:1", "connectivity.version:1", "deviceDefender.p.b.inViolation:false",
	} {
		if _, err := x.ParseThings(text); fault.CodeOf(err) != fault.InvalidQuery {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := x.ParseThings("shadow.reported.version:1 shadow.name.gps.reported.version:1"); err != nil {
		t.Error(err)
	}
}

// TestGroupLifecycle: members follow the query (§3.1, §3.2), and the group's
// name is a group name of its members.
func TestGroupLifecycle(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	if got := x.GroupStatus(account, "low", "shadow.reported.battery<20"); got != index.Building {
		t.Errorf("status %s before the definition", got)
	}
	m.apply(t, x, thing("a"), thing("b"), reported("a", 1, `{"battery":10}`), reported("b", 1, `{"battery":90}`))
	m.apply(t, x, dynamic("low", "shadow.reported.battery<20", 1), dynamic("inner", "thingGroupNames:low", 2))
	if diff := cmp.Diff(map[string]map[string]bool{"low": {"a": true}, "inner": {"a": true}}, m.committed); diff != "" {
		t.Error(diff)
	}
	if got := x.GroupStatus(account, "low", "shadow.reported.battery<20"); got != index.Active {
		t.Errorf("status %s", got)
	}
	if got := x.GroupStatus(account, "low", "other"); got != index.Rebuilding {
		t.Errorf("status %s before the change has come", got)
	}
	// Only the final state of a batch counts.
	m.apply(t, x, reported("b", 2, `{"battery":5}`), reported("b", 3, `{"battery":95}`))
	m.apply(t, x, reported("a", 2, `{"battery":20}`), reported("b", 4, `{"battery":19.9}`))
	expect(t, x, "thingGroupNames:(low inner)", "b")
	groups, err := x.GroupsOf(account, "b")
	if diff := cmp.Diff([]string{"low", "inner"}, groups); diff != "" || err != nil {
		t.Error(err, diff)
	}
	updated := event.ThingGroup{Group: "low", Query: "shadow.reported.battery>=20", CreatedAt: time.Unix(1, 0)}
	m.apply(t, x, event.ThingGroupUpdated{ThingGroup: updated})
	expect(t, x, "thingGroupNames:(low inner)", "a")
	m.apply(t, x, event.ThingDeleted{Thing: "a"}, event.ThingGroupDeleted{Group: "inner", Dynamic: true})
	if diff := cmp.Diff(map[string]map[string]bool{"low": {}, "inner": {}}, m.committed); diff != "" {
		t.Error(diff)
	}
	expect(t, x, "thingGroupNames:*", "")
}

// TestSelfReference: a group that excludes its own members never settles; the
// batch ends all the same and says so.
func TestSelfReference(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	m.apply(t, x, thing("a"), dynamic("odd", "NOT thingGroupNames:odd", 1))
	if got := x.Stats().Unstable; got == 0 {
		t.Error("the loop was not counted")
	}
	expect(t, x, "thingName:a", "a")
}

// TestQueriesThatDenyTheirGroup: what would make a thing leave by entering is
// refused, whatever form it has.
func TestQueriesThatDenyTheirGroup(t *testing.T) {
	t.Parallel()
	x := newIndex(t, newModel(1))
	for query, denies := range map[string]bool{
		"NOT thingGroupNames:odd": true,
		"thingName:a NOT (attributes.b:1 OR registry.thingGroupNames:O*)": true,
		"NOT thingGroupNames:*":     true,
		"NOT thingGroupNames>=a":    true,
		"NOT odd":                   true,
		`NOT thingGroupNames:"odd"`: true,
		"NOT (thingName:b NOT (NOT thingGroupNames:odd))": true,
		"thingGroupNames:odd":                             false,
		"NOT (NOT thingGroupNames:odd)":                   false,
		"NOT thingGroupNames:even":                        false,
		"NOT attributes.group:odd":                        false,
		"NOT thingGroupNames:odder* NOT x*":               false,
	} {
		err := x.CheckGroupQuery("Odd", query)
		if denies != (fault.CodeOf(err) == fault.InvalidQuery) || !denies && err != nil {
			t.Errorf("%s: %v", query, err)
		}
	}
}

// TestGroupLimit: a thing is in at most so many groups; static ones win, then
// elder dynamic ones, and a free place is taken at once (§3.3).
func TestGroupLimit(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := index.New(index.Options{Committer: m, Source: m, Logger: slog.New(slog.DiscardHandler), GroupLimit: 2})
	m.build(t, x)
	member := func(group string, in bool) event.Event {
		return event.MembershipChanged{Group: group, Thing: "a", Added: in}
	}
	check := func(want ...string) {
		t.Helper()
		got, err := x.GroupsOf(account, "a")
		if !slices.Equal(got, want) || err != nil {
			t.Errorf("in %v %v, want %v", got, err, want)
		}
	}
	m.apply(t, x, thing("a"), dynamic("young", "*", 30), dynamic("middle", "*", 20))
	check("middle", "young")
	m.apply(t, x, dynamic("old", "*", 10))
	check("old", "middle")
	m.apply(t, x, member("static-1", true))
	check("old")
	m.apply(t, x, member("static-2", true))
	check()
	if got := x.Stats().Refused; got < 3 {
		t.Errorf("%d refusals counted", got)
	}
	m.apply(t, x, member("static-1", false))
	check("old")
	m.apply(t, x, event.ThingGroupDeleted{Group: "old", Dynamic: true})
	check("middle")
	m.apply(t, x, event.ThingGroupDeleted{Group: "static-2"})
	check("middle", "young")
	if diff := cmp.Diff(map[string]map[string]bool{"middle": {"a": true}, "young": {"a": true}, "old": {}}, m.committed); diff != "" {
		t.Error(diff)
	}
}

// TestBillingGroupTakesNoPlace: it is among the names, not among the groups.
func TestBillingGroupTakesNoPlace(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := index.New(index.Options{Committer: m, Source: m, Logger: slog.New(slog.DiscardHandler), GroupLimit: 1})
	m.build(t, x)
	created := thing("a")
	created.BillingGroup = "cost"
	m.apply(t, x, created, dynamic("all", "*", 1))
	expect(t, x, "thingGroupNames:cost thingGroupNames:all", "a")
}

// TestBillingGroupChanges: a thing that enters or leaves a billing group is
// found by its name, and dynamic groups follow, without a new version of the
// thing.
func TestBillingGroupChanges(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	m.apply(t, x, thing("a"), thing("b"), dynamic("billed", "thingGroupNames:cost", 1),
		event.MembershipChanged{Group: "static", Thing: "a", Added: true},
		event.BillingGroupMembershipChanged{BillingGroup: "cost", Thing: "a", Added: true},
		event.BillingGroupMembershipChanged{BillingGroup: "cost", Thing: "unknown", Added: true})
	expect(t, x, "thingGroupNames:cost", "a")
	expect(t, x, "thingGroupNames:cost thingGroupNames:static", "a")
	expect(t, x, "thingGroupNames:billed", "a")
	m.apply(t, x, event.BillingGroupMembershipChanged{BillingGroup: "cost", Thing: "a"},
		event.BillingGroupMembershipChanged{BillingGroup: "other", Thing: "a", Added: true})
	expect(t, x, "thingGroupNames:cost", "")
	expect(t, x, "thingGroupNames:billed", "")
	expect(t, x, "thingGroupNames:other thingGroupNames:static", "a")
	if diff := cmp.Diff(map[string]map[string]bool{"billed": {}}, m.committed); diff != "" {
		t.Error(diff)
	}
}

// TestRestart: after a restart only the memberships that really changed are
// committed, those of things and groups that are gone included.
func TestRestart(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	m.committed = map[string]map[string]bool{"all": {"a": true, "gone": true}, "dropped": {"a": true}}
	m.things["a"] = &modelThing{Thing: event.Thing{Thing: "a"}}
	m.things["b"] = &modelThing{Thing: event.Thing{Thing: "b"}}
	m.groups["all"] = &modelGroup{query: "*"}
	m.groupOrder = []string{"all"}
	m.build(t, x)
	if diff := cmp.Diff(map[string]map[string]bool{"all": {"a": true, "b": true}, "dropped": {}}, m.committed); diff != "" {
		t.Error(diff)
	}
}

// TestFailedCommit: changes wait for the next Apply, and two that cancel each
// other are never told.
func TestFailedCommit(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	m.apply(t, x, thing("a"), thing("b"), dynamic("low", "shadow.reported.battery<20", 1))
	m.failing = true
	batch := []event.Envelope{m.envelope(reported("a", 1, `{"battery":1}`)), m.envelope(reported("b", 1, `{"battery":1}`))}
	if err := x.Apply(t.Context(), batch); !errors.Is(err, errCommit) {
		t.Fatalf("got %v", err)
	}
	m.failing = false
	m.apply(t, x, reported("a", 2, `{"battery":50}`))
	if diff := cmp.Diff(map[string]map[string]bool{"low": {"b": true}}, m.committed); diff != "" {
		t.Error(diff)
	}
	// The batch again changes nothing.
	if err := x.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	expect(t, x, "shadow.reported.battery:50", "a")
}

// TestAccounts: nothing is seen from another account.
func TestAccounts(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	m.apply(t, x, thing("a"))
	q, err := x.ParseThings("*")
	if err != nil {
		t.Fatal(err)
	}
	if names, _, err := x.Search("000000000002", q, "", 10); len(names) != 0 || err != nil {
		t.Errorf("got %v %v", names, err)
	}
}

// TestWaitApplied returns when the batch is in, or with the context.
func TestWaitApplied(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	m.seq = 6
	until := store.CursorAt(store.Position{Seq: 7})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := x.WaitApplied(cancelled, until); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	done := make(chan error)
	go func() { done <- x.WaitApplied(t.Context(), until) }()
	m.apply(t, x, thing("a"))
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !x.Applied().CoversAll(until) {
		t.Errorf("applied %v", x.Applied())
	}
}

// TestBadDocument: a patch that is not JSON leaves its shadow as it was and
// does not hold up the others.
func TestBadDocument(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	m.apply(t, x, thing("a"), reported("a", 1, `{"b":1}`), reported("a", 2, `{"b":`), reported("a", 3, `{"c":1}`))
	expect(t, x, "shadow.reported.b:1 shadow.reported.c:1", "a")
}

// TestPathLimit: new paths beyond the bound are left out and counted, paths
// that became empty make room, and a group's query always has its paths.
func TestPathLimit(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := index.New(index.Options{Committer: m, Source: m, Logger: slog.New(slog.DiscardHandler), MaxPaths: 60})
	m.build(t, x)
	m.apply(t, x, thing("a"))
	version := int64(0)
	for i := range 100 {
		version++
		m.apply(t, x, reported("a", version, fmt.Sprintf(`{"k%d":1}`, i)))
	}
	stats := x.Stats()
	if stats.Dropped == 0 || stats.Paths > 70 {
		t.Errorf("%+v", stats)
	}
	expect(t, x, "shadow.reported.k0:1", "a")
	expect(t, x, "shadow.reported.k99:1", "")
	m.apply(t, x, dynamic("g", "shadow.reported.want.deep:1", 1), reported("a", version+1, `{"want":{"deep":1}}`))
	expect(t, x, "thingGroupNames:g", "a")
	m.apply(t, x, reported("a", version+2, `null`))
	for i := range 100 {
		m.apply(t, x, reported("a", version+3+int64(i), `{"fresh":1}`))
	}
	expect(t, x, "shadow.reported.fresh:1", "a")
}

// TestLongText: a text beyond the bound is left out and counted.
func TestLongText(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	m.apply(t, x, thing("a"), reported("a", 1, fmt.Sprintf(`{"long":%q,"list":["x",%q,"y"]}`, strings.Repeat("l", 5000), strings.Repeat("m", 5000))))
	expect(t, x, "shadow.reported.long:*", "")
	expect(t, x, "shadow.reported.list:x shadow.reported.list:y", "a")
	if got := x.Stats().Dropped; got != 2 {
		t.Errorf("%d dropped", got)
	}
}

// TestConcurrentSearches runs searches beside batches; each search sees whole
// batches only.
func TestConcurrentSearches(t *testing.T) {
	t.Parallel()
	const fleetSize, rounds = 3000, 60
	m := newModel(1)
	x := newIndex(t, m)
	var events []event.Event
	for i := range fleetSize {
		events = append(events, thing(fmt.Sprintf("p-%04d", i)))
	}
	m.apply(t, x, append(events, dynamic("even", "shadow.reported.parity:0", 1))...)
	ctx, stop := context.WithCancel(t.Context())
	var searches sync.WaitGroup
	for _, text := range []string{"shadow.reported.parity:0", "thingGroupNames:even", "shadow.reported.label:round*", "*"} {
		q, err := x.ParseThings(text)
		if err != nil {
			t.Fatal(err)
		}
		searches.Go(func() {
			for ctx.Err() == nil {
				n, err := x.Count(account, q)
				if err != nil || (n != 0 && n != fleetSize) {
					t.Errorf("%s: saw %d things: %v", text, n, err)
				}
				if names, _, err := x.Search(account, q, "p-1000", 50); err != nil || (n == fleetSize && text == "*" && len(names) != 50) {
					t.Errorf("%s: %d names: %v", text, len(names), err)
				}
			}
		})
	}
	for round := range int64(rounds) {
		events = events[:0]
		for i := range fleetSize {
			events = append(events, reported(fmt.Sprintf("p-%04d", i), round+1, fmt.Sprintf(`{"parity":%d,"label":"round %d-%d"}`, round%2, round, i)))
		}
		m.apply(t, x, events...)
	}
	stop()
	searches.Wait()
	expect(t, x, `shadow.reported.label:59-1234`, "p-1234")
	expect(t, x, `shadow.reported.label:58-1234`, "")
}

// TestChurnedTexts: when the dictionary gives the numbers of old texts to new
// ones, nothing of the old ones is left, neither their words nor their kind.
func TestChurnedTexts(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	m.apply(t, x, thing("a"), thing("b"))
	for i := range int64(6000) {
		// Phrases first, then single words, in two rounds.
		text := fmt.Sprintf("two words%d", i)
		if i/1500%2 == 1 {
			text = fmt.Sprintf("word%d", i)
		}
		m.apply(t, x, reported("a", i+1, fmt.Sprintf(`{"text":%q}`, text)))
		if i%100 == 99 {
			expect(t, x, fmt.Sprintf("shadow.reported.text:%q", text), "a")
			expect(t, x, "shadow.reported.text:wor*", "a")
			expect(t, x, fmt.Sprintf("shadow.reported.text:(word%d OR words%d)", i-1, i-1), "")
		}
		if i%1500 == 1499 {
			phrases := map[bool]string{true: "", false: "a"}[i/1500%2 == 1]
			expect(t, x, "shadow.reported.text:two", phrases)
		}
	}
}

// TestPaging walks fleets that are larger than the unsorted part of a
// dictionary, in pages, by both ways of finding the next names.
func TestPaging(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	var want, rare []string
	for i := range 5000 {
		name := fmt.Sprintf("p-%04d", (i*7919)%5000)
		m.apply(t, x, thing(name), reported(name, 1, fmt.Sprintf(`{"n":%d}`, i%500)))
		want = append(want, name)
		if i%500 == 3 {
			rare = append(rare, name)
		}
	}
	slices.Sort(want)
	slices.Sort(rare)
	for text, names := range map[string][]string{"*": want, "shadow.reported.n:3": rare, "thingName:p-*": want} {
		q, err := x.ParseThings(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, limit := range []int{1, 99, 500} {
			if limit == 1 && len(names) > 100 {
				continue
			}
			if got := search(t, x, q, limit); !slices.Equal(got, names) {
				t.Errorf("%s in pages of %d: %d names, want %d", text, limit, len(got), len(names))
			}
		}
	}
}
