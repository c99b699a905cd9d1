package presence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// trimEvery is how often Trim looks.
	trimEvery = 10 * time.Minute
	// strangersFor is how long the record of a client that is no thing is kept
	// after it went.
	strangersFor = 24 * time.Hour
)

// Things tells which of some names are things.
type Things func(ctx context.Context, account fleet.Account, names []string) (map[string]bool, error)

// Trim forgets clients that are no things once they have been away for a day and
// their sessions are over, until ctx ends: whoever may connect under any client
// id, as claims do, could fill the store otherwise. Their connections stay in the
// history.
func (s *Service) Trim(ctx context.Context, things Things) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, err := s.trim(ctx, things); err != nil && ctx.Err() == nil {
				s.log.ErrorContext(ctx, "clients that are no things are not forgotten", slog.Any("err", err))
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// trim goes once over all records, and returns how many it forgot.
func (s *Service) trim(ctx context.Context, things Things) (forgotten int, err error) {
	now := s.now()
	var away []store.Record
	flush := func() error {
		n, err := s.forget(ctx, away, things)
		forgotten, away = forgotten+n, nil
		return err
	}
	err = s.store.Scan(ctx, store.Under(kind), func(stored store.Record) error {
		found, err := decode(stored)
		if err != nil || found.Connected || now.Sub(time.UnixMilli(found.At)) < max(strangersFor, found.remembered()) {
			return err
		}
		if away = append(away, stored); len(away) < batchClients {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	return forgotten, err
}

// forget removes those of some records that are of no thing. A client that has
// come back meanwhile keeps its record, and with it all of this batch until the
// next time.
func (s *Service) forget(ctx context.Context, away []store.Record, things Things) (int, error) {
	names := map[fleet.Account][]string{}
	for _, stored := range away {
		parts := stored.Key.Parts()
		account := fleet.Account(parts[1])
		names[account] = append(names[account], parts[2])
	}
	known := map[fleet.Account]map[string]bool{}
	for account, all := range names {
		var err error
		if known[account], err = things(ctx, account, all); err != nil {
			return 0, fmt.Errorf("look for things: %w", err)
		}
	}
	var b store.Batch
	for _, stored := range away {
		parts := stored.Key.Parts()
		if known[fleet.Account(parts[1])][parts[2]] {
			continue
		}
		b.Expect = append(b.Expect, store.Expect{Key: stored.Key, Version: stored.Version})
		b.Writes = append(b.Writes, store.Write{Key: stored.Key, Delete: true})
	}
	if len(b.Writes) == 0 {
		return 0, nil
	}
	_, err := s.store.Commit(ctx, b)
	switch {
	case errors.Is(err, store.ErrConflict):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("forget clients: %w", err)
	}
	return len(b.Writes), nil
}
