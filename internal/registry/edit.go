package registry

import (
	"context"
	"maps"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Joined adds to the commit of a change what another domain keeps about it, so
// that both happen or neither. It is asked in each attempt, with the thing
// before and after.
type Joined func(before, after Thing) (store.Batch, error)

// EditCommand asks for several changes of one thing in one commit, each by the
// rules of its own command. A nil or empty member leaves things as they are.
type EditCommand struct {
	Thing string
	// ThingID is the id of the life that is meant; a thing that has the name by
	// now is left alone.
	ThingID string
	// TypeName is the new type, "" for none.
	TypeName *string
	// Attributes are merged; an empty value removes one.
	Attributes   map[string]string
	AddGroups    []string
	RemoveGroups []string
	// BillingGroup is the new billing group, which the thing changes into from
	// another one, "" for none.
	BillingGroup *string
	// Guard, unless it is nil, may refuse by what the thing is.
	Guard func(before Thing) error
	// Joined, unless it is nil, is asked only when something changes.
	Joined Joined
	// DryRun decides and commits nothing.
	DryRun bool
}

// Edited is what an edit found and left.
type Edited struct {
	Before, After Thing
	Changed       bool
}

// EditThing changes one thing, all or nothing. Where nothing differs nothing is
// committed and the version stays.
func (s *Service) EditThing(ctx context.Context, account fleet.Account, c EditCommand) (Edited, error) {
	if err := checkEdit(c); err != nil {
		return Edited{}, err
	}
	var edited Edited
	command := s.editing(account, c, &edited)
	if c.DryRun {
		err := store.Fault(command(ctx, s.attempt(ctx, account)))
		return edited, err
	}
	err := s.change(ctx, account, command)
	return edited, err
}

// checkEdit checks what needs no record.
func checkEdit(c EditCommand) error {
	if err := checkUpdateThing(c.update("")); err != nil {
		return err
	}
	if err := checkRegrouping(UpdateGroupsCommand{Thing: c.Thing, Add: c.AddGroups, Remove: c.RemoveGroups}); err != nil {
		return err
	}
	if c.BillingGroup != nil && *c.BillingGroup != "" {
		return checkName("billingGroupName", *c.BillingGroup)
	}
	return nil
}

// update is the part of an edit that UpdateThing does to a thing of a type.
func (c EditCommand) update(present string) UpdateThingCommand {
	u := UpdateThingCommand{Name: c.Thing}
	if c.TypeName != nil && *c.TypeName != present {
		u.TypeName, u.RemoveType = *c.TypeName, *c.TypeName == ""
	}
	if len(c.Attributes) > 0 {
		u.Attributes = &Attributes{Values: c.Attributes, Merge: true}
	}
	return u
}

// loadLife is loadThing for one life of a name.
func loadLife(ctx context.Context, a *attempt, name, id string) (*thingRecord, error) {
	record, err := loadThing(ctx, a, name)
	if err == nil && record.ID != id {
		return nil, fault.New(fault.ResourceNotFound, "thing %s is another one by now", name)
	}
	return record, err
}

// editing is the command of a checked edit.
func (s *Service) editing(account fleet.Account, c EditCommand, edited *Edited) func(context.Context, *attempt) error {
	return func(ctx context.Context, a *attempt) error {
		present, err := loadLife(ctx, a, c.Thing, c.ThingID)
		if err != nil {
			return err
		}
		*edited = Edited{Before: s.thing(account, c.Thing, present)}
		if c.Guard != nil {
			if err := c.Guard(edited.Before); err != nil {
				return err
			}
		}
		if err := s.editRecord(ctx, a, c, present); err != nil {
			return err
		}
		if err := s.regrouping(account, UpdateGroupsCommand{Thing: c.Thing, Add: c.AddGroups, Remove: c.RemoveGroups})(ctx, a); err != nil {
			return err
		}
		if c.BillingGroup != nil {
			if err := editBilling(ctx, a, c.Thing, *c.BillingGroup, present.BillingGroup); err != nil {
				return err
			}
		}
		left, err := loadThing(ctx, a, c.Thing)
		if err != nil {
			return err
		}
		edited.After, edited.Changed = s.thing(account, c.Thing, left), !a.empty()
		return a.join(c.Joined, *edited)
	}
}

// editRecord changes type and attributes where they differ.
func (s *Service) editRecord(ctx context.Context, a *attempt, c EditCommand, present *thingRecord) error {
	u := c.update(present.TypeName)
	after, err := decideUpdateThing(present, u)
	if err != nil {
		return err
	}
	if after.TypeName == present.TypeName && maps.Equal(after.Attributes, present.Attributes) {
		return nil
	}
	return s.updating(u)(ctx, a)
}

// editBilling lets a thing leave its billing group and join another.
func editBilling(ctx context.Context, a *attempt, thing, group, present string) error {
	if group == present {
		return nil
	}
	if present != "" {
		leave := func(*thingRecord, string, string) (string, error) { return "", nil }
		if err := rebilling(thing, present, false, leave)(ctx, a); err != nil {
			return err
		}
	}
	if group == "" {
		return nil
	}
	return rebilling(thing, group, true, joinBilling)(ctx, a)
}

// join adds what another domain keeps of a change to its batch.
func (a *attempt) join(joined Joined, edited Edited) error {
	if joined == nil || a.empty() {
		return nil
	}
	more, err := joined(edited.Before, edited.After)
	if err != nil {
		return err
	}
	a.add(more)
	return nil
}

// RemoveCommand asks for the end of one life of a name by the rules of
// DeleteThing.
type RemoveCommand struct {
	Thing, ThingID string
	// Joined is asked with the thing before; after is zero.
	Joined Joined
	// DryRun decides and commits nothing.
	DryRun bool
}

// RemoveThing is DeleteThing for a life that is known, and returns what it was.
func (s *Service) RemoveThing(ctx context.Context, account fleet.Account, c RemoveCommand) (Thing, error) {
	if err := checkName("thingName", c.Thing); err != nil {
		return Thing{}, err
	}
	var gone Thing
	command := func(ctx context.Context, a *attempt) error {
		record, err := loadLife(ctx, a, c.Thing, c.ThingID)
		if err != nil {
			return err
		}
		if record.Principals > 0 {
			return attachedPrincipals(c.Thing, record.Principals)
		}
		gone = s.thing(account, c.Thing, record)
		if err := dropThing(ctx, a, c.Thing, record); err != nil {
			return err
		}
		return a.join(c.Joined, Edited{Before: gone})
	}
	if c.DryRun {
		err := store.Fault(command(ctx, s.attempt(ctx, account)))
		return gone, err
	}
	err := s.change(ctx, account, command)
	return gone, err
}

// attachedPrincipals is the fault for a thing that cannot be deleted yet.
func attachedPrincipals(name string, n int) error {
	return fault.New(fault.InvalidRequest, "thing %s has %d attached principals; detach them first", name, n)
}

// RestoreCommand asks for a thing like one that was.
type RestoreCommand struct {
	CreateThingCommand

	// Groups are static groups that it is to be in.
	Groups []string
	Joined Joined
}

// RestoreThing creates a thing with its memberships in one commit. Any thing of
// the name is in the way, also one that is the same. The new thing has an id of
// its own.
func (s *Service) RestoreThing(ctx context.Context, account fleet.Account, c RestoreCommand) (Thing, error) {
	attributes, err := checkCreateThing(c.CreateThingCommand)
	if err != nil {
		return Thing{}, err
	}
	var created Thing
	create := s.creation(account, c.CreateThingCommand, attributes, &created)
	regroup := s.regrouping(account, UpdateGroupsCommand{Thing: c.Name, Add: c.Groups})
	err = s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		present, err := load[thingRecord](ctx, a, key(kindThing, account, c.Name))
		if err != nil {
			return err
		}
		if present != nil {
			now := s.thing(account, c.Name, present)
			return exists("thing", c.Name, now.ID, now.ARN)
		}
		if err := create(ctx, a); err != nil {
			return err
		}
		if err := regroup(ctx, a); err != nil {
			return err
		}
		left, err := loadThing(ctx, a, c.Name)
		if err != nil {
			return err
		}
		created = s.thing(account, c.Name, left)
		return a.join(c.Joined, Edited{After: created})
	})
	return created, err
}
