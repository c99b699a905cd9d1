//go:build bench

// Package bench_test prints the figures that the bars are about, each beside
// its peer in the same run, as the tables of docs/performance.md. It asserts
// nothing about time, but fails on a lost message or an error. Run it with
// `make bench`.
package bench_test

import (
	"fmt"
	"testing"
)

// barred is a shape with the most that it may cost of what the peer uses.
type barred struct {
	shape
	bar float64
}

func shapes() []barred {
	var all []barred
	for _, qos := range []byte{0, 1} {
		all = append(all,
			barred{shape{name: "pairs 500-500", publishers: 500, subscribers: 500, qos: qos, messages: 100_000, window: 8, batch: 1}, 0.9},
			barred{shape{name: "fan-out 1-500, 1 outstanding", publishers: 1, subscribers: 500, qos: qos, messages: 300, window: 1, batch: 1}, 1},
			barred{shape{name: "fan-out 1-500, 4 outstanding", publishers: 1, subscribers: 500, qos: qos, messages: 600, window: 4, batch: 1}, 0.5},
			barred{shape{name: "fan-in 50-1, 10 a write", publishers: 50, subscribers: 1, qos: qos, messages: 300_000, window: 20, batch: 10}, 0.5},
		)
	}
	return all
}

// TestBroker compares CPU per delivery with mosquitto, three rounds in turn.
func TestBroker(t *testing.T) {
	on := apart(t)
	peer, peerPID := mosquitto(t, on)
	ours := muster(t, on, t.TempDir())
	table("broker: server CPU-seconds per million deliveries, 100-byte payload, plain TCP, median of 3",
		"load", "QoS", "muster", "mosquitto", "ratio", "bar", "")
	for i, s := range shapes() {
		var a, b []float64
		for round := range 3 {
			tag := fmt.Sprintf("%d-%d", i, round)
			b = append(b, s.run(t, peer, peerPID, tag))
			a = append(a, s.run(t, ours.PlainMQTTAddr, ours.PID(), tag))
		}
		row(s.name, fmt.Sprint(s.qos), number(median(a), 2), number(median(b), 2), against(median(a), median(b)),
			fmt.Sprintf("≤%.1f×", s.bar), verdict(median(a)/median(b), s.bar))
	}
}
