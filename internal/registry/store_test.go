package registry

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
	"github.com/muster-iot/muster/internal/store/postgres"
)

// testStore is an engine with a hook ahead of each commit.
type testStore struct {
	store.Store

	t *testing.T
	// before may fail a commit; nil lets all through.
	before atomic.Pointer[func(store.Batch) error]
}

// newTestStore is the embedded engine on a file system in memory, or an empty
// PostgreSQL database where TestOnPostgreSQL runs a test.
func newTestStore(t *testing.T) *testStore {
	t.Helper()
	open := openEmbedded
	if onPostgres(t) {
		open = openPostgres
	}
	engine, err := open(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return &testStore{Store: engine, t: t}
}

func openEmbedded(*testing.T) (store.Store, error) {
	return embedded.Open(embedded.Options{
		Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1,
	})
}

func openPostgres(t *testing.T) (store.Store, error) {
	t.Helper()
	return postgres.Open(t.Context(), postgres.Options{URL: cluster.Get(t).Database(t), Logger: slog.New(slog.DiscardHandler), Conns: 4})
}

// Commit runs the hook first.
func (s *testStore) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if before := s.before.Load(); before != nil {
		if err := (*before)(b); err != nil {
			return store.Position{}, err
		}
	}
	return s.Store.Commit(ctx, b)
}

// hook sets what runs ahead of each commit.
func (s *testStore) hook(before func(store.Batch) error) { s.before.Store(&before) }

// unhook removes the hook.
func (s *testStore) unhook() { s.before.Store(nil) }

// envelopes returns the whole log.
func (s *testStore) envelopes() []event.Envelope {
	s.t.Helper()
	var all []event.Envelope
	var after store.Cursor
	for {
		some, next, err := s.Events(s.t.Context(), after, 1000)
		if err != nil {
			s.t.Fatal(err)
		}
		if len(some) == 0 {
			return all
		}
		all, after = append(all, some...), next
	}
}

// log returns all events so far.
func (s *testStore) log() []event.Event {
	s.t.Helper()
	envelopes := s.envelopes()
	all := make([]event.Event, len(envelopes))
	for i, e := range envelopes {
		all[i] = e.Event
	}
	return all
}

// records returns all there is.
func (s *testStore) records() []store.Record {
	s.t.Helper()
	var all []store.Record
	err := s.Scan(s.t.Context(), store.Range{}, func(r store.Record) error {
		all = append(all, r)
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// left returns the keys there are, for tests that nothing stays behind. The
// counter of an account's dynamic groups stays.
func (s *testStore) left() []string {
	s.t.Helper()
	var all []string
	for _, r := range s.records() {
		all = append(all, r.Key.String())
	}
	return all
}

// failAfter returns a hook that lets some commits through and fails the rest.
func failAfter(commits int64, with error) func(store.Batch) error {
	var seen atomic.Int64
	return func(store.Batch) error {
		if seen.Add(1) > commits {
			return with
		}
		return nil
	}
}
