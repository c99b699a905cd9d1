// Package store is the storage contract: ordered keys, snapshot reads, and
// commits that change state and append events in one step. It knows bytes and
// time, not fleets; domain packages own their keys above it. Engines live in
// store/embedded (pebble) and store/postgres; store/storetest is the one suite
// that both must pass.
package store

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/muster-iot/muster/internal/event"
)

// Errors that every engine returns; test with errors.Is.
var (
	// ErrNotFound is a read of a key that does not exist.
	ErrNotFound = errors.New("key not found")
	// ErrConflict is a failed expectation; the concrete error is a *ConflictError.
	ErrConflict = errors.New("expectation failed")
	// ErrTrimmed is a read of events that retention has removed: the reader
	// must rebuild from a snapshot.
	ErrTrimmed = errors.New("events before the oldest kept one")
	// ErrDiskFull is a commit refused because too little space is left.
	// Nothing was written; commits succeed again once there is space.
	ErrDiskFull = errors.New("disk is full")
	// ErrClosed is any call after Close.
	ErrClosed = errors.New("store is closed")
)

// ConflictError names the key whose expectation failed.
type ConflictError struct{ Key Key }

// Error describes the conflict.
func (e *ConflictError) Error() string { return "expectation failed for key " + e.Key.String() }

// Is makes errors.Is(err, ErrConflict) hold.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// separator joins the parts of a key. No part may contain it, which holds for
// names, ids, ARNs and MQTT strings.
const separator = "\x00"

// Key is an ordered key, compared bytewise.
type Key string

// K joins parts into a key. Parts must not contain a zero byte.
func K(parts ...string) Key { return Key(strings.Join(parts, separator)) }

// Parts splits a key made by K.
func (k Key) Parts() []string { return strings.Split(string(k), separator) }

// Last returns the key's last part.
func (k Key) Last() string {
	return string(k[strings.LastIndex(string(k), separator)+1:])
}

// String renders the parts with slashes, for people.
func (k Key) String() string { return strings.ReplaceAll(string(k), separator, "/") }

// Range is a half-open interval of keys, [From, To). An empty To means the end.
type Range struct{ From, To Key }

// Under returns the range of all keys that have parts as their leading parts
// and at least one more.
func Under(parts ...string) Range {
	prefix := K(parts...)
	return Range{From: prefix + separator, To: prefix + "\x01"}
}

// After narrows the range to keys greater than last, for paging.
func (r Range) After(last Key) Range {
	if next := last + separator; next > r.From {
		r.From = next
	}
	return r
}

// Record is a stored value. The value must not be changed by the reader.
type Record struct {
	Key   Key
	Value []byte
	// Version is never 0 and grows with each write of the key, also across
	// deletion and re-creation.
	Version uint64
}

// Expect is a precondition of a batch. Version 0 demands that the key does not
// exist; any other value that the key has exactly this version.
type Expect struct {
	Key     Key
	Version uint64
}

// Write puts a value or, when Delete is set, removes the key. Removing a key
// that does not exist is no error.
type Write struct {
	Key    Key
	Value  []byte
	Delete bool
	// Version is the record's, set by the engine in the caller's slice before
	// Commit returns; what the caller put there does not count.
	Version uint64
}

// Batch is one atomic change: if every expectation holds, all writes happen
// and all events are appended, else nothing does. A guard key is an ordinary
// key that is expected and rewritten by everyone who must exclude the others.
type Batch struct {
	Expect []Expect
	Writes []Write
	// Events are appended in this order. Partition and Seq are set by the
	// engine in the caller's slice before Commit returns.
	Events []event.Envelope
}

// Position is a place in the event log.
type Position struct {
	Partition uint32
	Seq       uint64
}

// Reader reads state. Values are copies or immutable.
type Reader interface {
	// Get returns the record or ErrNotFound.
	Get(ctx context.Context, key Key) (Record, error)
	// GetMany returns one record for each key, in order; a missing one has
	// Version 0 and no value.
	GetMany(ctx context.Context, keys []Key) ([]Record, error)
	// Scan calls fn for each record of the range in key order until fn
	// returns an error, which Scan returns, or Stop, which ends it well.
	// fn must not commit to the store.
	Scan(ctx context.Context, r Range, fn func(Record) error) error
}

// Stop ends a Scan early without an error.
var Stop = errors.New("stop scanning") //nolint:errname,staticcheck // it is a signal to Scan, not a failure

// Snapshot is a frozen view. Close it soon: it holds back clean-up.
type Snapshot interface {
	Reader
	// Cursor is the end of the event log at the moment of the snapshot.
	Cursor() Cursor
	Close() error
}

// Store is an engine.
type Store interface {
	Reader
	// Snapshot freezes state and log position together.
	Snapshot(ctx context.Context) (Snapshot, error)
	// Commit applies one batch durably: when it returns nil, the batch
	// survives a crash. Independent batches of concurrent callers share one
	// sync; a failed expectation fails only its own batch, with a
	// *ConflictError. The position covers the batch's events. When ctx ends
	// first, Commit returns ctx.Err() and the batch may or may not have been
	// applied.
	Commit(ctx context.Context, b Batch) (Position, error)
	// Events returns up to limit events after the cursor, in log order, and
	// the cursor behind them; none when the reader is at the end. ErrTrimmed
	// means that some were removed.
	Events(ctx context.Context, after Cursor, limit int) ([]event.Envelope, Cursor, error)
	// Wait blocks until there is an event after the cursor or ctx ends.
	Wait(ctx context.Context, after Cursor) error
	// Head is the end of the log.
	Head(ctx context.Context) (Cursor, error)
	// Oldest is the cursor before the oldest kept event.
	Oldest(ctx context.Context) (Cursor, error)
	// Trim removes events up to and including the cursor.
	Trim(ctx context.Context, upTo Cursor) error
	// Stats describes size for retention and monitoring.
	Stats(ctx context.Context) (Stats, error)
	// Checkpoint writes a consistent, engine-independent copy of state and
	// log to w while commits go on. Restore of any engine reads it.
	Checkpoint(ctx context.Context, w io.Writer) error
	// Close ends the engine after the commits under way.
	Close() error
}

// Stats are sizes in bytes and counts of one store.
type Stats struct {
	// Events is the number of kept events.
	Events uint64
	// EventBytes is the approximate encoded size of the kept events.
	EventBytes uint64
	// DiskAvailable is the free space for the store; 0 when unknown.
	DiskAvailable uint64
}
