package mqttstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/mqttstore"
	"github.com/muster-iot/muster/internal/topic"
)

// everybody admits everybody to everything.
type everybody struct{}

func (everybody) Admit(_ context.Context, c *broker.ConnectRequest) (broker.Admission, error) {
	return broker.Admission{Account: account, Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: c.ClientID}, Guard: everybody{}}, nil
}
func (everybody) CanPublish(string, bool) bool { return true }
func (everybody) CanSubscribe(string) bool     { return true }
func (everybody) CanReceive(string) bool       { return true }

func (everybody) Enrich(own []mqtt.UserProperty) []mqtt.UserProperty { return own }

func (everybody) Close() {}

// newBroker returns a broker on what a keeper has kept.
func newBroker(t *testing.T, k *mqttstore.Keeper) *broker.Broker {
	t.Helper()
	b := broker.New(broker.Options{
		Profile: topic.AWS, Gatekeeper: everybody{}, Keeper: k, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err := b.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := b.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return b
}

// inbox keeps the payloads that a client has received.
type inbox struct {
	mu  sync.Mutex
	got []string
}

func (i *inbox) add(p *mqtt.Publish) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.got = append(i.got, string(p.Payload))
}

// has waits for exactly these payloads, or says what is there instead.
func (i *inbox) has(t *testing.T, want ...string) {
	t.Helper()
	within(t, fmt.Sprintf("received is exactly %q", want), func() bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		return slices.Equal(i.got, want)
	})
}

// count is the number of messages so far.
func (i *inbox) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.got)
}

// within waits for a condition.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// begun is the number of commits that have begun.
func (g *gate) begun() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.commits
}

// join connects a client in memory. It starts anew or resumes, and keeps its
// session for some seconds.
func join(t *testing.T, b *broker.Broker, id string, clean bool, seconds uint32, to *inbox) *client.Client {
	t.Helper()
	ours, theirs := net.Pipe()
	ctx := context.WithoutCancel(t.Context())
	go func() { _ = b.Handle(ctx, theirs, broker.ListenerOptions{Name: "pipe"}) }()
	o := client.Options{
		Version: mqtt.V5, ClientID: id, Persistent: !clean,
		Properties: mqtt.Properties{Set: mqtt.Of(mqtt.PropSessionExpiry), SessionExpiry: seconds},
	}
	if to != nil {
		o.OnMessage = to.add
	}
	c, err := client.Connect(t.Context(), ours, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func subscribe(t *testing.T, c *client.Client, filter string) {
	t.Helper()
	if _, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: filter, QoS: 1}); err != nil {
		t.Fatal(err)
	}
}

func leave(t *testing.T, c *client.Client) {
	t.Helper()
	if err := c.Disconnect(); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
}

// standStill holds up every commit until it is released, at the latest by the
// end of the test.
func standStill(t *testing.T, g *gate) (release func()) {
	t.Helper()
	hold := make(chan struct{})
	release = sync.OnceFunc(func() {
		g.set(nil, nil)
		close(hold)
	})
	t.Cleanup(release)
	g.set(nil, hold)
	return release
}

// A disk that stands still holds up the acknowledgement of what must be
// stored, and nothing else: other messages flow, clients come and go.
func TestStandingDisk(t *testing.T) {
	t.Parallel()
	k, g := start(t)
	b := newBroker(t, k)
	away := join(t, b, "away", false, 3600, nil)
	subscribe(t, away, "stored")
	leave(t, away)
	var got inbox
	live, pub, other := join(t, b, "live", true, 0, &got), join(t, b, "pub", true, 0, nil), join(t, b, "other", true, 0, nil)
	subscribe(t, live, "other")
	if err := k.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	release := standStill(t, g)
	acknowledged := make(chan error, 1)
	go func() { acknowledged <- pub.Publish(t.Context(), "stored", 1, []byte("kept")) }()
	if err := other.Publish(t.Context(), "other", 0, []byte("0")); err != nil {
		t.Fatal(err)
	}
	got.has(t, "0")
	if err := other.Publish(t.Context(), "other", 1, []byte("1")); err != nil {
		t.Fatal(err)
	}
	got.has(t, "0", "1")
	if err := pub.Ping(t.Context()); err != nil { // its own connection lives as well
		t.Fatal(err)
	}
	select {
	case err := <-acknowledged:
		t.Fatalf("acknowledged before it was stored: %v", err)
	default:
	}
	release()
	if err := <-acknowledged; err != nil {
		t.Fatal(err)
	}
	// Stored: another process finds it.
	b2 := newBroker(t, mqttstore.New(mqttstore.Options{Store: g, Logger: slog.New(slog.DiscardHandler)}))
	if info, ok := b2.Connection(account, "away"); !ok || info.Connected {
		t.Errorf("another process: %v %+v", ok, info)
	}
	var later inbox
	if c := join(t, b2, "away", false, 3600, &later); !c.Connack().SessionPresent {
		t.Error("another process: no session")
	}
	later.has(t, "kept")
}

// A session that takes the place of another inherits nothing of it, however
// slow the disk is when that happens.
func TestReplacedSessionLeavesNothing(t *testing.T) {
	t.Parallel()
	k, g := start(t)
	b := newBroker(t, k)
	old := join(t, b, "c", false, 3600, nil)
	subscribe(t, old, "a")
	leave(t, old)
	pub := join(t, b, "pub", true, 0, nil)
	for _, payload := range []string{"old 1", "old 2"} {
		if err := pub.Publish(t.Context(), "a", 1, []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	release := standStill(t, g)
	before := g.begun()
	join(t, b, "decoy", true, 3600, nil) // its record is what the disk is busy with
	within(t, "a commit begins", func() bool { return g.begun() > before })
	var got inbox
	fresh := join(t, b, "c", true, 3600, &got)
	subscribed := make(chan error, 1)
	go func() {
		_, err := fresh.Subscribe(t.Context(), mqtt.Subscription{Filter: "a", QoS: 1})
		subscribed <- err
	}()
	// Messages come and are acknowledged by the subscriber while nothing can be
	// written.
	published := make(chan error, 1)
	go func() { published <- publishUntil(t.Context(), pub, &got) }()
	within(t, "something comes", func() bool { return got.count() > 0 })
	if err := fresh.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	release()
	if err := errors.Join(<-subscribed, <-published, k.Drain(t.Context())); err != nil {
		t.Fatal(err)
	}
	for _, c := range load(t, k) {
		if c.Kind == broker.PutMessage {
			t.Errorf("still stored for %s: %q", c.Box, c.Message.Payload)
		}
	}
}

// publishUntil publishes one message after the other until one has arrived.
func publishUntil(ctx context.Context, pub *client.Client, to *inbox) error {
	for {
		if to.count() > 0 {
			return nil
		}
		if err := pub.Publish(ctx, "a", 1, []byte("new")); err != nil {
			return err
		}
	}
}
