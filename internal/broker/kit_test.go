package broker_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const account fleet.Account = "000000000000"

// world is a broker with everything around it that can be looked at.
type world struct {
	t       *testing.T
	broker  *broker.Broker
	profile topic.Profile
	options broker.Options
	gate    *gate
	service *service
	seen    *recorder
}

// newWorld returns a running world. It is shut down at the end of the test, in
// the same bubble of virtual time.
func newWorld(t *testing.T, profile topic.Profile, change ...func(*broker.Options)) *world {
	t.Helper()
	w := &world{t: t, profile: profile, gate: &gate{}, service: &service{}, seen: &recorder{}}
	o := broker.Options{
		Profile: profile, Gatekeeper: w.gate, Service: w.service, Observer: w.seen, Now: time.Now,
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&o)
	}
	w.options = o
	w.broker = broker.New(o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := w.broker.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if l, ok := w.options.Keeper.(*ledger); ok {
			l.rest()
		}
	})
	return w
}

// inWorld runs a test in virtual time.
func inWorld(t *testing.T, profile topic.Profile, test func(w *world), change ...func(*broker.Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newWorld(t, profile, change...)) })
}

// limits changes one world's limits.
func limits(f func(*broker.Limits)) func(*broker.Options) {
	return func(o *broker.Options) {
		l := broker.DefaultLimits(o.Profile)
		f(&l)
		o.Limits = &l
	}
}

// gate admits everybody; deny lists what the guards refuse.
type gate struct {
	mu    sync.Mutex
	err   error
	deny  map[string]bool
	asked []broker.ConnectRequest
	open  int
	// gain is what messages of all connections gain.
	gain []mqtt.UserProperty
	// badge chooses the principal by client id; nil for one of each client's own.
	badge func(clientID string) string
	// accountOf chooses the account by client id; nil for the default.
	accountOf func(clientID string) fleet.Account
}

func (g *gate) Admit(_ context.Context, c *broker.ConnectRequest) (broker.Admission, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, *c)
	a := broker.Admission{Account: account, Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: "cert-" + c.ClientID}, Guard: &guard{gate: g}}
	if g.badge != nil {
		a.Principal.ID = g.badge(c.ClientID)
	}
	if g.accountOf != nil {
		a.Account = g.accountOf(c.ClientID)
	}
	c.Account, c.Principal = a.Account, a.Principal
	if g.err != nil {
		return broker.Admission{}, g.err
	}
	g.open++
	return a, nil
}

// refuse makes the guards refuse "publish topic", "subscribe filter", "receive
// topic" or "retain topic" from now on.
func (g *gate) refuse(what ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.deny == nil {
		g.deny = make(map[string]bool)
	}
	for _, w := range what {
		g.deny[w] = true
	}
}

// gains makes all messages gain user properties from now on.
func (g *gate) gains(gain ...mqtt.UserProperty) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gain = gain
}

// guards returns the number of guards that are not closed.
func (g *gate) guards() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

type guard struct{ gate *gate }

func (g *guard) allowed(what string) bool {
	g.gate.mu.Lock()
	defer g.gate.mu.Unlock()
	return !g.gate.deny[what]
}

func (g *guard) CanPublish(name string, retain bool) bool {
	return g.allowed("publish "+name) && (!retain || g.allowed("retain "+name))
}
func (g *guard) CanSubscribe(filter string) bool { return g.allowed("subscribe " + filter) }
func (g *guard) CanReceive(name string) bool     { return g.allowed("receive " + name) }

// Enrich adds what the gate's gain is at the moment.
func (g *guard) Enrich(own []mqtt.UserProperty) []mqtt.UserProperty {
	g.gate.mu.Lock()
	defer g.gate.mu.Unlock()
	return append(own, g.gate.gain...)
}

func (g *guard) Close() {
	g.gate.mu.Lock()
	defer g.gate.mu.Unlock()
	g.gate.open--
}

// service knows the topics below $aws/things and leaves the acknowledgement of
// those that end in /later to the test.
type service struct {
	mu    sync.Mutex
	got   []*broker.Publish
	later []broker.Done
}

func (s *service) Reserved(p *broker.Publish, done broker.Done) (deferred, ok bool) {
	if !strings.HasPrefix(p.Topic, "$aws/things/") {
		return false, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, p)
	if strings.HasSuffix(p.Topic, "/later") {
		s.later = append(s.later, done)
		return true, true
	}
	return false, true
}

func (*service) Private(name string) bool {
	return strings.HasPrefix(name, "$aws/things/") && strings.Contains(name, "/private")
}

func (*service) CanSubscribeReserved(filter string) bool {
	return topic.Intersects(filter, "$aws/things/#", topic.AWS)
}

func (*service) CanPublishReserved(name string) bool {
	return strings.HasPrefix(name, "$aws/things/")
}

// taken returns what the service has got.
func (s *service) taken() []*broker.Publish {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*broker.Publish(nil), s.got...)
}

// finish calls the deferred done of index i.
func (s *service) finish(i int, err error, answers ...broker.Message) {
	s.mu.Lock()
	done := s.later[i]
	s.mu.Unlock()
	done(err, answers...)
}

// ending is what the observer was told of one end.
type ending struct {
	ClientID string
	Reason   broker.DisconnectReason
	ByClient bool
}

// recorder keeps what the observer is told.
type recorder struct {
	mu        sync.Mutex
	connected []broker.SessionInfo
	ended     []ending
	failed    []string
	denied    []broker.Denial
	// subscribed are "client +filter" and "client -filter" in order.
	subscribed []string
}

func (r *recorder) Connected(s *broker.SessionInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connected = append(r.connected, *s)
}

func (r *recorder) Disconnected(s *broker.SessionInfo, reason broker.DisconnectReason, byClient bool, _ time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = append(r.ended, ending{s.ClientID, reason, byClient})
}

func (r *recorder) ConnectFailed(s *broker.SessionInfo, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, s.ClientID+" "+reason)
}

func (r *recorder) Subscribed(s *broker.SessionInfo, filters []string, _ time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subscribed = append(r.subscribed, s.ClientID+" +"+strings.Join(filters, " +"))
}

func (r *recorder) Unsubscribed(s *broker.SessionInfo, filters []string, _ time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subscribed = append(r.subscribed, s.ClientID+" -"+strings.Join(filters, " -"))
}

func (r *recorder) Denied(d broker.Denial) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.denied = append(r.denied, d)
}

// ends returns the ends so far.
func (r *recorder) ends() []ending {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]ending(nil), r.ended...)
}

// denials returns "action resource" of the denials so far.
func (r *recorder) denials() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, d := range r.denied {
		all = append(all, d.Action+" "+d.Resource)
	}
	return all
}

// peer is the client side of one connection in packets.
type peer struct {
	t       *testing.T
	conn    net.Conn
	version mqtt.Version
	// early are bytes that were read before read runs.
	early []byte

	mu     sync.Mutex
	got    []mqtt.Packet
	closed bool
	// writes counts the writes of the broker, as far as they fit a read.
	writes atomic.Int64
}

// dial connects a peer without sending anything. The peer reads all the time.
func (w *world) dial(v mqtt.Version) *peer {
	w.t.Helper()
	p := w.dialSilent(v)
	go p.read()
	return p
}

// dialSilent connects a peer that does not read.
func (w *world) dialSilent(v mqtt.Version) *peer {
	w.t.Helper()
	ours, theirs := net.Pipe()
	ctx := context.WithoutCancel(w.t.Context())
	go func() { _ = w.broker.Handle(ctx, theirs, broker.ListenerOptions{Name: "pipe"}) }()
	w.t.Cleanup(func() { _ = ours.Close() })
	return &peer{t: w.t, conn: ours, version: v}
}

// connect connects a client and checks that it is accepted.
func (w *world) connect(v mqtt.Version, id string, change ...func(*mqtt.Connect)) *peer {
	w.t.Helper()
	p := w.dial(v)
	p.send(connectPacket(v, id, change...))
	if got, ok := p.next().(*mqtt.Connack); !ok || got.Reason != mqtt.Success {
		w.t.Fatalf("%s is not accepted: %+v", id, got)
	}
	return p
}

// connectPacket returns a CONNECT for a clean session.
func connectPacket(v mqtt.Version, id string, change ...func(*mqtt.Connect)) *mqtt.Connect {
	c := &mqtt.Connect{Version: v, CleanStart: true, KeepAlive: 1200, ClientID: id}
	for _, f := range change {
		f(c)
	}
	return c
}

// withWill adds a will to a CONNECT.
func withWill(name string) func(*mqtt.Connect) {
	return func(c *mqtt.Connect) { c.Will = &mqtt.Will{Topic: name, Payload: []byte("gone")} }
}

// read collects packets until the connection ends.
func (p *peer) read() {
	buf := p.early
	chunk := make([]byte, 4096)
	for {
		n, err := p.conn.Read(chunk)
		buf = append(buf, chunk[:n]...)
		p.writes.Add(1)
		for {
			packet, rest, frameErr := mqtt.Frame(buf, 1<<28)
			if frameErr != nil || packet == nil {
				break
			}
			buf = rest
			decoded, decodeErr := mqtt.Decode(append([]byte(nil), packet...), p.version)
			if decodeErr != nil {
				p.t.Errorf("broker sent %x: %v", packet, decodeErr)
				continue
			}
			p.mu.Lock()
			p.got = append(p.got, decoded)
			p.mu.Unlock()
		}
		if err != nil {
			p.mu.Lock()
			p.closed = true
			p.mu.Unlock()
			return
		}
	}
}

// send writes packets in one piece.
func (p *peer) send(packets ...mqtt.Packet) {
	p.t.Helper()
	p.raw(p.encode(packets))
}

// sendLater writes packets without waiting for the broker to read them.
func (p *peer) sendLater(packets ...mqtt.Packet) {
	p.t.Helper()
	b := p.encode(packets)
	go func() { _, _ = p.conn.Write(b) }()
}

// encode returns packets in one piece.
func (p *peer) encode(packets []mqtt.Packet) []byte {
	p.t.Helper()
	var b []byte
	for _, packet := range packets {
		var err error
		if b, err = packet.Append(b, p.version); err != nil {
			p.t.Fatal(err)
		}
	}
	return b
}

// raw writes bytes. An end of the connection while writing is not an error.
func (p *peer) raw(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		p.t.Fatal(err)
	}
}

// all waits until nothing moves and takes the packets received so far.
func (p *peer) all() []mqtt.Packet {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	return got
}

// next takes one packet, nil when there is none.
func (p *peer) next() mqtt.Packet {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.got) == 0 {
		return nil
	}
	first := p.got[0]
	p.got = p.got[1:]
	return first
}

// isClosed reports whether the broker has closed the connection.
func (p *peer) isClosed() bool {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// subscribe subscribes and returns the codes.
func (p *peer) subscribe(subs ...mqtt.Subscription) []mqtt.ReasonCode {
	p.t.Helper()
	p.send(&mqtt.Subscribe{PacketID: 1, Subscriptions: subs})
	for _, packet := range p.all() {
		if s, ok := packet.(*mqtt.Suback); ok {
			return s.Reasons
		}
	}
	return nil
}

// messages takes what was received and returns "topic payload" of each
// message, failing for other packets.
func (p *peer) messages() []string {
	p.t.Helper()
	var texts []string
	for _, packet := range p.all() {
		m, ok := packet.(*mqtt.Publish)
		if !ok {
			p.t.Errorf("%s %+v among the messages", packet.Type(), packet)
			continue
		}
		texts = append(texts, string(m.Topic)+" "+string(m.Payload))
	}
	return texts
}

// message returns a PUBLISH.
func message(qos byte, name, payload string) *mqtt.Publish {
	p := &mqtt.Publish{QoS: qos, Topic: []byte(name), Payload: []byte(payload)}
	if qos > 0 {
		p.PacketID = 7
	}
	return p
}
