package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

const (
	// mostSorted bounds what is fetched to be put in order.
	mostSorted = 100_000
	// leastEvery bounds how often --watch asks.
	leastEvery = 500 * time.Millisecond
)

// searching is a search as its flags ask for it.
type searching struct {
	limit   int
	columns []string
	sort    string
	groups  bool
	count   bool
	watch   bool
	every   time.Duration
	format  *string
}

// hit is a device or a group that was found.
type hit struct {
	name string
	// document is how -o json shows it and where --columns come from.
	document any
	// row is what the table shows without --columns.
	row []string
}

// search asks the fleet index.
func (c *command) search() *cobra.Command {
	cmd := &cobra.Command{
		Use: "search QUERY", Short: "Find devices by registry, shadow and connectivity, or groups", Args: cobra.ExactArgs(1),
		Long: `Find devices with a fleet query over registry, shadows and connectivity.

Without --columns the table shows the scalar values that the classic shadow
reports; -o json shows whole documents. --columns names fields as queries do:
thingName, thingTypeName, thingGroupNames, attributes.NAME, shadow.reported.PATH,
shadow.name.SHADOW.reported.PATH, connectivity.connected and the like. A field
that a device does not have is empty.

--groups finds thing groups instead, by thingGroupName, description,
attributes.NAME and parentGroupNames. --count shows how many there are.

--sort fetches all hits, 100,000 at most, and puts them in the order of a field,
numbers before texts, devices without it last; the limit counts afterwards.

--watch asks again and again and tells what came (+), went (-) or changed (~),
until it is interrupted.`,
		Example: `  muster search 'shadow.reported.battery<20'
  muster search 'attributes.site:leeds AND connectivity.connected:true' --limit 20
  muster search '*' --columns thingName,attributes.site,shadow.reported.battery --sort shadow.reported.battery
  muster search 'connectivity.connected:false' --columns thingName,connectivity.timestamp --sort connectivity.timestamp:desc --limit 10
  muster search 'thingGroupNames:low-battery' -o csv >low.csv
  muster search 'shadow.hasDelta:true' --watch --every 5s
  muster search 'connectivity.connected:false AND attributes.site:leeds' --count
  muster search 'parentGroupNames:north AND attributes.line:*' --groups`,
	}
	var s searching
	cmd.Flags().IntVar(&s.limit, "limit", 100, "most devices to show; 0 for all")
	cmd.Flags().StringSliceVar(&s.columns, "columns", nil, "fields to show, separated by commas")
	cmd.Flags().StringVar(&s.sort, "sort", "", "field to sort by, with :desc for the largest first")
	cmd.Flags().BoolVar(&s.groups, "groups", false, "find thing groups, in the index AWS_ThingGroups")
	cmd.Flags().BoolVar(&s.count, "count", false, "show how many there are and no more")
	cmd.Flags().BoolVar(&s.watch, "watch", false, "go on and tell what changes")
	cmd.Flags().DurationVar(&s.every, "every", 2*time.Second, "how often --watch asks")
	s.format = c.outputFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		if err := s.check(); err != nil {
			return err
		}
		if s.count {
			return c.countFound(cmd.Context(), api, args[0], &s)
		}
		if s.watch {
			return c.watchSearch(cmd.Context(), api, args[0], &s)
		}
		t, err := s.find(cmd.Context(), api, args[0])
		if err != nil {
			return err
		}
		return c.print(*s.format, t)
	})
}

// check refuses flags that do not fit.
func (s *searching) check() error {
	for _, column := range s.columns {
		if column == "" {
			return errors.New("--columns has an empty name")
		}
		if strings.HasPrefix(column, "muster.") || column == "muster" {
			return fmt.Errorf("--columns %s: queries can ask for it, but documents do not show it; `muster connectivity show` does", column)
		}
	}
	if field, _ := s.order(); strings.HasPrefix(field, "muster.") {
		return fmt.Errorf("--sort %s: queries can ask for it, but documents do not show it", field)
	}
	if s.count && (len(s.columns) > 0 || s.sort != "" || s.watch) {
		return errors.New("--count goes with none of --columns, --sort and --watch")
	}
	if s.watch && s.every < leastEvery {
		return fmt.Errorf("--every must be at least %v", leastEvery)
	}
	if s.watch && *s.format == formatCSV {
		return errors.New("--watch has no csv; use table or json")
	}
	return nil
}

// order is the field to sort by and whether the largest comes first.
func (s *searching) order() (field string, descending bool) {
	if field, ok := strings.CutSuffix(s.sort, ":desc"); ok {
		return field, true
	}
	return strings.TrimSuffix(s.sort, ":asc"), false
}

// countFound shows how many devices or groups match.
func (c *command) countFound(ctx context.Context, api *apiclient.Client, query string, s *searching) error {
	n, err := api.Count(ctx, s.groups, query)
	if err != nil {
		return err //nolint:wrapcheck // the server's own words
	}
	t := table{header: []string{"COUNT"}, raw: map[string]int{"count": n}}
	t.add(strconv.Itoa(n))
	return c.print(*s.format, t)
}

// find fetches, sorts and cuts.
func (s *searching) find(ctx context.Context, api *apiclient.Client, query string) (table, error) {
	limit := s.limit
	if s.sort != "" {
		limit = mostSorted + 1
	}
	found, err := s.ask(ctx, api, query, limit)
	if err != nil {
		return table{}, err
	}
	if s.sort != "" {
		if len(found) > mostSorted {
			return table{}, fmt.Errorf("more than %d match: narrow the query, or leave --sort out", mostSorted)
		}
		field, descending := s.order()
		sortFound(found, field, descending)
		if s.limit > 0 {
			found = found[:min(s.limit, len(found))]
		}
	}
	return s.table(found), nil
}

// ask fetches what matches in one of the two indexes.
func (s *searching) ask(ctx context.Context, api *apiclient.Client, query string, limit int) ([]hit, error) {
	if s.groups {
		groups, err := api.SearchGroups(ctx, query, limit)
		if err != nil {
			return nil, err //nolint:wrapcheck // the server's own words
		}
		hits := make([]hit, len(groups))
		for i, g := range groups {
			hits[i] = hit{g.ThingGroupName, g, []string{g.ThingGroupName, strings.Join(g.ParentGroupNames, " "), g.ThingGroupDescription, pairs(g.Attributes)}}
		}
		return hits, nil
	}
	things, err := api.Search(ctx, query, limit)
	if err != nil {
		return nil, err //nolint:wrapcheck // the server's own words
	}
	hits := make([]hit, len(things))
	for i, f := range things {
		connected, since := connectivity(f.Connectivity)
		hits[i] = hit{f.ThingName, document(f), []string{f.ThingName, f.ThingTypeName, connected, since, reported(f.Shadow), pairs(f.Attributes)}}
	}
	return hits, nil
}

// table shows what was found by the columns that were asked for.
func (s *searching) table(found []hit) table {
	documents := make([]any, len(found))
	for i := range found {
		documents[i] = found[i].document
	}
	t := table{header: s.columns, exact: true, raw: documents}
	if len(s.columns) > 0 {
		for _, h := range found {
			fields := fieldsOf(h.document)
			cells := make([]string, len(s.columns))
			for k, column := range s.columns {
				value, _ := at(fields, column)
				cells[k] = scalar(value)
			}
			t.add(cells...)
		}
		return t
	}
	t.exact = false
	t.header = []string{"THING", "TYPE", "CONNECTED", "SINCE", "REPORTED", "ATTRIBUTES"}
	if s.groups {
		t.header = []string{"GROUP", "PARENTS", "DESCRIPTION", "ATTRIBUTES"}
	}
	for _, h := range found {
		t.add(h.row...)
	}
	return t
}

// watchSearch tells what comes, goes and changes until ctx ends.
func (c *command) watchSearch(ctx context.Context, api *apiclient.Client, query string, s *searching) error {
	before := map[string]string{}
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		found, err := s.ask(ctx, api, query, s.limit)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // an interrupt is how it ends
		}
		if err != nil {
			return err
		}
		now := map[string]string{}
		for i, row := range s.table(found).rows {
			now[found[i].name] = strings.Join(row, "  ")
		}
		if err := c.tellChanges(before, now, s); err != nil {
			return err
		}
		before = now
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// tellChanges writes a line for each device or group that came, went or changed.
func (c *command) tellChanges(before, now map[string]string, s *searching) error {
	names := slices.Sorted(maps.Keys(now))
	for name := range before {
		if _, stays := now[name]; !stays {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		was, had := before[name]
		is, has := now[name]
		sign, row := "+", is
		switch {
		case had && has && was == is:
			continue
		case had && has:
			sign = "~"
		case had:
			sign, row = "-", was
		}
		if err := c.tellChange(sign, name, row, s); err != nil {
			return err
		}
	}
	return nil
}

// tellChange writes one line.
func (c *command) tellChange(sign, name, row string, s *searching) error {
	at := c.Now().UTC().Format(time.RFC3339)
	line := fmt.Sprintf("%s %s %s", at, sign, printable(row))
	if *s.format == formatJSON {
		what := "thingName"
		if s.groups {
			what = "thingGroupName"
		}
		data, err := json.Marshal(map[string]string{"at": at, "change": sign, what: name, "row": row})
		if err != nil {
			return fmt.Errorf("encode a change: %w", err)
		}
		line = string(data)
	}
	if _, err := fmt.Fprintln(c.Out, line); err != nil {
		return fmt.Errorf("write a change: %w", err)
	}
	return nil
}

// fieldsOf is a document as nested values, numbers verbatim.
func fieldsOf(document any) map[string]any {
	data, err := json.Marshal(document)
	if err != nil {
		return nil
	}
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.UseNumber()
	var fields map[string]any
	if decoder.Decode(&fields) != nil {
		return nil
	}
	return fields
}

// at returns the value at a path. A name may hold dots itself, as the index has
// it: the longest one that exists counts.
func at(document map[string]any, path string) (any, bool) {
	if value, ok := document[path]; ok {
		return value, true
	}
	for end := len(path); end > 0; {
		end = strings.LastIndexByte(path[:end], '.')
		if end < 0 {
			return nil, false
		}
		if inner, ok := document[path[:end]].(map[string]any); ok {
			if value, ok := at(inner, path[end+1:]); ok {
				return value, true
			}
		}
	}
	return nil, false
}

// scalar renders a value for a cell.
func scalar(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = scalar(v[i])
		}
		return strings.Join(parts, " ")
	}
	data, err := json.Marshal(value)
	if err != nil {
		return ""
	}
	return string(data)
}

// sortKey is a value to sort by: numbers come before texts, nothing last.
type sortKey struct {
	rank   int
	number float64
	text   string
	hit    hit
}

// sortFound puts hits in the order of a field, and of their names where it is the
// same.
func sortFound(found []hit, field string, descending bool) {
	keys := make([]sortKey, len(found))
	for i := range found {
		value, ok := at(fieldsOf(found[i].document), field)
		k := sortKey{rank: 2, hit: found[i]}
		if text := scalar(value); ok && text != "" {
			k.rank, k.text = 1, text
			if number, err := strconv.ParseFloat(text, 64); err == nil {
				k.rank, k.number = 0, number
			}
		}
		keys[i] = k
	}
	slices.SortFunc(keys, func(a, b sortKey) int {
		order := cmp.Or(cmp.Compare(a.number, b.number), strings.Compare(a.text, b.text))
		if descending {
			order = -order
		}
		return cmp.Or(cmp.Compare(a.rank, b.rank), order, strings.Compare(a.hit.name, b.hit.name))
	})
	for i := range keys {
		found[i] = keys[i].hit
	}
}

// connectivity renders a device's connection; empty when it never had one.
func connectivity(k *apiclient.Connectivity) (connected, since string) {
	if k == nil {
		return "", ""
	}
	connected = "no"
	if k.Connected {
		connected = "yes"
	}
	if k.Timestamp > 0 {
		since = time.UnixMilli(k.Timestamp).UTC().Format(time.RFC3339)
	}
	return connected, since
}

// reported renders the scalars that the classic shadow reports.
func reported(shadow string) string {
	var document struct {
		Reported map[string]json.RawMessage `json:"reported"`
	}
	if json.Unmarshal([]byte(shadow), &document) != nil {
		return ""
	}
	var parts []string
	for _, name := range sortedKeys(document.Reported) {
		value := document.Reported[name]
		if len(value) > 0 && value[0] != '{' && value[0] != '[' {
			parts = append(parts, name+"="+strings.Trim(string(value), `"`))
		}
	}
	return strings.Join(parts, " ")
}

// foundDocument is a device with its shadow as JSON instead of text.
type foundDocument struct {
	apiclient.Found
	Shadow json.RawMessage `json:"shadow,omitempty"`
}

// document unpacks the shadow for people who pipe the answer into jq.
func document(f apiclient.Found) foundDocument {
	out := foundDocument{Found: f}
	if json.Valid([]byte(f.Shadow)) {
		out.Shadow = json.RawMessage(f.Shadow)
	}
	return out
}
