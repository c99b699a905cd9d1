package registry

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

// memoryStore is the storage contract over a map, without durability. The
// engines have their own suite; here only the decisions are on trial.
type memoryStore struct {
	mu     sync.RWMutex
	data   map[store.Key]store.Record
	keys   []store.Key
	next   uint64
	events []event.Envelope
	// before runs ahead of each commit and may fail it.
	before func(store.Batch) error
}

func newMemoryStore() *memoryStore { return &memoryStore{data: map[store.Key]store.Record{}} }

func (m *memoryStore) Get(ctx context.Context, key store.Key) (store.Record, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	record, ok := m.data[key]
	if !ok {
		return store.Record{}, store.ErrNotFound
	}
	return record, ctx.Err()
}

func (m *memoryStore) GetMany(ctx context.Context, keys []store.Key) ([]store.Record, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	records := make([]store.Record, len(keys))
	for i, k := range keys {
		records[i] = m.data[k]
		records[i].Key = k
	}
	return records, ctx.Err()
}

func (m *memoryStore) Scan(ctx context.Context, r store.Range, fn func(store.Record) error) error {
	m.mu.RLock()
	start, _ := slices.BinarySearch(m.keys, r.From)
	var found []store.Record
	for _, k := range m.keys[start:] {
		if r.To != "" && k >= r.To {
			break
		}
		found = append(found, m.data[k])
	}
	m.mu.RUnlock()
	for _, record := range found {
		if err := fn(record); errors.Is(err, store.Stop) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (m *memoryStore) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if m.before != nil {
		if err := m.before(b); err != nil {
			return store.Position{}, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range b.Expect {
		if m.data[e.Key].Version != e.Version {
			return store.Position{}, &store.ConflictError{Key: e.Key}
		}
	}
	for _, w := range b.Writes {
		i, found := slices.BinarySearch(m.keys, w.Key)
		switch {
		case w.Delete && found:
			m.keys = slices.Delete(m.keys, i, i+1)
			delete(m.data, w.Key)
		case !w.Delete:
			if !found {
				m.keys = slices.Insert(m.keys, i, w.Key)
			}
			m.next++
			m.data[w.Key] = store.Record{Key: w.Key, Value: w.Value, Version: m.next}
		}
	}
	for i := range b.Events {
		b.Events[i].Seq = uint64(len(m.events) + 1)
		m.events = append(m.events, b.Events[i])
	}
	return store.Position{Seq: uint64(len(m.events))}, ctx.Err()
}

func (m *memoryStore) Snapshot(context.Context) (store.Snapshot, error) {
	return nil, errors.ErrUnsupported
}

func (m *memoryStore) Events(context.Context, store.Cursor, int) ([]event.Envelope, store.Cursor, error) {
	return nil, store.Cursor{}, errors.ErrUnsupported
}
func (m *memoryStore) Wait(context.Context, store.Cursor) error     { return errors.ErrUnsupported }
func (m *memoryStore) Head(context.Context) (store.Cursor, error)   { return store.Cursor{}, nil }
func (m *memoryStore) Oldest(context.Context) (store.Cursor, error) { return store.Cursor{}, nil }
func (m *memoryStore) Trim(context.Context, store.Cursor) error     { return errors.ErrUnsupported }
func (m *memoryStore) Stats(context.Context) (store.Stats, error)   { return store.Stats{}, nil }
func (m *memoryStore) Checkpoint(context.Context, io.Writer) error  { return errors.ErrUnsupported }
func (m *memoryStore) Close() error                                 { return nil }

// log returns a copy of all events so far.
func (m *memoryStore) log() []event.Event {
	m.mu.RLock()
	defer m.mu.RUnlock()
	all := make([]event.Event, len(m.events))
	for i, e := range m.events {
		all[i] = e.Event
	}
	return all
}

// left returns the keys there are, for tests that nothing stays behind.
func (m *memoryStore) left() []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	all := make([]string, len(m.keys))
	for i, k := range m.keys {
		all[i] = k.String()
	}
	return all
}

// newCrash returns a hook that fails every commit after the first few.
func newCrash(commits *int, after int, with error) func(store.Batch) error {
	return func(store.Batch) error {
		*commits++
		if *commits > after {
			return with
		}
		return nil
	}
}

// newConflicts returns a hook that lets every commit lose its race.
func newConflicts(attempts *int, seen func(int)) func(store.Batch) error {
	return func(b store.Batch) error {
		*attempts++
		seen(*attempts)
		return &store.ConflictError{Key: b.Expect[0].Key}
	}
}
