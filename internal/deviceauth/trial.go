package deviceauth

import (
	"context"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// Trial asks what a principal could do, without a connection and without doing
// it. Whether its certificate may connect at all is not asked: policies can be
// tried before a certificate is made active.
type Trial struct {
	// Principal is the ARN of a certificate, or of a group, whose policies then
	// stand alone.
	Principal string
	// ClientID is the client that the principal would connect as. Without one the
	// caller is no MQTT connection: it has no thing, as a call over HTTPS has
	// none.
	ClientID string
	// Add and Skip change, by name, which policies are in force.
	Add, Skip []string
	Checks    []Check
}

// Check is one action on resources, all of which must be allowed.
type Check struct {
	// Action is for example iotpolicy.ActionPublish.
	Action string
	// Resources are whole ARNs.
	Resources []string
}

// maxTried bounds the resources of one check, which each statement in force is
// compared with.
const maxTried = 1000

// maxNamed bounds the policies that a trial adds and skips, each of which is
// read and compiled.
const maxNamed = 100

// Verdict is the answer to a check.
type Verdict struct {
	// Outcome is the worst of those of the resources: ExplicitDeny before
	// ImplicitDeny before Allowed.
	Outcome iotpolicy.Outcome
	// Allowing have an Allow statement about some resource, Denying a Deny
	// statement; Silent have neither about some resource. A boundary that refuses
	// some resource is among the last under a name that starts with system/.
	Allowing, Denying, Silent []iotpolicy.PolicyRef
	// Missing names the variables and condition keys without a value that some
	// statement needed.
	Missing []string
}

// Try answers a trial with one verdict for each check, by the same policies,
// thing and compiled set as a live connection's. Faults: InvalidRequest and
// ResourceNotFound.
func (s *Service) Try(ctx context.Context, account fleet.Account, t Trial) ([]Verdict, error) {
	if len(t.Add)+len(t.Skip) > maxNamed {
		return nil, fault.New(fault.InvalidRequest, "policyNamesToAdd and policyNamesToSkip must have at most %d entries together", maxNamed)
	}
	for _, name := range t.Skip {
		if slices.Contains(t.Add, name) {
			return nil, fault.New(fault.InvalidRequest, "policyNamesToAdd and policyNamesToSkip both name %q", name)
		}
	}
	for i := range t.Checks {
		if len(t.Checks[i].Resources) == 0 {
			return nil, fault.New(fault.InvalidRequest, "authInfos[%d].resources is empty: there is nothing to be allowed", i)
		}
		if len(t.Checks[i].Resources) > maxTried {
			return nil, fault.New(fault.InvalidRequest, "authInfos[%d].resources has more than %d elements", i, maxTried)
		}
		for _, resource := range t.Checks[i].Resources {
			if !strings.HasPrefix(resource, "arn:") {
				return nil, fault.New(fault.InvalidRequest, "authInfos[%d].resources: %q is no ARN, such as %s", i, brief(resource),
					s.scope(account).ARN(fleet.ARNTopic, "plant/7"))
			}
		}
	}
	id, boundary, err := s.trialIdentity(ctx, account, t.Principal)
	if err != nil {
		return nil, err
	}
	by := &caller{clientID: t.ClientID}
	var thing *Thing
	if t.ClientID != "" && id.Principal.Kind == fleet.PrincipalCertificate {
		found, attached, err := s.registry.ConnectionThing(ctx, account, t.Principal, t.ClientID)
		if err != nil {
			return nil, unavailable(err)
		}
		if attached {
			thing = &found
		}
	}
	policies, err := s.effective(ctx, &id, thing)
	if err != nil {
		return nil, err
	}
	if policies, err = s.changed(ctx, account, policies, t.Add, t.Skip); err != nil {
		return nil, err
	}
	set, err := s.compileThese(policies, &id, by, thing)
	if err != nil {
		return nil, err
	}
	bounds, err := s.bound(boundary, account)
	if err != nil {
		return nil, err
	}
	set = bounds.within(set)
	verdicts := make([]Verdict, len(t.Checks))
	for i := range t.Checks {
		verdicts[i] = check(set, bounds, &t.Checks[i])
	}
	return verdicts, nil
}

// trialIdentity is who a trial is about: a registered certificate in any state,
// or a group; and the boundary that holds it.
func (s *Service) trialIdentity(ctx context.Context, account fleet.Account, principal string) (Identity, Boundary, error) {
	arn, ok := fleet.ParseARN(principal)
	switch {
	case ok && arn.Scope == s.scope(account) && arn.Kind == fleet.ARNCertificate && fleet.ValidCertificateID(arn.Name):
		id, found, err := s.stored(ctx, account, arn.Name)
		return id, found.Boundary, err
	case ok && arn.Scope == s.scope(account) && arn.Kind == fleet.ARNThingGroup && fleet.ValidName(arn.Name):
		return Identity{Account: account, Principal: fleet.Principal{ID: arn.Name, ARN: principal}}, Boundary{}, nil
	}
	return Identity{}, Boundary{}, fault.New(fault.InvalidRequest,
		"principal must be the ARN of a certificate or of a thing group of this account and region; identities of a pool are not offered")
}

// changed adds policies and takes others away. All named ones must exist, so
// that a misspelt name is no answer.
func (s *Service) changed(ctx context.Context, account fleet.Account, policies []Policy, add, skip []string) ([]Policy, error) {
	for _, name := range skip {
		if _, err := s.registry.Policy(ctx, account, name); err != nil {
			return nil, err //nolint:wrapcheck // it is a fault that names the policy
		}
	}
	kept := slices.DeleteFunc(slices.Clone(policies), func(p Policy) bool { return slices.Contains(skip, p.Name) })
	for _, name := range add {
		p, err := s.registry.Policy(ctx, account, name)
		if err != nil {
			return nil, err //nolint:wrapcheck // it is a fault that names the policy
		}
		if !slices.ContainsFunc(kept, func(have Policy) bool { return have.Name == p.Name }) {
			kept = append(kept, p)
		}
	}
	return kept, nil
}

// check answers one check.
func check(set *iotpolicy.Set, bounds *bounds, c *Check) Verdict {
	v := Verdict{Outcome: iotpolicy.Allowed}
	refs := set.Policies()
	allowing, denying, silent := make([]bool, len(refs)), make([]bool, len(refs)), make([]bool, len(refs))
	bounded := false
	for _, resource := range c.Resources {
		d := set.Decide(c.Action, resource)
		bounded = bounded || bounds.refuses(request{action: c.Action, resource: resource})
		if d.Outcome == iotpolicy.ExplicitDeny || v.Outcome == iotpolicy.Allowed {
			v.Outcome = d.Outcome
		}
		v.Missing = append(v.Missing, d.Missing...)
		for i, outcome := range set.ByPolicy(c.Action, resource) {
			allowing[i] = allowing[i] || outcome.Allows
			denying[i] = denying[i] || outcome.Denies
			silent[i] = silent[i] || !outcome.Allows && !outcome.Denies
		}
	}
	for i := range refs {
		if allowing[i] {
			v.Allowing = append(v.Allowing, refs[i])
		}
		if denying[i] {
			v.Denying = append(v.Denying, refs[i])
		}
		if silent[i] {
			v.Silent = append(v.Silent, refs[i])
		}
	}
	if bounded { // it is silent like a policy that lacks a statement, and no other can add one
		v.Silent = append(v.Silent, bounds.set.Policies()...)
	}
	slices.Sort(v.Missing)
	v.Missing = slices.Compact(v.Missing)
	return v
}
