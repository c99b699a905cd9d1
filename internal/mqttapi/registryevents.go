package mqttapi

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// registryEvents turns what happens in the registry into the messages that an
// account has switched on. The switches are in the event log themselves, so
// each event meets those that were in force when it happened.
type registryEvents struct {
	region string
	// enabled is the kinds that are published, by account.
	enabled map[fleet.Account][]string
}

// LoadEventConfigurations replaces which kinds of registry events are
// published, by account. Like Apply it is for the consumer's goroutine only.
func (h *Handler) LoadEventConfigurations(enabled map[fleet.Account][]string) {
	h.registryEvents.enabled = enabled
}

// enable takes a change of the switches over.
func (r *registryEvents) enable(account fleet.Account, kinds []string) {
	if r.enabled == nil {
		r.enabled = map[fleet.Account][]string{}
	}
	r.enabled[account] = kinds
}

// eventMessage is one message below $aws/events.
type eventMessage struct {
	topic   string
	payload any
}

// eventHead is what the payloads of registry events begin with, in the
// documented order.
type eventHead struct {
	EventType string        `json:"eventType"`
	EventID   string        `json:"eventId"`
	Timestamp int64         `json:"timestamp"`
	Operation string        `json:"operation"`
	AccountID fleet.Account `json:"accountId"`
}

type thingEvent struct {
	eventHead

	ThingID       string            `json:"thingId"`
	ThingName     string            `json:"thingName"`
	VersionNumber int64             `json:"versionNumber"`
	ThingTypeName *string           `json:"thingTypeName"`
	Attributes    map[string]string `json:"attributes"`
}

type thingTypeEvent struct {
	eventHead

	ThingTypeID   string `json:"thingTypeId"`
	ThingTypeName string `json:"thingTypeName"`
	IsDeprecated  bool   `json:"isDeprecated"`
	// DeprecationDate is in milliseconds, as the timestamp.
	DeprecationDate       *int64                       `json:"deprecationDate"`
	SearchableAttributes  []string                     `json:"searchableAttributes"`
	PropagatingAttributes []event.PropagatingAttribute `json:"propagatingAttributes"`
	Description           string                       `json:"description"`
}

// thingTypeAssociationEvent has no account and an order of its own.
type thingTypeAssociationEvent struct {
	EventID       string `json:"eventId"`
	EventType     string `json:"eventType"`
	Operation     string `json:"operation"`
	ThingID       string `json:"thingId"`
	ThingName     string `json:"thingName"`
	ThingTypeName string `json:"thingTypeName"`
	Timestamp     int64  `json:"timestamp"`
}

type groupPlace struct {
	GroupARN string `json:"groupArn"`
	GroupID  string `json:"groupId"`
}

type thingGroupEvent struct {
	eventHead

	ThingGroupID            string            `json:"thingGroupId"`
	ThingGroupName          string            `json:"thingGroupName"`
	VersionNumber           int64             `json:"versionNumber"`
	ParentGroupName         *string           `json:"parentGroupName"`
	ParentGroupID           *string           `json:"parentGroupId"`
	Description             string            `json:"description"`
	RootToParentThingGroups []groupPlace      `json:"rootToParentThingGroups"`
	Attributes              map[string]string `json:"attributes"`
	// DynamicGroupMappingID is null for a static group and the group's id for a
	// dynamic one.
	DynamicGroupMappingID *string `json:"dynamicGroupMappingId"`
}

type membershipEvent struct {
	eventHead

	GroupARN     string `json:"groupArn"`
	GroupID      string `json:"groupId"`
	ThingARN     string `json:"thingArn"`
	ThingID      string `json:"thingId"`
	MembershipID string `json:"membershipId"`
}

type hierarchyEvent struct {
	eventHead

	ThingGroupID   string `json:"thingGroupId"`
	ThingGroupName string `json:"thingGroupName"`
	ChildGroupID   string `json:"childGroupId"`
	ChildGroupName string `json:"childGroupName"`
}

// Operations of registry events, the last parts of their topics.
const (
	created = "created"
	updated = "updated"
	deleted = "deleted"
	added   = "added"
	removed = "removed"
)

// operation is how payloads write one.
func operation(word string) string {
	return map[string]string{created: "CREATED", updated: "UPDATED", deleted: "DELETED", added: "ADDED", removed: "REMOVED"}[word]
}

// messages collects what one event of the log becomes.
type messages struct {
	env     event.Envelope
	scope   fleet.Scope
	enabled []string
	all     []eventMessage
}

// of returns the messages of an event, none for what is not switched on.
func (r *registryEvents) of(env event.Envelope) []eventMessage {
	m := &messages{env: env, scope: fleet.Scope{Region: r.region, Account: env.Account}, enabled: r.enabled[env.Account]}
	if len(m.enabled) == 0 {
		return nil
	}
	switch e := env.Event.(type) { //nolint:gochecksumtype // Apply decides which events come here
	case event.ThingCreated:
		m.thing(created, e.Thing)
		m.typeOf(added, e.Thing, e.TypeName)
	case event.ThingUpdated:
		m.thing(updated, e.Thing)
		if e.PreviousTypeName != e.TypeName {
			m.typeOf(removed, e.Thing, e.PreviousTypeName)
			m.typeOf(added, e.Thing, e.TypeName)
		}
	case event.ThingDeleted:
		m.thingDeleted(e)
	case event.ThingTypeCreated:
		m.thingType(created, e.ThingType)
	case event.ThingTypeUpdated:
		m.thingType(updated, e.ThingType)
	case event.ThingTypeDeleted:
		m.thingType(deleted, e.ThingType)
	case event.ThingGroupCreated:
		m.group(created, e.ThingGroup, e.Query != "")
		m.hierarchy(added, e.ThingGroup)
	case event.ThingGroupUpdated:
		m.group(updated, e.ThingGroup, e.Query != "")
	case event.ThingGroupDeleted:
		m.groupDeleted(e)
	case event.MembershipChanged:
		if e.Added {
			m.membership(added, e)
		} else {
			m.membership(removed, e)
		}
	}
	return m.all
}

// add appends a message if its kind is switched on. make gets the payload's
// head.
func (m *messages) add(kind, topic, word string, payload func(eventHead) any) {
	if !slices.Contains(m.enabled, kind) {
		return
	}
	topic += "/" + word
	m.all = append(m.all, eventMessage{topic: topic, payload: payload(eventHead{
		EventType: kind + "_EVENT", EventID: m.id(topic), Timestamp: m.env.At.UnixMilli(),
		Operation: operation(word), AccountID: m.env.Account,
	})})
}

// id names a message. A message that is published twice has the same id twice.
func (m *messages) id(topic string) string {
	return derived(fmt.Sprintf("event %s %d %d %d %s", m.env.Account, m.env.Partition, m.env.Seq, m.env.At.UnixNano(), topic))
}

// derived is a UUID that stands for a text.
func derived(text string) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte("muster "+text)).String()
}

// known is a member that is null when it is not known.
func known(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func (m *messages) thing(word string, t event.Thing) {
	m.add(registry.EventThing, "thing/"+t.Thing, word, func(head eventHead) any {
		return thingEvent{
			eventHead: head, ThingID: t.ThingID, ThingName: t.Thing, VersionNumber: t.Version,
			ThingTypeName: known(t.TypeName), Attributes: filled(t.Attributes),
		}
	})
}

// thingDeleted tells of a thing's end and of all that ended with it.
func (m *messages) thingDeleted(e event.ThingDeleted) {
	t := event.Thing{Thing: e.Thing, ThingID: e.ThingID, TypeName: e.TypeName, Attributes: e.Attributes, Version: e.Version}
	m.typeOf(removed, t, e.TypeName)
	for i, group := range e.Groups {
		left := event.MembershipChanged{Group: group, Thing: e.Thing, ThingID: e.ThingID}
		if i < len(e.GroupIDs) {
			left.GroupID = e.GroupIDs[i]
		}
		m.membership(removed, left)
	}
	m.thing(deleted, t)
}

// typeOf tells that a thing got or lost a type; empty is none.
func (m *messages) typeOf(word string, t event.Thing, typeName string) {
	if typeName == "" {
		return
	}
	m.add(registry.EventThingTypeAssociation, "thingTypeAssociation/thing/"+t.Thing+"/thingType/"+typeName, word, func(head eventHead) any {
		return thingTypeAssociationEvent{
			EventID: head.EventID, EventType: head.EventType, Operation: head.Operation,
			ThingID: t.ThingID, ThingName: t.Thing, ThingTypeName: typeName, Timestamp: head.Timestamp,
		}
	})
}

func (m *messages) thingType(word string, t event.ThingType) {
	m.add(registry.EventThingType, "thingType/"+t.TypeName, word, func(head eventHead) any {
		p := thingTypeEvent{
			eventHead: head, ThingTypeID: t.TypeID, ThingTypeName: t.TypeName, IsDeprecated: t.Deprecated,
			SearchableAttributes: listed(t.SearchableAttributes), PropagatingAttributes: listed(t.Propagating), Description: t.Description,
		}
		if t.Deprecated {
			p.DeprecationDate = milliseconds(t.DeprecationDate)
		}
		return p
	})
}

func milliseconds(t time.Time) *int64 { return new(t.UnixMilli()) }

func (m *messages) group(word string, g event.ThingGroup, dynamic bool) {
	m.add(registry.EventThingGroup, "thingGroup/"+g.Group, word, func(head eventHead) any {
		p := thingGroupEvent{
			eventHead: head, ThingGroupID: g.GroupID, ThingGroupName: g.Group, VersionNumber: g.Version,
			ParentGroupName: known(g.Parent), ParentGroupID: known(parentID(g)), Description: g.Description,
			RootToParentThingGroups: []groupPlace{}, Attributes: filled(g.Attributes),
		}
		for i, ancestor := range g.Ancestors {
			place := groupPlace{GroupARN: m.scope.ARN(fleet.ARNThingGroup, ancestor)}
			if i < len(g.AncestorIDs) {
				place.GroupID = g.AncestorIDs[i]
			}
			p.RootToParentThingGroups = append(p.RootToParentThingGroups, place)
		}
		if dynamic {
			p.DynamicGroupMappingID = &g.GroupID
		}
		return p
	})
}

// parentID is the id of a group's parent, empty for a root.
func parentID(g event.ThingGroup) string {
	if len(g.AncestorIDs) == 0 {
		return ""
	}
	return g.AncestorIDs[len(g.AncestorIDs)-1]
}

// groupDeleted tells of a group's end and that its parent lost it.
func (m *messages) groupDeleted(e event.ThingGroupDeleted) {
	g := event.ThingGroup{
		Group: e.Group, GroupID: e.GroupID, Parent: e.Parent, Description: e.Description, Attributes: e.Attributes,
		Version: e.Version, Ancestors: e.Ancestors, AncestorIDs: e.AncestorIDs,
	}
	m.hierarchy(removed, g)
	m.group(deleted, g, e.Dynamic)
}

// hierarchy tells that a group's parent got or lost it; a root has none.
func (m *messages) hierarchy(word string, g event.ThingGroup) {
	if g.Parent == "" {
		return
	}
	m.add(registry.EventThingGroupHierarchy, "thingGroupHierarchy/thingGroup/"+g.Parent+"/childThingGroup/"+g.Group, word, func(head eventHead) any {
		return hierarchyEvent{
			eventHead: head, ThingGroupID: parentID(g), ThingGroupName: g.Parent, ChildGroupID: g.GroupID, ChildGroupName: g.Group,
		}
	})
}

func (m *messages) membership(word string, e event.MembershipChanged) {
	m.add(registry.EventThingGroupMembership, "thingGroupMembership/thingGroup/"+e.Group+"/thing/"+e.Thing, word, func(head eventHead) any {
		return membershipEvent{
			eventHead: head, GroupARN: m.scope.ARN(fleet.ARNThingGroup, e.Group), GroupID: e.GroupID,
			ThingARN: m.scope.ARN(fleet.ARNThing, e.Thing), ThingID: e.ThingID,
			MembershipID: derived("membership " + e.GroupID + " " + e.ThingID),
		}
	})
}

// filled is the map itself, never null.
func filled(attributes map[string]string) map[string]string {
	if attributes == nil {
		return map[string]string{}
	}
	return attributes
}

// listed is the list itself, never null.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
