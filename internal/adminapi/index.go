package adminapi

import (
	"context"
	"net/http"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Actions on the fleet index, on resource "*".
const (
	// ActionDescribeFleetIndex is for its state.
	ActionDescribeFleetIndex = "ops:DescribeFleetIndex"
	// ActionGetIndexFields is for the fields that queries may name.
	ActionGetIndexFields = "ops:GetIndexFields"
)

// maxIndexFields bounds a page.
const maxIndexFields = 1000

// Names of the two indexes.
const (
	indexOfThings = "AWS_Things"
	indexOfGroups = "AWS_ThingGroups"
)

// FleetIndex tells operators about the index of their account.
type FleetIndex interface {
	Describe(ctx context.Context, account fleet.Account) (IndexDescription, error)
	// Statistics sums up a field that has a value somewhere.
	Statistics(ctx context.Context, account fleet.Account, q StatisticsQuery) (IndexStatistics, error)
	// Fields lists what has a value, of the index of groups or of things.
	Fields(account fleet.Account, groups bool, prefix, after string, limit int) (fields []IndexField, next string, err error)
}

// IndexDescription is the state of an account's index.
type IndexDescription struct {
	// Version counts the changes of the configuration; AppliedVersion is that of
	// the one that searches see.
	Version        int64 `json:"configurationVersion"`
	AppliedVersion int64 `json:"appliedConfigurationVersion"`
	// Indices are those that exist.
	Indices []IndexState `json:"indices"`
	// DynamicGroups is how many groups the index keeps filled; Unstable counts
	// the times when that did not settle.
	DynamicGroups int    `json:"dynamicGroups"`
	Unstable      uint64 `json:"unstableBatches"`
	// Progress is there while an index is built.
	Progress *IndexProgress `json:"progress,omitempty"`
	Lag      IndexLag       `json:"lag"`
}

// IndexState is one index.
type IndexState struct {
	Name      string `json:"indexName"`
	Status    string `json:"status"`
	Schema    string `json:"schema"`
	Documents int    `json:"documents"`
	Fields    int    `json:"fields"`
	// Bytes estimates the memory that it takes.
	Bytes uint64 `json:"bytes"`
	// Dropped counts values left out by the bounds on paths and texts.
	Dropped uint64 `json:"droppedValues"`
}

// IndexProgress is how far a build has come.
type IndexProgress struct {
	ThingsLoaded  int64 `json:"thingsLoaded"`
	ShadowsLoaded int64 `json:"shadowsLoaded"`
	// ThingsExpected is how many there were before; absent for a first build.
	ThingsExpected int64 `json:"thingsExpected,omitempty"`
}

// IndexLag is how far the index is behind the event log of the server.
type IndexLag struct {
	Events  uint64  `json:"events"`
	Seconds float64 `json:"seconds"`
}

// IndexField is a field that has a value somewhere.
type IndexField struct {
	Name string `json:"name"`
	// Documents is how many things or groups have it.
	Documents int `json:"documents"`
	// Types counts them by the types of their values.
	Types      map[string]int `json:"types"`
	Searchable bool           `json:"searchable"`
	// CustomType is the type that aggregations take; empty for a field that is
	// not a custom field of the configuration.
	CustomType string `json:"customType,omitempty"`
}

// routeIndex adds the operations on /ops/v1/index.
func (h *handler) routeIndex(mux *routes) {
	mux.HandleFunc("GET "+Prefix+"index", h.read(ActionDescribeFleetIndex, h.describeFleetIndex))
	mux.HandleFunc("GET "+Prefix+"index/fields", h.read(ActionGetIndexFields, h.indexFields))
	mux.HandleFunc("GET "+Prefix+"index/stats", h.read(ActionGetIndexStatistics, h.indexStatistics))
}

// describeFleetIndex answers with the state.
func (h *handler) describeFleetIndex(ctx context.Context, r *http.Request) (any, error) {
	if len(r.URL.Query()) > 0 {
		return nil, fault.New(fault.InvalidRequest, "this operation has no parameters")
	}
	return h.o.FleetIndex.Describe(ctx, h.o.Account(ctx))
}

// indexFieldsOutput is a page of fields in order of their names.
type indexFieldsOutput struct {
	Fields    []IndexField `json:"fields"`
	NextToken string       `json:"nextToken,omitempty"`
}

// indexFields lists fields.
func (h *handler) indexFields(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.index.fields", "", "indexName", "prefix")
	if err != nil {
		return nil, err
	}
	if l.limit < 1 || l.limit > maxIndexFields {
		return nil, fault.New(fault.InvalidRequest, "maxResults: must be from 1 to %d", maxIndexFields)
	}
	groups, err := asksGroups(l.values.Get("indexName"))
	if err != nil {
		return nil, err
	}
	fields, next, err := h.o.FleetIndex.Fields(l.account, groups, l.values.Get("prefix"), l.after, l.limit)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := indexFieldsOutput{Fields: fields}
	if fields == nil {
		out.Fields = []IndexField{}
	}
	if next != "" {
		out.NextToken = h.o.Tokens.Seal(l.account, l.operation, l.filter, next, h.o.Now())
	}
	return out, nil
}
