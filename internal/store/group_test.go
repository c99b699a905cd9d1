package store

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
)

// pending wraps a batch.
func pending(t *testing.T, b Batch) *Pending {
	t.Helper()
	p, err := NewPending(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// facts returns n events.
func facts(n int) []event.Envelope {
	all := make([]event.Envelope, n)
	for i := range all {
		all[i].Event = event.ThingDeleted{Thing: "t"}
	}
	return all
}

func TestGroupShowsEachBatchTheOnesBefore(t *testing.T) {
	t.Parallel()
	g := NewGroup(100, 10)
	stored := func(key Key) (uint64, error) { return map[Key]uint64{"a": 7}[key], nil }
	for i, c := range []struct {
		batch Batch
		// failing is the key of the conflict; empty when the batch is accepted.
		failing Key
	}{
		{Batch{Expect: []Expect{{"a", 7}}, Writes: []Write{{Key: "a"}}, Events: facts(2)}, ""},
		{Batch{Expect: []Expect{{"a", 7}}, Writes: []Write{{Key: "lost"}}, Events: facts(3)}, "a"},
		{Batch{Expect: []Expect{{"a", 101}, {"b", 0}}, Writes: []Write{{Key: "a", Delete: true}, {Key: "b"}}}, ""},
		{Batch{Expect: []Expect{{"a", 0}, {"b", 102}}, Writes: []Write{{Key: "a"}}, Events: facts(1)}, ""},
		{Batch{Expect: []Expect{{"b", 0}}}, "b"},
	} {
		err := g.Add(pending(t, c.batch), stored)
		var conflict *ConflictError
		if errors.As(err, &conflict) != (c.failing != "") || conflict != nil && conflict.Key != c.failing {
			t.Errorf("batch %d: %v, want a conflict of %q", i, err, c.failing)
		}
	}
	got := map[Key]uint64{}
	for key, f := range g.Final {
		got[key] = f.Version
	}
	if diff := cmp.Diff(map[Key]uint64{"a": 103, "b": 102}, got); diff != "" {
		t.Errorf("final versions (-want +got):\n%s", diff)
	}
	if g.Version() != 103 || g.Seq() != 13 || len(g.Events) != 3 || len(g.Data) != 3 || len(g.Accepted) != 3 {
		t.Errorf("version %d, sequence %d, %d events, %d batches", g.Version(), g.Seq(), len(g.Events), len(g.Accepted))
	}
	for i, env := range g.Events {
		if env.Seq != uint64(11+i) {
			t.Errorf("event %d is at %d", i, env.Seq)
		}
	}
}

func TestGroupLeavesOutABatchThatCannotBeChecked(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken disk")
	g := NewGroup(1, 1)
	err := g.Add(pending(t, Batch{Expect: []Expect{{"a", 0}}, Writes: []Write{{Key: "a"}}}), func(Key) (uint64, error) { return 0, broken })
	if !errors.Is(err, broken) || len(g.Accepted)+len(g.Final) != 0 || g.Version() != 1 {
		t.Errorf("error %v, group %+v", err, g)
	}
}

func TestPendingSetsPlacesInTheWaitingCallersSliceOnly(t *testing.T) {
	t.Parallel()
	none := func(Key) (uint64, error) { return 0, nil }
	stays, leaves := facts(2), facts(1)
	ctx, cancel := context.WithCancel(t.Context())
	a := pending(t, Batch{Events: stays})
	b, err := NewPending(ctx, Batch{Events: leaves})
	if err != nil {
		t.Fatal(err)
	}
	g := NewGroup(0, 40)
	if err := errors.Join(g.Add(a, none), g.Add(b, none)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := b.Wait(); !errors.Is(err, context.Canceled) || !b.Abandoned() {
		t.Errorf("a caller that left: %v", err)
	}
	a.Answer(nil)
	if err := a.Wait(); err != nil {
		t.Fatal(err)
	}
	if stays[0].Seq != 41 || stays[1].Seq != 42 || leaves[0].Seq != 0 {
		t.Errorf("sequences are %d, %d and %d", stays[0].Seq, stays[1].Seq, leaves[0].Seq)
	}
	if a.Position.Seq != 42 || b.Position.Seq != 43 {
		t.Errorf("positions are %+v and %+v", a.Position, b.Position)
	}
}

// entries returns the events first to last with stored forms of size bytes.
func entries(first, last uint64, size int) (events []*event.Envelope, data [][]byte) {
	for seq := first; seq <= last; seq++ {
		events, data = append(events, &event.Envelope{Seq: seq}), append(data, make([]byte, size))
	}
	return events, data
}

// span is the first and the last sequence that a read returned.
func span(events []event.Envelope) [2]uint64 {
	if len(events) == 0 {
		return [2]uint64{}
	}
	return [2]uint64{events[0].Seq, events[len(events)-1].Seq}
}

func TestTail(t *testing.T) {
	t.Parallel()
	tail := NewTail(100, 10, 1000)
	for _, c := range []struct {
		name        string
		first, last uint64
		size        int
		seq         uint64
		want        [2]uint64
	}{
		{"first", 101, 103, 1, 100, [2]uint64{101, 103}},
		{"in the middle", 104, 104, 1, 102, [2]uint64{103, 104}},
		{"known ones are skipped", 102, 105, 1, 100, [2]uint64{101, 105}},
		{"older than the tail", 50, 60, 1, 49, [2]uint64{}},
		{"at the end", 106, 106, 1, 106, [2]uint64{}},
		{"after a gap it starts anew", 110, 112, 1, 109, [2]uint64{110, 112}},
		{"what was before the gap is gone", 113, 113, 1, 105, [2]uint64{}},
		{"too many drop the oldest", 114, 121, 1, 116, [2]uint64{117, 121}},
		{"too many bytes drop the oldest", 122, 124, 400, 123, [2]uint64{124, 124}},
		{"what was dropped is not served", 125, 125, 1, 122, [2]uint64{}},
	} {
		tail.Append(entries(c.first, c.last, c.size))
		if got := span(tail.Read(c.seq, 100)); got != c.want {
			t.Errorf("%s: read %v, want %v", c.name, got, c.want)
		}
	}
	if got := span(tail.Read(123, 1)); got != [2]uint64{124, 124} {
		t.Errorf("limit 1: %v", got)
	}
	tail.Trim(124)
	if got := span(tail.Read(123, 10)); got != [2]uint64{} {
		t.Errorf("trimmed, but read %v", got)
	}
	if got := span(tail.Read(124, 10)); got != [2]uint64{125, 125} {
		t.Errorf("after the trim: %v", got)
	}
	if tail.Head() != 125 {
		t.Errorf("head is %d", tail.Head())
	}
	tail.Advance(120)
	tail.Advance(130)
	if tail.Head() != 130 || len(tail.Read(125, 10)) != 0 {
		t.Errorf("head is %d", tail.Head())
	}
}
