package index_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/store"
)

// standingDevices is the size of the fleet: MUSTER_BENCH_DEVICES, 200,000 unless
// it is set.
func standingDevices(b *testing.B) int {
	b.Helper()
	text := os.Getenv("MUSTER_BENCH_DEVICES")
	if text == "" {
		return 200_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// standingFleet has devices with some twenty fields and telemetry to match
// standingMix.
func standingFleet(b *testing.B, n int, groups []string) (*index.Index, *discard, []gauge) {
	b.Helper()
	d := &discard{}
	x := index.New(index.Options{Committer: d, Source: d, Logger: slog.New(slog.DiscardHandler)})
	builder := x.Build()
	for i, query := range groups {
		builder.PutGroup(account, index.Group{Name: fmt.Sprintf("dyn-%05d", i), Query: query, CreatedAt: time.Unix(int64(i), 0)})
	}
	r := rand.New(rand.NewPCG(1, 1))
	gauges := make([]gauge, n)
	for i := range n {
		gauges[i] = gauge{r.Float64() * 100, r.Float64() * 60, r.Float64() * 100, r.Float64() * 1e6, r.Float64() * 100, r.Float64() * 1024}
		err := builder.PutThing(account, index.Thing{
			Name: fmt.Sprintf("device-%07d", i), ID: fmt.Sprintf("%016x-%016x", r.Uint64(), r.Uint64()),
			TypeName: fmt.Sprintf("Type%d", r.IntN(20)), Version: 1,
			Attributes: map[string]string{
				"serial": fmt.Sprintf("SN%012d", r.Uint64N(1e12)), "site": fmt.Sprintf("site-%d", r.IntN(5000)),
				"customer": fmt.Sprintf("cust-%d", r.IntN(2000)), "model": fmt.Sprintf("M%d", r.IntN(60)),
				"manufacturer": fmt.Sprintf("maker%d", r.IntN(12)),
			},
		}, []string{fmt.Sprintf("group-%d", r.IntN(2000))}, index.State{
			Shadows:      []index.Shadow{{Version: 1, Reported: gauges[i].report(r, true)}},
			Connectivity: &index.Connectivity{Connected: r.IntN(100) < 85, TimestampMS: 1_750_000_000_000, Version: 1},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := builder.Finish(b.Context(), store.Cursor{}); err != nil {
		b.Fatal(err)
	}
	return x, d, gauges
}

// gauge is what a device measures: battery, temperature, signal, uptime, load
// and memory. It drifts.
type gauge [6]float64

// drift moves all measurements a little.
func (g *gauge) drift(r *rand.Rand) {
	for i, span := range [...]float64{100, 60, 100, 1e6, 100, 1024} {
		if g[i] += (r.Float64() - 0.5) * span / 25; g[i] < 0 || g[i] > span {
			g[i] = min(max(g[i], 0), span)
		}
	}
}

// report is the six numbers, and what changes seldom: in 6 of 100 reports.
func (g *gauge) report(r *rand.Rand, all bool) []byte {
	out := fmt.Appendf(nil, `{"battery":%.0f,"temp":%.1f,"rssi":%.0f,"uptime":%.0f,"cpu":%.0f,"mem":%.0f`, g[0], g[1], -g[2], g[3], g[4], g[5])
	if all || r.IntN(100) < 6 {
		out = fmt.Appendf(out, `,"fw":"3.%d.%d","mode":"%s"`, r.IntN(4), r.IntN(30), []string{"eco", "normal", "boost"}[r.IntN(3)])
	}
	return append(out, '}')
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkStanding applies telemetry in batches of 500 and reports updates by
// second of processor time, collection of garbage included.
func BenchmarkStanding(b *testing.B) {
	devices := standingDevices(b)
	for _, n := range []int{0, 1000, 10_000} {
		b.Run(fmt.Sprintf("groups=%d", n), func(b *testing.B) {
			r := rand.New(rand.NewPCG(2, 2))
			x, d, gauges := standingFleet(b, devices, standingMix(r, n, domain{5000, 2000, 2000}))
			perDevice := float64(d.changes.Load()) / float64(devices)
			d.changes.Store(0)
			const batchSize = 500
			batches := make([][]event.Envelope, 400)
			for i := range batches {
				batches[i] = make([]event.Envelope, batchSize)
				for k := range batches[i] {
					device := r.IntN(devices)
					gauges[device].drift(r)
					batches[i][k].Event = event.ShadowUpdated{
						Thing: fmt.Sprintf("device-%07d", device), Patch: fmt.Appendf(nil, `{"reported":%s}`, gauges[device].report(r, false)),
					}
				}
			}
			seq, used := uint64(0), time.Duration(0)
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				batch := batches[i%len(batches)]
				b.StopTimer()
				for k := range batch {
					seq++
					e := batch[k].Event.(event.ShadowUpdated)
					e.Version, e.Timestamp = int64(1+seq), int64(1_760_000_000+seq/10_000)
					batch[k] = event.Envelope{Seq: seq, Account: account, Event: e}
				}
				before := cpuTime(b)
				b.StartTimer()
				if err := x.Apply(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
				used += cpuTime(b) - before
			}
			updates := float64(seq)
			b.ReportMetric(updates/used.Seconds(), "updates/cpu-s")
			b.ReportMetric(float64(d.changes.Load())/updates, "changes/update")
			b.ReportMetric(perDevice, "groups/device")
		})
	}
}
