package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/store"
)

const (
	// queueLength bounds the batches that wait; further callers wait in Commit.
	queueLength = 4096
	// defaultConns is the size of the pool for reads.
	defaultConns = 16
	// tailEvents and tailBytes bound the newest events kept decoded.
	tailEvents = 16384
	tailBytes  = 32 << 20
)

// Options of Open.
type Options struct {
	// URL is a PostgreSQL connection string.
	URL    string
	Logger *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
	// Conns bounds the connections for reads; 0 means 16. The committer and
	// the watcher have one more each.
	Conns int32
}

// Engine is an open store.
type Engine struct {
	pool    *pgxpool.Pool
	log     *slog.Logger
	metrics *metrics

	queue     chan *store.Pending
	committer *committer
	tail      *store.Tail

	// entering is held for reading while a caller enqueues, so that Close can
	// wait for the last one.
	entering sync.RWMutex
	closed   atomic.Bool
	closing  chan struct{}
	running  sync.WaitGroup
	end      context.CancelFunc
}

var _ store.Store = (*Engine)(nil)

// Open connects, brings the tables up to date and starts the engine. ctx
// bounds the opening only.
func Open(ctx context.Context, o Options) (*Engine, error) {
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, fmt.Errorf("read the store's address: %w", err)
	}
	config.MaxConns = defaultConns
	if o.Conns > 0 {
		config.MaxConns = o.Conns
	}
	tune(config.ConnConfig, "muster")
	if err := migrate(ctx, config.ConnConfig); err != nil {
		return nil, classify(err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open the store's connections: %w", classify(err))
	}
	metrics, err := newMetrics(o.Registerer)
	if err != nil {
		pool.Close()
		return nil, err
	}
	e := &Engine{
		pool:    pool,
		log:     o.Logger,
		metrics: metrics,
		queue:   make(chan *store.Pending, queueLength),
		closing: make(chan struct{}),
	}
	if err := settle(ctx, pool); err != nil {
		pool.Close()
		return nil, err
	}
	h, err := e.head(ctx)
	if err != nil {
		pool.Close()
		return nil, err
	}
	e.tail = store.NewTail(h.seq, tailEvents, tailBytes)
	e.run(context.WithoutCancel(ctx), config.ConnConfig)
	return e, nil
}

// settle waits for the last commit of a process that was killed: the server may
// still carry it out, and what is read at start must have it. Every commit holds
// the head row.
func settle(ctx context.Context, pool *pgxpool.Pool) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	var id int
	if err := pool.QueryRow(ctx, "SELECT id FROM muster_head WHERE id = 1 FOR UPDATE").Scan(&id); err != nil {
		return fmt.Errorf("wait for commits under way: %w", classify(err))
	}
	return nil
}

// settleTimeout bounds that wait.
const settleTimeout = 30 * time.Second

// run starts the goroutines. They outlive the call that opened the engine and
// end with Close.
func (e *Engine) run(ctx context.Context, config *pgx.ConnConfig) {
	ctx, end := context.WithCancel(ctx)
	e.end = end
	e.committer = newCommitter(config, rand.Text(), e.tail, e.metrics, e.log)
	w := &watcher{config: named(config, "muster watcher"), tail: e.tail, log: e.log}
	e.running.Go(func() { e.committer.run(ctx, e.queue, e.closing) })
	e.running.Go(func() { w.run(ctx, e.closing) })
}

// tune sets what every session needs. Plans must not depend on statistics: a
// fresh table without any would be scanned whole for each group.
func tune(c *pgx.ConnConfig, name string) {
	c.RuntimeParams["application_name"] = name
	c.RuntimeParams["enable_seqscan"] = "off"
	c.RuntimeParams["plan_cache_mode"] = "force_generic_plan"
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
}

// connectTimeout bounds one attempt to connect.
const connectTimeout = 5 * time.Second

// named returns a copy of the configuration with another application name.
func named(config *pgx.ConnConfig, name string) *pgx.ConnConfig {
	c := config.Copy()
	c.RuntimeParams["application_name"] = name
	return c
}

// Commit implements store.Store.
func (e *Engine) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if err := ctx.Err(); err != nil {
		return store.Position{}, err
	}
	if err := checkKeys(b); err != nil {
		return store.Position{}, err
	}
	p, err := store.NewPending(ctx, b)
	if err != nil {
		return store.Position{}, err
	}
	if err := e.enqueue(ctx, p); err != nil {
		return store.Position{}, err
	}
	if err := p.Wait(); err != nil {
		return store.Position{}, err
	}
	return p.Position, nil
}

// maxKey is what fits into an index entry with room to spare.
const maxKey = 2048

// checkKeys refuses a key that would fail the whole group in the server.
func checkKeys(b store.Batch) error {
	for _, w := range b.Writes {
		if len(w.Key) > maxKey {
			return fmt.Errorf("key of %d bytes is too long, %d are allowed", len(w.Key), maxKey)
		}
	}
	return nil
}

// enqueue hands the batch to the committer.
func (e *Engine) enqueue(ctx context.Context, p *store.Pending) error {
	e.entering.RLock()
	defer e.entering.RUnlock()
	if e.closed.Load() {
		return store.ErrClosed
	}
	select {
	case e.queue <- p:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close implements store.Store. Batches that are queued are still committed.
func (e *Engine) Close() error {
	e.entering.Lock()
	first := !e.closed.Swap(true)
	e.entering.Unlock()
	if !first {
		return nil
	}
	e.tail.Close()
	close(e.closing)
	e.running.Wait()
	e.end()
	e.pool.Close()
	return nil
}

// fail turns an error of a read into what callers may test for.
func (e *Engine) fail(ctx context.Context, doing string, err error) error {
	if e.closed.Load() {
		return store.ErrClosed
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, store.ErrTrimmed) || errors.Is(err, store.ErrNotFound) {
		return err
	}
	return fmt.Errorf("%s: %w", doing, classify(err))
}
