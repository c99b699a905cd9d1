package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/muster-iot/muster/internal/store"
)

// snapshot is a read-only transaction that sees one moment.
type snapshot struct {
	engine *Engine
	// mu serializes the uses of the one connection.
	mu     sync.Mutex
	tx     pgx.Tx
	closed bool
	head   head
}

// Snapshot implements store.Store.
func (e *Engine) Snapshot(ctx context.Context) (store.Snapshot, error) {
	s, err := e.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// snapshot begins the transaction and reads the counters in it.
func (e *Engine) snapshot(ctx context.Context) (*snapshot, error) {
	s := &snapshot{engine: e}
	err := e.retry(ctx, "freeze a view of the store", func() error {
		tx, err := e.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
		if err != nil {
			return err
		}
		h, err := readHead(ctx, tx)
		if err != nil {
			return errors.Join(err, tx.Rollback(context.WithoutCancel(ctx)))
		}
		s.tx, s.head = tx, h
		return nil
	})
	return s, err
}

// use runs a read on the snapshot's connection.
func (s *snapshot) use(ctx context.Context, doing string, read func(pgx.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	if err := read(s.tx); err != nil {
		return s.engine.fail(ctx, doing, err)
	}
	return nil
}

// Get implements store.Reader.
func (s *snapshot) Get(ctx context.Context, key store.Key) (store.Record, error) {
	records, err := s.GetMany(ctx, []store.Key{key})
	return one(records, err)
}

// GetMany implements store.Reader.
func (s *snapshot) GetMany(ctx context.Context, keys []store.Key) (records []store.Record, err error) {
	err = s.use(ctx, "read a view of the store", func(tx pgx.Tx) error {
		records, err = getMany(ctx, tx, keys)
		return err
	})
	return records, err
}

// Scan implements store.Reader.
func (s *snapshot) Scan(ctx context.Context, r store.Range, fn func(store.Record) error) error {
	stopped := false
	for {
		var records []store.Record
		err := s.use(ctx, "scan a view of the store", func(tx pgx.Tx) (err error) {
			records, err = page(ctx, tx, r)
			return err
		})
		if err != nil {
			return err
		}
		err = visit(records, func(record store.Record) error {
			err := fn(record)
			stopped = errors.Is(err, store.Stop)
			return err
		})
		if err != nil || stopped || len(records) < scanPage {
			return err
		}
		r = r.After(records[len(records)-1].Key)
	}
}

// Cursor implements store.Snapshot.
func (s *snapshot) Cursor() store.Cursor { return store.CursorAt(store.Position{Seq: s.head.seq}) }

// Close implements store.Snapshot.
func (s *snapshot) Close() error { return s.end(context.Background()) }

// end returns the connection to the pool, also after ctx has ended.
func (s *snapshot) end(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hangUpTimeout)
	defer cancel()
	if err := s.tx.Rollback(ctx); err != nil {
		return fmt.Errorf("end a view of the store: %w", classify(err))
	}
	return nil
}
