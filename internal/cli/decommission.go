package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// thingsDecommission ends all that a thing is to the server.
func (c *command) thingsDecommission() *cobra.Command {
	cmd := &cobra.Command{
		Use: "decommission THING", Short: "Take a thing out of service for good", Args: cobra.ExactArgs(1),
		Long: `Revokes the certificates that are the thing's alone and detaches shared ones,
ends its connections and stored sessions, deletes its shadows and removes it with
its group memberships. A record of it stays: muster things past THING.

When it was interrupted, run it again: it completes what is left. The name may be
used again.`,
		Example: `  muster things decommission press-7 --reason "scrapped, ticket 4711"
  muster things decommission press-7 --keep-certificates
  muster things decommission press-7 --thing-id 4025358f-9a02-444c-b3d7-0536a43f5ff0`,
	}
	id := cmd.Flags().String("thing-id", "", "only this life of the name: a thing that has the name by now is left alone")
	reason := cmd.Flags().String("reason", "", "why, for those who look back")
	keep := cmd.Flags().Bool("keep-certificates", false, "detach certificates without revoking them: who has one can still connect with it")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		past, err := api.Decommission(cmd.Context(), args[0], apiclient.Decommissioning{ThingID: *id, Reason: *reason, KeepCertificates: *keep})
		t := pastTable([]apiclient.PastThing{past})
		t.raw = past
		return t, err
	})
}

// thingsPast lists the former lives of a name.
func (c *command) thingsPast() *cobra.Command {
	cmd := &cobra.Command{
		Use: "past THING", Short: "Show the decommissioned things that had a name, newest first", Args: cobra.ExactArgs(1),
		Long: `Shows what was decommissioned under a name. A thing without COMPLETED may have left
sessions or shadows behind: run muster things decommission THING again.`,
		Example: `  muster things past press-7
  muster things past press-7 -o json`,
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		lives, err := api.PastThings(cmd.Context(), args[0], *limit)
		return pastTable(lives), err
	})
}

// pastTable shows former lives.
func pastTable(lives []apiclient.PastThing) table {
	t := table{header: []string{"ENDED", "COMPLETED", "ID", "TYPE", "ATTRIBUTES", "GROUPS", "CERTIFICATES", "BY", "REASON"}, raw: lives}
	for _, p := range lives {
		certificates := make([]string, len(p.Certificates))
		for i, had := range p.Certificates {
			certificates[i] = short(had.CertificateID)
			switch {
			case had.Revoked:
				certificates[i] += ":revoked"
			case had.Shared:
				certificates[i] += ":shared"
			}
		}
		by := p.By.Principal.ARN
		if by == "" {
			by = strings.TrimSuffix(p.By.Principal.Kind+"/"+p.By.Principal.ID, "/")
		}
		t.add(p.DecommissionedAt, p.CompletedAt, p.ThingID, p.ThingTypeName, pairs(p.Attributes),
			strings.Join(p.ThingGroups, " "), strings.Join(certificates, " "), by, p.Reason)
	}
	return t
}
