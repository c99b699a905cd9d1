package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// noOrder is the gap of lists that AWS orders by a time that is not kept here.
const noOrder = "isAscendingOrder is refused"

// registerAttachments offers the operations that join policies and targets.
func (a *api) registerAttachments(s *awsapi.Server) {
	offer(s, "AttachPolicy", func(_ *awsapi.Call, in *iotwire.AttachPolicyInput) []string { return []string{in.Target} }, a.attachPolicy)
	offer(s, "DetachPolicy", func(_ *awsapi.Call, in *iotwire.DetachPolicyInput) []string { return []string{in.Target} }, a.detachPolicy)
	offer(s, "AttachPrincipalPolicy", func(_ *awsapi.Call, in *iotwire.AttachPrincipalPolicyInput) []string { return []string{in.Principal} }, a.attachPrincipalPolicy)
	offer(s, "DetachPrincipalPolicy", func(_ *awsapi.Call, in *iotwire.DetachPrincipalPolicyInput) []string { return []string{in.Principal} }, a.detachPrincipalPolicy)
	offer(s, "ListPrincipalPolicies", func(_ *awsapi.Call, in *iotwire.ListPrincipalPoliciesInput) []string { return []string{in.Principal} },
		a.listPrincipalPolicies, awsapi.Partial(noOrder))
	offer(s, "ListPolicyPrincipals", on(fleet.ARNPolicy, func(in *iotwire.ListPolicyPrincipalsInput) string { return in.PolicyName }),
		a.listPolicyPrincipals, awsapi.Partial(noOrder))
	offer(s, "ListAttachedPolicies", func(_ *awsapi.Call, in *iotwire.ListAttachedPoliciesInput) []string { return []string{in.Target} }, a.listAttachedPolicies)
	offer(s, "ListTargetsForPolicy", on(fleet.ARNPolicy, func(in *iotwire.ListTargetsForPolicyInput) string { return in.PolicyName }), a.listTargetsForPolicy)
	offer(s, "GetEffectivePolicies", func(_ *awsapi.Call, in *iotwire.GetEffectivePoliciesInput) []string {
		if in.Principal == nil {
			return []string{awsapi.AnyResource}
		}
		return []string{*in.Principal}
	}, a.getEffectivePolicies, awsapi.Partial("cognitoIdentityPoolId is refused"))
}

func (a *api) attachPolicy(ctx context.Context, c *awsapi.Call, in *iotwire.AttachPolicyInput) (*iotwire.AttachPolicyOutput, error) {
	return &iotwire.AttachPolicyOutput{}, a.Registry.AttachPolicy(ctx, c.Account, in.PolicyName, in.Target)
}

func (a *api) detachPolicy(ctx context.Context, c *awsapi.Call, in *iotwire.DetachPolicyInput) (*iotwire.DetachPolicyOutput, error) {
	return &iotwire.DetachPolicyOutput{}, a.Registry.DetachPolicy(ctx, c.Account, in.PolicyName, in.Target)
}

func (a *api) attachPrincipalPolicy(
	ctx context.Context, c *awsapi.Call, in *iotwire.AttachPrincipalPolicyInput,
) (*iotwire.AttachPrincipalPolicyOutput, error) {
	return &iotwire.AttachPrincipalPolicyOutput{}, a.Registry.AttachPrincipalPolicy(ctx, c.Account, in.PolicyName, in.Principal)
}

func (a *api) detachPrincipalPolicy(
	ctx context.Context, c *awsapi.Call, in *iotwire.DetachPrincipalPolicyInput,
) (*iotwire.DetachPrincipalPolicyOutput, error) {
	return &iotwire.DetachPrincipalPolicyOutput{}, a.Registry.DetachPrincipalPolicy(ctx, c.Account, in.PolicyName, in.Principal)
}

func (a *api) listPrincipalPolicies(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListPrincipalPoliciesInput,
) (*iotwire.ListPrincipalPoliciesOutput, error) {
	if err := refuse("isAscendingOrder", value(in.AscendingOrder)); err != nil {
		return nil, err
	}
	p, err := markerPage(c, in.Marker, in.PageSize, in.Principal)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListPrincipalPolicies(ctx, c.Account, in.Principal, p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListPrincipalPoliciesOutput{
		NextMarker: nextMarker(c, listed.Next, in.Principal),
		Policies: each(listed.Items, func(name string) iotwire.Policy {
			return iotwire.Policy{PolicyName: &name, PolicyARN: new(c.ARN(fleet.ARNPolicy, name))}
		}),
	}, nil
}

func (a *api) listPolicyPrincipals(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListPolicyPrincipalsInput,
) (*iotwire.ListPolicyPrincipalsOutput, error) {
	if err := refuse("isAscendingOrder", value(in.AscendingOrder)); err != nil {
		return nil, err
	}
	p, err := markerPage(c, in.Marker, in.PageSize, in.PolicyName)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListPolicyPrincipals(ctx, c.Account, in.PolicyName, p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListPolicyPrincipalsOutput{NextMarker: nextMarker(c, listed.Next, in.PolicyName), Principals: listed.Items}, nil
}

func (a *api) listAttachedPolicies(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListAttachedPoliciesInput,
) (*iotwire.ListAttachedPoliciesOutput, error) {
	filter := []string{in.Target, word(in.Recursive)}
	p, err := markerPage(c, in.Marker, in.PageSize, filter...)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListAttachedPolicies(ctx, c.Account, in.Target, value(in.Recursive), p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListAttachedPoliciesOutput{
		NextMarker: nextMarker(c, listed.Next, filter...),
		Policies: each(listed.Items, func(name string) iotwire.Policy {
			return iotwire.Policy{PolicyName: &name, PolicyARN: new(c.ARN(fleet.ARNPolicy, name))}
		}),
	}, nil
}

func (a *api) listTargetsForPolicy(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListTargetsForPolicyInput,
) (*iotwire.ListTargetsForPolicyOutput, error) {
	p, err := markerPage(c, in.Marker, in.PageSize, in.PolicyName)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListTargetsForPolicy(ctx, c.Account, in.PolicyName, p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListTargetsForPolicyOutput{NextMarker: nextMarker(c, listed.Next, in.PolicyName), Targets: listed.Items}, nil
}

func (a *api) getEffectivePolicies(
	ctx context.Context, c *awsapi.Call, in *iotwire.GetEffectivePoliciesInput,
) (*iotwire.GetEffectivePoliciesOutput, error) {
	if err := refuse("cognitoIdentityPoolId", in.CognitoIdentityPoolID != nil); err != nil {
		return nil, err
	}
	policies, err := a.Registry.GetEffectivePolicies(ctx, c.Account, value(in.Principal), value(in.ThingName))
	if err != nil {
		return nil, err
	}
	return &iotwire.GetEffectivePoliciesOutput{EffectivePolicies: each(policies, func(p registry.EffectivePolicy) iotwire.EffectivePolicy {
		return iotwire.EffectivePolicy{PolicyName: &p.Name, PolicyARN: &p.ARN, PolicyDocument: new(string(p.Document))}
	})}, nil
}
