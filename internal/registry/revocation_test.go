package registry

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

// imports hands a list to the first account.
func (r *rig) imports(t *testing.T, ca *testCA, list []byte) RevocationImport {
	t.Helper()
	return must[RevocationImport](t)(r.ImportRevocationList(t.Context(), acct, ca.id(), list))
}

// numbered gives a certificate a serial number.
func numbered(n int64) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.SerialNumber = big.NewInt(n) }
}

func TestImportRevocationList(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca, bystander := newCA(t, "Acme"), newCA(t, "Other")
	r.registerCA(t, ca, ModeSNIOnly)
	r.registerCA(t, bystander, ModeSNIOnly)
	kept, revoked, idle := r.registerUnder(t, ca, "1"), r.registerUnder(t, ca, "2"), r.idle(t, ca)
	same := []Certificate{r.registerUnder(t, bystander, "1"), r.registerUnder(t, bystander, "2")} // equal serial numbers
	list := ca.list(7, start, 2, 3, 4)
	mark := len(r.store.log())
	got := r.imports(t, ca, list)
	wantEqual(t, got, RevocationImport{
		CACertificateID: ca.id(), Number: "7", ThisUpdate: start, NextUpdate: start.AddDate(0, 0, 7), Entries: 3, Revoked: 2,
	})
	wantEqual(t, len(r.eventsAfter(mark)), 3)
	wantEqual(t, r.eventsAfter(mark)[2], event.Event(event.RevocationListImported{CACertificateID: ca.id(), Number: 7, Entries: 3}))
	for id, status := range map[string]string{
		kept.ID: StatusActive, revoked.ID: StatusRevoked, idle.ID: StatusRevoked, same[0].ID: StatusActive, same[1].ID: StatusActive,
	} {
		wantEqual(t, r.in(t, acct, id).Status, status)
	}
	// A listed serial number cannot be registered; others can.
	four := RegisterCertificateCommand{CertificatePEM: ca.issue("4", numbered(4))}
	_, err := r.RegisterCertificate(t.Context(), acct, four)
	wantCode(t, err, fault.CertificateValidation)
	_, _, err = r.Vouched(t.Context(), acct, four.CertificatePEM)
	wantCode(t, err, fault.CertificateValidation)
	r.registerUnder(t, ca, "5")

	mark = len(r.store.log())
	again := r.imports(t, ca, list)
	wantEqual(t, again.Unchanged, true)
	wantEqual(t, len(r.eventsAfter(mark)), 0)

	// A later list without serial number 4 lets it in; what it revoked stays so.
	r.pass(time.Hour)
	later := r.imports(t, ca, ca.list(8, start.Add(time.Hour), 3))
	wantEqual(t, []int{later.Entries, later.Revoked, later.Removed}, []int{1, 0, 2})
	must[Certificate](t)(r.RegisterCertificate(t.Context(), acct, four))
	wantEqual(t, r.in(t, acct, revoked.ID).Status, StatusRevoked)
	wantCode(t, r.UpdateCertificate(t.Context(), acct, revoked.ID, StatusActive), fault.CertificateState)
}

func TestImportRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca, impostor := newCA(t, "Acme"), newCA(t, "Acme")
	noLists := newCA(t, "No lists", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	for _, c := range []*testCA{ca, noLists} {
		r.registerCA(t, c, ModeSNIOnly)
	}
	r.imports(t, ca, ca.list(5, start.Add(-time.Hour), 1))
	delta := must[[]byte](t)(x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(6), ThisUpdate: start, NextUpdate: start.AddDate(0, 0, 7), ExtraExtensions: deltaOf(5),
	}, ca.cert, ca.key))
	broken := ca.list(9, start, 1)
	broken[len(broken)-1] ^= 1
	for name, c := range map[string]struct {
		list []byte
		ca   string
		code fault.Code
		says string
	}{
		"garbage":       {[]byte("x"), ca.id(), fault.CertificateValidation, "not DER"},
		"certificate":   {[]byte(ca.pem), ca.id(), fault.CertificateValidation, "not an X509 CRL"},
		"no authority":  {ca.list(9, start), strings.Repeat("0", 64), fault.ResourceNotFound, "does not exist"},
		"no id":         {ca.list(9, start), "x", fault.InvalidRequest, "caCertificateId"},
		"impostor":      {impostor.list(9, start, 1), ca.id(), fault.CertificateValidation, "not signed by"},
		"other issuer":  {noLists.list9(t), ca.id(), fault.CertificateValidation, "issuer"},
		"broken":        {broken, ca.id(), fault.CertificateValidation, "not signed by"},
		"key usage":     {noLists.list9(t), noLists.id(), fault.CertificateValidation, "key usage"},
		"future":        {ca.list(9, start.Add(time.Hour)), ca.id(), fault.CertificateValidation, "still to come"},
		"out of date":   {ca.list(9, start.AddDate(0, 0, -8)), ca.id(), fault.CertificateValidation, "out of date"},
		"lower number":  {ca.list(4, start), ca.id(), fault.Conflict, "CRL number 4"},
		"equal number":  {ca.list(5, start, 1, 2), ca.id(), fault.Conflict, "CRL number 5"},
		"earlier":       {ca.list(9, start.Add(-2*time.Hour)), ca.id(), fault.Conflict, "the one in force is of"},
		"a delta":       {delta, ca.id(), fault.CertificateValidation, "delta"},
		"other account": {ca.list(9, start), ca.id(), "", ""},
	} {
		account := acct
		want := c.code
		if name == "other account" {
			account, want = other, fault.ResourceNotFound
		}
		_, err := r.ImportRevocationList(t.Context(), account, c.ca, c.list)
		if fault.CodeOf(err) != want || !strings.Contains(fault.From(err).Message, c.says) {
			t.Errorf("%s: %v, want %s with %q", name, err, want, c.says)
		}
	}
}

// deltaOf is the extension of a delta list.
func deltaOf(base byte) []pkix.Extension {
	return []pkix.Extension{{Id: []int{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, base}}}
}

// list9 signs a list although the authority's key usage does not allow it.
func (c *testCA) list9(t *testing.T) []byte {
	t.Helper()
	allowed := *c.cert
	allowed.KeyUsage |= x509.KeyUsageCRLSign
	return must[[]byte](t)(x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(9), ThisUpdate: start, NextUpdate: start.AddDate(0, 0, 7),
	}, &allowed, c.key))
}

// An import that broke off at any commit goes on when it is repeated, and ends
// as if it had not.
func TestImportGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Acme")
	r.registerCA(t, ca, ModeSNIOnly)
	var serials []int64
	for n := int64(1); n <= 2*entriesPerBatch+10; n++ {
		serials = append(serials, n)
	}
	r.imports(t, ca, ca.list(1, start.Add(-time.Hour), 900_000)) // an entry to sweep
	var ids []string
	for range 8 {
		ids = append(ids, r.registerUnder(t, ca, "pump").ID)
	}
	list := ca.list(2, start, serials...)
	broke := 0
	for commits := int64(0); ; commits++ {
		r.store.hook(failAfter(commits, store.ErrDiskFull))
		got, err := r.ImportRevocationList(t.Context(), acct, ca.id(), list)
		r.store.unhook()
		if err == nil {
			t.Logf("the last call revoked %d", got.Revoked)
			break
		}
		wantCode(t, err, fault.Unavailable)
		broke++
	}
	if broke < 3 {
		t.Fatalf("broke off %d times only", broke)
	}
	for _, id := range ids {
		wantEqual(t, r.in(t, acct, id).Status, StatusRevoked)
	}
	entries := 0
	for _, record := range r.store.records() {
		if strings.HasPrefix(record.Key.String(), kindRevokedSerial+"/") {
			entries++
		}
	}
	wantEqual(t, entries, len(serials))
	imported := 0
	for _, e := range r.store.log() {
		if _, ok := e.(event.RevocationListImported); ok {
			imported++
		}
	}
	wantEqual(t, imported, 2)
}

// Whoever registers while a list is taken over is either refused or revoked.
func TestImportAgainstRegistrations(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Acme")
	r.registerCA(t, ca, ModeSNIOnly)
	const devices = 60
	var serials []int64
	texts := make([]string, devices)
	for i := range texts {
		texts[i] = ca.issue(fmt.Sprintf("pump-%d", i))
		serials = append(serials, int64(i+1))
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for _, text := range texts {
			_, err := r.RegisterCertificate(t.Context(), acct, RegisterCertificateCommand{CertificatePEM: text, Status: StatusActive})
			if err != nil && fault.CodeOf(err) != fault.CertificateValidation {
				t.Error(err)
			}
		}
	})
	wait.Go(func() { r.imports(t, ca, ca.list(1, start, serials...)) })
	wait.Wait()
	for _, c := range must[Listed[Certificate]](t)(r.ListCertificatesByCA(t.Context(), acct, ca.id(), true, Page{Limit: 100})).Items {
		wantEqual(t, c.Status, StatusRevoked)
	}
}

// A certificate that is offered to another account is revoked where it is, and
// the offer is over.
func TestImportEndsATransfer(t *testing.T) {
	t.Parallel()
	r := twoAccounts(t)
	ca := newCA(t, "Acme")
	r.registerCA(t, ca, ModeSNIOnly)
	c := r.idle(t, ca)
	r.offerTo(t, c.ID)
	wantEqual(t, r.imports(t, ca, ca.list(1, start, 1)).Revoked, 1)
	wantEqual(t, r.in(t, acct, c.ID).Status, StatusRevoked)
	wantCode(t, r.AcceptCertificateTransfer(t.Context(), other, c.ID, true), fault.ResourceNotFound)

	// The account that it is offered to has a list of its own.
	c = r.idle(t, ca)
	r.offerTo(t, c.ID)
	must[CACertificate](t)(r.RegisterCACertificate(t.Context(), other, RegisterCACommand{CertificatePEM: ca.pem, Mode: ModeSNIOnly}))
	must[RevocationImport](t)(r.ImportRevocationList(t.Context(), other, ca.id(), ca.list(1, start, 2)))
	wantCode(t, r.AcceptCertificateTransfer(t.Context(), other, c.ID, true), fault.InvalidRequest)
	ok(t, r.RejectCertificateTransfer(t.Context(), other, c.ID, "revoked"))
}

// A deleted authority comes back with its list.
func TestListOutlivesItsAuthority(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Acme")
	r.registerCA(t, ca, ModeSNIOnly)
	r.imports(t, ca, ca.list(3, start, 1))
	ok(t, r.UpdateCACertificate(t.Context(), acct, UpdateCACommand{ID: ca.id(), Status: StatusInactive}))
	ok(t, r.DeleteCACertificate(t.Context(), acct, ca.id()))
	r.registerCA(t, ca, ModeSNIOnly)
	_, err := r.RegisterCertificate(t.Context(), acct, RegisterCertificateCommand{CertificatePEM: ca.issue("1")})
	wantCode(t, err, fault.CertificateValidation)
}

func TestEachRevoked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := newCA(t, "Acme")
	r.registerCA(t, ca, ModeDefault)
	ours, deleted, foreign := r.addCertificate(t), r.addCertificate(t), r.registerUnder(t, ca, "pump")
	for _, id := range []string{ours.ID, deleted.ID, foreign.ID} {
		ok(t, r.UpdateCertificate(t.Context(), acct, id, StatusRevoked))
	}
	ok(t, r.DeleteCertificate(t.Context(), acct, deleted.ID, false))
	count := func(now time.Time) int {
		n := 0
		ok(t, EachRevoked(t.Context(), r.store, now, func(serial *big.Int, at time.Time) error {
			wantEqual(t, serial.String(), "1") // the test's issuer knows no other
			wantEqual(t, at, start)
			n++
			return nil
		}))
		return n
	}
	wantEqual(t, count(start), 2)
	wantEqual(t, count(start.AddDate(11, 0, 0)), 0)

	// What an earlier version revoked had no record.
	_, err := r.store.Commit(t.Context(), store.Batch{Writes: []store.Write{{Key: key(kindCertificateRevoked, acct, ours.ID), Delete: true}}})
	ok(t, err)
	wantEqual(t, count(start), 1)
	r.store.hook(failAfter(0, store.ErrDiskFull))
	wantCode(t, r.RecordRevoked(t.Context()), fault.Unavailable)
	r.store.unhook()
	ok(t, r.RecordRevoked(t.Context()))
	wantEqual(t, count(start), 2)
	r.store.hook(failAfter(0, errors.New("written again")))
	ok(t, r.RecordRevoked(t.Context()))
}

func TestListExpiring(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	soon := func(days int) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotAfter = start.AddDate(0, 0, days) }
	}
	ca, lasting := newCA(t, "Soon", soon(20)), newCA(t, "Lasting")
	r.registerCA(t, ca, ModeSNIOnly)
	r.registerCA(t, lasting, ModeSNIOnly)
	var want []string
	want = append(want, ca.id())
	for _, days := range []int{25, 5, 31, 30, 10} {
		c := must[Certificate](t)(r.RegisterCertificate(t.Context(), acct, RegisterCertificateCommand{CertificatePEM: lasting.issue("pump", soon(days))}))
		if days <= 30 {
			want = append(want, c.ID)
		}
		if days != 10 {
			continue
		}
		for n := range shownThings + 2 {
			r.addThing(t, fmt.Sprintf("T%02d", n))
			ok(t, r.AttachThingPrincipal(t.Context(), acct, fmt.Sprintf("T%02d", n), c.ARN, ""))
		}
	}
	want = []string{want[0], want[2], want[4], want[1], want[3]} // by their end
	for _, size := range []int{1, 2, 3, 100} {
		var got []string
		for _, e := range allPages(t, size, func(p Page) (Listed[Expiring], error) {
			return r.ListExpiring(t.Context(), acct, start.AddDate(0, 0, 30), p)
		}) {
			got = append(got, e.ID)
		}
		wantEqual(t, got, want)
	}
	listed := must[Listed[Expiring]](t)(r.ListExpiring(t.Context(), acct, start.AddDate(0, 0, 30), Page{})).Items
	wantEqual(t, []bool{listed[0].Authority, listed[1].Authority}, []bool{true, false})
	wantEqual(t, listed[2].ThingCount, shownThings+2)
	wantEqual(t, len(listed[2].Things), shownThings)
	wantEqual(t, len(must[Listed[Expiring]](t)(r.ListExpiring(t.Context(), other, start.AddDate(1, 0, 0), Page{})).Items), 0)
}
