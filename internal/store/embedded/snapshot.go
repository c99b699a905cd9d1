package embedded

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/muster-iot/muster/internal/store"
)

// snapshot is a frozen view.
type snapshot struct {
	snap *pebble.Snapshot
	seq  uint64
	// gate keeps calls away from a closed view; leave tells the engine that the
	// view is gone.
	gate  *gate
	leave func()
}

// Get implements store.Reader.
func (s *snapshot) Get(_ context.Context, key store.Key) (store.Record, error) {
	if !s.gate.enter() {
		return store.Record{}, store.ErrClosed
	}
	defer s.gate.leave()
	return get(s.snap, key)
}

// GetMany implements store.Reader.
func (s *snapshot) GetMany(_ context.Context, keys []store.Key) ([]store.Record, error) {
	if !s.gate.enter() {
		return nil, store.ErrClosed
	}
	defer s.gate.leave()
	return getMany(func(key store.Key) (store.Record, error) { return get(s.snap, key) }, keys)
}

// Scan implements store.Reader.
func (s *snapshot) Scan(ctx context.Context, r store.Range, fn func(store.Record) error) error {
	if !s.gate.enter() {
		return store.ErrClosed
	}
	defer s.gate.leave()
	return scan(ctx, s.snap, r, fn)
}

// Cursor implements store.Snapshot.
func (s *snapshot) Cursor() store.Cursor { return store.CursorAt(store.Position{Seq: s.seq}) }

// Close implements store.Snapshot.
func (s *snapshot) Close() error {
	if !s.gate.shut() {
		return nil
	}
	defer s.leave()
	if err := s.snap.Close(); err != nil {
		return fmt.Errorf("close a view of the store: %w", err)
	}
	return nil
}
