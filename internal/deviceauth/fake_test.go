package deviceauth_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

const (
	account = fleet.Account("000000000001")
	region  = "eu-local-1"
	scope   = "arn:aws:iot:eu-local-1:000000000001:"
)

// start is when every test begins.
var start = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// fleetFake holds what a registry would, and emits the event of each change
// after making it, as a log does.
type fleetFake struct {
	mu           sync.Mutex
	certificates map[string]deviceauth.Certificate
	things       map[string]deviceauth.Thing
	attached     map[string]map[string]bool // principal ARN → thing → exclusive
	policies     map[string]deviceauth.Policy
	targets      map[string][]string // target ARN or group → policies
	groups       map[string][]string // thing → groups with their ancestors
	failure      error
	reads        int

	service *deviceauth.Service
}

func (f *fleetFake) Certificate(_ context.Context, _ fleet.Account, id string) (deviceauth.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	if f.failure != nil {
		return deviceauth.Certificate{}, f.failure
	}
	c, ok := f.certificates[id]
	if !ok {
		return c, fault.New(fault.ResourceNotFound, "Certificate not found")
	}
	return c, nil
}

func (f *fleetFake) ConnectionThing(_ context.Context, _ fleet.Account, principal, clientID string) (deviceauth.Thing, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, exclusive := range f.attached[principal] {
		if exclusive {
			thing := f.things[name]
			thing.Exclusive, thing.Attached = true, true
			return thing, true, f.failure
		}
	}
	if _, ok := f.attached[principal][clientID]; !ok {
		return deviceauth.Thing{}, false, f.failure
	}
	thing := f.things[clientID]
	thing.Attached = true
	return thing, true, f.failure
}

func (f *fleetFake) EffectivePolicies(_ context.Context, _ fleet.Account, principal, thing string) ([]deviceauth.Policy, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := append([]string(nil), f.targets[principal]...)
	for _, group := range f.groups[thing] {
		names = append(names, f.targets[group]...)
	}
	var all []deviceauth.Policy
	for _, name := range names {
		all = append(all, f.policies[name])
	}
	return all, f.failure
}

func (f *fleetFake) Policy(_ context.Context, _ fleet.Account, name string) (deviceauth.Policy, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.policies[name]
	if !ok {
		return p, fault.New(fault.ResourceNotFound, "policy %s does not exist", name)
	}
	return p, f.failure
}

// change makes a change and then applies its event.
func (f *fleetFake) change(e event.Event, edit func()) {
	f.mu.Lock()
	edit()
	f.mu.Unlock()
	f.service.Apply([]event.Envelope{{Account: account, Event: e}})
}

// setPolicy makes a document the default version of a policy.
func (f *fleetFake) setPolicy(name, document string) {
	f.change(event.PolicyChanged{Policy: name, Change: event.PolicyDefaultVersionSet}, func() {
		f.policies[name] = policy(name, document)
	})
}

// policy returns a policy whose "@:" is the scope.
func policy(name, document string) deviceauth.Policy {
	return deviceauth.Policy{
		Name: name, ARN: scope + "policy/" + name, VersionID: "1",
		Document: []byte(strings.ReplaceAll(document, "@:", scope)),
	}
}

// world is a service over a fake fleet with one certificate.
type world struct {
	*fleetFake
	certificate  *x509.Certificate
	id, arn      string
	now          atomic.Int64
	lag          atomic.Int64
	log          *lockedBuffer
	disconnected chan string
	// strangers were handed over; answer is what that answers.
	strangers []deviceauth.Stranger
	answer    string
}

// lockedBuffer collects log lines of several goroutines.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// newWorld has thing pump-7 at site leeds, to which the only certificate is
// attached, and a policy named reference on the certificate.
func newWorld(tb testing.TB, document string) *world {
	tb.Helper()
	w := &world{certificate: newCertificate(tb, pkix.Name{CommonName: "pump-7"}), log: &lockedBuffer{}, disconnected: make(chan string, 16)}
	w.id = deviceauth.CertificateID(w.certificate)
	w.arn = scope + "cert/" + w.id
	w.now.Store(start.UnixNano())
	w.fleetFake = &fleetFake{
		certificates: map[string]deviceauth.Certificate{w.id: {ID: w.id, ARN: w.arn, Status: "ACTIVE"}},
		things:       map[string]deviceauth.Thing{"pump-7": {Name: "pump-7", Attributes: map[string]string{"site": "leeds"}}, "pump-8": {Name: "pump-8"}},
		attached:     map[string]map[string]bool{w.arn: {"pump-7": false}},
		policies:     map[string]deviceauth.Policy{"reference": policy("reference", document)},
		targets:      map[string][]string{w.arn: {"reference"}},
		groups:       map[string][]string{"pump-7": {"child", "parent"}},
	}
	service, err := deviceauth.New(deviceauth.Options{
		Registry:       w.fleetFake,
		Region:         region,
		AllowAnonymous: true,
		Account: func(name string) (fleet.Account, error) {
			if name == "refused" {
				return "", fault.New(fault.Unauthorized, "no account")
			}
			return account, nil
		},
		Disconnect: func(_ fleet.Account, id string) { w.disconnected <- id },
		Introduce: func(_ context.Context, who deviceauth.Stranger) string {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.strangers = append(w.strangers, who)
			return w.answer
		},
		Holds: func(_ fleet.Account, clientID string) (string, bool) {
			return map[string]string{"taken": "another", "mine": w.id}[clientID], clientID == "taken" || clientID == "mine"
		},
		Lag:    func() time.Duration { return time.Duration(w.lag.Load()) },
		Now:    func() time.Time { return time.Unix(0, w.now.Load()) },
		Logger: slog.New(slog.NewJSONHandler(w.log, nil)),
	})
	if err != nil {
		tb.Fatal(err)
	}
	w.service = service
	return w
}

// newCertificate makes a self-signed certificate valid for a day around start.
func newCertificate(tb testing.TB, subject pkix.Name) *x509.Certificate {
	tb.Helper()
	return signCertificate(tb, &x509.Certificate{Subject: subject})
}

// signCertificate completes and signs a template.
func signCertificate(tb testing.TB, template *x509.Certificate) *x509.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template.SerialNumber = new(big.Int).SetBytes([]byte{0x92, 0x12, 0x85, 0xcb, 0xb7, 0xa5, 0xe0, 0x86})
	template.NotBefore, template.NotAfter = start.Add(-time.Hour), start.Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return certificate
}

// connect admits a client id or fails the test.
func (w *world) connect(tb testing.TB, clientID string) deviceauth.Admission {
	tb.Helper()
	a, err := w.service.Admit(tb.Context(), deviceauth.Request{Certificate: w.certificate, ClientID: clientID, RemoteAddr: "192.0.2.7:1000"})
	if err != nil {
		tb.Fatalf("admit %s: %v", clientID, err)
	}
	tb.Cleanup(a.Guard.Close)
	return a
}
