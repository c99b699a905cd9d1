//go:build bench

package peers_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/blevesearch/bleve/v2"
	"github.com/blevesearch/bleve/v2/analysis/analyzer/keyword"
	"github.com/blevesearch/bleve/v2/mapping"
	"github.com/blevesearch/bleve/v2/search/query"
)

// bleveBatch is how many documents bleve takes at a time.
const bleveBatch = 1000

// bleveMapping indexes what the fleet's queries name and stores nothing: whole
// words for texts, numbers, places.
func bleveMapping() mapping.IndexMapping {
	m := bleve.NewIndexMapping()
	m.DefaultAnalyzer = keyword.Name
	m.StoreDynamic, m.DocValuesDynamic = false, false
	place := bleve.NewGeoPointFieldMapping()
	place.Store = false
	m.DefaultMapping.AddFieldMappingsAt("place", place)
	return m
}

// buildBleve indexes n devices and returns the processor time that it took.
func buildBleve(t *testing.T, n int) (bleve.Index, time.Duration) {
	t.Helper()
	x, err := bleve.NewUsing(t.TempDir(), bleveMapping(), bleve.Config.DefaultIndexType, bleve.Config.DefaultKVStore, map[string]any{"unsafe_batch": true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	cpu := processTime(t)
	r := rand.New(rand.NewPCG(1, 1))
	batch := x.NewBatch()
	for i := range n {
		d := newDevice(r, i)
		document := map[string]any{
			"thingName": d.Name, "thingId": d.ID, "thingTypeName": d.Type, "thingGroupNames": d.Groups, "attributes": d.Attributes,
			"reported": map[string]any{
				"battery": d.Shadow.Reported.Battery, "temp": d.Shadow.Reported.Temp, "rssi": d.Shadow.Reported.RSSI, "uptime": d.Shadow.Reported.Uptime,
				"cpu": d.Shadow.Reported.CPU, "memory": d.Shadow.Reported.Memory, "disk": d.Shadow.Reported.Disk, "voltage": d.Shadow.Reported.Voltage,
				"errors": d.Shadow.Reported.Errors, "restarts": d.Shadow.Reported.Restarts, "firmware": d.Shadow.Reported.Firmware,
				"mode": d.Shadow.Reported.Mode, "ip": d.Shadow.Reported.IP, "network": d.Shadow.Reported.Network, "door": d.Shadow.Reported.Door,
			},
			"desired": map[string]any{
				"firmware": d.Shadow.Desired.Firmware, "mode": d.Shadow.Desired.Mode, "interval": d.Shadow.Desired.Interval,
			},
			"connectivity": map[string]any{
				"connected": d.Connectivity.Connected, "timestamp": float64(d.Connectivity.Timestamp), "disconnectReason": d.Connectivity.Reason,
			},
			"place": map[string]any{"lat": d.Shadow.Reported.lat, "lon": d.Shadow.Reported.lon},
		}
		if err := batch.Index(d.Name, document); err != nil {
			t.Fatal(err)
		}
		if batch.Size() == bleveBatch || i == n-1 {
			if err := x.Batch(batch); err != nil {
				t.Fatal(err)
			}
			batch.Reset()
		}
	}
	return x, processTime(t) - cpu
}

// bleveQueries are the questions in bleve's form, in their order.
func bleveQueries() []query.Query {
	term := func(field, text string) query.Query {
		q := bleve.NewTermQuery(text)
		q.SetField(field)
		return q
	}
	prefix := func(field, text string) query.Query {
		q := bleve.NewPrefixQuery(text)
		q.SetField(field)
		return q
	}
	between := func(field string, from, to *float64) query.Query {
		yes := true
		q := bleve.NewNumericRangeInclusiveQuery(from, to, &yes, &yes)
		q.SetField(field)
		return q
	}
	connected := func(is bool) query.Query {
		q := bleve.NewBoolFieldQuery(is)
		q.SetField("connectivity.connected")
		return q
	}
	near := bleve.NewGeoDistanceQuery(13.40, 52.52, "50km")
	near.SetField("place")
	end := bleve.NewWildcardQuery("*4321")
	end.SetField("thingName")
	four := bleve.NewBooleanQuery()
	four.AddMust(bleve.NewDisjunctionQuery(term("reported.firmware", "3.0.1"), term("reported.firmware", "3.0.2")), connected(false),
		between("reported.rssi", nil, new(-50.0)))
	four.AddMustNot(term("thingGroupNames", "group-7"))
	return []query.Query{
		term("thingName", "device-0054321"),
		bleve.NewConjunctionQuery(connected(true), term("thingTypeName", "Type7"), term("attributes.manufacturer", "maker-3")),
		bleve.NewConjunctionQuery(between("reported.battery", new(90.0), nil), prefix("reported.firmware", "3.1.")),
		four,
		bleve.NewConjunctionQuery(near, connected(false)),
		bleve.NewConjunctionQuery(prefix("thingName", "device-005"), between("reported.battery", new(20.0), new(40.0))),
		end,
		between("reported.battery", new(90.0), nil),
	}
}

// askBleve counts and finds the first hundred, scoring switched off.
func askBleve(t *testing.T, x bleve.Index, q query.Query) answer {
	t.Helper()
	var a answer
	a.first = median(t, func() error {
		request := bleve.NewSearchRequestOptions(q, 100, 0, false)
		request.Score = "none"
		found, err := x.Search(request)
		if err == nil {
			a.hits = int(found.Total)
		}
		return err
	})
	a.count = a.first
	return a
}
