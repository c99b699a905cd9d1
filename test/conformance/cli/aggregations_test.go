package cli_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// TestAggregations: the commands of the published guide by the AWS command line,
// and ours.
func TestAggregations(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws")
	o := newOperator(t, testkit.StartServer(t))
	for i, floor := range []string{"-125", "75", "150", "cellar"} {
		o.must("iot", "create-thing", "--thing-name", fmt.Sprint("pump-", i), "--attribute-payload",
			`{"attributes":{"floor":"`+floor+`","hw":"`+[]string{"R1", "R2"}[i%2]+`"}}`)
	}
	testkit.Poll(t, 10*time.Second, "the index", func() error {
		if got := names(o.must("iot", "search-index", "--query-string", "attributes.hw:*"), "things", "thingName"); len(got) != 4 {
			return fmt.Errorf("things %v", got)
		}
		return nil
	})
	o.refused("InvalidAggregationException", "iot", "get-statistics", "--query-string", "*", "--aggregation-field", "attributes.floor")
	o.must("iot", "update-indexing-configuration", "--thing-indexing-configuration",
		`{"thingIndexingMode":"REGISTRY_AND_SHADOW","thingConnectivityIndexingMode":"STATUS","deviceDefenderIndexingMode":"VIOLATIONS","namedShadowIndexingMode":"ON",`+
			`"customFields":[{"name":"attributes.floor","type":"Number"},{"name":"attributes.hw","type":"String"}]}`)
	for want, args := range map[string][]string{
		"map[statistics:map[average:33.333333333333336 count:3 maximum:150 minimum:-125 stdDeviation:116.0699": {"get-statistics", "--aggregation-field", "attributes.floor", "--query-string", "*"},
		"map[statistics:map[count:0]]": {"get-statistics", "--query-string", "thingName:none"},
		"map[cardinality:2]":           {"get-cardinality", "--query-string", "*", "--aggregation-field", "attributes.hw"},
		"map[percentiles:[map[percent:10 value:-85] map[percent:99.5 value:149.25]]]": {"get-percentiles", "--query-string", "*", "--aggregation-field", "attributes.floor", "--percents", "10", "99.5"},
		"map[buckets:[map[count:2 keyValue:R1]] totalCount:4]": {
			"get-buckets-aggregation", "--query-string", "*", "--aggregation-field", "attributes.hw", "--buckets-aggregation-type", "termsAggregation={maxBuckets=1}",
		},
	} {
		if got := fmt.Sprint(o.must(append([]string{"iot"}, args...)...)); !strings.HasPrefix(got, want) {
			t.Errorf("%q: got %s, want %s", args, got, want)
		}
	}
	out, err := o.server.Muster(t.Context(), "stats", "attributes.floor")
	for _, line := range []string{"field           attributes.floor (Number)", "with a value    3                          75.0%", "of other types  1", "p50             75", "top 1           -125"} {
		if err != nil || !strings.Contains(out, "\n"+line) {
			t.Errorf("%q is not in %v\n%s", line, err, out)
		}
	}
	if out, err := o.server.Muster(t.Context(), "stats", "thingName", "--query", "thingName:pump-0", "-o", "csv"); err != nil || !strings.Contains(out, "\ntop 1,pump-0,1\n") {
		t.Errorf("names %v\n%s", err, out)
	}
	if _, err := o.server.Muster(t.Context(), "stats", "attributes.none"); err == nil || !strings.Contains(err.Error(), "nothing in the index has a value") {
		t.Errorf("an unknown field: %v", err)
	}
}
