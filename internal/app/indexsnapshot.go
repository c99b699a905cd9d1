package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// snapshotFile is the newest snapshot of the fleet index, in datadir.IndexDir.
const snapshotFile = "snapshot"

// errForeignSnapshot is a snapshot of another history than the store's: of before
// a restore, or of another store.
var errForeignSnapshot = errors.New("the index snapshot belongs to another event log")

// restoreIndex begins with the newest snapshot. Whatever is wrong with it, the
// index can be built from the store.
func (a *App) restoreIndex(ctx context.Context) (store.Cursor, error) {
	if err := datadir.RemoveTemporary(a.dir.Path(datadir.IndexDir)); err != nil {
		a.component("index").WarnContext(ctx, "what a crash left of index snapshots stays on the disk", slog.Any("err", err))
	}
	f, err := os.Open(a.dir.Path(datadir.IndexDir, snapshotFile))
	if errors.Is(err, fs.ErrNotExist) {
		return store.Cursor{}, errors.New("there is no index snapshot")
	}
	if err != nil {
		return store.Cursor{}, fmt.Errorf("open index snapshot: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	if err != nil {
		return store.Cursor{}, fmt.Errorf("open index snapshot: %w", err)
	}
	head, err := a.store.Head(ctx)
	if err != nil {
		return store.Cursor{}, err
	}
	begun := now()
	cursor, err := a.index.ReadSnapshot(f, info.Size(), head, func(p index.Proof) error { return a.checkProof(ctx, p, head) })
	if err != nil {
		return store.Cursor{}, err
	}
	a.component("index").InfoContext(ctx, "index begins with its snapshot",
		slog.Int64("bytes", info.Size()), slog.String("cursor", cursor.String()), slog.Duration("took", now().Sub(begun)))
	return cursor, nil
}

// checkProof refuses a snapshot whose last event is not the one that the log has in
// this place.
func (a *App) checkProof(ctx context.Context, p index.Proof, head store.Cursor) error {
	cursor, err := store.ParseCursor(p.Cursor)
	if err != nil {
		return err
	}
	if !head.CoversAll(cursor) {
		return errForeignSnapshot
	}
	present, err := a.prove(ctx, cursor)
	if err != nil {
		return fmt.Errorf("compare the snapshot with the event log: %w", err)
	}
	if present != p {
		return errForeignSnapshot
	}
	return nil
}

// prove identifies the history up to a cursor by its last event.
func (a *App) prove(ctx context.Context, cursor store.Cursor) (index.Proof, error) {
	p := index.Proof{Cursor: cursor.String()}
	seq := cursor.Seq(0)
	if seq == 0 {
		return p, nil
	}
	events, _, err := a.store.Events(ctx, store.CursorAt(store.Position{Seq: seq - 1}), 1)
	if err != nil {
		return p, err
	}
	if len(events) != 1 || events[0].Seq != seq {
		return p, fmt.Errorf("event %d is not in the log", seq)
	}
	data, err := event.Encode(events[0])
	if err != nil {
		return p, fmt.Errorf("encode event %d: %w", seq, err)
	}
	sum := sha256.Sum256(data)
	p.Hash = hex.EncodeToString(sum[:])
	return p, nil
}

// writeIndexSnapshot replaces the snapshot by one of the present. An index that has
// no one state just now keeps the one before.
func (a *App) writeIndexSnapshot(ctx context.Context) error {
	if _, err := a.dir.Sub(datadir.IndexDir); err != nil {
		return err
	}
	begun := now()
	var cursor store.Cursor
	err := datadir.Replace(a.dir.Path(datadir.IndexDir, snapshotFile), datadir.PrivateMode, func(w io.Writer) (err error) {
		cursor, err = a.index.WriteSnapshot(w, func(c store.Cursor) (index.Proof, error) { return a.prove(ctx, c) })
		return err
	})
	switch {
	case errors.Is(err, index.ErrUnsettled), errors.Is(err, store.ErrTrimmed):
		a.component("index").DebugContext(ctx, "index snapshot is put off", slog.Any("reason", err))
		return nil
	case err != nil:
		return fmt.Errorf("write index snapshot: %w", err)
	}
	a.snapshotAt = cursor
	a.component("index").DebugContext(ctx, "index snapshot written", slog.String("cursor", cursor.String()), slog.Duration("took", now().Sub(begun)))
	return nil
}

// leaveIndexSnapshot writes the snapshot that the next start begins with. Without it
// that start takes longer, which is no failure of the stop.
func (a *App) leaveIndexSnapshot(ctx context.Context) error {
	if err := a.writeIndexSnapshot(ctx); err != nil {
		a.component("index").WarnContext(ctx, "no index snapshot at the stop; the next start builds the index from an older one or anew", slog.Any("err", err))
	}
	return nil
}

// keepIndexSnapshots returns the part that writes a snapshot again and again while
// things change.
func (a *App) keepIndexSnapshots(every time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		if every == 0 {
			<-ctx.Done()
			return nil
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
			if a.snapshotAt.CoversAll(a.index.Applied()) {
				continue
			}
			if err := a.writeIndexSnapshot(ctx); err != nil && ctx.Err() == nil {
				a.component("index").ErrorContext(ctx, "index snapshot is not written; a restart builds the index from an older one or anew", slog.Any("err", err))
			}
		}
	}
}

// storedMemberships visits the durable memberships in dynamic groups.
func (l *loader) storedMemberships(ctx context.Context, visit func(account fleet.Account, group, thing string) error) error {
	snapshot, err := l.store.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("freeze the store: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // a read-only view
	return registry.EachDynamicMembership(ctx, snapshot, visit)
}
