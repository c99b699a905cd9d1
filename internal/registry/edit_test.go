package registry

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

// beside is what another domain keeps of a change.
func beside(k store.Key) Joined {
	return func(before, after Thing) (store.Batch, error) {
		return store.Batch{
			Expect: []store.Expect{{Key: k}},
			Writes: []store.Write{{Key: k, Value: []byte(before.TypeName + ">" + after.TypeName)}},
		}, nil
	}
}

// An edit keeps to the rules of the single commands and is one commit, with what
// another domain adds to it; where nothing differs there is none.
func TestEditThingIsOneCommit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	for _, name := range []string{"T", "U"} {
		if _, err := r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range []string{"old", "new"} {
		if _, err := r.CreateBillingGroup(ctx, acct, CreateBillingGroupCommand{Name: b}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.CreateThingGroup(ctx, acct, CreateThingGroupCommand{Name: "g"}); err != nil {
		t.Fatal(err)
	}
	made, err := r.CreateThing(ctx, acct, CreateThingCommand{Name: "thing", TypeName: "T", BillingGroup: "old", Attributes: map[string]string{"a": "1", "b": "2"}})
	if err != nil {
		t.Fatal(err)
	}
	typeName, billing, none := "U", "new", ""
	k := store.K("beside", "1")
	c := EditCommand{
		Thing: "thing", ThingID: made.ID, TypeName: &typeName, BillingGroup: &billing, Attributes: map[string]string{"a": "", "c": "3"},
		AddGroups: []string{"g"}, Joined: beside(k),
	}
	commits := 0
	r.store.hook(func(store.Batch) error {
		commits++
		return nil
	})
	dry := c
	dry.DryRun = true
	edited, err := r.EditThing(ctx, acct, dry)
	if err != nil || !edited.Changed || commits != 0 {
		t.Fatalf("dry: %+v, %v", edited, err)
	}
	wet, err := r.EditThing(ctx, acct, c)
	if err != nil || commits != 1 {
		t.Fatalf("%+v, %v, %d commits", wet, err, commits)
	}
	if diff := cmp.Diff(edited, wet); diff != "" {
		t.Errorf("a dry run decides otherwise (-dry +wet):\n%s", diff)
	}
	now, err := r.DescribeThing(ctx, acct, "thing")
	want := Thing{
		Name: "thing", ID: made.ID, ARN: made.ARN, TypeName: "U", BillingGroup: "new", Attributes: map[string]string{"b": "2", "c": "3"},
		Version: 2, Groups: []Membership{{Group: "g"}},
	}
	if diff := cmp.Diff(want, now); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if kept, err := r.store.Get(ctx, k); err != nil || string(kept.Value) != "T>U" {
		t.Errorf("beside it: %q, %v", kept.Value, err)
	}
	for _, list := range []struct {
		group string
		want  []string
	}{{"old", []string{}}, {"new", []string{"thing"}}} {
		if things, err := r.ListThingsInBillingGroup(ctx, acct, list.group, Page{}); err != nil || !slices.Equal(things.Items, list.want) {
			t.Errorf("billing group %s has %q, %v", list.group, things.Items, err)
		}
	}
	again := c
	again.AddGroups = []string{"g"}
	again.Joined = func(Thing, Thing) (store.Batch, error) {
		t.Error("asked about no change")
		return store.Batch{}, nil
	}
	if edited, err := r.EditThing(ctx, acct, again); err != nil || edited.Changed || commits != 1 {
		t.Errorf("again: %+v, %v", edited, err)
	}
	if _, err := r.EditThing(ctx, acct, EditCommand{Thing: "thing", ThingID: made.ID, TypeName: &none, BillingGroup: &none}); err != nil {
		t.Fatal(err)
	}
	if now, err := r.DescribeThing(ctx, acct, "thing"); err != nil || now.TypeName != "" || now.BillingGroup != "" || now.Version != 3 {
		t.Errorf("emptied: %+v, %v", now, err)
	}
}

// An edit is refused for another life, by the caller's guard, and by any rule.
func TestEditThingIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	made, err := r.CreateThing(ctx, acct, CreateThingCommand{Name: "thing"})
	if err != nil {
		t.Fatal(err)
	}
	bad, unknown := "a b", "unknown"
	for name, c := range map[string]struct {
		edit func(*EditCommand)
		code fault.Code
	}{
		"another life": {func(c *EditCommand) { c.ThingID = "other" }, fault.ResourceNotFound},
		"no thing":     {func(c *EditCommand) { c.Thing = "none" }, fault.ResourceNotFound},
		"guard":        {func(c *EditCommand) { c.Guard = func(Thing) error { return fault.New(fault.Conflict, "no") } }, fault.Conflict},
		"joined": {func(c *EditCommand) {
			c.Joined = func(Thing, Thing) (store.Batch, error) { return store.Batch{}, fault.New(fault.Conflict, "no") }
		}, fault.Conflict},
		"bad type":        {func(c *EditCommand) { c.TypeName = &bad }, fault.InvalidRequest},
		"unknown type":    {func(c *EditCommand) { c.TypeName = &unknown }, fault.ResourceNotFound},
		"bad billing":     {func(c *EditCommand) { c.BillingGroup = &bad }, fault.InvalidRequest},
		"unknown billing": {func(c *EditCommand) { c.BillingGroup = &unknown }, fault.ResourceNotFound},
		"unknown group":   {func(c *EditCommand) { c.AddGroups = []string{"unknown"} }, fault.ResourceNotFound},
		"group twice":     {func(c *EditCommand) { c.AddGroups, c.RemoveGroups = []string{"g"}, []string{"g"} }, fault.InvalidRequest},
		"too many":        {func(c *EditCommand) { c.Attributes = map[string]string{"a": "1", "b": "1", "c": "1", "d": "1"} }, fault.InvalidRequest},
	} {
		command := EditCommand{Thing: "thing", ThingID: made.ID, Attributes: map[string]string{"a": "1"}}
		c.edit(&command)
		if _, err := r.EditThing(ctx, acct, command); fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now, err := r.DescribeThing(ctx, acct, "thing"); err != nil || now.Version != 1 {
		t.Errorf("%+v, %v", now, err)
	}
}

// A removal is for one life and keeps to DeleteThing's rule; what it returned can
// be made anew, once.
func TestRemoveAndRestoreThing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	if _, err := r.CreateThingGroup(ctx, acct, CreateThingGroupCommand{Name: "g"}); err != nil {
		t.Fatal(err)
	}
	made, err := r.CreateThing(ctx, acct, CreateThingCommand{Name: "thing", Attributes: map[string]string{"a": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	k := store.K("beside", "1")
	if _, err := r.RemoveThing(ctx, acct, RemoveCommand{Thing: "thing", ThingID: "other"}); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("another life: %v", err)
	}
	if gone, err := r.RemoveThing(ctx, acct, RemoveCommand{Thing: "thing", ThingID: made.ID, DryRun: true}); err != nil || gone.ID != made.ID {
		t.Errorf("dry: %+v, %v", gone, err)
	}
	gone, err := r.RemoveThing(ctx, acct, RemoveCommand{Thing: "thing", ThingID: made.ID, Joined: beside(k)})
	if err != nil || gone.Attributes["a"] != "1" {
		t.Fatalf("%+v, %v", gone, err)
	}
	if _, err := r.store.Get(ctx, k); err != nil {
		t.Error(err)
	}
	restore := RestoreCommand{CreateThingCommand: CreateThingCommand{Name: "thing", Attributes: gone.Attributes}, Groups: []string{"g"}, Joined: beside(store.K("beside", "2"))}
	back, err := r.RestoreThing(ctx, acct, restore)
	if err != nil || back.ID == made.ID || len(back.Groups) != 1 || back.Version != 1 {
		t.Errorf("back %+v, %v", back, err)
	}
	if _, err := r.RestoreThing(ctx, acct, restore); fault.CodeOf(err) != fault.ResourceAlreadyExists {
		t.Errorf("again: %v", err)
	}
	if _, err := r.store.Get(ctx, store.K("beside", "2")); err != nil {
		t.Error(err)
	}
}
