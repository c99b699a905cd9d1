package storetest

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
)

// BenchmarkCommitParallel measures commits of a value of 1 KB with an
// expectation and one event, by many writers. Those of "create" expect that the
// key does not exist; those of "update" each own 100 keys and read before they
// write, as a shadow update does. It reports commits per second and the longest
// wait for one.
func BenchmarkCommitParallel(b *testing.B, newPlace func(testing.TB) Place) {
	b.Helper()
	for _, c := range []struct {
		name    string
		writers int
		keys    int
	}{{"create", 64, 0}, {"create", 256, 0}, {"update", 64, 100}, {"update", 256, 100}} {
		b.Run(fmt.Sprintf("%s/writers=%d", c.name, c.writers), func(b *testing.B) {
			e := newPlace(b).open(b)
			var left, slowest atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			b.ResetTimer()
			for i := range c.writers {
				wg.Go(func() {
					w := &benchWriter{engine: e, name: strconv.Itoa(i), keys: c.keys}
					for n := 0; left.Add(-1) >= 0; n++ {
						took, err := w.commit(b, n)
						if err != nil {
							b.Error(err)
							return
						}
						for old := slowest.Load(); took > old && !slowest.CompareAndSwap(old, took); old = slowest.Load() {
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			b.ReportMetric(float64(slowest.Load())/float64(time.Millisecond), "max-ms")
		})
	}
}

// benchWriter commits under its own keys.
type benchWriter struct {
	engine Engine
	name   string
	// keys is the number of keys that it updates in turn; 0 means a new key
	// each time.
	keys int
}

// commit writes one key and returns how long the commit took.
func (w *benchWriter) commit(b *testing.B, n int) (int64, error) {
	b.Helper()
	at, version := n, uint64(0)
	if w.keys > 0 {
		at = n % w.keys
	}
	key := store.K("000000000000", "shadow", "thing-"+w.name+"-"+strconv.Itoa(at), "")
	if w.keys > 0 {
		records, err := w.engine.GetMany(b.Context(), []store.Key{key})
		if err != nil {
			return 0, err
		}
		version = records[0].Version
	}
	started := time.Now()
	_, err := w.engine.Commit(b.Context(), store.Batch{
		Expect: []store.Expect{{Key: key, Version: version}},
		Writes: []store.Write{{Key: key, Value: bytes.Repeat([]byte{byte(n)}, 1024)}},
		Events: []event.Envelope{Fact(w.name, int64(n))},
	})
	return int64(time.Since(started)), err
}
