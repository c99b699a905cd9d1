package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// registerMembership offers the operations on the place of things in groups.
func (a *api) registerMembership(s *awsapi.Server) {
	offer(s, "AddThingToThingGroup", func(c *awsapi.Call, in *iotwire.AddThingToThingGroupInput) []string {
		return pair(c, in.ThingName, in.ThingARN, in.ThingGroupName, in.ThingGroupARN)
	}, a.addThingToThingGroup)
	offer(s, "RemoveThingFromThingGroup", func(c *awsapi.Call, in *iotwire.RemoveThingFromThingGroupInput) []string {
		return pair(c, in.ThingName, in.ThingARN, in.ThingGroupName, in.ThingGroupARN)
	}, a.removeThingFromThingGroup)
	offer(s, "UpdateThingGroupsForThing", func(c *awsapi.Call, in *iotwire.UpdateThingGroupsForThingInput) []string {
		arns := []string{c.ARN(fleet.ARNThing, value(in.ThingName))}
		for _, list := range [][]string{in.ThingGroupsToAdd, in.ThingGroupsToRemove} {
			for _, group := range list {
				arns = append(arns, c.ARN(fleet.ARNThingGroup, group))
			}
		}
		return arns
	}, a.updateThingGroupsForThing)
	offer(s, "ListThingsInThingGroup", on(fleet.ARNThingGroup, func(in *iotwire.ListThingsInThingGroupInput) string { return in.ThingGroupName }),
		a.listThingsInThingGroup)
	offer(s, "ListThingGroupsForThing", on(fleet.ARNThing, func(in *iotwire.ListThingGroupsForThingInput) string { return in.ThingName }),
		a.listThingGroupsForThing)
}

// pair is the resources that a request names by name, by ARN or by both; the
// domain refuses a request in which both differ.
func pair(c *awsapi.Call, thing, thingARN, group, groupARN *string) []string {
	return pairOf(c, fleet.ARNThingGroup, thing, thingARN, group, groupARN)
}

// pairOf is pair for groups of another kind.
func pairOf(c *awsapi.Call, kind string, thing, thingARN, group, groupARN *string) []string {
	var arns []string
	for _, arn := range []*string{thingARN, groupARN} {
		if arn != nil {
			arns = append(arns, *arn)
		}
	}
	if thing != nil {
		arns = append(arns, c.ARN(fleet.ARNThing, *thing))
	}
	if group != nil {
		arns = append(arns, c.ARN(kind, *group))
	}
	if len(arns) == 0 {
		return []string{awsapi.AnyResource}
	}
	return arns
}

func (a *api) addThingToThingGroup(ctx context.Context, c *awsapi.Call, in *iotwire.AddThingToThingGroupInput) (*iotwire.AddThingToThingGroupOutput, error) {
	return &iotwire.AddThingToThingGroupOutput{}, a.Registry.AddThingToThingGroup(ctx, c.Account, registry.ThingAndGroup{
		ThingName: value(in.ThingName), ThingARN: value(in.ThingARN), GroupName: value(in.ThingGroupName), GroupARN: value(in.ThingGroupARN),
	}, value(in.OverrideDynamicGroups))
}

func (a *api) removeThingFromThingGroup(
	ctx context.Context, c *awsapi.Call, in *iotwire.RemoveThingFromThingGroupInput,
) (*iotwire.RemoveThingFromThingGroupOutput, error) {
	return &iotwire.RemoveThingFromThingGroupOutput{}, a.Registry.RemoveThingFromThingGroup(ctx, c.Account, registry.ThingAndGroup{
		ThingName: value(in.ThingName), ThingARN: value(in.ThingARN), GroupName: value(in.ThingGroupName), GroupARN: value(in.ThingGroupARN),
	})
}

func (a *api) updateThingGroupsForThing(
	ctx context.Context, c *awsapi.Call, in *iotwire.UpdateThingGroupsForThingInput,
) (*iotwire.UpdateThingGroupsForThingOutput, error) {
	return &iotwire.UpdateThingGroupsForThingOutput{}, a.Registry.UpdateThingGroupsForThing(ctx, c.Account, registry.UpdateGroupsCommand{
		Thing: value(in.ThingName), Add: in.ThingGroupsToAdd, Remove: in.ThingGroupsToRemove, OverrideDynamic: value(in.OverrideDynamicGroups),
	})
}

func (a *api) listThingsInThingGroup(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListThingsInThingGroupInput,
) (*iotwire.ListThingsInThingGroupOutput, error) {
	filter := []string{in.ThingGroupName, word(in.Recursive)}
	p, err := page(c, in.NextToken, in.MaxResults, filter...)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListThingsInThingGroup(ctx, c.Account, in.ThingGroupName, value(in.Recursive), p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListThingsInThingGroupOutput{NextToken: c.NextToken(listed.Next, filter...), Things: listed.Items}, nil
}

func (a *api) listThingGroupsForThing(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListThingGroupsForThingInput,
) (*iotwire.ListThingGroupsForThingOutput, error) {
	p, err := page(c, in.NextToken, in.MaxResults, in.ThingName)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListThingGroupsForThing(ctx, c.Account, in.ThingName, p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListThingGroupsForThingOutput{NextToken: c.NextToken(listed.Next, in.ThingName), ThingGroups: groupNames(c, listed.Items)}, nil
}
