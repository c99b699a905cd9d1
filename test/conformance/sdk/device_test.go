package sdk

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// javascriptDir holds the device program and its dependencies.
const javascriptDir = "../javascript"

// needDevice installs the SDKs for JavaScript where they are missing and that
// can be done.
//
//nolint:gochecknoglobals // it is one installation for the process.
var needDevice = sync.OnceValue(func() error {
	missing := false
	for _, name := range []string{"aws-iot-device-sdk-v2", "aws-iot-device-sdk", "mqtt", "@aws-sdk/client-iot-data-plane"} {
		_, err := os.Stat(filepath.Join(javascriptDir, "node_modules", name))
		missing = missing || err != nil
	}
	if !missing {
		return nil
	}
	cmd := exec.Command("npm", "ci", "--no-audit", "--no-fund")
	cmd.Dir = javascriptDir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci in %s: %w\n%s", javascriptDir, err, out)
	}
	return nil
})

// line is one line that the device program writes.
type line struct {
	Event string `json:"event"`
	// Why and Reason are set when the program failed or was refused.
	Why    string `json:"why"`
	Reason string `json:"reason"`

	ReceiveMaximum    int `json:"receiveMaximum"`
	MaximumQoS        int `json:"maximumQos"`
	MaximumPacketSize int `json:"maximumPacketSize"`
	ServerKeepAlive   int `json:"serverKeepAlive"`

	ClientToken string         `json:"clientToken"`
	Version     int            `json:"version"`
	State       map[string]any `json:"state"`

	Code    int    `json:"code"`
	Message string `json:"message"`

	// The rest is what shadows.mjs says.
	Shadow    string `json:"shadow"`
	Accepted  bool   `json:"accepted"`
	Metadata  bool   `json:"metadata"`
	Timestamp bool   `json:"timestamp"`
	Previous  int    `json:"previous"`
}

// jsDevice is a running device program.
type jsDevice struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  chan line
	stdin  io.WriteCloser
	stderr bytes.Buffer
}

// startDevice runs the program as a thing, connecting to localhost's port.
func startDevice(t *testing.T, server *testkit.Server, thing, protocol, addr string, as identity) *jsDevice {
	t.Helper()
	return startJavaScript(t, "device.mjs", "THING="+thing, "PROTOCOL="+protocol, "PORT="+portOf(t, addr),
		"CERT="+as.cert, "KEY="+as.key, "CA="+filepath.Join(server.DataDir, "ca.pem"))
}

// portOf cuts the port out of an address.
func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// startJavaScript runs one of the programs with variables.
func startJavaScript(t *testing.T, program string, env ...string) *jsDevice {
	t.Helper()
	d := &jsDevice{t: t, cmd: exec.CommandContext(t.Context(), "node", program), lines: make(chan line, 64)}
	d.cmd.Dir = javascriptDir
	d.cmd.Env = append(os.Environ(), env...)
	d.cmd.Stderr = &d.stderr
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if d.stdin, err = d.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(d.lines)
		scanner := bufio.NewScanner(stdout)
		for scanner.Scan() {
			var l line
			if err := json.Unmarshal(scanner.Bytes(), &l); err != nil {
				l = line{Event: "failed", Why: "not JSON: " + scanner.Text()}
			}
			d.lines <- l
		}
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill() // it has ended by itself, or the test failed
		<-read
		_ = d.cmd.Wait() // the test has looked at it already
		if t.Failed() {
			t.Logf("the device's standard error:\n%s", d.stderr.Bytes())
		}
	})
	return d
}

// next returns the program's next line, which must be of the given event.
func (d *jsDevice) next(event string) line {
	d.t.Helper()
	select {
	case l, ok := <-d.lines:
		if !ok {
			d.t.Fatalf("the device ended instead of saying %q", event)
		}
		if l.Event != event {
			d.t.Fatalf("the device said %+v, want %q", l, event)
		}
		return l
	case <-time.After(40 * time.Second):
		d.t.Fatalf("the device did not say %q", event)
		panic("unreachable")
	}
}

// leave lets the program disconnect and waits for its end.
func (d *jsDevice) leave() {
	d.t.Helper()
	if _, err := io.WriteString(d.stdin, "leave\n"); err != nil {
		d.t.Fatal(err)
	}
	d.next("closed")
	if _, ok := <-d.lines; ok {
		d.t.Error("the device went on after it had left")
	}
	if err := d.cmd.Wait(); err != nil {
		d.t.Errorf("the device's end: %v", err)
	}
}

// errOverheard ends a handshake that was only looked at.
var errOverheard = errors.New("overheard")

// tap forwards TCP connections to a server and notes which protocols the
// client offers in its ClientHello.
type tap struct {
	mu      sync.Mutex
	offered []string
}

// listen forwards from a loopback port until the test ends.
func (p *tap) listen(t *testing.T, target string) (addr string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var forwarding sync.WaitGroup
	forwarding.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			forwarding.Go(func() { p.forward(t, conn, target) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // it is only read from
		forwarding.Wait()
	})
	return l.Addr().String()
}

// forward copies in both directions until one side ends.
func (p *tap) forward(t *testing.T, client net.Conn, target string) {
	t.Helper()
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", target)
	if err != nil {
		t.Errorf("tap: %v", err)
		return
	}
	defer server.Close()
	var seen bytes.Buffer
	heard := io.TeeReader(client, &seen)
	overheard := tls.Server(&eavesdropper{Conn: client, r: heard}, &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.offered = slices.Clone(hello.SupportedProtos)
			return nil, errOverheard
		},
	})
	if err := overheard.HandshakeContext(t.Context()); !errors.Is(err, errOverheard) {
		return // a client that went away
	}
	if _, err := server.Write(seen.Bytes()); err != nil {
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(client, server) // ends with either side
		_ = client.Close()
	}()
	_, _ = io.Copy(server, client) // ends with either side
	_ = server.Close()
	<-back
}

func (p *tap) protocols() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.offered
}

// eavesdropper is a connection that is read and never answered.
type eavesdropper struct {
	net.Conn
	r io.Reader
}

// Read notes what it reads.
func (e *eavesdropper) Read(b []byte) (int, error) { return e.r.Read(b) }

// Write keeps the alert of the broken-off handshake from the client.
func (e *eavesdropper) Write(b []byte) (int, error) { return len(b), nil }
