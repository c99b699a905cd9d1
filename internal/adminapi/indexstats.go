package adminapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// ActionGetIndexStatistics is for statistics of any field, on resource "*".
const ActionGetIndexStatistics = "ops:GetIndexStatistics"

// defaultStatBuckets is how many of the most frequent values are shown.
const defaultStatBuckets = 10

// StatisticsQuery is a field and over which documents to sum it up.
type StatisticsQuery struct {
	Groups       bool
	Field, Query string
	// Type is Number, String or Boolean; empty for the declared one, or that of
	// most values.
	Type    fleet.FieldType
	Buckets int
}

// IndexStatistics is all that aggregations tell of a field. What a double cannot
// hold, or a type does not have, is absent.
type IndexStatistics struct {
	IndexName string `json:"indexName"`
	Field     string `json:"field"`
	Type      string `json:"type"`
	// Declared tells that AWS's aggregations may name the field.
	Declared bool `json:"declared"`
	// Matching is how many documents match, WithValue how many of them have a
	// value of the type.
	Matching  int `json:"matching"`
	WithValue int `json:"withValue"`
	// Mistyped is how many documents of the index have values of other types only.
	Mistyped          int      `json:"mistyped"`
	Cardinality       int      `json:"cardinality"`
	Count             int      `json:"count"`
	Average           *float64 `json:"average,omitempty"`
	Sum               *float64 `json:"sum,omitempty"`
	Minimum           *float64 `json:"minimum,omitempty"`
	Maximum           *float64 `json:"maximum,omitempty"`
	SumOfSquares      *float64 `json:"sumOfSquares,omitempty"`
	Variance          *float64 `json:"variance,omitempty"`
	StandardDeviation *float64 `json:"stdDeviation,omitempty"`
	// Percentiles are there for numbers.
	Percentiles []IndexPercentile `json:"percentiles,omitempty"`
	Buckets     []IndexBucket     `json:"buckets"`
}

// IndexPercentile is the value that a percentage of values are not above.
type IndexPercentile struct {
	Percent float64 `json:"percent"`
	Value   float64 `json:"value"`
}

// IndexBucket is a value and how many documents have it.
type IndexBucket struct {
	Key   string `json:"keyValue"`
	Count int    `json:"count"`
}

// indexStatistics sums up a field, declared or not.
func (h *handler) indexStatistics(ctx context.Context, r *http.Request) (any, error) {
	values := r.URL.Query()
	for name, given := range values {
		switch name {
		case "field", "query", "indexName", "type", "buckets":
		default:
			return nil, fault.New(fault.InvalidRequest, "%s: there is no such parameter", name)
		}
		if len(given) > 1 {
			return nil, fault.New(fault.InvalidRequest, "%s: may be given once", name)
		}
	}
	q := StatisticsQuery{Field: values.Get("field"), Query: values.Get("query"), Type: fleet.FieldType(values.Get("type")), Buckets: defaultStatBuckets}
	if q.Field == "" {
		return nil, fault.New(fault.InvalidRequest, "field: must name a field of the index")
	}
	if q.Query == "" {
		q.Query = "*"
	}
	switch q.Type {
	case "", fleet.FieldNumber, fleet.FieldString, fleet.FieldBoolean:
	default:
		return nil, fault.New(fault.InvalidRequest, "type: must be Number, String or Boolean")
	}
	if text := values.Get("buckets"); text != "" {
		var err error
		if q.Buckets, err = strconv.Atoi(text); err != nil {
			return nil, fault.New(fault.InvalidRequest, "buckets: must be a number")
		}
	}
	var err error
	if q.Groups, err = asksGroups(values.Get("indexName")); err != nil {
		return nil, err
	}
	return h.o.FleetIndex.Statistics(ctx, h.o.Account(ctx), q)
}

// asksGroups reads the name of an index.
func asksGroups(name string) (bool, error) {
	switch name {
	case "", indexOfThings:
		return false, nil
	case indexOfGroups:
		return true, nil
	}
	return false, fault.New(fault.ResourceNotFound, "index %s does not exist; there are %s and %s", name, indexOfThings, indexOfGroups)
}
