package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// explainMistakes makes a wrong command line an error that says how to write
// it. By itself cobra prints help and succeeds when a family of commands has
// no such member, which a script takes for done.
func explainMistakes(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return mistake(cmd, err) })
	for _, each := range cmd.Commands() {
		explainMistakes(each)
	}
	if cmd.HasSubCommands() && !cmd.Runnable() && cmd.HasParent() {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help() //nolint:wrapcheck // standard output says it all
			}
			return unknownMember(cmd, args[0])
		}
		return
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return mistake(cmd, err)
			}
			return nil
		}
	}
}

// mistake adds how the command is written.
func mistake(cmd *cobra.Command, err error) error {
	return fmt.Errorf("%w\nusage: %s\n`%s --help` tells more", err, cmd.UseLine(), cmd.CommandPath())
}

// unknownMember says which members a family has.
func unknownMember(family *cobra.Command, name string) error {
	var members []string
	for _, each := range family.Commands() {
		if each.IsAvailableCommand() {
			members = append(members, each.Name())
		}
	}
	slices.Sort(members)
	return fmt.Errorf("unknown command %q for %q; there are %s", name, family.CommandPath(), strings.Join(members, ", "))
}

// checkShape refuses what only the answer would stumble over, before the
// server is asked to do anything.
func checkShape(cmd *cobra.Command, format string) error {
	switch format {
	case formatTable, formatJSON, formatCSV:
	default:
		return fmt.Errorf("--output %q is none of %s, %s, %s", format, formatTable, formatJSON, formatCSV)
	}
	if cmd.Flags().Lookup("limit") == nil {
		return nil
	}
	limit, err := cmd.Flags().GetInt("limit")
	if err == nil && limit < 0 {
		err = fmt.Errorf("--limit %d is negative; 0 is for all", limit)
	}
	return err //nolint:wrapcheck // it names the flag
}
