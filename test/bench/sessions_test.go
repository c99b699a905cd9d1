//go:build bench

package bench_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqttstore"
	"github.com/muster-iot/muster/internal/store/embedded"
	"github.com/muster-iot/muster/internal/testkit"
	"github.com/muster-iot/muster/internal/topic"
)

const sessionAccount fleet.Account = "000000000000"

// everybody admits every client and allows everything; services and observers
// are left out, so that the figures are the broker's alone.
type everybody struct{}

func (everybody) Admit(_ context.Context, c *broker.ConnectRequest) (broker.Admission, error) {
	return broker.Admission{Account: sessionAccount, Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: c.ClientID}, Guard: everything{}}, nil
}

type everything struct{}

func (everything) CanPublish(string, bool) bool { return true }
func (everything) CanSubscribe(string) bool     { return true }
func (everything) CanReceive(string) bool       { return true }

func (everything) Enrich(own []mqtt.UserProperty) []mqtt.UserProperty { return own }

func (everything) Close() {}

// shadowTopics lets clients subscribe to reserved topics and publish nothing.
type shadowTopics struct{}

func (shadowTopics) Reserved(*broker.Publish, broker.Done) (deferred, ok bool) { return false, false }
func (shadowTopics) CanSubscribeReserved(string) bool                          { return true }
func (shadowTopics) CanPublishReserved(string) bool                            { return false }
func (shadowTopics) Private(string) bool                                       { return false }

// newBroker returns one for sessions over in-memory connections.
func newBroker(keeper broker.Keeper) *broker.Broker {
	return broker.New(broker.Options{
		Profile: topic.AWS, Gatekeeper: everybody{}, Service: shadowTopics{}, Keeper: keeper,
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
}

func shutDown(t *testing.T, b *broker.Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if err := b.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// usedKB is what heap and stacks hold after a collection. What finalizers free
// takes a second one.
func usedKB() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc+m.StackInuse) / 1024
}

// pipes makes n in-memory connections.
func pipes(n int) (clients, servers []net.Conn) {
	clients, servers = make([]net.Conn, n), make([]net.Conn, n)
	for i := range n {
		clients[i], servers[i] = net.Pipe()
	}
	return clients, servers
}

// attend connects n clients with one subscription each over ready connections.
func attend(t *testing.T, b *broker.Broker, clients, servers []net.Conn, persistent bool) {
	t.Helper()
	each(t, len(clients), func(ctx context.Context, i int) error {
		handled := make(chan error, 1)
		go func() { handled <- b.Handle(ctx, servers[i], broker.ListenerOptions{Name: "memory"}) }()
		id := fmt.Sprintf("session-%06d", i)
		c := &client{conn: clients[i]}
		return errors.Join(c.hello(id, persistent), c.ask("$aws/things/"+id+"/shadow/update/delta", 1), <-handled)
	})
}

// leave closes the clients and waits until the broker has seen it.
func leave(t *testing.T, b *broker.Broker, clients []net.Conn) {
	t.Helper()
	for _, c := range clients {
		_ = c.Close() // a pipe's cannot fail
	}
	testkit.Poll(t, time.Minute, "all sessions are away", func() error {
		if n := len(b.Sessions(sessionAccount)); n > 0 {
			return fmt.Errorf("%d are connected", n)
		}
		return nil
	})
}

// TestSessions reports the broker's memory for sessions over in-memory
// connections and stored ones, and the time to bring stored ones back.
func TestSessions(t *testing.T) {
	n := environment(t, "MUSTER_BENCH_SESSIONS", "50000")[0]
	table(fmt.Sprintf("sessions: %d in one process, one subscription each, over in-memory connections; live heap and stacks after a collection", n),
		"session", "KB each")
	each := func(before float64) string { return number((usedKB()-before)/float64(n), 2) }

	base := usedKB()
	clients, servers := pipes(n)
	row("the pipe alone, both ends (not counted below)", each(base))
	b := newBroker(nil)
	base = usedKB()
	attend(t, b, clients, servers, false)
	row("connected, clean", each(base))
	leave(t, b, clients)
	shutDown(t, b)

	clear(clients)
	clear(servers)
	bare := usedKB()
	clients, servers = pipes(n)
	b = newBroker(nil)
	base = usedKB()
	attend(t, b, clients, servers, true)
	row("connected, persistent", each(base))
	leave(t, b, clients)
	clear(clients)
	clear(servers)
	row("stored, client away", each(bare))
	shutDown(t, b)
	testRecovery(t, n)
}

// testRecovery stores n sessions with pebble and reads them back.
func testRecovery(t *testing.T, n int) {
	t.Helper()
	dir := t.TempDir()
	open := func() (*broker.Broker, *mqttstore.Keeper, func()) {
		engine, err := embedded.Open(embedded.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		keeper := mqttstore.New(mqttstore.Options{Store: engine, Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := keeper.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		b := newBroker(keeper)
		return b, keeper, func() {
			shutDown(t, b)
			if err := keeper.Drain(t.Context()); err != nil {
				t.Error(err)
			}
			cancel()
			running.Wait()
			if err := engine.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	b, keeper, stop := open()
	clients, servers := pipes(n)
	begun := time.Now()
	attend(t, b, clients, servers, true)
	if err := keeper.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored := time.Since(begun)
	leave(t, b, clients)
	stop()

	b, _, stop = open()
	defer stop()
	begun = time.Now()
	if err := b.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	recovered := time.Since(begun)
	for _, i := range []int{0, n / 2, n - 1} {
		id := fmt.Sprintf("session-%06d", i)
		subscriptions, _, ok := b.Subscriptions(sessionAccount, id, "", 10)
		if !ok || len(subscriptions) != 1 {
			t.Errorf("%s came back with %v", id, subscriptions)
		}
	}
	table(fmt.Sprintf("sessions: %d persistent ones on pebble", n), "step", "seconds")
	row("connect, subscribe and store, each SUBACK after the sync", number(stored.Seconds(), 2))
	row("Broker.Recover after a restart", number(recovered.Seconds(), 2))
}
