package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

// Checkpoint implements store.Store.
func (e *Engine) Checkpoint(ctx context.Context, w io.Writer) error {
	s, err := e.snapshot(ctx)
	if err != nil {
		return err
	}
	return errors.Join(s.dump(ctx, w), s.end(ctx))
}

// dump writes the snapshot in the engine-independent form.
func (s *snapshot) dump(ctx context.Context, w io.Writer) error {
	d, err := store.NewDumpWriter(w, store.DumpHeader{Version: s.head.version, Seq: s.head.seq, Trimmed: s.head.trimmed})
	if err != nil {
		return err
	}
	if err := s.Scan(ctx, store.Range{}, d.Record); err != nil {
		return err
	}
	for after := s.head.trimmed; after < s.head.seq; {
		var stored []storedEvent
		err := s.use(ctx, "read events", func(tx pgx.Tx) (err error) {
			stored, err = readLog(ctx, tx, after, scanPage)
			return err
		})
		if err != nil {
			return err
		}
		if len(stored) == 0 {
			return fmt.Errorf("event log has no event %d of %d", after+1, s.head.seq)
		}
		for _, entry := range stored {
			after = uint64(entry.Seq)
			if err := d.Event(after, entry.Data); err != nil {
				return err
			}
		}
	}
	return d.Close()
}

// restoreBytes is how much of a copy is sent at once.
const restoreBytes = 4 << 20

// Restore fills an empty store from a checkpoint of any engine, in one
// transaction.
func (e *Engine) Restore(ctx context.Context, r io.Reader) error {
	tx, err := e.pool.Begin(ctx)
	if err != nil {
		return e.fail(ctx, "restore", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // a no-op after Commit
	var blank bool
	err = tx.QueryRow(ctx, `SELECT version = 0 AND seq = 0 AND NOT EXISTS (SELECT FROM muster_kv) AND NOT EXISTS (SELECT FROM muster_events)
		FROM muster_head WHERE id = 1 FOR UPDATE`).Scan(&blank)
	if err != nil {
		return e.fail(ctx, "restore", err)
	}
	if !blank {
		return store.ErrNotEmpty
	}
	header, err := load(ctx, tx, r)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := tx.Commit(ctx); err != nil {
		return e.fail(ctx, "restore", err)
	}
	e.tail.Advance(header.Seq)
	if _, err := e.pool.Exec(ctx, "ANALYZE muster_kv, muster_events"); err != nil {
		return e.fail(ctx, "measure the restored tables", err)
	}
	return nil
}

// load copies the records, the events and the counters.
func load(ctx context.Context, tx pgx.Tx, r io.Reader) (store.DumpHeader, error) {
	records := &copier{tx: tx, table: "muster_kv", columns: []string{"key", "value", "version"}}
	events := &copier{tx: tx, table: "muster_events", columns: []string{"seq", "total", "data"}}
	var total int64
	header, err := store.ReadDump(ctx, r, store.DumpReader{
		Record: func(rec store.Record) error {
			return records.add(ctx, len(rec.Value), []byte(rec.Key), append([]byte{}, rec.Value...), int64(rec.Version))
		},
		Event: func(seq uint64, data []byte) error {
			if _, err := event.Decode(data); err != nil {
				return err
			}
			total += int64(len(data))
			return events.add(ctx, len(data), int64(seq), total, data)
		},
	})
	if err != nil {
		return header, err
	}
	if err := errors.Join(records.flush(ctx), events.flush(ctx)); err != nil {
		return header, err
	}
	_, err = tx.Exec(ctx, "UPDATE muster_head SET version = $1, seq = $2, total = $3, trimmed_seq = $4, trimmed_total = 0 WHERE id = 1",
		int64(header.Version), int64(header.Seq), total, int64(header.Trimmed))
	return header, err
}

// copier sends rows to one table in portions.
type copier struct {
	tx      pgx.Tx
	table   string
	columns []string
	rows    [][]any
	size    int
}

// add takes one row of about size bytes.
func (c *copier) add(ctx context.Context, size int, row ...any) error {
	c.rows = append(c.rows, row)
	if c.size += size; c.size < restoreBytes && len(c.rows) < trimRows {
		return nil
	}
	return c.flush(ctx)
}

// flush sends what was taken.
func (c *copier) flush(ctx context.Context) error {
	_, err := c.tx.CopyFrom(ctx, pgx.Identifier{c.table}, c.columns, pgx.CopyFromRows(c.rows))
	c.rows, c.size = nil, 0
	return err
}
