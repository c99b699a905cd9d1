package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

// dump writes the snapshot in the engine-independent form.
func (s *snapshot) dump(ctx context.Context, w io.Writer) error {
	version, err := mark(s.snap, markVersion)
	if err != nil {
		return err
	}
	trimmed, err := mark(s.snap, markTrimmed)
	if err != nil {
		return err
	}
	d, err := store.NewDumpWriter(w, store.DumpHeader{Version: version, Seq: s.seq, Trimmed: trimmed})
	if err != nil {
		return err
	}
	if err := s.Scan(ctx, store.Range{}, d.Record); err != nil {
		return err
	}
	it, err := s.snap.NewIter(&pebble.IterOptions{LowerBound: eventKey(0), UpperBound: []byte{eventByte + 1}})
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer it.Close() //nolint:errcheck // its error is read below
	for ok := it.First(); ok; ok = it.Next() {
		if err := d.Event(binary.BigEndian.Uint64(it.Key()[1:]), it.Value()); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return d.Close()
}

// restoreBatch is how many bytes of a copy go into one write.
const restoreBatch = 4 << 20

// Restore fills an empty store from a checkpoint of any engine. Should it not
// come to its end, the store is marked as unusable. Commits wait meanwhile.
func (e *Engine) Restore(ctx context.Context, r io.Reader) error {
	if !e.gate.enter() {
		return store.ErrClosed
	}
	defer e.gate.leave()
	e.committing.Lock()
	defer e.committing.Unlock()
	if err := e.checkEmpty(); err != nil {
		return err
	}
	if err := e.db.Set(markRestoring, number(1), pebble.Sync); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	l := &loader{engine: e, batch: e.db.NewBatch()}
	defer l.batch.Close() //nolint:errcheck // a batch in memory
	header, err := store.ReadDump(ctx, r, store.DumpReader{Record: l.record, Event: l.event})
	if err == nil {
		err = l.end(header)
	}
	if err != nil {
		err = fmt.Errorf("restore: %w", err)
		broken := fmt.Errorf("%w: %w", store.ErrRestoreUnfinished, err)
		e.broken.Store(&broken)
		return err
	}
	e.version, e.seq = header.Version, header.Seq
	e.oldest.Store(header.Trimmed)
	e.logged.Store(l.logged)
	e.tail.Advance(header.Seq)
	return nil
}

// checkEmpty refuses a store that holds or once held something.
func (e *Engine) checkEmpty() error {
	it, err := e.db.NewIter(nil)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	empty := !it.First()
	if err := it.Close(); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if !empty {
		return store.ErrNotEmpty
	}
	return nil
}

// loader writes a copy in portions.
type loader struct {
	engine *Engine
	batch  *pebble.Batch
	logged uint64
}

func (l *loader) record(rec store.Record) error {
	if err := setState(l.batch, rec.Key, rec.Version, rec.Value); err != nil {
		return err
	}
	return l.flush(restoreBatch)
}

func (l *loader) event(seq uint64, data []byte) error {
	if _, err := event.Decode(data); err != nil {
		return err
	}
	l.logged += uint64(len(data))
	if err := l.batch.Set(eventKey(seq), data, nil); err != nil {
		return err
	}
	return l.flush(restoreBatch)
}

// flush writes what was collected once it is more than limit.
func (l *loader) flush(limit int) error {
	if l.batch.Len() <= limit {
		return nil
	}
	if err := l.engine.space.check(l.batch.Len()); err != nil {
		return err
	}
	if err := l.engine.db.Apply(l.batch, pebble.Sync); err != nil {
		return err
	}
	l.batch.Reset()
	return nil
}

// end writes the counters and makes the store usable.
func (l *loader) end(h store.DumpHeader) error {
	err := errors.Join(
		l.batch.Set(markVersion, number(h.Version), nil),
		l.batch.Set(markSeq, number(h.Seq), nil),
		l.batch.Set(markTrimmed, number(h.Trimmed), nil),
		l.batch.Set(markLogged, number(l.logged), nil),
		l.batch.Delete(markRestoring, nil),
	)
	if err != nil {
		return err
	}
	return l.flush(0)
}
