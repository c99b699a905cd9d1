package membership

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// rebuildBatch bounds one commit of Rebuild.
const rebuildBatch = 500

// repair is an open row that must end, or a membership that must begin.
type repair struct {
	account fleet.Account
	row     store.Key
	begin   *record
}

// Rebuild goes on after events were trimmed that were not applied: it ends what
// the registry no longer has, begins what it has, and remembers that the time
// before has a gap.
func (s *Service) Rebuild(ctx context.Context) (store.Cursor, error) {
	snapshot, err := s.store.Snapshot(ctx)
	if err != nil {
		return store.Cursor{}, fmt.Errorf("rebuild membership history: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // it was only read
	now := millis(s.o.Now())
	if err := s.compare(ctx, snapshot, now); err != nil {
		return store.Cursor{}, err
	}
	done, err := readApplied(ctx, s.store)
	if err != nil {
		return store.Cursor{}, err
	}
	var b store.Batch
	done.Schema, done.Cursor, done.CompleteSince = schema, snapshot.Cursor().String(), now
	if err := write(&b, store.K(kindApplied), done.version, done); err != nil {
		return store.Cursor{}, err
	}
	if _, err := s.store.Commit(ctx, b); err != nil {
		return store.Cursor{}, fmt.Errorf("rebuild membership history: %w", err)
	}
	s.o.Logger.WarnContext(ctx, "membership history has a gap: events were trimmed before they were applied", slog.Time("complete_since", timeOf(now)))
	return snapshot.Cursor(), nil
}

// compare repairs what differs between the open rows and the registry.
func (s *Service) compare(ctx context.Context, snapshot store.Snapshot, now int64) error {
	repairs, err := s.differing(ctx, snapshot, now)
	if err != nil {
		return err
	}
	for len(repairs) > 0 {
		n := min(len(repairs), rebuildBatch)
		if err := s.repair(ctx, repairs[:n], now, store.Batch{}); err != nil {
			return err
		}
		repairs = repairs[n:]
	}
	return nil
}

// differing finds what differs between the open rows and the registry.
func (s *Service) differing(ctx context.Context, snapshot store.Snapshot, now int64) ([]repair, error) {
	open := map[store.Key]bool{}
	err := snapshot.Scan(ctx, store.Under(kindOpen), func(row store.Record) error {
		open[row.Key] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("compare membership history: %w", err)
	}
	var repairs []repair
	seq := snapshot.Cursor().Seq(0)
	err = s.o.Live(ctx, snapshot, func(l Live) error {
		row := openKey(l.Account, l.Thing, l.Group)
		if open[row] {
			delete(open, row)
			return nil
		}
		repairs = append(repairs, repair{account: l.Account, row: row, begin: &record{
			Seq: seq, Began: now, Group: l.Group, Thing: l.Thing, Dynamic: l.Dynamic, Joined: &Cause{Kind: CauseUnknown},
		}})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("compare membership history: %w", err)
	}
	for row := range open {
		repairs = append(repairs, repair{account: fleet.Account(row.Parts()[1]), row: row})
	}
	return repairs, nil
}

// repair commits some repairs together with a guard. Run twice, it finds nothing to do.
func (s *Service) repair(ctx context.Context, repairs []repair, now int64, guard store.Batch) error {
	rows := make([]store.Key, len(repairs))
	for i, r := range repairs {
		rows[i] = r.row
	}
	c := &change{batch: guard, filed: map[fleet.Account]total{}}
	var err error
	if c.open, err = loadOpen(ctx, s.store, rows); err != nil {
		return err
	}
	for _, r := range repairs {
		switch lasting := c.open[r.row]; {
		case r.begin != nil && lasting == nil:
			err = c.begin(r.account, r.begin)
		case r.begin == nil && lasting != nil:
			err = c.end(r.account, lasting, now, &Cause{Kind: CauseUnknown})
		}
		if err != nil {
			return err
		}
	}
	if len(c.batch.Writes) == len(guard.Writes) {
		return nil
	}
	if err := s.count(ctx, c); err != nil {
		return err
	}
	if _, err := s.store.Commit(ctx, c.batch); err != nil {
		return fmt.Errorf("repair membership history: %w", err)
	}
	return nil
}
