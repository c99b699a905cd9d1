package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// lookEvery is how often the ends of chains are looked at, anchorEvery how often
	// the audit trail is told of one that has moved.
	lookEvery   = time.Minute
	anchorEvery = time.Hour
)

// Run tells the audit trail where the ledgers end, until ctx ends, which is no error.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := s.Anchor(ctx); err != nil && ctx.Err() == nil {
			s.o.Logger.ErrorContext(ctx, "end of the ledger is not told to the audit trail", slog.Any("err", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Anchor tells the audit trail of the ends that have moved, each once an hour.
func (s *Service) Anchor(ctx context.Context) error {
	accounts, err := s.Accounts(ctx)
	if err != nil {
		return err
	}
	for _, account := range accounts {
		if err := s.anchor(ctx, account); err != nil {
			return err
		}
	}
	return nil
}

// anchor tells of one. An end that is not ours is not vouched for.
func (s *Service) anchor(ctx context.Context, account fleet.Account) error {
	end, _, err := readEnd(ctx, s.o.Store, headKey(account))
	if err != nil || !sealsEqual(end.Seal, s.seal(sealHead, account, "", end.Number, end.Hash)) {
		return err
	}
	before, version, err := readEnd(ctx, s.o.Store, anchorKey(account))
	now := s.o.Now()
	if err != nil || before.Number >= end.Number || version != 0 && now.Sub(moment(before.At)) < anchorEvery {
		return err
	}
	after := endRecord{
		Schema: schemaVersion, Number: end.Number, Hash: end.Hash, At: now.UnixMilli(), Seal: s.seal(sealAnchor, account, "", end.Number, end.Hash),
	}
	b := store.Batch{
		Expect: []store.Expect{{Key: anchorKey(account), Version: version}},
		Events: []event.Envelope{{Account: account, At: now, Actor: fleet.System, Event: event.LedgerAnchored{Entries: end.Number, Hash: end.Hash}}},
	}
	if err := put(&b, anchorKey(account), after); err != nil {
		return err
	}
	if _, err := s.o.Store.Commit(ctx, b); err != nil && !errors.Is(err, store.ErrConflict) {
		return store.Fault(fmt.Errorf("tell the end of the ledger: %w", err))
	}
	return nil
}
