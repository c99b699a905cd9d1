package renewal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// Short names for the steps.
const (
	begun      = event.RenewalBegun
	proven     = event.RenewalProven
	completed  = event.RenewalCompleted
	unproven   = event.RenewalUnproven
	superseded = event.RenewalSuperseded
	abandoned  = event.RenewalAbandoned
)

const (
	active   = registry.StatusActive
	inactive = registry.StatusInactive
	revoked  = registry.StatusRevoked
)

func TestRenewal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	renewed := r.renew("pump", old)
	// Both are good; the old one proves nothing.
	r.connect("pump", old)
	r.pass(patience - time.Hour)
	r.want("pump", old, active, true)
	r.want("pump", renewed, active, true)
	r.wantSteps(renewed, begun)
	r.update(renewed, inactive)
	r.update(renewed, active)
	r.connectAs(fleet.PrincipalCustom, "pump", renewed) // a name that another kind of principal has
	r.need(r.follow(t.Context()))
	r.wantSteps(renewed, begun)

	at := r.now()
	r.connect("a gateway", renewed)
	r.wantSteps(renewed, begun, proven)
	r.pass(time.Hour)
	r.connect("pump", renewed) // is proven
	r.pass(overlap - time.Hour - time.Second)
	r.want("pump", old, active, true)
	wantEqual(t, r.one(renewed).Due, at.Add(overlap))

	before := r.store.commits
	r.pass(time.Second)
	if n := r.store.commits - before; n != 1 {
		t.Errorf("it took %d commits", n)
	}
	r.want("pump", old, inactive, false)
	r.want("pump", renewed, active, true)
	r.wantSteps(renewed, begun, proven, completed)
	r.wantReason(renewed, "detached and INACTIVE")
	done := r.one(renewed)
	wantEqual(t, done.OldCertificateID, old)
	wantEqual(t, done.Proof, Seen{Account: acct, CertificateID: renewed, At: at, ClientID: "a gateway", ConnectionID: "c-1", Address: "192.0.2.7"})
	wantEqual(t, done.Due, time.Time{})
	last := r.steps(renewed)[2]
	wantEqual(t, last.ProvenAt, at)
	wantEqual(t, last.ClientID, "a gateway")

	// The proof is kept, and not for ever.
	r.pass(retentionAge - time.Second)
	r.wantSteps(renewed, begun, proven, completed)
	r.pass(time.Second)
	r.need(r.store.Scan(t.Context(), store.Range{From: "renewal", To: "renewam"}, func(left store.Record) error {
		t.Errorf("%s is left", left.Key)
		return nil
	}))
}

func TestUnproven(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	renewed := r.renew("pump", old)
	r.pass(patience - time.Second)
	r.wantSteps(renewed, begun)
	r.pass(time.Second)
	r.wantSteps(renewed, begun, unproven)
	r.wantReason(renewed, "nobody has connected with the new certificate in 168h0m0s")
	r.pass(365 * 24 * time.Hour)
	r.want("pump", old, active, true)
	r.want("pump", renewed, active, true)
}

func TestProvenLate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	renewed := r.renew("pump", old)
	r.pass(patience + 5*24*time.Hour)
	r.connect("pump", renewed)
	r.wantSteps(renewed, begun, unproven, proven)
	r.pass(overlap)
	r.wantSteps(renewed, begun, unproven, proven, completed)
	r.want("pump", old, inactive, false)
}

// A proof that the follower has not seen when the patience is over counts.
func TestProofInTheLog(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	renewed := r.renew("pump", old)
	r.clock.Add(int64(patience - time.Hour))
	r.connectAs(fleet.PrincipalCertificate, "pump", renewed)
	r.pass(2 * time.Hour)
	r.wantSteps(renewed, begun, proven)
}

// What happens to the old certificate before it would be retired.
func TestOldCertificate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil  func(r *rig, old string)
		status string
		acts   bool
		reason string
	}{
		"revoked":  {func(r *rig, old string) { r.update(old, revoked) }, revoked, false, "detached and REVOKED"},
		"inactive": {func(r *rig, old string) { r.update(old, inactive) }, inactive, false, "detached and INACTIVE"},
		"detached": {func(r *rig, old string) { r.detach("pump", old) }, inactive, false, "was detached before and is INACTIVE"},
		"detached and revoked": {func(r *rig, old string) {
			r.detach("pump", old)
			r.update(old, revoked)
		}, revoked, false, "was detached before and is REVOKED"},
		"detached and used elsewhere": {func(r *rig, old string) {
			r.detach("pump", old)
			r.thing("valve", old)
		}, active, false, "was detached before; it is ACTIVE for the other things"},
		"deleted": {func(r *rig, old string) {
			r.detach("pump", old)
			r.delete(old)
		}, "", false, "does not exist any more"},
		"shared": {func(r *rig, old string) { r.thing("valve", old) }, active, false, "is detached; it is ACTIVE for the other things"},
	} {
		for _, when := range []string{"before the proof", "after the proof"} {
			t.Run(name+" "+when, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				old := r.thing("pump", "")
				renewed := r.renew("pump", old)
				if when == "before the proof" {
					c.spoil(r, old)
				}
				r.connect("pump", renewed)
				if when == "after the proof" {
					c.spoil(r, old)
				}
				r.pass(overlap)
				r.wantSteps(renewed, begun, proven, completed)
				r.wantReason(renewed, c.reason)
				r.want("pump", old, c.status, c.acts)
				r.want("pump", renewed, active, true)
			})
		}
	}
}

// A shared certificate ends with the last thing that it acts as.
func TestSharedCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	r.thing("valve", old)
	first, second := r.renew("pump", old), r.renew("valve", old)
	r.connect("gateway", first)
	r.pass(overlap)
	r.want("pump", old, active, false)
	r.want("valve", old, active, true)
	r.wantSteps(second, begun) // the other thing's, and not superseded
	r.connect("gateway", second)
	r.pass(overlap)
	r.wantSteps(second, begun, proven, completed)
	r.want("valve", old, inactive, false)
}

// What happens to the new certificate: nothing is retired then.
func TestNewCertificate(t *testing.T) {
	t.Parallel()
	type outcome struct {
		step   event.CertificateRenewal
		reason string
	}
	for name, c := range map[string]struct {
		spoil func(r *rig, renewed string)
		// at once, at the end of the patience, at the end of the overlap.
		atOnce, unproven, proven outcome
	}{
		"deleted": {
			func(r *rig, renewed string) {
				r.update(renewed, inactive)
				r.detach("pump", renewed)
				r.delete(renewed)
			},
			outcome{abandoned, "was deleted"},
			outcome{abandoned, "was deleted"},
			outcome{abandoned, "was deleted"},
		},
		"revoked": {
			func(r *rig, renewed string) { r.update(renewed, revoked) },
			outcome{abandoned, "was revoked"},
			outcome{abandoned, "was revoked"},
			outcome{abandoned, "was revoked"},
		},
		"inactive": {
			func(r *rig, renewed string) { r.update(renewed, inactive) },
			outcome{},
			outcome{unproven, "is INACTIVE"},
			outcome{unproven, "is INACTIVE"},
		},
		"detached": {
			func(r *rig, renewed string) { r.detach("pump", renewed) },
			outcome{},
			outcome{unproven, "is not attached"},
			outcome{unproven, "is not attached"},
		},
		"expired": {
			func(r *rig, _ string) { r.clock.Add(int64(40 * 24 * time.Hour)) },
			outcome{},
			outcome{abandoned, "has expired"},
			outcome{abandoned, "has expired"},
		},
	} {
		for _, when := range []event.CertificateRenewal{begun, proven} {
			t.Run(name+" when "+string(when), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				old := r.thing("pump", "")
				renewed := r.renew("pump", old)
				want, wait := c.unproven, patience
				if when == proven {
					r.connect("pump", renewed)
					want, wait = c.proven, overlap
				}
				c.spoil(r, renewed)
				r.need(r.follow(t.Context()))
				if c.atOnce.step == "" {
					wantEqual(t, r.one(renewed).Step, when)
				} else {
					wantEqual(t, r.one(renewed).Step, c.atOnce.step)
					r.wantReason(renewed, c.atOnce.reason)
				}
				r.pass(wait)
				wantEqual(t, r.one(renewed).Step, want.step)
				r.wantReason(renewed, want.reason)
				r.pass(100 * 24 * time.Hour)
				r.want("pump", old, active, true)
			})
		}
	}
}

// A new certificate that an operator has put aside proves itself again when it is
// back.
func TestProvenAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	renewed := r.renew("pump", old)
	r.connect("pump", renewed)
	r.update(renewed, inactive)
	r.pass(overlap)
	r.wantSteps(renewed, begun, proven, unproven)
	r.update(renewed, active)
	r.connect("pump", renewed)
	r.pass(overlap)
	r.wantSteps(renewed, begun, proven, unproven, proven, completed)
	r.want("pump", old, inactive, false)
}

func TestBegunTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	first := r.renew("pump", old)
	r.pass(time.Hour)
	second := r.renew("pump", old)
	r.wantSteps(first, begun, superseded)
	r.pass(time.Hour)
	third := r.renew("pump", old)
	r.wantSteps(second, begun, superseded)
	r.connect("pump", third)
	r.pass(overlap - time.Second)
	for _, id := range []string{old, first, second, third} {
		r.want("pump", id, active, true)
	}
	before := r.store.commits
	r.pass(time.Second)
	if n := r.store.commits - before; n != 1 {
		t.Errorf("it took %d commits", n)
	}
	for _, id := range []string{old, first, second} {
		r.want("pump", id, inactive, false)
	}
	r.want("pump", third, active, true)
	r.wantSteps(first, begun, superseded, abandoned)
	r.wantSteps(second, begun, superseded, abandoned)
	r.wantSteps(third, begun, proven, completed)
}

// A device that lost the second answer goes on with the first certificate: it is
// in use and stays, whatever else was asked for.
func TestSupersededProvesItself(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	first := r.renew("pump", old)
	r.clock.Add(int64(time.Second))
	between := r.renew("pump", old)
	r.clock.Add(int64(time.Second))
	second := r.renew("pump", old)
	r.connect("pump", first)
	r.wantSteps(first, begun, superseded, proven)
	r.pass(overlap)
	r.wantSteps(first, begun, superseded, proven, completed)
	r.want("pump", old, inactive, false)
	r.want("pump", second, active, true)
	r.wantSteps(second, begun)
	r.want("pump", between, active, true) // asked for after what is in use
	r.wantSteps(between, begun, superseded)
	// When the second one is found again, the first was in use and stays.
	r.connect("pump", second)
	r.pass(overlap)
	r.wantSteps(second, begun, proven, completed)
	r.wantReason(second, "was detached before and is INACTIVE")
	r.want("pump", first, active, true)
	r.want("pump", between, inactive, false)
}

// A superseded certificate that connects while the one after it is completed is
// not taken away: the completion is decided anew.
func TestProofMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	first := r.renew("pump", old)
	second := r.renew("pump", old)
	r.connect("pump", second)
	r.clock.Add(int64(overlap))
	r.store.before = func() { r.connect("pump", first) }
	if err := r.Sweep(t.Context()); !errors.Is(err, errMeanwhile) {
		t.Errorf("got %v", err)
	}
	r.want("pump", old, active, true)
	r.want("pump", first, active, true)
	r.pass(0)
	r.want("pump", old, inactive, false)
	r.want("pump", first, active, true)
	r.wantSteps(first, begun, superseded, proven)
	r.wantSteps(second, begun, proven, completed)
}

// A proof that comes while the patience ends counts.
func TestProofAtTheLastMoment(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	renewed := r.renew("pump", old)
	r.need(r.follow(t.Context()))
	r.clock.Add(int64(patience))
	r.store.before = func() { r.connect("pump", renewed) }
	r.need(r.Sweep(t.Context()))
	r.wantSteps(renewed, begun, proven)
}

// A new certificate is of one thing.
func TestNewCertificateOfAnother(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	renewed := r.renew("pump", old)
	if _, err := r.Begin(t.Context(), acct, "valve", old, renewed); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("got %v", err)
	}
}

// The second renewal is due with the first: the order does not matter.
func TestChain(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"both due", "first put aside", "first not seen"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			old := r.thing("pump", "")
			middle := r.renew("pump", old)
			lost := r.renew("pump", old) // superseded by nothing that is proven: it stays
			if first != "first not seen" {
				r.connect("pump", middle)
			}
			r.clock.Add(int64(time.Minute))
			last := r.renew("pump", middle)
			r.connect("pump", last)
			if first == "first put aside" {
				r.update(middle, inactive)
			}
			r.pass(10 * 24 * time.Hour)
			r.want("pump", old, inactive, false)
			r.want("pump", middle, inactive, false)
			r.want("pump", last, active, true)
			wantEqual(t, r.one(last).Step, completed)
			wantEqual(t, r.one(middle).Step, completed)
			wantEqual(t, r.one(lost).Step, unproven)
			r.want("pump", lost, active, true)
		})
	}
}

func TestThingDeleted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	waiting := r.renew("pump", old)
	used := r.renew("pump", old)
	r.connect("pump", used)
	for _, id := range []string{old, waiting, used} {
		r.detach("pump", id)
	}
	r.need(r.registry.DeleteThing(t.Context(), acct, "pump", nil))
	r.clock.Add(int64(time.Second))
	// Another thing has the name before the follower has seen the end of the first.
	next := r.thing("pump", "")
	renewed := r.renew("pump", next)
	r.need(r.follow(t.Context()))
	r.wantSteps(waiting, begun, superseded, abandoned)
	r.wantSteps(used, begun, proven, abandoned)
	r.wantReason(used, "the thing was deleted")
	r.wantSteps(renewed, begun)
	r.pass(overlap)
	for _, id := range []string{old, waiting, used, next, renewed} {
		r.want("valve", id, active, false)
	}
}

// Who asks with a certificate that does not act as the thing renews nothing.
func TestNoRenewal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	claim, err := r.registry.CreateKeysAndCertificate(t.Context(), acct, true)
	r.need(err)
	made := r.renew("pump", claim.ID)
	r.connect("pump", made)
	r.wantSteps(made)
	all, _, err := r.List(t.Context(), acct, Query{Limit: 10})
	r.need(err)
	wantEqual(t, all, []Renewal{})
	r.pass(patience)
	r.want("pump", claim.ID, active, false)
}

// A thing that asks again and again is told, and goes on with what it has.
func TestBound(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	for range maxUnproven {
		r.renew("pump", old)
	}
	_, err := r.tryRenew("pump", old)
	if fault.CodeOf(err) != fault.LimitExceeded {
		t.Errorf("got %v", err)
	}
	r.want("pump", old, active, true)
	counts := map[event.CertificateRenewal]int{}
	all, _, err := r.List(t.Context(), acct, Query{Limit: maxListed})
	r.need(err)
	for _, one := range all {
		counts[one.Step]++
	}
	wantEqual(t, counts, map[event.CertificateRenewal]int{begun: 1, superseded: maxUnproven - 1})
}

// Of several at the same moment all but the last are superseded.
func TestBegunAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, err := r.tryRenew("pump", old); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	counts := map[event.CertificateRenewal]int{}
	all, _, err := r.List(t.Context(), acct, Query{Limit: maxListed})
	r.need(err)
	for _, one := range all {
		counts[one.Step]++
	}
	wantEqual(t, counts, map[event.CertificateRenewal]int{begun: 1, superseded: 7})
}

// The process dies after every number of commits; the next one goes on, and each
// step is reported once.
func TestRestartAtEveryStep(t *testing.T) {
	t.Parallel()
	for dies := range 4 {
		t.Run(fmt.Sprintf("after %d commits", dies), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			old := r.thing("pump", "")
			lost := r.renew("pump", old)
			renewed := r.renew("pump", old)
			r.connectAs(fleet.PrincipalCertificate, "pump", renewed)
			r.store.live(dies)
			for _, wait := range []time.Duration{0, overlap, overlap} {
				r.clock.Add(int64(wait))
				err := r.follow(t.Context())
				if err == nil {
					err = r.Sweep(t.Context())
				}
				if err != nil && !errors.Is(err, errDied) {
					t.Fatal(err)
				}
				if err != nil {
					r.store.live(-1)
				}
				r.boot()
			}
			r.wantSteps(renewed, begun, proven, completed)
			r.wantSteps(lost, begun, superseded, abandoned)
			r.want("pump", old, inactive, false)
			r.want("pump", lost, inactive, false)
			r.want("pump", renewed, active, true)
		})
	}
}

// A server that dies before the commit of the completion has retired nothing.
func TestNothingByHalves(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	renewed := r.renew("pump", old)
	r.connect("pump", renewed)
	r.clock.Add(int64(overlap))
	r.store.live(0)
	if err := r.Sweep(t.Context()); !errors.Is(err, errDied) {
		t.Errorf("got %v", err)
	}
	r.want("pump", old, active, true)
	wantEqual(t, r.one(renewed).Step, proven)
	r.store.live(-1)
	r.boot()
	r.pass(0)
	r.want("pump", old, inactive, false)
}

// A follower that has missed events asks who is connected.
func TestRebuild(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.thing("pump", "")
	renewed := r.renew("pump", old)
	r.clock.Add(int64(time.Hour))
	r.connections = []Seen{
		{Account: acct, CertificateID: old, At: r.now(), ClientID: "pump"},
		{Account: "000000000001", CertificateID: renewed, At: r.now(), ClientID: "theirs"},
	}
	for range 2 {
		cursor, err := r.Rebuild(t.Context())
		r.need(err)
		r.cursor = cursor
		r.connections = append(r.connections, Seen{Account: acct, CertificateID: renewed, At: r.now(), ClientID: "pump"})
	}
	r.wantSteps(renewed, begun, proven)
	wantEqual(t, r.one(renewed).Proof.ClientID, "pump")
	r.pass(overlap)
	r.want("pump", old, inactive, false)
}

func TestList(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var ids []string
	for i := range 5 {
		name := fmt.Sprintf("pump-%d", i)
		ids = append(ids, r.renew(name, r.thing(name, "")))
		r.clock.Add(int64(time.Minute))
	}
	r.connect("x", ids[1])
	r.clock.Add(int64(time.Minute))
	r.connect("x", ids[3])
	list := func(q Query) (names []string) {
		t.Helper()
		q.Limit = 2
		for range 10 {
			found, next, err := r.List(t.Context(), acct, q)
			r.need(err)
			for _, one := range found {
				names = append(names, one.Thing)
			}
			if next == "" {
				return names
			}
			q.After = next
		}
		t.Error("it has no end")
		return names
	}
	wantEqual(t, list(Query{}), []string{"pump-0", "pump-1", "pump-2", "pump-3", "pump-4"})
	wantEqual(t, list(Query{Step: proven}), []string{"pump-3", "pump-1"})
	wantEqual(t, list(Query{Step: begun}), []string{"pump-4", "pump-2", "pump-0"})
	wantEqual(t, list(Query{Step: completed}), []string(nil))
	wantEqual(t, list(Query{Thing: "pump-1"}), []string{"pump-1"})
	wantEqual(t, list(Query{Thing: "pump-1", Step: begun}), []string(nil))
	wantEqual(t, list(Query{Thing: "pump"}), []string(nil))
	found, _, err := r.List(t.Context(), "000000000001", Query{Limit: 10})
	r.need(err)
	wantEqual(t, found, []Renewal{})
	for _, q := range []Query{{Limit: 0}, {Limit: maxListed + 1}, {Limit: 1, Step: "X"}, {Limit: 1, Thing: "a b"}} {
		if _, _, err := r.List(t.Context(), acct, q); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// One that fails does not hold up the others.
func TestFailuresApart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bad := r.renew("bad", r.thing("bad", ""))
	good := r.renew("good", r.thing("good", ""))
	at := place{account: acct, thing: "bad", renewed: bad}
	whole, err := r.store.Get(t.Context(), at.key())
	r.need(err)
	_, err = r.store.Commit(t.Context(), store.Batch{Writes: []store.Write{{Key: at.key(), Value: []byte(`{"v":99}`)}}})
	r.need(err)
	r.clock.Add(int64(patience))
	if err := r.Sweep(t.Context()); err == nil {
		t.Error("a record of another program is read")
	}
	_, err = r.store.Commit(t.Context(), store.Batch{Writes: []store.Write{{Key: at.key(), Value: whole.Value}}})
	r.need(err)
	wantEqual(t, r.one(good).Step, unproven)
	wantEqual(t, r.one(bad).Step, begun)
	r.pass(0)
	wantEqual(t, r.one(bad).Step, unproven)
}

// Run keeps the times by itself.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.wall = true
		old := r.thing("pump", "")
		renewed := r.renew("pump", old)
		r.connect("pump", renewed)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(overlap - time.Second)
		r.want("pump", old, active, true)
		time.Sleep(time.Second + sweepEvery)
		r.want("pump", old, inactive, false)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestOptions(t *testing.T) {
	t.Parallel()
	if _, err := New(Options{}); err == nil {
		t.Error("made of nothing")
	}
}

func (r *rig) update(id, status string) {
	r.t.Helper()
	r.need(r.registry.UpdateCertificate(r.t.Context(), acct, id, status))
}

func (r *rig) detach(thing, id string) {
	r.t.Helper()
	r.need(r.registry.DetachThingPrincipal(r.t.Context(), acct, thing, arn(id)))
}

func (r *rig) delete(id string) {
	r.t.Helper()
	if r.status(id) == active {
		r.update(id, inactive)
	}
	r.need(r.registry.DeleteCertificate(r.t.Context(), acct, id, true))
}
