package registry

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// templates knows one provisioning template.
func templates(name string) func(context.Context, fleet.Account, string) error {
	return func(_ context.Context, _ fleet.Account, asked string) error {
		if asked != name {
			return notFound("provisioning template", asked)
		}
		return nil
	}
}

func TestRegisterCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	proven, named := newCA(t, "Proven"), newCA(t, "Named")
	r.registerCA(t, proven, ModeDefault)
	r.registerCA(t, named, ModeSNIOnly)
	for mode, ca := range map[string]*testCA{ModeDefault: proven, ModeSNIOnly: named} {
		text := ca.issue("pump-1")
		got := must[Certificate](t)(r.RegisterCertificate(t.Context(), acct, RegisterCertificateCommand{CertificatePEM: text}))
		wantEqual(t, []string{got.Mode, got.CA, got.Status, got.PEM, string(got.Owner)}, []string{mode, ca.id(), StatusInactive, text, string(acct)})
		_, err := r.RegisterCertificate(t.Context(), acct, RegisterCertificateCommand{CertificatePEM: text})
		wantCode(t, err, fault.ResourceAlreadyExists)
	}
}

func TestRegisterCertificateRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca, stranger, impostor := newCA(t, "Acme"), newCA(t, "Nobody"), newCA(t, "Acme")
	r.registerCA(t, ca, ModeDefault)
	device := ca.issue("pump-1")
	for name, c := range map[string]struct {
		command RegisterCertificateCommand
		code    fault.Code
		says    string
	}{
		"garbage":        {RegisterCertificateCommand{CertificatePEM: "x"}, fault.CertificateValidation, "certificatePem is no PEM"},
		"status":         {RegisterCertificateCommand{CertificatePEM: device, Status: StatusRevoked}, fault.InvalidRequest, "ACTIVE or INACTIVE"},
		"pending":        {RegisterCertificateCommand{CertificatePEM: device, Status: StatusPendingActivation}, fault.InvalidRequest, "ACTIVE or INACTIVE"},
		"unknown issuer": {RegisterCertificateCommand{CertificatePEM: stranger.issue("x")}, fault.CertificateValidation, "no registered CA"},
		"same subject":   {RegisterCertificateCommand{CertificatePEM: impostor.issue("x")}, fault.CertificateValidation, "no registered CA"},
		"other CA":       {RegisterCertificateCommand{CertificatePEM: device, CACertificatePEM: impostor.pem}, fault.CertificateConflict, "not signed by caCertificatePem"},
		"foreign CA":     {RegisterCertificateCommand{CertificatePEM: stranger.issue("x"), CACertificatePEM: stranger.pem}, fault.CertificateValidation, "is not registered"},
		"CA garbage":     {RegisterCertificateCommand{CertificatePEM: device, CACertificatePEM: "x"}, fault.CertificateValidation, "caCertificatePem is no PEM"},
		"expired":        {RegisterCertificateCommand{CertificatePEM: ca.issue("x", func(c *x509.Certificate) { c.NotAfter = start })}, fault.CertificateValidation, "expired"},
	} {
		_, err := r.RegisterCertificate(t.Context(), acct, c.command)
		if fault.CodeOf(err) != c.code || !strings.Contains(fault.From(err).Message, c.says) {
			t.Errorf("%s: %v, want %s with %q", name, err, c.code, c.says)
		}
	}
	// An inactive authority takes no new certificates; those that are there go on.
	there := r.registerUnder(t, ca, "pump-2")
	ok(t, r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: ca.id(), Status: StatusInactive}))
	_, err := r.RegisterCertificate(t.Context(), acct, RegisterCertificateCommand{CertificatePEM: device})
	wantCode(t, err, fault.CertificateState)
	wantEqual(t, must[Certificate](t)(r.DescribeCertificate(t.Context(), acct, there.ID)).Status, StatusActive)
}

// Vouched says under whom a certificate could register, and does not do it.
func TestVouched(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca, stranger := newCA(t, "Acme"), newCA(t, "Acme")
	r.registerCA(t, ca, ModeSNIOnly)
	text := ca.issue("pump-1")
	mark := len(r.store.log())
	for range 2 {
		c, id, err := r.Vouched(t.Context(), acct, text)
		if err != nil || id != ca.id() || c.Subject.CommonName != "pump-1" {
			t.Fatal(c, id, err)
		}
	}
	wantEqual(t, len(r.eventsAfter(mark)), 0)
	for name, c := range map[string]struct {
		account fleet.Account
		text    string
		code    fault.Code
	}{
		"stranger": {acct, stranger.issue("pump-1"), fault.CertificateValidation}, "other account": {"000000000009", text, fault.CertificateValidation},
		"text": {acct, "hello", fault.CertificateValidation},
	} {
		_, _, err := r.Vouched(t.Context(), c.account, c.text)
		if fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	ok(t, r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: ca.id(), Status: StatusInactive}))
	_, _, err := r.Vouched(t.Context(), acct, text)
	wantCode(t, err, fault.CertificateState)
}

func TestExpiredAuthorityTakesNoCertificates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Acme", func(c *x509.Certificate) { c.NotAfter = start.AddDate(0, 1, 0) })
	r.registerCA(t, ca, ModeSNIOnly)
	r.clock.Store(start.AddDate(0, 2, 0).UnixNano())
	_, err := r.RegisterCertificate(t.Context(), acct, RegisterCertificateCommand{CertificatePEM: ca.issue("x")})
	wantCode(t, err, fault.CertificateValidation)
}

// Several authorities with the issuer's subject and key: a renewed CA.
func TestRegisterCertificateUnderOneOfSeveral(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := newCA(t, "Acme")
	renewed, unrelated := caWithKey(t, "Acme", first.key), newCA(t, "Acme")
	for _, ca := range []*testCA{first, renewed, unrelated} {
		r.registerCA(t, ca, ModeSNIOnly)
	}
	text := first.issue("pump-1")
	_, err := r.RegisterCertificate(t.Context(), acct, RegisterCertificateCommand{CertificatePEM: text})
	wantCode(t, err, fault.CertificateConflict)
	got := must[Certificate](t)(r.RegisterCertificate(t.Context(), acct, RegisterCertificateCommand{CertificatePEM: text, CACertificatePEM: renewed.pem}))
	wantEqual(t, got.CA, renewed.id())
	// One of the same subject with its own key needs no help.
	got = must[Certificate](t)(r.RegisterCertificate(t.Context(), acct, RegisterCertificateCommand{CertificatePEM: unrelated.issue("pump-2")}))
	wantEqual(t, got.CA, unrelated.id())
}

func TestListCertificatesByCA(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	one, two := newCA(t, "One"), newCA(t, "Two")
	r.registerCA(t, one, ModeDefault)
	r.registerCA(t, two, ModeDefault)
	var ids []string
	for i := range 5 {
		ids = append(ids, r.registerUnder(t, one, fmt.Sprintf("pump-%d", i)).ID)
		r.registerUnder(t, two, "fan")
		r.pass(1e9)
	}
	list := func(ca string, ascending bool) []string {
		var got []string
		for _, c := range allPages(t, 2, func(p Page) (Listed[Certificate], error) {
			return r.ListCertificatesByCA(t.Context(), acct, ca, ascending, p)
		}) {
			got = append(got, c.ID)
		}
		return got
	}
	wantEqual(t, list(one.id(), true), ids)
	wantEqual(t, list(one.id(), false)[0], ids[4])
	wantEqual(t, list(strings.Repeat("0", 64), true), nil)
	ok(t, r.UpdateCertificate(t.Context(), acct, ids[2], StatusInactive))
	ok(t, r.DeleteCertificate(t.Context(), acct, ids[2], false))
	wantEqual(t, list(one.id(), true), []string{ids[0], ids[1], ids[3], ids[4]})
	_, err := r.ListCertificatesByCA(t.Context(), acct, "x", true, Page{})
	wantCode(t, err, fault.InvalidRequest)
}
