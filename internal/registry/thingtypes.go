package registry

import (
	"context"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

// ThingType is a class of things.
type ThingType struct {
	Name                 string
	ID                   string
	ARN                  string
	Description          string
	SearchableAttributes []string
	Propagating          []PropagatingAttribute
	Created              time.Time
	// Deprecated is zero unless the type is deprecated.
	Deprecated time.Time
}

// thingType is the public form of a record.
func (s *Service) thingType(account fleet.Account, name string, r *typeRecord) ThingType {
	t := ThingType{
		Name: name, ID: r.ID, ARN: s.scope(account).ARN(fleet.ARNThingType, name),
		Description: r.Description, SearchableAttributes: r.SearchableAttributes, Propagating: r.Propagating,
		Created: moment(r.Created),
	}
	if r.Deprecated != 0 {
		t.Deprecated = moment(r.Deprecated)
	}
	return t
}

// typeEvent is the state that thing type events carry.
func typeEvent(name string, r *typeRecord) event.ThingType {
	e := event.ThingType{
		TypeName: name, TypeID: r.ID, Description: r.Description, SearchableAttributes: r.SearchableAttributes,
		Propagating: propagatingEvent(r.Propagating),
	}
	if r.Deprecated != 0 {
		e.Deprecated, e.DeprecationDate = true, moment(r.Deprecated)
	}
	return e
}

// CreateThingTypeCommand asks for a new type.
type CreateThingTypeCommand struct {
	Name                 string
	Description          string
	SearchableAttributes []string
	Tags                 []tag.Tag
	// Propagating is what messages of the type's things gain.
	Propagating []PropagatingAttribute
}

// CreateThingType adds a type; the same command again answers the existing one.
func (s *Service) CreateThingType(ctx context.Context, account fleet.Account, c CreateThingTypeCommand) (ThingType, error) {
	if err := s.checkType(c); err != nil {
		return ThingType{}, err
	}
	tags, err := tag.Check(c.Tags)
	if err != nil {
		return ThingType{}, err
	}
	var created ThingType
	err = s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		present, err := load[typeRecord](ctx, a, key(kindThingType, account, c.Name))
		if err != nil {
			return err
		}
		if present != nil {
			created = s.thingType(account, c.Name, present)
			tagged, err := a.hasTags(ctx, fleet.ARNThingType, c.Name, tags)
			if err != nil {
				return err
			}
			if tagged && present.Description == c.Description && slices.Equal(present.SearchableAttributes, c.SearchableAttributes) &&
				slices.Equal(present.Propagating, c.Propagating) {
				return nil
			}
			return exists("thing type", c.Name, created.ID, created.ARN)
		}
		record := &typeRecord{
			ID: s.newID(), Description: c.Description, SearchableAttributes: c.SearchableAttributes,
			Propagating: c.Propagating, Created: millis(a.now),
		}
		created = s.thingType(account, c.Name, record)
		a.emit(event.ThingTypeCreated{ThingType: typeEvent(c.Name, record)})
		if err := a.attachTags(fleet.ARNThingType, c.Name, tags); err != nil {
			return err
		}
		return save(a, key(kindThingType, account, c.Name), record)
	})
	return created, err
}

// checkType checks name and properties.
func (s *Service) checkType(c CreateThingTypeCommand) error {
	if err := checkName("thingTypeName", c.Name); err != nil {
		return err
	}
	if err := checkDescription("thingTypeDescription", c.Description); err != nil {
		return err
	}
	if len(c.SearchableAttributes) > s.limits.SearchableAttributes {
		return fault.New(fault.InvalidRequest, "searchableAttributes must have at most %d entries", s.limits.SearchableAttributes)
	}
	for i, name := range c.SearchableAttributes {
		if !attributeNamePattern.MatchString(name) {
			return fault.New(fault.InvalidRequest,
				"searchableAttributes must have 1 to 128 characters each and match [a-zA-Z0-9_.,@/:#-]+")
		}
		if slices.Contains(c.SearchableAttributes[:i], name) {
			return fault.New(fault.InvalidRequest, "searchableAttributes names %q twice", name)
		}
	}
	return checkPropagating(c.Propagating)
}

// UpdateThingTypeCommand asks for a change of properties; nil leaves one.
type UpdateThingTypeCommand struct {
	Name        string
	Description *string
	// SearchableAttributes may only repeat what the type has.
	SearchableAttributes []string
	// Propagating replaces the whole list; an empty one ends it.
	Propagating *[]PropagatingAttribute
}

// UpdateThingType changes a type's description and what it propagates.
func (s *Service) UpdateThingType(ctx context.Context, account fleet.Account, c UpdateThingTypeCommand) error {
	if err := checkName("thingTypeName", c.Name); err != nil {
		return err
	}
	if c.Description != nil {
		if err := checkDescription("thingTypeDescription", *c.Description); err != nil {
			return err
		}
	}
	if c.Propagating != nil {
		if err := checkPropagating(*c.Propagating); err != nil {
			return err
		}
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadType(ctx, a, c.Name)
		if err != nil {
			return err
		}
		if c.SearchableAttributes != nil && !slices.Equal(c.SearchableAttributes, record.SearchableAttributes) {
			return fault.New(fault.InvalidRequest, "searchableAttributes cannot be changed after creation")
		}
		described := c.Description != nil && *c.Description != record.Description
		propagated := c.Propagating != nil && !slices.Equal(*c.Propagating, record.Propagating)
		if !described && !propagated {
			return nil
		}
		if described {
			record.Description = *c.Description
		}
		if propagated {
			record.Propagating = *c.Propagating
			a.devices = true
		}
		a.emit(event.ThingTypeUpdated{ThingType: typeEvent(c.Name, record), PropagatingChanged: propagated})
		return save(a, key(kindThingType, account, c.Name), record)
	})
}

// loadType is load for a type that must exist.
func loadType(ctx context.Context, a *attempt, name string) (*typeRecord, error) {
	record, err := load[typeRecord](ctx, a, key(kindThingType, a.account, name))
	if err == nil && record == nil {
		err = notFound("thing type", name)
	}
	return record, err
}

// DeprecateThingType keeps new things from taking on the type, or with undo
// lets them again. Repeating it does not restart the time before deletion.
func (s *Service) DeprecateThingType(ctx context.Context, account fleet.Account, name string, undo bool) error {
	if err := checkName("thingTypeName", name); err != nil {
		return err
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadType(ctx, a, name)
		if err != nil {
			return err
		}
		if undo == (record.Deprecated == 0) {
			return nil
		}
		record.Deprecated = 0
		if !undo {
			record.Deprecated = millis(a.now)
		}
		a.emit(event.ThingTypeUpdated{ThingType: typeEvent(name, record)})
		return save(a, key(kindThingType, account, name), record)
	})
}

// DeleteThingType removes a type that has been deprecated for the time that the
// limits set and that no thing has. Nothing can take on a deprecated type, so the look for
// its things cannot miss one.
func (s *Service) DeleteThingType(ctx context.Context, account fleet.Account, name string) error {
	if err := checkName("thingTypeName", name); err != nil {
		return err
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadType(ctx, a, name)
		if err != nil {
			return err
		}
		if err := decideDeleteType(name, record, a.now, s.limits.TypeDeletionDelay); err != nil {
			return err
		}
		users, _, err := keysOf(ctx, a.reader, under(kindThingByType, account, name), "", 1)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return fault.New(fault.InvalidRequest, "thing type %s still has things, for example %s", name, users[0].Last())
		}
		a.remove(key(kindThingType, account, name))
		a.removeTags(fleet.ARNThingType, name)
		a.emit(event.ThingTypeDeleted{ThingType: typeEvent(name, record)})
		return nil
	})
}

// decideDeleteType tells whether the type has rested long enough.
func decideDeleteType(name string, r *typeRecord, now time.Time, delay time.Duration) error {
	if r.Deprecated == 0 {
		return fault.New(fault.InvalidRequest, "thing type %s is not deprecated", name)
	}
	if rested := now.Sub(moment(r.Deprecated)); rested < delay {
		return fault.New(fault.InvalidRequest, "thing type %s was deprecated less than %v ago", name, delay)
	}
	return nil
}

// DescribeThingType returns one type.
func (s *Service) DescribeThingType(ctx context.Context, account fleet.Account, name string) (ThingType, error) {
	record, err := s.findType(ctx, account, name)
	if err != nil {
		return ThingType{}, err
	}
	return s.thingType(account, name, record), nil
}

// ListThingTypes returns one page of types in order of name, or only the named
// one when only is not empty.
func (s *Service) ListThingTypes(ctx context.Context, account fleet.Account, only string, p Page) (Listed[ThingType], error) {
	within := under(kindThingType, account)
	if only != "" {
		if err := checkName("thingTypeName", only); err != nil {
			return Listed[ThingType]{}, err
		}
		one := key(kindThingType, account, only)
		within = store.Range{From: one, To: one + "\x00"}
	}
	self := func(k store.Key) store.Key { return k }
	listed, err := listRecords[typeRecord](ctx, s.store, within, p, self, func(k store.Key, r *typeRecord) (ThingType, bool) {
		return s.thingType(account, k.Last(), r), true
	})
	return listed, store.Fault(err)
}
