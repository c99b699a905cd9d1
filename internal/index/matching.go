package index

import (
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// Matching reports which of some things, in the order given, a query finds. It
// evaluates the query once.
func (x *Index) Matching(account fleet.Account, q fleetquery.Query, things []string) ([]bool, error) {
	s, err := x.shard(account)
	if err != nil {
		return nil, err
	}
	out := make([]bool, len(things))
	if s == nil {
		return out, x.emptyRefuses(q, false)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.refuses(q, false); err != nil {
		return nil, err
	}
	found := s.things.evaluate(s.things.compile(q.Root, false))
	for i, thing := range things {
		doc, ok := s.things.names.find(thing)
		out[i] = ok && found.Contains(doc)
	}
	return out, nil
}
