package certprovider

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account     fleet.Account = "000000000001"
	neighbour   fleet.Account = "000000000002"
	functionARN string        = "arn:aws:lambda:eu-local-1:000000000001:function:sign"
	otherARN    string        = "arn:aws:lambda:eu-local-1:000000000001:function:other"
	providerARN string        = "arn:aws:iot:eu-local-1:000000000001:certificateprovider/own,ca"
)

var (
	errBusy = errors.New("busy")
	errLate = errors.New("late")
)

// functions are sign and other; both do what the test says.
type functions struct {
	mu     sync.Mutex
	names  []string
	inputs []string
	sign   func(ctx context.Context, input []byte) ([]byte, error)
}

func (f *functions) Has(name string) bool { return name == "sign" || name == "other" }

func (f *functions) Invoke(ctx context.Context, name string, input []byte, limit time.Duration) ([]byte, error) {
	f.mu.Lock()
	f.names, f.inputs = append(f.names, name), append(f.inputs, string(input))
	sign := f.sign
	f.mu.Unlock()
	if limit != InvokeLimit {
		return nil, errors.New("without limit")
	}
	return sign(ctx, input)
}

// asked is how often the functions were.
func (f *functions) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.names)
}

// issuer is our own authority: what it is asked here is a mistake.
type issuer struct{}

var errOwn = errors.New("our own authority was asked")

func (issuer) CreateKeysAndCertificate(context.Context) (certificate, public, private []byte, err error) {
	return nil, nil, nil, errOwn
}

func (issuer) CreateClaim(context.Context, time.Time) (certificate, public, private []byte, err error) {
	return nil, nil, nil, errOwn
}

func (issuer) SignCSR(context.Context, []byte) ([]byte, error) { return nil, errOwn }

// rig is a Service with a registry, over one engine in memory.
type rig struct {
	*Service

	t         *testing.T
	engine    store.Store
	registry  *registry.Service
	joining   *provisioning.Service
	functions *functions
	metered   *prometheus.Registry
	now       time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	engine, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: log, CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{t: t, engine: engine, functions: &functions{}, metered: prometheus.NewRegistry(), now: time.UnixMilli(1795412345000).UTC()}
	clock := func() time.Time { return r.now }
	var ids int
	id := func() string { ids++; return string(rune('a' + ids)) }
	r.registry, err = registry.New(registry.Options{
		Store: engine, Region: "eu-local-1", Now: clock, NewID: id, Issuer: issuer{}, Logger: log,
		CheckQuery: func(string) error { return nil }, CheckPolicy: func([]byte) error { return nil },
		GroupStatus: func(fleet.Account, string, string) string { return "ACTIVE" },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Service, err = New(Options{
		Store: engine, Region: "eu-local-1", Functions: r.functions, Authorities: r.registry, Now: clock, Registerer: r.metered,
		IsBusy: func(err error) bool { return errors.Is(err, errBusy) }, IsLate: func(err error) bool { return errors.Is(err, errLate) },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.joining, err = provisioning.New(provisioning.Options{
		Store: engine, Registry: r.registry, Region: "eu-local-1", Functions: r.functions, Signer: r.Service, Now: clock, NewID: id, Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// create makes the account's provider.
func (r *rig) create() {
	r.t.Helper()
	if _, err := r.Create(r.t.Context(), account, good()); err != nil {
		r.t.Fatal(err)
	}
}

// good asks for a provider.
func good() CreateCommand {
	return CreateCommand{Name: "own,ca", FunctionARN: functionARN, Operations: []string{Operation}}
}

// events are the facts in the log since a mark that are about providers and tags.
func (r *rig) events() []event.Event {
	r.t.Helper()
	all, _, err := r.engine.Events(r.t.Context(), store.Cursor{}, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []event.Event
	for _, e := range all {
		if e.Account != account || !e.At.Equal(r.now) {
			r.t.Errorf("event %+v has a wrong place", e)
		}
		out = append(out, e.Event)
	}
	return out
}

// outcomes are the counts of the metric that are not zero.
func (r *rig) outcomes() map[string]float64 {
	r.t.Helper()
	families, err := r.metered.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return counts
}

// testCA is an authority outside of the server.
type testCA struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  string
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certify signs a certificate.
func certify(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, string) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// authority makes an authority, which nobody has registered.
func (r *rig) authority(name string) *testCA {
	r.t.Helper()
	c := &testCA{t: r.t, key: newKey(r.t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: r.now.Add(-time.Hour), NotAfter: r.now.Add(1000 * time.Hour),
	}
	c.cert, c.pem = certify(r.t, template, template, &c.key.PublicKey, c.key)
	return c
}

// register makes an authority one of an account.
func (r *rig) register(of fleet.Account, c *testCA) {
	r.t.Helper()
	_, err := r.registry.RegisterCACertificate(r.t.Context(), of, registry.RegisterCACommand{
		CertificatePEM: c.pem, Mode: registry.ModeSNIOnly, Active: true,
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (c *testCA) id() string {
	sum := sha256.Sum256(c.cert.Raw)
	return hex.EncodeToString(sum[:])
}

// issue signs a certificate for a device's key.
func (c *testCA) issue(now time.Time, key crypto.PublicKey, change ...func(*x509.Certificate)) string {
	c.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		c.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "pump"}, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
	}
	for _, edit := range change {
		edit(template)
	}
	_, text := certify(c.t, template, c.cert, key, c.key)
	return text
}

// request makes a signing request.
func request(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "pump"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// says is a function that answers a certificate.
func says(certificatePEM string) func(context.Context, []byte) ([]byte, error) {
	return func(context.Context, []byte) ([]byte, error) {
		return json.Marshal(map[string]string{"certificatePem": certificatePEM})
	}
}

// raw is a function that answers bytes.
func raw(answer string) func(context.Context, []byte) ([]byte, error) {
	return func(context.Context, []byte) ([]byte, error) { return bytes.Clone([]byte(answer)), nil }
}

// fails is a function without an answer.
func fails(err error) func(context.Context, []byte) ([]byte, error) {
	return func(context.Context, []byte) ([]byte, error) { return nil, err }
}

// device is one that asks, by a custom authorizer: its claim is none that the registry
// would have to know.
func device(of fleet.Account) provisioning.Requester {
	return provisioning.Requester{Account: of, Principal: fleet.Principal{Kind: fleet.PrincipalCustom, ID: "c1a1"}, ClientID: "fac-1"}
}

func wantCode(t *testing.T, err error, want fault.Code) {
	t.Helper()
	if got := fault.CodeOf(err); got != want {
		t.Errorf("got %v, want code %q", err, want)
	}
}

func wantEqual(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
}
