package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// caAutoRegistration lets devices of an authority register by connecting.
func (c *command) caAutoRegistration() *cobra.Command {
	cmd := &cobra.Command{
		Use: "auto-registration CA-CERTIFICATE enable|disable", Short: "Let unknown devices of a CA register by connecting, or not", Args: cobra.ExactArgs(2),
		Long: `With enable, an unknown device under the CA certificate is registered when it
connects: by the CA's template (muster ca template), or without one as a certificate
that waits for muster certificates activate. Certificates that are registered are
not touched, and disable keeps the template.`,
		Example: `  muster ca auto-registration 4f1c… enable
  muster ca auto-registration 4f1c… disable`,
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		status, known := map[string]string{"enable": "ENABLE", "disable": "DISABLE"}[args[1]]
		if !known {
			return table{}, mistake(cmd, fmt.Errorf("%q is neither enable nor disable", args[1]))
		}
		if err := api.UpdateCACertificate(cmd.Context(), args[0], apiclient.CAUpdate{AutoRegistration: status}); err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		return describedCA(cmd.Context(), api, args[0])
	})
}

// noTemplate is the word for none; no template can be meant by it then.
const noTemplate = "none"

// caTemplate says how devices of an authority are provisioned.
func (c *command) caTemplate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "template CA-CERTIFICATE TEMPLATE|none", Short: "Say by which template devices of a CA are provisioned when they connect", Args: cobra.ExactArgs(2),
		Long: `Names the template, of type JITP, that provisions unknown devices under the CA
certificate when they connect. Whether they may is muster ca auto-registration.

With none the template is forgotten and automatic registration ends, which AWS
offers only together. To register devices by connecting without a template, enable
it again.`,
		Example: `  muster ca template 4f1c… maker
  muster ca template 4f1c… none`,
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		update := apiclient.CAUpdate{Template: args[1]}
		switch args[1] {
		case "":
			return table{}, mistake(cmd, errors.New("the template's name is empty; none forgets a template"))
		case noTemplate:
			update = apiclient.CAUpdate{ForgetTemplate: true}
		}
		if err := api.UpdateCACertificate(cmd.Context(), args[0], update); err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		return describedCA(cmd.Context(), api, args[0])
	})
}

// declarationTable shows what is on record about an authority.
func declarationTable(d *apiclient.Declaration) table {
	t := table{header: []string{"PROPERTY", "VALUE"}, raw: d}
	for _, row := range [][2]string{
		{"ca certificate", d.CACertificateID},
		{"basis", d.Basis},
		{"registered by", d.RegisteredBy},
		{"registered", d.RegisteredAt},
		{"statement", d.Statement},
		{"stated by", d.StatedBy},
		{"stated", d.StatedAt},
	} {
		if row[1] != "" {
			t.add(row[0], row[1])
		}
	}
	return t
}

// caDeclare puts a statement on record.
func (c *command) caDeclare() *cobra.Command {
	cmd := &cobra.Command{
		Use: "declare CA-CERTIFICATE STATEMENT", Short: "Put on record why a CA certificate may be trusted", Args: cobra.ExactArgs(2),
		Long: `Puts your words about a CA certificate on record, with your name and the time: whose
it is, and why its devices may join. An earlier statement is replaced, and stays in
the audit trail.`,
		Example: `  muster ca declare 4f1c… "Acme's line 3, contract 4711, fingerprint compared by telephone"`,
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if strings.TrimSpace(args[1]) == "" {
			return table{}, mistake(cmd, errors.New("the statement is empty"))
		}
		declared, err := api.DeclareCA(cmd.Context(), args[0], args[1])
		return declarationTable(&declared), err //nolint:wrapcheck // the server's own words
	})
}

// caDeclaration shows what is on record.
func (c *command) caDeclaration() *cobra.Command {
	cmd := &cobra.Command{
		Use: "declaration CA-CERTIFICATE", Short: "Show on whose word and proof a CA certificate is trusted", Args: cobra.ExactArgs(1),
		Long: `Shows who registered a CA certificate, whether its key was proven to be at hand
(basis POSSESSION) or not (TRUST), and what was stated about it.`,
		Example: "  muster ca declaration 4f1c…",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		declared, err := api.CADeclaration(cmd.Context(), args[0])
		return declarationTable(&declared), err //nolint:wrapcheck // the server's own words
	})
}
