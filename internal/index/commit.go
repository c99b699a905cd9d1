package index

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// maxWaiting bounds the decisions that wait for their commit; Apply waits
	// for room beyond it.
	maxWaiting = 1 << 16
	// calmWaiting is how many may wait before a large group is filled further:
	// what devices do goes first.
	calmWaiting = 1 << 11
	// firstPause and longestPause bound the wait after a commit that failed.
	firstPause   = 50 * time.Millisecond
	longestPause = 5 * time.Second
)

// membership names a place in a group.
type membership struct {
	account      fleet.Account
	group, thing string
}

// decision is what the index has decided about a place.
type decision struct {
	added bool
	// certain says that the durable state is the opposite. If it is not, the
	// opposite decision does not cancel this one but takes its place.
	certain bool
	cause   *event.MembershipCause
}

// groupKey names a group across accounts.
type groupKey struct {
	account fleet.Account
	group   string
}

// outbox holds the decisions that are not durable yet. What is decided twice in
// the meantime is committed once, as it is at last.
type outbox struct {
	// committing is held by the one who commits.
	committing sync.Mutex
	// mu guards the rest.
	mu      sync.Mutex
	waiting map[membership]decision
	// spare is an empty map for the next ones to wait.
	spare map[membership]decision
	// underway are being committed.
	underway map[membership]decision
	// complete are the groups that have all members which their query has, by
	// query: to be told once those are durable.
	complete map[groupKey]string
	// decided is how far the log is decided, committed how far that is durable.
	decided, committed store.Cursor
	// builds counts the indexes that were put in place.
	builds int
	// defined counts the times that groups were left to be filled by steps.
	defined int
	// runners counts the calls of Run; without any Apply commits by itself.
	runners int
	changed chan struct{}
}

// newOutbox returns an empty one.
func newOutbox() *outbox {
	return &outbox{waiting: map[membership]decision{}, complete: map[groupKey]string{}, changed: make(chan struct{})}
}

// update changes the outbox and wakes those who wait for it.
func (o *outbox) update(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
	o.wake()
}

// wake tells those who wait that something changed; the caller holds mu.
func (o *outbox) wake() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// note records a decision; the caller holds mu. The opposite of one that still
// waits cancels it.
func (o *outbox) note(at membership, d decision) {
	before, waits := o.waiting[at]
	switch {
	case !waits:
	case before.added == d.added:
		d.certain = d.certain && before.certain
	case before.certain && d.certain:
		delete(o.waiting, at)
		return
	default:
		d.certain = false
	}
	o.waiting[at] = d
}

// size is how many decisions wait or are being committed.
func (o *outbox) size() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.waiting) + len(o.underway)
}

// attended reports whether somebody runs Run.
func (o *outbox) attended() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.runners > 0
}

// await waits until done holds, which is asked under mu.
func (o *outbox) await(ctx context.Context, done func() bool) error {
	for {
		o.mu.Lock()
		ok, changed := done(), o.changed
		o.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// replace takes over the decisions of a new index, which compared itself with
// what was durable at the cursor. What waited or was under way may have become
// durable or not: it is decided anew, by what the new index says.
func (o *outbox) replace(fresh map[membership]decision, complete map[groupKey]string, cursor store.Cursor, member func(membership) bool) {
	unsure := map[membership]decision{}
	o.mu.Lock()
	maps.Copy(unsure, o.underway)
	maps.Copy(unsure, o.waiting)
	o.mu.Unlock()
	// The new index tells without mu, which is taken under its locks.
	for at, d := range unsure {
		fresh[at] = decision{added: member(at), cause: d.cause}
	}
	o.update(func() {
		o.waiting, o.complete, o.decided, o.committed = fresh, complete, cursor, store.Cursor{}
		o.builds++
	})
}

// awaitRoom waits until few enough decisions wait for their commit, if somebody
// commits them beside.
func (x *Index) awaitRoom(ctx context.Context) error {
	if !x.outbox.attended() {
		return nil
	}
	return x.outbox.await(ctx, func() bool { return len(x.outbox.waiting)+len(x.outbox.underway) < maxWaiting })
}

// CommittedCursor is how far the event log's consequences for dynamic groups are
// durable: replayed from there, the log yields all that is not. It is at or
// behind Applied.
func (x *Index) CommittedCursor() store.Cursor {
	x.outbox.mu.Lock()
	defer x.outbox.mu.Unlock()
	return x.outbox.committed
}

// Commit makes durable what is decided about dynamic groups, once. After an
// error it is still to be done.
func (x *Index) Commit(ctx context.Context) error {
	o := x.outbox
	o.committing.Lock()
	defer o.committing.Unlock()
	var batch map[membership]decision
	var complete map[groupKey]string
	var cursor store.Cursor
	var build int
	o.update(func() {
		batch, o.waiting, o.underway, o.spare = o.waiting, o.spare, o.waiting, nil
		if o.waiting == nil {
			o.waiting = map[membership]decision{}
		}
		complete, o.complete = o.complete, map[groupKey]string{}
		cursor, build = o.decided, o.builds
	})
	err := x.commitDecisions(ctx, batch, complete, cursor)
	o.update(func() {
		o.underway = nil
		if err == nil {
			if len(batch) <= calmWaiting {
				clear(batch)
				o.spare = batch
			}
			if o.builds == build {
				o.committed = cursor
			}
			return
		}
		for at, d := range batch {
			if later, waits := o.waiting[at]; waits {
				d = later
			}
			// Some of the batch may be durable.
			d.certain = false
			o.waiting[at] = d
		}
		for at, query := range complete {
			if _, again := o.complete[at]; !again && o.builds == build {
				o.complete[at] = query
			}
		}
	})
	return err
}

// commitDecisions hands decisions to the committer, then which groups are
// complete with them.
func (x *Index) commitDecisions(ctx context.Context, batch map[membership]decision, complete map[groupKey]string, cursor store.Cursor) error {
	if len(batch) > 0 {
		changes := make([]MembershipChange, 0, len(batch))
		for at, d := range batch {
			changes = append(changes, MembershipChange{Account: at.account, Group: at.group, Thing: at.thing, Added: d.added, Cause: d.cause})
		}
		slices.SortFunc(changes, func(a, b MembershipChange) int {
			if c := strings.Compare(string(a.Account), string(b.Account)); c != 0 {
				return c
			}
			if c := strings.Compare(a.Thing, b.Thing); c != 0 {
				return c
			}
			return strings.Compare(a.Group, b.Group)
		})
		if err := x.options.Committer.CommitMembership(ctx, changes, cursor); err != nil {
			return fmt.Errorf("commit dynamic group membership: %w", err)
		}
	}
	if len(complete) == 0 {
		return nil
	}
	groups := make([]CompleteGroup, 0, len(complete))
	for at, query := range complete {
		groups = append(groups, CompleteGroup{Account: at.account, Group: at.group, Query: query})
	}
	slices.SortFunc(groups, func(a, b CompleteGroup) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Group, b.Group))
	})
	if err := x.options.Committer.CommitComplete(ctx, groups); err != nil {
		return fmt.Errorf("commit which dynamic groups are complete: %w", err)
	}
	return nil
}

// Run commits memberships beside Apply, fills large groups step by step, and
// rebuilds the indexes of accounts whose configuration asks for it, until ctx ends, which is no error. What is not committed by then follows from
// the log at the next start.
func (x *Index) Run(ctx context.Context) error {
	x.outbox.update(func() { x.outbox.runners++ })
	defer x.outbox.update(func() { x.outbox.runners-- })
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return x.runCommits(ctx) })
	running.Go(func() error { return x.runFills(ctx) })
	running.Go(func() error { return x.runRebuilds(ctx) })
	running.Go(func() error { return x.runReconcile(ctx) })
	return running.Wait() //nolint:wrapcheck // it is nil
}

// runCommits commits what there is.
func (x *Index) runCommits(ctx context.Context) error {
	o, pause := x.outbox, firstPause
	for {
		waits := func() bool { return len(o.waiting)+len(o.complete) > 0 || !o.committed.CoversAll(o.decided) }
		if o.await(ctx, waits) != nil {
			return nil
		}
		err := x.Commit(ctx)
		if err == nil {
			pause = firstPause
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		x.options.Logger.ErrorContext(ctx, "memberships of dynamic groups are not recorded yet", slog.Duration("pause", pause), slog.Any("err", err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, longestPause)
	}
}

// settle does at once what Run does beside.
func (x *Index) settle(ctx context.Context) error {
	if x.outbox.attended() {
		return nil
	}
	if drop, sure := x.replay.state(); !drop && !sure {
		if _, err := x.reconcile(ctx); err != nil {
			return err
		}
	}
	for x.fillStep() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if x.outbox.size() < maxWaiting {
			continue
		}
		if err := x.Commit(ctx); err != nil {
			return err
		}
	}
	return x.Commit(ctx)
}
