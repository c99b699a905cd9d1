package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// groups is the family of group commands.
func (c *command) groups() *cobra.Command {
	cmd := &cobra.Command{Use: "groups", Short: "List, describe and explain groups and their members"}
	cmd.AddCommand(c.groupsList(), c.groupsDescribe(), c.groupsMembers(), c.groupsHistory(), c.groupsWhy())
	return cmd
}

// groupsList lists groups.
func (c *command) groupsList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List static and dynamic groups", Args: cobra.NoArgs,
		Example: `  muster groups list
  muster groups list --parent sites`,
	}
	parent := cmd.Flags().String("parent", "", "only groups right below this one")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		groups, err := api.ListGroups(cmd.Context(), *parent, *limit)
		t := table{header: []string{"GROUP", "ARN"}, raw: groups}
		for _, g := range groups {
			t.add(g.Name, g.ARN)
		}
		return t, err
	})
}

// groupsDescribe shows one group with its place in the hierarchy or its query.
func (c *command) groupsDescribe() *cobra.Command {
	cmd := &cobra.Command{
		Use: "describe GROUP", Short: "Show one group", Args: cobra.ExactArgs(1),
		Example: "  muster groups describe low-battery",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		g, err := api.DescribeGroup(cmd.Context(), args[0])
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		t := table{header: []string{"PROPERTY", "VALUE"}, raw: g}
		path := make([]string, 0, len(g.Metadata.RootToParent))
		for _, ancestor := range g.Metadata.RootToParent {
			path = append(path, ancestor.Name)
		}
		for _, row := range [][2]string{
			{"name", g.Name},
			{"description", g.Properties.Description},
			{"below", strings.Join(path, "/")},
			{"query", g.QueryString},
			{"status", g.Status},
			{"attributes", pairs(g.Properties.Attributes.Attributes)},
			{"arn", g.ARN},
		} {
			if row[1] != "" {
				t.add(row[0], row[1])
			}
		}
		return t, nil
	})
}

// groupsMembers lists a group's things.
func (c *command) groupsMembers() *cobra.Command {
	cmd := &cobra.Command{
		Use: "members GROUP", Short: "List the things of a group", Args: cobra.ExactArgs(1),
		Example: `  muster groups members low-battery
  muster groups members sites --recursive`,
	}
	recursive := cmd.Flags().Bool("recursive", false, "also those of the groups below")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		members, err := api.GroupMembers(cmd.Context(), args[0], *recursive, *limit)
		t := table{header: []string{"THING"}, raw: members}
		for _, name := range members {
			t.add(name)
		}
		return t, err
	})
}
