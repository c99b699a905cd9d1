package bulkedit

import (
	"context"
	"errors"
	"log/slog"
	"reflect"

	"github.com/muster-iot/muster/internal/drift"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
)

// outcome is what became of a thing.
type outcome string

const (
	changed    outcome = "changed"
	unchanged  outcome = "unchanged"
	failed     outcome = "failed"
	conflicted outcome = "conflict"
)

// errConflict is an undo that finds a thing other than the edit left it.
var errConflict = fault.New(fault.Conflict, "the thing is no longer as the edit left it")

// job is one edit at work.
type job struct {
	s       *Service
	account fleet.Account
	id      string
	record  *editRecord
}

// receipt puts the receipt of a change into a batch that makes it. Nobody can
// have written one before: the change would be made twice.
func (j *job) receipt(thing string, r receipt) (store.Batch, error) {
	k := changedKey(j.account, j.id, thing)
	b := store.Batch{Expect: []store.Expect{{Key: k}}}
	r.Schema, r.At = schemaVersion, millis(j.s.o.Now())
	err := put(&b, k, r)
	return b, err
}

// perform works on one thing, unless what became of it is written down already.
// An error is trouble that is not the thing's: it may be over when the thing is
// tried again.
func (j *job) perform(ctx context.Context, t target) (outcome, error) {
	known, err := j.s.o.Store.GetMany(ctx, []store.Key{changedKey(j.account, j.id, t.Name), failedKey(j.account, j.id, t.Name)})
	if err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "The server's storage cannot be read")
	}
	did, pending, err := became(known[0], known[1])
	if err != nil || did != "" {
		return did, err
	}
	did, err = j.attempt(ctx, t, pending)
	switch code := fault.CodeOf(err); {
	case err == nil:
		return did, nil
	case code == fault.Unavailable || code == fault.Throttling:
		return "", err
	case code == fault.Internal:
		j.s.o.Logger.ErrorContext(ctx, "bulk edit of a thing failed", slog.String("bulk_edit", j.id), slog.String("thing", t.Name), slog.Any("err", err))
	}
	return j.fail(ctx, t, err)
}

// became is what is written down of a thing: "" for nothing final, then with the
// receipt if there is one that is pending.
func became(change, refusal store.Record) (outcome, *receipt, error) {
	if refusal.Version != 0 {
		var f failure
		if err := decode(refusal, &f); err != nil {
			return "", nil, err
		}
		return f.outcome(), nil, nil
	}
	if change.Version == 0 {
		return "", nil, nil
	}
	var r receipt
	if err := decode(change, &r); err != nil {
		return "", nil, err
	}
	if r.Pending {
		return "", &r, nil
	}
	return changed, nil, nil
}

// outcome tells failures from things that an undo left alone.
func (f *failure) outcome() outcome {
	if f.Conflict {
		return conflicted
	}
	return failed
}

// fail writes down why a thing was not changed. The receipt of a decommission that
// has not begun goes.
func (j *job) fail(ctx context.Context, t target, cause error) (outcome, error) {
	coded := fault.From(cause)
	f := failure{Schema: schemaVersion, At: millis(j.s.o.Now()), Code: coded.Code, Message: coded.Message, Conflict: errors.Is(cause, errConflict) || errors.Is(cause, drift.ErrMoved)}
	var b store.Batch
	if err := put(&b, failedKey(j.account, j.id, t.Name), f); err != nil {
		return "", err
	}
	if d := j.record.Operation.Delete; d != nil && d.Decommission && j.record.UndoOf == "" && j.s.alive(ctx, j.account, t) == nil {
		b.Writes = append(b.Writes, store.Write{Key: changedKey(j.account, j.id, t.Name), Delete: true})
	}
	_, err := j.s.o.Store.Commit(ctx, b)
	return f.outcome(), store.Fault(err)
}

// attempt does what the edit is for.
func (j *job) attempt(ctx context.Context, t target, pending *receipt) (outcome, error) {
	switch o := &j.record.Operation; {
	case j.record.UndoOf != "":
		return j.undo(ctx, t)
	case o.Shadow != nil:
		return j.patchShadow(ctx, t, o.Shadow)
	case o.Drift != nil:
		return j.settle(ctx, t)
	case o.Delete != nil && o.Delete.Decommission:
		return j.decommission(ctx, t, o.Delete, pending)
	case o.Delete != nil:
		return j.remove(ctx, t, pending)
	default:
		return j.edit(ctx, t)
	}
}

// edit changes the registry's entry.
func (j *job) edit(ctx context.Context, t target) (outcome, error) {
	c := j.record.Operation.editing(t)
	c.Joined = func(before, after registry.Thing) (store.Batch, error) {
		return j.receipt(t.Name, receipt{Before: imageOf(&j.record.Operation, before), After: imageOf(&j.record.Operation, after)})
	}
	return j.editThing(ctx, c)
}

func (j *job) editThing(ctx context.Context, c registry.EditCommand) (outcome, error) {
	edited, err := j.s.o.Registry.EditThing(ctx, j.account, c)
	switch {
	case err != nil:
		return "", err //nolint:wrapcheck // coded, and a failure's text
	case !edited.Changed:
		return unchanged, nil
	}
	return changed, nil
}

// editing is the registry's command for a thing.
func (o *Operation) editing(t target) registry.EditCommand {
	return registry.EditCommand{
		Thing: t.Name, ThingID: t.ID, TypeName: o.thingType(), Attributes: o.attributes(),
		AddGroups: o.AddToThingGroups, RemoveGroups: o.RemoveFromThingGroups, BillingGroup: o.billingGroup(),
	}
}

// life reads a thing, and refuses one that is gone, or another of the name.
func (s *Service) life(ctx context.Context, account fleet.Account, t target) (registry.Thing, error) {
	things, err := s.o.Registry.Things(ctx, account, []string{t.Name})
	switch {
	case err != nil:
		return registry.Thing{}, err //nolint:wrapcheck // coded
	case len(things) == 0:
		return registry.Thing{}, fault.New(fault.ResourceNotFound, "thing %s does not exist", t.Name)
	case things[0].ID != t.ID:
		return registry.Thing{}, fault.New(fault.ResourceNotFound, "thing %s is another one by now", t.Name)
	}
	return things[0], nil
}

// alive is life for who only wants to know.
func (s *Service) alive(ctx context.Context, account fleet.Account, t target) error {
	_, err := s.life(ctx, account, t)
	return err
}

// patchShadow changes a desired state.
func (j *job) patchShadow(ctx context.Context, t target, p *ShadowPatch) (outcome, error) {
	patch, err := parseObject(p.Desired)
	if err != nil {
		return "", err
	}
	before, after, err := j.s.patched(ctx, j.account, t, p.Name, patch)
	if err != nil {
		return "", err
	}
	if reflect.DeepEqual(before, after) {
		return unchanged, nil
	}
	return j.updateShadow(ctx, t, p.Name, patch, nil)
}

// patched is a desired state and what a patch would make of it.
func (s *Service) patched(ctx context.Context, account fleet.Account, t target, name string, patch object) (before, after object, err error) {
	if err := s.alive(ctx, account, t); err != nil {
		return nil, nil, err
	}
	text, err := s.o.Shadows.Desired(ctx, account, t.Name, name)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // coded
	}
	if before, err = parseObject(text); err != nil {
		return nil, nil, err
	}
	return before, merge(before, patch), nil
}

// updateShadow merges a patch into desired, if the state before is one that check,
// unless it is nil, accepts.
func (j *job) updateShadow(ctx context.Context, t target, name string, patch object, check func(before object) error) (outcome, error) {
	body, err := writeObject(object{"state": object{"desired": patch}})
	if err != nil {
		return "", err
	}
	_, err = j.s.o.Shadows.Update(ctx, shadow.UpdateCommand{
		Account: j.account, Thing: t.Name, Shadow: name, Body: body,
		Joined: func(u *shadow.Updated) (store.Batch, error) {
			before, err := parseObject(u.DesiredBefore())
			if err != nil {
				return store.Batch{}, err
			}
			if check != nil {
				if err := check(before); err != nil {
					return store.Batch{}, err
				}
			}
			after, err := parseObject(u.DesiredAfter())
			if err != nil {
				return store.Batch{}, err
			}
			r, err := shadowReceipt(t.ID, before, after, patch)
			if err != nil {
				return store.Batch{}, err
			}
			return j.receipt(t.Name, r)
		},
	})
	if err != nil {
		return "", err //nolint:wrapcheck // coded, and a failure's text
	}
	return changed, nil
}

// shadowReceipt keeps what a patch has touched.
func shadowReceipt(id string, before, after, patch object) (receipt, error) {
	was, left := touched(before, after, patch)
	r := receipt{Before: Image{ThingID: id}, After: Image{ThingID: id}}
	var err error
	if r.Before.Desired, err = writeObject(was); err != nil {
		return r, err
	}
	r.After.Desired, err = writeObject(left)
	return r, err
}

// remove deletes a thing. What goes with it goes after: the receipt is pending
// until that is gone too.
func (j *job) remove(ctx context.Context, t target, pending *receipt) (outcome, error) {
	if pending == nil {
		pending = &receipt{}
		_, err := j.s.o.Registry.RemoveThing(ctx, j.account, registry.RemoveCommand{
			Thing: t.Name, ThingID: t.ID,
			Joined: func(before, _ registry.Thing) (store.Batch, error) {
				*pending = receipt{Pending: true, Before: whole(before)}
				return j.receipt(t.Name, *pending)
			},
		})
		if err != nil {
			return "", err //nolint:wrapcheck // coded, and a failure's text
		}
	}
	// Shadows of another thing that somebody has made of the name are none of it.
	others, err := j.s.o.Registry.Things(ctx, j.account, []string{t.Name})
	if err == nil && len(others) == 0 {
		err = j.s.o.Shadows.ThingDeleted(ctx, j.account, t.Name)
	}
	if err != nil {
		return "", j.troubled(err)
	}
	return j.complete(ctx, t.Name, *pending)
}

// troubled makes an error after the point of no return one that is tried again.
func (j *job) troubled(err error) error {
	return fault.Wrap(fault.Unavailable, err, "The thing is gone, but not all that goes with it")
}

// decommission ends a thing. It has several commits, and completes by itself what
// a crash has left undone when it is repeated for the same life.
func (j *job) decommission(ctx context.Context, t target, d *Deletion, pending *receipt) (outcome, error) {
	if pending == nil {
		present, err := j.s.life(ctx, j.account, t)
		if err != nil {
			return "", err
		}
		pending = &receipt{Pending: true, Before: whole(present)}
		b, err := j.receipt(t.Name, *pending)
		if err != nil {
			return "", err
		}
		if _, err := j.s.o.Store.Commit(ctx, b); err != nil {
			return "", store.Fault(err)
		}
	}
	_, err := j.s.o.Decommissioner.Decommission(ctx, j.account, registry.DecommissionCommand{
		Name: t.Name, ThingID: t.ID, Reason: d.Reason, KeepCertificates: d.KeepCertificates,
	})
	if err != nil {
		return "", err //nolint:wrapcheck // coded, and a failure's text
	}
	return j.complete(ctx, t.Name, *pending)
}

// complete writes a receipt that is no longer pending.
func (j *job) complete(ctx context.Context, thing string, r receipt) (outcome, error) {
	r.Schema, r.Pending, r.At = schemaVersion, false, millis(j.s.o.Now())
	var b store.Batch
	if err := put(&b, changedKey(j.account, j.id, thing), r); err != nil {
		return "", err
	}
	if _, err := j.s.o.Store.Commit(ctx, b); err != nil {
		return "", j.troubled(err)
	}
	return changed, nil
}

// undo brings a thing back to what it was before the edit, if it still is as the
// edit left it.
func (j *job) undo(ctx context.Context, t target) (outcome, error) {
	var of receipt
	version, err := read(ctx, j.s.o.Store, changedKey(j.account, j.record.UndoOf, t.Name), &of)
	switch {
	case err != nil:
		return "", err
	case version == 0:
		return "", fault.New(fault.ResourceNotFound, "what the thing was before is no longer kept")
	case of.Before.Thing != nil:
		return j.restore(ctx, t, of.Before.Thing)
	case of.Before.Desired != nil:
		return j.unpatch(ctx, t, &of)
	}
	c := of.Before.restoring()
	c.Thing, c.ThingID = t.Name, of.After.ThingID
	c.Guard = func(now registry.Thing) error {
		if !of.After.fits(now) {
			return errConflict
		}
		return nil
	}
	c.Joined = func(registry.Thing, registry.Thing) (store.Batch, error) {
		return j.receipt(t.Name, receipt{Before: of.After, After: of.Before})
	}
	did, err := j.editThing(ctx, c)
	return did, gone(err)
}

// gone makes a thing that is there no more a conflict.
func gone(err error) error {
	if fault.CodeOf(err) == fault.ResourceNotFound {
		return errConflict
	}
	return err
}

// restore makes a thing anew that the edit has deleted.
func (j *job) restore(ctx context.Context, t target, was *WholeThing) (outcome, error) {
	_, err := j.s.o.Registry.RestoreThing(ctx, j.account, registry.RestoreCommand{
		CreateThingCommand: registry.CreateThingCommand{
			Name: t.Name, TypeName: was.ThingTypeName, Attributes: was.Attributes, BillingGroup: was.BillingGroupName,
		},
		Groups: was.ThingGroups,
		Joined: func(_, after registry.Thing) (store.Batch, error) {
			return j.receipt(t.Name, receipt{After: whole(after)})
		},
	})
	switch {
	case fault.CodeOf(err) == fault.ResourceAlreadyExists:
		return "", errConflict
	case err != nil:
		return "", err //nolint:wrapcheck // coded, and a failure's text
	}
	return changed, nil
}

// unpatch brings a desired state back.
func (j *job) unpatch(ctx context.Context, t target, of *receipt) (outcome, error) {
	was, err := parseObject(of.Before.Desired)
	if err != nil {
		return "", err
	}
	left, err := parseObject(of.After.Desired)
	if err != nil {
		return "", err
	}
	if err := j.s.alive(ctx, j.account, target{Name: t.Name, ID: of.After.ThingID}); err != nil {
		return "", gone(err)
	}
	return j.updateShadow(ctx, t, j.record.Operation.Shadow.Name, was, func(now object) error {
		if !holds(now, left, was) {
			return errConflict
		}
		return nil
	})
}
