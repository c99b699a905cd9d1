package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// registerPrincipals offers the operations that join things and principals.
func (a *api) registerPrincipals(s *awsapi.Server) {
	offer(s, "AttachThingPrincipal", func(c *awsapi.Call, in *iotwire.AttachThingPrincipalInput) []string {
		return []string{c.ARN(fleet.ARNThing, in.ThingName), in.Principal}
	}, a.attachThingPrincipal)
	offer(s, "DetachThingPrincipal", func(c *awsapi.Call, in *iotwire.DetachThingPrincipalInput) []string {
		return []string{c.ARN(fleet.ARNThing, in.ThingName), in.Principal}
	}, a.detachThingPrincipal)
	offer(s, "ListThingPrincipals", on(fleet.ARNThing, func(in *iotwire.ListThingPrincipalsInput) string { return in.ThingName }), a.listThingPrincipals)
	offer(s, "ListThingPrincipalsV2", on(fleet.ARNThing, func(in *iotwire.ListThingPrincipalsV2Input) string { return in.ThingName }), a.listThingPrincipalsV2)
	offer(s, "ListPrincipalThings", func(_ *awsapi.Call, in *iotwire.ListPrincipalThingsInput) []string { return []string{in.Principal} }, a.listPrincipalThings)
	offer(s, "ListPrincipalThingsV2", func(_ *awsapi.Call, in *iotwire.ListPrincipalThingsV2Input) []string { return []string{in.Principal} }, a.listPrincipalThingsV2)
}

func (a *api) attachThingPrincipal(
	ctx context.Context, c *awsapi.Call, in *iotwire.AttachThingPrincipalInput,
) (*iotwire.AttachThingPrincipalOutput, error) {
	return &iotwire.AttachThingPrincipalOutput{},
		a.Registry.AttachThingPrincipal(ctx, c.Account, in.ThingName, in.Principal, value(in.ThingPrincipalType))
}

func (a *api) detachThingPrincipal(
	ctx context.Context, c *awsapi.Call, in *iotwire.DetachThingPrincipalInput,
) (*iotwire.DetachThingPrincipalOutput, error) {
	return &iotwire.DetachThingPrincipalOutput{}, a.Registry.DetachThingPrincipal(ctx, c.Account, in.ThingName, in.Principal)
}

// endName is the other end of an attachment.
func endName(x registry.Attachment) string { return x.Name }

func (a *api) listThingPrincipals(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListThingPrincipalsInput,
) (*iotwire.ListThingPrincipalsOutput, error) {
	p, err := page(c, in.NextToken, in.MaxResults, in.ThingName)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListThingPrincipals(ctx, c.Account, in.ThingName, "", p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListThingPrincipalsOutput{NextToken: c.NextToken(listed.Next, in.ThingName), Principals: each(listed.Items, endName)}, nil
}

func (a *api) listThingPrincipalsV2(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListThingPrincipalsV2Input,
) (*iotwire.ListThingPrincipalsV2Output, error) {
	filter := []string{in.ThingName, value(in.ThingPrincipalType)}
	p, err := page(c, in.NextToken, in.MaxResults, filter...)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListThingPrincipals(ctx, c.Account, in.ThingName, value(in.ThingPrincipalType), p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListThingPrincipalsV2Output{
		NextToken: c.NextToken(listed.Next, filter...),
		ThingPrincipalObjects: each(listed.Items, func(x registry.Attachment) iotwire.ThingPrincipalObject {
			return iotwire.ThingPrincipalObject{Principal: x.Name, ThingPrincipalType: &x.Kind}
		}),
	}, nil
}

func (a *api) listPrincipalThings(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListPrincipalThingsInput,
) (*iotwire.ListPrincipalThingsOutput, error) {
	p, err := page(c, in.NextToken, in.MaxResults, in.Principal)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListPrincipalThings(ctx, c.Account, in.Principal, "", p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListPrincipalThingsOutput{NextToken: c.NextToken(listed.Next, in.Principal), Things: each(listed.Items, endName)}, nil
}

func (a *api) listPrincipalThingsV2(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListPrincipalThingsV2Input,
) (*iotwire.ListPrincipalThingsV2Output, error) {
	filter := []string{in.Principal, value(in.ThingPrincipalType)}
	p, err := page(c, in.NextToken, in.MaxResults, filter...)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListPrincipalThings(ctx, c.Account, in.Principal, value(in.ThingPrincipalType), p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListPrincipalThingsV2Output{
		NextToken: c.NextToken(listed.Next, filter...),
		PrincipalThingObjects: each(listed.Items, func(x registry.Attachment) iotwire.PrincipalThingObject {
			return iotwire.PrincipalThingObject{ThingName: x.Name, ThingPrincipalType: &x.Kind}
		}),
	}, nil
}
