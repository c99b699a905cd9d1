package approval

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/muster-iot/muster/internal/allowlist"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/store"
)

// newLists is the allow lists of a rig, over its store.
func newLists(r *rig) *allowlist.Service {
	key, err := age.GenerateX25519Identity()
	r.need(err)
	identity, err := allowlist.ParseIdentity([]byte(key.String()))
	r.need(err)
	return allowlist.New(allowlist.Options{
		Store: r.store, Identity: identity, Logger: slog.New(slog.DiscardHandler),
		Now:   func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.now },
		NewID: func() string { r.mu.Lock(); defer r.mu.Unlock(); r.ids++; return fmt.Sprintf("upload-%d", r.ids) },
	})
}

// listed puts devices on an accepted list of a supplier, uploaded by ab-uma.
func (r *rig) listed(supplier, list string, lines ...string) {
	r.t.Helper()
	_, err := r.lists.PutSupplier(r.as("boss"), account, allowlist.Supplier{ID: supplier, AcceptUnsigned: true})
	r.need(err)
	body := "serial,vetted,spkiSha256\n" + strings.Join(lines, "\n") + "\n"
	made, err := r.lists.Upload(r.as("ab-uma"), account, allowlist.Upload{Supplier: supplier, List: list, Body: []byte(body)})
	r.need(err)
	_, err = r.lists.Accept(r.as("boss"), account, list, made.Number, "")
	r.need(err)
}

// certified gives a candidate a certificate of a new key, and returns the fingerprint.
func certified(t *testing.T, c *provisioning.Candidate) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	c.CertificatePEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// raised are the duplicates that were raised.
func (r *rig) raised() []event.DuplicateSerial {
	r.t.Helper()
	var all []event.DuplicateSerial
	for cursor := (store.Cursor{}); ; {
		page, next, err := r.store.Events(r.t.Context(), cursor, 1000)
		r.need(err)
		if len(page) == 0 {
			return all
		}
		for _, env := range page {
			if d, ok := env.Event.(event.DuplicateSerial); ok {
				all = append(all, d)
			}
		}
		cursor = next
	}
}

// TestListLetsIn: a device of the list joins once; another one with its serial number is
// refused and raised, one that is on no list is refused in words, and one with the key of
// the list proves who it is.
func TestListLetsIn(t *testing.T) {
	r := newRig(t, true)
	keyed := device(3)
	r.listed("acme", "w47", "1,true,", "2,false,", "3,true,"+certified(t, &keyed))
	r.bind(Binding{Rule: AllOf, Authorities: []string{"lists"}})
	r.in(device(1))
	double := device(1)
	double.CertificateID, double.Thing = fmt.Sprintf("%064d", 11), "pump-1-copy"
	for range 2 {
		r.out(double, "another device has joined with this entry")
	}
	if raised := r.raised(); len(raised) != 1 || raised[0].OtherThing != "pump-1" || raised[0].CertificateID != double.CertificateID || raised[0].ListID != "w47" {
		t.Errorf("raised %+v", raised)
	}
	r.out(device(2), "the supplier has not vetted the device")
	r.out(device(4), "on no accepted allow list")
	stolen := device(3)
	certified(t, &stolen)
	r.out(stolen, "another key for this serial number")
	r.in(keyed)
	// The same with a new certificate of the same key, which the claim's is.
	again := keyed
	again.CertificatePEM, again.ClaimPEM, again.CertificateID = "", keyed.CertificatePEM, fmt.Sprintf("%064d", 33)
	r.in(again)
	if err := r.DeleteBinding(r.as("boss"), account, "T"); err != nil {
		t.Fatal(err)
	}
	r.out(device(5), "provisioning.require-binding")
}

// TestRaceForOneEntry: of many devices that come with one serial number one joins.
func TestRaceForOneEntry(t *testing.T) {
	r := newRig(t, true)
	r.listed("acme", "w47", "7,true,")
	r.bind(Binding{Rule: AllOf, Authorities: []string{"acme"}})
	var joined, refused atomic.Int32
	var all sync.WaitGroup
	for i := range 12 {
		c := device(7)
		c.CertificateID, c.Thing = fmt.Sprintf("%064d", 100+i), fmt.Sprintf("thing-%d", i)
		all.Go(func() {
			switch id, err := r.joins(c); {
			case err == nil && id == "":
				joined.Add(1)
			case fault.CodeOf(err) == fault.Forbidden:
				refused.Add(1)
			default:
				t.Errorf("waits for %q, %v", id, err)
			}
		})
	}
	all.Wait()
	if joined.Load() != 1 || refused.Load() != 11 || len(r.raised()) != 11 {
		t.Errorf("%d joined, %d were refused, %d raised", joined.Load(), refused.Load(), len(r.raised()))
	}
}

// TestListAndPeople: a list beside people. Who has uploaded the list has no say, the
// entry is used up only when the device joins, and what the list says then counts.
func TestListAndPeople(t *testing.T) {
	r := newRig(t, true)
	r.listed("acme", "w47", "1,true,", "2,true,", "3,true,")
	r.bind(Binding{Rule: AllOf, Authorities: []string{"lists", "a"}})
	id := r.wait(device(1))
	found, err := r.Request(t.Context(), account, id)
	if err != nil || len(found.Lists) != 1 || found.Lists[0].List != "w47" || found.Lists[0].Match != allowlist.BySerial || found.Lists[0].Revision != 1 {
		t.Errorf("%+v, %v", found, err)
	}
	_, err = r.Vote(r.as("ab-uma"), account, VoteCommand{ID: id, Authority: "a", Verdict: Yes})
	if fault.CodeOf(err) != fault.Forbidden || !strings.Contains(err.Error(), "you have uploaded revision 1 of allow list w47") {
		t.Errorf("the uploader voted: %v", err)
	}
	r.vote("a-kim", id, Yes)
	r.in(device(1))

	// Two wait with one entry, both are approved: one joins.
	other := device(2)
	other.CertificateID = fmt.Sprintf("%064d", 22)
	r.vote("a-kim", r.wait(device(2)), Yes)
	r.vote("a-kim", r.wait(other), Yes)
	r.in(other)
	r.out(device(2), "another device has joined with this entry")

	// The list is gone before the device comes back.
	r.vote("a-kim", r.wait(device(3)), Yes)
	for _, who := range []string{"boss", "second"} {
		if _, err := r.lists.Delete(r.as(who), account, "w47"); err != nil {
			t.Fatal(err)
		}
	}
	r.out(device(3), "on no accepted allow list")
}

// TestListsInRules: what a list's no is worth in each rule, and that a query does not say
// yes in its place where all must.
func TestListsInRules(t *testing.T) {
	r := newRig(t, true)
	r.listed("acme", "w47", "1,true,")
	r.answers["fyes"] = `{"verdict":"APPROVED"}`
	r.bind(Binding{Rule: AllOf, Authorities: []string{"lists", "a"}, AutoApproveIf: "thing:pump*"})
	r.in(device(1))
	r.out(device(9), "on no accepted allow list")
	r.bind(Binding{Rule: AllOf, Authorities: []string{"lists", "a"}, AutoApproveIf: "allowList.supplier:bolt"})
	r.listed("bolt", "b", "21,true,")
	r.listed("acme", "w48", "22,true,")
	r.in(device(21))
	r.wait(device(22))
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"lists", "fyes"}})
	r.in(device(9))
	r.bind(Binding{Rule: KOfN, K: 2, Authorities: []string{"lists", "fyes", "a"}})
	r.listed("acme", "w49", "31,true,")
	r.in(device(31))
	r.wait(device(10))
	r.bind(Binding{Rule: AllOf, Authorities: []string{"acme"}})
	r.listed("bolt", "b2", "41,true,")
	r.out(device(41), "on no accepted allow list")

	for name, a := range map[string]Authority{
		"no supplier":      {ID: "x", Kind: SupplierLists},
		"unknown supplier": {ID: "x", Kind: AllowList, Supplier: "nobody"},
		"with a group":     {ID: "x", Kind: AllowList, Group: "a"},
		"group with one":   {ID: "x", Kind: UserGroup, Group: "a", Supplier: "acme"},
	} {
		if _, err := r.PutAuthority(r.as("boss"), account, a); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAuthorityIsBound: a binding of an authority decides about devices under it that
// have no template, or one without a binding.
func TestAuthorityIsBound(t *testing.T) {
	r := newRig(t, true)
	r.listed("acme", "w47", "1,true,", "2,true,", "3,true,")
	ca := strings.Repeat("a", 64)
	_, err := r.PutAuthority(r.as("boss"), account, Authority{ID: "lists", Kind: AllowList, SerialParameter: "AWS::IoT::Certificate::CommonName"})
	r.need(err)
	_, err = r.PutBinding(r.as("boss"), account, Binding{Template: CATarget + ca, Rule: AllOf, Authorities: []string{"lists"}, DailyQuota: 2})
	r.need(err)
	under := func(n int, template string) provisioning.Candidate {
		c := device(n)
		c.Template, c.CA, c.ClaimID, c.Method = template, ca, "", event.ProvisioningJITP
		c.Parameters = map[string]string{"AWS::IoT::Certificate::CommonName": fmt.Sprint(n)}
		return c
	}
	r.in(under(1, ""))
	r.out(under(9, ""), "on no accepted allow list")
	r.in(under(2, "unbound"))
	r.out(under(3, ""), "2 devices of CA certificate "+ca+" have joined today")
	other := under(3, "")
	other.CA = strings.Repeat("b", 64)
	r.out(other, "nobody is bound to decide about devices of CA certificate bbb")
	r.bind(Binding{Rule: AllOf, Authorities: []string{"a"}})
	r.wait(under(3, "T"))
}

// TestApprovedByAnEarlierBinding: a yes that was enough before the binding was made
// stricter lets nobody in, neither past a list that is asked now nor without the people
// who are; one that is enough still does.
func TestApprovedByAnEarlierBinding(t *testing.T) {
	r := newRig(t, true)
	r.listed("acme", "w47", "2,true,")
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"a"}})
	for n := range 3 {
		r.vote("a-kim", r.wait(device(n+1)), Yes)
	}
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"a"}, DailyQuota: 7})
	r.in(device(3))
	r.bind(Binding{Rule: AllOf, Authorities: []string{"lists", "a"}})
	r.out(device(1), "on no accepted allow list")
	r.vote("a-kim", r.wait(device(2)), Yes)
	r.in(device(2))
}

// TestBoundMeanwhile: a device that nobody was bound to decide about does not join when
// somebody is by the time of the commit.
func TestBoundMeanwhile(t *testing.T) {
	r := newRig(t, false)
	pass, err := r.Decide(t.Context(), device(1))
	r.need(err)
	r.in(device(2))
	r.bind(Binding{Rule: AllOf, Authorities: []string{"a"}})
	if pass.Join == nil {
		t.Fatal("nothing is committed with the registration")
	}
	if _, err := pass.Join(t.Context()); fault.CodeOf(err) != fault.Throttling {
		t.Errorf("got %v", err)
	}
}

// TestQueryDoesNotReplaceANeededList: whatever the rule is called, a query does not let in
// a device that the lists alone keep out.
func TestQueryDoesNotReplaceANeededList(t *testing.T) {
	r := newRig(t, true)
	r.listed("acme", "w47", "1,true,")
	for _, b := range []Binding{
		{Rule: KOfN, K: 2, Authorities: []string{"lists", "a"}}, {Rule: AnyOf, Authorities: []string{"lists"}}, {Rule: KOfN, K: 1, Authorities: []string{"acme"}},
	} {
		b.AutoApproveIf = "thing:pump*"
		r.bind(b)
		r.out(device(9), "on no accepted allow list")
	}
	r.in(device(1))
}

// TestSupplierOfOtherTemplates: a supplier's devices that may join by some templates only
// do not join by none.
func TestSupplierOfOtherTemplates(t *testing.T) {
	r := newRig(t, true)
	r.listed("acme", "w47", "1,true,")
	_, err := r.lists.PutSupplier(r.as("boss"), account, allowlist.Supplier{ID: "acme", AcceptUnsigned: true, Templates: []string{"pumps"}})
	r.need(err)
	ca := strings.Repeat("a", 64)
	_, err = r.PutAuthority(r.as("boss"), account, Authority{ID: "lists", Kind: AllowList})
	r.need(err)
	_, err = r.PutBinding(r.as("boss"), account, Binding{Template: CATarget + ca, Rule: AllOf, Authorities: []string{"lists"}})
	r.need(err)
	c := device(1)
	c.Template, c.CA, c.ClaimID, c.Method = "", ca, "", event.ProvisioningJITP
	r.out(c, "do not join by this template")
	c.Template = "pumps"
	r.in(c)
}

// TestDeviceIsToldNothingOfAList: neither the words of a list nor the names of those who
// decide reach the device, also when they speak at the last moment.
func TestDeviceIsToldNothingOfAList(t *testing.T) {
	r := newRig(t, true)
	r.listed("acme", "w47", "1,true,", "2,false,")
	r.bind(Binding{Rule: AllOf, Authorities: []string{"lists", "a"}})
	other := device(1)
	other.CertificateID = fmt.Sprintf("%064d", 22)
	for _, c := range []provisioning.Candidate{device(1), other} {
		r.vote("a-kim", r.wait(c), Yes)
	}
	r.in(other)
	quiet := func(err error) {
		t.Helper()
		if said := fault.From(err).Message; fault.CodeOf(err) != fault.Forbidden || said != "The authorities do not let the device in" {
			t.Errorf("the device is told %q, %v", said, err)
		}
	}
	_, err := r.joins(device(1))
	quiet(err)
	r.bind(Binding{Rule: AllOf, Authorities: []string{"lists"}})
	_, err = r.Standing(t.Context(), device(2), true)
	quiet(err)
	if !strings.Contains(err.Error(), "not vetted") {
		t.Errorf("the operator is told %v", err)
	}
}

// TestAuthorIsNotAloneWithAList: a list beside the author of the template is not a second
// person; where it is enough by itself it does not need one.
func TestAuthorIsNotAloneWithAList(t *testing.T) {
	r := newRig(t, true)
	r.author = userARN("a-tom")
	r.listed("acme", "w47", "1,true,", "2,true,", "3,true,")
	r.bind(Binding{Rule: AllOf, Authorities: []string{"lists", "a"}})
	if got := r.vote("a-tom", r.wait(device(1)), Yes); got == Approved {
		t.Errorf("a list and the author: %s", got)
	}
	if got := r.vote("a-kim", r.wait(device(2)), Yes); got != Approved {
		t.Errorf("a list and another: %s", got)
	}
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"lists", "a"}})
	r.in(device(3))
}
