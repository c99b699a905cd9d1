package cli

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// limitFlags registers the limits of certificates for provisioning.
func limitFlags(cmd *cobra.Command) func() apiclient.BirthLimits {
	template := cmd.Flags().String("template", "", "the only provisioning template that may be asked for")
	networks := cmd.Flags().StringSlice("network", nil, "network from which it may connect, such as 192.0.2.0/24; repeat for several")
	session := cmd.Flags().Duration("session", 0, "how long a connection lasts (default 15m)")
	rate := cmd.Flags().Int("requests-per-minute", 0, "certificates that it may ask for in a minute (default provisioning.claim-rate)")
	uses := cmd.Flags().Int("max-uses", 0, "devices that it may provision (default 1 for BIRTH, no limit for CLAIM)")
	return func() apiclient.BirthLimits {
		return apiclient.BirthLimits{Template: *template, Networks: *networks, SessionSeconds: int64(*session / time.Second), RequestsPerMinute: *rate, MaxUses: *uses}
	}
}

// rows shows limits.
func limitRows(l *apiclient.BirthLimits) [][2]string {
	rows := [][2]string{{"template", l.Template}, {"networks", strings.Join(l.Networks, " ")}}
	if l.SessionSeconds > 0 {
		rows = append(rows, [2]string{"session", (time.Duration(l.SessionSeconds) * time.Second).String()})
	}
	if l.RequestsPerMinute > 0 {
		rows = append(rows, [2]string{"requests per minute", strconv.Itoa(l.RequestsPerMinute)})
	}
	if l.MaxUses > 0 {
		rows = append(rows, [2]string{"most uses", strconv.Itoa(l.MaxUses)})
	}
	return rows
}

// properties is a table of what is there.
func properties(raw any, rows ...[2]string) table {
	t := table{header: []string{"PROPERTY", "VALUE"}, raw: raw}
	for _, row := range rows {
		if row[1] != "" {
			t.add(row[0], row[1])
		}
	}
	return t
}

// purposeTable shows what a certificate is for.
func purposeTable(p *apiclient.Purpose) table {
	rows := [][2]string{
		{"certificate", p.CertificateID}, {"purpose", p.Purpose}, {"by its CA certificate", p.CACertificateID}, {"serial", p.Serial},
		{"state", p.State}, {"thing", p.Thing}, {"replaced by", p.ReplacedBy}, {"used", p.UsedAt}, {"open until", p.ReopenedUntil},
	}
	if p.Uses > 0 {
		rows = append(rows, [2]string{"uses", strconv.Itoa(p.Uses)})
	}
	if p.Quarantined {
		rows = append(rows, [2]string{"quarantine", "its thing is in quarantine: muster quarantine list"})
	}
	return properties(p, append(append(rows, limitRows(&p.BirthLimits)...), [2]string{"set by", p.SetBy}, [2]string{"set", p.SetAt})...)
}

// certificatesPurpose shows what a certificate is for.
func (c *command) certificatesPurpose() *cobra.Command {
	cmd := &cobra.Command{
		Use: "purpose CERTIFICATE", Short: "Show what a certificate is for, and what became of it", Args: cobra.ExactArgs(1),
		Long: `Shows whether a certificate is OPERATIONAL, where its policies alone decide, or for
provisioning only: BIRTH, which one device is made with, or CLAIM, which devices
share. Those can connect, ask for a certificate and be provisioned, whatever their
policies allow.

A BIRTH certificate is UNUSED, USED or REOPENED. USED ones are INACTIVE and name the
certificate that has replaced them.`,
		Example: "  muster certificates purpose 4f1c…",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		p, err := api.CertificatePurpose(cmd.Context(), args[0])
		return purposeTable(&p), err
	})
}

// certificatesMark says what a certificate is for.
func (c *command) certificatesMark() *cobra.Command {
	cmd := &cobra.Command{
		Use: "mark CERTIFICATE birth|claim|operational", Short: "Hold a certificate to provisioning, or let its policies decide again", Args: cobra.ExactArgs(2),
		Long: `Says what a certificate is for. One for provisioning must be issued here, or come
under a registered CA certificate that is owned (mode DEFAULT) or declared to be
trusted (muster ca declare). It still needs a policy that allows what it may do.

Its live connections end, so that they come back within the limits. A certificate
that was used up, or that is under a CA certificate of purpose BIRTH, does not become
operational: its device gets another one by being provisioned.`,
		Example: `  muster certificates mark 4f1c… claim --template Pumps --network 192.0.2.0/24
  muster certificates mark 4f1c… birth --serial B7-0042 --session 5m
  muster certificates mark 4f1c… operational`,
	}
	serial := cmd.Flags().String("serial", "", "the one device that may use it: it connects with this client id and is provisioned with this serial")
	limits := limitFlags(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		p, err := api.SetCertificatePurpose(cmd.Context(), args[0], apiclient.PurposeChange{Purpose: strings.ToUpper(args[1]), Serial: *serial, BirthLimits: limits()})
		return purposeTable(&p), err
	})
}

// caPurposeTable shows what the certificates under an authority are for.
func caPurposeTable(p *apiclient.CAPurpose) table {
	rows := [][2]string{
		{"ca certificate", p.CACertificateID}, {"purpose", p.Purpose}, {"fingerprint", p.Fingerprint}, {"serial from", p.SerialFrom},
	}
	return properties(p, append(append(rows, limitRows(&p.BirthLimits)...),
		[2]string{"set by", p.SetBy}, [2]string{"set", p.SetAt}, [2]string{"basis", p.Declaration.Basis},
		[2]string{"statement", p.Declaration.Statement}, [2]string{"stated by", p.Declaration.StatedBy}, [2]string{"stated", p.Declaration.StatedAt})...)
}

// caPurpose shows or sets what the certificates under an authority are for.
func (c *command) caPurpose() *cobra.Command {
	cmd := &cobra.Command{
		Use: "purpose CA-CERTIFICATE", Short: "Show or say what the certificates under a CA certificate are for", Args: cobra.ExactArgs(1),
		Long: `Without --purpose shows it. With --purpose birth every certificate under the CA
certificate, registered already or later, is a birth certificate: it can connect, ask
for a certificate and be provisioned, whatever policies allow.

The CA certificate must have a declaration (muster ca declare), and --fingerprint must
be its SHA-256 as you know it from its owner: then a wrong certificate is found out. It
must have no registration template. It stays of purpose BIRTH as long as certificates
are registered under it.

--serial-from binds each certificate to the device whose serial is in that part of its
subject: common-name or serial-number.`,
		Example: `  muster ca purpose 4f1c…
  muster ca declare 4f1c… "our factory in Leeds, key in its safe"
  muster ca purpose 4f1c… --purpose birth --fingerprint 4F:1C:… --serial-from common-name`,
	}
	purpose := cmd.Flags().String("purpose", "", "birth or operational")
	fingerprint := cmd.Flags().String("fingerprint", "", "SHA-256 of the CA certificate, with colons or without")
	from := cmd.Flags().String("serial-from", "", "part of a subject with the device's serial: common-name or serial-number")
	limits := limitFlags(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if *purpose == "" {
			if cmd.Flags().NFlag() > 0 && (*fingerprint != "" || *from != "") {
				return table{}, mistake(cmd, errors.New("--fingerprint and --serial-from need --purpose"))
			}
			p, err := api.CAPurpose(cmd.Context(), args[0])
			return caPurposeTable(&p), err
		}
		p, err := api.SetCAPurpose(cmd.Context(), args[0], apiclient.CAPurposeChange{
			Purpose: strings.ToUpper(*purpose), Fingerprint: *fingerprint, SerialFrom: strings.ToUpper(strings.ReplaceAll(*from, "-", "_")), BirthLimits: limits(),
		})
		return caPurposeTable(&p), err
	})
}

// thingsReprovision lets a device be provisioned again.
func (c *command) thingsReprovision() *cobra.Command {
	cmd := &cobra.Command{
		Use: "reprovision THING", Short: "Let a device whose credentials are gone be provisioned again with its birth certificate", Args: cobra.ExactArgs(1),
		Long: `Opens the birth certificate with which a thing was provisioned, for one more
provisioning of the same thing. When that was done, or the time is over, it is closed
again.

None of the thing's operational certificates may be ACTIVE: revoke them first, since
whoever has their keys could go on.`,
		Example: `  muster certificates revoke 1e7a…
  muster things reprovision press-7 --for 15m --reason "flash replaced, ticket 4711"`,
	}
	within := cmd.Flags().Duration("for", 15*time.Minute, "how long, at most 24h")
	reason := cmd.Flags().String("reason", "", "why, for those who look back")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		made, err := api.Reprovision(cmd.Context(), args[0], *within, *reason)
		return properties(made, [2]string{"thing", made.Thing}, [2]string{"birth certificate", made.CertificateID}, [2]string{"open until", made.Until}), err
	})
}

// quarantine is the family of commands on things that can do nothing but be
// provisioned.
func (c *command) quarantine() *cobra.Command {
	cmd := &cobra.Command{
		Use: "quarantine", Short: "List, hold and release things in quarantine",
		Long: `A thing in quarantine is in the thing group "quarantine", and its certificates, those
that it has and those that it gets, can connect and be provisioned and do nothing else,
whatever policies allow. Live connections obey at once and stay.`,
	}
	cmd.AddCommand(c.quarantineList(), c.quarantinePut(), c.quarantineRelease())
	return cmd
}

// quarantinedTable shows things in quarantine.
func quarantinedTable(raw any, things ...apiclient.Quarantined) table {
	t := table{header: []string{"THING", "SINCE", "BY", "REASON"}, raw: raw}
	for _, q := range things {
		t.add(q.Thing, q.Since, q.By, q.Reason)
	}
	return t
}

func (c *command) quarantineList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the things in quarantine, with why and by whom", Args: cobra.NoArgs, Example: "  muster quarantine list"}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.Quarantine(cmd.Context(), *limit)
		return quarantinedTable(found, found...), err
	})
}

func (c *command) quarantinePut() *cobra.Command {
	cmd := &cobra.Command{
		Use: "put THING", Short: "Hold a thing to provisioning", Args: cobra.ExactArgs(1),
		Long:    "Puts a thing into quarantine. One that is there already stays there for its first reason.",
		Example: `  muster quarantine put press-7 --reason "sends what it should not know"`,
	}
	reason := cmd.Flags().String("reason", "", "why; must be given")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if strings.TrimSpace(*reason) == "" {
			return table{}, mistake(cmd, errors.New("--reason must say why"))
		}
		made, err := api.PutInQuarantine(cmd.Context(), args[0], *reason)
		return quarantinedTable(made, made), err
	})
}

func (c *command) quarantineRelease() *cobra.Command {
	cmd := &cobra.Command{
		Use: "release THING", Short: "Let the policies of a thing decide again", Args: cobra.ExactArgs(1),
		Example: `  muster quarantine release press-7 --reason "entry was corrected by Acme"`,
	}
	reason := cmd.Flags().String("reason", "", "why; must be given")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if strings.TrimSpace(*reason) == "" {
			return table{}, mistake(cmd, errors.New("--reason must say why"))
		}
		was, err := api.Release(cmd.Context(), args[0], *reason)
		return quarantinedTable(was, was), err
	})
}
