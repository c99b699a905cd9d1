package registry

import (
	"fmt"
	"slices"
	"testing"

	"github.com/muster-iot/muster/internal/fleet"
)

// TestAttachedCertificates: what the fleet index asks about certificates, thing
// by thing, certificate by certificate and over all accounts.
func TestAttachedCertificates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	// More attachments than are read at a time.
	const things = attachedBatch + 10
	shared, own := r.addCertificate(t), r.addCertificate(t)
	var names []string
	for i := range things {
		name := fmt.Sprintf("T%04d", i)
		names = append(names, name)
		r.addThing(t, name)
		ok(t, r.AttachThingPrincipal(ctx, acct, name, shared.ARN, ""))
	}
	ok(t, r.AttachThingPrincipal(ctx, acct, "T0000", own.ARN, ""))
	ok(t, r.UpdateCertificate(ctx, acct, own.ID, StatusInactive))

	sharedNow := AttachedCertificate{Status: StatusActive, NotAfter: must[Certificate](t)(r.DescribeCertificate(ctx, acct, shared.ID)).NotAfter}
	ownNow := AttachedCertificate{Status: StatusInactive, NotAfter: must[Certificate](t)(r.DescribeCertificate(ctx, acct, own.ID)).NotAfter}
	found := must[[]AttachedCertificate](t)(r.AttachedCertificates(ctx, acct, "T0000"))
	if len(found) != 2 || !slices.Contains(found, sharedNow) || !slices.Contains(found, ownNow) {
		t.Errorf("T0000 has %v", found)
	}
	wantEqual(t, must[[]AttachedCertificate](t)(r.AttachedCertificates(ctx, acct, "T0001")), []AttachedCertificate{sharedNow})
	wantEqual(t, must[[]AttachedCertificate](t)(r.AttachedCertificates(ctx, acct, "None")), nil)
	wantEqual(t, must[[]AttachedCertificate](t)(r.AttachedCertificates(ctx, "000000000009", "T0001")), nil)

	wantEqual(t, must[[]string](t)(r.CertificateThings(ctx, acct, shared.ID)), names)
	wantEqual(t, must[[]string](t)(r.CertificateThings(ctx, acct, own.ID)), []string{"T0000"})

	of := map[string]int{}
	ok(t, EachAttachedCertificate(ctx, r.store, "", func(account fleet.Account, thing string, c AttachedCertificate) error {
		if account != acct || (c != sharedNow && c != ownNow) {
			t.Errorf("%s %s %v", account, thing, c)
		}
		of[thing]++
		return nil
	}))
	if len(of) != things || of["T0000"] != 2 || of["T0001"] != 1 {
		t.Errorf("%d things, %d and %d certificates", len(of), of["T0000"], of["T0001"])
	}
}
