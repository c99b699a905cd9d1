package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

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

func getMany(get func(store.Key) (store.Record, error), keys []store.Key) ([]store.Record, error) {
	records := make([]store.Record, len(keys))
	for i, key := range keys {
		found, err := get(key)
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
