package shadow

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

// memory is a store of one map: enough of the contract to test the domain
// without an engine. The engines have a suite of their own.
type memory struct {
	mu      sync.Mutex
	records map[store.Key]store.Record
	version uint64
	events  []event.Envelope
	// before, if set, may fail a commit or change the store under it.
	before func(b store.Batch) error
}

func newMemory() *memory { return &memory{records: map[store.Key]store.Record{}} }

func (m *memory) Get(_ context.Context, key store.Key) (store.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[key]
	if !ok {
		return store.Record{}, store.ErrNotFound
	}
	return r, nil
}

func (m *memory) GetMany(ctx context.Context, keys []store.Key) ([]store.Record, error) {
	out := make([]store.Record, len(keys))
	for i, k := range keys {
		out[i], _ = m.Get(ctx, k)
	}
	return out, nil
}

func (m *memory) Scan(_ context.Context, r store.Range, fn func(store.Record) error) error {
	m.mu.Lock()
	snapshot := maps.Clone(m.records)
	m.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(snapshot)) {
		if k < r.From || r.To != "" && k >= r.To {
			continue
		}
		if err := fn(snapshot[k]); errors.Is(err, store.Stop) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) Commit(_ context.Context, b store.Batch) (store.Position, error) {
	if m.before != nil {
		if err := m.before(b); err != nil {
			return store.Position{}, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range b.Expect {
		if m.records[e.Key].Version != e.Version {
			return store.Position{}, &store.ConflictError{Key: e.Key}
		}
	}
	for _, w := range b.Writes {
		m.version++
		if w.Delete {
			delete(m.records, w.Key)
			continue
		}
		m.records[w.Key] = store.Record{Key: w.Key, Value: slices.Clone(w.Value), Version: m.version}
	}
	m.events = append(m.events, b.Events...)
	return store.Position{Seq: uint64(len(m.events))}, nil
}
