package cli

import (
	"fmt"
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
	cmd := &cobra.Command{Use: "things", Short: "List, describe, create, delete and decommission things"}
	cmd.AddCommand(c.thingsList(), c.thingsDescribe(), c.thingsCreate(), c.thingsDelete(),
		c.thingsDecommission(), c.thingsPast(), c.thingsGroups())
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

// thingsDelete removes things.
func (c *command) thingsDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete THING...", Short: "Delete things; their certificates must be detached", Args: cobra.MinimumNArgs(1),
		Example: "  muster things delete press-7",
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
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
