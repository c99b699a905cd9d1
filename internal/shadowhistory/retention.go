package shadowhistory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// trimEvery is the time between two looks.
	trimEvery = time.Minute
	// trimBatch is how many segments go in one commit.
	trimBatch = 50
)

// Run removes segments that are too old or too many until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		if err := s.Trim(ctx); err != nil && ctx.Err() == nil {
			s.o.Logger.ErrorContext(ctx, "shadow history is not trimmed", slog.Any("err", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Trim removes what is too old or too much, once, in small commits: of each
// account the segments that began first, whichever shadow they are of.
func (s *Service) Trim(ctx context.Context) error {
	var accounts []fleet.Account
	err := s.store.Scan(ctx, store.Under(kindSize), func(stored store.Record) error {
		accounts = append(accounts, fleet.Account(stored.Key.Last()))
		return nil
	})
	if err != nil {
		return fmt.Errorf("trim shadow history: %w", err)
	}
	until := millis(s.o.Now())
	for _, account := range accounts {
		removed := uint64(0)
		for {
			n, more, err := s.trim(ctx, account, until)
			if errors.Is(err, store.ErrConflict) {
				// The consumer removed a segment at the same time.
				continue
			}
			if err != nil {
				return fmt.Errorf("trim shadow history of %s: %w", account, err)
			}
			if removed += n; !more {
				break
			}
		}
		if removed > 0 {
			s.o.Logger.InfoContext(ctx, "shadow history trimmed", slog.String("account", string(account)), slog.Uint64("entries", removed))
		}
	}
	return nil
}

// trim removes up to a batch of one account's segments, of those that began
// before a time; more says that it filled the batch.
func (s *Service) trim(ctx context.Context, account fleet.Account, until int64) (removed uint64, more bool, err error) {
	filed, err := readTotal(ctx, s.store, kindSize, account)
	if err != nil {
		return 0, false, err
	}
	gone, err := readTotal(ctx, s.store, kindTrimmed, account)
	if err != nil {
		return 0, false, err
	}
	var rows []timeRow
	err = s.store.Scan(ctx, store.Under(kindTime, string(account)), func(stored store.Record) error {
		row, err := parseTime(stored.Key)
		if rows = append(rows, row); err == nil && len(rows) == trimBatch {
			return store.Stop
		}
		return err
	})
	if err != nil {
		return 0, false, fmt.Errorf("read shadow history: %w", err)
	}
	oldest := int64(math.MinInt64)
	if s.o.Age > 0 {
		oldest = millis(s.o.Now().Add(-s.o.Age - shadow.BaseSpan))
	}
	var b store.Batch
	removing := map[subject]uint64{}
	before, segments := gone.Entries, 0
	for _, row := range rows {
		if row.at >= until || row.at >= oldest && (s.o.Bytes == 0 || kept(filed, gone) <= s.o.Bytes) {
			break
		}
		entries, bytes, err := s.trimSegment(ctx, &b, row, removing)
		if err != nil {
			return 0, false, err
		}
		gone.Entries += entries
		gone.Bytes += bytes
		segments++
	}
	s.bytes.WithLabelValues(string(account)).Set(float64(kept(filed, gone)))
	if segments == 0 {
		return 0, false, nil
	}
	if err := writeTotal(&b, kindTrimmed, account, gone); err != nil {
		return 0, false, err
	}
	if _, err := s.store.Commit(ctx, b); err != nil {
		return 0, false, fmt.Errorf("remove versions: %w", err)
	}
	removed = gone.Entries - before
	s.trimmed.Add(float64(removed))
	return removed, segments == trimBatch, nil
}

// trimSegment removes the segment behind a row by time; removing says up to where
// the batch removes entries of a shadow already.
func (s *Service) trimSegment(ctx context.Context, b *store.Batch, row timeRow, removing map[subject]uint64) (entries, bytes uint64, err error) {
	stored, err := s.store.Get(ctx, row.segment(row.seq))
	if err != nil {
		return 0, 0, fmt.Errorf("read segment of %s: %w", row.thing, err)
	}
	stored.Key = row.segment(row.seq)
	seg, err := decodeSegment(stored)
	if err != nil {
		return 0, 0, err
	}
	next := uint64(math.MaxUint64)
	err = s.store.Scan(ctx, row.segments().After(stored.Key), func(stored store.Record) error {
		if next, err = seqOfSegment(stored.Key); err != nil {
			return err
		}
		return store.Stop
	})
	if err != nil {
		return 0, 0, fmt.Errorf("read shadow history: %w", err)
	}
	since := removing[row.subject]
	if since >= next {
		// The clock went back between the two: what there was is removed already.
		next = since
	}
	entries, bytes, err = s.remove(ctx, b, row.subject, seg, since, next)
	removing[row.subject] = next
	if now := millis(s.o.Now()); err == nil && next == math.MaxUint64 && now-seg.At < shadow.BaseSpan.Milliseconds() {
		// It goes on: what follows begins a segment without a document, to be found
		// by the next look.
		mark := segment{Version: seg.Version, At: now}
		for _, w := range []store.Write{{Key: seg.key, Value: mark.encode()}, {Key: row.time(now, seg.seq), Value: []byte("1")}} {
			b.Writes = append(b.Writes, w)
			bytes -= min(bytes, uint64(len(w.Key)+len(w.Value)))
		}
	}
	return entries, bytes, err
}
