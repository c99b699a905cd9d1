package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-iot/muster/internal/store"
)

const (
	// groupBatches and groupBytes bound one transaction.
	groupBatches = 1000
	groupBytes   = 8 << 20
	// groupTimeout bounds one transaction; a server that takes longer counts
	// as away.
	groupTimeout = 30 * time.Second
	// resolveTimeout bounds how long callers wait to learn the outcome of a
	// commit whose answer was lost.
	resolveTimeout = 15 * time.Second
)

// committer owns the one connection that writes.
type committer struct {
	config *pgx.ConnConfig
	// writer names this committer in the server.
	writer  string
	tail    *store.Tail
	metrics *metrics
	log     *slog.Logger

	conn *pgx.Conn
	// group numbers the transactions of this committer.
	group int64
	// retryAt and pause hold back attempts to connect while the server is away.
	retryAt time.Time
	pause   time.Duration
}

// newCommitter prepares a committer that connects on its first use.
func newCommitter(config *pgx.ConnConfig, writer string, t *store.Tail, m *metrics, log *slog.Logger) *committer {
	c := named(config, "muster committer "+writer)
	// A node that freezes in the middle of a commit must not hold up the others.
	c.RuntimeParams["idle_in_transaction_session_timeout"] = "10000"
	c.RuntimeParams["synchronous_commit"] = "on"
	return &committer{config: c, writer: writer, tail: t, metrics: m, log: log, pause: firstPause}
}

// run commits what the queue holds until closing closes and the queue is empty.
func (c *committer) run(ctx context.Context, queue <-chan *store.Pending, closing <-chan struct{}) {
	defer c.goodbye(ctx)
	for {
		select {
		case p := <-queue:
			c.commit(ctx, collect(p, queue))
			continue
		case <-closing:
		}
		select {
		case p := <-queue:
			c.commit(ctx, collect(p, queue))
		default:
			return
		}
	}
}

// collect adds to the first batch what waits behind it, within bounds.
func collect(first *store.Pending, queue <-chan *store.Pending) []*store.Pending {
	batches, size := []*store.Pending{first}, first.Bytes()
	for len(batches) < groupBatches && size < groupBytes {
		select {
		case p := <-queue:
			batches = append(batches, p)
			size += p.Bytes()
		default:
			return batches
		}
	}
	return batches
}

// commit carries out one group and answers each caller.
func (c *committer) commit(ctx context.Context, batches []*store.Pending) {
	batches = present(batches)
	if len(batches) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, groupTimeout)
	defer cancel()
	started := time.Now()
	t, err := c.begin(ctx, batches)
	if err != nil {
		c.drop(ctx)
		c.refuse(batches, err)
		return
	}
	for _, p := range batches {
		if err := t.group.Add(p, t.version); err != nil {
			p.Answer(err)
		}
	}
	if len(t.group.Accepted) == 0 {
		c.abandon(ctx)
		return
	}
	if err := c.finish(ctx, t); err != nil {
		c.failed(ctx, t, err)
		return
	}
	c.applied(t)
	c.metrics.observe(len(t.group.Accepted), time.Since(started))
}

// present answers the batches whose callers have gone and returns the others.
func present(batches []*store.Pending) []*store.Pending {
	kept := batches[:0]
	for _, p := range batches {
		if p.Abandoned() {
			p.Answer(context.Canceled)
			continue
		}
		kept = append(kept, p)
	}
	return kept
}

// applied publishes a committed group and answers its callers.
func (c *committer) applied(t *transaction) {
	c.tail.Append(t.group.Events, t.group.Data)
	for _, p := range t.group.Accepted {
		p.Answer(nil)
	}
}

// refuse answers batches of which nothing was applied.
func (c *committer) refuse(batches []*store.Pending, err error) {
	err = classify(err)
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrDiskFull) {
		c.metrics.refused.Add(float64(len(batches)))
	}
	for _, p := range batches {
		p.Answer(fmt.Errorf("commit to the store: %w", err))
	}
}

// failed decides what an error of the second round trip means.
func (c *committer) failed(ctx context.Context, t *transaction, err error) {
	c.drop(ctx)
	accepted := t.group.Accepted
	if away(err) {
		committed, lookErr := c.outcome(ctx, t)
		switch {
		case lookErr != nil:
			c.refuse(accepted, fmt.Errorf("%w: %w: %w", store.ErrUnavailable, store.ErrOutcomeUnknown, errors.Join(err, lookErr)))
		case committed:
			c.log.InfoContext(ctx, "commit was confirmed after the connection was lost", slog.Int("batches", len(accepted)))
			c.applied(t)
		default:
			c.refuse(accepted, err)
		}
		return
	}
	if len(accepted) == 1 || errors.Is(classify(err), store.ErrDiskFull) {
		c.refuse(accepted, err)
		return
	}
	// The server refused one of them: let each stand for itself.
	c.log.WarnContext(ctx, "group of commits is split after an error", slog.Int("batches", len(accepted)), slog.Any("err", err))
	for _, p := range accepted {
		c.commit(context.WithoutCancel(ctx), []*store.Pending{p})
	}
}

// connect returns the committer's connection, made anew when it broke. While
// the server is away, attempts are spaced and those in between fail at once.
func (c *committer) connect(ctx context.Context) (*pgx.Conn, error) {
	if c.conn != nil && !c.conn.IsClosed() {
		return c.conn, nil
	}
	if time.Now().Before(c.retryAt) {
		return nil, fmt.Errorf("%w: the last attempt to connect failed a moment ago", store.ErrUnavailable)
	}
	conn, err := pgx.ConnectConfig(ctx, c.config)
	if err == nil {
		err = c.evict(ctx, conn)
	}
	if err != nil {
		if conn != nil {
			hangUp(ctx, conn)
		}
		c.log.ErrorContext(ctx, "store cannot be reached; commits are refused", slog.Duration("pause", c.pause), slog.Any("err", err))
		c.retryAt = time.Now().Add(c.pause)
		c.pause = min(2*c.pause, longestPause)
		return nil, fmt.Errorf("connect: %w", err)
	}
	if !c.retryAt.IsZero() {
		c.log.InfoContext(ctx, "store is reached again")
	}
	c.conn, c.retryAt, c.pause = conn, time.Time{}, firstPause
	return conn, nil
}

// evict ends what the server still holds of an earlier session of this
// committer, which might hold the head row.
func (c *committer) evict(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE application_name = $1 AND pid <> pg_backend_pid()`, c.config.RuntimeParams["application_name"])
	return err
}

// drop gives the connection up.
func (c *committer) drop(ctx context.Context) {
	if c.conn != nil {
		hangUp(ctx, c.conn)
		c.conn = nil
	}
}

// abandon ends a transaction that has nothing to write.
func (c *committer) abandon(ctx context.Context) {
	if _, err := c.conn.Exec(ctx, "ROLLBACK"); err != nil {
		c.drop(ctx)
	}
}

// goodbye forgets the committer in the server.
func (c *committer) goodbye(ctx context.Context) {
	if c.conn == nil || c.conn.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hangUpTimeout)
	defer cancel()
	if _, err := c.conn.Exec(ctx, "DELETE FROM muster_writers WHERE writer = $1 OR at < now() - interval '7 days'", c.writer); err != nil {
		c.log.DebugContext(ctx, "writer is not forgotten", slog.Any("err", err))
	}
	c.drop(ctx)
}
