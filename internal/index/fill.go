package index

import (
	"context"
	"maps"
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/muster-iot/muster/internal/fleet"
)

// fillDocs is how many documents a large group looks at under the lock at once.
const fillDocs = 1024

// refill finds what a group's query changes. A small change is made at once, a
// large one by steps of fill: its documents are decided as they are then.
func (s *standing) refill(id uint32) {
	g := s.groups[id]
	fits := roaring.New()
	if g.plan != nil {
		fits = s.corpus.evaluate(g.plan)
	}
	g.todo = roaring.Xor(roaring.Or(g.members, g.displaced), fits)
	if !slices.Contains(s.filling, id) {
		s.filling = append(s.filling, id)
	}
	if g.todo.GetCardinality() <= fillDocs {
		s.fill(id, fillDocs)
	}
}

// fill decides up to n documents that a group has yet to look at.
func (s *standing) fill(id uint32, n int) {
	g := s.groups[id]
	docs := make([]uint32, 0, min(uint64(n), g.todo.GetCardinality()))
	for it := g.todo.Iterator(); it.HasNext() && len(docs) < n; {
		docs = append(docs, it.Next())
	}
	if len(docs) > 0 {
		g.todo.RemoveRange(0, uint64(docs[len(docs)-1])+1)
	}
	for _, doc := range docs {
		fits := g.plan != nil && s.corpus.live.Contains(doc) && s.corpus.matches(g.plan, doc, &s.scratch)
		if had := g.members.Contains(doc) || g.displaced.Contains(doc); fits != had {
			s.reasons = s.reasons[:0]
			s.setEligible(doc, id, fits, cause{kind: CauseQuery})
			s.seat(doc)
		}
	}
	if !g.todo.IsEmpty() {
		return
	}
	g.todo = nil
	s.filling = slices.DeleteFunc(s.filling, func(other uint32) bool { return other == id })
	delete(s.draining, g.name)
	if g.plan != nil && !g.complete {
		s.completed = append(s.completed, id)
	}
}

// fillRest decides all that groups have yet to look at, for a shard that nobody
// waits for.
func (s *standing) fillRest() {
	for len(s.filling) > 0 {
		s.fill(s.filling[0], math.MaxInt)
	}
}

// fillAll evaluates all groups at once, which is how an index begins: each
// document gets its groups in one step.
func (s *standing) fillAll() {
	ids := make([]uint32, 0, len(s.groups))
	for id, g := range s.groups {
		if g != nil {
			ids = append(ids, uint32(id))
		}
	}
	slices.SortFunc(ids, s.byAge)
	some := roaring.New()
	for _, id := range ids {
		g := s.groups[id]
		if g.plan == nil {
			continue
		}
		fits := s.corpus.evaluate(g.plan)
		some.Or(fits)
		for it := fits.Iterator(); it.HasNext(); {
			doc := it.Next()
			list, _ := s.eligible.get(doc)
			s.eligible.set(doc, append(list, id))
		}
		if s.limit == 0 {
			// A copy: the set may be one of the index's own.
			g.members = fits.Clone()
		}
		if !g.complete {
			s.completed = append(s.completed, id)
		}
	}
	s.reasons = s.reasons[:0]
	for it := some.Iterator(); it.HasNext(); {
		doc := it.Next()
		if list, _ := s.eligible.get(doc); cap(list) > len(list) {
			s.eligible.set(doc, slices.Clone(list))
		}
		s.seat(doc)
	}
}

// fillStep fills the large groups a little further and reports whether any of
// them needs more.
func (x *Index) fillStep() bool {
	more := false
	for account, s := range x.accounts() {
		s.mu.Lock()
		if current, err := x.shard(account); err != nil || current != s {
			// A new index took its place.
			s.mu.Unlock()
			continue
		}
		if len(s.standing.filling) > 0 {
			s.standing.fill(s.standing.filling[0], fillDocs)
			x.settleShard(account, s, nil)
		}
		more = more || len(s.standing.filling) > 0
		s.mu.Unlock()
	}
	return more
}

// accounts are the shards in use.
func (x *Index) accounts() map[fleet.Account]*shard {
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.shards)
}

// runFills fills large groups whenever few other decisions wait.
func (x *Index) runFills(ctx context.Context) error {
	o := x.outbox
	for {
		seen := 0
		if o.await(ctx, func() bool { seen = o.defined; return len(o.waiting)+len(o.underway) <= calmWaiting }) != nil {
			return nil
		}
		if x.fillStep() {
			continue
		}
		if o.await(ctx, func() bool { return o.defined != seen }) != nil {
			return nil
		}
	}
}
