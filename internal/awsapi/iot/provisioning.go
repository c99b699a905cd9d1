package iot

import (
	"context"
	"strconv"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/provtemplate"
)

// registerProvisioning offers the operations on provisioning templates, claims
// of trusted users, and RegisterThing.
func (a *api) registerProvisioning(s *awsapi.Server) {
	const functions = "targetArn of a hook names a function of the setting function.target; the role is kept and not assumed"
	template := fleet.ARNProvisioningTemplate
	offer(s, "CreateProvisioningTemplate", on(template, func(in *iotwire.CreateProvisioningTemplateInput) string { return in.TemplateName }),
		a.createTemplate, awsapi.Partial(functions))
	offer(s, "DescribeProvisioningTemplate", on(template, func(in *iotwire.DescribeProvisioningTemplateInput) string { return in.TemplateName }), a.describeTemplate)
	offer(s, "ListProvisioningTemplates", awsapi.All, a.listTemplates)
	offer(s, "UpdateProvisioningTemplate", on(template, func(in *iotwire.UpdateProvisioningTemplateInput) string { return in.TemplateName }),
		a.updateTemplate, awsapi.Partial(functions))
	offer(s, "DeleteProvisioningTemplate", on(template, func(in *iotwire.DeleteProvisioningTemplateInput) string { return in.TemplateName }), a.deleteTemplate)
	offer(s, "CreateProvisioningTemplateVersion",
		on(template, func(in *iotwire.CreateProvisioningTemplateVersionInput) string { return in.TemplateName }), a.createTemplateVersion)
	offer(s, "DescribeProvisioningTemplateVersion",
		on(template, func(in *iotwire.DescribeProvisioningTemplateVersionInput) string { return in.TemplateName }), a.describeTemplateVersion)
	offer(s, "ListProvisioningTemplateVersions",
		on(template, func(in *iotwire.ListProvisioningTemplateVersionsInput) string { return in.TemplateName }), a.listTemplateVersions)
	offer(s, "DeleteProvisioningTemplateVersion",
		on(template, func(in *iotwire.DeleteProvisioningTemplateVersionInput) string { return in.TemplateName }), a.deleteTemplateVersion)
	offer(s, "CreateProvisioningClaim", on(template, func(in *iotwire.CreateProvisioningClaimInput) string { return in.TemplateName }), a.createClaim)
	offer(s, "RegisterThing", awsapi.All, a.registerThing)
}

func (a *api) createTemplate(
	ctx context.Context, c *awsapi.Call, in *iotwire.CreateProvisioningTemplateInput,
) (*iotwire.CreateProvisioningTemplateOutput, error) {
	made, err := a.Provisioning.CreateTemplate(ctx, c.Account, provisioning.CreateTemplateCommand{
		Name: in.TemplateName, Description: value(in.Description), Body: in.TemplateBody, Enabled: value(in.Enabled),
		RoleARN: in.ProvisioningRoleARN, Hook: hookOf(in.PreProvisioningHook), Type: provtemplate.Kind(value(in.Type)), Tags: tagsOf(in.Tags),
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.CreateProvisioningTemplateOutput{
		TemplateARN: &made.ARN, TemplateName: &made.Name, DefaultVersionID: versionID(made.DefaultVersion),
	}, nil
}

// hookOf is a hook as the domain has it.
func hookOf(h *iotwire.ProvisioningHook) *provisioning.Hook {
	if h == nil {
		return nil
	}
	return &provisioning.Hook{TargetARN: h.TargetARN, PayloadVersion: value(h.PayloadVersion)}
}

// versionID is a version's number on the wire.
func versionID(n int64) *int32 { return new(int32(n)) }

func (a *api) describeTemplate(
	ctx context.Context, c *awsapi.Call, in *iotwire.DescribeProvisioningTemplateInput,
) (*iotwire.DescribeProvisioningTemplateOutput, error) {
	t, err := a.Provisioning.DescribeTemplate(ctx, c.Account, in.TemplateName)
	if err != nil {
		return nil, err
	}
	out := &iotwire.DescribeProvisioningTemplateOutput{
		CreationDate: &t.Created, LastModifiedDate: &t.Modified, DefaultVersionID: versionID(t.DefaultVersion), Description: optional(t.Description),
		Enabled: &t.Enabled, ProvisioningRoleARN: &t.RoleARN, TemplateARN: &t.ARN, TemplateName: &t.Name, TemplateBody: &t.Body, Type: new(string(t.Type)),
	}
	if t.Hook != nil {
		out.PreProvisioningHook = &iotwire.ProvisioningHook{TargetARN: t.Hook.TargetARN, PayloadVersion: &t.Hook.PayloadVersion}
	}
	return out, nil
}

func (a *api) listTemplates(ctx context.Context, c *awsapi.Call, in *iotwire.ListProvisioningTemplatesInput) (*iotwire.ListProvisioningTemplatesOutput, error) {
	p, err := page(c, in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	listed, next, err := a.Provisioning.ListTemplates(ctx, c.Account, p.After, p.Limit)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListProvisioningTemplatesOutput{
		NextToken: c.NextToken(next),
		Templates: each(listed, func(t provisioning.Template) iotwire.ProvisioningTemplateSummary {
			return iotwire.ProvisioningTemplateSummary{
				CreationDate: &t.Created, LastModifiedDate: &t.Modified, Description: optional(t.Description), Enabled: &t.Enabled,
				TemplateARN: &t.ARN, TemplateName: &t.Name, Type: new(string(t.Type)),
			}
		}),
	}, nil
}

func (a *api) updateTemplate(
	ctx context.Context, c *awsapi.Call, in *iotwire.UpdateProvisioningTemplateInput,
) (*iotwire.UpdateProvisioningTemplateOutput, error) {
	command := provisioning.UpdateTemplateCommand{
		Name: in.TemplateName, Description: in.Description, Enabled: in.Enabled, RoleARN: in.ProvisioningRoleARN,
		Hook: hookOf(in.PreProvisioningHook), RemoveHook: value(in.RemovePreProvisioningHook),
	}
	if in.DefaultVersionID != nil {
		command.DefaultVersion = new(int64(*in.DefaultVersionID))
	}
	_, err := a.Provisioning.UpdateTemplate(ctx, c.Account, command)
	return &iotwire.UpdateProvisioningTemplateOutput{}, err
}

func (a *api) deleteTemplate(
	ctx context.Context, c *awsapi.Call, in *iotwire.DeleteProvisioningTemplateInput,
) (*iotwire.DeleteProvisioningTemplateOutput, error) {
	return &iotwire.DeleteProvisioningTemplateOutput{}, a.Provisioning.DeleteTemplate(ctx, c.Account, in.TemplateName)
}

func (a *api) createTemplateVersion(
	ctx context.Context, c *awsapi.Call, in *iotwire.CreateProvisioningTemplateVersionInput,
) (*iotwire.CreateProvisioningTemplateVersionOutput, error) {
	of, made, err := a.Provisioning.CreateTemplateVersion(ctx, c.Account, in.TemplateName, in.TemplateBody, value(in.SetAsDefault))
	if err != nil {
		return nil, err
	}
	return &iotwire.CreateProvisioningTemplateVersionOutput{
		TemplateARN: &of.ARN, TemplateName: &of.Name, VersionID: versionID(made.ID), IsDefaultVersion: &made.Default,
	}, nil
}

func (a *api) describeTemplateVersion(
	ctx context.Context, c *awsapi.Call, in *iotwire.DescribeProvisioningTemplateVersionInput,
) (*iotwire.DescribeProvisioningTemplateVersionOutput, error) {
	v, err := a.Provisioning.DescribeTemplateVersion(ctx, c.Account, in.TemplateName, int64(in.VersionID))
	if err != nil {
		return nil, err
	}
	return &iotwire.DescribeProvisioningTemplateVersionOutput{
		CreationDate: &v.Created, IsDefaultVersion: &v.Default, TemplateBody: &v.Body, VersionID: versionID(v.ID),
	}, nil
}

func (a *api) listTemplateVersions(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListProvisioningTemplateVersionsInput,
) (*iotwire.ListProvisioningTemplateVersionsOutput, error) {
	p, err := page(c, in.NextToken, in.MaxResults, in.TemplateName)
	if err != nil {
		return nil, err
	}
	var after int64
	if p.After != "" {
		if after, err = strconv.ParseInt(p.After, 10, 64); err != nil {
			return nil, fault.Wrap(fault.InvalidRequest, err, "nextToken is not of this list")
		}
	}
	listed, next, err := a.Provisioning.ListTemplateVersions(ctx, c.Account, in.TemplateName, after, p.Limit)
	if err != nil {
		return nil, err
	}
	last := ""
	if next != 0 {
		last = strconv.FormatInt(next, 10)
	}
	return &iotwire.ListProvisioningTemplateVersionsOutput{
		NextToken: c.NextToken(last, in.TemplateName),
		Versions: each(listed, func(v provisioning.TemplateVersion) iotwire.ProvisioningTemplateVersionSummary {
			return iotwire.ProvisioningTemplateVersionSummary{CreationDate: &v.Created, IsDefaultVersion: &v.Default, VersionID: versionID(v.ID)}
		}),
	}, nil
}

func (a *api) deleteTemplateVersion(
	ctx context.Context, c *awsapi.Call, in *iotwire.DeleteProvisioningTemplateVersionInput,
) (*iotwire.DeleteProvisioningTemplateVersionOutput, error) {
	return &iotwire.DeleteProvisioningTemplateVersionOutput{},
		a.Provisioning.DeleteTemplateVersion(ctx, c.Account, in.TemplateName, int64(in.VersionID))
}

func (a *api) createClaim(ctx context.Context, c *awsapi.Call, in *iotwire.CreateProvisioningClaimInput) (*iotwire.CreateProvisioningClaimOutput, error) {
	claim, err := a.Provisioning.CreateClaim(ctx, c.Account, in.TemplateName)
	if err != nil {
		return nil, err
	}
	return &iotwire.CreateProvisioningClaimOutput{
		CertificateID: &claim.CertificateID, CertificatePem: &claim.CertificatePEM, Expiration: &claim.Expires,
		KeyPair: &iotwire.KeyPair{PrivateKey: &claim.PrivatePEM, PublicKey: &claim.PublicPEM},
	}, nil
}

func (a *api) registerThing(ctx context.Context, c *awsapi.Call, in *iotwire.RegisterThingInput) (*iotwire.RegisterThingOutput, error) {
	made, err := a.Provisioning.RegisterThing(ctx, c.Account, provisioning.RegisterCommand{
		Body: in.TemplateBody, Parameters: in.Parameters, Method: event.ProvisioningRegisterThing,
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.RegisterThingOutput{CertificatePem: optional(made.CertificatePEM), ResourceARNs: made.ResourceARNs}, nil
}
