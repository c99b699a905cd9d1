package registry

import (
	"context"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// membersPerBatch bounds how many members one batch of a deletion removes: a
// change of any of them in the meantime makes the batch decide again.
const membersPerBatch = 500

// DeleteThingGroup removes a static group without children. Its members lose
// the membership. A group that does not exist is deleted already.
//
// The group is first marked, after which nothing can join it; then its members
// are removed batch by batch, each with its event; then the group goes. After
// a crash in between the same call carries on.
func (s *Service) DeleteThingGroup(ctx context.Context, account fleet.Account, name string, expected *int64) error {
	return s.deleteGroup(ctx, account, name, expected, false)
}

// DeleteDynamicThingGroup removes a dynamic group in the same way.
func (s *Service) DeleteDynamicThingGroup(ctx context.Context, account fleet.Account, name string, expected *int64) error {
	return s.deleteGroup(ctx, account, name, expected, true)
}

// deleteGroup runs the three steps.
func (s *Service) deleteGroup(ctx context.Context, account fleet.Account, name string, expected *int64, dynamic bool) error {
	if err := checkName("thingGroupName", name); err != nil {
		return err
	}
	found := false
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := load[groupRecord](ctx, a, key(kindGroup, account, name))
		if err != nil || record == nil {
			return err
		}
		found = true
		if err := decideDeleteGroup(name, record, expected, dynamic); err != nil {
			return err
		}
		if record.Deleting {
			return nil
		}
		record.Deleting = true
		return save(a, key(kindGroup, account, name), record)
	})
	if err != nil || !found {
		return err
	}
	if err := sweep(func(after string) (string, bool, error) { return s.removeMembers(ctx, account, name, after) }); err != nil {
		return err
	}
	return s.removeGroup(ctx, account, name)
}

// decideDeleteGroup tells whether the group may go.
func decideDeleteGroup(name string, r *groupRecord, expected *int64, dynamic bool) error {
	if dynamic && r.Query == "" {
		return fault.New(fault.InvalidRequest, "%s is a static group; use DeleteThingGroup", name)
	}
	if !dynamic && r.Query != "" {
		return fault.New(fault.InvalidRequest, "%s is a dynamic group; use DeleteDynamicThingGroup", name)
	}
	if err := checkExpected(expected, r.Version); err != nil {
		return err
	}
	if r.Children > 0 {
		return fault.New(fault.InvalidRequest, "thing group %s has %d child groups; delete them first", name, r.Children)
	}
	return nil
}

// sweep removes rows batch by batch until a whole pass finds none. Each batch
// begins behind the one before: an engine may take long to pass over what has
// just been removed.
func sweep(remove func(after string) (last string, more bool, err error)) error {
	for {
		found, after := false, ""
		for more := true; more; {
			var err error
			if after, more, err = remove(after); err != nil {
				return err
			}
			found = found || after != ""
		}
		if !found {
			return nil
		}
	}
}

// removeMembers takes one batch of members behind a row out of a marked group.
// It returns the last row of the batch, "" for none, and whether there may be
// more. Devices are not awaited: the end of the group, which
// stands behind all this in the log, waits for them.
func (s *Service) removeMembers(ctx context.Context, account fleet.Account, group, after string) (last string, more bool, err error) {
	_, _, err = s.commit(ctx, account, s.store, func(ctx context.Context, a *attempt) error {
		ids, err := groupIDs(ctx, a, []string{group})
		if err != nil {
			return err
		}
		rows, rest, err := keysOf(ctx, a.reader, under(kindGroupThing, account, group), after, membersPerBatch)
		if err != nil {
			return err
		}
		last, more = lastOf(rows), rest
		owners := make([]store.Key, len(rows))
		for i, row := range rows {
			owners[i] = key(kindThing, account, row.Last())
			a.remove(row)
		}
		things, err := loadMany[thingRecord](ctx, a, owners)
		if err != nil {
			return err
		}
		for i, thing := range things {
			if thing == nil {
				continue
			}
			link, ok := leave(thing, group)
			if !ok {
				continue
			}
			a.emit(membershipChanged(rows[i].Last(), thing, changedLink{link, ids[0], nil}, false))
			if err := save(a, owners[i], thing); err != nil {
				return err
			}
		}
		return nil
	})
	return last, more, err
}

// lastOf is the last of some rows, "" for none.
func lastOf(rows []store.Key) string {
	if len(rows) == 0 {
		return ""
	}
	return string(rows[len(rows)-1])
}

// removeGroup deletes a marked and empty group with what points to it.
func (s *Service) removeGroup(ctx context.Context, account fleet.Account, name string) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := load[groupRecord](ctx, a, key(kindGroup, account, name))
		if err != nil || record == nil {
			return err
		}
		self := reference{kind: fleet.ARNThingGroup, name: name}
		for _, policy := range record.Policies {
			a.remove(key(kindPolicyTarget, account, policy, self.ref()))
		}
		parent := parentOf(record.Ancestors)
		if err := s.leaveHierarchy(ctx, a, parent, record.Query != ""); err != nil {
			return err
		}
		a.remove(key(kindGroupChild, account, parent, name))
		a.remove(key(kindGroup, account, name))
		a.removeTags(fleet.ARNThingGroup, name)
		a.devices = true
		state, err := groupEvent(ctx, a, name, record)
		if err != nil {
			return err
		}
		a.emit(event.ThingGroupDeleted{
			Group: name, GroupID: record.ID, Parent: parent, Dynamic: record.Query != "", Description: state.Description,
			Attributes: state.Attributes, Version: state.Version, Ancestors: state.Ancestors, AncestorIDs: state.AncestorIDs,
		})
		return nil
	})
}

// leaveHierarchy takes a deleted group out of the count that it is in.
func (s *Service) leaveHierarchy(ctx context.Context, a *attempt, parent string, dynamic bool) error {
	if dynamic {
		_, err := countDynamicGroups(ctx, a, -1)
		return err
	}
	if parent == "" {
		return nil
	}
	record, err := load[groupRecord](ctx, a, key(kindGroup, a.account, parent))
	if err != nil || record == nil {
		return err
	}
	record.Children--
	return save(a, key(kindGroup, a.account, parent), record)
}
