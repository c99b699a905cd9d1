package registry

import (
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
)

// wantSays fails unless the error has a code and words.
func wantSays(t *testing.T, err error, code fault.Code, says string) {
	t.Helper()
	if fault.CodeOf(err) != code || !strings.Contains(fault.From(err).Message, says) {
		t.Errorf("got %v, want %s with %q", err, code, says)
	}
}

// birthCA registers an authority of birth certificates.
func (r *rig) birthCA(t *testing.T, mode string, edit ...func(*SetCAPurposeCommand)) *testCA {
	t.Helper()
	ca := newCA(t, "Factory")
	r.registerCA(t, ca, mode)
	must[CADeclaration](t)(r.DeclareCA(t.Context(), acct, ca.id(), "Ours: the factory in Leeds"))
	c := SetCAPurposeCommand{CA: ca.id(), Purpose: PurposeBirth, Fingerprint: ca.id()}
	for _, e := range edit {
		e(&c)
	}
	must[CAPurpose](t)(r.SetCAPurpose(t.Context(), acct, c))
	return ca
}

// M27: a birth CA is owned or explicitly trusted, and is the one that the operator
// means.
func TestBirthAuthorityIsDeclaredAndPinned(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Factory")
	r.registerCA(t, ca, ModeSNIOnly)
	birth := SetCAPurposeCommand{CA: ca.id(), Purpose: PurposeBirth, Fingerprint: ca.id()}
	_, err := r.SetCAPurpose(t.Context(), acct, birth)
	wantSays(t, err, fault.CertificateState, "no operator has declared")
	must[CADeclaration](t)(r.DeclareCA(t.Context(), acct, ca.id(), "Acme's factory CA, by contract 7"))
	for name, c := range map[string]struct {
		edit func(*SetCAPurposeCommand)
		code fault.Code
		says string
	}{
		"no fingerprint":      {func(c *SetCAPurposeCommand) { c.Fingerprint = "" }, fault.InvalidRequest, "fingerprint must be"},
		"another fingerprint": {func(c *SetCAPurposeCommand) { c.Fingerprint = strings.Repeat("0", 64) }, fault.CertificateValidation, "another certificate"},
		"claim":               {func(c *SetCAPurposeCommand) { c.Purpose = PurposeClaim }, fault.InvalidRequest, "no authority"},
		"serial":              {func(c *SetCAPurposeCommand) { c.SerialFrom = "X" }, fault.InvalidRequest, "serialFrom"},
		"networks":            {func(c *SetCAPurposeCommand) { c.Limits.Networks = []string{"192.0.2.7/24"} }, fault.InvalidRequest, "networks[0]"},
		"template":            {func(c *SetCAPurposeCommand) { c.Limits.Template = "a/b" }, fault.InvalidRequest, "template must"},
		"unknown":             {func(c *SetCAPurposeCommand) { c.CA, c.Fingerprint = strings.Repeat("1", 64), strings.Repeat("1", 64) }, fault.ResourceNotFound, "does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command := birth
			c.edit(&command)
			_, err := r.SetCAPurpose(t.Context(), acct, command)
			wantSays(t, err, c.code, c.says)
		})
	}
	mark := len(r.store.log())
	birth.Fingerprint = strings.ToUpper(ca.id()[:2]) + ":" + ca.id()[2:]
	made := must[CAPurpose](t)(r.SetCAPurpose(t.Context(), acct, birth))
	wantEqual(t, []string{made.Purpose, made.Fingerprint, made.Declaration.Statement}, []string{PurposeBirth, ca.id(), "Acme's factory CA, by contract 7"})
	wantEqual(t, must[CAPurpose](t)(r.DescribeCAPurpose(t.Context(), acct, ca.id())), made)
	e, _ := r.eventsAfter(mark)[0].(event.CACertificateChanged)
	wantEqual(t, []string{string(e.Change), e.Purpose, e.PreviousPurpose, e.Fingerprint}, []string{"PURPOSE_SET", PurposeBirth, PurposeOperational, ca.id()})
}

// All under a birth CA are birth certificates: those from before, those from
// after, and those that outlive it; and no template makes them operational.
func TestCertificatesOfABirthAuthority(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Factory")
	r.registerCA(t, ca, ModeDefault)
	before := r.registerUnder(t, ca, "pump-1")
	must[CADeclaration](t)(r.DeclareCA(t.Context(), acct, ca.id(), "Ours"))
	c := SetCAPurposeCommand{CA: ca.id(), Purpose: PurposeBirth, Fingerprint: ca.id(), SerialFrom: SerialFromCommonName, Limits: BirthLimits{Networks: []string{"192.0.2.0/24"}}}
	must[CAPurpose](t)(r.SetCAPurpose(t.Context(), acct, c))
	after := r.registerUnder(t, ca, "pump-2")
	for serial, id := range map[string]string{"pump-1": before.ID, "pump-2": after.ID} {
		p := must[Purpose](t)(r.CertificatePurpose(t.Context(), acct, id))
		wantEqual(t, []string{p.Purpose, p.CA, p.Serial, p.Networks[0]}, []string{PurposeBirth, ca.id(), serial, "192.0.2.0/24"})
		_, err := r.SetCertificatePurpose(t.Context(), acct, SetPurposeCommand{ID: id, Purpose: PurposeOperational})
		wantSays(t, err, fault.CertificateState, "as which it stays")
	}
	_, err := r.SetCAPurpose(t.Context(), acct, SetCAPurposeCommand{CA: ca.id(), Purpose: PurposeOperational})
	wantSays(t, err, fault.CertificateState, "delete them first")
	config := &RegistrationConfig{TemplateBody: jitpBody, RoleARN: "arn:aws:iam::000000000000:role/p"}
	err = r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: ca.id(), RegistrationConfig: config})
	wantSays(t, err, fault.InvalidRequest, "run no registration template")
	_, err = r.RegisterCertificateWithoutCA(t.Context(), acct, ca.issue("pump-3"), "")
	wantSays(t, err, fault.CertificateState, "register it under that")
	_, err = r.TransferCertificate(t.Context(), acct, before.ID, other, "")
	wantSays(t, err, fault.InvalidRequest, "no account")

	ok(t, r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: ca.id(), Status: StatusInactive}))
	ok(t, r.DeleteCACertificate(t.Context(), acct, ca.id()))
	wantEqual(t, must[CertificateInfo](t)(r.Certificate(t.Context(), acct, after.ID)).Purpose.Purpose, PurposeBirth)
	// A CA with a template becomes no birth CA, and one of the past takes up what it was.
	code := must[string](t)(r.GetRegistrationCode(t.Context(), acct))
	_, err = r.RegisterCACertificate(t.Context(), acct, RegisterCACommand{CertificatePEM: ca.pem, VerificationPEM: ca.issue(code), RegistrationConfig: config})
	wantSays(t, err, fault.InvalidRequest, "run no registration template")
	templated := newCA(t, "Templated")
	r.registerCA(t, templated, ModeDefault)
	ok(t, r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: templated.id(), RegistrationConfig: config}))
	must[CADeclaration](t)(r.DeclareCA(t.Context(), acct, templated.id(), "Ours"))
	_, err = r.SetCAPurpose(t.Context(), acct, SetCAPurposeCommand{CA: templated.id(), Purpose: PurposeBirth, Fingerprint: templated.id()})
	wantSays(t, err, fault.CertificateState, "registration template")
}

// A certificate without the serial that its authority promises is bound to none
// that exists, and not to any.
func TestBirthCertificateWithoutASerial(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.birthCA(t, ModeDefault, func(c *SetCAPurposeCommand) { c.SerialFrom = SerialFromSerialNumber })
	id := r.registerUnder(t, ca, "pump-1").ID // has a common name only
	wantEqual(t, must[Purpose](t)(r.CertificatePurpose(t.Context(), acct, id)).Serial, noSerial)
}

func TestMarkedCertificates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.addCertificate(t).ID
	p := must[Purpose](t)(r.CertificatePurpose(t.Context(), acct, id))
	if p.Purpose != PurposeOperational || p.Bound() {
		t.Fatalf("an ordinary certificate is %+v", p)
	}
	mark := len(r.store.log())
	birth := SetPurposeCommand{ID: id, Purpose: PurposeBirth, Serial: "B7-0042", Limits: BirthLimits{Template: "Pumps", Session: 60}}
	p = must[Purpose](t)(r.SetCertificatePurpose(t.Context(), acct, birth))
	if p.Purpose != PurposeBirth || p.Serial != "B7-0042" || p.Template != "Pumps" || !p.Bound() || p.maxUses() != 1 {
		t.Fatalf("got %+v", p)
	}
	wantEqual(t, must[CertificateInfo](t)(r.Certificate(t.Context(), acct, id)).Purpose, p)
	must[Purpose](t)(r.SetCertificatePurpose(t.Context(), acct, birth)) // changes nothing
	wantEqual(t, r.eventsAfter(mark), []event.Event{event.CertificatePurposeChanged{
		CertificateID: id, Purpose: PurposeBirth, PreviousPurpose: PurposeOperational, Serial: "B7-0042", Template: "Pumps",
	}})
	p = must[Purpose](t)(r.SetCertificatePurpose(t.Context(), acct, SetPurposeCommand{ID: id, Purpose: PurposeClaim}))
	if p.Serial != "" || p.Template != "" || p.maxUses() != 0 {
		t.Fatalf("got %+v", p)
	}
	ok(t, r.UpdateCertificate(t.Context(), acct, id, StatusInactive))
	r2 := must[Purpose](t)(r.SetCertificatePurpose(t.Context(), acct, SetPurposeCommand{ID: id, Purpose: PurposeOperational}))
	wantEqual(t, r2.Purpose, PurposeOperational)

	lone := must[Certificate](t)(r.RegisterCertificateWithoutCA(t.Context(), acct, newCA(t, "Nobody").issue("x"), ""))
	trust := newCA(t, "Trusted")
	r.registerCA(t, trust, ModeSNIOnly)
	undeclared := r.registerUnder(t, trust, "pump-1")
	for name, c := range map[string]struct {
		command SetPurposeCommand
		code    fault.Code
		says    string
	}{
		"purpose":         {SetPurposeCommand{ID: id, Purpose: "birth"}, fault.InvalidRequest, "purpose must be"},
		"claim's serial":  {SetPurposeCommand{ID: id, Purpose: PurposeClaim, Serial: "x"}, fault.InvalidRequest, "shared by devices"},
		"operational's":   {SetPurposeCommand{ID: id, Purpose: PurposeOperational, Serial: "x"}, fault.InvalidRequest, "are for certificates of purpose"},
		"serial":          {SetPurposeCommand{ID: id, Purpose: PurposeBirth, Serial: "a\nb"}, fault.InvalidRequest, "control character"},
		"uses":            {SetPurposeCommand{ID: id, Purpose: PurposeClaim, Limits: BirthLimits{MaxUses: -1}}, fault.InvalidRequest, "maxUses"},
		"session":         {SetPurposeCommand{ID: id, Purpose: PurposeClaim, Limits: BirthLimits{Session: 86_401}}, fault.InvalidRequest, "sessionSeconds"},
		"rate":            {SetPurposeCommand{ID: id, Purpose: PurposeClaim, Limits: BirthLimits{Requests: -1}}, fault.InvalidRequest, "requestsPerMinute"},
		"nobody vouches":  {SetPurposeCommand{ID: lone.ID, Purpose: PurposeBirth}, fault.CertificateState, "registered without its CA"},
		"nobody declared": {SetPurposeCommand{ID: undeclared.ID, Purpose: PurposeClaim}, fault.CertificateState, "no operator has declared"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := r.SetCertificatePurpose(t.Context(), acct, c.command)
			wantSays(t, err, c.code, c.says)
		})
	}
}
