package index

import (
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// shard is the index of one account. Searches hold the lock for reading while
// they compute, batches of changes hold it for writing.
type shard struct {
	mu sync.RWMutex
	// config says what is indexed; wanted is the one that the shard is to be
	// rebuilt for, nil for none.
	config fleet.Indexing
	wanted *fleet.Indexing
	// reloading counts what a rebuild has read; nil when there is none.
	reloading *Loaded
	things    *corpus
	groups    *corpus
	standing  *standing
	// groupNames numbers group names for direct and billing; it is never
	// swept, since an account has few of them.
	groupNames dict
	// direct lists the static groups of each thing, billing its billing group.
	direct  listColumn
	billing idColumn
	reader  reader
	// path, meta, names and one are buffers.
	path, meta []byte
	names      []string
	one        [1]float64
}

// newShard returns an empty shard in its bulk phase.
func newShard(o Options, refused func(group, thing string)) *shard {
	s := &shard{
		things:     newCorpus(o.MaxPaths, thingUnfielded, thingHidden, thingExempt),
		groups:     newCorpus(o.MaxPaths, groupUnfielded, groupHidden, groupExempt),
		groupNames: newDict(false),
	}
	s.standing = &standing{
		corpus:   s.things,
		byName:   map[string]uint32{},
		paused:   true,
		folds:    map[string]int{},
		draining: map[string]uint32{},
		limit:    o.GroupLimit,
		directGroups: func(doc uint32) int {
			list, _ := s.direct.get(doc)
			return len(list)
		},
		regroup: s.regroup,
		refused: func(group string, doc uint32) { refused(group, s.things.names.text(doc)) },
	}
	s.things.watch, s.things.derive = s.standing, deriveThing
	s.index(o.Indexing)
	return s
}

// index says what is indexed, before anything is.
func (s *shard) index(config fleet.Indexing) {
	s.config = config
	s.things.locate(config.Things.GeoLocations)
}

// Group is a thing group, static or dynamic, as the index sees it.
type Group struct {
	Name        string
	ID          string
	Description string
	Attributes  map[string]string
	// Ancestors are the names of all groups above it.
	Ancestors []string
	// Query is empty for a static group.
	Query string
	// Complete says that a CommitComplete was told of this query before.
	Complete  bool
	CreatedAt time.Time
	Version   int64
}

// putGroup sets the document of a group and, for a dynamic one, its query.
// root is nil when the query cannot be read.
func (s *shard) putGroup(g Group, root fleetquery.Node) {
	if s.config.Groups.On {
		s.describeGroup(g)
	}
	if g.Query != "" {
		s.standing.define(g, root)
	}
}

// describeGroup sets the document of a group.
func (s *shard) describeGroup(g Group) {
	c := s.groups
	_, known := c.doc(g.Name)
	doc := c.create(g.Name)
	c.putText(fieldGroupName, doc, fleetquery.Fold(g.Name))
	c.putText(fieldGroupID, doc, fleetquery.Fold(g.ID))
	c.putText(fieldGroupDescription, doc, fleetquery.Fold(g.Description))
	c.putNumber(fieldGroupVersion, doc, float64(g.Version))
	c.putAttributes(doc, g.Attributes, known)
	parents := make([]string, len(g.Ancestors))
	for i, name := range g.Ancestors {
		parents[i] = fleetquery.Fold(name)
	}
	c.put(fieldGroupParents, doc, values{texts: parents})
}

// removeGroup ends a group and takes its members out of it.
func (s *shard) removeGroup(name string) {
	if doc, ok := s.groups.doc(name); ok {
		s.groups.remove(doc)
	}
	s.standing.drop(name)
	s.dropGroup(name)
}

// settle ends a batch: membership is decided, its changes are told, and the
// dictionaries are put in order.
func (s *shard) settle(tell func(g *dynamicGroup, doc uint32, certain bool, why cause)) {
	s.standing.resolve()
	s.standing.settle(tell)
	s.things.tidy()
	s.groups.tidy()
}

// finish ends the bulk phase: all groups are filled.
func (s *shard) finish() {
	s.things.finish()
	s.groups.finish()
	s.standing.resume()
	s.things.tidy()
}
