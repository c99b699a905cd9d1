package drift

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
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
	"github.com/muster-iot/muster/internal/store/postgres"
	"github.com/muster-iot/muster/internal/testkit"
)

// cluster is the PostgreSQL of this binary's tests.
var cluster testkit.PostgresPool

func TestMain(m *testing.M) {
	code := m.Run()
	if err := cluster.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const account fleet.Account = "000000000000"

// issuer makes self-signed certificates.
type issuer struct{ serial atomic.Int64 }

func (i *issuer) CreateKeysAndCertificate(context.Context) (certificate, public, private []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	of := &x509.Certificate{
		SerialNumber: big.NewInt(i.serial.Add(1)), Subject: pkix.Name{CommonName: "device"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), []byte("public"), []byte("private"), err
}

func (i *issuer) CreateClaim(ctx context.Context, _ time.Time) (certificate, public, private []byte, err error) {
	return i.CreateKeysAndCertificate(ctx)
}

func (*issuer) SignCSR(context.Context, []byte) ([]byte, error) { return nil, errors.New("none") }

// rig is a drift service with its registry over one store.
type rig struct {
	*Service

	t        testing.TB
	disk     store.Store
	registry *registry.Service
	issuer   issuer
	// clock rises with each look.
	clock, ids atomic.Int64
	// inForce are the default versions of templates.
	inForce map[string]int64
	// denied are actions and names that the caller may not.
	denied map[string]bool
	asked  []string
	// ahead, unless it is nil, is called before each commit.
	ahead func(store.Batch)
}

// Commit implements store.Store for the registry.
func (s rigStore) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if ahead := s.r.ahead; ahead != nil {
		s.r.ahead = nil
		ahead(b)
	}
	return s.Store.Commit(ctx, b)
}

type rigStore struct {
	store.Store

	r *rig
}

func onPostgres(tb testing.TB) bool {
	tb.Helper()
	return strings.HasPrefix(tb.Name(), "TestOnPostgreSQL/")
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	r := &rig{t: tb, inForce: map[string]int64{}, denied: map[string]bool{}}
	var err error
	if onPostgres(tb) {
		r.disk, err = postgres.Open(tb.Context(), postgres.Options{URL: cluster.Get(tb).Database(tb), Logger: slog.New(slog.DiscardHandler), Conns: 4})
	} else {
		r.disk, err = embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	}
	r.need(err)
	tb.Cleanup(func() { _ = r.disk.Close() })
	r.clock.Store(time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC).UnixMilli())
	r.boot()
	return r
}

// boot begins another process on the same store.
func (r *rig) boot() {
	r.t.Helper()
	var err error
	r.registry, err = registry.New(registry.Options{
		Store: rigStore{r.disk, r}, Region: "us-east-1", Now: r.now, Issuer: &r.issuer, Logger: slog.New(slog.DiscardHandler),
		NewID:      func() string { return fmt.Sprintf("id-%09d", r.ids.Add(1)) },
		CheckQuery: func(string) error { return nil }, CheckPolicy: func([]byte) error { return nil },
		GroupStatus: func(fleet.Account, string, string) string { return "ACTIVE" },
	})
	r.need(err)
	r.Service = New(Options{
		Registry: r.registry, Index: rigIndex{r}, Permit: r.permit,
		DefaultVersion: func(_ context.Context, _ fleet.Account, template string) (int64, error) {
			return r.inForce[template], nil
		},
	})
}

// now never gives one time twice.
func (r *rig) now() time.Time { return time.UnixMilli(r.clock.Add(1)).UTC() }

func (r *rig) permit(_ context.Context, _ fleet.Account, action, kind, name string) error {
	r.asked = append(r.asked, action+" "+kind+"/"+name)
	if r.denied[action] || r.denied[name] {
		return fault.New(fault.Unauthorized, "not allowed to %s %s", action, name)
	}
	return nil
}

// rigIndex finds things by the beginning of their names.
type rigIndex struct{ r *rig }

func (rigIndex) Fresh(context.Context) error { return nil }

func (x rigIndex) Find(_ fleet.Account, query, after string, limit int) (names []string, next string, err error) {
	if query == "(" {
		return nil, "", fault.New(fault.InvalidQuery, "unbalanced")
	}
	err = registry.EachThing(x.r.t.Context(), x.r.disk, func(_ fleet.Account, t registry.Thing) error {
		if t.Name > after && strings.HasPrefix(t.Name, query) {
			names = append(names, t.Name)
		}
		return nil
	})
	slices.Sort(names)
	if len(names) > limit {
		names, next = names[:limit], names[limit-1]
	}
	return names, next, err
}

func (r *rig) need(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func same(tb testing.TB, got, want any) {
	tb.Helper()
	if d := cmp.Diff(want, got); d != "" {
		tb.Fatalf("differs (-want +got):\n%s", d)
	}
}

func (r *rig) code(err error, want fault.Code) {
	r.t.Helper()
	if fault.CodeOf(err) != want {
		r.t.Fatalf("error %v, want %s", err, want)
	}
}

// stock makes what the plans of the tests refer to.
func (r *rig) stock() {
	r.t.Helper()
	for _, name := range []string{"a", "b"} {
		_, err := r.registry.CreateThingType(r.t.Context(), account, registry.CreateThingTypeCommand{Name: "type-" + name})
		r.need(err)
		_, err = r.registry.CreateBillingGroup(r.t.Context(), account, registry.CreateBillingGroupCommand{Name: "bill-" + name})
		r.need(err)
	}
	for _, name := range []string{"a", "b", "c"} {
		_, err := r.registry.CreateThingGroup(r.t.Context(), account, registry.CreateThingGroupCommand{Name: "group-" + name})
		r.need(err)
		_, err = r.registry.CreatePolicy(r.t.Context(), account, "policy-"+name, `{}`)
		r.need(err)
	}
}

// certificate makes one and returns its id.
func (r *rig) certificate() string {
	r.t.Helper()
	made, err := r.registry.CreateKeysAndCertificate(r.t.Context(), account, true)
	r.need(err)
	return made.ID
}

func certificateARN(id string) string {
	return fleet.Scope{Region: "us-east-1", Account: account}.ARN(fleet.ARNCertificate, id)
}

// plan is one of a usual template.
func plan(thing, certificate string) *provtemplate.Plan {
	return &provtemplate.Plan{
		Thing: &provtemplate.Thing{
			LogicalName: "thing", Name: thing, TypeName: "type-a", BillingGroup: "bill-a", Groups: []string{"group-a", "group-b"},
			Attributes:   map[string]string{"site": "leeds", "serial": thing},
			OnAttributes: provtemplate.DoNothing, OnType: provtemplate.DoNothing, OnGroups: provtemplate.DoNothing,
		},
		Certificate: &provtemplate.Certificate{LogicalName: "certificate", ID: certificate, Active: true, OnStatus: provtemplate.DoNothing},
		Policies:    []provtemplate.Policy{{LogicalName: "one", Name: "policy-a"}, {LogicalName: "two", Name: "policy-b"}},
	}
}

// provision carries out a plan of a version of template T.
func (r *rig) provision(p *provtemplate.Plan, version int64) error {
	r.t.Helper()
	_, err := r.registry.Provision(r.t.Context(), account, registry.ProvisionCommand{
		Plan: p, Origin: registry.PromiseOrigin{Template: "T", Version: version, Method: event.ProvisioningClaim},
	})
	return err
}

// device provisions a usual device and returns its certificate.
func (r *rig) device(thing string) string {
	r.t.Helper()
	id := r.certificate()
	r.need(r.provision(plan(thing, id), 1))
	return id
}

func (r *rig) show(thing string) Report {
	r.t.Helper()
	report, err := r.Show(r.t.Context(), account, thing)
	r.need(err)
	return report
}

// events are all that were emitted of one type.
func events[T event.Event](r *rig) []T {
	r.t.Helper()
	var out []T
	var after store.Cursor
	for {
		some, next, err := r.disk.Events(r.t.Context(), after, 1000)
		r.need(err)
		if len(some) == 0 {
			return out
		}
		for _, e := range some {
			if e, ok := e.Event.(T); ok {
				out = append(out, e)
			}
		}
		after = next
	}
}
