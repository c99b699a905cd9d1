package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
)

// ownCertificate writes a self-signed server certificate, and returns its files
// and its DER form.
func ownCertificate(t *testing.T, name string) (certFile, keyFile string, der []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	if der, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key); err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile, der
}

// presented dials a TLS port and returns the server's certificate.
func presented(t *testing.T, addr, name string) []byte {
	t.Helper()
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: name, Certificates: []tls.Certificate{strangerCertificate(t)}}}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	secured, ok := conn.(*tls.Conn)
	if !ok {
		t.Fatalf("%T", conn)
	}
	return secured.ConnectionState().PeerCertificates[0].Raw
}

// TestReloadedCertificateDropsNobody changes the server's own certificate twice
// under a session over TLS and one over WebSocket: newcomers see the new one,
// sessions go on.
func TestReloadedCertificateDropsNobody(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	messages := make(chan string, 8)
	device := s.device("127.0.0.0/8")
	conn, err := client.Dial(t.Context(), s.Addr(listenerMQTT).String(), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{device}})
	if err != nil {
		t.Fatal(err)
	}
	overTLS, err := client.Connect(t.Context(), conn, client.Options{ClientID: "tls"})
	if err != nil {
		t.Fatal(err)
	}
	defer overTLS.Close()
	overWebSocket, _ := s.connect(opening{}, client.Options{ClientID: "websocket", OnMessage: func(p *mqtt.Publish) { messages <- string(p.Payload) }})
	if _, err := overWebSocket.Subscribe(t.Context(), mqtt.Subscription{Filter: "t", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		next := s.settings
		var want []byte
		next.TLSCert, next.TLSKey, want = ownCertificate(t, "iot.example.com")
		if _, err := s.Reload(next); err != nil {
			t.Fatal(err)
		}
		for _, listener := range []string{listenerMQTT, listenerTLS} {
			if got := presented(t, s.Addr(listener).String(), "iot.example.com"); string(got) != string(want) {
				t.Errorf("%s presents another certificate", listener)
			}
		}
		if err := overTLS.Publish(t.Context(), "t", 1, []byte("still")); err != nil {
			t.Fatal(err)
		}
		if got := <-messages; got != "still" {
			t.Errorf("received %q", got)
		}
	}
	// A pair that does not fit leaves the last one in force.
	cert, _, _ := ownCertificate(t, "iot.example.com")
	_, key, _ := ownCertificate(t, "iot.example.com")
	last := presented(t, s.Addr(listenerTLS).String(), "iot.example.com")
	next := s.settings
	next.TLSCert, next.TLSKey = cert, key
	if _, err := s.Reload(next); err == nil {
		t.Error("a key of another certificate was taken")
	}
	if got := presented(t, s.Addr(listenerTLS).String(), "iot.example.com"); string(got) != string(last) {
		t.Error("a failed reload changed the certificate")
	}
}

// TestNoSessionTickets cites §1.1 of the device plane: no version of TLS hands
// out tickets, so that no connection skips its certificate.
func TestNoSessionTickets(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	for _, listener := range []string{listenerMQTT, listenerTLS} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := &tls.Config{
				InsecureSkipVerify: true, ServerName: "localhost", MaxVersion: version,
				ClientSessionCache: tls.NewLRUClientSessionCache(8), Certificates: []tls.Certificate{strangerCertificate(t)},
			}
			for range 2 {
				conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", s.Addr(listener).String())
				if err != nil {
					t.Fatal(err)
				}
				// Tickets of TLS 1.3 come behind the handshake: read an answer.
				exchange(t, conn, "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a", 4)
				secured, ok := conn.(*tls.Conn)
				if !ok {
					t.Fatalf("%T", conn)
				}
				if secured.ConnectionState().DidResume {
					t.Errorf("%s: %s was resumed", listener, tls.VersionName(version))
				}
				if _, kept := config.ClientSessionCache.Get("localhost"); kept {
					t.Errorf("%s: %s gave a ticket", listener, tls.VersionName(version))
				}
				_ = conn.Close()
			}
		}
	}
}

// TestRequiredServerName cites ruling 3 of the design: with tls.require-sni a
// connection must name an endpoint, on every kind of connection.
func TestRequiredServerName(t *testing.T) {
	t.Parallel()
	s := startApp(t, func(a *App) { a.names.required = true })
	device := s.device("127.0.0.0/8")
	for name, want := range map[string]bool{"localhost": true, "LOCALHOST": true, "": false, "example.com": false} {
		config := &tls.Config{InsecureSkipVerify: true, ServerName: name, Certificates: []tls.Certificate{device}}
		for _, listener := range []string{listenerMQTT, listenerTLS} {
			conn, err := client.Dial(t.Context(), s.Addr(listener).String(), config)
			if err != nil {
				t.Fatal(err)
			}
			connected, err := client.Connect(t.Context(), conn, client.Options{ClientID: listener})
			if (err == nil) != want {
				t.Errorf("%s with %q: %v", listener, name, err)
			}
			if err == nil {
				_ = connected.Close()
			}
		}
		config.Certificates = nil
		if status := s.upgradeStatus(config); (status == http.StatusSwitchingProtocols) != want {
			t.Errorf("WebSocket with %q: %d", name, status)
		}
	}
	// There is no TLS on loopback that could name anything.
	if socket, status, body := s.open(opening{listener: listenerHTTP}); socket == nil {
		t.Errorf("on http-addr: %d %s", status, body)
	} else {
		connected, err := client.Connect(t.Context(), websocket.NetConn(context.WithoutCancel(t.Context()), socket, websocket.MessageBinary), client.Options{ClientID: "c"})
		if err != nil {
			t.Fatal(err)
		}
		_ = connected.Close()
	}
}

// upgradeStatus asks for a WebSocket over a TLS configuration.
func (s *liveApp) upgradeStatus(config *tls.Config) int {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "https://"+s.Addr(listenerTLS).String()+webSocketPath, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.sign(r, &opening{})
	conn, err := (&tls.Dialer{Config: config}).DialContext(s.t.Context(), "tcp", r.Host)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
	r.Header.Set("Sec-WebSocket-Protocol", webSocketProtocol)
	if err := r.Write(conn); err != nil {
		s.t.Fatal(err)
	}
	answer := make([]byte, len("HTTP/1.1 101"))
	if _, err := io.ReadFull(conn, answer); err != nil {
		s.t.Fatal(err)
	}
	return int(answer[9]-'0')*100 + int(answer[10]-'0')*10 + int(answer[11]-'0')
}
