package history

import (
	"context"
	"errors"
	"fmt"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// mendAttempts bounds how often some differences are mended anew because the
// history went on meanwhile.
const mendAttempts = 48

// Difference is a connection that history and presence disagree about.
type Difference struct {
	Account fleet.Account
	// Open is the key that says, or would say, that it lasts.
	Open store.Key
	// Lasts says that it is open in the history and should not be; else it should
	// be and is not.
	Lasts bool
	// Seq is that of the event that began it, for one that lasts.
	Seq uint64
}

// openRow is the key that a repair is about.
func (r *repair) openRow() store.Key {
	if r.begin != nil {
		c := &r.begin.Session
		return openKey(r.account, c.ClientID, c.Version, c.SessionID)
	}
	return r.row
}

// Differences reports what lasts in the history and not in presence, or the
// other way round, in one frozen state, and returns that state's place in the
// event log. The history follows the log: what is still found after it has
// followed to that place is wrong. It holds all open entries in memory.
func (s *Service) Differences(ctx context.Context, report func(Difference)) (store.Cursor, error) {
	snapshot, err := s.store.Snapshot(ctx)
	if err != nil {
		return store.Cursor{}, fmt.Errorf("compare connection history: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // it was only read
	repairs, err := s.compare(ctx, snapshot, millis(s.o.Now()))
	if err != nil {
		return store.Cursor{}, err
	}
	for i := range repairs {
		r := &repairs[i]
		report(Difference{Account: r.account, Open: r.openRow(), Lasts: r.begin == nil, Seq: r.seq})
	}
	return snapshot.Cursor(), nil
}

// Mend ends and begins entries at the given keys as Rebuild does, with an unknown
// cause, if they still differ. It expects that the history does not go on
// meanwhile, and keeps it from doing so unseen.
func (s *Service) Mend(ctx context.Context, rows []store.Key) error {
	asked := make(map[store.Key]bool, len(rows))
	for _, row := range rows {
		asked[row] = true
	}
	for range mendAttempts {
		err := s.mendOnce(ctx, asked)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("mend connection history: %w", store.ErrConflict)
}

// mendOnce mends from one frozen state on.
func (s *Service) mendOnce(ctx context.Context, asked map[store.Key]bool) error {
	snapshot, err := s.store.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("mend connection history: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // it was only read
	found, err := s.compare(ctx, snapshot, millis(s.o.Now()))
	if err != nil {
		return err
	}
	var repairs []repair
	for _, r := range found {
		if asked[r.openRow()] {
			repairs = append(repairs, r)
		}
	}
	done, err := readApplied(ctx, snapshot)
	if err != nil {
		return err
	}
	for len(repairs) > 0 {
		n := min(len(repairs), rebuildBatch)
		var guard store.Batch
		done.Schema = schema
		if err := write(&guard, appliedKey(), done.version, done); err != nil {
			return err
		}
		if err := s.repair(ctx, repairs[:n], guard); err != nil {
			return err
		}
		if repairs = repairs[n:]; len(repairs) == 0 {
			break
		}
		if done, err = readApplied(ctx, s.store); err != nil {
			return err
		}
	}
	return nil
}
