package registry

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// One commit ends a thing: certificates of its own are revoked, shared ones
// only detached, groups and filters lose it, its record stays.
func TestDecommission(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	actor := fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "root"}, SourceAddress: "192.0.2.1"}
	ctx := fleet.WithActor(t.Context(), actor)
	must[ThingType](t)(r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: "Pump"}))
	thing := must[Thing](t)(r.CreateThing(ctx, acct, CreateThingCommand{Name: "T", TypeName: "Pump", Attributes: map[string]string{"site": "leeds"}}))
	r.addThing(t, "Other")
	group := r.addGroup(t, "G", "")
	r.joinGroup(t, "T", "G")
	own, revokedBefore, shared := r.addCertificate(t), r.addCertificate(t), r.addCertificate(t)
	r.addPolicy(t, "P")
	ok(t, r.AttachPolicy(ctx, acct, "P", own.ARN))
	ok(t, r.AttachThingPrincipal(ctx, acct, "T", own.ARN, ExclusiveThing))
	ok(t, r.AttachThingPrincipal(ctx, acct, "T", revokedBefore.ARN, ""))
	ok(t, r.UpdateCertificate(ctx, acct, revokedBefore.ID, StatusRevoked))
	for _, name := range []string{"T", "Other"} {
		ok(t, r.AttachThingPrincipal(ctx, acct, name, shared.ARN, ""))
	}
	r.pass(time.Hour)
	mark, waits := len(r.store.log()), r.barrier.count()
	commits := 0
	r.store.hook(func(store.Batch) error { commits++; return nil })
	past := must[PastThing](t)(r.Decommission(ctx, acct, DecommissionCommand{Name: "T", Reason: "scrapped: pump house flooded"}))
	r.store.unhook()
	if commits != 1 {
		t.Errorf("%d commits", commits)
	}
	if r.barrier.count() != waits+1 {
		t.Error("did not wait for the connections")
	}
	want := PastThing{
		Name: "T", ID: thing.ID, TypeName: "Pump", Attributes: map[string]string{"site": "leeds"}, Version: 1,
		Groups: []Membership{{Group: "G"}}, Created: start, Ended: start.Add(time.Hour), Actor: actor, Reason: "scrapped: pump house flooded",
	}
	certificates := map[string]PastCertificate{}
	for _, c := range past.Certificates {
		certificates[c.ID] = c
	}
	wantEqual(t, certificates, map[string]PastCertificate{
		own.ID: {ID: own.ID, Revoked: true}, revokedBefore.ID: {ID: revokedBefore.ID}, shared.ID: {ID: shared.ID, Shared: true},
	})
	want.Certificates = past.Certificates
	wantEqual(t, past, want)
	seen := map[string]int{}
	for _, e := range r.eventsAfter(mark) {
		switch e := e.(type) {
		case event.CertificateStatusChanged:
			wantEqual(t, e, event.CertificateStatusChanged{CertificateID: own.ID, Status: StatusRevoked, PreviousStatus: StatusActive})
			seen["revoked"]++
		case event.PrincipalDetached:
			seen["detached"]++
		case event.ThingDeleted:
			wantEqual(t, e, event.ThingDeleted{
				Thing: "T", ThingID: thing.ID, Version: 1, TypeName: "Pump", Attributes: map[string]string{"site": "leeds"},
				Groups: []string{"G"}, GroupIDs: []string{group.ID},
			})
			seen["deleted"]++
		case event.ThingDecommissioned:
			wantEqual(t, e, event.ThingDecommissioned{Thing: "T", ThingID: thing.ID, Certificates: []string{own.ID}, Reason: want.Reason})
			seen["decommissioned"]++
		default:
			t.Errorf("unexpected %T", e)
		}
	}
	wantEqual(t, seen, map[string]int{"revoked": 1, "detached": 3, "deleted": 1, "decommissioned": 1})

	_, err := r.DescribeThing(ctx, acct, "T")
	wantCode(t, err, fault.ResourceNotFound)
	for id, status := range map[string]string{own.ID: StatusRevoked, revokedBefore.ID: StatusRevoked, shared.ID: StatusActive} {
		wantEqual(t, must[Certificate](t)(r.DescribeCertificate(ctx, acct, id)).Status, status)
	}
	wantEqual(t, must[Listed[Attachment]](t)(r.ListPrincipalThings(ctx, acct, shared.ARN, "", Page{})).Items, []Attachment{{Name: "Other", Kind: NonExclusiveThing}})
	ok(t, r.DeleteCertificate(ctx, acct, own.ID, true)) // it counts no things any more
	for _, rows := range []store.Range{
		under(kindThingPrincipal, acct, "T"), under(kindGroupThing, acct, "G"), under(kindThingByType, acct, "Pump"), under(kindThingByAttribute, acct),
	} {
		if left, _, err := keysOf(ctx, r.store, rows, "", 10); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
}

func TestDecommissionKeepsCertificates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addThing(t, "T")
	c := r.addCertificate(t)
	ok(t, r.AttachThingPrincipal(ctx, acct, "T", c.ARN, ExclusiveThing))
	past := must[PastThing](t)(r.Decommission(ctx, acct, DecommissionCommand{Name: "T", KeepCertificates: true}))
	wantEqual(t, past.Certificates, []PastCertificate{{ID: c.ID}})
	wantEqual(t, must[Certificate](t)(r.DescribeCertificate(ctx, acct, c.ID)).Status, StatusActive)
	// It is free for another thing.
	r.addThing(t, "U")
	ok(t, r.AttachThingPrincipal(ctx, acct, "U", c.ARN, ExclusiveThing))
}

// Who repeats the act says whose end is meant: the next thing of the name lives.
func TestDecommissionOneLife(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	first := r.addThing(t, "T")
	ended := must[PastThing](t)(r.Decommission(ctx, acct, DecommissionCommand{Name: "T", ThingID: first.ID}))
	r.pass(time.Minute)
	second := r.addThing(t, "T")
	again := must[PastThing](t)(r.Decommission(ctx, acct, DecommissionCommand{Name: "T", ThingID: first.ID}))
	wantEqual(t, again.ID, ended.ID)
	wantEqual(t, must[Thing](t)(r.DescribeThing(ctx, acct, "T")).ID, second.ID)
	_, err := r.Decommission(ctx, acct, DecommissionCommand{Name: "T", ThingID: "nobody"})
	wantCode(t, err, fault.ResourceNotFound)
}

// A name has as many former lives as it was decommissioned, each with its own
// thing id, the newest first; the act can be repeated.
func TestPastThings(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	_, err := r.Decommission(ctx, acct, DecommissionCommand{Name: "T"})
	wantCode(t, err, fault.ResourceNotFound)
	var want []string
	for range 3 {
		thing := r.addThing(t, "T")
		want = append([]string{thing.ID}, want...)
		past := must[PastThing](t)(r.Decommission(ctx, acct, DecommissionCommand{Name: "T"}))
		mark := len(r.store.log())
		wantEqual(t, must[PastThing](t)(r.Decommission(ctx, acct, DecommissionCommand{Name: "T", Reason: "again"})), past)
		wantEqual(t, len(r.eventsAfter(mark)), 0)
		r.pass(time.Millisecond)
	}
	r.addThing(t, "TT") // not the same name
	must[PastThing](t)(r.Decommission(ctx, acct, DecommissionCommand{Name: "TT"}))
	lives := allPages(t, 2, func(p Page) (Listed[PastThing], error) { return r.PastThings(ctx, acct, "T", p) })
	var got []string
	for _, life := range lives {
		got = append(got, life.ID)
		wantEqual(t, life.Completed.IsZero(), true)
	}
	wantEqual(t, got, want)
	done := must[PastThing](t)(r.CompleteDecommission(ctx, acct, lives[1]))
	wantEqual(t, done.Completed.IsZero(), false)
	r.pass(time.Hour)
	wantEqual(t, must[PastThing](t)(r.CompleteDecommission(ctx, acct, lives[1])), done)
	none := must[Listed[PastThing]](t)(r.PastThings(ctx, "000000000001", "T", Page{}))
	wantEqual(t, len(none.Items), 0)
}

func TestDecommissionRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addThing(t, "T")
	for name, c := range map[string]DecommissionCommand{
		"name": {Name: "a b"}, "long reason": {Name: "T", Reason: strings.Repeat("é", 1025)},
		"control": {Name: "T", Reason: "a\nb"}, "encoding": {Name: "T", Reason: "\xff"},
	} {
		if _, err := r.Decommission(t.Context(), acct, c); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	must[PastThing](t)(r.Decommission(t.Context(), acct, DecommissionCommand{Name: "T", Reason: strings.Repeat("é", 1024)}))
}

// A failed commit leaves everything as it was.
func TestDecommissionFailsWhole(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addThing(t, "T")
	c := r.addCertificate(t)
	ok(t, r.AttachThingPrincipal(ctx, acct, "T", c.ARN, ""))
	r.store.hook(func(store.Batch) error { return errors.New("broken") })
	_, err := r.Decommission(ctx, acct, DecommissionCommand{Name: "T"})
	wantCode(t, err, fault.Internal)
	r.store.unhook()
	wantEqual(t, must[Certificate](t)(r.DescribeCertificate(ctx, acct, c.ID)).Status, StatusActive)
	must[Thing](t)(r.DescribeThing(ctx, acct, "T"))
	wantEqual(t, len(must[Listed[PastThing]](t)(r.PastThings(ctx, acct, "T", Page{})).Items), 0)
}

// Certificates that come and go while a thing is decommissioned: none stays
// active with a thing that is gone, none keeps a wrong count.
func TestDecommissionRaces(t *testing.T) {
	t.Parallel()
	for range rounds(t, 40) {
		r := newRig(t)
		ctx := t.Context()
		r.addThing(t, "T")
		r.addThing(t, "U")
		a, b := r.addCertificate(t), r.addCertificate(t)
		ok(t, r.AttachThingPrincipal(ctx, acct, "T", a.ARN, ""))
		together(
			func() error {
				_, err := r.Decommission(ctx, acct, DecommissionCommand{Name: "T"})
				return err
			},
			func() error {
				_, err := r.Decommission(ctx, acct, DecommissionCommand{Name: "T"})
				return err
			},
			func() error { return r.AttachThingPrincipal(ctx, acct, "T", b.ARN, "") },
			func() error { return r.AttachThingPrincipal(ctx, acct, "U", a.ARN, "") },
			func() error { return r.DetachThingPrincipal(ctx, acct, "T", a.ARN) },
		)
		lives := must[Listed[PastThing]](t)(r.PastThings(ctx, acct, "T", Page{})).Items
		if len(lives) != 1 {
			t.Fatalf("%d lives", len(lives))
		}
		for _, c := range []KeysAndCertificate{a, b} {
			things := must[Listed[Attachment]](t)(r.ListPrincipalThings(ctx, acct, c.ARN, "", Page{})).Items
			record := must[*certificateRecord](t)(r.findCertificate(ctx, acct, c.ID))
			wantEqual(t, record.Things, len(things))
			for _, thing := range things {
				wantEqual(t, thing.Name, "U")
			}
			for _, past := range lives[0].Certificates {
				if past.ID == c.ID && !past.Shared {
					wantEqual(t, record.Status, StatusRevoked)
				}
			}
		}
	}
}
