package index

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/fleetquery"
)

// drawnNumber makes numbers that ask for every form and width.
func drawnNumber(r *rand.Rand, kind int) float64 {
	switch kind {
	case 0:
		return 7
	case 1:
		return float64(r.IntN(200) - 100)
	case 2:
		return float64(r.IntN(60_000)) / 10
	case 3:
		return 1.7e12 + float64(r.IntN(1e9))
	case 4:
		return float64(r.IntN(1e9)) / 1e6
	case 5:
		return math.Float64frombits(r.Uint64() &^ (1 << 62)) // never infinite
	case 6:
		return []float64{0, math.Copysign(0, -1), math.MaxFloat64, -math.MaxFloat64, 1 << 53, 1<<53 - 1, math.SmallestNonzeroFloat64, 0.1 + 0.2, 1e22}[r.IntN(9)]
	}
	return r.NormFloat64() * 1e3
}

// TestNumberColumn holds a column against a map, in all that is asked of it.
func TestNumberColumn(t *testing.T) {
	t.Parallel()
	const docs = 2000
	for seed := range 60 {
		r := rand.New(rand.NewPCG(2, uint64(seed)))
		var c numberColumn
		plain := map[uint32]float64{}
		for range 20_000 {
			doc := uint32(r.IntN(docs))
			if r.IntN(4) == 0 {
				c.remove(doc)
				delete(plain, doc)
				continue
			}
			// Most chunks are of one kind, some of all.
			kind := int(doc/chunkDocs+uint32(seed)) % 8
			if seed%4 == 0 {
				kind = r.IntN(8)
			}
			v := drawnNumber(r, kind)
			c.set(doc, v)
			plain[doc] = v
		}
		for doc := range uint32(docs) {
			want, has := plain[doc]
			if got, ok := c.get(doc); ok != has || math.Float64bits(got) != math.Float64bits(want) {
				t.Fatalf("seed %d: document %d has %v, %t, want %v, %t", seed, doc, got, ok, want, has)
			}
		}
		if c.count != len(plain) {
			t.Errorf("seed %d: %d values, want %d", seed, c.count, len(plain))
		}
		again := decodedColumn(t, &c, docs)
		for range 40 {
			asked := fleetquery.NumberRange{Low: drawnBound(r, plain), High: drawnBound(r, plain)}
			want, got := map[uint32]bool{}, map[uint32]bool{}
			for doc, v := range plain {
				if asked.Contains(v) {
					want[doc] = true
				}
			}
			again.within(asked, func(doc uint32) { got[doc] = true })
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("seed %d: %+v (-want +got):\n%s", seed, asked, diff)
			}
		}
		gathersAlike(t, r, &again, plain, docs)
	}
}

// drawnBound is at, beside or far from one of the values.
func drawnBound(r *rand.Rand, plain map[uint32]float64) fleetquery.NumberBound {
	v := drawnNumber(r, r.IntN(8))
	for _, some := range plain {
		if r.IntN(2) == 0 {
			v = some
		}
		break
	}
	return fleetquery.NumberBound{Open: r.IntN(6) == 0, Value: v, Inclusive: r.IntN(2) == 0}
}

// decodedColumn is the column after it was written and read.
func decodedColumn(t *testing.T, c *numberColumn, docs int) numberColumn {
	t.Helper()
	d := decoder{b: appendPacked(nil, &c.packed)}
	again := d.numbers(docs, "numbers")
	if d.err != nil || len(d.b) > 0 {
		t.Fatalf("read again: %v, %d bytes left", d.err, len(d.b))
	}
	return again
}

// gathersAlike gathers what a random set of documents has.
func gathersAlike(t *testing.T, r *rand.Rand, c *numberColumn, plain map[uint32]float64, docs int) {
	t.Helper()
	m := &matched{dense: make([]uint64, (docs+63)/64)}
	want := map[uint64]int{}
	for doc := range uint32(docs) {
		if (doc/chunkDocs)%3 == 0 || r.IntN(3) == 0 {
			m.dense[doc/64] |= 1 << (doc % 64)
			if v, ok := plain[doc]; ok {
				want[math.Float64bits(v)]++
			}
		}
	}
	got, n := map[uint64]int{}, 0
	c.gather(m, func(numbers []float64) {
		for _, v := range numbers {
			got[math.Float64bits(v)]++
			n++
		}
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("gathered (-want +got):\n%s", diff)
	}
	if c.countIn(m) != n {
		t.Errorf("%d documents have a value, gathered %d", c.countIn(m), n)
	}
}

// TestPackedIsNarrow says what chunks of usual values take.
func TestPackedIsNarrow(t *testing.T) {
	t.Parallel()
	for _, one := range []struct {
		what  string
		value func(doc int) float64
		width uint8
	}{
		{"one value", func(int) float64 { return 60 }, 0},
		{"percents", func(doc int) float64 { return float64(doc * 37 % 101) }, 1},
		{"tenths", func(doc int) float64 { return float64(doc*37%600) / 10 }, 2},
		{"seconds of a day", func(doc int) float64 { return 1.79e9 + float64(doc*331%86400) }, 4},
		{"thirds", func(doc int) float64 { return float64(doc) / 3 }, widest},
	} {
		var c numberColumn
		for doc := range chunkDocs {
			c.set(uint32(doc), one.value(doc))
		}
		if k := c.chunks[0]; k.width != one.width {
			t.Errorf("%s: %d bytes a value, want %d", one.what, k.width, one.width)
		}
	}
}

// TestIDColumn holds a column of texts' numbers against a map.
func TestIDColumn(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 4))
	var c idColumn
	plain := map[uint32]uint32{}
	for range 50_000 {
		doc := uint32(r.IntN(2000))
		if r.IntN(3) == 0 {
			c.remove(doc)
			delete(plain, doc)
			continue
		}
		id := doc + uint32(r.IntN(1<<(4*(doc/chunkDocs))))
		c.set(doc, id)
		plain[doc] = id
	}
	got := map[uint32]uint32{}
	c.each(func(doc, id uint32) { got[doc] = id })
	if !maps.Equal(got, plain) {
		t.Error("the column differs from the map")
	}
	sum, want := uint64(0), uint64(0)
	c.gather(&matched{all: true}, func(ids []uint32) {
		for _, id := range ids {
			sum += uint64(id)
		}
	})
	for _, id := range plain {
		want += uint64(id)
	}
	if sum != want {
		t.Errorf("gathered a sum of %d, want %d", sum, want)
	}
	d := decoder{b: appendPacked(nil, &c.packed)}
	if d.ids(2000, 10, "ids"); d.err == nil {
		t.Error("numbers beyond the bound were read")
	}
}

// TestListColumn holds a column of lists against a map.
func TestListColumn(t *testing.T) {
	t.Parallel()
	const docs = 1500
	r := rand.New(rand.NewPCG(1, 5))
	var c listColumn
	plain := map[uint32][]uint32{}
	for range 50_000 {
		doc := uint32(r.IntN(docs))
		list := plain[doc]
		switch r.IntN(5) {
		case 0:
			c.remove(doc)
			delete(plain, doc)
		case 1:
			list = make([]uint32, 1+r.IntN(5))
			for i := range list {
				list[i] = r.Uint32()
			}
			c.set(doc, list)
			plain[doc] = list
		case 2, 3:
			pos, id := r.IntN(len(list)+1), r.Uint32()
			c.insert(doc, pos, id)
			plain[doc] = slices.Insert(slices.Clone(list), pos, id)
		case 4:
			if len(list) == 0 {
				continue
			}
			pos := r.IntN(len(list))
			c.delete(doc, pos)
			if plain[doc] = slices.Delete(slices.Clone(list), pos, pos+1); len(plain[doc]) == 0 {
				delete(plain, doc)
			}
		}
	}
	d := decoder{b: appendIDLists(nil, &c)}
	again := d.idLists(docs, math.MaxInt, "lists")
	if d.err != nil || len(d.b) > 0 {
		t.Fatalf("read again: %v, %d bytes left", d.err, len(d.b))
	}
	got := map[uint32][]uint32{}
	again.each(func(doc uint32, list []uint32) { got[doc] = list })
	if diff := cmp.Diff(plain, got); diff != "" {
		t.Errorf("lists (-want +got):\n%s", diff)
	}
	for doc := range uint32(docs) {
		if list, ok := c.get(doc); !slices.Equal(list, plain[doc]) || ok != (len(list) > 0) {
			t.Errorf("document %d has %v, want %v", doc, list, plain[doc])
		}
	}
}

// TestHistogramPicksAsSorting holds percentiles by counting against those by
// sorting.
func TestHistogramPicksAsSorting(t *testing.T) {
	t.Parallel()
	counted := 0
	for seed := range 40 {
		r := rand.New(rand.NewPCG(3, uint64(seed)))
		f := newField(false)
		m := &matched{all: seed%3 == 0, dense: make([]uint64, 64)}
		for doc := range uint32(4000) {
			if r.IntN(5) == 0 {
				continue
			}
			v := float64(r.IntN(101) - 50)
			if doc/chunkDocs%2 == uint32(seed%2) {
				v = float64(r.IntN(1000)-500) / 10
			}
			if seed == 7 && doc == 99 {
				v = 1e12
			}
			f.numbers.set(doc, v)
			if r.IntN(3) > 0 || doc%chunkDocs > 192 {
				m.dense[doc/64] |= 1 << (doc % 64)
			}
		}
		h := f.histogram(m)
		if h == nil {
			continue
		}
		counted++
		percents := []float64{0, 0.5, 12, 50, 99.9, 100}
		if diff := cmp.Diff(percentilesOf(f.numbersOf(m), percents), percentiles(h.total, percents, h.pick)); diff != "" {
			t.Errorf("seed %d (-sorted +counted):\n%s", seed, diff)
		}
	}
	if counted != 39 {
		t.Errorf("%d of 40 were counted", counted)
	}
}
