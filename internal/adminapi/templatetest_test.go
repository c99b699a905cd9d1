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
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
)

// dryRuns answers by what it was asked.
type dryRuns struct{}

func (dryRuns) DryRun(_ context.Context, account fleet.Account, c provisioning.DryRunCommand) (provisioning.DryRun, error) {
	switch {
	case c.Template == "nothing":
		return provisioning.DryRun{}, fault.New(fault.ResourceNotFound, "provisioning template nothing does not exist")
	case c.Template != "":
		return provisioning.DryRun{
			Type: provtemplate.JITP, Template: c.Template, Version: c.Version, Disabled: true, Hook: "gate", Ignored: []string{"Colour"},
			StandIns: map[string]string{"AWS::IoT::Certificate::Id": "00"},
			Plan: &provtemplate.Plan{
				Thing: &provtemplate.Thing{
					LogicalName: "t", Name: c.Parameters["Serial"], TypeName: "Pump", Groups: []string{"site"}, BillingGroup: "plant", Attributes: map[string]string{"a": "b"},
					OnAttributes: provtemplate.Merge, OnType: provtemplate.DoNothing, OnGroups: provtemplate.Fail,
				},
				Certificate:         &provtemplate.Certificate{LogicalName: "c", ID: "00", Active: true, OnStatus: provtemplate.Replace},
				Policies:            []provtemplate.Policy{{LogicalName: "p", Name: "may"}, {LogicalName: "q", Name: "hash", Document: "{}"}},
				DeviceConfiguration: map[string]string{"url": "x"},
			},
			Rehearsal: registry.Rehearsal{
				ThingExists: true, PolicyExists: map[string]bool{"may": true},
				Missing: []fleet.ARN{{Scope: fleet.Scope{Region: "us-east-1", Account: account}, Kind: fleet.ARNThingType, Name: "Pump"}},
				Refusal: fault.New(fault.Conflict, "thing exists"),
			},
		}, nil
	case c.Body == "bare":
		return provisioning.DryRun{Type: c.Type, Plan: &provtemplate.Plan{
			Thing:       &provtemplate.Thing{LogicalName: "t", Name: "n"},
			Certificate: &provtemplate.Certificate{LogicalName: "c", CSR: "x"}, DeviceConfiguration: map[string]string{},
		}}, nil
	}
	return provisioning.DryRun{Type: provtemplate.FleetProvisioning, Problem: &provisioning.Problem{
		Rule: provtemplate.RuleUnknown, Line: 2, Column: 3, Pointer: "/x", Text: "unknown",
	}}, nil
}

// TestTestTemplate: a plan and a problem have their shapes, and whoever may not
// see a stored template is not told what it does.
func TestTestTemplate(t *testing.T) {
	t.Parallel()
	permitted := ""
	h := adminapi.New(adminapi.Options{
		Authorize: func(r *http.Request, _ []byte, action string) (*http.Request, error) {
			if action != adminapi.ActionTestProvisioningTemplate {
				t.Errorf("authorized for %s", action)
			}
			return r, nil
		},
		Permit: func(_ context.Context, action, resource string) error {
			permitted = action + " " + resource
			if strings.HasSuffix(resource, "/hidden") {
				return fault.New(fault.Forbidden, "not allowed")
			}
			return nil
		},
		ARN:       func(_ context.Context, kind, name string) string { return kind + "/" + name },
		Templates: dryRuns{}, Account: func(context.Context) fleet.Account { return "000000000001" }, Logger: slog.New(slog.DiscardHandler),
	})
	for _, c := range []struct{ body, permitted, want string }{
		{
			`{"templateBody":"{"}`, "",
			`200 {"type":"FLEET_PROVISIONING","ignoredParameters":[],"problem":{"rule":"unknown","line":2,"column":3,"pointer":"/x","message":"unknown"},"missing":[]}`,
		},
		{
			`{"templateName":"t","parameters":{"Serial":"7"}}`, "iot:DescribeProvisioningTemplate provisioningtemplate/t",
			`200 {"type":"JITP","templateName":"t","enabled":false,"hookNotAsked":"gate","standIns":{"AWS::IoT::Certificate::Id":"00"},"ignoredParameters":["Colour"],` +
				`"plan":{"thing":{"logicalName":"t","thingName":"7","exists":true,"thingTypeName":"Pump","attributes":{"a":"b"},"thingGroups":["site"],` +
				`"billingGroupName":"plant","overrideSettings":{"AttributePayload":"MERGE","ThingGroups":"FAIL","ThingTypeName":"DO_NOTHING"}},` +
				`"certificate":{"logicalName":"c","source":"ID","certificateId":"00","status":"ACTIVE","overrideSettings":{"Status":"REPLACE"}},` +
				`"policies":[{"logicalName":"p","policyName":"may","exists":true},{"logicalName":"q","policyName":"hash","policyDocument":"{}","exists":false}],` +
				`"deviceConfiguration":{"url":"x"}},` +
				`"missing":[{"kind":"thingtype","name":"Pump","arn":"arn:aws:iot:us-east-1:000000000001:thingtype/Pump"}],` +
				`"refusal":{"code":"Conflict","message":"thing exists"}}`,
		},
		{
			`{"templateBody":"bare","type":"BULK"}`, "",
			`200 {"type":"BULK","ignoredParameters":[],"plan":{"thing":{"logicalName":"t","thingName":"n","exists":false,"attributes":{},"thingGroups":[],` +
				`"overrideSettings":{"AttributePayload":"","ThingGroups":"","ThingTypeName":""}},` +
				`"certificate":{"logicalName":"c","source":"CSR","status":"INACTIVE","overrideSettings":{"Status":""}},"policies":[],"deviceConfiguration":{}},"missing":[]}`,
		},
		{`{"templateName":"nothing"}`, "iot:DescribeProvisioningTemplate provisioningtemplate/nothing", `404 {"message":"provisioning template nothing does not exist"}`},
		{`{"templateName":"hidden"}`, "iot:DescribeProvisioningTemplate provisioningtemplate/hidden", `403 {"message":"not allowed"}`},
		{`{"templateName":"hidden","versionId":2}`, "iot:DescribeProvisioningTemplateVersion provisioningtemplate/hidden", `403 {"message":"not allowed"}`},
		{`{"body":"p"}`, "", `400 {"message":"the body is not what this operation takes: json: unknown field \"body\""}`},
	} {
		permitted = ""
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/ops/v1/provisioning-templates:test", strings.NewReader(c.body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		status, wanted, _ := strings.Cut(c.want, " ")
		if strconv.Itoa(w.Code) != status || permitted != c.permitted {
			t.Errorf("%s: status %d, want %s; asked for %q", c.body, w.Code, status, permitted)
		}
		if diff := cmp.Diff(wanted, strings.TrimSpace(w.Body.String())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.body, diff)
		}
	}
}
