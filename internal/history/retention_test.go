package history

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

// Of too many bytes those go that ended first, whichever client they are of,
// in several commits; open connections stay, however old.
func TestTrimBySizeTakesTheOldestOfAllClients(t *testing.T) {
	t.Parallel()
	f := newFixture(t, inMemory(t))
	start := f.now
	f.tell(envelope(start, event.DeviceConnected{Session: session("old", "o", 0)}))
	const n = 3 * trimBatch / 2
	for i := range n {
		at := start.Add(time.Duration(i) * time.Second)
		s := session(fmt.Sprint("c", i%7), fmt.Sprint("s", i), int64(i))
		f.tell(envelope(at, event.DeviceConnected{Session: s}), envelope(at.Add(time.Millisecond), event.DeviceDisconnected{Session: s, Reason: "CONNECTION_LOST"}))
	}
	f.follow(1000)
	f.now = start.Add(time.Hour)
	filed, err := readTotal(t.Context(), f.store, kindSize, account)
	if err != nil || filed.Entries != n {
		t.Fatalf("filed %+v, %v; want %d", filed, err, n)
	}
	const keep = 100
	f.o.RetentionBytes = filed.Bytes / n * keep
	if err := f.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := 0
	for i := range 7 {
		page, err := f.OfClient(t.Context(), account, fmt.Sprint("c", i), Query{Limit: MaxPage})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range page.Connections {
			left++
			if c.Version < n-keep-1 {
				t.Errorf("%s is left", line(c))
			}
		}
	}
	if left > keep || left < keep-1 {
		t.Errorf("%d are left, want %d", left, keep)
	}
	page, err := f.OfClient(t.Context(), account, "old", Query{Limit: 1})
	if err != nil || len(page.Connections) != 1 {
		t.Errorf("the open connection: %v, %v", page, err)
	}
	if _, err := f.ConnectedAt(t.Context(), account, FleetQuery{At: start.Add(time.Second), Limit: 1}); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("a moment that was trimmed: %v", err)
	}
}

// An entry goes when its end is longer ago than the age allows, not before.
func TestTrimByAge(t *testing.T) {
	t.Parallel()
	f := newFixture(t, inMemory(t))
	start := f.now
	s := session("pump", "s", 0)
	f.tell(envelope(start, event.DeviceConnected{Session: s}), envelope(start.Add(time.Second), event.DeviceDisconnected{Session: s, Reason: "CONNECTION_LOST"}))
	f.follow(10)
	for _, c := range []struct {
		passed time.Duration
		want   int
	}{{24 * time.Hour, 1}, {24*time.Hour + time.Second, 1}, {24*time.Hour + 1001*time.Millisecond, 0}} {
		f.now = start.Add(c.passed)
		err := f.Trim(t.Context())
		page, errPage := f.OfThing(t.Context(), account, "pump", Query{Limit: 1})
		if err = errors.Join(err, errPage); err != nil || len(page.Connections) != c.want {
			t.Errorf("after %v %d are left, %v; want %d", c.passed, len(page.Connections), err, c.want)
		}
	}
}

// looking is a store that only tells when it is looked through.
type looking struct {
	store.Store
	at chan time.Time
}

func (l *looking) Scan(context.Context, store.Range, func(store.Record) error) error {
	l.at <- time.Now()
	return nil
}

// Run looks at once and then every minute.
func TestRunLooksEveryMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun, at := time.Now(), make(chan time.Time)
		f := newFixture(t, &looking{at: at})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		for _, want := range []time.Duration{0, time.Minute, 2 * time.Minute} {
			if got := (<-at).Sub(begun); got != want {
				t.Errorf("looked after %v, want %v", got, want)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
