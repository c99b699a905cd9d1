package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string) store.Store {
	t.Helper()
	s, err := embedded.Open(embedded.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func commit(t *testing.T, s store.Store, at time.Time, n int) store.Position {
	t.Helper()
	var p store.Position
	for range n {
		var err error
		p, err = s.Commit(t.Context(), store.Batch{Events: []event.Envelope{{At: at, Event: event.ThingDeleted{Thing: "t"}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// recorder remembers the sequences that it was given.
type recorder struct {
	mu       sync.Mutex
	seqs     []uint64
	rebuilds int
	fail     int
}

func (r *recorder) apply(_ context.Context, events []event.Envelope) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail > 0 {
		r.fail--
		return errors.New("not now")
	}
	for _, e := range events {
		r.seqs = append(r.seqs, e.Seq)
	}
	return nil
}

func (r *recorder) gapless(from, to uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if uint64(len(r.seqs)) != to-from+1 {
		return fmt.Errorf("applied %d events, want %d", len(r.seqs), to-from+1)
	}
	for i, seq := range r.seqs {
		if seq != from+uint64(i) {
			return fmt.Errorf("event %d is number %d, want %d", i, seq, from+uint64(i))
		}
	}
	return nil
}

// run drives a consumer until the returned function is called.
func run(t *testing.T, s store.Store, c Consumer) (*Runner, func()) {
	t.Helper()
	r, err := NewRunner(c, Options{Store: s, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return r, stop
}

func wait(t *testing.T, r *Runner, p store.Position) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := r.WaitFor(ctx, p); err != nil {
		t.Fatalf("wait for %v: %v", p, err)
	}
}

func TestProjectionSeesEachEventOnceInOrder(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	last := commit(t, s, time.Now(), 20)
	rec := &recorder{fail: 2}
	r, _ := run(t, s, Consumer{Name: "p", Apply: rec.apply, Rebuild: func(context.Context) (store.Cursor, error) { return store.Cursor{}, nil }})
	wait(t, r, last)
	last = commit(t, s, time.Now(), 30)
	wait(t, r, last)
	if err := rec.gapless(1, 50); err != nil {
		t.Error(err)
	}
	if r.Lag() != 0 {
		t.Errorf("lag %v at the end of the log", r.Lag())
	}
}

func TestProjectionThatFellBehindIsRebuilt(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	commit(t, s, time.Now(), 10)
	rec := &recorder{}
	blocked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r, _ := run(t, s, Consumer{
		Name: "slow",
		Apply: func(ctx context.Context, events []event.Envelope) error {
			once.Do(func() { close(blocked); <-release })
			return rec.apply(ctx, events)
		},
		Rebuild: func(ctx context.Context) (store.Cursor, error) {
			rec.mu.Lock()
			rec.rebuilds++
			first := rec.rebuilds == 1
			rec.seqs = nil
			rec.mu.Unlock()
			if first {
				return store.Cursor{}, nil
			}
			return s.Head(ctx)
		},
	})
	<-blocked
	// While it works on the first ten, more come and are trimmed: more than
	// stay in memory, so that the reader meets the trimmed part.
	events := make([]event.Envelope, 5000)
	for i := range events {
		events[i] = event.Envelope{At: time.Now(), Event: event.ThingDeleted{}}
	}
	for range 5 {
		if _, err := s.Commit(t.Context(), store.Batch{Events: events}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Trim(t.Context(), store.CursorAt(store.Position{Seq: 20_000})); err != nil {
		t.Fatal(err)
	}
	close(release)
	last := commit(t, s, time.Now(), 1)
	wait(t, r, last)
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.rebuilds != 2 {
		t.Errorf("rebuilt %d times, want at start and after the trim", rec.rebuilds)
	}
}

func TestDurableCursorCommitsWithTheWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	count := func() Consumer {
		return Consumer{Name: "d", Durable: func(_ context.Context, events []event.Envelope) (store.Batch, error) {
			var b store.Batch
			for _, e := range events {
				// Expecting absence makes a second application fail for ever.
				key := store.K("seen", fmt.Sprint(e.Seq))
				b.Expect = append(b.Expect, store.Expect{Key: key})
				b.Writes = append(b.Writes, store.Write{Key: key, Value: []byte{1}})
			}
			return b, nil
		}}
	}
	s := open(t, dir)
	last := commit(t, s, time.Now(), 25)
	r, stop := run(t, s, count())
	wait(t, r, last)
	stop()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	last = commit(t, s, time.Now(), 25)
	r, _ = run(t, s, count())
	wait(t, r, last)
	seen := 0
	if err := s.Scan(t.Context(), store.Under("seen"), func(store.Record) error { seen++; return nil }); err != nil {
		t.Fatal(err)
	}
	if seen != 50 {
		t.Errorf("%d events were applied, want 50", seen)
	}
}

func TestRetentionTrimsByAgeAndSize(t *testing.T) {
	t.Parallel()
	now := time.Unix(2_000_000_000, 0)
	s := open(t, t.TempDir())
	commit(t, s, now.Add(-3*time.Hour), 40)
	commit(t, s, now.Add(-time.Minute), 60)
	keep := Retention{Store: s, MaxAge: time.Hour, MaxBytes: 1 << 30, Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler)}
	if err := keep.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if oldest, err := s.Oldest(t.Context()); err != nil || oldest.Seq(0) != 40 {
		t.Errorf("after trimming by age the log begins after %d (%v), want 40", oldest.Seq(0), err)
	}
	stats, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if stats.EventBytes > 0 {
		keep.MaxBytes = stats.EventBytes / 2
		if err := keep.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		if oldest, err := s.Oldest(t.Context()); err != nil || oldest.Seq(0) < 65 || oldest.Seq(0) > 75 {
			t.Errorf("after trimming to half the size the log begins after %d (%v), want about 70", oldest.Seq(0), err)
		}
	}
	if _, _, err := s.Events(t.Context(), store.Cursor{}, 10); err != nil && !errors.Is(err, store.ErrTrimmed) {
		t.Errorf("reading trimmed events: %v", err)
	}
}
