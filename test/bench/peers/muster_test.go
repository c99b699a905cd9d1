//go:build bench

package peers_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/store"
)

const account fleet.Account = "000000000000"

// alone is an index without a registry around it.
type alone struct{}

// CommitMembership implements index.Committer.
func (alone) CommitMembership(context.Context, []index.MembershipChange, store.Cursor) error {
	return nil
}

// CommitComplete implements index.Committer.
func (alone) CommitComplete(context.Context, []index.CompleteGroup) error { return nil }

// ThingState implements index.Source.
func (alone) ThingState(context.Context, fleet.Account, string) (index.State, error) {
	return index.State{}, nil
}

// newIndex returns an empty index in which positions can be searched and
// numbers be summed up.
func newIndex() (*index.Index, fleet.Indexing) {
	config := fleet.DefaultIndexing()
	config.Things.GeoLocations = []fleet.GeoLocation{{Name: "shadow.reported.position"}}
	for name, kind := range map[string]fleet.FieldType{
		"shadow.reported.battery": fleet.FieldNumber, "shadow.reported.firmware": fleet.FieldString, "attributes.site": fleet.FieldString,
	} {
		config.Things.CustomFields = append(config.Things.CustomFields, fleet.IndexedField{Name: name, Type: kind})
	}
	return index.New(index.Options{Committer: alone{}, Source: alone{}, Logger: slog.New(slog.DiscardHandler)}), config
}

// built is what it took to build an index.
type built struct {
	x *index.Index
	// cpu is the process's time; bytes what a collection leaves, a device.
	cpu   time.Duration
	wall  time.Duration
	bytes float64
}

// making returns the processor time that making a device takes, with its shadow
// as JSON: a store has that already. It is taken off the figures of both engines.
func making(t *testing.T) time.Duration {
	t.Helper()
	const n = 100_000
	runtime.GC()
	cpu := processTime(t)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		newDevice(r, i).parts()
	}
	return (processTime(t) - cpu) / n
}

// build makes n devices and indexes them.
func build(t *testing.T, n int) built {
	t.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	x, config := newIndex()
	start, cpu := time.Now(), processTime(t)
	b := x.Build()
	b.PutIndexing(account, config)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		thing, groups, state := newDevice(r, i).parts()
		if err := b.PutThing(account, thing, groups, state); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Finish(t.Context(), store.Cursor{}); err != nil {
		t.Fatal(err)
	}
	out := built{x: x, cpu: processTime(t) - cpu, wall: time.Since(start)}
	runtime.GC()
	runtime.ReadMemStats(&after)
	out.bytes = float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
	return out
}

// processTime is the user and system time of this process so far.
func processTime(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// answer is what a question costs: all hits counted, and the first hundred names.
type answer struct {
	hits         int
	count, first time.Duration
}

// ask asks the index.
func ask(t *testing.T, x *index.Index, q question) answer {
	t.Helper()
	parsed, err := x.ParseThings(q.muster)
	if err != nil {
		t.Fatalf("%s: %v", q.muster, err)
	}
	var a answer
	a.count = median(t, func() error {
		n, err := x.Count(account, parsed)
		a.hits = n
		return err
	})
	a.first = median(t, func() error {
		_, _, err := x.Search(account, parsed, "", 100)
		return err
	})
	return a
}

// median runs something for a while and returns the median of its times.
func median(t *testing.T, run func() error) time.Duration {
	t.Helper()
	const rounds, longest = 31, 10 * time.Second
	var times []time.Duration
	for begun := time.Now(); len(times) < rounds && (len(times) < 3 || time.Since(begun) < longest); {
		start := time.Now()
		if err := run(); err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	return middle(times)
}

// aggregated prints what sums over the connected devices cost, beside PostgreSQL.
func aggregated(t *testing.T, x *index.Index, conn *pgx.Conn) {
	t.Helper()
	connected, err := x.ParseThings("connectivity.connected:true")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("\n| aggregation over the connected, ms | muster | PostgreSQL | ratio | bar ≥100× |\n| --- | --- | --- | --- | --- |\n")
	for i, q := range aggregations() {
		a := index.Aggregation{Query: connected, Field: q.muster}
		ours := median(t, []func() error{
			func() error { _, err := x.Buckets(t.Context(), account, a, 10); return err },
			func() error { _, err := x.Statistics(account, a); return err },
			func() error { _, err := x.Percentiles(account, a, []float64{1, 5, 25, 50, 75, 95, 99}); return err },
			func() error { _, err := x.Cardinality(account, a); return err },
		}[i])
		theirs := aggregatePostgres(t, conn, q)
		ratio := float64(theirs) / float64(ours)
		fmt.Printf("| %s | %s | %s | %.0f× | %s |\n", q.name, ms(ours), ms(theirs), ratio, verdict(ratio, 100))
	}
}
