package shadow

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

// memory is the embedded engine on a file system in memory, with a hook.
type memory struct {
	*embedded.Engine
	// before, if set, may fail a commit or change the store under it.
	before func(b store.Batch) error
	// reads counts calls of Get.
	reads atomic.Int64
}

// Get implements Store.
func (m *memory) Get(ctx context.Context, key store.Key) (store.Record, error) {
	m.reads.Add(1)
	return m.Engine.Get(ctx, key)
}

func newMemory(tb testing.TB) *memory {
	tb.Helper()
	engine, err := embedded.Open(embedded.Options{
		Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := engine.Close(); err != nil {
			tb.Error(err)
		}
	})
	return &memory{Engine: engine}
}

// Commit implements Store.
func (m *memory) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if m.before != nil {
		if err := m.before(b); err != nil {
			return store.Position{}, err
		}
	}
	return m.Engine.Commit(ctx, b)
}

// told returns all events without their places in the log.
func (m *memory) told(t *testing.T) []event.Envelope {
	t.Helper()
	events, _, err := m.Events(t.Context(), store.Cursor{}, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		events[i].Partition, events[i].Seq = 0, 0
	}
	return events
}

// keys returns the keys of all records.
func (m *memory) keys(t *testing.T) []string {
	t.Helper()
	var out []string
	err := m.Scan(t.Context(), store.Range{}, func(r store.Record) error {
		out = append(out, r.Key.String())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
