package adminapi_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/fault"
)

// devices answers with what it was asked.
type devices struct{}

func (devices) ClientRefusals(_ context.Context, id string) deviceauth.Refusals {
	return deviceauth.Refusals{Refusals: []deviceauth.Refusal{{ClientID: id, Count: 2}}, Evicted: 7}
}

func (devices) PrincipalRefusals(context.Context, string) deviceauth.Refusals {
	return deviceauth.Refusals{Refusals: []deviceauth.Refusal{}}
}

func (devices) Explain(_ context.Context, q deviceauth.Question) (deviceauth.Answer, error) {
	if q.Action == "" {
		return deviceauth.Answer{}, fault.New(fault.InvalidRequest, "action must be one of these")
	}
	return deviceauth.Answer{ClientID: q.ClientID, Explanation: deviceauth.Explanation{Action: q.Action, Name: q.Topic, Resource: q.Resource, Thing: q.CertificateID}}, nil
}

// ask sends one request to the front end.
func ask(t *testing.T, method, path, body string) (int, map[string]any) {
	t.Helper()
	h := adminapi.New(adminapi.Options{
		Authorize: func(r *http.Request, _ []byte, action string) (*http.Request, error) {
			if r.Header.Get("Authorization") == "" {
				return nil, fault.New(fault.Forbidden, "%s is not allowed", action)
			}
			return r, nil
		},
		Devices: devices{}, Logger: slog.New(slog.DiscardHandler),
	})
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "yes")
	if strings.HasSuffix(path, "?anonymous") {
		r.Header.Del("Authorization")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w.Code, out
}

func TestDenials(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"pump-7", "site/7//x", "a b%2F?#", "ü", "%2E%2E"} {
		code, out := ask(t, http.MethodGet, "/ops/v1/connections/"+url.PathEscape(id)+"/denials", "")
		denials, _ := out["denials"].([]any)
		if code != http.StatusOK || out["clientId"] != id || len(denials) != 1 || out["evicted"] != 7.0 {
			t.Errorf("%s: %d %v", id, code, out)
		}
	}
	code, out := ask(t, http.MethodGet, "/ops/v1/principals/aa/denials", "")
	if diff := cmp.Diff(map[string]any{"certificateId": "aa", "denials": []any{}, "evicted": 0.0}, out); code != http.StatusOK || diff != "" {
		t.Errorf("%d, principal (-want +got):\n%s", code, diff)
	}
	for _, c := range []struct{ method, path string }{
		{http.MethodGet, "connections/c/denials?anonymous"},
		{http.MethodGet, "principals/c/denials?anonymous"},
		{http.MethodPost, "connections/c/explain?anonymous"},
	} {
		code, out := ask(t, c.method, "/ops/v1/"+c.path, "{}")
		if code != http.StatusForbidden || out["message"] != "ops:GetDenials is not allowed" {
			t.Errorf("%s: %d %v", c.path, code, out)
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	code, out := ask(t, http.MethodPost, "/ops/v1/connections/a%2Fb/explain", `{"action":"iot:Publish","topic":"t","certificateId":"aa"}`)
	if code != http.StatusOK || out["clientId"] != "a/b" || out["action"] != "iot:Publish" || out["name"] != "t" || out["thing"] != "aa" {
		t.Errorf("%d %v", code, out)
	}
	for body, want := range map[string]string{
		`{"action":"iot:Publish","topics":"t"}`: `unknown field "topics"`,
		`{}`:                                    "action must be",
		``:                                      "EOF",
		`{"action":"x"} {}`:                     "after its JSON value",
		`{"action":1}`:                          "action",
	} {
		code, out := ask(t, http.MethodPost, "/ops/v1/connections/c/explain", body)
		message, _ := out["message"].(string)
		if code != http.StatusBadRequest || !strings.Contains(message, want) {
			t.Errorf("%s: %d %v, want %q", body, code, out, want)
		}
	}
}
