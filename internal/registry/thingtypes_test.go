package registry

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
)

func TestCreateThingType(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := CreateThingTypeCommand{Name: "Pump", Description: "district pump", SearchableAttributes: []string{"site", "hw"}}
	created := must[ThingType](t)(r.CreateThingType(t.Context(), acct, c))
	wantEqual(t, created, ThingType{
		Name: "Pump", ID: "id-1", ARN: "arn:aws:iot:us-east-1:000000000000:thingtype/Pump",
		Description: "district pump", SearchableAttributes: []string{"site", "hw"}, Created: start,
	})
	wantEqual(t, must[ThingType](t)(r.CreateThingType(t.Context(), acct, c)), created)
	c.Description = "another"
	_, err := r.CreateThingType(t.Context(), acct, c)
	wantCode(t, err, fault.ResourceAlreadyExists)
	for name, bad := range map[string]CreateThingTypeCommand{
		"name":        {Name: ""},
		"description": {Name: "X", Description: "line\nbreak"},
		"too long":    {Name: "X", Description: strings.Repeat("d", 2029)},
		"four":        {Name: "X", SearchableAttributes: []string{"a", "b", "c", "d"}},
		"twice":       {Name: "X", SearchableAttributes: []string{"a", "a"}},
		"attribute":   {Name: "X", SearchableAttributes: []string{"a b"}},
	} {
		if _, err := r.CreateThingType(t.Context(), acct, bad); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fleet-management §1.3: searchable attributes are fixed, the description is
// not.
func TestUpdateThingTypeProperties(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	must[ThingType](t)(r.CreateThingType(t.Context(), acct, CreateThingTypeCommand{Name: "Pump", SearchableAttributes: []string{"site"}}))
	text := "new"
	ok(t, r.UpdateThingType(t.Context(), acct, UpdateThingTypeCommand{Name: "Pump", Description: &text, SearchableAttributes: []string{"site"}}))
	wantEqual(t, must[ThingType](t)(r.DescribeThingType(t.Context(), acct, "Pump")).Description, "new")
	err := r.UpdateThingType(t.Context(), acct, UpdateThingTypeCommand{Name: "Pump", SearchableAttributes: []string{"hw"}})
	wantCode(t, err, fault.InvalidRequest)
	wantCode(t, r.UpdateThingType(t.Context(), acct, UpdateThingTypeCommand{Name: "None"}), fault.ResourceNotFound)
}

// fleet-management §1.3: a type can be deleted five minutes after its last
// deprecation, when no thing has it.
func TestThingTypeLifecycle(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	must[ThingType](t)(r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: "Pump"}))
	must[Thing](t)(r.CreateThing(ctx, acct, CreateThingCommand{Name: "T", TypeName: "Pump"}))
	wantCode(t, r.DeleteThingType(ctx, acct, "Pump"), fault.InvalidRequest)
	ok(t, r.DeprecateThingType(ctx, acct, "Pump", false))
	wantEqual(t, must[ThingType](t)(r.DescribeThingType(ctx, acct, "Pump")).Deprecated, start)
	r.pass(4 * time.Minute)
	ok(t, r.DeprecateThingType(ctx, acct, "Pump", false))
	wantEqual(t, must[ThingType](t)(r.DescribeThingType(ctx, acct, "Pump")).Deprecated, start)
	ok(t, r.DeprecateThingType(ctx, acct, "Pump", true))
	must[Thing](t)(r.CreateThing(ctx, acct, CreateThingCommand{Name: "U", TypeName: "Pump"}))
	ok(t, r.DeprecateThingType(ctx, acct, "Pump", false))
	r.pass(5*time.Minute - time.Millisecond)
	wantCode(t, r.DeleteThingType(ctx, acct, "Pump"), fault.InvalidRequest)
	r.pass(time.Millisecond)
	err := r.DeleteThingType(ctx, acct, "Pump")
	wantCode(t, err, fault.InvalidRequest)
	if !strings.Contains(err.Error(), "still has things") {
		t.Fatal(err)
	}
	ok(t, r.DeleteThing(ctx, acct, "T", nil))
	ok(t, r.UpdateThing(ctx, acct, UpdateThingCommand{Name: "U", RemoveType: true}))
	mark := len(r.store.log())
	ok(t, r.DeleteThingType(ctx, acct, "Pump"))
	wantEqual(t, r.eventsAfter(mark), []event.Event{event.ThingTypeDeleted{ThingType: event.ThingType{
		TypeName: "Pump", TypeID: "id-1", Deprecated: true, DeprecationDate: start.Add(4 * time.Minute),
	}}})
	wantCode(t, r.DeleteThingType(ctx, acct, "Pump"), fault.ResourceNotFound)
	_, err = r.DescribeThingType(ctx, acct, "Pump")
	wantCode(t, err, fault.ResourceNotFound)
}

func TestListThingTypes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range []string{"b", "a", "ab", "c"} {
		must[ThingType](t)(r.CreateThingType(t.Context(), acct, CreateThingTypeCommand{Name: name}))
	}
	names := func(types []ThingType) (all []string) {
		for _, x := range types {
			all = append(all, x.Name)
		}
		return all
	}
	all := allPages(t, 3, func(p Page) (Listed[ThingType], error) { return r.ListThingTypes(t.Context(), acct, "", p) })
	wantEqual(t, names(all), []string{"a", "ab", "b", "c"})
	one := must[Listed[ThingType]](t)(r.ListThingTypes(t.Context(), acct, "a", Page{}))
	wantEqual(t, names(one.Items), []string{"a"})
	none := must[Listed[ThingType]](t)(r.ListThingTypes(t.Context(), acct, "zz", Page{}))
	wantEqual(t, len(none.Items), 0)
}
