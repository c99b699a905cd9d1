package renewal

import (
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
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	acct fleet.Account = "000000000000"

	overlap  = 24 * time.Hour
	patience = 7 * 24 * time.Hour
)

var start = time.Date(2026, 11, 26, 7, 0, 0, 0, time.UTC)

// mortal is a store whose process dies after some commits.
type mortal struct {
	store.Store

	mu sync.Mutex
	// left is how many commits are left before it dies; negative for no end.
	left    int
	commits int
	// before runs once, before the next commit.
	before func()
}

// errDied is a commit after the end.
var errDied = errors.New("the process has died")

func (m *mortal) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	m.mu.Lock()
	if m.left == 0 {
		m.mu.Unlock()
		return store.Position{}, errDied
	}
	m.left--
	m.commits++
	before := m.before
	m.before = nil
	m.mu.Unlock()
	if before != nil {
		before()
	}
	return m.Store.Commit(ctx, b)
}

// live lets it take so many commits more; negative for no end.
func (m *mortal) live(left int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = left
}

// issuer makes certificates that sign themselves.
type issuer struct{ next atomic.Int64 }

func (i *issuer) CreateKeysAndCertificate(context.Context) (certificate, public, private []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(i.next.Add(1)), Subject: pkix.Name{CommonName: "device"}, NotBefore: start.AddDate(0, 0, -1), NotAfter: start.AddDate(0, 1, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil, nil, err
}

func (*issuer) CreateClaim(context.Context, time.Time) (certificate, public, private []byte, err error) {
	return nil, nil, nil, errors.New("none")
}

func (*issuer) SignCSR(context.Context, []byte) ([]byte, error) { return nil, errors.New("none") }

// rig is renewals with their registry over one store.
type rig struct {
	*Service

	t        *testing.T
	store    *mortal
	registry *registry.Service
	issuer   issuer
	clock    atomic.Int64
	ids      atomic.Int64
	// wall lets it go by the clock of the test's bubble.
	wall bool
	// cursor is how far Apply has come; it is kept as an eventlog.Runner does.
	cursor store.Cursor
	// connections are what Rebuild is told.
	connections []Seen
}

func newRig(t *testing.T) *rig {
	t.Helper()
	disk, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{t: t, store: &mortal{Store: disk, left: -1}}
	r.clock.Store(start.UnixNano())
	r.boot()
	return r
}

// boot begins another process on the same store.
func (r *rig) boot() {
	r.t.Helper()
	var err error
	r.registry, err = registry.New(registry.Options{
		Store: r.store, Region: "us-east-1", Now: r.now, NewID: func() string { return fmt.Sprintf("id-%d", r.ids.Add(1)) },
		Issuer: &r.issuer, Logger: slog.New(slog.DiscardHandler),
		CheckQuery: func(string) error { return nil }, CheckPolicy: func([]byte) error { return nil },
		GroupStatus: func(fleet.Account, string, string) string { return "ACTIVE" },
	})
	r.need(err)
	r.Service, err = New(Options{
		Store: r.store, Registry: r.registry, Overlap: overlap, Patience: patience,
		Connections: func(_ context.Context, _ store.Reader, fn func(Seen) error) error {
			for _, c := range r.connections {
				if err := fn(c); err != nil {
					return err
				}
			}
			return nil
		},
		CatchUp: r.follow, Now: r.now, Logger: slog.New(slog.DiscardHandler),
	})
	r.need(err)
}

func (r *rig) now() time.Time {
	if r.wall {
		return time.Now()
	}
	return time.Unix(0, r.clock.Load()).UTC()
}

func (r *rig) need(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// pass lets time go by and takes the steps that are due.
func (r *rig) pass(d time.Duration) {
	r.t.Helper()
	r.clock.Add(int64(d))
	r.need(r.Sweep(r.t.Context()))
}

// follow applies what the log has more.
func (r *rig) follow(ctx context.Context) error {
	for {
		events, next, err := r.store.Events(ctx, r.cursor, 1000)
		if err != nil || len(events) == 0 {
			return err
		}
		b, err := r.Apply(ctx, events)
		if err != nil {
			return err
		}
		b.Writes = append(b.Writes, store.Write{Key: store.K("cursor", "renewal"), Value: []byte(next.String())})
		if _, err := r.store.Commit(ctx, b); err != nil {
			return err
		}
		r.cursor = next
	}
}

// thing makes a thing with a certificate, which may be one of others.
func (r *rig) thing(name, certificate string) string {
	r.t.Helper()
	if _, err := r.registry.DescribeThing(r.t.Context(), acct, name); err != nil {
		_, err := r.registry.CreateThing(r.t.Context(), acct, registry.CreateThingCommand{Name: name})
		r.need(err)
	}
	if certificate == "" {
		made, err := r.registry.CreateKeysAndCertificate(r.t.Context(), acct, true)
		r.need(err)
		certificate = made.ID
	}
	r.need(r.registry.AttachThingPrincipal(r.t.Context(), acct, name, arn(certificate), ""))
	return certificate
}

func arn(id string) string { return "arn:aws:iot:us-east-1:000000000000:cert/" + id }

// renew lets a thing ask for another certificate with the one that it has, as
// package provisioning does.
func (r *rig) renew(thing, asking string) (id string) {
	r.t.Helper()
	id, err := r.tryRenew(thing, asking)
	r.need(err)
	return id
}

func (r *rig) tryRenew(thing, asking string) (id string, err error) {
	r.t.Helper()
	made, err := r.registry.CreatePendingKeys(r.t.Context(), acct, registry.PendingCommand{Claim: asking, TokenHash: "t", Until: r.now().Add(time.Hour)})
	if err != nil {
		return "", err
	}
	_, err = r.registry.Provision(r.t.Context(), acct, registry.ProvisionCommand{
		Plan: &provtemplate.Plan{
			Thing: &provtemplate.Thing{
				LogicalName: "thing", Name: thing, OnAttributes: provtemplate.DoNothing, OnType: provtemplate.DoNothing, OnGroups: provtemplate.DoNothing,
			},
			Certificate: &provtemplate.Certificate{LogicalName: "certificate", ID: made.ID, Active: true, OnStatus: provtemplate.DoNothing},
		},
		Proof: &registry.OwnershipProof{Claim: asking, TokenHash: "t"}, Asking: asking,
		Joined: func(done registry.Provisioned) (store.Batch, error) {
			if !done.Renews {
				return store.Batch{}, nil
			}
			return r.Begin(r.t.Context(), acct, done.Thing, asking, done.CertificateID)
		},
	})
	return made.ID, err
}

// connect lets a device connect.
func (r *rig) connect(clientID, certificate string) {
	r.t.Helper()
	r.connectAs(fleet.PrincipalCertificate, clientID, certificate)
	r.need(r.follow(r.t.Context()))
}

// connectAs only puts the event into the log.
func (r *rig) connectAs(kind, clientID, certificate string) {
	r.t.Helper()
	_, err := r.store.Commit(r.t.Context(), store.Batch{Events: []event.Envelope{{
		Account: acct, At: r.now(), Actor: fleet.Actor{Principal: fleet.Principal{Kind: kind, ID: certificate}, SourceAddress: "192.0.2.7", ClientID: clientID},
		Event: event.DeviceConnected{Session: event.Session{ClientID: clientID, ConnectionID: "c-1", Principal: certificate, IPAddress: "192.0.2.7"}},
	}}})
	r.need(err)
}

// status is a certificate's state, empty for one that does not exist.
func (r *rig) status(id string) string {
	r.t.Helper()
	c, err := r.registry.DescribeCertificate(r.t.Context(), acct, id)
	if err != nil {
		return ""
	}
	return c.Status
}

// acts reports whether a certificate acts as a thing.
func (r *rig) acts(thing, id string) bool {
	r.t.Helper()
	things, err := r.registry.CertificateThings(r.t.Context(), acct, id)
	r.need(err)
	return slices.Contains(things, thing)
}

// want demands that a certificate has a state and acts, or does not act, as a
// thing.
func (r *rig) want(thing, id, status string, acts bool) {
	r.t.Helper()
	if got := r.status(id); got != status {
		r.t.Errorf("the certificate is %q, want %q", got, status)
	}
	if got := r.acts(thing, id); got != acts {
		r.t.Errorf("it acts as %s: %v, want %v", thing, got, acts)
	}
}

// steps are the events of the renewal to a certificate.
func (r *rig) steps(id string) []event.CertificateRenewalChanged {
	r.t.Helper()
	all, _, err := r.store.Events(r.t.Context(), store.Cursor{}, 100_000)
	r.need(err)
	var out []event.CertificateRenewalChanged
	for _, env := range all {
		if e, ok := env.Event.(event.CertificateRenewalChanged); ok && e.NewCertificateID == id {
			out = append(out, e)
		}
	}
	return out
}

// wantSteps demands the steps of the renewal to a certificate, and that the list
// shows the last of them.
func (r *rig) wantSteps(id string, want ...event.CertificateRenewal) {
	r.t.Helper()
	var got []event.CertificateRenewal
	for _, e := range r.steps(id) {
		got = append(got, e.Step)
	}
	wantEqual(r.t, got, want)
	if len(want) == 0 {
		return
	}
	one := r.one(id)
	wantEqual(r.t, one.Step, want[len(want)-1])
	wantEqual(r.t, one.Reason, r.steps(id)[len(want)-1].Reason)
}

// one is the renewal to a certificate.
func (r *rig) one(id string) Renewal {
	r.t.Helper()
	all, _, err := r.List(r.t.Context(), acct, Query{Limit: maxListed})
	r.need(err)
	for _, one := range all {
		if one.NewCertificateID == id {
			return one
		}
	}
	r.t.Fatalf("no renewal to %s in %+v", id, all)
	return Renewal{}
}

// wantReason demands a part of the reason of the renewal's last step.
func (r *rig) wantReason(id, part string) {
	r.t.Helper()
	if reason := r.one(id).Reason; !strings.Contains(reason, part) {
		r.t.Errorf("reason %q, want %q in it", reason, part)
	}
}

func wantEqual(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
}
