package index

import (
	"context"
	"log/slog"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/store"
)

// Builder loads a whole index from a frozen view of the store. Until Finish,
// searches answer from the index before, or IndexNotReady. The order of calls
// is free, except that a thing comes before what belongs to it.
type Builder struct {
	index  *Index
	shards map[fleet.Account]*shard
	// stored are the memberships that are durable already.
	stored map[membership]bool
	loaded *Loaded
}

// Build starts a new index. Every Builder must be ended by Finish or Abandon.
func (x *Index) Build() *Builder {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.builds++
	b := x.newBuilder()
	x.loading = b.loaded
	return b
}

// newBuilder returns a builder that is not counted as one of all accounts.
func (x *Index) newBuilder() *Builder {
	return &Builder{index: x, shards: map[fleet.Account]*shard{}, stored: map[membership]bool{}, loaded: &Loaded{}}
}

// shard returns the shard of an account, made if need be.
func (b *Builder) shard(account fleet.Account) *shard {
	s := b.shards[account]
	if s == nil {
		s = b.index.newShard(account)
		b.shards[account] = s
	}
	return s
}

// PutIndexing sets what is indexed of an account; it comes before anything else
// of it.
func (b *Builder) PutIndexing(account fleet.Account, config fleet.Indexing) {
	b.shard(account).index(config)
}

// PutThing adds a thing with its static groups and its state.
func (b *Builder) PutThing(account fleet.Account, t Thing, groups []string, state State) error {
	s := b.shard(account)
	b.loaded.things.Add(1)
	s.putThing(t)
	s.setGroups(t.Name, groups)
	return s.putState(t.Name, state)
}

// PutShadow adds a shadow; one of a thing that does not exist is ignored.
func (b *Builder) PutShadow(account fleet.Account, thing string, v Shadow) error {
	b.loaded.shadows.Add(1)
	return b.shard(account).putShadow(thing, v)
}

// PutConnectivity adds what is known of a thing's connection.
func (b *Builder) PutConnectivity(account fleet.Account, thing string, v Connectivity) {
	b.shard(account).setConnectivity(thing, v)
}

// PutMember adds a thing to a static group.
func (b *Builder) PutMember(account fleet.Account, group, thing string) {
	b.shard(account).setGroup(thing, group, true)
}

// PutGroup adds a group, static or dynamic.
func (b *Builder) PutGroup(account fleet.Account, g Group) {
	s := b.shard(account)
	s.putGroup(g, b.index.root(account, s.config, g))
}

// LoadMembership tells which members of a dynamic group are durable, so that
// only differences are committed.
func (b *Builder) LoadMembership(account fleet.Account, group string, things ...string) {
	for _, thing := range things {
		b.stored[membership{account: account, group: group, thing: thing}] = true
	}
}

// Abandon ends a build without effect.
func (b *Builder) Abandon() {
	b.index.mu.Lock()
	defer b.index.mu.Unlock()
	b.index.builds--
}

// Finish fills the dynamic groups, puts the new index in place of the one
// before, and has the memberships that differ from the stored ones committed.
// The cursor is that of the frozen view. When the commit fails, the index is in
// place and the changes still wait.
func (b *Builder) Finish(ctx context.Context, cursor store.Cursor) error {
	x := b.index
	x.following.Lock()
	defer x.following.Unlock()
	fresh, complete := map[membership]decision{}, map[groupKey]string{}
	for account, s := range b.shards {
		s.finish()
		for _, g := range s.standing.groups {
			if g == nil {
				continue
			}
			for it := g.members.Iterator(); it.HasNext(); {
				at := membership{account: account, group: g.name, thing: s.things.names.text(it.Next())}
				if b.stored[at] {
					delete(b.stored, at)
				} else {
					fresh[at] = decision{added: true, certain: true, cause: &event.MembershipCause{Kind: string(CauseQuery)}}
				}
			}
		}
		for _, id := range s.standing.takeCompleted() {
			complete[groupKey{account, s.standing.groups[id].name}] = s.standing.groups[id].query
		}
	}
	for at := range b.stored {
		if s := b.shards[at.account]; s == nil || s.config.Things.Registry {
			fresh[at] = decision{certain: true, cause: &event.MembershipCause{Kind: string(CauseQuery)}}
		}
	}
	before := x.accounts()
	x.advance(func() {
		x.shards, x.applied = b.shards, cursor
		x.builds--
	})
	for _, s := range before {
		// What a fill of the old index decides ends here.
		s.mu.Lock()
		s.mu.Unlock() //nolint:staticcheck // the wait is what it is for
	}
	x.outbox.replace(fresh, complete, cursor, b.member)
	if len(before) > 0 && x.options.Stored != nil {
		// What the index before has committed since the frozen view is not known.
		x.replay.compare()
	} else {
		x.replay.end(x.replay.wants())
	}
	return x.settle(ctx)
}

// member reports whether the new index has a thing in a dynamic group.
func (b *Builder) member(at membership) bool {
	s := b.shards[at.account]
	if s == nil {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	id, ok := s.standing.byName[at.group]
	doc, live := s.things.doc(at.thing)
	return ok && live && s.standing.groups[id].members.Contains(doc)
}

// putState adds what exists about a thing beside its registry entry.
func (s *shard) putState(thing string, state State) error {
	for _, v := range state.Shadows {
		if err := s.putShadow(thing, v); err != nil {
			return err
		}
	}
	if state.Connectivity != nil {
		s.setConnectivity(thing, *state.Connectivity)
	}
	return nil
}

// root reads the query of a dynamic group. A stored query that can no longer
// be read leaves the group empty and BUILDING, and the log says so.
func (x *Index) root(account fleet.Account, config fleet.Indexing, g Group) fleetquery.Node {
	if g.Query == "" {
		return nil
	}
	q, err := x.ParseThings(g.Query)
	if err == nil {
		err = checkPlaces(q, &config.Things)
	}
	if err != nil {
		x.options.Logger.Error("dynamic group has a query that cannot be read",
			slog.String("account", string(account)), slog.String("group", g.Name), slog.Any("err", err))
		return nil
	}
	return q.Root
}
