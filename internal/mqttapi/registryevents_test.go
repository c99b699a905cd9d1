package mqttapi

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/registry"
)

// allKinds are the kinds of registry events that can be switched on.
func allKinds() []string {
	return []string{
		registry.EventThing, registry.EventThingGroup, registry.EventThingGroupHierarchy, registry.EventThingGroupMembership,
		registry.EventThingType, registry.EventThingTypeAssociation,
	}
}

// published renders the messages of an event as "topic payload", with the
// generated ids replaced by a word.
func published(t *testing.T, r *registryEvents, e event.Event) []string {
	t.Helper()
	env := event.Envelope{Seq: 7, Account: account, At: time.UnixMilli(1234567890123), Event: e}
	var all []string
	for _, m := range r.of(env) {
		payload, err := json.Marshal(m.payload)
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]any
		if err := json.Unmarshal(payload, &members); err != nil {
			t.Fatal(err)
		}
		text := string(payload)
		for _, generated := range []string{"eventId", "membershipId"} {
			if id, ok := members[generated].(string); ok {
				if len(id) != 36 {
					t.Errorf("%s %q", generated, id)
				}
				text = strings.ReplaceAll(text, id, "UUID")
			}
		}
		all = append(all, m.topic+" "+text)
	}
	return all
}

// The payloads of the developer guide, "Registry events", member by member and
// in its order.
func TestRegistryEventPayloads(t *testing.T) {
	t.Parallel()
	const head = `"eventId":"UUID","timestamp":1234567890123,"operation":"`
	pump := event.Thing{Thing: "p:1", ThingID: "tid", TypeName: "Pump", Attributes: map[string]string{"b": "2", "a": "1"}, Version: 3}
	plain := event.Thing{Thing: "p", ThingID: "tid", Version: 1}
	deep := event.ThingGroup{
		Group: "G", GroupID: "gid", Parent: "mid", Description: "d", Attributes: map[string]string{"k": "v"}, Version: 2,
		Ancestors: []string{"top", "mid"}, AncestorIDs: []string{"id-top", "id-mid"},
	}
	const deepBody = `,"accountId":"000000000001","thingGroupId":"gid","thingGroupName":"G","versionNumber":2,"parentGroupName":"mid","parentGroupId":"id-mid",` +
		`"description":"d","rootToParentThingGroups":[{"groupArn":"arn:aws:iot:eu:000000000001:thinggroup/top","groupId":"id-top"},` +
		`{"groupArn":"arn:aws:iot:eu:000000000001:thinggroup/mid","groupId":"id-mid"}],"attributes":{"k":"v"},"dynamicGroupMappingId":null}`
	const hierarchyBody = `,"accountId":"000000000001","thingGroupId":"id-mid","thingGroupName":"mid","childGroupId":"gid","childGroupName":"G"}`
	const memberBody = `,"accountId":"000000000001","groupArn":"arn:aws:iot:eu:000000000001:thinggroup/G","groupId":"gid",` +
		`"thingArn":"arn:aws:iot:eu:000000000001:thing/p:1","thingId":"tid","membershipId":"UUID"}`
	association := func(thing, word, operation, typeName string) string {
		return `thingTypeAssociation/thing/` + thing + `/thingType/` + typeName + `/` + word +
			` {"eventId":"UUID","eventType":"THING_TYPE_ASSOCIATION_EVENT","operation":"` + operation +
			`","thingId":"tid","thingName":"` + thing + `","thingTypeName":"` + typeName + `","timestamp":1234567890123}`
	}
	const pumpBody = `"accountId":"000000000001","thingId":"tid","thingName":"p:1","versionNumber":3,"thingTypeName":"Pump","attributes":{"a":"1","b":"2"}}`
	const plainBody = `"accountId":"000000000001","thingId":"tid","thingName":"p","versionNumber":1,"thingTypeName":null,"attributes":{}}`
	for name, c := range map[string]struct {
		e    event.Event
		want []string
	}{
		"thing created": {event.ThingCreated{Thing: pump}, []string{
			`thing/p:1/created {"eventType":"THING_EVENT",` + head + `CREATED",` + pumpBody,
			association("p:1", "added", "ADDED", "Pump"),
		}},
		"thing without a type": {event.ThingCreated{Thing: plain}, []string{
			`thing/p/created {"eventType":"THING_EVENT",` + head + `CREATED",` + plainBody,
		}},
		"thing updated": {event.ThingUpdated{Thing: pump, PreviousTypeName: "Pump"}, []string{
			`thing/p:1/updated {"eventType":"THING_EVENT",` + head + `UPDATED",` + pumpBody,
		}},
		"other type": {event.ThingUpdated{Thing: pump, PreviousTypeName: "Valve"}, []string{
			`thing/p:1/updated {"eventType":"THING_EVENT",` + head + `UPDATED",` + pumpBody,
			association("p:1", "removed", "REMOVED", "Valve"),
			association("p:1", "added", "ADDED", "Pump"),
		}},
		"type taken away": {event.ThingUpdated{Thing: plain, PreviousTypeName: "Pump"}, []string{
			`thing/p/updated {"eventType":"THING_EVENT",` + head + `UPDATED",` + plainBody,
			association("p", "removed", "REMOVED", "Pump"),
		}},
		"thing deleted": {event.ThingDeleted{
			Thing: "p:1", ThingID: "tid", TypeName: "Pump", Attributes: pump.Attributes, Version: 3, Groups: []string{"G"}, GroupIDs: []string{"gid"},
		}, []string{
			association("p:1", "removed", "REMOVED", "Pump"),
			`thingGroupMembership/thingGroup/G/thing/p:1/removed {"eventType":"THING_GROUP_MEMBERSHIP_EVENT",` + head + `REMOVED"` + memberBody,
			`thing/p:1/deleted {"eventType":"THING_EVENT",` + head + `DELETED",` + pumpBody,
		}},
		"type created": {event.ThingTypeCreated{ThingType: event.ThingType{
			TypeName: "Pump", TypeID: "yid", Description: "d", SearchableAttributes: []string{"a"},
			Propagating: []event.PropagatingAttribute{{UserPropertyKey: "key", ThingAttribute: "model"}, {UserPropertyKey: "c", ConnectionAttribute: "iot:ClientId"}},
		}}, []string{
			`thingType/Pump/created {"eventType":"THING_TYPE_EVENT",` + head + `CREATED","accountId":"000000000001","thingTypeId":"yid","thingTypeName":"Pump",` +
				`"isDeprecated":false,"deprecationDate":null,"searchableAttributes":["a"],"propagatingAttributes":[{"userPropertyKey":"key","thingAttribute":"model"},` +
				`{"userPropertyKey":"c","connectionAttribute":"iot:ClientId"}],"description":"d"}`,
		}},
		"type deprecated": {event.ThingTypeUpdated{ThingType: event.ThingType{
			TypeName: "Pump", TypeID: "yid", Deprecated: true, DeprecationDate: time.UnixMilli(1234567890000),
		}}, []string{
			`thingType/Pump/updated {"eventType":"THING_TYPE_EVENT",` + head + `UPDATED","accountId":"000000000001","thingTypeId":"yid","thingTypeName":"Pump",` +
				`"isDeprecated":true,"deprecationDate":1234567890000,"searchableAttributes":[],"propagatingAttributes":[],"description":""}`,
		}},
		"type deleted": {event.ThingTypeDeleted{ThingType: event.ThingType{TypeName: "Pump", TypeID: "yid"}}, []string{
			`thingType/Pump/deleted {"eventType":"THING_TYPE_EVENT",` + head + `DELETED","accountId":"000000000001","thingTypeId":"yid","thingTypeName":"Pump",` +
				`"isDeprecated":false,"deprecationDate":null,"searchableAttributes":[],"propagatingAttributes":[],"description":""}`,
		}},
		"group created": {event.ThingGroupCreated{ThingGroup: deep}, []string{
			`thingGroup/G/created {"eventType":"THING_GROUP_EVENT",` + head + `CREATED"` + deepBody,
			`thingGroupHierarchy/thingGroup/mid/childThingGroup/G/added {"eventType":"THING_GROUP_HIERARCHY_EVENT",` + head + `ADDED"` + hierarchyBody,
		}},
		"group updated": {event.ThingGroupUpdated{ThingGroup: deep}, []string{
			`thingGroup/G/updated {"eventType":"THING_GROUP_EVENT",` + head + `UPDATED"` + deepBody,
		}},
		"group deleted": {event.ThingGroupDeleted{
			Group: "G", GroupID: "gid", Parent: "mid", Description: "d", Attributes: deep.Attributes, Version: 2,
			Ancestors: deep.Ancestors, AncestorIDs: deep.AncestorIDs,
		}, []string{
			`thingGroupHierarchy/thingGroup/mid/childThingGroup/G/removed {"eventType":"THING_GROUP_HIERARCHY_EVENT",` + head + `REMOVED"` + hierarchyBody,
			`thingGroup/G/deleted {"eventType":"THING_GROUP_EVENT",` + head + `DELETED"` + deepBody,
		}},
		"dynamic group": {event.ThingGroupCreated{ThingGroup: event.ThingGroup{Group: "D", GroupID: "did", Version: 1, Query: "*"}}, []string{
			`thingGroup/D/created {"eventType":"THING_GROUP_EVENT",` + head + `CREATED","accountId":"000000000001","thingGroupId":"did","thingGroupName":"D",` +
				`"versionNumber":1,"parentGroupName":null,"parentGroupId":null,"description":"","rootToParentThingGroups":[],"attributes":{},"dynamicGroupMappingId":"did"}`,
		}},
		"member added": {event.MembershipChanged{Group: "G", GroupID: "gid", Thing: "p:1", ThingID: "tid", Added: true, Dynamic: true}, []string{
			`thingGroupMembership/thingGroup/G/thing/p:1/added {"eventType":"THING_GROUP_MEMBERSHIP_EVENT",` + head + `ADDED"` + memberBody,
		}},
		"member removed": {event.MembershipChanged{Group: "G", GroupID: "gid", Thing: "p:1", ThingID: "tid"}, []string{
			`thingGroupMembership/thingGroup/G/thing/p:1/removed {"eventType":"THING_GROUP_MEMBERSHIP_EVENT",` + head + `REMOVED"` + memberBody,
		}},
	} {
		r := &registryEvents{region: "eu"}
		r.enable(account, allKinds())
		if diff := cmp.Diff(c.want, published(t, r, c.e)); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
		r.enable(account, nil)
		if got := published(t, r, c.e); got != nil {
			t.Errorf("%s: published while it is off: %v", name, got)
		}
		r.enable("000000000002", allKinds())
		if got := published(t, r, c.e); got != nil {
			t.Errorf("%s: published for another account's switch: %v", name, got)
		}
	}
}

// A kind that is on lets no other kind through.
func TestRegistryEventKindsAreApart(t *testing.T) {
	t.Parallel()
	for _, kind := range allKinds() {
		r := &registryEvents{region: "eu", enabled: map[fleet.Account][]string{account: {kind}}}
		seen := 0
		for _, e := range []event.Event{
			event.ThingCreated{Thing: event.Thing{Thing: "p", TypeName: "Pump"}},
			event.ThingTypeCreated{ThingType: event.ThingType{TypeName: "Pump"}},
			event.ThingGroupCreated{ThingGroup: event.ThingGroup{Group: "G", Parent: "P"}},
			event.MembershipChanged{Group: "G", Thing: "p"},
		} {
			for _, m := range published(t, r, e) {
				seen++
				if !strings.Contains(m, `"eventType":"`+kind+`_EVENT"`) {
					t.Errorf("%s let through %s", kind, m)
				}
			}
		}
		if seen != 1 {
			t.Errorf("%s: %d messages", kind, seen)
		}
	}
}

// An event that is published twice is the same event, and others have other ids.
func TestRegistryEventIDs(t *testing.T) {
	t.Parallel()
	r := &registryEvents{region: "eu", enabled: map[fleet.Account][]string{account: allKinds()}}
	ids := func(seq uint64) []string {
		var all []string
		for _, m := range r.of(event.Envelope{Seq: seq, Account: account, At: instant(), Event: event.ThingCreated{Thing: event.Thing{Thing: "p", TypeName: "Pump"}}}) {
			switch p := m.payload.(type) {
			case thingEvent:
				all = append(all, p.EventID)
			case thingTypeAssociationEvent:
				all = append(all, p.EventID)
			}
		}
		return all
	}
	first, again, next := ids(1), ids(1), ids(2)
	if diff := cmp.Diff(first, again); diff != "" {
		t.Error(diff)
	}
	if len(first) != 2 || first[0] == first[1] || first[0] == next[0] {
		t.Error(first, next)
	}
}

// Events in the log of an earlier program have no ids and still make messages.
func TestRegistryEventsOfEarlierPrograms(t *testing.T) {
	t.Parallel()
	r := &registryEvents{region: "eu", enabled: map[fleet.Account][]string{account: allKinds()}}
	for _, e := range []event.Event{
		event.ThingDeleted{Thing: "p", ThingID: "tid", Groups: []string{"G"}},
		event.ThingGroupDeleted{Group: "G", GroupID: "gid", Parent: "P"},
		event.ThingGroupUpdated{ThingGroup: event.ThingGroup{Group: "G", Parent: "P", Ancestors: []string{"P"}}},
	} {
		if got := published(t, r, e); len(got) == 0 {
			t.Errorf("%T: nothing", e)
		}
	}
}

// The log decides what is published: each event meets the switches before it.
func TestRegistryEventsFollowTheSwitches(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Region = "eu" })
	w.handler.LoadEventConfigurations(map[fleet.Account][]string{account: {registry.EventThing}})
	p := w.connect("watcher", mqtt.V311, nil)
	p.subscribe("$aws/events/thing/#", "$aws/events/thingGroup/#", "done")
	var batch []event.Envelope
	add := func(e event.Event) {
		batch = append(batch, event.Envelope{Seq: uint64(len(batch) + 1), Account: account, At: instant(), Event: e})
	}
	name := strings.Repeat("n", 128)
	add(event.ThingCreated{Thing: event.Thing{Thing: name}})
	add(event.EventConfigurationsChanged{Enabled: []string{registry.EventThingGroup}})
	add(event.ThingCreated{Thing: event.Thing{Thing: "silent"}})
	add(event.ThingGroupCreated{ThingGroup: event.ThingGroup{Group: "G"}})
	add(event.EventConfigurationsChanged{})
	add(event.ThingGroupDeleted{Group: "G"})
	if err := w.handler.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	p.publish("done", "")
	var got []string
	for _, m := range p.wait(3) {
		topic, _, _ := strings.Cut(m, " ")
		got = append(got, topic)
	}
	if diff := cmp.Diff([]string{"$aws/events/thing/" + name + "/created", "$aws/events/thingGroup/G/created", "done"}, got); diff != "" {
		t.Error(diff)
	}
}
