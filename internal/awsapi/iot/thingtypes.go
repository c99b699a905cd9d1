package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// registerThingTypes offers the operations on thing types.
func (a *api) registerThingTypes(s *awsapi.Server) {
	offer(s, "CreateThingType", on(fleet.ARNThingType, func(in *iotwire.CreateThingTypeInput) string { return in.ThingTypeName }),
		a.createThingType)
	offer(s, "UpdateThingType", on(fleet.ARNThingType, func(in *iotwire.UpdateThingTypeInput) string { return in.ThingTypeName }),
		a.updateThingType)
	offer(s, "DescribeThingType", on(fleet.ARNThingType, func(in *iotwire.DescribeThingTypeInput) string { return in.ThingTypeName }), a.describeThingType)
	offer(s, "DeprecateThingType", on(fleet.ARNThingType, func(in *iotwire.DeprecateThingTypeInput) string { return in.ThingTypeName }), a.deprecateThingType)
	offer(s, "DeleteThingType", on(fleet.ARNThingType, func(in *iotwire.DeleteThingTypeInput) string { return in.ThingTypeName }), a.deleteThingType)
	offer(s, "ListThingTypes", awsapi.All, a.listThingTypes)
}

func (a *api) createThingType(ctx context.Context, c *awsapi.Call, in *iotwire.CreateThingTypeInput) (*iotwire.CreateThingTypeOutput, error) {
	properties := value(in.ThingTypeProperties)
	created, err := a.Registry.CreateThingType(ctx, c.Account, registry.CreateThingTypeCommand{
		Name: in.ThingTypeName, Description: value(properties.ThingTypeDescription), SearchableAttributes: properties.SearchableAttributes,
		Tags:        tagsOf(in.Tags),
		Propagating: value(propagating(properties.Mqtt5Configuration)),
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.CreateThingTypeOutput{ThingTypeName: &created.Name, ThingTypeARN: &created.ARN, ThingTypeID: &created.ID}, nil
}

func (a *api) updateThingType(ctx context.Context, c *awsapi.Call, in *iotwire.UpdateThingTypeInput) (*iotwire.UpdateThingTypeOutput, error) {
	properties := value(in.ThingTypeProperties)
	return &iotwire.UpdateThingTypeOutput{}, a.Registry.UpdateThingType(ctx, c.Account, registry.UpdateThingTypeCommand{
		Name: in.ThingTypeName, Description: properties.ThingTypeDescription, SearchableAttributes: properties.SearchableAttributes,
		Propagating: propagating(properties.Mqtt5Configuration),
	})
}

// propagating is the list in a configuration, nil without one.
func propagating(c *iotwire.Mqtt5Configuration) *[]registry.PropagatingAttribute {
	if c == nil {
		return nil
	}
	list := make([]registry.PropagatingAttribute, len(c.PropagatingAttributes))
	for i, p := range c.PropagatingAttributes {
		list[i] = registry.PropagatingAttribute{
			UserPropertyKey: value(p.UserPropertyKey), ThingAttribute: value(p.ThingAttribute), ConnectionAttribute: value(p.ConnectionAttribute),
		}
	}
	return &list
}

// mqtt5Configuration reverses propagating; nil for a type that propagates
// nothing.
func mqtt5Configuration(list []registry.PropagatingAttribute) *iotwire.Mqtt5Configuration {
	if len(list) == 0 {
		return nil
	}
	return &iotwire.Mqtt5Configuration{
		PropagatingAttributes: each(list, func(p registry.PropagatingAttribute) iotwire.PropagatingAttribute {
			return iotwire.PropagatingAttribute{
				UserPropertyKey: &p.UserPropertyKey, ThingAttribute: optional(p.ThingAttribute), ConnectionAttribute: optional(p.ConnectionAttribute),
			}
		}),
	}
}

func (a *api) deprecateThingType(ctx context.Context, c *awsapi.Call, in *iotwire.DeprecateThingTypeInput) (*iotwire.DeprecateThingTypeOutput, error) {
	return &iotwire.DeprecateThingTypeOutput{}, a.Registry.DeprecateThingType(ctx, c.Account, in.ThingTypeName, value(in.UndoDeprecate))
}

func (a *api) deleteThingType(ctx context.Context, c *awsapi.Call, in *iotwire.DeleteThingTypeInput) (*iotwire.DeleteThingTypeOutput, error) {
	return &iotwire.DeleteThingTypeOutput{}, a.Registry.DeleteThingType(ctx, c.Account, in.ThingTypeName)
}

func (a *api) describeThingType(ctx context.Context, c *awsapi.Call, in *iotwire.DescribeThingTypeInput) (*iotwire.DescribeThingTypeOutput, error) {
	t, err := a.Registry.DescribeThingType(ctx, c.Account, in.ThingTypeName)
	if err != nil {
		return nil, err
	}
	d := thingType(t)
	return &iotwire.DescribeThingTypeOutput{
		ThingTypeName: d.ThingTypeName, ThingTypeARN: d.ThingTypeARN, ThingTypeID: &t.ID,
		ThingTypeProperties: d.ThingTypeProperties, ThingTypeMetadata: d.ThingTypeMetadata,
	}, nil
}

// thingType is a type as lists show it.
func thingType(t registry.ThingType) iotwire.ThingTypeDefinition {
	metadata := &iotwire.ThingTypeMetadata{CreationDate: &t.Created, Deprecated: new(!t.Deprecated.IsZero())}
	if *metadata.Deprecated {
		metadata.DeprecationDate = &t.Deprecated
	}
	return iotwire.ThingTypeDefinition{
		ThingTypeName: &t.Name, ThingTypeARN: &t.ARN, ThingTypeMetadata: metadata,
		ThingTypeProperties: &iotwire.ThingTypeProperties{
			ThingTypeDescription: &t.Description, SearchableAttributes: each(t.SearchableAttributes, func(name string) string { return name }),
			Mqtt5Configuration: mqtt5Configuration(t.Propagating),
		},
	}
}

func (a *api) listThingTypes(ctx context.Context, c *awsapi.Call, in *iotwire.ListThingTypesInput) (*iotwire.ListThingTypesOutput, error) {
	only := value(in.ThingTypeName)
	p, err := page(c, in.NextToken, in.MaxResults, only)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListThingTypes(ctx, c.Account, only, p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListThingTypesOutput{NextToken: c.NextToken(listed.Next, only), ThingTypes: each(listed.Items, thingType)}, nil
}
