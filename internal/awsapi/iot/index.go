package iot

import (
	"context"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
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
	}, a.searchIndex, awsapi.Partial("geo_distance is refused"))
	offer(s, "DescribeIndex", on(fleet.ARNIndex, func(in *iotwire.DescribeIndexInput) string { return in.IndexName }), a.describeIndex)
	offer(s, "ListIndices", awsapi.All, a.listIndices)
	offer(s, "GetIndexingConfiguration", awsapi.All, a.getIndexingConfiguration)
	offer(s, "UpdateIndexingConfiguration", awsapi.All, a.updateIndexingConfiguration,
		awsapi.Partial("the configuration is fixed but for filter.connectivity: every other one than GetIndexingConfiguration answers is refused"))
	offer(s, "GetThingConnectivityData", on(fleet.ARNThing, func(in *iotwire.GetThingConnectivityDataInput) string { return in.ThingName }),
		a.getThingConnectivityData)
}

// noIndex is the fault for an index that does not exist.
func noIndex(name string) error {
	return fault.New(fault.ResourceNotFound, "index %s does not exist", name)
}

// schema names what an index holds, false when there is no such index. Named
// shadows are always on, which is what the first name stands for.
func schema(index string) (string, bool) {
	switch index {
	case registry.ThingIndex:
		return "MULTI_INDEXING_MODE", true
	case groupIndex:
		return "THING_GROUPS", true
	}
	return "", false
}

func (a *api) describeIndex(_ context.Context, _ *awsapi.Call, in *iotwire.DescribeIndexInput) (*iotwire.DescribeIndexOutput, error) {
	text, ok := schema(in.IndexName)
	if !ok {
		return nil, noIndex(in.IndexName)
	}
	return &iotwire.DescribeIndexOutput{IndexName: &in.IndexName, IndexStatus: new(string(a.Index.Status())), Schema: &text}, nil
}

func (a *api) listIndices(_ context.Context, c *awsapi.Call, in *iotwire.ListIndicesInput) (*iotwire.ListIndicesOutput, error) {
	after, err := c.PageKey(in.NextToken)
	if err != nil {
		return nil, err
	}
	names := slices.DeleteFunc([]string{groupIndex, registry.ThingIndex}, func(name string) bool { return name <= after })
	next := ""
	if in.MaxResults != nil && int(*in.MaxResults) < len(names) {
		names = names[:*in.MaxResults]
		next = names[len(names)-1]
	}
	return &iotwire.ListIndicesOutput{IndexNames: names, NextToken: c.NextToken(next)}, nil
}

func (a *api) getIndexingConfiguration(
	ctx context.Context, c *awsapi.Call, _ *iotwire.GetIndexingConfigurationInput,
) (*iotwire.GetIndexingConfigurationOutput, error) {
	shown, err := a.Connections.SocketInformation(ctx, c.Account)
	if err != nil {
		return nil, err
	}
	things := thingIndexing()
	if shown {
		things.Filter = &iotwire.IndexingFilter{Connectivity: &iotwire.ConnectivityFilter{IncludeSocketInformation: []string{connectivityData}}}
	}
	return &iotwire.GetIndexingConfigurationOutput{ThingIndexingConfiguration: things, ThingGroupIndexingConfiguration: groupIndexing()}, nil
}

// fields are managed fields of one type.
func fields(kind string, names ...string) []iotwire.Field {
	return each(names, func(name string) iotwire.Field { return iotwire.Field{Name: &name, Type: &kind} })
}

// thingIndexing is the one configuration of the index of things, but for what
// its filter says of sockets: registry, shadows and connectivity on. A filter without names means all named shadows.
func thingIndexing() *iotwire.ThingIndexingConfiguration {
	return &iotwire.ThingIndexingConfiguration{
		ThingIndexingMode: "REGISTRY_AND_SHADOW", ThingConnectivityIndexingMode: new("STATUS"),
		NamedShadowIndexingMode: new("ON"), DeviceDefenderIndexingMode: new("OFF"),
		ManagedFields: slices.Concat(
			fields("String", "thingId", "thingName", "registry.thingTypeName", "registry.thingGroupNames", "connectivity.disconnectReason"),
			fields("Number", "registry.version", "shadow.version", "shadow.name.*.version", "connectivity.timestamp", "connectivity.version"),
			fields("Boolean", "shadow.hasDelta", "shadow.name.*.hasDelta", "connectivity.connected"),
		),
		CustomFields: []iotwire.Field{},
	}
}

// groupIndexing is the one configuration of the index of groups.
func groupIndexing() *iotwire.ThingGroupIndexingConfiguration {
	return &iotwire.ThingGroupIndexingConfiguration{
		ThingGroupIndexingMode: "ON",
		ManagedFields: slices.Concat(
			fields("String", "thingGroupName", "thingGroupId", "description", "parentGroupNames"), fields("Number", "version"),
		),
		CustomFields: []iotwire.Field{},
	}
}

func (a *api) updateIndexingConfiguration(
	ctx context.Context, c *awsapi.Call, in *iotwire.UpdateIndexingConfigurationInput,
) (*iotwire.UpdateIndexingConfigurationOutput, error) {
	var differing []string
	if t := in.ThingIndexingConfiguration; t != nil {
		differing = append(differing, otherThingIndexing(t)...)
	}
	if g := in.ThingGroupIndexingConfiguration; g != nil {
		differing = append(differing, otherGroupIndexing(g)...)
	}
	if len(differing) > 0 {
		return nil, fault.New(fault.NotOffered,
			"this version of Muster offers no other indexing than GetIndexingConfiguration answers; different here: %s", strings.Join(differing, ", "))
	}
	if t := in.ThingIndexingConfiguration; t != nil {
		if err := a.Connections.ShowSocketInformation(ctx, c.Account, socketsShown(t.Filter)); err != nil {
			return nil, err
		}
	}
	return &iotwire.UpdateIndexingConfigurationOutput{}, nil
}

// otherThingIndexing names the members that ask for something else than the
// one configuration. A source whose mode is not given is left to its default,
// which is on for named shadows and off for violations; connectivity is off
// unless it is asked for, as clients of before named shadows know it.
func otherThingIndexing(t *iotwire.ThingIndexingConfiguration) []string {
	fixed := thingIndexing()
	return listed("thingIndexingConfiguration.", []difference{
		{"thingIndexingMode", t.ThingIndexingMode != fixed.ThingIndexingMode},
		{"thingConnectivityIndexingMode", t.ThingConnectivityIndexingMode == nil || *t.ThingConnectivityIndexingMode != *fixed.ThingConnectivityIndexingMode},
		{"namedShadowIndexingMode", t.NamedShadowIndexingMode != nil && *t.NamedShadowIndexingMode != *fixed.NamedShadowIndexingMode},
		{"deviceDefenderIndexingMode", t.DeviceDefenderIndexingMode != nil && *t.DeviceDefenderIndexingMode != *fixed.DeviceDefenderIndexingMode},
		{"filter", filtering(t.Filter)},
		{"customFields", len(t.CustomFields) > 0},
		{"managedFields", !among(t.ManagedFields, fixed.ManagedFields)},
	})
}

// otherGroupIndexing is the same for the index of groups.
func otherGroupIndexing(g *iotwire.ThingGroupIndexingConfiguration) []string {
	fixed := groupIndexing()
	return listed("thingGroupIndexingConfiguration.", []difference{
		{"thingGroupIndexingMode", g.ThingGroupIndexingMode != fixed.ThingGroupIndexingMode},
		{"customFields", len(g.CustomFields) > 0},
		{"managedFields", !among(g.ManagedFields, fixed.ManagedFields)},
	})
}

// difference tells whether a member differs.
type difference struct {
	member  string
	differs bool
}

// listed returns the paths of the members that differ.
func listed(prefix string, members []difference) []string {
	var paths []string
	for _, m := range members {
		if m.differs {
			paths = append(paths, prefix+m.member)
		}
	}
	return paths
}

// filtering reports whether a filter leaves anything out or adds a source.
func filtering(f *iotwire.IndexingFilter) bool {
	return f != nil && (len(f.NamedShadowNames) > 0 || len(f.GeoLocations) > 0)
}

// among reports whether all fields sent back are managed ones.
func among(sent, managed []iotwire.Field) bool {
	for _, f := range sent {
		if !slices.ContainsFunc(managed, func(m iotwire.Field) bool { return value(f.Name) == *m.Name && value(f.Type) == *m.Type }) {
			return false
		}
	}
	return true
}
