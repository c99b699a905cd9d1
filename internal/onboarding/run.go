package onboarding

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// sweepEvery is how exactly exit criteria keep their times, countEvery how old
	// the metric of stuck devices may be.
	sweepEvery = time.Second
	countEvery = 30 * time.Second
	// sweepBatch bounds the devices of one sweep; the rest is the next one's.
	sweepBatch = 256
)

// Run looks after exit criteria and counts stuck devices until ctx ends, which is
// no error.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var counted time.Time
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.o.Logger.ErrorContext(ctx, "exit criteria are looked at again", slog.Any("err", err))
		}
		if now := s.o.Now(); now.Sub(counted) >= countEvery {
			counted = now
			if err := s.count(ctx); err != nil && ctx.Err() == nil {
				s.o.Logger.ErrorContext(ctx, "stuck devices are not counted", slog.Any("err", err))
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// until visits the rows of a kind, whose third part is a time, in all accounts as
// far as that time has come.
func (s *Service) until(ctx context.Context, kind string, fn func(store.Key) error) error {
	now := rising(s.o.Now().UnixMilli())
	within := store.Under(kind)
	for {
		over := true
		err := s.o.Store.Scan(ctx, within, func(row store.Record) error {
			parts := row.Key.Parts()
			if parts[2] > now {
				// The rest of the account has time yet.
				within.From, over = store.Under(kind, parts[1]).To, false
				return store.Stop
			}
			return fn(row.Key)
		})
		if err != nil || over {
			return store.Fault(err)
		}
	}
}

// Sweep looks at the exit criteria whose time has come. A device that cannot be
// judged, since the index is being built, does not hold up the others, and is
// judged later.
func (s *Service) Sweep(ctx context.Context) error {
	var due []place
	err := s.until(ctx, kindLook, func(k store.Key) error {
		if due = append(due, placeIn(k)); len(due) == sweepBatch {
			return store.Stop
		}
		return nil
	})
	if err != nil {
		return err
	}
	var failures []error
	for _, at := range due {
		if err := s.judge(ctx, at); err != nil {
			if ctx.Err() != nil {
				return err
			}
			failures = append(failures, fmt.Errorf("exit criteria of device %s: %w", at.key, err))
		}
	}
	return errors.Join(failures...)
}

// judge decides the exit criteria of one device as far as possible.
func (s *Service) judge(ctx context.Context, at place) error {
	return s.change(ctx, func(a *attempt) error {
		one, err := a.load(ctx, at)
		now := s.o.Now()
		if err != nil || one.now == nil || one.now.Look == 0 || one.now.Look > now.UnixMilli() {
			return err
		}
		held := map[string]bool{}
		for i := range one.now.Criteria {
			c := &one.now.Criteria[i]
			if _, asked := held[c.Predicate]; asked || !c.open() || c.Metadata || one.now.Thing == "" {
				continue // a device without a thing is in no index: nothing holds
			}
			held[c.Predicate], err = s.o.Holds(ctx, at.account, one.now.Thing, c.Predicate)
			switch fault.CodeOf(err) { //nolint:exhaustive // the others are about the query, which cannot hold then
			case fault.IndexNotReady, fault.Unavailable, fault.Throttling, fault.Internal:
				return err
			}
		}
		return a.act(ctx, one, fleet.System, now, func(l *life) error {
			l.judge(func(predicate string) bool { return held[predicate] })
			return nil
		})
	})
}

// count sets the metric of stuck devices.
func (s *Service) count(ctx context.Context) error {
	type label struct{ account, stage string }
	counts := map[label]int{}
	err := s.until(ctx, kindLimit, func(k store.Key) error {
		parts := k.Parts()
		counts[label{parts[1], parts[3]}]++
		return nil
	})
	if err != nil {
		return err
	}
	s.stuck.Reset()
	for l, n := range counts {
		s.stuck.WithLabelValues(l.account, l.stage).Set(float64(n))
	}
	return nil
}
