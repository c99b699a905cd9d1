package sdk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go/service/iotdataplane" //nolint:staticcheck // as restart_test.go
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muster-iot/muster/internal/testkit"
)

// everySource is a configuration with all that can be indexed of things.
func everySource() *types.ThingIndexingConfiguration {
	return &types.ThingIndexingConfiguration{
		ThingIndexingMode:             types.ThingIndexingModeRegistryAndShadow,
		ThingConnectivityIndexingMode: types.ThingConnectivityIndexingModeStatus,
		DeviceDefenderIndexingMode:    types.DeviceDefenderIndexingModeViolations,
		NamedShadowIndexingMode:       types.NamedShadowIndexingModeOn,
	}
}

// indexThings changes what is indexed of things.
func (o *operator) indexThings(t *types.ThingIndexingConfiguration) error {
	_, err := o.UpdateIndexingConfiguration(o.t.Context(), &iot.UpdateIndexingConfigurationInput{ThingIndexingConfiguration: t})
	return err
}

// alone is an operator of a server of its own: what is indexed holds for the
// account.
func (o *operator) alone(flags ...string) *operator {
	return newOperator(o.t, startServerWith(o.t, flags...))
}

// awaitIndex waits until the index is what is configured.
func (o *operator) awaitIndex() {
	o.t.Helper()
	if out, err := o.server.Muster(o.t.Context(), "index", "status", "--wait"); err != nil {
		o.t.Fatal(out, err)
	}
}

// indexAnswers are the cases of the fleet index and its configuration.
func indexAnswers() []answerCase {
	return slices.Concat(indexingAnswers(), indexStateAnswers())
}

// indexingAnswers are the cases of the configuration.
func indexingAnswers() []answerCase {
	refused := func(o *operator, edit func(*types.ThingIndexingConfiguration)) error {
		config := everySource()
		edit(config)
		return o.indexThings(config)
	}
	field := func(name string, of types.FieldType) []types.Field { return []types.Field{{Name: &name, Type: of}} }
	return []answerCase{
		{op: "GetIndexingConfiguration", do: func(o *operator) error {
			out, err := o.GetIndexingConfiguration(o.t.Context(), &iot.GetIndexingConfigurationInput{})
			if err != nil {
				return err
			}
			// What was read can be sent back, managed fields and all.
			_, err = o.UpdateIndexingConfiguration(o.t.Context(), &iot.UpdateIndexingConfigurationInput{
				ThingIndexingConfiguration: out.ThingIndexingConfiguration, ThingGroupIndexingConfiguration: out.ThingGroupIndexingConfiguration,
			})
			return errors.Join(err, mustBe("everything on", out.ThingIndexingConfiguration.ThingIndexingMode == types.ThingIndexingModeRegistryAndShadow &&
				out.ThingGroupIndexingConfiguration.ThingGroupIndexingMode == types.ThingGroupIndexingModeOn &&
				len(out.ThingIndexingConfiguration.ManagedFields) == 14 && out.ThingIndexingConfiguration.Filter == nil))
		}},
		{op: "UpdateIndexingConfiguration", do: func(o *operator) error {
			own := o.alone()
			config := everySource()
			config.Filter = &types.IndexingFilter{
				NamedShadowNames: []string{"gps", "$package"},
				GeoLocations:     []types.GeoLocationTarget{{Name: new("shadow.name.gps.reported.at"), Order: types.TargetFieldOrderLonLat}},
				Connectivity:     &types.ConnectivityFilter{IncludeSocketInformation: []types.FleetIndexingApi{types.FleetIndexingApiGetThingConnectivityData}},
			}
			config.CustomFields = slices.Concat(field("attributes.hw", types.FieldTypeString), field("shadow.name.gps.reported.speed", types.FieldTypeNumber))
			groups := &types.ThingGroupIndexingConfiguration{
				ThingGroupIndexingMode: types.ThingGroupIndexingModeOn, CustomFields: field("attributes.owner", types.FieldTypeString),
			}
			if err := own.indexThings(config); err != nil {
				return err
			}
			if _, err := own.UpdateIndexingConfiguration(o.t.Context(), &iot.UpdateIndexingConfigurationInput{ThingGroupIndexingConfiguration: groups}); err != nil {
				return err
			}
			got := must(own, own.GetIndexingConfiguration, &iot.GetIndexingConfigurationInput{})
			same := cmp.Options{
				cmpopts.IgnoreUnexported(types.ThingIndexingConfiguration{}, types.ThingGroupIndexingConfiguration{}, types.IndexingFilter{}, types.GeoLocationTarget{}, types.ConnectivityFilter{}, types.Field{}),
				cmpopts.IgnoreFields(types.ThingIndexingConfiguration{}, "ManagedFields"), cmpopts.IgnoreFields(types.ThingGroupIndexingConfiguration{}, "ManagedFields"),
			}
			return mustBe(cmp.Diff(config, got.ThingIndexingConfiguration, same)+cmp.Diff(groups, got.ThingGroupIndexingConfiguration, same),
				cmp.Equal(config, got.ThingIndexingConfiguration, same) && cmp.Equal(groups, got.ThingGroupIndexingConfiguration, same))
		}},
		{op: "UpdateIndexingConfiguration", want: "InvalidRequestException", rule: "mode", says: "namedShadowIndexingMode must be OFF", do: func(o *operator) error {
			return refused(o, func(c *types.ThingIndexingConfiguration) {
				*c = types.ThingIndexingConfiguration{ThingIndexingMode: types.ThingIndexingModeOff, NamedShadowIndexingMode: types.NamedShadowIndexingModeOn}
			})
		}},
		{op: "UpdateIndexingConfiguration", want: "InvalidRequestException", rule: "prefix", says: `customFields: "registry.version" must begin with`, do: func(o *operator) error {
			return refused(o, func(c *types.ThingIndexingConfiguration) {
				c.CustomFields = field("registry.version", types.FieldTypeNumber)
			})
		}},
		{op: "UpdateIndexingConfiguration", want: "InvalidRequestException", rule: "source", says: "shadow.reported.a is not covered", do: func(o *operator) error {
			return refused(o, func(c *types.ThingIndexingConfiguration) {
				c.ThingIndexingMode, c.CustomFields = types.ThingIndexingModeRegistry, field("shadow.reported.a", types.FieldTypeNumber)
			})
		}},
		{op: "UpdateIndexingConfiguration", want: "InvalidRequestException", rule: "place", says: "filter.geoLocations", do: func(o *operator) error {
			return refused(o, func(c *types.ThingIndexingConfiguration) {
				c.Filter = &types.IndexingFilter{GeoLocations: []types.GeoLocationTarget{{Name: new("attributes.at")}}}
			})
		}},
		{op: "UpdateIndexingConfiguration", want: "InvalidRequestException", rule: "managed", says: "managedFields cannot be changed", do: func(o *operator) error {
			return refused(o, func(c *types.ThingIndexingConfiguration) {
				c.ManagedFields = field("registry.version", types.FieldTypeString)
			})
		}},
		{op: "UpdateIndexingConfiguration", want: "InvalidRequestException", rule: "limits", says: "filter.namedShadowNames may have at most 1", do: func(o *operator) error {
			own := o.alone("--index.max-named-shadows=1")
			return refused(own, func(c *types.ThingIndexingConfiguration) {
				c.Filter = &types.IndexingFilter{NamedShadowNames: []string{"a", "b"}}
			})
		}},
		{op: "UpdateIndexingConfiguration", want: "InvalidRequestException", rule: "off with groups", says: "while there are dynamic groups", do: func(o *operator) error {
			own := o.alone()
			own.aDynamicGroup()
			return own.indexThings(&types.ThingIndexingConfiguration{ThingIndexingMode: types.ThingIndexingModeOff})
		}},
		{op: "UpdateIndexingConfiguration", want: "InvalidRequestException", rule: "field in use", says: "is used by dynamic group", do: func(o *operator) error {
			own := o.alone()
			config := everySource()
			config.CustomFields = field("attributes.none", types.FieldTypeString)
			if err := own.indexThings(config); err != nil {
				return err
			}
			own.aDynamicGroup()
			return own.indexThings(everySource())
		}},
		{op: "CreateDynamicThingGroup", want: "InvalidQueryException", rule: "source that is off", says: "connectivity.connected is not indexed", do: func(o *operator) error {
			own := o.alone()
			if err := own.indexThings(&types.ThingIndexingConfiguration{ThingIndexingMode: types.ThingIndexingModeRegistry}); err != nil {
				return err
			}
			_, err := own.CreateDynamicThingGroup(o.t.Context(), &iot.CreateDynamicThingGroupInput{
				ThingGroupName: new("g"), QueryString: new("connectivity.connected:true"),
			})
			return err
		}},
		{op: "CreateDynamicThingGroup", want: "InvalidRequestException", rule: "index off", says: "need the index of things", do: func(o *operator) error {
			own := o.alone("--index.default-off")
			_, err := own.CreateDynamicThingGroup(o.t.Context(), &iot.CreateDynamicThingGroupInput{ThingGroupName: new("g"), QueryString: new("attributes.a:b")})
			return err
		}},
	}
}

// indexStateAnswers are the cases of the indexes and of what depends on them.
func indexStateAnswers() []answerCase {
	search := func(o *operator, query string, edit func(*iot.SearchIndexInput)) error {
		in := &iot.SearchIndexInput{QueryString: &query}
		edit(in)
		_, err := o.SearchIndex(o.t.Context(), in)
		return err
	}
	as := func(*iot.SearchIndexInput) {}
	return []answerCase{
		{op: "DescribeIndex", do: func(o *operator) error {
			things, err := o.DescribeIndex(o.t.Context(), &iot.DescribeIndexInput{IndexName: new("AWS_Things")})
			if err != nil {
				return err
			}
			groups := must(o, o.DescribeIndex, &iot.DescribeIndexInput{IndexName: new("AWS_ThingGroups")})
			return mustBe("name, status and schema", *things.IndexName == "AWS_Things" && things.IndexStatus == types.IndexStatusActive &&
				*things.Schema == "MULTI_INDEXING_MODE" && groups.IndexStatus == types.IndexStatusActive && *groups.Schema == "THING_GROUPS")
		}},
		{op: "DescribeIndex", want: "ResourceNotFoundException", rule: "name", says: "index Other does not exist", do: func(o *operator) error {
			_, err := o.DescribeIndex(o.t.Context(), &iot.DescribeIndexInput{IndexName: new("Other")})
			return err
		}},
		{op: "DescribeIndex", want: "ResourceNotFoundException", rule: "off", says: "index AWS_Things does not exist", do: func(o *operator) error {
			_, err := o.alone("--index.default-off").DescribeIndex(o.t.Context(), &iot.DescribeIndexInput{IndexName: new("AWS_Things")})
			return err
		}},
		{op: "DescribeIndex", want: "InvalidRequestException", says: "indexName", do: func(o *operator) error {
			_, err := o.DescribeIndex(o.t.Context(), &iot.DescribeIndexInput{IndexName: new("no index")})
			return err
		}},
		{op: "ListIndices", do: func(o *operator) error {
			own := o.alone("--index.default-off")
			none := must(own, own.ListIndices, &iot.ListIndicesInput{})
			if err := own.indexThings(everySource()); err != nil {
				return err
			}
			one := must(own, own.ListIndices, &iot.ListIndicesInput{})
			out, err := o.ListIndices(o.t.Context(), &iot.ListIndicesInput{})
			if err != nil {
				return err
			}
			return mustBe("names", len(none.IndexNames) == 0 && slices.Equal(one.IndexNames, []string{"AWS_Things"}) &&
				slices.Equal(out.IndexNames, []string{"AWS_ThingGroups", "AWS_Things"}))
		}},
		{op: "ListIndices", want: "InvalidRequestException", says: "token", do: func(o *operator) error {
			_, err := o.ListIndices(o.t.Context(), &iot.ListIndicesInput{NextToken: new("nonsense")})
			return err
		}},
		{op: "SearchIndex", do: func(o *operator) error {
			thing := o.aThing()
			var found []string
			testkit.Poll(o.t, 5*time.Second, "the thing", func() (err error) {
				if found, err = o.search("thingName:" + thing); err == nil && len(found) == 0 {
					err = errors.New("not found")
				}
				return err
			})
			return mustBe(fmt.Sprint(found), slices.Equal(found, []string{thing}))
		}},
		{op: "SearchIndex", want: "InvalidQueryException", says: "Invalid query", do: func(o *operator) error { return search(o, "(", as) }},
		{op: "SearchIndex", want: "InvalidRequestException", says: "maxResults", do: func(o *operator) error {
			return search(o, "*", func(in *iot.SearchIndexInput) { in.MaxResults = new(int32(501)) })
		}},
		{op: "SearchIndex", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			return search(o.alone("--index.default-off"), "*", as)
		}},
		{op: "SearchIndex", want: "IndexNotReadyException", says: "index AWS_Things is being built", do: searchWhileBuilding},
		{op: "GetThingConnectivityData", do: func(o *operator) error {
			thing := o.aThing()
			out, err := o.GetThingConnectivityData(o.t.Context(), &iot.GetThingConnectivityDataInput{ThingName: &thing})
			if err != nil {
				return err
			}
			return mustBe("never connected", *out.ThingName == thing && !*out.Connected && out.Timestamp == nil)
		}},
		{op: "GetThingConnectivityData", want: "InvalidRequestException", says: "thingName", do: func(o *operator) error {
			_, err := o.GetThingConnectivityData(o.t.Context(), &iot.GetThingConnectivityDataInput{ThingName: new("no thing")})
			return err
		}},
		{op: "GetThingConnectivityData", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.GetThingConnectivityData(o.t.Context(), &iot.GetThingConnectivityDataInput{ThingName: new(named("none"))})
			return err
		}},
		{op: "GetThingConnectivityData", want: "IndexNotReadyException", says: "connectivity is not indexed", do: func(o *operator) error {
			own := o.alone()
			thing := own.aThing()
			if err := own.indexThings(&types.ThingIndexingConfiguration{ThingIndexingMode: types.ThingIndexingModeRegistryAndShadow}); err != nil {
				return err
			}
			_, err := own.GetThingConnectivityData(o.t.Context(), &iot.GetThingConnectivityDataInput{ThingName: &thing})
			return err
		}},
	}
}

// searchWhileBuilding switches an index off and on until a search comes before
// the build is done.
func searchWhileBuilding(o *operator) error {
	own := o.alone()
	for range 200 {
		own.aThing()
	}
	var caught error
	testkit.Poll(own.t, 60*time.Second, "a search while the index is built", func() error {
		if err := own.indexThings(&types.ThingIndexingConfiguration{ThingIndexingMode: types.ThingIndexingModeOff}); err != nil {
			return err
		}
		own.awaitIndex()
		if err := own.indexThings(everySource()); err != nil {
			return err
		}
		if _, caught = own.search("*"); caught == nil {
			return errors.New("the build was faster")
		}
		return nil
	})
	own.awaitIndex()
	if found, err := own.search("*"); err != nil || len(found) == 0 {
		return fmt.Errorf("after the build: %v, %w", found, err)
	}
	_, err := own.DescribeIndex(context.WithoutCancel(own.t.Context()), &iot.DescribeIndexInput{IndexName: new("AWS_Things")})
	return errors.Join(caught, err)
}

// indexNotReached are exceptions of the index's operations that cannot come about.
func indexNotReached() map[string]string {
	return map[string]string{
		"GetIndexingConfiguration InvalidRequestException": "it asks for nothing that could be wrong",
	}
}

// TestIndexingThroughTheSDK: sources that go are gone from answers and queries,
// sources that come are found again, across a restart in the middle, and no
// member of a dynamic group is lost (fleet-management §4.1).
func TestIndexingThroughTheSDK(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	o := newOperator(t, server)
	for i := range 20 {
		must(o, o.CreateThing, &iot.CreateThingInput{
			ThingName:        new(fmt.Sprintf("pump-%02d", i)),
			AttributePayload: &types.AttributePayload{Attributes: map[string]string{"site": []string{"oslo", "bergen"}[i%2]}},
		})
	}
	o.updateShadow("pump-04", `{"state":{"reported":{"battery":12}}}`)
	for _, name := range []string{"gps", "ota"} {
		if _, err := o.data.UpdateThingShadowWithContext(t.Context(), &iotdataplane.UpdateThingShadowInput{
			ThingName: new("pump-04"), ShadowName: &name, Payload: []byte(`{"state":{"reported":{"in":"` + name + `"}}}`),
		}); err != nil {
			t.Fatal(err)
		}
	}
	must(o, o.CreateDynamicThingGroup, &iot.CreateDynamicThingGroupInput{ThingGroupName: new("oslo"), QueryString: new("attributes.site:oslo")})
	members := func() []string {
		listed := must(o, o.ListThingsInThingGroup, &iot.ListThingsInThingGroupInput{ThingGroupName: new("oslo")})
		slices.Sort(listed.Things)
		return listed.Things
	}
	testkit.Poll(t, 10*time.Second, "the members", func() error {
		if n := len(members()); n != 10 {
			return fmt.Errorf("%d members", n)
		}
		return nil
	})
	versions := func() map[string]int64 {
		out := map[string]int64{}
		for _, name := range members() {
			out[name] = must(o, o.DescribeThing, &iot.DescribeThingInput{ThingName: &name}).Version
		}
		return out
	}
	before := versions()
	shown := func() string {
		found := must(o, o.SearchIndex, &iot.SearchIndexInput{QueryString: new("thingName:pump-04")})
		if len(found.Things) != 1 {
			t.Fatalf("%d things", len(found.Things))
		}
		return fmt.Sprint(val(found.Things[0].Shadow), found.Things[0].Connectivity != nil)
	}
	whole := shown()

	narrow := everySource()
	narrow.ThingIndexingMode, narrow.ThingConnectivityIndexingMode = types.ThingIndexingModeRegistry, types.ThingConnectivityIndexingModeOff
	narrow.Filter = &types.IndexingFilter{NamedShadowNames: []string{"gps"}}
	if err := o.indexThings(narrow); err != nil {
		t.Fatal(err)
	}
	// Killed in the middle of the rebuild, or right after it.
	server.Kill()
	server.Start()
	o.awaitIndex()
	if got := shown(); !slices.Equal(members(), slices.Sorted(maps.Keys(before))) || got == whole ||
		got[:9] != `{"name":{` || len(got) < 20 || got[len(got)-5:] != "false" {
		t.Errorf("shown: %s", got)
	}
	for query, want := range map[string]string{
		"shadow.reported.battery:12": "InvalidQueryException", "shadow.name.ota.reported.in:ota": "InvalidQueryException",
		"connectivity.connected:false": "InvalidQueryException", "shadow.name.gps.reported.in:gps": "",
	} {
		found, err := o.search(query)
		if code, _ := answered(err); code != want || want == "" && !slices.Equal(found, []string{"pump-04"}) {
			t.Errorf("%s: %v %v", query, found, err)
		}
	}
	if err := o.indexThings(everySource()); err != nil {
		t.Fatal(err)
	}
	o.awaitIndex()
	if got := shown(); got != whole {
		t.Errorf("shown: %s, before %s", got, whole)
	}
	for _, query := range []string{"shadow.reported.battery:12", "shadow.name.ota.reported.in:ota"} {
		if found, err := o.search(query); err != nil || !slices.Equal(found, []string{"pump-04"}) {
			t.Errorf("%s: %v %v", query, found, err)
		}
	}
	if diff := cmp.Diff(before, versions()); diff != "" {
		t.Errorf("members and versions: %s", diff)
	}
}

// indexingWith is everySource with a custom field.
func indexingWith(field string) *types.ThingIndexingConfiguration {
	config := everySource()
	config.CustomFields = []types.Field{{Name: &field, Type: types.FieldTypeString}}
	return config
}
