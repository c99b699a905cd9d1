package registry

import (
	"fmt"
	"slices"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// fleet-management §2: a thing is in one group of a hierarchy only, adding it
// again to the same group is fine, and name and ARN must agree.
func TestAddThingToThingGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addGroup(t, "all", "")
	north, south := r.addGroup(t, "north", "all"), r.addGroup(t, "south", "all")
	r.addGroup(t, "other", "")
	thing := r.addThing(t, "T")
	mark := len(r.store.log())
	ok(t, r.AddThingToThingGroup(ctx, acct, ThingAndGroup{ThingARN: thing.ARN, GroupARN: north.ARN}, false))
	r.joinGroup(t, "T", "north")
	wantEqual(t, r.eventsAfter(mark), []event.Event{event.MembershipChanged{Group: "north", GroupID: north.ID, Thing: "T", ThingID: thing.ID, Added: true}})
	r.joinGroup(t, "T", "other")
	for name, c := range map[string]struct {
		m    ThingAndGroup
		code fault.Code
	}{
		"sibling":         {ThingAndGroup{ThingName: "T", GroupName: "south"}, fault.InvalidRequest},
		"parent":          {ThingAndGroup{ThingName: "T", GroupName: "all"}, fault.InvalidRequest},
		"unknown thing":   {ThingAndGroup{ThingName: "None", GroupName: "south"}, fault.ResourceNotFound},
		"unknown group":   {ThingAndGroup{ThingName: "T", GroupName: "None"}, fault.ResourceNotFound},
		"no thing":        {ThingAndGroup{GroupName: "south"}, fault.InvalidRequest},
		"no group":        {ThingAndGroup{ThingName: "T"}, fault.InvalidRequest},
		"disagreement":    {ThingAndGroup{ThingName: "T", GroupName: "north", GroupARN: south.ARN}, fault.InvalidRequest},
		"wrong kind":      {ThingAndGroup{ThingARN: north.ARN, GroupName: "north"}, fault.InvalidRequest},
		"foreign account": {ThingAndGroup{ThingARN: fleet.Scope{Region: "us-east-1", Account: "000000000001"}.ARN("thing", "T"), GroupName: "north"}, fault.InvalidRequest},
	} {
		if err := r.AddThingToThingGroup(ctx, acct, c.m, false); fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	listed := must[Listed[string]](t)(r.ListThingGroupsForThing(ctx, acct, "T", Page{}))
	wantEqual(t, listed.Items, []string{"north", "other"})
	wantEqual(t, must[Thing](t)(r.DescribeThing(ctx, acct, "T")).Version, 1)
}

func TestRemoveThingFromThingGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addGroup(t, "G", "")
	r.addThing(t, "T")
	m := ThingAndGroup{ThingName: "T", GroupName: "G"}
	ok(t, r.RemoveThingFromThingGroup(ctx, acct, m))
	r.joinGroup(t, "T", "G")
	mark := len(r.store.log())
	ok(t, r.RemoveThingFromThingGroup(ctx, acct, m))
	wantEqual(t, r.eventsAfter(mark), []event.Event{event.MembershipChanged{Group: "G", GroupID: "id-1", Thing: "T", ThingID: "id-2"}})
	wantEqual(t, len(must[Listed[string]](t)(r.ListThingsInThingGroup(ctx, acct, "G", false, Page{})).Items), 0)
}

// fleet-management §2, decision: removals come before additions and all of it
// is one change, so that a move inside a hierarchy is one call.
func TestUpdateThingGroupsForThing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addGroup(t, "all", "")
	r.addGroup(t, "north", "all")
	r.addGroup(t, "south", "all")
	r.addThing(t, "T")
	r.joinGroup(t, "T", "north")
	mark := len(r.store.log())
	ok(t, r.UpdateThingGroupsForThing(ctx, acct, UpdateGroupsCommand{Thing: "T", Add: []string{"south", "south"}, Remove: []string{"north"}}))
	wantEqual(t, r.eventsAfter(mark), []event.Event{
		event.MembershipChanged{Group: "north", GroupID: "id-2", Thing: "T", ThingID: "id-4"},
		event.MembershipChanged{Group: "south", GroupID: "id-3", Thing: "T", ThingID: "id-4", Added: true},
	})
	err := r.UpdateThingGroupsForThing(ctx, acct, UpdateGroupsCommand{Thing: "T", Add: []string{"None"}, Remove: []string{"south"}})
	wantCode(t, err, fault.ResourceNotFound)
	wantEqual(t, must[Thing](t)(r.DescribeThing(ctx, acct, "T")).Groups, []Membership{{Group: "south"}})
	wantCode(t, r.UpdateThingGroupsForThing(ctx, acct, UpdateGroupsCommand{Thing: "T", Remove: slices.Repeat([]string{"north"}, maxRegrouped+1)}), fault.InvalidRequest)
	err = r.UpdateThingGroupsForThing(ctx, acct, UpdateGroupsCommand{Thing: "T", Add: []string{"north"}, Remove: []string{"north"}})
	wantCode(t, err, fault.InvalidRequest)
}

// fleet-management §3.3, when the number of groups is bounded: without override
// a full thing is refused; with it a dynamic group gives way, as long as there
// is one.
func TestTenGroups(t *testing.T) {
	t.Parallel()
	for _, bounded := range []bool{false, true} {
		r := newRig(t, func(o *Options) {
			o.Limits = DefaultLimits()
			if !bounded {
				o.Limits.GroupsPerThing = 0
			}
		})
		ctx := t.Context()
		r.addThing(t, "T")
		for i := range 8 {
			r.addGroup(t, fmt.Sprintf("s%d", i), "")
			r.joinGroup(t, "T", fmt.Sprintf("s%d", i))
		}
		r.addDynamic(t, "young", "*")
		r.addDynamic(t, "old", "*")
		ok(t, r.CommitMembership(ctx, []MembershipChange{{Account: acct, Group: "young", Thing: "T", Added: true}, {Account: acct, Group: "old", Thing: "T", Added: true}}))
		r.addGroup(t, "s8", "")
		m := ThingAndGroup{ThingName: "T", GroupName: "s8"}
		if !bounded {
			for _, group := range []string{"s8", "s9", "s10", "s11"} {
				if group != "s8" {
					r.addGroup(t, group, "")
				}
				r.joinGroup(t, "T", group)
			}
			continue
		}
		wantCode(t, r.AddThingToThingGroup(ctx, acct, m, false), fault.InvalidRequest)
		mark := len(r.store.log())
		ok(t, r.AddThingToThingGroup(ctx, acct, m, true))
		// The index tells which dynamic group gives way.
		wantEqual(t, r.eventsAfter(mark), []event.Event{event.MembershipChanged{Group: "s8", GroupID: "id-12", Thing: "T", ThingID: "id-1", Added: true}})
		ok(t, r.CommitMembership(ctx, []MembershipChange{{Account: acct, Group: "young", Thing: "T", Added: false}}))
		r.addGroup(t, "s9", "")
		ok(t, r.AddThingToThingGroup(ctx, acct, ThingAndGroup{ThingName: "T", GroupName: "s9"}, true))
		r.addGroup(t, "s10", "")
		wantCode(t, r.AddThingToThingGroup(ctx, acct, ThingAndGroup{ThingName: "T", GroupName: "s10"}, true), fault.InvalidRequest)
	}
}

func TestListThingsInThingGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addGroup(t, "m", "")
	r.addGroup(t, "a", "m")
	r.addGroup(t, "z", "a")
	r.addGroup(t, "x", "")
	want := map[string]bool{}
	for i, group := range []string{"m", "a", "z", "m", "a", "z", "m", "x"} {
		name := fmt.Sprintf("t%d", i)
		r.addThing(t, name)
		r.joinGroup(t, name, group)
		want[name] = group != "x"
	}
	for _, limit := range []int{1, 2, 3, 7, 50} {
		got := allPages(t, limit, func(p Page) (Listed[string], error) {
			return r.ListThingsInThingGroup(t.Context(), acct, "m", true, p)
		})
		seen := map[string]bool{}
		for _, name := range got {
			if !want[name] || seen[name] {
				t.Errorf("limit %d: %s wrong or twice", limit, name)
			}
			seen[name] = true
		}
		wantEqual(t, len(got), 7)
	}
	direct := must[Listed[string]](t)(r.ListThingsInThingGroup(t.Context(), acct, "m", false, Page{}))
	wantEqual(t, direct.Items, []string{"t0", "t3", "t6"})
	_, err := r.ListThingsInThingGroup(t.Context(), acct, "None", false, Page{})
	wantCode(t, err, fault.ResourceNotFound)
}
