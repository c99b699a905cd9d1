package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/muster-iot/muster/internal/store"
)

// statementRows bounds the rows of one statement.
const statementRows = 1000

// transaction is one group between its two round trips.
type transaction struct {
	group    *store.Group
	versions map[store.Key]uint64
	// total is the size of the whole log.
	total int64
}

// begin is the first round trip: it takes the head row and reads the versions
// that the batches expect.
func (c *committer) begin(ctx context.Context, batches []*store.Pending) (*transaction, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	keys := expected(batches)
	t := &transaction{versions: make(map[store.Key]uint64, len(keys))}
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	b.Queue("SELECT version, seq, total FROM muster_head WHERE id = 1 FOR UPDATE").QueryRow(func(row pgx.Row) error {
		var version, seq int64
		if err := row.Scan(&version, &seq, &t.total); err != nil {
			return err
		}
		t.group = store.NewGroup(uint64(version), uint64(seq))
		return nil
	})
	for start := 0; start < len(keys); start += statementRows {
		part := keys[start:min(len(keys), start+statementRows)]
		b.Queue("SELECT key, version FROM muster_kv WHERE key = ANY($1)", part).Query(t.readVersions)
	}
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	return t, nil
}

// expected returns each key that some batch expects, once.
func expected(batches []*store.Pending) [][]byte {
	seen := map[store.Key]bool{}
	var keys [][]byte
	for _, p := range batches {
		for _, x := range p.Expect {
			if !seen[x.Key] {
				seen[x.Key] = true
				keys = append(keys, []byte(x.Key))
			}
		}
	}
	return keys
}

// readVersions collects what one statement of begin returned.
func (t *transaction) readVersions(rows pgx.Rows) error {
	for rows.Next() {
		var key []byte
		var version int64
		if err := rows.Scan(&key, &version); err != nil {
			return err
		}
		t.versions[store.Key(key)] = uint64(version)
	}
	return rows.Err()
}

// version is the version of an expected key before the group.
func (t *transaction) version(key store.Key) (uint64, error) { return t.versions[key], nil }

// errNotCommitted is a COMMIT that the server answered with a rollback.
var errNotCommitted = errors.New("the server rolled the transaction back")

// finish is the second round trip: it writes everything and commits.
func (c *committer) finish(ctx context.Context, t *transaction) error {
	c.group++
	b := &pgx.Batch{}
	t.queueWrites(b)
	t.queueEvents(b)
	b.Queue("UPDATE muster_head SET version = $1, seq = $2, total = $3 WHERE id = 1",
		int64(t.group.Version()), int64(t.group.Seq()), t.total)
	b.Queue(`INSERT INTO muster_writers VALUES ($1, $2, now())
		ON CONFLICT (writer) DO UPDATE SET last_group = excluded.last_group, at = excluded.at`, c.writer, c.group)
	commit := b.Queue("COMMIT")
	results := c.conn.SendBatch(ctx, b)
	for range b.Len() - 1 {
		if _, err := results.Exec(); err != nil {
			return errors.Join(err, results.Close())
		}
	}
	tag, err := results.Exec()
	if err := errors.Join(err, results.Close()); err != nil {
		return fmt.Errorf("%s: %w", commit.SQL, err)
	}
	if tag.String() != "COMMIT" {
		return errNotCommitted
	}
	return nil
}

// queueWrites puts the final writes into statements of bounded size.
func (t *transaction) queueWrites(b *pgx.Batch) {
	var keys, values, gone [][]byte
	var versions []int64
	for key, final := range t.group.Final {
		if final.Write.Delete {
			gone = append(gone, []byte(key))
			continue
		}
		value := final.Write.Value
		if value == nil {
			value = []byte{} // a nil slice would become NULL
		}
		keys, values, versions = append(keys, []byte(key)), append(values, value), append(versions, int64(final.Version))
	}
	for start := 0; start < len(keys); start += statementRows {
		end := min(len(keys), start+statementRows)
		b.Queue(`INSERT INTO muster_kv SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bigint[])
			ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version`,
			keys[start:end], values[start:end], versions[start:end])
	}
	for start := 0; start < len(gone); start += statementRows {
		b.Queue("DELETE FROM muster_kv WHERE key = ANY($1)", gone[start:min(len(gone), start+statementRows)])
	}
}

// queueEvents appends the events in statements of bounded size and tells the
// other processes.
func (t *transaction) queueEvents(b *pgx.Batch) {
	data := t.group.Data
	if len(data) == 0 {
		return
	}
	first := int64(t.group.Seq()) - int64(len(data)) + 1
	seqs, totals := make([]int64, len(data)), make([]int64, len(data))
	for i, d := range data {
		t.total += int64(len(d))
		seqs[i], totals[i] = first+int64(i), t.total
	}
	for start := 0; start < len(seqs); start += statementRows {
		end := min(len(seqs), start+statementRows)
		b.Queue("INSERT INTO muster_events SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])",
			seqs[start:end], totals[start:end], data[start:end])
	}
	b.Queue("SELECT pg_notify('" + channel + "', '')")
}

// outcome finds out whether a group whose answer was lost has committed. The
// head row is taken first: once it is ours, the old session is over.
func (c *committer) outcome(ctx context.Context, t *transaction) (bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resolveTimeout)
	defer cancel()
	for {
		committed, err := c.lastGroup(ctx)
		if err == nil {
			return committed == c.group, nil
		}
		c.drop(ctx)
		if !rest(ctx, firstPause) {
			return false, fmt.Errorf("look up %d batches: %w", len(t.group.Accepted), err)
		}
	}
}

// lastGroup reads the last group of this committer that has committed.
func (c *committer) lastGroup(ctx context.Context) (int64, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return 0, err
	}
	var last int64
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	b.Queue("SELECT id FROM muster_head WHERE id = 1 FOR UPDATE")
	b.Queue("SELECT coalesce(max(last_group), 0) FROM muster_writers WHERE writer = $1", c.writer).
		QueryRow(func(row pgx.Row) error { return row.Scan(&last) })
	b.Queue("ROLLBACK")
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return 0, fmt.Errorf("look up the last commit: %w", err)
	}
	return last, nil
}
