package deviceauth_test

import (
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// trialWorld is a world whose certificate can be read back, with a policy on
// the thing's group and one on nothing.
func trialWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, `{"Version":"2012-10-17","Statement":[
	 {"Effect":"Allow","Action":"iot:Connect","Resource":"@:client/${iot:Connection.Thing.ThingName}"},
	 {"Effect":"Allow","Action":"iot:Publish","Resource":["@:topic/${iot:Certificate.Subject.CommonName}/a","@:topic/b"]}]}`)
	found := w.certificates[w.id]
	found.PEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.certificate.Raw}))
	w.certificates[w.id] = found
	w.policies["spare"] = policy("spare", `{"Version":"2012-10-17","Statement":[
	 {"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/spare"},{"Effect":"Deny","Action":"iot:Publish","Resource":"@:topic/b"}]}`)
	w.policies["above"] = policy("above", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/of-group"}}`)
	w.targets["parent"] = []string{"above"}
	w.targets[scope+"thinggroup/parent"] = []string{"above"}
	return w
}

// A trial answers by the principal's policies, its thing's groups and the named
// changes, and tells what each policy had to say.
func TestTry(t *testing.T) {
	t.Parallel()
	w := trialWorld(t)
	for _, c := range []struct {
		name      string
		trial     deviceauth.Trial
		resources string
		want      string
	}{
		{"certificate field", deviceauth.Trial{ClientID: "pump-7"}, "topic/pump-7/a", "ALLOWED allow=reference deny= silent=above missing="},
		{"group above", deviceauth.Trial{ClientID: "pump-7"}, "topic/of-group", "ALLOWED allow=above deny= silent=reference missing="},
		{"no client, no group", deviceauth.Trial{}, "topic/of-group", "IMPLICIT_DENY allow= deny= silent=reference missing="},
		{"other client, no group", deviceauth.Trial{ClientID: "pump-8"}, "topic/of-group", "IMPLICIT_DENY allow= deny= silent=reference missing="},
		{"added", deviceauth.Trial{Add: []string{"spare"}}, "topic/spare", "ALLOWED allow=spare deny= silent=reference missing="},
		{"added denial", deviceauth.Trial{Add: []string{"spare"}}, "topic/b", "EXPLICIT_DENY allow=reference deny=spare silent= missing="},
		{"added twice", deviceauth.Trial{Add: []string{"reference"}}, "topic/b", "ALLOWED allow=reference deny= silent= missing="},
		{"skipped", deviceauth.Trial{Skip: []string{"reference"}}, "topic/b", "IMPLICIT_DENY allow= deny= silent= missing="},
		{"all of several", deviceauth.Trial{}, "topic/b topic/c", "IMPLICIT_DENY allow=reference deny= silent=reference missing="},
		{"worst of several", deviceauth.Trial{Add: []string{"spare"}}, "topic/b topic/c", "EXPLICIT_DENY allow=reference deny=spare silent=reference,spare missing="},
		{"group alone", deviceauth.Trial{Principal: scope + "thinggroup/parent", ClientID: "pump-7"}, "topic/of-group", "ALLOWED allow=above deny= silent= missing="},
	} {
		if c.trial.Principal == "" {
			c.trial.Principal = w.arn
		}
		check := deviceauth.Check{Action: iotpolicy.ActionPublish}
		for resource := range strings.FieldsSeq(c.resources) {
			check.Resources = append(check.Resources, scope+resource)
		}
		c.trial.Checks = []deviceauth.Check{check}
		got, err := w.service.Try(t.Context(), account, c.trial)
		if err != nil || len(got) != 1 {
			t.Fatalf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, renderVerdict(&got[0])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	got, err := w.service.Try(t.Context(), account, deviceauth.Trial{
		Principal: w.arn, Checks: []deviceauth.Check{{Action: iotpolicy.ActionConnect, Resources: []string{scope + "client/pump-7"}}},
	})
	if err != nil || renderVerdict(&got[0]) != "IMPLICIT_DENY allow= deny= silent=reference missing=iot:Connection.Thing.ThingName" {
		t.Errorf("without client: %v %v", got, err)
	}
}

// renderVerdict writes a verdict as TestTry wants it.
func renderVerdict(v *deviceauth.Verdict) string {
	list := func(refs []iotpolicy.PolicyRef) string {
		names := make([]string, len(refs))
		for i := range refs {
			names[i] = refs[i].Name
		}
		return strings.Join(names, ",")
	}
	return v.Outcome.String() + " allow=" + list(v.Allowing) + " deny=" + list(v.Denying) + " silent=" + list(v.Silent) +
		" missing=" + strings.Join(v.Missing, ",")
}

// Questions that name nothing are refused and not answered with a denial.
func TestTryRefuses(t *testing.T) {
	t.Parallel()
	w := trialWorld(t)
	resource := []deviceauth.Check{{Action: iotpolicy.ActionPublish, Resources: []string{scope + "topic/b"}}}
	for name, c := range map[string]struct {
		trial deviceauth.Trial
		want  fault.Code
	}{
		"no principal":           {deviceauth.Trial{Checks: resource}, fault.InvalidRequest},
		"identity of a pool":     {deviceauth.Trial{Principal: "eu-west-1:11111111-2222-3333-4444-555555555555", Checks: resource}, fault.InvalidRequest},
		"foreign certificate":    {deviceauth.Trial{Principal: strings.Replace(w.arn, "eu-local-1", "us-east-1", 1), Checks: resource}, fault.InvalidRequest},
		"unknown certificate":    {deviceauth.Trial{Principal: scope + "cert/" + strings.Repeat("0", 64), Checks: resource}, fault.ResourceNotFound},
		"unknown policy":         {deviceauth.Trial{Principal: w.arn, Add: []string{"nothing"}, Checks: resource}, fault.ResourceNotFound},
		"unknown policy to skip": {deviceauth.Trial{Principal: w.arn, Skip: []string{"nothing"}, Checks: resource}, fault.ResourceNotFound},
		"added and skipped":      {deviceauth.Trial{Principal: w.arn, Add: []string{"spare"}, Skip: []string{"spare"}, Checks: resource}, fault.InvalidRequest},
		"no resources":           {deviceauth.Trial{Principal: w.arn, Checks: []deviceauth.Check{{Action: iotpolicy.ActionPublish}}}, fault.InvalidRequest},
		"too many policies":      {deviceauth.Trial{Principal: w.arn, Skip: slices.Repeat([]string{"reference"}, 101), Checks: resource}, fault.InvalidRequest},
		"too many resources": {deviceauth.Trial{Principal: w.arn, Checks: []deviceauth.Check{{
			Action: iotpolicy.ActionPublish, Resources: slices.Repeat([]string{scope + "topic/b"}, 1001),
		}}}, fault.InvalidRequest},
		"no ARN": {deviceauth.Trial{Principal: w.arn, Checks: []deviceauth.Check{{Action: iotpolicy.ActionPublish, Resources: []string{"topic/b"}}}}, fault.InvalidRequest},
	} {
		if _, err := w.service.Try(t.Context(), account, c.trial); fault.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
