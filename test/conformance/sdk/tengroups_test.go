package sdk

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/testkit"
)

// settles waits until a thing's groups are the wanted ones.
func (o *operator) settles(thing string, want ...string) {
	o.t.Helper()
	slices.Sort(want)
	testkit.Poll(o.t, 10*time.Second, "the groups of "+thing, func() error {
		out, err := o.ListThingGroupsForThing(o.t.Context(), &iot.ListThingGroupsForThingInput{ThingName: &thing, MaxResults: new(int32(50))})
		if err != nil {
			return err
		}
		var got []string
		for _, g := range out.ThingGroups {
			got = append(got, *g.GroupName)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

// A thing may be in ten groups, dynamic ones among them: static ones win, then
// elder dynamic ones, and who leaves makes room for who waits.
func TestTenGroups(t *testing.T) {
	t.Parallel()
	o := newOperator(t, testkit.StartServer(t, "--registry.max-groups-per-thing=10"))
	const thing = "crowded"
	attributes := func(values map[string]string) {
		must(o, o.UpdateThing, &iot.UpdateThingInput{ThingName: new(thing), AttributePayload: &types.AttributePayload{Attributes: values, Merge: true}})
	}
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new(thing), AttributePayload: &types.AttributePayload{
		Attributes: map[string]string{"a": "1", "c": "1"},
	}})
	var static []string
	join := func(override bool) error {
		name := fmt.Sprintf("static-%d", len(static))
		must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: &name})
		_, err := o.AddThingToThingGroup(t.Context(), &iot.AddThingToThingGroupInput{
			ThingName: new(thing), ThingGroupName: &name, OverrideDynamicGroups: override,
		})
		if err == nil {
			static = append(static, name)
		}
		return err
	}
	in := func(dynamic ...string) []string { return append(dynamic, static...) }
	for range 8 {
		if err := join(false); err != nil {
			t.Fatal(err)
		}
	}
	for _, attribute := range []string{"a", "b", "c", "d"} {
		must(o, o.CreateDynamicThingGroup, &iot.CreateDynamicThingGroupInput{
			ThingGroupName: &attribute, QueryString: new("attributes." + attribute + ":1"),
		})
	}
	o.settles(thing, in("a", "c")...)
	attributes(map[string]string{"b": "1"}) // elder than c, which has to go
	o.settles(thing, in("a", "b")...)
	attributes(map[string]string{"d": "1", "c": ""}) // younger than all
	attributes(map[string]string{"a": ""})
	o.settles(thing, in("b", "d")...) // d waited

	var invalid *types.InvalidRequestException
	if err := join(false); !errors.As(err, &invalid) {
		t.Errorf("an eleventh group: %v", err)
	}
	must(o, o.DeleteThingGroup, &iot.DeleteThingGroupInput{ThingGroupName: new("static-8")})
	for _, left := range [][]string{{"b"}, {}} {
		if err := join(true); err != nil {
			t.Fatal(err)
		}
		o.settles(thing, in(left...)...)
	}
	if err := join(true); !errors.As(err, &invalid) {
		t.Errorf("an eleventh static group: %v", err)
	}
	must(o, o.RemoveThingFromThingGroup, &iot.RemoveThingFromThingGroupInput{ThingName: new(thing), ThingGroupName: new("static-0")})
	static = static[1:]
	o.settles(thing, in("b")...)
	found, err := o.search("thingGroupNames:d")
	if err != nil || len(found) != 0 {
		t.Errorf("a group without room for its only match has %v, %v", found, err)
	}
}
