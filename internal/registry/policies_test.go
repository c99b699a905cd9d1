package registry

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// security-provisioning §1.7.
func TestCreatePolicy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	p := must[Policy](t)(r.CreatePolicy(ctx, acct, "P", `{"a":1}`))
	wantEqual(t, p, Policy{
		Name: "P", ARN: "arn:aws:iot:us-east-1:000000000000:policy/P", Document: `{"a":1}`, DefaultVersionID: "1",
		Created: start, Modified: start, GenerationID: "id-1",
	})
	wantEqual(t, must[Policy](t)(r.DescribePolicy(ctx, acct, "P")), p)
	_, err := r.CreatePolicy(ctx, acct, "P", `{"a":1}`)
	wantCode(t, err, fault.ResourceAlreadyExists)
	_, err = r.CreatePolicy(ctx, acct, "Q", "no JSON")
	wantCode(t, err, fault.MalformedPolicy)
	if !strings.Contains(err.Error(), "not an object") {
		t.Fatalf("%v does not say what is wrong", err)
	}
	_, err = r.CreatePolicy(ctx, acct, "a b", "{}")
	wantCode(t, err, fault.InvalidRequest)
	wantEqual(t, r.store.log(), []event.Event{
		event.PolicyChanged{Policy: "P", Change: event.PolicyCreated, VersionID: "1", DefaultVersionID: "1"},
	})
}

// Ruling 9: a policy that names another region or account is accepted, and the
// log says that it matches nothing.
func TestForeignARN(t *testing.T) {
	t.Parallel()
	ours := fleet.Scope{Region: "us-east-1", Account: acct}
	for text, want := range map[string]string{
		`"arn:aws:iot:us-east-1:000000000000:topic/a"`: "",
		`"arn:aws:iot:*:*:topic/a"`:                    "",
		`"*"`:                                          "",
		`"arn:aws:iot:eu-west-1:000000000000:topic/a"`:                       "arn:aws:iot:eu-west-1:000000000000:topic/a",
		`"arn:aws:iot:*:*:a","arn:aws:iot:us-east-1:123456789012:client/x"]`: "arn:aws:iot:us-east-1:123456789012:client/x",
		`"arn:aws:iot:`: "",
	} {
		if got, _ := foreignARN(ours, text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	r := newRig(t)
	must[Policy](t)(r.CreatePolicy(t.Context(), acct, "P", `{"Resource":"arn:aws:iot:eu-west-1:000000000000:topic/a"}`))
	if !strings.Contains(r.logged.String(), "another region or account") {
		t.Fatal("no warning in the log")
	}
}

// security-provisioning §1.7: the sixth version is refused, ids only grow, the
// default version stays.
func TestPolicyVersions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addPolicy(t, "P")
	for i := range 4 {
		v := must[PolicyVersion](t)(r.CreatePolicyVersion(ctx, acct, "P", `{"v":2}`, i == 1))
		wantEqual(t, v.Default, i == 1)
	}
	_, err := r.CreatePolicyVersion(ctx, acct, "P", "{}", false)
	wantCode(t, err, fault.VersionsLimitExceeded)
	wantCode(t, r.DeletePolicyVersion(ctx, acct, "P", "3"), fault.DeleteConflict)
	ok(t, r.SetDefaultPolicyVersion(ctx, acct, "P", "2"))
	ok(t, r.SetDefaultPolicyVersion(ctx, acct, "P", "2"))
	ok(t, r.DeletePolicyVersion(ctx, acct, "P", "5"))
	v := must[PolicyVersion](t)(r.CreatePolicyVersion(ctx, acct, "P", `{"v":6}`, false))
	wantEqual(t, v.ID, "6")
	var ids []string
	for _, v := range must[[]PolicyVersion](t)(r.ListPolicyVersions(ctx, acct, "P")) {
		ids = append(ids, v.ID)
		wantEqual(t, v.Default, v.ID == "2")
	}
	wantEqual(t, ids, []string{"6", "4", "3", "2", "1"})
	wantEqual(t, must[PolicyVersion](t)(r.DescribePolicyVersion(ctx, acct, "P", "6")).Document, `{"v":6}`)
	for name, err := range map[string]error{
		"delete unknown":      r.DeletePolicyVersion(ctx, acct, "P", "5"),
		"set unknown":         r.SetDefaultPolicyVersion(ctx, acct, "P", "5"),
		"version of unknown":  r.SetDefaultPolicyVersion(ctx, acct, "None", "1"),
		"policy with several": r.DeletePolicy(ctx, acct, "P"),
	} {
		want := fault.ResourceNotFound
		if name == "policy with several" {
			want = fault.DeleteConflict
		}
		if fault.CodeOf(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = r.DescribePolicyVersion(ctx, acct, "P", "x")
	wantCode(t, err, fault.InvalidRequest)
	_, err = r.CreatePolicyVersion(ctx, acct, "P", "bad", false)
	wantCode(t, err, fault.MalformedPolicy)
}

func TestDeletePolicy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addPolicy(t, "P")
	c := r.addCertificate(t)
	ok(t, r.AttachPolicy(ctx, acct, "P", c.ARN))
	err := r.DeletePolicy(ctx, acct, "P")
	wantCode(t, err, fault.DeleteConflict)
	if !strings.Contains(err.Error(), c.ARN) {
		t.Fatalf("%v does not name the target", err)
	}
	ok(t, r.DetachPolicy(ctx, acct, "P", c.ARN))
	mark := len(r.store.log())
	ok(t, r.DeletePolicy(ctx, acct, "P"))
	wantEqual(t, r.eventsAfter(mark), []event.Event{event.PolicyChanged{Policy: "P", Change: event.PolicyDeleted, VersionID: "1"}})
	wantCode(t, r.DeletePolicy(ctx, acct, "P"), fault.ResourceNotFound)
	_, err = r.DescribePolicy(ctx, acct, "P")
	wantCode(t, err, fault.ResourceNotFound)
}

func TestListPolicies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range []string{"c", "a", "b"} {
		r.addPolicy(t, name)
		r.pass(time.Second)
	}
	for ascending, want := range map[bool]string{true: "cab", false: "bac"} {
		got := ""
		for _, p := range allPages(t, 2, func(p Page) (Listed[Policy], error) { return r.ListPolicies(t.Context(), acct, ascending, p) }) {
			got += p.Name
		}
		wantEqual(t, got, want)
	}
}

// fleet-management §2, security-provisioning §1.6: two policies on a group,
// ten on a certificate, attaching twice is once.
func TestAttachPolicy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	group, c := r.addGroup(t, "G", ""), r.addCertificate(t)
	names := []string{"p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "pa"}
	for i, name := range names {
		r.addPolicy(t, name)
		for target, most := range map[string]int{group.ARN: 2, c.ARN: 10} {
			var want fault.Code
			if i >= most {
				want = fault.LimitExceeded
			}
			if err := r.AttachPolicy(ctx, acct, name, target); fault.CodeOf(err) != want {
				t.Errorf("%d. policy on %s: %v", i+1, target, err)
			}
		}
	}
	mark := len(r.store.log())
	ok(t, r.AttachPolicy(ctx, acct, "p0", c.ARN))
	wantEqual(t, len(r.store.log()), mark)
	targets := must[Listed[string]](t)(r.ListTargetsForPolicy(ctx, acct, "p1", Page{}))
	wantEqual(t, targets.Items, []string{c.ARN, group.ARN})
	attached := allPages(t, 3, func(p Page) (Listed[string], error) { return r.ListAttachedPolicies(ctx, acct, c.ARN, false, p) })
	wantEqual(t, attached, names[:10])
	for name, bad := range map[string]struct {
		policy, target string
		code           fault.Code
	}{
		"unknown policy":      {"None", c.ARN, fault.ResourceNotFound},
		"unknown certificate": {"p0", c.ARN[:len(c.ARN)-64] + strings.Repeat("a", 64), fault.ResourceNotFound},
		"unknown group":       {"p0", "arn:aws:iot:us-east-1:000000000000:thinggroup/None", fault.ResourceNotFound},
		"thing":               {"p0", "arn:aws:iot:us-east-1:000000000000:thing/T", fault.InvalidRequest},
		"identity":            {"p0", "us-east-1:11111111-2222-3333-4444-555555555555", fault.InvalidRequest},
		"another account":     {"p0", "arn:aws:iot:us-east-1:000000000001:thinggroup/G", fault.InvalidRequest},
		"another region":      {"p0", "arn:aws:iot:eu-west-1:000000000000:thinggroup/G", fault.InvalidRequest},
	} {
		if err := r.AttachPolicy(ctx, acct, bad.policy, bad.target); fault.CodeOf(err) != bad.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDetachPolicy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.addPolicy(t, "P")
	c := r.addCertificate(t)
	ok(t, r.DetachPolicy(ctx, acct, "P", c.ARN))
	ok(t, r.AttachPolicy(ctx, acct, "P", c.ARN))
	mark := len(r.store.log())
	ok(t, r.DetachPolicy(ctx, acct, "P", c.ARN))
	wantEqual(t, r.eventsAfter(mark), []event.Event{event.PolicyDetached{Policy: "P", Target: c.ARN}})
	// The operation's model lists no not-found error.
	wantCode(t, r.DetachPolicy(ctx, acct, "None", c.ARN), fault.InvalidRequest)
	wantCode(t, r.DetachPolicy(ctx, acct, "P", "arn:aws:iot:us-east-1:000000000000:thinggroup/None"), fault.InvalidRequest)
}

// fleet-management §2: policies of the certificate, of the thing's static
// groups and of all their ancestors.
func TestEffectivePolicies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	for _, name := range []string{"onRoot", "onMid", "onLeaf", "onOther", "onCert", "shared"} {
		r.addPolicy(t, name)
	}
	c := r.addCertificate(t)
	root, mid, leaf := r.addGroup(t, "root", ""), r.addGroup(t, "mid", "root"), r.addGroup(t, "leaf", "mid")
	sibling := r.addGroup(t, "sibling", "root")
	for _, a := range [][2]string{
		{"onRoot", root.ARN},
		{"onMid", mid.ARN},
		{"onLeaf", leaf.ARN},
		{"onOther", sibling.ARN},
		{"onCert", c.ARN},
		{"shared", c.ARN},
		{"shared", root.ARN},
	} {
		ok(t, r.AttachPolicy(ctx, acct, a[0], a[1]))
	}
	r.addThing(t, "T")
	r.joinGroup(t, "T", "leaf")
	r.addDynamic(t, "dyn", "*")
	ok(t, r.CommitMembership(ctx, []MembershipChange{{Account: acct, Group: "dyn", Thing: "T", Added: true}}))
	for name, q := range map[string]struct {
		principal, thing string
		want             string
	}{
		"principal":           {c.ARN, "", "onCert shared"},
		"thing":               {"", "T", "onLeaf onMid onRoot shared"},
		"both":                {c.ARN, "T", "onCert onLeaf onMid onRoot shared"},
		"group":               {mid.ARN, "", "onMid onRoot shared"},
		"thing without group": {c.ARN, "U", "onCert shared"},
	} {
		if q.thing == "U" {
			r.addThing(t, "U")
		}
		var got []string
		for _, p := range must[[]EffectivePolicy](t)(r.GetEffectivePolicies(ctx, acct, q.principal, q.thing)) {
			got = append(got, p.Name)
			wantEqual(t, string(p.Document), `{"n":"`+p.Name+`"}`)
			wantEqual(t, p.VersionID, "1")
		}
		if strings.Join(got, " ") != q.want {
			t.Errorf("%s: %v, want %s", name, got, q.want)
		}
	}
	sources := map[string][]PolicyAttachment{}
	for _, p := range must[[]EffectivePolicy](t)(r.EffectivePolicies(ctx, acct, c.ARN, "T")) {
		sources[p.Name] = p.Attachments
	}
	wantEqual(t, sources, map[string][]PolicyAttachment{
		"onCert": {{Target: c.ARN}},
		"onLeaf": {{Target: leaf.ARN}},
		"onMid":  {{Target: mid.ARN, Through: "leaf"}},
		"onRoot": {{Target: root.ARN, Through: "leaf"}},
		"shared": {{Target: c.ARN}, {Target: root.ARN, Through: "leaf"}},
	})
	must[PolicyVersion](t)(r.CreatePolicyVersion(ctx, acct, "onCert", `{"new":1}`, true))
	got := must[[]EffectivePolicy](t)(r.EffectivePolicies(ctx, acct, c.ARN, ""))
	wantEqual(t, string(got[0].Document), `{"new":1}`)
	_, err := r.GetEffectivePolicies(ctx, acct, "", "")
	wantCode(t, err, fault.InvalidRequest)
	_, err = r.GetEffectivePolicies(ctx, acct, "", "None")
	wantCode(t, err, fault.ResourceNotFound)
	attached := must[Listed[string]](t)(r.ListAttachedPolicies(ctx, acct, leaf.ARN, true, Page{}))
	wantEqual(t, attached.Items, []string{"onLeaf", "onMid", "onRoot", "shared"})
	direct := must[Listed[string]](t)(r.ListAttachedPolicies(ctx, acct, leaf.ARN, false, Page{}))
	wantEqual(t, direct.Items, []string{"onLeaf"})
}
