package index_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/store"
)

// discard commits nothing and knows nothing.
type discard struct{ changes atomic.Int64 }

func (d *discard) CommitMembership(_ context.Context, changes []index.MembershipChange, _ store.Cursor) error {
	d.changes.Add(int64(len(changes)))
	return nil
}

func (*discard) CommitComplete(context.Context, []index.CompleteGroup) error { return nil }

func (*discard) ThingState(context.Context, fleet.Account, string) (index.State, error) {
	return index.State{}, nil
}

// benchFleet builds n devices with some sixteen fields beside the metadata.
func benchFleet(b *testing.B, n int, groups ...string) (*index.Index, *discard) {
	b.Helper()
	d := &discard{}
	x := index.New(index.Options{Committer: d, Source: d, Logger: slog.New(slog.DiscardHandler)})
	builder := x.Build()
	for i, query := range groups {
		builder.PutGroup(account, index.Group{Name: fmt.Sprintf("dyn-%d", i), Query: query, CreatedAt: time.Unix(int64(i), 0)})
	}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		at := 1_750_000_000 + i
		err := builder.PutThing(account, index.Thing{
			Name: fmt.Sprintf("device-%06d", i), ID: fmt.Sprintf("%016x-%016x", r.Uint64(), r.Uint64()),
			TypeName: fmt.Sprintf("Type%d", r.IntN(20)), Version: 1,
			Attributes: map[string]string{
				"serial": fmt.Sprintf("SN%012d", r.Uint64N(1e12)), "site": fmt.Sprintf("site-%d", r.IntN(5000)),
				"customer": fmt.Sprintf("cust-%d", r.IntN(2000)), "hw": fmt.Sprintf("r%d", r.IntN(6)),
			},
		}, []string{fmt.Sprintf("group-%d", r.IntN(2000))}, index.State{
			Shadows: []index.Shadow{{
				Version: 3,
				Reported: fmt.Appendf(nil, `{"battery":%d,"temp":%.1f,"rssi":%d,"fw":"3.%d.%d","mode":"%s","uptime":%d}`,
					r.IntN(101), r.Float64()*60, -r.IntN(100), r.IntN(4), r.IntN(30), []string{"eco", "normal", "boost"}[r.IntN(3)], r.IntN(1e6)),
				Metadata: fmt.Appendf(nil, `{"reported":{"battery":{"timestamp":%d},"temp":{"timestamp":%d},"rssi":{"timestamp":%d},"fw":{"timestamp":%d},"mode":{"timestamp":%d},"uptime":{"timestamp":%d}}}`,
					at, at, at, at, at, at),
			}},
			Connectivity: &index.Connectivity{Connected: r.IntN(100) < 85, TimestampMS: int64(at) * 1000, Version: 1},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := builder.Finish(b.Context(), store.Cursor{}); err != nil {
		b.Fatal(err)
	}
	return x, d
}

// BenchmarkSearch100k finds the first hundred names among 100,000 devices.
func BenchmarkSearch100k(b *testing.B) {
	x, _ := benchFleet(b, 100_000)
	for name, text := range map[string]string{
		"exact":    "thingName:device-054321",
		"and":      "connectivity.connected:true AND thingTypeName:Type7 AND attributes.hw:r3",
		"range":    "shadow.reported.battery>=90 AND shadow.reported.fw:3.2.*",
		"selected": "attributes.site:site-42 AND shadow.reported.battery:[20 TO 40]",
		"prefix":   "thingName:device-05* AND shadow.reported.battery:[20 TO 40]",
		"not":      "(shadow.reported.fw:3.1.1 OR shadow.reported.fw:3.1.2) NOT thingGroupNames:group-7 connectivity.connected:false",
		"leading":  "thingName:*4321",
		"bare":     "eco Type7",
		"all":      "*",
	} {
		q, err := x.ParseThings(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			found, err := x.Count(account, q)
			if err != nil || found == 0 {
				b.Fatalf("found %d: %v", found, err)
			}
			for b.Loop() {
				if _, _, err := x.Search(account, q, "", 100); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(found), "hits")
		})
	}
}

// BenchmarkBuild100k loads 100,000 devices and reports what each costs.
func BenchmarkBuild100k(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		start := time.Now()
		x, _ := benchFleet(b, 100_000)
		took := time.Since(start)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/100_000, "bytes/device")
		b.ReportMetric(100_000/took.Seconds(), "devices/s")
		runtime.KeepAlive(x)
	}
}

// BenchmarkApply applies telemetry patches in batches of 500 with and without
// dynamic groups.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{0, 1000, 10_000} {
		b.Run(fmt.Sprintf("groups=%d", n), func(b *testing.B) {
			r := rand.New(rand.NewPCG(2, 2))
			x, d := benchFleet(b, 100_000, standingQueries(r, n)...)
			d.changes.Store(0)
			const batchSize = 500
			seq := uint64(0)
			batch := make([]event.Envelope, batchSize)
			for b.Loop() {
				b.StopTimer()
				for i := range batch {
					seq++
					batch[i] = event.Envelope{Seq: seq, Account: account, Event: event.ShadowUpdated{
						Thing: fmt.Sprintf("device-%06d", r.IntN(100_000)), Version: int64(3 + seq), Timestamp: int64(1_760_000_000 + seq),
						Patch: fmt.Appendf(nil, `{"reported":{"battery":%d,"temp":%.1f,"rssi":%d,"uptime":%d}}`,
							r.IntN(101), r.Float64()*60, -r.IntN(100), r.IntN(1e6)),
					}}
				}
				b.StartTimer()
				if err := x.Apply(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
			updates := float64(b.N * batchSize)
			b.ReportMetric(updates/b.Elapsed().Seconds(), "updates/s")
			b.ReportMetric(float64(d.changes.Load())/updates, "changes/update")
		})
	}
}

// standingQueries makes n group queries, each selective and most on telemetry.
func standingQueries(r *rand.Rand, n int) []string {
	out := make([]string, n)
	for i := range out {
		switch i % 4 {
		case 0:
			out[i] = fmt.Sprintf("attributes.site:site-%d AND shadow.reported.battery<%d", r.IntN(5000), r.IntN(100))
		case 1:
			out[i] = fmt.Sprintf("shadow.reported.fw:3.1.%d AND thingTypeName:Type%d AND connectivity.connected:false", r.IntN(30), r.IntN(20))
		case 2:
			out[i] = fmt.Sprintf("attributes.customer:cust-%d AND shadow.reported.rssi:[%d TO *]", r.IntN(2000), -r.IntN(100))
		default:
			out[i] = fmt.Sprintf("thingGroupNames:group-%d AND NOT shadow.reported.fw:3.2.*", r.IntN(2000))
		}
	}
	return out
}
