//go:build bench

package bench_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// mosquitto starts the peer with its limits off and returns address and pid.
// With lines, the listener speaks TLS or whatever else they say.
func mosquitto(t *testing.T, c *cores, lines ...string) (addr string, pid int) {
	t.Helper()
	binary, err := exec.LookPath("mosquitto")
	if err != nil {
		binary = "/usr/sbin/mosquitto"
	}
	addr = testkit.FreePort(t)
	_, port, _ := net.SplitHostPort(addr)
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	// It reads certificates of this test, which another account may not.
	conf := append([]string{
		"user root", "listener " + port + " 127.0.0.1", "allow_anonymous true", "max_inflight_messages 0",
		"max_queued_messages 0", "set_tcp_nodelay true", "log_type error",
	}, lines...)
	if err := os.WriteFile(file, []byte(strings.Join(conf, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-c", file)
	var said bytes.Buffer
	cmd.Stderr = &said
	c.start(t, func() { err = cmd.Start() })
	if err != nil {
		t.Skipf("no mosquitto to compare with: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()         // killed
		if t.Failed() {
			t.Logf("mosquitto says:\n%s", said.Bytes())
		}
	})
	testkit.Poll(t, 10*time.Second, "mosquitto listens", func() error {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return addr, cmd.Process.Pid
}

// muster starts the server on its core.
func muster(t *testing.T, c *cores, dataDir string, flags ...string) *testkit.Server {
	t.Helper()
	server := testkit.NewServer(t, dataDir, append([]string{"--log.level", "warn"}, flags...)...)
	c.start(t, server.Start)
	return server
}

// mutualTLS are mosquitto's settings for the server certificate that muster
// has, and for muster's devices.
func mutualTLS(t *testing.T, s serverCertificate, dataDir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dataDir, "*", "device-ca.pem"))
	if err != nil || len(found) != 1 {
		t.Fatalf("the device authority in %s: %v, %v", dataDir, found, err)
	}
	return []string{
		"cafile " + found[0], "certfile " + s.certFile, "keyfile " + s.keyFile,
		"require_certificate true", "tls_version tlsv1.3",
	}
}

// accessList makes the peer check topics as muster's policy does, by a list
// of its own kind.
func accessList(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "acl")
	if err := os.WriteFile(file, []byte("topic readwrite bench/#\npattern readwrite $aws/things/%c/#\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "acl_file " + file
}

// link says how clients reach a server.
type link struct {
	addr string
	pid  int
	// tls is nil for plain connections; devices are presented in turn.
	tls     *tls.Config
	devices []tls.Certificate
}

// sources are the loopback addresses that connections leave from: one has not
// ports enough, and a server may treat one address as one peer.
const sources = 200

// open connects the i-th client's socket.
func (l *link) open(t *testing.T, i int) (net.Conn, error) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%sources))}}
	conn, err := dialer.DialContext(t.Context(), "tcp", l.addr)
	if err != nil || l.tls == nil {
		return conn, err
	}
	config := l.tls.Clone()
	config.Certificates = []tls.Certificate{l.devices[i%len(l.devices)]}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(t.Context()); err != nil {
		return nil, fmt.Errorf("TLS to %s: %w", l.addr, err)
	}
	return secured, nil
}

// connect opens a connection and a session on it. delivered may be nil.
func (l *link) connect(t *testing.T, i int, id string, persistent bool, delivered func([]byte)) (*client, error) {
	t.Helper()
	conn, err := l.open(t, i)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, delivered: delivered}
	return c, c.hello(id, persistent)
}
