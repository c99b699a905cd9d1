package registry

import (
	"context"
	"slices"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// changesPerBatch bounds how many memberships one commit changes.
const changesPerBatch = 256

// MembershipChange is what the index decided about one thing and one dynamic
// group.
type MembershipChange struct {
	Account fleet.Account
	Group   string
	Thing   string
	// Added is false when the thing leaves.
	Added bool
	// Cause says why; optional.
	Cause *event.MembershipCause
}

// CommitMembership records decisions of the index, in order, with their
// events. Things and groups deleted in the meantime are skipped, and so is
// what is recorded already; a group that is or became static is skipped too.
func (s *Service) CommitMembership(ctx context.Context, changes []MembershipChange) error {
	for len(changes) > 0 {
		account, n := changes[0].Account, 1
		for n < min(len(changes), changesPerBatch) && changes[n].Account == account {
			n++
		}
		chunk := changes[:n]
		err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
			return applyMembership(ctx, a, chunk)
		})
		if err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}

// CompleteGroup is a dynamic group whose members are those of a query.
type CompleteGroup struct {
	Account fleet.Account
	Group   string
	Query   string
}

// CommitComplete records that the members of the groups are complete, for those
// that still have the query. It is no change that callers see in the group's
// version, and reports no event.
func (s *Service) CommitComplete(ctx context.Context, groups []CompleteGroup) error {
	for len(groups) > 0 {
		account, n := groups[0].Account, 1
		for n < min(len(groups), changesPerBatch) && groups[n].Account == account {
			n++
		}
		chunk := groups[:n]
		err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
			return markComplete(ctx, a, chunk)
		})
		if err != nil {
			return err
		}
		groups = groups[n:]
	}
	return nil
}

// markComplete puts one chunk of marks into a batch.
func markComplete(ctx context.Context, a *attempt, groups []CompleteGroup) error {
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = g.Group
	}
	records, err := loadNamed[groupRecord](ctx, a, kindGroup, names)
	if err != nil {
		return err
	}
	for _, g := range groups {
		record := records[g.Group]
		if record == nil || record.Query != g.Query || record.Deleting || record.Complete {
			continue
		}
		record.Built, record.Complete = true, true
		if err := save(a, key(kindGroup, a.account, g.Group), record); err != nil {
			return err
		}
	}
	return nil
}

// applyMembership puts one chunk of decisions into a batch.
func applyMembership(ctx context.Context, a *attempt, changes []MembershipChange) error {
	var groupNames, thingNames []string
	for _, c := range changes {
		groupNames = append(groupNames, c.Group)
		thingNames = append(thingNames, c.Thing)
	}
	groups, err := loadNamed[groupRecord](ctx, a, kindGroup, groupNames)
	if err != nil {
		return err
	}
	things, err := loadNamed[thingRecord](ctx, a, kindThing, thingNames)
	if err != nil {
		return err
	}
	changed := map[string]bool{}
	for _, c := range changes {
		group, thing := groups[c.Group], things[c.Thing]
		if thing == nil || group == nil || group.Query == "" || group.Deleting {
			continue
		}
		if applyOne(a, thing, group, c) {
			changed[c.Thing] = true
		}
	}
	for _, name := range compact(thingNames) {
		if changed[name] {
			if err := save(a, key(kindThing, a.account, name), things[name]); err != nil {
				return err
			}
		}
	}
	return nil
}

// applyOne changes one membership; false when there was nothing to change.
func applyOne(a *attempt, thing *thingRecord, group *groupRecord, c MembershipChange) bool {
	link := groupLink{Group: c.Group, Dynamic: true}
	if c.Added {
		if !join(thing, link) {
			return false
		}
	} else if _, ok := leave(thing, c.Group); !ok {
		return false
	}
	writeLinks(a, c.Thing, thing, []changedLink{{link, group.ID, c.Cause}}, c.Added)
	return true
}

// compact returns the names in order, each once.
func compact(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}

// loadNamed loads the records of several names, each once.
func loadNamed[T any, P stored[T]](ctx context.Context, a *attempt, kind string, names []string) (map[string]*T, error) {
	names = compact(names)
	keys := make([]store.Key, len(names))
	for i, name := range names {
		keys[i] = key(kind, a.account, name)
	}
	records, err := loadMany[T, P](ctx, a, keys)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]*T, len(names))
	for i, name := range names {
		byName[name] = records[i]
	}
	return byName, nil
}
