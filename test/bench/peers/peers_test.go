//go:build bench

// Package peers_test measures the fleet index beside a search library and a
// database, in one run on one made-up fleet. It is a module of its own, so that
// nothing of the peers is a dependency of the server.
package peers_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"
)

// number reads a variable of the environment.
func number(t *testing.T, name string, standard int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return standard
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// firstPage is how many names a question asks for.
const firstPage = 100

// middle is the median.
func middle(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// ms prints a time.
func ms(d time.Duration) string { return fmt.Sprintf("%.3g", float64(d.Nanoseconds())/1e6) }

// verdict says whether a ratio reaches a bar.
func verdict(ratio, bar float64) string {
	if ratio >= bar {
		return "met"
	}
	return "**not met**"
}

// TestPeers prints the table of the index and of both peers.
func TestPeers(t *testing.T) {
	things := number(t, "MUSTER_BENCH_INDEX_THINGS", 1_000_000)
	small := number(t, "MUSTER_BENCH_BLEVE_THINGS", 200_000)

	fmt.Printf("\n### index: %d devices of 35 fields and 19 times, in process; PostgreSQL with as many, bleve with %d\n", things, small)
	theirs, dear := buildBleve(t, small)
	made := making(t)
	perDevice := dear/time.Duration(small) - made
	few := build(t, small)
	queries := bleveQueries()
	searched := make([]answer, len(queries))
	smaller := make([]answer, len(queries))
	for i, q := range questions() {
		searched[i] = askBleve(t, theirs, queries[i])
		smaller[i] = ask(t, few.x, q)
		if smaller[i].hits < firstPage {
			// Without scores bleve may stop counting at the end of the page.
			agree(t, "bleve", q, smaller[i].hits, searched[i].hits)
		}
	}
	few = built{}
	runtime.GC()

	ours := build(t, things)
	ourDevice := ours.cpu/time.Duration(things) - made
	ratio := float64(perDevice) / float64(ourDevice)
	fmt.Printf("\n| build | muster | bleve | ratio | bar | |\n| --- | --- | --- | --- | --- | --- |\n")
	fmt.Printf("| devices a CPU second; making one took %v, which is taken off | %.0f | %.0f | %.0f× | ≥50× | %s |\n",
		made, 1/ourDevice.Seconds(), 1/perDevice.Seconds(), ratio, verdict(ratio, 50))
	fmt.Printf("| bytes a device | %.0f | | | ≤600 | %s |\n", ours.bytes, verdict(600, ours.bytes))

	conn, loaded, indexed := fillPostgres(t, things)
	fmt.Printf("\nPostgreSQL loaded %d devices in %.0f s and indexed them in %.0f s; muster built its index in %.1f s.\n",
		things, loaded.Seconds(), indexed.Seconds(), ours.wall.Seconds())

	fmt.Printf("\n| query, ms | hits | muster: all / first 100 | PostgreSQL: all / first 100 | ratio of all | bar ≥10× | muster at %d | bleve at %d | ratio |\n",
		small, small)
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	for i, q := range questions() {
		a, p := ask(t, ours.x, q), askPostgres(t, conn, q)
		agree(t, "PostgreSQL", q, a.hits, p.hits)
		ratio := float64(p.count) / float64(a.count)
		fmt.Printf("| %s | %d | %s / %s | %s / %s | %.0f× | %s | %s | %s | %.0f× |\n", q.name, a.hits, ms(a.count), ms(a.first), ms(p.count), ms(p.first),
			ratio, verdict(ratio, 10), ms(smaller[i].first), ms(searched[i].first), float64(searched[i].first)/float64(smaller[i].first))
	}
	aggregated(t, ours.x, conn)
}

// agree fails the test when two engines find different fleets; the edge of a
// circle is not drawn by all in the same way.
func agree(t *testing.T, peer string, q question, ours, theirs int) {
	t.Helper()
	if d := ours - theirs; d*d > 1+(ours/1000)*(ours/1000) {
		t.Errorf("%s: we find %d, %s %d", q.name, ours, peer, theirs)
	}
}
