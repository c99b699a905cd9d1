package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// defaultLimit keeps a mistyped list from filling the terminal.
const defaultLimit = 1000

// limitFlag registers --limit.
func limitFlag(cmd *cobra.Command) *int {
	return cmd.Flags().Int("limit", defaultLimit, "most rows to fetch; 0 for all")
}

// things is the family of registry commands.
func (c *command) things() *cobra.Command {
	cmd := &cobra.Command{Use: "things", Short: "List, describe, create, edit, delete and decommission things"}
	cmd.AddCommand(c.thingsList(), c.thingsDescribe(), c.thingsCreate(), c.thingsEdit(), c.thingsDelete(),
		c.thingsDecommission(), c.thingsReprovision(), c.thingsPast(), c.thingsGroups())
	return cmd
}

// thingsTable shows registry entries.
func thingsTable(things []apiclient.Thing) table {
	t := table{header: []string{"THING", "TYPE", "VERSION", "ATTRIBUTES"}, raw: things}
	for _, thing := range things {
		t.add(thing.ThingName, thing.ThingTypeName, strconv.FormatInt(thing.Version, 10), pairs(thing.Attributes))
	}
	return t
}

// thingsList lists the registry.
func (c *command) thingsList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List things of the registry", Args: cobra.NoArgs,
		Example: `  muster things list
  muster things list --type SimulatedPump --attribute site=leeds -o csv`,
	}
	typeName := cmd.Flags().String("type", "", "only things of this type")
	attribute := cmd.Flags().String("attribute", "", "only things with this attribute, as name=value")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		filter := apiclient.ThingFilter{TypeName: *typeName}
		if *attribute != "" {
			name, value, ok := strings.Cut(*attribute, "=")
			if !ok {
				return table{}, fmt.Errorf("--attribute %q is not name=value", *attribute)
			}
			filter.AttributeName, filter.AttributeValue = name, value
		}
		things, err := api.ListThings(cmd.Context(), filter, *limit)
		return thingsTable(things), err
	})
}

// thingsDescribe shows one entry.
func (c *command) thingsDescribe() *cobra.Command {
	cmd := &cobra.Command{
		Use: "describe THING", Short: "Show one thing", Args: cobra.ExactArgs(1),
		Example: "  muster things describe pump-00001 -o json",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		thing, err := api.DescribeThing(cmd.Context(), args[0])
		t := thingsTable([]apiclient.Thing{thing})
		t.raw = thing
		return t, err
	})
}

// thingsCreate registers a thing.
func (c *command) thingsCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create THING [NAME=VALUE]...", Short: "Register a thing with attributes", Args: cobra.MinimumNArgs(1),
		Example: "  muster things create press-7 --type Press site=leeds hw=r2",
	}
	typeName := cmd.Flags().String("type", "", "thing type")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		attributes, err := parsePairs(args[1:])
		if err != nil {
			return table{}, err
		}
		if _, err := api.CreateThing(cmd.Context(), args[0], *typeName, attributes); err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		thing, err := api.DescribeThing(cmd.Context(), args[0])
		t := thingsTable([]apiclient.Thing{thing})
		t.raw = thing
		return t, err
	})
}

// thingsDelete removes things, named or found.
func (c *command) thingsDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete THING... | --query QUERY", Short: "Delete things; their certificates must be detached",
		Long: `Delete things by name, or all that a fleet query finds.

With --query it first shows what would be deleted, and asks for the number of
things; the server then works on exactly those, at a bounded pace. Things with
attached certificates are refused, unless --decommission ends those too, as
muster things decommission does. muster bulk-edits undo makes deleted things anew.`,
		Example: `  muster things delete press-7
  muster things delete --query 'attributes.site:closed' --dry-run
  muster things delete --query 'attributes.site:closed AND connectivity.connected:false'
  muster things delete --query 'thingGroupNames:scrapped' --decommission --reason "ticket 4711"`,
	}
	var run bulkRun
	var how apiclient.BulkDeletion
	run.flags(c, cmd, "delete")
	cmd.Flags().BoolVar(&how.Decommission, "decommission", false, "end certificates, connections and shadows too, and keep a record")
	cmd.Flags().BoolVar(&how.KeepCertificates, "keep-certificates", false, "with --decommission: detach certificates without revoking them")
	cmd.Flags().StringVar(&how.Reason, "reason", "", "with --decommission: why, for those who look back")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if run.query == "" {
			if bulkOnly(cmd) {
				return errors.New("--dry-run, --yes, --decommission and the like are for --query")
			}
			if len(args) == 0 {
				return errors.New("give names of things, or --query")
			}
			return nil
		}
		if len(args) > 0 {
			return errors.New("give names or --query, not both")
		}
		return nil
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		if run.query != "" {
			return c.runBulk(cmd, api, &run, apiclient.BulkOperation{Delete: &how})
		}
		for _, name := range args {
			if err := api.DeleteThing(cmd.Context(), name); err != nil {
				return fmt.Errorf("delete %s: %w", name, err)
			}
			if _, err := fmt.Fprintln(c.Out, "deleted", name); err != nil {
				return err //nolint:wrapcheck // standard output says it all
			}
		}
		return nil
	})
}

// bulkOnly reports whether a flag is set that would be ignored without --query.
func bulkOnly(cmd *cobra.Command) bool {
	return slices.ContainsFunc([]string{"dry-run", "yes", "per-second", "no-wait", "output", "decommission", "keep-certificates", "reason"}, cmd.Flags().Changed)
}
