package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
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

const acct fleet.Account = "000000000000"

var start = time.Date(2026, 11, 26, 7, 0, 0, 0, time.UTC)

// mortal is a store whose process dies after some commits.
type mortal struct {
	store.Store

	mu sync.Mutex
	// left is how many commits are left before it dies; negative for no end.
	left int
}

// errDied is a commit after the end.
var errDied = errors.New("the process has died")

func (m *mortal) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left == 0 {
		return store.Position{}, errDied
	}
	m.left--
	return m.Store.Commit(ctx, b)
}

// rig is a ledger over one store.
type rig struct {
	*Service

	tb    testing.TB
	store *mortal
	clock atomic.Int64
	// size is how many events are applied together.
	size int
	// keys are what plans call devices, by thing.
	keys   map[string]string
	strict bool
	told   []Head
	log    bytes.Buffer
}

func memory(tb testing.TB) store.Store {
	tb.Helper()
	disk, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 8 << 20, ReserveBytes: -1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := disk.Close(); err != nil {
			tb.Error(err)
		}
	})
	return disk
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	return newRigOn(tb, memory(tb))
}

func newRigOn(tb testing.TB, engine store.Store) *rig {
	tb.Helper()
	r := &rig{tb: tb, store: &mortal{Store: engine, left: -1}, size: 1000, keys: map[string]string{}}
	r.clock.Store(start.UnixNano())
	r.boot()
	return r
}

// boot begins another process on the same store.
func (r *rig) boot() {
	r.tb.Helper()
	var err error
	r.Service, err = New(Options{
		Store: r.store, Key: bytes.Repeat([]byte{7}, KeySize), Now: r.now, Logger: slog.New(slog.NewTextHandler(&r.log, nil)), TrustClaims: !r.strict,
		Registerer: prometheus.NewRegistry(),
		DeviceKey: func(_ context.Context, _ fleet.Account, e event.DeviceProvisioned) (string, error) {
			return r.keys[e.Thing], nil
		},
		Witnessed: func(context.Context, fleet.Account) ([]Head, error) { return r.told, nil },
	})
	r.need(err)
}

func (r *rig) now() time.Time { return time.Unix(0, r.clock.Load()).UTC() }

func (r *rig) need(err error) {
	r.tb.Helper()
	if err != nil {
		r.tb.Fatal(err)
	}
}

// follow applies what the log has more, and keeps the cursor as an eventlog.Runner
// does.
func (r *rig) follow() error {
	ctx := r.tb.Context()
	key := store.K("cursor", "ledger")
	for {
		var cursor store.Cursor
		found, err := r.store.Get(ctx, key)
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return err
		default:
			if cursor, err = store.ParseCursor(string(found.Value)); err != nil {
				return err
			}
		}
		events, next, err := r.store.Events(ctx, cursor, r.size)
		if err != nil || len(events) == 0 {
			return err
		}
		b, err := r.Apply(ctx, events)
		if err != nil {
			return err
		}
		b.Expect = append(b.Expect, store.Expect{Key: key, Version: found.Version})
		b.Writes = append(b.Writes, store.Write{Key: key, Value: []byte(next.String())})
		if _, err := r.store.Commit(ctx, b); err != nil {
			return err
		}
	}
}

// Who does what in tests.
var (
	ada    = fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "ada", ARN: "arn:aws:iam::000000000000:user/ada"}, RequestID: "req-ada"}
	kim    = fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "kim", ARN: "arn:aws:iam::000000000000:user/kim"}, RequestID: "req-kim"}
	system = fleet.System
)

// holder is a device that acts with a certificate.
func holder(id string) fleet.Actor {
	return fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: id, ARN: certARN(id)}}
}

func certARN(id string) string { return "arn:aws:iot:local:000000000000:cert/" + id }

// tell puts events into the log in one commit, a moment later than those before.
func (r *rig) tell(by fleet.Actor, events ...event.Event) {
	r.tb.Helper()
	r.clock.Add(int64(time.Second))
	var b store.Batch
	for _, e := range events {
		b.Events = append(b.Events, event.Envelope{Account: acct, At: r.now(), Actor: by, Event: e})
	}
	_, err := r.store.Store.Commit(r.tb.Context(), b)
	r.need(err)
}

// happens also enters them.
func (r *rig) happens(by fleet.Actor, events ...event.Event) {
	r.tb.Helper()
	r.tell(by, events...)
	r.need(r.follow())
}

// What happens often.

func certificate(id, status string) event.Event {
	return event.CertificateCreated{CertificateID: id, Status: status, NotAfter: start.AddDate(10, 0, 0)}
}

func thing(name string) event.Event {
	return event.ThingCreated{Thing: event.Thing{Thing: name, ThingID: "id-" + name}}
}

func attach(name, id string) event.Event {
	return event.PrincipalAttached{Thing: name, Principal: certARN(id)}
}

func status(id, from, to string) event.Event {
	return event.CertificateStatusChanged{CertificateID: id, PreviousStatus: from, Status: to}
}

func connect(id, client string) event.Event {
	return event.DeviceConnected{Session: event.Session{ClientID: client, Principal: id}}
}

// joins are the events of a registration by a claim, in the order of the registry.
func joins(p event.DeviceProvisioned, created bool, more ...event.Event) []event.Event {
	var all []event.Event
	if created {
		all = append(all, thing(p.Thing))
	}
	all = append(all, status(p.CertificateID, "PENDING_ACTIVATION", "ACTIVE"))
	if p.Thing != "" {
		all = append(all, attach(p.Thing, p.CertificateID))
	}
	return append(append(all, p), more...)
}

// entries are all of a device.
func (r *rig) entries(name string) []Entry {
	r.tb.Helper()
	d, err := r.Device(r.tb.Context(), acct, name)
	r.need(err)
	var all []Entry
	for after := uint64(0); ; {
		page, next, err := r.Entries(r.tb.Context(), acct, d.Key, after, 7)
		r.need(err)
		all = append(all, page...)
		if next == 0 {
			return all
		}
		after = next
	}
}

// whats are the kinds of a device's entries.
func (r *rig) whats(name string) []What {
	r.tb.Helper()
	var all []What
	for _, e := range r.entries(name) {
		all = append(all, e.What)
	}
	return all
}

// last is the newest entry of a kind.
func (r *rig) last(name string, what What) Entry {
	r.tb.Helper()
	var found Entry
	for _, e := range r.entries(name) {
		if e.What == what {
			found = e
		}
	}
	if found.What == "" {
		r.tb.Fatalf("device %s has no entry %s: %v", name, what, r.whats(name))
	}
	return found
}

// verify checks everything.
func (r *rig) verify(kept ...Head) (Verdict, []Finding) {
	r.tb.Helper()
	var all []Finding
	v, err := r.Verify(r.tb.Context(), acct, kept, collect(&all))
	r.need(err)
	return v, all
}

func collect(all *[]Finding) Witness {
	return Witness{
		Found:    func(f Finding) error { *all = append(*all, f); return nil },
		Progress: func(int) error { return nil },
	}
}

// sound demands that nothing is wrong.
func (r *rig) sound() {
	r.tb.Helper()
	if _, all := r.verify(); len(all) > 0 {
		r.tb.Errorf("findings in an untouched ledger: %+v", all)
	}
}

// raised are the rogues that the log tells of.
func (r *rig) raised() []event.RogueDevice {
	r.tb.Helper()
	oldest, err := r.store.Oldest(r.tb.Context())
	r.need(err)
	all, _, err := r.store.Events(r.tb.Context(), oldest, 1_000_000)
	r.need(err)
	var out []event.RogueDevice
	for _, env := range all {
		if e, ok := env.Event.(event.RogueDevice); ok {
			out = append(out, e)
		}
	}
	return out
}

func wantEqual(tb testing.TB, got, want any) {
	tb.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		tb.Errorf("differs (-want +got):\n%s", diff)
	}
}
