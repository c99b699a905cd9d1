package registry

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

// BillingGroup is a flat set of things whose costs belong together. A thing is
// in one at most; it carries no policies and is no target of jobs.
type BillingGroup struct {
	Name        string
	ID          string
	ARN         string
	Description string
	Version     int64
	Created     time.Time
}

// billingGroup is the public form of a record.
func (s *Service) billingGroup(account fleet.Account, name string, r *billingGroupRecord) BillingGroup {
	return BillingGroup{
		Name: name, ID: r.ID, ARN: s.scope(account).ARN(fleet.ARNBillingGroup, name), Description: r.Description,
		Version: r.Version, Created: moment(r.Created),
	}
}

// billingGroupEvent is the state that billing group events carry.
func billingGroupEvent(name string, r *billingGroupRecord) event.BillingGroup {
	return event.BillingGroup{BillingGroup: name, BillingGroupID: r.ID, Description: r.Description, Version: r.Version}
}

// CreateBillingGroupCommand asks for a new billing group.
type CreateBillingGroupCommand struct {
	Name        string
	Description string
	Tags        []tag.Tag
}

// CreateBillingGroup adds a billing group; the same command again answers the
// existing one.
func (s *Service) CreateBillingGroup(ctx context.Context, account fleet.Account, c CreateBillingGroupCommand) (BillingGroup, error) {
	if err := checkBillingGroup(c.Name, &c.Description); err != nil {
		return BillingGroup{}, err
	}
	tags, err := tag.Check(c.Tags)
	if err != nil {
		return BillingGroup{}, err
	}
	var created BillingGroup
	err = s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		present, err := load[billingGroupRecord](ctx, a, key(kindBillingGroup, account, c.Name))
		if err != nil {
			return err
		}
		if present != nil {
			created = s.billingGroup(account, c.Name, present)
			return sameBillingGroup(ctx, a, present, created, c.Description, tags)
		}
		record := &billingGroupRecord{ID: s.newID(), Description: c.Description, Version: 1, Created: millis(a.now)}
		created = s.billingGroup(account, c.Name, record)
		a.emit(event.BillingGroupCreated{BillingGroup: billingGroupEvent(c.Name, record)})
		if err := a.attachTags(fleet.ARNBillingGroup, c.Name, tags); err != nil {
			return err
		}
		return save(a, key(kindBillingGroup, account, c.Name), record)
	})
	return created, err
}

// checkBillingGroup checks what needs no record; a nil description stays.
func checkBillingGroup(name string, description *string) error {
	if err := checkName("billingGroupName", name); err != nil {
		return err
	}
	if description == nil {
		return nil
	}
	return checkDescription("billingGroupDescription", *description)
}

// sameBillingGroup tells whether a creation repeats what there is.
func sameBillingGroup(ctx context.Context, a *attempt, present *billingGroupRecord, known BillingGroup, description string, tags tag.Set) error {
	if present.Deleting {
		return billingGroupGoes(known.Name)
	}
	tagged, err := a.hasTags(ctx, fleet.ARNBillingGroup, known.Name, tags)
	if err != nil {
		return err
	}
	if !tagged || present.Description != description {
		return exists("billing group", known.Name, known.ID, known.ARN)
	}
	return nil
}

// billingGroupGoes is the fault for a group whose things are being removed.
func billingGroupGoes(name string) error {
	return fault.New(fault.InvalidRequest, "billing group %s is being deleted", name)
}

// loadBillingGroup is load for a billing group that must exist and stay. Its
// record is expected and not rewritten by the things that join, so that many
// may at once; a deletion rewrites it, which keeps them out.
func loadBillingGroup(ctx context.Context, a *attempt, name string) (*billingGroupRecord, error) {
	record, err := load[billingGroupRecord](ctx, a, key(kindBillingGroup, a.account, name))
	switch {
	case err != nil:
		return nil, err
	case record == nil:
		return nil, notFound("billing group", name)
	case record.Deleting:
		return nil, billingGroupGoes(name)
	}
	return record, nil
}

// useBillingGroup expects the group to stay as it is; empty is none.
func useBillingGroup(ctx context.Context, a *attempt, name string) error {
	if name == "" {
		return nil
	}
	_, err := loadBillingGroup(ctx, a, name)
	return err
}

// UpdateBillingGroup changes the description unless it is nil and returns the
// new version.
func (s *Service) UpdateBillingGroup(ctx context.Context, account fleet.Account, name string, description *string, expected *int64) (int64, error) {
	if err := checkBillingGroup(name, description); err != nil {
		return 0, err
	}
	var version int64
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadBillingGroup(ctx, a, name)
		if err != nil {
			return err
		}
		if err := checkExpected(expected, record.Version); err != nil {
			return err
		}
		if description != nil {
			record.Description = *description
		}
		record.Version++
		version = record.Version
		a.emit(event.BillingGroupUpdated{BillingGroup: billingGroupEvent(name, record)})
		return save(a, key(kindBillingGroup, account, name), record)
	})
	return version, err
}

// DescribeBillingGroup returns one billing group.
func (s *Service) DescribeBillingGroup(ctx context.Context, account fleet.Account, name string) (BillingGroup, error) {
	if err := checkName("billingGroupName", name); err != nil {
		return BillingGroup{}, err
	}
	record, _, err := get[billingGroupRecord](ctx, s.store, key(kindBillingGroup, account, name))
	if err != nil {
		return BillingGroup{}, store.Fault(err)
	}
	if record == nil {
		return BillingGroup{}, notFound("billing group", name)
	}
	return s.billingGroup(account, name, record), nil
}

// ListBillingGroups returns one page of names in order. prefix is empty to
// match every name.
func (s *Service) ListBillingGroups(ctx context.Context, account fleet.Account, prefix string, p Page) (Listed[string], error) {
	if prefix != "" {
		if err := checkName("namePrefixFilter", prefix); err != nil {
			return Listed[string]{}, err
		}
	}
	listed, err := listKeys(ctx, s.store, withPrefix(kindBillingGroup, account, prefix), p, store.Key.Last)
	return listed, store.Fault(err)
}

// ListThingsInBillingGroup returns one page of a billing group's things in
// order of name.
func (s *Service) ListThingsInBillingGroup(ctx context.Context, account fleet.Account, name string, p Page) (Listed[string], error) {
	if _, err := s.DescribeBillingGroup(ctx, account, name); err != nil {
		return Listed[string]{}, err
	}
	listed, err := listKeys(ctx, s.store, under(kindBillingGroupThing, account, name), p, store.Key.Last)
	return listed, store.Fault(err)
}

// resolveBilling returns the two names that a request means.
func (m ThingAndGroup) resolveBilling(scope fleet.Scope) (thing, group string, err error) {
	thing, err = nameOrARN(scope, fleet.ARNThing, [2]string{"thingName", "thingArn"}, m.ThingName, m.ThingARN)
	if err != nil {
		return "", "", err
	}
	group, err = nameOrARN(scope, fleet.ARNBillingGroup, [2]string{"billingGroupName", "billingGroupArn"}, m.GroupName, m.GroupARN)
	return thing, group, err
}

// AddThingToBillingGroup puts a thing into a billing group. It may be repeated;
// a thing that is in another billing group has to leave that one first, so that
// costs do not move by an oversight.
func (s *Service) AddThingToBillingGroup(ctx context.Context, account fleet.Account, m ThingAndGroup) error {
	return s.changeBilling(ctx, account, m, true, joinBilling)
}

// joinBilling decides about a thing that joins a billing group.
func joinBilling(thing *thingRecord, name, group string) (string, error) {
	if thing.BillingGroup != "" && thing.BillingGroup != group {
		return "", fault.New(fault.InvalidRequest, "thing %s is in billing group %s; remove it from there first", name, thing.BillingGroup)
	}
	return group, nil
}

// RemoveThingFromBillingGroup takes a thing out of a billing group; it is no
// error when it was not in it.
func (s *Service) RemoveThingFromBillingGroup(ctx context.Context, account fleet.Account, m ThingAndGroup) error {
	return s.changeBilling(ctx, account, m, false, func(thing *thingRecord, _, group string) (string, error) {
		if thing.BillingGroup == group {
			return "", nil
		}
		return thing.BillingGroup, nil
	})
}

// changeBilling sets what decide returns for a thing and a billing group that
// both exist.
func (s *Service) changeBilling(
	ctx context.Context, account fleet.Account, m ThingAndGroup, added bool, decide func(thing *thingRecord, name, group string) (string, error),
) error {
	name, group, err := m.resolveBilling(s.scope(account))
	if err != nil {
		return err
	}
	return s.change(ctx, account, rebilling(name, group, added, decide))
}

// rebilling is the command that sets what decide returns.
func rebilling(
	name, group string, added bool, decide func(thing *thingRecord, name, group string) (string, error),
) func(context.Context, *attempt) error {
	return func(ctx context.Context, a *attempt) error {
		before, err := loadThing(ctx, a, name)
		if err != nil {
			return err
		}
		if err := useBillingGroup(ctx, a, group); err != nil {
			return err
		}
		after := *before
		if after.BillingGroup, err = decide(before, name, group); err != nil || after.BillingGroup == before.BillingGroup {
			return err
		}
		a.emit(event.BillingGroupMembershipChanged{BillingGroup: group, Thing: name, Added: added})
		return saveThing(a, name, before, &after)
	}
}

// DeleteBillingGroup removes a billing group; its things lose it. A group that
// does not exist is deleted already.
//
// It goes in the three steps of DeleteThingGroup, for the same reasons.
func (s *Service) DeleteBillingGroup(ctx context.Context, account fleet.Account, name string, expected *int64) error {
	if err := checkName("billingGroupName", name); err != nil {
		return err
	}
	found := false
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := load[billingGroupRecord](ctx, a, key(kindBillingGroup, account, name))
		if err != nil || record == nil {
			return err
		}
		found = true
		if err := checkExpected(expected, record.Version); err != nil || record.Deleting {
			return err
		}
		record.Deleting = true
		return save(a, key(kindBillingGroup, account, name), record)
	})
	if err != nil || !found {
		return err
	}
	if err := sweep(func(after string) (string, bool, error) { return s.emptyBillingGroup(ctx, account, name, after) }); err != nil {
		return err
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := load[billingGroupRecord](ctx, a, key(kindBillingGroup, account, name))
		if err != nil || record == nil {
			return err
		}
		a.remove(key(kindBillingGroup, account, name))
		a.removeTags(fleet.ARNBillingGroup, name)
		a.emit(event.BillingGroupDeleted{BillingGroup: name, BillingGroupID: record.ID})
		return nil
	})
}

// emptyBillingGroup takes one batch of things behind a row out of a marked group
// and returns what removeMembers does.
func (s *Service) emptyBillingGroup(ctx context.Context, account fleet.Account, group, after string) (last string, more bool, err error) {
	err = s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		rows, rest, err := keysOf(ctx, a.reader, under(kindBillingGroupThing, account, group), after, membersPerBatch)
		if err != nil {
			return err
		}
		last, more = lastOf(rows), rest
		owners := make([]store.Key, len(rows))
		for i, row := range rows {
			owners[i] = key(kindThing, account, row.Last())
		}
		things, err := loadMany[thingRecord](ctx, a, owners)
		if err != nil {
			return err
		}
		for i, before := range things {
			if before == nil || before.BillingGroup != group {
				a.remove(rows[i])
				continue
			}
			name, after := rows[i].Last(), *before
			after.BillingGroup = ""
			a.emit(event.BillingGroupMembershipChanged{BillingGroup: group, Thing: name})
			if err := saveThing(a, name, before, &after); err != nil {
				return err
			}
		}
		return nil
	})
	return last, more, err
}
