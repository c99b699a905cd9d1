package index

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/store"
)

// MembershipChange is a thing that entered or left a dynamic group.
type MembershipChange struct {
	Account fleet.Account
	Group   string
	Thing   string
	Added   bool
	// Cause says why.
	Cause *event.MembershipCause
}

// CompleteGroup is a dynamic group whose members are all found.
type CompleteGroup struct {
	Account fleet.Account
	Group   string
	// Query is what the members are those of.
	Query string
}

// Committer makes changes of membership durable: keys and events together.
// The cursor is the place in the event log that they follow from. A removal
// may name a membership that is already gone with its thing or group; after an
// error a change may be one that is made already.
type Committer interface {
	CommitMembership(ctx context.Context, changes []MembershipChange, cursor store.Cursor) error
	// CommitComplete tells of groups that have all members that they should
	// have: those that CommitMembership made durable before.
	CommitComplete(ctx context.Context, groups []CompleteGroup) error
}

// Source tells what exists about a thing at the moment, for a thing that is
// registered after its shadows or its connection came to be. It is called by
// several goroutines at once.
type Source interface {
	ThingState(ctx context.Context, account fleet.Account, thing string) (State, error)
}

// Options configure an Index.
type Options struct {
	Committer Committer
	Source    Source
	// Certificates may be nil: then events change nothing about them.
	Certificates Certificates
	Logger       *slog.Logger
	// Indexing is the configuration of accounts that have none of their own; the
	// zero value means fleet.DefaultIndexing, and nothing with IndexingOff.
	Indexing    fleet.Indexing
	IndexingOff bool
	// Reloader is needed by Run; without one a changed configuration that needs a
	// rebuild waits.
	Reloader Reloader
	// Limits hold for queries; zero means the published ones.
	Limits fleetquery.Limits
	// MaxPaths bounds the distinct paths of an account; zero means
	// DefaultMaxPaths.
	MaxPaths int
	// GroupLimit is the number of groups that a thing may be in, static ones
	// first, then elder dynamic ones; zero means no limit.
	GroupLimit int
	// Stored tells what is durable, for an index that was read from a snapshot.
	Stored Stored
	// Program is the version of the program: another one takes no snapshot of it.
	Program string
	// Originals spell the keys of buckets; without them keys are in lower case.
	Originals Originals
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Status is the state of an index or a dynamic group.
type Status string

// States.
const (
	// Building is an index or a group before its first evaluation is done.
	Building Status = "BUILDING"
	// Rebuilding is one that answers from the state before.
	Rebuilding Status = "REBUILDING"
	// Active is one that follows its sources.
	Active Status = "ACTIVE"
)

// Index is the fleet index of all accounts.
type Index struct {
	options Options
	// mu guards shards, applied, waiters and building.
	mu       sync.Mutex
	shards   map[fleet.Account]*shard
	applied  store.Cursor
	advanced chan struct{}
	builds   int
	// loading counts what the newest build of all accounts has read.
	loading *Loaded
	// following is held by whoever changes what the index follows from: Apply,
	// Finish and the end of a rebuild. It comes before a shard's lock, that before
	// mu and the outbox's.
	following sync.Mutex
	// asked wakes runRebuilds when a shard wants to be rebuilt.
	asked chan struct{}
	// replay is where the index is between a snapshot and the end of the log.
	replay *replay
	// outbox holds changes of membership that are not committed yet.
	outbox *outbox
	// refused counts things that fit a dynamic group and had no room for it;
	// refusals says so by group.
	refused  atomic.Uint64
	refusals *prometheus.CounterVec
	// mistyped remembers which values of wrong types are logged.
	mistyped mistyped
}

// New returns an index that answers IndexNotReady until its first build.
func New(o Options) *Index {
	if o.Limits == (fleetquery.Limits{}) {
		o.Limits = fleetquery.DefaultLimits()
	}
	if o.MaxPaths == 0 {
		o.MaxPaths = DefaultMaxPaths
	}
	if !o.IndexingOff && !o.Indexing.Things.Registry && !o.Indexing.Groups.On {
		o.Indexing = fleet.DefaultIndexing()
	}
	refusals := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_iot_add_thing_to_dynamic_thing_groups_failed_total",
		Help: "Things that could not join a dynamic group, or had to leave it, because they are in too many groups: AddThingToDynamicThingGroupsFailed.",
	}, []string{"account", "dynamic_group_name"})
	if o.Registerer != nil {
		o.Registerer.MustRegister(refusals)
	}
	return &Index{options: o, advanced: make(chan struct{}), asked: make(chan struct{}, 1), outbox: newOutbox(), replay: newReplay(), refusals: refusals}
}

// ParseThings reads a query on things. Whether it asks only for what an account's
// configuration has indexed is not decided here.
func (x *Index) ParseThings(text string) (fleetquery.Query, error) {
	return fleetquery.Options{Limits: x.options.Limits, Resolve: resolveThingField, Leaf: checkViolation}.Parse(text)
}

// ParseGroups reads a query on thing groups.
func (x *Index) ParseGroups(text string) (fleetquery.Query, error) {
	return fleetquery.Options{Limits: x.options.Limits, Resolve: resolveGroupField, Leaf: refusePlaces}.Parse(text)
}

// newShard returns an empty shard whose refusals are logged and counted.
func (x *Index) newShard(account fleet.Account) *shard {
	return newShard(x.options, func(group, thing string) {
		x.refused.Add(1)
		x.refusals.WithLabelValues(string(account), group).Inc()
		x.options.Logger.Error("thing not added to dynamic group, it is in too many groups",
			slog.String("account", string(account)), slog.String("group", group), slog.String("thing", thing))
	})
}

// shard returns the shard of an account, nil for one that has nothing, or
// IndexNotReady before the first build.
func (x *Index) shard(account fleet.Account) (*shard, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.shards == nil {
		return nil, fault.New(fault.IndexNotReady, "the index is being built")
	}
	return x.shards[account], nil
}

// Search returns up to limit names of the things that match, ordered by name,
// beginning after the given name. next is empty at the end, else what to pass
// as after for the next page.
func (x *Index) Search(account fleet.Account, q fleetquery.Query, after string, limit int) (things []string, next string, err error) {
	return x.search(account, false, q, after, limit)
}

// SearchGroups is Search for thing groups.
func (x *Index) SearchGroups(account fleet.Account, q fleetquery.Query, after string, limit int) (groups []string, next string, err error) {
	return x.search(account, true, q, after, limit)
}

// search is a search in one of the corpora of a shard.
func (x *Index) search(
	account fleet.Account, groups bool, q fleetquery.Query, after string, limit int,
) (names []string, next string, err error) {
	s, err := x.shard(account)
	if err != nil {
		return nil, "", err
	}
	if s == nil {
		return nil, "", x.emptyRefuses(q, groups)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.refuses(q, groups); err != nil {
		return nil, "", err
	}
	c := s.things
	if groups {
		c = s.groups
	}
	names, more := c.page(c.evaluate(c.compile(q.Root, false)), after, limit)
	if more && len(names) > 0 {
		next = names[len(names)-1]
	}
	return names, next, nil
}

// Count returns how many things match.
func (x *Index) Count(account fleet.Account, q fleetquery.Query) (int, error) {
	s, err := x.shard(account)
	if err != nil {
		return 0, err
	}
	if s == nil {
		return 0, x.emptyRefuses(q, false)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.refuses(q, false); err != nil {
		return 0, err
	}
	return int(s.things.evaluate(s.things.compile(q.Root, false)).GetCardinality()), nil
}

// Members returns the things in a dynamic group like Search. An unknown group
// has none.
func (x *Index) Members(account fleet.Account, group, after string, limit int) (things []string, next string, err error) {
	s, err := x.shard(account)
	if s == nil || err != nil {
		return nil, "", err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	id, ok := s.standing.byName[group]
	if !ok {
		return nil, "", nil
	}
	things, more := s.things.page(s.standing.groups[id].members, after, limit)
	if more && len(things) > 0 {
		next = things[len(things)-1]
	}
	return things, next, nil
}

// GroupsOf returns the dynamic groups that a thing is in, eldest first.
func (x *Index) GroupsOf(account fleet.Account, thing string) ([]string, error) {
	s, err := x.shard(account)
	if s == nil || err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var groups []string
	if doc, ok := s.things.doc(thing); ok {
		s.standing.members(doc, func(g *dynamicGroup) { groups = append(groups, strings.Clone(g.name)) })
	}
	return groups, nil
}

// GroupStatus returns the state of a dynamic group that the registry has with
// the given query. Active says that its members are decided, not that they are
// committed.
func (x *Index) GroupStatus(account fleet.Account, group, query string) Status {
	s, err := x.shard(account)
	if s == nil || err != nil {
		return Building
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	id, ok := s.standing.byName[group]
	switch {
	case !ok || s.standing.groups[id].plan == nil:
		return Building
	case x.Status() == Rebuilding || s.standing.groups[id].todo != nil || s.wanted != nil:
		return Rebuilding
	case s.standing.groups[id].query != query:
		return Rebuilding
	}
	return Active
}

// Status returns the state of the index. One that has yet to follow the log from
// its snapshot to where the log ended at the start answers from before.
func (x *Index) Status() Status {
	behind, _ := x.replay.state()
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.shards == nil:
		return Building
	case x.builds > 0 || behind:
		return Rebuilding
	}
	return Active
}

// Applied returns how far the index has followed the event log.
func (x *Index) Applied() store.Cursor {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.applied
}

// WaitApplied returns once the index has followed the event log up to the
// cursor, or with the context's error.
func (x *Index) WaitApplied(ctx context.Context, cursor store.Cursor) error {
	for {
		x.mu.Lock()
		done, advanced := x.shards != nil && x.applied.CoversAll(cursor), x.advanced
		x.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// advance records progress and wakes those who wait for it.
func (x *Index) advance(change func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	change()
	close(x.advanced)
	x.advanced = make(chan struct{})
}

// Stats are counts for monitoring.
type Stats struct {
	Things int
	Groups int
	Paths  int
	// Dropped counts values left out by the bounds on paths and texts.
	Dropped uint64
	// Refused counts things that fit a dynamic group and had no room for it.
	Refused uint64
	// Unstable counts batches after which memberships were still changing.
	Unstable uint64
}

// Stats returns the counts of all accounts together.
func (x *Index) Stats() Stats {
	x.mu.Lock()
	shards := make([]*shard, 0, len(x.shards))
	for _, s := range x.shards {
		shards = append(shards, s)
	}
	x.mu.Unlock()
	total := Stats{Refused: x.refused.Load()}
	for _, s := range shards {
		s.mu.RLock()
		total.Things += int(s.things.live.GetCardinality())
		total.Groups += int(s.groups.live.GetCardinality())
		total.Paths += len(s.things.nodes) + len(s.groups.nodes)
		total.Dropped += s.things.dropped + s.groups.dropped
		total.Unstable += s.standing.unstable
		s.mu.RUnlock()
	}
	return total
}
