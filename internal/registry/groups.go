package registry

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

// The one index and query language that dynamic groups are defined with.
const (
	ThingIndex   = "AWS_Things"
	QueryVersion = "2017-09-30"
)

// Group is a static group or the definition of a dynamic one.
type Group struct {
	Name        string
	ID          string
	ARN         string
	Description string
	Attributes  map[string]string
	Version     int64
	Created     time.Time
	// Ancestors runs from the root to the direct parent.
	Ancestors []string
	// Query is empty for a static group.
	Query string
	// Status is how far a dynamic group's membership is built.
	Status string
	// Complete says that the members of a dynamic group were once all found and
	// recorded under this query.
	Complete bool
}

// Parent is the direct parent, empty for a root and for a dynamic group.
func (g Group) Parent() string { return parentOf(g.Ancestors) }

// parentOf is the last of a list of ancestors.
func parentOf(ancestors []string) string {
	if len(ancestors) == 0 {
		return ""
	}
	return ancestors[len(ancestors)-1]
}

// group is the public form of a record, without the status of its membership.
func (s *Service) group(account fleet.Account, name string, r *groupRecord) Group {
	g := groupOf(name, r)
	g.ARN = s.scope(account).ARN(fleet.ARNThingGroup, name)
	return g
}

// groupOf is the public form of a record without its ARN.
func groupOf(name string, r *groupRecord) Group {
	return Group{
		Name: name, ID: r.ID, Description: r.Description, Attributes: r.Attributes,
		Version: r.Version, Created: moment(r.Created), Ancestors: r.Ancestors, Query: r.Query, Complete: r.Complete,
	}
}

// groupEvent is the state that group events carry.
func groupEvent(ctx context.Context, a *attempt, name string, r *groupRecord) (event.ThingGroup, error) {
	ids, err := groupIDs(ctx, a, r.Ancestors)
	return event.ThingGroup{
		Group: name, GroupID: r.ID, Parent: parentOf(r.Ancestors), Description: r.Description, Attributes: r.Attributes,
		Version: r.Version, Ancestors: r.Ancestors, AncestorIDs: ids, Query: r.Query, CreatedAt: moment(r.Created),
	}, err
}

// groupIDs returns the ids of groups that cannot go meanwhile: those above a
// group, or those of a thing, whose records the attempt expects. They are not
// expected themselves, since an id never changes.
func groupIDs(ctx context.Context, a *attempt, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	keys := make([]store.Key, len(names))
	for i, name := range names {
		keys[i] = key(kindGroup, a.account, name)
	}
	records, _, err := getMany[groupRecord](ctx, a.reader, keys)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(names))
	for i, record := range records {
		if record != nil {
			ids[i] = record.ID
		}
	}
	return ids, nil
}

// CreateThingGroupCommand asks for a new static group.
type CreateThingGroupCommand struct {
	Name string
	// Parent is empty for the root of a new hierarchy.
	Parent      string
	Description string
	Attributes  map[string]string
	Tags        []tag.Tag
}

// CreateThingGroup adds a static group; the same command again answers the
// existing one.
func (s *Service) CreateThingGroup(ctx context.Context, account fleet.Account, c CreateThingGroupCommand) (Group, error) {
	wanted, err := checkGroup(c.Name, c.Description, c.Attributes)
	if err != nil {
		return Group{}, err
	}
	if c.Parent != "" {
		if err := checkName("parentGroupName", c.Parent); err != nil {
			return Group{}, err
		}
	}
	tags, err := tag.Check(c.Tags)
	if err != nil {
		return Group{}, err
	}
	var created Group
	err = s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		present, err := load[groupRecord](ctx, a, key(kindGroup, account, c.Name))
		if err != nil {
			return err
		}
		record := wanted
		if present != nil {
			created = s.group(account, c.Name, present)
			return sameGroup(ctx, a, present, created, &record, c.Parent, tags)
		}
		if record.Ancestors, err = s.joinHierarchy(ctx, a, c.Parent); err != nil {
			return err
		}
		created, err = s.addGroup(ctx, a, c.Name, record, tags)
		return err
	})
	return created, err
}

// checkGroup returns the record that a creation asks for.
func checkGroup(name, description string, attributes map[string]string) (groupRecord, error) {
	if err := checkName("thingGroupName", name); err != nil {
		return groupRecord{}, err
	}
	if err := checkDescription("thingGroupDescription", description); err != nil {
		return groupRecord{}, err
	}
	if err := checkAttributes(attributes); err != nil {
		return groupRecord{}, err
	}
	kept := applyAttributes(nil, Attributes{Values: attributes})
	return groupRecord{Description: description, Attributes: kept}, checkGroupAttributes(kept)
}

// checkGroupAttributes enforces the number of a group's attributes.
func checkGroupAttributes(attributes map[string]string) error {
	if len(attributes) > maxGroupAttributes {
		return fault.New(fault.InvalidRequest, "a thing group may have at most %d attributes", maxGroupAttributes)
	}
	return nil
}

// sameGroup tells whether a creation repeats what there is. A group that is
// being deleted is there no more and still in the way.
func sameGroup(ctx context.Context, a *attempt, present *groupRecord, known Group, wanted *groupRecord, parent string, tags tag.Set) error {
	if present.Deleting {
		return beingDeleted(known.Name)
	}
	tagged, err := a.hasTags(ctx, fleet.ARNThingGroup, known.Name, tags)
	if err != nil {
		return err
	}
	if tagged && present.Description == wanted.Description && maps.Equal(present.Attributes, wanted.Attributes) &&
		present.Query == wanted.Query && known.Parent() == parent {
		return nil
	}
	return exists("thing group", known.Name, known.ID, known.ARN)
}

// addGroup writes a new group.
func (s *Service) addGroup(ctx context.Context, a *attempt, name string, record groupRecord, tags tag.Set) (Group, error) {
	record.ID, record.Version, record.Created = s.newID(), 1, millis(a.now)
	state, err := groupEvent(ctx, a, name, &record)
	if err != nil {
		return Group{}, err
	}
	a.row(key(kindGroupChild, a.account, parentOf(record.Ancestors), name))
	a.emit(event.ThingGroupCreated{ThingGroup: state})
	if err := a.attachTags(fleet.ARNThingGroup, name, tags); err != nil {
		return Group{}, err
	}
	return s.group(a.account, name, &record), save(a, key(kindGroup, a.account, name), &record)
}

// joinHierarchy counts a new child in its parent and returns its ancestors.
// The parent's record is rewritten, which keeps out a concurrent deletion. The
// service model lists no not-found error for the creation of a group.
func (s *Service) joinHierarchy(ctx context.Context, a *attempt, parent string) ([]string, error) {
	if parent == "" {
		return nil, nil
	}
	record, err := load[groupRecord](ctx, a, key(kindGroup, a.account, parent))
	if err != nil {
		return nil, err
	}
	switch {
	case record == nil:
		return nil, fault.New(fault.InvalidRequest, "parentGroupName: thing group %s does not exist", parent)
	case record.Query != "":
		return nil, fault.New(fault.InvalidRequest, "parentGroupName: %s is a dynamic group, which cannot be a parent", parent)
	case record.Deleting:
		return nil, beingDeleted(parent)
	case record.Children >= s.limits.GroupChildren:
		return nil, fault.New(fault.InvalidRequest, "thing group %s has %d children, the most allowed", parent, record.Children)
	case len(record.Ancestors)+2 > s.limits.GroupDepth:
		return nil, fault.New(fault.InvalidRequest, "a hierarchy of thing groups may have at most %d levels", s.limits.GroupDepth)
	}
	record.Children++
	return append(slices.Clone(record.Ancestors), parent), save(a, key(kindGroup, a.account, parent), record)
}

// beingDeleted is the fault for a group whose members are being removed.
func beingDeleted(group string) error {
	return fault.New(fault.InvalidRequest, "thing group %s is being deleted", group)
}

// GroupProperties is a change of a group's properties; nil leaves one.
type GroupProperties struct {
	Description *string
	Attributes  *Attributes
}

// UpdateThingGroup changes a static group and returns its new version.
func (s *Service) UpdateThingGroup(ctx context.Context, account fleet.Account, name string, p GroupProperties, expected *int64) (int64, error) {
	return s.updateGroup(ctx, account, name, p, expected, func(_ context.Context, _ *attempt, r *groupRecord) error {
		if r.Query != "" {
			return fault.New(fault.InvalidRequest, "%s is a dynamic group; use UpdateDynamicThingGroup", name)
		}
		return nil
	})
}

// updateGroup changes the properties of a group; more decides on the rest.
func (s *Service) updateGroup(
	ctx context.Context, account fleet.Account, name string, p GroupProperties, expected *int64, more func(context.Context, *attempt, *groupRecord) error,
) (int64, error) {
	if err := checkGroupProperties(name, p); err != nil {
		return 0, err
	}
	var version int64
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadGroup(ctx, a, name)
		if err != nil {
			return err
		}
		if err := more(ctx, a, record); err != nil {
			return err
		}
		if err := decideUpdateGroup(record, p, expected); err != nil {
			return err
		}
		version = record.Version
		state, err := groupEvent(ctx, a, name, record)
		if err != nil {
			return err
		}
		a.emit(event.ThingGroupUpdated{ThingGroup: state})
		return save(a, key(kindGroup, account, name), record)
	})
	return version, err
}

// checkGroupProperties checks what needs no record.
func checkGroupProperties(name string, p GroupProperties) error {
	if err := checkName("thingGroupName", name); err != nil {
		return err
	}
	if p.Description != nil {
		if err := checkDescription("thingGroupDescription", *p.Description); err != nil {
			return err
		}
	}
	if p.Attributes != nil {
		return checkAttributes(p.Attributes.Values)
	}
	return nil
}

// decideUpdateGroup applies a change of properties.
func decideUpdateGroup(r *groupRecord, p GroupProperties, expected *int64) error {
	if err := checkExpected(expected, r.Version); err != nil {
		return err
	}
	r.Version++
	if p.Description != nil {
		r.Description = *p.Description
	}
	if p.Attributes != nil {
		r.Attributes = applyAttributes(r.Attributes, *p.Attributes)
	}
	return checkGroupAttributes(r.Attributes)
}

// loadGroup is load for a group that must exist and stay.
func loadGroup(ctx context.Context, a *attempt, name string) (*groupRecord, error) {
	record, err := load[groupRecord](ctx, a, key(kindGroup, a.account, name))
	switch {
	case err != nil:
		return nil, err
	case record == nil:
		return nil, notFound("thing group", name)
	case record.Deleting:
		return nil, beingDeleted(name)
	}
	return record, nil
}

// DescribeThingGroup returns one group, static or dynamic.
func (s *Service) DescribeThingGroup(ctx context.Context, account fleet.Account, name string) (Group, error) {
	if err := checkName("thingGroupName", name); err != nil {
		return Group{}, err
	}
	record, err := s.findGroup(ctx, account, name)
	if err != nil {
		return Group{}, err
	}
	g := s.group(account, name, record)
	if g.Query != "" {
		g.Status = s.dynamicStatus(account, name, record)
	}
	return g, nil
}

// findGroup reads a group that must exist, outside a change.
func (s *Service) findGroup(ctx context.Context, account fleet.Account, name string) (*groupRecord, error) {
	record, _, err := get[groupRecord](ctx, s.store, key(kindGroup, account, name))
	if err != nil {
		return nil, store.Fault(err)
	}
	if record == nil {
		return nil, notFound("thing group", name)
	}
	return record, nil
}

// Groups returns those of the named groups that exist, in the order given.
func (s *Service) Groups(ctx context.Context, account fleet.Account, names []string) ([]Group, error) {
	keys := make([]store.Key, len(names))
	for i, name := range names {
		keys[i] = key(kindGroup, account, name)
	}
	records, _, err := getMany[groupRecord](ctx, s.store, keys)
	if err != nil {
		return nil, store.Fault(err)
	}
	groups := make([]Group, 0, len(names))
	for i, record := range records {
		if record != nil {
			groups = append(groups, s.group(account, names[i], record))
		}
	}
	return groups, nil
}
