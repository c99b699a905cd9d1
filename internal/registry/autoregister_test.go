package registry

import (
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// jitpBody is a template for devices that register themselves.
const jitpBody = `{"Parameters":{"AWS::IoT::Certificate::CommonName":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},
 "Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"}}},
  "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}}}}`

// automatic registers an authority with automatic registration in an account.
func (r *rig) automatic(t *testing.T, account fleet.Account, c *testCA, mode string) CACertificate {
	t.Helper()
	command := RegisterCACommand{CertificatePEM: c.pem, Mode: mode, Active: true, AutoRegistration: true}
	if mode == ModeDefault {
		command.VerificationPEM = c.issue(must[string](t)(r.GetRegistrationCode(t.Context(), account)))
	}
	return must[CACertificate](t)(r.RegisterCACertificate(t.Context(), account, command))
}

// newcomer is a peer that has named its endpoint.
func newcomer(t *testing.T, text string) Newcomer {
	t.Helper()
	return Newcomer{Certificate: must[parsedCertificate](t)(parseCertificate(text)).x509, Named: true}
}

// security-provisioning §2.4, §6.4.
func TestAutoRegister(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Acme")
	r.automatic(t, acct, ca, ModeDefault)
	n := newcomer(t, ca.issue("pump-1"))
	mark := len(r.store.log())
	found := must[Introduction](t)(r.AutoRegister(t.Context(), acct, n))
	id := CertificateID(n.Certificate.Raw)
	wantEqual(t, found, Introduction{CertificateID: id, CA: ca.id(), Status: StatusPendingActivation, Waiting: true, New: true, Announced: true})
	wantEqual(t, r.eventsAfter(mark), []event.Event{
		event.CertificateCreated{CertificateID: id, Status: StatusPendingActivation, NotAfter: n.Certificate.NotAfter},
		event.CertificateAutoRegistered{CertificateID: id, CACertificateID: ca.id(), Registered: start.UnixMilli()},
	})
	registered := must[Certificate](t)(r.DescribeCertificate(t.Context(), acct, id))
	wantEqual(t, []string{registered.Mode, registered.CA, registered.Status}, []string{ModeDefault, ca.id(), StatusPendingActivation})
	wantEqual(t, len(must[Listed[Certificate]](t)(r.ListCertificatesByCA(t.Context(), acct, ca.id(), true, Page{})).Items), 1)

	// It is announced again at most once in 60 seconds, also after a restart.
	mark = len(r.store.log())
	r.pass(59 * time.Second)
	found = must[Introduction](t)(r.AutoRegister(t.Context(), acct, n))
	wantEqual(t, found, Introduction{CertificateID: id, CA: ca.id(), Status: StatusPendingActivation, Waiting: true})
	wantEqual(t, len(r.eventsAfter(mark)), 0)
	r.pass(time.Second)
	wantEqual(t, must[Introduction](t)(r.AutoRegister(t.Context(), acct, n)).Announced, true)
	wantEqual(t, r.eventsAfter(mark), []event.Event{
		event.CertificateAutoRegistered{CertificateID: id, CACertificateID: ca.id(), Registered: start.UnixMilli()},
	})

	// What is active waits for nothing; what is gone leaves nothing.
	ok(t, r.UpdateCertificate(t.Context(), acct, id, StatusActive))
	wantEqual(t, must[Introduction](t)(r.AutoRegister(t.Context(), acct, n)), Introduction{CertificateID: id, CA: ca.id(), Status: StatusActive})
}

func TestAutoRegisterRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca, quiet, asleep, old := newCA(t, "Acme"), newCA(t, "Quiet"), newCA(t, "Asleep"), newCA(t, "Old", func(c *x509.Certificate) { c.NotAfter = start.Add(time.Hour) })
	r.automatic(t, acct, ca, ModeDefault)
	r.registerCA(t, quiet, ModeDefault)
	r.automatic(t, acct, asleep, ModeDefault)
	ok(t, r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: asleep.id(), Status: StatusInactive}))
	r.automatic(t, acct, old, ModeSNIOnly)
	impostor := newCA(t, "Acme")
	listed := ca.issue("listed")
	serial := newcomer(t, listed).Certificate.SerialNumber.Int64()
	must[RevocationImport](t)(r.ImportRevocationList(t.Context(), acct, ca.id(), ca.list(1, start, serial)))
	r.pass(time.Hour)
	mark, checks := len(r.store.log()), r.verified.Load()
	for name, c := range map[string]struct {
		text string
		code fault.Code
		says string
	}{
		"stranger":      {newCA(t, "Nobody").issue("x"), fault.CertificateValidation, "no registered CA"},
		"forged issuer": {impostor.issue("x"), fault.CertificateValidation, "no registered CA"},
		"not enabled":   {quiet.issue("x"), fault.CertificateState, "automatic registration is not enabled for the CA certificate " + quiet.id()},
		"inactive CA":   {asleep.issue("x"), fault.CertificateState, "the CA certificate " + asleep.id() + " is INACTIVE"},
		"expired CA":    {old.issue("x"), fault.CertificateState, "the CA certificate " + old.id() + " expired"},
		"early":         {ca.issue("x", func(c *x509.Certificate) { c.NotBefore = start.AddDate(0, 0, 1) }), fault.CertificateValidation, "not valid before"},
		"expired":       {ca.issue("x", func(c *x509.Certificate) { c.NotAfter = start }), fault.CertificateValidation, "expired"},
		"revoked":       {listed, fault.CertificateValidation, "revocation list"},
	} {
		_, err := r.AutoRegister(t.Context(), acct, newcomer(t, c.text))
		if fault.CodeOf(err) != c.code || !strings.Contains(fault.From(err).Message, c.says) {
			t.Errorf("%s: %v, want %s with %q", name, err, c.code, c.says)
		}
	}
	// Nothing was written, and only the listed one cost a look at its signature:
	// the forged one names another key.
	wantEqual(t, len(r.store.log()), mark)
	wantEqual(t, r.verified.Load()-checks, 1)
}

// A forged issuer costs one check for each authority that it could mean.
func TestForgedIssuersAreChecked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 3 {
		r.automatic(t, acct, newCA(t, "Acme"), ModeSNIOnly)
	}
	// Without the key identifier all three can be meant.
	forger := newCA(t, "Acme")
	const flood = 50
	forged := make([]Newcomer, flood)
	for i := range forged {
		forged[i] = newcomer(t, forger.issue(fmt.Sprint(i)))
		forged[i].Certificate.AuthorityKeyId = nil
	}
	mark := len(r.store.log())
	var wait sync.WaitGroup
	for _, n := range forged {
		wait.Go(func() {
			if _, err := r.AutoRegister(t.Context(), acct, n); fault.CodeOf(err) != fault.CertificateValidation {
				t.Errorf("a forged certificate: %v", err)
			}
		})
	}
	wait.Wait()
	wantEqual(t, r.verified.Load(), 3*flood)
	wantEqual(t, len(r.store.log()), mark)
	wantEqual(t, cap(r.verifying), maxVerifying)
}

// Concurrent first connects of one device make one certificate.
func TestConcurrentFirstConnects(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Acme")
	r.automatic(t, acct, ca, ModeDefault)
	n := newcomer(t, ca.issue("pump-1"))
	mark := len(r.store.log())
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			found, err := r.AutoRegister(t.Context(), acct, n)
			if err != nil || !found.Waiting {
				t.Errorf("%+v, %v", found, err)
			}
		})
	}
	wait.Wait()
	wantEqual(t, len(r.eventsAfter(mark)), 2)
}

// The account is chosen by the endpoint's name; a certificate under an authority
// in mode SNI_ONLY is one of several accounts. Ruling 3, mission M15.
func TestAutoRegisterInTwoAccounts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Acme")
	r.automatic(t, acct, ca, ModeSNIOnly)
	r.automatic(t, other, ca, ModeSNIOnly)
	n := newcomer(t, ca.issue("pump-1"))
	for _, account := range []fleet.Account{acct, other} {
		_, err := r.AutoRegister(t.Context(), account, Newcomer{Certificate: n.Certificate})
		if fault.CodeOf(err) != fault.CertificateState || !strings.Contains(err.Error(), "SNI_ONLY") {
			t.Errorf("without a name: %v", err)
		}
		found := must[Introduction](t)(r.AutoRegister(t.Context(), account, n))
		wantEqual(t, must[Certificate](t)(r.DescribeCertificate(t.Context(), account, found.CertificateID)).Mode, ModeSNIOnly)
	}
	// In mode DEFAULT the authority has one account, and needs no name.
	proven := newCA(t, "Apex")
	r.automatic(t, acct, proven, ModeDefault)
	must[Introduction](t)(r.AutoRegister(t.Context(), acct, Newcomer{Certificate: newcomer(t, proven.issue("x")).Certificate}))
	_, err := r.AutoRegister(t.Context(), other, newcomer(t, proven.issue("y")))
	wantCode(t, err, fault.CertificateValidation)
}

// A certificate that waits for a device with an ownership token is nobody's who
// just connects, also under a registered authority.
func TestFleetProvisioningIsNotJustInTime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Acme")
	r.automatic(t, acct, ca, ModeDefault)
	text := ca.issue("pump-1")
	waits := must[Certificate](t)(r.RegisterPending(t.Context(), acct, text, PendingCommand{Claim: "c", TokenHash: "h", Until: start.Add(time.Hour)}))
	mark := len(r.store.log())
	wantEqual(t, must[Introduction](t)(r.AutoRegister(t.Context(), acct, newcomer(t, text))),
		Introduction{CertificateID: waits.ID, CA: ca.id(), Status: StatusPendingActivation})
	wantEqual(t, len(r.store.log()), mark)
}

// A certificate that waits is refused like a new one when its authority changes.
func TestWaitingUnderAChangedAuthority(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Acme")
	r.automatic(t, acct, ca, ModeDefault)
	n := newcomer(t, ca.issue("pump-1"))
	must[Introduction](t)(r.AutoRegister(t.Context(), acct, n))
	no := false
	for _, c := range []struct {
		change func() error
		says   string
	}{
		{func() error {
			return r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: ca.id(), AutoRegistration: &no})
		}, "not enabled"},
		{func() error {
			return r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: ca.id(), Status: StatusInactive})
		}, "INACTIVE"},
		{func() error { return r.DeleteCACertificate(t.Context(), acct, ca.id()) }, "not registered any more"},
	} {
		ok(t, c.change())
		_, err := r.AutoRegister(t.Context(), acct, n)
		if fault.CodeOf(err) != fault.CertificateState || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
}

// "Only CAs that we own or trust": what is on record, and what the setting asks.
func TestDeclarations(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.RequireDeclaration = true })
	owned, trusted := newCA(t, "Owned"), newCA(t, "Trusted")
	kim := fleet.WithActor(t.Context(), fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ARN: "arn:aws:iam::000000000000:user/kim"}})
	r.automatic(t, acct, owned, ModeDefault)
	must[CACertificate](t)(r.RegisterCACertificate(kim, acct, RegisterCACommand{CertificatePEM: trusted.pem, Mode: ModeSNIOnly, Active: true, AutoRegistration: true}))
	wantEqual(t, must[CACertificate](t)(r.DescribeCACertificate(t.Context(), acct, owned.id())).Declaration, CADeclaration{Basis: BasisPossession, At: start})
	registered := CADeclaration{Basis: BasisTrust, By: "arn:aws:iam::000000000000:user/kim", At: start}
	wantEqual(t, must[CACertificate](t)(r.DescribeCACertificate(t.Context(), acct, trusted.id())).Declaration, registered)

	must[Introduction](t)(r.AutoRegister(t.Context(), acct, newcomer(t, owned.issue("x"))))
	n := newcomer(t, trusted.issue("x"))
	_, err := r.AutoRegister(t.Context(), acct, n)
	if fault.CodeOf(err) != fault.CertificateState || !strings.Contains(err.Error(), "provisioning.require-ca-declaration") {
		t.Errorf("undeclared: %v", err)
	}
	for _, statement := range []string{"", "  ", strings.Repeat("x", maxStatement+1), "\xff"} {
		_, err := r.DeclareCA(t.Context(), acct, trusted.id(), statement)
		wantCode(t, err, fault.InvalidRequest)
	}
	_, err = r.DeclareCA(t.Context(), other, trusted.id(), "ours")
	wantCode(t, err, fault.ResourceNotFound)
	mark := len(r.store.log())
	r.pass(time.Second)
	declared := must[CADeclaration](t)(r.DeclareCA(kim, acct, trusted.id(), " Contract 7 with Acme "))
	registered.Statement, registered.StatedBy, registered.StatedAt = "Contract 7 with Acme", registered.By, start.Add(time.Second)
	wantEqual(t, declared, registered)
	wantEqual(t, r.eventsAfter(mark), []event.Event{event.CACertificateChanged{
		CACertificateID: trusted.id(), Change: event.CACertificateDeclared, Status: StatusActive, AutoRegistration: true, Mode: ModeSNIOnly,
		Statement: "Contract 7 with Acme",
	}})
	must[Introduction](t)(r.AutoRegister(t.Context(), acct, n))
}
