package iot

import (
	"net/url"
	"testing"
)

// allow is a policy document that the evaluator accepts.
const allow = `{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"iot:*\",\"Resource\":\"*\"}]}`

func TestThings(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.answers("POST", "/things/pump%3A1", `{"attributePayload":{"attributes":{"site":"oslo","hw":"r1"}},"unknown":1}`,
		`{"thingName":"pump:1","thingArn":"`+arnBase+`thing/pump:1","thingId":"id-1"}`)
	taken := r.refuses("POST", "/things/pump%3A1", `{}`, 409, "ResourceAlreadyExistsException")
	if taken["resourceId"] != "id-1" || taken["resourceArn"] != arnBase+"thing/pump:1" {
		t.Fatal(taken)
	}
	r.answers("PATCH", "/things/pump%3A1", `{"attributePayload":{"attributes":{"hw":"","fw":"2"},"merge":true},"expectedVersion":1}`, `{}`)
	r.refuses("PATCH", "/things/pump%3A1", `{"expectedVersion":0}`, 409, "VersionConflictException")
	r.answers("GET", "/things/pump%3A1", "", `{"thingName":"pump:1","defaultClientId":"pump:1","attributes":{"site":"oslo","fw":"2"},"version":2}`)
	r.refuses("GET", "/things/none", "", 404, "ResourceNotFoundException")
	r.refuses("POST", "/things/x", `{"billingGroupName":"B"}`, 404, "ResourceNotFoundException")
	r.refuses("POST", "/things/x", `{"thingTypeName":"None"}`, 404, "ResourceNotFoundException")
	r.answers("POST", "/things/pump-2", "", `{"thingId":"*"}`)
	r.answers("POST", "/things/pump-3", `{"attributePayload":{"attributes":{"site":"osaka"}}}`, `{"thingId":"*"}`)
	wantNames(t, r.names("GET", "/things?maxResults=1", "things", "thingName", "nextToken", "nextToken"), "pump-2", "pump-3", "pump:1")
	wantNames(t, r.names("GET", "/things?attributeName=site&attributeValue=os&usePrefixAttributeValue=true&maxResults=1", "things", "thingName", "nextToken", "nextToken"),
		"pump-3", "pump:1")
	r.refuses("GET", "/things?attributeValue=x", "", 400, "InvalidRequestException")
	r.refuses("GET", "/things?nextToken=forged", "", 400, "InvalidRequestException")
	r.refuses("DELETE", "/things/pump-2?expectedVersion=9", "", 409, "VersionConflictException")
	r.answers("DELETE", "/things/pump-2?expectedVersion=1", "", `{}`)
	r.answers("DELETE", "/things/pump-2", "", `{}`)
}

func TestThingTypes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.answers("POST", "/thing-types/Pump", `{"thingTypeProperties":{"thingTypeDescription":"a pump","searchableAttributes":["site"]}}`,
		`{"thingTypeName":"Pump","thingTypeArn":"`+arnBase+`thingtype/Pump","thingTypeId":"id-1"}`)
	const enriched = `{"thingTypeProperties":{"mqtt5Configuration":{"propagatingAttributes":[
		{"userPropertyKey":"site","thingAttribute":"site"},{"userPropertyKey":"cid","connectionAttribute":"iot:ClientId"}]}}}`
	r.answers("PATCH", "/thing-types/Pump", enriched, `{}`)
	r.answers("GET", "/thing-types/Pump", "", enriched)
	r.answers("PATCH", "/thing-types/Pump", `{"thingTypeProperties":{"mqtt5Configuration":{"propagatingAttributes":[]}}}`, `{}`)
	got := r.answers("GET", "/thing-types/Pump", "", `{"thingTypeName":"Pump"}`)
	if _, has := got["thingTypeProperties"].(map[string]any)["mqtt5Configuration"]; has {
		t.Fatal("a type that propagates nothing has an mqtt5Configuration")
	}
	r.refuses("POST", "/thing-types/X", `{"thingTypeProperties":{"mqtt5Configuration":{"propagatingAttributes":[{"userPropertyKey":"k"}]}}}`, 400, "InvalidRequestException")
	r.answers("PATCH", "/thing-types/Pump", `{"thingTypeProperties":{"thingTypeDescription":"new"}}`, `{}`)
	// fleet-management §0: times are JSON numbers in seconds with fraction.
	r.answers("GET", "/thing-types/Pump", "", `{"thingTypeId":"id-1","thingTypeProperties":{"thingTypeDescription":"new","searchableAttributes":["site"]},
		"thingTypeMetadata":{"deprecated":false,"creationDate":1772366400.5}}`)
	r.answers("POST", "/thing-types/Pump/deprecate", `{"undoDeprecate":false}`, `{}`)
	r.answers("GET", "/thing-types/Pump", "", `{"thingTypeMetadata":{"deprecated":true,"deprecationDate":1772366400.5}}`)
	r.refuses("DELETE", "/thing-types/Pump", "", 400, "InvalidRequestException")
	r.answers("POST", "/thing-types/Pump/deprecate", `{"undoDeprecate":true}`, `{}`)
	r.answers("POST", "/thing-types/Meter", "", `{"thingTypeName":"Meter"}`)
	wantNames(t, r.names("GET", "/thing-types?maxResults=1", "thingTypes", "thingTypeName", "nextToken", "nextToken"), "Meter", "Pump")
	wantNames(t, r.names("GET", "/thing-types?thingTypeName=Pump", "thingTypes", "thingTypeName", "nextToken", "nextToken"), "Pump")
}

func TestThingGroups(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.answers("POST", "/thing-groups/all", "", `{"thingGroupArn":"`+arnBase+`thinggroup/all","thingGroupId":"id-1"}`)
	r.answers("POST", "/thing-groups/north", `{"parentGroupName":"all","thingGroupProperties":{"thingGroupDescription":"d","attributePayload":{"attributes":{"a":"1"}}}}`,
		`{"thingGroupName":"north"}`)
	r.refuses("POST", "/thing-groups/x", `{"parentGroupName":"none"}`, 400, "InvalidRequestException")
	r.answers("PATCH", "/thing-groups/north", `{"thingGroupProperties":{"attributePayload":{"attributes":{"b":"2"},"merge":true}},"expectedVersion":1}`, `{"version":2}`)
	got := r.answers("GET", "/thing-groups/north", "", `{"thingGroupName":"north","version":2,
		"thingGroupProperties":{"thingGroupDescription":"d","attributePayload":{"attributes":{"a":"1","b":"2"}}},
		"thingGroupMetadata":{"parentGroupName":"all","creationDate":1772366400.5,"rootToParentThingGroups":[{"groupName":"all","groupArn":"`+arnBase+`thinggroup/all"}]}}`)
	if _, dynamic := got["queryString"]; dynamic {
		t.Fatal("a static group with a query")
	}
	got = r.answers("GET", "/thing-groups/all", "", `{"thingGroupMetadata":{"creationDate":"*"}}`)
	if _, has := got["thingGroupMetadata"].(map[string]any)["rootToParentThingGroups"]; has {
		t.Fatal("a root with ancestors")
	}
	wantNames(t, r.names("GET", "/thing-groups?maxResults=1", "thingGroups", "groupName", "nextToken", "nextToken"), "all", "north")
	wantNames(t, r.names("GET", "/thing-groups?recursive=false", "thingGroups", "groupName", "nextToken", "nextToken"), "all")
	wantNames(t, r.names("GET", "/thing-groups?parentGroup=all", "thingGroups", "groupName", "nextToken", "nextToken"), "north")

	r.answers("POST", "/things/T", "", `{"thingName":"T"}`)
	r.answers("PUT", "/thing-groups/addThingToThingGroup", `{"thingName":"T","thingGroupArn":"`+arnBase+`thinggroup/north"}`, `{}`)
	r.refuses("PUT", "/thing-groups/addThingToThingGroup", `{"thingName":"T","thingGroupName":"all"}`, 400, "InvalidRequestException")
	r.refuses("PUT", "/thing-groups/addThingToThingGroup", `{"thingName":"T","thingGroupName":"none"}`, 404, "ResourceNotFoundException")
	r.refuses("PUT", "/thing-groups/addThingToThingGroup", `{}`, 400, "InvalidRequestException")
	wantNames(t, r.names("GET", "/thing-groups/all/things?recursive=true", "things", "", "nextToken", "nextToken"), "T")
	wantNames(t, r.names("GET", "/things/T/thing-groups", "thingGroups", "groupName", "nextToken", "nextToken"), "north")
	r.answers("PUT", "/thing-groups/updateThingGroupsForThing", `{"thingName":"T","thingGroupsToAdd":["all"],"thingGroupsToRemove":["north"]}`, `{}`)
	wantNames(t, r.names("GET", "/things/T/thing-groups", "thingGroups", "groupName", "nextToken", "nextToken"), "all")
	r.answers("PUT", "/thing-groups/removeThingFromThingGroup", `{"thingName":"T","thingGroupName":"all"}`, `{}`)
	r.answers("GET", "/thing-groups/all/things", "", `{"things":[]}`)
	r.refuses("DELETE", "/thing-groups/all", "", 400, "InvalidRequestException")
	r.answers("DELETE", "/thing-groups/north?expectedVersion=2", "", `{}`)
	r.answers("DELETE", "/thing-groups/all", "", `{}`)
	r.answers("DELETE", "/thing-groups/all", "", `{}`)
}

func TestCertificatesOverHTTP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	made := r.answers("POST", "/keys-and-certificate?setAsActive=true", "", `{"certificatePem":"*","keyPair":{"PublicKey":"public key","PrivateKey":"private key"}}`)
	id, arn := made["certificateId"].(string), made["certificateArn"].(string)
	if arn != arnBase+"cert/"+id {
		t.Fatal(made)
	}
	r.answers("GET", "/certificates/"+id, "", `{"certificateDescription":{"certificateArn":"`+arn+`","status":"ACTIVE","certificatePem":"*","ownedBy":"000000000001",
		"creationDate":1772366400.5,"lastModifiedDate":1772366400.5,"customerVersion":1,"certificateMode":"DEFAULT","validity":{"notBefore":1772366400,"notAfter":1803902400}}}`)
	r.refuses("POST", "/certificates", `{"certificateSigningRequest":"nonsense"}`, 400, "InvalidRequestException")
	r.refuses("POST", "/certificate/register-no-ca", `{"certificatePem":"nonsense"}`, 400, "CertificateValidationException")
	foreign, err := issuer{}.SignCSR(t.Context(), nil)
	r.check(err)
	body := `{"status":"ACTIVE","certificatePem":` + quote(string(foreign)) + `}`
	r.answers("POST", "/certificate/register-no-ca", body, `{"certificateId":"*","certificateArn":"*"}`)
	r.refuses("POST", "/certificate/register-no-ca", body, 409, "ResourceAlreadyExistsException")
	if got := r.names("GET", "/certificates?pageSize=1&isAscendingOrder=true", "certificates", "certificateId", "marker", "nextMarker"); len(got) != 2 {
		t.Fatal(got)
	}
	r.refuses("DELETE", "/certificates/"+id, "", 406, "CertificateStateException")
	r.answers("PUT", "/certificates/"+id+"?newStatus=INACTIVE", "", `{}`)
	r.refuses("PUT", "/certificates/"+id+"?newStatus=PENDING_ACTIVATION", "", 400, "InvalidRequestException")
	r.answers("POST", "/policies/P", `{"policyDocument":"`+allow+`"}`, `{"policyVersionId":"1"}`)
	r.answers("PUT", "/target-policies/P", `{"target":"`+arn+`"}`, `{}`)
	r.refuses("DELETE", "/certificates/"+id, "", 409, "DeleteConflictException")
	r.answers("DELETE", "/certificates/"+id+"?forceDelete=true", "", `{}`)
	r.refuses("GET", "/certificates/"+id, "", 404, "ResourceNotFoundException")
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.answers("POST", "/policies/P", `{"policyDocument":"`+allow+`"}`, `{"policyName":"P","policyArn":"`+arnBase+`policy/P","policyDocument":"*","policyVersionId":"1"}`)
	r.refuses("POST", "/policies/P", `{"policyDocument":"`+allow+`"}`, 409, "ResourceAlreadyExistsException")
	r.refuses("POST", "/policies/Q", `{"policyDocument":"{}"}`, 400, "MalformedPolicyException")
	r.refuses("POST", "/policies/Q", `{"policyDocument":"`+allow+`","tags":[{"Key":"aws:a"}]}`, 400, "InvalidRequestException")
	r.answers("POST", "/policies/P/version?setAsDefault=true", `{"policyDocument":"`+allow+`"}`, `{"policyVersionId":"2","isDefaultVersion":true}`)
	for range 3 {
		r.answers("POST", "/policies/P/version", `{"policyDocument":"`+allow+`"}`, `{"isDefaultVersion":false}`)
	}
	r.refuses("POST", "/policies/P/version", `{"policyDocument":"`+allow+`"}`, 409, "VersionsLimitExceededException")
	r.answers("GET", "/policies/P", "", `{"defaultVersionId":"2","policyDocument":"*","creationDate":1772366400.5,"lastModifiedDate":1772366400.5}`)
	r.answers("PATCH", "/policies/P/version/1", "", `{}`)
	r.answers("GET", "/policies/P/version/1", "", `{"isDefaultVersion":true,"policyVersionId":"1","policyDocument":"*"}`)
	r.refuses("DELETE", "/policies/P/version/1", "", 409, "DeleteConflictException")
	wantNames(t, r.names("GET", "/policies/P/version", "policyVersions", "versionId", "", "-"), "5", "4", "3", "2", "1")
	r.refuses("DELETE", "/policies/P", "", 409, "DeleteConflictException")
	for _, id := range []string{"2", "3", "4", "5"} {
		r.answers("DELETE", "/policies/P/version/"+id, "", `{}`)
	}
	r.answers("POST", "/policies/Q", `{"policyDocument":"`+allow+`"}`, `{"policyName":"Q"}`)
	if got := r.names("GET", "/policies?pageSize=1", "policies", "policyName", "marker", "nextMarker"); len(got) != 2 {
		t.Fatal(got)
	}
	r.answers("DELETE", "/policies/P", "", `{}`)
	r.refuses("GET", "/policies/P", "", 404, "ResourceNotFoundException")
}

func TestAttachments(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	made := r.answers("POST", "/keys-and-certificate?setAsActive=true", "", `{"certificateId":"*"}`)
	cert := made["certificateArn"].(string)
	group := arnBase + "thinggroup/G"
	r.answers("POST", "/thing-groups/root", "", `{}`)
	r.answers("POST", "/thing-groups/G", `{"parentGroupName":"root"}`, `{}`)
	for _, name := range []string{"P", "Q", "R"} {
		r.answers("POST", "/policies/"+name, `{"policyDocument":"`+allow+`"}`, `{}`)
	}
	r.answers("PUT", "/target-policies/P", `{"target":"`+cert+`"}`, `{}`)
	r.answers("PUT", "/principal-policies/Q", "", `{}`, "x-amzn-iot-principal", cert)
	r.answers("PUT", "/target-policies/P", `{"target":"`+group+`"}`, `{}`)
	r.answers("PUT", "/target-policies/Q", `{"target":"`+group+`"}`, `{}`)
	r.refuses("PUT", "/target-policies/R", `{"target":"`+group+`"}`, 410, "LimitExceededException")
	r.answers("PUT", "/target-policies/R", `{"target":"`+arnBase+`thinggroup/root"}`, `{}`)
	r.refuses("PUT", "/target-policies/none", `{"target":"`+cert+`"}`, 404, "ResourceNotFoundException")
	wantNames(t, r.names("POST", "/attached-policies/"+url.QueryEscape(cert)+"?pageSize=1", "policies", "policyName", "marker", "nextMarker"), "P", "Q")
	wantNames(t, r.names("POST", "/attached-policies/"+url.QueryEscape(group)+"?recursive=true", "policies", "policyName", "marker", "nextMarker"), "P", "Q", "R")
	wantNames(t, r.names("POST", "/policy-targets/P?pageSize=1", "targets", "", "marker", "nextMarker"), cert, group)
	r.answers("POST", "/things/T", "", `{}`)
	r.answers("PUT", "/thing-groups/addThingToThingGroup", `{"thingName":"T","thingGroupName":"G"}`, `{}`)
	got := r.answers("POST", "/effective-policies?thingName=T", `{"principal":"`+cert+`"}`, `{"effectivePolicies":"*"}`)
	if n := len(got["effectivePolicies"].([]any)); n != 3 {
		t.Fatalf("%d effective policies: %v", n, got)
	}
	r.refuses("POST", "/effective-policies", `{}`, 400, "InvalidRequestException")
	r.refuses("POST", "/effective-policies", `{"cognitoIdentityPoolId":"x"}`, 400, "InvalidRequestException")
	r.answers("POST", "/target-policies/P", `{"target":"`+cert+`"}`, `{}`)
	r.answers("DELETE", "/principal-policies/Q", "", `{}`, "x-amzn-iot-principal", cert)
	r.answers("POST", "/attached-policies/"+url.QueryEscape(cert), "", `{"policies":[]}`)
	r.refuses("POST", "/target-policies/none", `{"target":"`+cert+`"}`, 400, "InvalidRequestException")
}

func TestPrincipals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	made := r.answers("POST", "/keys-and-certificate?setAsActive=true", "", `{"certificateId":"*"}`)
	cert := made["certificateArn"].(string)
	r.answers("POST", "/things/T", "", `{}`)
	r.answers("POST", "/things/U", "", `{}`)
	r.answers("PUT", "/things/T/principals", "", `{}`, "x-amzn-principal", cert)
	r.answers("PUT", "/things/U/principals?thingPrincipalType=NON_EXCLUSIVE_THING", "", `{}`, "x-amzn-principal", cert)
	r.refuses("PUT", "/things/T/principals?thingPrincipalType=EXCLUSIVE_THING", "", 400, "InvalidRequestException", "x-amzn-principal", cert)
	r.refuses("PUT", "/things/none/principals", "", 404, "ResourceNotFoundException", "x-amzn-principal", cert)
	r.answers("GET", "/things/T/principals", "", `{"principals":["`+cert+`"]}`)
	r.answers("GET", "/things/T/principals-v2", "", `{"thingPrincipalObjects":[{"principal":"`+cert+`","thingPrincipalType":"NON_EXCLUSIVE_THING"}]}`)
	r.answers("GET", "/things/T/principals-v2?thingPrincipalType=EXCLUSIVE_THING", "", `{"thingPrincipalObjects":[]}`)
	first := r.answers("GET", "/principals/things?maxResults=1", "", `{"things":["T"],"nextToken":"*"}`, "x-amzn-principal", cert)
	r.answers("GET", "/principals/things?maxResults=1&nextToken="+url.QueryEscape(first["nextToken"].(string)), "", `{"things":["U"]}`, "x-amzn-principal", cert)
	r.answers("GET", "/principals/things-v2", "", `{"principalThingObjects":[{"thingName":"T","thingPrincipalType":"NON_EXCLUSIVE_THING"},
		{"thingName":"U","thingPrincipalType":"NON_EXCLUSIVE_THING"}]}`, "x-amzn-principal", cert)
	r.refuses("DELETE", "/things/T", "", 400, "InvalidRequestException")
	r.answers("DELETE", "/things/T/principals", "", `{}`, "x-amzn-principal", cert)
	r.refuses("DELETE", "/things/T/principals", "", 404, "ResourceNotFoundException", "x-amzn-principal", cert)
	r.answers("DELETE", "/things/T", "", `{}`)
}

func TestEndpoint(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.answers("GET", "/endpoint", "", `{"endpointAddress":"data.example"}`)
	r.answers("GET", "/endpoint?endpointType=iot%3AData-ATS", "", `{"endpointAddress":"data.example"}`)
	r.answers("GET", "/endpoint?endpointType=iot%3AJobs", "", `{"endpointAddress":"jobs.example"}`)
	r.answers("GET", "/endpoint?endpointType=iot%3ACredentialProvider", "", `{"endpointAddress":"credentials.example"}`)
	r.refuses("GET", "/endpoint?endpointType=iot%3ADeviceAdvisor", "", 400, "InvalidRequestException")
}
