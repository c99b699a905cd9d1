package index

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// reloadBatch is how many events a rebuild catches up with at a time.
	reloadBatch = 1000
	// closeEnough is how many rounds a rebuild runs after the log on its own
	// before it stops the others for the rest.
	closeEnough = 8
	// rebuildPause is the wait after a rebuild that failed.
	rebuildPause = 2 * time.Second
)

// Reloader reads the store for the rebuild of one account.
type Reloader interface {
	// LoadAccount puts everything of an account, its configuration first, from a
	// frozen view of the store and returns the view's cursor.
	LoadAccount(ctx context.Context, account fleet.Account, b *Builder) (store.Cursor, error)
	// Events returns up to limit events behind a cursor, of all accounts, and the
	// cursor behind them.
	Events(ctx context.Context, after store.Cursor, limit int) ([]event.Envelope, store.Cursor, error)
}

// Loaded counts what a build under way has read.
type Loaded struct{ things, shadows atomic.Int64 }

// Things is the number of things read so far.
func (l *Loaded) Things() int64 { return l.things.Load() }

// Shadows is the number of shadows read so far.
func (l *Loaded) Shadows() int64 { return l.shadows.Load() }

// errReplaced ends a rebuild whose shard has been replaced by a whole build.
var errReplaced = errors.New("the whole index was built anew in the meantime")

// runRebuilds rebuilds the indexes of accounts whose configuration asks for it, one
// after the other, until ctx ends, which is no error. Searches and Apply go on
// meanwhile. A rebuild that fails is tried again.
func (x *Index) runRebuilds(ctx context.Context) error {
	for {
		failed := false
		for _, account := range x.wanting() {
			began := time.Now() //nolint:forbidigo // for the log only
			err := x.rebuild(ctx, account)
			if ctx.Err() != nil {
				return nil
			}
			log := x.options.Logger.With(slog.String("account", string(account)), slog.Duration("took", time.Since(began)))
			switch {
			case errors.Is(err, errReplaced):
			case err != nil:
				failed = true
				log.ErrorContext(ctx, "index of account is not rebuilt and will be tried again", slog.Any("err", err))
			default:
				log.InfoContext(ctx, "index of account rebuilt for its new configuration")
			}
		}
		// Every batch that is applied meanwhile asks again: a failure waits anyway.
		asked, again := x.asked, (<-chan time.Time)(nil)
		if failed {
			asked, again = nil, time.After(rebuildPause)
		}
		select {
		case <-asked:
		case <-again:
		case <-ctx.Done():
			return nil
		}
	}
}

// WaitSettled returns once no account waits to be rebuilt, or with the context's
// error.
func (x *Index) WaitSettled(ctx context.Context) error {
	for {
		x.mu.Lock()
		advanced := x.advanced
		x.mu.Unlock()
		if len(x.wanting()) == 0 {
			return nil
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// askRebuild wakes Run.
func (x *Index) askRebuild() {
	select {
	case x.asked <- struct{}{}:
	default:
	}
}

// wanting are the accounts whose index is to be rebuilt.
func (x *Index) wanting() []fleet.Account {
	if x.options.Reloader == nil {
		return nil
	}
	x.mu.Lock()
	shards := maps.Clone(x.shards)
	x.mu.Unlock()
	var accounts []fleet.Account
	for account, s := range shards {
		s.mu.RLock()
		if s.wanted != nil {
			accounts = append(accounts, account)
		}
		s.mu.RUnlock()
	}
	return accounts
}

// rebuild loads the index of one account anew and puts it in the place of the
// one before, at the same point of the event log. Membership that differs is
// committed as a difference, so that what stays is not touched.
func (x *Index) rebuild(ctx context.Context, account fleet.Account) error {
	before, err := x.shard(account)
	if err != nil || before == nil {
		return errReplaced // a whole build is under way or done
	}
	b := x.newBuilder()
	before.mu.Lock()
	before.reloading = b.loaded
	before.mu.Unlock()
	defer func() {
		before.mu.Lock()
		before.reloading = nil
		before.mu.Unlock()
	}()
	at, err := x.options.Reloader.LoadAccount(ctx, account, b)
	if err != nil {
		return fmt.Errorf("load the account: %w", err)
	}
	s := b.shard(account)
	s.finish()
	// Never ahead of the others: one cursor tells where the whole index is.
	if err := x.WaitApplied(ctx, at); err != nil {
		return fmt.Errorf("wait for the index: %w", err)
	}
	for range closeEnough {
		upTo := x.Applied()
		if at.CoversAll(upTo) {
			break
		}
		if at, err = x.catchUp(ctx, account, s, at, upTo); err != nil {
			return err
		}
	}
	x.following.Lock()
	defer x.following.Unlock()
	upTo := x.Applied()
	if _, err = x.catchUp(ctx, account, s, at, upTo); err != nil {
		return err
	}
	if !x.exchange(account, before, s) {
		return errReplaced
	}
	if s.wanted != nil {
		x.askRebuild() // changed again meanwhile
	}
	if err := x.settle(ctx); err != nil {
		// The changes wait for the next Apply; the new index is in its place.
		x.options.Logger.WarnContext(ctx, "membership after a rebuild is committed later", slog.Any("err", err))
	}
	return nil
}

// exchange puts a shard in the place of another unless somebody else did. What
// the other is being changed to, as by a fill, ends before.
func (x *Index) exchange(account fleet.Account, before, s *shard) bool {
	before.mu.Lock()
	defer before.mu.Unlock()
	if current, err := x.shard(account); err != nil || current != before {
		return false
	}
	x.noteDifference(account, before, s)
	x.advance(func() { x.shards[account] = s })
	return true
}

// catchUp applies the events of an account between two cursors to a shard that
// nobody else sees, and returns the second.
func (x *Index) catchUp(ctx context.Context, account fleet.Account, s *shard, after, upTo store.Cursor) (store.Cursor, error) {
	for !after.CoversAll(upTo) {
		events, _, err := x.options.Reloader.Events(ctx, after, reloadBatch)
		if err != nil {
			return after, fmt.Errorf("read events: %w", err)
		}
		before := after
		var mine []event.Envelope
		for _, e := range events {
			place := store.Position{Partition: e.Partition, Seq: e.Seq}
			if !upTo.Covers(place) {
				continue
			}
			after = after.Advance(place)
			if e.Account == account {
				mine = append(mine, e)
			}
		}
		if before.CoversAll(after) {
			return after, errors.New("the event log lacks what the index has followed")
		}
		from, err := x.loadSources(ctx, mine)
		if err != nil {
			return before, err
		}
		x.applyEvents(s, account, mine, from)
		s.standing.fillRest()
		s.settle(func(*dynamicGroup, uint32, bool, cause) {}) // told as a whole afterwards
	}
	return after, nil
}

// noteDifference records how the memberships of two shards of an account
// differ. An index that is off decides nothing: what is stored stays.
func (x *Index) noteDifference(account fleet.Account, before, after *shard) {
	if !after.config.Things.Registry {
		return
	}
	o := x.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	_, sure := x.replay.state()
	missing := func(from, in *shard, added bool) {
		for _, g := range from.standing.groups {
			if g == nil {
				continue
			}
			other := in.standing.group(g.name)
			for it := g.members.Iterator(); it.HasNext(); {
				thing := from.things.names.text(it.Next())
				if doc, ok := in.things.doc(thing); !ok || other == nil || !other.members.Contains(doc) {
					o.note(membership{account: account, group: g.name, thing: thing},
						// What is durable of a dropped group ends with the group.
						decision{added: added, certain: sure && other != nil, cause: &event.MembershipCause{Kind: string(CauseQuery)}})
				}
			}
		}
	}
	missing(after, before, true)
	missing(before, after, false)
	for _, id := range after.standing.takeCompleted() {
		o.complete[groupKey{account, after.standing.groups[id].name}] = after.standing.groups[id].query
	}
	o.wake()
}

// group returns a dynamic group by name, nil for none.
func (s *standing) group(name string) *dynamicGroup {
	if id, ok := s.byName[name]; ok {
		return s.groups[id]
	}
	return nil
}
