// Package eventlog runs the consumers of the store's event log. Each consumer
// follows by its own cursor, in batches, at its own pace; one that fell behind
// retention is rebuilt from the store and goes on from there. It knows events
// as envelopes only and decides nothing about them.
//
// Goroutines: none of its own. Run and Retention.Run block until their context
// ends; the composition starts each in a goroutine.
package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// batchEvents bounds what a consumer is handed at once.
	batchEvents = 1000
	// firstPause and longestPause bound the wait after an error.
	firstPause   = 50 * time.Millisecond
	longestPause = 5 * time.Second
	// saveEvery bounds how long a durable cursor rests while a consumer meets
	// only events that it has nothing to write about.
	saveEvery = 10 * time.Second
)

// Consumer is a projection or a reaction. Set either Apply, for a projection
// in memory, or Durable, for one whose writes and cursor commit together.
type Consumer struct {
	// Name is stable: it names the durable cursor and the metrics.
	Name string
	// Apply takes events in order. After an error the same events come again,
	// so it must be idempotent by sequence.
	Apply func(ctx context.Context, events []event.Envelope) error
	// Durable turns events into a batch; the runner adds the cursor to it and
	// commits. Events may come again after an error or a crash before the
	// commit, never after it. An empty batch says that the events do not
	// matter: they may come again after a restart, since a cursor is not worth
	// a commit of its own more often than every ten seconds.
	Durable func(ctx context.Context, events []event.Envelope) (store.Batch, error)
	// Restore begins an Apply consumer with a state that was kept elsewhere, and
	// returns its cursor: the log is followed from there. It is tried once, at
	// start; an error that is not the context's leaves it to Rebuild.
	Restore func(ctx context.Context) (store.Cursor, error)
	// Rebuild brings the consumer to a state of the store and returns that
	// state's cursor. For a projection in memory it runs at start; for both it
	// runs when the log was trimmed past the consumer, which for a Durable one
	// includes its first start on a log that was trimmed. Without it an Apply
	// consumer starts at the end of the log, a Durable one at the beginning of
	// what is kept.
	Rebuild func(ctx context.Context) (store.Cursor, error)
}

// Options of a Runner.
type Options struct {
	Store  store.Store
	Now    func() time.Time
	Logger *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Runner drives one consumer.
type Runner struct {
	// restored says that Restore was tried; only Run touches it.
	restored bool
	consumer Consumer
	store    store.Store
	now      func() time.Time
	log      *slog.Logger
	applied  prometheus.Counter
	rebuilt  prometheus.Counter

	// behindSince is the time, in Unix nanoseconds, of the oldest event that
	// was read and is not applied; 0 when there is none.
	behindSince atomic.Int64

	// saved is when the durable cursor was last written; it belongs to Run.
	saved time.Time

	mu      sync.Mutex
	cursor  store.Cursor
	ready   bool
	changed chan struct{}
}

// NewRunner prepares a consumer; Run starts it.
func NewRunner(c Consumer, o Options) (*Runner, error) {
	if c.Name == "" || (c.Apply == nil) == (c.Durable == nil) {
		return nil, errors.New("a consumer needs a name and exactly one of Apply and Durable")
	}
	r := &Runner{
		consumer: c, store: o.Store, now: o.Now, log: o.Logger.With(slog.String("consumer", c.Name)), changed: make(chan struct{}),
		applied: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_eventlog_applied_total", Help: "Events applied by a consumer.", ConstLabels: prometheus.Labels{"consumer": c.Name},
		}),
		rebuilt: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_eventlog_rebuilds_total", Help: "Rebuilds of a consumer from the store.", ConstLabels: prometheus.Labels{"consumer": c.Name},
		}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(r.applied, r.rebuilt)
	}
	return r, nil
}

// Run follows the log until ctx ends, which is no error. Everything else is
// retried.
func (r *Runner) Run(ctx context.Context) error {
	pause := firstPause
	started := false
	for {
		before := r.Applied()
		err := r.follow(ctx, &started)
		if ctx.Err() != nil {
			return nil
		}
		if !before.CoversAll(r.Applied()) {
			// It came on in between: the error is a new one.
			pause = firstPause
		}
		if errors.Is(err, store.ErrTrimmed) {
			r.log.WarnContext(ctx, "consumer fell behind the kept events and is rebuilt")
			started = false
			if r.consumer.Durable != nil {
				err = r.restart(ctx)
			} else {
				err = nil
			}
			if err == nil {
				continue
			}
		}
		if r.consumer.Durable != nil {
			// Another process may have moved the cursor: it is read again.
			started = false
		}
		r.log.ErrorContext(ctx, "consumer is retried", slog.Duration("pause", pause), slog.Any("err", err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, longestPause)
	}
}

// follow begins if need be and applies until something fails; its error is
// never nil.
func (r *Runner) follow(ctx context.Context, started *bool) error {
	if !*started {
		if err := r.begin(ctx); err != nil {
			return err
		}
		*started = true
	}
	for {
		if err := r.step(ctx); err != nil {
			return err
		}
	}
}

// begin finds the first cursor.
func (r *Runner) begin(ctx context.Context) error {
	var cursor store.Cursor
	var err error
	switch {
	case r.consumer.Durable != nil:
		cursor, err = r.load(ctx)
	case r.consumer.Restore != nil && !r.restored:
		r.restored = true
		if cursor, err = r.consumer.Restore(ctx); err == nil || ctx.Err() != nil {
			break
		}
		r.log.InfoContext(ctx, "projection is not restored but rebuilt", slog.Any("reason", err))
		return r.begin(ctx)
	case r.consumer.Rebuild != nil:
		started := r.now()
		r.rebuilt.Inc()
		if cursor, err = r.consumer.Rebuild(ctx); err == nil {
			r.log.InfoContext(ctx, "projection rebuilt", slog.Duration("took", r.now().Sub(started)))
		}
	default:
		cursor, err = r.store.Head(ctx)
	}
	if err != nil {
		return fmt.Errorf("start consumer: %w", err)
	}
	r.set(cursor)
	return nil
}

// step waits for events and applies one batch.
func (r *Runner) step(ctx context.Context) error {
	cursor := r.Applied()
	if err := r.store.Wait(ctx, cursor); err != nil {
		return fmt.Errorf("wait for events: %w", err)
	}
	events, next, err := r.store.Events(ctx, cursor, batchEvents)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	if len(events) == 0 {
		return nil
	}
	r.behindSince.CompareAndSwap(0, events[0].At.UnixNano())
	if r.consumer.Durable != nil {
		err = r.commit(ctx, events, next)
	} else {
		err = r.consumer.Apply(ctx, events)
	}
	if err != nil {
		return fmt.Errorf("apply events: %w", err)
	}
	r.behindSince.Store(0)
	r.applied.Add(float64(len(events)))
	r.set(next)
	return nil
}

// cursorKey is where a durable consumer's cursor is kept.
func (r *Runner) cursorKey() store.Key { return store.K("cursor", r.consumer.Name) }

func (r *Runner) load(ctx context.Context) (store.Cursor, error) {
	record, err := r.store.Get(ctx, r.cursorKey())
	if err == nil {
		return store.ParseCursor(string(record.Value))
	}
	if !errors.Is(err, store.ErrNotFound) {
		return store.Cursor{}, err
	}
	oldest, err := r.store.Oldest(ctx)
	if err == nil && r.consumer.Rebuild != nil && !(store.Cursor{}).CoversAll(oldest) {
		return store.Cursor{}, store.ErrTrimmed
	}
	return oldest, err
}

// commit applies a batch and moves the durable cursor with it. The expectation
// on the cursor keeps two processes from applying the same events.
func (r *Runner) commit(ctx context.Context, events []event.Envelope, next store.Cursor) error {
	b, err := r.consumer.Durable(ctx, events)
	if err != nil {
		return err
	}
	empty := len(b.Expect) == 0 && len(b.Writes) == 0 && len(b.Events) == 0
	if now := r.now(); !empty || now.Sub(r.saved) >= saveEvery {
		if err := r.save(ctx, b, next); err != nil {
			return err
		}
		r.saved = now
	}
	return nil
}

func (r *Runner) save(ctx context.Context, b store.Batch, next store.Cursor) error {
	key := r.cursorKey()
	record, err := r.store.Get(ctx, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err == nil {
		if stored, err := store.ParseCursor(string(record.Value)); err != nil || !r.Applied().CoversAll(stored) {
			return errors.Join(errors.New("another process has moved the cursor"), err)
		}
	}
	b.Expect = append(b.Expect, store.Expect{Key: key, Version: record.Version})
	b.Writes = append(b.Writes, store.Write{Key: key, Value: []byte(next.String())})
	_, err = r.store.Commit(ctx, b)
	return err
}

// restart brings a durable consumer past trimmed events.
func (r *Runner) restart(ctx context.Context) error {
	cursor, err := r.store.Oldest(ctx)
	if err == nil && r.consumer.Rebuild != nil {
		r.rebuilt.Inc()
		cursor, err = r.consumer.Rebuild(ctx)
	}
	if err != nil {
		return err
	}
	return r.save(ctx, store.Batch{}, cursor)
}

func (r *Runner) set(cursor store.Cursor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cursor, r.ready = cursor, true
	close(r.changed)
	r.changed = make(chan struct{})
}

// Applied is how far the consumer has come.
func (r *Runner) Applied() store.Cursor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cursor
}

// Ready reports whether the consumer has begun: its rebuild is done.
func (r *Runner) Ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready
}

// WaitFor blocks until the consumer has applied the position, or ctx ends.
func (r *Runner) WaitFor(ctx context.Context, p store.Position) error {
	return r.WaitCovered(ctx, store.CursorAt(p))
}

// WaitCovered blocks until the consumer has applied all that the cursor
// covers, or ctx ends.
func (r *Runner) WaitCovered(ctx context.Context, cursor store.Cursor) error {
	for {
		r.mu.Lock()
		done, changed := r.ready && r.cursor.CoversAll(cursor), r.changed
		r.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Lag is the age of the oldest event that was read and not yet applied; 0 when
// the consumer keeps up. It is cheap enough for a hot path.
func (r *Runner) Lag() time.Duration {
	since := r.behindSince.Load()
	if since == 0 {
		return 0
	}
	return max(0, r.now().Sub(time.Unix(0, since)))
}
