package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

// marker is a durable consumer that notes each event under its own key, once:
// a second application of an event would fail for ever.
func marker(_ context.Context, events []event.Envelope) (store.Batch, error) {
	var b store.Batch
	for _, e := range events {
		key := store.K("seen", fmt.Sprint(e.Seq))
		b.Expect = append(b.Expect, store.Expect{Key: key})
		b.Writes = append(b.Writes, store.Write{Key: key, Value: []byte{1}})
	}
	return b, nil
}

// seen counts what marker noted.
func seen(t *testing.T, s store.Store) int {
	t.Helper()
	n := 0
	if err := s.Scan(t.Context(), store.Under("seen"), func(store.Record) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTwoRunnersOfOneDurableConsumer: nodes that run the same consumer share
// its cursor. Each event is applied once, and one goes on when the other ends.
func TestTwoRunnersOfOneDurableConsumer(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	first, stopFirst := run(t, s, Consumer{Name: "d", Durable: marker})
	second, _ := run(t, s, Consumer{Name: "d", Durable: marker})
	for range 10 {
		commit(t, s, time.Now(), 5)
	}
	head, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := store.Position{Seq: head.Seq(0)}
	wait(t, first, p)
	wait(t, second, p)
	stopFirst()
	wait(t, second, commit(t, s, time.Now(), 5))
	if n := seen(t, s); n != 55 {
		t.Errorf("%d events were applied, want 55", n)
	}
}

// TestDurableConsumerThatFellBehindIsRebuilt: retention does not wait for it.
func TestDurableConsumerThatFellBehindIsRebuilt(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	r, stop := run(t, s, Consumer{Name: "d", Durable: marker})
	wait(t, r, commit(t, s, time.Now(), 5))
	stop()
	commit(t, s, time.Now(), 20)
	if err := s.Trim(t.Context(), store.CursorAt(store.Position{Seq: 15})); err != nil {
		t.Fatal(err)
	}
	rebuilt := make(chan struct{}, 8)
	r, _ = run(t, s, Consumer{Name: "d", Durable: marker, Rebuild: func(ctx context.Context) (store.Cursor, error) {
		rebuilt <- struct{}{}
		return s.Oldest(ctx)
	}})
	wait(t, r, commit(t, s, time.Now(), 1))
	if len(rebuilt) != 1 {
		t.Errorf("rebuilt %d times, want once", len(rebuilt))
	}
	if n := seen(t, s); n != 5+11 {
		t.Errorf("%d events were applied, want the first 5 and the last 11", n)
	}
	record, err := s.Get(t.Context(), store.K("cursor", "d"))
	if err != nil || string(record.Value) != "0:26" {
		t.Errorf("durable cursor is %q, %v; want 0:26", record.Value, err)
	}
}

func TestRunnerRefusesAnIncompleteConsumer(t *testing.T) {
	t.Parallel()
	apply := func(context.Context, []event.Envelope) error { return nil }
	for name, c := range map[string]Consumer{
		"no name":   {Apply: apply},
		"nothing":   {Name: "x"},
		"two kinds": {Name: "x", Apply: apply, Durable: marker},
	} {
		if _, err := NewRunner(c, Options{Logger: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestWaitForEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	r, _ := run(t, s, Consumer{Name: "d", Durable: marker})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := r.WaitFor(ctx, store.Position{Seq: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for an event that does not come: %v", err)
	}
}

// TestEventsThatDoNotMatterMoveTheCursorSeldom: a consumer with nothing to
// write costs no commit for each event, and its cursor still goes on.
func TestEventsThatDoNotMatterMoveTheCursorSeldom(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	var clock atomic.Int64
	r, err := NewRunner(Consumer{Name: "d", Durable: func(context.Context, []event.Envelope) (store.Batch, error) {
		return store.Batch{}, nil
	}}, Options{Store: s, Now: func() time.Time { return time.Unix(clock.Load(), 0) }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	defer func() {
		cancel()
		<-done
	}()
	for _, step := range []struct {
		at   int64
		want string
	}{{100, "0:1"}, {105, "0:1"}, {109, "0:1"}, {110, "0:4"}} {
		clock.Store(step.at)
		wait(t, r, commit(t, s, time.Now(), 1))
		record, err := s.Get(t.Context(), store.K("cursor", "d"))
		if err != nil || string(record.Value) != step.want {
			t.Errorf("at %d the durable cursor is %q, %v; want %s", step.at, record.Value, err, step.want)
		}
	}
}

// TestDurableConsumerThatIsNewOnATrimmedLogIsRebuilt: it cannot know what was
// told before.
func TestDurableConsumerThatIsNewOnATrimmedLogIsRebuilt(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	commit(t, s, time.Now(), 20)
	if err := s.Trim(t.Context(), store.CursorAt(store.Position{Seq: 15})); err != nil {
		t.Fatal(err)
	}
	rebuilt := make(chan struct{}, 8)
	r, _ := run(t, s, Consumer{Name: "d", Durable: marker, Rebuild: func(ctx context.Context) (store.Cursor, error) {
		rebuilt <- struct{}{}
		return s.Oldest(ctx)
	}})
	wait(t, r, commit(t, s, time.Now(), 1))
	if n := seen(t, s); len(rebuilt) != 1 || n != 6 {
		t.Errorf("rebuilt %d times and applied %d events, want 1 and 6", len(rebuilt), n)
	}
}
