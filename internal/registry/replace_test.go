package registry

import (
	"errors"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

// replaceable is a thing with three certificates; the third replaces the others.
func replaceable(t *testing.T) (r *rig, first, second, by Certificate) {
	t.Helper()
	r = newRig(t)
	r.addThing(t, "pump")
	r.addThing(t, "valve")
	made := make([]Certificate, 3)
	for i := range made {
		made[i] = r.addCertificate(t).Certificate
		ok(t, r.UpdateCertificate(t.Context(), acct, made[i].ID, StatusActive))
		ok(t, r.AttachThingPrincipal(t.Context(), acct, "pump", made[i].ARN, ""))
	}
	return r, made[0], made[1], made[2]
}

func TestReplaceIsOneCommit(t *testing.T) {
	t.Parallel()
	r, first, second, by := replaceable(t)
	ok(t, r.AttachThingPrincipal(t.Context(), acct, "valve", second.ARN, ""))
	mark, commits := len(r.store.log()), 0
	r.store.hook(func(store.Batch) error {
		commits++
		return nil
	})
	var told []Replaced
	gone := "0000000000000000000000000000000000000000000000000000000000000000"
	replace := func() {
		t.Helper()
		ok(t, r.ReplaceCertificates(t.Context(), acct, ReplaceCommand{
			Thing: "pump", By: by.ID, Old: []string{first.ID, second.ID, gone},
			Joined: func(ended []Replaced) (store.Batch, error) {
				told = ended
				return store.Batch{Events: []event.Envelope{{Event: event.CertificateRenewalChanged{Thing: "pump"}}}}, nil
			},
		}))
	}
	replace()
	r.store.unhook()
	wantEqual(t, commits, 1)
	wantEqual(t, told, []Replaced{
		{ID: first.ID, Status: StatusInactive, Detached: true},
		{ID: second.ID, Status: StatusActive, Detached: true, Shared: true},
		{ID: gone},
	})
	var names []string
	for _, e := range r.eventsAfter(mark) {
		names = append(names, event.TypeName(e))
	}
	wantEqual(t, names, []string{"PrincipalDetached", "CertificateStatusChanged", "PrincipalDetached", "CertificateRenewalChanged"})
	left := must[Listed[Attachment]](t)(r.ListThingPrincipals(t.Context(), acct, "pump", "", Page{Limit: 9}))
	wantEqual(t, left.Items, []Attachment{{Name: by.ARN, Kind: NonExclusiveThing}})
	// It can be repeated.
	replace()
	wantEqual(t, told, []Replaced{{ID: first.ID, Status: StatusInactive}, {ID: second.ID, Status: StatusActive, Shared: true}, {ID: gone}})
	// The counts are right: both ends can go.
	ok(t, r.DeleteCertificate(t.Context(), acct, first.ID, true))
	ok(t, r.DetachThingPrincipal(t.Context(), acct, "pump", by.ARN))
	ok(t, r.DeleteThing(t.Context(), acct, "pump", nil))
}

// A certificate that does not let its device act as the thing replaces nothing.
func TestReplaceRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil  func(r *rig, by Certificate)
		reason string
		final  bool
	}{
		"inactive": {func(r *rig, by Certificate) {
			ok(t, r.UpdateCertificate(t.Context(), acct, by.ID, StatusInactive))
		}, "the new certificate is INACTIVE", false},
		"revoked": {func(r *rig, by Certificate) {
			ok(t, r.UpdateCertificate(t.Context(), acct, by.ID, StatusRevoked))
		}, "the new certificate is REVOKED", true},
		"detached": {func(r *rig, by Certificate) {
			ok(t, r.DetachThingPrincipal(t.Context(), acct, "pump", by.ARN))
		}, "the new certificate is not attached to the thing", false},
		"deleted": {func(r *rig, by Certificate) {
			ok(t, r.DetachThingPrincipal(t.Context(), acct, "pump", by.ARN))
			ok(t, r.UpdateCertificate(t.Context(), acct, by.ID, StatusInactive))
			ok(t, r.DeleteCertificate(t.Context(), acct, by.ID, true))
		}, "the new certificate does not exist", true},
		"expired": {func(r *rig, by Certificate) { r.pass(by.NotAfter.Sub(start) + time.Second) }, "the new certificate has expired", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, first, _, by := replaceable(t)
			c.spoil(r, by)
			before := r.store.records()
			err := r.ReplaceCertificates(t.Context(), acct, ReplaceCommand{Thing: "pump", By: by.ID, Old: []string{first.ID}, Joined: func([]Replaced) (store.Batch, error) {
				t.Error("asked what goes with it")
				return store.Batch{}, nil
			}})
			for _, err := range []error{err, r.CanReplace(t.Context(), acct, "pump", by.ID)} {
				not, is := errors.AsType[*NotReplacedError](err)
				if !is || not.Reason != c.reason || not.Final != c.final {
					t.Errorf("got %v", err)
				}
			}
			wantEqual(t, r.store.records(), before)
		})
	}
}
