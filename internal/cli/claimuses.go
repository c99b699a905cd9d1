package cli

import (
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// claimUses lists what claims are used for.
func (c *command) claimUses() *cobra.Command {
	cmd := &cobra.Command{
		Use: "uses", Short: "List claims with what they were used for", Args: cobra.NoArgs,
		Long: `Lists the claim certificates with which devices have asked to be provisioned: how
many joined, how many were refused, from how many networks, and how often a claim was
used in a way that it is not for. --misused lists only claims with findings that
nobody has settled.`,
		Example: `  muster claim uses
  muster claim uses --misused -o json`,
	}
	misused := cmd.Flags().Bool("misused", false, "only claims with findings that wait for somebody")
	limit := cmd.Flags().Int("limit", 0, "most claims to list; 0 for all")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		if *limit < 0 {
			return table{}, errors.New("--limit must not be negative")
		}
		found, err := api.ClaimUses(cmd.Context(), *misused, *limit)
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		t := table{header: []string{"CLAIM", "LAST USED", "PROVISIONED", "REFUSED", "NETWORKS", "OPEN FINDINGS"}, raw: found}
		for _, u := range found {
			open := 0
			for _, f := range u.Findings {
				if f.Settled == "" {
					open++
				}
			}
			t.add(u.ClaimID, u.Last, strconv.FormatInt(u.Provisioned, 10), strconv.FormatInt(u.Refused, 10), strconv.Itoa(len(u.Networks)), strconv.Itoa(open))
		}
		return t, nil
	})
}

// claimUse shows the findings about one claim.
func (c *command) claimUse() *cobra.Command {
	cmd := &cobra.Command{
		Use: "use CLAIM", Short: "Show how a claim was misused", Args: cobra.ExactArgs(1),
		Long: `Shows what was found about a claim certificate:

  NETWORK   a network from which it was not used before, or that the binding of the
            template does not have
  TEMPLATE  a template that it is not for
  TIME      outside the hours of the binding
  QUOTA     more devices than the binding allows in a day
  SERIAL    more than one device with one birth certificate

A claim that somebody has stolen is deactivated with
"aws iot update-certificate --certificate-id CLAIM --new-status INACTIVE": its
connections end at once.`,
		Example: `  muster claim use 3f0c…
  muster claim use 3f0c… -o json`,
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		u, err := api.ClaimUse(cmd.Context(), args[0])
		return claimFindings(&u), err //nolint:wrapcheck // the server's own words
	})
}

func claimFindings(u *apiclient.ClaimUse) table {
	t := table{header: []string{"FINDING", "NETWORK", "TIMES", "FIRST", "LAST", "TEMPLATE", "SETTLED", "REASON"}, raw: u}
	for _, f := range u.Findings {
		settled := "no"
		if f.Settled != "" {
			settled = f.Settled + " by " + f.SettledBy
		}
		t.add(f.Kind, f.Network, strconv.FormatInt(f.Times, 10), f.First, f.Last, f.Template, settled, f.Reason)
	}
	return t
}

// claimSettle ends findings.
func (c *command) claimSettle() *cobra.Command {
	cmd := &cobra.Command{
		Use: "settle CLAIM", Short: "Say what was found out about the misuse of a claim", Args: cobra.ExactArgs(1),
		Long: `Settles the open findings of a claim, with a note of what was found out. Networks
that they name belong to the claim from then on. The same misuse again opens the
finding again.`,
		Example: `  muster claim settle 3f0c… --note "second plant in Porto started on Monday"`,
	}
	note := cmd.Flags().String("note", "", "what was found out (required)")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if *note == "" {
			return table{}, errors.New("--note must say what was found out")
		}
		u, err := api.SettleClaimMisuse(cmd.Context(), args[0], *note)
		return claimFindings(&u), err //nolint:wrapcheck // the server's own words
	})
}
