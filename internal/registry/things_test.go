package registry

import (
	"fmt"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
)

// fleet-management §1.2: an equal creation answers the existing thing, a
// different one is ResourceAlreadyExists with the id and ARN in the way.
func TestCreateThing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	must[ThingType](t)(r.CreateThingType(t.Context(), acct, CreateThingTypeCommand{Name: "Pump"}))
	c := CreateThingCommand{Name: "pump-1", TypeName: "Pump", Attributes: map[string]string{"site": "oslo", "gone": ""}}
	first := must[Thing](t)(r.CreateThing(t.Context(), acct, c))
	wantEqual(t, first, Thing{
		Name: "pump-1", ID: "id-2", ARN: "arn:aws:iot:us-east-1:000000000000:thing/pump-1", TypeName: "Pump",
		Attributes: map[string]string{"site": "oslo"}, Version: 1, Groups: []Membership{},
	})
	mark := len(r.store.log())
	again := must[Thing](t)(r.CreateThing(t.Context(), acct, c))
	wantEqual(t, again, first)
	if n := len(r.store.log()); n != mark {
		t.Fatalf("the repeated creation wrote %d events", n-mark)
	}
	c.Attributes = map[string]string{"site": "bergen"}
	_, err := r.CreateThing(t.Context(), acct, c)
	wantCode(t, err, fault.ResourceAlreadyExists)
	wantEqual(t, fault.From(err).ResourceID, first.ID)
	wantEqual(t, fault.From(err).ResourceARN, first.ARN)
	wantEqual(t, must[Thing](t)(r.DescribeThing(t.Context(), acct, "pump-1")), first)
}

func TestCreateThingRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	must[ThingType](t)(r.CreateThingType(t.Context(), acct, CreateThingTypeCommand{Name: "Old"}))
	ok(t, r.DeprecateThingType(t.Context(), acct, "Old", false))
	four := map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"}
	many := map[string]string{}
	for i := range 51 {
		many[fmt.Sprintf("a%d", i)] = "x"
	}
	for name, c := range map[string]struct {
		command CreateThingCommand
		code    fault.Code
		text    string
	}{
		"no name":         {CreateThingCommand{}, fault.InvalidRequest, "thingName"},
		"long name":       {CreateThingCommand{Name: strings.Repeat("n", 129)}, fault.InvalidRequest, "128"},
		"space in name":   {CreateThingCommand{Name: "a b"}, fault.InvalidRequest, "[a-zA-Z0-9:_-]+"},
		"unknown type":    {CreateThingCommand{Name: "T", TypeName: "None"}, fault.ResourceNotFound, "None"},
		"deprecated type": {CreateThingCommand{Name: "T", TypeName: "Old"}, fault.InvalidRequest, "deprecated"},
		"four without a type": {
			CreateThingCommand{Name: "T", Attributes: four}, fault.InvalidRequest, "at most 3",
		},
		"51 attributes":       {CreateThingCommand{Name: "T", Attributes: many}, fault.InvalidRequest, "at most 50"},
		"space in value":      {CreateThingCommand{Name: "T", Attributes: map[string]string{"a": "x y"}}, fault.InvalidRequest, `"a"`},
		"long value":          {CreateThingCommand{Name: "T", Attributes: map[string]string{"a": strings.Repeat("x", 801)}}, fault.InvalidRequest, "800"},
		"bad attribute name":  {CreateThingCommand{Name: "T", Attributes: map[string]string{"a b": "x"}}, fault.InvalidRequest, "attribute names"},
		"billing group":       {CreateThingCommand{Name: "T", BillingGroup: "B"}, fault.ResourceNotFound, "billing group B"},
		"billing group name":  {CreateThingCommand{Name: "T", BillingGroup: "a b"}, fault.InvalidRequest, "billingGroupName"},
		"zero byte in a name": {CreateThingCommand{Name: "T\x00"}, fault.InvalidRequest, "thingName"},
	} {
		_, err := r.CreateThing(t.Context(), acct, c.command)
		if fault.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := r.store.left(); len(got) != 1 {
		t.Fatalf("a refused creation left %v", got)
	}
}

// fleet-management §1.2: merge adds and overwrites, an empty value removes,
// without merge the set is replaced, and absent attributes stay.
func TestUpdateThingAttributes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change *Attributes
		want   map[string]string
	}{
		"merge":           {&Attributes{map[string]string{"b": "9", "c": "3"}, true}, map[string]string{"a": "1", "b": "9", "c": "3"}},
		"merge removes":   {&Attributes{map[string]string{"a": ""}, true}, map[string]string{"b": "2"}},
		"replace":         {&Attributes{map[string]string{"c": "3"}, false}, map[string]string{"c": "3"}},
		"replace drops":   {&Attributes{map[string]string{"a": "", "c": "3"}, false}, map[string]string{"c": "3"}},
		"replace by none": {&Attributes{nil, false}, nil},
		"absent":          {nil, map[string]string{"a": "1", "b": "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			must[Thing](t)(r.CreateThing(t.Context(), acct, CreateThingCommand{Name: "T", Attributes: map[string]string{"a": "1", "b": "2"}}))
			ok(t, r.UpdateThing(t.Context(), acct, UpdateThingCommand{Name: "T", Attributes: c.change}))
			got := must[Thing](t)(r.DescribeThing(t.Context(), acct, "T"))
			wantEqual(t, got.Attributes, c.want)
			wantEqual(t, got.Version, 2)
			rows := 0
			for _, k := range r.store.left() {
				if strings.HasPrefix(k, kindThingByAttribute) {
					rows++
				}
			}
			if rows != len(c.want) {
				t.Fatalf("%d rows for %d attributes: %v", rows, len(c.want), r.store.left())
			}
		})
	}
}

func TestUpdateThingRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	must[ThingType](t)(r.CreateThingType(t.Context(), acct, CreateThingTypeCommand{Name: "Pump"}))
	must[ThingType](t)(r.CreateThingType(t.Context(), acct, CreateThingTypeCommand{Name: "Old"}))
	four := map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"}
	must[Thing](t)(r.CreateThing(t.Context(), acct, CreateThingCommand{Name: "T", TypeName: "Pump", Attributes: four}))
	must[Thing](t)(r.CreateThing(t.Context(), acct, CreateThingCommand{Name: "O", TypeName: "Old"}))
	ok(t, r.DeprecateThingType(t.Context(), acct, "Old", false))
	zero, nine := int64(0), int64(9)
	for name, c := range map[string]struct {
		command UpdateThingCommand
		code    fault.Code
	}{
		"unknown thing":          {UpdateThingCommand{Name: "None"}, fault.ResourceNotFound},
		"unknown type":           {UpdateThingCommand{Name: "T", TypeName: "None"}, fault.ResourceNotFound},
		"deprecated type":        {UpdateThingCommand{Name: "T", TypeName: "Old"}, fault.InvalidRequest},
		"type and removal":       {UpdateThingCommand{Name: "T", TypeName: "Pump", RemoveType: true}, fault.InvalidRequest},
		"too many without type":  {UpdateThingCommand{Name: "T", RemoveType: true}, fault.InvalidRequest},
		"expected version":       {UpdateThingCommand{Name: "T", ExpectedVersion: &nine}, fault.VersionConflict},
		"expected 0 is no blank": {UpdateThingCommand{Name: "T", ExpectedVersion: &zero}, fault.VersionConflict},
	} {
		if err := r.UpdateThing(t.Context(), acct, c.command); fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantEqual(t, must[Thing](t)(r.DescribeThing(t.Context(), acct, "T")).Version, 1)
	// An existing thing keeps its deprecated type, also when it is named again.
	ok(t, r.UpdateThing(t.Context(), acct, UpdateThingCommand{Name: "O", TypeName: "Old"}))
}

func TestUpdateThingType(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	must[ThingType](t)(r.CreateThingType(t.Context(), acct, CreateThingTypeCommand{Name: "Pump"}))
	r.addThing(t, "T")
	mark := len(r.store.log())
	one := int64(1)
	ok(t, r.UpdateThing(t.Context(), acct, UpdateThingCommand{Name: "T", TypeName: "Pump", ExpectedVersion: &one}))
	ok(t, r.UpdateThing(t.Context(), acct, UpdateThingCommand{Name: "T", RemoveType: true}))
	wantEqual(t, r.eventsAfter(mark), []event.Event{
		event.ThingUpdated{Thing: event.Thing{Thing: "T", ThingID: "id-2", TypeName: "Pump", Version: 2}},
		event.ThingUpdated{Thing: event.Thing{Thing: "T", ThingID: "id-2", Version: 3}, PreviousTypeName: "Pump"},
	})
	listed := must[Listed[Thing]](t)(r.ListThings(t.Context(), acct, ListThingsFilter{TypeName: "Pump"}, Page{}))
	wantEqual(t, len(listed.Items), 0)
}

// fleet-management §1.2: deleting succeeds for an unknown thing, is refused
// with principals attached, and takes the memberships along.
func TestDeleteThing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ok(t, r.DeleteThing(t.Context(), acct, "None", nil))
	r.addGroup(t, "G", "")
	must[Thing](t)(r.CreateThing(t.Context(), acct, CreateThingCommand{Name: "T", Attributes: map[string]string{"a": "1"}}))
	r.joinGroup(t, "T", "G")
	c := r.addCertificate(t)
	ok(t, r.AttachThingPrincipal(t.Context(), acct, "T", c.ARN, ""))
	wantCode(t, r.DeleteThing(t.Context(), acct, "T", nil), fault.InvalidRequest)
	ok(t, r.DetachThingPrincipal(t.Context(), acct, "T", c.ARN))
	two := int64(2)
	wantCode(t, r.DeleteThing(t.Context(), acct, "T", &two), fault.VersionConflict)
	mark := len(r.store.log())
	one := int64(1)
	ok(t, r.DeleteThing(t.Context(), acct, "T", &one))
	wantEqual(t, r.eventsAfter(mark), []event.Event{
		event.ThingDeleted{Thing: "T", ThingID: "id-2", Version: 1, Attributes: map[string]string{"a": "1"}, Groups: []string{"G"}, GroupIDs: []string{"id-1"}},
	})
	for _, k := range r.store.left() {
		if strings.Contains(k, "/T") {
			t.Errorf("%s stayed behind", k)
		}
	}
	// A new thing of the old name is another thing.
	if again := r.addThing(t, "T"); again.ID == "id-2" || len(again.Groups) > 0 {
		t.Fatalf("reborn as %+v", again)
	}
}

func TestListThings(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	must[ThingType](t)(r.CreateThingType(t.Context(), acct, CreateThingTypeCommand{Name: "Pump"}))
	for i := range 23 {
		c := CreateThingCommand{Name: fmt.Sprintf("t%02d", i), Attributes: map[string]string{"site": fmt.Sprintf("oslo-%d", i%3)}}
		if i%2 == 0 {
			c.TypeName = "Pump"
		}
		must[Thing](t)(r.CreateThing(t.Context(), acct, c))
	}
	must[Thing](t)(r.CreateThing(t.Context(), "111111111111", CreateThingCommand{Name: "foreign"}))
	value := func(s string) *string { return &s }
	for name, c := range map[string]struct {
		filter ListThingsFilter
		want   int
		wanted func(Thing) bool
	}{
		"all":             {ListThingsFilter{}, 23, func(Thing) bool { return true }},
		"type":            {ListThingsFilter{TypeName: "Pump"}, 12, func(x Thing) bool { return x.TypeName == "Pump" }},
		"unknown type":    {ListThingsFilter{TypeName: "None"}, 0, nil},
		"has attribute":   {ListThingsFilter{AttributeName: "site"}, 23, func(Thing) bool { return true }},
		"value":           {ListThingsFilter{AttributeName: "site", AttributeValue: value("oslo-1")}, 8, func(x Thing) bool { return x.Attributes["site"] == "oslo-1" }},
		"no prefix match": {ListThingsFilter{AttributeName: "site", AttributeValue: value("oslo")}, 0, nil},
		"prefix":          {ListThingsFilter{AttributeName: "site", AttributeValue: value("oslo"), ValueIsPrefix: true}, 23, func(Thing) bool { return true }},
		"value and type": {
			ListThingsFilter{TypeName: "Pump", AttributeName: "site", AttributeValue: value("oslo-1")},
			4,
			func(x Thing) bool { return x.TypeName == "Pump" && x.Attributes["site"] == "oslo-1" },
		},
	} {
		for _, limit := range []int{1, 4, 12, 100} {
			got := allPages(t, limit, func(p Page) (Listed[Thing], error) { return r.ListThings(t.Context(), acct, c.filter, p) })
			seen := map[string]bool{}
			for _, thing := range got {
				if seen[thing.Name] || !c.wanted(thing) {
					t.Errorf("%s, limit %d: %s twice or wrong", name, limit, thing.Name)
				}
				seen[thing.Name] = true
			}
			if len(got) != c.want {
				t.Errorf("%s, limit %d: %d things, want %d", name, limit, len(got), c.want)
			}
		}
	}
	for name, f := range map[string]ListThingsFilter{
		"value without name":   {AttributeValue: value("x")},
		"prefix without value": {AttributeName: "a", ValueIsPrefix: true},
		"bad name":             {AttributeName: "a b"},
		"bad value":            {AttributeName: "a", AttributeValue: value("x y")},
		"bad type":             {TypeName: "a b"},
	} {
		if _, err := r.ListThings(t.Context(), acct, f, Page{}); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestThingsSkipsTheMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addThing(t, "a")
	r.addThing(t, "c")
	got := must[[]Thing](t)(r.Things(t.Context(), acct, []string{"c", "b", "a"}))
	wantEqual(t, []string{got[0].Name, got[1].Name}, []string{"c", "a"})
	wantEqual(t, must[bool](t)(r.ThingExists(t.Context(), acct, "a")), true)
	wantEqual(t, must[bool](t)(r.ThingExists(t.Context(), acct, "b")), false)
}
