package registry

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// TestVouch: who stands for which certificate, and with what proof.
func TestVouch(t *testing.T) {
	t.Parallel()
	const elsewhere = fleet.Account("000000000077")
	r := newRig(t)
	ca, trusted, asleep, old := newCA(t, "Acme"), newCA(t, "Trusted"), newCA(t, "Asleep"), newCA(t, "Old", func(c *x509.Certificate) { c.NotAfter = start.Add(time.Hour) })
	r.registerCA(t, ca, ModeDefault)
	r.registerCA(t, trusted, ModeSNIOnly)
	r.registerCA(t, asleep, ModeDefault)
	ok(t, r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: asleep.id(), Status: StatusInactive}))
	r.registerCA(t, old, ModeSNIOnly)
	listed := ca.issue("listed")
	must[RevocationImport](t)(r.ImportRevocationList(t.Context(), acct, ca.id(), ca.list(1, start, newcomer(t, listed).Certificate.SerialNumber.Int64())))
	r.pass(time.Hour)
	alone := newCA(t, "Nobody").issue("alone")
	registered := must[Certificate](t)(r.RegisterCertificateWithoutCA(t.Context(), acct, alone, StatusActive))
	inactive := ca.issue("inactive")
	must[Certificate](t)(r.RegisterCertificate(t.Context(), acct, RegisterCertificateCommand{CertificatePEM: inactive}))
	beside := ca.issue("beside")
	must[Certificate](t)(r.RegisterCertificateWithoutCA(t.Context(), acct, beside, StatusActive))
	for name, c := range map[string]struct {
		text string
		want Voucher
		code fault.Code
	}{
		"under a proved authority": {ca.issue("x"), Voucher{CA: ca.id(), Proved: true}, ""},
		"under a trusted one":      {trusted.issue("x"), Voucher{CA: trusted.id()}, ""},
		"registered alone":         {alone, Voucher{}, ""},
		"registered beside its CA": {beside, Voucher{CA: ca.id(), Proved: true}, ""},
		"registered and inactive":  {inactive, Voucher{}, fault.CertificateState},
		"forged issuer":            {newCA(t, "Acme").issue("x"), Voucher{}, fault.ResourceNotFound},
		"stranger":                 {newCA(t, "Who").issue("x"), Voucher{}, fault.ResourceNotFound},
		"inactive authority":       {asleep.issue("x"), Voucher{}, fault.CertificateState},
		"expired authority":        {old.issue("x"), Voucher{}, fault.CertificateState},
		"on the list of its CA":    {listed, Voucher{}, fault.CertificateValidation},
		"not valid yet":            {ca.issue("x", func(c *x509.Certificate) { c.NotBefore = start.AddDate(0, 0, 1) }), Voucher{}, fault.CertificateValidation},
		"expired":                  {ca.issue("x", func(c *x509.Certificate) { c.NotAfter = start }), Voucher{}, fault.CertificateValidation},
	} {
		got, err := r.Vouch(t.Context(), acct, newcomer(t, c.text).Certificate)
		if got != c.want || fault.CodeOf(err) != c.code {
			t.Errorf("%s: %+v, %v, want %+v, %q", name, got, err, c.want, c.code)
		}
	}
	may := must[[]fleet.Account](t)(r.MayVouch(t.Context(), []fleet.Account{elsewhere, acct}, newcomer(t, ca.issue("y")).Certificate))
	wantEqual(t, may, []fleet.Account{acct})
	may = must[[]fleet.Account](t)(r.MayVouch(t.Context(), []fleet.Account{elsewhere, acct}, newcomer(t, alone).Certificate))
	wantEqual(t, may, []fleet.Account{acct})

	// A guest stands for nothing; who has registered the certificate has no guest.
	y := newcomer(t, ca.issue("guest")).Certificate
	until := start.Add(25 * time.Hour)
	mark := len(r.store.log())
	ends := must[time.Time](t)(r.AdmitGuest(t.Context(), elsewhere, y, "pumps", until))
	wantEqual(t, ends.Equal(until), true)
	wantEqual(t, r.eventsAfter(mark), []event.Event{event.CertificateCreated{CertificateID: CertificateID(y.Raw), Status: StatusActive, NotAfter: y.NotAfter}})
	_, err := r.Vouch(t.Context(), elsewhere, y)
	wantCode(t, err, fault.ResourceNotFound)
	ok(t, func() error {
		guest, err := r.Certificate(t.Context(), elsewhere, CertificateID(y.Raw))
		wantEqual(t, []string{guest.Mode, guest.ClaimTemplate}, []string{ModeSNIOnly, "pumps"})
		return err
	}())
	mark = len(r.store.log())
	ends = must[time.Time](t)(r.AdmitGuest(t.Context(), acct, newcomer(t, alone).Certificate, "pumps", until))
	wantEqual(t, ends.IsZero(), true)
	wantEqual(t, len(r.store.log()), mark)
	wantEqual(t, must[CertificateInfo](t)(r.Certificate(t.Context(), acct, registered.ID)).ClaimTemplate, "")
	_, err = r.AdmitGuest(t.Context(), acct, newcomer(t, inactive).Certificate, "pumps", until)
	wantCode(t, err, fault.CertificateState)
}

// TestAGuestUnderABirthAuthority: in the account of the authority a birth certificate is
// no guest, and is held to the limits of its purpose; elsewhere it is one.
func TestAGuestUnderABirthAuthority(t *testing.T) {
	t.Parallel()
	const elsewhere = fleet.Account("000000000077")
	r := newRig(t)
	ca := newCA(t, "Acme")
	r.registerCA(t, ca, ModeDefault)
	must[CADeclaration](t)(r.DeclareCA(t.Context(), acct, ca.id(), "ours"))
	must[CAPurpose](t)(r.SetCAPurpose(t.Context(), acct, SetCAPurposeCommand{CA: ca.id(), Purpose: PurposeBirth, Fingerprint: ca.id()}))
	c := newcomer(t, ca.issue("x")).Certificate
	id := CertificateID(c.Raw)
	ends := must[time.Time](t)(r.AdmitGuest(t.Context(), acct, c, "pumps", start.Add(time.Hour)))
	wantEqual(t, ends.IsZero(), true)
	own := must[Certificate](t)(r.DescribeCertificate(t.Context(), acct, id))
	wantEqual(t, []string{own.CA, own.Status, own.ClaimTemplate}, []string{ca.id(), StatusActive, ""})
	wantEqual(t, must[Purpose](t)(r.CertificatePurpose(t.Context(), acct, id)).Purpose, PurposeBirth)
	ends = must[time.Time](t)(r.AdmitGuest(t.Context(), elsewhere, c, "pumps", start.Add(time.Hour)))
	wantEqual(t, ends.IsZero(), false)
	wantEqual(t, must[Purpose](t)(r.CertificatePurpose(t.Context(), elsewhere, id)).Purpose, PurposeClaim)
}

// TestVouchNeedsADeclaration: with the setting an authority that proved nothing counts
// once an operator has said why it is trusted.
func TestVouchNeedsADeclaration(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.requireDeclaration = true
	ca := newCA(t, "Acme")
	r.registerCA(t, ca, ModeSNIOnly)
	c := newcomer(t, ca.issue("x")).Certificate
	_, err := r.Vouch(t.Context(), acct, c)
	wantCode(t, err, fault.CertificateState)
	must[CADeclaration](t)(r.DeclareCA(t.Context(), acct, ca.id(), "ours"))
	wantEqual(t, must[Voucher](t)(r.Vouch(t.Context(), acct, c)), Voucher{CA: ca.id()})
}
