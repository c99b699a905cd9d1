package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// indexEvery is how often --wait looks.
const indexEvery = 500 * time.Millisecond

// Words of an indexing configuration on the wire.
const (
	indexActive            = "ACTIVE"
	indexOff               = "OFF"
	indexOn                = "ON"
	indexStatusMode        = "STATUS"
	indexViolationsMode    = "VIOLATIONS"
	indexRegistry          = "REGISTRY"
	indexRegistryAndShadow = "REGISTRY_AND_SHADOW"
	indexConnectivityData  = "GET_THING_CONNECTIVITY_DATA"
)

// index is the family of commands on the fleet index.
func (c *command) index() *cobra.Command {
	cmd := &cobra.Command{
		Use: "index", Short: "Show and set what the fleet index holds, how it is, and which fields there are",
		Long: `The fleet index answers searches and fills dynamic groups. Its configuration says
which sources are indexed: the registry, classic and named shadows, connectivity.
A change rebuilds the index in the background; searches go on from the state
before, and only the first build of an index cannot be searched.`,
		Example: `  muster index show
  muster index set --named-shadows on --shadow gps --shadow ota --wait
  muster index fields shadow.reported`,
	}
	cmd.AddCommand(c.indexShow(), c.indexStatus(), c.indexSet(), c.indexFields())
	return cmd
}

// indexShow prints configuration and state.
func (c *command) indexShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show", Short: "Show the configuration of the index and how it is", Args: cobra.NoArgs,
		Example: `  muster index show
  muster index show -o json`,
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		config, err := api.IndexingConfiguration(cmd.Context())
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		state, err := api.DescribeFleetIndex(cmd.Context())
		return indexPage(&config, &state), err
	})
}

// indexPage is configuration and state, one item a line.
func indexPage(config *apiclient.Indexing, state *apiclient.IndexDescription) table {
	t := table{header: []string{"ITEM", "VALUE"}, raw: map[string]any{"configuration": config, "state": state}}
	addIndexing(&t, config)
	for _, s := range state.Indices {
		t.add(s.Name, fmt.Sprintf("%s, %s, %d documents with %d fields, %s", s.Status, s.Schema, s.Documents, s.Fields, binarySize(s.Bytes)))
		if s.Dropped > 0 {
			t.add("values left out of "+s.Name, strconv.FormatUint(s.Dropped, 10))
		}
	}
	t.add("dynamic groups", strconv.Itoa(state.DynamicGroups))
	if state.Progress != nil {
		t.add("build", buildProgress(state.Progress))
	}
	t.add("behind the event log", indexLag(state))
	return t
}

// addIndexing adds the configuration.
func addIndexing(t *table, config *apiclient.Indexing) {
	if things := config.Things; things != nil {
		t.add("things", things.Mode)
		t.add("connectivity of things", things.Connectivity)
		t.add("violations of things", things.Violations)
		filter := apiclient.IndexingFilter{}
		if things.Filter != nil {
			filter = *things.Filter
		}
		shadows := things.NamedShadows
		switch {
		case shadows == indexOn && len(filter.NamedShadowNames) > 0:
			shadows += ": " + strings.Join(filter.NamedShadowNames, ", ")
		case shadows == indexOn:
			shadows += ": all"
		}
		t.add("named shadows", shadows)
		for _, g := range filter.GeoLocations {
			t.add("geo location", g.Name+" "+g.Order)
		}
		for _, f := range things.CustomFields {
			t.add("custom field", f.Name+" "+f.Type)
		}
		if filter.Connectivity != nil {
			t.add("shows addresses", strings.Join(filter.Connectivity.IncludeSocketInformation, ", "))
		}
	}
	if groups := config.Groups; groups != nil {
		t.add("groups", groups.Mode)
		for _, f := range groups.CustomFields {
			t.add("custom field of groups", f.Name+" "+f.Type)
		}
	}
}

// buildProgress says how far a build has come.
func buildProgress(p *apiclient.IndexProgress) string {
	things := strconv.FormatInt(p.ThingsLoaded, 10)
	if p.ThingsExpected > 0 {
		things += " of " + strconv.FormatInt(p.ThingsExpected, 10)
	}
	return fmt.Sprintf("%s things and %d shadows read", things, p.ShadowsLoaded)
}

// indexLag says how far the index is behind.
func indexLag(state *apiclient.IndexDescription) string {
	age := time.Duration(state.Lag.Seconds * float64(time.Second)).Round(time.Millisecond)
	return fmt.Sprintf("%d events, %v", state.Lag.Events, age)
}

// binarySize renders a number of bytes for people.
func binarySize(n uint64) string {
	const unit = 1024
	value, units := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	at := 0
	for value >= unit && at < len(units)-1 {
		value /= unit
		at++
	}
	if at == 0 {
		return strconv.FormatUint(n, 10) + " B"
	}
	return fmt.Sprintf("%.1f %s", value, units[at])
}

// indexStatus prints the state of the indexes.
func (c *command) indexStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show whether the index is built, and how far it is behind", Args: cobra.NoArgs,
		Long: `Show the indexes that exist. BUILDING is a first build: it cannot be searched yet.
REBUILDING follows a change of the configuration: searches answer from the state
before. ACTIVE is up to date but for what LAG says.`,
		Example: `  muster index status
  muster index status --wait`,
	}
	wait := cmd.Flags().Bool("wait", false, "return when every index is ACTIVE")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		state, err := c.lookAtIndex(cmd, api, *wait)
		if err != nil {
			return table{}, err
		}
		t := table{header: []string{"INDEX", "STATUS", "SCHEMA", "DOCUMENTS", "FIELDS", "MEMORY", "LAG", "BUILD"}, raw: state}
		for _, s := range state.Indices {
			build := ""
			if state.Progress != nil && s.Status != indexActive {
				build = buildProgress(state.Progress)
			}
			t.add(s.Name, s.Status, s.Schema, strconv.Itoa(s.Documents), strconv.Itoa(s.Fields), binarySize(s.Bytes), indexLag(&state), build)
		}
		return t, nil
	})
}

// lookAtIndex returns the state, at once or when nothing is built any more.
func (c *command) lookAtIndex(cmd *cobra.Command, api *apiclient.Client, wait bool) (apiclient.IndexDescription, error) {
	if !wait {
		return api.DescribeFleetIndex(cmd.Context()) //nolint:wrapcheck // the server's own words
	}
	return api.AwaitFleetIndex(cmd.Context(), indexEvery, func(now apiclient.IndexDescription) { //nolint:wrapcheck // as above
		if c.Terminal && now.Progress != nil {
			_, _ = fmt.Fprintln(c.Err, buildProgress(now.Progress)) // for a person who looks
		}
	})
}

// indexFields lists the fields that queries can name.
func (c *command) indexFields() *cobra.Command {
	cmd := &cobra.Command{
		Use: "fields [PREFIX]", Short: "List the fields that have values, for writing queries", Args: cobra.MaximumNArgs(1),
		Long: `List the fields that at least one thing has, with the types of their values and
how many things have them. An attribute that reads as a number counts as String
and as Number: queries can ask for both. A CUSTOM type is what aggregations take.`,
		Example: `  muster index fields
  muster index fields shadow.reported.
  muster index fields --groups
  muster index fields attributes. -o csv`,
	}
	groups := cmd.Flags().Bool("groups", false, "fields of thing groups, in the index AWS_ThingGroups")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		index, prefix := "", ""
		if *groups {
			index = "AWS_ThingGroups"
		}
		if len(args) == 1 {
			prefix = args[0]
		}
		found, err := api.IndexFields(cmd.Context(), index, prefix, *limit)
		t := table{header: []string{"FIELD", "TYPES", "DOCUMENTS", "SEARCHABLE", "CUSTOM"}, raw: found}
		for _, f := range found {
			types := make([]string, 0, len(f.Types))
			for _, name := range sortedKeys(f.Types) {
				types = append(types, name+" "+strconv.Itoa(f.Types[name]))
			}
			t.add(f.Name, strings.Join(types, ", "), strconv.Itoa(f.Documents), strconv.FormatBool(f.Searchable), f.CustomType)
		}
		return t, err
	})
}

// indexChange are the flags of `index set`.
type indexChange struct {
	things, connectivity, violations, namedShadows, addresses, groups string
	shadows, places, fields, groupFields                              []string
}

// indexSet changes the configuration.
func (c *command) indexSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set", Short: "Change what the index holds", Args: cobra.NoArgs,
		Long: `Change what the index holds; what no flag names stays as it is. A list that is
given replaces the one there was, and an empty text empties it. Without a list of
shadows all named shadows are indexed.

  --things off                    no index of things: refused while there are
                                  dynamic groups; takes everything else with it
  --geo shadow.reported.at:LonLat a field of places whose pairs begin with the
                                  longitude; without a suffix with the latitude
  --field shadow.reported.t:Number a field that aggregations may name, of type
                                  Number, String or Boolean`,
		Example: `  muster index set --things registry-and-shadow --connectivity on
  muster index set --named-shadows on --shadow gps --shadow '$package' --wait
  muster index set --shadow ''
  muster index set --geo shadow.name.gps.reported.position:LonLat
  muster index set --field attributes.hw:String --field shadow.reported.battery:Number`,
	}
	var in indexChange
	flags := cmd.Flags()
	flags.StringVar(&in.things, "things", "", "off, registry or registry-and-shadow")
	flags.StringVar(&in.connectivity, "connectivity", "", "index who is connected: on or off")
	flags.StringVar(&in.violations, "violations", "", "index violations of security profiles: on or off")
	flags.StringVar(&in.namedShadows, "named-shadows", "", "index named shadows: on or off")
	flags.StringArrayVar(&in.shadows, "shadow", nil, "a named shadow to index; once for each")
	flags.StringArrayVar(&in.places, "geo", nil, "a field of places, with :LonLat or :LatLon; once for each")
	flags.StringArrayVar(&in.fields, "field", nil, "a custom field and its type; once for each")
	flags.StringVar(&in.addresses, "addresses", "", "let GetThingConnectivityData show addresses: on or off")
	flags.StringVar(&in.groups, "groups", "", "index thing groups: on or off")
	flags.StringArrayVar(&in.groupFields, "group-field", nil, "a custom field of groups and its type; once for each")
	wait := flags.Bool("wait", false, "return when the index is what was set")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		given := func(name string) bool { return cmd.Flags().Changed(name) }
		now, err := api.IndexingConfiguration(cmd.Context())
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		change, err := in.apply(now, given)
		if err != nil {
			return table{}, mistake(cmd, err)
		}
		if err := api.SetIndexingConfiguration(cmd.Context(), change); err != nil {
			return table{}, err //nolint:wrapcheck // as above
		}
		if now, err = api.IndexingConfiguration(cmd.Context()); err != nil {
			return table{}, err //nolint:wrapcheck // as above
		}
		state, err := c.lookAtIndex(cmd, api, *wait)
		return indexPage(&now, &state), err
	})
}

// errNothingSet is a change without a flag.
var errNothingSet = errors.New("say what to change")

// apply returns the parts that the flags change.
func (in *indexChange) apply(now apiclient.Indexing, given func(string) bool) (apiclient.Indexing, error) {
	var change apiclient.Indexing
	if slices.ContainsFunc([]string{"things", "connectivity", "violations", "named-shadows", "shadow", "geo", "field", "addresses"}, given) {
		things := apiclient.ThingIndexing{}
		if now.Things != nil {
			things = *now.Things
		}
		if err := in.applyThings(&things, given); err != nil {
			return change, err
		}
		change.Things = &things
	}
	if given("groups") || given("group-field") {
		groups := apiclient.GroupIndexing{}
		if now.Groups != nil {
			groups = *now.Groups
		}
		if given("groups") {
			mode, err := onOff("groups", in.groups, indexOn)
			if err != nil {
				return change, err
			}
			if groups.Mode = mode; mode == indexOff {
				groups.CustomFields = nil
			}
		}
		if given("group-field") {
			var err error
			if groups.CustomFields, err = customFields("group-field", in.groupFields); err != nil {
				return change, err
			}
		}
		change.Groups = &groups
	}
	if change.Things == nil && change.Groups == nil {
		return change, errNothingSet
	}
	return change, nil
}

// applyThings changes the part about things.
func (in *indexChange) applyThings(things *apiclient.ThingIndexing, given func(string) bool) error {
	if given("things") {
		mode := strings.ToUpper(strings.ReplaceAll(in.things, "-", "_"))
		switch mode {
		case indexOff:
			*things = apiclient.ThingIndexing{}
		case indexRegistry, indexRegistryAndShadow:
		default:
			return fmt.Errorf("--things %q is none of off, registry, registry-and-shadow", in.things)
		}
		things.Mode = mode
	}
	for _, mode := range []struct {
		flag, text, on string
		into           *string
	}{
		{"connectivity", in.connectivity, indexStatusMode, &things.Connectivity},
		{"violations", in.violations, indexViolationsMode, &things.Violations},
		{"named-shadows", in.namedShadows, indexOn, &things.NamedShadows},
	} {
		if !given(mode.flag) {
			continue
		}
		var err error
		if *mode.into, err = onOff(mode.flag, mode.text, mode.on); err != nil {
			return err
		}
	}
	if given("field") {
		var err error
		if things.CustomFields, err = customFields("field", in.fields); err != nil {
			return err
		}
	}
	return in.applyFilter(things, given)
}

// applyFilter changes the filter. What belongs to a source that is switched off
// goes with it.
func (in *indexChange) applyFilter(things *apiclient.ThingIndexing, given func(string) bool) error {
	filter := apiclient.IndexingFilter{}
	if things.Filter != nil {
		filter = *things.Filter
	}
	if given("shadow") {
		filter.NamedShadowNames = withoutEmpty(in.shadows)
	} else if things.NamedShadows != indexOn {
		filter.NamedShadowNames = nil
	}
	if given("geo") {
		filter.GeoLocations = nil
		for _, text := range withoutEmpty(in.places) {
			name, order, found := strings.Cut(text, ":")
			if found && order != "LonLat" && order != "LatLon" {
				return fmt.Errorf("--geo %q: the order is LatLon or LonLat", text)
			}
			filter.GeoLocations = append(filter.GeoLocations, apiclient.GeoLocation{Name: name, Order: order})
		}
	}
	if given("addresses") {
		shown, err := onOff("addresses", in.addresses, indexOn)
		if err != nil {
			return err
		}
		filter.Connectivity = nil
		if shown == indexOn {
			filter.Connectivity = &apiclient.IndexingSockets{IncludeSocketInformation: []string{indexConnectivityData}}
		}
	} else if things.Connectivity != indexStatusMode {
		filter.Connectivity = nil
	}
	things.Filter = &filter
	return nil
}

// onOff reads a switch as a mode of the wire.
func onOff(flag, text, on string) (string, error) {
	switch text {
	case "on":
		return on, nil
	case "off":
		return indexOff, nil
	}
	return "", fmt.Errorf("--%s %q is neither on nor off", flag, text)
}

// customFields reads names with types.
func customFields(flag string, texts []string) ([]apiclient.IndexingField, error) {
	var fields []apiclient.IndexingField
	for _, text := range withoutEmpty(texts) {
		at := strings.LastIndexByte(text, ':')
		if at <= 0 {
			return nil, fmt.Errorf("--%s %q is not NAME:TYPE", flag, text)
		}
		field := apiclient.IndexingField{Name: text[:at], Type: text[at+1:]}
		if !slices.Contains([]string{"Number", "String", "Boolean"}, field.Type) {
			return nil, fmt.Errorf("--%s %q: the type is Number, String or Boolean", flag, text)
		}
		fields = append(fields, field)
	}
	return fields, nil
}

// withoutEmpty leaves out empty texts, with which a list is emptied.
func withoutEmpty(texts []string) []string {
	return slices.DeleteFunc(slices.Clone(texts), func(text string) bool { return text == "" })
}
