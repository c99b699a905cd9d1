package bulkedit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/drift"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/pagetoken"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/shadow"
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

// faulty is a store that can die: before or after the commit that dies is
// applied, and for good, or be out of order for a number of commits.
type faulty struct {
	store.Store

	mu sync.Mutex
	// left counts the commits until it dies; negative is never. After says that
	// the last one is applied, though its caller does not learn it.
	left  int
	after bool
	dead  bool
	// trouble is how many commits are refused.
	trouble int
	// ahead, unless it is nil, is called before each commit that is taken.
	ahead func(store.Batch)
	// scanned, unless it is nil, is told of each scan.
	scanned func(store.Range)
}

var errDead = fmt.Errorf("dead: %w", store.ErrClosed)

func (f *faulty) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	f.mu.Lock()
	if f.dead {
		f.mu.Unlock()
		return store.Position{}, errDead
	}
	if f.trouble > 0 {
		f.trouble--
		f.mu.Unlock()
		return store.Position{}, store.ErrDiskFull
	}
	dies := f.left == 0
	f.left--
	f.dead = dies
	ahead := f.ahead
	f.mu.Unlock()
	if ahead != nil {
		ahead(b)
	}
	if dies && !f.after {
		return store.Position{}, errDead
	}
	p, err := f.Store.Commit(ctx, b)
	if dies {
		return store.Position{}, errDead
	}
	return p, err
}

func (f *faulty) Get(ctx context.Context, k store.Key) (store.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return store.Record{}, errDead
	}
	return f.Store.Get(ctx, k)
}

func (f *faulty) Scan(ctx context.Context, within store.Range, each func(store.Record) error) error {
	f.mu.Lock()
	scanned := f.scanned
	f.mu.Unlock()
	if scanned != nil {
		scanned(within)
	}
	return f.Store.Scan(ctx, within, each)
}

// before sets what is called ahead of commits.
func (f *faulty) before(ahead func(store.Batch)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ahead = ahead
}

// rig is a registry, shadows and edits over one store, as one process has them.
type rig struct {
	*Service

	t        *testing.T
	disk     store.Store
	store    *faulty
	registry *registry.Service
	shadows  *shadow.Service
	// denied are resources, or actions, that the caller may not.
	denied map[string]bool
	// deletesShadows is the setting.
	deletesShadows bool
	// decommissioned counts calls.
	decommissioned atomic.Int64
	retires        func() error
	stop           func()
}

// disk is what outlives a process: the embedded engine on a file system in memory,
// or an empty PostgreSQL database where TestOnPostgreSQL runs a test.
func disk(tb testing.TB) store.Store {
	tb.Helper()
	if onPostgres(tb) {
		s, err := postgres.Open(tb.Context(), postgres.Options{URL: cluster.Get(tb).Database(tb), Logger: slog.New(slog.DiscardHandler), Conns: 4})
		if err != nil {
			tb.Fatal(err)
		}
		return s
	}
	s, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

type noIssuer struct{}

func (noIssuer) CreateKeysAndCertificate(context.Context) (certificate, public, private []byte, err error) {
	return nil, nil, nil, errors.New("none")
}

func (noIssuer) CreateClaim(context.Context, time.Time) (certificate, public, private []byte, err error) {
	return nil, nil, nil, errors.New("none")
}

func (noIssuer) SignCSR(context.Context, []byte) ([]byte, error) { return nil, errors.New("none") }

// ids are unique in the tests of the process.
var ids atomic.Int64

func newID() string { return fmt.Sprintf("id-%09d", ids.Add(1)) }

// boot begins a process on a disk, which may die after some commits.
func boot(t *testing.T, d store.Store, edit ...func(*rig, *Options)) *rig {
	t.Helper()
	r := &rig{t: t, disk: d, store: &faulty{Store: d, left: -1}, denied: map[string]bool{}}
	var err error
	r.registry, err = registry.New(registry.Options{
		Store: r.store, Region: "us-east-1", Now: time.Now, NewID: newID, Issuer: noIssuer{}, Logger: slog.New(slog.DiscardHandler),
		CheckQuery: func(string) error { return nil }, CheckPolicy: func([]byte) error { return nil },
		GroupStatus: func(fleet.Account, string, string) string { return "ACTIVE" },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.shadows = shadow.New(shadow.Options{Store: r.store, Now: time.Now})
	tokens, err := pagetoken.New(make([]byte, pagetoken.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Store: r.store, Registry: r.registry, Shadows: &rigShadows{r}, Index: &rigIndex{r}, Decommissioner: r, Tokens: tokens,
		Drift: drift.New(drift.Options{
			Registry: r.registry, Index: &rigIndex{r}, Permit: r.permit,
			DefaultVersion: func(context.Context, fleet.Account, string) (int64, error) { return 1, nil },
		}),
		Permit: r.permit, PerSecond: 10_000, RetentionAge: 24 * time.Hour, Now: time.Now, NewID: newID,
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, e := range edit {
		e(r, &o)
	}
	r.Service = New(o)
	return r
}

// runs lets edits run until the end of the test or halt.
func (r *rig) runs() *rig {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.t.Error(err)
			}
		})
	}
	r.t.Cleanup(func() { r.stop() })
	return r
}

// bubble runs a test in virtual time, but on PostgreSQL, whose sockets have none, in
// real time.
func bubble(t *testing.T, do func(*testing.T)) {
	t.Helper()
	if onPostgres(t) {
		do(t)
		return
	}
	synctest.Test(t, do)
}

// inBubble runs a test in a bubble with a running rig.
func inBubble(t *testing.T, do func(r *rig), edit ...func(*rig, *Options)) {
	t.Helper()
	t.Parallel()
	bubble(t, func(t *testing.T) { //nolint:thelper // the test itself
		d := disk(t)
		t.Cleanup(func() { _ = d.Close() })
		r := boot(t, d, edit...).runs()
		do(r)
		r.stop()
	})
}

func (r *rig) permit(_ context.Context, _ fleet.Account, action, kind, name string) error {
	if r.denied[action] || r.denied[kind+"/"+name] || r.denied[action+" "+kind+"/"+name] {
		return fault.New(fault.Forbidden, "not authorized to perform %s on %s/%s", action, kind, name)
	}
	return nil
}

// Decommission implements Decommissioner.
func (r *rig) Decommission(ctx context.Context, account fleet.Account, c registry.DecommissionCommand) (registry.PastThing, error) {
	r.decommissioned.Add(1)
	past, err := r.registry.Decommission(ctx, account, c)
	if err == nil && r.retires != nil {
		err = r.retires()
	}
	return past, err
}

// rigShadows are shadows without devices.
type rigShadows struct{ r *rig }

func (s *rigShadows) Desired(ctx context.Context, account fleet.Account, thing, name string) (json.RawMessage, error) {
	d, err := s.r.shadows.Get(ctx, account, thing, name)
	if fault.CodeOf(err) == fault.ResourceNotFound {
		return json.RawMessage("{}"), nil
	}
	if err != nil {
		return nil, err
	}
	return d.Desired(), nil
}

func (s *rigShadows) Update(ctx context.Context, c shadow.UpdateCommand) (*shadow.Updated, error) {
	return s.r.shadows.Update(ctx, c)
}

func (s *rigShadows) ThingDeleted(ctx context.Context, account fleet.Account, thing string) error {
	if !s.r.deletesShadows {
		return nil
	}
	_, err := s.r.shadows.DeleteAll(ctx, account, thing)
	return err
}

// rigIndex knows queries that are prefixes of names; "!" is none.
type rigIndex struct{ r *rig }

func (*rigIndex) Fresh(context.Context) error { return nil }

func (x *rigIndex) Count(account fleet.Account, query string) (int, error) {
	names, _, err := x.Find(account, query, "", 1<<30)
	return len(names), err
}

func (x *rigIndex) Find(account fleet.Account, query, after string, limit int) (names []string, next string, err error) {
	if query == "!" {
		return nil, "", fault.New(fault.InvalidQuery, "no query")
	}
	err = x.r.disk.Scan(context.Background(), store.Under("thing", string(account)), func(s store.Record) error {
		name := s.Key.Last()
		if !strings.HasPrefix(name, query) || name <= after {
			return nil
		}
		if len(names) == limit {
			next = names[limit-1]
			return store.Stop
		}
		names = append(names, name)
		return nil
	})
	return names, next, err
}

// things creates things with an attribute n.
func (r *rig) things(names ...string) {
	r.t.Helper()
	for i, name := range names {
		_, err := r.registry.CreateThing(r.t.Context(), account, registry.CreateThingCommand{Name: name, Attributes: map[string]string{"n": fmt.Sprint(i)}})
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// pumps are n names.
func pumps(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("pump-%04d", i)
	}
	return names
}

func (r *rig) thing(name string) registry.Thing {
	r.t.Helper()
	t, err := r.registry.DescribeThing(r.t.Context(), account, name)
	if err != nil {
		r.t.Fatal(err)
	}
	return t
}

// begin previews and starts.
func (r *rig) begin(query string, o Operation, perSecond int) Edit {
	r.t.Helper()
	p, err := r.Preview(r.t.Context(), account, query, o)
	if err != nil {
		r.t.Fatal(err)
	}
	e, err := r.Start(r.t.Context(), account, StartCommand{Query: query, Operation: o, Token: p.Token, PerSecond: perSecond})
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// finish waits for an edit's end.
func (r *rig) finish(id string) Edit {
	r.t.Helper()
	for {
		e, err := r.Describe(r.t.Context(), account, id)
		if err != nil {
			r.t.Fatal(err)
		}
		if e.Status.final() {
			return e
		}
		pass(r.t.Context(), 10*time.Millisecond)
	}
}

// pass lets time go by; in a bubble it costs none.
func pass(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// ends wants an edit to have come to counts.
func (r *rig) ends(e Edit, status Status, want Counts) Edit {
	r.t.Helper()
	done := r.finish(e.ID)
	if diff := cmp.Diff(want, done.Done); diff != "" || done.Status != status {
		failures, _, _ := r.Failures(r.t.Context(), account, e.ID, "", 3)
		r.t.Fatalf("edit is %s, counts (-want +got):\n%s%+v", done.Status, diff, failures)
	}
	return done
}

// events are those of the log that fit.
func events[E event.Event](t *testing.T, s store.Store) []E {
	t.Helper()
	var out []E
	var at store.Cursor
	for {
		batch, next, err := s.Events(t.Context(), at, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(batch) == 0 {
			return out
		}
		for _, e := range batch {
			if v, ok := e.Event.(E); ok {
				out = append(out, v)
			}
		}
		at = next
	}
}

// left are the keys of edits in the store.
func (r *rig) left() []string {
	r.t.Helper()
	var keys []string
	err := r.disk.Scan(r.t.Context(), store.Range{From: "bulk-edit", To: "bulk-edit~"}, func(s store.Record) error {
		if s.Key.Parts()[0] != kindActive {
			keys = append(keys, s.Key.String())
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return keys
}

func (r *rig) group(name, parent string) {
	r.t.Helper()
	if _, err := r.registry.CreateThingGroup(r.t.Context(), account, registry.CreateThingGroupCommand{Name: name, Parent: parent}); err != nil {
		r.t.Fatal(err)
	}
}

// wantCode fails unless err carries the code and a text.
func wantCode(t *testing.T, err error, code fault.Code, text string) {
	t.Helper()
	if fault.CodeOf(err) != code || err != nil && !strings.Contains(fault.From(err).Message, text) {
		t.Errorf("got %v, want %s with %q", err, code, text)
	}
}

func groupsOf(t registry.Thing) []string {
	names := make([]string, len(t.Groups))
	for i, m := range t.Groups {
		names[i] = m.Group
	}
	slices.Sort(names)
	return names
}
