package postgres

import (
	"errors"
	"maps"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/storetest"
	"github.com/muster-iot/muster/internal/testkit"
)

// counting is writers that count keys up, each on its own engine, whatever happens
// to the server, and that remember what was acknowledged.
type counting struct {
	mu      sync.Mutex
	acked   map[store.Key]int64
	unknown int
	refused int
	wg      sync.WaitGroup
	stop    chan struct{}
}

// startCounting starts one writer per engine.
func startCounting(t *testing.T, engines []*Engine) *counting {
	t.Helper()
	l := &counting{acked: map[store.Key]int64{}, stop: make(chan struct{})}
	for i, e := range engines {
		l.wg.Go(func() { l.write(t, e, store.K("c", strconv.Itoa(i))) })
	}
	return l
}

// write counts one key up until the load stops.
func (l *counting) write(t *testing.T, e *Engine, key store.Key) {
	t.Helper()
	pause := time.NewTicker(time.Millisecond)
	defer pause.Stop()
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		n, err := storetest.Increment(t.Context(), e, key)
		l.mu.Lock()
		switch {
		case err == nil:
			l.acked[key] = n
		case errors.Is(err, store.ErrOutcomeUnknown):
			l.unknown++
		case errors.Is(err, store.ErrUnavailable):
			l.refused++
		default:
			t.Errorf("increment: %v", err)
		}
		l.mu.Unlock()
		if err != nil {
			<-pause.C
		}
	}
}

// total is the number of acknowledged increments.
func (l *counting) total() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := int64(0)
	for n := range maps.Values(l.acked) {
		sum += n
	}
	return sum
}

// grow waits until n more increments are acknowledged.
func (l *counting) grow(t *testing.T, n int64) {
	t.Helper()
	from := l.total()
	eventually(t, "increments are acknowledged", func() bool { return l.total() >= from+n })
}

// end stops the writers.
func (l *counting) end() {
	close(l.stop)
	l.wg.Wait()
}

// check compares state, log and what was acknowledged. While the writers knew
// each outcome, an increment that was refused did not happen either.
func (l *counting) check(t *testing.T, e *Engine) {
	t.Helper()
	sum := uint64(0)
	seen := map[store.Key]int64{}
	err := e.Scan(t.Context(), store.Under("c"), func(rec store.Record) error {
		n, err := strconv.ParseInt(string(rec.Value), 10, 64)
		seen[rec.Key] = n
		sum += uint64(n)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for key, n := range l.acked {
		if seen[key] < n || l.unknown == 0 && seen[key] != n {
			t.Errorf("%s is %d, acknowledged were %d", key, seen[key], n)
		}
	}
	last := map[string]int64{}
	log := storetest.Log(t, e)
	for _, env := range log {
		name, n := storetest.FactOf(t, env)
		if n != last[name]+1 {
			t.Errorf("log of %q goes from %d to %d", name, last[name], n)
		}
		last[name] = n
	}
	if uint64(len(log)) != sum {
		t.Errorf("log has %d events, state counts %d", len(log), sum)
	}
	t.Logf("%d increments, %d refused, %d unknown", sum, l.refused, l.unknown)
}

// eventually polls a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(60 * time.Second); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come true that %s", what)
		}
	}
}

// openMany opens n engines on one database, all at once, as nodes that start
// together do.
func openMany(t *testing.T, url string, n int) []*Engine {
	t.Helper()
	engines := make([]*Engine, n)
	var wg sync.WaitGroup
	for i := range engines {
		wg.Go(func() { engines[i] = openAt(t, url) })
	}
	wg.Wait()
	for _, e := range engines {
		t.Cleanup(func() { _ = e.Close() })
	}
	return engines
}

// TestServerStopsAtOnce stops the server as a crash would, under load, and
// starts it again: nothing acknowledged is lost, commits fail in between, and
// all goes on without any manual step.
func TestServerStopsAtOnce(t *testing.T) {
	t.Parallel()
	server := testkit.StartPostgres(t)
	url := server.Database(t)
	engines := openMany(t, url, 4)
	l := startCounting(t, engines)
	for range 3 {
		l.grow(t, 200)
		server.StopAtOnce(t)
		_, err := engines[0].Commit(t.Context(), store.Batch{Writes: []store.Write{storetest.Put("x", "")}})
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("commit while the server is away: %v, want ErrUnavailable", err)
		}
		if _, err := engines[1].Get(t.Context(), "x"); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("get while the server is away: %v, want ErrUnavailable", err)
		}
		server.Start(t)
	}
	l.grow(t, 200)
	l.end()
	l.check(t, engines[2])
	if l.refused == 0 {
		t.Error("no increment was refused: the server was never away")
	}
	// Waiting works again too: the watcher is back.
	head, err := engines[0].Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	woken := make(chan error, 1)
	go func() { woken <- engines[0].Wait(t.Context(), head) }()
	if _, err := storetest.Increment(t.Context(), engines[3], "c"); err != nil {
		t.Fatal(err)
	}
	if err := <-woken; err != nil {
		t.Errorf("wait: %v", err)
	}
}

// TestConnectionsBreak cuts the committers' connections over and over, at any
// point of a commit. The committers find out by themselves what became of it:
// no outcome is unknown, and nothing is applied that was refused.
func TestConnectionsBreak(t *testing.T) {
	t.Parallel()
	url := shared.Get(t).Database(t)
	engines := openMany(t, url, 4)
	l := startCounting(t, engines)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for range 60 {
		l.grow(t, 5)
		_, err := conn.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name LIKE 'muster committer%'`)
		if err != nil {
			t.Fatal(err)
		}
	}
	l.grow(t, 50)
	l.end()
	l.check(t, engines[0])
	if l.unknown > 0 {
		t.Errorf("%d outcomes stayed unknown although the server was there", l.unknown)
	}
	if l.refused == 0 {
		t.Error("no increment was refused: no connection was cut in a commit")
	}
}

// TestGroupIsSplit: one batch that the server refuses fails alone.
func TestGroupIsSplit(t *testing.T) {
	t.Parallel()
	url := shared.Get(t).Database(t)
	e := openMany(t, url, 1)[0]
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "ALTER TABLE muster_kv ADD CHECK (value <> 'poison')"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			value := "v"
			if i == 32 {
				value = "poison"
			}
			_, err := e.Commit(t.Context(), store.Batch{
				Writes: []store.Write{storetest.Put(store.K("k", strconv.Itoa(i)), value)},
				Events: []event.Envelope{storetest.Fact("k", int64(i))},
			})
			if (err != nil) != (i == 32) || errors.Is(err, store.ErrUnavailable) {
				t.Errorf("batch %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := len(storetest.Log(t, e)); n != 63 {
		t.Errorf("log has %d events, want 63", n)
	}
}

func TestOpenRefusesAnAbsentServer(t *testing.T) {
	t.Parallel()
	_, err := Open(t.Context(), Options{URL: "postgres://muster@127.0.0.1:1/none?sslmode=disable"})
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("open: %v, want ErrUnavailable", err)
	}
}
