package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// registerPolicies offers the operations on policies and their versions.
func (a *api) registerPolicies(s *awsapi.Server) {
	offer(s, "CreatePolicy", on(fleet.ARNPolicy, func(in *iotwire.CreatePolicyInput) string { return in.PolicyName }), a.createPolicy)
	offer(s, "GetPolicy", on(fleet.ARNPolicy, func(in *iotwire.GetPolicyInput) string { return in.PolicyName }), a.getPolicy)
	offer(s, "DeletePolicy", on(fleet.ARNPolicy, func(in *iotwire.DeletePolicyInput) string { return in.PolicyName }), a.deletePolicy)
	offer(s, "ListPolicies", awsapi.All, a.listPolicies)
	offer(s, "CreatePolicyVersion", on(fleet.ARNPolicy, func(in *iotwire.CreatePolicyVersionInput) string { return in.PolicyName }), a.createPolicyVersion)
	offer(s, "GetPolicyVersion", on(fleet.ARNPolicy, func(in *iotwire.GetPolicyVersionInput) string { return in.PolicyName }), a.getPolicyVersion)
	offer(s, "ListPolicyVersions", on(fleet.ARNPolicy, func(in *iotwire.ListPolicyVersionsInput) string { return in.PolicyName }), a.listPolicyVersions)
	offer(s, "SetDefaultPolicyVersion", on(fleet.ARNPolicy, func(in *iotwire.SetDefaultPolicyVersionInput) string { return in.PolicyName }),
		a.setDefaultPolicyVersion)
	offer(s, "DeletePolicyVersion", on(fleet.ARNPolicy, func(in *iotwire.DeletePolicyVersionInput) string { return in.PolicyName }), a.deletePolicyVersion)
}

func (a *api) createPolicy(ctx context.Context, c *awsapi.Call, in *iotwire.CreatePolicyInput) (*iotwire.CreatePolicyOutput, error) {
	p, err := a.Registry.CreatePolicy(ctx, c.Account, in.PolicyName, in.PolicyDocument, tagsOf(in.Tags)...)
	if err != nil {
		return nil, err
	}
	return &iotwire.CreatePolicyOutput{PolicyName: &p.Name, PolicyARN: &p.ARN, PolicyDocument: &p.Document, PolicyVersionID: &p.DefaultVersionID}, nil
}

func (a *api) getPolicy(ctx context.Context, c *awsapi.Call, in *iotwire.GetPolicyInput) (*iotwire.GetPolicyOutput, error) {
	p, err := a.Registry.DescribePolicy(ctx, c.Account, in.PolicyName)
	if err != nil {
		return nil, err
	}
	return &iotwire.GetPolicyOutput{
		PolicyName: &p.Name, PolicyARN: &p.ARN, PolicyDocument: &p.Document, DefaultVersionID: &p.DefaultVersionID,
		CreationDate: &p.Created, LastModifiedDate: &p.Modified, GenerationID: &p.GenerationID,
	}, nil
}

func (a *api) deletePolicy(ctx context.Context, c *awsapi.Call, in *iotwire.DeletePolicyInput) (*iotwire.DeletePolicyOutput, error) {
	return &iotwire.DeletePolicyOutput{}, a.Registry.DeletePolicy(ctx, c.Account, in.PolicyName)
}

func (a *api) listPolicies(ctx context.Context, c *awsapi.Call, in *iotwire.ListPoliciesInput) (*iotwire.ListPoliciesOutput, error) {
	p, err := markerPage(c, in.Marker, in.PageSize, word(in.AscendingOrder))
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListPolicies(ctx, c.Account, value(in.AscendingOrder), p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListPoliciesOutput{
		NextMarker: nextMarker(c, listed.Next, word(in.AscendingOrder)),
		Policies: each(listed.Items, func(p registry.Policy) iotwire.Policy {
			return iotwire.Policy{PolicyName: &p.Name, PolicyARN: &p.ARN}
		}),
	}, nil
}

func (a *api) createPolicyVersion(ctx context.Context, c *awsapi.Call, in *iotwire.CreatePolicyVersionInput) (*iotwire.CreatePolicyVersionOutput, error) {
	v, err := a.Registry.CreatePolicyVersion(ctx, c.Account, in.PolicyName, in.PolicyDocument, value(in.SetAsDefault))
	if err != nil {
		return nil, err
	}
	return &iotwire.CreatePolicyVersionOutput{PolicyARN: &v.ARN, PolicyDocument: &v.Document, PolicyVersionID: &v.ID, IsDefaultVersion: &v.Default}, nil
}

func (a *api) getPolicyVersion(ctx context.Context, c *awsapi.Call, in *iotwire.GetPolicyVersionInput) (*iotwire.GetPolicyVersionOutput, error) {
	v, err := a.Registry.DescribePolicyVersion(ctx, c.Account, in.PolicyName, in.PolicyVersionID)
	if err != nil {
		return nil, err
	}
	return &iotwire.GetPolicyVersionOutput{
		PolicyName: &v.Policy, PolicyARN: &v.ARN, PolicyDocument: &v.Document, PolicyVersionID: &v.ID, IsDefaultVersion: &v.Default,
		CreationDate: &v.Created, LastModifiedDate: &v.Modified, GenerationID: &v.GenerationID,
	}, nil
}

func (a *api) listPolicyVersions(ctx context.Context, c *awsapi.Call, in *iotwire.ListPolicyVersionsInput) (*iotwire.ListPolicyVersionsOutput, error) {
	versions, err := a.Registry.ListPolicyVersions(ctx, c.Account, in.PolicyName)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListPolicyVersionsOutput{PolicyVersions: each(versions, func(v registry.PolicyVersion) iotwire.PolicyVersion {
		return iotwire.PolicyVersion{VersionID: &v.ID, IsDefaultVersion: &v.Default, CreateDate: &v.Created}
	})}, nil
}

func (a *api) setDefaultPolicyVersion(
	ctx context.Context, c *awsapi.Call, in *iotwire.SetDefaultPolicyVersionInput,
) (*iotwire.SetDefaultPolicyVersionOutput, error) {
	return &iotwire.SetDefaultPolicyVersionOutput{}, a.Registry.SetDefaultPolicyVersion(ctx, c.Account, in.PolicyName, in.PolicyVersionID)
}

func (a *api) deletePolicyVersion(ctx context.Context, c *awsapi.Call, in *iotwire.DeletePolicyVersionInput) (*iotwire.DeletePolicyVersionOutput, error) {
	return &iotwire.DeletePolicyVersionOutput{}, a.Registry.DeletePolicyVersion(ctx, c.Account, in.PolicyName, in.PolicyVersionID)
}
