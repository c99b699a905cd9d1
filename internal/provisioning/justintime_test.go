package provisioning

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

const jitAccount fleet.Account = "000000000000"

// jitBody is the template of most tests: thing, policy and certificate.
const jitBody = `{"Parameters":{"AWS::IoT::Certificate::CommonName":{"Type":"String"},"AWS::IoT::Certificate::OrganizationalUnit":{"Type":"String"},
  "AWS::IoT::Certificate::Id":{"Type":"String"}},
 "Resources":{
  "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"},
    "AttributePayload":{"site":{"Ref":"AWS::IoT::Certificate::OrganizationalUnit"}}}},
  "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}},
  "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}}}}}`

// jitStore can refuse commits, as a server that dies does.
type jitStore struct {
	store.Store

	// dieAfter is how many commits are left; negative for no end.
	dieAfter atomic.Int64
}

func (s *jitStore) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if left := s.dieAfter.Add(-1); left == -1 {
		s.dieAfter.Store(0)
		return store.Position{}, store.ErrClosed
	} else if left < -1 {
		s.dieAfter.Store(-1 << 40)
	}
	return s.Store.Commit(ctx, b)
}

// jitRig is provisioning with its registry over one store.
type jitRig struct {
	*Service

	t        *testing.T
	store    *jitStore
	registry *registry.Service
	metered  *prometheus.Registry
	clock    atomic.Int64
	serial   atomic.Int64

	mu   sync.Mutex
	told []string
}

type jitIssuer struct{}

func (jitIssuer) CreateKeysAndCertificate(context.Context) (certificate, public, private []byte, err error) {
	return nil, nil, nil, errors.New("none")
}

func (jitIssuer) CreateClaim(context.Context, time.Time) (certificate, public, private []byte, err error) {
	return nil, nil, nil, errors.New("none")
}

func (jitIssuer) SignCSR(context.Context, []byte) ([]byte, error) { return nil, errors.New("none") }

type jitFunctions struct{}

func (jitFunctions) Has(string) bool { return false }

func (jitFunctions) Invoke(context.Context, string, []byte, time.Duration) ([]byte, error) {
	return nil, errors.New("none")
}

func newJITRig(t *testing.T) *jitRig {
	t.Helper()
	disk, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	r := &jitRig{t: t, store: &jitStore{Store: disk}}
	r.store.dieAfter.Store(-1 << 40)
	r.clock.Store(time.Date(2026, 11, 26, 7, 0, 0, 0, time.UTC).UnixNano())
	r.boot()
	return r
}

func (r *jitRig) now() time.Time { return time.Unix(0, r.clock.Load()).UTC() }

func (r *jitRig) need(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// boot begins another process on the same store.
func (r *jitRig) boot() {
	r.t.Helper()
	r.metered = prometheus.NewRegistry()
	var ids atomic.Int64
	newID := func() string { return fmt.Sprintf("id-%d-%09d", r.clock.Load(), ids.Add(1)) }
	var err error
	r.registry, err = registry.New(registry.Options{
		Store: r.store, Region: "us-east-1", Now: r.now, NewID: newID, Issuer: jitIssuer{}, Logger: slog.New(slog.DiscardHandler),
		CheckQuery: func(string) error { return nil }, CheckPolicy: func([]byte) error { return nil },
		GroupStatus: func(fleet.Account, string, string) string { return "ACTIVE" },
	})
	r.need(err)
	r.Service, err = New(Options{
		Store: r.store, Registry: r.registry, Region: "us-east-1", Functions: jitFunctions{}, Now: r.now, NewID: newID,
		Tell: func(_ fleet.Account, certificateID, what string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.told = append(r.told, certificateID[:8]+" "+what)
		},
		Logger: slog.New(slog.DiscardHandler), Registerer: r.metered,
	})
	r.need(err)
}

// introduced is the number of introductions with an outcome.
func (r *jitRig) introduced(outcome string) int {
	r.t.Helper()
	families, err := r.metered.Gather()
	r.need(err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "muster_provisioning_introductions_total" && m.GetLabel()[0].GetValue() == outcome {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}

// jitAuthority signs devices.
type jitAuthority struct {
	r    *jitRig
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	id   string
}

// authority registers one whose devices are provisioned by a body; none for "".
func (r *jitRig) authority(body string) *jitAuthority {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.need(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Acme"}, NotBefore: r.now().AddDate(-1, 0, 0), NotAfter: r.now().AddDate(9, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	r.need(err)
	a := &jitAuthority{r: r, key: key}
	a.cert, err = x509.ParseCertificate(der)
	r.need(err)
	made, err := r.registry.RegisterCACertificate(r.t.Context(), jitAccount, registry.RegisterCACommand{
		CertificatePEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), Mode: registry.ModeSNIOnly,
		Active: true, AutoRegistration: true, RegistrationConfig: configOf(body),
	})
	r.need(err)
	a.id = made.ID
	return a
}

// configOf has a body, nil for "".
func configOf(body string) *registry.RegistrationConfig {
	if body == "" {
		return nil
	}
	return &registry.RegistrationConfig{TemplateBody: body, RoleARN: "arn:aws:iam::000000000000:role/p"}
}

// device signs a certificate; edits change its template.
func (a *jitAuthority) device(name string, edits ...func(*x509.Certificate)) registry.Newcomer {
	a.r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.r.need(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.r.serial.Add(1)), Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{"leeds"}},
		NotBefore: a.r.now().Add(-time.Hour), NotAfter: a.r.now().AddDate(1, 0, 0),
	}
	for _, edit := range edits {
		edit(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	a.r.need(err)
	leaf, err := x509.ParseCertificate(der)
	a.r.need(err)
	return registry.Newcomer{Certificate: leaf, Named: true}
}

// events are those behind a cursor, of all accounts.
func (r *jitRig) events(after store.Cursor) []event.Event {
	r.t.Helper()
	envelopes, _, err := r.store.Events(r.t.Context(), after, 1000)
	r.need(err)
	out := make([]event.Event, len(envelopes))
	for i := range envelopes {
		out[i] = envelopes[i].Event
	}
	return out
}

func (r *jitRig) head() store.Cursor {
	r.t.Helper()
	head, err := r.store.Head(r.t.Context())
	r.need(err)
	return head
}

// only are the events of a kind.
func only[T event.Event](events []event.Event) []T {
	var out []T
	for _, e := range events {
		if found, ok := e.(T); ok {
			out = append(out, found)
		}
	}
	return out
}

func (r *jitRig) status(id string) string {
	r.t.Helper()
	c, err := r.registry.DescribeCertificate(r.t.Context(), jitAccount, id)
	r.need(err)
	return c.Status
}

// thing fails the test unless a thing exists, with an attribute, and the
// certificate acts as it.
func (r *jitRig) thing(name, site, certificateID string) {
	r.t.Helper()
	thing, err := r.registry.DescribeThing(r.t.Context(), jitAccount, name)
	r.need(err)
	if thing.Attributes["site"] != site {
		r.t.Errorf("attributes %v, want site %s", thing.Attributes, site)
	}
	info, ok, err := r.registry.ConnectionThing(r.t.Context(), jitAccount, r.scope(jitAccount).ARN(fleet.ARNCertificate, certificateID), name)
	r.need(err)
	if !ok || info.Name != name {
		r.t.Errorf("the certificate acts as %+v, want %s", info, name)
	}
}

// security-provisioning §2.5, §6.4; mission M12: an unknown certificate of a
// registered authority becomes a thing on its own, in one commit behind its
// registration. The event of registration is published as well.
func TestJustInTime(t *testing.T) {
	t.Parallel()
	r := newJITRig(t)
	a := r.authority(jitBody)
	n := a.device("pump-1")
	at := r.head()
	found, err := r.JustInTime(t.Context(), jitAccount, n)
	r.need(err)
	if found.Status != registry.StatusActive || found.Waiting || !found.New {
		t.Errorf("found %+v", found)
	}
	r.thing("pump-1", "leeds", found.CertificateID)
	if got := r.status(found.CertificateID); got != registry.StatusActive {
		t.Errorf("certificate is %s", got)
	}
	policies, err := r.registry.EffectivePolicies(t.Context(), jitAccount, r.scope(jitAccount).ARN(fleet.ARNCertificate, found.CertificateID), "pump-1")
	r.need(err)
	if len(policies) != 1 {
		t.Errorf("policies %v", policies)
	}
	events := r.events(at)
	want := []event.DeviceProvisioned{{
		Method: event.ProvisioningJITP, Thing: "pump-1", ThingCreated: true, CertificateID: found.CertificateID,
		Attributes: map[string]string{"site": "leeds"}, CACertificateID: found.CA,
	}}
	if got := only[event.DeviceProvisioned](events); !reflect.DeepEqual(got, want) {
		t.Errorf("provisioned %+v", got)
	}
	if got := only[event.CertificateAutoRegistered](events); len(got) != 1 {
		t.Errorf("announced %+v", got)
	}
	// Whoever comes again is known.
	at = r.head()
	found, err = r.JustInTime(t.Context(), jitAccount, n)
	if err != nil || found.Waiting || len(r.events(at)) != 0 {
		t.Errorf("again: %+v, %v, %v", found, err, r.events(at))
	}
}

// Mission M13: without a template the event fires and others activate.
func TestJustInTimeRegistration(t *testing.T) {
	t.Parallel()
	r := newJITRig(t)
	a := r.authority("")
	n := a.device("pump-1")
	at := r.head()
	found, err := r.JustInTime(t.Context(), jitAccount, n)
	r.need(err)
	if !found.Waiting || found.Status != registry.StatusPendingActivation || len(only[event.CertificateAutoRegistered](r.events(at))) != 1 {
		t.Errorf("found %+v, events %v", found, r.events(at))
	}
}

// What a server that dies in between leaves behind, the next connect finishes.
func TestJustInTimeGoesOnAfterRestart(t *testing.T) {
	t.Parallel()
	r := newJITRig(t)
	a := r.authority(jitBody)
	n := a.device("pump-1")
	r.store.dieAfter.Store(1)
	if found, err := r.JustInTime(t.Context(), jitAccount, n); fault.CodeOf(err) != fault.Unavailable || !found.New {
		t.Fatalf("%+v, %v, want a store that is closed after the registration", found, err)
	}
	r.store.dieAfter.Store(-1 << 40)
	id := registry.CertificateID(n.Certificate.Raw)
	if got := r.status(id); got != registry.StatusPendingActivation {
		t.Fatalf("certificate is %s", got)
	}
	if _, err := r.registry.DescribeThing(t.Context(), jitAccount, "pump-1"); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Fatalf("thing: %v", err)
	}
	r.boot()
	at := r.head()
	found, err := r.JustInTime(t.Context(), jitAccount, n)
	r.need(err)
	if found.New || found.Announced || found.Status != registry.StatusActive {
		t.Errorf("found %+v", found)
	}
	r.thing("pump-1", "leeds", id)
	if got := only[event.ProvisioningRefused](r.events(at)); len(got) != 0 {
		t.Errorf("refused %+v", got)
	}
}

// A template that does not fit leaves the certificate waiting and nothing else.
func TestJustInTimeRefused(t *testing.T) {
	t.Parallel()
	r := newJITRig(t)
	nameless := func(c *x509.Certificate) { c.Subject.OrganizationalUnit = nil }
	for name, c := range map[string]struct {
		body string
		edit func(*x509.Certificate)
		code string
		says string
	}{
		"subject lacks a parameter": {jitBody, nameless, "InvalidParameters", "AWS::IoT::Certificate::OrganizationalUnit"},
		"empty parameter":           {jitBody, func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{""} }, "InvalidParameters", "AWS::IoT::Certificate::OrganizationalUnit"},
		"group that does not exist": {strings.Replace(jitBody, `"AttributePayload"`, `"ThingGroups":["nowhere"],"AttributePayload"`, 1), nil, "ResourceNotFound", "nowhere"},
	} {
		a := r.authority(c.body)
		edit := c.edit
		if edit == nil {
			edit = func(*x509.Certificate) {}
		}
		device := strings.ReplaceAll(name, " ", "-")
		n := a.device(device, edit)
		id := registry.CertificateID(n.Certificate.Raw)
		at := r.head()
		for range 3 {
			if _, err := r.JustInTime(t.Context(), jitAccount, n); err == nil || !strings.Contains(reasonOf(err), c.says) {
				t.Errorf("%s: %v, want %q", name, err, c.says)
			}
		}
		if got := r.status(id); got != registry.StatusPendingActivation {
			t.Errorf("%s: certificate is %s", name, got)
		}
		if _, err := r.registry.DescribeThing(t.Context(), jitAccount, device); fault.CodeOf(err) != fault.ResourceNotFound {
			t.Errorf("%s: thing: %v", name, err)
		}
		// Once a minute is enough to know.
		got := only[event.ProvisioningRefused](r.events(at))
		if len(got) != 1 || got[0].Method != event.ProvisioningJITP || got[0].Code != c.code || got[0].CertificateID != id || !strings.Contains(got[0].Reason, c.says) {
			t.Errorf("%s: refused %+v", name, got)
		}
		// With a template that fits the next connect is all it takes.
		fits := strings.Replace(strings.Replace(jitBody, `,"AWS::IoT::Certificate::OrganizationalUnit":{"Type":"String"}`, "", 1),
			`{"Ref":"AWS::IoT::Certificate::OrganizationalUnit"}`, `"leeds"`, 1)
		r.need(r.registry.UpdateCACertificate(t.Context(), jitAccount, registry.UpdateCACommand{ID: a.id, RegistrationConfig: configOf(fits)}))
		_, err := r.JustInTime(t.Context(), jitAccount, n)
		r.need(err)
		r.thing(device, "leeds", id)
	}
	if got := r.introduced(introducedRefused); got != 9 {
		t.Errorf("%d refused are counted, want 9", got)
	}
}

// A certificate that its template leaves INACTIVE is through: the template does
// not run again.
func TestJustInTimeLeavesInactive(t *testing.T) {
	t.Parallel()
	r := newJITRig(t)
	a := r.authority(strings.Replace(jitBody, `"Status":"ACTIVE"`, `"Status":"INACTIVE"`, 1))
	n := a.device("pump-1")
	found, err := r.JustInTime(t.Context(), jitAccount, n)
	r.need(err)
	if found.Status != registry.StatusInactive || r.status(found.CertificateID) != registry.StatusInactive {
		t.Errorf("found %+v", found)
	}
	at := r.head()
	_, err = r.JustInTime(t.Context(), jitAccount, n)
	r.need(err)
	if got := r.events(at); len(got) != 0 {
		t.Errorf("events %v", got)
	}
}

// Concurrent first connects of one device make one certificate and one thing, and
// none of them is refused, whatever the template says of things that exist.
func TestJustInTimeAtOnce(t *testing.T) {
	t.Parallel()
	r := newJITRig(t)
	a := r.authority(strings.Replace(jitBody, `"thing":{"Type":"AWS::IoT::Thing",`, `"thing":{"Type":"AWS::IoT::Thing","OverrideSettings":{"AttributePayload":"FAIL"},`, 1))
	n := a.device("pump-1")
	at := r.head()
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if _, err := r.JustInTime(t.Context(), jitAccount, n); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	events := r.events(at)
	if len(only[event.CertificateCreated](events)) != 1 || len(only[event.ThingCreated](events)) != 1 ||
		len(only[event.DeviceProvisioned](events)) != 1 || len(only[event.ProvisioningRefused](events)) != 0 {
		t.Errorf("events %+v", events)
	}
	r.thing("pump-1", "leeds", registry.CertificateID(n.Certificate.Raw))
}

// A waiting certificate whose authority has changed is refused, on record.
func TestJustInTimeUnderAnInactiveAuthority(t *testing.T) {
	t.Parallel()
	r := newJITRig(t)
	a := r.authority("")
	n, late := a.device("pump-1"), a.device("pump-2")
	found, err := r.JustInTime(t.Context(), jitAccount, n)
	r.need(err)
	r.need(r.registry.UpdateCACertificate(t.Context(), jitAccount, registry.UpdateCACommand{ID: a.id, Status: registry.StatusInactive}))
	at := r.head()
	for _, unwanted := range []registry.Newcomer{n, late} {
		if _, err := r.JustInTime(t.Context(), jitAccount, unwanted); fault.CodeOf(err) != fault.CertificateState {
			t.Errorf("got %v", err)
		}
	}
	want := []event.Event{event.ProvisioningRefused{
		Method: event.ProvisioningJITR, CertificateID: found.CertificateID, Code: "CertificateState",
		Reason: "the CA certificate " + a.id + " is INACTIVE and registers no devices",
	}}
	if got := r.events(at); !reflect.DeepEqual(got, want) {
		t.Errorf("events %+v, want those of the one that is registered", got)
	}
}

// Of several values the first counts, in the order of the certificate.
func TestSubjectParameters(t *testing.T) {
	t.Parallel()
	of := func(oid asn1.ObjectIdentifier, value any) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: oid, Value: value}
	}
	c := &x509.Certificate{Subject: pkix.Name{Names: []pkix.AttributeTypeAndValue{
		of(asn1.ObjectIdentifier{2, 5, 4, 6}, "GB"), of(asn1.ObjectIdentifier{2, 5, 4, 10}, "Acme"), of(asn1.ObjectIdentifier{2, 5, 4, 11}, ""),
		of(asn1.ObjectIdentifier{2, 5, 4, 11}, "pumps"), of(asn1.ObjectIdentifier{2, 5, 4, 11}, "fans"), of(asn1.ObjectIdentifier{2, 5, 4, 46}, "q"),
		of(asn1.ObjectIdentifier{2, 5, 4, 8}, "Yorkshire"), of(asn1.ObjectIdentifier{2, 5, 4, 3}, "pump-1"), of(asn1.ObjectIdentifier{2, 5, 4, 5}, "7"),
		of(asn1.ObjectIdentifier{2, 5, 4, 7}, "Leeds"), of(asn1.ObjectIdentifier{2, 5, 4, 5}, 8),
	}}}
	want := map[string]string{
		"AWS::IoT::Certificate::Id": "id", "AWS::IoT::Certificate::Country": "GB", "AWS::IoT::Certificate::Organization": "Acme",
		"AWS::IoT::Certificate::OrganizationalUnit": "pumps", "AWS::IoT::Certificate::DistinguishedNameQualifier": "q",
		"AWS::IoT::Certificate::StateName": "Yorkshire", "AWS::IoT::Certificate::CommonName": "pump-1", "AWS::IoT::Certificate::SerialNumber": "7",
	}
	if got := subjectParameters("id", c); !reflect.DeepEqual(got, want) {
		t.Errorf("parameters %v", got)
	}
}

// The queue takes each once, is bounded, and says what became of everybody.
func TestIntroductions(t *testing.T) {
	t.Parallel()
	r := newJITRig(t)
	a := r.authority(jitBody)
	count := r.introduced
	nobody := *a.cert
	nobody.RawSubject, nobody.Subject = nil, pkix.Name{CommonName: "Nobody"}
	stranger := (&jitAuthority{r: r, key: a.key, cert: &nobody}).device("x")
	if told := r.Introduce(t.Context(), jitAccount, stranger, false); !strings.Contains(told, "no registered CA certificate") || count(introducedStranger) != 1 {
		t.Errorf("a stranger is told %q", told)
	}
	good, bad := a.device("pump-1"), a.device("pump-2", func(c *x509.Certificate) { c.NotAfter = r.now().Add(-time.Minute) })
	for range 3 {
		for _, n := range []registry.Newcomer{good, bad} {
			if told := r.Introduce(t.Context(), jitAccount, n, false); told != "" {
				t.Errorf("told %q", told)
			}
		}
	}
	if count(introducedAgain) != 4 || len(r.newcomers.queue) != 2 {
		t.Errorf("%d again, %d queued", count(introducedAgain), len(r.newcomers.queue))
	}
	// A full queue drops and says so.
	forged := a.device("forged")
	forged.Certificate.Signature[9]++
	for i := range maxNewcomers {
		clone := *forged.Certificate
		clone.Raw = append(slices.Clone(forged.Certificate.Raw), byte(i), byte(i>>8))
		told := r.Introduce(t.Context(), jitAccount, registry.Newcomer{Certificate: &clone, Named: true}, false)
		if dropped := i >= maxNewcomers-2; dropped != (told != "") {
			t.Fatalf("number %d is told %q", i, told)
		}
	}
	if count(introducedDropped) != 2 {
		t.Errorf("%d dropped", count(introducedDropped))
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.RunIntroductions(ctx) }()
	late := time.Now().Add(30 * time.Second)
	for {
		r.newcomers.mu.Lock()
		held := len(r.newcomers.held)
		r.newcomers.mu.Unlock()
		if held == 0 {
			break
		}
		if time.Now().After(late) {
			t.Fatalf("%d are still held", held)
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	r.need(<-done)
	r.thing("pump-1", "leeds", registry.CertificateID(good.Certificate.Raw))
	if count(introducedProvisioned) != 1 || count(introducedNotRegistered) != maxNewcomers-1 {
		t.Errorf("%d provisioned, %d not registered", count(introducedProvisioned), count(introducedNotRegistered))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, want := range []string{
		registry.CertificateID(good.Certificate.Raw)[:8] + " it registered by connecting, under the CA certificate " + a.id + ", and is ACTIVE now: the device may connect again",
		registry.CertificateID(bad.Certificate.Raw)[:8] + " it cannot register by connecting: certificate: the certificate expired on 2026-11-26T06:59:00Z",
	} {
		if !slices.Contains(r.told, want) {
			t.Errorf("nobody is told %q, but %q …", want, r.told[:4])
		}
	}
}

// A server that stops finishes what is begun and leaves the rest.
func TestIntroductionsStop(t *testing.T) {
	t.Parallel()
	r := newJITRig(t)
	a := r.authority(jitBody)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.introduce(ctx, newcomer{newcomerKey{jitAccount, "pump-1xx"}, a.device("pump-1")})
	if _, err := r.registry.DescribeThing(t.Context(), jitAccount, "pump-1"); err != nil {
		t.Errorf("what was begun: %v", err)
	}
	r.Introduce(t.Context(), jitAccount, a.device("pump-2"), false)
	r.need(r.RunIntroductions(ctx))
	if _, err := r.registry.DescribeThing(t.Context(), jitAccount, "pump-2"); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("what was not begun: %v", err)
	}
}
