package adminapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// importer answers by name and remembers what it was asked.
type importer struct {
	account fleet.Account
	asked   registry.ImportCommand
	err     error
}

func (i *importer) ImportThings(_ context.Context, account fleet.Account, c registry.ImportCommand) ([]registry.ThingImported, error) {
	i.account, i.asked = account, c
	out := make([]registry.ThingImported, len(c.Things))
	for n, t := range c.Things {
		switch {
		case t.Refused != nil:
			out[n].Err = t.Refused
		case t.Name == "broken":
			out[n].Err = errors.New("secret detail")
		case t.Name == "same":
			out[n].Result = registry.ImportUnchanged
		case t.Name == "changed":
			out[n].Result = registry.ImportUpdated
		default:
			out[n].Result = registry.ImportCreated
		}
	}
	return out, i.err
}

func TestImport(t *testing.T) {
	t.Parallel()
	domain := &importer{}
	var permits []string
	h := adminapi.New(adminapi.Options{
		Authorize: func(r *http.Request, _ []byte, action string) (*http.Request, error) {
			if r.Header.Get("Authorization") == "" {
				return nil, fault.New(fault.Forbidden, "%s is not allowed", action)
			}
			return r, nil
		},
		Importer: domain,
		Permit: func(_ context.Context, action, resource string) error {
			permits = append(permits, action+" "+resource)
			if strings.HasSuffix(resource, "foreign") {
				return fault.New(fault.Forbidden, "%s is not allowed on %s", action, resource)
			}
			return nil
		},
		ARN:     func(_ context.Context, kind, name string) string { return kind + "/" + name },
		Account: func(context.Context) fleet.Account { return "000000000007" },
		Logger:  slog.New(slog.DiscardHandler),
	})
	call := func(body string, signed bool) (int, string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/ops/v1/things/import", strings.NewReader(body))
		if signed {
			r.Header.Set("Authorization", "yes")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	status, got := call(`{"mode":"upsert","things":[
		{"name":"a","typeName":"T","attributes":{"k":"v"},"groups":["g"],"billingGroupName":"p"},
		{"name":"foreign"},{"name":"b","groups":["ok","foreign"]},{"name":"same"},{"name":"changed"},{"name":"broken"}]}`, true)
	var out struct {
		Account string              `json:"account"`
		Results []map[string]string `json:"results"`
	}
	if err := json.Unmarshal([]byte(got), &out); err != nil || status != http.StatusOK {
		t.Fatalf("status %d: %s", status, got)
	}
	want := []map[string]string{
		{"result": "created"},
		{"result": "error", "code": "Forbidden", "message": "iot:CreateThing is not allowed on thing/foreign"},
		{"result": "error", "code": "Forbidden", "message": "iot:AddThingToThingGroup is not allowed on thinggroup/foreign"},
		{"result": "unchanged"},
		{"result": "updated"},
		{"result": "error", "code": "InternalFailure", "message": fault.From(errors.New("x")).Message},
	}
	if diff := cmp.Diff(want, out.Results); diff != "" {
		t.Error(diff)
	}
	if out.Account != "000000000007" || domain.account != "000000000007" || domain.asked.Mode != registry.ImportUpsert || domain.asked.DryRun {
		t.Errorf("account %s, asked %+v", out.Account, domain.asked)
	}
	if diff := cmp.Diff([]string{
		"iot:CreateThing thing/a", "iot:UpdateThing thing/a", "iot:AddThingToBillingGroup thing/a", "iot:AddThingToBillingGroup billinggroup/p",
		"iot:AddThingToThingGroup thing/a", "iot:AddThingToThingGroup thinggroup/g",
	}, permits[:6]); diff != "" {
		t.Error(diff)
	}
	first := domain.asked.Things[0]
	if first.TypeName != "T" || first.BillingGroup != "p" || first.Attributes["k"] != "v" || first.Groups[0] != "g" {
		t.Errorf("asked %+v", first)
	}
	if status, _ := call(`{"dryRun":true,"things":[]}`, true); status != http.StatusOK || !domain.asked.DryRun || domain.asked.Mode != registry.ImportCreate {
		t.Errorf("status %d, asked %+v", status, domain.asked)
	}

	many := strings.TrimSuffix(strings.Repeat(`{"name":"x"},`, registry.MaxImport+1), ",")
	for i, c := range []struct {
		body   string
		signed bool
		want   int
	}{
		{`{"things":[]}`, false, http.StatusForbidden},
		{`{"mode":"merge","things":[]}`, true, http.StatusBadRequest},
		{`{"things":[{"name":"x","colour":"red"}]}`, true, http.StatusBadRequest},
		{`{"things":[]} {}`, true, http.StatusBadRequest},
		{`[]`, true, http.StatusBadRequest},
		{fmt.Sprintf(`{"things":[%s]}`, many), true, http.StatusBadRequest},
		{`{"things":[{"name":"` + strings.Repeat("x", 4<<20) + `"}]}`, true, http.StatusBadRequest},
	} {
		if status, got := call(c.body, c.signed); status != c.want {
			t.Errorf("case %d: status %d: %.200s", i, status, got)
		}
	}
	// Without a look at each of their groups.
	permits = nil
	if status, got := call(`{"things":[{"name":"x","groups":["g"`+strings.Repeat(`,"g"`, 100)+`]}]}`, true); status != http.StatusOK ||
		!strings.Contains(got, "at most 100") || len(permits) > 0 {
		t.Errorf("status %d: %.200s, asked for %d permissions", status, got, len(permits))
	}
	domain.err = fault.New(fault.Throttling, "later")
	if status, _ := call(`{"things":[]}`, true); status != http.StatusTooManyRequests {
		t.Errorf("status %d", status)
	}
}

// A body of very many things is refused before they are things: they would take
// twenty times its size. Not parallel: it measures memory.
func TestImportIsBoundedBeforeDecoding(t *testing.T) { //nolint:paralleltest // as said
	h := adminapi.New(adminapi.Options{
		Authorize: func(r *http.Request, _ []byte, _ string) (*http.Request, error) { return r, nil },
		Logger:    slog.New(slog.DiscardHandler),
	})
	body := `{"things":[{}` + strings.Repeat(",{}", 1_300_000) + `]}`
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/ops/v1/things/import", strings.NewReader(body))
	w := httptest.NewRecorder()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	h.ServeHTTP(w, r)
	runtime.ReadMemStats(&after)
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "at most 1000") {
		t.Errorf("status %d: %.200s", w.Code, w.Body)
	}
	if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 64 {
		t.Errorf("%d MiB for a body of 4 MiB", took)
	}
}
