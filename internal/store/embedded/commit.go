package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/muster-iot/muster/internal/store"
)

// Commit implements store.Store.
func (e *Engine) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if !e.gate.enter() {
		return store.Position{}, store.ErrClosed
	}
	defer e.gate.leave()
	if err := ctx.Err(); err != nil {
		return store.Position{}, err
	}
	p, err := store.NewPending(ctx, b)
	if err != nil {
		return store.Position{}, err
	}
	select {
	case e.queue <- p:
	case <-ctx.Done():
		return store.Position{}, ctx.Err()
	}
	if err := p.Wait(); err != nil {
		return store.Position{}, err
	}
	return p.Position, nil
}

// run takes what has queued up, commits it as one group, and goes on until the
// engine closes and the queue is empty.
func (e *Engine) run() {
	for {
		select {
		case p := <-e.queue:
			e.commit(e.collect(p))
		case <-e.closing:
			for {
				select {
				case p := <-e.queue:
					e.commit(e.collect(p))
				default:
					return
				}
			}
		}
	}
}

// collect adds to the first batch what waits behind it, within bounds.
func (e *Engine) collect(first *store.Pending) []*store.Pending {
	group, size := []*store.Pending{first}, first.Bytes()
	for len(group) < groupBatches && size < groupBytes {
		select {
		case p := <-e.queue:
			group = append(group, p)
			size += p.Bytes()
		default:
			return group
		}
	}
	return group
}

// commit applies a group with one sync and answers each caller.
func (e *Engine) commit(batches []*store.Pending) {
	e.committing.Lock()
	defer e.committing.Unlock()
	if broken := e.broken.Load(); broken != nil {
		refuse(batches, *broken)
		return
	}
	size := 0
	for _, p := range batches {
		size += p.Bytes()
	}
	if err := e.space.check(size); err != nil {
		e.metrics.refused.Add(float64(len(batches)))
		refuse(batches, err)
		return
	}
	started := time.Now()
	group := store.NewGroup(e.version, e.seq)
	for _, p := range batches {
		if p.Abandoned() {
			p.Answer(context.Canceled)
			continue
		}
		if err := group.Add(p, e.storedVersion); err != nil {
			p.Answer(err)
		}
	}
	if len(group.Accepted) == 0 {
		return
	}
	for key := range group.Final {
		e.records.forget(key)
	}
	if err := e.apply(group); err != nil {
		// Whether the write reached the disk is open, so the counters in
		// memory are too. A restart reads the truth.
		err = fmt.Errorf("commit to the store: %w", err)
		e.broken.Store(&err)
		e.log.Error("store refuses commits until a restart", slog.Any("err", err))
		refuse(group.Accepted, err)
		return
	}
	e.version, e.seq = group.Version(), group.Seq()
	for key, final := range group.Final {
		e.records.put(key, final)
	}
	e.tail.Append(group.Events, group.Data)
	for _, p := range group.Accepted {
		p.Answer(nil)
	}
	e.metrics.observe(len(group.Accepted), seconds(started))
}

func refuse(batches []*store.Pending, err error) {
	for _, p := range batches {
		p.Answer(err)
	}
}

// apply writes a group and waits for the sync.
func (e *Engine) apply(group *store.Group) error {
	b := e.db.NewBatch()
	defer b.Close() //nolint:errcheck // a batch in memory
	for key, final := range group.Final {
		if final.Write.Delete {
			if err := b.Delete(stateKey(key), nil); err != nil {
				return err
			}
			continue
		}
		if err := setState(b, key, final.Version, final.Write.Value); err != nil {
			return err
		}
	}
	logged := e.logged.Load()
	for i, env := range group.Events {
		data := group.Data[i]
		logged += uint64(len(data))
		if err := b.Set(eventKey(env.Seq), data, nil); err != nil {
			return err
		}
	}
	err := errors.Join(b.Set(markVersion, number(group.Version()), nil), b.Set(markSeq, number(group.Seq()), nil), b.Set(markLogged, number(logged), nil))
	if err != nil {
		return err
	}
	if err := e.db.Apply(b, pebble.Sync); err != nil {
		return err
	}
	e.logged.Store(logged)
	return nil
}

func setState(b *pebble.Batch, key store.Key, version uint64, value []byte) error {
	op := b.SetDeferred(1+len(key), versionBytes+len(value))
	op.Key[0] = stateByte
	copy(op.Key[1:], key)
	binary.BigEndian.PutUint64(op.Value, version)
	copy(op.Value[versionBytes:], value)
	return op.Finish()
}

// get reads the latest record, from memory when it was written lately.
func (e *Engine) get(key store.Key) (store.Record, error) {
	record, ok := e.records.get(key)
	if !ok {
		return get(e.db, key)
	}
	if record.Version == 0 {
		return store.Record{}, store.ErrNotFound
	}
	return record, nil
}

// storedVersion is a key's version before the group, 0 for none.
func (e *Engine) storedVersion(key store.Key) (uint64, error) {
	record, err := e.get(key)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	return record.Version, err
}
