// Package mqttstore makes the broker's persistent sessions, the messages that
// wait for them and retained messages durable. It implements broker.Keeper over
// the storage contract and knows keys and encodings; what is kept and when is
// the broker's decision.
//
// Changes wait in memory, by key, for the one goroutine of Run, which writes all
// that waits in one commit: whatever comes while a commit is under way shares
// the next one. A message that is delivered and acknowledged before its turn is
// never written. The memory is bounded; beyond it changes that somebody waits
// for are refused, and the others are dropped and counted. The package emits no
// events: telemetry does not pass through the event log.
package mqttstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

// Bounds of what waits and of one commit.
const (
	maxWaitingBytes = 256 << 20
	maxCommitBytes  = 4 << 20
	maxCommitWrites = 10_000
	firstPause      = 20 * time.Millisecond
	longestPause    = 2 * time.Second
	// overhead is what a waiting change costs beside its payload.
	overhead = 256
	// subscriptionOverhead is what one subscription of a waiting record costs
	// beside its filter.
	subscriptionOverhead = 40
)

// Options of New; Store and Logger are required.
type Options struct {
	Store  store.Store
	Logger *slog.Logger
	// MaxWaiting bounds the bytes of changes in line; 0 is 256 MiB.
	MaxWaiting int
	// Registerer takes the metrics; nil keeps them private.
	Registerer prometheus.Registerer
}

// waiting is a change in line and who waits for it.
type waiting struct {
	change broker.Change
	bytes  int
	done   []func(error)
	// tried says that a commit has failed, which may have written it all the same.
	tried bool
}

// Keeper is the durable side of a broker. It is safe for concurrent use.
type Keeper struct {
	store   store.Store
	log     *slog.Logger
	writes  prometheus.Counter
	spared  prometheus.Counter
	dropped prometheus.Counter
	most    int
	// flushes numbers the calls of Flush.
	flushes atomic.Uint64

	mu sync.Mutex
	// line holds the newest change of each key, order the keys by age; a key
	// whose change was withdrawn stays in order and is passed over.
	line  map[store.Key]*waiting
	order []store.Key
	bytes int
	// spent are those who waited for a change that was withdrawn.
	spent []func(error)
	busy  bool
	wake  chan struct{}
	// idle is closed and replaced whenever nothing is left to do.
	idle chan struct{}
}

var _ broker.Keeper = (*Keeper)(nil)

// New returns a Keeper; Run writes what it is given.
func New(o Options) *Keeper {
	k := &Keeper{
		store: o.Store, log: o.Logger, line: map[store.Key]*waiting{}, wake: make(chan struct{}, 1), idle: make(chan struct{}),
		writes:  prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_mqttstore_writes_total", Help: "Changes of sessions, waiting and retained messages that were written."}),
		spared:  prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_mqttstore_spared_total", Help: "Messages that were acknowledged before they had to be written."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_mqttstore_dropped_total", Help: "Changes that found no room in memory while the store was slow."}),
	}
	if k.most = o.MaxWaiting; k.most == 0 {
		k.most = maxWaitingBytes
	}
	if o.Registerer != nil {
		waits := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_mqttstore_waiting_bytes", Help: "Changes that wait for the store."}, k.waitingBytes)
		o.Registerer.MustRegister(k.writes, k.spared, k.dropped, waits)
	}
	return k
}

// waitingBytes is for the metric.
func (k *Keeper) waitingBytes() float64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return float64(k.bytes)
}

// errBusy refuses a change while too many wait.
var errBusy = fault.New(fault.Throttling, "Too many messages wait for the store")

// Save implements broker.Keeper.
func (k *Keeper) Save(c broker.Change, done func(error)) {
	key := keyOf(&c)
	size := sizeOf(&c)
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.nudge()
	before := k.line[key]
	// A session that nobody waits for is taken all the same: there is one for each
	// client, and without it its messages mean nothing.
	unwaited := c.Kind == broker.PutSession && done == nil
	if before == nil && k.bytes+size > k.most && puts(c.Kind) && !unwaited {
		k.dropped.Inc()
		if done != nil {
			k.spent = append(k.spent, func(error) { done(errBusy) })
		}
		return
	}
	if before == nil {
		before = &waiting{}
		k.line[key] = before
		k.order = append(k.order, key)
	} else if before.change.Kind == broker.PutMessage && c.Kind == broker.DropMessage && !before.tried {
		// Numbers are used once: nothing of it has been written.
		k.spared.Inc()
		k.bytes -= before.bytes
		k.spent = append(k.spent, before.done...)
		if done != nil {
			k.spent = append(k.spent, done)
		}
		delete(k.line, key)
		return
	}
	k.bytes += size - before.bytes
	before.change, before.bytes = c, size
	if done != nil {
		before.done = append(before.done, done)
	}
}

// sizeOf is what a change counts for while it waits.
func sizeOf(c *broker.Change) int {
	size := overhead
	if c.Message != nil {
		size += len(c.Message.Payload) + len(c.Message.Topic)
	}
	if c.Session != nil {
		for i := range c.Session.Subscriptions {
			size += len(c.Session.Subscriptions[i].Filter) + subscriptionOverhead
		}
		if c.Session.Will != nil {
			size += len(c.Session.Will.Message.Payload)
		}
	}
	return size
}

// puts reports whether a change adds something.
func puts(kind broker.ChangeKind) bool {
	return kind == broker.PutSession || kind == broker.PutMessage || kind == broker.PutRetained
}

// nudge wakes Run.
func (k *Keeper) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends. Call Drain first for an ordered stop.
func (k *Keeper) Run(ctx context.Context) error {
	pause := firstPause
	for {
		batch, keys, spent := k.take()
		for _, done := range spent {
			done(nil)
		}
		if len(batch) == 0 {
			if !k.rest(ctx) {
				return nil
			}
			continue
		}
		err := k.write(ctx, batch, keys)
		k.settle(batch, keys, err)
		switch {
		case err == nil:
			pause = firstPause
			continue
		case ctx.Err() != nil:
			return nil
		}
		k.log.ErrorContext(ctx, "sessions and messages are not stored", slog.Int("changes", len(batch)), slog.Any("err", err))
		select {
		case <-time.After(pause):
			pause = min(2*pause, longestPause)
		case <-ctx.Done():
			return nil
		}
	}
}

// rest waits for work; false means that ctx has ended.
func (k *Keeper) rest(ctx context.Context) bool {
	k.mu.Lock()
	k.busy = len(k.line) > 0 || len(k.spent) > 0
	if !k.busy {
		close(k.idle)
		k.idle = make(chan struct{})
	}
	k.mu.Unlock()
	select {
	case <-k.wake:
		return true
	case <-ctx.Done():
		return false
	}
}

// take removes the oldest changes from the line, as many as one commit bears,
// and those whose wait is over.
func (k *Keeper) take() (batch []*waiting, keys []store.Key, spent []func(error)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	spent, k.spent = k.spent, nil
	k.busy = true
	bytes, taken := 0, 0
	for _, key := range k.order {
		if len(batch) == maxCommitWrites || bytes > maxCommitBytes {
			break
		}
		taken++
		w := k.line[key]
		if w == nil {
			continue
		}
		delete(k.line, key)
		k.bytes -= w.bytes
		bytes += w.bytes
		batch, keys = append(batch, w), append(keys, key)
	}
	if k.order = k.order[taken:]; len(k.order) == 0 {
		k.order = nil
	}
	return batch, keys, spent
}

// write commits changes as one batch.
func (k *Keeper) write(ctx context.Context, batch []*waiting, keys []store.Key) error {
	b := store.Batch{Writes: make([]store.Write, len(batch))}
	for i, w := range batch {
		value, err := encode(&w.change)
		if err != nil {
			return fmt.Errorf("encode %s: %w", keys[i], err)
		}
		b.Writes[i] = store.Write{Key: keys[i], Value: value, Delete: !puts(w.change.Kind)}
	}
	if _, err := k.store.Commit(ctx, b); err != nil {
		return fmt.Errorf("commit sessions: %w", err)
	}
	k.writes.Add(float64(len(batch)))
	return nil
}

// settle tells those who wait. Changes that failed and that nobody waits for
// go back into the line, unless their key has a newer one.
func (k *Keeper) settle(batch []*waiting, keys []store.Key, err error) {
	for i, w := range batch {
		for _, done := range w.done {
			done(err)
		}
		if err == nil || len(w.done) > 0 && w.change.Kind == broker.PutMessage {
			continue
		}
		k.mu.Lock()
		if k.line[keys[i]] == nil {
			w.done, w.tried = nil, true
			k.line[keys[i]] = w
			k.order = append(k.order, keys[i])
			k.bytes += w.bytes
		}
		k.mu.Unlock()
	}
}

// Drain waits until everything saved so far is durable.
func (k *Keeper) Drain(ctx context.Context) error {
	for {
		k.mu.Lock()
		empty, idle := !k.busy && len(k.line) == 0 && len(k.spent) == 0, k.idle
		k.mu.Unlock()
		if empty {
			return nil
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return fmt.Errorf("flush sessions: %w", ctx.Err())
		}
	}
}

// Flush waits until everything saved before the call is durable, whatever
// comes meanwhile.
func (k *Keeper) Flush(ctx context.Context) error {
	done := make(chan error, 1)
	// The line is worked off in order: behind all that waits, a message is dropped
	// that never was. No client id is empty.
	k.Save(broker.Change{Kind: broker.DropMessage, Seq: k.flushes.Add(1)}, func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("flush sessions: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush sessions: %w", ctx.Err())
	}
}

// Load implements broker.Keeper.
func (k *Keeper) Load(ctx context.Context, fn func(broker.Change) error) error {
	for _, kind := range []string{kindSession, kindMessage, kindRetained} {
		err := k.store.Scan(ctx, store.Under(kind), func(r store.Record) error {
			c, err := decode(r)
			if err != nil {
				return err
			}
			return fn(c)
		})
		if err != nil && !errors.Is(err, store.Stop) {
			return fmt.Errorf("read %s: %w", kind, err)
		}
	}
	return nil
}
