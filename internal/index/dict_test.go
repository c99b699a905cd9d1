package index

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestVocab churns texts through a vocabulary so that it merges, sweeps,
// compacts and uses numbers again, and holds it against a map.
func TestVocab(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	v := newVocab(true)
	plain := map[string]map[uint32]bool{}
	swept := false
	for step := range 60_000 {
		if step == 5000 {
			v.finish()
		}
		text := fmt.Sprintf("text-%d", r.IntN(3000)+step/10)
		member := uint32(r.IntN(4))
		if plain[text] == nil {
			plain[text] = map[uint32]bool{}
		}
		if r.IntN(3) > 0 {
			first := v.include(v.intern(text), member)
			if first != (len(plain[text]) == 0) {
				t.Fatalf("%s: first is %v", text, first)
			}
			plain[text][member] = true
		} else if id, ok := v.find(text); ok {
			last := v.exclude(id, member)
			if last != (len(plain[text]) == 1 && plain[text][member]) {
				t.Fatalf("%s: last is %v", text, last)
			}
			delete(plain[text], member)
		}
		// Old texts die out.
		if old := fmt.Sprintf("text-%d", step/10-1); len(plain[old]) > 0 {
			id, _ := v.find(old)
			for member := range plain[old] {
				v.exclude(id, member)
			}
			delete(plain, old)
		}
		if r.IntN(50) == 0 {
			dead := v.dead
			v.tidy()
			swept = swept || (dead > 0 && v.dead == 0)
		}
	}
	if !swept || len(v.free) == 0 {
		t.Errorf("swept %v, %d numbers free", swept, len(v.free))
	}
	maps.DeleteFunc(plain, func(_ string, members map[uint32]bool) bool { return len(members) == 0 })
	for _, low := range []string{"", "text-3", "text-35", "text-4999", "z"} {
		var got []string
		within := func(text string) bool { return text < low+"~" }
		v.ascend(low, within, func(id uint32, text string) {
			members := map[uint32]bool{}
			v.each(id, func(m uint32) { members[m] = true })
			if !maps.Equal(members, plain[text]) && len(members)+len(plain[text]) > 0 {
				t.Fatalf("%s has %v, want %v", text, members, plain[text])
			}
			if len(members) > 0 {
				got = append(got, text)
			}
		})
		var want []string
		for text := range plain {
			if strings.HasPrefix(text, low) || (text >= low && text < low+"~") {
				want = append(want, text)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("from %q: %d texts, want %d", low, len(got), len(want))
		}
	}
	if !slices.IsSortedFunc(v.sorted, func(a, b uint32) int { return strings.Compare(v.text(a), v.text(b)) }) {
		t.Error("not in order")
	}
	if used := len(v.chunks) * maxChunk; used > 8*maxChunk {
		t.Errorf("%d bytes are held for %d texts", used, v.len())
	}
}

// TestColumn holds a column against a map.
func TestColumn(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 3))
	var c column[int]
	plain := map[uint32]int{}
	for step := range 50_000 {
		doc := uint32(r.IntN(2000))
		if r.IntN(2) == 0 {
			c.set(doc, step)
			plain[doc] = step
		} else {
			c.remove(doc)
			delete(plain, doc)
		}
	}
	got, last := map[uint32]int{}, -1
	c.each(func(doc uint32, v int) {
		if int(doc) <= last {
			t.Fatalf("document %d after %d", doc, last)
		}
		last = int(doc)
		got[doc] = v
	})
	if !maps.Equal(got, plain) || c.count != len(plain) {
		t.Errorf("%d values, count %d, want %d", len(got), c.count, len(plain))
	}
	for doc := range uint32(3000) {
		v, ok := c.get(doc)
		want, have := plain[doc]
		if v != want || ok != have {
			t.Fatalf("document %d: %d %v, want %d %v", doc, v, ok, want, have)
		}
	}
}
