package cli_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// TestIndexing: what is indexed, set and shown by the AWS command line and by
// ours.
func TestIndexing(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws")
	o := newOperator(t, testkit.StartServer(t, "--index.default-off"))
	part := func(made map[string]any, name string) map[string]any {
		found, _ := made[name].(map[string]any)
		return found
	}
	if got := part(o.must("iot", "get-indexing-configuration"), "thingIndexingConfiguration")["thingIndexingMode"]; got != "OFF" {
		t.Errorf("at first the mode is %v", got)
	}
	if got := names(o.must("iot", "list-indices"), "indexNames", ""); len(got) != 0 {
		t.Errorf("indices %q", got)
	}
	o.refused("ResourceNotFoundException", "iot", "search-index", "--query-string", "*")
	o.refused("ResourceNotFoundException", "iot", "describe-index", "--index-name", "AWS_Things")
	o.refused("InvalidRequestException", "iot", "create-dynamic-thing-group", "--thing-group-name", "d", "--query-string", "attributes.site:oslo")
	o.must("iot", "create-thing", "--thing-name", "pump-1", "--attribute-payload", `{"attributes":{"site":"oslo","floor":"3"}}`)

	// Everything by one command, as the published guide shows it.
	o.must("iot", "update-indexing-configuration", "--thing-indexing-configuration",
		`{"thingIndexingMode":"REGISTRY_AND_SHADOW","thingConnectivityIndexingMode":"STATUS","deviceDefenderIndexingMode":"VIOLATIONS","namedShadowIndexingMode":"ON",`+
			`"filter":{"namedShadowNames":["gps","$package"],"geoLocations":[{"name":"shadow.name.gps.reported.at","order":"LonLat"}]},`+
			`"customFields":[{"name":"attributes.floor","type":"Number"}]}`,
		"--thing-group-indexing-configuration", "thingGroupIndexingMode=ON")
	testkit.Poll(t, 10*time.Second, "the index", func() error {
		if got := o.must("iot", "describe-index", "--index-name", "AWS_Things"); got["indexStatus"] != "ACTIVE" || got["schema"] != "MULTI_INDEXING_MODE" {
			return fmt.Errorf("index %v", got)
		}
		return nil
	})
	things := part(o.must("iot", "get-indexing-configuration"), "thingIndexingConfiguration")
	if got := fmt.Sprint(things["filter"], things["customFields"]); got !=
		"map[geoLocations:[map[name:shadow.name.gps.reported.at order:LonLat]] namedShadowNames:[gps $package]] [map[name:attributes.floor type:Number]]" {
		t.Errorf("configuration %s", got)
	}
	if got := names(o.must("iot", "search-index", "--query-string", "attributes.floor<5"), "things", "thingName"); !slices.Equal(got, []string{"pump-1"}) {
		t.Errorf("found %q", got)
	}
	o.must("iot", "create-dynamic-thing-group", "--thing-group-name", "low", "--query-string", "attributes.floor<5")
	o.refused("dynamic group low", "iot", "update-indexing-configuration", "--thing-indexing-configuration", "thingIndexingMode=REGISTRY_AND_SHADOW")
	o.refused("InvalidQueryException", "iot", "search-index", "--query-string", "shadow.name.ota.reported.a:1")

	ours := func(args ...string) string {
		t.Helper()
		out, err := o.server.Muster(t.Context(), append([]string{"index"}, args...)...)
		if err != nil {
			t.Fatalf("muster index %q: %v", args, err)
		}
		return out
	}
	if got := ours("fields", "attributes."); !strings.Contains(got, "attributes.floor  Number 1, String 1  1          true        Number") {
		t.Errorf("fields:\n%s", got)
	}
	got := ours("set", "--shadow", "", "--connectivity", "off", "--field", "attributes.floor:Number", "--field", "attributes.site:String", "--wait")
	for _, line := range []string{
		"things                  REGISTRY_AND_SHADOW", "connectivity of things  OFF", "named shadows           ON: all",
		"geo location            shadow.name.gps.reported.at LonLat", "custom field            attributes.site String",
		"AWS_Things              ACTIVE, MULTI_INDEXING_MODE, 1 documents", "dynamic groups          1", "behind the event log    ",
	} {
		if !strings.Contains(got, "\n"+line) {
			t.Errorf("%q is not in\n%s", line, got)
		}
	}
	if got := ours("status", "-o", "csv"); !strings.Contains(got, "AWS_Things,ACTIVE,MULTI_INDEXING_MODE,1,") || !strings.Contains(got, "AWS_ThingGroups,ACTIVE,THING_GROUPS,1,") {
		t.Errorf("status:\n%s", got)
	}
	if out, err := o.server.Muster(t.Context(), "index", "set", "--things", "off"); err == nil || !strings.Contains(err.Error(), "while there are dynamic groups") {
		t.Errorf("off: %q, %v", out, err)
	}
	o.must("iot", "delete-dynamic-thing-group", "--thing-group-name", "low")
	ours("set", "--things", "off", "--groups", "off", "--wait")
	if got := names(o.must("iot", "list-indices"), "indexNames", ""); len(got) != 0 {
		t.Errorf("indices %q", got)
	}
}
