package cli_test

import (
	"slices"
	"testing"

	"github.com/muster-iot/muster/internal/testkit"
)

// TestPolicyOperations: policies of a group above, effective ones, trying them,
// and the operations that are older than groups, by the AWS command line.
func TestPolicyOperations(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws")
	o := newOperator(t, testkit.StartServer(t))
	const scope = "arn:aws:iot:us-east-1:000000000000:"
	document := func(topic string) string {
		return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Publish","Resource":"` + scope + "topic/" + topic + `"}}`
	}
	o.must("iot", "create-policy", "--policy-name", "own", "--policy-document", document("own"))
	o.must("iot", "create-policy", "--policy-name", "above", "--policy-document", document("${iot:Connection.Thing.ThingName}"))
	o.refused("line 1, column 14", "iot", "create-policy", "--policy-name", "bad", "--policy-document", `{"Statement":{"Effect":"Allow"}}`)
	o.must("iot", "create-thing-group", "--thing-group-name", "root")
	o.must("iot", "create-thing-group", "--thing-group-name", "leaf", "--parent-group-name", "root")
	o.must("iot", "create-thing", "--thing-name", "pump-7")
	o.must("iot", "add-thing-to-thing-group", "--thing-name", "pump-7", "--thing-group-name", "leaf")
	certificate, _ := o.must("iot", "create-keys-and-certificate", "--set-as-active")["certificateArn"].(string)
	o.must("iot", "attach-thing-principal", "--thing-name", "pump-7", "--principal", certificate)
	o.must("iot", "attach-principal-policy", "--policy-name", "own", "--principal", certificate)
	o.must("iot", "attach-policy", "--policy-name", "above", "--target", scope+"thinggroup/root")

	for _, c := range []struct {
		list string
		args []string
		want []string
	}{
		{"policies", []string{"list-attached-policies", "--target", scope + "thinggroup/leaf", "--recursive"}, []string{"above"}},
		{"policies", []string{"list-attached-policies", "--target", scope + "thinggroup/leaf"}, []string{}},
		{"policies", []string{"list-principal-policies", "--principal", certificate, "--page-size", "1"}, []string{"own"}},
		{"effectivePolicies", []string{"get-effective-policies", "--principal", certificate, "--thing-name", "pump-7"}, []string{"above", "own"}},
		{"effectivePolicies", []string{"get-effective-policies", "--thing-name", "pump-7"}, []string{"above"}},
		{"effectivePolicies", []string{"get-effective-policies", "--principal", scope + "thinggroup/leaf"}, []string{"above"}},
	} {
		if got := names(o.must(append([]string{"iot"}, c.args...)...), c.list, "policyName"); !slices.Equal(got, c.want) {
			t.Errorf("%v: %q, want %q", c.args, got, c.want)
		}
	}
	if got := names(o.must("iot", "list-policy-principals", "--policy-name", "own"), "principals", ""); !slices.Equal(got, []string{certificate}) {
		t.Errorf("principals %q", got)
	}
	try := func(extra ...string) []string {
		args := append([]string{
			"iot", "test-authorization", "--principal", certificate,
			"--auth-infos", "actionType=PUBLISH,resources=" + scope + "topic/own", "actionType=PUBLISH,resources=" + scope + "topic/pump-7",
		}, extra...)
		return names(o.must(args...), "authResults", "authDecision")
	}
	for _, c := range []struct{ args, want []string }{
		{nil, []string{"ALLOWED", "IMPLICIT_DENY"}},
		{[]string{"--client-id", "pump-7"}, []string{"ALLOWED", "ALLOWED"}},
		{[]string{"--client-id", "pump-7", "--policy-names-to-skip", "own"}, []string{"IMPLICIT_DENY", "ALLOWED"}},
	} {
		if got := try(c.args...); !slices.Equal(got, c.want) {
			t.Errorf("test-authorization %v: %q, want %q", c.args, got, c.want)
		}
	}
	o.refused("DeleteConflictException", "iot", "delete-policy", "--policy-name", "own")
	o.must("iot", "detach-principal-policy", "--policy-name", "own", "--principal", certificate)
	o.must("iot", "delete-policy", "--policy-name", "own")
	o.refused("ResourceNotFoundException", "iot", "detach-principal-policy", "--policy-name", "own", "--principal", certificate)
}
