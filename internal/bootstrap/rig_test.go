package bootstrap

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

const (
	home   = fleet.Account("000000000000")
	leeds  = fleet.Account("000000000001")
	porto  = fleet.Account("000000000002")
	closed = fleet.Account("000000000003")
)

// ca is an authority's id.
const ca = "cacacacacacacacacacacacacacacacacacacacacacacacacacacacacacacaca"

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// rig is a Service among accounts that the test plays.
type rig struct {
	*Service

	t     *testing.T
	store store.Store
	now   time.Time
	// vouch is what accounts say about any certificate; an account without an entry
	// does not know it.
	vouch  map[fleet.Account]registry.Voucher
	no     map[fleet.Account]error
	guests map[string]time.Time
	// busy makes AdmitGuest fail, look is the gate's word.
	busy, usable error
	look         func(*Device) (Standing, error)
	// meanwhile happens while a guest is admitted.
	meanwhile func()
}

func newEngine(t *testing.T) store.Store {
	t.Helper()
	engine, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return engine
}

func newRig(t *testing.T, engine store.Store, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, store: engine, now: noon, vouch: map[fleet.Account]registry.Voucher{}, no: map[fleet.Account]error{}, guests: map[string]time.Time{}}
	o := Options{
		Store: engine, Certificates: r, Accounts: r, Templates: r, Gates: []Gate{r}, Default: home, Region: "us-east-1", Roots: "roots",
		Ports: func() Ports { return Ports{MQTT: 8883, HTTPS: 8443} }, Window: 24 * time.Hour, CertificateRate: 1000, AddressRate: 1000,
		Now: func() time.Time { return r.now },
	}
	for _, c := range change {
		c(&o)
	}
	var err error
	if r.Service, err = New(o); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) MayVouch(_ context.Context, accounts []fleet.Account, _ *x509.Certificate) ([]fleet.Account, error) {
	return accounts, nil
}

func (r *rig) Vouch(_ context.Context, account fleet.Account, _ *x509.Certificate) (registry.Voucher, error) {
	if err := r.no[account]; err != nil {
		return registry.Voucher{}, err
	}
	v, ok := r.vouch[account]
	if !ok {
		return v, fault.New(fault.ResourceNotFound, "no")
	}
	return v, nil
}

func (r *rig) AdmitGuest(_ context.Context, account fleet.Account, c *x509.Certificate, template string, until time.Time) (time.Time, error) {
	if r.meanwhile != nil {
		r.meanwhile()
	}
	if r.busy != nil {
		return time.Time{}, r.busy
	}
	r.guests[string(account)+" "+registry.CertificateID(c.Raw)+" "+template] = until
	return until, nil
}

func (r *rig) Open() []fleet.Account { return []fleet.Account{home, leeds, porto} }

func (r *rig) Exists(_ context.Context, of fleet.Account) (bool, error) {
	return of <= closed, nil
}

func (r *rig) Endpoint(of fleet.Account) string { return "endpoint-of-" + string(of) }

func (r *rig) TemplateExists(_ context.Context, _ fleet.Account, name string) (bool, error) {
	return name == "pumps" || name == "valves", nil
}

func (r *rig) Usable(context.Context, fleet.Account, string) error { return r.usable }

func (r *rig) Look(_ context.Context, d *Device) (Standing, error) {
	if r.look == nil {
		return Standing{Approval: NotNeeded}, nil
	}
	return r.look(d)
}

// device makes a certificate with a subject.
func device(t *testing.T, subject pkix.Name) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: subject, NotBefore: noon.Add(-time.Hour), NotAfter: noon.AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// put makes an assignment that must be taken.
func (r *rig) put(owner fleet.Account, a Assignment) Assignment {
	r.t.Helper()
	a.Enabled = true
	made, _, err := r.Put(r.t.Context(), owner, PutCommand{Assignment: a})
	if err != nil {
		r.t.Fatal(err)
	}
	return made
}

// asks plays a device.
func (r *rig) asks(c *x509.Certificate) (Answer, error) {
	ctx := fleet.WithActor(r.t.Context(), fleet.Actor{SourceAddress: "192.0.2.7"})
	return r.Ask(ctx, Question{Certificate: c, Transport: HTTPS, Address: "192.0.2.7:4711"})
}

// events are those of a type in the log.
func events[E event.Event](r *rig) (found []E, accounts []fleet.Account) {
	r.t.Helper()
	all, _, err := r.store.Events(r.t.Context(), store.Cursor{}, 100_000)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, env := range all {
		if e, ok := env.Event.(E); ok {
			found, accounts = append(found, e), append(accounts, env.Account)
		}
	}
	return found, accounts
}

// wantFault checks code and words of an error.
func wantFault(t *testing.T, err error, code fault.Code, words string) {
	t.Helper()
	if fault.CodeOf(err) != code || fault.From(err).Message != words {
		t.Errorf("got %v, want %s: %s", err, code, words)
	}
}
