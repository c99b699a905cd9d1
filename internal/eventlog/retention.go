package eventlog

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/muster-iot/muster/internal/store"
)

// Retention trims the log by age and size. It never waits for a consumer: one
// that falls behind is rebuilt.
type Retention struct {
	Store store.Store
	// MaxAge and MaxBytes are the limits; the first one reached trims.
	MaxAge   time.Duration
	MaxBytes uint64
	// Every is the time between two looks.
	Every  time.Duration
	Now    func() time.Time
	Logger *slog.Logger
}

// Run trims until ctx ends.
func (t Retention) Run(ctx context.Context) error {
	tick := time.NewTicker(t.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := t.Trim(ctx); err != nil && ctx.Err() == nil {
				t.Logger.ErrorContext(ctx, "event log is not trimmed", slog.Any("err", err))
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Trim removes what is too old or too much, once.
func (t Retention) Trim(ctx context.Context) error {
	stats, err := t.Store.Stats(ctx)
	if err != nil {
		return fmt.Errorf("measure the event log: %w", err)
	}
	oldest, err := t.Store.Oldest(ctx)
	if err != nil {
		return fmt.Errorf("measure the event log: %w", err)
	}
	upTo := oldest
	if stats.EventBytes > t.MaxBytes && stats.Events > 0 {
		// Events are of about one size, so the surplus share of bytes is
		// about the surplus share of events.
		surplus := float64(stats.EventBytes-t.MaxBytes) / float64(stats.EventBytes)
		upTo = upTo.Advance(store.Position{Seq: oldest.Seq(0) + uint64(surplus*float64(stats.Events)) + 1})
	}
	aged, err := t.aged(ctx, upTo)
	if err != nil {
		return err
	}
	if aged.Seq(0) == oldest.Seq(0) {
		return nil
	}
	if err := t.Store.Trim(ctx, aged); err != nil {
		return fmt.Errorf("trim the event log: %w", err)
	}
	t.Logger.InfoContext(ctx, "event log trimmed", slog.String("up_to", aged.String()), slog.Uint64("events", aged.Seq(0)-oldest.Seq(0)))
	return nil
}

// aged moves the cursor over events that are too old: it halves the interval,
// so that it reads few events of a long log.
func (t Retention) aged(ctx context.Context, from store.Cursor) (store.Cursor, error) {
	limit := t.Now().Add(-t.MaxAge)
	head, err := t.Store.Head(ctx)
	if err != nil {
		return from, fmt.Errorf("measure the event log: %w", err)
	}
	low, high := from.Seq(0), head.Seq(0)
	for low < high {
		middle := low + (high-low)/2
		events, _, err := t.Store.Events(ctx, store.CursorAt(store.Position{Seq: middle}), 1)
		if err != nil {
			return from, fmt.Errorf("read events: %w", err)
		}
		if len(events) == 1 && events[0].At.Before(limit) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return from.Advance(store.Position{Seq: low}), nil
}
