package registry

import (
	"context"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/store"
)

// Rehearsal is what a plan would meet.
type Rehearsal struct {
	// ThingExists says that the plan's override settings would count.
	ThingExists bool
	// PolicyExists is by name, for each policy of the plan.
	PolicyExists map[string]bool
	// Missing are what the plan needs and the account does not have.
	Missing []fleet.ARN
	// Refusal is why Provision would refuse the plan, nil when it would not.
	Refusal error
}

// Rehearse decides about a plan as Provision does, and writes nothing. No
// certificate is made: one that the plan asks for with a request is left out,
// and so is the one with the id standIn, which stands for one that is not there
// yet. The error is one of the rehearsal itself.
func (s *Service) Rehearse(ctx context.Context, account fleet.Account, plan *provtemplate.Plan, standIn string) (Rehearsal, error) {
	r := Rehearsal{PolicyExists: map[string]bool{}}
	a := s.attempt(ctx, account)
	if err := lookAhead(ctx, a, plan, &r); err != nil {
		return Rehearsal{}, store.Fault(err)
	}
	rehearsed := *plan
	if c := plan.Certificate; c != nil && (c.CSR != "" || c.ID == standIn) {
		rehearsed.Certificate = nil
	}
	r.Refusal = store.Fault(s.rehearse(ctx, a, &rehearsed))
	switch fault.CodeOf(r.Refusal) { //nolint:exhaustive // the others are about the plan
	case fault.Internal, fault.Unavailable:
		return Rehearsal{}, r.Refusal
	}
	return r, nil
}

// rehearse does all of Provision but the commit.
func (s *Service) rehearse(ctx context.Context, a *attempt, plan *provtemplate.Plan) error {
	c := ProvisionCommand{Plan: plan}
	certify, err := s.certifying(ctx, a.account, &c)
	if err != nil {
		return err
	}
	if err := s.checkPlan(plan); err != nil {
		return err
	}
	return s.makeAll(ctx, a, &c, certify, &Provisioned{ResourceARNs: map[string]string{}})
}

// lookAhead finds out what there is of a plan.
func lookAhead(ctx context.Context, a *attempt, plan *provtemplate.Plan, r *Rehearsal) error {
	if t := plan.Thing; t != nil {
		var err error
		if r.ThingExists, err = thereIs[thingRecord](ctx, a, kindThing, t.Name); err != nil {
			return err
		}
		if t.TypeName != "" {
			if err := mustBe[typeRecord](ctx, a, r, kindThingType, fleet.ARNThingType, t.TypeName); err != nil {
				return err
			}
		}
		for _, group := range t.Groups {
			if err := mustBe[groupRecord](ctx, a, r, kindGroup, fleet.ARNThingGroup, group); err != nil {
				return err
			}
		}
		if t.BillingGroup != "" {
			if err := mustBe[billingGroupRecord](ctx, a, r, kindBillingGroup, fleet.ARNBillingGroup, t.BillingGroup); err != nil {
				return err
			}
		}
	}
	for _, p := range plan.Policies {
		var err error
		if p.Document == "" {
			err = mustBe[policyRecord](ctx, a, r, kindPolicy, fleet.ARNPolicy, p.Name)
		}
		if err == nil {
			r.PolicyExists[p.Name], err = thereIs[policyRecord](ctx, a, kindPolicy, p.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// thereIs reports whether the account has a resource.
func thereIs[T any, P stored[T]](ctx context.Context, a *attempt, kind, name string) (bool, error) {
	found, err := load[T, P](ctx, a, key(kind, a.account, name))
	return found != nil, err
}

// mustBe notes a resource that the account does not have.
func mustBe[T any, P stored[T]](ctx context.Context, a *attempt, r *Rehearsal, kind, arnKind, name string) error {
	found, err := thereIs[T, P](ctx, a, kind, name)
	if err == nil && !found {
		r.Missing = append(r.Missing, fleet.ARN{Scope: a.scope, Kind: arnKind, Name: name})
	}
	return err
}
