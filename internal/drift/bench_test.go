package drift

import (
	"fmt"
	"testing"
)

// BenchmarkList compares a fleet page by page; the metric is of one thing.
func BenchmarkList(b *testing.B) {
	const things = 5000
	r := newRig(b)
	r.stock()
	for i := range things {
		r.need(r.provision(plan(fmt.Sprintf("pump-%05d", i), r.certificate()), 1))
	}
	b.ResetTimer()
	for range b.N {
		c := ListCommand{Limit: maxListed}
		for {
			page, err := r.List(b.Context(), account, c)
			r.need(err)
			if c.After = page.Next; c.After == "" {
				break
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*things), "ns/thing")
}
