package iot

import (
	"fmt"
	"strings"
	"testing"
)

func TestBillingGroups(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.answers("POST", "/billing-groups/cost", `{"billingGroupProperties":{"billingGroupDescription":"d"},"tags":[{"Key":"a","Value":"b"}]}`,
		`{"billingGroupName":"cost","billingGroupArn":"`+arnBase+`billinggroup/cost","billingGroupId":"id-1"}`)
	taken := r.refuses("POST", "/billing-groups/cost", `{}`, 409, "ResourceAlreadyExistsException")
	if taken["resourceId"] != "id-1" || taken["resourceArn"] != arnBase+"billinggroup/cost" {
		t.Fatal(taken)
	}
	// fleet-management §0: a version of 0 is not the same as none.
	r.refuses("PATCH", "/billing-groups/cost", `{"billingGroupProperties":{},"expectedVersion":0}`, 409, "VersionConflictException")
	r.answers("PATCH", "/billing-groups/cost", `{"billingGroupProperties":{"billingGroupDescription":"new"},"expectedVersion":1}`, `{"version":2}`)
	r.answers("GET", "/billing-groups/cost", "", `{"billingGroupName":"cost","billingGroupId":"id-1","version":2,
		"billingGroupMetadata":{"creationDate":1772366400.5},"billingGroupProperties":{"billingGroupDescription":"new"}}`)
	r.answers("POST", "/billing-groups/other", "", `{"billingGroupName":"other"}`)
	wantNames(t, r.names("GET", "/billing-groups?maxResults=1", "billingGroups", "groupArn", "nextToken", "nextToken"),
		arnBase+"billinggroup/cost", arnBase+"billinggroup/other")
	wantNames(t, r.names("GET", "/billing-groups?namePrefixFilter=o", "billingGroups", "groupName", "nextToken", "nextToken"), "other")

	r.answers("POST", "/things/T", `{"billingGroupName":"cost"}`, `{"thingName":"T"}`)
	r.answers("GET", "/things/T", "", `{"billingGroupName":"cost"}`)
	r.answers("POST", "/things/U", "", `{"thingName":"U"}`)
	if _, has := r.answers("GET", "/things/U", "", `{}`)["billingGroupName"]; has {
		t.Error("a thing in no billing group has the name of one")
	}
	r.answers("PUT", "/billing-groups/addThingToBillingGroup", `{"thingArn":"`+arnBase+`thing/U","billingGroupArn":"`+arnBase+`billinggroup/cost"}`, `{}`)
	r.refuses("PUT", "/billing-groups/addThingToBillingGroup", `{"thingName":"U","billingGroupName":"other"}`, 400, "InvalidRequestException")
	r.refuses("PUT", "/billing-groups/addThingToBillingGroup", `{"thingName":"U","billingGroupName":"none"}`, 404, "ResourceNotFoundException")
	r.refuses("PUT", "/billing-groups/addThingToBillingGroup", `{}`, 400, "InvalidRequestException")
	wantNames(t, r.names("GET", "/billing-groups/cost/things?maxResults=1", "things", "", "nextToken", "nextToken"), "T", "U")
	r.follow()
	found := r.answers("POST", "/indices/search", `{"queryString":"thingGroupNames:cost AND thingName:U"}`, `{"things":"*"}`)["things"].([]any)
	if len(found) != 1 || fmt.Sprint(found[0].(map[string]any)["thingGroupNames"]) != "[cost]" {
		t.Fatal(found)
	}
	r.answers("PUT", "/billing-groups/removeThingFromBillingGroup", `{"thingName":"U","billingGroupName":"cost"}`, `{}`)
	wantNames(t, r.names("GET", "/billing-groups/cost/things", "things", "", "nextToken", "nextToken"), "T")
	r.refuses("GET", "/billing-groups/none/things", "", 404, "ResourceNotFoundException")
	r.refuses("DELETE", "/billing-groups/cost?expectedVersion=1", "", 409, "VersionConflictException")
	r.answers("DELETE", "/billing-groups/cost?expectedVersion=2", "", `{}`)
	r.answers("DELETE", "/billing-groups/cost", "", `{}`)
	r.refuses("GET", "/billing-groups/cost", "", 404, "ResourceNotFoundException")
}

func TestTags(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.answers("POST", "/thing-types/Pump", `{"tags":[{"Key":"a","Value":"1"},{"Key":"b"}]}`, `{"thingTypeName":"Pump"}`)
	arn := arnBase + "thingtype/Pump"
	wantNames(t, r.names("GET", "/tags?resourceArn="+arn, "tags", "Key", "nextToken", "nextToken"), "a", "b")
	// A tag without a value has an empty one.
	listed := r.answers("GET", "/tags?resourceArn="+arn, "", `{"tags":"*"}`)["tags"].([]any)
	if fmt.Sprint(listed) != "[map[Key:a Value:1] map[Key:b Value:]]" {
		t.Fatal(listed)
	}
	var more []string
	for i := range 30 {
		more = append(more, fmt.Sprintf(`{"Key":"c%02d","Value":"x"}`, i))
	}
	r.answers("POST", "/tags", `{"resourceArn":"`+arn+`","tags":[`+strings.Join(more, ",")+`]}`, `{}`)
	if all := r.names("GET", "/tags?resourceArn="+arn, "tags", "Key", "nextToken", "nextToken"); len(all) != 32 {
		t.Fatal(all)
	}
	r.answers("POST", "/untag", `{"resourceArn":"`+arn+`","tagKeys":["a","c00"]}`, `{}`)
	if all := r.names("GET", "/tags?resourceArn="+arn, "tags", "Key", "nextToken", "nextToken"); len(all) != 30 || all[0] != "b" {
		t.Fatal(all)
	}
	r.refuses("POST", "/tags", `{"resourceArn":"`+arn+`","tags":[{"Key":"x"},{"Key":"x"}]}`, 400, "InvalidRequestException")
	r.refuses("POST", "/tags", `{"resourceArn":"`+arnBase+`thing/T","tags":[{"Key":"x"}]}`, 400, "InvalidRequestException")
	r.refuses("POST", "/tags", `{"resourceArn":"`+arnBase+`policy/none","tags":[{"Key":"x"}]}`, 404, "ResourceNotFoundException")
	r.refuses("POST", "/untag", `{"resourceArn":"`+arnBase+`policy/none","tagKeys":["x"]}`, 404, "ResourceNotFoundException")
	r.refuses("GET", "/tags?resourceArn="+arnBase+"billinggroup/none", "", 404, "ResourceNotFoundException")
	// The caller needs the permission on the resource.
	r.refuses("POST", "/tags", `{"resourceArn":"arn:aws:iot:eu-local-1:000000000002:policy/P","tags":[{"Key":"x"}]}`, 403, "AccessDeniedException")
}

func TestEventConfigurationsOverHTTP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	off := r.answers("GET", "/event-configurations", "", `{"eventConfigurations":{"THING":{"Enabled":false},"JOB":{"Enabled":false}}}`)
	if off["creationDate"] != nil || len(off["eventConfigurations"].(map[string]any)) != 11 {
		t.Fatal(off)
	}
	r.answers("PATCH", "/event-configurations", `{"eventConfigurations":{"THING":{"Enabled":true},"CA_CERTIFICATE":{"Enabled":false},"THING_GROUP":{}}}`, `{}`)
	r.answers("GET", "/event-configurations", "", `{"eventConfigurations":{"THING":{"Enabled":true},"THING_GROUP":{"Enabled":false}},
		"creationDate":1772366400.5,"lastModifiedDate":1772366400.5}`)
	refused := r.refuses("PATCH", "/event-configurations", `{"eventConfigurations":{"THINGS":{"Enabled":true}}}`, 400, "InvalidRequestException")
	if !strings.Contains(fmt.Sprint(refused["message"]), "THINGS") {
		t.Fatal(refused)
	}
	refused = r.refuses("PATCH", "/event-configurations", `{"eventConfigurations":{"THING":{"Enabled":false},"JOB":{"Enabled":true}}}`, 400, "InvalidRequestException")
	if !strings.Contains(fmt.Sprint(refused["message"]), "JOB are not offered") {
		t.Fatal(refused)
	}
	r.answers("GET", "/event-configurations", "", `{"eventConfigurations":{"THING":{"Enabled":true}}}`)
}
