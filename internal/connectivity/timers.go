package connectivity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// tick is how exactly timers keep their time.
	tick = 200 * time.Millisecond
	// pollEvery is how often devices are looked at whose next sign of life matters.
	pollEvery = time.Second
	// pollAtOnce devices make it a second longer.
	pollAtOnce = 50_000
	// fireBatches bounds the batches of timers that one step acts on.
	fireBatches = 4
	// measureEvery is how often latencies are told.
	measureEvery = time.Minute
	// firstPause and longestPause bound the wait after a failure.
	firstPause   = 50 * time.Millisecond
	longestPause = 5 * time.Second
	// jumpFrom is the difference between wall and steady clock from which the wall
	// clock was set.
	jumpFrom = 2 * time.Second
)

// watched is a connected thing whose next publish changes its state.
type watched struct {
	clientID, connectionID string
	since                  int64
	state                  State
}

// Run takes in declarations, acts on timers and tells latencies until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	select {
	case <-s.opened:
	case <-ctx.Done():
		return nil
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	pause := firstPause
	for {
		select {
		case <-s.line.wake:
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		err := s.step(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			pause = firstPause
			continue
		}
		s.o.Logger.ErrorContext(ctx, "connectivity is retried", slog.Duration("pause", pause), slog.Any("err", err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, longestPause)
	}
}

// Drain takes in what was declared, for an ordered stop.
func (s *Service) Drain(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready {
		return nil
	}
	if err := s.refresh(ctx); err != nil {
		return err
	}
	return s.takeDeclarations(ctx)
}

// step does all that is due, and a bounded number of timers: others want the
// lock too.
func (s *Service) step(ctx context.Context) error {
	var trips []RoundTrips
	elapsed := s.o.Elapsed()
	if elapsed-s.measured >= measureEvery {
		// It is many connections to look at, and nothing of ours.
		s.measured, trips = elapsed, s.o.Sessions.RoundTrips()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(ctx); err != nil {
		return err
	}
	if err := s.lookAtClock(ctx); err != nil {
		return err
	}
	if err := s.takeDeclarations(ctx); err != nil {
		return err
	}
	s.expireEarly()
	if elapsed-s.polled >= pollEvery*time.Duration(1+len(s.watch)/pollAtOnce) {
		s.polled = elapsed
		if err := s.poll(ctx); err != nil {
			return err
		}
	}
	if err := s.fire(ctx); err != nil {
		return err
	}
	if err := s.sweep(ctx); err != nil {
		return err
	}
	return s.measure(ctx, trips)
}

// clock notices when the wall clock is set.
type clock struct {
	wall    time.Time
	elapsed time.Duration
	started time.Duration
	// process tells this process from others: when it began, by the clock of then.
	process int64
	// held is up to when, on the steady clock, the server sent devices away; -1 for
	// never.
	held time.Duration
	// from and to are the wall clock before and after it was set last, in
	// milliseconds; to is 0 for never.
	from, to int64
	// moving are timers that still have the time of the clock before.
	moving []store.Key
}

// start begins to watch.
func (c *clock) start(wall time.Time, elapsed time.Duration) {
	*c = clock{wall: wall.Round(0), elapsed: elapsed, started: elapsed, process: wall.UnixMilli(), held: -1}
}

// base is the time from which waiting counts for what happened at a time: the
// present's clock, when that was set meanwhile.
func (c *clock) base(at, now int64) int64 {
	forward := c.to > c.from && at <= c.from
	back := c.to != 0 && c.to < c.from && at > now
	if forward || back {
		at += c.to - c.from
	}
	return min(at, now)
}

// processOf is what a session carries that began at a time and is told of now.
func (c *clock) processOf(at int64) int64 {
	if at < c.process && c.to == 0 {
		return 0 // it is one of a process before, told late
	}
	return c.process
}

// lookAtClock finds timers to move when the clock was set: waiting is neither
// cut short nor drawn out by it.
func (s *Service) lookAtClock(ctx context.Context) error {
	wall, elapsed := s.o.Now().Round(0), s.o.Elapsed()
	c := &s.clock
	expected := c.wall.Add(elapsed - c.elapsed)
	jump := wall.Sub(expected)
	if s.o.Sessions.Draining() {
		c.held = elapsed
	}
	c.wall, c.elapsed = wall, elapsed
	if jump.Abs() < jumpFrom {
		return nil
	}
	s.o.Logger.WarnContext(ctx, "the clock was set, timers are moved with it", slog.Duration("by", jump))
	if err := s.moveTimers(ctx, jump); err != nil {
		// The next look sees the same difference.
		c.wall = wall.Add(-jump)
		return err
	}
	c.from, c.to = expected.UnixMilli(), wall.UnixMilli()
	for k, w := range s.watch {
		w.since += jump.Milliseconds()
		s.watch[k] = w
	}
	for k := range s.heard {
		s.heard[k] += jump.Milliseconds()
	}
	return nil
}

// moveTimers moves all timers but those that wait for a time that a device named.
// A row says what a timer is due; one that was moved before is left alone.
func (s *Service) moveTimers(ctx context.Context, jump time.Duration) error {
	if len(s.clock.moving) == 0 {
		err := s.store.Scan(ctx, store.Under(kindTimer), func(stored store.Record) error {
			s.clock.moving = append(s.clock.moving, stored.Key)
			return nil
		})
		if err != nil {
			s.clock.moving = nil
			return fmt.Errorf("read timers: %w", err)
		}
	}
	for len(s.clock.moving) > 0 {
		n := min(len(s.clock.moving), batchThings)
		b := s.newBatch()
		timers, err := b.timers(ctx, s.clock.moving[:n])
		if err != nil {
			return err
		}
		for _, t := range timers {
			one := b.slots[t.thingKey]
			if one.record.timer(t.which) != t.due || one.record.State == Sleeping && !one.record.Floating && t.which == timerState {
				continue
			}
			one.record = one.record.clone()
			if t.which == timerFlap {
				one.record.FlapDue += jump.Milliseconds()
				one.record.FlapAt += jump.Milliseconds()
			} else {
				one.record.Due += jump.Milliseconds()
			}
			if one.record.State == Sleeping && one.record.Plan != nil && t.which == timerState {
				moved := *one.record.Plan
				moved.NextContact += jump.Milliseconds()
				one.record.Plan = &moved
			}
		}
		if err := s.commit(ctx, b); err != nil {
			return err
		}
		s.clock.moving = s.clock.moving[n:]
	}
	s.clock.moving = nil
	s.next, s.floor = 0, 0
	return nil
}

// timers reads rows and loads the records that they belong to. A row without
// record goes.
func (b *batch) timers(ctx context.Context, rows []store.Key) ([]timer, error) {
	var all []timer
	var things []thingKey
	for _, row := range rows {
		t, err := timerOf(row)
		if err != nil {
			return nil, err
		}
		all, things = append(all, t), append(things, t.thingKey)
	}
	if err := b.load(ctx, things...); err != nil {
		return nil, err
	}
	kept := all[:0]
	for _, t := range all {
		if b.slots[t.thingKey].record == nil {
			b.writes = append(b.writes, store.Write{Key: timerKey(t.due, t.thingKey, t.which), Delete: true})
			continue
		}
		kept = append(kept, t)
	}
	return kept, nil
}

// grace is until when, on the wall clock, nobody is declared offline: twice the
// longest keep-alive of the account after the start of the server, for those
// whose sessions the start has ended, and after it stopped to send its devices
// away, for all.
type grace struct {
	// process is what sessions of this process carry, started when it began, held
	// when devices were last sent away, 0 for never.
	process, started, held int64
	// lasts is how long it is for each account.
	lasts map[fleet.Account]int64
}

// grace looks at the clock and at what was connected.
func (s *Service) grace(now int64) grace {
	elapsed := s.o.Elapsed()
	g := grace{process: s.clock.process, started: now - (elapsed - s.clock.started).Milliseconds(), lasts: map[fleet.Account]int64{}}
	if s.clock.held >= 0 {
		g.held = now - (elapsed - s.clock.held).Milliseconds()
	}
	for account, c := range s.counts {
		for keepAlive := range c.KeepAlives {
			g.lasts[account] = max(g.lasts[account], 2000*int64(keepAlive))
		}
	}
	return g
}

// of is the grace of one session.
func (g *grace) of(account fleet.Account, r *record) int64 {
	var until int64
	if g.held != 0 {
		until = g.held + g.lasts[account]
	}
	if r.Session.Process != g.process {
		until = max(until, g.started+g.lasts[account])
	}
	return until
}

// fire acts on the timers that are due, batch by batch. What is left is for the
// next step, which comes at once.
func (s *Service) fire(ctx context.Context) error {
	for range fireBatches {
		now := s.now()
		if now < s.next {
			return nil
		}
		var rows []store.Key
		err := s.store.Scan(ctx, timersBetween(s.floor, now), func(stored store.Record) error {
			rows = append(rows, stored.Key)
			if len(rows) == batchThings {
				return store.Stop
			}
			return nil
		})
		if err != nil && !errors.Is(err, store.Stop) {
			return fmt.Errorf("read timers: %w", err)
		}
		if len(rows) == 0 {
			return s.findNext(ctx, now)
		}
		b := s.newBatch()
		timers, err := b.timers(ctx, rows)
		if err != nil {
			return err
		}
		spared := s.grace(now)
		for _, t := range timers {
			if err := s.fireOne(ctx, b, t, &spared); err != nil {
				return err
			}
		}
		if err := s.commit(ctx, b); err != nil {
			return err
		}
	}
	s.line.again()
	return nil
}

// findNext looks when the next timer is due.
func (s *Service) findNext(ctx context.Context, now int64) error {
	next := int64(math.MaxInt64)
	within := store.Under(kindTimer)
	within.From = timersBetween(0, now).To
	err := s.store.Scan(ctx, within, func(stored store.Record) error {
		t, err := timerOf(stored.Key)
		next = t.due
		return errors.Join(err, store.Stop)
	})
	if err != nil && !errors.Is(err, store.Stop) {
		return fmt.Errorf("read timers: %w", err)
	}
	s.next, s.floor = next, now
	return nil
}

// fireOne acts on one timer, after a look at the thing's live connection.
func (s *Service) fireOne(ctx context.Context, b *batch, t timer, spared *grace) error {
	r := b.slots[t.thingKey].record
	if r.timer(t.which) != t.due {
		b.writes = append(b.writes, store.Write{Key: timerKey(t.due, t.thingKey, t.which), Delete: true})
		b.ignored[ignoredTimer]++
		return nil
	}
	in := &input{
		kind: inTimer, at: b.now, due: t.due, hold: spared.of(t.account, r), listening: spared.started,
		begun: s.clock.base(r.Session.ConnectedAt, b.now),
	}
	if t.which == timerFlap {
		in.kind = inFlapTimer
	}
	if r.Session.ClientID != "" {
		if activity, ok := s.o.Sessions.Activity(t.account, r.Session.ClientID); ok {
			in.live = true
			if !activity.LastPublish.IsZero() && activity.ConnectionID == r.Session.ConnectionID {
				in.heard = activity.LastPublish.UnixMilli()
			}
		}
	} else {
		in.heard = s.heard[t.thingKey]
	}
	_, err := b.decide(ctx, t.thingKey, in)
	return err
}

// poll looks for signs of life of the things that are watched.
func (s *Service) poll(ctx context.Context) error {
	heard := map[thingKey]*input{}
	var things []thingKey
	for k, w := range s.watch {
		activity, ok := s.o.Sessions.Activity(k.account, w.clientID)
		if !ok || activity.ConnectionID != w.connectionID || activity.LastPublish.IsZero() {
			continue
		}
		at := activity.LastPublish.UnixMilli()
		if w.state == Stale && at < w.since+shortestSilence.Milliseconds()/2 {
			continue // that was before the silence
		}
		things = append(things, k)
		heard[k] = &input{kind: inHeard, at: at, session: session{ConnectionID: w.connectionID}}
	}
	for len(things) > 0 {
		n := min(len(things), batchThings)
		b := s.newBatch()
		if err := b.load(ctx, things[:n]...); err != nil {
			return err
		}
		for _, k := range things[:n] {
			in := heard[k]
			in.at = min(in.at, b.now)
			if _, err := b.decide(ctx, k, in); err != nil {
				return err
			}
		}
		if err := s.commit(ctx, b); err != nil {
			return err
		}
		things = things[n:]
	}
	return nil
}
