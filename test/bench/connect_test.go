//go:build bench

package bench_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// cpuSettled returns the CPU time of a process when it has come to rest, so
// that what a load leaves to be done counts as part of it.
func cpuSettled(t *testing.T, pid int) float64 {
	t.Helper()
	const restful = 0.011 // one tick of the clock that counts
	last, quiet := cpuSeconds(t, pid), 0
	for range 100 {
		<-time.After(100 * time.Millisecond)
		now := cpuSeconds(t, pid)
		if quiet++; now-last > restful {
			quiet = 0
		}
		if last = now; quiet == 3 {
			break
		}
	}
	return last
}

// connectAll opens n connections, each with a subscription of its own, and
// returns them with the server's CPU milliseconds for each.
func connectAll(t *testing.T, l *link, n int, tag string) (all []*client, milliseconds float64) {
	t.Helper()
	all = make([]*client, n)
	before := cpuSettled(t, l.pid)
	each(t, n, func(_ context.Context, i int) error {
		id := fmt.Sprintf("%s-%d", tag, i)
		c, err := l.connect(t, i, id, false, nil)
		if err != nil {
			return err
		}
		all[i] = c
		return c.ask("$aws/things/"+id+"/shadow/update/delta", 1)
	})
	return all, (cpuSettled(t, l.pid) - before) * 1000 / float64(n)
}

// closeAll ends connections and fails for those that the server had ended.
func closeAll(t *testing.T, all []*client) {
	t.Helper()
	var gone atomic.Int64
	each(t, len(all), func(_ context.Context, i int) error {
		// A PINGREQ shows that the session is alive.
		if _, err := all[i].conn.Write([]byte{0xc0, 0}); err != nil {
			gone.Add(1)
		}
		var pong [2]byte
		_ = all[i].conn.SetReadDeadline(time.Now().Add(30 * time.Second)) // Read tells
		if _, err := all[i].conn.Read(pong[:]); err != nil || pong[0] != 0xd0 {
			gone.Add(1)
		}
		return all[i].conn.Close()
	})
	if n := gone.Load(); n > 0 {
		t.Errorf("%d of %d connections were gone at the end", n, len(all))
	}
}

// TestConnect compares what a connection with mutual TLS costs until its first
// subscription is acknowledged.
func TestConnect(t *testing.T) {
	n := environment(t, "MUSTER_BENCH_CONNECTS", "2000")[0]
	openFiles(t, uint64(n)+1600)
	on := apart(t)
	dir := t.TempDir()
	kinds := []struct {
		name   string
		useRSA bool
		bar    float64
	}{{"P-256", false, 0.7}, {"RSA-2048", true, 0}}
	first := newServerCertificate(t, false)
	ours := muster(t, on, dir, first.flags()...)
	devices := registerDevices(t, ours)
	table(fmt.Sprintf("connect: server CPU ms for TLS 1.3 with client certificate, CONNECT and SUBSCRIBE; %d connections at a time, median of 3", n),
		"server key", "muster", "mosquitto", "ratio", "bar", "")
	for _, kind := range kinds {
		certificate := first
		if kind.useRSA {
			ours.Stop()
			certificate = newServerCertificate(t, true)
			ours = muster(t, on, dir, certificate.flags()...)
		}
		peer, peerPID := mosquitto(t, on, mutualTLS(t, certificate, dir)...)
		a := &link{addr: ours.MQTTAddr, pid: ours.PID(), tls: certificate.client, devices: devices}
		b := &link{addr: peer, pid: peerPID, tls: certificate.client, devices: devices}
		var as, bs []float64
		for round := range 3 {
			tag := fmt.Sprintf("connect-%d", round)
			for _, side := range []struct {
				link *link
				into *[]float64
			}{{b, &bs}, {a, &as}} {
				all, cost := connectAll(t, side.link, n, tag)
				*side.into = append(*side.into, cost)
				closeAll(t, all)
			}
		}
		bar, met := "reported", ""
		if kind.bar > 0 {
			bar, met = fmt.Sprintf("≤%.1f ms", kind.bar), verdict(median(as), kind.bar)
		}
		row(kind.name, number(median(as), 2), number(median(bs), 2), against(median(as), median(bs)), bar, met)
	}
}
