package bootstrap

import (
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

const unknownWords = "The certificate is not known here"

// TestAsk: a device of the default account is sent to another one, is admitted there,
// and leaves a trace in both; the operator sees when it asked.
func TestAsk(t *testing.T) {
	r := newRig(t, newEngine(t))
	c := device(t, pkix.Name{SerialNumber: "B7-0042"})
	id := registry.CertificateID(c.Raw)
	r.vouch[home] = registry.Voucher{CA: ca}
	made := r.put(home, Assignment{
		Who: Who{Kind: Serial, CACertificateID: ca, Serial: "B7-0042"}, Account: leeds, Template: "pumps",
		Parameters: map[string]string{"Site": "leeds"}, Configuration: map[string]string{"ntp": "ntp.example"},
	})
	r.look = func(d *Device) (Standing, error) {
		if d.Account != leeds || d.Template != "pumps" || d.CertificateID != id || d.CA != ca || d.Serial != "B7-0042" || d.Shared || d.Parameters["Site"] != "leeds" {
			t.Errorf("the gate is asked about %+v", d)
		}
		return Standing{Approval: Pending, Request: "apr_1"}, nil
	}
	got, err := r.asks(c)
	if err != nil {
		t.Fatal(err)
	}
	want := Answer{
		Account: leeds, Region: "us-east-1", Endpoint: "endpoint-of-000000000001", Ports: Ports{8883, 8443}, Roots: "roots", Method: ByClaim, Template: "pumps",
		Parameters: map[string]string{"Site": "leeds"}, Configuration: map[string]string{"ntp": "ntp.example"}, Standing: Standing{Pending, "apr_1"}, Expires: noon.Add(24 * time.Hour),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if until := r.guests[string(leeds)+" "+id+" pumps"]; !until.Equal(noon.Add(24*time.Hour)) || len(r.guests) != 1 {
		t.Errorf("guests %v", r.guests)
	}
	for range 3 { // reported once a minute
		if _, err := r.asks(c); err != nil {
			t.Fatal(err)
		}
	}
	r.now = r.now.Add(time.Minute)
	if _, err := r.asks(c); err != nil {
		t.Fatal(err)
	}
	told, accounts := events[event.BootstrapAnswered](r)
	e := event.BootstrapAnswered{
		CertificateID: id, Serial: "B7-0042", Assignment: made.ID, Owner: home, Target: leeds, Template: "pumps", Approval: "PENDING", Request: "apr_1", Transport: "HTTPS",
	}
	again := e
	again.Suppressed = 3
	if diff := cmp.Diff([]event.BootstrapAnswered{e, e, again, again}, told); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]fleet.Account{home, leeds, home, leeds}, accounts); diff != "" {
		t.Error(diff)
	}
	seen, err := r.Assignment(t.Context(), home, made.ID)
	if err != nil || !seen.Asked.Equal(r.now) || seen.AskedBy != id || seen.AskedFrom != "192.0.2.7" || seen.Version != 1 {
		t.Errorf("%+v, %v", seen, err)
	}
}

// TestTheMostSpecificDecides: a certificate before its serial before its authority, also
// when that says no.
func TestTheMostSpecificDecides(t *testing.T) {
	r := newRig(t, newEngine(t))
	c := device(t, pkix.Name{CommonName: "B7"})
	r.vouch[home] = registry.Voucher{CA: ca}
	where := func(want fleet.Account) {
		t.Helper()
		got, err := r.asks(c)
		if err != nil || got.Account != want {
			t.Errorf("sent to %s, %v, want %s", got.Account, err, want)
		}
	}
	r.put(home, Assignment{Who: Who{Kind: Authority, CACertificateID: ca}, Account: home})
	where(home)
	r.put(home, Assignment{Who: Who{Kind: Serial, CACertificateID: ca, Serial: "B7"}, Account: leeds})
	where(leeds)
	mine := Assignment{Who: Who{Kind: Certificate, CertificateID: registry.CertificateID(c.Raw)}, Account: porto}
	r.put(home, mine)
	where(porto)
	if _, _, err := r.Put(t.Context(), home, PutCommand{Assignment: mine}); err != nil { // disabled
		t.Fatal(err)
	}
	_, err := r.asks(c)
	wantFault(t, err, fault.Forbidden, "The assignment of the certificate is disabled")
	mine.Expires = noon.Add(time.Hour)
	r.put(home, mine)
	where(porto)
	r.now = noon.Add(time.Hour)
	_, err = r.asks(c)
	wantFault(t, err, fault.Forbidden, "The assignment of the certificate is over")
	// Without its authority it is neither.
	r.vouch[home] = registry.Voucher{}
	if err := r.Delete(t.Context(), home, "certificate-"+mine.CertificateID, nil); err != nil {
		t.Fatal(err)
	}
	_, err = r.asks(c)
	wantFault(t, err, fault.ResourceNotFound, "Nothing is assigned to the certificate")
}

// TestWhoseDevicesTheyAre: who has proved something comes before the default account;
// who has not can send nobody's devices to itself, and is not told that they asked.
func TestWhoseDevicesTheyAre(t *testing.T) {
	r := newRig(t, newEngine(t))
	c := device(t, pkix.Name{SerialNumber: "B7"})
	all := Who{Kind: Authority, CACertificateID: ca}
	r.put(leeds, Assignment{Who: all, Template: "valves"})
	r.put(home, Assignment{Who: all, Account: porto, Template: "pumps"})

	r.vouch[leeds] = registry.Voucher{CA: ca} // says so, and has proved nothing
	_, err := r.asks(c)
	wantFault(t, err, fault.Forbidden, unknownWords)
	if refused, accounts := events[event.BootstrapRefused](r); len(refused) != 1 || accounts[0] != home || refused[0].Serial != "" || refused[0].Code != "Forbidden" ||
		refused[0].Reason != unknownWords+": an account knows the certificate that has proved nothing about it" {
		t.Errorf("%+v in %v", refused, accounts)
	}
	r.vouch[home] = registry.Voucher{CA: ca}
	if got, err := r.asks(c); err != nil || got.Account != porto || got.Template != "pumps" {
		t.Errorf("%+v, %v", got, err)
	}
	r.vouch[leeds] = registry.Voucher{CA: ca, Proved: true}
	if got, err := r.asks(c); err != nil || got.Account != leeds || got.Template != "valves" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, accounts := events[event.BootstrapAnswered](r); !slices.Equal(accounts, []fleet.Account{home, porto}) {
		t.Errorf("events in %v", accounts)
	}
	// An account cannot send devices to others, and does not learn which there are.
	for _, other := range []fleet.Account{home, porto, "999999999999"} {
		_, _, err := r.Put(t.Context(), leeds, PutCommand{Assignment: Assignment{Who: all, Account: other}})
		wantFault(t, err, fault.Forbidden, "account: only operators of the default account send devices to other accounts than their own")
	}
}

// TestStrangersLearnNothing: the same words for a certificate without any authority, for
// one that is revoked, and for one with the serial of somebody else; the traces are
// bounded.
func TestStrangersLearnNothing(t *testing.T) {
	r := newRig(t, newEngine(t))
	r.put(home, Assignment{Who: Who{Kind: Serial, CACertificateID: ca, Serial: "B7"}, Template: "pumps"})
	_, err := r.asks(device(t, pkix.Name{SerialNumber: "B7"}))
	wantFault(t, err, fault.Forbidden, unknownWords)
	r.no[home] = fault.New(fault.CertificateState, "certificate is REVOKED")
	_, err = r.asks(device(t, pkix.Name{SerialNumber: "B7"}))
	wantFault(t, err, fault.Forbidden, unknownWords)
	delete(r.no, home)
	for range 2 * maxStrangers {
		if _, err := r.asks(device(t, pkix.Name{SerialNumber: "B8"})); fault.CodeOf(err) != fault.Forbidden {
			t.Fatal(err)
		}
	}
	refused, _ := events[event.BootstrapRefused](r)
	if len(refused) != maxStrangers {
		t.Errorf("%d reports about strangers, want %d", len(refused), maxStrangers)
	}
	if len(r.guests) != 0 {
		t.Errorf("guests %v", r.guests)
	}
}

// TestRefusals: what stands in the way is said to the operator, and no more to the
// device than it needs.
func TestRefusals(t *testing.T) {
	const notNow = "The assignment of the certificate cannot be carried out at this time"
	for name, c := range map[string]struct {
		set    func(*rig)
		code   fault.Code
		words  string
		reason string
	}{
		"gate": {func(r *rig) {
			r.look = func(*Device) (Standing, error) {
				return Standing{}, fault.Wrap(fault.Forbidden, errors.New("entry 7 is blocked"), "not on the list")
			}
		}, fault.Forbidden, "not on the list", "not on the list: entry 7 is blocked"},
		"template": {func(r *rig) { r.usable = fault.New(fault.InvalidRequest, "template pumps is not enabled") }, fault.Conflict, notNow, "template pumps is not enabled"},
		"inactive": {func(r *rig) { r.busy = fault.New(fault.CertificateState, "certificate is INACTIVE") }, fault.Conflict, notNow, "certificate is INACTIVE"},
	} {
		r := newRig(t, newEngine(t))
		r.vouch[home] = registry.Voucher{CA: ca}
		r.put(home, Assignment{Who: Who{Kind: Authority, CACertificateID: ca}, Account: leeds, Template: "pumps"})
		c.set(r)
		_, err := r.asks(device(t, pkix.Name{SerialNumber: "B7"}))
		wantFault(t, err, c.code, c.words)
		refused, accounts := events[event.BootstrapRefused](r)
		if len(refused) != 1 || accounts[0] != home || refused[0].Serial != "B7" || !strings.Contains(refused[0].Reason, c.reason) {
			t.Errorf("%s: %+v in %v", name, refused, accounts)
		}
	}
	r := newRig(t, newEngine(t))
	r.vouch[home] = registry.Voucher{CA: ca}
	r.put(home, Assignment{Who: Who{Kind: Authority, CACertificateID: ca}, Account: closed})
	_, err := r.asks(device(t, pkix.Name{}))
	wantFault(t, err, fault.Conflict, notNow)
	r.usable = fault.New(fault.Unavailable, "full")
	r.put(home, Assignment{Who: Who{Kind: Authority, CACertificateID: ca}, Account: leeds, Template: "pumps"})
	_, err = r.asks(device(t, pkix.Name{}))
	wantFault(t, err, fault.Unavailable, "full")
	if refused, _ := events[event.BootstrapRefused](r); len(refused) != 1 {
		t.Errorf("the server's fault is reported as the device's: %+v", refused)
	}
}

// TestRates: one certificate from many addresses and one address with many
// certificates are both bounded, for a minute.
func TestRates(t *testing.T) {
	r := newRig(t, newEngine(t), func(o *Options) { o.CertificateRate, o.AddressRate = 3, 5 })
	r.vouch[home] = registry.Voucher{CA: ca}
	r.put(home, Assignment{Who: Who{Kind: Authority, CACertificateID: ca}})
	c := device(t, pkix.Name{})
	ask := func(address string) error {
		_, err := r.Ask(t.Context(), Question{Certificate: c, Transport: MQTT, Address: address, ClientID: "x"})
		return err
	}
	for i := range 3 {
		if err := ask(fmt.Sprintf("192.0.2.%d:1", i)); err != nil {
			t.Fatal(err)
		}
	}
	wantFault(t, ask("192.0.2.9:1"), fault.Throttling, "Too many requests; try again in a minute")
	r.now = r.now.Add(time.Minute)
	for i := range 5 {
		c = device(t, pkix.Name{})
		if err := ask(fmt.Sprintf("[2001:db8::%d]:1", i)); err != nil {
			t.Fatal(err)
		}
	}
	c = device(t, pkix.Name{})
	wantFault(t, ask("2001:db8::77"), fault.Throttling, "Too many requests; try again in a minute")
	if err := ask("[2001:db8:0:1::1]:1"); err != nil {
		t.Errorf("the network beside it: %v", err)
	}
}

// TestAnAssignmentThatChangesMeanwhile: the answer is by what holds when its trace is
// committed.
func TestAnAssignmentThatChangesMeanwhile(t *testing.T) {
	r := newRig(t, newEngine(t))
	r.vouch[home] = registry.Voucher{CA: ca}
	who := Who{Kind: Authority, CACertificateID: ca}
	r.put(home, Assignment{Who: who, Account: leeds, Template: "pumps"})
	r.meanwhile = func() {
		r.meanwhile = nil
		r.put(home, Assignment{Who: who, Account: porto, Template: "valves"})
	}
	got, err := r.asks(device(t, pkix.Name{}))
	if err != nil || got.Account != porto || got.Template != "valves" {
		t.Errorf("%+v, %v", got, err)
	}
	told, _ := events[event.BootstrapAnswered](r)
	if len(told) != 2 || told[0].Target != porto {
		t.Errorf("%+v", told)
	}
}

// TestSerialOf: the serial number of the subject, else its common name; what nobody can
// write down is none, and hides what follows it.
func TestSerialOf(t *testing.T) {
	for _, c := range []struct {
		subject pkix.Name
		want    string
	}{
		{pkix.Name{SerialNumber: "S", CommonName: "C"}, "S"},
		{pkix.Name{CommonName: "C"}, "C"},
		{pkix.Name{}, ""},
		{pkix.Name{CommonName: strings.Repeat("x", maxSerial)}, strings.Repeat("x", maxSerial)},
		{pkix.Name{CommonName: strings.Repeat("x", maxSerial+1)}, ""},
		{pkix.Name{CommonName: "a\x00b"}, ""},
		{pkix.Name{CommonName: "a\nb"}, ""},
	} {
		if got := SerialOf(device(t, c.subject)); got != c.want {
			t.Errorf("%v: %q, want %q", c.subject, got, c.want)
		}
	}
}
