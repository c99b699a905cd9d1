package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// registerThingGroups offers the operations on static groups, of which those
// that read serve dynamic groups too.
func (a *api) registerThingGroups(s *awsapi.Server) {
	offer(s, "CreateThingGroup", on(fleet.ARNThingGroup, func(in *iotwire.CreateThingGroupInput) string { return in.ThingGroupName }),
		a.createThingGroup)
	offer(s, "UpdateThingGroup", on(fleet.ARNThingGroup, func(in *iotwire.UpdateThingGroupInput) string { return in.ThingGroupName }), a.updateThingGroup)
	offer(s, "DeleteThingGroup", on(fleet.ARNThingGroup, func(in *iotwire.DeleteThingGroupInput) string { return in.ThingGroupName }), a.deleteThingGroup)
	offer(s, "DescribeThingGroup", on(fleet.ARNThingGroup, func(in *iotwire.DescribeThingGroupInput) string { return in.ThingGroupName }), a.describeThingGroup)
	offer(s, "ListThingGroups", awsapi.All, a.listThingGroups)
}

func (a *api) createThingGroup(ctx context.Context, c *awsapi.Call, in *iotwire.CreateThingGroupInput) (*iotwire.CreateThingGroupOutput, error) {
	properties := value(in.ThingGroupProperties)
	g, err := a.Registry.CreateThingGroup(ctx, c.Account, registry.CreateThingGroupCommand{
		Name: in.ThingGroupName, Parent: value(in.ParentGroupName), Description: value(properties.ThingGroupDescription),
		Attributes: attributesOf(properties.AttributePayload).Values, Tags: tagsOf(in.Tags),
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.CreateThingGroupOutput{ThingGroupName: &g.Name, ThingGroupARN: &g.ARN, ThingGroupID: &g.ID}, nil
}

// groupProperties is the change that a request's properties ask for.
func groupProperties(p iotwire.ThingGroupProperties) registry.GroupProperties {
	return registry.GroupProperties{Description: p.ThingGroupDescription, Attributes: attributeChange(p.AttributePayload)}
}

func (a *api) updateThingGroup(ctx context.Context, c *awsapi.Call, in *iotwire.UpdateThingGroupInput) (*iotwire.UpdateThingGroupOutput, error) {
	version, err := a.Registry.UpdateThingGroup(ctx, c.Account, in.ThingGroupName, groupProperties(in.ThingGroupProperties), in.ExpectedVersion)
	if err != nil {
		return nil, err
	}
	return &iotwire.UpdateThingGroupOutput{Version: &version}, nil
}

func (a *api) deleteThingGroup(ctx context.Context, c *awsapi.Call, in *iotwire.DeleteThingGroupInput) (*iotwire.DeleteThingGroupOutput, error) {
	return &iotwire.DeleteThingGroupOutput{}, a.Registry.DeleteThingGroup(ctx, c.Account, in.ThingGroupName, in.ExpectedVersion)
}

func (a *api) describeThingGroup(ctx context.Context, c *awsapi.Call, in *iotwire.DescribeThingGroupInput) (*iotwire.DescribeThingGroupOutput, error) {
	g, err := a.Registry.DescribeThingGroup(ctx, c.Account, in.ThingGroupName)
	if err != nil {
		return nil, err
	}
	metadata := &iotwire.ThingGroupMetadata{CreationDate: &g.Created, ParentGroupName: optional(g.Parent())}
	if len(g.Ancestors) > 0 {
		metadata.RootToParentThingGroups = groupNames(c, g.Ancestors)
	}
	out := &iotwire.DescribeThingGroupOutput{
		ThingGroupName: &g.Name, ThingGroupARN: &g.ARN, ThingGroupID: &g.ID, Version: &g.Version, ThingGroupMetadata: metadata,
		ThingGroupProperties: &iotwire.ThingGroupProperties{
			ThingGroupDescription: &g.Description,
			AttributePayload:      &iotwire.AttributePayload{Attributes: filled(g.Attributes)},
		},
	}
	if g.Query != "" {
		out.QueryString, out.Status = &g.Query, &g.Status
		out.IndexName, out.QueryVersion = new(registry.ThingIndex), new(registry.QueryVersion)
	}
	return out, nil
}

// groupNames pairs names of groups with their ARNs.
func groupNames(c *awsapi.Call, names []string) []iotwire.GroupNameAndARN {
	return each(names, func(name string) iotwire.GroupNameAndARN {
		return iotwire.GroupNameAndARN{GroupName: &name, GroupARN: new(c.ARN(fleet.ARNThingGroup, name))}
	})
}

func (a *api) listThingGroups(ctx context.Context, c *awsapi.Call, in *iotwire.ListThingGroupsInput) (*iotwire.ListThingGroupsOutput, error) {
	filter := []string{value(in.ParentGroup), value(in.NamePrefixFilter), word(in.Recursive)}
	p, err := page(c, in.NextToken, in.MaxResults, filter...)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListThingGroups(ctx, c.Account, registry.ListThingGroupsFilter{
		Parent: value(in.ParentGroup), NamePrefix: value(in.NamePrefixFilter), Recursive: in.Recursive,
	}, p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListThingGroupsOutput{NextToken: c.NextToken(listed.Next, filter...), ThingGroups: groupNames(c, listed.Items)}, nil
}
