package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"

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
	if err := checkRestored(dir); err != nil {
		return err
	}
	opened, err := openStore(ctx, s, dir, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	return errors.Join(use(dir, opened), opened.Close())
}

// restoringFile marks a folder whose restore has begun and not ended.
const restoringFile = "RESTORING"

// errRestoring is a folder that holds half of a backup.
var errRestoring = errors.New("restore of this data folder did not finish: empty the folder and the store, and restore again")

// checkRestored refuses a folder that was left by a failed restore.
func checkRestored(dir *datadir.Dir) error {
	_, err := os.Stat(dir.Path(restoringFile))
	if err == nil {
		return fmt.Errorf("%s: %w", dir.Root(), errRestoring)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at the data folder: %w", err)
	}
	return nil
}

// Restore fills an empty data folder and an empty store from an archive. The
// server must not run on either. A restore that fails leaves a folder that no
// server starts on.
func Restore(ctx context.Context, s config.Settings, r io.Reader, identities []age.Identity) (backup.Manifest, error) {
	var m backup.Manifest
	err := offline(ctx, s, func(dir *datadir.Dir, opened restorable) error {
		to := backup.Target{Root: dir.Root(), Files: backedUp(), Restore: opened.Restore}
		// The marker is for a folder of which nothing would be lost.
		if err := to.Vacant(); err != nil {
			return err
		}
		marker := dir.Path(restoringFile)
		if err := datadir.WriteFile(marker, []byte("a restore is under way or failed\n"), datadir.PrivateMode); err != nil {
			return err
		}
		var err error
		if m, err = backup.Read(ctx, r, identities, to); err != nil {
			return err
		}
		if err := os.Remove(marker); err != nil {
			return fmt.Errorf("end the restore: %w", err)
		}
		return nil
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
