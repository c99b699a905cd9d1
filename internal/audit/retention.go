package audit

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
	// trimEvery is the time between two looks.
	trimEvery = time.Minute
	// trimBatch bounds one commit.
	trimBatch = 500
)

// Run removes records that are too old until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		if err := s.Trim(ctx); err != nil && ctx.Err() == nil {
			s.o.Logger.ErrorContext(ctx, "audit trail is not trimmed", slog.Any("err", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Trim removes what is too old, once, in small commits. Where the chain begins
// then is signed, so that what is left can be checked, and that somebody else
// cut it shows.
func (s *Service) Trim(ctx context.Context) error {
	if s.o.RetentionAge <= 0 {
		return nil
	}
	accounts, err := s.Accounts(ctx)
	if err != nil {
		return err
	}
	for _, account := range accounts {
		for {
			n, err := s.trim(ctx, account)
			if err != nil {
				return fmt.Errorf("trim the audit trail of %s: %w", account, err)
			}
			s.trimmed.Add(float64(n))
			if n > 0 {
				s.o.Logger.InfoContext(ctx, "audit trail trimmed", slog.String("account", string(account)), slog.Int("records", n))
			}
			if n < trimBatch {
				break
			}
		}
	}
	return nil
}

// errGap is a chain that is not whole where it would be trimmed: nothing is
// removed that is evidence.
var errGap = errors.New("the chain is not whole where it begins; run muster audit verify")

// trim removes up to a batch of one account's records.
func (s *Service) trim(ctx context.Context, account fleet.Account) (int, error) {
	anchor, version, err := readHead(ctx, s.store, anchorKey(account), anchorOf, account)
	if err != nil {
		return 0, err
	}
	if version != 0 {
		if err := s.ours(anchor, anchorOf, account); err != nil {
			return 0, fmt.Errorf("the beginning of the chain is not ours: %w", err)
		}
	}
	limit := s.o.Now().Add(-s.o.RetentionAge).UnixMilli()
	var b store.Batch
	n := 0
	within := store.Under(kindRecord, string(account))
	within.From = recordKey(account, anchor.Seq+1)
	err = s.store.Scan(ctx, within, func(stored store.Record) error {
		r, hash, err := parseLine(stored.Value)
		if err != nil || r.Seq != anchor.Seq+1 || stored.Key != recordKey(account, r.Seq) || r.PrevHash != anchor.Hash {
			return errGap
		}
		if r.millis() >= limit || n == trimBatch {
			return store.Stop
		}
		b.Expect = append(b.Expect, store.Expect{Key: stored.Key, Version: stored.Version})
		for _, key := range append(r.rows(), stored.Key) {
			b.Writes = append(b.Writes, store.Write{Key: key, Delete: true})
		}
		anchor.Seq, anchor.Hash = r.Seq, hash
		n++
		return nil
	})
	if errors.Is(err, errGap) {
		// Another node may have removed the same records meanwhile.
		if _, now, again := readHead(ctx, s.store, anchorKey(account), anchorOf, account); again == nil && now != version {
			return 0, nil
		}
	}
	if err != nil || n == 0 {
		return 0, err
	}
	if anchor, err = sign(s.key, anchor, s.o.Now()); err != nil {
		return 0, err
	}
	value, err := anchor.encode()
	if err != nil {
		return 0, err
	}
	b.Expect = append(b.Expect, store.Expect{Key: anchorKey(account), Version: version})
	b.Writes = append(b.Writes, store.Write{Key: anchorKey(account), Value: value})
	if _, err := s.store.Commit(ctx, b); errors.Is(err, store.ErrConflict) {
		return 0, nil // as above
	} else if err != nil {
		return 0, fmt.Errorf("remove records: %w", err)
	}
	return n, nil
}
