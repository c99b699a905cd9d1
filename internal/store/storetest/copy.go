package storetest

import (
	"bytes"
	"errors"
	"strconv"
	"sync"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

// testCheckpoint: a copy taken while others write is of one moment, and a
// store restored from it is that moment and goes on from there.
func testCheckpoint(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	for i := range 30 {
		MustCommit(t, e, store.Batch{Writes: []store.Write{Put(store.K("s", strconv.Itoa(i)), "v")}, Events: []event.Envelope{Fact("s", int64(i))}})
	}
	MustCommit(t, e, store.Batch{Writes: []store.Write{Delete(store.K("s", "7")), {Key: "empty"}}})
	if err := e.Trim(t.Context(), store.CursorAt(store.Position{Seq: 10})); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i := range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := Increment(t.Context(), e, store.K("c", strconv.Itoa(i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var dump bytes.Buffer
	err := e.Checkpoint(t.Context(), &dump)
	close(stop)
	wg.Wait()
	if err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
	checkRestored(t, s, dump.Bytes())
	if err := e.Restore(t.Context(), bytes.NewReader(dump.Bytes())); !errors.Is(err, store.ErrNotEmpty) {
		t.Errorf("restore into a used store: %v, want ErrNotEmpty", err)
	}
}

// checkRestored restores a copy and compares.
func checkRestored(t *testing.T, s Suite, dump []byte) {
	t.Helper()
	place := s.NewPlace(t)
	e := place.open(t)
	if err := e.Restore(t.Context(), bytes.NewReader(dump)); err != nil {
		t.Fatalf("restore: %v", err)
	}
	sum := uint64(0)
	for _, rec := range content(t, e, store.Under("c")) {
		n, _ := strconv.ParseUint(string(rec.Value), 10, 64)
		sum += n
	}
	log := Log(t, e)
	head, err := e.Head(t.Context())
	if err != nil || head.Seq(0) != 30+sum || len(log) != 20+int(sum) || log[0].Seq != 11 {
		t.Fatalf("state has %d increments, the log ends at %s and has %d events (%v)", sum, head, len(log), err)
	}
	if len(content(t, e, store.Under("s"))) != 29 || len(mustGet(t, e, "empty").Value) != 0 {
		t.Error("state differs")
	}
	if got := stats(t, e); got.Events != 20+sum || got.EventBytes == 0 {
		t.Errorf("stats are %+v", got)
	}
	var again bytes.Buffer
	if err := e.Checkpoint(t.Context(), &again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dump, again.Bytes()) {
		t.Error("a copy of the restored store differs from the copy it was made of")
	}
	highest := uint64(0)
	for _, rec := range content(t, e, store.Range{}) {
		highest = max(highest, rec.Version)
	}
	p := MustCommit(t, e, store.Batch{Writes: []store.Write{Put(store.K("s", "7"), "new")}, Events: []event.Envelope{Fact("s", 99)}})
	if p.Seq != head.Seq(0)+1 || mustGet(t, e, store.K("s", "7")).Version <= highest {
		t.Errorf("after a restore the log goes on with %d and versions with %d", p.Seq, mustGet(t, e, store.K("s", "7")).Version)
	}
	state := content(t, e, store.Range{})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	wantSame(t, "state after reopening", state, content(t, place.open(t), store.Range{}))
}

// testCheckpointDamaged: a copy that is cut short or changed is refused.
func testCheckpointDamaged(t *testing.T, s Suite) {
	t.Helper()
	e := s.fresh(t)
	for i := range 5 {
		MustCommit(t, e, store.Batch{Writes: []store.Write{Put(store.K("s", strconv.Itoa(i)), "value")}, Events: []event.Envelope{Fact("s", int64(i))}})
	}
	var dump bytes.Buffer
	if err := e.Checkpoint(t.Context(), &dump); err != nil {
		t.Fatal(err)
	}
	whole := dump.Bytes()
	for name, damaged := range map[string][]byte{
		"empty":           {},
		"no end":          whole[:len(whole)-1],
		"half":            whole[:len(whole)/2],
		"a bit of a body": flip(whole, len(whole)/2),
		"the magic":       flip(whole, 0),
	} {
		if err := s.fresh(t).Restore(t.Context(), bytes.NewReader(damaged)); err == nil {
			t.Errorf("%s: restored without an error", name)
		}
	}
}

// flip returns a copy with one bit changed.
func flip(data []byte, at int) []byte {
	c := bytes.Clone(data)
	c[at] ^= 4
	return c
}
