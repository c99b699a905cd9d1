package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// registerThings offers the operations on things.
func (a *api) registerThings(s *awsapi.Server) {
	offer(s, "CreateThing", on(fleet.ARNThing, func(in *iotwire.CreateThingInput) string { return in.ThingName }), a.createThing)
	offer(s, "UpdateThing", on(fleet.ARNThing, func(in *iotwire.UpdateThingInput) string { return in.ThingName }), a.updateThing)
	offer(s, "DeleteThing", on(fleet.ARNThing, func(in *iotwire.DeleteThingInput) string { return in.ThingName }), a.deleteThing)
	offer(s, "DescribeThing", on(fleet.ARNThing, func(in *iotwire.DescribeThingInput) string { return in.ThingName }), a.describeThing)
	offer(s, "ListThings", awsapi.All, a.listThings)
}

func (a *api) createThing(ctx context.Context, c *awsapi.Call, in *iotwire.CreateThingInput) (*iotwire.CreateThingOutput, error) {
	thing, err := a.Registry.CreateThing(ctx, c.Account, registry.CreateThingCommand{
		Name: in.ThingName, TypeName: value(in.ThingTypeName),
		Attributes: attributesOf(in.AttributePayload).Values, BillingGroup: value(in.BillingGroupName),
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.CreateThingOutput{ThingName: &thing.Name, ThingARN: &thing.ARN, ThingID: &thing.ID}, nil
}

// attributesOf is the change that a payload asks for.
func attributesOf(p *iotwire.AttributePayload) registry.Attributes {
	if p == nil {
		return registry.Attributes{}
	}
	return registry.Attributes{Values: p.Attributes, Merge: value(p.Merge)}
}

// attributeChange is the change that a payload asks for, nil without one.
func attributeChange(p *iotwire.AttributePayload) *registry.Attributes {
	if p == nil {
		return nil
	}
	return new(attributesOf(p))
}

func (a *api) updateThing(ctx context.Context, c *awsapi.Call, in *iotwire.UpdateThingInput) (*iotwire.UpdateThingOutput, error) {
	return &iotwire.UpdateThingOutput{}, a.Registry.UpdateThing(ctx, c.Account, registry.UpdateThingCommand{
		Name: in.ThingName, TypeName: value(in.ThingTypeName), RemoveType: value(in.RemoveThingType),
		Attributes: attributeChange(in.AttributePayload), ExpectedVersion: in.ExpectedVersion,
	})
}

func (a *api) deleteThing(ctx context.Context, c *awsapi.Call, in *iotwire.DeleteThingInput) (*iotwire.DeleteThingOutput, error) {
	return &iotwire.DeleteThingOutput{}, a.DeleteThing(ctx, c.Account, in.ThingName, in.ExpectedVersion)
}

func (a *api) describeThing(ctx context.Context, c *awsapi.Call, in *iotwire.DescribeThingInput) (*iotwire.DescribeThingOutput, error) {
	thing, err := a.Registry.DescribeThing(ctx, c.Account, in.ThingName)
	if err != nil {
		return nil, err
	}
	return &iotwire.DescribeThingOutput{
		DefaultClientID: &thing.Name, ThingName: &thing.Name, ThingID: &thing.ID, ThingARN: &thing.ARN,
		ThingTypeName: optional(thing.TypeName), Attributes: filled(thing.Attributes), Version: &thing.Version,
		BillingGroupName: optional(thing.BillingGroup),
	}, nil
}

func (a *api) listThings(ctx context.Context, c *awsapi.Call, in *iotwire.ListThingsInput) (*iotwire.ListThingsOutput, error) {
	filter := []string{
		value(in.ThingTypeName), value(in.AttributeName), value(in.AttributeValue), word(in.UsePrefixAttributeValue),
	}
	p, err := page(c, in.NextToken, in.MaxResults, filter...)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListThings(ctx, c.Account, registry.ListThingsFilter{
		TypeName: value(in.ThingTypeName), AttributeName: value(in.AttributeName),
		AttributeValue: in.AttributeValue, ValueIsPrefix: value(in.UsePrefixAttributeValue),
	}, p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListThingsOutput{
		NextToken: c.NextToken(listed.Next, filter...),
		Things: each(listed.Items, func(t registry.Thing) iotwire.ThingAttribute {
			return iotwire.ThingAttribute{
				ThingName: &t.Name, ThingARN: &t.ARN, ThingTypeName: optional(t.TypeName),
				Attributes: filled(t.Attributes), Version: &t.Version,
			}
		}),
	}, nil
}
