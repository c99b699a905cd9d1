package index

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Stored visits the memberships in dynamic groups that are durable, in order of
// account, group and thing.
type Stored func(ctx context.Context, visit func(account fleet.Account, group, thing string) error) error

// comparedMembers is how many members of a group are compared at a time.
const comparedMembers = 1000

// replay is the way from a snapshot to an index whose memberships are durable. On
// it the durable state is not what the index believes: decisions up to the end of
// the log were made before, and some of them are durable.
type replay struct {
	mu sync.Mutex
	// head is the end of the log at load.
	head store.Cursor
	// behind says that Apply has not come to head, unsure that the memberships have
	// not been compared yet.
	behind, unsure bool
	// asked counts the comparisons that were asked for.
	asked   int
	changed chan struct{}
}

func newReplay() *replay { return &replay{changed: make(chan struct{})} }

// set changes the state and wakes Run.
func (r *replay) set(behind, unsure bool) {
	r.behind, r.unsure = behind, unsure
	close(r.changed)
	r.changed = make(chan struct{})
}

// begin is called after a load.
func (r *replay) begin(head store.Cursor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.head = head
	r.asked++
	r.set(true, true)
}

// compare asks for a comparison with what is durable now.
func (r *replay) compare() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	r.set(false, true)
}

// wants is how many comparisons were asked for so far.
func (r *replay) wants() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// reached is called when Apply has come to a place.
func (r *replay) reached(cursor store.Cursor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.behind && cursor.CoversAll(r.head) {
		r.set(false, r.unsure)
	}
}

// end is called when the durable memberships are known, by a comparison that began
// when so many were asked for. It reports whether that was the last one: one that
// was asked for since is still to be made.
func (r *replay) end(asked int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked != asked {
		return false
	}
	if r.behind || r.unsure {
		r.set(false, false)
	}
	return true
}

// state tells whether decisions are to be dropped, and whether they are certain.
func (r *replay) state() (drop, certain bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.behind, !r.unsure
}

// await waits until there is something to compare.
func (r *replay) await(ctx context.Context) error {
	for {
		r.mu.Lock()
		ready, changed := r.unsure && !r.behind, r.changed
		r.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// runReconcile compares memberships after each load of a snapshot.
func (x *Index) runReconcile(ctx context.Context) error {
	for pause := firstPause; ; {
		if x.replay.await(ctx) != nil {
			return nil
		}
		began := time.Now() //nolint:forbidigo // for the log only
		differences, err := x.reconcile(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			pause = firstPause
			x.options.Logger.InfoContext(ctx, "memberships of dynamic groups compared with the stored ones",
				slog.Int("differences", differences), slog.Duration("took", time.Since(began)))
			continue
		}
		x.options.Logger.ErrorContext(ctx, "memberships of dynamic groups are not compared with the stored ones yet", slog.Any("err", err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, longestPause)
	}
}

// reconcile has every membership committed in which the index differs from what is
// durable, and returns how many there are. What changes meanwhile is decided beside.
func (x *Index) reconcile(ctx context.Context) (int, error) {
	asked := x.replay.wants()
	c := &reconciliation{x: x, ctx: ctx, differ: func(at membership, added bool) {
		x.outbox.update(func() {
			x.outbox.note(at, decision{added: added, cause: &event.MembershipCause{Kind: string(CauseQuery)}})
		})
	}}
	if x.options.Stored != nil {
		if err := x.options.Stored(ctx, c.stored); err != nil {
			return 0, fmt.Errorf("read stored memberships: %w", err)
		}
	}
	if err := c.finish(); err != nil {
		return 0, err
	}
	// From now on a group that becomes complete says so itself.
	if x.replay.end(asked) {
		x.tellComplete()
	}
	return c.differences, nil
}

// reconciliation walks stored and decided members of all groups side by side.
type reconciliation struct {
	x   *Index
	ctx context.Context //nolint:containedctx // it lives as long as one call
	// account and group are those of names.
	account fleet.Account
	group   string
	// names are stored members, all of those behind after.
	names []string
	after string
	// seen are the groups that had stored members.
	seen map[groupKey]bool
	// differ is told of a place that the index has and the store lacks, or the
	// other way round; under the lock that decisions are made under.
	differ      func(at membership, added bool)
	differences int
}

// stored takes the next stored membership.
func (c *reconciliation) stored(account fleet.Account, group, thing string) error {
	if account != c.account || group != c.group {
		if err := c.page(true); err != nil {
			return err
		}
		c.account, c.group, c.after = account, group, ""
		if c.seen == nil {
			c.seen = map[groupKey]bool{}
		}
		c.seen[groupKey{account, group}] = true
	}
	if c.names = append(c.names, thing); len(c.names) == comparedMembers {
		return c.page(false)
	}
	return c.ctx.Err()
}

// page compares the stored members so far with those in the index; at the end of
// a group, with all that are left.
func (c *reconciliation) page(last bool) error {
	if c.group == "" {
		return nil
	}
	if err := c.compareMembers(c.account, c.group, c.after, c.names, last); err != nil {
		return err
	}
	if !last {
		c.after = c.names[len(c.names)-1]
	}
	c.names = c.names[:0]
	return nil
}

// finish compares the last group and those without any stored member.
func (c *reconciliation) finish() error {
	if err := c.page(true); err != nil {
		return err
	}
	for account, s := range c.x.accounts() {
		s.mu.RLock()
		var groups []string
		for name := range s.standing.byName {
			if !c.seen[groupKey{account, name}] {
				groups = append(groups, name)
			}
		}
		s.mu.RUnlock()
		for _, group := range groups {
			if err := c.compareMembers(account, group, "", nil, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// compareMembers finds the places in which the members of a group behind a name
// differ from the stored ones, up to the last stored one unless the list is
// complete. It looks at some members at a time and waits in between until there is
// room for what they differ in.
func (c *reconciliation) compareMembers(account fleet.Account, group, after string, stored []string, complete bool) error {
	is := make(map[string]bool, len(stored))
	for _, thing := range stored {
		is[thing] = true
	}
	last := ""
	if !complete {
		last = stored[len(stored)-1]
	}
	for more := true; more; {
		if err := c.x.awaitRoom(c.ctx); err != nil {
			return err
		}
		s, err := c.x.shard(account)
		if s == nil || err != nil {
			return nil //nolint:nilerr // an index that is not there decides nothing
		}
		after, more = c.compareSome(s, membership{account: account, group: group, thing: after}, last, stored, is)
		stored = nil // they are compared with the first ones
	}
	return c.ctx.Err()
}

// compareSome compares stored members with the index, and then up to a page of the
// index's own behind a place with the stored ones, up to the last name if there is
// one. It returns where the next page begins.
func (c *reconciliation) compareSome(s *shard, from membership, last string, stored []string, is map[string]bool) (after string, more bool) {
	differ := func(thing string, added bool) {
		c.differences++
		c.differ(membership{account: from.account, group: from.group, thing: thing}, added)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.config.Things.Registry {
		return "", false // an index that is off decides nothing
	}
	g := s.standing.group(from.group)
	for _, thing := range stored {
		if doc, ok := s.things.doc(thing); g == nil || !ok || !g.members.Contains(doc) {
			differ(thing, false)
		}
	}
	if g == nil {
		return "", false
	}
	members, more := s.things.page(g.members, from.thing, comparedMembers)
	for _, thing := range members {
		if last != "" && thing > last {
			return "", false
		}
		if !is[thing] {
			differ(thing, true)
		}
		from.thing = thing
	}
	return from.thing, more
}

// tellComplete has all groups recorded as complete whose members are decided.
func (x *Index) tellComplete() {
	for account, s := range x.accounts() {
		s.mu.RLock()
		x.outbox.update(func() {
			for _, g := range s.standing.groups {
				if g != nil && g.plan != nil && g.todo == nil {
					x.outbox.complete[groupKey{account, g.name}] = g.query
				}
			}
		})
		s.mu.RUnlock()
	}
}
