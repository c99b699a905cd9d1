// Package testkit starts what tests talk to: a built server as a child
// process, a throw-away PostgreSQL, certificates. Only tests import it.
package testkit

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is a `muster serve` child process with its own data folder and
// loopback ports.
type Server struct {
	// DataDir holds credentials, ca.pem and, for the embedded store, state.
	DataDir string
	// HTTPAddr, MQTTAddr, TLSAddr and PlainMQTTAddr are host:port.
	HTTPAddr, MQTTAddr, TLSAddr, PlainMQTTAddr string

	t      testing.TB
	binary string
	extra  []string

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	// log is the file that the process writes to by itself: what it wrote before
	// an answer is there when the answer is.
	log *os.File
}

// Binary returns the path of the built server: MUSTER_BIN, or a build of the
// working tree.
func Binary(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv("MUSTER_BIN"); path != "" {
		return path
	}
	path := filepath.Join(tb.TempDir(), "muster")
	build := exec.CommandContext(tb.Context(), "go", "build", "-o", path, "github.com/muster-iot/muster/cmd/muster")
	build.Dir = Root(tb)
	out, err := build.CombinedOutput()
	if err != nil {
		tb.Fatalf("build the server: %v\n%s", err, out)
	}
	return path
}

// Root returns the repository's root folder.
func Root(tb testing.TB) string {
	tb.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		tb.Fatal("no caller information")
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// StartServer runs a server with extra flags and waits until it is ready. It
// is killed when the test ends.
func StartServer(tb testing.TB, extra ...string) *Server {
	tb.Helper()
	s := NewServer(tb, tb.TempDir(), extra...)
	s.Start()
	return s
}

// NewServer prepares a server without starting it.
func NewServer(tb testing.TB, dataDir string, extra ...string) *Server {
	tb.Helper()
	s := &Server{
		DataDir:       dataDir,
		HTTPAddr:      FreePort(tb),
		MQTTAddr:      FreePort(tb),
		TLSAddr:       FreePort(tb),
		PlainMQTTAddr: FreePort(tb),
		t:             tb,
		binary:        Binary(tb),
		extra:         extra,
		log:           logFile(tb),
	}
	tb.Cleanup(func() {
		s.Kill()
		if tb.Failed() {
			tb.Logf("server log, last part:\n%s", tail(s.Log(), 8000))
		}
	})
	return s
}

func tail(text string, n int) string {
	if len(text) > n {
		return text[len(text)-n:]
	}
	return text
}

// Start runs the process and waits for /readyz.
func (s *Server) Start() {
	s.t.Helper()
	args := append([]string{
		"serve", "--data-dir", s.DataDir, "--http-addr", s.HTTPAddr, "--mqtt-addr", s.MQTTAddr,
		"--tls-addr", s.TLSAddr, "--mqtt-insecure-addr", s.PlainMQTTAddr,
	}, s.extra...)
	cmd := exec.CommandContext(context.WithoutCancel(s.t.Context()), s.binary, args...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start the server: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // the exit state is read from cmd.ProcessState
	}()
	s.mu.Lock()
	s.cmd, s.exited = cmd, exited
	s.mu.Unlock()
	s.waitReady()
}

func (s *Server) waitReady() {
	s.t.Helper()
	Poll(s.t, 60*time.Second, "the server is ready", func() error {
		select {
		case <-s.exited:
			s.t.Fatalf("the server ended:\n%s", tail(s.Log(), 8000))
		default:
		}
		req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.HTTPAddr+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	})
}

// PID returns the process id.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Pid
}

// Log returns what the server has written so far.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// logFile makes an empty file for the output of a process.
func logFile(tb testing.TB) *os.File {
	tb.Helper()
	f, err := os.OpenFile(filepath.Join(tb.TempDir(), "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.Close() }) // only the process writes to it
	return f
}

// Kill ends the process at once, as a power cut would end its memory.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Stop asks the process to end and waits for it.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

func (s *Server) end(signal syscall.Signal) {
	s.mu.Lock()
	cmd, exited := s.cmd, s.exited
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(signal) // it may have ended by itself
	select {
	case <-exited:
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill() // it may have ended by itself
		<-exited
	}
}

// ExitCode returns the code of an ended process.
func (s *Server) ExitCode() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	<-s.exited
	return s.cmd.ProcessState.ExitCode()
}

// Muster runs a command of the binary against this server and returns what it
// printed.
func (s *Server) Muster(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.binary, args...)
	cmd.Env = append(os.Environ(), "MUSTER_ENDPOINT_URL=http://"+s.HTTPAddr, "MUSTER_DATA_DIR="+s.DataDir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("muster %s: %w\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// CAPool returns the server's CA for clients.
func (s *Server) CAPool() *x509.CertPool {
	s.t.Helper()
	pem, err := os.ReadFile(filepath.Join(s.DataDir, "ca.pem"))
	if err != nil {
		s.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		s.t.Fatal("ca.pem holds no certificate")
	}
	return pool
}

// TLSConfig returns a client configuration that trusts the server and presents
// the certificate.
func (s *Server) TLSConfig(certificate tls.Certificate, alpn ...string) *tls.Config {
	s.t.Helper()
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		RootCAs:      s.CAPool(),
		ServerName:   "localhost",
		Certificates: []tls.Certificate{certificate},
		NextProtos:   alpn,
	}
}

// Credentials returns the root access key of the data folder.
func (s *Server) Credentials() (accessKeyID, secret string) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.DataDir, "credentials"))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, "=")
		switch strings.TrimSpace(name) {
		case "aws_access_key_id":
			accessKeyID = strings.TrimSpace(value)
		case "aws_secret_access_key":
			secret = strings.TrimSpace(value)
		}
	}
	if accessKeyID == "" || secret == "" {
		s.t.Fatal("the credentials file holds no key")
	}
	return accessKeyID, secret
}

// Poll calls try every few milliseconds until it returns nil, and fails the
// test with its last error after the timeout.
func Poll(tb testing.TB, timeout time.Duration, what string, try func() error) {
	tb.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		last := try()
		if last == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			tb.Fatalf("%s: not within %v: %v", what, timeout, last)
		}
	}
}

// RequireSuites reports whether a missing peer is a failure instead of a skip.
func RequireSuites() bool { return os.Getenv("MUSTER_REQUIRE_SUITES") == "1" }

// Need skips the test, saying why, unless the commands are on PATH; with
// MUSTER_REQUIRE_SUITES=1 it fails instead.
func Need(tb testing.TB, commands ...string) {
	tb.Helper()
	for _, c := range commands {
		if _, err := exec.LookPath(c); err != nil {
			if RequireSuites() {
				tb.Fatalf("needs %s: %v", c, err)
			}
			tb.Skipf("needs %s, which is not installed", c)
		}
	}
}
