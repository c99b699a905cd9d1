package index_test

import (
	"testing"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
)

// BenchmarkAggregate1M aggregates over all of a million devices and over the 85 %
// that are connected.
func BenchmarkAggregate1M(b *testing.B) {
	x, _ := benchFleet(b, 1_000_000)
	sum := func(of fleet.FieldType, field string) func(index.Aggregation) error {
		return func(a index.Aggregation) error {
			a.Field = field
			_, err := x.Summarize(b.Context(), account, a, of, 10)
			return err
		}
	}
	named := func(field string, ask func(index.Aggregation) error) func(index.Aggregation) error {
		return func(a index.Aggregation) error { a.Field = field; return ask(a) }
	}
	statistics := func(a index.Aggregation) error { _, err := x.Statistics(account, a); return err }
	percentiles := func(a index.Aggregation) error { _, err := x.Percentiles(account, a, nil); return err }
	cardinality := func(a index.Aggregation) error { _, err := x.Cardinality(account, a); return err }
	buckets := func(a index.Aggregation) error {
		_, err := x.Buckets(b.Context(), account, a, 10)
		return err
	}
	for _, c := range []struct {
		name string
		ask  func(index.Aggregation) error
	}{
		{"statistics/number", named("connectivity.timestamp", statistics)},
		{"statistics/boolean", named("connectivity.connected", statistics)},
		{"statistics/text", named("thingTypeName", statistics)},
		{"percentiles/wide", named("connectivity.timestamp", percentiles)},
		{"cardinality/text", named("thingGroupNames", cardinality)},
		{"cardinality/name", named("thingName", cardinality)},
		{"cardinality/number", named("connectivity.timestamp", cardinality)},
		{"buckets/type", named("thingTypeName", buckets)},
		{"buckets/group", named("thingGroupNames", buckets)},
		{"buckets/name", named("thingName", buckets)},
		{"buckets/number", named("connectivity.timestamp", buckets)},
		{"summary/firmware", sum("", "shadow.reported.fw")},
		{"summary/battery", sum("", "shadow.reported.battery")},
	} {
		for _, query := range []string{"*", "connectivity.connected:true"} {
			q, err := x.ParseThings(query)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(c.name+"/"+query, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := c.ask(index.Aggregation{Query: q}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
