package registry

import (
	"context"
	"errors"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/tag"
)

// CreateDynamicThingGroupCommand asks for a new dynamic group.
type CreateDynamicThingGroupCommand struct {
	Name        string
	Description string
	Attributes  map[string]string
	Query       string
	// IndexName and QueryVersion may be empty for the only ones there are.
	IndexName    string
	QueryVersion string
	Tags         []tag.Tag
}

// CreateDynamicThingGroup adds a dynamic group's definition; the index fills
// it. The same command again answers the existing group.
func (s *Service) CreateDynamicThingGroup(ctx context.Context, account fleet.Account, c CreateDynamicThingGroupCommand) (Group, error) {
	wanted, err := checkGroup(c.Name, c.Description, c.Attributes)
	if err != nil {
		return Group{}, err
	}
	if err := s.checkDefinition(c.Name, c.Query, c.IndexName, c.QueryVersion); err != nil {
		return Group{}, err
	}
	tags, err := tag.Check(c.Tags)
	if err != nil {
		return Group{}, err
	}
	wanted.Query = c.Query
	var created Group
	err = s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		present, err := load[groupRecord](ctx, a, key(kindGroup, account, c.Name))
		if err != nil {
			return err
		}
		record := wanted
		if present != nil {
			created = s.group(account, c.Name, present)
			return sameGroup(ctx, a, present, created, &record, "", tags)
		}
		if err := s.checkIndexed(ctx, a, c.Query); err != nil {
			return err
		}
		count, err := countDynamicGroups(ctx, a, 1)
		if err != nil {
			return err
		}
		if s.limits.DynamicGroups > 0 && count > s.limits.DynamicGroups {
			return fault.New(fault.LimitExceeded, "an account may have at most %d dynamic groups", s.limits.DynamicGroups)
		}
		created, err = s.addGroup(ctx, a, c.Name, record, tags)
		return err
	})
	return created, err
}

// checkDefinition refuses a query that could not decide a membership.
func (s *Service) checkDefinition(group, query, indexName, queryVersion string) error {
	if query == "" {
		return fault.New(fault.InvalidRequest, "queryString must not be empty")
	}
	if indexName != "" && indexName != ThingIndex {
		return fault.New(fault.InvalidRequest, "indexName must be %s", ThingIndex)
	}
	if queryVersion != "" && queryVersion != QueryVersion {
		return fault.New(fault.InvalidRequest, "queryVersion must be %s", QueryVersion)
	}
	if err := languageFault(fault.InvalidQuery, "queryString", s.checkQuery(query)); err != nil {
		return err
	}
	return languageFault(fault.InvalidQuery, "queryString", s.checkGroup(group, query))
}

// languageFault gives a checker's plain error a code; its text is about what
// the caller wrote.
func languageFault(code fault.Code, field string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	return fault.New(code, "%s: %v", field, err)
}

// countDynamicGroups changes the account's number of dynamic groups and
// returns the new one.
func countDynamicGroups(ctx context.Context, a *attempt, by int) (int, error) {
	k := key(kindDynamicGroups, a.account)
	record, err := load[dynamicGroupsRecord](ctx, a, k)
	if err != nil {
		return 0, err
	}
	if record == nil {
		record = &dynamicGroupsRecord{}
	}
	record.Count += by
	return record.Count, save(a, k, record)
}

// UpdateDynamicThingGroupCommand asks for a change of a dynamic group.
type UpdateDynamicThingGroupCommand struct {
	Name       string
	Properties GroupProperties
	// Query is empty to leave the definition.
	Query           string
	IndexName       string
	QueryVersion    string
	ExpectedVersion *int64
}

// UpdateDynamicThingGroup changes a dynamic group and returns its new version.
func (s *Service) UpdateDynamicThingGroup(ctx context.Context, account fleet.Account, c UpdateDynamicThingGroupCommand) (int64, error) {
	query := c.Query
	if query == "" {
		query = "*"
	}
	if err := s.checkDefinition(c.Name, query, c.IndexName, c.QueryVersion); err != nil {
		return 0, err
	}
	return s.updateGroup(ctx, account, c.Name, c.Properties, c.ExpectedVersion, func(ctx context.Context, a *attempt, r *groupRecord) error {
		if r.Query == "" {
			return fault.New(fault.InvalidRequest, "%s is a static group; use UpdateThingGroup", c.Name)
		}
		if c.Query == "" {
			return nil
		}
		if c.Query != r.Query {
			r.Query, r.Complete = c.Query, false
		}
		if err := s.checkIndexed(ctx, a, c.Query); err != nil {
			return err
		}
		// A change of what is indexed looks at all queries again.
		_, err := countDynamicGroups(ctx, a, 0)
		return err
	})
}

// States of a dynamic group's members.
const (
	// groupBuilding is a group whose first members are being found.
	groupBuilding = "BUILDING"
	// groupRebuilding is one that may still show the members of an earlier query
	// or of an index before.
	groupRebuilding = "REBUILDING"
	// groupActive is one whose members are complete and kept up to date.
	groupActive = "ACTIVE"
)

// dynamicStatus says how far the members of a dynamic group are found. What was
// complete once is in the record, so that a restart takes no group back to
// BUILDING; whether the index follows just now, the index knows.
func (s *Service) dynamicStatus(account fleet.Account, name string, r *groupRecord) string {
	switch {
	case !r.Built:
		return groupBuilding
	case r.Complete && s.groupStatus(account, name, r.Query) == groupActive:
		return groupActive
	}
	return groupRebuilding
}
