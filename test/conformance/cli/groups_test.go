package cli_test

import (
	"slices"
	"testing"

	"github.com/muster-iot/muster/internal/testkit"
)

// TestBillingGroupsTagsAndEvents: billing groups, tags and the switches of
// registry events by the AWS command line.
func TestBillingGroupsTagsAndEvents(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws")
	o := newOperator(t, testkit.StartServer(t))
	made := o.must("iot", "create-billing-group", "--billing-group-name", "plant-4", "--tags", "Key=site,Value=oslo",
		"--billing-group-properties", "billingGroupDescription=pumps")
	arn, _ := made["billingGroupArn"].(string)
	o.must("iot", "create-thing", "--thing-name", "born", "--billing-group-name", "plant-4")
	o.must("iot", "create-thing", "--thing-name", "added")
	o.must("iot", "add-thing-to-billing-group", "--thing-name", "added", "--billing-group-arn", arn)
	if got := names(o.must("iot", "list-things-in-billing-group", "--billing-group-name", "plant-4", "--page-size", "1"), "things", ""); !slices.Equal(got, []string{"added", "born"}) {
		t.Errorf("things %q", got)
	}
	if got := o.must("iot", "describe-thing", "--thing-name", "born")["billingGroupName"]; got != "plant-4" {
		t.Errorf("the thing is in %v", got)
	}
	o.refused("VersionConflictException", "iot", "update-billing-group", "--billing-group-name", "plant-4", "--billing-group-properties", "{}", "--expected-version", "7")
	if out, err := o.server.Muster(t.Context(), "billing-groups", "members", "plant-4", "-o", "csv"); err != nil || out != "thing\nadded\nborn\n" {
		t.Errorf("muster billing-groups members: %q, %v", out, err)
	}

	o.must("iot", "tag-resource", "--resource-arn", arn, "--tags", "Key=owner,Value=north", "Key=site,Value=bergen")
	if got := names(o.must("iot", "list-tags-for-resource", "--resource-arn", arn), "tags", "Value"); !slices.Equal(got, []string{"north", "bergen"}) {
		t.Errorf("tags %q", got)
	}
	o.must("iot", "untag-resource", "--resource-arn", arn, "--tag-keys", "owner")
	o.refused("aws:", "iot", "tag-resource", "--resource-arn", arn, "--tags", "Key=aws:x,Value=y")
	o.must("iot", "delete-billing-group", "--billing-group-name", "plant-4")
	o.refused("ResourceNotFoundException", "iot", "list-tags-for-resource", "--resource-arn", arn)

	o.must("iot", "update-event-configurations", "--event-configurations", `{"THING":{"Enabled":true}}`)
	o.refused("JOB", "iot", "update-event-configurations", "--event-configurations", `{"JOB":{"Enabled":true}}`)
	switches, _ := o.must("iot", "describe-event-configurations")["eventConfigurations"].(map[string]any)
	if thing, _ := switches["THING"].(map[string]any); thing["Enabled"] != true || len(switches) != 11 {
		t.Errorf("switches %v", switches)
	}
}
