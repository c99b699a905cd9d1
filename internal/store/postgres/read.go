package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

// querier is the part of the driver that the pool and a transaction share.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// scanPage is how many records a scan fetches at once. No connection is held
// while the caller looks at them.
const scanPage = 512

// retry runs a read again when the pool gave it a connection that had broken
// since its last use.
func (e *Engine) retry(ctx context.Context, doing string, read func() error) error {
	if e.closed.Load() {
		return store.ErrClosed
	}
	err := read()
	if err != nil && ctx.Err() == nil && !errors.Is(err, pgx.ErrNoRows) && away(err) {
		e.pool.Reset()
		err = read()
	}
	if err != nil {
		return e.fail(ctx, doing, err)
	}
	return nil
}

// Get implements store.Reader.
func (e *Engine) Get(ctx context.Context, key store.Key) (store.Record, error) {
	records, err := e.GetMany(ctx, []store.Key{key})
	return one(records, err)
}

// one returns the only record, or ErrNotFound.
func one(records []store.Record, err error) (store.Record, error) {
	if err != nil {
		return store.Record{}, err
	}
	if records[0].Version == 0 {
		return store.Record{}, store.ErrNotFound
	}
	return records[0], nil
}

// GetMany implements store.Reader.
func (e *Engine) GetMany(ctx context.Context, keys []store.Key) (records []store.Record, err error) {
	err = e.retry(ctx, "read the store", func() error {
		records, err = getMany(ctx, e.pool, keys)
		return err
	})
	return records, err
}

// getMany reads keys in statements of bounded size.
func getMany(ctx context.Context, q querier, keys []store.Key) ([]store.Record, error) {
	found := make(map[store.Key]store.Record, len(keys))
	for start := 0; start < len(keys); start += statementRows {
		part := keys[start:min(len(keys), start+statementRows)]
		raw := make([][]byte, len(part))
		for i, key := range part {
			raw[i] = []byte(key)
		}
		records, err := query(ctx, q, "SELECT key, value, version FROM muster_kv WHERE key = ANY($1)", raw)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			found[r.Key] = r
		}
	}
	records := make([]store.Record, len(keys))
	for i, key := range keys {
		records[i] = found[key]
		records[i].Key = key
	}
	return records, nil
}

// query reads all records that a statement returns.
func query(ctx context.Context, q querier, sql string, args ...any) ([]store.Record, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (store.Record, error) {
		var key, value []byte
		var version int64
		err := row.Scan(&key, &value, &version)
		return store.Record{Key: store.Key(key), Value: value, Version: uint64(version)}, err
	})
}

// page reads up to scanPage records from the start of a range.
func page(ctx context.Context, q querier, r store.Range) ([]store.Record, error) {
	const columns = "SELECT key, value, version FROM muster_kv WHERE key >= $1"
	if r.To == "" {
		return query(ctx, q, columns+" ORDER BY key LIMIT $2", []byte(r.From), scanPage)
	}
	return query(ctx, q, columns+" AND key < $2 ORDER BY key LIMIT $3", []byte(r.From), []byte(r.To), scanPage)
}

// Scan implements store.Reader. A range of more than one page is read from a
// snapshot, so that it is of one moment.
func (e *Engine) Scan(ctx context.Context, r store.Range, fn func(store.Record) error) error {
	var records []store.Record
	err := e.retry(ctx, "scan the store", func() (err error) {
		records, err = page(ctx, e.pool, r)
		return err
	})
	if err != nil {
		return err
	}
	if len(records) < scanPage {
		return visit(records, fn)
	}
	s, err := e.Snapshot(ctx)
	if err != nil {
		return err
	}
	return errors.Join(s.Scan(ctx, r, fn), s.Close())
}

// visit calls fn for each record; Stop ends it without an error.
func visit(records []store.Record, fn func(store.Record) error) error {
	for _, record := range records {
		if err := fn(record); err != nil {
			if errors.Is(err, store.Stop) {
				return nil
			}
			return err
		}
	}
	return nil
}

// head is the row that holds the counters.
type head struct {
	version, seq, trimmed uint64
	total, trimmedTotal   uint64
}

// readHead reads the counters.
func readHead(ctx context.Context, q querier) (head, error) {
	var version, seq, total, trimmed, trimmedTotal int64
	err := q.QueryRow(ctx, "SELECT version, seq, total, trimmed_seq, trimmed_total FROM muster_head WHERE id = 1").
		Scan(&version, &seq, &total, &trimmed, &trimmedTotal)
	return head{
		version: uint64(version), seq: uint64(seq), trimmed: uint64(trimmed),
		total: uint64(total), trimmedTotal: uint64(trimmedTotal),
	}, err
}

// head reads the counters through the pool.
func (e *Engine) head(ctx context.Context) (h head, err error) {
	err = e.retry(ctx, "read the end of the log", func() error {
		h, err = readHead(ctx, e.pool)
		return err
	})
	return h, err
}

// Head implements store.Store.
func (e *Engine) Head(ctx context.Context) (store.Cursor, error) {
	h, err := e.head(ctx)
	return store.CursorAt(store.Position{Seq: h.seq}), err
}

// Oldest implements store.Store.
func (e *Engine) Oldest(ctx context.Context) (store.Cursor, error) {
	h, err := e.head(ctx)
	return store.CursorAt(store.Position{Seq: h.trimmed}), err
}

// Stats implements store.Store.
func (e *Engine) Stats(ctx context.Context) (store.Stats, error) {
	h, err := e.head(ctx)
	return store.Stats{Events: h.seq - h.trimmed, EventBytes: h.total - h.trimmedTotal}, err
}

// Wait implements store.Store.
func (e *Engine) Wait(ctx context.Context, after store.Cursor) error {
	return e.tail.Wait(ctx, after.Seq(0))
}

// Events implements store.Store.
func (e *Engine) Events(ctx context.Context, after store.Cursor, limit int) ([]event.Envelope, store.Cursor, error) {
	if e.closed.Load() {
		return nil, after, store.ErrClosed
	}
	seq := after.Seq(0)
	envs := e.tail.Read(seq, limit)
	if len(envs) == 0 {
		var err error
		if envs, err = e.readEvents(ctx, seq, limit); err != nil {
			return nil, after, err
		}
	}
	if len(envs) == 0 {
		return nil, after, nil
	}
	return envs, after.Advance(store.Position{Seq: envs[len(envs)-1].Seq}), nil
}

// readEvents reads the log from the server. What is missing there was trimmed,
// or is not written yet.
func (e *Engine) readEvents(ctx context.Context, seq uint64, limit int) ([]event.Envelope, error) {
	for {
		envs, err := e.fetchEvents(ctx, seq, limit)
		if err != nil {
			return nil, err
		}
		if len(envs) > 0 && envs[0].Seq == seq+1 {
			return envs, nil
		}
		h, err := e.head(ctx)
		switch {
		case err != nil:
			return nil, err
		case seq < h.trimmed:
			return nil, store.ErrTrimmed
		case h.seq < seq:
			// The reader has seen events of another log.
			return nil, store.ErrTrimmed
		case h.seq == seq:
			return nil, nil
		case len(envs) > 0:
			return nil, fmt.Errorf("event log has %d where %d must stand", envs[0].Seq, seq+1)
		}
		// They were committed between the two reads.
	}
}

// storedEvent is a row of the log.
type storedEvent struct {
	Seq  int64
	Data []byte
}

// fetchEvents reads events behind seq in log order, for all readers near the
// end of the log.
func (e *Engine) fetchEvents(ctx context.Context, seq uint64, limit int) ([]event.Envelope, error) {
	var stored []storedEvent
	err := e.retry(ctx, "read events", func() (err error) {
		stored, err = readLog(ctx, e.pool, seq, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	envs, data := make([]event.Envelope, len(stored)), make([][]byte, len(stored))
	shared := make([]*event.Envelope, len(stored))
	for i, s := range stored {
		if envs[i], err = event.Decode(s.Data); err != nil {
			return nil, fmt.Errorf("read event %d: %w", s.Seq, err)
		}
		envs[i].Seq, data[i], shared[i] = uint64(s.Seq), s.Data, &envs[i]
	}
	e.tail.Append(shared, data)
	return envs, nil
}

// readLog reads rows of the log behind seq.
func readLog(ctx context.Context, q querier, seq uint64, limit int) ([]storedEvent, error) {
	rows, err := q.Query(ctx, "SELECT seq, data FROM muster_events WHERE seq > $1 ORDER BY seq LIMIT $2", int64(min(seq, 1<<62)), limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[storedEvent])
}

// trimRows bounds the events that one statement deletes.
const trimRows = 10000

// Trim implements store.Store. The limit moves first; then the events go in
// portions that hold up nobody.
func (e *Engine) Trim(ctx context.Context, upTo store.Cursor) error {
	var trimmed int64
	err := e.retry(ctx, "trim events", func() error {
		return e.pool.QueryRow(ctx, `UPDATE muster_head h SET trimmed_seq = e.seq, trimmed_total = e.total
			FROM (SELECT seq, total FROM muster_events WHERE seq <= $1 ORDER BY seq DESC LIMIT 1) e
			WHERE h.id = 1 AND h.trimmed_seq < e.seq RETURNING h.trimmed_seq`, int64(min(upTo.Seq(0), 1<<62))).Scan(&trimmed)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	e.tail.Trim(uint64(trimmed))
	for {
		var deleted int64
		err := e.retry(ctx, "trim events", func() error {
			tag, err := e.pool.Exec(ctx, `DELETE FROM muster_events WHERE seq IN
				(SELECT seq FROM muster_events WHERE seq <= $1 ORDER BY seq LIMIT $2)`, trimmed, trimRows)
			deleted = tag.RowsAffected()
			return err
		})
		if err != nil || deleted < trimRows {
			return err
		}
	}
}
