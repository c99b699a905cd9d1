package app

import (
	"crypto/tls"
	"net"
	"runtime"
	"testing"
	"time"
)

// silent opens connections from one address that never say anything.
func silent(t *testing.T, n int, from, to string) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	for range n {
		conn, err := dialer.DialContext(t.Context(), "tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
}

// TestSilentPeersDoNotKeepOthersOut floods both TLS ports from one address
// with more connections than there are places for handshakes: a client at
// another address is served at once, and so is one behind the same address,
// which many devices may share.
func TestSilentPeersDoNotKeepOthersOut(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("needs a second loopback address")
	}
	a := newApp(t, settings(t))
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	maxHandshakes := a.brokerLimits().MaxHandshakes
	for _, name := range []string{listenerMQTT, listenerTLS} {
		addr := a.Addr(name).String()
		silent(t, maxHandshakes+10, "127.0.0.1", addr)
		for _, from := range []string{"127.0.0.2", "127.0.0.1"} {
			dialer := tls.Dialer{
				NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: handshakeTimeout / 2},
				Config:    &tls.Config{InsecureSkipVerify: true},
			}
			begun := time.Now()
			conn, err := dialer.DialContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Fatalf("%s from %s: after %v: %v", name, from, time.Since(begun), err)
			}
			_ = conn.Close()
		}
	}
	if open := a.limit.Open(); open < maxHandshakes {
		t.Errorf("%d connections count", open)
	}
}

func TestOnLoopback(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"127.0.0.1:1": true, "127.8.0.1:1": true, "[::1]:1": true, "0.0.0.0:1": false, "[::]:1": false, "192.0.2.1:1": false,
	} {
		bound, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := onLoopback(bound); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if onLoopback(&net.UnixAddr{Name: "x"}) {
		t.Error("a socket file is no loopback address")
	}
}
