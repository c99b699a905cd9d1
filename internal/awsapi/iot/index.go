package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/registry"
)

// groupIndex is the index of thing groups.
const groupIndex = "AWS_ThingGroups"

// registerIndex offers the operations on the fleet index.
func (a *api) registerIndex(s *awsapi.Server) {
	offer(s, "SearchIndex", func(c *awsapi.Call, in *iotwire.SearchIndexInput) []string {
		if in.IndexName == nil {
			return []string{c.ARN(fleet.ARNIndex, registry.ThingIndex)}
		}
		return []string{c.ARN(fleet.ARNIndex, *in.IndexName)}
	}, a.searchIndex)
	offer(s, "DescribeIndex", on(fleet.ARNIndex, func(in *iotwire.DescribeIndexInput) string { return in.IndexName }), a.describeIndex)
	offer(s, "ListIndices", awsapi.All, a.listIndices)
	offer(s, "GetIndexingConfiguration", awsapi.All, a.getIndexingConfiguration)
	offer(s, "UpdateIndexingConfiguration", awsapi.All, a.updateIndexingConfiguration)
	offer(s, "GetThingConnectivityData", on(fleet.ARNThing, func(in *iotwire.GetThingConnectivityDataInput) string { return in.ThingName }),
		a.getThingConnectivityData)
}

// noIndex is the fault for an index that does not exist.
func noIndex(name string) error {
	return fault.New(fault.ResourceNotFound, "index %s does not exist", name)
}

// indexState is an index that exists.
type indexState struct{ name, status, schema string }

// indices are the indexes that the account has, by name.
func (a *api) indices(ctx context.Context, account fleet.Account) ([]indexState, error) {
	config, err := a.Registry.IndexingConfiguration(ctx, account)
	if err != nil {
		return nil, err
	}
	things, groups := a.Index.StatusOf(account, &config)
	var found []indexState
	for _, s := range []indexState{
		{groupIndex, string(groups), config.Groups.Schema()}, {registry.ThingIndex, string(things), config.Things.Schema()},
	} {
		if s.status != "" {
			found = append(found, s)
		}
	}
	return found, nil
}

func (a *api) describeIndex(ctx context.Context, c *awsapi.Call, in *iotwire.DescribeIndexInput) (*iotwire.DescribeIndexOutput, error) {
	found, err := a.indices(ctx, c.Account)
	if err != nil {
		return nil, err
	}
	for _, s := range found {
		if s.name == in.IndexName {
			return &iotwire.DescribeIndexOutput{IndexName: &s.name, IndexStatus: &s.status, Schema: &s.schema}, nil
		}
	}
	return nil, noIndex(in.IndexName)
}

func (a *api) listIndices(ctx context.Context, c *awsapi.Call, in *iotwire.ListIndicesInput) (*iotwire.ListIndicesOutput, error) {
	after, err := c.PageKey(in.NextToken)
	if err != nil {
		return nil, err
	}
	found, err := a.indices(ctx, c.Account)
	if err != nil {
		return nil, err
	}
	names, next := []string{}, ""
	for _, s := range found {
		if s.name <= after {
			continue
		}
		if in.MaxResults != nil && int(*in.MaxResults) == len(names) {
			next = names[len(names)-1]
			break
		}
		names = append(names, s.name)
	}
	return &iotwire.ListIndicesOutput{IndexNames: names, NextToken: c.NextToken(next)}, nil
}

// showsConnectivity is the fault of calls that answer only while connectivity
// is indexed, and the index built.
func (a *api) showsConnectivity(account fleet.Account, config *fleet.Indexing) error {
	if things, _ := a.Index.StatusOf(account, config); things == "" || things == index.Building || !config.Things.Connectivity {
		return fault.New(fault.IndexNotReady, "connectivity is not indexed, or the index is being built")
	}
	return nil
}
