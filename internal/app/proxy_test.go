package app

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/pires/go-proxyproto"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/topic"
)

// proxyHeader is what a proxy sends for a client at 192.0.2.7.
func proxyHeader(t *testing.T, version byte, from string) string {
	t.Helper()
	source, err := net.ResolveTCPAddr("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	target, err := net.ResolveTCPAddr("tcp", "198.51.100.1:8883")
	if err != nil {
		t.Fatal(err)
	}
	text, err := proxyproto.HeaderProxyFromAddrs(version, source, target).Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// dialBehind connects from an address and sends a header first.
func dialBehind(ctx context.Context, t *testing.T, from, to, header string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.DialContext(ctx, "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write([]byte(header)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// device makes a registered certificate that a policy allows everything from one
// network only.
func (s *liveApp) device(from string) tls.Certificate {
	s.t.Helper()
	made, err := s.registry.CreateKeysAndCertificate(s.t.Context(), s.settings.AccountID, true)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.registry.CreatePolicy(s.t.Context(), s.settings.AccountID, "behind", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
		"Action":"iot:*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"`+from+`"}}}]}`); err != nil {
		s.t.Fatal(err)
	}
	if err := s.registry.AttachPolicy(s.t.Context(), s.settings.AccountID, "behind", made.ARN); err != nil {
		s.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(made.PEM), []byte(made.PrivatePEM))
	if err != nil {
		s.t.Fatal(err)
	}
	return pair
}

// TestProxyProtocol puts both TLS ports behind proxies at 127.0.0.1: the address
// in the header is the peer's for presence and for policies, and nobody comes
// in without a header, with one of another kind or past the proxies.
func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	s := startApp(t, func(a *App) {
		a.settings.MQTT.ProxyProtocol, a.settings.TLS.ProxyProtocol = []string{"127.0.0.1"}, []string{"127.0.0.0/30"}
	})
	device := s.device("192.0.2.0/24")
	local, err := proxyproto.HeaderProxyFromAddrs(2, nil, nil).Format()
	if err != nil {
		t.Fatal(err)
	}
	long := []byte(proxyHeader(t, 2, "192.0.2.7:1"))
	long[14], long[15] = 0xff, 0xff
	good := proxyHeader(t, 2, "192.0.2.7:4711")
	for name, c := range map[string]struct {
		from, header string
		open         bool
		code         byte // of CONNACK
	}{
		"a client that may":      {"127.0.0.1", good, true, 0},
		"a client elsewhere":     {"127.0.0.1", proxyHeader(t, 2, "203.0.113.9:1"), true, 5},
		"the proxy itself":       {"127.0.0.1", string(local), true, 5},
		"no header":              {"127.0.0.1", "", false, 0},
		"version 1":              {"127.0.0.1", proxyHeader(t, 1, "192.0.2.7:4711"), false, 0},
		"a header without end":   {"127.0.0.1", string(long) + strings.Repeat("x", 1<<16), false, 0},
		"a client that pretends": {"127.0.0.9", good, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.from != "127.0.0.1" && !hasLoopback(c.from) {
				t.Skip("needs a second loopback address")
			}
			for _, listener := range []string{listenerMQTT, listenerTLS} {
				raw := dialBehind(t.Context(), t, c.from, s.Addr(listener).String(), c.header)
				conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{device}, NextProtos: []string{"x-amzn-mqtt-ca"}})
				err := conn.HandshakeContext(t.Context())
				if (err == nil) != c.open {
					t.Errorf("%s: handshake: %v", listener, err)
				}
				if err != nil {
					continue
				}
				id := name + " " + listener
				connected, err := client.Connect(t.Context(), conn, client.Options{ClientID: id})
				var refused *client.RefusedError
				if errors.As(err, &refused) != (c.code != 0) || refused != nil && byte(refused.Reason) != c.code {
					t.Errorf("%s: %v, want code %d", listener, err, c.code)
				}
				if connected == nil {
					continue
				}
				got, ok := s.broker.Connection(s.settings.AccountID, id)
				if !ok || got.RemoteAddr != "192.0.2.7:4711" || got.RemoteIP != "192.0.2.7" || got.LocalAddr != "198.51.100.1:8883" {
					t.Errorf("%s: connected as %+v, %v", listener, got, ok)
				}
				if away, err := s.presence.Get(t.Context(), s.settings.AccountID, id); err == nil && away.IPAddress != "192.0.2.7" {
					t.Errorf("%s: presence has %q", listener, away.IPAddress)
				}
				_ = connected.Close()
			}
		})
	}
}

func hasLoopback(addr string) bool {
	l, err := net.ListenPacket("udp", addr+":0")
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

// TestProxiedWebSocket reaches a WebSocket through a proxy; the client has
// signed the port of the proxy.
func TestProxiedWebSocket(t *testing.T) {
	t.Parallel()
	s := startApp(t, func(a *App) { a.settings.TLS.ProxyProtocol = []string{"127.0.0.1"} })
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://iot.example.com:8883/mqtt", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.sign(r, &opening{})
	transport := &http.Transport{DisableKeepAlives: true, DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		raw := dialBehind(ctx, t, "127.0.0.1", s.Addr(listenerTLS).String(), proxyHeader(t, 2, "[2001:db8::7]:4711"))
		return tls.Client(raw, &tls.Config{InsecureSkipVerify: true}), nil
	}}
	socket, _, err := websocket.Dial(t.Context(), r.URL.String(), &websocket.DialOptions{ //nolint:bodyclose // there is none
		HTTPClient: &http.Client{Transport: transport}, Host: "iot.example.com", Subprotocols: []string{webSocketProtocol},
	})
	if err != nil {
		t.Fatal(err)
	}
	connected, err := client.Connect(t.Context(), websocket.NetConn(context.WithoutCancel(t.Context()), socket, websocket.MessageBinary), client.Options{ClientID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()
	if got, ok := s.broker.Connection(s.settings.AccountID, "c"); !ok || got.RemoteIP != "2001:db8::7" {
		t.Errorf("connected as %+v, %v", got, ok)
	}
}

// TestSilentProxyKeepsNoPlace opens connections of a proxy that sends its header
// and nothing else, or nothing at all: others are served.
func TestSilentProxyKeepsNoPlace(t *testing.T) {
	t.Parallel()
	s := startApp(t, func(a *App) { a.settings.TLS.ProxyProtocol = []string{"127.0.0.1"} })
	mute := dialBehind(t.Context(), t, "127.0.0.1", s.Addr(listenerTLS).String(), "")
	begun := time.Now()
	for i := range broker.DefaultLimits(topic.AWS).MaxHandshakes + 10 {
		header := ""
		if i%2 == 0 {
			header = proxyHeader(t, 2, "192.0.2.7:4711")
		}
		dialBehind(t.Context(), t, "127.0.0.1", s.Addr(listenerTLS).String(), header)
	}
	ctx, cancel := context.WithTimeout(t.Context(), handshakeTimeout/2)
	defer cancel()
	raw := dialBehind(ctx, t, "127.0.0.1", s.Addr(listenerTLS).String(), proxyHeader(t, 2, "192.0.2.7:4712"))
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	if err := conn.HandshakeContext(ctx); err != nil {
		t.Error(err)
	}
	if err := mute.SetReadDeadline(begun.Add(3 * handshakeTimeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := mute.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection without header after %v: %v", time.Since(begun), err)
	}
}
