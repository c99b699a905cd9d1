package index

import (
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// Names of the two indexes of an account.
const (
	thingIndex = "AWS_Things"
	groupIndex = "AWS_ThingGroups"
)

// CheckIndexed refuses a query on things that names what an index of this
// configuration does not hold.
func CheckIndexed(q fleetquery.Query, things *fleet.ThingIndexing) error {
	var refused error
	fleetquery.Walk(q.Root, func(n fleetquery.Node) {
		field, _ := fieldOf(n)
		if field == "" || refused != nil {
			return
		}
		if why := things.Uncovered(field); why != "" {
			refused = fault.New(fault.InvalidQuery, "field %s is not indexed: %s", field, why)
		}
	})
	if refused != nil {
		return refused
	}
	return checkPlaces(q, things)
}

// QueryFields are the fields that a query names, by the names of the index, and
// an empty one when it has a term that looks at every field.
func QueryFields(q fleetquery.Query) []string {
	var fields []string
	fleetquery.Walk(q.Root, func(n fleetquery.Node) {
		if field, ok := fieldOf(n); ok {
			fields = append(fields, field)
		}
	})
	return fields
}

// fieldOf is the field that a test looks at, false for what is no test.
func fieldOf(n fleetquery.Node) (field string, ok bool) {
	switch n := n.(type) {
	case fleetquery.Exists:
		return n.Field, true
	case fleetquery.Match:
		return n.Field, true
	case fleetquery.Phrase:
		return n.Field, true
	case fleetquery.Wildcard:
		return n.Field, true
	case fleetquery.NumberRange:
		return n.Field, true
	case fleetquery.TextRange:
		return n.Field, true
	case fleetquery.Geo:
		return n.Field, true
	case fleetquery.And, fleetquery.Or, fleetquery.Not, fleetquery.All:
	}
	return "", false
}

// configure takes over a changed configuration: at once when the same is
// indexed as before, else by a rebuild that is asked for.
func (s *shard) configure(config fleet.Indexing) {
	if config.Version <= s.config.Version {
		return // the store had it already when the shard was loaded
	}
	if config.SameContent(&s.config) {
		s.config, s.wanted = config, nil
		return
	}
	s.wanted = &config
}

// coming is the configuration that the shard has or is being rebuilt for.
func (s *shard) coming() *fleet.Indexing {
	if s.wanted != nil {
		return s.wanted
	}
	return &s.config
}

// refuses says why a query cannot be answered: the index does not exist, is
// being built, or does not hold what the query names.
func (s *shard) refuses(q fleetquery.Query, groups bool) error {
	name, has, will := thingIndex, s.config.Things.Registry, s.coming().Things.Registry
	if groups {
		name, has, will = groupIndex, s.config.Groups.On, s.coming().Groups.On
	}
	switch {
	case !will:
		return fault.New(fault.ResourceNotFound, "index %s does not exist: its indexing mode is OFF", name)
	case !has:
		return fault.New(fault.IndexNotReady, "index %s is being built", name)
	case groups:
		return nil
	}
	return CheckIndexed(q, &s.config.Things)
}

// emptyRefuses is refuses for an account of which nothing is known yet.
func (x *Index) emptyRefuses(q fleetquery.Query, groups bool) error {
	return (&shard{config: x.options.Indexing}).refuses(q, groups)
}

// StatusOf returns the states of the two indexes of an account whose stored
// configuration is given; empty for one that does not exist.
func (x *Index) StatusOf(account fleet.Account, stored *fleet.Indexing) (things, groups Status) {
	whole := x.Status()
	x.mu.Lock()
	s := x.shards[account]
	x.mu.Unlock()
	rebuilding := whole == Rebuilding
	now := x.options.Indexing
	if s != nil {
		s.mu.RLock()
		now, rebuilding = s.config, rebuilding || s.wanted != nil
		s.mu.RUnlock()
	}
	rebuilding = rebuilding || stored.Version > now.Version && !stored.SameContent(&now)
	state := func(wanted, has bool) Status {
		switch {
		case !wanted:
			return ""
		case whole == Building || !has:
			return Building
		case rebuilding:
			return Rebuilding
		}
		return Active
	}
	return state(stored.Things.Registry, now.Things.Registry), state(stored.Groups.On, now.Groups.On)
}

// Indexing is the configuration that searches of an account see at present; it
// is behind the stored one until a rebuild for it is done.
func (x *Index) Indexing(account fleet.Account) fleet.Indexing {
	x.mu.Lock()
	s := x.shards[account]
	x.mu.Unlock()
	if s == nil {
		return x.options.Indexing
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.config
}
