package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// registerBillingGroups offers the operations on billing groups and on the
// place of things in them.
func (a *api) registerBillingGroups(s *awsapi.Server) {
	offer(s, "CreateBillingGroup", on(fleet.ARNBillingGroup, func(in *iotwire.CreateBillingGroupInput) string { return in.BillingGroupName }),
		a.createBillingGroup)
	offer(s, "UpdateBillingGroup", on(fleet.ARNBillingGroup, func(in *iotwire.UpdateBillingGroupInput) string { return in.BillingGroupName }),
		a.updateBillingGroup)
	offer(s, "DeleteBillingGroup", on(fleet.ARNBillingGroup, func(in *iotwire.DeleteBillingGroupInput) string { return in.BillingGroupName }),
		a.deleteBillingGroup)
	offer(s, "DescribeBillingGroup", on(fleet.ARNBillingGroup, func(in *iotwire.DescribeBillingGroupInput) string { return in.BillingGroupName }),
		a.describeBillingGroup)
	offer(s, "ListBillingGroups", awsapi.All, a.listBillingGroups)
	offer(s, "ListThingsInBillingGroup", on(fleet.ARNBillingGroup, func(in *iotwire.ListThingsInBillingGroupInput) string { return in.BillingGroupName }),
		a.listThingsInBillingGroup)
	offer(s, "AddThingToBillingGroup", func(c *awsapi.Call, in *iotwire.AddThingToBillingGroupInput) []string {
		return pairOf(c, fleet.ARNBillingGroup, in.ThingName, in.ThingARN, in.BillingGroupName, in.BillingGroupARN)
	}, a.addThingToBillingGroup)
	offer(s, "RemoveThingFromBillingGroup", func(c *awsapi.Call, in *iotwire.RemoveThingFromBillingGroupInput) []string {
		return pairOf(c, fleet.ARNBillingGroup, in.ThingName, in.ThingARN, in.BillingGroupName, in.BillingGroupARN)
	}, a.removeThingFromBillingGroup)
}

func (a *api) createBillingGroup(ctx context.Context, c *awsapi.Call, in *iotwire.CreateBillingGroupInput) (*iotwire.CreateBillingGroupOutput, error) {
	g, err := a.Registry.CreateBillingGroup(ctx, c.Account, registry.CreateBillingGroupCommand{
		Name: in.BillingGroupName, Description: value(value(in.BillingGroupProperties).BillingGroupDescription), Tags: tagsOf(in.Tags),
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.CreateBillingGroupOutput{BillingGroupName: &g.Name, BillingGroupARN: &g.ARN, BillingGroupID: &g.ID}, nil
}

func (a *api) updateBillingGroup(ctx context.Context, c *awsapi.Call, in *iotwire.UpdateBillingGroupInput) (*iotwire.UpdateBillingGroupOutput, error) {
	version, err := a.Registry.UpdateBillingGroup(
		ctx, c.Account, in.BillingGroupName, in.BillingGroupProperties.BillingGroupDescription, in.ExpectedVersion)
	if err != nil {
		return nil, err
	}
	return &iotwire.UpdateBillingGroupOutput{Version: &version}, nil
}

func (a *api) deleteBillingGroup(ctx context.Context, c *awsapi.Call, in *iotwire.DeleteBillingGroupInput) (*iotwire.DeleteBillingGroupOutput, error) {
	return &iotwire.DeleteBillingGroupOutput{}, a.Registry.DeleteBillingGroup(ctx, c.Account, in.BillingGroupName, in.ExpectedVersion)
}

func (a *api) describeBillingGroup(
	ctx context.Context, c *awsapi.Call, in *iotwire.DescribeBillingGroupInput,
) (*iotwire.DescribeBillingGroupOutput, error) {
	g, err := a.Registry.DescribeBillingGroup(ctx, c.Account, in.BillingGroupName)
	if err != nil {
		return nil, err
	}
	return &iotwire.DescribeBillingGroupOutput{
		BillingGroupName: &g.Name, BillingGroupARN: &g.ARN, BillingGroupID: &g.ID, Version: &g.Version,
		BillingGroupMetadata:   &iotwire.BillingGroupMetadata{CreationDate: &g.Created},
		BillingGroupProperties: &iotwire.BillingGroupProperties{BillingGroupDescription: &g.Description},
	}, nil
}

func (a *api) listBillingGroups(ctx context.Context, c *awsapi.Call, in *iotwire.ListBillingGroupsInput) (*iotwire.ListBillingGroupsOutput, error) {
	p, err := page(c, in.NextToken, in.MaxResults, value(in.NamePrefixFilter))
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListBillingGroups(ctx, c.Account, value(in.NamePrefixFilter), p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListBillingGroupsOutput{
		NextToken: c.NextToken(listed.Next, value(in.NamePrefixFilter)),
		BillingGroups: each(listed.Items, func(name string) iotwire.GroupNameAndARN {
			return iotwire.GroupNameAndARN{GroupName: &name, GroupARN: new(c.ARN(fleet.ARNBillingGroup, name))}
		}),
	}, nil
}

func (a *api) listThingsInBillingGroup(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListThingsInBillingGroupInput,
) (*iotwire.ListThingsInBillingGroupOutput, error) {
	p, err := page(c, in.NextToken, in.MaxResults, in.BillingGroupName)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListThingsInBillingGroup(ctx, c.Account, in.BillingGroupName, p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListThingsInBillingGroupOutput{NextToken: c.NextToken(listed.Next, in.BillingGroupName), Things: listed.Items}, nil
}

func (a *api) addThingToBillingGroup(
	ctx context.Context, c *awsapi.Call, in *iotwire.AddThingToBillingGroupInput,
) (*iotwire.AddThingToBillingGroupOutput, error) {
	return &iotwire.AddThingToBillingGroupOutput{}, a.Registry.AddThingToBillingGroup(ctx, c.Account, registry.ThingAndGroup{
		ThingName: value(in.ThingName), ThingARN: value(in.ThingARN), GroupName: value(in.BillingGroupName), GroupARN: value(in.BillingGroupARN),
	})
}

func (a *api) removeThingFromBillingGroup(
	ctx context.Context, c *awsapi.Call, in *iotwire.RemoveThingFromBillingGroupInput,
) (*iotwire.RemoveThingFromBillingGroupOutput, error) {
	return &iotwire.RemoveThingFromBillingGroupOutput{}, a.Registry.RemoveThingFromBillingGroup(ctx, c.Account, registry.ThingAndGroup{
		ThingName: value(in.ThingName), ThingARN: value(in.ThingARN), GroupName: value(in.BillingGroupName), GroupARN: value(in.BillingGroupARN),
	})
}
