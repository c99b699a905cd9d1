package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/apiclient"
)

// TestIndexChange: what no flag names stays, lists are replaced, and what hangs
// on a source goes with it.
func TestIndexChange(t *testing.T) {
	t.Parallel()
	whole := func() apiclient.Indexing {
		return apiclient.Indexing{
			Things: &apiclient.ThingIndexing{
				Mode: "REGISTRY_AND_SHADOW", Connectivity: "STATUS", Violations: "VIOLATIONS", NamedShadows: "ON",
				Filter: &apiclient.IndexingFilter{
					NamedShadowNames: []string{"gps"}, GeoLocations: []apiclient.GeoLocation{{Name: "shadow.reported.at", Order: "LatLon"}},
					Connectivity: &apiclient.IndexingSockets{IncludeSocketInformation: []string{indexConnectivityData}},
				},
				CustomFields: []apiclient.IndexingField{{Name: "attributes.hw", Type: "String"}},
			},
			Groups: &apiclient.GroupIndexing{Mode: "ON", CustomFields: []apiclient.IndexingField{{Name: "attributes.owner", Type: "String"}}},
		}
	}
	for name, c := range map[string]struct {
		flags map[string]string
		in    indexChange
		want  func(*apiclient.Indexing)
	}{
		"registry only": {
			in: indexChange{things: "registry"}, flags: map[string]string{"things": ""},
			want: func(c *apiclient.Indexing) { c.Things.Mode, c.Groups = "REGISTRY", nil },
		},
		"off": {
			in: indexChange{things: "off"}, flags: map[string]string{"things": ""},
			want: func(c *apiclient.Indexing) {
				c.Things, c.Groups = &apiclient.ThingIndexing{Mode: "OFF", Filter: &apiclient.IndexingFilter{}}, nil
			},
		},
		"sources off": {
			in:    indexChange{connectivity: "off", violations: "off", namedShadows: "off"},
			flags: map[string]string{"connectivity": "", "violations": "", "named-shadows": ""},
			want: func(c *apiclient.Indexing) {
				c.Things.Connectivity, c.Things.Violations, c.Things.NamedShadows, c.Groups = "OFF", "OFF", "OFF", nil
				c.Things.Filter.NamedShadowNames, c.Things.Filter.Connectivity = nil, nil
			},
		},
		"lists": {
			in: indexChange{
				shadows: []string{"ota", "$package"}, places: []string{"shadow.name.ota.reported.at:LonLat", "shadow.reported.at"},
				fields: []string{"shadow.name.a:b.reported.t:Number"}, groupFields: []string{""},
			},
			flags: map[string]string{"shadow": "", "geo": "", "field": "", "group-field": ""},
			want: func(c *apiclient.Indexing) {
				c.Things.Filter.NamedShadowNames = []string{"ota", "$package"}
				c.Things.Filter.GeoLocations = []apiclient.GeoLocation{{Name: "shadow.name.ota.reported.at", Order: "LonLat"}, {Name: "shadow.reported.at"}}
				c.Things.CustomFields = []apiclient.IndexingField{{Name: "shadow.name.a:b.reported.t", Type: "Number"}}
				c.Groups.CustomFields = nil
			},
		},
		"emptied": {
			in: indexChange{shadows: []string{""}, places: []string{""}, addresses: "off"}, flags: map[string]string{"shadow": "", "geo": "", "addresses": ""},
			want: func(c *apiclient.Indexing) {
				c.Things.Filter, c.Groups = &apiclient.IndexingFilter{NamedShadowNames: []string{}}, nil
			},
		},
		"groups off": {
			in: indexChange{groups: "off"}, flags: map[string]string{"groups": ""},
			want: func(c *apiclient.Indexing) { c.Things, c.Groups = nil, &apiclient.GroupIndexing{Mode: "OFF"} },
		},
	} {
		want := whole()
		c.want(&want)
		got, err := c.in.apply(whole(), func(flag string) bool { _, ok := c.flags[flag]; return ok })
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}

func TestBinarySize(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 5 << 20: "5.0 MiB", 3 << 50: "3072.0 TiB"} {
		if got := binarySize(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
