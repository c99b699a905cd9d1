package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Postgres is a throw-away PostgreSQL cluster on a loopback port, as durable
// as a real one: fsync is on. Tests may stop and start it.
type Postgres struct {
	bin, dir string
	port     int
	// account is the system account that runs the server; nil for our own.
	account *syscall.Credential

	mu        sync.Mutex
	databases int
}

// PostgresPool shares one cluster among the tests of a binary. Keep one in
// TestMain's scope and end it there.
type PostgresPool struct {
	mu      sync.Mutex
	cluster *Postgres
	err     error
	tried   bool
}

// Get starts the cluster on first use. Where PostgreSQL is not installed the
// test is skipped, or fails when MUSTER_REQUIRE_SUITES is 1.
func (p *PostgresPool) Get(tb testing.TB) *Postgres {
	tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.tried {
		p.tried = true
		p.cluster, p.err = newPostgres(filepath.Join(os.TempDir(), fmt.Sprintf("muster-pg-%d", os.Getpid())))
	}
	requirePostgres(tb, p.err)
	return p.cluster
}

// Close stops the cluster and removes its files.
func (p *PostgresPool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cluster == nil {
		return nil
	}
	return p.cluster.remove()
}

// StartPostgres starts a cluster for one test, which may stop it as it likes.
func StartPostgres(tb testing.TB) *Postgres {
	tb.Helper()
	dir, err := os.MkdirTemp("", "muster-pg-") //nolint:usetesting // the server's account may not enter the test's own folder
	if err != nil {
		tb.Fatal(err)
	}
	p, err := newPostgres(dir)
	requirePostgres(tb, err)
	tb.Cleanup(func() {
		if err := p.remove(); err != nil {
			tb.Errorf("remove the PostgreSQL cluster: %v", err)
		}
	})
	return p
}

// errNoPostgres is an absent installation, the one reason to skip.
var errNoPostgres = errors.New("PostgreSQL is not installed (no initdb under /usr/lib/postgresql or on PATH)")

// requirePostgres ends the test unless err is nil.
func requirePostgres(tb testing.TB, err error) {
	tb.Helper()
	if errors.Is(err, errNoPostgres) && os.Getenv("MUSTER_REQUIRE_SUITES") != "1" {
		tb.Skipf("SKIPPED, NOTHING TESTED: %v", err)
	}
	if err != nil {
		tb.Fatalf("start PostgreSQL: %v", err)
	}
}

// postgresBin finds the folder of initdb and pg_ctl.
func postgresBin() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err == nil && len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errNoPostgres
	}
	return filepath.Dir(path), nil
}

// newPostgres makes a cluster in dir and starts it.
func newPostgres(dir string) (*Postgres, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	p := &Postgres{bin: bin, dir: dir}
	if err := p.prepare(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := p.start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

// prepare makes the folder, owned by an account that the server accepts, and
// the empty cluster in it.
func (p *Postgres) prepare() error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		account, err := user.Lookup("postgres")
		if err != nil {
			return fmt.Errorf("PostgreSQL does not run as root and there is no other account for it: %w", err)
		}
		uid, _ := strconv.Atoi(account.Uid)
		gid, _ := strconv.Atoi(account.Gid)
		p.account = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(p.dir, uid, gid); err != nil {
			return err
		}
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	p.port = port
	_, err = p.run("initdb", "-D", p.data(), "-U", "muster", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	return err
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

// run executes one of PostgreSQL's programs as the server's account.
func (p *Postgres) run(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, program), args...)
	cmd.Dir = p.dir
	// The server that pg_ctl starts must not hold a pipe of ours open.
	out, err := os.CreateTemp("", "muster-pg-out-")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if p.account != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.account}
	}
	runErr := cmd.Run()
	text, _ := os.ReadFile(out.Name())
	if runErr != nil {
		return "", fmt.Errorf("%s: %w\n%s", program, runErr, bytes.TrimSpace(text))
	}
	return string(text), nil
}

func (p *Postgres) start() error {
	options := fmt.Sprintf("-c listen_addresses=127.0.0.1 -c port=%d -c unix_socket_directories=%s -c fsync=on "+
		"-c synchronous_commit=on -c max_connections=200 -c shared_buffers=128MB -c max_wal_size=2GB", p.port, p.dir)
	_, err := p.run("pg_ctl", "start", "-w", "-D", p.data(), "-l", filepath.Join(p.dir, "log"), "-o", options)
	if err != nil {
		text, _ := os.ReadFile(filepath.Join(p.dir, "log"))
		return fmt.Errorf("%w\n%s", err, text)
	}
	return nil
}

// Start starts the stopped server again, on the same port.
func (p *Postgres) Start(tb testing.TB) {
	tb.Helper()
	if err := p.start(); err != nil {
		tb.Fatalf("start PostgreSQL: %v", err)
	}
}

// StopAtOnce ends the server as a crash would: no checkpoint, connections cut.
func (p *Postgres) StopAtOnce(tb testing.TB) {
	tb.Helper()
	if _, err := p.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", p.data()); err != nil {
		tb.Fatalf("stop PostgreSQL: %v", err)
	}
}

// remove ends the server and deletes the cluster.
func (p *Postgres) remove() error {
	if _, err := p.run("pg_ctl", "status", "-D", p.data()); err == nil {
		if _, err := p.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", p.data()); err != nil {
			return err
		}
	}
	return os.RemoveAll(p.dir)
}

// URL returns the address of a database.
func (p *Postgres) URL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User("muster"),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Database makes an empty database and returns its URL.
func (p *Postgres) Database(tb testing.TB) string {
	tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.databases++
	name := fmt.Sprintf("test_%d", p.databases)
	conn, err := pgx.Connect(tb.Context(), p.URL("postgres"))
	if err != nil {
		tb.Fatalf("connect to PostgreSQL: %v", err)
	}
	defer conn.Close(context.WithoutCancel(tb.Context()))
	if _, err := conn.Exec(tb.Context(), "CREATE DATABASE "+name); err != nil {
		tb.Fatalf("create database: %v", err)
	}
	return p.URL(name)
}
