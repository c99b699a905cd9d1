package registry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/store"
)

// waiting is a certificate that waits for the device of claim c1, with its proof.
func (r *rig) waiting(t *testing.T) (KeysAndCertificate, *OwnershipProof) {
	t.Helper()
	made := must[KeysAndCertificate](t)(r.CreatePendingKeys(t.Context(), acct, PendingCommand{
		Claim: "c1", TokenHash: "t1", Until: start.Add(time.Hour),
	}))
	return made, &OwnershipProof{Claim: "c1", TokenHash: "t1"}
}

// devicePlan is what a usual template comes to.
func devicePlan(certificateID string) *provtemplate.Plan {
	return &provtemplate.Plan{
		Thing: &provtemplate.Thing{
			LogicalName: "thing", Name: "pump-1", TypeName: "pump", BillingGroup: "ops",
			Attributes: map[string]string{"serial": "1", "site": "leeds"}, Groups: []string{"leeds", "pumps"},
			OnAttributes: provtemplate.DoNothing, OnType: provtemplate.DoNothing, OnGroups: provtemplate.DoNothing,
		},
		Certificate: &provtemplate.Certificate{LogicalName: "certificate", ID: certificateID, Active: true, OnStatus: provtemplate.DoNothing},
		Policies: []provtemplate.Policy{
			{LogicalName: "policy", Name: "pump-device"},
			{LogicalName: "inline", Name: "inline", Document: `{"n":1}`},
		},
		DeviceConfiguration: map[string]string{},
	}
}

// planned makes what the usual template refers to.
func (r *rig) planned(t *testing.T) {
	t.Helper()
	must[ThingType](t)(r.CreateThingType(t.Context(), acct, CreateThingTypeCommand{Name: "pump"}))
	must[BillingGroup](t)(r.CreateBillingGroup(t.Context(), acct, CreateBillingGroupCommand{Name: "ops"}))
	r.addGroup(t, "leeds", "")
	r.addGroup(t, "pumps", "")
	r.addPolicy(t, "pump-device")
}

func TestProvisionIsOneCommit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.planned(t)
	c, proof := r.waiting(t)
	wantEqual(t, c.Status, StatusPendingActivation)
	mark, commits := len(r.store.log()), 0
	r.store.hook(func(store.Batch) error {
		commits++
		return nil
	})
	made := must[Provisioned](t)(r.Provision(t.Context(), acct, ProvisionCommand{
		Plan: devicePlan(c.ID), Proof: proof,
		Joined: func(p Provisioned) (store.Batch, error) {
			return store.Batch{Events: []event.Envelope{{Event: event.DeviceProvisioned{Thing: p.Thing, ThingCreated: p.ThingCreated}}}}, nil
		},
	}))
	r.store.unhook()
	wantEqual(t, commits, 1)
	scope := r.scope(acct)
	wantEqual(t, made, Provisioned{
		Thing: "pump-1", ThingCreated: true, TypeName: "pump", Attributes: map[string]string{"serial": "1", "site": "leeds"},
		CertificateID: c.ID, CertificatePEM: c.PEM,
		ResourceARNs: map[string]string{
			"thing": scope.ARN("thing", "pump-1"), "certificate": scope.ARN("cert", c.ID),
			"policy": scope.ARN("policy", "pump-device"), "inline": scope.ARN("policy", "inline"),
		},
	})
	var names []string
	for _, e := range r.eventsAfter(mark) {
		names = append(names, event.TypeName(e))
	}
	slices.Sort(names)
	wantEqual(t, names, []string{
		"CertificateStatusChanged", "DeviceProvisioned", "MembershipChanged", "MembershipChanged",
		"PolicyAttached", "PolicyAttached", "PolicyChanged", "PrincipalAttached", "ThingCreated",
	})
	thing := must[Thing](t)(r.DescribeThing(t.Context(), acct, "pump-1"))
	wantEqual(t, thing.Groups, []Membership{{Group: "leeds"}, {Group: "pumps"}})
	wantEqual(t, thing.BillingGroup, "ops")
	wantEqual(t, must[Certificate](t)(r.DescribeCertificate(t.Context(), acct, c.ID)).Status, StatusActive)
	if n := must[int](t)(r.CountPending(t.Context(), acct, "c1", 9)); n != 0 {
		t.Errorf("%d certificates still wait", n)
	}
	// The proof is good once.
	_, err := r.Provision(t.Context(), acct, ProvisionCommand{Plan: devicePlan(c.ID), Proof: proof})
	if !errors.Is(err, ErrNotOwned) {
		t.Errorf("the second use of a proof: %v", err)
	}
}

func TestProvisionAllOrNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(*provtemplate.Plan)
		code  fault.Code
	}{
		"no such group":         {func(p *provtemplate.Plan) { p.Thing.Groups = []string{"leeds", "york"} }, fault.ResourceNotFound},
		"no such type":          {func(p *provtemplate.Plan) { p.Thing.TypeName = "valve" }, fault.ResourceNotFound},
		"no such billing group": {func(p *provtemplate.Plan) { p.Thing.BillingGroup = "x" }, fault.ResourceNotFound},
		"no such policy":        {func(p *provtemplate.Plan) { p.Policies[0].Name = "none" }, fault.ResourceNotFound},
		"bad document":          {func(p *provtemplate.Plan) { p.Policies[1].Document = "x" }, fault.MalformedPolicy},
		"bad thing name":        {func(p *provtemplate.Plan) { p.Thing.Name = "a b" }, fault.InvalidRequest},
		"bad attribute":         {func(p *provtemplate.Plan) { p.Thing.Attributes = map[string]string{"a b": "x"} }, fault.InvalidRequest},
		"no such certificate":   {func(p *provtemplate.Plan) { p.Certificate.ID = fmt.Sprintf("%064d", 1) }, fault.ResourceNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.planned(t)
			w, proof := r.waiting(t)
			before := r.store.records()
			plan := devicePlan(w.ID)
			c.spoil(plan)
			_, err := r.Provision(t.Context(), acct, ProvisionCommand{Plan: plan, Proof: proof})
			wantCode(t, err, c.code)
			wantEqual(t, r.store.records(), before)
			// What is put right succeeds with the same proof.
			must[Provisioned](t)(r.Provision(t.Context(), acct, ProvisionCommand{Plan: devicePlan(w.ID), Proof: proof}))
		})
	}
}

// Override settings of security-provisioning §3.2 on a thing that exists.
func TestProvisionOverrides(t *testing.T) {
	t.Parallel()
	type want struct {
		Attributes map[string]string
		TypeName   string
		Groups     []string
		Code       fault.Code
	}
	kept := want{Attributes: map[string]string{"site": "york", "old": "1"}, TypeName: "valve", Groups: []string{"york"}}
	with := func(edit func(*want)) want {
		w := kept
		w.Attributes = maps.Clone(kept.Attributes)
		edit(&w)
		return w
	}
	for name, c := range map[string]struct {
		edit func(*provtemplate.Thing)
		want want
	}{
		"nothing": {func(*provtemplate.Thing) {}, kept},
		"merge attributes": {
			func(p *provtemplate.Thing) { p.OnAttributes = provtemplate.Merge },
			with(func(w *want) { w.Attributes = map[string]string{"site": "leeds", "old": "1", "serial": "1"} }),
		},
		"replace attributes": {
			func(p *provtemplate.Thing) { p.OnAttributes = provtemplate.Replace },
			with(func(w *want) { w.Attributes = map[string]string{"site": "leeds", "serial": "1"} }),
		},
		"replace without attributes": {
			func(p *provtemplate.Thing) { p.OnAttributes, p.Attributes = provtemplate.Replace, nil }, kept,
		},
		"fail on attributes": {
			func(p *provtemplate.Thing) { p.OnAttributes = provtemplate.Fail },
			with(func(w *want) { w.Code = fault.Conflict }),
		},
		"replace type": {
			func(p *provtemplate.Thing) { p.OnType = provtemplate.Replace },
			with(func(w *want) { w.TypeName = "pump" }),
		},
		"fail on type": {
			func(p *provtemplate.Thing) { p.OnType = provtemplate.Fail },
			with(func(w *want) { w.Code = fault.Conflict }),
		},
		"merge groups": {
			func(p *provtemplate.Thing) { p.OnGroups = provtemplate.Merge },
			with(func(w *want) { w.Groups = []string{"leeds", "pumps", "york"} }),
		},
		"replace groups": {
			func(p *provtemplate.Thing) { p.OnGroups = provtemplate.Replace },
			with(func(w *want) { w.Groups = []string{"leeds", "pumps"} }),
		},
		"replace by no groups": {
			func(p *provtemplate.Thing) { p.OnGroups, p.Groups = provtemplate.Replace, []string{} },
			with(func(w *want) { w.Groups = []string{} }),
		},
		"fail on groups": {
			func(p *provtemplate.Thing) { p.OnGroups = provtemplate.Fail },
			with(func(w *want) { w.Code = fault.Conflict }),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.planned(t)
			must[ThingType](t)(r.CreateThingType(t.Context(), acct, CreateThingTypeCommand{Name: "valve"}))
			r.addGroup(t, "york", "")
			must[Thing](t)(r.CreateThing(t.Context(), acct, CreateThingCommand{
				Name: "pump-1", TypeName: "valve", Attributes: map[string]string{"site": "york", "old": "1"},
			}))
			r.joinGroup(t, "pump-1", "york")
			w, proof := r.waiting(t)
			plan := devicePlan(w.ID)
			c.edit(plan.Thing)
			made, err := r.Provision(t.Context(), acct, ProvisionCommand{Plan: plan, Proof: proof})
			wantCode(t, err, c.want.Code)
			if made.ThingCreated {
				t.Error("the thing existed")
			}
			thing := must[Thing](t)(r.DescribeThing(t.Context(), acct, "pump-1"))
			groups := []string{}
			for _, m := range thing.Groups {
				groups = append(groups, m.Group)
			}
			wantEqual(t, want{thing.Attributes, thing.TypeName, groups, c.want.Code}, c.want)
			if c.want.Code != "" {
				wantEqual(t, must[Certificate](t)(r.DescribeCertificate(t.Context(), acct, w.ID)).Status, StatusPendingActivation)
			}
		})
	}
}

// Two devices with one serial number at the same moment: one makes the thing,
// the other one finds it, and both act as it, unless the template says FAIL.
func TestProvisionOneThingAtOnce(t *testing.T) {
	t.Parallel()
	for name, on := range map[string]provtemplate.Override{"shared": provtemplate.DoNothing, "exclusive": provtemplate.Fail} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const devices = 8
			r := newRig(t)
			r.planned(t)
			var certificates []KeysAndCertificate
			var proof *OwnershipProof
			for range devices {
				c, p := r.waiting(t)
				certificates, proof = append(certificates, c), p
			}
			var created, refused int
			var mu sync.Mutex
			var all sync.WaitGroup
			for _, c := range certificates {
				all.Go(func() {
					plan := devicePlan(c.ID)
					plan.Thing.OnAttributes = on
					made, err := r.Provision(context.WithoutCancel(t.Context()), acct, ProvisionCommand{Plan: plan, Proof: proof})
					mu.Lock()
					defer mu.Unlock()
					switch {
					case fault.CodeOf(err) == fault.Conflict:
						refused++
					case err != nil:
						t.Error(err)
					case made.ThingCreated:
						created++
					}
				})
			}
			all.Wait()
			want := 0
			if on == provtemplate.Fail {
				want = devices - 1
			}
			if created != 1 || refused != want {
				t.Errorf("%d created, %d refused; want 1 and %d", created, refused, want)
			}
			principals := must[Listed[Attachment]](t)(r.ListThingPrincipals(t.Context(), acct, "pump-1", "", Page{Limit: 100}))
			if len(principals.Items) != devices-want {
				t.Errorf("%d principals act as the thing, want %d", len(principals.Items), devices-want)
			}
		})
	}
}

func TestProvisionFromRequestAndTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.planned(t)
	k := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	plan := devicePlan("")
	plan.Certificate.CSR = request(t, k)
	made := must[Provisioned](t)(r.Provision(t.Context(), acct, ProvisionCommand{Plan: plan}))
	c := must[Certificate](t)(r.DescribeCertificate(t.Context(), acct, made.CertificateID))
	wantEqual(t, c.Status, StatusActive)
	wantEqual(t, c.PEM, made.CertificatePEM)
	// The same line again makes another certificate of the same thing.
	again := must[Provisioned](t)(r.Provision(t.Context(), acct, ProvisionCommand{Plan: plan}))
	if again.CertificateID == made.CertificateID || again.ThingCreated {
		t.Errorf("again: %+v", again)
	}
	// A certificate that exists is taken, and only REPLACE changes its state.
	plan = devicePlan(made.CertificateID)
	plan.Certificate.Active = false
	must[Provisioned](t)(r.Provision(t.Context(), acct, ProvisionCommand{Plan: plan}))
	wantEqual(t, must[Certificate](t)(r.DescribeCertificate(t.Context(), acct, made.CertificateID)).Status, StatusActive)
	plan.Certificate.OnStatus = provtemplate.Replace
	must[Provisioned](t)(r.Provision(t.Context(), acct, ProvisionCommand{Plan: plan}))
	wantEqual(t, must[Certificate](t)(r.DescribeCertificate(t.Context(), acct, made.CertificateID)).Status, StatusInactive)
	plan.Certificate.OnStatus = provtemplate.Fail
	_, err := r.Provision(t.Context(), acct, ProvisionCommand{Plan: plan})
	wantCode(t, err, fault.Conflict)
	ok(t, r.UpdateCertificate(t.Context(), acct, made.CertificateID, StatusRevoked))
	plan.Certificate.OnStatus = provtemplate.Replace
	_, err = r.Provision(t.Context(), acct, ProvisionCommand{Plan: plan})
	wantCode(t, err, fault.CertificateState)
}

// A device that asks with its own certificate gets a second one for the same
// thing, in the same kind of attachment.
func TestProvisionRenews(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{NonExclusiveThing, ExclusiveThing} {
		r := newRig(t)
		r.planned(t)
		r.addThing(t, "pump-1")
		old := r.addCertificate(t)
		ok(t, r.AttachThingPrincipal(t.Context(), acct, "pump-1", old.ARN, kind))
		w, proof := r.waiting(t)
		made := must[Provisioned](t)(r.Provision(t.Context(), acct, ProvisionCommand{Plan: devicePlan(w.ID), Proof: proof, Asking: old.ID}))
		if !made.Renews {
			t.Errorf("%s: it is no renewal", kind)
		}
		held := must[Listed[Attachment]](t)(r.ListPrincipalThings(t.Context(), acct, w.ARN, "", Page{Limit: 9}))
		wantEqual(t, held.Items, []Attachment{{Name: "pump-1", Kind: kind}})
	}
}

func TestProofs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.planned(t)
	c, good := r.waiting(t)
	for name, proof := range map[string]OwnershipProof{
		"other claim": {Claim: "c2", TokenHash: good.TokenHash},
		"other token": {Claim: good.Claim, TokenHash: "t2"},
		"empty":       {},
	} {
		if _, err := r.Owned(t.Context(), acct, c.ID, proof); !errors.Is(err, ErrNotOwned) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := r.Provision(t.Context(), acct, ProvisionCommand{Plan: devicePlan(c.ID), Proof: &proof}); !errors.Is(err, ErrNotOwned) {
			t.Errorf("%s: provisioned, %v", name, err)
		}
	}
	if _, err := r.Owned(t.Context(), "000000000001", c.ID, *good); !errors.Is(err, ErrNotOwned) {
		t.Errorf("other account: %v", err)
	}
	wantEqual(t, must[Certificate](t)(r.Owned(t.Context(), acct, c.ID, *good)).ID, c.ID)
	// One that an operator has judged is not the device's any more.
	ok(t, r.UpdateCertificate(t.Context(), acct, c.ID, StatusInactive))
	if _, err := r.Owned(t.Context(), acct, c.ID, *good); !errors.Is(err, ErrNotOwned) {
		t.Errorf("judged: %v", err)
	}
}

func TestSweepPending(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.planned(t)
	unused, proof := r.waiting(t)
	used, _ := r.waiting(t)
	judged, _ := r.waiting(t)
	attached, _ := r.waiting(t)
	claim := must[KeysAndCertificate](t)(r.CreateClaim(t.Context(), acct, "Pumps", start.Add(5*time.Minute), func(string) store.Batch { return store.Batch{} }))
	other := must[KeysAndCertificate](t)(r.CreatePendingKeys(t.Context(), "000000000001", PendingCommand{Claim: "c1", TokenHash: "x", Until: start.Add(time.Minute)}))
	must[Provisioned](t)(r.Provision(t.Context(), acct, ProvisionCommand{Plan: devicePlan(used.ID), Proof: proof}))
	ok(t, r.UpdateCertificate(t.Context(), acct, judged.ID, StatusActive))
	ok(t, r.AttachPolicy(t.Context(), acct, "pump-device", attached.ARN))
	exists := func(id string) bool {
		_, err := r.DescribeCertificate(t.Context(), acct, id)
		return err == nil
	}
	sweep := func(want int) {
		t.Helper()
		wantEqual(t, must[int](t)(r.SweepPending(t.Context())), want)
	}
	sweep(0)
	r.pass(2 * time.Minute)
	sweep(1)
	_, err := r.DescribeCertificate(t.Context(), "000000000001", other.ID)
	wantCode(t, err, fault.ResourceNotFound)
	r.pass(4 * time.Minute)
	sweep(1)
	if exists(claim.ID) || !exists(unused.ID) {
		t.Error("after five minutes the claim is gone and what waits is not")
	}
	r.pass(54*time.Minute - time.Millisecond)
	sweep(0)
	if _, err := r.Owned(t.Context(), acct, unused.ID, *proof); err != nil {
		t.Errorf("within the hour: %v", err)
	}
	r.pass(time.Millisecond)
	if _, err := r.Owned(t.Context(), acct, unused.ID, *proof); !errors.Is(err, ErrNotOwned) {
		t.Errorf("after an hour: %v", err)
	}
	sweep(1)
	if exists(unused.ID) || !exists(used.ID) || !exists(judged.ID) || !exists(attached.ID) {
		t.Error("only what was used for nothing goes")
	}
	sweep(0)
	for _, record := range r.store.records() {
		if k := record.Key.Parts()[0]; k == kindCertificatePending || k == kindCertificatePendingClaim {
			t.Errorf("row %s is left", record.Key)
		}
	}
}

func TestClaimsOfTrustedUsers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.planned(t)
	r.addThing(t, "pump-1")
	claim := must[KeysAndCertificate](t)(r.CreateClaim(t.Context(), acct, "Pumps", start.Add(5*time.Minute), func(string) store.Batch { return store.Batch{} }))
	wantEqual(t, claim.Status, StatusActive)
	wantEqual(t, claim.NotAfter, start.Add(5*time.Minute))
	if n := len(must[Listed[Certificate]](t)(r.ListCertificates(t.Context(), acct, true, Page{Limit: 9})).Items); n != 0 {
		t.Errorf("%d certificates are listed", n)
	}
	wantCode(t, r.AttachPolicy(t.Context(), acct, "pump-device", claim.ARN), fault.InvalidRequest)
	wantCode(t, r.AttachThingPrincipal(t.Context(), acct, "pump-1", claim.ARN, ""), fault.InvalidRequest)
	_, err := r.Provision(t.Context(), acct, ProvisionCommand{Plan: devicePlan(claim.ID)})
	wantCode(t, err, fault.CertificateState)
	// A group's policy of a thing that the claim connects as changes nothing.
	policies := must[[]EffectivePolicy](t)(r.EffectivePolicies(t.Context(), acct, claim.ARN, "pump-1"))
	if len(policies) != 1 || policies[0].Name != claimPolicyName {
		t.Errorf("policies %+v", policies)
	}
}
