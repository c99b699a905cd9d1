package registry

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/tag"
)

func (r *rig) addBillingGroup(t *testing.T, name string) BillingGroup {
	t.Helper()
	return must[BillingGroup](t)(r.CreateBillingGroup(t.Context(), acct, CreateBillingGroupCommand{Name: name}))
}

// fleet-management §1.5.
func TestCreateBillingGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	c := CreateBillingGroupCommand{Name: "cost", Description: "d", Tags: []tag.Tag{{Key: "a", Value: "1"}}}
	created := must[BillingGroup](t)(r.CreateBillingGroup(ctx, acct, c))
	wantEqual(t, created, BillingGroup{
		Name: "cost", ID: "id-1", ARN: "arn:aws:iot:us-east-1:000000000000:billinggroup/cost", Description: "d", Version: 1, Created: start,
	})
	wantEqual(t, must[BillingGroup](t)(r.CreateBillingGroup(ctx, acct, c)), created)
	wantEqual(t, must[BillingGroup](t)(r.DescribeBillingGroup(ctx, acct, "cost")), created)
	wantEqual(t, r.store.log(), []event.Event{
		event.BillingGroupCreated{BillingGroup: event.BillingGroup{BillingGroup: "cost", BillingGroupID: "id-1", Description: "d", Version: 1}},
		event.TagsChanged{ResourceARN: created.ARN, Set: map[string]string{"a": "1"}},
	})
	for _, other := range []CreateBillingGroupCommand{
		{Name: "cost", Tags: c.Tags},
		{Name: "cost", Description: "d"},
		{Name: "cost", Description: "d", Tags: []tag.Tag{{Key: "a", Value: "2"}}},
	} {
		_, err := r.CreateBillingGroup(ctx, acct, other)
		wantCode(t, err, fault.ResourceAlreadyExists)
		if f := fault.From(err); f.ResourceID != "id-1" || f.ResourceARN != created.ARN {
			t.Fatalf("%+v", f)
		}
	}
	for _, bad := range []CreateBillingGroupCommand{
		{Name: ""},
		{Name: "a b"},
		{Name: strings.Repeat("n", 129)},
		{Name: "x", Description: strings.Repeat("d", 2029)},
		{Name: "x", Description: "ü"},
		{Name: "x", Tags: []tag.Tag{{Key: "aws:a"}}},
	} {
		_, err := r.CreateBillingGroup(ctx, acct, bad)
		wantCode(t, err, fault.InvalidRequest)
	}
	_, err := r.DescribeBillingGroup(ctx, "000000000001", "cost")
	wantCode(t, err, fault.ResourceNotFound)
}

func TestUpdateBillingGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addBillingGroup(t, "cost")
	text, zero, one := "new", int64(0), int64(1)
	_, err := r.UpdateBillingGroup(ctx, acct, "cost", &text, &zero)
	wantCode(t, err, fault.VersionConflict)
	wantEqual(t, must[int64](t)(r.UpdateBillingGroup(ctx, acct, "cost", &text, &one)), 2)
	wantEqual(t, must[int64](t)(r.UpdateBillingGroup(ctx, acct, "cost", nil, nil)), 3)
	g := must[BillingGroup](t)(r.DescribeBillingGroup(ctx, acct, "cost"))
	wantEqual(t, g.Description, "new")
	_, err = r.UpdateBillingGroup(ctx, acct, "none", &text, nil)
	wantCode(t, err, fault.ResourceNotFound)
	text = "ü"
	_, err = r.UpdateBillingGroup(ctx, acct, "cost", &text, nil)
	wantCode(t, err, fault.InvalidRequest)
}

func TestThingsOfBillingGroups(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	a := r.addBillingGroup(t, "a")
	r.addBillingGroup(t, "b")
	c := CreateThingCommand{Name: "T", BillingGroup: "a"}
	thing := must[Thing](t)(r.CreateThing(ctx, acct, c))
	wantEqual(t, thing.BillingGroup, "a")
	wantEqual(t, must[Thing](t)(r.CreateThing(ctx, acct, c)).ID, thing.ID)
	_, err := r.CreateThing(ctx, acct, CreateThingCommand{Name: "T", BillingGroup: "b"})
	wantCode(t, err, fault.ResourceAlreadyExists)
	_, err = r.CreateThing(ctx, acct, CreateThingCommand{Name: "U", BillingGroup: "none"})
	wantCode(t, err, fault.ResourceNotFound)
	r.addThing(t, "U")
	mark := len(r.store.log())
	ok(t, r.AddThingToBillingGroup(ctx, acct, ThingAndGroup{ThingName: "U", GroupARN: a.ARN, GroupName: "a"}))
	ok(t, r.AddThingToBillingGroup(ctx, acct, ThingAndGroup{ThingName: "U", GroupName: "a"}))
	err = r.AddThingToBillingGroup(ctx, acct, ThingAndGroup{ThingName: "U", GroupName: "b"})
	wantCode(t, err, fault.InvalidRequest)
	if !strings.Contains(err.Error(), "billing group a") {
		t.Fatal(err)
	}
	list := func(group string) []string {
		return allPages(t, 1, func(p Page) (Listed[string], error) { return r.ListThingsInBillingGroup(ctx, acct, group, p) })
	}
	wantEqual(t, list("a"), []string{"T", "U"})
	// A change of the thing keeps it; the thing's version does not follow the
	// group.
	ok(t, r.UpdateThing(ctx, acct, UpdateThingCommand{Name: "U", Attributes: &Attributes{Values: map[string]string{"k": "v"}}}))
	u := must[Thing](t)(r.DescribeThing(ctx, acct, "U"))
	wantEqual(t, [2]any{u.BillingGroup, u.Version}, [2]any{"a", int64(2)})
	ok(t, r.RemoveThingFromBillingGroup(ctx, acct, ThingAndGroup{ThingName: "U", GroupName: "b"}))
	ok(t, r.RemoveThingFromBillingGroup(ctx, acct, ThingAndGroup{ThingARN: u.ARN, GroupName: "a"}))
	ok(t, r.RemoveThingFromBillingGroup(ctx, acct, ThingAndGroup{ThingName: "U", GroupName: "a"}))
	wantEqual(t, r.eventsAfter(mark), []event.Event{
		event.BillingGroupMembershipChanged{BillingGroup: "a", Thing: "U", Added: true},
		event.ThingUpdated{Thing: event.Thing{
			Thing: "U", ThingID: u.ID, Attributes: map[string]string{"k": "v"}, BillingGroup: "a", Version: 2,
		}},
		event.BillingGroupMembershipChanged{BillingGroup: "a", Thing: "U"},
	})
	wantEqual(t, list("a"), []string{"T"})
	ok(t, r.DeleteThing(ctx, acct, "T", nil))
	wantEqual(t, len(list("a")), 0)
	for name, c := range map[string]struct {
		m    ThingAndGroup
		code fault.Code
	}{
		"unknown thing": {ThingAndGroup{ThingName: "none", GroupName: "a"}, fault.ResourceNotFound},
		"unknown group": {ThingAndGroup{ThingName: "U", GroupName: "none"}, fault.ResourceNotFound},
		"no thing":      {ThingAndGroup{GroupName: "a"}, fault.InvalidRequest},
		"no group":      {ThingAndGroup{ThingName: "U"}, fault.InvalidRequest},
		"disagreement":  {ThingAndGroup{ThingName: "U", GroupName: "b", GroupARN: a.ARN}, fault.InvalidRequest},
		"thing group":   {ThingAndGroup{ThingName: "U", GroupARN: "arn:aws:iot:us-east-1:000000000000:thinggroup/a"}, fault.InvalidRequest},
	} {
		if err := r.AddThingToBillingGroup(ctx, acct, c.m); fault.CodeOf(err) != c.code {
			t.Errorf("add, %s: %v", name, err)
		}
		if err := r.RemoveThingFromBillingGroup(ctx, acct, c.m); fault.CodeOf(err) != c.code {
			t.Errorf("remove, %s: %v", name, err)
		}
	}
	_, err = r.ListThingsInBillingGroup(ctx, acct, "none", Page{})
	wantCode(t, err, fault.ResourceNotFound)
}

func TestListBillingGroups(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range []string{"ab", "a", "b", "aa"} {
		r.addBillingGroup(t, name)
	}
	for prefix, want := range map[string][]string{"": {"a", "aa", "ab", "b"}, "a": {"a", "aa", "ab"}, "ab": {"ab"}, "x": nil} {
		for _, limit := range []int{1, 2, 100} {
			got := allPages(t, limit, func(p Page) (Listed[string], error) { return r.ListBillingGroups(t.Context(), acct, prefix, p) })
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%q, limit %d: %v, want %v", prefix, limit, got, want)
			}
		}
	}
	_, err := r.ListBillingGroups(t.Context(), acct, "a b", Page{})
	wantCode(t, err, fault.InvalidRequest)
}

// Things lose a deleted group, however many there are; a deletion that stopped
// half way refuses newcomers and can be finished.
func TestDeleteBillingGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	ok(t, r.DeleteBillingGroup(ctx, acct, "none", nil))
	must[BillingGroup](t)(r.CreateBillingGroup(ctx, acct, CreateBillingGroupCommand{Name: "cost", Tags: []tag.Tag{{Key: "a"}}}))
	const members = 2*membersPerBatch + 7
	for i := range members {
		must[Thing](t)(r.CreateThing(ctx, acct, CreateThingCommand{Name: fmt.Sprintf("t%04d", i), BillingGroup: "cost"}))
	}
	nine := int64(9)
	wantCode(t, r.DeleteBillingGroup(ctx, acct, "cost", &nine), fault.VersionConflict)
	r.store.hook(failAfter(2, errors.New("power lost")))
	if err := r.DeleteBillingGroup(ctx, acct, "cost", nil); err == nil {
		t.Fatal("the deletion did not stop")
	}
	r.store.unhook()
	left := allPages(t, 250, func(p Page) (Listed[string], error) { return r.ListThingsInBillingGroup(ctx, acct, "cost", p) })
	if len(left) == 0 || len(left) >= members {
		t.Fatalf("%d things left, not half way", len(left))
	}
	_, err := r.CreateThing(ctx, acct, CreateThingCommand{Name: "late", BillingGroup: "cost"})
	wantCode(t, err, fault.InvalidRequest)
	wantCode(t, r.AddThingToBillingGroup(ctx, acct, ThingAndGroup{ThingName: "t0000", GroupName: "cost"}), fault.InvalidRequest)
	_, err = r.CreateBillingGroup(ctx, acct, CreateBillingGroupCommand{Name: "cost", Tags: []tag.Tag{{Key: "a"}}})
	wantCode(t, err, fault.InvalidRequest)
	one := int64(1)
	ok(t, r.DeleteBillingGroup(ctx, acct, "cost", &one))
	_, err = r.DescribeBillingGroup(ctx, acct, "cost")
	wantCode(t, err, fault.ResourceNotFound)
	gone := 0
	for _, e := range r.store.log() {
		if m, is := e.(event.BillingGroupMembershipChanged); is && !m.Added {
			gone++
		}
	}
	wantEqual(t, gone, members)
	wantEqual(t, must[Thing](t)(r.DescribeThing(ctx, acct, "t0406")).BillingGroup, "")
	for _, k := range r.store.left() {
		if strings.HasPrefix(k, "billing-group") || strings.HasPrefix(k, "tags") {
			t.Errorf("%s stayed behind", k)
		}
	}
}

// Whatever the order, no thing is in a billing group that is gone, and the log
// tells the same story as the records.
func TestRaceForABillingGroup(t *testing.T) {
	t.Parallel()
	for range rounds(t, 30) {
		r := newRig(t)
		ctx := t.Context()
		r.addBillingGroup(t, "a")
		r.addBillingGroup(t, "b")
		r.addThing(t, "T")
		errs := together(
			func() error {
				return r.AddThingToBillingGroup(ctx, acct, ThingAndGroup{ThingName: "T", GroupName: "a"})
			},
			func() error {
				return r.AddThingToBillingGroup(ctx, acct, ThingAndGroup{ThingName: "T", GroupName: "b"})
			},
			func() error { return r.DeleteBillingGroup(ctx, acct, "a", nil) },
			func() error {
				_, err := r.CreateThing(ctx, acct, CreateThingCommand{Name: "U", BillingGroup: "a"})
				return err
			},
			func() error { return r.DeleteThing(ctx, acct, "T", nil) },
		)
		for _, err := range errs {
			if code := fault.CodeOf(err); code != "" && code != fault.InvalidRequest && code != fault.ResourceNotFound {
				t.Fatal(err)
			}
		}
		if dangling := danglingRows(r.store.left()); len(dangling) > 0 {
			t.Fatalf("rows without their records: %v", dangling)
		}
		for _, name := range []string{"T", "U"} {
			in := ""
			for _, e := range r.store.log() {
				if born, is := e.(event.ThingCreated); is && born.Thing.Thing == name {
					in = born.BillingGroup
				}
				if m, is := e.(event.BillingGroupMembershipChanged); is && m.Thing == name {
					in = ""
					if m.Added {
						in = m.BillingGroup
					}
				}
			}
			if thing, err := r.DescribeThing(ctx, acct, name); err == nil && thing.BillingGroup != in {
				t.Fatalf("%s is in %q, by the log in %q", name, thing.BillingGroup, in)
			}
		}
	}
}
