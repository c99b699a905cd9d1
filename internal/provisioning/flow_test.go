package provisioning

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

// flowBody is the template of most tests: a thing by its serial number at a site,
// its certificate, a policy of its own and a configuration.
const flowBody = `{"Parameters":{"SerialNumber":{"Type":"String"},"Site":{"Type":"String","Default":"leeds"}},
 "Resources":{
  "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Fn::Sub":"pump-${SerialNumber}"},"AttributePayload":{"site":{"Ref":"Site"}}}},
  "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}},
  "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}}}},
 "DeviceConfiguration":{"site":{"Ref":"Site"}}}`

const (
	flowAccount  fleet.Account = "000000000000"
	otherAccount fleet.Account = "111111111111"
	flowRole                   = "arn:aws:iam::000000000000:role/provisioning"
)

// flowIssuer signs what it is asked to.
type flowIssuer struct {
	now    func() time.Time
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	serial atomic.Int64
}

func newFlowIssuer(t *testing.T, now func() time.Time) *flowIssuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &flowIssuer{now: now, key: key}
	i.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, NotBefore: now().AddDate(-1, 0, 0), NotAfter: now().AddDate(9, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	return i
}

func (i *flowIssuer) sign(public any, until time.Time) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1 + i.serial.Add(1)), Subject: pkix.Name{CommonName: "device"}, NotBefore: i.now().Add(-time.Hour), NotAfter: until,
	}, i.cert, public, i.key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

func (i *flowIssuer) CreateKeysAndCertificate(ctx context.Context) (certificate, public, private []byte, err error) {
	return i.CreateClaim(ctx, i.now().AddDate(1, 0, 0))
}

func (i *flowIssuer) CreateClaim(_ context.Context, until time.Time) (certificate, public, private []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	certificate, err = i.sign(key.Public(), until)
	return certificate, []byte("public"), []byte("private"), err
}

func (i *flowIssuer) SignCSR(_ context.Context, csr []byte) ([]byte, error) {
	block, _ := pem.Decode(csr)
	if block == nil {
		return nil, fault.New(fault.InvalidRequest, "no request")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidRequest, err, "no request")
	}
	return i.sign(request.PublicKey, i.now().AddDate(1, 0, 0))
}

// flowFunctions is one function, called hook, which a test may replace. The limit
// is kept as the real ones keep it.
type flowFunctions struct {
	mu     sync.Mutex
	answer func(ctx context.Context, input []byte) ([]byte, error)
	inputs []string
	limits []time.Duration
}

func (f *flowFunctions) Has(name string) bool { return name == "hook" }

func (f *flowFunctions) Invoke(ctx context.Context, name string, input []byte, limit time.Duration) ([]byte, error) {
	f.mu.Lock()
	answer := f.answer
	f.inputs, f.limits = append(f.inputs, string(input)), append(f.limits, limit)
	f.mu.Unlock()
	if name != "hook" || answer == nil {
		return nil, errors.New("no function")
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return answer(ctx, input)
}

func (f *flowFunctions) set(answer func(ctx context.Context, input []byte) ([]byte, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// says lets the hook answer a text.
func (f *flowFunctions) says(text string) {
	f.set(func(context.Context, []byte) ([]byte, error) { return []byte(text), nil })
}

func (f *flowFunctions) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.inputs)
}

// flowStore tells when a record was read, and can die.
type flowStore struct {
	store.Store

	read atomic.Pointer[func(store.Key)]
	// dies, unless it is nil, is asked about each commit: false loses it, true loses
	// its answer.
	dies atomic.Pointer[func() bool]
}

func (s *flowStore) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	dies := s.dies.Load()
	if dies == nil {
		return s.Store.Commit(ctx, b)
	}
	if (*dies)() {
		if _, err := s.Store.Commit(ctx, b); err != nil {
			return store.Position{}, err
		}
	}
	return store.Position{}, store.ErrClosed
}

func (s *flowStore) Get(ctx context.Context, k store.Key) (store.Record, error) {
	found, err := s.Store.Get(ctx, k)
	if read := s.read.Load(); read != nil {
		(*read)(k)
	}
	return found, err
}

// flowRig is provisioning with its registry over one store.
type flowRig struct {
	*Service

	t        *testing.T
	disk     *flowStore
	registry *registry.Service
	hook     *flowFunctions
	issuer   *flowIssuer
	limits   Limits
	clock    atomic.Int64
	ids      atomic.Int64
	log      bytes.Buffer
	logging  sync.Mutex
}

func (r *flowRig) Write(p []byte) (int, error) {
	r.logging.Lock()
	defer r.logging.Unlock()
	return r.log.Write(p)
}

func newFlowRig(t *testing.T, limits Limits) *flowRig {
	t.Helper()
	disk, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	r := &flowRig{t: t, disk: &flowStore{Store: disk}, hook: &flowFunctions{}, limits: limits}
	r.clock.Store(time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC).UnixNano())
	r.issuer = newFlowIssuer(t, r.now)
	r.boot()
	return r
}

func (r *flowRig) now() time.Time { return time.Unix(0, r.clock.Load()).UTC() }

// pass moves the clock, also back.
func (r *flowRig) pass(d time.Duration) { r.clock.Add(int64(d)) }

func (r *flowRig) need(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// boot begins another process on the same store.
func (r *flowRig) boot() {
	r.t.Helper()
	newID := func() string { return fmt.Sprintf("id-%09d", r.ids.Add(1)) }
	var err error
	r.registry, err = registry.New(registry.Options{
		Store: r.disk, Region: "us-east-1", Now: r.now, NewID: newID, Issuer: r.issuer, Logger: slog.New(slog.DiscardHandler),
		CheckQuery: func(string) error { return nil }, CheckPolicy: func([]byte) error { return nil },
		GroupStatus: func(fleet.Account, string, string) string { return "ACTIVE" },
	})
	r.need(err)
	r.Service, err = New(Options{
		Store: r.disk, Registry: r.registry, Region: "us-east-1", Functions: r.hook, Now: r.now, NewID: newID, Limits: r.limits,
		Logger: slog.New(slog.NewTextHandler(r, nil)),
	})
	r.need(err)
}

// template makes a fleet provisioning template.
func (r *flowRig) template(name, body string, edits ...func(*CreateTemplateCommand)) {
	r.t.Helper()
	c := CreateTemplateCommand{Name: name, Body: body, Enabled: true, RoleARN: flowRole}
	for _, edit := range edits {
		edit(&c)
	}
	_, err := r.CreateTemplate(r.t.Context(), flowAccount, c)
	r.need(err)
}

// hooked gives a template the hook.
func hooked(c *CreateTemplateCommand) {
	c.Hook = &Hook{TargetARN: "arn:aws:lambda:us-east-1:000000000000:function:hook"}
}

// claim makes a long-lived claim certificate and returns who connects with it.
func (r *flowRig) claim() Requester {
	r.t.Helper()
	made, err := r.registry.CreateKeysAndCertificate(r.t.Context(), flowAccount, true)
	r.need(err)
	return Requester{Account: flowAccount, Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: made.ID}, ClientID: "fac-1"}
}

// issued is a certificate that waits for a requester.
func (r *flowRig) issued(of Requester) Issued {
	r.t.Helper()
	made, err := r.CreateKeys(r.t.Context(), of)
	r.need(err)
	if status := r.status(made.CertificateID); status != registry.StatusPendingActivation {
		r.t.Fatalf("a new certificate is %s", status)
	}
	return made
}

// join is Provision with the template "pumps".
func (r *flowRig) join(of Requester, token, serial string) (Provisioned, error) {
	return r.Provision(r.t.Context(), of, ProvisionCommand{Template: "pumps", Token: token, Parameters: map[string]string{"SerialNumber": serial}})
}

func (r *flowRig) status(id string) string {
	r.t.Helper()
	c, err := r.registry.DescribeCertificate(r.t.Context(), flowAccount, id)
	r.need(err)
	return c.Status
}

// gone reports that there is no certificate of an id.
func (r *flowRig) gone(id string) bool {
	r.t.Helper()
	_, err := r.registry.DescribeCertificate(r.t.Context(), flowAccount, id)
	if err != nil && fault.CodeOf(err) != fault.ResourceNotFound {
		r.t.Fatal(err)
	}
	return err != nil
}

// joined fails the test unless the device is complete: thing, certificate active
// and attached, policy.
func (r *flowRig) joined(thing, site, certificateID string) {
	r.t.Helper()
	found, err := r.registry.DescribeThing(r.t.Context(), flowAccount, thing)
	r.need(err)
	if found.Attributes["site"] != site {
		r.t.Errorf("thing %s is at %q, want %q", thing, found.Attributes["site"], site)
	}
	if status := r.status(certificateID); status != registry.StatusActive {
		r.t.Errorf("certificate of %s is %s", thing, status)
	}
	if !slices.Contains(r.certificates(thing), certificateID) {
		r.t.Errorf("thing %s has not the certificate %s", thing, certificateID)
	}
	policies, err := r.registry.EffectivePolicies(r.t.Context(), flowAccount, r.scope(flowAccount).ARN(fleet.ARNCertificate, certificateID), thing)
	r.need(err)
	if len(policies) != 1 {
		r.t.Errorf("certificate of %s has policies %v", thing, policies)
	}
}

// certificates are those of a thing.
func (r *flowRig) certificates(thing string) []string {
	r.t.Helper()
	attached, err := r.registry.ListThingPrincipals(r.t.Context(), flowAccount, thing, "", registry.Page{})
	r.need(err)
	ids := make([]string, len(attached.Items))
	for i := range attached.Items {
		ids[i] = attached.Items[i].Name[strings.LastIndexByte(attached.Items[i].Name, '/')+1:]
	}
	return ids
}

// untouched fails the test unless nothing was made of a certificate: it waits, and
// there is no thing.
func (r *flowRig) untouched(certificateID, thing string) {
	r.t.Helper()
	if status := r.status(certificateID); status != registry.StatusPendingActivation {
		r.t.Errorf("the certificate is %s", status)
	}
	if exists, err := r.registry.ThingExists(r.t.Context(), flowAccount, thing); err != nil || exists {
		r.t.Errorf("thing %s exists: %v, %v", thing, exists, err)
	}
	policies, err := r.registry.EffectivePolicies(r.t.Context(), flowAccount, r.scope(flowAccount).ARN(fleet.ARNCertificate, certificateID), "")
	if err != nil || len(policies) != 0 {
		r.t.Errorf("the certificate has policies %v, %v", policies, err)
	}
}

// refusals are the recorded ones behind a cursor.
func (r *flowRig) refusals(after store.Cursor) []event.ProvisioningRefused {
	r.t.Helper()
	envelopes, _, err := r.disk.Events(r.t.Context(), after, 1000)
	r.need(err)
	var out []event.ProvisioningRefused
	for i := range envelopes {
		if e, ok := envelopes[i].Event.(event.ProvisioningRefused); ok {
			out = append(out, e)
		}
	}
	return out
}

func (r *flowRig) head() store.Cursor {
	r.t.Helper()
	head, err := r.disk.Head(r.t.Context())
	r.need(err)
	return head
}

// sweep deletes what waited too long.
func (r *flowRig) sweep() int {
	r.t.Helper()
	n, err := r.registry.SweepPending(r.t.Context())
	r.need(err)
	return n
}

// wantCode fails the test unless an error has a code.
func wantCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if err == nil || fault.CodeOf(err) != code {
		t.Errorf("error %v of code %q, want %s", err, fault.CodeOf(err), code)
	}
}

// The usual way, and what a device is told.
func TestClaimFlow(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	claim := r.claim()
	made := r.issued(claim)
	got, err := r.Provision(t.Context(), claim, ProvisionCommand{
		Template: "pumps", Token: made.Token,
		Parameters: map[string]string{"SerialNumber": "1", "Site": "york", "Unheard": "of", provtemplate.CertificateID: made.CertificateID},
	})
	r.need(err)
	if got.ThingName != "pump-1" || len(got.DeviceConfiguration) != 1 || got.DeviceConfiguration["site"] != "york" {
		t.Errorf("told %+v", got)
	}
	r.joined("pump-1", "york", made.CertificateID)
}

// What is wrong with the template or the parameters is refused, whatever it is, and
// leaves nothing behind. The same token is good for the next try (§6.3).
func TestRefusedDeviceMayTryAgain(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	r.template("off", flowBody, func(c *CreateTemplateCommand) { c.Enabled = false })
	r.template("jitp", jitBody, func(c *CreateTemplateCommand) { c.Type = provtemplate.JITP })
	r.template("grouped", strings.Replace(flowBody, `"AttributePayload"`, `"ThingGroups":["none"],"AttributePayload"`, 1))
	r.template("typed", strings.Replace(flowBody, `"AttributePayload"`, `"ThingTypeName":"none","AttributePayload"`, 1))
	claim := r.claim()
	made := r.issued(claim)
	other := r.issued(claim)
	serial := map[string]string{"SerialNumber": "1"}
	for name, c := range map[string]struct {
		template   string
		parameters map[string]string
		code       fault.Code
		parameter  bool
	}{
		"no such template":         {"none", serial, fault.ResourceNotFound, false},
		"template with a bad name": {"a b", serial, fault.InvalidRequest, false},
		"template without name":    {"", serial, fault.InvalidRequest, false},
		"disabled template":        {"off", serial, fault.InvalidRequest, false},
		"template of type JITP":    {"jitp", serial, fault.InvalidRequest, false},
		"no such group":            {"grouped", serial, fault.ResourceNotFound, false},
		"no such type":             {"typed", serial, fault.ResourceNotFound, false},
		"no parameters":            {"pumps", nil, fault.InvalidRequest, true},
		"parameter missing":        {"pumps", map[string]string{"Site": "york"}, fault.InvalidRequest, true},
		"parameter in other case":  {"pumps", map[string]string{"serialnumber": "1"}, fault.InvalidRequest, true},
		"parameter too long":       {"pumps", map[string]string{"SerialNumber": strings.Repeat("1", 4097)}, fault.InvalidRequest, true},
		"parameter not UTF-8":      {"pumps", map[string]string{"SerialNumber": "\xff"}, fault.InvalidRequest, true},
		"parameter no thing's":     {"pumps", map[string]string{"SerialNumber": "a b"}, fault.InvalidRequest, true},
		"attribute too long":       {"pumps", map[string]string{"SerialNumber": "1", "Site": strings.Repeat("x", 801)}, fault.InvalidRequest, true},
		"the certificate of another": {
			"pumps", map[string]string{"SerialNumber": "1", provtemplate.CertificateID: other.CertificateID}, fault.InvalidRequest, true,
		},
	} {
		made = r.issued(claim) // one device's refusals are recorded once a minute
		at := r.head()
		_, err := r.Provision(t.Context(), claim, ProvisionCommand{Template: c.template, Token: made.Token, Parameters: c.parameters})
		if fault.CodeOf(err) != c.code || c.parameter && !errors.Is(err, ErrParameters) && name != "attribute too long" {
			t.Errorf("%s: %v of code %q, want %s", name, err, fault.CodeOf(err), c.code)
		}
		if refused := r.refusals(at); len(refused) != 1 || refused[0].CertificateID != made.CertificateID || refused[0].ClaimID != claim.Principal.ID {
			t.Errorf("%s: recorded %+v", name, refused)
		}
		r.untouched(made.CertificateID, "pump-1")
		r.untouched(other.CertificateID, "pump-1")
	}
	_, err := r.join(claim, made.Token, "1")
	r.need(err)
	r.joined("pump-1", "leeds", made.CertificateID)
}

// The server dies between the certificate and the thing, and in the commit of the
// thing. Outcome: the device joins with the token that it has, once; if the commit
// was done and only its answer lost, the device is whole and the token is spent.
func TestServerDiesBetweenCertificateAndThing(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{ClaimOutstanding: 10})
	r.template("pumps", flowBody)
	claim := r.claim()
	lost, done := r.issued(claim), r.issued(claim)
	r.boot()
	at := r.head()
	dies := false
	die := func() bool { return dies }
	r.disk.dies.Store(&die)
	_, err := r.join(claim, lost.Token, "1")
	wantCode(t, err, fault.Unavailable)
	dies = true
	_, err = r.join(claim, done.Token, "2")
	wantCode(t, err, fault.Unavailable)
	r.disk.dies.Store(nil)
	r.boot()
	r.untouched(lost.CertificateID, "pump-1")
	r.joined("pump-2", "leeds", done.CertificateID)
	_, err = r.join(claim, done.Token, "2")
	if !errors.Is(err, ErrToken) {
		t.Errorf("the token of a device that is whole: %v", err)
	}
	_, err = r.join(claim, lost.Token, "1")
	r.need(err)
	r.joined("pump-1", "leeds", lost.CertificateID)
	if events := r.eventsOf(at); len(events) != 2 || len(r.refusals(at)) != 0 {
		t.Errorf("joined %+v, refused %+v", events, r.refusals(at))
	}
}

// A template may have no thing, no policy, or neither (§3.2).
func TestTemplatesWithLess(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	const certificate = `"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"Inactive"}}`
	r.template("pumps", `{"Resources":{`+certificate+`}}`)
	claim := r.claim()
	made := r.issued(claim)
	got, err := r.join(claim, made.Token, "1")
	r.need(err)
	if got.ThingName != "" || got.DeviceConfiguration == nil || len(got.DeviceConfiguration) != 0 {
		t.Errorf("told %+v", got)
	}
	if status := r.status(made.CertificateID); status != registry.StatusInactive {
		t.Errorf("the certificate is %s", status)
	}
	r.pass(TokenLife)
	if n := r.sweep(); n != 0 || r.gone(made.CertificateID) {
		t.Errorf("%d certificates were deleted that have joined", n)
	}
}

// A template that was deleted and made again is the new one, also for a process
// that knew the old.
func TestTemplateMadeAgain(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	claim := r.claim()
	_, err := r.join(claim, r.issued(claim).Token, "1")
	r.need(err)
	r.need(r.DeleteTemplate(t.Context(), flowAccount, "pumps"))
	made := r.issued(claim)
	_, err = r.join(claim, made.Token, "2")
	wantCode(t, err, fault.ResourceNotFound)
	r.template("pumps", strings.ReplaceAll(flowBody, "leeds", "york"))
	_, err = r.join(claim, made.Token, "2")
	r.need(err)
	r.joined("pump-2", "york", made.CertificateID)
}

// Many devices join at once, into one group and one type, under a policy that the
// first of them makes: all of them get in.
func TestManyJoinAtOnce(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	_, err := r.registry.CreateThingGroup(t.Context(), flowAccount, registry.CreateThingGroupCommand{Name: "pumps"})
	r.need(err)
	_, err = r.registry.CreateThingType(t.Context(), flowAccount, registry.CreateThingTypeCommand{Name: "pump"})
	r.need(err)
	r.template("pumps", strings.Replace(flowBody, `"AttributePayload"`, `"ThingGroups":["pumps"],"ThingTypeName":"pump","AttributePayload"`, 1))
	claim := r.claim()
	const devices = 200
	made := make([]Issued, devices)
	for i := range made {
		made[i] = r.issued(claim)
	}
	var together sync.WaitGroup
	for i := range made {
		together.Go(func() {
			if _, err := r.join(claim, made[i].Token, fmt.Sprint(i)); err != nil {
				t.Errorf("device %d: %v", i, err)
			}
		})
	}
	together.Wait()
	for i := range made {
		r.joined(fmt.Sprintf("pump-%d", i), "leeds", made[i].CertificateID)
	}
}

// Two devices with one serial number at the same moment. Outcome: there is one
// thing, and both certificates are active and act as it. The override settings
// default to DO_NOTHING, so whoever comes second finds the thing as the first has
// made it; who must not share a name says FAIL (see below), or asks a hook.
func TestTwoDevicesWithOneSerialShareTheThing(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	claim := r.claim()
	for round := range 20 {
		serial := fmt.Sprint(round)
		errs, made := r.race(claim, serial, "york", "bath")
		if errs[0] != nil || errs[1] != nil {
			t.Fatalf("round %d: %v, %v", round, errs[0], errs[1])
		}
		thing, err := r.registry.DescribeThing(t.Context(), flowAccount, "pump-"+serial)
		r.need(err)
		site := thing.Attributes["site"]
		if site != "york" && site != "bath" || thing.Version != 1 {
			t.Errorf("round %d: the thing is %+v", round, thing)
		}
		for _, m := range made {
			r.joined("pump-"+serial, site, m.CertificateID)
		}
		if got := r.certificates("pump-" + serial); len(got) != 2 {
			t.Errorf("round %d: the thing has the certificates %v", round, got)
		}
	}
}

// The other device may come between any two reads of the first one's.
func TestTwoDevicesWithOneSerialBetweenTwoReads(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	claim := r.claim()
	for n := range 12 {
		serial := fmt.Sprint(n)
		first, second := r.issued(claim), r.issued(claim)
		reads := 0
		between := func(store.Key) {
			if reads++; reads == n+1 {
				r.disk.read.Store(nil)
				_, err := r.Provision(t.Context(), claim, ProvisionCommand{
					Template: "pumps", Token: second.Token, Parameters: map[string]string{"SerialNumber": serial, "Site": "york"},
				})
				r.need(err)
			}
		}
		r.disk.read.Store(&between)
		if _, err := r.join(claim, first.Token, serial); err != nil {
			t.Errorf("in front of read %d: %v", n+1, err)
			continue
		}
		if r.disk.read.Swap(nil) != nil {
			if n < 6 {
				t.Errorf("a device joins with %d reads: too few to show anything", reads)
			}
			break
		}
		r.joined("pump-"+serial, "york", first.CertificateID)
		r.joined("pump-"+serial, "york", second.CertificateID)
	}
}

// With FAIL one of the two gets in. Outcome: the other is refused with a conflict,
// its certificate waits on and is deleted when its hour is over.
func TestTwoDevicesWithOneSerialWhereATemplateSaysFail(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", strings.Replace(flowBody, `{"site":{"Ref":"Site"}}}}`, `{"site":{"Ref":"Site"}}},"OverrideSettings":{"AttributePayload":"FAIL"}}`, 1))
	claim := r.claim()
	for round := range 20 {
		serial := fmt.Sprint(round)
		errs, made := r.race(claim, serial, "york", "bath")
		first := 0
		if errs[0] != nil {
			first = 1
		}
		if errs[first] != nil {
			t.Fatalf("round %d: %v, %v", round, errs[0], errs[1])
		}
		wantCode(t, errs[1-first], fault.Conflict)
		r.joined("pump-"+serial, []string{"york", "bath"}[first], made[first].CertificateID)
		if got := r.certificates("pump-" + serial); !slices.Equal(got, []string{made[first].CertificateID}) {
			t.Errorf("round %d: the thing has the certificates %v", round, got)
		}
		if status := r.status(made[1-first].CertificateID); status != registry.StatusPendingActivation {
			t.Errorf("round %d: the other certificate is %s", round, status)
		}
	}
	r.pass(TokenLife)
	if n := r.sweep(); n != 20 {
		t.Errorf("%d certificates were deleted, want 20", n)
	}
}

// race lets devices with one serial number join at the same moment, each from its
// site.
func (r *flowRig) race(claim Requester, serial string, sites ...string) ([]error, []Issued) {
	r.t.Helper()
	errs, made := make([]error, len(sites)), make([]Issued, len(sites))
	begin := make(chan struct{})
	var together sync.WaitGroup
	for i, site := range sites {
		made[i] = r.issued(claim)
		together.Go(func() {
			<-begin
			_, errs[i] = r.Provision(r.t.Context(), claim, ProvisionCommand{
				Template: "pumps", Token: made[i].Token, Parameters: map[string]string{"SerialNumber": serial, "Site": site},
			})
		})
	}
	close(begin)
	together.Wait()
	return errs, made
}

// A device that joins with one token twice at the same moment joins once.
func TestOneTokenTwiceAtTheSameMoment(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	claim := r.claim()
	for round := range 20 {
		made := r.issued(claim)
		errs := make([]error, 4)
		var together sync.WaitGroup
		for i := range errs {
			together.Go(func() { _, errs[i] = r.join(claim, made.Token, fmt.Sprintf("%d-%d", round, i)) })
		}
		together.Wait()
		var in, things int
		for i, err := range errs {
			switch {
			case err == nil:
				in++
			case !errors.Is(err, ErrToken):
				t.Errorf("round %d: %v", round, err)
			}
			exists, err := r.registry.ThingExists(t.Context(), flowAccount, fmt.Sprintf("pump-%d-%d", round, i))
			r.need(err)
			if exists {
				things++
			}
		}
		if in != 1 || things != 1 {
			t.Errorf("round %d: %d got in, there are %d things", round, in, things)
		}
	}
}

// A template's default version changes while 200 devices join. Outcome: each device
// gets wholly the old version or wholly the new, and is told which by its
// configuration.
func TestTemplateChangesWhileDevicesJoin(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	versioned := func(v string) string {
		body := strings.ReplaceAll(flowBody, `"leeds"`, `"`+v+`"`)
		return strings.Replace(body, `"Action":"iot:Connect","Resource":"*"`, `"Action":"iot:Connect","Resource":"`+v+`"`, 1)
	}
	r.template("pumps", versioned("old"))
	_, _, err := r.CreateTemplateVersion(t.Context(), flowAccount, "pumps", versioned("new"), false)
	r.need(err)
	claim := r.claim()
	const devices = 200
	made, told := make([]Issued, devices), make([]Provisioned, devices)
	for i := range made {
		made[i] = r.issued(claim)
	}
	at := r.head()
	var together sync.WaitGroup
	next := make(chan int)
	for range 16 {
		together.Go(func() {
			for i := range next {
				var err error
				if told[i], err = r.join(claim, made[i].Token, fmt.Sprint(i)); err != nil {
					t.Errorf("device %d: %v", i, err)
				}
			}
		})
	}
	for i := range made {
		if i%10 == 5 { // others are under way
			version := int64(1 + i/10%2)
			_, err := r.UpdateTemplate(t.Context(), flowAccount, UpdateTemplateCommand{Name: "pumps", DefaultVersion: &version})
			r.need(err)
		}
		next <- i
	}
	close(next)
	together.Wait()
	versions := map[string]int64{}
	for _, e := range r.eventsOf(at) {
		versions[e.Thing] = e.TemplateVersion
	}
	policies := map[string]map[string]bool{"old": {}, "new": {}}
	for i := range made {
		name := fmt.Sprintf("pump-%d", i)
		v := told[i].DeviceConfiguration["site"]
		if v != "old" && v != "new" {
			t.Fatalf("device %d was told %+v", i, told[i])
		}
		r.joined(name, v, made[i].CertificateID)
		if got := versions[name]; got != map[string]int64{"old": 1, "new": 2}[v] {
			t.Errorf("device %d is of version %s, and its event says %d", i, v, got)
		}
		effective, err := r.registry.EffectivePolicies(t.Context(), flowAccount, r.scope(flowAccount).ARN(fleet.ARNCertificate, made[i].CertificateID), name)
		r.need(err)
		policies[v][effective[0].Name] = true
		if document := string(effective[0].Document); !strings.Contains(document, `"`+v+`"`) {
			t.Errorf("device %d of version %s has the policy %s", i, v, document)
		}
	}
	if len(policies["old"]) != 1 || len(policies["new"]) != 1 {
		t.Errorf("the devices have the policies %v, want one of each version", policies)
	}
}

// eventsOf are the devices that joined behind a cursor.
func (r *flowRig) eventsOf(after store.Cursor) []event.DeviceProvisioned {
	r.t.Helper()
	var out []event.DeviceProvisioned
	for {
		envelopes, next, err := r.disk.Events(r.t.Context(), after, 1000)
		r.need(err)
		for i := range envelopes {
			if e, ok := envelopes[i].Event.(event.DeviceProvisioned); ok {
				out = append(out, e)
			}
		}
		if len(envelopes) == 0 {
			return out
		}
		after = next
	}
}
