package registry

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

// together runs the functions at once and returns their errors in order.
func together(functions ...func() error) []error {
	errs := make([]error, len(functions))
	var ready, done sync.WaitGroup
	ready.Add(len(functions))
	for i, f := range functions {
		done.Go(func() {
			ready.Done()
			ready.Wait()
			errs[i] = f()
		})
	}
	done.Wait()
	return errs
}

// tally counts outcomes by code.
func tally(errs []error) map[fault.Code]int {
	counts := map[fault.Code]int{}
	for _, err := range errs {
		counts[fault.CodeOf(err)]++
	}
	return counts
}

func TestRaceToBeInTenGroups(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addThing(t, "T")
	var joins []func() error
	for i := range 16 {
		group := fmt.Sprintf("g%d", i)
		r.addGroup(t, group, "")
		joins = append(joins, func() error {
			return r.AddThingToThingGroup(t.Context(), acct, ThingAndGroup{ThingName: "T", GroupName: group}, false)
		})
	}
	wantEqual(t, tally(together(joins...)), map[fault.Code]int{"": 10, fault.InvalidRequest: 6})
	wantEqual(t, len(must[Thing](t)(r.DescribeThing(t.Context(), acct, "T")).Groups), 10)
}

func TestRaceToBeInOneGroupOfAHierarchy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addThing(t, "T")
	r.addGroup(t, "root", "")
	var joins []func() error
	for i := range 8 {
		group := fmt.Sprintf("g%d", i)
		r.addGroup(t, group, "root")
		joins = append(joins, func() error {
			return r.AddThingToThingGroup(t.Context(), acct, ThingAndGroup{ThingName: "T", GroupName: group}, false)
		})
	}
	wantEqual(t, tally(together(joins...)), map[fault.Code]int{"": 1, fault.InvalidRequest: 7})
}

func TestRaceOfChildrenAndPolicies(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) {
		o.Limits = DefaultLimits()
		o.Limits.GroupChildren = 5
	})
	root := r.addGroup(t, "root", "")
	var children, policies []func() error
	for i := range 12 {
		name := fmt.Sprintf("x%d", i)
		r.addPolicy(t, name)
		children = append(children, func() error {
			_, err := r.CreateThingGroup(t.Context(), acct, CreateThingGroupCommand{Name: name, Parent: "root"})
			return err
		})
		policies = append(policies, func() error { return r.AttachPolicy(t.Context(), acct, name, root.ARN) })
	}
	wantEqual(t, tally(together(children...)), map[fault.Code]int{"": 5, fault.InvalidRequest: 7})
	wantEqual(t, tally(together(policies...)), map[fault.Code]int{"": 2, fault.LimitExceeded: 10})
}

func TestRaceForTheSameName(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var same, different []func() error
	for i := range 8 {
		same = append(same, func() error {
			_, err := r.CreateThing(t.Context(), acct, CreateThingCommand{Name: "same"})
			return err
		})
		different = append(different, func() error {
			_, err := r.CreateThing(t.Context(), acct, CreateThingCommand{
				Name: "different", Attributes: map[string]string{"n": fmt.Sprint(i)},
			})
			return err
		})
	}
	wantEqual(t, tally(together(same...)), map[fault.Code]int{"": 8})
	wantEqual(t, tally(together(different...)), map[fault.Code]int{"": 1, fault.ResourceAlreadyExists: 7})
	wantEqual(t, len(r.store.log()), 2)
}

func TestRaceOfExpectedVersions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addThing(t, "T")
	one := int64(1)
	var updates []func() error
	for range 8 {
		updates = append(updates, func() error {
			return r.UpdateThing(t.Context(), acct, UpdateThingCommand{Name: "T", ExpectedVersion: &one})
		})
	}
	wantEqual(t, tally(together(updates...)), map[fault.Code]int{"": 1, fault.VersionConflict: 7})
}

func TestRaceForAnExclusiveAttachment(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.addCertificate(t)
	var attachments []func() error
	for i := range 8 {
		thing := fmt.Sprintf("t%d", i)
		r.addThing(t, thing)
		attachments = append(attachments, func() error {
			return r.AttachThingPrincipal(t.Context(), acct, thing, c.ARN, ExclusiveThing)
		})
	}
	wantEqual(t, tally(together(attachments...)), map[fault.Code]int{"": 1, fault.InvalidRequest: 7})
}

// Whatever the order, nothing is attached to something that is gone.
func TestRacesWithDeletion(t *testing.T) {
	t.Parallel()
	for round := range 40 {
		r := newRig(t)
		ctx := t.Context()
		thing := r.addThing(t, "T")
		group := r.addGroup(t, "G", "")
		r.addPolicy(t, "P")
		c := must[KeysAndCertificate](t)(r.CreateKeysAndCertificate(ctx, acct, false))
		must[ThingType](t)(r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: "Type"}))
		ok(t, r.DeprecateThingType(ctx, acct, "Type", false))
		r.pass(DefaultLimits().TypeDeletionDelay)
		together(
			func() error { return r.DeleteThing(ctx, acct, "T", nil) },
			func() error { return r.DeleteThingGroup(ctx, acct, "G", nil) },
			func() error { return r.DeletePolicy(ctx, acct, "P") },
			func() error { return r.DeleteCertificate(ctx, acct, c.ID, false) },
			func() error { return r.DeleteThingType(ctx, acct, "Type") },
			func() error { return r.AttachThingPrincipal(ctx, acct, "T", c.ARN, "") },
			func() error { return r.AttachPolicy(ctx, acct, "P", c.ARN) },
			func() error { return r.AttachPolicy(ctx, acct, "P", group.ARN) },
			func() error {
				return r.AddThingToThingGroup(ctx, acct, ThingAndGroup{ThingARN: thing.ARN, GroupName: "G"}, false)
			},
			func() error {
				_, err := r.CreateThingGroup(ctx, acct, CreateThingGroupCommand{Name: "C", Parent: "G"})
				return err
			},
			func() error {
				if err := r.DeprecateThingType(ctx, acct, "Type", true); err != nil {
					return err
				}
				_, err := r.CreateThing(ctx, acct, CreateThingCommand{Name: "U", TypeName: "Type"})
				return err
			},
		)
		if dangling := danglingRows(r.store.left()); len(dangling) > 0 {
			t.Fatalf("round %d: rows without their records: %v", round, dangling)
		}
	}
}

// danglingRows returns the rows that lead to a record that is not there.
func danglingRows(keys []string) []string {
	have := map[string]bool{}
	for _, k := range keys {
		have[k] = true
	}
	record := func(kind string, parts ...string) string {
		return kind + "/" + string(acct) + "/" + strings.Join(parts, "/")
	}
	holder := func(kind, name string) string {
		if kind == "cert" {
			return record(kindCertificate, name)
		}
		return record(kindGroup, name)
	}
	var dangling []string
	for _, k := range keys {
		p := strings.Split(k, "/")
		var needs []string
		switch p[0] {
		case kindThingByType:
			needs = []string{record(kindThingType, p[2]), record(kindThing, p[3])}
		case kindBillingGroupThing:
			needs = []string{record(kindBillingGroup, p[2]), record(kindThing, p[3])}
		case kindGroupThing:
			needs = []string{record(kindGroup, p[2]), record(kindThing, p[3])}
		case kindGroupChild:
			needs = []string{record(kindGroup, p[3])}
			if p[2] != "" {
				needs = append(needs, record(kindGroup, p[2]))
			}
		case kindThingPrincipal:
			needs = []string{record(kindThing, p[2]), holder(p[3], p[4])}
		case kindPolicyTarget:
			needs = []string{record(kindPolicy, p[2]), holder(p[3], p[4])}
		}
		for _, n := range needs {
			if !have[n] {
				dangling = append(dangling, k+" needs "+n)
			}
		}
	}
	return dangling
}

// The seal of a policy's deletion: an attachment in between breaks it, and the
// deletion then sees the target.
func TestAttachBreaksTheSealOfADeletion(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addPolicy(t, "P")
	c := r.addCertificate(t)
	ok(t, r.sealPolicy(ctx, acct, "P"))
	ok(t, r.AttachPolicy(ctx, acct, "P", c.ARN))
	deleted, err := r.deleteSealed(ctx, acct, "P")
	if err != nil || deleted {
		t.Fatalf("deleted %v, %v", deleted, err)
	}
	wantCode(t, r.DeletePolicy(ctx, acct, "P"), fault.DeleteConflict)
	wantEqual(t, len(must[[]EffectivePolicy](t)(r.EffectivePolicies(ctx, acct, c.ARN, ""))), 1)
}

// The index and people change the same things at once; each fact is in the log
// exactly once and in an order that leads to the final state.
func TestDynamicAndStaticChangesTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addDynamic(t, "dyn", "*")
	r.addGroup(t, "s", "")
	names := []string{"a", "b", "c", "d"}
	for _, name := range names {
		r.addThing(t, name)
	}
	var work []func() error
	for i, name := range names {
		work = append(work,
			func() error {
				return r.CommitMembership(ctx, []MembershipChange{{Account: acct, Group: "dyn", Thing: name, Added: true}, {Account: acct, Group: "dyn", Thing: names[(i+1)%4], Added: i%2 == 0}})
			},
			func() error {
				return r.AddThingToThingGroup(ctx, acct, ThingAndGroup{ThingName: name, GroupName: "s"}, false)
			},
			func() error { return r.UpdateThing(ctx, acct, UpdateThingCommand{Name: name}) },
		)
	}
	wantEqual(t, tally(together(work...)), map[fault.Code]int{"": len(work)})
	replayed := map[string]bool{}
	for _, e := range r.store.log() {
		if m, is := e.(event.MembershipChanged); is {
			k := m.Group + " " + m.Thing
			if replayed[k] == m.Added {
				t.Errorf("%s: repeated in the log", k)
			}
			replayed[k] = m.Added
		}
	}
	for _, name := range names {
		thing := must[Thing](t)(r.DescribeThing(ctx, acct, name))
		wantEqual(t, thing.Version, 2)
		for _, m := range thing.Groups {
			if !replayed[m.Group+" "+name] {
				t.Errorf("%s is in %s against the log", name, m.Group)
			}
			delete(replayed, m.Group+" "+name)
		}
	}
	for k, in := range replayed {
		if in {
			t.Errorf("the log puts %s, the record does not", k)
		}
	}
}

func TestAContextEndsTheRetries(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addThing(t, "T")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	attempts := 0
	r.store.hook(func(b store.Batch) error {
		if attempts++; attempts == eagerAttempts+2 {
			cancel()
		}
		return &store.ConflictError{Key: b.Expect[0].Key}
	})
	err := r.UpdateThing(ctx, acct, UpdateThingCommand{Name: "T"})
	if err == nil || attempts >= maxAttempts {
		t.Fatalf("%v after %d attempts", err, attempts)
	}
}
