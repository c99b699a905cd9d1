package cli

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// types is the family of commands on thing types.
func (c *command) types() *cobra.Command {
	cmd := &cobra.Command{Use: "types", Short: "Rules for the attributes of things by thing type"}
	rules := &cobra.Command{
		Use: "rules", Short: "Get, set, remove and try the rules of a type's attributes",
		Long: `A thing type may have rules for the attributes of its things: which are required,
what they must match, and whether others are allowed. A file of rules:

  {"attributes": {
     "serial": {"required": true, "pattern": "[A-Z]{2}[0-9]{6}"},
     "hw":     {"enum": ["r1", "r2"]},
     "floor":  {"minimum": -2, "maximum": 40},
     "note":   {"maxLength": 80}},
   "refuseUnknown": true}

Rules hold for what is created or changed from then on. muster types rules check
shows first which things would break them.`,
	}
	rules.AddCommand(c.rulesGet(), c.rulesSet(), c.rulesRemove(), c.rulesCheck())
	cmd.AddCommand(rules)
	return cmd
}

// rulesGet prints rules.
func (c *command) rulesGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get TYPE", Short: "Print the rules of a type as JSON", Args: cobra.ExactArgs(1),
		Example: "  muster types rules get Pump > rules.json",
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		rules, err := api.AttributeRules(cmd.Context(), args[0])
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		return c.printJSON(rules)
	})
}

// readRules reads a file of rules.
func readRules(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	if !json.Valid(data) {
		return nil, fmt.Errorf("%s is not JSON", path)
	}
	return data, nil
}

// rulesSet puts rules in force.
func (c *command) rulesSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set TYPE FILE", Short: "Replace the rules of a type by those in a file", Args: cobra.ExactArgs(2),
		Example: `  muster types rules check Pump rules.json && muster types rules set Pump rules.json`,
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		rules, err := readRules(args[1])
		if err != nil {
			return err
		}
		if err := api.SetAttributeRules(cmd.Context(), args[0], rules); err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		_, err = fmt.Fprintln(c.Out, "set the rules of", args[0])
		return err //nolint:wrapcheck // standard output says it all
	})
}

// rulesRemove ends rules.
func (c *command) rulesRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use: "remove TYPE", Short: "Remove the rules of a type", Args: cobra.ExactArgs(1),
		Example: "  muster types rules remove Pump",
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		if err := api.RemoveAttributeRules(cmd.Context(), args[0]); err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		_, err := fmt.Fprintln(c.Out, "removed the rules of", args[0])
		return err //nolint:wrapcheck // standard output says it all
	})
}

// rulesCheck lists the things that break rules.
func (c *command) rulesCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check TYPE [FILE]", Short: "List the things of a type that break rules; changes nothing", Args: cobra.RangeArgs(1, 2),
		Long: "Lists the things of a type that break the rules in a file, or those in force\nwithout one. It fails when there are any.",
		Example: `  muster types rules check Pump
  muster types rules check Pump rules.json -o csv`,
	}
	limit := limitFlag(cmd)
	format := c.outputFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		var rules []byte
		if len(args) == 2 {
			var err error
			if rules, err = readRules(args[1]); err != nil {
				return err
			}
		}
		found, err := api.CheckAttributeRules(cmd.Context(), args[0], rules, *limit)
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		t := table{header: []string{"THING", "ATTRIBUTE", "RULE", "DEMANDS"}, raw: found}
		for _, thing := range found {
			for _, v := range thing.Violations {
				t.add(thing.Thing, v.Attribute, v.Rule, v.Detail)
			}
		}
		if err := c.print(*format, t); err != nil {
			return err
		}
		if len(found) > 0 {
			return fmt.Errorf("%d things break the rules", len(found))
		}
		return nil
	})
}
