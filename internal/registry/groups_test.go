package registry

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

func TestCreateThingGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addGroup(t, "all", "")
	r.addGroup(t, "north", "all")
	c := CreateThingGroupCommand{Name: "pumps", Parent: "north", Description: "d", Attributes: map[string]string{"owner": "n"}}
	created := must[Group](t)(r.CreateThingGroup(ctx, acct, c))
	log := r.store.log()
	if e := log[len(log)-1].(event.ThingGroupCreated); fmt.Sprint(e.AncestorIDs) != "[id-1 id-2]" {
		t.Fatal(e)
	}
	wantEqual(t, created, Group{
		Name: "pumps", ID: "id-3", ARN: "arn:aws:iot:us-east-1:000000000000:thinggroup/pumps", Description: "d",
		Attributes: map[string]string{"owner": "n"}, Version: 1, Created: start, Ancestors: []string{"all", "north"},
	})
	wantEqual(t, must[Group](t)(r.CreateThingGroup(ctx, acct, c)), created)
	wantEqual(t, must[Group](t)(r.DescribeThingGroup(ctx, acct, "pumps")), created)
	other := c
	other.Parent = "all"
	_, err := r.CreateThingGroup(ctx, acct, other)
	wantCode(t, err, fault.ResourceAlreadyExists)
	_, err = r.CreateThingGroup(ctx, acct, CreateThingGroupCommand{Name: "x", Parent: "None"})
	wantCode(t, err, fault.InvalidRequest)
	r.addDynamic(t, "dyn", "*")
	_, err = r.CreateThingGroup(ctx, acct, CreateThingGroupCommand{Name: "x", Parent: "dyn"})
	wantCode(t, err, fault.InvalidRequest)
}

// fleet-management §2: at most seven levels, the root being the first.
func TestGroupDepth(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	parent := ""
	for level := 1; level <= 7; level++ {
		name := fmt.Sprintf("level%d", level)
		r.addGroup(t, name, parent)
		parent = name
	}
	_, err := r.CreateThingGroup(t.Context(), acct, CreateThingGroupCommand{Name: "level8", Parent: parent})
	wantCode(t, err, fault.InvalidRequest)
	if !strings.Contains(err.Error(), "7 levels") {
		t.Fatal(err)
	}
}

func TestGroupChildren(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) {
		o.Limits = DefaultLimits()
		o.Limits.GroupChildren = 2
	})
	r.addGroup(t, "p", "")
	r.addGroup(t, "a", "p")
	r.addGroup(t, "b", "p")
	_, err := r.CreateThingGroup(t.Context(), acct, CreateThingGroupCommand{Name: "c", Parent: "p"})
	wantCode(t, err, fault.InvalidRequest)
	ok(t, r.DeleteThingGroup(t.Context(), acct, "a", nil))
	r.addGroup(t, "c", "p")
}

func TestUpdateThingGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	must[Group](t)(r.CreateThingGroup(ctx, acct, CreateThingGroupCommand{Name: "G", Description: "d", Attributes: map[string]string{"a": "1"}}))
	one, nine, text := int64(1), int64(9), "new"
	version := must[int64](t)(r.UpdateThingGroup(ctx, acct, "G", GroupProperties{
		Attributes: &Attributes{Values: map[string]string{"b": "2"}, Merge: true},
	}, &one))
	wantEqual(t, version, 2)
	must[int64](t)(r.UpdateThingGroup(ctx, acct, "G", GroupProperties{Description: &text}, nil))
	g := must[Group](t)(r.DescribeThingGroup(ctx, acct, "G"))
	wantEqual(t, g.Attributes, map[string]string{"a": "1", "b": "2"})
	wantEqual(t, g.Description, "new")
	wantEqual(t, g.Version, int64(3))
	_, err := r.UpdateThingGroup(ctx, acct, "G", GroupProperties{}, &nine)
	wantCode(t, err, fault.VersionConflict)
	_, err = r.UpdateThingGroup(ctx, acct, "None", GroupProperties{}, nil)
	wantCode(t, err, fault.ResourceNotFound)
	many := map[string]string{}
	for i := range 51 {
		many[fmt.Sprintf("a%d", i)] = "x"
	}
	_, err = r.UpdateThingGroup(ctx, acct, "G", GroupProperties{Attributes: &Attributes{Values: many}}, nil)
	wantCode(t, err, fault.InvalidRequest)
}

// fleet-management §2: no deletion with children; members lose the group.
func TestDeleteThingGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	ok(t, r.DeleteThingGroup(ctx, acct, "None", nil))
	r.addGroup(t, "p", "")
	r.addGroup(t, "c", "p")
	r.addThing(t, "T")
	r.joinGroup(t, "T", "c")
	r.addPolicy(t, "P")
	arn := "arn:aws:iot:us-east-1:000000000000:thinggroup/c"
	ok(t, r.AttachPolicy(ctx, acct, "P", arn))
	wantCode(t, r.DeleteThingGroup(ctx, acct, "p", nil), fault.InvalidRequest)
	nine := int64(9)
	wantCode(t, r.DeleteThingGroup(ctx, acct, "c", &nine), fault.VersionConflict)
	mark := len(r.store.log())
	ok(t, r.DeleteThingGroup(ctx, acct, "c", nil))
	wantEqual(t, r.eventsAfter(mark), []event.Event{
		event.MembershipChanged{Group: "c", GroupID: "id-2", Thing: "T", ThingID: "id-3"},
		event.ThingGroupDeleted{Group: "c", GroupID: "id-2", Parent: "p", Version: 1, Ancestors: []string{"p"}, AncestorIDs: []string{"id-1"}},
	})
	wantEqual(t, len(must[Thing](t)(r.DescribeThing(ctx, acct, "T")).Groups), 0)
	targets := must[Listed[string]](t)(r.ListTargetsForPolicy(ctx, acct, "P", Page{}))
	wantEqual(t, len(targets.Items), 0)
	ok(t, r.DeletePolicy(ctx, acct, "P"))
	ok(t, r.DeleteThingGroup(ctx, acct, "p", nil))
	ok(t, r.DeleteThing(ctx, acct, "T", nil))
	if left := r.store.left(); len(left) > 0 {
		t.Fatalf("stayed behind: %v", left)
	}
}

// A deletion that stopped half way refuses newcomers and can be finished.
func TestDeleteThingGroupResumes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addGroup(t, "G", "")
	const members = 2*membersPerBatch + 7
	for i := range members {
		name := fmt.Sprintf("t%04d", i)
		r.addThing(t, name)
		r.joinGroup(t, name, "G")
	}
	r.store.hook(failAfter(3, errors.New("power lost")))
	if err := r.DeleteThingGroup(ctx, acct, "G", nil); err == nil {
		t.Fatal("the deletion did not stop")
	}
	r.store.unhook()
	left := allPages(t, 250, func(p Page) (Listed[string], error) { return r.ListThingsInThingGroup(ctx, acct, "G", false, p) })
	if len(left) == 0 || len(left) >= members {
		t.Fatalf("%d members left, not half way", len(left))
	}
	r.addThing(t, "late")
	err := r.AddThingToThingGroup(ctx, acct, ThingAndGroup{ThingName: "late", GroupName: "G"}, false)
	wantCode(t, err, fault.InvalidRequest)
	_, err = r.CreateThingGroup(ctx, acct, CreateThingGroupCommand{Name: "child", Parent: "G"})
	wantCode(t, err, fault.InvalidRequest)
	_, err = r.CreateThingGroup(ctx, acct, CreateThingGroupCommand{Name: "G"})
	wantCode(t, err, fault.InvalidRequest)
	ok(t, r.DeleteThingGroup(ctx, acct, "G", nil))
	_, err = r.DescribeThingGroup(ctx, acct, "G")
	wantCode(t, err, fault.ResourceNotFound)
	gone := 0
	for _, e := range r.store.log() {
		if m, is := e.(event.MembershipChanged); is && !m.Added {
			gone++
		}
	}
	wantEqual(t, gone, members)
}

func TestListThingGroups(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, g := range [][2]string{{"a", ""}, {"a1", "a"}, {"a2", "a"}, {"a11", "a1"}, {"b", ""}, {"b1", "b"}} {
		r.addGroup(t, g[0], g[1])
	}
	r.addDynamic(t, "d", "*")
	yes, no := true, false
	for name, c := range map[string]struct {
		filter ListThingGroupsFilter
		want   []string
	}{
		"all":                   {ListThingGroupsFilter{}, []string{"a", "a1", "a11", "a2", "b", "b1", "d"}},
		"recursive is the same": {ListThingGroupsFilter{Recursive: &yes}, []string{"a", "a1", "a11", "a2", "b", "b1", "d"}},
		"roots":                 {ListThingGroupsFilter{Recursive: &no}, []string{"a", "b", "d"}},
		"roots with prefix":     {ListThingGroupsFilter{Recursive: &no, NamePrefix: "b"}, []string{"b"}},
		"prefix":                {ListThingGroupsFilter{NamePrefix: "a1"}, []string{"a1", "a11"}},
		"children":              {ListThingGroupsFilter{Parent: "a"}, []string{"a1", "a2"}},
		"children explicitly":   {ListThingGroupsFilter{Parent: "a", Recursive: &no}, []string{"a1", "a2"}},
		"descendants":           {ListThingGroupsFilter{Parent: "a", Recursive: &yes}, []string{"a1", "a11", "a2"}},
		"descendants, prefix":   {ListThingGroupsFilter{Parent: "a", Recursive: &yes, NamePrefix: "a11"}, []string{"a11"}},
		"none below":            {ListThingGroupsFilter{Parent: "b1", Recursive: &yes}, nil},
	} {
		for _, limit := range []int{1, 2, 100} {
			got := allPages(t, limit, func(p Page) (Listed[string], error) { return r.ListThingGroups(t.Context(), acct, c.filter, p) })
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%s, limit %d: %v, want %v", name, limit, got, c.want)
			}
		}
	}
	_, err := r.ListThingGroups(t.Context(), acct, ListThingGroupsFilter{Parent: "None"}, Page{})
	wantCode(t, err, fault.ResourceNotFound)
}

func TestDynamicThingGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	g := r.addDynamic(t, "low", "shadow.reported.battery<20")
	wantEqual(t, r.store.log()[0], event.Event(event.ThingGroupCreated{ThingGroup: event.ThingGroup{
		Group: "low", GroupID: "id-1", Version: 1, Query: "shadow.reported.battery<20", CreatedAt: start, Attributes: map[string]string{},
	}}))
	again := r.addDynamic(t, "low", "shadow.reported.battery<20")
	wantEqual(t, again.ID, g.ID)
	_, err := r.CreateDynamicThingGroup(ctx, acct, CreateDynamicThingGroupCommand{Name: "low", Query: "other"})
	wantCode(t, err, fault.ResourceAlreadyExists)
	described := must[Group](t)(r.DescribeThingGroup(ctx, acct, "low"))
	wantEqual(t, described.Status, "BUILDING")
	one := int64(1)
	version := must[int64](t)(r.UpdateDynamicThingGroup(ctx, acct, UpdateDynamicThingGroupCommand{Name: "low", Query: "x:1", ExpectedVersion: &one}))
	wantEqual(t, version, 2)
	wantEqual(t, must[Group](t)(r.DescribeThingGroup(ctx, acct, "low")).Query, "x:1")
	for name, c := range map[string]struct {
		command CreateDynamicThingGroupCommand
		code    fault.Code
	}{
		"no query":  {CreateDynamicThingGroupCommand{Name: "x"}, fault.InvalidRequest},
		"bad query": {CreateDynamicThingGroupCommand{Name: "x", Query: "("}, fault.InvalidQuery},
		"index":     {CreateDynamicThingGroupCommand{Name: "x", Query: "*", IndexName: "AWS_ThingGroups"}, fault.InvalidRequest},
		"version":   {CreateDynamicThingGroupCommand{Name: "x", Query: "*", QueryVersion: "2016-01-01"}, fault.InvalidRequest},
	} {
		if _, err := r.CreateDynamicThingGroup(ctx, acct, c.command); fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fleet-management §3.1: a group is BUILDING until its members are complete for
// the first time, REBUILDING under a changed query or while the index does not
// follow, ACTIVE else. What was reached is in the record.
func TestDynamicGroupStatus(t *testing.T) {
	t.Parallel()
	following := "ACTIVE"
	r := newRig(t, func(o *Options) {
		o.GroupStatus = func(fleet.Account, string, string) string { return following }
	})
	ctx := t.Context()
	wantStatus := func(want string) {
		t.Helper()
		wantEqual(t, must[Group](t)(r.DescribeThingGroup(ctx, acct, "low")).Status, want)
	}
	complete := func(query string) {
		t.Helper()
		ok(t, r.CommitComplete(ctx, []CompleteGroup{{acct, "low", query}, {acct, "gone", query}}))
	}
	r.addDynamic(t, "low", "a:1")
	mark := len(r.store.log())
	wantStatus("BUILDING")
	complete("a:2") // of a query that it never had
	wantStatus("BUILDING")
	complete("a:1")
	wantStatus("ACTIVE")
	following = "BUILDING" // a restart
	wantStatus("REBUILDING")
	following = "ACTIVE"
	must[int64](t)(r.UpdateDynamicThingGroup(ctx, acct, UpdateDynamicThingGroupCommand{Name: "low", Query: "a:1"}))
	wantStatus("ACTIVE")
	must[int64](t)(r.UpdateDynamicThingGroup(ctx, acct, UpdateDynamicThingGroupCommand{Name: "low", Query: "a:2"}))
	wantStatus("REBUILDING")
	complete("a:1") // of the query before
	wantStatus("REBUILDING")
	complete("a:2")
	wantStatus("ACTIVE")
	g := must[Group](t)(r.DescribeThingGroup(ctx, acct, "low"))
	wantEqual(t, g.Version, int64(3))
	wantEqual(t, len(r.eventsAfter(mark)), 2)
}

// fleet-management §3.1: no hierarchy, no policies, no manual membership, and
// neither kind of group takes the other kind's update and deletion.
func TestDynamicAndStaticGroupsDoNotMix(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	d, s := r.addDynamic(t, "d", "*"), r.addGroup(t, "s", "")
	r.addThing(t, "T")
	r.addPolicy(t, "P")
	_, updateDynamic := r.UpdateDynamicThingGroup(ctx, acct, UpdateDynamicThingGroupCommand{Name: "s", Query: "*"})
	_, updateStatic := r.UpdateThingGroup(ctx, acct, "d", GroupProperties{}, nil)
	for name, err := range map[string]error{
		"join":           r.AddThingToThingGroup(ctx, acct, ThingAndGroup{ThingName: "T", GroupName: "d"}, false),
		"leave":          r.RemoveThingFromThingGroup(ctx, acct, ThingAndGroup{ThingName: "T", GroupName: "d"}),
		"policy":         r.AttachPolicy(ctx, acct, "P", d.ARN),
		"delete static":  r.DeleteThingGroup(ctx, acct, "d", nil),
		"delete dynamic": r.DeleteDynamicThingGroup(ctx, acct, s.Name, nil),
		"update dynamic": updateDynamic,
		"update static":  updateStatic,
	} {
		if fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDynamicGroupsLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) {
		o.Limits = DefaultLimits()
		o.Limits.DynamicGroups = 2
	})
	ctx := t.Context()
	r.addDynamic(t, "d1", "*")
	r.addDynamic(t, "d2", "*")
	_, err := r.CreateDynamicThingGroup(ctx, acct, CreateDynamicThingGroupCommand{Name: "d3", Query: "*"})
	wantCode(t, err, fault.LimitExceeded)
	r.addDynamic(t, "d2", "*")
	ok(t, r.DeleteDynamicThingGroup(ctx, acct, "d1", nil))
	r.addDynamic(t, "d3", "*")
}

func TestCommitMembership(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addDynamic(t, "d", "*")
	r.addGroup(t, "s", "")
	r.addThing(t, "T")
	r.addThing(t, "U")
	mark := len(r.store.log())
	ok(t, r.CommitMembership(ctx, []MembershipChange{
		{Account: acct, Group: "d", Thing: "T", Added: true},
		{Account: acct, Group: "d", Thing: "gone", Added: true},
		{Account: acct, Group: "gone", Thing: "T", Added: true},
		{Account: acct, Group: "s", Thing: "T", Added: true},
		{Account: acct, Group: "d", Thing: "U", Added: true},
		{Account: acct, Group: "d", Thing: "U", Added: false},
		{Account: acct, Group: "d", Thing: "T", Added: true},
	}))
	wantEqual(t, r.eventsAfter(mark), []event.Event{
		event.MembershipChanged{Group: "d", GroupID: "id-1", Thing: "T", ThingID: "id-3", Added: true, Dynamic: true},
		event.MembershipChanged{Group: "d", GroupID: "id-1", Thing: "U", ThingID: "id-4", Added: true, Dynamic: true},
		event.MembershipChanged{Group: "d", GroupID: "id-1", Thing: "U", ThingID: "id-4", Dynamic: true},
	})
	wantEqual(t, must[Thing](t)(r.DescribeThing(ctx, acct, "T")).Groups, []Membership{{Group: "d", Dynamic: true}})
	members := must[Listed[string]](t)(r.ListThingsInThingGroup(ctx, acct, "d", false, Page{}))
	wantEqual(t, members.Items, []string{"T"})
	ok(t, r.CommitMembership(ctx, []MembershipChange{{Account: acct, Group: "d", Thing: "T"}}))
	wantEqual(t, len(must[Thing](t)(r.DescribeThing(ctx, acct, "T")).Groups), 0)
}

func TestCommitMembershipOfManyThings(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addDynamic(t, "d", "*")
	var changes []MembershipChange
	for i := range changesPerBatch + 10 {
		name := fmt.Sprintf("t%04d", i)
		r.addThing(t, name)
		changes = append(changes, MembershipChange{Account: acct, Group: "d", Thing: name, Added: true})
	}
	ok(t, r.CommitMembership(t.Context(), changes))
	got := allPages(t, 100, func(p Page) (Listed[string], error) {
		return r.ListThingsInThingGroup(t.Context(), acct, "d", false, p)
	})
	wantEqual(t, len(got), len(changes))
	ok(t, r.DeleteDynamicThingGroup(t.Context(), acct, "d", nil))
	wantEqual(t, len(must[Thing](t)(r.DescribeThing(t.Context(), acct, "t0000")).Groups), 0)
}
