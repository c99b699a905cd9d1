package inlet

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func peer(t *testing.T, text string) net.Addr {
	t.Helper()
	addr, err := net.ResolveTCPAddr("tcp", text)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// TestOneSourceCannotShutOutOthers fills the share of one source: its next
// waits, another source enters.
func TestOneSourceCannotShutOutOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(4, 2)
		flood, other := peer(t, "192.0.2.1:1"), peer(t, "192.0.2.2:1")
		var leave []func()
		for range 2 {
			out, err := g.Enter(t.Context(), flood)
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, out)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Enter(ctx, flood); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a third of the same source: %v", err)
		}
		for range 2 {
			out, err := g.Enter(t.Context(), other)
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, out)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Enter(ctx, peer(t, "192.0.2.3:1")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a fifth in all: %v", err)
		}
		waited := make(chan error, 1)
		go func() {
			out, err := g.Enter(t.Context(), flood)
			if err == nil {
				out()
			}
			waited <- err
		}()
		synctest.Wait()
		for _, out := range leave {
			out()
		}
		if err := <-waited; err != nil {
			t.Error(err)
		}
		if len(g.sources) != 0 || len(g.slots) != 0 {
			t.Errorf("%d sources and %d slots are left", len(g.sources), len(g.slots))
		}
	})
}

func TestSources(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1:1", "192.0.2.1:2", true},
		{"192.0.2.1:1", "192.0.2.2:1", false},
		{"192.0.2.1:1", "[::ffff:192.0.2.1]:1", true},
		{"[2001:db8::1]:1", "[2001:db8::ffff:1]:1", true},
		{"[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false},
	} {
		if got := sourceOf(peer(t, c.a)) == sourceOf(peer(t, c.b)); got != c.same {
			t.Errorf("%s and %s: same source %v", c.a, c.b, got)
		}
	}
}

// TestLimitClosesWhatIsTooMuch opens one connection more than allowed, then
// makes room.
func TestLimitClosesWhatIsTooMuch(t *testing.T) {
	t.Parallel()
	refused := make(chan struct{}, 1)
	limit := NewLimit(1, func() { refused <- struct{}{} })
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit.Listener(inner)
	t.Cleanup(func() { _ = l.Close() })
	accepted := make(chan net.Conn, 2)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	dial()
	first := <-accepted
	second := dial()
	<-refused
	if _, err := second.Read(make([]byte, 1)); err == nil || errors.Is(err, io.ErrNoProgress) {
		t.Errorf("the second connection is open: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	_ = first.Close() // counts once
	if n := limit.Open(); n != 0 {
		t.Fatalf("%d open after close", n)
	}
	dial()
	if err := (<-accepted).Close(); err != nil {
		t.Error(err)
	}
}

// TestAwaitTakesNothingAway waits for a peer that speaks, and for one that does
// not.
func TestAwaitTakesNothingAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		counted := &conn{Conn: theirs, limit: NewLimit(1, func() {})}
		go func() { _, _ = ours.Write([]byte("hello")) }()
		if err := Await(t.Context(), counted); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(counted, got); err != nil || string(got) != "hello" {
			t.Errorf("read %q, %v", got, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := Await(ctx, counted); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a silent peer: %v", err)
		}
		if err := Await(t.Context(), ours); err != nil {
			t.Errorf("a connection of another kind: %v", err)
		}
	})
}

func TestFilesAreLeftForTheStore(t *testing.T) {
	t.Parallel()
	for files, want := range map[uint64]int{
		0: mostConnections, 256: 128, 1024: 512, 4096: 4096 - reservedFiles, 1 << 40: mostConnections,
	} {
		if got := connectionsOf(files); got != want {
			t.Errorf("%d files: %d connections, want %d", files, got, want)
		}
	}
	if Connections() < 1 {
		t.Error("no connection at all")
	}
}

func TestQuota(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	q := NewQuota(2, 3, time.Second)
	var told []bool
	for _, caller := range []string{"a", "a", "a", "b", "c"} {
		_, ok := q.Take(caller, at)
		told = append(told, ok)
	}
	if want := []bool{true, true, false, true, false}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	if n, ok := q.Take("a", at.Add(time.Second)); !ok || n != 1 {
		t.Errorf("in the next window: %d left out, %v", n, ok)
	}
	if n, ok := q.Take("c", at.Add(time.Second)); !ok || n != 0 {
		t.Errorf("said twice that %d were left out, %v", n, ok)
	}
}
