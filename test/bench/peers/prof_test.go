//go:build bench

package peers_test

import (
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"testing"
)

func TestProf(t *testing.T) {
	n := number(t, "MUSTER_BENCH_INDEX_THINGS", 200_000)
	f, _ := os.Create("/tmp/run/cpu.prof")
	_ = pprof.StartCPUProfile(f)
	b := build(t, n)
	pprof.StopCPUProfile()
	f.Close()
	fmt.Printf("%d: %.1f us cpu, wall %v, %.0f bytes\n", n, float64(b.cpu.Microseconds())/float64(n), b.wall, b.bytes)
	runtime.GC()
	m, _ := os.Create("/tmp/run/mem.prof")
	_ = pprof.Lookup("heap").WriteTo(m, 0)
	m.Close()
	runtime.KeepAlive(b.x)
}
