package registry

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// bound reports whether a certificate is held to provisioning.
func (r *rig) bound(t *testing.T, id string) bool {
	t.Helper()
	p := must[Purpose](t)(r.CertificatePurpose(t.Context(), acct, id))
	return p.Bound()
}

// consistent fails the test unless rows say what records say.
func (r *rig) consistent(t *testing.T) {
	t.Helper()
	_, err := CompareRows(t.Context(), r.store, func(d RowDifference) { t.Errorf("row %s has %s, wants %s", d.Key, d.Have, d.Want) })
	ok(t, err)
}

func (r *rig) inQuarantine(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, q := range must[Listed[Quarantined]](t)(r.ListQuarantined(t.Context(), acct, Page{Limit: 10})).Items {
		names = append(names, q.Thing)
	}
	return names
}

func TestQuarantine(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addThing(t, "pump-1")
	r.addThing(t, "pump-2")
	before := r.addCertificate(t)
	shared := r.addCertificate(t)
	ok(t, r.AttachThingPrincipal(t.Context(), acct, "pump-1", before.ARN, ""))
	ok(t, r.AttachThingPrincipal(t.Context(), acct, "pump-1", shared.ARN, ""))
	ok(t, r.AttachThingPrincipal(t.Context(), acct, "pump-2", shared.ARN, ""))
	thing := must[Thing](t)(r.DescribeThing(t.Context(), acct, "pump-1"))

	mark := len(r.store.log())
	made := must[Quarantined](t)(r.Quarantine(t.Context(), acct, "pump-1", "entry used twice", "allow list"))
	wantEqual(t, made, Quarantined{Thing: "pump-1", Reason: "entry used twice", By: "allow list", Since: start})
	wantEqual(t, must[Quarantined](t)(r.Quarantine(t.Context(), acct, "pump-1", "another reason", "")), made)
	var told []string
	for _, e := range r.eventsAfter(mark) {
		told = append(told, event.TypeName(e))
	}
	wantEqual(t, told, []string{"ThingGroupCreated", "MembershipChanged", "ThingQuarantined"})
	wantEqual(t, r.inQuarantine(t), []string{"pump-1"})
	wantEqual(t, must[Listed[string]](t)(r.ListThingGroupsForThing(t.Context(), acct, "pump-1", Page{Limit: 10})).Items, []string{QuarantineGroup})
	if !r.bound(t, before.ID) || !r.bound(t, shared.ID) {
		t.Error("the certificates of the thing are not held")
	}
	// One that comes meanwhile is held as well; one that goes is not.
	later := r.addCertificate(t)
	ok(t, r.AttachThingPrincipal(t.Context(), acct, "pump-1", later.ARN, ""))
	ok(t, r.DetachThingPrincipal(t.Context(), acct, "pump-1", before.ARN))
	if !r.bound(t, later.ID) || r.bound(t, before.ID) {
		t.Error("attachments do not carry the quarantine")
	}
	must[Quarantined](t)(r.Quarantine(t.Context(), acct, "pump-2", "x", ""))
	r.consistent(t)

	wantEqual(t, must[Quarantined](t)(r.Release(t.Context(), acct, "pump-1", "found to be ours")).By, "allow list")
	if r.bound(t, later.ID) || !r.bound(t, shared.ID) {
		t.Error("the release of one thing is not that of another")
	}
	_, err := r.Release(t.Context(), acct, "pump-1", "again")
	wantCode(t, err, fault.ResourceNotFound)
	after := must[Thing](t)(r.DescribeThing(t.Context(), acct, "pump-1"))
	wantEqual(t, after, thing)
	wantEqual(t, len(must[Listed[string]](t)(r.ListThingGroupsForThing(t.Context(), acct, "pump-1", Page{Limit: 10})).Items), 0)
	wantEqual(t, r.inQuarantine(t), []string{"pump-2"})
	r.consistent(t)
}

// What was in the group before stays in it, and a group of the name that is
// something else keeps nobody out of quarantine.
func TestQuarantineAndItsGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addThing(t, "pump-1")
	r.addGroup(t, QuarantineGroup, "")
	r.joinGroup(t, "pump-1", QuarantineGroup)
	must[Quarantined](t)(r.Quarantine(t.Context(), acct, "pump-1", "x", ""))
	must[Quarantined](t)(r.Release(t.Context(), acct, "pump-1", "y"))
	wantEqual(t, must[Listed[string]](t)(r.ListThingGroupsForThing(t.Context(), acct, "pump-1", Page{Limit: 10})).Items, []string{QuarantineGroup})

	taken := newRig(t)
	taken.addThing(t, "pump-1")
	taken.addDynamic(t, QuarantineGroup, "attributes.a:b")
	must[Quarantined](t)(taken.Quarantine(t.Context(), acct, "pump-1", "x", ""))
	wantEqual(t, taken.inQuarantine(t), []string{"pump-1"})
	must[Quarantined](t)(taken.Release(t.Context(), acct, "pump-1", "y"))

	full := newRig(t, func(o *Options) { o.Limits.GroupsPerThing = 1 })
	full.addThing(t, "pump-1")
	full.addGroup(t, "one", "")
	full.joinGroup(t, "pump-1", "one")
	must[Quarantined](t)(full.Quarantine(t.Context(), acct, "pump-1", "x", ""))
	wantEqual(t, len(must[Listed[string]](t)(full.ListThingGroupsForThing(t.Context(), acct, "pump-1", Page{Limit: 10})).Items), 2)
}

// A thing that is deleted or decommissioned while in quarantine leaves nothing
// behind.
func TestQuarantineOfAThingThatGoes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range []string{"pump-1", "pump-2"} {
		r.addThing(t, name)
		c := r.addCertificate(t)
		ok(t, r.AttachThingPrincipal(t.Context(), acct, name, c.ARN, ""))
		must[Quarantined](t)(r.Quarantine(t.Context(), acct, name, "x", ""))
		if name == "pump-1" {
			ok(t, r.DetachThingPrincipal(t.Context(), acct, name, c.ARN))
			ok(t, r.DeleteThing(t.Context(), acct, name, nil))
		} else {
			must[PastThing](t)(r.Decommission(t.Context(), acct, DecommissionCommand{Name: name, KeepCertificates: true}))
		}
		if r.bound(t, c.ID) {
			t.Errorf("the certificate of %s is held for ever", name)
		}
	}
	wantEqual(t, len(r.inQuarantine(t)), 0)
	r.consistent(t)
	r.addThing(t, "pump-1")
	wantEqual(t, len(r.inQuarantine(t)), 0)
	var left []store.Key
	ok(t, r.store.Scan(t.Context(), under(kindQuarantined, acct), func(row store.Record) error { left = append(left, row.Key); return nil }))
	if len(left) > 0 {
		t.Errorf("left are %v", slices.Collect(slices.Values(left)))
	}
}

func TestQuarantineRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addThing(t, "pump-1")
	_, err := r.Quarantine(t.Context(), acct, "pump-1", " ", "")
	wantSays(t, err, fault.InvalidRequest, "reason")
	_, err = r.Quarantine(t.Context(), acct, "pump-9", "x", "")
	wantCode(t, err, fault.ResourceNotFound)
	_, err = r.Release(t.Context(), acct, "pump-9", "x")
	wantCode(t, err, fault.ResourceNotFound)
}

// Orders of a follower are one batch: of several accounts, with things that are
// gone, that come twice, or that are there already.
func TestQuarantineBatch(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addThing(t, "pump-1")
	r.addThing(t, "pump-2")
	must[Thing](t)(r.CreateThing(t.Context(), other, CreateThingCommand{Name: "pump-1"}))
	order := func(account fleet.Account, thing string) QuarantineOrder {
		return QuarantineOrder{Account: account, Thing: thing, Reason: strings.Repeat("x", 2000), By: "test"}
	}
	orders := []QuarantineOrder{order(acct, "pump-1"), order(acct, "gone"), order(acct, "pump-2"), order(acct, "pump-1"), order(other, "pump-1")}
	batch := must[store.Batch](t)(r.QuarantineBatch(t.Context(), orders))
	mark := len(r.store.log())
	must[store.Position](t)(r.store.Commit(t.Context(), batch))
	held := 0
	for _, e := range r.eventsAfter(mark) {
		if q, ok := e.(event.ThingQuarantined); ok {
			held++
			wantEqual(t, len(q.Reason), maxReason)
		}
	}
	wantEqual(t, held, 3)
	wantEqual(t, r.inQuarantine(t), []string{"pump-1", "pump-2"})
	r.consistent(t)
	again := must[store.Batch](t)(r.QuarantineBatch(t.Context(), orders))
	wantEqual(t, len(again.Writes), 0)
	// A batch that was overtaken does not commit.
	must[Quarantined](t)(r.Release(t.Context(), acct, "pump-1", "x"))
	late := must[store.Batch](t)(r.QuarantineBatch(t.Context(), orders))
	must[Quarantined](t)(r.Quarantine(t.Context(), acct, "pump-1", "y", ""))
	if _, err := r.store.Commit(t.Context(), late); !errors.Is(err, store.ErrConflict) {
		t.Errorf("got %v", err)
	}
}
