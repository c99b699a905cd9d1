//go:build bench

package bench_test

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
	"io"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/inlet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

const (
	stormAccount = fleet.Account("000000000000")
	// stormProbes are the devices that stay connected and publish.
	stormProbes = 200
	probeEvery  = 200 * time.Millisecond
	// A device of the SDK waits up to a second before its first attempt, twice as
	// long before each further one, and gives an attempt so long.
	firstBackoff   = time.Second
	longestBackoff = 2 * time.Minute
	attemptTimeout = 20 * time.Second
)

// stormRegistry knows every certificate as active and lets it do what it wants
// below its own topics.
type stormRegistry struct{}

func (stormRegistry) Certificate(_ context.Context, _ fleet.Account, id string) (deviceauth.Certificate, error) {
	return deviceauth.Certificate{
		ID: id, ARN: "arn:aws:iot:us-east-1:" + string(stormAccount) + ":cert/" + id, Status: deviceauth.StatusActive,
		NotAfter: time.Now().Add(time.Hour),
	}, nil
}

func (stormRegistry) ConnectionThing(context.Context, fleet.Account, string, string) (deviceauth.Thing, bool, error) {
	return deviceauth.Thing{}, false, nil
}

func (stormRegistry) Policy(_ context.Context, _ fleet.Account, name string) (deviceauth.Policy, error) {
	return deviceauth.Policy{}, fault.New(fault.ResourceNotFound, "no policy %s", name)
}

func (stormRegistry) EffectivePolicies(context.Context, fleet.Account, string, string) ([]deviceauth.Policy, error) {
	const all = "arn:aws:iot:us-east-1:000000000000:"
	return []deviceauth.Policy{{Name: "storm", ARN: all + "policy/storm", VersionID: "1", Document: []byte(`{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"iot:Connect","Resource":"` + all + `client/*"},
		{"Effect":"Allow","Action":"iot:Publish","Resource":"` + all + `topic/up/${iot:ClientId}"},
		{"Effect":"Allow","Action":"iot:Subscribe","Resource":"` + all + `topicfilter/down/${iot:ClientId}"},
		{"Effect":"Allow","Action":"iot:Receive","Resource":"` + all + `topic/down/${iot:ClientId}"}]}`)}}, nil
}

// stormGate joins broker and deviceauth as the server does.
type stormGate struct{ devices *deviceauth.Service }

func (g *stormGate) Admit(ctx context.Context, c *broker.ConnectRequest) (broker.Admission, error) {
	a, err := g.devices.Admit(ctx, deviceauth.Request{
		Certificate: c.PeerCertificate, ClientID: c.ClientID, RemoteAddr: c.RemoteAddr, Persistent: c.Persistent(),
	})
	if err != nil {
		return broker.Admission{}, err
	}
	return broker.Admission{Account: a.Account, Principal: a.Principal, ThingName: a.ThingName, Guard: stormGuard{a.Guard}}, nil
}

// stormGuard adds nothing to messages: these devices have no type.
type stormGuard struct{ *deviceauth.Guard }

func (stormGuard) Enrich(own []mqtt.UserProperty) []mqtt.UserProperty { return own }

// stormConn is the server's end of a connection in memory, from an address of
// its own. Without TLS it brings the certificate along.
type stormConn struct {
	net.Conn
	from        net.Addr
	certificate *x509.Certificate
	done        atomic.Bool
}

func (c *stormConn) RemoteAddr() net.Addr { return c.from }
func (c *stormConn) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8883} }

// boundConn adds a handshake that costs nothing.
type boundConn struct{ *stormConn }

func (c boundConn) HandshakeContext(context.Context) error {
	c.done.Store(true)
	return nil
}

func (c boundConn) ConnectionState() tls.ConnectionState {
	return tls.ConnectionState{HandshakeComplete: c.done.Load(), PeerCertificates: []*x509.Certificate{c.certificate}}
}

// storm is the rehearsal.
type storm struct {
	t      *testing.T
	broker *broker.Broker
	server *tls.Config // nil without TLS
	fleet  []*stormDevice
	obey   atomic.Bool // devices do as hints say

	connected, hinted, refused, timedOut atomic.Int64
	running                              sync.WaitGroup
}

// stormDevice is one device that comes back with the SDK's backoff.
type stormDevice struct {
	storm       *storm
	id          string
	from        net.Addr
	certificate *x509.Certificate
	client      *tls.Config
	mu          sync.Mutex
	conn        net.Conn
}

// newStorm starts broker and authorization.
func newStorm(t *testing.T, pace int) *storm {
	t.Helper()
	s := &storm{t: t}
	logger := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	devices, err := deviceauth.New(deviceauth.Options{
		Registry: stormRegistry{}, Region: "us-east-1",
		Account:    func(string) (fleet.Account, error) { return stormAccount, nil },
		Disconnect: func(fleet.Account, string) {}, Now: time.Now, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.broker = broker.New(broker.Options{
		Profile: topic.AWS, Gatekeeper: &stormGate{devices}, Logger: logger, Now: time.Now,
		Admission: broker.AdmissionOptions{ConnectsPerSecond: pace, Storm: new(inlet.Thrift).Storm},
	})
	return s
}

// makeFleet makes the devices' certificates; with TLS they share a key, which
// costs the server as much as keys of their own.
func (s *storm) makeFleet(n int, secured bool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	issue := func(i int) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: fmt.Sprint("device ", i)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{"storm.test"},
		}
		if !secured {
			template.Raw = fmt.Appendf(nil, "certificate of device %d", i)
			return template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			s.t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			s.t.Fatal(err)
		}
		return parsed
	}
	for i := range n {
		d := &stormDevice{
			storm: s, id: fmt.Sprintf("device-%05d", i), certificate: issue(i),
			from: &net.TCPAddr{IP: net.IPv4(10, byte(i>>16), byte(i>>8), byte(i)), Port: 40000},
		}
		if secured {
			pair := tls.Certificate{Certificate: [][]byte{d.certificate.Raw}, PrivateKey: key}
			d.client = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true} //nolint:gosec // both ends are this process
		}
		s.fleet = append(s.fleet, d)
	}
	if secured {
		pair := tls.Certificate{Certificate: [][]byte{issue(n).Raw}, PrivateKey: key}
		s.server = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}
	}
}

// errBusy is a refusal with a hint.
type errBusy struct{ after time.Duration }

func (e *errBusy) Error() string { return fmt.Sprintf("server is busy, retry after %v", e.after) }

// connect makes one attempt.
func (d *stormDevice) connect(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	server := &stormConn{Conn: theirs, from: d.from, certificate: d.certificate}
	var accepted net.Conn = boundConn{server}
	if d.storm.server != nil {
		accepted = tls.Server(server, d.storm.server)
	}
	go func() {
		_ = d.storm.broker.Handle(context.WithoutCancel(ctx), accepted, broker.ListenerOptions{
			Name: "storm", Account: func(string) fleet.Account { return stormAccount },
		})
	}()
	conn := ours
	if d.client != nil {
		conn = tls.Client(ours, d.client)
	}
	_ = conn.SetDeadline(time.Now().Add(attemptTimeout))
	connack, err := d.hello(conn)
	switch {
	case err != nil:
	case connack.Reason == mqtt.ServerBusy:
		err = &errBusy{hintOf(connack)}
	case connack.Reason != mqtt.Success:
		err = fmt.Errorf("refused with 0x%02X", byte(connack.Reason))
	case !connack.SessionPresent:
		sub := &mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "down/" + d.id, QoS: 1}}}
		if err = send(conn, sub); err == nil {
			_, err = receive(conn)
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, nil
}

// hello sends CONNECT and reads the answer.
func (d *stormDevice) hello(conn net.Conn) (*mqtt.Connack, error) {
	hello := &mqtt.Connect{Version: mqtt.V5, ClientID: d.id, KeepAlive: 1200}
	hello.Properties.Set |= mqtt.Of(mqtt.PropSessionExpiry)
	hello.Properties.SessionExpiry = 3600
	if err := send(conn, hello); err != nil {
		return nil, err
	}
	got, err := receive(conn)
	if err != nil {
		return nil, err
	}
	connack, ok := got.(*mqtt.Connack)
	if !ok {
		return nil, fmt.Errorf("%s instead of CONNACK", got.Type())
	}
	return connack, nil
}

func send(conn net.Conn, p mqtt.Packet) error {
	b, err := p.Append(nil, mqtt.V5)
	if err != nil {
		return err
	}
	_, err = conn.Write(b)
	return err
}

// receive reads one packet; nothing else is on its way.
func receive(conn net.Conn) (mqtt.Packet, error) {
	var b []byte
	chunk := make([]byte, 256)
	for {
		n, err := conn.Read(chunk)
		b = append(b, chunk[:n]...)
		packet, _, frameErr := mqtt.Frame(b, 1<<20)
		if packet != nil || frameErr != nil {
			if frameErr != nil {
				return nil, frameErr
			}
			return mqtt.Decode(packet, mqtt.V5)
		}
		if err != nil {
			return nil, err
		}
	}
}

func hintOf(p *mqtt.Connack) time.Duration {
	for _, property := range p.Properties.UserProperties {
		if property.Key == "retry-after" {
			after, _ := time.ParseDuration(property.Value + "s")
			return after
		}
	}
	return 0
}

// comeBack tries until the device is connected.
func (d *stormDevice) comeBack(ctx context.Context) {
	s := d.storm
	for backoff := firstBackoff; ; backoff = min(2*backoff, longestBackoff) {
		pause := time.Duration(mathrand.Int64N(int64(backoff)))
		conn, err := d.tryAfter(ctx, pause)
		for busy := new(errBusy); errors.As(err, &busy); {
			s.hinted.Add(1)
			if !s.obey.Load() {
				break
			}
			conn, err = d.tryAfter(ctx, busy.after)
		}
		switch {
		case err == nil:
			d.mu.Lock()
			d.conn = conn
			d.mu.Unlock()
			s.connected.Add(1)
			s.running.Go(func() { d.stay(conn) })
			return
		case ctx.Err() != nil:
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.timedOut.Add(1)
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrClosedPipe):
			s.refused.Add(1)
		}
	}
}

func (d *stormDevice) tryAfter(ctx context.Context, pause time.Duration) (net.Conn, error) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return d.connect(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// stay reads until the connection ends.
func (d *stormDevice) stay(conn net.Conn) {
	var b [64]byte
	for {
		if _, err := conn.Read(b[:]); err != nil {
			d.storm.connected.Add(-1)
			return
		}
	}
}

// drop ends the connection without a word.
func (d *stormDevice) drop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.conn.Close()
}

// probe publishes and measures until ctx ends.
func (d *stormDevice) probe(ctx context.Context, conn net.Conn, took func(time.Duration)) {
	m := &mqtt.Publish{Topic: []byte("up/" + d.id), Payload: make([]byte, 100), QoS: 1, PacketID: 1}
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		begun := time.Now()
		if err := send(conn, m); err != nil {
			d.storm.t.Errorf("a connected device was lost: %v", err)
			return
		}
		if got, err := receive(conn); err != nil || got.Type() != mqtt.TypePuback {
			d.storm.t.Errorf("a connected device was lost: %+v, %v", got, err)
			return
		}
		took(time.Since(begun))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// latencies collects what probes measure.
type latencies struct {
	mu  sync.Mutex
	all []time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, d)
}

// take returns the middle and the last hundredth since the last time.
func (l *latencies) take() (p50, p99 time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.all)
	if n := len(l.all); n > 0 {
		p50, p99 = l.all[n/2], l.all[n*99/100]
	}
	l.all = nil
	return p50, p99
}

// memory is what this process, with all its devices, uses in MB: heap and
// stacks as they are, and what of them the last collection found alive.
type memory struct{ used, live float64 }

func memoryNow() memory {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"},
		{Name: "/gc/heap/live:bytes"},
	}
	metrics.Read(samples)
	const mega = 1 << 20
	stacks := float64(samples[2].Value.Uint64())
	return memory{
		used: (float64(samples[0].Value.Uint64()+samples[1].Value.Uint64()) + stacks) / mega,
		live: (float64(samples[3].Value.Uint64()) + stacks) / mega,
	}
}

// watch returns the largest memory until it is stopped.
func watch(ctx context.Context) (stop func() memory) {
	ctx, cancel := context.WithCancel(ctx)
	most := make(chan memory, 1)
	go func() {
		peak := memoryNow()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				now := memoryNow()
				peak.used, peak.live = max(peak.used, now.used), max(peak.live, now.live)
			case <-ctx.Done():
				most <- peak
				return
			}
		}
	}()
	return func() memory { cancel(); return <-most }
}

// await waits until so many are connected.
func (s *storm) await(n int, within time.Duration) time.Duration {
	begun := time.Now()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for s.connected.Load() < int64(n) {
		select {
		case <-tick.C:
		case <-deadline.C:
			s.t.Fatalf("%d of %d devices are connected after %v", s.connected.Load(), n, within)
		}
	}
	return time.Since(begun)
}

// pause lets the fleet be for a while.
func pause(d time.Duration) { <-time.After(d) }

// TestStorm drops a fleet at once, twice, and prints how it comes back:
// MUSTER_BENCH_STORM devices, with mutual TLS if MUSTER_BENCH_TLS is 1. In the
// first storm devices come back as the SDK does, in the second they do as the
// server's hints say.
func TestStorm(t *testing.T) {
	n := environment(t, "MUSTER_BENCH_STORM", "20000")[0]
	secured := os.Getenv("MUSTER_BENCH_TLS") == "1"
	// The server's own pace for these cores; half of it with TLS, as the devices'
	// half of each handshake takes the same cores.
	usual := 700 * runtime.GOMAXPROCS(0)
	if secured {
		usual /= 2
	}
	pace := environment(t, "MUSTER_BENCH_PACE", strconv.Itoa(usual))[0]
	s := newStorm(t, pace)
	s.makeFleet(n+stormProbes, secured)
	ctx, cancel := context.WithCancel(t.Context())
	crowd, probes := s.fleet[:n], s.fleet[n:]
	measured := &latencies{}
	var probing sync.WaitGroup
	for _, d := range probes {
		conn, err := d.connect(ctx)
		if err != nil {
			t.Fatal(err)
		}
		probing.Go(func() {
			pause(time.Duration(mathrand.Int64N(int64(probeEvery))))
			d.probe(ctx, conn, measured.add)
		})
	}
	each := time.Second / time.Duration(pace*9/10)
	begun := time.Now()
	for i, d := range crowd {
		if ahead := time.Until(begun.Add(time.Duration(i) * each)); ahead > time.Millisecond {
			pause(ahead)
		}
		s.running.Go(func() { d.comeBack(ctx) })
	}
	s.await(n, time.Minute)
	pause(2 * time.Second)
	runtime.GC() // what is left of the start is not of the steady state
	measured.take()
	steadyWatch := watch(ctx)
	pause(5 * time.Second)
	steady := steadyWatch()
	p50, p99 := measured.take()
	kind := "without TLS"
	if secured {
		kind = "with mutual TLS"
	}
	fmt.Printf("\nstorm: %d devices in memory %s, policy on, pace %d/s; %d more publish QoS 1 every %v\n"+
		"both ends are this process; alive is what the collector keeps, with stacks\n%-26s %9s %8s %8s %9s %7s %9s %7s %7s %7s %7s\n",
		n, kind, pace, stormProbes, probeEvery,
		"", "back in s", "p50 ms", "p99 ms", "MB alive", "", "MB used", "", "hinted", "closed", "timeout")
	fmt.Printf("%-26s %9s %8.2f %8.2f %9.0f %7s %9.0f\n", "steady", "", milliseconds(p50), milliseconds(p99), steady.live, "", steady.used)
	for _, obey := range []bool{false, true} {
		name := "storm, the SDK's backoff"
		if obey {
			name = "storm, hints obeyed"
		}
		s.obey.Store(obey)
		s.hinted.Store(0)
		s.refused.Store(0)
		s.timedOut.Store(0)
		measured.take()
		peakWatch := watch(ctx)
		for _, d := range crowd {
			d.drop()
		}
		for _, d := range crowd {
			s.running.Go(func() { d.comeBack(ctx) })
		}
		back := s.backOf(crowd)
		peak := peakWatch()
		p50, p99 := measured.take()
		fmt.Printf("%-26s %9.1f %8.2f %8.2f %9.0f %6.2fx %9.0f %6.2fx %7d %7d %7d\n", name, back.Seconds(), milliseconds(p50), milliseconds(p99),
			peak.live, peak.live/steady.live, peak.used, peak.used/steady.used, s.hinted.Load(), s.refused.Load(), s.timedOut.Load())
		pause(12 * time.Second) // the storm's end is told
	}
	cancel()
	probing.Wait()
	stop, done := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer done()
	if err := s.broker.Shutdown(stop); err != nil {
		t.Error(err)
	}
	s.running.Wait()
}

// backOf waits until all of the crowd is connected.
func (s *storm) backOf(crowd []*stormDevice) time.Duration {
	begun := time.Now()
	// Those whose end was not seen yet still count.
	pause(300 * time.Millisecond)
	s.await(len(crowd), 5*time.Minute)
	return time.Since(begun)
}
