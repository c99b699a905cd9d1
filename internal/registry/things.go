package registry

import (
	"context"
	"maps"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Thing is a device's entry in the registry.
type Thing struct {
	Name       string
	ID         string
	ARN        string
	TypeName   string
	Attributes map[string]string
	Version    int64
	// Groups are its direct groups, by name.
	Groups []Membership
	// BillingGroup is empty for a thing that is in none.
	BillingGroup string
}

// Membership is a thing's place in one group.
type Membership struct {
	Group string
	// Dynamic is true when a query put the thing there.
	Dynamic bool
}

// thing is the public form of a record.
func (s *Service) thing(account fleet.Account, name string, r *thingRecord) Thing {
	t := thingOf(name, r)
	t.ARN = s.scope(account).ARN(fleet.ARNThing, name)
	return t
}

// thingOf is the public form of a record without its ARN.
func thingOf(name string, r *thingRecord) Thing {
	groups := make([]Membership, len(r.Groups))
	for i, g := range r.Groups {
		groups[i] = Membership{Group: g.Group, Dynamic: g.Dynamic}
	}
	return Thing{
		Name: name, ID: r.ID, TypeName: r.TypeName, Attributes: r.Attributes, Version: r.Version, Groups: groups,
		BillingGroup: r.BillingGroup,
	}
}

// thingEvent is the state that thing events carry.
func thingEvent(name string, r *thingRecord) event.Thing {
	return event.Thing{
		Thing: name, ThingID: r.ID, TypeName: r.TypeName, Attributes: r.Attributes, BillingGroup: r.BillingGroup, Version: r.Version,
	}
}

// CreateThingCommand asks for a new thing.
type CreateThingCommand struct {
	Name       string
	TypeName   string
	Attributes map[string]string
	// BillingGroup is empty for a thing in none.
	BillingGroup string
}

// CreateThing registers a thing. The same command again answers the existing
// thing; a different one for the same name is ResourceAlreadyExists.
func (s *Service) CreateThing(ctx context.Context, account fleet.Account, c CreateThingCommand) (Thing, error) {
	attributes, err := checkCreateThing(c)
	if err != nil {
		return Thing{}, err
	}
	var created Thing
	err = s.change(ctx, account, s.creation(account, c, attributes, &created))
	return created, err
}

// creation is the command that creates a thing with checked attributes, or
// accepts one that is the same.
func (s *Service) creation(
	account fleet.Account, c CreateThingCommand, attributes map[string]string, created *Thing,
) func(context.Context, *attempt) error {
	return func(ctx context.Context, a *attempt) error {
		present, err := load[thingRecord](ctx, a, key(kindThing, account, c.Name))
		if err != nil {
			return err
		}
		if present != nil {
			*created = s.thing(account, c.Name, present)
			if present.TypeName == c.TypeName && present.BillingGroup == c.BillingGroup && maps.Equal(present.Attributes, attributes) {
				return nil
			}
			return exists("thing", c.Name, created.ID, created.ARN)
		}
		of, err := useType(ctx, a, c.TypeName)
		if err != nil {
			return err
		}
		if err := s.patterns.followRules(of, attributes); err != nil {
			return err
		}
		if err := useBillingGroup(ctx, a, c.BillingGroup); err != nil {
			return err
		}
		record := &thingRecord{
			ID: s.newID(), TypeName: c.TypeName, Attributes: attributes, BillingGroup: c.BillingGroup, Version: 1, Created: millis(a.now),
		}
		*created = s.thing(account, c.Name, record)
		a.emit(event.ThingCreated{Thing: thingEvent(c.Name, record)})
		return saveThing(a, c.Name, nil, record)
	}
}

// checkCreateThing returns the attributes that the thing will have.
func checkCreateThing(c CreateThingCommand) (map[string]string, error) {
	if err := checkName("thingName", c.Name); err != nil {
		return nil, err
	}
	if c.BillingGroup != "" {
		if err := checkName("billingGroupName", c.BillingGroup); err != nil {
			return nil, err
		}
	}
	if c.TypeName != "" {
		if err := checkName("thingTypeName", c.TypeName); err != nil {
			return nil, err
		}
	}
	if err := checkAttributes(c.Attributes); err != nil {
		return nil, err
	}
	attributes := applyAttributes(nil, Attributes{Values: c.Attributes})
	return attributes, checkThingAttributes(attributes, c.TypeName)
}

// useType expects the type to stay as it is and refuses an unknown or
// deprecated one. Deprecation rewrites the type's record, so no thing can take
// on the type after its deprecation has committed. Without a name there is no
// type.
func useType(ctx context.Context, a *attempt, name string) (*typeRecord, error) {
	if name == "" {
		return nil, nil //nolint:nilnil // no type is no error
	}
	record, err := loadType(ctx, a, name)
	if err != nil {
		return nil, err
	}
	if record.Deprecated != 0 {
		return nil, fault.New(fault.InvalidRequest, "thingTypeName: thing type %s is deprecated", name)
	}
	return record, nil
}

// typeAfter returns the type that a changed thing will have, if that is new or
// if the attributes change: only then its rules matter.
func typeAfter(ctx context.Context, a *attempt, before *thingRecord, c UpdateThingCommand) (*typeRecord, error) {
	switch {
	case c.TypeName != "" && c.TypeName != before.TypeName:
		return useType(ctx, a, c.TypeName)
	case c.RemoveType || c.Attributes == nil || before.TypeName == "":
		return nil, nil //nolint:nilnil // no type that matters is no error
	}
	return loadType(ctx, a, before.TypeName)
}

// saveThing writes a thing and the rows that find it by type, billing group and
// attribute.
// before is nil for a new thing, after for a deleted one.
func saveThing(a *attempt, name string, before, after *thingRecord) error {
	var none thingRecord
	old, now := before, after
	if old == nil {
		old = &none
	}
	if now == nil {
		now = &none
	}
	if old.TypeName != now.TypeName {
		if old.TypeName != "" {
			a.remove(key(kindThingByType, a.account, old.TypeName, name))
		}
		if now.TypeName != "" {
			a.row(key(kindThingByType, a.account, now.TypeName, name))
		}
	}
	if old.BillingGroup != now.BillingGroup {
		if old.BillingGroup != "" {
			a.remove(key(kindBillingGroupThing, a.account, old.BillingGroup, name))
		}
		if now.BillingGroup != "" {
			a.row(key(kindBillingGroupThing, a.account, now.BillingGroup, name))
		}
	}
	for attribute, value := range old.Attributes {
		if now.Attributes[attribute] != value {
			a.remove(key(kindThingByAttribute, a.account, attribute, value, name))
		}
	}
	for attribute, value := range now.Attributes {
		if old.Attributes[attribute] != value {
			a.row(key(kindThingByAttribute, a.account, attribute, value, name))
		}
	}
	if after == nil {
		a.remove(key(kindThing, a.account, name))
		return nil
	}
	return save(a, key(kindThing, a.account, name), after)
}

// UpdateThingCommand asks for a change of type or attributes.
type UpdateThingCommand struct {
	Name string
	// TypeName is the new type; empty leaves it.
	TypeName   string
	RemoveType bool
	// Attributes is nil when they stay.
	Attributes *Attributes
	// ExpectedVersion is nil when the caller accepts any.
	ExpectedVersion *int64
}

// UpdateThing changes a thing and raises its version by one.
func (s *Service) UpdateThing(ctx context.Context, account fleet.Account, c UpdateThingCommand) error {
	if err := checkUpdateThing(c); err != nil {
		return err
	}
	return s.change(ctx, account, s.updating(c))
}

// updating is the command of a checked change.
func (s *Service) updating(c UpdateThingCommand) func(context.Context, *attempt) error {
	return func(ctx context.Context, a *attempt) error {
		before, err := loadThing(ctx, a, c.Name)
		if err != nil {
			return err
		}
		of, err := typeAfter(ctx, a, before, c)
		if err != nil {
			return err
		}
		after, err := decideUpdateThing(before, c)
		if err != nil {
			return err
		}
		if err := s.patterns.followRules(of, after.Attributes); err != nil {
			return err
		}
		a.devices = true
		a.emit(event.ThingUpdated{Thing: thingEvent(c.Name, after), PreviousTypeName: before.TypeName})
		return saveThing(a, c.Name, before, after)
	}
}

// checkUpdateThing checks what needs no record.
func checkUpdateThing(c UpdateThingCommand) error {
	if err := checkName("thingName", c.Name); err != nil {
		return err
	}
	if c.TypeName != "" {
		if c.RemoveType {
			return fault.New(fault.InvalidRequest, "removeThingType must not be true together with thingTypeName")
		}
		if err := checkName("thingTypeName", c.TypeName); err != nil {
			return err
		}
	}
	if c.Attributes != nil {
		return checkAttributes(c.Attributes.Values)
	}
	return nil
}

// decideUpdateThing returns the thing after the change.
func decideUpdateThing(before *thingRecord, c UpdateThingCommand) (*thingRecord, error) {
	if err := checkExpected(c.ExpectedVersion, before.Version); err != nil {
		return nil, err
	}
	after := *before
	after.Version++
	switch {
	case c.RemoveType:
		after.TypeName = ""
	case c.TypeName != "":
		after.TypeName = c.TypeName
	}
	if c.Attributes != nil {
		after.Attributes = applyAttributes(before.Attributes, *c.Attributes)
	}
	if err := checkThingAttributes(after.Attributes, after.TypeName); err != nil {
		return nil, err
	}
	return &after, nil
}

// loadThing is load for a thing that must exist.
func loadThing(ctx context.Context, a *attempt, name string) (*thingRecord, error) {
	record, err := load[thingRecord](ctx, a, key(kindThing, a.account, name))
	if err == nil && record == nil {
		err = notFound("thing", name)
	}
	return record, err
}

// DeleteThing removes a thing and its memberships. A thing that does not exist
// is deleted already; one with attached principals is refused. Its shadows
// belong to somebody else and stay.
func (s *Service) DeleteThing(ctx context.Context, account fleet.Account, name string, expected *int64) error {
	if err := checkName("thingName", name); err != nil {
		return err
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := load[thingRecord](ctx, a, key(kindThing, account, name))
		if err != nil || record == nil {
			return err
		}
		if err := checkExpected(expected, record.Version); err != nil {
			return err
		}
		if record.Principals > 0 {
			return attachedPrincipals(name, record.Principals)
		}
		return dropThing(ctx, a, name, record)
	})
}

// dropThing removes a thing that has no principals, with its memberships.
func dropThing(ctx context.Context, a *attempt, name string, record *thingRecord) error {
	gone, err := thingDeleted(ctx, a, name, record)
	if err != nil {
		return err
	}
	for _, group := range gone.Groups {
		a.remove(key(kindGroupThing, a.account, group, name))
	}
	if err := dropPromise(ctx, a, name); err != nil {
		return err
	}
	if record.Quarantine != nil {
		a.remove(key(kindQuarantined, a.account, name))
	}
	a.devices = true
	a.emit(gone)
	return saveThing(a, name, record, nil)
}

// thingDeleted is the event of a thing's end, with all that it had.
func thingDeleted(ctx context.Context, a *attempt, name string, r *thingRecord) (event.ThingDeleted, error) {
	gone := event.ThingDeleted{
		Thing: name, ThingID: r.ID, Version: r.Version, TypeName: r.TypeName, Attributes: r.Attributes, BillingGroup: r.BillingGroup,
		Groups: make([]string, len(r.Groups)),
	}
	for i, link := range r.Groups {
		gone.Groups[i] = link.Group
	}
	var err error
	gone.GroupIDs, err = groupIDs(ctx, a, gone.Groups)
	return gone, err
}

// DescribeThing returns one thing.
func (s *Service) DescribeThing(ctx context.Context, account fleet.Account, name string) (Thing, error) {
	if err := checkName("thingName", name); err != nil {
		return Thing{}, err
	}
	record, _, err := get[thingRecord](ctx, s.store, key(kindThing, account, name))
	if err != nil {
		return Thing{}, store.Fault(err)
	}
	if record == nil {
		return Thing{}, notFound("thing", name)
	}
	return s.thing(account, name, record), nil
}

// Things returns those of the named things that exist, in the order given.
func (s *Service) Things(ctx context.Context, account fleet.Account, names []string) ([]Thing, error) {
	keys := make([]store.Key, len(names))
	for i, name := range names {
		keys[i] = key(kindThing, account, name)
	}
	records, _, err := getMany[thingRecord](ctx, s.store, keys)
	if err != nil {
		return nil, store.Fault(err)
	}
	things := make([]Thing, 0, len(names))
	for i, record := range records {
		if record != nil {
			things = append(things, s.thing(account, names[i], record))
		}
	}
	return things, nil
}

// ThingExists tells whether a thing of this name is registered.
func (s *Service) ThingExists(ctx context.Context, account fleet.Account, name string) (bool, error) {
	record, _, err := get[thingRecord](ctx, s.store, key(kindThing, account, name))
	return record != nil, store.Fault(err)
}
