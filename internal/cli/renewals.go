package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// certificatesRenewals lists things that exchange their certificates.
func (c *command) certificatesRenewals() *cobra.Command {
	cmd := &cobra.Command{
		Use: "renewals", Short: "List things on their way from one certificate to the next", Args: cobra.NoArgs,
		Long: `Lists things that have asked for another certificate with the one that they have,
and how far each is:

  BEGUN       both certificates are good; nobody has connected with the new one yet
  PROVEN      a device has connected with the new one; the old one ends when DUE
  COMPLETED   the old one is detached, and deactivated unless other things use it
  UNPROVEN    nobody has connected with the new one in time; the old one stays
  SUPERSEDED  the thing has asked for yet another one since
  ABANDONED   the new one or the thing is gone; the old one stays as it was

By --step the newest come first, else they are in order of the thing's name.`,
		Example: `  muster certificates renewals --step unproven
  muster certificates renewals --thing pump-1 -o json`,
	}
	step := cmd.Flags().String("step", "", "only those at this step")
	thing := cmd.Flags().String("thing", "", "only those of this thing")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.CertificateRenewals(cmd.Context(), strings.ToUpper(*step), *thing, *limit)
		t := table{header: []string{"THING", "STEP", "OLD", "NEW", "BEGUN", "PROVEN", "DUE", "REASON"}, raw: found}
		for i := range found {
			e := &found[i]
			proven := ""
			if e.Proof != nil {
				proven = e.Proof.At
			}
			t.add(e.Thing, e.Step, e.OldID, e.NewID, e.Begun, proven, e.Due, e.Reason)
		}
		return t, err
	})
}
