package adminapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/pagetoken"
)

// oneIndex has a hundred fields, of things only.
type oneIndex struct{ asked []string }

func (o *oneIndex) Describe(_ context.Context, account fleet.Account) (adminapi.IndexDescription, error) {
	o.asked = append(o.asked, string(account))
	return adminapi.IndexDescription{
		Version: 3, AppliedVersion: 2,
		Indices:  []adminapi.IndexState{{Name: "AWS_Things", Status: "REBUILDING", Schema: "REGISTRY", Documents: 7, Fields: 100, Bytes: 4096}},
		Progress: &adminapi.IndexProgress{ThingsLoaded: 3, ThingsExpected: 7}, Lag: adminapi.IndexLag{Events: 4, Seconds: 0.5},
	}, nil
}

func (o *oneIndex) Fields(account fleet.Account, groups bool, prefix, after string, limit int) ([]adminapi.IndexField, string, error) {
	o.asked = append(o.asked, fmt.Sprint(account, groups, prefix, after, limit))
	if groups {
		return nil, "", fault.New(fault.IndexNotReady, "index AWS_ThingGroups is being built")
	}
	var found []adminapi.IndexField
	for i := range 100 {
		name := fmt.Sprintf("attributes.a%02d", i)
		if name <= after {
			continue
		}
		if len(found) == limit {
			return found, found[limit-1].Name, nil
		}
		found = append(found, adminapi.IndexField{Name: name, Documents: i, Types: map[string]int{"String": i}, Searchable: true})
	}
	return found, "", nil
}

func (o *oneIndex) Statistics(_ context.Context, account fleet.Account, q adminapi.StatisticsQuery) (adminapi.IndexStatistics, error) {
	o.asked = append(o.asked, fmt.Sprint(account, q))
	if q.Field == "attributes.none" {
		return adminapi.IndexStatistics{}, fault.New(fault.ResourceNotFound, "nothing in the index has a value")
	}
	return adminapi.IndexStatistics{
		IndexName: "AWS_Things", Field: q.Field, Type: "Number", Matching: 7, WithValue: 1, Count: 1, Cardinality: 1, Average: new(2.5),
		Percentiles: []adminapi.IndexPercentile{{Percent: 50, Value: 2.5}}, Buckets: []adminapi.IndexBucket{{Key: "2.5", Count: 1}},
	}, nil
}

// TestIndex calls both operations, page by page, and what they refuse.
func TestIndex(t *testing.T) {
	t.Parallel()
	key := make([]byte, pagetoken.KeySize)
	tokens, err := pagetoken.New(key)
	if err != nil {
		t.Fatal(err)
	}
	index := &oneIndex{}
	var actions []string
	h := adminapi.New(adminapi.Options{
		Authorize: func(r *http.Request, _ []byte, action string) (*http.Request, error) {
			actions = append(actions, action)
			return r, nil
		},
		Account: func(context.Context) fleet.Account { return "000000000001" }, FleetIndex: index, Tokens: tokens,
		Now: func() time.Time { return time.Unix(1_750_000_000, 0) }, Logger: slog.New(slog.DiscardHandler),
	})
	call := func(path string) (int, map[string]any) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ops/v1/"+path, nil))
		var got map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v in %s", path, err, w.Body)
		}
		return w.Code, got
	}
	status, got := call("index")
	want := map[string]any{
		"configurationVersion": 3.0, "appliedConfigurationVersion": 2.0, "dynamicGroups": 0.0, "unstableBatches": 0.0,
		"indices": []any{map[string]any{
			"indexName": "AWS_Things", "status": "REBUILDING", "schema": "REGISTRY", "documents": 7.0, "fields": 100.0, "bytes": 4096.0, "droppedValues": 0.0,
		}},
		"progress": map[string]any{"thingsLoaded": 3.0, "shadowsLoaded": 0.0, "thingsExpected": 7.0},
		"lag":      map[string]any{"events": 4.0, "seconds": 0.5},
	}
	if diff := cmp.Diff(want, got); diff != "" || status != http.StatusOK {
		t.Error(status, diff)
	}
	var names []string
	path := "index/fields?prefix=attributes.&maxResults=40"
	for next := ""; ; {
		status, got := call(path + next)
		if status != http.StatusOK {
			t.Fatal(status, got)
		}
		for _, f := range got["fields"].([]any) {
			names = append(names, f.(map[string]any)["name"].(string))
		}
		token, more := got["nextToken"].(string)
		if !more {
			break
		}
		next = "&nextToken=" + token
		if status, _ := call("index/fields?prefix=shadow.&nextToken=" + token); status != http.StatusBadRequest {
			t.Error("a token goes on in another list")
		}
	}
	if len(names) != 100 || names[99] != "attributes.a99" {
		t.Errorf("%d names", len(names))
	}
	for path, want := range map[string]int{
		"index?a=b": 400, "index/fields?maxResults=0": 400, "index/fields?maxResults=1001": 400, "index/fields?sort=name": 400,
		"index/fields?indexName=AWS_Other": 404, "index/fields?indexName=AWS_ThingGroups": 400, "index/fields?indexName=AWS_Things": 200,
		"index/fields?nextToken=x": 400,
	} {
		if status, got := call(path); status != want {
			t.Errorf("%s: %d %v", path, status, got)
		}
	}
	if index.asked[0] != "000000000001" || actions[0] != adminapi.ActionDescribeFleetIndex || actions[1] != adminapi.ActionGetIndexFields {
		t.Error(index.asked, actions)
	}
}

// TestIndexStatistics: what is asked of the index, and what is refused before.
func TestIndexStatistics(t *testing.T) {
	t.Parallel()
	index := &oneIndex{}
	var action string
	h := adminapi.New(adminapi.Options{
		Authorize: func(r *http.Request, _ []byte, of string) (*http.Request, error) { action = of; return r, nil },
		Account:   func(context.Context) fleet.Account { return "000000000001" }, FleetIndex: index, Logger: slog.New(slog.DiscardHandler),
	})
	call := func(query string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, adminapi.Prefix+"index/stats?"+query, http.NoBody))
		return w.Code, w.Body.String()
	}
	status, body := call("field=a.b&query=x:y&type=Number&buckets=3&indexName=AWS_ThingGroups")
	var got adminapi.IndexStatistics
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK || got.Average == nil || *got.Average != 2.5 || got.Sum != nil ||
		len(got.Percentiles) != 1 || got.Buckets[0].Key != "2.5" || action != adminapi.ActionGetIndexStatistics {
		t.Errorf("%d %s %v", status, body, err)
	}
	if status, _ := call("field=a"); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	if want := []string{"000000000001{true a.b x:y Number 3}", "000000000001{false a *  10}"}; !cmp.Equal(index.asked, want) {
		t.Errorf("asked %q, want %q", index.asked, want)
	}
	for query, want := range map[string]int{
		"": 400, "field=a&type=Text": 400, "field=a&buckets=x": 400, "field=a&more=1": 400, "field=a&field=b": 400,
		"field=a&indexName=Other": 404, "field=attributes.none": 404,
	} {
		if status, body := call(query); status != want {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
}
