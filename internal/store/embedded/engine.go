// Package embedded is the storage engine inside the process, on pebble. Every
// commit is synced; concurrent batches share one sync.
//
// Layout: the first byte of a pebble key tells state ('k' + key → 8 bytes of
// version, value) from events ('e' + 8 bytes of sequence → event) and from the
// engine's own marks ('m'). Version counter and log end are written with each
// group, so state, log and counters cannot disagree.
//
// A full disk: commits are refused while less than a reserve is free. Should
// others fill the disk all the same, a write that finds no space waits for it
// instead of failing, first of all for that of the ballast file, which is then
// removed; it comes back once there is plenty. A write that fails for another
// reason ends the process: nothing can be promised on such a disk.
//
// Goroutines: one committer and one watcher of free space; both end with
// Close. The committer's queue is bounded; callers wait in Commit when it is
// full.
package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

// Key prefixes.
const (
	stateByte = 'k'
	eventByte = 'e'
	markByte  = 'm'
)

const (
	versionBytes = 8
	queueLength  = 4096
	// groupBatches and groupBytes bound one synced write.
	groupBatches = 1024
	groupBytes   = 8 << 20
	// tailEvents and tailBytes bound the newest events that stay decoded.
	tailEvents = 16384
	tailBytes  = 16 << 20
	// defaultRecords bounds the cache of recently written records.
	defaultRecords = 64 << 20
)

// Options of Open.
type Options struct {
	Dir string
	// FS is the disk when nil.
	FS     vfs.FS
	Logger *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
	// CacheBytes bounds pebble's block cache; 0 means 64 MiB.
	CacheBytes int64
	// RecordBytes bounds the cache of recently written records; 0 means 64 MiB.
	RecordBytes int64
	// ReserveBytes of free space are kept: commits are refused below it. 0
	// means 128 MiB, negative means no reserve.
	ReserveBytes int64
	// BallastBytes is the size of a file that is given up when the disk is full
	// in spite of the reserve; 0 means 16 MiB, negative means none.
	BallastBytes int64
	// LookEvery is the time between two looks at the free space; 0 means half
	// a second.
	LookEvery time.Duration
}

// Engine is an open store.
type Engine struct {
	db      *pebble.DB
	log     *slog.Logger
	space   *space
	queue   chan *store.Pending
	closing chan struct{}
	stopped sync.WaitGroup
	close   sync.Once
	gate    *gate

	tail *store.Tail
	// oldest is the sequence of the newest trimmed event.
	oldest atomic.Uint64
	// logged is the size of all events ever appended, trimmed that of those
	// that were removed again.
	logged, trimmed atomic.Uint64
	trimming        sync.Mutex
	// committing guards what follows; the committer holds it for a group.
	committing sync.Mutex
	version    uint64
	seq        uint64
	// records holds recently written records; it has its own lock.
	records *recordCache
	metrics *metrics
	// restoring says that the store holds a half-finished restore.
	restoring bool
	// broken is set when a write failed in a way that leaves its outcome open.
	broken atomic.Pointer[error]
}

var _ store.Store = (*Engine)(nil)

// Open opens or creates the store in a folder.
func Open(o Options) (*Engine, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if err := o.FS.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create store folder: %w", err)
	}
	space, err := newSpace(o)
	if err != nil {
		return nil, err
	}
	cache := pebble.NewCache(o.CacheBytes)
	defer cache.Unref()
	options := &pebble.Options{
		FS:                          space.fs,
		Cache:                       cache,
		Logger:                      logger{o.Logger},
		MemTableSize:                16 << 20,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		FormatMajorVersion:          pebble.FormatNewest,
	}
	for i := range options.Levels {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(o.Dir, options)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	e := &Engine{
		db:      db,
		log:     o.Logger,
		space:   space,
		queue:   make(chan *store.Pending, queueLength),
		closing: make(chan struct{}),
		gate:    newGate(),
		records: newRecordCache(orDefault(o.RecordBytes, defaultRecords)),
		metrics: newMetrics(o.Registerer),
	}
	if err := e.load(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	e.stopped.Go(e.run)
	e.stopped.Go(func() { space.watch(e.closing) })
	return e, nil
}

// load reads counters and the log's extent.
func (e *Engine) load() error {
	marks := []struct {
		key []byte
		to  func(uint64)
	}{
		{markVersion, func(n uint64) { e.version = n }},
		{markSeq, func(n uint64) { e.seq = n }},
		{markTrimmed, e.oldest.Store},
		{markLogged, e.logged.Store},
		{markTrimmedBytes, e.trimmed.Store},
		{markRestoring, func(n uint64) { e.restoring = n != 0 }},
	}
	for _, m := range marks {
		n, err := mark(e.db, m.key)
		if err != nil {
			return err
		}
		m.to(n)
	}
	if e.restoring {
		return store.ErrRestoreUnfinished
	}
	e.tail = store.NewTail(e.seq, tailEvents, tailBytes)
	return nil
}

// Marks of the engine; they are read only.
var (
	markVersion      = []byte{markByte, 'v'}
	markSeq          = []byte{markByte, 's'}
	markTrimmed      = []byte{markByte, 't'}
	markLogged       = []byte{markByte, 'b'}
	markTrimmedBytes = []byte{markByte, 'd'}
	markRestoring    = []byte{markByte, 'r'}
)

// mark reads a mark of the live store or of a snapshot, 0 when it is not set.
func mark(r reader, key []byte) (uint64, error) {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read mark %q: %w", key, err)
	}
	defer closer.Close() //nolint:errcheck // releasing a block cannot fail
	if len(value) != 8 {
		return 0, fmt.Errorf("mark %q has %d bytes", key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func stateKey(key store.Key) []byte {
	b := make([]byte, 0, 1+len(key))
	return append(append(b, stateByte), key...)
}

func eventKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{eventByte}, seq)
}

// Get implements store.Reader.
func (e *Engine) Get(_ context.Context, key store.Key) (store.Record, error) {
	if !e.gate.enter() {
		return store.Record{}, store.ErrClosed
	}
	defer e.gate.leave()
	return e.get(key)
}

// GetMany implements store.Reader.
func (e *Engine) GetMany(_ context.Context, keys []store.Key) ([]store.Record, error) {
	if !e.gate.enter() {
		return nil, store.ErrClosed
	}
	defer e.gate.leave()
	return getMany(e.get, keys)
}

// Scan implements store.Reader.
func (e *Engine) Scan(ctx context.Context, r store.Range, fn func(store.Record) error) error {
	if !e.gate.enter() {
		return store.ErrClosed
	}
	defer e.gate.leave()
	return scan(ctx, e.db, r, fn)
}

// Snapshot implements store.Store. Close waits until it is closed.
func (e *Engine) Snapshot(ctx context.Context) (store.Snapshot, error) {
	s, err := e.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// snapshot freezes a view and waits until all that it shows is durable: pebble
// shows a group from before its sync.
func (e *Engine) snapshot(ctx context.Context) (*snapshot, error) {
	if !e.gate.enter() {
		return nil, store.ErrClosed
	}
	s := &snapshot{snap: e.db.NewSnapshot(), gate: newGate(), leave: e.gate.leave}
	seq, err := mark(s.snap, markSeq)
	if err == nil && seq > 0 {
		err = e.tail.Wait(ctx, seq-1)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.seq = seq
	return s, nil
}

// Head implements store.Store.
func (e *Engine) Head(context.Context) (store.Cursor, error) {
	return store.CursorAt(store.Position{Seq: e.tail.Head()}), nil
}

// Oldest implements store.Store.
func (e *Engine) Oldest(context.Context) (store.Cursor, error) {
	return store.CursorAt(store.Position{Seq: e.oldest.Load()}), nil
}

// Wait implements store.Store.
func (e *Engine) Wait(ctx context.Context, after store.Cursor) error {
	return e.tail.Wait(ctx, after.Seq(0))
}

// Events implements store.Store.
func (e *Engine) Events(_ context.Context, after store.Cursor, limit int) ([]event.Envelope, store.Cursor, error) {
	if !e.gate.enter() {
		return nil, after, store.ErrClosed
	}
	defer e.gate.leave()
	from := after.Seq(0)
	if from < e.oldest.Load() || from > e.tail.Head() {
		// Trimmed, or the reader has seen events of another log.
		return nil, after, store.ErrTrimmed
	}
	events := e.tail.Read(from, limit)
	if len(events) == 0 && from < e.tail.Head() {
		var err error
		if events, err = e.readEvents(from, limit); err != nil {
			return nil, after, err
		}
	}
	if len(events) == 0 {
		return nil, after, nil
	}
	return events, after.Advance(store.Position{Seq: events[len(events)-1].Seq}), nil
}

func (e *Engine) readEvents(from uint64, limit int) ([]event.Envelope, error) {
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: eventKey(from + 1), UpperBound: eventKey(e.tail.Head() + 1)})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	defer it.Close() //nolint:errcheck // its error is read below
	var events []event.Envelope
	for ok := it.First(); ok && len(events) < limit; ok = it.Next() {
		env, err := event.Decode(it.Value())
		if err != nil {
			return nil, err
		}
		env.Seq = binary.BigEndian.Uint64(it.Key()[1:])
		if want := from + uint64(len(events)) + 1; env.Seq != want {
			// Trimmed while we looked, or damaged: either way not to be read over.
			if from < e.oldest.Load() {
				return nil, store.ErrTrimmed
			}
			return nil, fmt.Errorf("event log has %d where %d must stand", env.Seq, want)
		}
		events = append(events, env)
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return events, nil
}

// Trim implements store.Store.
func (e *Engine) Trim(_ context.Context, upTo store.Cursor) error {
	if !e.gate.enter() {
		return store.ErrClosed
	}
	defer e.gate.leave()
	e.trimming.Lock()
	defer e.trimming.Unlock()
	oldest, head := e.oldest.Load(), e.tail.Head()
	seq := min(upTo.Seq(0), head)
	if seq <= oldest {
		return nil
	}
	// Events are of about one size: the removed share of the events is about
	// the removed share of the bytes, and all of them are all bytes.
	kept := e.logged.Load() - e.trimmed.Load()
	gone := uint64(float64(kept) * (float64(seq-oldest) / float64(head-oldest)))
	trimmed := e.trimmed.Load() + min(gone, kept)
	b := e.db.NewBatch()
	defer b.Close() //nolint:errcheck // a batch in memory
	err := errors.Join(
		b.DeleteRange(eventKey(0), eventKey(seq+1), nil),
		b.Set(markTrimmed, number(seq), nil),
		b.Set(markTrimmedBytes, number(trimmed), nil),
	)
	if err != nil {
		return fmt.Errorf("trim events: %w", err)
	}
	// Readers must see the new limit before the events are gone.
	e.oldest.Store(seq)
	if err := e.db.Apply(b, pebble.Sync); err != nil {
		return fmt.Errorf("trim events: %w", err)
	}
	e.trimmed.Store(trimmed)
	e.tail.Trim(seq)
	return nil
}

// Stats implements store.Store.
func (e *Engine) Stats(context.Context) (store.Stats, error) {
	// In this order, the differences cannot be negative.
	oldest, trimmed := e.oldest.Load(), e.trimmed.Load()
	return store.Stats{
		Events:        e.tail.Head() - oldest,
		EventBytes:    e.logged.Load() - trimmed,
		DiskAvailable: e.space.available(),
	}, nil
}

// Checkpoint implements store.Store.
func (e *Engine) Checkpoint(ctx context.Context, w io.Writer) error {
	s, err := e.snapshot(ctx)
	if err != nil {
		return err
	}
	return errors.Join(s.dump(ctx, w), s.Close())
}

// Close implements store.Store. It waits for the calls under way and for open
// snapshots.
func (e *Engine) Close() error {
	var err error
	e.close.Do(func() {
		e.tail.Close()
		e.gate.shut()
		close(e.closing)
		e.stopped.Wait()
		err = e.db.Close()
	})
	return err
}

// logger hands pebble's words to slog. A fatal condition of pebble is one in
// which it cannot promise anything any more: the process must end, and what
// was acknowledged is on disk.
type logger struct{ log *slog.Logger }

// Infof is detail that only a developer reads.
func (l logger) Infof(format string, args ...any) {
	l.log.Debug("store engine", slog.String("detail", fmt.Sprintf(format, args...)))
}

// Errorf is a background error that pebble retries.
func (l logger) Errorf(format string, args ...any) {
	l.log.Error("store engine", slog.String("detail", fmt.Sprintf(format, args...)))
}

// Fatalf ends the process.
func (l logger) Fatalf(format string, args ...any) {
	l.log.Error("store engine cannot go on", slog.String("detail", fmt.Sprintf(format, args...)))
	panic(fmt.Sprintf("store engine cannot go on: "+format, args...))
}

// seconds measures for a histogram.
func seconds(since time.Time) float64 { return time.Since(since).Seconds() }
