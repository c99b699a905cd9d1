package e2e_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

const (
	// patience is how long a server may take to drop a hostile connection: a
	// little more than its longest wait for a first packet.
	patience = 15 * time.Second
	// growthKB is how much memory a server may take from everything in here.
	growthKB = 64 << 10
)

// packet joins a first byte, the length of the rest as it is claimed, and what
// is really there.
func packet(first byte, claimed int, body ...byte) []byte {
	return append(binary.AppendUvarint([]byte{first}, uint64(claimed)), body...)
}

// hello is a CONNECT of the thing, as MQTT 3.1.1 or 5.
func hello(level byte, clientID string) []byte {
	body := []byte{0, 4, 'M', 'Q', 'T', 'T', level, 2, 0, 60}
	if level == 5 {
		body = append(body, 0)
	}
	body = binary.BigEndian.AppendUint16(body, uint16(len(clientID)))
	body = append(body, clientID...)
	return packet(0x10, len(body), body...)
}

// hostilePackets are sent by themselves and after a CONNECT that is accepted.
func hostilePackets() map[string][]byte {
	long := make([]byte, 200<<10)
	return map[string][]byte{
		"nothing":                    {},
		"one byte":                   {0x10},
		"endless length":             {0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01},
		"length of 256 MB":           packet(0x10, 268435455, 0, 4, 'M', 'Q'),
		"truncated":                  hello(4, "x")[:9],
		"publish of 256 MB":          packet(0x30, 268435455, 0, 1, 'a'),
		"publish beyond the limit":   packet(0x30, len(long)+3, append([]byte{0, 1, 'a'}, long...)...),
		"topic beyond the packet":    packet(0x32, 4, 0xFF, 0xFF, 'a', 'b'),
		"publish with QoS 3":         packet(0x36, 5, 0, 1, 'a', 0, 1),
		"publish without packet id":  packet(0x32, 3, 0, 1, 'a'),
		"publish to a wildcard":      packet(0x30, 3, 0, 1, '#'),
		"publish of no UTF-8":        packet(0x30, 4, 0, 2, 0xC0, 0x80),
		"subscribe to nothing":       packet(0x82, 2, 0, 1),
		"subscribe with wrong flags": packet(0x80, 6, 0, 1, 0, 1, 'a', 0),
		"subscribe with QoS 7":       packet(0x82, 6, 0, 1, 0, 1, 'a', 7),
		"puback without id":          packet(0x40, 0),
		"packet type 0":              packet(0x00, 0),
		"server's packet":            packet(0xD0, 1, 0),
		"second CONNECT":             append(hello(4, "x"), hello(4, "x")...),
		"unknown protocol level":     packet(0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 9, 2, 0, 60, 0, 1, 'x'),
		"other protocol":             packet(0x10, 13, 0, 4, 'X', 'M', 'P', 'P', 4, 2, 0, 60, 0, 1, 'x'),
		"reserved connect flag":      packet(0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 3, 0, 60, 0, 1, 'x'),
		"will without a will":        packet(0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 6, 0, 60, 0, 1, 'x'),
		"HTTP":                       []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"TLS in TLS":                 {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03},
		"zeros":                      make([]byte, 4096),
		"ones":                       bytes.Repeat([]byte{0xFF}, 4096),
	}
}

// target is one way into the broker.
type target struct {
	name, addr string
	// tls is nil for plain connections.
	tls *tls.Config
	// thing may connect there.
	thing string
}

func (g target) dial(ctx context.Context) (net.Conn, error) {
	if g.tls == nil {
		return (&net.Dialer{}).DialContext(ctx, "tcp", g.addr)
	}
	return (&tls.Dialer{Config: g.tls}).DialContext(ctx, "tcp", g.addr)
}

// strike sends bytes and reports whether the server ended the connection
// while the client was still waiting for it.
func (g target) strike(ctx context.Context, data []byte, accepted bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := g.dial(ctx)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if accepted {
		if _, err := conn.Write(hello(4, g.thing)); err != nil {
			return fmt.Errorf("CONNECT: %w", err)
		}
		var connack [4]byte
		if _, err := io.ReadFull(conn, connack[:]); err != nil || connack[3] != 0 {
			return fmt.Errorf("CONNACK %x, %w", connack, err)
		}
	}
	if _, err := conn.Write(data); err != nil {
		return nil //nolint:nilerr // ended before everything was sent
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the server may have been faster
	}
	_, err = io.Copy(io.Discard, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the connection lives on after %v", patience)
	}
	return nil // by a reset or in order: it is over
}

// hostileRig is a server with one well-behaved device beside the others.
type hostileRig struct {
	t       *testing.T
	server  *testkit.Server
	good    *device
	as      identity
	targets []target
	memory  float64
	reports int64
}

func newHostileRig(t *testing.T) *hostileRig {
	t.Helper()
	server := testkit.StartServer(t, "--log.level", "warn")
	api := newAPI(t, server)
	must(t, api.CreatePolicy(t.Context(), "device", devicePolicy))
	r := &hostileRig{t: t, server: server, as: newDevice(t, api, "good")}
	for _, thing := range []string{"bad-tls", "bad-alpn", "bad-plain"} {
		as := newDevice(t, api, thing)
		g := target{name: thing, thing: thing, addr: server.PlainMQTTAddr}
		switch thing {
		case "bad-tls":
			g.addr, g.tls = server.MQTTAddr, server.TLSConfig(as.pair(t))
		case "bad-alpn":
			g.addr, g.tls = server.TLSAddr, server.TLSConfig(as.pair(t), "x-amzn-mqtt-ca")
		}
		r.targets = append(r.targets, g)
	}
	r.good = online(t, server, "good", r.as)
	r.healthy()
	r.memory = resident(t, server.PID())
	return r
}

// healthy demands that the server answers, that the device which was there
// before is still there and is served, and that another one gets in.
func (r *hostileRig) healthy() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.server.HTTPAddr+"/readyz", nil)
	must(r.t, err)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		r.t.Fatalf("/readyz: %v", err)
	}
	must(r.t, response.Body.Close())
	if response.StatusCode != http.StatusOK {
		r.t.Errorf("/readyz: status %d", response.StatusCode)
	}
	r.reports++
	if a, err := r.good.report(ctx, r.reports); err != nil || a.Version != r.reports {
		r.t.Fatalf("the device that was there before: version %d, %v; want version %d", a.Version, err, r.reports)
	}
	api := newAPI(r.t, r.server)
	name := fmt.Sprintf("late-%d", r.reports)
	newDevice(r.t, api, name)
	late, err := connect(ctx, r.server.PlainMQTTAddr, name, nil)
	if err != nil {
		r.t.Fatalf("a new device: %v", err)
	}
	if _, err := late.report(ctx, 1); err != nil {
		r.t.Errorf("a new device: %v", err)
	}
	must(r.t, late.Disconnect())
	if r.memory > 0 {
		if grown := resident(r.t, r.server.PID()) - r.memory; grown > growthKB {
			r.t.Errorf("the server's memory grew by %.0f KB", grown)
		}
	}
}

// resident is the memory of a process in KB.
func resident(t *testing.T, pid int) float64 {
	t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	must(t, err)
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			must(t, err)
			return kb
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// TestHostilePackets sends what no client should, on every way in, before and
// after CONNECT: that connection ends, and no other.
func TestHostilePackets(t *testing.T) {
	t.Parallel()
	r := newHostileRig(t)
	for _, g := range r.targets {
		for name, data := range hostilePackets() {
			for _, accepted := range []bool{false, true} {
				if err := g.strike(t.Context(), data, accepted); err != nil {
					t.Errorf("%s: %s (after CONNECT: %v): %v", g.name, name, accepted, err)
				}
			}
		}
		r.healthy()
	}
	if strings.Contains(r.server.Log(), "panic") {
		t.Error("the log speaks of a panic")
	}
}

// TestRandomPackets sends bytes without sense: raw ones, bodies without sense
// in well-formed frames, and good packets with one byte changed.
func TestRandomPackets(t *testing.T) {
	t.Parallel()
	const rounds, parallel = 300, 8
	r := newHostileRig(t)
	var striking sync.WaitGroup
	for worker := range parallel {
		random := rand.New(rand.NewPCG(2, uint64(worker)))
		g := r.targets[worker%len(r.targets)]
		striking.Go(func() {
			for range rounds / parallel {
				data := senseless(random)
				// After CONNECT only one session of a client id can live.
				if err := g.strike(t.Context(), data, worker < len(r.targets)); err != nil {
					t.Errorf("%s: %x: %v", g.name, data, err)
				}
			}
		})
	}
	striking.Wait()
	r.healthy()
}

func senseless(random *rand.Rand) []byte {
	noise := make([]byte, random.IntN(300))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	switch random.IntN(3) {
	case 0:
		return noise
	case 1:
		return packet(byte(random.Uint32()), len(noise), noise...)
	default:
		good := hello(4+byte(random.IntN(2)), "nobody")
		good = append(good, packet(0x82, 8, 0, 1, 0, 3, 'a', '/', 'b', 1)...)
		good = append(good, packet(0x32, 7, 0, 3, 'a', '/', 'b', 0, 2)...)
		good[random.IntN(len(good))] ^= 1 << random.IntN(8)
		return good
	}
}

// TestHostileHTTP sends garbage to the ports that speak HTTP.
func TestHostileHTTP(t *testing.T) {
	t.Parallel()
	r := newHostileRig(t)
	shared := target{name: "shared port", addr: r.server.TLSAddr, tls: r.server.TLSConfig(r.as.pair(t), "http/1.1")}
	local := target{name: "local port", addr: r.server.HTTPAddr}
	garbage := map[string]string{
		"no request":             "\x00\x01\x02\r\n\r\n",
		"endless request line":   "GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\n\r\n",
		"endless header":         "GET / HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n",
		"many headers":           "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: b\r\n", 100_000) + "\r\n",
		"negative length":        "POST /things/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"two lengths":            "POST /things/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"length and chunks":      "POST /things/a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"body that is not there": "POST /things/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nab",
		"escapes":                "GET /things/%00%ff%2e%2e%2f HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"authorization":          "GET /things HTTP/1.1\r\nHost: x\r\nAuthorization: AWS4-HMAC-SHA256 Credential=////,SignedHeaders=;,Signature=\r\nConnection: close\r\n\r\n",
		"MQTT":                   string(hello(4, "nobody")), // the shared port takes it for MQTT and policy refuses it
	}
	for _, g := range []target{local, shared} {
		for name, data := range garbage {
			if err := g.strike(t.Context(), []byte(data), false); err != nil {
				t.Errorf("%s: %s: %v", g.name, name, err)
			}
		}
		r.healthy()
	}
	// Deep and large JSON from a caller who may call.
	api := newAPI(t, r.server)
	for name, body := range map[string]string{
		"deep":  strings.Repeat(`{"state":`, 5000) + "1" + strings.Repeat("}", 5000),
		"large": `{"state":{"reported":{"x":"` + strings.Repeat("y", 4<<20) + `"}}}`,
		"none":  "\xFF\xFE",
	} {
		if _, err := api.UpdateShadow(t.Context(), "good", "other", []byte(body)); err == nil {
			t.Errorf("a shadow update of %s JSON was accepted", name)
		}
	}
	r.healthy()
}

// TestSlowClients holds many connections in every unfinished state. Everybody
// else is served meanwhile, and in the end the server lets go of them.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	const each = 100
	r := newHostileRig(t)
	openings := []struct {
		name, addr, data string
	}{
		{"silent on the MQTT port", r.server.MQTTAddr, ""},
		{"half a ClientHello", r.server.MQTTAddr, "\x16\x03\x01\x02\x00\x01"},
		{"silent on the shared port", r.server.TLSAddr, ""},
		{"half a ClientHello on the shared port", r.server.TLSAddr, "\x16\x03\x01\x02\x00\x01"},
		{"half a CONNECT", r.server.PlainMQTTAddr, string(hello(4, "bad-plain")[:8])},
		{"half a header", r.server.HTTPAddr, "GET /readyz HTTP/1.1\r\nHost: loc"},
	}
	var held []net.Conn
	for _, o := range openings {
		for range each {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", o.addr)
			must(t, err)
			t.Cleanup(func() { _ = conn.Close() }) // the server has done it, or the test failed
			if _, err := io.WriteString(conn, o.data); err != nil {
				t.Fatal(err)
			}
			held = append(held, conn)
		}
	}
	begun := time.Now()
	r.healthy()
	other := newDevice(t, newAPI(t, r.server), "patient")
	for addr, alpn := range map[string][]string{r.server.MQTTAddr: nil, r.server.TLSAddr: {"x-amzn-mqtt-ca"}} {
		d, err := connect(t.Context(), addr, "patient", r.server.TLSConfig(other.pair(t), alpn...))
		if err != nil {
			t.Errorf("a device on %s beside %d slow ones: %v", addr, len(held), err)
			continue
		}
		must(t, d.Disconnect())
	}
	t.Logf("a well-behaved device is served after %v beside %d slow clients", time.Since(begun), len(held))
	for i, conn := range held {
		must(t, conn.SetReadDeadline(begun.Add(2*patience)))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%s: still open after %v", openings[i/each].name, 2*patience)
		}
	}
	r.healthy()
}

// TestFlood has some clients publish as fast as the server reads, and others
// subscribe and not read. The device that was there before is served in good
// time, the server's memory keeps within bounds, and afterwards all is well.
func TestFlood(t *testing.T) {
	t.Parallel()
	const flooders, stalled, lasting = 4, 4, 3 * time.Second
	r := newHostileRig(t)
	addr := r.server.PlainMQTTAddr
	for i := range stalled {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		subscribe := packet(0x82, 10, 0, 1, 0, 5, 'f', 'l', 'o', 'o', 'd', 1)
		_, err = conn.Write(append(hello(4, fmt.Sprint("stalled-", i)), subscribe...))
		must(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	defer cancel()
	var flooding sync.WaitGroup
	for i := range flooders {
		flooding.Go(func() {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			message := packet(0x30, 7+1000, append([]byte{0, 5, 'f', 'l', 'o', 'o', 'd'}, make([]byte, 1000)...)...)
			burst := append(hello(5, fmt.Sprint("flooder-", i)), bytes.Repeat(message, 64)...)
			for ctx.Err() == nil {
				if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
					t.Error(err)
					return
				}
				if _, err := conn.Write(burst); err != nil {
					t.Errorf("flooder %d: %v", i, err)
					return
				}
				burst = bytes.Repeat(message, 64)
			}
		})
	}
	var slowest time.Duration
	for ctx.Err() == nil {
		begun := time.Now()
		r.reports++
		if a, err := r.good.report(t.Context(), r.reports); err != nil || a.Version != r.reports {
			t.Fatalf("the device that was there before: version %d, %v", a.Version, err)
		}
		slowest = max(slowest, time.Since(begun))
	}
	flooding.Wait()
	t.Logf("beside the flood an update took %v at most", slowest)
	if slowest > 5*time.Second {
		t.Errorf("beside the flood an update took %v", slowest)
	}
	r.healthy()
}
