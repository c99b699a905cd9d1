package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/profile"
)

// account is the family of commands on accounts.
func (c *command) account() *cobra.Command {
	cmd := &cobra.Command{
		Use: "account", Short: "Create, list, close and reopen accounts of the installation",
		Long: `An account is one customer, plant or stage: its things, certificates, policies,
shadows, messages and operators are its own, and nobody else sees them. Devices
reach it by its endpoint names, operators by its access keys.

Only the default account makes and closes accounts; the others see themselves.`,
	}
	cmd.AddCommand(c.accountCreate(), c.accountList(), c.accountDescribe(), c.accountClose(), c.accountReopen())
	return cmd
}

// accountCreate makes an account.
func (c *command) accountCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create an account and show its root access key, this once", Args: cobra.ExactArgs(1),
		Long: `Creates an account and shows its root access key. The secret is shown this once:
keep it, or have it written into a credentials file as a profile with
--save-profile; it is not shown then. Other profiles of the file stay.`,
		Example: `  muster account create "Plant North"
  muster account create "Plant North" --id 210000000001 --email north@plant.example
  muster account create "Plant North" --save-profile north
  muster things list --profile north`,
	}
	id := cmd.Flags().String("id", "", "number of the account, twelve digits (default drawn by the server)")
	email := cmd.Flags().String("email", "", "address of whoever is responsible")
	save := cmd.Flags().String("save-profile", "", "write the key into the credentials file as this profile")
	file := cmd.Flags().String("credentials-file", "", "file for --save-profile (default the one that this command reads)")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		path, err := c.profileFile(cmd, *file, *save)
		if err != nil {
			return table{}, mistake(cmd, err)
		}
		made, err := api.CreateAccount(cmd.Context(), *id, args[0], *email)
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		if *save != "" {
			key := profile.Key{AccessKeyID: made.AccessKey.ID, Secret: made.AccessKey.Secret}
			if err := profile.Write(path, key, *save); err != nil {
				// Nobody can ask for the secret again: it is shown after all.
				_, _ = fmt.Fprintln(c.Err, "muster: the profile is not written:", err)
			} else {
				made.AccessKey.Secret = ""
			}
		}
		return createdTable(&made, *save), nil
	})
}

// profileFile is where --save-profile writes. A profile that is there already is
// somebody's key and is not replaced.
func (c *command) profileFile(cmd *cobra.Command, file, name string) (string, error) {
	if name == "" {
		if file != "" {
			return "", errors.New("--credentials-file is for --save-profile")
		}
		return "", nil
	}
	if !profile.ValidName(name) {
		return "", fmt.Errorf("%q cannot name a profile", name)
	}
	if file == "" {
		sources := apiclient.CredentialSources{LookupEnv: c.LookupEnv}
		sources.File, sources.DataDir = cmd.Flag("credentials").Value.String(), cmd.Flag("data-dir").Value.String()
		file = sources.SharedFile()
	}
	taken, err := profile.Has(file, name)
	if err != nil {
		return "", err //nolint:wrapcheck // it names the file
	}
	if taken {
		return "", fmt.Errorf("%s has a profile %q already", file, name)
	}
	return file, nil
}

// createdTable shows an account with what its owner needs.
func createdTable(made *apiclient.CreatedAccount, saved string) table {
	t := accountTable(&made.Account)
	t.raw = made
	t.add("access key id", made.AccessKey.ID)
	if made.AccessKey.Secret != "" {
		t.add("secret access key", made.AccessKey.Secret)
	} else {
		t.add("saved as profile", saved)
	}
	return t
}

// accountList lists accounts.
func (c *command) accountList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List accounts", Args: cobra.NoArgs,
		Example: `  muster account list
  muster account list -o csv`,
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.Accounts(cmd.Context(), *limit)
		t := table{header: []string{"ACCOUNT", "NAME", "STATUS", "EMAIL", "ENDPOINT", "CREATED"}, raw: found}
		for i := range found {
			a := &found[i]
			t.add(a.ID, a.Name, a.Status, a.Email, a.Endpoints.Data, a.CreatedAt)
		}
		return t, err
	})
}

// accountDescribe shows one account.
func (c *command) accountDescribe() *cobra.Command {
	return c.ofAccount("describe", "Show one account with its endpoint names", "", (*apiclient.Client).DescribeAccount)
}

// accountClose closes an account.
func (c *command) accountClose() *cobra.Command {
	return c.ofAccount("close", "Refuse an account's keys and devices and end their connections", `Refuses the account's access keys and devices from now on and ends their
connections. Everything that it owns is kept: muster account reopen brings it
back.`, (*apiclient.Client).CloseAccount)
}

// accountReopen brings a closed account back.
func (c *command) accountReopen() *cobra.Command {
	return c.ofAccount("reopen", "Let keys and devices of a closed account in again", "", (*apiclient.Client).ReopenAccount)
}

// ofAccount is a command on one account that shows it.
func (c *command) ofAccount(verb, short, long string, do func(api *apiclient.Client, ctx context.Context, id string) (apiclient.Account, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " ACCOUNT", Short: short, Long: long, Args: cobra.ExactArgs(1),
		Example: "  muster account " + verb + " 210000000001",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		found, err := do(api, cmd.Context(), args[0])
		return accountTable(&found), err
	})
}

// accountTable shows one account.
func accountTable(a *apiclient.Account) table {
	t := table{header: []string{"PROPERTY", "VALUE"}, raw: a}
	for _, row := range [][2]string{
		{"account", a.ID},
		{"name", a.Name},
		{"email", a.Email},
		{"status", a.Status},
		{"data endpoint", a.Endpoints.Data},
		{"jobs endpoint", a.Endpoints.Jobs},
		{"credentials endpoint", a.Endpoints.Credentials},
		{"created", a.CreatedAt},
		{"modified", a.ModifiedAt},
	} {
		if row[1] != "" {
			t.add(row[0], row[1])
		}
	}
	return t
}
