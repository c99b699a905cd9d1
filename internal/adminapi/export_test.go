package adminapi_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/pagetoken"
	"github.com/muster-iot/muster/internal/registry"
)

// exporter has three things; a page ends behind each limit of them.
type exporter struct{}

func (exporter) ListThings(_ context.Context, account fleet.Account, f registry.ListThingsFilter, p registry.Page) (registry.Listed[registry.Thing], error) {
	if account != "000000000007" || f != (registry.ListThingsFilter{}) {
		return registry.Listed[registry.Thing]{}, fmt.Errorf("asked %s %+v", account, f)
	}
	all := []registry.Thing{
		{Name: "a", TypeName: "T", BillingGroup: "B", Attributes: map[string]string{"k": "v"}, Groups: []registry.Membership{{Group: "d", Dynamic: true}, {Group: "s"}}},
		{Name: "b"},
		{Name: "c"},
	}
	var listed registry.Listed[registry.Thing]
	for _, t := range all {
		if t.Name <= p.After {
			continue
		}
		if len(listed.Items) == p.Limit {
			listed.Next = listed.Items[p.Limit-1].Name
			break
		}
		listed.Items = append(listed.Items, t)
	}
	return listed, nil
}

func TestExport(t *testing.T) {
	t.Parallel()
	tokens, err := pagetoken.New(make([]byte, pagetoken.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	h := adminapi.New(adminapi.Options{
		Authorize: func(r *http.Request, _ []byte, action string) (*http.Request, error) {
			if r.Header.Get("Authorization") == "" {
				return nil, fault.New(fault.Forbidden, "%s is not allowed", action)
			}
			return r, nil
		},
		Exporter: exporter{}, Tokens: tokens, Now: time.Now,
		Account: func(context.Context) fleet.Account { return "000000000007" },
		Logger:  slog.New(slog.DiscardHandler),
	})
	call := func(query string, signed bool) (int, string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ops/v1/things/export?"+query, http.NoBody)
		if signed {
			r.Header.Set("Authorization", "yes")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	status, first := call("maxResults=2", true)
	things, rest, found := strings.Cut(first, `,"nextToken":"`)
	if status != http.StatusOK || !found {
		t.Fatalf("status %d: %s", status, first)
	}
	want := `{"things":[{"name":"a","typeName":"T","attributes":{"k":"v"},"billingGroupName":"B","groups":["s"]},{"name":"b"}]`
	if diff := cmp.Diff(want, things); diff != "" {
		t.Error(diff)
	}
	token, _, _ := strings.Cut(rest, `"`)
	if status, got := call("maxResults=2&nextToken="+token, true); status != http.StatusOK || got != `{"things":[{"name":"c"}]}`+"\n" {
		t.Errorf("status %d: %s", status, got)
	}
	if status, got := call("maxResults=1000", true); status != http.StatusOK || strings.Contains(got, "nextToken") {
		t.Errorf("status %d: %s", status, got)
	}
	for _, query := range []string{"maxResults=0", "maxResults=1001", "maxResults=x", "nextToken=x", "typeName=T"} {
		if status, got := call(query, true); status != http.StatusBadRequest {
			t.Errorf("%s: status %d: %s", query, status, got)
		}
	}
	if status, _ := call("", false); status != http.StatusForbidden {
		t.Errorf("status %d", status)
	}
}
