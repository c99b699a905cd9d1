package adminapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/onboarding"
	"github.com/muster-iot/muster/internal/pagetoken"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

// plansRig serves plans and devices of a store in memory.
type plansRig struct {
	t       *testing.T
	handler http.Handler
	// actions are what callers were asked to be allowed.
	actions []string
	now     time.Time
}

func newPlansRig(t *testing.T) *plansRig {
	t.Helper()
	disk, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	r := &plansRig{t: t, now: noon}
	s, err := onboarding.New(onboarding.Options{
		Store: disk, Now: func() time.Time { return r.now }, Logger: slog.New(slog.DiscardHandler),
		Holds:       func(context.Context, fleet.Account, string, string) (bool, error) { return false, nil },
		Connections: func(context.Context, store.Reader, func(onboarding.Seen) error) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := pagetoken.New(make([]byte, pagetoken.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	r.handler = New(Options{
		Authorize: func(req *http.Request, _ []byte, action string) (*http.Request, error) {
			r.actions = append(r.actions, action)
			return req, nil
		},
		Plans: s, Onboarding: s, Tokens: tokens, Account: func(context.Context) fleet.Account { return account },
		Now: func() time.Time { return r.now }, Logger: slog.New(slog.DiscardHandler),
	})
	return r
}

// ask makes a request and wants a status, an action and parts of the answer.
func (r *plansRig) ask(method, path, body string, status int, action string, want ...string) map[string]any {
	r.t.Helper()
	r.actions = nil
	req := httptest.NewRequestWithContext(r.t.Context(), method, "/ops/v1/"+path, strings.NewReader(body))
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	text := w.Body.String()
	if w.Code != status || len(r.actions) != 1 || r.actions[0] != action {
		r.t.Errorf("%s %s: %d by %v, want %d by %s: %s", method, path, w.Code, r.actions, status, action, text)
	}
	for _, part := range want {
		if !strings.Contains(text, part) {
			r.t.Errorf("%s %s: %s, want %s in it", method, path, text, part)
		}
	}
	var out map[string]any
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		r.t.Error(err)
	}
	return out
}

// Each operation asks for its own action, decodes strictly and says what came of it.
func TestPlanOperations(t *testing.T) {
	t.Parallel()
	r := newPlansRig(t)
	source, err := os.ReadFile("../../docs/examples/plan.yaml")
	if err != nil {
		t.Fatal(err)
	}
	body := func(text string) string {
		out, err := json.Marshal(planInput{PlanBody: text})
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	const plan = "plans/pumps-line-a"
	r.ask("POST", "plans", body(string(source)), 200, ActionCreatePlan, `"status":"DRAFT"`, `"version":1`, `"writtenAt":"2026-03-01T12:00:00.000Z"`)
	r.ask("POST", "plans", body(string(source)), 409, ActionCreatePlan, "exists")
	r.ask("POST", "plans", body("id: x"), 400, ActionCreatePlan, "the plan is refused: line 1, column 1: name: is needed")
	r.ask("POST", "plans", `{"body":""}`, 400, ActionCreatePlan, "unknown field")
	r.ask("PUT", plan, body(strings.Replace(string(source), "limit: 7d", "limit: 8d", 1)), 200, ActionUpdatePlan, `"version":1`)
	r.ask("POST", plan+"/publish", "{}", 400, ActionPublishPlan, "must be empty")
	r.ask("POST", plan+"/publish", "", 200, ActionPublishPlan, `"status":"PUBLISHED"`)
	r.ask("PUT", plan, body(string(source)), 200, ActionUpdatePlan, `"version":2`)
	r.ask("GET", plan, "", 200, ActionDescribePlan, `"version":1`, `"limit":"8d"`)
	r.ask("GET", plan+"?version=2", "", 200, ActionDescribePlan, `"version":2`, `"limit":"7d"`)
	r.ask("GET", plan+"?version=0", "", 400, ActionDescribePlan, "version:")
	r.ask("GET", plan+"?verion=1", "", 400, ActionDescribePlan, "verion: is no parameter")
	r.ask("GET", plan+"?version=9", "", 404, ActionDescribePlan)
	r.ask("GET", plan+"/diff?from=1&to=2", "", 200, ActionDescribePlan, `"differences":[{"field":"stages[registration].limit","before":"8d","after":"7d"}]`)
	r.ask("GET", plan+"/document", "", 200, ActionDescribePlan, `"format":"md"`, "# Provisioning plan: Pumps of line A")
	r.ask("GET", "plans?maxResults=1", "", 200, ActionListPlans, `"planId":"pumps-line-a"`, `"publishedVersion":1`, `"draftVersion":2`)
	r.ask("GET", "plans?maxResults=0", "", 400, ActionListPlans, "maxResults:")
	r.ask("POST", plan+"/retire", "", 200, ActionRetirePlan, `"status":"RETIRED"`)
	r.ask("POST", plan+"/retire", "", 409, ActionRetirePlan)
	r.ask("POST", "plans/none/publish", "", 404, ActionPublishPlan)
	r.ask("GET", "plans/a%20b", "", 400, ActionDescribePlan, "plan: is no id")
}

func TestOnboardingOperations(t *testing.T) {
	t.Parallel()
	r := newPlansRig(t)
	source, err := os.ReadFile("../../docs/examples/plan.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(planInput{PlanBody: string(source)})
	if err != nil {
		t.Fatal(err)
	}
	r.ask("POST", "plans", string(text), 200, ActionCreatePlan)
	r.ask("POST", "plans/pumps-line-a/publish", "", 200, ActionPublishPlan)
	expect := func(serial string) string {
		return `{"planId":"pumps-line-a","metadata":{"uniqueId":"` + serial + `","manufacturer":"Acme","modelNumber":"P-100","manufacturingDate":"2026-11-26"}}`
	}
	r.ask("POST", "onboarding", expect("SN-1"), 200, ActionExpectDevice, `"deviceKey":"SN-1"`, `"state":"EXPECTED"`, `"currentStage":"manufacture"`, `"waitsFor":["burn-in"]`)
	r.ask("POST", "onboarding", expect("SN-1"), 409, ActionExpectDevice)
	r.ask("POST", "onboarding", expect("SN-2"), 200, ActionExpectDevice)
	r.ask("POST", "onboarding", `{"planId":"pumps-line-a","deviceKey":"SN-3"}`, 400, ActionExpectDevice, "metadata.uniqueId: is required")
	const steps = "onboarding/SN-1/steps/"
	r.ask("POST", steps+"burn-in/complete", "", 400, ActionCompleteOnboardingStep, "evidence:")
	r.ask("POST", steps+"hand-over/complete", `{"evidence":"x"}`, 409, ActionCompleteOnboardingStep, "comes after birth-certificate")
	r.ask("POST", steps+"burn-in/complete", `{"evidence":"p.pdf","note":"fine","by":"me"}`, 400, ActionCompleteOnboardingStep, "unknown field")
	r.ask("POST", steps+"burn-in/complete", `{"evidence":"p.pdf","note":"fine"}`, 200, ActionCompleteOnboardingStep, `"state":"MANUFACTURED"`, `"evidence":"p.pdf","note":"fine"`)
	r.ask("GET", "onboarding/SN-1", "", 200, ActionDescribeOnboarding, `"actor":"Manufacturer, Acme Pumps GmbH"`)
	r.ask("GET", "onboarding/SN-9", "", 404, ActionDescribeOnboarding)
	r.ask("GET", "onboarding/SN-1/document", "", 200, ActionDescribeOnboarding, "# Onboarding of device SN-1", "burn-in")
	r.now = noon.Add(31 * 24 * time.Hour)
	r.ask("GET", "onboarding?stuck=true", "", 200, ActionListOnboarding, "SN-1", "SN-2", `"stuck":true`)
	page := r.ask("GET", "onboarding?stage=manufacture&olderThan=72h&maxResults=1", "", 200, ActionListOnboarding, "SN-1")
	token, _ := page["nextToken"].(string)
	r.ask("GET", "onboarding?stage=manufacture&olderThan=72h&maxResults=1&nextToken="+token, "", 200, ActionListOnboarding, "SN-2")
	r.ask("GET", "onboarding?state=MANUFACTURED", "", 200, ActionListOnboarding, "SN-1")
	r.ask("GET", "onboarding?stage=manufacture&nextToken="+token, "", 400, ActionListOnboarding, "page token")
	r.ask("GET", "onboarding?olderThan=72h", "", 400, ActionListOnboarding, "needs stage")
	r.ask("GET", "onboarding?stage=x&olderThan=soon", "", 400, ActionListOnboarding, "olderThan:")
	r.ask("GET", "onboarding?stuck=maybe", "", 400, ActionListOnboarding, "stuck:")
	r.ask("GET", "onboarding?plan=x", "", 400, ActionListOnboarding, "plan: is no parameter")
}
