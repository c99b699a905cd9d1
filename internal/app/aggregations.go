package app

import (
	"context"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/registry"
)

// originals tells the index how things and groups are written.
type originals struct{ registry *registry.Service }

// OriginalThing implements index.Originals.
func (o originals) OriginalThing(ctx context.Context, account fleet.Account, name string) (index.Thing, []string, error) {
	found, err := o.registry.Things(ctx, account, []string{name})
	if err != nil {
		return index.Thing{}, nil, err
	}
	if len(found) == 0 {
		return index.Thing{}, nil, fault.New(fault.ResourceNotFound, "thing %s does not exist", name)
	}
	t := found[0]
	groups := make([]string, len(t.Groups))
	for i, m := range t.Groups {
		groups[i] = m.Group
	}
	return index.Thing{
		Name: t.Name, ID: t.ID, TypeName: t.TypeName, Attributes: t.Attributes, BillingGroup: t.BillingGroup, Version: t.Version,
	}, groups, nil
}

// OriginalGroup implements index.Originals.
func (o originals) OriginalGroup(ctx context.Context, account fleet.Account, name string) (index.Group, error) {
	found, err := o.registry.Groups(ctx, account, []string{name})
	if err != nil {
		return index.Group{}, err
	}
	if len(found) == 0 {
		return index.Group{}, fault.New(fault.ResourceNotFound, "group %s does not exist", name)
	}
	g := found[0]
	return index.Group{Name: g.Name, ID: g.ID, Description: g.Description, Attributes: g.Attributes, Ancestors: g.Ancestors}, nil
}

// Statistics implements adminapi.FleetIndex.
func (f fleetIndex) Statistics(ctx context.Context, account fleet.Account, q adminapi.StatisticsQuery) (adminapi.IndexStatistics, error) {
	parse, name := f.app.index.ParseThings, registry.ThingIndex
	if q.Groups {
		parse, name = f.app.index.ParseGroups, "AWS_ThingGroups"
	}
	query, err := parse(q.Query)
	if err != nil {
		return adminapi.IndexStatistics{}, err
	}
	s, err := f.app.index.Summarize(ctx, account, index.Aggregation{Groups: q.Groups, Query: query, Field: q.Field}, q.Type, q.Buckets)
	if err != nil {
		return adminapi.IndexStatistics{}, err
	}
	out := adminapi.IndexStatistics{
		IndexName: name, Field: s.Field, Type: string(s.Type), Declared: s.Declared, Matching: s.Matching, WithValue: s.WithValue,
		Mistyped: s.Mistyped, Cardinality: s.Cardinality, Count: s.Statistics.Count, Average: s.Statistics.Average,
		Sum: s.Statistics.Sum, Minimum: s.Statistics.Minimum, Maximum: s.Statistics.Maximum, SumOfSquares: s.Statistics.SumOfSquares,
		Variance: s.Statistics.Variance, StandardDeviation: s.Statistics.StandardDeviation,
		Buckets: make([]adminapi.IndexBucket, len(s.Buckets)),
	}
	for _, p := range s.Percentiles {
		out.Percentiles = append(out.Percentiles, adminapi.IndexPercentile(p))
	}
	for i, b := range s.Buckets {
		out.Buckets[i] = adminapi.IndexBucket(b)
	}
	return out, nil
}
