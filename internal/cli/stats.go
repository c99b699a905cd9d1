package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// barWidth is how wide the bar of all matching things is.
const barWidth = 40

// stats sums up one field.
func (c *command) stats() *cobra.Command {
	cmd := &cobra.Command{
		Use: "stats FIELD", Short: "Sum up one field over the fleet: numbers, percentiles and most frequent values", Args: cobra.ExactArgs(1),
		Long: `Sum up one field of the fleet index over the devices that match a query.

Any field that has a value will do: the registry's, shadows', connectivity. Its
type is the declared one, or that of most values; values of other types do not
count. A truth value counts as 0 or 1, each element of an array as one value.
Values that differ only in case are one.

AWS's own aggregations take managed and custom fields only; what is none of them
is said with the command that declares it.`,
		Example: `  muster stats shadow.reported.battery
  muster stats thingTypeName --query 'connectivity.connected:true'
  muster stats connectivity.disconnectReason --buckets 20
  muster stats attributes.floor --type String -o csv
  muster stats parentGroupNames --groups -o json`,
	}
	flags := cmd.Flags()
	query := flags.String("query", "*", "count only what matches")
	buckets := flags.Int("buckets", 10, "how many of the most frequent values to show, from 1 to 10000")
	of := flags.String("type", "", "take the values as Number, String or Boolean")
	groups := flags.Bool("groups", false, "sum up thing groups, in the index AWS_ThingGroups")
	// --format is the same as --output.
	format := c.outputFlag(cmd)
	flags.StringVar(format, "format", formatTable, "the same as --output")
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		index := ""
		if *groups {
			index = apiclient.GroupIndex
		}
		s, err := api.IndexStatistics(cmd.Context(), index, args[0], *query, *of, *buckets)
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		t := statsPage(&s, *format == formatCSV)
		if err := c.print(*format, t); err != nil || *format != formatTable || s.Declared {
			return err
		}
		return c.sayHowToDeclare(cmd, api, &s, *groups)
	})
}

// statsPage is everything about a field, one item a line.
func statsPage(s *apiclient.IndexStatistics, exact bool) table {
	t := table{header: []string{"ITEM", "VALUE", "SHARE"}, raw: s}
	number := func(v float64) string {
		if exact {
			return strconv.FormatFloat(v, 'g', -1, 64)
		}
		return readable(v)
	}
	t.add("field", s.Field+" ("+s.Type+")", "")
	t.add("matching", strconv.Itoa(s.Matching), "")
	t.add("with a value", strconv.Itoa(s.WithValue), percent(s.WithValue, s.Matching))
	if s.Mistyped > 0 {
		t.add("of other types", strconv.Itoa(s.Mistyped), "")
	}
	if s.Count != s.WithValue {
		t.add("values", strconv.Itoa(s.Count), "")
	}
	t.add("distinct", strconv.Itoa(s.Cardinality), "")
	for _, item := range []struct {
		name  string
		value *float64
	}{{"min", s.Minimum}, {"mean", s.Average}, {"max", s.Maximum}, {"stddev", s.StandardDeviation}, {"sum", s.Sum}} {
		if item.value != nil {
			t.add(item.name, number(*item.value), "")
		}
	}
	for _, p := range s.Percentiles {
		t.add("p"+strconv.FormatFloat(p.Percent, 'g', -1, 64), number(p.Value), "")
	}
	for i, b := range s.Buckets {
		name := "top " + strconv.Itoa(i+1)
		share := strconv.Itoa(b.Count)
		if !exact {
			share = fmt.Sprintf("%d %s %s", b.Count, percent(b.Count, s.Matching), bar(b.Count, s.Matching))
		}
		t.add(name, b.Key, share)
	}
	return t
}

// readable is a number with as many digits as people look at.
func readable(v float64) string {
	const whole = 1e15
	if v == math.Trunc(v) && math.Abs(v) < whole {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

// percent is a share of a whole.
func percent(part, whole int) string {
	if whole == 0 {
		return ""
	}
	return strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 1, 64) + "%"
}

// bar draws a share of a whole; something is never nothing.
func bar(part, whole int) string {
	if part == 0 || whole == 0 {
		return ""
	}
	return strings.Repeat("#", max(1, min(barWidth, part*barWidth/whole)))
}

// declarable tells whether a field can be a custom field.
func declarable(field string, groups bool) bool {
	if strings.HasPrefix(field, "attributes.") || groups {
		return strings.HasPrefix(field, "attributes.")
	}
	rest, ok := strings.CutPrefix(field, "shadow.")
	if named, found := strings.CutPrefix(rest, "name."); found {
		_, rest, _ = strings.Cut(named, ".")
	}
	return ok && (strings.HasPrefix(rest, "reported.") || strings.HasPrefix(rest, "desired."))
}

// sayHowToDeclare tells that AWS's operations refuse the field, and the command
// that changes it. The list of custom fields is replaced as a whole, so it names
// those that there are.
func (c *command) sayHowToDeclare(cmd *cobra.Command, api *apiclient.Client, s *apiclient.IndexStatistics, groups bool) error {
	if !declarable(s.Field, groups) {
		_, err := fmt.Fprintf(c.Err, "\n%s cannot be a custom field: AWS's aggregations refuse it.\n", printable(s.Field))
		return err //nolint:wrapcheck // standard error says it all
	}
	flag, fields := " --field ", []apiclient.IndexingField(nil)
	if config, err := api.IndexingConfiguration(cmd.Context()); err == nil {
		switch {
		case groups && config.Groups != nil:
			fields = config.Groups.CustomFields
		case !groups && config.Things != nil:
			fields = config.Things.CustomFields
		}
	}
	if groups {
		flag = " --group-field "
	}
	var set strings.Builder
	set.WriteString("muster index set")
	for _, f := range append(fields, apiclient.IndexingField{Name: s.Field, Type: s.Type}) {
		set.WriteString(flag + "'" + printable(f.Name) + ":" + f.Type + "'")
	}
	_, err := fmt.Fprintf(c.Err, "\n%s is not a custom field: AWS's aggregations refuse it until this is run:\n  %s\n", printable(s.Field), set.String())
	return err //nolint:wrapcheck // standard error says it all
}
