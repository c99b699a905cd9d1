package index

import (
	"context"
	"fmt"

	"github.com/muster-iot/muster/internal/fleet"
)

// MemberDifference is a place in a dynamic group that the index has and the store
// lacks, or the other way round.
type MemberDifference struct {
	Account      fleet.Account
	Group, Thing string
	// Decided says that the index has it.
	Decided bool
}

// CompareMembers reports where the members that the index has decided differ from
// stored ones, and returns how many of those there are. The index goes on
// meanwhile, so a difference counts only when it stays.
func (x *Index) CompareMembers(ctx context.Context, stored Stored, report func(MemberDifference)) (int, error) {
	c := &reconciliation{x: x, ctx: ctx, differ: func(at membership, added bool) {
		report(MemberDifference{Account: at.account, Group: at.group, Thing: at.thing, Decided: added})
	}}
	members := 0
	err := stored(ctx, func(account fleet.Account, group, thing string) error {
		members++
		return c.stored(account, group, thing)
	})
	if err != nil {
		return members, fmt.Errorf("read stored memberships: %w", err)
	}
	return members, c.finish()
}

// Reconcile has every membership committed in which the index differs from what is
// durable, and waits for that.
func (x *Index) Reconcile(ctx context.Context) error {
	x.replay.compare()
	if !x.outbox.attended() {
		return x.settle(ctx)
	}
	for {
		x.replay.mu.Lock()
		changed := x.replay.changed
		done := !x.replay.unsure
		x.replay.mu.Unlock()
		if done {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return x.Commit(ctx)
}

// Rebuild has the index of one account built anew from the store and waits for it;
// searches go on meanwhile. It needs Run.
func (x *Index) Rebuild(ctx context.Context, account fleet.Account) error {
	x.following.Lock()
	s, err := x.shard(account)
	if err == nil {
		if s == nil {
			s = x.newShard(account)
			s.finish()
			x.mu.Lock()
			x.shards[account] = s
			x.mu.Unlock()
		}
		s.mu.Lock()
		if s.wanted == nil {
			config := s.config
			s.wanted = &config
		}
		s.mu.Unlock()
		x.askRebuild()
	}
	x.following.Unlock()
	// A whole build that is under way does the same.
	return x.WaitSettled(ctx)
}
