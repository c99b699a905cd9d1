//go:build bench

package bench_test

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// collectedAt is when the server last collected garbage.
func collectedAt(t *testing.T, server *testkit.Server) (float64, error) {
	t.Helper()
	const metric = "go_memstats_last_gc_time_seconds "
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+server.HTTPAddr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), metric); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.New("no " + metric)
}

// collected waits for the collection that an idle Go process does every two
// minutes, and for the memory to go back.
func collected(t *testing.T, server *testkit.Server) {
	t.Helper()
	before, err := collectedAt(t, server)
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for range 36 {
		<-tick.C
		if at, err := collectedAt(t, server); err != nil || at > before {
			break
		}
	}
	<-time.After(15 * time.Second)
}

// idle is what connections without traffic cost.
type idle struct{ residentKB, collectedKB, corePercent, connectMS float64 }

// rest holds n connections and measures. server is nil for the peer, whose
// memory nothing collects.
func rest(t *testing.T, l *link, n int, server *testkit.Server) idle {
	t.Helper()
	const watched = 20 * time.Second
	before := residentKB(t, l.pid)
	all, cost := connectAll(t, l, n, "idle")
	out := idle{connectMS: cost, residentKB: (residentKB(t, l.pid) - before) / float64(n)}
	begun, cpu := time.Now(), cpuSeconds(t, l.pid)
	<-time.After(watched)
	out.corePercent = (cpuSeconds(t, l.pid) - cpu) / time.Since(begun).Seconds() * 100
	if server != nil {
		collected(t, server)
		out.collectedKB = (residentKB(t, l.pid) - before) / float64(n)
	}
	closeAll(t, all)
	return out
}

// TestIdle reports memory and CPU of connections that do nothing, each with
// one subscription.
func TestIdle(t *testing.T) {
	n := environment(t, "MUSTER_BENCH_IDLE", "10000")[0]
	openFiles(t, uint64(n)*8/7+2000)
	on := apart(t)
	certificate := newServerCertificate(t, false)
	table(fmt.Sprintf("idle: %d connections with one subscription to $aws/things/(id)/shadow/update/delta, resident KB each", n),
		"connection", "muster", "muster, after a collection", "mosquitto", "ratio", "bar", "", "idle CPU muster / mosquitto, % of a core")
	write := func(name string, bar float64, ours, peers idle) {
		row(name, number(ours.residentKB, 1), number(ours.collectedKB, 1), number(peers.residentKB, 1), against(ours.residentKB, peers.residentKB),
			fmt.Sprintf("≤%.0f KB", bar), verdict(ours.residentKB, bar), fmt.Sprintf("%.2f / %.2f", ours.corePercent, peers.corePercent))
	}
	t.Run("plain", func(t *testing.T) {
		peer, peerPID := mosquitto(t, on)
		ours := muster(t, on, t.TempDir())
		peers := rest(t, &link{addr: peer, pid: peerPID}, n, nil)
		write("plain TCP", 8, rest(t, &link{addr: ours.PlainMQTTAddr, pid: ours.PID()}, n, ours), peers)
	})
	t.Run("mutual TLS", func(t *testing.T) {
		dir := t.TempDir()
		first := muster(t, on, dir, certificate.flags()...)
		devices := registerDevices(t, first)
		first.Stop() // what registering took is not what connections take
		ours := muster(t, on, dir, certificate.flags()...)
		peer, peerPID := mosquitto(t, on, mutualTLS(t, certificate, dir)...)
		peers := rest(t, &link{addr: peer, pid: peerPID, tls: certificate.client, devices: devices}, n, nil)
		write("mutual TLS 1.3", 26, rest(t, &link{addr: ours.MQTTAddr, pid: ours.PID(), tls: certificate.client, devices: devices}, n, ours), peers)
	})
}
