package drift

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// spoil lets a usual device differ in everything that a repair can bring back.
func (r *rig) spoil(thing, certificate string) {
	r.t.Helper()
	ctx := r.t.Context()
	r.need(r.registry.UpdateThing(ctx, account, registry.UpdateThingCommand{
		Name: thing, TypeName: "type-b", Attributes: &registry.Attributes{Values: map[string]string{"site": "york", "serial": "", "extra": "1"}, Merge: true},
	}))
	r.need(r.registry.UpdateThingGroupsForThing(ctx, account, registry.UpdateGroupsCommand{Thing: thing, Remove: []string{"group-a"}, Add: []string{"group-c"}}))
	r.need(r.registry.RemoveThingFromBillingGroup(ctx, account, registry.ThingAndGroup{ThingName: thing, GroupName: "bill-a"}))
	r.need(r.registry.DetachPolicy(ctx, account, "policy-b", certificateARN(certificate)))
	r.need(r.registry.AttachPolicy(ctx, account, "policy-c", certificateARN(certificate)))
	r.need(r.registry.UpdateCertificate(ctx, account, certificate, registry.StatusInactive))
}

// spoilt are the differences after spoil.
func spoilt(thing, certificate string) []Difference {
	return []Difference{
		{ThingType, "", "type-a", "type-b"},
		{Attribute, "serial", thing, ""},
		{Attribute, "site", "leeds", "york"},
		{ThingGroup, "group-a", "group-a", ""},
		{BillingGroup, "", "bill-a", ""},
		{Certificate, certificate, "ACTIVE", "INACTIVE"},
		{Policy, "policy-b", "policy-b", ""},
	}
}

func TestWhatWasPromisedIsShown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stock()
	_, err := r.Show(t.Context(), account, "pump-1")
	r.code(err, fault.ResourceNotFound)
	id := r.device("pump-1")
	r.inForce["T"] = 3
	report := r.show("pump-1")
	if report.Drifts() || len(report.Extra) > 0 || report.DefaultVersion != 3 || !report.Outdated() {
		t.Errorf("after its provisioning it differs: %+v", report)
	}
	same(t, report.Promise.PromiseOrigin, registry.PromiseOrigin{Template: "T", Version: 1, Method: event.ProvisioningClaim})
	r.spoil("pump-1", id)
	spoiltReport := r.show("pump-1")
	same(t, spoiltReport.Differences, spoilt("pump-1", id))
	same(t, spoiltReport.Extra, []Difference{{ExtraPolicy, "policy-c", "", "policy-c"}})
	if spoiltReport.Revision == report.Revision {
		t.Error("the revision is the same")
	}
	_, err = r.Show(t.Context(), "111111111111", "pump-1")
	r.code(err, fault.ResourceNotFound)
}

// A repair leaves what somebody may have wanted, unless that is named, and says
// what it did.
func TestRepairBringsBackWhatWasPromised(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stock()
	id := r.device("pump-1")
	r.spoil("pump-1", id)
	was := r.show("pump-1")
	version := func() int64 {
		thing, err := r.registry.DescribeThing(t.Context(), account, "pump-1")
		r.need(err)
		return thing.Version
	}
	before := version()
	commits := 0
	count := func() {
		r.ahead = func(store.Batch) { commits++ }
	}
	count()
	plan, err := r.SettleFor(t.Context(), account, SettleCommand{Thing: "pump-1", Choice: Choice{Action: Repair}, Revision: was.Revision})
	r.need(err)
	same(t, commits, 1)
	same(t, version(), before+1)
	all := spoilt("pump-1", id)
	settled := slices.Concat(all[:5], all[6:])
	same(t, plan.Settles, settled)
	now := r.show("pump-1")
	same(t, now.Differences, all[5:6])
	same(t, now.Extra, was.Extra)
	told := events[event.PromiseSettled](r)
	same(t, told, []event.PromiseSettled{{Thing: "pump-1", Template: "T", TemplateVersion: 1, Action: "REPAIR", Differences: reported(settled)}})
	arn := id
	same(t, r.asked, []string{
		"iot:AddThingToBillingGroup billinggroup/bill-a", "iot:AddThingToBillingGroup thing/pump-1",
		"iot:AddThingToThingGroup thing/pump-1", "iot:AddThingToThingGroup thinggroup/group-a",
		"iot:AttachPolicy cert/" + arn, "iot:UpdateThing thing/pump-1", "ops:RepairDrift /",
	})
	thing, err := r.registry.DescribeThing(t.Context(), account, "pump-1")
	r.need(err)
	same(t, thing.Attributes, map[string]string{"site": "leeds", "serial": "pump-1", "extra": "1"})
	// Named, the rest goes too.
	_, err = r.SettleFor(t.Context(), account, SettleCommand{
		Thing: "pump-1", Choice: Choice{Action: Repair, Kinds: []Kind{Certificate, ExtraPolicy}}, Revision: now.Revision,
	})
	r.need(err)
	if left := r.show("pump-1"); left.Drifts() || len(left.Extra) > 0 {
		t.Errorf("left %+v", left)
	}
	// Nothing to do is no error and no event.
	plan, err = r.SettleFor(t.Context(), account, SettleCommand{Thing: "pump-1", Choice: Choice{Action: Repair}, Revision: now.Revision})
	r.need(err)
	same(t, len(plan.Settles), 0)
	same(t, len(events[event.PromiseSettled](r)), 2)
}

func TestAcceptPromisesWhatIs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stock()
	id := r.device("pump-1")
	r.spoil("pump-1", id)
	was := r.show("pump-1")
	_, err := r.SettleFor(t.Context(), account, SettleCommand{Thing: "pump-1", Choice: Choice{Action: Accept}, Revision: was.Revision})
	r.need(err)
	r.boot()
	now := r.show("pump-1")
	if now.Drifts() || now.Promise.Accepted.IsZero() {
		t.Errorf("after the acceptance: %+v", now)
	}
	same(t, now.Extra, was.Extra)
	same(t, now.Promise.Attributes, map[string]string{"site": "york"})
	told := events[event.PromiseSettled](r)
	same(t, told[0].Action, "ACCEPT")
	same(t, told[0].Differences, reported(was.Differences))
	thing, err := r.registry.DescribeThing(t.Context(), account, "pump-1")
	r.need(err)
	same(t, thing.TypeName, "type-b")
	// The next template promises anew.
	r.need(r.provision(plan("pump-1", r.certificate()), 2))
	again := r.show("pump-1")
	same(t, again.Promise.Accepted.IsZero(), true)
	same(t, again.Promise.Attributes, map[string]string{"site": "york"})
	same(t, again.Promise.Kept, []registry.KeptPromise{
		{Part: registry.PromiseType, Template: "T", Version: 1},
		{Part: registry.PromiseAttributes, Template: "T", Version: 1},
		{Part: registry.PromiseGroups, Template: "T", Version: 1},
	})
}

// What somebody changes after the preview is not overwritten: also in the moment
// between the look and the commit.
func TestWhatChangedSinceIsNotOverwritten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stock()
	r.device("pump-1")
	site := func(value string) {
		r.need(r.registry.UpdateThing(t.Context(), account, registry.UpdateThingCommand{
			Name: "pump-1", Attributes: &registry.Attributes{Values: map[string]string{"site": value}, Merge: true},
		}))
	}
	site("york")
	seen := r.show("pump-1")
	repair := func() error {
		_, err := r.SettleFor(t.Context(), account, SettleCommand{Thing: "pump-1", Choice: Choice{Action: Repair}, Revision: seen.Revision})
		return err
	}
	site("hull")
	if err := repair(); !errors.Is(err, ErrMoved) {
		t.Errorf("changed since: %v", err)
	}
	site("york")
	r.ahead = func(store.Batch) { site("hull") }
	if err := repair(); !errors.Is(err, ErrMoved) {
		t.Errorf("changed at the same moment: %v", err)
	}
	thing, err := r.registry.DescribeThing(t.Context(), account, "pump-1")
	r.need(err)
	same(t, thing.Attributes["site"], "hull")
	same(t, len(events[event.PromiseSettled](r)), 0)
	// Also what only an acceptance would overwrite.
	_, err = r.SettleFor(t.Context(), account, SettleCommand{Thing: "pump-1", Choice: Choice{Action: Accept}, Revision: seen.Revision})
	if !errors.Is(err, ErrMoved) {
		t.Errorf("acceptance of what changed since: %v", err)
	}
	// A change that makes it right meanwhile leaves nothing to do.
	seen = r.show("pump-1")
	r.ahead = func(store.Batch) { site("leeds") }
	r.need(repair())
	same(t, len(events[event.PromiseSettled](r)), 0)
}

func TestSettleRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stock()
	id := r.device("pump-1")
	r.need(r.registry.UpdateCertificate(t.Context(), account, id, registry.StatusRevoked))
	settle := func(c Choice, thing, revision string) error {
		_, err := r.SettleFor(t.Context(), account, SettleCommand{Thing: thing, Choice: c, Revision: revision})
		return err
	}
	seen := r.show("pump-1")
	r.code(settle(Choice{Action: "MEND"}, "pump-1", seen.Revision), fault.InvalidRequest)
	r.code(settle(Choice{Action: Repair, Kinds: []Kind{"COLOUR"}}, "pump-1", seen.Revision), fault.InvalidRequest)
	r.code(settle(Choice{Action: Repair}, "pump-1", ""), fault.InvalidRequest)
	r.code(settle(Choice{Action: Repair}, "pump-2", seen.Revision), fault.ResourceNotFound)
	err := settle(Choice{Action: Repair, Kinds: []Kind{Certificate}}, "pump-1", seen.Revision)
	if r.code(err, fault.InvalidRequest); fault.From(err).Message != "certificate "+id+" is revoked, which is final: provision the device again" {
		t.Errorf("it says %v", err)
	}
	// A policy that is gone cannot come back.
	r.need(r.registry.DetachPolicy(t.Context(), account, "policy-b", certificateARN(id)))
	r.need(r.registry.DeletePolicy(t.Context(), account, "policy-b"))
	seen = r.show("pump-1")
	r.code(settle(Choice{Action: Repair}, "pump-1", seen.Revision), fault.ResourceNotFound)
	// Permissions are those of the single calls.
	for _, denied := range []string{"ops:RepairDrift", "iot:AttachPolicy", id} {
		r.denied[denied] = true
		r.code(settle(Choice{Action: Repair}, "pump-1", seen.Revision), fault.Unauthorized)
		delete(r.denied, denied)
	}
	r.denied["ops:AcceptDrift"] = true
	r.code(settle(Choice{Action: Accept}, "pump-1", seen.Revision), fault.Unauthorized)
}

// A thing that a program without promises has deleted leaves its promise behind.
func TestAThingThatIsGone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stock()
	r.device("pump-1")
	_, err := r.disk.Commit(t.Context(), store.Batch{Writes: []store.Write{{Key: store.K("thing", string(account), "pump-1"), Delete: true}}})
	r.need(err)
	seen := r.show("pump-1")
	same(t, seen.Differences, []Difference{{Thing, "pump-1", seen.ThingID, ""}})
	_, err = r.SettleFor(t.Context(), account, SettleCommand{Thing: "pump-1", Choice: Choice{Action: Repair, Kinds: Kinds()}, Revision: seen.Revision})
	r.code(err, fault.InvalidRequest)
	_, err = r.SettleFor(t.Context(), account, SettleCommand{Thing: "pump-1", Choice: Choice{Action: Accept}, Revision: seen.Revision})
	r.need(err)
	_, err = r.Show(t.Context(), account, "pump-1")
	r.code(err, fault.ResourceNotFound)
}

// A renewal in which the old certificate goes carries the promise on.
func TestARenewalCarriesThePromiseOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stock()
	old := r.device("pump-1")
	renewed := r.certificate()
	p := plan("pump-1", renewed)
	_, err := r.registry.Provision(t.Context(), account, registry.ProvisionCommand{
		Plan: p, Asking: old, Origin: registry.PromiseOrigin{Template: "T", Version: 2, Method: event.ProvisioningClaim},
	})
	r.need(err)
	r.need(r.registry.ReplaceCertificates(t.Context(), account, registry.ReplaceCommand{Thing: "pump-1", By: renewed, Old: []string{old}, Joined: func([]registry.Replaced) (store.Batch, error) {
		return store.Batch{}, nil
	}}))
	now := r.show("pump-1")
	if now.Drifts() || now.Promise.CertificateID != renewed || now.Promise.Method != event.ProvisioningRenewal {
		t.Errorf("after the renewal %+v", now)
	}
	// By hand, without a template: the policies are promised of the new one.
	third := r.certificate()
	r.need(r.registry.AttachThingPrincipal(t.Context(), account, "pump-1", certificateARN(third), ""))
	r.need(r.registry.DetachThingPrincipal(t.Context(), account, "pump-1", certificateARN(renewed)))
	same(t, r.show("pump-1").Differences, []Difference{{Policy, "policy-a", "policy-a", ""}, {Policy, "policy-b", "policy-b", ""}})
}

// Pages hold what was asked for, and counts add up.
func TestListsAndVersions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stock()
	const things = 30
	want := map[string][]string{}
	for i := range things {
		name := fmt.Sprintf("pump-%02d", i)
		id := r.certificate()
		r.need(r.provision(plan(name, id), int64(1+i%3)))
		if i%3 != 1 {
			want["outdated"] = append(want["outdated"], name)
		}
		if i%5 == 0 {
			r.spoil(name, id)
			want["drifting"] = append(want["drifting"], name)
		}
		if i%5 == 0 || i == 7 {
			want["extra"] = append(want["extra"], name)
		}
		if i == 7 {
			r.need(r.registry.AttachPolicy(t.Context(), account, "policy-c", certificateARN(id)))
		}
		want["all"] = append(want["all"], name)
	}
	r.inForce["T"] = 2
	_, err := r.registry.CreateThing(t.Context(), account, registry.CreateThingCommand{Name: "pump-by-hand"})
	r.need(err)
	list := func(c ListCommand) (names []string, total Page) {
		t.Helper()
		total.ByKind = map[Kind]int{}
		for pages := 0; ; pages++ {
			page, err := r.List(t.Context(), account, c)
			r.need(err)
			if len(page.Reports) > c.Limit {
				t.Fatalf("%d on a page of %d", len(page.Reports), c.Limit)
			}
			for _, report := range page.Reports {
				names = append(names, report.Thing)
			}
			total.Examined, total.Drifting, total.Outdated = total.Examined+page.Examined, total.Drifting+page.Drifting, total.Outdated+page.Outdated
			for k, n := range page.ByKind {
				total.ByKind[k] += n
			}
			if c.After = page.Next; c.After == "" {
				return names, total
			}
			if pages > things {
				t.Fatal("the pages have no end")
			}
		}
	}
	for _, limit := range []int{1, 4, 250} {
		for _, query := range []string{"", "pump"} {
			names, total := list(ListCommand{Query: query, Limit: limit})
			same(t, names, want["drifting"])
			same(t, []int{total.Examined, total.Drifting, total.Outdated}, []int{things, 6, 20})
			same(t, total.ByKind, map[Kind]int{ThingType: 6, Attribute: 6, ThingGroup: 6, BillingGroup: 6, Certificate: 6, Policy: 6, ExtraPolicy: 7})
			names, _ = list(ListCommand{Query: query, Outdated: true, Limit: limit})
			same(t, names, want["outdated"])
			names, _ = list(ListCommand{Query: query, Kinds: []Kind{ExtraPolicy}, Limit: limit})
			same(t, names, want["extra"])
			names, _ = list(ListCommand{Query: query, All: true, Limit: limit})
			same(t, names, want["all"])
			names, total = list(ListCommand{Query: query, Template: "T", Version: 3, All: true, Limit: limit})
			same(t, len(names), 10)
			same(t, total.Examined, 10)
		}
	}
	counts, err := r.Versions(t.Context(), account, "T", "")
	r.need(err)
	same(t, counts, VersionCounts{Template: "T", DefaultVersion: 2, Counts: []registry.PromiseCount{{Version: 1, Things: 10}, {Version: 2, Things: 10}, {Version: 3, Things: 10}}})
	for name, c := range map[string]ListCommand{
		"no limit": {}, "too many": {Limit: 251}, "version of none": {Version: 1, Limit: 1}, "two ways": {All: true, Outdated: true, Limit: 1},
		"unknown kind": {Kinds: []Kind{"X"}, Limit: 1},
	} {
		if _, err := r.List(t.Context(), account, c); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = r.List(t.Context(), account, ListCommand{Query: "(", Limit: 1})
	r.code(err, fault.InvalidQuery)
	r.denied["iot:SearchIndex"] = true
	_, err = r.List(t.Context(), account, ListCommand{Query: "pump", Limit: 1})
	r.code(err, fault.Unauthorized)
	_, err = r.Versions(t.Context(), account, "no such name!", "")
	r.code(err, fault.InvalidRequest)
	page, err := r.List(t.Context(), "111111111111", ListCommand{Limit: 9, All: true})
	r.need(err)
	same(t, page.Examined, 0)
}

// A thing that was moved within a hierarchy leaves the group that it was moved to
// when it comes back, and an acceptance promises that one.
func TestMovesWithinAHierarchy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stock()
	for _, name := range []string{"north", "south"} {
		_, err := r.registry.CreateThingGroup(t.Context(), account, registry.CreateThingGroupCommand{Name: name, Parent: "group-a"})
		r.need(err)
	}
	p := plan("pump-1", r.certificate())
	p.Thing.Groups = []string{"group-b", "north"}
	r.need(r.provision(p, 1))
	move := func(from, to string) {
		t.Helper()
		r.need(r.registry.UpdateThingGroupsForThing(t.Context(), account, registry.UpdateGroupsCommand{Thing: "pump-1", Remove: []string{from}, Add: []string{to}}))
	}
	settle := func(a Action) {
		t.Helper()
		_, err := r.SettleFor(t.Context(), account, SettleCommand{Thing: "pump-1", Choice: Choice{Action: a}, Revision: r.show("pump-1").Revision})
		r.need(err)
		if now := r.show("pump-1"); now.Drifts() {
			t.Errorf("after %s: %+v", a, now)
		}
	}
	groups := func(want ...registry.Membership) {
		t.Helper()
		thing, err := r.registry.DescribeThing(t.Context(), account, "pump-1")
		r.need(err)
		same(t, thing.Groups, want)
	}
	move("north", "south")
	same(t, r.show("pump-1").Differences, []Difference{{ThingGroup, "north", "north", "south"}})
	r.denied["iot:RemoveThingFromThingGroup"] = true
	_, err := r.SettleFor(t.Context(), account, SettleCommand{Thing: "pump-1", Choice: Choice{Action: Repair}, Revision: r.show("pump-1").Revision})
	r.code(err, fault.Unauthorized)
	delete(r.denied, "iot:RemoveThingFromThingGroup")
	settle(Repair)
	groups(registry.Membership{Group: "group-b"}, registry.Membership{Group: "north"})
	move("north", "group-a")
	settle(Accept)
	same(t, r.show("pump-1").Promise.Groups, []string{"group-a", "group-b"})
	// A group that is gone cannot be joined again.
	move("group-b", "group-c")
	r.need(r.registry.DeleteThingGroup(t.Context(), account, "group-b", nil))
	_, err = r.SettleFor(t.Context(), account, SettleCommand{Thing: "pump-1", Choice: Choice{Action: Repair}, Revision: r.show("pump-1").Revision})
	r.code(err, fault.ResourceNotFound)
}

// A plan without a thing promises nothing, one without a certificate nothing of one.
func TestPlansWithLess(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stock()
	less := plan("pump-1", "")
	less.Certificate = nil
	r.need(r.provision(less, 1))
	if seen := r.show("pump-1"); seen.Drifts() || len(seen.Promise.Policies) > 0 {
		t.Errorf("without a certificate: %+v", seen)
	}
	bare := plan("", r.certificate())
	bare.Thing = nil
	r.need(r.provision(bare, 1))
	page, err := r.List(t.Context(), account, ListCommand{Limit: 9, All: true})
	r.need(err)
	same(t, page.Examined, 1)
	// A certificate that is to be INACTIVE may become ACTIVE.
	idle := plan("pump-2", r.certificate())
	idle.Certificate.Active, idle.Certificate.OnStatus = false, provtemplate.Replace
	r.need(r.provision(idle, 1))
	r.need(r.registry.UpdateCertificate(t.Context(), account, idle.Certificate.ID, registry.StatusActive))
	if seen := r.show("pump-2"); seen.Drifts() {
		t.Errorf("it was activated: %+v", seen)
	}
}

// TestOnPostgreSQL repeats the tests on the other engine.
func TestOnPostgreSQL(t *testing.T) {
	t.Parallel()
	cluster.Get(t)
	for name, test := range map[string]func(*testing.T){
		"AgainstAModel":               TestAgainstAModel,
		"RepairBringsBack":            TestRepairBringsBackWhatWasPromised,
		"AcceptPromisesWhatIs":        TestAcceptPromisesWhatIs,
		"WhatChangedIsNotOverwritten": TestWhatChangedSinceIsNotOverwritten,
		"ARenewalCarriesThePromiseOn": TestARenewalCarriesThePromiseOn,
		"MovesWithinAHierarchy":       TestMovesWithinAHierarchy,
		"ListsAndVersions":            TestListsAndVersions,
	} {
		t.Run(name, test)
	}
}
