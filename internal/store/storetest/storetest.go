// Package storetest is the one suite that every storage engine must pass, and
// the simple model that random operations are compared with. It knows the
// contract of package store only. Its goroutines end with each test.
package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Engine is what the suite needs of an engine: the contract and Restore.
type Engine interface {
	store.Store
	Restore(ctx context.Context, r io.Reader) error
}

// Place is somewhere that data outlives an engine: each call opens it.
type Place func(t testing.TB) Engine

// Suite describes an engine to Run.
type Suite struct {
	// NewPlace makes an empty place.
	NewPlace func(t testing.TB) Place
	// Shared says that several engines may be open on one place at once.
	Shared bool
}

// Run tests an engine.
func Run(t *testing.T, s Suite) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(*testing.T, Suite)
	}{
		{"ReadAndWrite", testReadAndWrite},
		{"Expectations", testExpectations},
		{"FailedBatchLeavesNothing", testFailedBatch},
		{"UnstorableEventFailsAlone", testUnstorableEvent},
		{"BigBatch", testBigBatch},
		{"GetMany", testGetMany},
		{"Scan", testScan},
		{"ScanInPages", testScanInPages},
		{"ScanMayRead", testScanMayRead},
		{"EventPlaces", testEventPlaces},
		{"EventForm", testEventForm},
		{"Wait", testWait},
		{"Trim", testTrim},
		{"Counters", testCounters},
		{"FewerThanTen", testFewerThanTen},
		{"NoHalfBatch", testNoHalfBatch},
		{"SnapshotIsolation", testSnapshotIsolation},
		{"SnapshotAgreesWithLog", testSnapshotAgreesWithLog},
		{"EventsOnceAndInOrder", testEventsOnceAndInOrder},
		{"Reopen", testReopen},
		{"Cancelled", testCancelled},
		{"Closed", testClosed},
		{"Checkpoint", testCheckpoint},
		{"CheckpointDamaged", testCheckpointDamaged},
		{"Model", testModel},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, s)
		})
	}
}

// open opens an engine that is closed with the test.
func (p Place) open(tb testing.TB) Engine {
	tb.Helper()
	e := p(tb)
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return e
}

// fresh opens an engine at a new place.
func (s Suite) fresh(tb testing.TB) Engine {
	tb.Helper()
	return s.NewPlace(tb).open(tb)
}

// Fact returns an envelope that tells n and a text apart from others.
func Fact(name string, n int64) event.Envelope {
	return event.Envelope{
		Account: "000000000000",
		At:      time.Unix(1_760_000_000, n).UTC(),
		Actor:   fleet.System,
		Event: event.ShadowUpdated{
			Thing: name, Version: n, Timestamp: 1_760_000_000,
			Patch: json.RawMessage(fmt.Sprintf(`{"reported":{"n":%d}}`, n)),
		},
	}
}

// FactOf returns what Fact was given.
func FactOf(tb testing.TB, env event.Envelope) (string, int64) {
	tb.Helper()
	e, ok := env.Event.(event.ShadowUpdated)
	if !ok {
		tb.Fatalf("event is a %T", env.Event)
	}
	return e.Thing, e.Version
}

// Put returns a write.
func Put(key store.Key, value string) store.Write { return store.Write{Key: key, Value: []byte(value)} }

// Delete returns a removal.
func Delete(key store.Key) store.Write { return store.Write{Key: key, Delete: true} }

// MustCommit commits and fails the test on an error.
func MustCommit(tb testing.TB, s store.Store, b store.Batch) store.Position {
	tb.Helper()
	p, err := s.Commit(tb.Context(), b)
	if err != nil {
		tb.Fatalf("commit: %v", err)
	}
	return p
}

// mustGet reads a record that must exist.
func mustGet(tb testing.TB, r store.Reader, key store.Key) store.Record {
	tb.Helper()
	record, err := r.Get(tb.Context(), key)
	if err != nil {
		tb.Fatalf("get %s: %v", key, err)
	}
	return record
}

// content reads a whole range.
func content(tb testing.TB, r store.Reader, within store.Range) []store.Record {
	tb.Helper()
	var all []store.Record
	err := r.Scan(tb.Context(), within, func(rec store.Record) error {
		rec.Value = bytes.Clone(rec.Value)
		all = append(all, rec)
		return nil
	})
	if err != nil {
		tb.Fatalf("scan: %v", err)
	}
	return all
}

// keys are those of the records, with slashes.
func keys(records []store.Record) []string {
	names := make([]string, len(records))
	for i, r := range records {
		names[i] = r.Key.String()
	}
	return names
}

// wantConflict checks that err names the key.
func wantConflict(tb testing.TB, err error, key store.Key) {
	tb.Helper()
	var conflict *store.ConflictError
	if !errors.Is(err, store.ErrConflict) || !errors.As(err, &conflict) {
		tb.Fatalf("error is %v, want a conflict", err)
	}
	if conflict.Key != key {
		tb.Errorf("conflict names %q, want %q", conflict.Key, key)
	}
}

// wantSame compares and reports a difference.
func wantSame(tb testing.TB, what string, want, got any) {
	tb.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		tb.Errorf("%s differs (-want +got):\n%s", what, diff)
	}
}

// Log reads the kept log from its beginning to its end and checks its order.
func Log(tb testing.TB, s store.Store) []event.Envelope {
	tb.Helper()
	at, err := s.Oldest(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	var all []event.Envelope
	for {
		part, next, err := s.Events(tb.Context(), at, 100)
		if err != nil {
			tb.Fatalf("events after %s: %v", at, err)
		}
		if len(part) == 0 {
			return all
		}
		for i, env := range part {
			if want := at.Seq(0) + uint64(i) + 1; env.Seq != want {
				tb.Fatalf("event has sequence %d, want %d", env.Seq, want)
			}
		}
		all, at = append(all, part...), next
	}
}
