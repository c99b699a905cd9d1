package cli

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// billingGroups is the family of billing group commands.
func (c *command) billingGroups() *cobra.Command {
	cmd := &cobra.Command{Use: "billing-groups", Short: "List and describe billing groups and their things"}
	cmd.AddCommand(c.billingGroupsList(), c.billingGroupsDescribe(), c.billingGroupsMembers())
	return cmd
}

// billingGroupsList lists billing groups.
func (c *command) billingGroupsList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List billing groups", Args: cobra.NoArgs,
		Example: `  muster billing-groups list
  muster billing-groups list --prefix plant-4`,
	}
	prefix := cmd.Flags().String("prefix", "", "only groups whose name begins with this")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		groups, err := api.ListBillingGroups(cmd.Context(), *prefix, *limit)
		t := table{header: []string{"BILLING GROUP", "ARN"}, raw: groups}
		for _, g := range groups {
			t.add(g.Name, g.ARN)
		}
		return t, err
	})
}

// billingGroupsDescribe shows one billing group.
func (c *command) billingGroupsDescribe() *cobra.Command {
	cmd := &cobra.Command{
		Use: "describe GROUP", Short: "Show one billing group", Args: cobra.ExactArgs(1),
		Example: "  muster billing-groups describe plant-4",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		g, err := api.DescribeBillingGroup(cmd.Context(), args[0])
		t := table{header: []string{"BILLING GROUP", "VERSION", "DESCRIPTION", "ARN"}, raw: g}
		t.add(g.Name, strconv.FormatInt(g.Version, 10), g.Properties.Description, g.ARN)
		return t, err
	})
}

// billingGroupsMembers lists a billing group's things.
func (c *command) billingGroupsMembers() *cobra.Command {
	cmd := &cobra.Command{
		Use: "members GROUP", Short: "List the things of a billing group", Args: cobra.ExactArgs(1),
		Example: "  muster billing-groups members plant-4 -o csv",
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		members, err := api.BillingGroupMembers(cmd.Context(), args[0], *limit)
		t := table{header: []string{"THING"}, raw: members}
		for _, name := range members {
			t.add(name)
		}
		return t, err
	})
}
