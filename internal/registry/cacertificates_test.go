package registry

import (
	"crypto/x509"
	"fmt"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/tag"
)

// other is a second account.
const other fleet.Account = "000000000002"

func TestRegistrationCode(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	wantCode(t, r.DeleteRegistrationCode(t.Context(), acct), fault.ResourceNotFound)
	first := must[string](t)(r.GetRegistrationCode(t.Context(), acct))
	if !fleet.ValidCertificateID(first) {
		t.Fatalf("code %q is not 64 hexadecimal digits", first)
	}
	wantEqual(t, must[string](t)(r.GetRegistrationCode(t.Context(), acct)), first)
	if must[string](t)(r.GetRegistrationCode(t.Context(), other)) == first {
		t.Fatal("two accounts have one code")
	}
	ok(t, r.DeleteRegistrationCode(t.Context(), acct))
	if must[string](t)(r.GetRegistrationCode(t.Context(), acct)) == first {
		t.Fatal("a void code came back")
	}
}

func TestRegisterCACertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Acme")
	code := must[string](t)(r.GetRegistrationCode(t.Context(), acct))
	mark := len(r.store.log())
	config := &RegistrationConfig{TemplateBody: jitpBody, RoleARN: "arn:aws:iam::000000000000:role/p"}
	got := must[CACertificate](t)(r.RegisterCACertificate(t.Context(), acct, RegisterCACommand{
		CertificatePEM: ca.pem, VerificationPEM: ca.issue(code), RegistrationConfig: config, AutoRegistration: true,
	}))
	wantEqual(t, got, CACertificate{
		ID: ca.id(), ARN: "arn:aws:iot:us-east-1:000000000000:cacert/" + ca.id(), PEM: ca.pem, Status: StatusInactive, Mode: ModeDefault,
		NotBefore: ca.cert.NotBefore, NotAfter: ca.cert.NotAfter, Created: start, Modified: start, CustomerVersion: 1, GenerationID: got.GenerationID,
		AutoRegistration: true, RegistrationConfig: config, Declaration: CADeclaration{Basis: BasisPossession, At: start},
	})
	wantEqual(t, must[CACertificate](t)(r.DescribeCACertificate(t.Context(), acct, ca.id())), got)
	wantEqual(t, r.eventsAfter(mark), []event.Event{event.CACertificateChanged{
		CACertificateID: ca.id(), Change: event.CACertificateRegistered, Status: StatusInactive, AutoRegistration: true, Mode: ModeDefault,
	}})
	_, err := r.RegisterCACertificate(t.Context(), acct, RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: ca.issue(code)})
	wantCode(t, err, fault.ResourceAlreadyExists)
	wantEqual(t, fault.From(err).ResourceARN, got.ARN)
}

// security-provisioning §6.5: each mistake has its own words.
func TestRegisterCACertificateRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca, foreign := newCA(t, "Acme"), newCA(t, "Acme")
	code := must[string](t)(r.GetRegistrationCode(t.Context(), acct))
	leaf := func(c *x509.Certificate) { c.IsCA = false }
	long := strings.Repeat("x", 10_241)
	for name, c := range map[string]struct {
		command RegisterCACommand
		code    fault.Code
		says    string
	}{
		"garbage":     {RegisterCACommand{CertificatePEM: "x", VerificationPEM: "x"}, fault.CertificateValidation, "caCertificate is no PEM"},
		"mode":        {RegisterCACommand{CertificatePEM: ca.pem, Mode: "X"}, fault.InvalidRequest, "certificateMode"},
		"no proof":    {RegisterCACommand{CertificatePEM: ca.pem}, fault.InvalidRequest, "verificationCertificate must be given"},
		"proof":       {RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: "x", Mode: ModeSNIOnly}, fault.InvalidRequest, "must not be given"},
		"wrong CN":    {RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: ca.issue("x")}, fault.RegistrationCodeValidation, "common name"},
		"wrong key":   {RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: foreign.issue(code)}, fault.CertificateValidation, "not signed by the key of caCertificate"},
		"no CA":       {RegisterCACommand{CertificatePEM: newCA(t, "x", leaf).pem, VerificationPEM: "x"}, fault.CertificateValidation, "CA:TRUE"},
		"no signer":   {RegisterCACommand{CertificatePEM: newCA(t, "x", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }).pem, VerificationPEM: "x"}, fault.CertificateValidation, "key usage"},
		"expired":     {RegisterCACommand{CertificatePEM: newCA(t, "x", func(c *x509.Certificate) { c.NotAfter = start }).pem, VerificationPEM: "x"}, fault.CertificateValidation, "caCertificate: the certificate expired"},
		"early":       {RegisterCACommand{CertificatePEM: newCA(t, "x", func(c *x509.Certificate) { c.NotBefore = start.AddDate(0, 0, 1) }).pem, VerificationPEM: "x"}, fault.CertificateValidation, "not valid before"},
		"old proof":   {RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: ca.issue(code, func(c *x509.Certificate) { c.NotAfter = start })}, fault.CertificateValidation, "verificationCertificate: the certificate expired"},
		"early proof": {RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: ca.issue(code, func(c *x509.Certificate) { c.NotBefore = start.AddDate(0, 0, 1) })}, fault.CertificateValidation, "verificationCertificate is not valid before"},
		"two ways":    {RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: ca.issue(code), RegistrationConfig: &RegistrationConfig{TemplateBody: "{}", TemplateName: "t"}}, fault.InvalidRequest, "either"},
		"no way":      {RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: ca.issue(code), RegistrationConfig: &RegistrationConfig{RoleARN: "r"}}, fault.InvalidRequest, "either"},
		"no role":     {RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: ca.issue(code), RegistrationConfig: &RegistrationConfig{TemplateBody: "{}"}}, fault.InvalidRequest, "roleArn"},
		"long":        {RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: ca.issue(code), RegistrationConfig: &RegistrationConfig{TemplateBody: long, RoleARN: "r"}}, fault.InvalidRequest, "10240"},
		"bad body":    {RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: ca.issue(code), RegistrationConfig: &RegistrationConfig{TemplateBody: "{\n\"Resources\": {}, \"Mapping\": {}}", RoleARN: "r"}}, fault.InvalidRequest, "templateBody: line 2"},
		"fleet body":  {RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: ca.issue(code), RegistrationConfig: &RegistrationConfig{TemplateBody: strings.Replace(jitpBody, "AWS::IoT::Certificate::CommonName", "SerialNumber", 1), RoleARN: "r"}}, fault.InvalidRequest, "JITP"},
		"no template": {RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: ca.issue(code), RegistrationConfig: &RegistrationConfig{TemplateName: "t"}}, fault.ResourceNotFound, "provisioning template t"},
	} {
		_, err := r.RegisterCACertificate(t.Context(), acct, c.command)
		if fault.CodeOf(err) != c.code || !strings.Contains(fault.From(err).Message, c.says) {
			t.Errorf("%s: %v, want %s with %q", name, err, c.code, c.says)
		}
	}
	ok(t, r.DeleteRegistrationCode(t.Context(), acct))
	_, err := r.RegisterCACertificate(t.Context(), acct, RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: ca.issue(code)})
	wantCode(t, err, fault.RegistrationCodeValidation)
}

func TestTenCAsWithOneSubject(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var last *testCA
	for range maxCAsPerSubject {
		last = newCA(t, "Acme")
		r.registerCA(t, last, ModeSNIOnly)
	}
	_, err := r.RegisterCACertificate(t.Context(), acct, RegisterCACommand{CertificatePEM: newCA(t, "Acme").pem, Mode: ModeSNIOnly})
	wantCode(t, err, fault.LimitExceeded)
	r.registerCA(t, newCA(t, "Apex"), ModeSNIOnly)
	ok(t, r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: last.id(), Status: StatusInactive}))
	ok(t, r.DeleteCACertificate(t.Context(), acct, last.id()))
	r.registerCA(t, newCA(t, "Acme"), ModeSNIOnly)
}

// A CA is registered in mode DEFAULT by one account, in SNI_ONLY by many.
func TestOneAccountHasACAInModeDefault(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Acme")
	r.registerCA(t, ca, ModeDefault)
	code := must[string](t)(r.GetRegistrationCode(t.Context(), other))
	claim := RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: ca.issue(code)}
	_, err := r.RegisterCACertificate(t.Context(), other, claim)
	wantCode(t, err, fault.ResourceAlreadyExists)
	if strings.Contains(err.Error(), string(acct)) {
		t.Errorf("%v tells who has it", err)
	}
	for _, account := range []fleet.Account{other, "000000000003"} {
		must[CACertificate](t)(r.RegisterCACertificate(t.Context(), account, RegisterCACommand{CertificatePEM: ca.pem, Mode: ModeSNIOnly}))
		ok(t, r.DeleteCACertificate(t.Context(), account, ca.id()))
	}
	ok(t, r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: ca.id(), Status: StatusInactive}))
	ok(t, r.DeleteCACertificate(t.Context(), acct, ca.id()))
	must[CACertificate](t)(r.RegisterCACertificate(t.Context(), other, claim))
}

func TestUpdateCACertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) {
		o.CheckRegistrationTemplate = templates("pumps")
	})
	ca := newCA(t, "Acme")
	r.registerCA(t, ca, ModeDefault)
	update := func(c UpdateCACommand) error {
		c.ID = ca.id()
		return r.UpdateCACertificate(t.Context(), acct, c)
	}
	yes := true
	mark := len(r.store.log())
	ok(t, update(UpdateCACommand{}))
	ok(t, update(UpdateCACommand{Status: StatusActive}))
	wantEqual(t, len(r.eventsAfter(mark)), 0)
	ok(t, update(UpdateCACommand{Status: StatusInactive, AutoRegistration: &yes, RegistrationConfig: &RegistrationConfig{TemplateName: "pumps"}}))
	got := must[CACertificate](t)(r.DescribeCACertificate(t.Context(), acct, ca.id()))
	wantEqual(t, got.Status, StatusInactive)
	wantEqual(t, *got.RegistrationConfig, RegistrationConfig{TemplateName: "pumps"})
	wantEqual(t, got.CustomerVersion, 2)
	wantEqual(t, len(r.eventsAfter(mark)), 1)
	ok(t, update(UpdateCACommand{RemoveAutoRegistration: true}))
	got = must[CACertificate](t)(r.DescribeCACertificate(t.Context(), acct, ca.id()))
	if got.RegistrationConfig != nil || got.AutoRegistration {
		t.Errorf("left %+v", got)
	}
	wantCode(t, update(UpdateCACommand{Status: StatusRevoked}), fault.InvalidRequest)
	wantCode(t, update(UpdateCACommand{RemoveAutoRegistration: true, AutoRegistration: &yes}), fault.InvalidRequest)
	wantCode(t, update(UpdateCACommand{RegistrationConfig: &RegistrationConfig{TemplateName: "fans"}}), fault.ResourceNotFound)
	wantCode(t, r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: "x"}), fault.InvalidRequest)
	wantCode(t, r.UpdateCACertificate(t.Context(), other, UpdateCACommand{ID: ca.id(), Status: StatusActive}), fault.ResourceNotFound)
}

func TestDeleteCACertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Acme")
	code := must[string](t)(r.GetRegistrationCode(t.Context(), acct))
	must[CACertificate](t)(r.RegisterCACertificate(t.Context(), acct, RegisterCACommand{
		CertificatePEM: ca.pem, VerificationPEM: ca.issue(code), Active: true, Tags: []tag.Tag{{Key: "site", Value: "leeds"}},
	}))
	c := r.registerUnder(t, ca, "pump-1")
	wantCode(t, r.DeleteCACertificate(t.Context(), acct, ca.id()), fault.CertificateState)
	wantCode(t, r.DeleteCACertificate(t.Context(), other, ca.id()), fault.ResourceNotFound)
	ok(t, r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: ca.id(), Status: StatusInactive}))
	ok(t, r.DeleteCACertificate(t.Context(), acct, ca.id()))
	_, err := r.DescribeCACertificate(t.Context(), acct, ca.id())
	wantCode(t, err, fault.ResourceNotFound)
	// Its certificates go on.
	wantEqual(t, must[Certificate](t)(r.DescribeCertificate(t.Context(), acct, c.ID)).Status, StatusActive)
	ok(t, r.UpdateCertificate(t.Context(), acct, c.ID, StatusInactive))
	ok(t, r.DeleteCertificate(t.Context(), acct, c.ID, false))
	ok(t, r.DeleteRegistrationCode(t.Context(), acct))
	wantEqual(t, r.store.left(), nil)
}

func TestListCACertificates(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.CheckRegistrationTemplate = templates("pumps") })
	var ids []string
	for i := range 7 {
		ca := newCA(t, fmt.Sprintf("CA %d", i))
		r.registerCA(t, ca, ModeSNIOnly)
		ids = append(ids, ca.id())
		r.pass(1e9)
	}
	list := func(template string, ascending bool) []string {
		var got []string
		for _, c := range allPages(t, 2, func(p Page) (Listed[CACertificate], error) {
			return r.ListCACertificates(t.Context(), acct, template, ascending, p)
		}) {
			got = append(got, c.ID)
		}
		return got
	}
	wantEqual(t, list("", true), ids)
	wantEqual(t, list("", false)[0], ids[6])
	ok(t, r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: ids[4], RegistrationConfig: &RegistrationConfig{TemplateName: "pumps"}}))
	wantEqual(t, list("pumps", true), []string{ids[4]})
	wantEqual(t, len(must[Listed[CACertificate]](t)(r.ListCACertificates(t.Context(), other, "", true, Page{})).Items), 0)
}
