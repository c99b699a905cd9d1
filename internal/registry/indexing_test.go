package registry

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// newIndexingRig is a rig whose queries are field:value pairs and words.
func newIndexingRig(t *testing.T, edit ...func(*Options)) *rig {
	t.Helper()
	return newRig(t, append([]func(*Options){func(o *Options) {
		o.Indexing.Fields = func(query string) ([]string, error) {
			var fields []string
			for term := range strings.FieldsSeq(query) {
				field, _, ok := strings.Cut(term, ":")
				if !ok {
					field = ""
				}
				fields = append(fields, field)
			}
			return fields, nil
		}
		o.Indexing.Check = func(query string, things *fleet.ThingIndexing) error {
			for term := range strings.FieldsSeq(query) {
				if field, _, ok := strings.Cut(term, ":"); ok && things.Uncovered(field) != "" {
					return fault.New(fault.InvalidQuery, "field %s is not indexed", field)
				}
			}
			return nil
		}
	}}, edit...)...)
}

// index changes the part about things.
func (r *rig) index(ctx context.Context, edit func(*fleet.ThingIndexing)) error {
	config, err := r.IndexingConfiguration(ctx, acct)
	if err != nil {
		return err
	}
	edit(&config.Things)
	_, err = r.UpdateIndexingConfiguration(ctx, acct, UpdateIndexingCommand{Things: &config.Things})
	return err
}

// fleet-management §4.1: parts that are sent replace, others stay; the change
// is in the event log; nothing changed is no change.
func TestIndexingConfiguration(t *testing.T) {
	t.Parallel()
	r := newIndexingRig(t)
	ctx := t.Context()
	wantEqual(t, must[fleet.Indexing](t)(r.IndexingConfiguration(ctx, acct)), fleet.DefaultIndexing())
	things := fleet.ThingIndexing{
		Registry: true, Shadows: true, NamedShadows: true, Connectivity: true, ShadowNames: []string{"ota", "$package"},
		GeoLocations:      []fleet.GeoLocation{{Name: "shadow.name.ota.reported.at", LonLat: true}},
		SocketInformation: []string{fleet.SocketInformationConnectivityData},
		CustomFields:      []fleet.IndexedField{{Name: "attributes.hw", Type: fleet.FieldString}, {Name: "shadow.desired.a-b.c_d", Type: fleet.FieldNumber}},
	}
	groups := fleet.GroupIndexing{On: true, CustomFields: []fleet.IndexedField{{Name: "attributes.owner", Type: fleet.FieldBoolean}}}
	first := fleet.Indexing{Version: 1, Things: things, Groups: fleet.GroupIndexing{On: true}}
	second := fleet.Indexing{Version: 2, Things: things, Groups: groups}
	defaults := fleet.DefaultIndexing()
	wantEqual(t, must[fleet.Indexing](t)(r.UpdateIndexingConfiguration(ctx, acct, UpdateIndexingCommand{
		Things: &things, ManagedThingFields: defaults.Things.ManagedFields(), ManagedGroupFields: defaults.Groups.ManagedFields(),
	})), first)
	wantEqual(t, must[fleet.Indexing](t)(r.UpdateIndexingConfiguration(ctx, acct, UpdateIndexingCommand{Groups: &groups})), second)
	wantEqual(t, must[fleet.Indexing](t)(r.UpdateIndexingConfiguration(ctx, acct, UpdateIndexingCommand{Things: &things})), second)
	wantEqual(t, must[fleet.Indexing](t)(r.UpdateIndexingConfiguration(ctx, acct, UpdateIndexingCommand{})), second)
	wantEqual(t, must[fleet.Indexing](t)(r.IndexingConfiguration(ctx, acct)), second)
	wantEqual(t, must[fleet.Indexing](t)(r.IndexingConfiguration(ctx, "000000000001")), fleet.DefaultIndexing())
	wantEqual(t, r.store.log(), []event.Event{
		event.IndexingConfigurationChanged{Indexing: first}, event.IndexingConfigurationChanged{Indexing: second},
	})
	all := map[fleet.Account]fleet.Indexing{}
	ok(t, EachIndexing(ctx, r.store, func(a fleet.Account, config fleet.Indexing) error {
		all[a] = config
		return nil
	}))
	wantEqual(t, all, map[fleet.Account]fleet.Indexing{acct: second})
}

// The settings that earlier versions kept elsewhere count until there is a
// configuration.
func TestIndexingConfigurationOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	r := newIndexingRig(t)
	ctx := t.Context()
	_, err := r.store.Commit(ctx, store.Batch{Writes: []store.Write{{
		Key: store.K("connection-settings", string(acct)), Value: []byte(`{"v":1,"socketInformation":true}`),
	}}})
	ok(t, err)
	config := must[fleet.Indexing](t)(r.IndexingConfiguration(ctx, acct))
	wantEqual(t, config.Things.SocketInformation, []string{fleet.SocketInformationConnectivityData})
	// A change of the groups keeps it, a change of the things replaces it.
	config = must[fleet.Indexing](t)(r.UpdateIndexingConfiguration(ctx, acct, UpdateIndexingCommand{Groups: &fleet.GroupIndexing{}}))
	wantEqual(t, config.Things.SocketInformation, []string{fleet.SocketInformationConnectivityData})
	ok(t, r.index(ctx, func(c *fleet.ThingIndexing) { c.SocketInformation = nil }))
	config = must[fleet.Indexing](t)(r.IndexingConfiguration(ctx, acct))
	wantEqual(t, len(config.Things.SocketInformation), 0)
}

// fleet-management §4.1: every refusal names the member, and changes nothing.
func TestRefusedIndexingConfigurations(t *testing.T) {
	t.Parallel()
	r := newIndexingRig(t, func(o *Options) {
		o.Indexing.MaxNamedShadows, o.Indexing.MaxGeoLocations, o.Indexing.MaxCustomFields = 2, 1, 2
	})
	all := func(edit func(*fleet.ThingIndexing)) fleet.ThingIndexing {
		c := fleet.DefaultIndexing().Things
		edit(&c)
		return c
	}
	field := func(name string) fleet.ThingIndexing {
		return all(func(c *fleet.ThingIndexing) {
			c.CustomFields = []fleet.IndexedField{{Name: name, Type: fleet.FieldString}}
		})
	}
	place := func(name string) fleet.ThingIndexing {
		return all(func(c *fleet.ThingIndexing) { c.GeoLocations = []fleet.GeoLocation{{Name: name}} })
	}
	for name, c := range map[string]struct {
		want   string
		things fleet.ThingIndexing
	}{
		"connectivity alone": {"thingConnectivityIndexingMode must be OFF", fleet.ThingIndexing{Connectivity: true}},
		"violations alone":   {"deviceDefenderIndexingMode must be OFF", fleet.ThingIndexing{Violations: true}},
		"named alone":        {"namedShadowIndexingMode must be OFF", fleet.ThingIndexing{NamedShadows: true}},
		"names without mode": {"filter.namedShadowNames needs namedShadowIndexingMode ON", fleet.ThingIndexing{Registry: true, ShadowNames: []string{"a"}}},
		"bad name":           {"filter.namedShadowNames: \"a.b\" is no name", all(func(c *fleet.ThingIndexing) { c.ShadowNames = []string{"a.b"} })},
		"name twice":         {"filter.namedShadowNames: a is listed twice", all(func(c *fleet.ThingIndexing) { c.ShadowNames = []string{"a", "a"} })},
		"too many names":     {"filter.namedShadowNames may have at most 2", all(func(c *fleet.ThingIndexing) { c.ShadowNames = []string{"a", "b", "c"} })},
		"attribute as place": {"filter.geoLocations: \"attributes.at\" is no field of a shadow", place("attributes.at")},
		"whole section":      {"filter.geoLocations", place("shadow.reported")},
		"empty place":        {"filter.geoLocations", place("")},
		"metadata as place":  {"filter.geoLocations", place("shadow.metadata.reported.at")},
		"place not covered": {
			"filter.geoLocations: shadow.name.gps.reported.at is not covered: filter.namedShadowNames",
			all(func(c *fleet.ThingIndexing) {
				c.ShadowNames, c.GeoLocations = []string{"a"}, []fleet.GeoLocation{{Name: "shadow.name.gps.reported.at"}}
			}),
		},
		"place twice": {"filter.geoLocations: shadow.reported.at is listed twice", all(func(c *fleet.ThingIndexing) {
			c.GeoLocations = []fleet.GeoLocation{{Name: "shadow.reported.at"}, {Name: "shadow.reported.at", LonLat: true}}
		})},
		"too many places": {"filter.geoLocations may have at most 1", all(func(c *fleet.ThingIndexing) {
			c.GeoLocations = []fleet.GeoLocation{{Name: "shadow.reported.a"}, {Name: "shadow.reported.b"}}
		})},
		"sockets without connectivity": {"filter.connectivity needs thingConnectivityIndexingMode", fleet.ThingIndexing{
			Registry: true, SocketInformation: []string{fleet.SocketInformationConnectivityData},
		}},
		"unknown sockets": {"filter.connectivity.includeSocketInformation", all(func(c *fleet.ThingIndexing) { c.SocketInformation = []string{"LIST"} })},
		"no prefix":       {"customFields: \"hw\" must begin with", field("hw")},
		"registry field":  {"customFields: \"registry.thingTypeName\" must begin", field("registry.thingTypeName")},
		"connectivity":    {"customFields", field("connectivity.connected")},
		"metadata":        {"customFields", field("shadow.metadata.reported.a.timestamp")},
		"delta":           {"customFields", field("shadow.delta.a")},
		"named section":   {"customFields", field("shadow.name.gps.reported")},
		"bad shadow name": {"customFields", field("shadow.name..reported.a")},
		"only a prefix":   {"customFields: behind the prefix", field("attributes.")},
		"bad characters":  {"customFields: behind the prefix", field("attributes.a b")},
		"empty part":      {"customFields: behind the prefix", field("shadow.reported.a..b")},
		"wildcard":        {"customFields: behind the prefix", field("attributes.*")},
		"managed":         {"customFields: deviceDefender.violationCount is a managed field", field("deviceDefender.violationCount")},
		"too long":        {"customFields: a name must have 1 to 1024", field("attributes." + strings.Repeat("a", 1024))},
		"empty field":     {"customFields: a name", field("")},
		"type": {"customFields: the type", all(func(c *fleet.ThingIndexing) {
			c.CustomFields = []fleet.IndexedField{{Name: "attributes.a", Type: "Date"}}
		})},
		"field twice": {"customFields: attributes.a is listed twice", all(func(c *fleet.ThingIndexing) {
			c.CustomFields = []fleet.IndexedField{{Name: "attributes.a", Type: fleet.FieldNumber}, {Name: "attributes.a", Type: fleet.FieldString}}
		})},
		"too many fields": {"customFields may have at most 2", all(func(c *fleet.ThingIndexing) {
			for i := range 3 {
				c.CustomFields = append(c.CustomFields, fleet.IndexedField{Name: fmt.Sprint("attributes.a", i), Type: fleet.FieldNumber})
			}
		})},
		"shadow not covered": {"shadow.reported.a is not covered: thingIndexingMode is not REGISTRY_AND_SHADOW", fleet.ThingIndexing{
			Registry: true, CustomFields: []fleet.IndexedField{{Name: "shadow.reported.a", Type: fleet.FieldNumber}},
		}},
		"named not covered": {"shadow.name.gps.reported.a is not covered: namedShadowIndexingMode is OFF", fleet.ThingIndexing{
			Registry: true, Shadows: true, CustomFields: []fleet.IndexedField{{Name: "shadow.name.gps.reported.a", Type: fleet.FieldNumber}},
		}},
		"violations not covered": {"is not covered: deviceDefenderIndexingMode is OFF", fleet.ThingIndexing{
			Registry: true, CustomFields: []fleet.IndexedField{{Name: "deviceDefender.p.b.lastViolationValue.number", Type: fleet.FieldNumber}},
		}},
		"nothing covered": {"attributes.a is not covered: thingIndexingMode is OFF", fleet.ThingIndexing{
			CustomFields: []fleet.IndexedField{{Name: "attributes.a", Type: fleet.FieldNumber}},
		}},
	} {
		_, err := r.UpdateIndexingConfiguration(t.Context(), acct, UpdateIndexingCommand{Things: &c.things})
		if fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(err.Error(), "thingIndexingConfiguration.") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for want, groups := range map[string]fleet.GroupIndexing{
		"thingGroupIndexingConfiguration.customFields: \"shadow.reported.a\" must be": {On: true, CustomFields: []fleet.IndexedField{{Name: "shadow.reported.a", Type: fleet.FieldNumber}}},
		"attributes.a is not covered: thingGroupIndexingMode is OFF":                  {CustomFields: []fleet.IndexedField{{Name: "attributes.a", Type: fleet.FieldNumber}}},
	} {
		_, err := r.UpdateIndexingConfiguration(t.Context(), acct, UpdateIndexingCommand{Groups: &groups})
		if fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for want, c := range map[string]UpdateIndexingCommand{
		"thingIndexingConfiguration.managedFields":      {ManagedThingFields: []fleet.IndexedField{{Name: "registry.version", Type: fleet.FieldString}}},
		"thingGroupIndexingConfiguration.managedFields": {ManagedGroupFields: []fleet.IndexedField{{Name: "age", Type: fleet.FieldNumber}}},
	} {
		if _, err := r.UpdateIndexingConfiguration(t.Context(), acct, c); fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	wantEqual(t, must[fleet.Indexing](t)(r.IndexingConfiguration(t.Context(), acct)), fleet.DefaultIndexing())
	wantEqual(t, len(r.store.log()), 0)
	// The shadow of packages does not count.
	ok(t, r.index(t.Context(), func(c *fleet.ThingIndexing) { c.ShadowNames = []string{"a", "$package", "b"} }))
}

// fleet-management §4.1: what a dynamic group asks for cannot be taken away, and
// the refusal names the group.
func TestIndexingInUse(t *testing.T) {
	t.Parallel()
	r := newIndexingRig(t)
	ctx := t.Context()
	ok(t, r.index(ctx, func(c *fleet.ThingIndexing) {
		c.CustomFields = []fleet.IndexedField{{Name: "attributes.hw", Type: fleet.FieldString}, {Name: "attributes.other", Type: fleet.FieldString}}
		c.ShadowNames = []string{"gps", "ota"}
	}))
	refused := func(name, want string, edit func(*fleet.ThingIndexing)) {
		t.Helper()
		if err := r.index(ctx, edit); fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", want, err)
		}
	}
	r.addGroup(t, "static", "")
	r.addDynamic(t, "hw", "attributes.hw:r1")
	r.addDynamic(t, "moving", "shadow.name.gps.reported.speed:1")
	refused("2", "cannot be OFF while there are dynamic groups", func(c *fleet.ThingIndexing) { *c = fleet.ThingIndexing{} })
	refused("group hw", "customFields: attributes.hw", func(c *fleet.ThingIndexing) { c.CustomFields = nil })
	refused("group hw", "customFields: attributes.hw", func(c *fleet.ThingIndexing) { c.CustomFields[0].Type = fleet.FieldNumber })
	refused("group moving", "shadow.name.gps.reported.speed", func(c *fleet.ThingIndexing) { c.ShadowNames = []string{"ota"} })
	refused("group moving", "shadow.name.gps.reported.speed", func(c *fleet.ThingIndexing) { c.NamedShadows, c.ShadowNames = false, nil })
	// What nobody asks for can go; more is never refused.
	ok(t, r.index(ctx, func(c *fleet.ThingIndexing) {
		c.CustomFields, c.Connectivity, c.Shadows, c.Violations, c.ShadowNames = c.CustomFields[:1], false, false, false, []string{"gps"}
	}))
	ok(t, r.index(ctx, func(c *fleet.ThingIndexing) { c.ShadowNames, c.Connectivity, c.Shadows = nil, true, true }))
	// A group may not ask for what is not indexed, neither at first nor later.
	const lacking = "deviceDefender.violationCount:1"
	_, err := r.CreateDynamicThingGroup(ctx, acct, CreateDynamicThingGroupCommand{Name: "bad", Query: lacking})
	wantCode(t, err, fault.InvalidQuery)
	_, err = r.UpdateDynamicThingGroup(ctx, acct, UpdateDynamicThingGroupCommand{Name: "hw", Query: lacking})
	wantCode(t, err, fault.InvalidQuery)
	// A word without a field is looked up in all shadows.
	_ = must[int64](t)(r.UpdateDynamicThingGroup(ctx, acct, UpdateDynamicThingGroupCommand{Name: "hw", Query: "oslo"}))
	ok(t, r.index(ctx, func(c *fleet.ThingIndexing) { c.CustomFields, c.Connectivity = nil, false }))
	refused("group hw", "looks at every shadow", func(c *fleet.ThingIndexing) { c.Shadows = false })
	refused("group hw", "looks at every shadow", func(c *fleet.ThingIndexing) { c.ShadowNames = []string{"gps"} })
	for _, name := range []string{"hw", "moving"} {
		ok(t, r.DeleteDynamicThingGroup(ctx, acct, name, nil))
	}
	ok(t, r.index(ctx, func(c *fleet.ThingIndexing) { *c = fleet.ThingIndexing{} }))
	_, err = r.CreateDynamicThingGroup(ctx, acct, CreateDynamicThingGroupCommand{Name: "bad", Query: "attributes.a:1"})
	wantCode(t, err, fault.InvalidRequest)
	wantEqual(t, must[fleet.Indexing](t)(r.IndexingConfiguration(ctx, acct)).Groups.On, true)
}

// A dynamic group needs an index that has been built; accounts may begin without.
func TestDynamicGroupNeedsTheIndex(t *testing.T) {
	t.Parallel()
	built := false
	r := newIndexingRig(t, func(o *Options) {
		o.Indexing.Default = &fleet.Indexing{}
		o.Indexing.Built = func(_ fleet.Account, c *fleet.Indexing) bool { return built && c.Version == 1 }
	})
	ctx := t.Context()
	create := func() error {
		_, err := r.CreateDynamicThingGroup(ctx, acct, CreateDynamicThingGroupCommand{Name: "g", Query: "attributes.a:1"})
		return err
	}
	wantCode(t, create(), fault.InvalidRequest)
	ok(t, r.index(ctx, func(c *fleet.ThingIndexing) { c.Registry = true }))
	wantCode(t, create(), fault.InvalidRequest)
	built = true
	ok(t, create())
}

// OFF and the first dynamic group exclude each other, whoever is first.
func TestRaceToIndexOffOrGroup(t *testing.T) {
	t.Parallel()
	r := newIndexingRig(t)
	ctx := t.Context()
	for i := range rounds(t, 50) {
		name := fmt.Sprintf("g%d", i)
		errs := together(
			func() error {
				_, err := r.UpdateIndexingConfiguration(ctx, acct, UpdateIndexingCommand{Things: &fleet.ThingIndexing{}})
				return err
			},
			func() error {
				_, err := r.CreateDynamicThingGroup(ctx, acct, CreateDynamicThingGroupCommand{Name: name, Query: "attributes.a:1"})
				return err
			},
		)
		wantEqual(t, tally(errs), map[fault.Code]int{"": 1, fault.InvalidRequest: 1})
		ok(t, r.DeleteDynamicThingGroup(ctx, acct, name, nil))
		all := fleet.DefaultIndexing()
		_ = must[fleet.Indexing](t)(r.UpdateIndexingConfiguration(ctx, acct, UpdateIndexingCommand{Things: &all.Things}))
	}
}

// A source and a query that asks for it exclude each other too.
func TestRaceToSourceOffOrQuery(t *testing.T) {
	t.Parallel()
	r := newIndexingRig(t)
	ctx := t.Context()
	r.addDynamic(t, "g", "attributes.a:1")
	all := fleet.DefaultIndexing()
	for range rounds(t, 50) {
		errs := together(
			func() error {
				_, err := r.UpdateIndexingConfiguration(ctx, acct, UpdateIndexingCommand{Things: &fleet.ThingIndexing{Registry: true}})
				return err
			},
			func() error {
				_, err := r.UpdateDynamicThingGroup(ctx, acct, UpdateDynamicThingGroupCommand{Name: "g", Query: "connectivity.connected:true"})
				return err
			},
		)
		if counts := tally(errs); counts[""] != 1 {
			t.Fatal(errs)
		}
		_ = must[fleet.Indexing](t)(r.UpdateIndexingConfiguration(ctx, acct, UpdateIndexingCommand{Things: &all.Things}))
		_ = must[int64](t)(r.UpdateDynamicThingGroup(ctx, acct, UpdateDynamicThingGroupCommand{Name: "g", Query: "attributes.a:1"}))
	}
}

// A call answers when the index has heard of it, and anyway when that takes too
// long.
func TestIndexingWaitsForTheIndex(t *testing.T) {
	t.Parallel()
	barrier := &recordingBarrier{}
	r := newIndexingRig(t, func(o *Options) { o.Indexing.Barrier = barrier })
	ok(t, r.index(t.Context(), func(c *fleet.ThingIndexing) { c.Connectivity = false }))
	ok(t, r.index(t.Context(), func(c *fleet.ThingIndexing) { c.Connectivity = false }))
	wantEqual(t, barrier.count(), 1)
	barrier.err = context.DeadlineExceeded
	ok(t, r.index(t.Context(), func(c *fleet.ThingIndexing) { c.Connectivity = true }))
	if !strings.Contains(r.logged.String(), "answered before the index heard") {
		t.Error(r.logged.String())
	}
}
