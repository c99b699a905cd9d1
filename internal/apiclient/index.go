package apiclient

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// IndexingField is a custom or managed field.
type IndexingField struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// ThingIndexing is the part of an indexing configuration about things.
type ThingIndexing struct {
	Mode         string          `json:"thingIndexingMode"`
	Connectivity string          `json:"thingConnectivityIndexingMode,omitempty"`
	Violations   string          `json:"deviceDefenderIndexingMode,omitempty"`
	NamedShadows string          `json:"namedShadowIndexingMode,omitempty"`
	Filter       *IndexingFilter `json:"filter,omitempty"`
	CustomFields []IndexingField `json:"customFields,omitempty"`
}

// IndexingFilter narrows and widens what is indexed.
type IndexingFilter struct {
	NamedShadowNames []string         `json:"namedShadowNames,omitempty"`
	GeoLocations     []GeoLocation    `json:"geoLocations,omitempty"`
	Connectivity     *IndexingSockets `json:"connectivity,omitempty"`
}

// GeoLocation is a field that holds places.
type GeoLocation struct {
	Name  string `json:"name"`
	Order string `json:"order,omitempty"`
}

// IndexingSockets names the calls that may show addresses.
type IndexingSockets struct {
	IncludeSocketInformation []string `json:"includeSocketInformation"`
}

// GroupIndexing is the part about groups.
type GroupIndexing struct {
	Mode         string          `json:"thingGroupIndexingMode"`
	CustomFields []IndexingField `json:"customFields,omitempty"`
}

// Indexing is an indexing configuration; a part that is nil is left as it is.
type Indexing struct {
	Things *ThingIndexing `json:"thingIndexingConfiguration,omitempty"`
	Groups *GroupIndexing `json:"thingGroupIndexingConfiguration,omitempty"`
}

// IndexingConfiguration returns what the fleet index holds.
func (c *Client) IndexingConfiguration(ctx context.Context) (Indexing, error) {
	var out Indexing
	err := c.JSON(ctx, get("/indexing/config", nil), nil, &out)
	return out, err
}

// SetIndexingConfiguration replaces the parts that are given.
func (c *Client) SetIndexingConfiguration(ctx context.Context, config Indexing) error {
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: "/indexing/config"}, config, nil)
}

// IndexState is one index.
type IndexState struct {
	Name      string `json:"indexName"`
	Status    string `json:"status"`
	Schema    string `json:"schema"`
	Documents int    `json:"documents"`
	Fields    int    `json:"fields"`
	Bytes     uint64 `json:"bytes"`
	Dropped   uint64 `json:"droppedValues"`
}

// IndexDescription is the state of an account's index.
type IndexDescription struct {
	Version        int64          `json:"configurationVersion"`
	AppliedVersion int64          `json:"appliedConfigurationVersion"`
	Indices        []IndexState   `json:"indices"`
	DynamicGroups  int            `json:"dynamicGroups"`
	Unstable       uint64         `json:"unstableBatches"`
	Progress       *IndexProgress `json:"progress,omitempty"`
	Lag            struct {
		Events  uint64  `json:"events"`
		Seconds float64 `json:"seconds"`
	} `json:"lag"`
}

// IndexProgress is how far a build has come.
type IndexProgress struct {
	ThingsLoaded   int64 `json:"thingsLoaded"`
	ShadowsLoaded  int64 `json:"shadowsLoaded"`
	ThingsExpected int64 `json:"thingsExpected,omitempty"`
}

// Building reports whether an index is not yet what the configuration says.
func (d *IndexDescription) Building() bool {
	for _, s := range d.Indices {
		if s.Status != "ACTIVE" {
			return true
		}
	}
	return d.AppliedVersion < d.Version
}

// DescribeFleetIndex returns the state of the index.
func (c *Client) DescribeFleetIndex(ctx context.Context) (IndexDescription, error) {
	var out IndexDescription
	err := c.JSON(ctx, get("/ops/v1/index", nil), nil, &out)
	return out, err
}

// AwaitFleetIndex looks at the index every so often until it is what the
// configuration says, and tells of each look.
func (c *Client) AwaitFleetIndex(ctx context.Context, every time.Duration, look func(IndexDescription)) (IndexDescription, error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		now, err := c.DescribeFleetIndex(ctx)
		if err != nil || !now.Building() {
			return now, err
		}
		look(now)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return now, ctx.Err()
		}
	}
}

// IndexField is a field that has a value somewhere.
type IndexField struct {
	Name       string         `json:"name"`
	Documents  int            `json:"documents"`
	Types      map[string]int `json:"types"`
	Searchable bool           `json:"searchable"`
	CustomType string         `json:"customType,omitempty"`
}

// IndexFields returns up to limit fields of an index whose names begin with the
// prefix, all for limit 0.
func (c *Client) IndexFields(ctx context.Context, index, prefix string, limit int) ([]IndexField, error) {
	all := []IndexField{}
	query := url.Values{}
	if index != "" {
		query.Set("indexName", index)
	}
	if prefix != "" {
		query.Set("prefix", prefix)
	}
	err := pages(query, limit, func(q url.Values) (int, string, error) {
		var page struct {
			Fields    []IndexField
			NextToken string
		}
		err := c.JSON(ctx, get("/ops/v1/index/fields", q), nil, &page)
		all = append(all, page.Fields...)
		return len(page.Fields), page.NextToken, err
	})
	return all, err
}

// IndexStatistics sums up a field of the index. What there is none of is nil.
type IndexStatistics struct {
	IndexName         string            `json:"indexName"`
	Field             string            `json:"field"`
	Type              string            `json:"type"`
	Declared          bool              `json:"declared"`
	Matching          int               `json:"matching"`
	WithValue         int               `json:"withValue"`
	Mistyped          int               `json:"mistyped"`
	Cardinality       int               `json:"cardinality"`
	Count             int               `json:"count"`
	Average           *float64          `json:"average,omitempty"`
	Sum               *float64          `json:"sum,omitempty"`
	Minimum           *float64          `json:"minimum,omitempty"`
	Maximum           *float64          `json:"maximum,omitempty"`
	SumOfSquares      *float64          `json:"sumOfSquares,omitempty"`
	Variance          *float64          `json:"variance,omitempty"`
	StandardDeviation *float64          `json:"stdDeviation,omitempty"`
	Percentiles       []IndexPercentile `json:"percentiles,omitempty"`
	Buckets           []IndexBucket     `json:"buckets"`
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

// IndexStatistics sums up a field over what matches a query. An empty index is
// that of things, an empty type the one that the field has.
func (c *Client) IndexStatistics(ctx context.Context, index, field, query, of string, buckets int) (IndexStatistics, error) {
	values := url.Values{"field": {field}, "query": {query}, "buckets": {strconv.Itoa(buckets)}}
	if index != "" {
		values.Set("indexName", index)
	}
	if of != "" {
		values.Set("type", of)
	}
	var out IndexStatistics
	err := c.JSON(ctx, get("/ops/v1/index/stats", values), nil, &out)
	return out, err
}
