package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/muster-iot/muster/internal/apiclient"
)

// certificates is the family of commands on device certificates.
func (c *command) certificates() *cobra.Command {
	cmd := &cobra.Command{Use: "certificates", Short: "List, describe, activate and revoke device certificates, list those that expire and those that are exchanged"}
	cmd.AddCommand(c.certificatesExpiring(), c.certificatesList(), c.certificatesDescribe(), c.certificatesRenewals(), c.certificatesPurpose(), c.certificatesMark(),
		c.certificateStatus("activate", "ACTIVE", "Let the device of a certificate connect", `A certificate that waits for its activation, because it registered by connecting, is
let in by this too. The device has to connect again.`, false),
		c.certificateStatus("deactivate", "INACTIVE", "End the connections of a certificate and refuse new ones",
			"muster certificates activate takes it back.", true),
		c.certificateStatus("revoke", "REVOKED", "Refuse a certificate for good and end its connections",
			"Nothing takes it back: the device needs another certificate.", true))
	return cmd
}

// formatToo lets --format mean --output.
func formatToo(cmd *cobra.Command) {
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "format" {
			name = "output"
		}
		return pflag.NormalizedName(name)
	})
}

// certificatesExpiring lists what is soon out of validity.
func (c *command) certificatesExpiring() *cobra.Command {
	cmd := &cobra.Command{
		Use: "expiring", Short: "List certificates and CA certificates that expire soon, or have", Args: cobra.NoArgs,
		Long: `Lists what is out of validity within a time from now, CA certificates first, then
device certificates, each in order of their end, with the things that they are
attached to. What has expired already is among them.`,
		Example: `  muster certificates expiring --within 30d
  muster certificates expiring --within 12h --format json`,
	}
	within := cmd.Flags().String("within", "30d", "time span from now, such as 30d or 12h")
	limit := limitFlag(cmd)
	cmd = c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.ExpiringCertificates(cmd.Context(), *within, *limit)
		t := table{header: []string{"KIND", "CERTIFICATE", "STATUS", "ENDS", "EXPIRED", "OWNER", "THINGS"}, raw: found}
		for i := range found {
			e := &found[i]
			things := strings.Join(e.Things, " ")
			if more := e.ThingCount - len(e.Things); more > 0 {
				things += " and " + strconv.Itoa(more) + " more"
			}
			t.add(e.Kind, e.ID, e.Status, e.End, strconv.FormatBool(e.Expired), e.Owner, things)
		}
		return t, err
	})
	formatToo(cmd)
	return cmd
}

// seconds renders a time of the AWS interface; empty for none.
func seconds(at float64) string {
	if at == 0 {
		return ""
	}
	return time.UnixMilli(int64(at * 1000)).UTC().Format(time.RFC3339)
}

// certificatesTable shows device certificates.
func certificatesTable(found []apiclient.Certificate, raw any) table {
	t := table{header: []string{"CERTIFICATE", "STATUS", "MODE", "CREATED", "ENDS", "CA"}, raw: raw}
	for i := range found {
		e := &found[i]
		t.add(e.ID, e.Status, e.Mode, seconds(e.Created), seconds(e.Valid.NotAfter), e.CA)
	}
	return t
}

// certificatesList lists device certificates.
func (c *command) certificatesList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List device certificates, the newest first", Args: cobra.NoArgs,
		Example: `  muster certificates list --limit 20
  muster certificates list --ca-certificate 4f1c… -o csv`,
	}
	ca := cmd.Flags().String("ca-certificate", "", "only those registered under the CA certificate with this id")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.ListCertificates(cmd.Context(), *ca, *limit)
		return certificatesTable(found, found), err
	})
}

// certificatesDescribe shows one certificate.
func (c *command) certificatesDescribe() *cobra.Command {
	cmd := &cobra.Command{
		Use: "describe CERTIFICATE", Short: "Show one device certificate by its id", Args: cobra.ExactArgs(1),
		Example: "  muster certificates describe 4f1c… -o json",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		found, err := api.DescribeCertificate(cmd.Context(), args[0])
		return certificatesTable([]apiclient.Certificate{found}, found), err
	})
}

// certificateStatus is a command that gives a certificate a status.
func (c *command) certificateStatus(verb, status, short, long string, ask bool) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " CERTIFICATE", Short: short, Long: short + ".\n" + long, Args: cobra.ExactArgs(1),
		Example: "  muster certificates " + verb + " 4f1c…",
	}
	yes := new(bool)
	if ask {
		yes = yesFlag(cmd)
		cmd.Example += "\n  muster certificates " + verb + " 4f1c… --yes"
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if ask {
			if err := c.confirmed(cmd, *yes, "certificate's id", args[0]); err != nil {
				return table{}, err
			}
		}
		if err := api.UpdateCertificate(cmd.Context(), args[0], status); err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		found, err := api.DescribeCertificate(cmd.Context(), args[0])
		return certificatesTable([]apiclient.Certificate{found}, found), err
	})
}
