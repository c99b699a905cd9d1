package registry

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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const acct fleet.Account = "000000000000"

// rig is a service over an empty store with a clock that tests move.
type rig struct {
	*Service

	store   *testStore
	barrier *recordingBarrier
	logged  *strings.Builder
	clock   atomic.Int64
	ids     atomic.Int64
}

// start is the time of every rig's first command.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newRig(t *testing.T, edit ...func(*Options)) *rig {
	t.Helper()
	r := &rig{store: newTestStore(t), barrier: &recordingBarrier{}, logged: &strings.Builder{}}
	r.clock.Store(start.UnixNano())
	o := Options{
		Store:   r.store,
		Region:  "us-east-1",
		Now:     func() time.Time { return time.Unix(0, r.clock.Load()).UTC() },
		NewID:   func() string { return fmt.Sprintf("id-%d", r.ids.Add(1)) },
		Issuer:  testIssuer{},
		Barrier: r.barrier,
		CheckQuery: func(q string) error {
			if strings.Contains(q, "(") {
				return errors.New("unbalanced parenthesis")
			}
			return nil
		},
		CheckPolicy: func(d []byte) error {
			if !strings.HasPrefix(string(d), "{") {
				return errors.New("not an object")
			}
			return nil
		},
		GroupStatus: func(_ fleet.Account, group, query string) string { return "STATUS-OF-" + group + "-" + query },
		Endpoints:   Endpoints{Data: func(a fleet.Account) string { return "data-" + string(a) }},
		Logger:      slog.New(slog.NewTextHandler(r.logged, nil)),
	}
	for _, e := range edit {
		e(&o)
	}
	var err error
	if r.Service, err = New(o); err != nil {
		t.Fatal(err)
	}
	return r
}

// pass moves the clock.
func (r *rig) pass(d time.Duration) { r.clock.Add(int64(d)) }

// recordingBarrier remembers what was waited for.
type recordingBarrier struct {
	mu     sync.Mutex
	waited []store.Position
	err    error
}

func (b *recordingBarrier) WaitApplied(_ context.Context, p store.Position) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waited = append(b.waited, p)
	return b.err
}

func (b *recordingBarrier) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waited)
}

// testIssuer makes self-signed P-256 certificates.
type testIssuer struct{}

func (testIssuer) CreateKeysAndCertificate(context.Context) (certificate, public, private []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	return selfSigned(k, start.AddDate(10, 0, 0)), []byte("public"), []byte("private"), nil
}

func (testIssuer) CreateClaim(_ context.Context, until time.Time) (certificate, public, private []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	return selfSigned(k, until), []byte("public"), []byte("private"), nil
}

func (testIssuer) SignCSR(_ context.Context, csr []byte) ([]byte, error) {
	block, _ := pem.Decode(csr)
	if _, err := x509.ParseCertificateRequest(block.Bytes); err != nil {
		return nil, err
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return selfSigned(k, start.AddDate(10, 0, 0)), nil
}

func selfSigned(k *ecdsa.PrivateKey, notAfter time.Time) []byte {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "device"},
		NotBefore: start.AddDate(-1, 0, 0), NotAfter: notAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// wantCode fails unless err carries the code; "" means no error.
func wantCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if got := fault.CodeOf(err); got != code {
		t.Fatalf("code %q, want %q (%v)", got, code, err)
	}
}

// must is for steps that the test takes for granted.
func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) addThing(t *testing.T, name string) Thing {
	t.Helper()
	return must[Thing](t)(r.CreateThing(t.Context(), acct, CreateThingCommand{Name: name}))
}

func (r *rig) addGroup(t *testing.T, name, parent string) Group {
	t.Helper()
	return must[Group](t)(r.CreateThingGroup(t.Context(), acct, CreateThingGroupCommand{Name: name, Parent: parent}))
}

func (r *rig) addDynamic(t *testing.T, name, query string) Group {
	t.Helper()
	return must[Group](t)(r.CreateDynamicThingGroup(t.Context(), acct, CreateDynamicThingGroupCommand{Name: name, Query: query}))
}

func (r *rig) addPolicy(t *testing.T, name string) Policy {
	t.Helper()
	return must[Policy](t)(r.CreatePolicy(t.Context(), acct, name, `{"n":"`+name+`"}`))
}

func (r *rig) addCertificate(t *testing.T) KeysAndCertificate {
	t.Helper()
	return must[KeysAndCertificate](t)(r.CreateKeysAndCertificate(t.Context(), acct, true))
}

func (r *rig) joinGroup(t *testing.T, thing, group string) {
	t.Helper()
	ok(t, r.AddThingToThingGroup(t.Context(), acct, ThingAndGroup{ThingName: thing, GroupName: group}, false))
}

// allPages reads a list page by page and checks that no page is too long.
func allPages[T any](t *testing.T, limit int, page func(Page) (Listed[T], error)) []T {
	t.Helper()
	var all []T
	p := Page{Limit: limit}
	for range 1000 {
		listed := must[Listed[T]](t)(page(p))
		if len(listed.Items) > limit {
			t.Fatalf("page of %d items, limit %d", len(listed.Items), limit)
		}
		all = append(all, listed.Items...)
		if listed.Next == "" {
			return all
		}
		p.After = listed.Next
	}
	t.Fatal("the list does not end")
	return nil
}

// wantEqual compares with cmp.
func wantEqual[T any](t *testing.T, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("-want +got\n%s", diff)
	}
}

// eventsAfter returns the events appended since mark.
func (r *rig) eventsAfter(mark int) []event.Event { return r.store.log()[mark:] }

func TestNewNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := New(Options{Region: "us-east-1"})
	if err == nil || !strings.Contains(err.Error(), "Store") {
		t.Fatalf("got %v", err)
	}
}

func TestActorAndTimeReachTheLog(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	actor := fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "root"}, RequestID: "r-1"}
	must[Thing](t)(r.CreateThing(fleet.WithActor(t.Context(), actor), acct, CreateThingCommand{Name: "T"}))
	e := r.store.envelopes()[0]
	wantEqual(t, e.Actor, actor)
	wantEqual(t, e.Account, acct)
	wantEqual(t, e.At, start)
}

func TestAccountsAreApart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addThing(t, "T")
	_, err := r.DescribeThing(t.Context(), "000000000001", "T")
	wantCode(t, err, fault.ResourceNotFound)
}

func TestStorageFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		code fault.Code
	}{
		{store.ErrDiskFull, fault.Unavailable},
		{store.ErrClosed, fault.Unavailable},
		{fmt.Errorf("commit: %w", store.ErrUnavailable), fault.Unavailable},
		{errors.New("broken"), fault.Internal},
		{&store.ConflictError{Key: "k"}, fault.Throttling},
	} {
		r := newRig(t)
		r.store.hook(func(store.Batch) error { return c.err })
		_, err := r.CreateThing(t.Context(), acct, CreateThingCommand{Name: "T"})
		wantCode(t, err, c.code)
	}
}

// Ruling 7: a call that changes what devices may do answers after this node's
// broker has applied it; a slow broker is logged and does not fail the call.
func TestBarrier(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addThing(t, "T")
	r.addPolicy(t, "P")
	if n := r.barrier.count(); n != 0 {
		t.Fatalf("waited %d times for changes that no device can notice", n)
	}
	c := r.addCertificate(t)
	r.barrier.err = context.DeadlineExceeded
	ok(t, r.AttachPolicy(t.Context(), acct, "P", c.ARN))
	ok(t, r.AttachThingPrincipal(t.Context(), acct, "T", c.ARN, ""))
	ok(t, r.UpdateThing(t.Context(), acct, UpdateThingCommand{Name: "T"}))
	if n := r.barrier.count(); n != 4 {
		t.Fatalf("waited %d times, want 4", n)
	}
	if !strings.Contains(r.logged.String(), "answered before connected devices saw the change") {
		t.Fatal("no warning in the log")
	}
}

func TestRefusesARecordOfALaterSchema(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.store.Commit(t.Context(), store.Batch{Writes: []store.Write{
		{Key: key(kindThing, acct, "T"), Value: []byte(`{"v":2}`)},
	}})
	ok(t, err)
	_, err = r.DescribeThing(t.Context(), acct, "T")
	wantCode(t, err, fault.Internal)
}

func TestDescribeEndpoint(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct {
		kind, want string
		code       fault.Code
	}{
		{"", "data-000000000000", ""},
		{"iot:Data", "data-000000000000", ""},
		{"iot:Data-ATS", "data-000000000000", ""},
		{"iot:Jobs", "", fault.NotOffered},
		{"iot:DeviceAdvisor", "", fault.InvalidRequest},
	} {
		got, err := r.DescribeEndpoint(acct, c.kind)
		wantCode(t, err, c.code)
		wantEqual(t, got, c.want)
	}
}
