package index

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
)

const placeField = "shadow.reported.pos"

// placed is a corpus with one field that holds places.
func placed(bulk bool) *corpus {
	c := newCorpus(DefaultMaxPaths, thingUnfielded, thingHidden, thingExempt)
	c.locate([]fleet.GeoLocation{{Name: placeField}})
	if !bulk {
		c.finish()
	}
	return c
}

// move gives a document another place.
func (c *corpus) move(doc uint32, p fleetquery.Place) {
	c.put(placeField, doc, values{numbers: []float64{p.Lat, p.Lon}})
}

// randomPlace is anywhere, in one of a few towns, on a whole degree, at a pole
// or on the antimeridian.
func randomPlace(r *rand.Rand) fleetquery.Place {
	lat, lon := math.Asin(2*r.Float64()-1)*180/math.Pi, 360*r.Float64()-180
	switch r.IntN(10) {
	case 0, 1, 2:
		town := float64(r.IntN(20))
		lat, lon = 3*town+r.NormFloat64()/100, 17*town-170+r.NormFloat64()/100
	case 3:
		lat, lon = math.Round(lat), math.Round(lon)
	case 4:
		lat = [2]float64{-90, 90}[r.IntN(2)]
	case 5:
		lon = [2]float64{-180, 180}[r.IntN(2)]
	}
	p, ok := fleetquery.MakePlace(lat, lon)
	if !ok {
		panic(fmt.Sprint(lat, lon))
	}
	return p
}

// randomArea is a circle of any size or a box, often one that touches a pole or
// the antimeridian.
func randomArea(r *rand.Rand) fleetquery.Area {
	if r.IntN(2) == 0 {
		meters := math.Pow(10, 8*r.Float64())
		if r.IntN(20) == 0 {
			meters = 0
		}
		return fleetquery.NewCircle(randomPlace(r), meters)
	}
	side := func(most float64) float64 {
		if r.IntN(6) == 0 {
			return most * float64(r.IntN(3)-1)
		}
		return math.Round(most * (2*r.Float64() - 1))
	}
	b := fleetquery.Box{North: side(90), South: side(90), West: side(180), East: side(180)}
	if b.North < b.South {
		b.North, b.South = b.South, b.North
	}
	if r.IntN(3) == 0 {
		b.North, b.East = min(b.South+r.Float64(), 90), min(b.West+r.Float64(), 180)
	}
	return b
}

// TestPlaces holds searches for areas among many places against a look at each
// place, while the places move, come and go.
func TestPlaces(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 5))
	const documents = 30_000
	c := placed(true)
	places := map[uint32]fleetquery.Place{}
	for i := range documents {
		doc := c.create(fmt.Sprintf("p-%05d", i))
		places[doc] = randomPlace(r)
		c.move(doc, places[doc])
	}
	c.finish()
	check := func() {
		t.Helper()
		g := c.geo[placeField]
		if g.cells.count != len(places) {
			t.Fatalf("%d cells for %d places", g.cells.count, len(places))
		}
		sum, last := 0, cellEntry{}
		for _, b := range g.cells.blocks {
			sum += len(b.cells)
			for i := range b.cells {
				if compareEntries(last, b.at(i)) >= 0 {
					t.Fatalf("%v after %v", b.at(i), last)
				}
				last = b.at(i)
			}
			if len(b.cells) == 0 || len(b.cells) > maxCells || len(b.docs) != len(b.cells) {
				t.Fatalf("block of %d cells and %d documents", len(b.cells), len(b.docs))
			}
		}
		if sum != g.cells.count {
			t.Fatalf("%d places in blocks, counted %d", sum, g.cells.count)
		}
		for range 150 {
			area := randomArea(r)
			var want []uint32
			for _, doc := range slices.Sorted(maps.Keys(places)) {
				if area.Contains(places[doc]) {
					want = append(want, doc)
				}
			}
			if got := g.search(area).ToArray(); !slices.Equal(got, want) && len(got)+len(want) > 0 {
				t.Fatalf("%+v: found %d, want %d", area, len(got), len(want))
			}
		}
	}
	check()
	for range 3 {
		for range 10_000 {
			doc := uint32(r.IntN(documents))
			if r.IntN(4) == 0 {
				c.put(placeField, doc, values{})
				delete(places, doc)
				continue
			}
			places[doc] = randomPlace(r)
			c.move(doc, places[doc])
		}
		c.tidy()
		check()
	}
	for doc := range places {
		c.put(placeField, doc, values{})
	}
	clear(places)
	check()
}

// TestPlacesOfStandingQueries: every group whose area has one of two places and
// not the other is marked when a document moves between them.
func TestPlacesOfStandingQueries(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(6, 6))
	var a atoms
	var areas []fleetquery.Area
	for i := range 2000 {
		areas = append(areas, randomArea(r))
		a.add(uint32(i), &plan{op: opGeo, area: areas[i]})
	}
	moves := func(from int) {
		for range 3000 {
			old, now := []fleetquery.Place{randomPlace(r)}, []fleetquery.Place{randomPlace(r)}
			got := map[uint32]bool{}
			a.geo.flips(old, now, func(group uint32) { got[group] = true })
			for i, area := range areas {
				want := i >= from && area.Contains(old[0]) != area.Contains(now[0])
				if got[uint32(i)] != want {
					t.Fatalf("from %v to %v: %+v marked %v, want %v", old, now, area, got[uint32(i)], want)
				}
			}
		}
	}
	moves(0)
	for i := range 1000 {
		a.remove(uint32(i))
	}
	moves(1000)
	for i := range areas {
		if left := a.remove(uint32(i)); left != (i < len(areas)-1) {
			t.Fatalf("tests left after %d: %v", i, left)
		}
	}
}

// BenchmarkPlaces1M finds a million places in towns and anywhere.
func BenchmarkPlaces1M(b *testing.B) {
	r := rand.New(rand.NewPCG(7, 7))
	const documents = 1_000_000
	c := placed(true)
	somewhere := func() fleetquery.Place {
		town := float64(r.IntN(40))
		p := fleetquery.Place{Lat: 3*town - 60 + r.NormFloat64()/100, Lon: 8*town - 160 + r.NormFloat64()/100}
		if r.IntN(2) == 0 {
			p = fleetquery.Place{Lat: math.Asin(2*r.Float64()-1) * 180 / math.Pi, Lon: 360*r.Float64() - 180}
		}
		return p
	}
	for i := range documents {
		c.move(c.create(fmt.Sprintf("p-%07d", i)), somewhere())
	}
	c.finish()
	g := c.geo[placeField]
	circle := func(meters float64) fleetquery.Area {
		return fleetquery.NewCircle(fleetquery.Place{Lat: 0, Lon: 0.01}, meters)
	}
	for _, bench := range []struct {
		name string
		area fleetquery.Area
	}{
		{"circle=100m", circle(100)},
		{"circle=2km", circle(2000)},
		{"circle=15km", circle(15_000)},
		{"circle=500km", circle(500_000)},
		{"circle=5000km", circle(5_000_000)},
		{"box=town", fleetquery.Box{North: 0.01, South: -0.01, West: -0.01, East: 0.01}},
		{"box=country", fleetquery.Box{North: 5, South: -5, West: -10, East: 5}},
		{"box=hemisphere", fleetquery.Box{North: 90, South: -90, West: -180, East: 0}},
		{"box=earth", fleetquery.Box{North: 90, South: -90, West: -180, East: 180}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var found uint64
			for b.Loop() {
				found = g.search(bench.area).GetCardinality()
			}
			b.ReportMetric(float64(found), "hits")
		})
	}
	b.Run("move", func(b *testing.B) {
		for b.Loop() {
			c.move(uint32(r.IntN(documents)), somewhere())
		}
	})
	b.Run("fill", func(b *testing.B) {
		for b.Loop() {
			g.fill(c)
		}
	})
}
