package adminapi_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// lints answers with what it was asked.
type lints struct{}

func (lints) LintDocument(account fleet.Account, document []byte) []iotpolicy.Finding {
	return []iotpolicy.Finding{{Code: "malformed", Severity: iotpolicy.Error, Statement: -1, Place: iotpolicy.Place{Line: 1, Column: 2}, Text: string(account) + " " + string(document)}}
}

func (lints) LintStored(_ context.Context, _ fleet.Account, name, version string) (string, []iotpolicy.Finding, error) {
	if name == "nothing" {
		return "", nil, fault.New(fault.ResourceNotFound, "policy %s does not exist", name)
	}
	if version == "" {
		return "7", nil, nil
	}
	return version, []iotpolicy.Finding{{Code: "no-connect", Severity: iotpolicy.Info, Sid: "s", Place: iotpolicy.Place{Line: 3, Column: 4}, Text: "text"}}, nil
}

// TestLintPolicy: a document travels as it is or as a string, and places are
// those in it.
func TestLintPolicy(t *testing.T) {
	t.Parallel()
	h := adminapi.New(adminapi.Options{
		Authorize: func(r *http.Request, _ []byte, action string) (*http.Request, error) {
			if action != adminapi.ActionLintPolicy {
				t.Errorf("authorized for %s", action)
			}
			return r, nil
		},
		Policies: lints{}, Account: func(context.Context) fleet.Account { return "000000000001" }, Logger: slog.New(slog.DiscardHandler),
	})
	for body, want := range map[string]string{
		`{"document":{"a" : 1}}`:           `200 {"findings":[{"code":"malformed","severity":"error","line":1,"column":2,"message":"000000000001 {\"a\" : 1}"}]}`,
		`{"document":"{\n"}`:               `200 {"findings":[{"code":"malformed","severity":"error","line":1,"column":2,"message":"000000000001 {\n"}]}`,
		`{"policyName":"p"}`:               `200 {"policyName":"p","versionId":"7","findings":[]}`,
		`{"policyName":"nothing"}`:         `404 {"message":"policy nothing does not exist"}`,
		`{}`:                               `400 {"message":"document or policyName must be given, not both"}`,
		`{"document":{},"policyName":"p"}`: `400 {"message":"document or policyName must be given, not both"}`,
		`{"document":{},"versionId":"1"}`:  `400 {"message":"versionId goes with policyName"}`,
		`{"policyName":"p","versionId":"2"}`: `200 {"policyName":"p","versionId":"2","findings":[` +
			`{"code":"no-connect","severity":"info","statement":0,"sid":"s","line":3,"column":4,"message":"text"}]}`,
		`{"name":"p"}`: `400 {"message":"the body is not what this operation takes: json: unknown field \"name\""}`,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/ops/v1/policies/lint", strings.NewReader(body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		status, wanted, _ := strings.Cut(want, " ")
		if strconv.Itoa(w.Code) != status {
			t.Errorf("%s: status %d, want %s", body, w.Code, status)
		}
		if diff := cmp.Diff(wanted, strings.TrimSpace(w.Body.String())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", body, diff)
		}
	}
}
