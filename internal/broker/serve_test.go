package broker_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/topic"
)

// listen serves a world on a real socket and returns its address.
func (w *world) listen(config *tls.Config, o broker.ListenerOptions) string {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	addr := l.Addr().String()
	if config != nil {
		l = tls.NewListener(l, config)
	}
	served := make(chan error, 1)
	ctx := context.WithoutCancel(w.t.Context())
	go func() { served <- w.broker.Serve(ctx, l, o) }()
	w.t.Cleanup(func() {
		_ = l.Close()
		if err := <-served; err != nil {
			w.t.Errorf("Serve: %v", err)
		}
	})
	return addr
}

// join connects a real client.
func join(t *testing.T, addr string, config *tls.Config, o client.Options) *client.Client {
	t.Helper()
	conn, err := client.Dial(t.Context(), addr, config)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Connect(t.Context(), conn, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// identity returns a fresh certificate for localhost.
func identity(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestServeTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, topic.AWS)
	addr := w.listen(&tls.Config{Certificates: []tls.Certificate{identity(t)}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12},
		broker.ListenerOptions{Name: "mqtts", Account: func(name string) fleet.Account { return fleet.Account("of " + name) }})
	device := identity(t)
	config := &tls.Config{Certificates: []tls.Certificate{device}, ServerName: "localhost", InsecureSkipVerify: true}
	got := make(chan string, 1000)
	sub := join(t, addr, config, client.Options{ClientID: "sub", OnMessage: func(p *mqtt.Publish) { got <- string(p.Payload) }})
	if _, err := sub.Subscribe(t.Context(), mqtt.Subscription{Filter: "a/#", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	pub := join(t, addr, config, client.Options{ClientID: "pub", Version: mqtt.V5})
	for i := range 300 {
		if err := pub.Publish(t.Context(), "a/b", byte(i%2), fmt.Appendf(nil, "%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	// Order holds within a quality of service: one of 0 does not wait for the
	// subscriber's acknowledgements, one of 1 may have to.
	next := [2]int{0, 1}
	for range 300 {
		text := <-got
		i, err := strconv.Atoi(text)
		if err != nil || i != next[i%2] {
			t.Fatalf("got %q, want one of %d", text, next)
		}
		next[i%2] += 2
	}
	asked := w.gate.asked[0]
	if asked.ServerName != "localhost" || asked.Account != "of localhost" || asked.PeerCertificate == nil ||
		string(asked.PeerCertificate.Raw) != string(device.Certificate[0]) || asked.ListenerName != "mqtts" {
		t.Errorf("request %+v", asked)
	}
	// Not TLS at all: that connection ends, the others do not notice.
	raw, err := client.Dial(t.Context(), addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Connect(t.Context(), raw, client.Options{ClientID: "plain"}); err == nil {
		t.Error("a plain connection is served on a TLS listener")
	}
	if err := pub.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// failing is a listener whose Accept fails a few times first.
type failing struct {
	net.Listener
	left atomic.Int32
}

func (l *failing) Accept() (net.Conn, error) {
	if l.left.Add(-1) >= 0 {
		return nil, errors.New("too many open files")
	}
	return l.Listener.Accept()
}

func TestAcceptErrorsAreWaitedOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, topic.AWS)
		pipes := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		l := &failing{Listener: pipes}
		l.left.Store(12)
		served := make(chan error, 1)
		go func() { served <- w.broker.Serve(t.Context(), l, broker.ListenerOptions{}) }()
		ours, theirs := net.Pipe()
		pipes.conns <- theirs // 12 pauses of virtual time later
		c, err := client.Connect(t.Context(), ours, client.Options{ClientID: "c"})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		_ = l.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// pipeListener hands out the connections that it is given.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (*pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func TestServeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, topic.AWS)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.broker.Serve(ctx, l, broker.ListenerOptions{}); err != nil {
		t.Error(err)
	}
	if err := w.broker.Shutdown(context.WithoutCancel(ctx)); err != nil {
		t.Error(err)
	}
	l, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.broker.Serve(t.Context(), l, broker.ListenerOptions{}); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Serve after Shutdown = %v", err)
	}
}

// Real sockets, real time, everything at once: takeovers of the same ids,
// publishes, subscriptions, dismissals and a shutdown in the middle. What
// counts is that it ends, with one end for each beginning.
func TestStorm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, topic.AWS)
	addr := w.listen(nil, broker.ListenerOptions{})
	ctx := t.Context()
	var received, sessions atomic.Int64
	var clients sync.WaitGroup
	for worker := range 8 {
		clients.Go(func() {
			for round := range 40 {
				conn, err := client.Dial(ctx, addr, nil)
				if err != nil {
					return
				}
				version := mqtt.V311
				if round%2 == 0 {
					version = mqtt.V5
				}
				c, err := client.Connect(ctx, conn, client.Options{
					ClientID: fmt.Sprint("c", (worker+round)%5), Version: version, Will: &mqtt.Will{Topic: "will", Payload: []byte("x")},
					OnMessage: func(*mqtt.Publish) { received.Add(1) },
				})
				if err != nil {
					continue
				}
				sessions.Add(1)
				_, _ = c.Subscribe(ctx, mqtt.Subscription{Filter: "#", QoS: 1})
				for i := range 10 {
					_ = c.Publish(ctx, fmt.Sprint("t/", i), byte(i%2), []byte("payload"))
				}
				if round%3 == 0 {
					_ = c.Disconnect()
				}
				_ = c.Close()
			}
		})
	}
	clients.Go(func() {
		for range 200 {
			w.broker.Recheck(func(s broker.SessionInfo) bool { return s.ClientID != "c3" })
			w.broker.DisconnectPrincipal(account, "cert-c4", broker.ReasonAPIInitiated)
			_ = w.broker.Publish(ctx, account, broker.Message{Topic: "server", QoS: 1})
		}
	})
	clients.Wait()
	stop, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := w.broker.Shutdown(stop); err != nil {
		t.Fatal(err)
	}
	if received.Load() == 0 || sessions.Load() == 0 {
		t.Errorf("%d messages in %d sessions", received.Load(), sessions.Load())
	}
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	if len(w.seen.connected) != len(w.seen.ended) || w.gate.guards() != 0 {
		t.Errorf("%d beginnings, %d ends, %d guards left", len(w.seen.connected), len(w.seen.ended), w.gate.guards())
	}
}

// Order and completeness over real sockets, with a window that is much smaller
// than the burst.
func TestOrderOverSockets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, topic.AWS, limits(func(l *broker.Limits) { l.MaxQueue = 100000 }))
	addr := w.listen(nil, broker.ListenerOptions{})
	const n = 5000
	got := make(chan string, n)
	sub := join(t, addr, nil, client.Options{ClientID: "sub", OnMessage: func(p *mqtt.Publish) { got <- string(p.Payload) }})
	if _, err := sub.Subscribe(t.Context(), mqtt.Subscription{Filter: "a", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	conn, err := client.Dial(t.Context(), addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	go func() { // raw, so that nothing waits for acknowledgements
		var b []byte
		b, _ = connectPacket(mqtt.V311, "pub").Append(b, mqtt.V311)
		for i := range n {
			p := message(1, "a", fmt.Sprint(i))
			p.PacketID = uint16(i%1000 + 1)
			b, _ = p.Append(b, mqtt.V311)
		}
		_, _ = conn.Write(b)
	}()
	for i := range n {
		if text := <-got; text != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, text)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		w.gate.refuse("receive secret")
		p := w.connect(mqtt.V311, "c")
		p.subscribe(mqtt.Subscription{Filter: "#"})
		p.send(message(1, "a", "x"), message(0, "secret", "y"))
		p.all()
		for name, want := range map[string]float64{
			"muster_broker_connections": 1, "muster_broker_subscriptions": 1, "muster_broker_connects_total": 1,
			"muster_broker_messages_received_total": 2, "muster_broker_messages_sent_total": 1,
			"muster_broker_messages_dropped_total": 1, "muster_broker_denials_total": 1,
		} {
			if got := total(t, registry, name); got != want {
				t.Errorf("%s = %v, want %v", name, got, want)
			}
		}
		p.send(&mqtt.Disconnect{})
		synctest.Wait()
		for name, want := range map[string]float64{"muster_broker_connections": 0, "muster_broker_subscriptions": 0, "muster_broker_disconnects_total": 1} {
			if got := total(t, registry, name); got != want {
				t.Errorf("%s = %v, want %v", name, got, want)
			}
		}
	}, func(o *broker.Options) { o.Registerer = registry })
}

// total adds up a metric over its labels.
func total(t *testing.T, g prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
