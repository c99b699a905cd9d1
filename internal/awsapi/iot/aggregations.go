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

// registerAggregations offers the operations that sum up fields of the index.
func (a *api) registerAggregations(s *awsapi.Server) {
	offer(s, "GetStatistics", onIndex(func(in *iotwire.GetStatisticsInput) *string { return in.IndexName }), a.getStatistics)
	offer(s, "GetCardinality", onIndex(func(in *iotwire.GetCardinalityInput) *string { return in.IndexName }), a.getCardinality)
	offer(s, "GetPercentiles", onIndex(func(in *iotwire.GetPercentilesInput) *string { return in.IndexName }), a.getPercentiles)
	offer(s, "GetBucketsAggregation", onIndex(func(in *iotwire.GetBucketsAggregationInput) *string { return in.IndexName }), a.getBucketsAggregation)
}

// onIndex is the resource of an operation on an index, that of things unless
// another one is named.
func onIndex[In any](name func(*In) *string) func(*awsapi.Call, *In) []string {
	return func(c *awsapi.Call, in *In) []string {
		if given := name(in); given != nil {
			return []string{c.ARN(fleet.ARNIndex, *given)}
		}
		return []string{c.ARN(fleet.ARNIndex, registry.ThingIndex)}
	}
}

// aggregation reads the members that all four have.
func (a *api) aggregation(indexName *string, query string, version, field *string) (index.Aggregation, error) {
	if version != nil && *version != registry.QueryVersion {
		return index.Aggregation{}, fault.New(fault.InvalidRequest, "queryVersion must be %s", registry.QueryVersion)
	}
	out := index.Aggregation{Field: value(field)}
	var err error
	switch name := value(indexName); name {
	case "", registry.ThingIndex:
		out.Query, err = a.Index.ParseThings(query)
	case groupIndex:
		out.Groups = true
		out.Query, err = a.Index.ParseGroups(query)
	default:
		err = noIndex(name)
	}
	return out, err
}

func (a *api) getStatistics(_ context.Context, c *awsapi.Call, in *iotwire.GetStatisticsInput) (*iotwire.GetStatisticsOutput, error) {
	over, err := a.aggregation(in.IndexName, in.QueryString, in.QueryVersion, in.AggregationField)
	if err != nil {
		return nil, err
	}
	s, err := a.Index.Statistics(c.Account, over)
	if err != nil {
		return nil, err
	}
	return &iotwire.GetStatisticsOutput{Statistics: &iotwire.Statistics{
		Count: new(int32(s.Count)), Average: s.Average, Sum: s.Sum, Minimum: s.Minimum, Maximum: s.Maximum,
		SumOfSquares: s.SumOfSquares, Variance: s.Variance, StdDeviation: s.StandardDeviation,
	}}, nil
}

func (a *api) getCardinality(_ context.Context, c *awsapi.Call, in *iotwire.GetCardinalityInput) (*iotwire.GetCardinalityOutput, error) {
	over, err := a.aggregation(in.IndexName, in.QueryString, in.QueryVersion, in.AggregationField)
	if err != nil {
		return nil, err
	}
	n, err := a.Index.Cardinality(c.Account, over)
	if err != nil {
		return nil, err
	}
	return &iotwire.GetCardinalityOutput{Cardinality: new(int32(n))}, nil
}

func (a *api) getPercentiles(_ context.Context, c *awsapi.Call, in *iotwire.GetPercentilesInput) (*iotwire.GetPercentilesOutput, error) {
	over, err := a.aggregation(in.IndexName, in.QueryString, in.QueryVersion, in.AggregationField)
	if err != nil {
		return nil, err
	}
	found, err := a.Index.Percentiles(c.Account, over, in.Percents)
	if err != nil {
		return nil, err
	}
	return &iotwire.GetPercentilesOutput{Percentiles: each(found, func(p index.Percentile) iotwire.PercentPair {
		return iotwire.PercentPair{Percent: &p.Percent, Value: &p.Value}
	})}, nil
}

func (a *api) getBucketsAggregation(
	ctx context.Context, c *awsapi.Call, in *iotwire.GetBucketsAggregationInput,
) (*iotwire.GetBucketsAggregationOutput, error) {
	over, err := a.aggregation(in.IndexName, in.QueryString, in.QueryVersion, &in.AggregationField)
	if err != nil {
		return nil, err
	}
	terms := in.BucketsAggregationType.TermsAggregation
	if terms == nil {
		return nil, fault.New(fault.InvalidRequest, "bucketsAggregationType.termsAggregation is required")
	}
	limit := index.DefaultBuckets
	if terms.MaxBuckets != nil {
		limit = int(*terms.MaxBuckets)
	}
	found, err := a.Index.Buckets(ctx, c.Account, over, limit)
	if err != nil {
		return nil, err
	}
	return &iotwire.GetBucketsAggregationOutput{
		TotalCount: new(int32(found.Total)),
		Buckets: each(found.Buckets, func(b index.Bucket) iotwire.Bucket {
			return iotwire.Bucket{KeyValue: &b.Key, Count: new(int32(b.Count))}
		}),
	}, nil
}
