package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/listsign"
)

// suppliers is the family of commands on who makes devices.
func (c *command) suppliers() *cobra.Command {
	cmd := &cobra.Command{
		Use: "supplier", Short: "Name who makes devices, and the keys with which they sign allow lists",
		Long: `A supplier makes devices and says which, in allow lists that it signs. It has an id,
public keys, and rules: by which templates its devices may join, and whether lists
count that nobody has signed. See "muster allowlist" for the lists.`,
		Example: `  muster supplier put acme --name "Acme Pumps" --template pumps
  muster supplier keygen line-1                   # at the supplier's
  muster supplier key acme line-1.pub --kid line-1
  muster supplier suspend acme                    # none of its devices joins any more`,
	}
	cmd.AddCommand(c.supplierPut(), c.supplierList(), c.supplierShow(),
		c.supplierStatus("suspend", "SUSPENDED", "Let none of a supplier's devices join, and take no list of it",
			"Devices that have joined stay. Take it back with \"muster supplier resume\"."),
		c.supplierStatus("resume", "ACTIVE", "Let a supplier's devices join again", "Undoes \"muster supplier suspend\"."),
		c.supplierDelete(), c.supplierKey(), c.supplierKeygen())
	return cmd
}

// suppliersTable shows suppliers.
func suppliersTable(found []apiclient.Supplier, raw any) table {
	t := table{header: []string{"SUPPLIER", "NAME", "STATUS", "TEMPLATES", "KEYS", "UNSIGNED LISTS", "SIGNED LISTS", "CHANGED"}, raw: raw}
	for i := range found {
		e := &found[i]
		keys := make([]string, len(e.Keys))
		for j, k := range e.Keys {
			keys[j] = k.ID
		}
		unsigned, signed, templates := "refused", "vetted", "any"
		if e.AcceptUnsigned {
			unsigned = "vetted"
		}
		if e.AcceptSigned {
			signed = "accepted at once"
		}
		if len(e.Templates) > 0 {
			templates = strings.Join(e.Templates, " ")
		}
		t.add(e.ID, e.Name, e.Status, templates, strings.Join(keys, " "), unsigned, signed, e.Changed)
	}
	return t
}

func (c *command) supplierPut() *cobra.Command {
	cmd := &cobra.Command{
		Use: "put SUPPLIER", Short: "Make a supplier, or change what the flags say", Args: cobra.ExactArgs(1),
		Long: `Makes a supplier, or changes one: what no flag names stays as it is.

A list that nobody has signed is taken into quarantine and can only be accepted with
--accept-unsigned. A signed one waits for a second person too, unless --accept-signed
says that the supplier's signature is enough.`,
		Example: `  muster supplier put acme --name "Acme Pumps" --template pumps --template valves
  muster supplier put acme --accept-signed
  muster supplier put acme --accept-unsigned=false --any-template`,
	}
	f := cmd.Flags()
	name := f.String("name", "", "name for people")
	templates := f.StringArray("template", nil, "provisioning template by which its devices may join; may be repeated")
	anyTemplate := f.Bool("any-template", false, "its devices may join by any template")
	unsigned := f.Bool("accept-unsigned", false, "people may accept lists that nobody has signed")
	signed := f.Bool("accept-signed", false, "accept a list with a good signature at once, without a person")
	cmd.MarkFlagsMutuallyExclusive("template", "any-template")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		want, err := api.Supplier(cmd.Context(), args[0])
		if err != nil && !apiclient.Is(err, "ResourceNotFound") {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		changed := cmd.Flags().Changed
		if changed("name") {
			want.Name = *name
		}
		if changed("template") || *anyTemplate {
			want.Templates = *templates
		}
		if changed("accept-unsigned") {
			want.AcceptUnsigned = *unsigned
		}
		if changed("accept-signed") {
			want.AcceptSigned = *signed
		}
		made, err := api.PutSupplier(cmd.Context(), args[0], want)
		return suppliersTable([]apiclient.Supplier{made}, made), err
	})
}

func (c *command) supplierList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List suppliers", Args: cobra.NoArgs,
		Example: `  muster supplier list
  muster supplier list -o json`,
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.Suppliers(cmd.Context(), *limit)
		return suppliersTable(found, found), err
	})
}

func (c *command) supplierShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show SUPPLIER", Short: "Show a supplier with its keys", Args: cobra.ExactArgs(1),
		Example: `  muster supplier show acme
  muster supplier show acme -o json               # with the public keys`,
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		e, err := api.Supplier(cmd.Context(), args[0])
		return supplierFields(&e), err //nolint:wrapcheck // the server's own words
	})
}

// supplierFields shows one with its keys.
func supplierFields(e *apiclient.Supplier) table {
	t := table{header: []string{"FIELD", "VALUE"}, raw: e}
	summary := suppliersTable([]apiclient.Supplier{*e}, nil)
	for i, name := range summary.header {
		if name != "KEYS" && len(summary.rows) > 0 {
			t.add(strings.ToLower(name), summary.rows[0][i])
		}
	}
	for _, k := range e.Keys {
		until := "without end"
		if k.Until != "" {
			until = "until " + k.Until
		}
		t.add("key "+k.ID, k.Algorithm+", from "+k.From+" "+until)
	}
	return t
}

func (c *command) supplierStatus(word, status, short, long string) *cobra.Command {
	cmd := &cobra.Command{
		Use: word + " SUPPLIER", Short: short, Args: cobra.ExactArgs(1), Long: long,
		Example: "  muster supplier " + word + " acme",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		want, err := api.Supplier(cmd.Context(), args[0])
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		want.Status = status
		made, err := api.PutSupplier(cmd.Context(), args[0], want)
		return suppliersTable([]apiclient.Supplier{made}, made), err
	})
}

func (c *command) supplierDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete SUPPLIER", Short: "Remove a supplier that never had a list", Args: cobra.ExactArgs(1),
		Long: `Removes a supplier without lists. One with lists stays, also when they are deleted:
it has to be known whose they were. Suspend it instead.`,
		Example: "  muster supplier delete acme",
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		return api.DeleteSupplier(cmd.Context(), args[0])
	})
}

func (c *command) supplierKey() *cobra.Command {
	cmd := &cobra.Command{
		Use: "key SUPPLIER [FILE]", Short: "Give a supplier a public key, or end one", Args: cobra.RangeArgs(1, 2),
		Long: `Gives a supplier the public key in FILE, a PEM block PUBLIC KEY: Ed25519, P-256 or
RSA from 2048 bits. Lists that are uploaded between --from and --to may be signed with
it. A key is never replaced: a new one gets a new kid, and both are good for a while.

Without FILE the key that has this kid gets another end. A key that somebody else may
have ends with --to and a time in the past; lists that were accepted stay accepted.`,
		Example: `  muster supplier key acme line-1.pub --kid line-1
  muster supplier key acme line-2.pub --kid line-2 --from 2027-01-01T00:00:00Z
  muster supplier key acme --kid line-1 --to 2027-02-01T00:00:00Z`,
	}
	f := cmd.Flags()
	want := apiclient.SupplierKey{}
	f.StringVar(&want.ID, "kid", "", "id of the key, which signatures name (required)")
	f.StringVar(&want.From, "from", "", "time in RFC 3339 from which it is good (default now)")
	f.StringVar(&want.Until, "to", "", "time in RFC 3339 until which it is good (default for ever)")
	_ = cmd.MarkFlagRequired("kid") // it is there
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		var err error
		if len(args) > 1 {
			want.PublicKey, err = readText(cmd, args[1])
		} else {
			want.PublicKey, err = knownKey(cmd, api, args[0], want.ID)
		}
		if err != nil {
			return table{}, err
		}
		if strings.Contains(want.PublicKey, "PRIVATE KEY") {
			return table{}, fmt.Errorf("%s is a private key, which nobody else may have; give the public one", args[1])
		}
		after, err := api.PutSupplierKey(cmd.Context(), args[0], want)
		return supplierFields(&after), err
	})
}

// knownKey is a public key that a supplier has already.
func knownKey(cmd *cobra.Command, api *apiclient.Client, supplier, kid string) (string, error) {
	found, err := api.Supplier(cmd.Context(), supplier)
	if err != nil {
		return "", err //nolint:wrapcheck // the server's own words
	}
	for _, k := range found.Keys {
		if k.ID == kid {
			return k.PublicKey, nil
		}
	}
	return "", fmt.Errorf("supplier %s has no key %s; give the file of its public key", supplier, kid)
}

// keyFiles is where a key was written.
type keyFiles struct {
	KeyID      string `json:"kid"`
	Algorithm  string `json:"alg"`
	KeyFile    string `json:"keyFile"`
	PublicFile string `json:"publicKeyFile"`
}

func (c *command) supplierKeygen() *cobra.Command {
	cmd := &cobra.Command{
		Use: "keygen KID", Short: "Make a key for signing lists, at the supplier's", Args: cobra.ExactArgs(1),
		Long: `Makes a key pair and asks no server: KID.key, the private key in PKCS#8, which only
you can read and which stays with the supplier, and KID.pub, the public key, which the
operator gets. Files that are there are not replaced.`,
		Example: `  muster supplier keygen line-1
  muster supplier keygen line-1 --alg es256 --out /media/factory`,
	}
	algorithm := cmd.Flags().String("alg", listsign.Ed25519, "ed25519 or es256")
	out := cmd.Flags().String("out", ".", "existing folder for the files")
	format := c.outputFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if filepath.Base(args[0]) != args[0] || args[0] == "." || args[0] == ".." {
			return errors.New("KID must be a name, without folders")
		}
		key, err := listsign.Generate(*algorithm)
		if err != nil {
			return fmt.Errorf("--alg: %w", err)
		}
		made := keyFiles{KeyID: args[0], Algorithm: key.Algorithm(), KeyFile: filepath.Join(*out, args[0]+".key"), PublicFile: filepath.Join(*out, args[0]+".pub")}
		private, err := key.PrivatePEM()
		if err != nil {
			return err //nolint:wrapcheck // it says what was done
		}
		public, err := key.PublicPEM()
		if err != nil {
			return err //nolint:wrapcheck // it says what was done
		}
		if err := absent(made.KeyFile, made.PublicFile); err != nil {
			return err
		}
		if err := writeSecret(made.KeyFile, string(private), false); err != nil {
			return err
		}
		if err := writeSecret(made.PublicFile, string(public), false); err != nil {
			return err
		}
		t := table{header: []string{"KID", "ALG", "PRIVATE KEY", "PUBLIC KEY"}, raw: made}
		t.add(made.KeyID, made.Algorithm, made.KeyFile, made.PublicFile)
		return c.print(*format, t)
	}
	return cmd
}

// absent refuses to write over files.
func absent(paths ...string) error {
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s is there already, and is not replaced", path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err //nolint:wrapcheck // it names the file
		}
	}
	return nil
}
