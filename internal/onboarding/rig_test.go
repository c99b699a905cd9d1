package onboarding

import (
	"context"
	"errors"
	"log/slog"
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
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const acct fleet.Account = "000000000000"

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

// rig is onboarding over one store.
type rig struct {
	*Service

	t        *testing.T
	store    *mortal
	clock    atomic.Int64
	registry *prometheus.Registry
	// cursor is how far Apply has come; it is kept as an eventlog.Runner does.
	cursor store.Cursor
	// holds answers for the index, by query; its error comes first.
	holds    map[string]bool
	holdsErr error
	asked    int
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
	r := &rig{t: t, store: &mortal{Store: disk, left: -1}, holds: map[string]bool{}}
	r.clock.Store(start.UnixNano())
	r.boot()
	return r
}

// boot begins another process on the same store.
func (r *rig) boot() {
	r.t.Helper()
	r.registry = prometheus.NewRegistry()
	var err error
	r.Service, err = New(Options{
		Store: r.store, Now: r.now, Logger: slog.New(slog.DiscardHandler), Registerer: r.registry,
		Holds: func(_ context.Context, _ fleet.Account, _, query string) (bool, error) {
			r.asked++
			return r.holds[query], r.holdsErr
		},
		Connections: func(_ context.Context, _ store.Reader, fn func(Seen) error) error {
			for _, c := range r.connections {
				if err := fn(c); err != nil {
					return err
				}
			}
			return nil
		},
	})
	r.need(err)
}

func (r *rig) now() time.Time { return time.Unix(0, r.clock.Load()).UTC() }

func (r *rig) need(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// pass lets time go by and looks after criteria.
func (r *rig) pass(d time.Duration) {
	r.t.Helper()
	r.clock.Add(int64(d))
	r.need(r.Sweep(r.t.Context()))
}

// follow applies what the log has more.
func (r *rig) follow() error {
	ctx := r.t.Context()
	for {
		events, next, err := r.store.Events(ctx, r.cursor, 1000)
		if err != nil || len(events) == 0 {
			return err
		}
		b, err := r.Apply(ctx, events)
		if err != nil {
			return err
		}
		b.Writes = append(b.Writes, store.Write{Key: store.K("cursor", "onboarding"), Value: []byte(next.String())})
		if _, err := r.store.Commit(ctx, b); err != nil {
			return err
		}
		r.cursor = next
	}
}

// as is a context of somebody.
func as(t *testing.T, who string) context.Context {
	t.Helper()
	return fleet.WithActor(t.Context(), fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: who, ARN: "arn:aws:iam::000000000000:user/" + who}})
}

// publish makes a plan and puts it in force.
func (r *rig) publish(source string) {
	r.t.Helper()
	v, err := r.Create(as(r.t, "author"), acct, source)
	r.need(err)
	_, err = r.Publish(as(r.t, "publisher"), acct, v.Plan.ID)
	r.need(err)
}

// happens puts events into the log in one commit, and applies them.
func (r *rig) happens(events ...event.Event) {
	r.t.Helper()
	r.tell(events...)
	r.need(r.follow())
}

// tell only puts them into the log.
func (r *rig) tell(events ...event.Event) {
	r.t.Helper()
	var b store.Batch
	for _, e := range events {
		actor := fleet.System
		if c, ok := e.(event.DeviceConnected); ok {
			actor = fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: c.Principal}}
		}
		b.Events = append(b.Events, event.Envelope{Account: acct, At: r.now(), Actor: actor, Event: e})
	}
	_, err := r.store.Store.Commit(r.t.Context(), b)
	r.need(err)
}

// device is a device's record.
func (r *rig) device(key string) Device {
	r.t.Helper()
	d, err := r.Device(r.t.Context(), acct, key)
	r.need(err)
	return d
}

// complete reports a step.
func (r *rig) complete(key, step, evidence string) error {
	r.t.Helper()
	_, err := r.Complete(as(r.t, "worker"), acct, CompleteCommand{Device: key, Step: step, Evidence: evidence})
	return err
}

// events are those of this package, in order.
func (r *rig) events() []event.Event {
	r.t.Helper()
	all, _, err := r.store.Events(r.t.Context(), store.Cursor{}, 100_000)
	r.need(err)
	var out []event.Event
	for _, env := range all {
		switch e := env.Event.(type) {
		case event.OnboardingChanged, event.OnboardingCriteriaFailed, event.ProvisioningPlanChanged:
			out = append(out, e)
		default:
			// The rest is of others.
		}
	}
	return out
}

func wantCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Errorf("got %v, want %q", err, code)
	}
}

func wantEqual(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
}
