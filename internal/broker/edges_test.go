package broker_test

import (
	"context"
	"maps"
	"net"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// choosy is a gate whose guards ask a function about deliveries.
type choosy struct {
	*gate
	receive func(clientID, name string) bool
}

func (g *choosy) Admit(ctx context.Context, c *broker.ConnectRequest) (broker.Admission, error) {
	a, err := g.gate.Admit(ctx, c)
	a.Guard = &choosyGuard{Guard: a.Guard, gate: g, clientID: c.ClientID}
	return a, err
}

type choosyGuard struct {
	broker.Guard
	gate     *choosy
	clientID string
}

func (g *choosyGuard) CanReceive(name string) bool { return g.gate.receive(g.clientID, name) }

// receives gives a world guards that ask a function about deliveries.
func receives(f func(clientID, name string) bool) func(*broker.Options) {
	return func(o *broker.Options) {
		if inner, ok := o.Gatekeeper.(*gate); ok {
			o.Gatekeeper = &choosy{gate: inner, receive: f}
		}
	}
}

// A client that takes over while policy is asked for the one before gets what
// was on its way at once.
func TestTakeoverWhilePolicyIsAsked(t *testing.T) {
	t.Parallel()
	hold := make(chan chan struct{}, 1)
	inWorld(t, topic.AWS, func(w *world) {
		p, _ := w.attach(mqtt.V5, "c", false, resuming(3600))
		p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
		p.drop()
		w.connect(mqtt.V5, "pub").publishNumbers("a", 0, 3)
		release := make(chan struct{})
		hold <- release
		w.attach(mqtt.V5, "c", true, resuming(3600)) // stands at the guard
		p, _ = w.attach(mqtt.V5, "c", true, resuming(3600))
		close(release)
		if got := payloads(p.publishes()); !slices.Equal(got, numbers(0, 3)) {
			w.t.Errorf("received %q", got)
		}
	}, receives(func(string, string) bool {
		select {
		case release := <-hold:
			<-release
		default:
		}
		return true
	}))
}

// A member of a shared group that may not receive a message takes it away from
// nobody who may.
func TestSharedSparesMembersThatMayNot(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		no, yes := w.connect(mqtt.V5, "no"), w.connect(mqtt.V5, "yes", receiving(1))
		no.share("g", "a", 1)
		yes.share("g", "a", 1)
		w.connect(mqtt.V5, "pub").publishNumbers("a", 0, 5)
		if got := payloads(yes.drain(1)); !slices.Equal(got, numbers(0, 5)) {
			w.t.Errorf("received %q", got)
		}
		no.hears()
	}, receives(func(clientID, _ string) bool { return clientID != "no" }))
}

// The messages of QoS 2 that a client has not released count once, and may be
// sent again when there is no room for new ones.
func TestQoS2WithinReceiveMaximum(t *testing.T) {
	t.Parallel()
	const most = 4
	l := newLedger()
	l.delay = time.Second
	inWorld(t, topic.Standard, func(w *world) {
		sub, _ := w.attach(mqtt.V5, "sub", false, resuming(3600))
		sub.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 1}}})
		time.Sleep(5 * time.Second)
		sub.all()
		p, _ := w.attach(mqtt.V5, "c", false, resuming(3600))
		all := make([]mqtt.Packet, most)
		for i := range all {
			all[i] = &mqtt.Publish{QoS: 2, PacketID: uint16(i + 1), Topic: []byte("a"), Payload: []byte(strconv.Itoa(i))}
		}
		recs := func(p *peer) {
			w.t.Helper()
			time.Sleep(5 * time.Second)
			got := p.all()
			for i, packet := range got {
				if a, ok := packet.(*mqtt.Ack); !ok || a.Kind != mqtt.TypePubrec || int(a.PacketID) != i+1 || a.Reason.Failed() {
					w.t.Errorf("answer %d: %+v", i, packet)
				}
			}
			if len(got) != most {
				w.t.Errorf("%d answers, want %d", len(got), most)
			}
		}
		p.send(all...)
		recs(p)
		p.drop()
		p, _ = w.attach(mqtt.V5, "c", true, resuming(3600))
		p.send(all...)
		recs(p)
		p.send(&mqtt.Publish{QoS: 2, PacketID: most + 1, Topic: []byte("a")})
		p.waitClosed()
		if got := payloads(sub.publishes()); !slices.Equal(got, numbers(0, most)) {
			w.t.Errorf("received %q", got)
		}
	}, keeping(l), limits(func(l *broker.Limits) { l.MaxInflight = most }))
}

// A message that must not be lost can be retained as well.
func TestPublishDurablyRetains(t *testing.T) {
	t.Parallel()
	w := newWorld(t, topic.AWS)
	for range 5000 {
		m := broker.Message{Topic: "a", Payload: []byte("x"), QoS: 1, Retain: true}
		if err := w.broker.PublishDurably(t.Context(), account, m); err != nil {
			t.Fatal(err)
		}
	}
}

// The patience with a client that does not acknowledge begins anew when it is
// back: it has had no chance meanwhile.
func TestPatienceBeginsWithTheConnection(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		time.Sleep(time.Minute)
		p, _ := w.attach(mqtt.V5, "c", false, resuming(86400))
		p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
		w.connect(mqtt.V5, "pub").publishNumbers("a", 0, 1)
		p.publishes()
		p.drop()
		time.Sleep(2 * time.Hour)
		p, _ = w.attach(mqtt.V5, "c", true, resuming(86400))
		if got := len(p.publishes()); got != 1 {
			w.t.Fatalf("%d messages", got)
		}
		time.Sleep(25 * time.Second)
		if got := len(p.publishes()); got != 1 {
			w.t.Errorf("%d messages again, want 1", got)
		}
	}, limits(func(l *broker.Limits) { l.MaxSessionExpiry = 86400 }))
}

// What a new subscriber is sent last is what the topic retains, however long
// the subscription takes to be durable.
func TestRetainedIsOfNow(t *testing.T) {
	t.Parallel()
	l := newLedger()
	inWorld(t, topic.AWS, func(w *world) {
		pub := w.connect(mqtt.V5, "pub")
		pub.send(retained(0, "a", "old"))
		synctest.Wait()
		p, _ := w.attach(mqtt.V5, "c", false, resuming(3600))
		l.mu.Lock()
		l.delay = time.Second
		l.mu.Unlock()
		p.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 1}}})
		synctest.Wait()
		pub.send(retained(0, "a", "new"))
		time.Sleep(5 * time.Second)
		last := ""
		for _, packet := range p.all() {
			if m, ok := packet.(*mqtt.Publish); ok {
				last = string(m.Payload)
			}
		}
		if last != "new" {
			w.t.Errorf("the last message is %q", last)
		}
	}, keeping(l))
}

// A session is removed also while its connection is ending for another cause.
func TestRemoveWhileEnding(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		p := w.dialSilent(mqtt.V5)
		p.send(connectPacket(mqtt.V5, "c", resuming(3600)))
		if _, err := p.conn.Read(make([]byte, 512)); err != nil {
			w.t.Fatal(err)
		}
		w.broker.Disconnect(account, "c", broker.ReasonServerInitiated)
		synctest.Wait() // the DISCONNECT waits for a peer that does not read
		if !w.broker.Remove(account, "c", broker.RemoveOptions{EndSession: true}) {
			w.t.Error("not known")
		}
		time.Sleep(10 * time.Second)
		if got, ok := w.stored("c"); ok {
			w.t.Errorf("the session is kept: %+v", got)
		}
	})
}

// What had to wait because too much was pending goes on when the socket takes
// all of it at once.
func TestQueueGoesOnAfterAFullOutput(t *testing.T) {
	t.Parallel()
	w := newWorld(t, topic.AWS, limits(func(l *broker.Limits) { l.MaxPending = 2048 }))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = w.broker.Serve(context.WithoutCancel(t.Context()), l, broker.ListenerOptions{Name: "tcp"}) }()
	open := func(id string) *peer {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		p := &peer{t: t, conn: conn, version: mqtt.V311}
		p.send(connectPacket(mqtt.V311, id))
		p.receive()
		return p
	}
	sub, pub := open("sub"), open("pub")
	sub.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 1}}})
	sub.receive()
	var burst []mqtt.Packet
	for range 6 {
		burst = append(burst, plain(0, "a", string(make([]byte, 500))))
	}
	last := plain(1, "a", "last")
	last.PacketID = 1
	pub.send(append(burst, last)...)
	for {
		m, ok := sub.receive().(*mqtt.Publish)
		if !ok || string(m.Payload) == "last" {
			return
		}
	}
}

// What a crash leaves of a session that was replaced is not its successor's, and
// what the successor gets is kept.
func TestLeftoversOfAReplacedSession(t *testing.T) {
	t.Parallel()
	l := newLedger()
	inWorld(t, topic.AWS, func(w *world) {
		p, _ := w.attach(mqtt.V5, "c", false, resuming(3600))
		p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
		p.drop()
		pub := w.connect(mqtt.V5, "pub")
		pub.publishNumbers("a", 0, 3)
		synctest.Wait()
		l.mu.Lock()
		left := maps.Clone(l.messages[box{account, "c"}])
		l.mu.Unlock()
		p, _ = w.attach(mqtt.V5, "c", false, expiring(3600)) // a clean start
		p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
		p.drop()
		synctest.Wait()
		l.mu.Lock()
		l.messages[box{account, "c"}] = left // as if the crash came before they were dropped
		l.mu.Unlock()
		w.restart(true)
		w.restart(true)
		w.connect(mqtt.V5, "pub").publishNumbers("a", 9, 10)
		synctest.Wait()
		w.restart(true)
		p, _ = w.attach(mqtt.V5, "c", true, resuming(3600))
		p.hears("a 9")
	}, keeping(l))
}

// receive reads the next packet of a connection that nobody else reads.
func (p *peer) receive() mqtt.Packet {
	p.t.Helper()
	chunk := make([]byte, 4096)
	for {
		packet, rest, err := mqtt.Frame(p.early, 1<<20)
		if err != nil {
			p.t.Fatal(err)
		}
		if packet != nil {
			decoded, err := mqtt.Decode(slices.Clone(packet), p.version)
			if err != nil {
				p.t.Fatal(err)
			}
			p.early = rest
			return decoded
		}
		n, err := p.conn.Read(chunk)
		if err != nil {
			p.t.Fatal(err)
		}
		p.early = append(p.early, chunk[:n]...)
	}
}
