package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

func testEventPlaces(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	head, err := e.Head(t.Context())
	if err != nil || head.Seq(0) != 0 {
		t.Fatalf("head of an empty log is %s, %v", head, err)
	}
	events := []event.Envelope{Fact("x", 1), Fact("x", 2)}
	if p := MustCommit(t, e, store.Batch{Events: events}); p.Seq != 2 || p.Partition != 0 {
		t.Errorf("position is %+v, want sequence 2", p)
	}
	if events[0].Seq != 1 || events[1].Seq != 2 {
		t.Errorf("the caller's events have sequences %d and %d, want 1 and 2", events[0].Seq, events[1].Seq)
	}
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put("no", "event")}})
	p := MustCommit(t, e, store.Batch{Events: []event.Envelope{Fact("x", 3)}})
	if p.Seq != 3 {
		t.Errorf("third event is at %d", p.Seq)
	}
	if head, err = e.Head(t.Context()); err != nil || !head.Covers(p) || head.Seq(0) != 3 {
		t.Errorf("head is %s, %v; want 0:3", head, err)
	}
	// A limit cuts, and the cursor stands behind what was returned.
	got, next, err := e.Events(t.Context(), store.Cursor{}, 2)
	if err != nil || len(got) != 2 || next.Seq(0) != 2 {
		t.Fatalf("two events: %d, cursor %s, %v", len(got), next, err)
	}
	got, next, err = e.Events(t.Context(), next, 2)
	if err != nil || len(got) != 1 || next.Seq(0) != 3 {
		t.Fatalf("the rest: %d, cursor %s, %v", len(got), next, err)
	}
	got, next, err = e.Events(t.Context(), next, 2)
	if err != nil || len(got) != 0 || next.Seq(0) != 3 {
		t.Errorf("at the end: %d, cursor %s, %v", len(got), next, err)
	}
}

// testEventForm checks that readers get the same, from memory and from disk.
func testEventForm(t *testing.T, s Suite) {
	t.Helper()
	place := s.NewPlace(t)
	e := place.open(t)
	env := Fact("x", 1)
	env.At = env.At.In(time.FixedZone("elsewhere", 3600))
	env.Actor.RequestID, env.Account = "r-1", "123456789012"
	MustCommit(t, e, store.Batch{Events: []event.Envelope{env}})
	want := Fact("x", 1)
	want.Actor.RequestID, want.Account, want.Seq = "r-1", "123456789012", 1
	wantSame(t, "event", []event.Envelope{want}, Log(t, e))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	wantSame(t, "event after reopening", []event.Envelope{want}, Log(t, place.open(t)))
}

func testWait(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	woken := make(chan error, 8)
	for range cap(woken) {
		go func() { woken <- e.Wait(t.Context(), store.Cursor{}) }()
	}
	MustCommit(t, e, store.Batch{Writes: []store.Write{Put("no", "event")}})
	select {
	case err := <-woken:
		t.Fatalf("woken without an event: %v", err)
	default:
	}
	p := MustCommit(t, e, store.Batch{Events: []event.Envelope{Fact("x", 1)}})
	for range cap(woken) {
		if err := <-woken; err != nil {
			t.Fatalf("wait: %v", err)
		}
	}
	if err := e.Wait(t.Context(), store.Cursor{}); err != nil {
		t.Errorf("wait for what is there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Wait(ctx, store.CursorAt(p)) }()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v, want Canceled", err)
	}
}

func testTrim(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	at := func(seq uint64) store.Cursor { return store.CursorAt(store.Position{Seq: seq}) }
	for i := range 20 {
		MustCommit(t, e, store.Batch{Events: []event.Envelope{Fact("x", int64(i))}})
	}
	before := stats(t, e)
	if before.Events != 20 || before.EventBytes == 0 {
		t.Errorf("stats are %+v, want 20 events", before)
	}
	if err := e.Trim(t.Context(), at(12)); err != nil {
		t.Fatal(err)
	}
	if after := stats(t, e); after.Events != 8 {
		t.Errorf("stats are %+v, want 8 events", after)
	}
	oldest, err := e.Oldest(t.Context())
	if err != nil || oldest.Seq(0) != 12 {
		t.Errorf("oldest is %s, %v; want 0:12", oldest, err)
	}
	for _, seq := range []uint64{0, 5, 11} {
		if _, _, err := e.Events(t.Context(), at(seq), 10); !errors.Is(err, store.ErrTrimmed) {
			t.Errorf("events after %d: %v, want ErrTrimmed", seq, err)
		}
	}
	if got, _, err := e.Events(t.Context(), at(12), 10); err != nil || len(got) != 8 || got[0].Seq != 13 {
		t.Errorf("events after 12: %d, %v", len(got), err)
	}
	// Trimming less than before changes nothing; more than all trims all.
	if err := e.Trim(t.Context(), at(3)); err != nil {
		t.Fatal(err)
	}
	if err := e.Trim(t.Context(), at(1000)); err != nil {
		t.Fatal(err)
	}
	if oldest, err := e.Oldest(t.Context()); err != nil || oldest.Seq(0) != 20 {
		t.Errorf("oldest is %s, %v; want 0:20", oldest, err)
	}
	if p := MustCommit(t, e, store.Batch{Events: []event.Envelope{Fact("x", 21)}}); p.Seq != 21 {
		t.Errorf("log goes on with %d, want 21", p.Seq)
	}
	if log := Log(t, e); len(log) != 1 {
		t.Errorf("log has %d events, want 1", len(log))
	}
}

func stats(t *testing.T, e Engine) store.Stats {
	t.Helper()
	got, err := e.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}
