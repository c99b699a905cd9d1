package adminapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/drift"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/pagetoken"
	"github.com/muster-iot/muster/internal/registry"
)

// askedPromises remembers what it was asked.
type askedPromises struct {
	list   drift.ListCommand
	settle drift.SettleCommand
}

func (*askedPromises) report() drift.Report {
	return drift.Report{
		Thing: "a", ThingID: "i", Revision: "r", DefaultVersion: 2,
		Promise:     registry.Promise{PromiseOrigin: registry.PromiseOrigin{Template: "T", Version: 1, Method: event.ProvisioningClaim}, Made: time.UnixMilli(1), Policies: []string{"p"}},
		Certificate: &registry.PromisedCertificate{ID: "c", Status: "REVOKED"},
		Differences: []drift.Difference{{Kind: drift.Certificate, Name: "c", Promised: "ACTIVE", Found: "REVOKED"}},
		Extra:       []drift.Difference{{Kind: drift.ExtraPolicy, Name: "wide", Found: "wide"}},
	}
}

func (a *askedPromises) Show(_ context.Context, _ fleet.Account, thing string) (drift.Report, error) {
	if thing == "none" {
		return drift.Report{}, fault.New(fault.ResourceNotFound, "no promise")
	}
	return a.report(), nil
}

func (a *askedPromises) List(_ context.Context, _ fleet.Account, c drift.ListCommand) (drift.Page, error) {
	a.list = c
	return drift.Page{Reports: []drift.Report{a.report()}, Examined: 3, Drifting: 1, Outdated: 2, ByKind: map[drift.Kind]int{drift.Certificate: 1}, Next: "there"}, nil
}

func (*askedPromises) Versions(_ context.Context, _ fleet.Account, template, _ string) (drift.VersionCounts, error) {
	return drift.VersionCounts{Template: template, DefaultVersion: 2, Counts: []registry.PromiseCount{{Version: 1, Things: 7}}}, nil
}

func (a *askedPromises) SettleFor(_ context.Context, _ fleet.Account, c drift.SettleCommand) (drift.Plan, error) {
	if a.settle = c; c.Revision == "old" {
		return drift.Plan{}, drift.ErrMoved
	}
	return drift.Plan{Settles: []drift.Difference{{Kind: drift.Attribute, Name: "n", Promised: "x", Found: "y"}}}, nil
}

func TestDriftOperations(t *testing.T) {
	t.Parallel()
	tokens, err := pagetoken.New(make([]byte, pagetoken.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	const report = `{"thingName":"a","thingId":"i","promise":{"templateName":"T","templateVersion":1,"defaultVersion":2,"outdated":true,"method":"CLAIM",` +
		`"madeAt":"1970-01-01T00:00:00.001Z","policyNames":["p"]},"certificateId":"c","certificateStatus":"REVOKED","drifts":true,` +
		`"differences":[{"kind":"CERTIFICATE","name":"c","promised":"ACTIVE","found":"REVOKED","irreparable":"certificate c is revoked, which is final: provision the device again"}],` +
		`"extraPolicies":["wide"],"revision":"r"}`
	const settled = `{"thingName":"a","settled":[{"kind":"ATTRIBUTE","name":"n","promised":"x","found":"y"}],"left":[]}`
	for name, c := range map[string]struct {
		method, path, body, action string
		status                     int
		answer                     string
		list                       drift.ListCommand
		settle                     drift.SettleCommand
	}{
		"show":    {method: "GET", path: "drift/things/a", action: ActionGetDrift, status: 200, answer: report},
		"unknown": {method: "GET", path: "drift/things/none", action: ActionGetDrift, status: 404, answer: `{"message":"no promise"}`},
		"list": {
			method: "GET", path: "drift", action: ActionListDrift, status: 200,
			answer: `{"things":[` + report + `],"examined":3,"drifting":1,"outdated":2,"byKind":{"CERTIFICATE":1},"nextToken":"…"}`,
			list:   drift.ListCommand{Limit: 100},
		},
		"list some": {
			method: "GET", path: "drift?query=q&template=T&version=3&kind=POLICY,ATTRIBUTE&maxResults=7", action: ActionListDrift, status: 200,
			list: drift.ListCommand{Query: "q", Template: "T", Version: 3, Kinds: []drift.Kind{drift.Policy, drift.Attribute}, Limit: 7},
		},
		"list outdated": {method: "GET", path: "drift?outdated=true&all=false", action: ActionListDrift, status: 200, list: drift.ListCommand{Outdated: true, Limit: 100}},
		"bad version":   {method: "GET", path: "drift?version=0", action: ActionListDrift, status: 400},
		"bad flag":      {method: "GET", path: "drift?all=perhaps", action: ActionListDrift, status: 400},
		"ignored":       {method: "GET", path: "drift?kinds=POLICY", action: ActionListDrift, status: 400},
		"versions":      {method: "GET", path: "drift/templates/T/versions", action: ActionListDrift, status: 200, answer: `{"templateName":"T","defaultVersion":2,"versions":[{"version":1,"things":7}]}`},
		"versions page": {method: "GET", path: "drift/templates/T/versions?maxResults=1", action: ActionListDrift, status: 400},
		"repair": {
			method: "POST", path: "drift/things/a/repair", body: `{"revision":"r","kinds":["ATTRIBUTE"],"dryRun":true}`, action: ActionRepairDrift, status: 200, answer: settled,
			settle: drift.SettleCommand{Thing: "a", Choice: drift.Choice{Action: drift.Repair, Kinds: []drift.Kind{drift.Attribute}}, Revision: "r", DryRun: true},
		},
		"accept": {
			method: "POST", path: "drift/things/a/accept", body: `{"revision":"r"}`, action: ActionAcceptDrift, status: 200, answer: settled,
			settle: drift.SettleCommand{Thing: "a", Choice: drift.Choice{Action: drift.Accept}, Revision: "r"},
		},
		"moved": {
			method: "POST", path: "drift/things/a/repair", body: `{"revision":"old"}`, action: ActionRepairDrift, status: 409,
			answer: `{"message":"what differs has changed since it was shown; look again"}`,
			settle: drift.SettleCommand{Thing: "a", Choice: drift.Choice{Action: drift.Repair}, Revision: "old"},
		},
		"unknown member": {method: "POST", path: "drift/things/a/accept", body: `{"revision":"r","force":true}`, action: ActionAcceptDrift, status: 400},
	} {
		promises := &askedPromises{}
		var asked string
		h := New(Options{
			Promises: promises, Tokens: tokens, Account: func(context.Context) fleet.Account { return account },
			Authorize: func(r *http.Request, _ []byte, action string) (*http.Request, error) {
				asked = action
				return r, nil
			},
			Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), c.method, Prefix+c.path, strings.NewReader(c.body)))
		answer := strings.TrimSpace(w.Body.String())
		if w.Code != c.status || asked != c.action {
			t.Errorf("%s: status %d, action %s: %s", name, w.Code, asked, answer)
		}
		if got := withoutToken(answer); c.answer != "" && got != c.answer {
			t.Errorf("%s: answer\n%s\nwant\n%s", name, got, c.answer)
		}
		if diff := cmp.Diff(c.list, promises.list) + cmp.Diff(c.settle, promises.settle); diff != "" {
			t.Errorf("%s: asked (-want +got):\n%s", name, diff)
		}
	}
}
