package index

import (
	"slices"

	"github.com/muster-iot/muster/internal/fleetquery"
)

// Thing is a registry entry as the index sees it.
type Thing struct {
	Name         string
	ID           string
	TypeName     string
	Attributes   map[string]string
	BillingGroup string
	Version      int64
}

// Shadow is one whole shadow document.
type Shadow struct {
	// Name is empty for the classic shadow.
	Name    string
	Version int64
	// Desired, Reported and Delta are JSON objects; empty means none.
	Desired  []byte
	Reported []byte
	Delta    []byte
	// Metadata is {"desired":{…},"reported":{…}} with a timestamp for each
	// leaf, as a shadow document carries it.
	Metadata []byte
}

// Connectivity is what is known of a thing's connection.
type Connectivity struct {
	Connected bool
	// TimestampMS is the time of the last connect or disconnect.
	TimestampMS int64
	// Version counts the connections of the client.
	Version int64
	// Reason is the disconnect reason; empty while connected.
	Reason string
	// KeepAlive and SessionExpiry are in seconds.
	KeepAlive     int64
	CleanSession  bool
	SessionExpiry int64
}

// State is what exists about a thing beside its registry entry.
type State struct {
	Shadows []Shadow
	// Connectivity is nil for a thing that was never seen.
	Connectivity *Connectivity
}

// putThing sets the registry fields of a thing, new or known.
func (s *shard) putThing(t Thing) {
	if !s.config.Things.Registry {
		return
	}
	c := s.things
	_, known := c.doc(t.Name)
	doc := c.create(t.Name)
	if !known {
		s.standing.created(doc)
		c.putText(fieldThingName, doc, fleetquery.Fold(t.Name))
		if s.config.Things.Connectivity {
			c.putText(fieldConnected, doc, "false")
		}
		c.putText(fieldState, doc, neverSeen)
		c.putNumber(fieldCertCount, doc, 0)
	}
	c.putText(fieldThingID, doc, fleetquery.Fold(t.ID))
	c.putText(fieldThingType, doc, fleetquery.Fold(t.TypeName))
	c.putNumber(fieldVersion, doc, float64(t.Version))
	c.putAttributes(doc, t.Attributes, known)
	s.setBilling(doc, t.BillingGroup)
	s.regroup(doc)
}

// putAttributes replaces the attributes of a document.
func (c *corpus) putAttributes(doc uint32, attributes map[string]string, known bool) {
	if known {
		c.forget(c.nodes["attributes"], doc, func(path string) bool {
			_, kept := attributes[path[len(prefixAttributes):]]
			return kept
		})
	}
	for name, text := range attributes {
		c.put(prefixAttributes+name, doc, attributeValues(text))
	}
}

// forget clears the values below a node except those that keep wants.
func (c *corpus) forget(n *node, doc uint32, keep func(path string) bool) {
	if n == nil {
		return
	}
	for _, kid := range n.kids {
		if !keep(kid.path) {
			c.clear(kid, doc)
		}
		c.forget(kid, doc, keep)
	}
}

// removeThing ends a thing, its shadow fields and its memberships.
func (s *shard) removeThing(name string) {
	doc, ok := s.things.doc(name)
	if !ok {
		return
	}
	s.standing.removed(doc)
	s.direct.remove(doc)
	s.billing.remove(doc)
	s.things.remove(doc)
}

// setConnectivity sets the connectivity fields of a thing that exists.
func (s *shard) setConnectivity(name string, v Connectivity) {
	doc, ok := s.things.doc(name)
	if !ok || !s.config.Things.Connectivity {
		return
	}
	known, _ := s.things.number(fieldConnVersion, doc)
	if !v.Connected && float64(v.Version) < known {
		return // the end of a session that another one has replaced
	}
	s.things.put(fieldConnected, doc, values{texts: fleetTexts(v.Connected)})
	s.things.putNumber(fieldConnTimestamp, doc, float64(v.TimestampMS))
	s.things.putNumber(fieldConnVersion, doc, float64(v.Version))
	s.things.putText(fieldConnReason, doc, fleetquery.Fold(v.Reason))
	s.things.putNumber(fieldConnKeepAlive, doc, float64(v.KeepAlive))
	s.things.put(fieldConnClean, doc, values{texts: fleetTexts(v.CleanSession)})
	s.things.putNumber(fieldConnExpiry, doc, float64(v.SessionExpiry))
}

// fleetTexts returns the word of a truth value.
func fleetTexts(b bool) []string { return []string{fleetquery.Bool(b).Text} }

// groupID numbers a group name for the lists of direct groups.
func (s *shard) groupID(name string) uint32 {
	if id, ok := s.groupNames.find(name); ok {
		return id
	}
	return s.groupNames.add(name)
}

// setBilling records the billing group of a thing.
func (s *shard) setBilling(doc uint32, name string) {
	if name == "" {
		s.billing.remove(doc)
		return
	}
	s.billing.set(doc, s.groupID(name))
}

// changeBilling puts a thing that exists into a billing group or takes it out.
// The group is one of its group names and takes none of its places in groups.
func (s *shard) changeBilling(thing, group string, in bool) {
	doc, ok := s.things.doc(thing)
	if !ok {
		return
	}
	if !in {
		group = ""
	}
	s.setBilling(doc, group)
	s.regroup(doc)
}

// setGroups replaces the static groups of a thing that exists.
func (s *shard) setGroups(thing string, names []string) {
	doc, ok := s.things.doc(thing)
	if !ok {
		return
	}
	var list []uint32
	for _, name := range names {
		list = append(list, s.groupID(name))
	}
	slices.Sort(list)
	s.putDirect(doc, slices.Compact(list))
}

// setGroup enters a thing into a static group or takes it out.
func (s *shard) setGroup(thing, group string, in bool) {
	doc, ok := s.things.doc(thing)
	if !ok {
		return
	}
	list, _ := s.direct.get(doc)
	id := s.groupID(group)
	pos, found := slices.BinarySearch(list, id)
	switch {
	case in && !found:
		s.putDirect(doc, slices.Insert(slices.Clone(list), pos, id))
	case !in && found:
		s.putDirect(doc, slices.Delete(slices.Clone(list), pos, pos+1))
	}
}

// putDirect stores the static groups of a thing, which may cost or free a
// place for dynamic ones.
func (s *shard) putDirect(doc uint32, list []uint32) {
	s.standing.reasons = s.standing.reasons[:0]
	if len(list) == 0 {
		s.direct.remove(doc)
	} else {
		s.direct.set(doc, list)
	}
	s.standing.seat(doc)
}

// dropGroup takes all things out of a static group that is gone.
func (s *shard) dropGroup(group string) {
	id, ok := s.groupNames.find(group)
	if !ok {
		return
	}
	var members []uint32
	s.direct.each(func(doc uint32, list []uint32) {
		if _, found := slices.BinarySearch(list, id); found {
			members = append(members, doc)
		}
	})
	for _, doc := range members {
		list, _ := s.direct.get(doc)
		s.putDirect(doc, slices.DeleteFunc(slices.Clone(list), func(g uint32) bool { return g == id }))
	}
}

// regroup sets the group names of a thing: static, billing and dynamic.
func (s *shard) regroup(doc uint32) {
	s.names = s.names[:0]
	add := func(name string) {
		if name = fleetquery.Fold(name); !slices.Contains(s.names, name) {
			s.names = append(s.names, name)
		}
	}
	list, _ := s.direct.get(doc)
	for _, id := range list {
		add(s.groupNames.text(id))
	}
	if id, ok := s.billing.get(doc); ok {
		add(s.groupNames.text(id))
	}
	static := len(s.names)
	s.standing.members(doc, func(g *dynamicGroup) {
		// Names that are folded alike are one name of the thing.
		if s.standing.folds[g.folded] > 1 && slices.Contains(s.names, g.folded) || slices.Contains(s.names[:static], g.folded) {
			return
		}
		s.names = append(s.names, g.folded)
	})
	s.things.put(fieldGroups, doc, values{texts: s.names})
}
