package index

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"

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
	b.shard(account).config = config
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
	b.shard(account).putGroup(g, b.index.root(account, g))
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
// before, and commits the memberships that differ from the stored ones. The
// cursor is that of the frozen view. When the commit fails, the index is in
// place and the next Apply tries again.
func (b *Builder) Finish(ctx context.Context, cursor store.Cursor) error {
	x := b.index
	x.following.Lock()
	defer x.following.Unlock()
	clear(x.pending)
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
					x.pending[at] = true
				}
			}
		}
	}
	for at := range b.stored {
		if s := b.shards[at.account]; s == nil || s.config.Things.Registry {
			x.pending[at] = false
		}
	}
	x.advance(func() {
		x.shards, x.applied = b.shards, cursor
		x.builds--
	})
	return x.commit(ctx, cursor)
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
func (x *Index) root(account fleet.Account, g Group) fleetquery.Node {
	if g.Query == "" {
		return nil
	}
	q, err := x.ParseThings(g.Query)
	if err != nil {
		x.options.Logger.Error("dynamic group has a query that cannot be read",
			slog.String("account", string(account)), slog.String("group", g.Name), slog.Any("err", err))
		return nil
	}
	return q.Root
}

// note records a change of membership that is to be committed; the opposite
// of one that still waits cancels it.
func (x *Index) note(at membership, added bool) {
	if before, waits := x.pending[at]; waits && before != added {
		delete(x.pending, at)
		return
	}
	x.pending[at] = added
}

// commit hands the pending changes to the committer.
func (x *Index) commit(ctx context.Context, cursor store.Cursor) error {
	if len(x.pending) == 0 {
		return nil
	}
	changes := make([]MembershipChange, 0, len(x.pending))
	for at, added := range x.pending {
		changes = append(changes, MembershipChange{Account: at.account, Group: at.group, Thing: at.thing, Added: added})
	}
	slices.SortFunc(changes, func(a, b MembershipChange) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Thing, b.Thing), cmp.Compare(a.Group, b.Group))
	})
	if err := x.options.Committer.CommitMembership(ctx, changes, cursor); err != nil {
		return fmt.Errorf("commit dynamic group membership: %w", err)
	}
	clear(x.pending)
	return nil
}
