package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

// reader is the part of pebble that the live store and a snapshot share.
type reader interface {
	Get(key []byte) ([]byte, io.Closer, error)
	NewIter(o *pebble.IterOptions) (*pebble.Iterator, error)
}

func get(r reader, key store.Key) (store.Record, error) {
	value, closer, err := r.Get(stateKey(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return store.Record{}, store.ErrNotFound
	}
	if err != nil {
		return store.Record{}, fmt.Errorf("read %s: %w", key, err)
	}
	defer closer.Close() //nolint:errcheck // releasing a block cannot fail
	return record(key, value)
}

// record copies pebble's value.
func record(key store.Key, value []byte) (store.Record, error) {
	if len(value) < versionBytes {
		return store.Record{}, fmt.Errorf("record %s has %d bytes and no version", key, len(value))
	}
	return store.Record{
		Key:     key,
		Version: binary.BigEndian.Uint64(value),
		Value:   append(make([]byte, 0, len(value)-versionBytes), value[versionBytes:]...),
	}, nil
}

func getMany(r reader, keys []store.Key) ([]store.Record, error) {
	records := make([]store.Record, len(keys))
	for i, key := range keys {
		found, err := get(r, key)
		switch {
		case errors.Is(err, store.ErrNotFound):
			records[i].Key = key
		case err != nil:
			return nil, err
		default:
			records[i] = found
		}
	}
	return records, nil
}

// scanCheck is how many records a scan reads between looks at its context.
const scanCheck = 256

func scan(ctx context.Context, r reader, within store.Range, fn func(store.Record) error) error {
	upper := []byte{stateByte + 1}
	if within.To != "" {
		upper = stateKey(within.To)
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: stateKey(within.From), UpperBound: upper})
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	defer it.Close() //nolint:errcheck // its error is read below
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if n++; n%scanCheck == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		rec, err := record(store.Key(it.Key()[1:]), it.Value())
		if err != nil {
			return err
		}
		if err := fn(rec); err != nil {
			if errors.Is(err, store.Stop) {
				return nil
			}
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	return nil
}

// snapshot is a frozen view.
type snapshot struct {
	snap *pebble.Snapshot
	seq  uint64
}

// Get implements store.Reader.
func (s *snapshot) Get(_ context.Context, key store.Key) (store.Record, error) {
	return get(s.snap, key)
}

// GetMany implements store.Reader.
func (s *snapshot) GetMany(_ context.Context, keys []store.Key) ([]store.Record, error) {
	return getMany(s.snap, keys)
}

// Scan implements store.Reader.
func (s *snapshot) Scan(ctx context.Context, r store.Range, fn func(store.Record) error) error {
	return scan(ctx, s.snap, r, fn)
}

// Cursor implements store.Snapshot.
func (s *snapshot) Cursor() store.Cursor { return store.CursorAt(store.Position{Seq: s.seq}) }

// Close implements store.Snapshot.
func (s *snapshot) Close() error { return s.snap.Close() }

func (s *snapshot) mark(key []byte) (uint64, error) {
	value, closer, err := s.snap.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read mark %q: %w", key, err)
	}
	defer closer.Close() //nolint:errcheck // releasing a block cannot fail
	return binary.BigEndian.Uint64(value), nil
}

// dump writes the snapshot in the engine-independent form.
func (s *snapshot) dump(ctx context.Context, w io.Writer) error {
	version, err := s.mark(markVersion)
	if err != nil {
		return err
	}
	trimmed, err := s.mark(markTrimmed)
	if err != nil {
		return err
	}
	d, err := store.NewDumpWriter(w, store.DumpHeader{Version: version, Seq: s.seq, Trimmed: trimmed})
	if err != nil {
		return err
	}
	if err := s.Scan(ctx, store.Range{}, d.Record); err != nil {
		return err
	}
	it, err := s.snap.NewIter(&pebble.IterOptions{LowerBound: eventKey(0), UpperBound: []byte{eventByte + 1}})
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer it.Close() //nolint:errcheck // its error is read below
	for ok := it.First(); ok; ok = it.Next() {
		if err := d.Event(binary.BigEndian.Uint64(it.Key()[1:]), it.Value()); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return d.Close()
}

// restoreBatch is how many bytes of a dump go into one write.
const restoreBatch = 4 << 20

// Restore fills an empty store from a checkpoint of any engine.
func (e *Engine) Restore(ctx context.Context, r io.Reader) error {
	it, err := e.db.NewIter(nil)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	empty := !it.First()
	if err := it.Close(); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if !empty {
		return store.ErrNotEmpty
	}
	b := e.db.NewBatch()
	flush := func() error {
		err := e.db.Apply(b, pebble.Sync)
		b.Reset()
		return err
	}
	header, err := store.ReadDump(ctx, r, store.DumpReader{
		Record: func(rec store.Record) error {
			if err := setState(b, rec.Key, rec.Version, rec.Value); err != nil {
				return err
			}
			if b.Len() > restoreBatch {
				return flush()
			}
			return nil
		},
		Event: func(seq uint64, data []byte) error {
			if _, err := event.Decode(data); err != nil {
				return err
			}
			if err := b.Set(eventKey(seq), data, nil); err != nil {
				return err
			}
			if b.Len() > restoreBatch {
				return flush()
			}
			return nil
		},
	})
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	err = errors.Join(b.Set(markVersion, number(header.Version), nil), b.Set(markSeq, number(header.Seq), nil), b.Set(markTrimmed, number(header.Trimmed), nil), flush(), b.Close())
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return e.load()
}
