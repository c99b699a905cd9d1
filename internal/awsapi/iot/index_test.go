package iot

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/shadow"
)

// quote renders text as a JSON string.
func quote(text string) string {
	data, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func TestDynamicGroupsFollowTheIndex(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.answers("POST", "/dynamic-thing-groups/oslo", `{"queryString":"attributes.site:oslo"}`,
		`{"thingGroupName":"oslo","thingGroupArn":"`+arnBase+`thinggroup/oslo","queryString":"attributes.site:oslo","indexName":"AWS_Things","queryVersion":"2017-09-30"}`)
	r.refuses("POST", "/dynamic-thing-groups/bad", `{"queryString":"attributes.site:("}`, 400, "InvalidQueryException")
	r.refuses("POST", "/dynamic-thing-groups/bad", `{}`, 400, "InvalidRequestException")
	r.answers("GET", "/thing-groups/oslo", "", `{"status":"BUILDING"}`)
	r.answers("POST", "/things/T", `{"attributePayload":{"attributes":{"site":"oslo"}}}`, `{}`)
	r.follow()
	r.answers("GET", "/thing-groups/oslo", "", `{"status":"ACTIVE","queryString":"attributes.site:oslo","version":1}`)
	wantNames(t, r.names("GET", "/thing-groups/oslo/things", "things", "", "nextToken", "nextToken"), "T")
	wantNames(t, r.names("GET", "/things/T/thing-groups", "thingGroups", "groupName", "nextToken", "nextToken"), "oslo")
	r.answers("PATCH", "/dynamic-thing-groups/oslo", `{"thingGroupProperties":{},"queryString":"attributes.site:bergen"}`, `{"version":2}`)
	r.follow()
	r.answers("GET", "/thing-groups/oslo/things", "", `{"things":[]}`)
	r.refuses("DELETE", "/thing-groups/oslo", "", 400, "InvalidRequestException")
	r.answers("DELETE", "/dynamic-thing-groups/oslo?expectedVersion=2", "", `{}`)
}

// fleet-management §4.4: shadow is JSON text in a string, connectivity.timestamp
// is in milliseconds, groups are direct static and dynamic ones.
func TestSearchIndex(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.answers("POST", "/thing-groups/all", "", `{}`)
	r.answers("POST", "/thing-groups/north", `{"parentGroupName":"all"}`, `{}`)
	r.answers("POST", "/dynamic-thing-groups/dyn", `{"queryString":"attributes.site:oslo"}`, `{}`)
	for i := range 5 {
		r.answers("POST", fmt.Sprintf("/things/pump-%d", i), `{"attributePayload":{"attributes":{"site":"oslo"}}}`, `{}`)
	}
	r.answers("PUT", "/thing-groups/addThingToThingGroup", `{"thingName":"pump-1","thingGroupName":"north"}`, `{}`)
	for name, body := range map[string]string{
		"":    `{"state":{"desired":{"led":true},"reported":{"battery":81}}}`,
		"gps": `{"state":{"reported":{"position":"10.75,59.91"}}}`,
	} {
		_, err := r.shadows.Update(t.Context(), shadow.UpdateCommand{Account: account, Thing: "pump-1", Shadow: name, Body: []byte(body)})
		r.check(err)
	}
	r.connections["pump-1"] = &Connectivity{Connected: true, TimestampMS: 1750000000123, ClientID: "pump-1", KeepAlive: 60, CleanSession: true}
	r.follow()

	got := r.answers("POST", "/indices/search", `{"queryString":"thingName:pump-1"}`, `{"things":"*"}`)
	things := got["things"].([]any)
	if len(things) != 1 {
		t.Fatal(got)
	}
	thing := things[0].(map[string]any)
	want := `{"thingName":"pump-1","thingId":"*","attributes":{"site":"oslo"},"thingGroupNames":["dyn","north"],
		"connectivity":{"connected":true,"timestamp":1750000000123,"clientId":"pump-1","keepAliveDuration":60,"cleanSession":true}}`
	var wanted any
	r.check(json.Unmarshal([]byte(want), &wanted))
	if where := lacks(wanted, thing, ""); where != "" {
		t.Fatal(where)
	}
	var text, wantText any
	r.check(json.Unmarshal([]byte(thing["shadow"].(string)), &text))
	r.check(json.Unmarshal([]byte(`{"reported":{"battery":81},"desired":{"led":true},"delta":{"led":true},"hasDelta":true,"version":1,
		"metadata":{"desired":{"led":{"timestamp":1772366400}},"reported":{"battery":{"timestamp":1772366400}}},
		"name":{"gps":{"reported":{"position":"10.75,59.91"},"desired":{},"hasDelta":false,"version":1,
			"metadata":{"reported":{"position":{"timestamp":1772366400}}}}}}`), &wantText))
	if where := lacks(wantText, text, "shadow"); where != "" {
		t.Fatal(where)
	}

	// A thing that was never connected is not connected, and nothing more.
	got = r.answers("POST", "/indices/search", `{"queryString":"thingName:pump-2"}`, `{"things":"*"}`)
	other := got["things"].([]any)[0].(map[string]any)
	if c := other["connectivity"].(map[string]any); len(c) != 1 || c["connected"] != false {
		t.Fatal(c)
	}
	if _, has := other["shadow"]; has {
		t.Fatal("a shadow from nowhere")
	}

	names, token := []string{}, ""
	for page := range 10 {
		got := r.answers("POST", "/indices/search", `{"queryString":"attributes.site:oslo","maxResults":2`+token+`}`, `{"things":"*"}`)
		for _, thing := range got["things"].([]any) {
			names = append(names, thing.(map[string]any)["thingName"].(string))
		}
		next, more := got["nextToken"].(string)
		if !more {
			break
		}
		token = `,"nextToken":` + quote(next)
		if page == 0 {
			r.refuses("POST", "/indices/search", `{"queryString":"attributes.site:bergen"`+token+`}`, 400, "InvalidRequestException")
		}
	}
	wantNames(t, names, "pump-0", "pump-1", "pump-2", "pump-3", "pump-4")

	r.answers("POST", "/indices/search", `{"indexName":"AWS_ThingGroups","queryString":"thingGroupName:north"}`,
		`{"thingGroups":[{"thingGroupName":"north","thingGroupId":"id-2","attributes":{},"parentGroupNames":["all"]}]}`)
	r.refuses("POST", "/indices/search", `{"queryString":"("}`, 400, "InvalidQueryException")
	r.refuses("POST", "/indices/search", `{"queryString":"*","indexName":"None"}`, 404, "ResourceNotFoundException")
	r.refuses("POST", "/indices/search", `{"queryString":"*","maxResults":501}`, 400, "InvalidRequestException")
	r.refuses("POST", "/indices/search", `{"queryString":"*","queryVersion":"2016-01-01"}`, 400, "InvalidRequestException")
}

func TestIndices(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.answers("GET", "/indices/AWS_Things", "", `{"indexName":"AWS_Things","indexStatus":"ACTIVE","schema":"MULTI_INDEXING_MODE"}`)
	r.answers("GET", "/indices/AWS_ThingGroups", "", `{"indexStatus":"ACTIVE","schema":"THING_GROUPS"}`)
	r.refuses("GET", "/indices/None", "", 404, "ResourceNotFoundException")
	wantNames(t, r.names("GET", "/indices?maxResults=1", "indexNames", "", "nextToken", "nextToken"), "AWS_ThingGroups", "AWS_Things")
	present := r.answers("GET", "/indexing/config", "", `{"thingIndexingConfiguration":{"thingIndexingMode":"REGISTRY_AND_SHADOW",
		"thingConnectivityIndexingMode":"STATUS","deviceDefenderIndexingMode":"VIOLATIONS","namedShadowIndexingMode":"ON"},
		"thingGroupIndexingConfiguration":{"thingGroupIndexingMode":"ON"}}`)
	same, err := json.Marshal(present)
	r.check(err)
	r.answers("POST", "/indexing/config", string(same), `{}`)
	wantSame(t, r.answers("GET", "/indexing/config", "", `{}`), present)
}

// wantSame fails unless two answers are equal.
func wantSame(t *testing.T, got, want map[string]any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// fleet-management §4.1: a part that is sent replaces what there was, one that
// is not sent stays, and a mode that is not given is off.
func TestUpdateIndexingConfiguration(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const whole = `{"thingIndexingConfiguration":{"thingIndexingMode":"REGISTRY_AND_SHADOW","thingConnectivityIndexingMode":"STATUS",
		"deviceDefenderIndexingMode":"OFF","namedShadowIndexingMode":"ON",
		"filter":{"namedShadowNames":["ota","gps","$package"],"geoLocations":[{"name":"shadow.name.gps.reported.position","order":"LonLat"},{"name":"shadow.reported.at","order":"LatLon"}],
			"connectivity":{"includeSocketInformation":["GET_THING_CONNECTIVITY_DATA"]}},
		"customFields":[{"name":"attributes.hw","type":"String"},{"name":"shadow.reported.battery","type":"Number"}]},
		"thingGroupIndexingConfiguration":{"thingGroupIndexingMode":"ON","customFields":[{"name":"attributes.owner","type":"String"}]}}`
	r.answers("POST", "/indexing/config", whole, `{}`)
	r.answers("GET", "/indexing/config", "", whole)
	r.answers("POST", "/indexing/config", `{"thingIndexingConfiguration":{"thingIndexingMode":"REGISTRY"}}`, `{}`)
	got := r.answers("GET", "/indexing/config", "", `{"thingIndexingConfiguration":{"thingIndexingMode":"REGISTRY","thingConnectivityIndexingMode":"OFF",
		"deviceDefenderIndexingMode":"OFF","namedShadowIndexingMode":"OFF","customFields":[]},
		"thingGroupIndexingConfiguration":{"thingGroupIndexingMode":"ON","customFields":[{"name":"attributes.owner","type":"String"}]}}`)
	if _, has := got["thingIndexingConfiguration"].(map[string]any)["filter"]; has {
		t.Error("the filter has stayed")
	}
	for member, things := range map[string]string{
		"managedFields": `"managedFields":[{"name":"registry.version","type":"String"}]`,
		"customFields":  `"customFields":[{"name":"shadow.reported.battery","type":"Number"}]`,
		"includeSocket": `"filter":{"connectivity":{"includeSocketInformation":["SOME_CALL"]}}`,
	} {
		got := r.call("POST", "/indexing/config", `{"thingIndexingConfiguration":{"thingIndexingMode":"REGISTRY","thingConnectivityIndexingMode":"STATUS",`+things+`}}`)
		if got.status != 400 || got.kind != "InvalidRequestException" || !strings.Contains(fmt.Sprint(got.body["message"]), member) {
			t.Errorf("%s: %+v", member, got)
		}
	}
	r.answers("POST", "/indexing/config", `{"thingIndexingConfiguration":{"thingIndexingMode":"OFF"},"thingGroupIndexingConfiguration":{"thingGroupIndexingMode":"OFF"}}`, `{}`)
	r.follow()
	r.answers("GET", "/indexing/config", "", `{"thingIndexingConfiguration":{"thingIndexingMode":"OFF","managedFields":[]},
		"thingGroupIndexingConfiguration":{"thingGroupIndexingMode":"OFF","managedFields":[]}}`)
	r.answers("GET", "/indices", "", `{"indexNames":[]}`)
	r.refuses("GET", "/indices/AWS_Things", "", 404, "ResourceNotFoundException")
	r.refuses("GET", "/indices/AWS_ThingGroups", "", 404, "ResourceNotFoundException")
	r.refuses("POST", "/indices/search", `{"queryString":"*"}`, 404, "ResourceNotFoundException")
	r.refuses("POST", "/indices/search", `{"queryString":"*","indexName":"AWS_ThingGroups"}`, 404, "ResourceNotFoundException")
	r.refuses("POST", "/dynamic-thing-groups/oslo", `{"queryString":"attributes.site:oslo"}`, 400, "InvalidRequestException")
	r.answers("POST", "/things/T", "", `{}`)
	r.refuses("POST", "/things/T/connectivity-data", `{}`, 400, "IndexNotReadyException")
}

// fleet-management §4.1: the index is named after what it holds.
func TestSchemas(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for things, want := range map[string]string{
		`"REGISTRY"`:            "REGISTRY",
		`"REGISTRY_AND_SHADOW"`: "REGISTRY_AND_SHADOW",
		`"REGISTRY","thingConnectivityIndexingMode":"STATUS"`:            "REGISTRY_AND_CONNECTIVITY_STATUS",
		`"REGISTRY_AND_SHADOW","thingConnectivityIndexingMode":"STATUS"`: "REGISTRY_AND_SHADOW_AND_CONNECTIVITY_STATUS",
		`"REGISTRY","namedShadowIndexingMode":"ON"`:                      "MULTI_INDEXING_MODE",
		`"REGISTRY","deviceDefenderIndexingMode":"VIOLATIONS"`:           "MULTI_INDEXING_MODE",
	} {
		r.answers("POST", "/indexing/config", `{"thingIndexingConfiguration":{"thingIndexingMode":`+things+`}}`, `{}`)
		r.answers("GET", "/indices/AWS_Things", "", `{"indexStatus":"REBUILDING","schema":"`+want+`"}`)
	}
}

// fleet-management §4.4: here the timestamp is in seconds.
func TestConnectivityData(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.answers("POST", "/things/T", "", `{}`)
	got := r.answers("POST", "/things/T/connectivity-data", `{}`, `{"thingName":"T","connected":false}`)
	if len(got) != 2 {
		t.Fatal(got)
	}
	r.connections["T"] = &Connectivity{TimestampMS: 1750000000123, ClientID: "T", DisconnectReason: "CONNECTION_LOST"}
	r.answers("POST", "/things/T/connectivity-data", `{}`, `{"connected":false,"timestamp":1750000000.123,"disconnectReason":"CONNECTION_LOST","clientId":"T"}`)
	r.refuses("POST", "/things/None/connectivity-data", `{}`, 404, "ResourceNotFoundException")
	r.refuses("POST", "/things/T/connectivity-data", `{"includeSocketInformation":"yes"}`, 400, "InvalidRequestException")
}

// Device plane, 3.4: addresses are shown when the call asks for them and the
// index configuration has them; a new configuration without takes them back.
func TestSocketInformation(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.answers("POST", "/things/T", "", `{}`)
	const path, ask = "/things/T/connectivity-data", `{"includeSocketInformation":true}`
	const on = `{"thingIndexingConfiguration":{"thingIndexingMode":"REGISTRY_AND_SHADOW","thingConnectivityIndexingMode":"STATUS",
		"filter":{"connectivity":{"includeSocketInformation":["GET_THING_CONNECTIVITY_DATA"]}}}}`
	r.connections["T"] = &Connectivity{
		Connected: true, TimestampMS: 1750000000123, ClientID: "T", KeepAlive: 60, SessionExpiry: 3600,
		RemoteAddr: "192.0.2.44:40123", LocalAddr: "[2001:db8::1]:8883",
	}
	members := func(body string) int {
		return len(r.answers("POST", path, body, `{"connected":true,"sessionExpiry":3600}`))
	}
	bare := members(`{}`)
	if n := members(ask); n != bare {
		t.Errorf("%d members without the setting, want %d", n, bare)
	}
	r.answers("POST", "/indexing/config", on, `{}`)
	present := r.answers("GET", "/indexing/config", "", on)
	r.answers("POST", path, ask, `{"connected":true,"sourceIp":"192.0.2.44","sourcePort":40123,"targetIp":"2001:db8::1","targetPort":8883}`)
	if n := members(`{"includeSocketInformation":false}`); n != bare {
		t.Errorf("%d members unasked, want %d", n, bare)
	}
	// Groups alone leave it; what was read can be sent back.
	r.answers("POST", "/indexing/config", `{"thingGroupIndexingConfiguration":{"thingGroupIndexingMode":"ON"}}`, `{}`)
	same, err := json.Marshal(present)
	r.check(err)
	r.answers("POST", "/indexing/config", string(same), `{}`)
	if n := members(ask); n != bare+4 {
		t.Errorf("%d members, want %d", n, bare+4)
	}
	// A configuration that is refused changes nothing.
	r.refuses("POST", "/indexing/config", `{"thingIndexingConfiguration":{"thingIndexingMode":"OFF","namedShadowIndexingMode":"ON"}}`, 400, "InvalidRequestException")
	r.refuses("POST", "/indexing/config", strings.Replace(on, "GET_THING", "SOME", 1), 400, "InvalidRequestException")
	if n := members(ask); n != bare+4 {
		t.Errorf("%d members after a refusal, want %d", n, bare+4)
	}
	r.answers("POST", "/indexing/config", `{"thingIndexingConfiguration":{"thingIndexingMode":"REGISTRY_AND_SHADOW","thingConnectivityIndexingMode":"STATUS"}}`, `{}`)
	if n := members(ask); n != bare {
		t.Errorf("%d members when switched off, want %d", n, bare)
	}
	// A thing that was never connected has no addresses either.
	r.answers("POST", "/indexing/config", on, `{}`)
	r.answers("POST", "/things/U", "", `{}`)
	if got := r.answers("POST", "/things/U/connectivity-data", ask, `{"thingName":"U","connected":false}`); len(got) != 2 {
		t.Error(got)
	}
}
