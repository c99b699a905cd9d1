package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"filippo.io/age"

	"github.com/muster-iot/muster/internal/backup"
	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/store"
)

// offline opens folder and store of a server that does not run.
func offline(ctx context.Context, s config.Settings, use func(dir *datadir.Dir, opened restorable) error) error {
	dir, err := datadir.Open(s.DataDir)
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // it only drops the lock
	opened, err := openStore(ctx, s, dir, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	return errors.Join(use(dir, opened), opened.Close())
}

// Restore fills an empty data folder and an empty store from an archive. The
// server must not run on either.
func Restore(ctx context.Context, s config.Settings, r io.Reader, identities []age.Identity) (backup.Manifest, error) {
	var m backup.Manifest
	err := offline(ctx, s, func(dir *datadir.Dir, opened restorable) error {
		var err error
		m, err = backup.Read(ctx, r, identities, dir.Root(), opened.Restore)
		return err
	})
	return m, err
}

// ReadRecords calls fn for every record whose key begins with the parts, of a
// store that no server uses.
func ReadRecords(ctx context.Context, s config.Settings, parts []string, fn func(store.Record) error) error {
	return offline(ctx, s, func(_ *datadir.Dir, opened restorable) error {
		within := store.Range{}
		if len(parts) > 0 {
			key := store.K(parts...)
			if record, err := opened.Get(ctx, key); err == nil {
				if err := fn(record); err != nil {
					return err
				}
			} else if !errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("read %s: %w", key, err)
			}
			within = store.Under(parts...)
		}
		return opened.Scan(ctx, within, fn)
	})
}
