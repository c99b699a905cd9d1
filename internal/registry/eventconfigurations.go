package registry

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Kinds of registry events that can be published.
const (
	EventThing                = "THING"
	EventThingGroup           = "THING_GROUP"
	EventThingType            = "THING_TYPE"
	EventThingGroupMembership = "THING_GROUP_MEMBERSHIP"
	EventThingGroupHierarchy  = "THING_GROUP_HIERARCHY"
	EventThingTypeAssociation = "THING_TYPE_ASSOCIATION"
)

// eventKinds are all kinds of the published interface. Those that are false can
// be named and stay off: nothing of this version publishes them, and a switch
// without effect would be a promise that is not kept.
func eventKinds() map[string]bool {
	return map[string]bool{
		EventThing: true, EventThingGroup: true, EventThingType: true, EventThingGroupMembership: true,
		EventThingGroupHierarchy: true, EventThingTypeAssociation: true,
		"JOB": false, "JOB_EXECUTION": false, "POLICY": false, "CERTIFICATE": false, "CA_CERTIFICATE": false,
	}
}

// EventConfigurations say which kinds of registry events are published.
type EventConfigurations struct {
	// Enabled has an entry for every kind there is.
	Enabled map[string]bool
	// Created and Modified are zero for an account that never changed them.
	Created  time.Time
	Modified time.Time
}

// UpdateEventConfigurations switches kinds on or off; others stay. The change
// is in the event log, so it holds for exactly the events after it.
func (s *Service) UpdateEventConfigurations(ctx context.Context, account fleet.Account, changes map[string]bool) error {
	known := eventKinds()
	for _, kind := range slices.Sorted(maps.Keys(changes)) {
		published, ok := known[kind]
		switch {
		case !ok:
			return fault.New(fault.InvalidRequest, "eventConfigurations: there is no event type %q; there are %s",
				kind, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case changes[kind] && !published:
			return fault.New(fault.NotOffered, "eventConfigurations: events of type %s are not offered by this version of Muster", kind)
		}
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := load[eventConfigRecord](ctx, a, key(kindEventConfig, account))
		if err != nil {
			return err
		}
		first := record == nil
		if first {
			record = &eventConfigRecord{Created: millis(a.now)}
		}
		enabled := map[string]bool{}
		for _, kind := range record.Enabled {
			enabled[kind] = true
		}
		maps.Copy(enabled, changes)
		maps.DeleteFunc(enabled, func(_ string, on bool) bool { return !on })
		after := slices.Sorted(maps.Keys(enabled))
		if !first && slices.Equal(after, record.Enabled) {
			return nil
		}
		record.Enabled, record.Modified = after, millis(a.now)
		a.emit(event.EventConfigurationsChanged{Enabled: after})
		return save(a, key(kindEventConfig, account), record)
	})
}

// DescribeEventConfigurations returns all kinds with their switches.
func (s *Service) DescribeEventConfigurations(ctx context.Context, account fleet.Account) (EventConfigurations, error) {
	record, _, err := get[eventConfigRecord](ctx, s.store, key(kindEventConfig, account))
	if err != nil {
		return EventConfigurations{}, store.Fault(err)
	}
	c := EventConfigurations{Enabled: map[string]bool{}}
	for kind := range eventKinds() {
		c.Enabled[kind] = record != nil && slices.Contains(record.Enabled, kind)
	}
	if record != nil {
		c.Created, c.Modified = moment(record.Created), moment(record.Modified)
	}
	return c, nil
}

// EachEventConfiguration calls fn for every account that changed which registry
// events are published, with those that are.
func EachEventConfiguration(ctx context.Context, r store.Reader, fn func(account fleet.Account, enabled []string) error) error {
	return each[eventConfigRecord](ctx, r, kindEventConfig, func(account fleet.Account, _ string, record *eventConfigRecord) error {
		return fn(account, record.Enabled)
	})
}
