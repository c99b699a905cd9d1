package index

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
)

// BenchmarkPage1M takes a page of a hundred names out of a million, for sets of
// every density, spread over the names or all at their end, where a walk from
// the first name meets nothing for long. The devices were registered in no
// order.
func BenchmarkPage1M(b *testing.B) {
	const fleetSize = 1_000_000
	c := newCorpus(DefaultMaxPaths, thingUnfielded, thingHidden, thingExempt)
	r := rand.New(rand.NewPCG(1, 1))
	order := r.Perm(fleetSize)
	name := func(i int) string { return fmt.Sprintf("device-%07d", i) }
	docs := make([]uint32, fleetSize)
	for _, i := range order {
		docs[i] = c.create(name(i))
	}
	c.finish()
	sets := map[string]func(hits int) *roaring.Bitmap{
		"spread": func(hits int) *roaring.Bitmap {
			set := roaring.New()
			for i := range hits {
				set.Add(docs[i*(fleetSize/hits)])
			}
			return set
		},
		"last": func(hits int) *roaring.Bitmap { return roaring.BitmapOf(docs[fleetSize-hits:]...) },
	}
	for shape, of := range sets {
		for _, hits := range []int{50, 500, 2000, 5000, 50_000, 500_000, fleetSize} {
			set := of(hits)
			for place, after := range map[string]string{"first": "", "deep": name(fleetSize * 9 / 10)} {
				b.Run(fmt.Sprintf("%s/hits=%d/%s", shape, hits, place), func(b *testing.B) {
					for b.Loop() {
						c.page(set, after, 100)
					}
				})
			}
		}
	}
}
