package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// operatorUser is an answer about a user.
type operatorUser struct {
	UserName           string     `json:"userName"`
	UserID             string     `json:"userId"`
	ARN                string     `json:"arn"`
	CreatedAt          time.Time  `json:"createdAt"`
	Groups             []string   `json:"groups,omitempty"`
	Policies           []string   `json:"policies,omitempty"`
	InlinePolicies     []string   `json:"inlinePolicies,omitempty"`
	AccessKeys         []string   `json:"accessKeys,omitempty"`
	HasPassword        bool       `json:"hasPassword"`
	MustChangePassword bool       `json:"mustChangePassword,omitempty"`
	SessionsRevokedAt  *time.Time `json:"sessionsRevokedAt,omitempty"`
}

// usersTable shows users.
func usersTable(users []operatorUser) table {
	t := table{header: []string{"USER", "GROUPS", "POLICIES", "INLINE POLICIES", "ACCESS KEYS", "SIGN-IN", "CREATED"}, raw: users}
	for _, u := range users {
		signIn := "no"
		switch {
		case u.MustChangePassword:
			signIn = "with a new password"
		case u.HasPassword:
			signIn = "yes"
		}
		t.add(u.UserName, strings.Join(u.Groups, " "), policyNames(u.Policies), strings.Join(u.InlinePolicies, " "),
			strings.Join(u.AccessKeys, " "), signIn, date(&u.CreatedAt))
	}
	return t
}

// decodeMember reads one member of an answer, and the token of the next page.
func decodeMember(data []byte, key string, items, token any) error {
	var members map[string]json.RawMessage
	err := json.Unmarshal(data, &members)
	if err == nil {
		err = json.Unmarshal(data, token)
	}
	if err == nil && members[key] != nil {
		err = json.Unmarshal(members[key], items)
	}
	if err != nil {
		return fmt.Errorf("decode the list: %w", err)
	}
	return nil
}

// user is the family of commands about users.
func (c *command) user() *cobra.Command {
	const path = "users"
	cmd := &cobra.Command{Use: "user", Short: "Users: people and programs that operate the fleet", Long: `Users operate the fleet with access keys (muster key create) or by signing in to
the console with a password. A new user may do nothing; policies say what.`, Example: `  muster user create alice
  muster user attach alice MusterViewer
  muster key create alice`}
	list := &cobra.Command{Use: "list", Short: "List users", Args: cobra.NoArgs, Example: "  muster user list -o json"}
	limit := limitFlag(list)
	describe := &cobra.Command{Use: "describe USER", Short: "Show one user", Args: cobra.ExactArgs(1), Example: "  muster user describe alice"}
	create := &cobra.Command{Use: "create USER", Short: "Make a user that may do nothing yet", Args: cobra.ExactArgs(1), Example: "  muster user create alice"}
	cmd.AddCommand(
		c.answer(list, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
			users, err := opsList[operatorUser](cmd.Context(), api, opsPath(path), "users", *limit)
			return usersTable(users), err
		}),
		c.answer(describe, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
			var u operatorUser
			err := ops(cmd.Context(), api, http.MethodGet, opsPath(path, args[0]), nil, nil, &u)
			t := usersTable([]operatorUser{u})
			t.raw = u
			return t, err
		}),
		c.act(create, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
			return "created user " + args[0], ops(ctx, api, http.MethodPost, opsPath(path), nil, map[string]string{"userName": args[0]}, nil)
		}),
		c.remover("user", path, "Delete a user with its keys, memberships and attachments", "muster user delete alice"),
		c.setPassword(), c.deletePassword(), c.revoker("user", path),
	)
	c.owned(cmd, "user", path)
	return cmd
}

// errNoPassword is a password file without one.
var errNoPassword = errors.New("there is no password: write it to standard input, or name a file with --password-file")

// passwordFlag registers --password-file and returns how to read it. A password on
// the command line would show in the list of processes.
func passwordFlag(cmd *cobra.Command) func() (string, error) {
	path := cmd.Flags().String("password-file", "-", "file with the password in its first line; - is standard input")
	return func() (string, error) { return firstLine(cmd, *path) }
}

// firstLine reads a password from a file.
func firstLine(cmd *cobra.Command, path string) (string, error) {
	text, err := readText(cmd, path)
	if err != nil {
		return "", err
	}
	password, _, _ := strings.Cut(text, "\n")
	if password = strings.TrimSuffix(password, "\r"); password == "" {
		return "", errNoPassword
	}
	return password, nil
}

// setPassword lets a user sign in.
func (c *command) setPassword() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set-password USER", Short: "Let a user sign in to the console with a password", Args: cobra.ExactArgs(1),
		Long: `Give a user a password of at least 12 characters, read from standard input or a
file. At the first sign-in the user must choose another one, unless --keep.`,
		Example: `  muster user set-password alice --password-file first-password
  printf '%s\n' "$PASSWORD" | muster user set-password alice --keep`,
	}
	read := passwordFlag(cmd)
	keep := cmd.Flags().Bool("keep", false, "the user need not change it at the next sign-in")
	return c.act(cmd, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
		password, err := read()
		if err != nil {
			return "", err
		}
		in := map[string]any{"password": password, "mustChange": !*keep}
		return "set the password of user " + args[0], ops(ctx, api, http.MethodPut, opsPath("users", args[0], "password"), nil, in, nil)
	})
}

// deletePassword ends that.
func (c *command) deletePassword() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete-password USER", Short: "Let a user sign in no more; sessions go on until they end or are revoked", Args: cobra.ExactArgs(1),
		Example: "  muster user delete-password alice",
	}
	return c.act(cmd, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
		return "deleted the password of user " + args[0], ops(ctx, api, http.MethodDelete, opsPath("users", args[0], "password"), nil, nil, nil)
	})
}
