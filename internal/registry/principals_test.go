package registry

import (
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// fleet-management §1.4.
func TestAttachThingPrincipal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addThing(t, "T")
	r.addThing(t, "U")
	shared, own := r.addCertificate(t), r.addCertificate(t)
	mark := len(r.store.log())
	ok(t, r.AttachThingPrincipal(ctx, acct, "T", shared.ARN, ""))
	ok(t, r.AttachThingPrincipal(ctx, acct, "T", shared.ARN, NonExclusiveThing))
	ok(t, r.AttachThingPrincipal(ctx, acct, "T", own.ARN, ExclusiveThing))
	ok(t, r.AttachThingPrincipal(ctx, acct, "T", own.ARN, ExclusiveThing))
	wantEqual(t, r.eventsAfter(mark), []event.Event{
		event.PrincipalAttached{Thing: "T", Principal: shared.ARN},
		event.PrincipalAttached{Thing: "T", Principal: own.ARN, Exclusive: true},
	})
	ok(t, r.AttachThingPrincipal(ctx, acct, "U", shared.ARN, ""))
	unknown := own.ARN[:len(own.ARN)-64] + strings.Repeat("a", 64)
	for name, c := range map[string]struct {
		thing, principal, kind string
		code                   fault.Code
	}{
		"exclusive elsewhere":     {"U", own.ARN, "", fault.InvalidRequest},
		"exclusive twice":         {"U", own.ARN, ExclusiveThing, fault.InvalidRequest},
		"exclusive but shared":    {"T", shared.ARN, ExclusiveThing, fault.InvalidRequest},
		"the other kind":          {"T", own.ARN, NonExclusiveThing, fault.InvalidRequest},
		"unknown kind":            {"T", own.ARN, "SOME", fault.InvalidRequest},
		"unknown thing":           {"None", shared.ARN, "", fault.ResourceNotFound},
		"unknown certificate":     {"T", unknown, "", fault.ResourceNotFound},
		"no certificate":          {"T", "arn:aws:iam::000000000000:user/x", "", fault.InvalidRequest},
		"certificate of another":  {"T", strings.Replace(own.ARN, "000000000000", "000000000001", 1), "", fault.InvalidRequest},
		"certificate id too long": {"T", own.ARN + "0", "", fault.InvalidRequest},
	} {
		if err := r.AttachThingPrincipal(ctx, acct, c.thing, c.principal, c.kind); fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	of := func(kind string) []Attachment {
		return allPages(t, 1, func(p Page) (Listed[Attachment], error) { return r.ListThingPrincipals(ctx, acct, "T", kind, p) })
	}
	wantEqual(t, len(of("")), 2)
	wantEqual(t, of(ExclusiveThing), []Attachment{{own.ARN, ExclusiveThing}})
	wantEqual(t, of(NonExclusiveThing), []Attachment{{shared.ARN, NonExclusiveThing}})
	things := must[Listed[Attachment]](t)(r.ListPrincipalThings(ctx, acct, shared.ARN, "", Page{}))
	wantEqual(t, things.Items, []Attachment{{"T", NonExclusiveThing}, {"U", NonExclusiveThing}})
	_, err := r.ListPrincipalThings(ctx, acct, unknown, "", Page{})
	wantCode(t, err, fault.ResourceNotFound)
	_, err = r.ListThingPrincipals(ctx, acct, "None", "", Page{})
	wantCode(t, err, fault.ResourceNotFound)
}

func TestDetachThingPrincipal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addThing(t, "T")
	r.addThing(t, "U")
	c := r.addCertificate(t)
	wantCode(t, r.DetachThingPrincipal(ctx, acct, "T", c.ARN), fault.ResourceNotFound)
	ok(t, r.AttachThingPrincipal(ctx, acct, "T", c.ARN, ExclusiveThing))
	mark := len(r.store.log())
	ok(t, r.DetachThingPrincipal(ctx, acct, "T", c.ARN))
	wantEqual(t, r.eventsAfter(mark), []event.Event{event.PrincipalDetached{Thing: "T", Principal: c.ARN}})
	// The exclusive attachment no longer binds the certificate.
	ok(t, r.AttachThingPrincipal(ctx, acct, "U", c.ARN, ""))
	ok(t, r.DeleteThing(ctx, acct, "T", nil))
}

// device-plane §1.7: an exclusive attachment decides whatever the client id;
// else the thing named like the client id, if attached.
func TestConnectionThing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	must[Thing](t)(r.CreateThing(ctx, acct, CreateThingCommand{Name: "T", Attributes: map[string]string{"site": "oslo"}}))
	r.addThing(t, "U")
	exclusive, shared := r.addCertificate(t), r.addCertificate(t)
	ok(t, r.AttachThingPrincipal(ctx, acct, "T", exclusive.ARN, ExclusiveThing))
	ok(t, r.AttachThingPrincipal(ctx, acct, "T", shared.ARN, ""))
	for name, c := range map[string]struct {
		principal, clientID string
		want                string
		exclusive           bool
	}{
		"exclusive, own id":       {exclusive.ARN, "T", "T", true},
		"exclusive, other thing":  {exclusive.ARN, "U", "T", true},
		"exclusive, any id":       {exclusive.ARN, "any id/at all", "T", true},
		"shared, own id":          {shared.ARN, "T", "T", false},
		"shared, unattached":      {shared.ARN, "U", "", false},
		"shared, no thing's name": {shared.ARN, "x\x00y", "", false},
	} {
		info, found, err := r.ConnectionThing(ctx, acct, c.principal, c.clientID)
		if err != nil || found != (c.want != "") || info.Name != c.want || info.Exclusive != c.exclusive || info.Attached != found {
			t.Errorf("%s: %+v, %v, %v", name, info, found, err)
		}
	}
	info, _, err := r.ConnectionThing(ctx, acct, shared.ARN, "T")
	ok(t, err)
	wantEqual(t, info.Attributes, map[string]string{"site": "oslo"})
	certificate := must[CertificateInfo](t)(r.Certificate(ctx, acct, shared.ID))
	wantEqual(t, certificate, CertificateInfo{
		Purpose: Purpose{Purpose: PurposeOperational}, ID: shared.ID, ARN: shared.ARN, Status: StatusActive, Mode: ModeDefault, NotAfter: shared.NotAfter, PEM: shared.PEM,
	})
}

func TestScans(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addGroup(t, "root", "")
	r.addGroup(t, "leaf", "root")
	r.addDynamic(t, "dyn", "*")
	r.addThing(t, "T")
	r.joinGroup(t, "T", "leaf")
	ok(t, r.CommitMembership(ctx, []MembershipChange{{Account: acct, Group: "dyn", Thing: "T", Added: true}}))
	must[Thing](t)(r.CreateThing(ctx, "000000000001", CreateThingCommand{Name: "T"}))
	var got []string
	add := func(kind string, account fleet.Account, rest ...string) {
		got = append(got, kind+" "+string(account[11:])+" "+strings.Join(rest, " "))
	}
	ok(t, EachThing(ctx, r.store, func(a fleet.Account, x Thing) error {
		var groups []string
		for _, m := range x.Groups {
			groups = append(groups, m.Group)
		}
		add("thing", a, x.Name, strings.Join(groups, ","))
		return nil
	}))
	ok(t, EachGroup(ctx, r.store, func(a fleet.Account, g Group) error { add("group", a, g.Name, g.Parent()); return nil }))
	ok(t, EachDynamicGroup(ctx, r.store, func(a fleet.Account, g Group) error { add("dynamic", a, g.Name, g.Query); return nil }))
	ok(t, EachDynamicMembership(ctx, r.store, func(a fleet.Account, g, x string) error { add("member", a, g, x); return nil }))
	wantEqual(t, got, []string{
		"thing 0 T dyn,leaf", "thing 1 T ", "group 0 dyn ", "group 0 leaf root", "group 0 root ", "dynamic 0 dyn *", "member 0 dyn T",
	})
}
