package membership

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// trimEvery is the time between two looks.
	trimEvery = time.Minute
	// trimBatch bounds one commit.
	trimBatch = 500
)

// Run removes entries that are too old or too many until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		if err := s.Trim(ctx); err != nil && ctx.Err() == nil {
			s.o.Logger.ErrorContext(ctx, "membership history is not trimmed", slog.Any("err", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Trim removes what is too old or too much, once, in small commits: of each
// account what ended first. Memberships that last stay.
func (s *Service) Trim(ctx context.Context) error {
	var accounts []fleet.Account
	err := s.store.Scan(ctx, store.Under(kindSize), func(stored store.Record) error {
		accounts = append(accounts, fleet.Account(stored.Key.Last()))
		return nil
	})
	if err != nil {
		return fmt.Errorf("trim membership history: %w", err)
	}
	for _, account := range accounts {
		removed := uint64(0)
		for {
			n, more, err := s.trim(ctx, account)
			if err != nil {
				return fmt.Errorf("trim membership history of %s: %w", account, err)
			}
			if removed += n; !more {
				break
			}
		}
		if removed > 0 {
			s.o.Logger.InfoContext(ctx, "membership history trimmed", slog.String("account", string(account)), slog.Uint64("entries", removed))
		}
	}
	return nil
}

// trim removes up to a batch of one account's entries; more says that it filled
// the batch.
func (s *Service) trim(ctx context.Context, account fleet.Account) (removed uint64, more bool, err error) {
	filed, err := readTotal(ctx, s.store, kindSize, account)
	if err != nil {
		return 0, false, err
	}
	gone, err := readTotal(ctx, s.store, kindTrimmed, account)
	if err != nil {
		return 0, false, err
	}
	rows, err := scan(ctx, s.store, store.Under(kindEnded, string(account)), trimBatch)
	if err != nil {
		return 0, false, err
	}
	keys := make([]store.Key, len(rows))
	for i, row := range rows {
		if keys[i], err = keyBehind(row.Key); err != nil {
			return 0, false, err
		}
	}
	var stored []store.Record
	if len(keys) > 0 {
		if stored, err = s.store.GetMany(ctx, keys); err != nil {
			return 0, false, fmt.Errorf("read entries: %w", err)
		}
	}
	oldest := millis(s.o.Now().Add(-s.o.RetentionAge))
	var b store.Batch
	for i, entry := range stored {
		if entry.Version == 0 {
			return 0, false, fmt.Errorf("row %s has no record", rows[i].Key)
		}
		r, err := decode(entry)
		if err != nil {
			return 0, false, err
		}
		if r.Ended >= oldest && kept(filed, gone) <= s.o.RetentionBytes {
			break
		}
		gone.Bytes += r.remove(account, entry, &b)
		gone.CompleteSince = max(gone.CompleteSince, r.Ended)
		removed++
	}
	s.bytes.WithLabelValues(string(account)).Set(float64(kept(filed, gone)))
	if removed == 0 {
		return 0, false, nil
	}
	gone.Schema = schema
	gone.Entries += removed
	if err := write(&b, store.K(kindTrimmed, string(account)), gone.version, gone); err != nil {
		return 0, false, err
	}
	if _, err := s.store.Commit(ctx, b); err != nil {
		return 0, false, fmt.Errorf("remove entries: %w", err)
	}
	s.trimmed.Add(float64(removed))
	return removed, removed == trimBatch, nil
}

// kept is how many bytes of ended entries there are.
func kept(filed, gone total) uint64 {
	if gone.Bytes > filed.Bytes {
		return 0
	}
	return filed.Bytes - gone.Bytes
}
