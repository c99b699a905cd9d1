package shadow

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/muster-iot/muster/internal/store"
)

// CheckDrifts compares the rows of the drift report with the shadows, in the
// state that r shows, and returns how many rows there are. It tells keys that
// should not be there, and those that are missing.
func CheckDrifts(ctx context.Context, r store.Reader, report func(row store.Key, missing bool)) (rows int, err error) {
	have := map[store.Key]bool{}
	err = r.Scan(ctx, store.Under(keyDrift), func(row store.Record) error {
		have[store.Key(strings.Clone(string(row.Key)))] = true
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("check drifts: %w", err)
	}
	rows = len(have)
	err = EachShadow(ctx, r, "", func(d Document) error {
		if d.d.since == 0 {
			return nil
		}
		row := identity{account: d.Account, thing: d.Thing, shadow: d.Shadow}.driftKey(d.d.since)
		if !have[row] {
			report(row, true)
		}
		delete(have, row)
		return nil
	})
	if err != nil {
		return rows, fmt.Errorf("check drifts: %w", err)
	}
	for row := range have {
		report(row, false)
	}
	return rows, nil
}

// RepairDrifts removes rows that should not be there and writes those that are
// missing, while the service goes on.
func (s *Service) RepairDrifts(ctx context.Context) error {
	var after store.Key
	for {
		within := store.Under(keyDrift)
		if after != "" {
			within = within.After(after)
		}
		rows, err := s.driftRows(ctx, within, driftFill)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if err := s.repairDrift(ctx, row); err != nil {
				return err
			}
		}
		if len(rows) < driftFill {
			break
		}
		after = rows[len(rows)-1]
	}
	// Until it is there again, the report says that it is being filled.
	if _, err := s.store.Commit(ctx, store.Batch{Writes: []store.Write{{Key: store.K(keyDriftWhole), Delete: true}}}); err != nil {
		return storeFault(err, "repair drifts")
	}
	return s.FillDrifts(ctx)
}

// repairDrift removes a row that its shadow does not have.
func (s *Service) repairDrift(ctx context.Context, row store.Key) error {
	id, since, err := driftOf(row)
	if err != nil {
		return err
	}
	for {
		record, err := s.store.Get(ctx, id.key())
		switch {
		case errors.Is(err, store.ErrNotFound):
			record.Version = 0
		case err != nil:
			return storeFault(err, "repair drifts")
		default:
			d, err := decodeRecord(record.Value)
			if err != nil {
				return fmt.Errorf("shadow %s: %w", record.Key, err)
			}
			if d.since == since {
				return nil
			}
		}
		_, err = s.store.Commit(ctx, store.Batch{
			Expect: []store.Expect{{Key: id.key(), Version: record.Version}}, Writes: []store.Write{{Key: row, Delete: true}},
		})
		if !errors.Is(err, store.ErrConflict) {
			return storeFaultOrNil(err, "repair drifts")
		}
	}
}
