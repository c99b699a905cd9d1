package provisioning

import (
	"reflect"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
)

// dryBody names one of each kind of resource.
const dryBody = `{"Parameters":{"Serial":{"Type":"String"},"Site":{"Type":"String","Default":"leeds"}},
"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{
  "ThingName":{"Fn::Join":["-",["pump",{"Ref":"Serial"}]]},"ThingTypeName":"Pump","ThingGroups":["all",{"Ref":"Site"}],
  "BillingGroup":"plant","AttributePayload":{"site":{"Ref":"Site"}}},
  "OverrideSettings":{"AttributePayload":"MERGE","ThingTypeName":"REPLACE","ThingGroups":"FAIL"}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}},
 "named":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"pumps"}},
 "own":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"Version":"2012-10-17","Statement":[]}}}},
"DeviceConfiguration":{"site":{"Ref":"Site"}}}`

// missingNames are the missing resources, kind/name.
func missingNames(r registry.Rehearsal) string {
	names := make([]string, len(r.Missing))
	for i, m := range r.Missing {
		names[i] = m.Kind + "/" + m.Name
	}
	return strings.Join(names, " ")
}

// TestDryRun: a body comes to a plan, what is missing is named until it is
// there, what the registry would refuse is told, and nothing is written.
func TestDryRun(t *testing.T) {
	t.Parallel()
	r := newJITRig(t)
	ctx := t.Context()
	run := func(c DryRunCommand) DryRun {
		t.Helper()
		r.store.dieAfter.Store(0) // the next commit fails
		out, err := r.DryRun(ctx, jitAccount, c)
		r.need(err)
		if r.store.dieAfter.Load() != 0 {
			t.Error("a dry run has written")
		}
		r.store.dieAfter.Store(-1 << 40)
		return out
	}
	command := DryRunCommand{Body: dryBody, Parameters: map[string]string{"Serial": "7", "Site": "york", "Colour": "red"}}
	out := run(command)
	want := &provtemplate.Thing{
		LogicalName: "thing", Name: "pump-7", TypeName: "Pump", BillingGroup: "plant", Attributes: map[string]string{"site": "york"},
		Groups: []string{"all", "york"}, OnAttributes: provtemplate.Merge, OnType: provtemplate.Replace, OnGroups: provtemplate.Fail,
	}
	if out.Problem != nil || !reflect.DeepEqual(out.Plan.Thing, want) || out.Plan.DeviceConfiguration["site"] != "york" {
		t.Errorf("plan %+v, problem %+v", out.Plan, out.Problem)
	}
	if out.StandIns[provtemplate.CertificateID] != standInID || !reflect.DeepEqual(out.Ignored, []string{"Colour"}) {
		t.Errorf("stand-ins %v, ignored %v", out.StandIns, out.Ignored)
	}
	if got := missingNames(out.Rehearsal); got != "thingtype/Pump thinggroup/all thinggroup/york billinggroup/plant policy/pumps" {
		t.Errorf("missing: %s", got)
	}
	wantFault(t, out.Rehearsal.Refusal, fault.ResourceNotFound, "Pump")

	// Step by step the account gets what the template needs.
	r.need(ignore(r.registry.CreateThingType(ctx, jitAccount, registry.CreateThingTypeCommand{Name: "Pump"})))
	for _, group := range []string{"all", "york"} {
		r.need(ignore(r.registry.CreateThingGroup(ctx, jitAccount, registry.CreateThingGroupCommand{Name: group})))
	}
	r.need(ignore(r.registry.CreateBillingGroup(ctx, jitAccount, registry.CreateBillingGroupCommand{Name: "plant"})))
	out = run(command)
	if got := missingNames(out.Rehearsal); got != "policy/pumps" {
		t.Errorf("missing: %s", got)
	}
	r.need(ignore(r.registry.CreatePolicy(ctx, jitAccount, "pumps", `{"Version":"2012-10-17","Statement":[]}`)))
	out = run(command)
	if got := out.Rehearsal; len(got.Missing) != 0 || got.Refusal != nil || got.ThingExists || !got.PolicyExists["pumps"] || got.PolicyExists[out.Plan.Policies[1].Name] {
		t.Errorf("rehearsal: %+v", got)
	}

	// A thing that is there meets the override settings.
	r.need(ignore(r.registry.CreateThing(ctx, jitAccount, registry.CreateThingCommand{Name: "pump-7"})))
	out = run(command)
	wantFault(t, out.Rehearsal.Refusal, fault.Conflict, "ThingGroups is FAIL")
	if !out.Rehearsal.ThingExists {
		t.Error("the thing does not exist")
	}
	// So does a certificate that is named.
	command.Parameters = map[string]string{"Serial": "8", "Site": "york", provtemplate.CertificateID: strings.Repeat("ab", 32)}
	out = run(command)
	wantFault(t, out.Rehearsal.Refusal, fault.ResourceNotFound, "abab")
	if out.StandIns != nil || out.Plan.Certificate.ID != strings.Repeat("ab", 32) {
		t.Errorf("%+v %v", out.Plan.Certificate, out.StandIns)
	}
}

// TestDryRunSignsNothing: the issuer of the rig refuses, so a certificate that is
// asked for with a request would be a refusal if it were signed.
func TestDryRunSignsNothing(t *testing.T) {
	t.Parallel()
	r := newJITRig(t)
	const body = `{"Parameters":{"CSR":{"Type":"String"}},"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"t"}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateSigningRequest":{"Ref":"CSR"}}}}}`
	out, err := r.DryRun(t.Context(), jitAccount, DryRunCommand{Body: body, Type: provtemplate.Bulk, Parameters: map[string]string{"CSR": "x"}})
	if err != nil || out.Problem != nil || out.Rehearsal.Refusal != nil || out.Plan.Certificate.CSR != "x" || out.StandIns != nil {
		t.Errorf("%+v, %v, %v", out, out.Problem, err)
	}
}

// ignore drops what a command has made.
func ignore[T any](_ T, err error) error { return err }

// TestDryRunProblems: mistakes have their place, in the body and in what the
// parameters make of it.
func TestDryRunProblems(t *testing.T) {
	t.Parallel()
	r := newJITRig(t)
	for name, c := range map[string]struct {
		command DryRunCommand
		want    Problem
	}{
		"no JSON": {
			DryRunCommand{Body: "{\n \"Resources\": x}"},
			Problem{Rule: provtemplate.RuleSyntax, Line: 2, Column: 15, Text: "the body is not JSON: invalid character 'x' looking for beginning of value"},
		},
		"another kind": {
			DryRunCommand{Body: dryBody, Type: provtemplate.JITP},
			Problem{Rule: provtemplate.RuleKind, Line: 10, Column: 23, Pointer: "/DeviceConfiguration", Text: "DeviceConfiguration belongs to templates of type FLEET_PROVISIONING only"},
		},
		"no value": {
			DryRunCommand{Body: dryBody},
			Problem{Line: 1, Column: 25, Pointer: "/Parameters/Serial", Parameter: "Serial", Text: "there is no value and no Default"},
		},
		"no name": {
			DryRunCommand{Body: dryBody, Parameters: map[string]string{"Serial": "a b"}},
			Problem{
				Line: 4, Column: 15, Pointer: "/Resources/thing/Properties/ThingName", Function: "Fn::Join",
				Text: "the result is no valid name: 1 to 128 letters, digits, _, - and :",
			},
		},
		"no subject": {
			DryRunCommand{Body: jitBody, Type: provtemplate.JITP, Parameters: map[string]string{"AWS::IoT::Certificate::CommonName": "pump"}},
			Problem{
				Line: 1, Column: 114, Pointer: "/Parameters/AWS::IoT::Certificate::OrganizationalUnit", Parameter: "AWS::IoT::Certificate::OrganizationalUnit",
				Text: "the subject of the certificate has no such field, and there is no Default",
			},
		},
	} {
		out, err := r.DryRun(t.Context(), jitAccount, c.command)
		if err != nil || out.Problem == nil || *out.Problem != c.want || out.Plan != nil {
			t.Errorf("%s: %+v, plan %v, %v, want %+v", name, out.Problem, out.Plan, err, c.want)
		}
	}
}

// TestDryRunOfTemplate: a stored template has its type, its state and its
// versions; other accounts' are not there.
func TestDryRunOfTemplate(t *testing.T) {
	t.Parallel()
	r := newJITRig(t)
	ctx := t.Context()
	jitp := func(name string) string {
		return strings.Replace(jitBody, `{"Ref":"AWS::IoT::Certificate::CommonName"}`, `"`+name+`"`, 1)
	}
	_, err := r.CreateTemplate(ctx, jitAccount, CreateTemplateCommand{Name: "t", Body: jitp("one"), RoleARN: templateRole, Type: provtemplate.JITP})
	r.need(err)
	_, _, err = r.CreateTemplateVersion(ctx, jitAccount, "t", jitp("two"), true)
	r.need(err)
	subject := map[string]string{"AWS::IoT::Certificate::CommonName": "c", "AWS::IoT::Certificate::OrganizationalUnit": "u"}
	for version, want := range map[int64]string{0: "two", 1: "one", 2: "two"} {
		out, err := r.DryRun(ctx, jitAccount, DryRunCommand{Template: "t", Version: version, Parameters: subject})
		r.need(err)
		if out.Problem != nil || out.Plan.Thing.Name != want || out.Type != provtemplate.JITP || !out.Disabled || out.Template != "t" || len(out.Ignored) != 0 {
			t.Errorf("version %d: %+v %+v", version, out, out.Problem)
		}
		if version == 0 && out.Version != 2 {
			t.Errorf("the version in force is %d", out.Version)
		}
	}
	for _, c := range []struct {
		account fleet.Account
		command DryRunCommand
		code    fault.Code
		says    string
	}{
		{jitAccount, DryRunCommand{}, fault.InvalidRequest, "not both"},
		{jitAccount, DryRunCommand{Body: "{}", Template: "t"}, fault.InvalidRequest, "not both"},
		{jitAccount, DryRunCommand{Body: "{}", Version: 1}, fault.InvalidRequest, "versionId"},
		{jitAccount, DryRunCommand{Body: "{}", Type: "X"}, fault.InvalidRequest, "type must be"},
		{jitAccount, DryRunCommand{Template: "t", Type: provtemplate.JITP}, fault.InvalidRequest, "type goes with"},
		{jitAccount, DryRunCommand{Template: "a b"}, fault.InvalidRequest, "templateName"},
		{jitAccount, DryRunCommand{Template: "t", Version: 3}, fault.ResourceNotFound, "no version 3"},
		{"000000000009", DryRunCommand{Template: "t"}, fault.ResourceNotFound, "does not exist"},
	} {
		_, err := r.DryRun(ctx, c.account, c.command)
		wantFault(t, err, c.code, c.says)
	}
}
