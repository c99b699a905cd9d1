package bulkedit

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// workers is how many things of an edit are under way at a time. The engine
	// joins their commits.
	workers = 16
	// firstPause and longestPause bound the wait before a thing is tried again that
	// met trouble of the server's.
	firstPause   = 100 * time.Millisecond
	longestPause = 30 * time.Second
	// lookEvery is the time between two looks for edits and for what is too old.
	lookEvery = time.Minute
)

// runner is one edit under way in this process.
type runner struct {
	cancel context.CancelFunc
	// gone is closed when nothing of it is under way any more.
	gone chan struct{}
	// mu guards the rest. done counts the pages before, partly the present one.
	mu           sync.Mutex
	done, partly Counts
	began        time.Time
	worked       int
}

// progress is how far it is, and how fast.
func (r *runner) progress(now time.Time) (Counts, float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var perSecond float64
	if spent := now.Sub(r.began).Seconds(); spent > 0 {
		perSecond = float64(r.worked) / spent
	}
	return r.done.plus(r.partly), perSecond
}

// add counts one thing of the present page.
func (r *runner) add(did outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.worked++
	r.partly = r.partly.with(did)
}

// Run works on the edits of all accounts, also on those that a stop or a crash has
// interrupted, and removes finished ones that are too old, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	var under sync.WaitGroup
	defer under.Wait()
	if err := s.clear(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	// To remove an edit of many things takes minutes, in which others begin.
	under.Go(func() { s.tidy(ctx) })
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := s.look(ctx, &under); err != nil && ctx.Err() == nil {
			s.o.Logger.ErrorContext(ctx, "bulk edits are not looked after", slog.Any("err", err))
		}
		select {
		case <-s.wake:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// tidy removes what is too old, until ctx ends.
func (s *Service) tidy(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := s.Trim(ctx); err != nil && ctx.Err() == nil {
			s.o.Logger.ErrorContext(ctx, "old bulk edits are not removed", slog.Any("err", err))
		}
	}
}

// active lists the unfinished edits of all accounts.
func (s *Service) active(ctx context.Context) ([]place, error) {
	var places []place
	err := s.o.Store.Scan(ctx, store.Under(kindActive), func(stored store.Record) error {
		var active activeRecord
		if err := decode(stored, &active); err != nil {
			return err
		}
		for _, id := range active.IDs {
			places = append(places, place{fleet.Account(stored.Key.Last()), id})
		}
		return nil
	})
	return places, store.Fault(err)
}

// clear removes what was being selected when a process died: nobody has an answer
// about it.
func (s *Service) clear(ctx context.Context) error {
	places, err := s.active(ctx)
	if err != nil {
		return err
	}
	for _, at := range places {
		r, _, err := s.find(ctx, at.account, at.id)
		if err != nil {
			return err
		}
		s.mu.Lock()
		begins := s.selecting[at]
		s.mu.Unlock()
		if r.Status == Selecting && !begins {
			if err := s.discard(ctx, at.account, at.id); err != nil {
				return err
			}
		}
	}
	return nil
}

// look starts what should run and does not.
func (s *Service) look(ctx context.Context, under *sync.WaitGroup) error {
	places, err := s.active(ctx)
	if err != nil {
		return err
	}
	for _, at := range places {
		r, _, err := s.find(ctx, at.account, at.id)
		if err != nil {
			return err
		}
		if r.Status != Running {
			continue
		}
		s.start(ctx, under, at, r)
	}
	return nil
}

// start gives an edit a goroutine, unless it has one.
func (s *Service) start(ctx context.Context, under *sync.WaitGroup, at place, r *editRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[at] != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	run := &runner{cancel: cancel, gone: make(chan struct{}), done: r.Done, partly: r.Partly, began: s.o.Now()}
	s.running[at] = run
	under.Go(func() {
		defer cancel()
		err := s.work(ctx, at, run)
		s.mu.Lock()
		delete(s.running, at)
		s.mu.Unlock()
		close(run.gone)
		if err == nil {
			// It may have been resumed before it was gone.
			s.rouse()
		} else if ctx.Err() == nil {
			s.o.Logger.ErrorContext(ctx, "bulk edit is interrupted and goes on later", slog.String("bulk_edit", at.id), slog.Any("err", err))
		}
	})
}

// halt waits until nothing of an edit is under way.
func (s *Service) halt(ctx context.Context, at place) error {
	s.mu.Lock()
	run := s.running[at]
	s.mu.Unlock()
	if run == nil {
		return nil
	}
	run.cancel()
	select {
	case <-run.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work goes through the pages of an edit until it is done or halted.
func (s *Service) work(ctx context.Context, at place, run *runner) error {
	r, _, err := s.find(ctx, at.account, at.id)
	if err != nil {
		return err
	}
	// The things are changed by who started the edit.
	j := &job{s: s, account: at.account, id: at.id, record: r}
	own := rate.NewLimiter(rate.Limit(r.PerSecond), 1)
	for r.Status == Running && r.Page < r.Pages {
		var page pageRecord
		version, err := read(ctx, s.o.Store, pageKey(at.account, at.id, r.Page), &page)
		if err == nil && version == 0 {
			err = s.abandon(ctx, at, "the list of its things is not whole")
		}
		if err != nil {
			return err
		}
		left, err := j.rest(ctx, page.Things, run)
		if err != nil {
			return err
		}
		whole := j.page(ctx, left, own, run)
		if r, err = s.turn(context.WithoutCancel(ctx), at, run, whole); err != nil {
			return err
		}
		if !whole {
			return nil
		}
	}
	return nil
}

// abandon ends an edit that cannot go on.
func (s *Service) abandon(ctx context.Context, at place, reason string) error {
	_, err := s.step(ctx, at.account, at.id, func(r *editRecord) (bool, error) {
		r.Status, r.Reason = Failed, reason
		return true, nil
	})
	if err != nil {
		return err
	}
	return fault.New(fault.Internal, "bulk edit %s: %s", at.id, reason)
}

// turn writes down how far an edit is: at the next page, if this one is whole.
func (s *Service) turn(ctx context.Context, at place, run *runner, whole bool) (*editRecord, error) {
	run.mu.Lock()
	partly := run.partly
	run.mu.Unlock()
	// Not under the lock, which readers wait for: a commit may take long.
	r, err := s.step(ctx, at.account, at.id, func(r *editRecord) (bool, error) {
		r.Partly = partly
		if !whole {
			return true, nil
		}
		r.Done, r.Partly = r.Done.plus(partly), Counts{}
		if r.Page++; r.Page == r.Pages && !r.Status.final() {
			r.Status = Completed
		}
		return true, nil
	})
	if err == nil && whole {
		run.mu.Lock()
		run.done, run.partly = r.Done, Counts{}
		run.mu.Unlock()
	}
	return r, err
}

// rest are the things of a page of which nothing final is written down. The others
// an earlier run has counted and paced, and they are only counted again.
func (j *job) rest(ctx context.Context, things []target, run *runner) ([]target, error) {
	keys := make([]store.Key, 0, 2*len(things))
	for _, t := range things {
		keys = append(keys, changedKey(j.account, j.id, t.Name), failedKey(j.account, j.id, t.Name))
	}
	known, err := j.s.o.Store.GetMany(ctx, keys)
	if err != nil {
		return nil, store.Fault(err)
	}
	left := make([]target, 0, len(things))
	before := Counts{}
	for i, t := range things {
		did, _, err := became(known[2*i], known[2*i+1])
		if err != nil {
			return nil, err
		}
		if did == "" {
			left = append(left, t)
			continue
		}
		before = before.with(did)
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	run.partly = before
	return left, nil
}

// page works on the things of a page with a few workers. It returns false when it
// was halted before the end; what is under way then is finished first.
func (j *job) page(ctx context.Context, things []target, own *rate.Limiter, run *runner) bool {
	queue := make(chan target)
	var group sync.WaitGroup
	var mu sync.Mutex
	whole := true
	for range min(workers, len(things)) {
		group.Go(func() {
			for t := range queue {
				if did, ok := j.thing(ctx, t); ok {
					run.add(did)
					j.s.count.WithLabelValues(string(did)).Inc()
					continue
				}
				mu.Lock()
				whole = false
				mu.Unlock()
			}
		})
	}
	for _, t := range things {
		if own.Wait(ctx) != nil || j.s.pace.Wait(ctx) != nil {
			mu.Lock()
			whole = false
			mu.Unlock()
			break
		}
		queue <- t
	}
	close(queue)
	group.Wait()
	return whole
}

// thing works on one thing until what became of it is durable; false when it was
// halted while the server was in trouble.
func (j *job) thing(ctx context.Context, t target) (outcome, bool) {
	// A change that has begun is brought to its end.
	doing := fleet.WithActor(context.WithoutCancel(ctx), j.record.Actor)
	for wait := firstPause; ; wait = min(2*wait, longestPause) {
		did, err := j.perform(doing, t)
		if err == nil {
			return did, true
		}
		if errors.Is(err, store.ErrClosed) || ctx.Err() != nil {
			return "", false
		}
		j.s.o.Logger.WarnContext(ctx, "bulk edit meets trouble and tries again",
			slog.String("bulk_edit", j.id), slog.String("thing", t.Name), slog.Duration("after", wait), slog.Any("err", err))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return "", false
		}
	}
}
