package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// registerDynamicGroups offers the operations that define dynamic groups.
func (a *api) registerDynamicGroups(s *awsapi.Server) {
	offer(s, "CreateDynamicThingGroup", on(fleet.ARNThingGroup, func(in *iotwire.CreateDynamicThingGroupInput) string { return in.ThingGroupName }),
		a.createDynamicThingGroup)
	offer(s, "UpdateDynamicThingGroup", on(fleet.ARNThingGroup, func(in *iotwire.UpdateDynamicThingGroupInput) string { return in.ThingGroupName }),
		a.updateDynamicThingGroup)
	offer(s, "DeleteDynamicThingGroup", on(fleet.ARNThingGroup, func(in *iotwire.DeleteDynamicThingGroupInput) string { return in.ThingGroupName }),
		a.deleteDynamicThingGroup)
}

func (a *api) createDynamicThingGroup(
	ctx context.Context, c *awsapi.Call, in *iotwire.CreateDynamicThingGroupInput,
) (*iotwire.CreateDynamicThingGroupOutput, error) {
	properties := value(in.ThingGroupProperties)
	g, err := a.Registry.CreateDynamicThingGroup(ctx, c.Account, registry.CreateDynamicThingGroupCommand{
		Name: in.ThingGroupName, Description: value(properties.ThingGroupDescription),
		Attributes: attributesOf(properties.AttributePayload).Values,
		Query:      in.QueryString, IndexName: value(in.IndexName), QueryVersion: value(in.QueryVersion),
		Tags: tagsOf(in.Tags),
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.CreateDynamicThingGroupOutput{
		ThingGroupName: &g.Name, ThingGroupARN: &g.ARN, ThingGroupID: &g.ID, QueryString: &g.Query,
		IndexName: new(registry.ThingIndex), QueryVersion: new(registry.QueryVersion),
	}, nil
}

func (a *api) updateDynamicThingGroup(
	ctx context.Context, c *awsapi.Call, in *iotwire.UpdateDynamicThingGroupInput,
) (*iotwire.UpdateDynamicThingGroupOutput, error) {
	version, err := a.Registry.UpdateDynamicThingGroup(ctx, c.Account, registry.UpdateDynamicThingGroupCommand{
		Name: in.ThingGroupName, Properties: groupProperties(in.ThingGroupProperties), Query: value(in.QueryString),
		IndexName: value(in.IndexName), QueryVersion: value(in.QueryVersion), ExpectedVersion: in.ExpectedVersion,
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.UpdateDynamicThingGroupOutput{Version: &version}, nil
}

func (a *api) deleteDynamicThingGroup(
	ctx context.Context, c *awsapi.Call, in *iotwire.DeleteDynamicThingGroupInput,
) (*iotwire.DeleteDynamicThingGroupOutput, error) {
	return &iotwire.DeleteDynamicThingGroupOutput{}, a.Registry.DeleteDynamicThingGroup(ctx, c.Account, in.ThingGroupName, in.ExpectedVersion)
}
