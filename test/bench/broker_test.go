//go:build bench

// Package bench_test prints the figures that the bars are about, each beside
// its peer in the same run. It asserts nothing about time: read the numbers.
// Run it with `make bench`.
package bench_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// mosquitto starts the peer with its limits off and returns address and pid.
func mosquitto(t *testing.T) (addr string, pid int) {
	t.Helper()
	binary, err := exec.LookPath("mosquitto")
	if err != nil {
		binary = "/usr/sbin/mosquitto"
	}
	addr = testkit.FreePort(t)
	_, port, _ := net.SplitHostPort(addr)
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	conf := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\nlog_type error\n", port)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-c", file)
	if err := cmd.Start(); err != nil {
		t.Skipf("no mosquitto to compare with: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()         // killed
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

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}

func shapes() []shape {
	var all []shape
	for _, qos := range []byte{0, 1} {
		all = append(all,
			shape{name: "pairs 500-500", publishers: 500, subscribers: 500, qos: qos, messages: 100_000, window: 8, batch: 1},
			shape{name: "fan-out 1-500, 1 outstanding", publishers: 1, subscribers: 500, qos: qos, messages: 300, window: 1, batch: 1},
			shape{name: "fan-out 1-500, 4 outstanding", publishers: 1, subscribers: 500, qos: qos, messages: 600, window: 4, batch: 1},
			shape{name: "fan-in 50-1, 10 a write", publishers: 50, subscribers: 1, qos: qos, messages: 300_000, window: 20, batch: 10},
		)
	}
	return all
}

// TestBroker compares CPU per delivery with mosquitto, three rounds in turn.
func TestBroker(t *testing.T) {
	peer, peerPID := mosquitto(t)
	ours := testkit.StartServer(t, "--log.level", "warn")
	fmt.Printf("\nbroker: server CPU-seconds per million deliveries, 100-byte payload, median of 3\n%-34s %4s %10s %10s %7s\n", "", "QoS", "muster", "mosquitto", "ratio")
	for i, s := range shapes() {
		var a, b []float64
		for round := range 3 {
			tag := fmt.Sprintf("%d-%d", i, round)
			b = append(b, s.run(t, peer, peerPID, tag))
			a = append(a, s.run(t, ours.PlainMQTTAddr, ours.PID(), tag))
		}
		fmt.Printf("%-34s %4d %10.2f %10.2f %6.2fx\n", s.name, s.qos, median(a), median(b), median(a)/median(b))
	}
}

// TestIdle reports memory per idle plain connection with one subscription.
func TestIdle(t *testing.T) {
	const n = 5000
	peer, peerPID := mosquitto(t)
	ours := testkit.StartServer(t, "--log.level", "warn")
	measure := func(addr string, pid int) float64 {
		before := residentKB(t, pid)
		for i := range n {
			id := fmt.Sprintf("idle-%d", i)
			c := dial(t, addr, id, nil)
			c.subscribe(t, "$aws/things/"+id+"/shadow/update/delta", 1)
			t.Cleanup(func() { _ = c.conn.Close() })
		}
		return (residentKB(t, pid) - before) / n
	}
	fmt.Printf("\nidle plain connection with one subscription, resident KB each (%d connections)\nmuster %.1f, mosquitto %.1f\n", n, measure(ours.PlainMQTTAddr, ours.PID()), measure(peer, peerPID))
}
