package sdk

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/testkit"
)

// registryWatcher is a client that hears all registry events.
type registryWatcher struct {
	t *testing.T
	connection
}

// watchRegistry connects paho.golang and subscribes to the six kinds.
func watchRegistry(t *testing.T, server *testkit.Server, id string) *registryWatcher {
	t.Helper()
	c, err := autoPaho{}.connect(t, &opening{
		URL: "mqtt://" + server.PlainMQTTAddr, ClientID: id, CA: filepath.Join(server.DataDir, "ca.pem"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"thing", "thingType", "thingTypeAssociation", "thingGroup", "thingGroupMembership", "thingGroupHierarchy"} {
		if err := c.subscribe("$aws/events/" + kind + "/#"); err != nil {
			t.Fatal(err)
		}
	}
	return &registryWatcher{t: t, connection: c}
}

// next returns the payload of the next event, which must be on the topic.
func (w *registryWatcher) next(topic string) map[string]any {
	w.t.Helper()
	d, err := receive(w.connection)
	if err != nil {
		w.t.Fatalf("%s: %v", topic, err)
	}
	if d.topic != "$aws/events/"+topic {
		w.t.Fatalf("got %s %s, want %s", d.topic, d.payload, topic)
	}
	var payload map[string]any
	if err := json.Unmarshal([]byte(d.payload), &payload); err != nil {
		w.t.Fatal(err)
	}
	if at, _ := payload["timestamp"].(float64); time.Since(time.UnixMilli(int64(at))) > time.Minute {
		w.t.Errorf("%s: timestamp %v", topic, payload["timestamp"])
	}
	return payload
}

// has compares some members of a payload; nil is a member that is null.
func has(t *testing.T, payload, want map[string]any) {
	t.Helper()
	got := map[string]any{}
	for name := range want {
		value, ok := payload[name]
		if !ok {
			t.Errorf("%s is missing in %v", name, payload)
		}
		got[name] = value
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// events switches kinds on or off.
func (o *operator) events(on bool, kinds ...string) {
	o.t.Helper()
	in := &iot.UpdateEventConfigurationsInput{EventConfigurations: map[string]types.Configuration{}}
	for _, kind := range kinds {
		in.EventConfigurations[kind] = types.Configuration{Enabled: on}
	}
	must(o, o.UpdateEventConfigurations, in)
}

// TestRegistryEvents follows the registry with an MQTT client while the SDK
// changes it: fleet-management §1.6.
func TestRegistryEvents(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	o := newOperator(t, server)
	w := watchRegistry(t, server, "watcher")
	// Off by default: of all that follows, nothing is heard before the switch.
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new("unheard")})
	o.events(true, "THING", "THING_GROUP", "THING_TYPE", "THING_GROUP_MEMBERSHIP", "THING_GROUP_HIERARCHY", "THING_TYPE_ASSOCIATION")

	kind := must(o, o.CreateThingType, &iot.CreateThingTypeInput{
		ThingTypeName: new("Pump"), ThingTypeProperties: &types.ThingTypeProperties{ThingTypeDescription: new("a pump"), SearchableAttributes: []string{"site"}},
	})
	has(t, w.next("thingType/Pump/created"), map[string]any{
		"eventType": "THING_TYPE_EVENT", "operation": "CREATED", "accountId": "000000000000", "thingTypeId": *kind.ThingTypeId, "thingTypeName": "Pump",
		"isDeprecated": false, "deprecationDate": nil, "searchableAttributes": []any{"site"}, "description": "a pump",
	})
	thing := must(o, o.CreateThing, &iot.CreateThingInput{
		ThingName: new("p:1"), ThingTypeName: new("Pump"), AttributePayload: &types.AttributePayload{Attributes: map[string]string{"site": "oslo"}},
	})
	has(t, w.next("thing/p:1/created"), map[string]any{
		"eventType": "THING_EVENT", "operation": "CREATED", "accountId": "000000000000", "thingId": *thing.ThingId, "thingName": "p:1",
		"versionNumber": 1.0, "thingTypeName": "Pump", "attributes": map[string]any{"site": "oslo"},
	})
	has(t, w.next("thingTypeAssociation/thing/p:1/thingType/Pump/added"), map[string]any{
		"eventType": "THING_TYPE_ASSOCIATION_EVENT", "operation": "ADDED", "thingId": *thing.ThingId, "thingName": "p:1", "thingTypeName": "Pump",
	})
	root := must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: new("all")})
	has(t, w.next("thingGroup/all/created"), map[string]any{
		"eventType": "THING_GROUP_EVENT", "operation": "CREATED", "thingGroupId": *root.ThingGroupId, "parentGroupName": nil, "parentGroupId": nil,
		"rootToParentThingGroups": []any{}, "dynamicGroupMappingId": nil, "versionNumber": 1.0,
	})
	group := must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: new("north"), ParentGroupName: new("all")})
	has(t, w.next("thingGroup/north/created"), map[string]any{
		"parentGroupName": "all", "parentGroupId": *root.ThingGroupId,
		"rootToParentThingGroups": []any{map[string]any{"groupArn": *root.ThingGroupArn, "groupId": *root.ThingGroupId}},
	})
	has(t, w.next("thingGroupHierarchy/thingGroup/all/childThingGroup/north/added"), map[string]any{
		"eventType": "THING_GROUP_HIERARCHY_EVENT", "operation": "ADDED", "thingGroupId": *root.ThingGroupId, "thingGroupName": "all",
		"childGroupId": *group.ThingGroupId, "childGroupName": "north",
	})
	must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: new("p:1"), ThingGroupName: new("north")})
	added := w.next("thingGroupMembership/thingGroup/north/thing/p:1/added")
	has(t, added, map[string]any{
		"eventType": "THING_GROUP_MEMBERSHIP_EVENT", "operation": "ADDED", "groupArn": *group.ThingGroupArn, "groupId": *group.ThingGroupId,
		"thingArn": *thing.ThingArn, "thingId": *thing.ThingId,
	})
	dynamic := must(o, o.CreateDynamicThingGroup, &iot.CreateDynamicThingGroupInput{ThingGroupName: new("oslo"), QueryString: new("attributes.site:oslo")})
	has(t, w.next("thingGroup/oslo/created"), map[string]any{"thingGroupId": *dynamic.ThingGroupId, "dynamicGroupMappingId": *dynamic.ThingGroupId})
	has(t, w.next("thingGroupMembership/thingGroup/oslo/thing/p:1/added"), map[string]any{"groupId": *dynamic.ThingGroupId, "thingId": *thing.ThingId})

	// A restart repeats nothing, and the switches stay.
	server.Stop()
	server.Start()
	o = newOperator(t, server)
	w = watchRegistry(t, server, "watcher-2")
	must(o, o.UpdateThing, &iot.UpdateThingInput{ThingName: new("p:1"), RemoveThingType: true})
	has(t, w.next("thing/p:1/updated"), map[string]any{"operation": "UPDATED", "versionNumber": 2.0, "thingTypeName": nil})
	has(t, w.next("thingTypeAssociation/thing/p:1/thingType/Pump/removed"), map[string]any{"operation": "REMOVED"})
	must(o, o.RemoveThingFromThingGroup, &iot.RemoveThingFromThingGroupInput{ThingName: new("p:1"), ThingGroupName: new("north")})
	has(t, w.next("thingGroupMembership/thingGroup/north/thing/p:1/removed"), map[string]any{"operation": "REMOVED", "membershipId": added["membershipId"]})
	must(o, o.DeprecateThingType, &iot.DeprecateThingTypeInput{ThingTypeName: new("Pump")})
	deprecated := w.next("thingType/Pump/updated")
	has(t, deprecated, map[string]any{"operation": "UPDATED", "isDeprecated": true})
	if deprecated["deprecationDate"] == nil {
		t.Error("a deprecated type has no deprecation date")
	}
	must(o, o.DeleteThingGroup, &iot.DeleteThingGroupInput{ThingGroupName: new("north")})
	has(t, w.next("thingGroupHierarchy/thingGroup/all/childThingGroup/north/removed"), map[string]any{"operation": "REMOVED", "childGroupId": *group.ThingGroupId})
	has(t, w.next("thingGroup/north/deleted"), map[string]any{"operation": "DELETED", "parentGroupId": *root.ThingGroupId})
	must(o, o.DeleteThing, &iot.DeleteThingInput{ThingName: new("p:1")})
	has(t, w.next("thingGroupMembership/thingGroup/oslo/thing/p:1/removed"), map[string]any{"groupId": *dynamic.ThingGroupId})
	has(t, w.next("thing/p:1/deleted"), map[string]any{"operation": "DELETED", "thingId": *thing.ThingId, "attributes": map[string]any{"site": "oslo"}})

	// The switches hold for what comes after them, exactly.
	o.events(false, "THING")
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new("silent")})
	o.events(true, "THING")
	must(o, o.UpdateThing, &iot.UpdateThingInput{ThingName: new("silent")})
	w.next("thing/silent/updated")
}

// TestBillingGroupInTheIndex: the billing group's name is among the group names
// of a thing, follows changes, survives a rebuild of the index, and takes none
// of the thing's ten places.
func TestBillingGroupInTheIndex(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	o := newOperator(t, server)
	must(o, o.CreateBillingGroup, &iot.CreateBillingGroupInput{BillingGroupName: new("cost-4")})
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new("born"), BillingGroupName: new("cost-4")})
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new("added")})
	must(o, o.CreateDynamicThingGroup, &iot.CreateDynamicThingGroupInput{ThingGroupName: new("billed"), QueryString: new("thingGroupNames:cost-4")})
	must(o, o.AddThingToBillingGroup, &iot.AddThingToBillingGroupInput{ThingName: new("added"), BillingGroupName: new("cost-4")})
	for i := range 9 {
		name := fmt.Sprintf("g%d", i)
		must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: &name})
		must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: new("added"), ThingGroupName: &name})
	}
	finds := func(query string, want ...string) {
		t.Helper()
		testkit.Poll(t, 15*time.Second, query, func() error {
			names, err := o.search(query)
			if err == nil && !slices.Equal(names, want) {
				err = fmt.Errorf("search answers %q, want %q", names, want)
			}
			return err
		})
	}
	// Nine static groups and the dynamic one are the ten.
	finds("thingGroupNames:cost-4", "added", "born")
	finds("thingGroupNames:billed AND thingGroupNames:g8", "added")
	document := must(o, o.SearchIndex, &iot.SearchIndexInput{QueryString: new("thingName:born")}).Things[0]
	if !slices.Contains(document.ThingGroupNames, "cost-4") {
		t.Errorf("the document has the groups %q", document.ThingGroupNames)
	}
	server.Stop()
	server.Start()
	o = newOperator(t, server)
	finds("thingGroupNames:cost-4", "added", "born")
	must(o, o.RemoveThingFromBillingGroup, &iot.RemoveThingFromBillingGroupInput{ThingName: new("born"), BillingGroupName: new("cost-4")})
	finds("thingGroupNames:cost-4", "added")
	must(o, o.DeleteBillingGroup, &iot.DeleteBillingGroupInput{BillingGroupName: new("cost-4")})
	finds("thingGroupNames:cost-4")
	testkit.Poll(t, 15*time.Second, "the dynamic group is empty", func() error {
		left := must(o, o.ListThingsInThingGroup, &iot.ListThingsInThingGroupInput{ThingGroupName: new("billed")}).Things
		if len(left) > 0 {
			return fmt.Errorf("it has %q", left)
		}
		return nil
	})
}
