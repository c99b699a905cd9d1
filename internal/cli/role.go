package cli

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// operatorRole is an answer about a role.
type operatorRole struct {
	RoleName           string     `json:"roleName"`
	RoleID             string     `json:"roleId"`
	ARN                string     `json:"arn"`
	Description        string     `json:"description,omitempty"`
	CreatedAt          time.Time  `json:"createdAt"`
	TrustPolicy        string     `json:"trustPolicy"`
	MaxSessionDuration int        `json:"maxSessionDuration"`
	Policies           []string   `json:"policies,omitempty"`
	InlinePolicies     []string   `json:"inlinePolicies,omitempty"`
	SessionsRevokedAt  *time.Time `json:"sessionsRevokedAt,omitempty"`
}

// rolesTable shows roles.
func rolesTable(roles []operatorRole) table {
	t := table{header: []string{"ROLE", "POLICIES", "INLINE POLICIES", "LONGEST SESSION", "CREATED"}, raw: roles}
	for _, r := range roles {
		longest := (time.Duration(r.MaxSessionDuration) * time.Second).String()
		t.add(r.RoleName, policyNames(r.Policies), strings.Join(r.InlinePolicies, " "), longest, date(&r.CreatedAt))
	}
	return t
}

// roleSpec registers the flags that make or change a role.
func roleSpec(cmd *cobra.Command) func(name string) (map[string]any, error) {
	trust := cmd.Flags().String("trust", "", "trust policy, which says who may take the role; may be file://PATH")
	description := cmd.Flags().String("description", "", "what the role is for")
	longest := cmd.Flags().Duration("max-session", 0, "longest session, 1h to 12h")
	return func(name string) (map[string]any, error) {
		in := map[string]any{}
		if name != "" {
			in["roleName"] = name
		}
		if *trust != "" {
			document, err := documentText(cmd, *trust)
			if err != nil {
				return nil, err
			}
			in["trustPolicy"] = document
		}
		if *description != "" {
			in["description"] = *description
		}
		if *longest != 0 {
			in["maxSessionDuration"] = int(longest.Seconds())
		}
		return in, nil
	}
}

// role is the family of commands about roles.
func (c *command) role() *cobra.Command {
	const path = "roles"
	cmd := &cobra.Command{Use: "role", Short: "Roles: permissions that users take for a session", Long: `Roles are taken for a session by whom their trust policy names, with
aws sts assume-role or an SDK's credential provider. People who sign in with
OpenID Connect act in a role, too.`, Example: `  muster role create fixer --trust file://trust.json --max-session 4h
  muster role attach fixer MusterOperator
  aws sts assume-role --role-arn arn:aws:iam::000000000000:role/fixer --role-session-name night-shift`}
	list := &cobra.Command{Use: "list", Short: "List roles", Args: cobra.NoArgs, Example: "  muster role list"}
	limit := limitFlag(list)
	describe := &cobra.Command{Use: "describe ROLE", Short: "Show one role", Args: cobra.ExactArgs(1), Example: "  muster role describe fixer -o json"}
	create := &cobra.Command{
		Use: "create ROLE --trust DOCUMENT", Short: "Make a role that may do nothing yet", Args: cobra.ExactArgs(1),
		Example: `  muster role create fixer --trust '{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
    "Principal":{"AWS":"arn:aws:iam::000000000000:user/alice"},"Action":"sts:AssumeRole"}]}'`,
	}
	newRole := roleSpec(create)
	update := &cobra.Command{Use: "update ROLE", Short: "Change who may take a role, or for how long", Args: cobra.ExactArgs(1), Example: "  muster role update fixer --max-session 8h"}
	change := roleSpec(update)
	cmd.AddCommand(
		c.answer(list, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
			roles, err := opsList[operatorRole](cmd.Context(), api, opsPath(path), "roles", *limit)
			return rolesTable(roles), err
		}),
		c.answer(describe, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
			var r operatorRole
			err := ops(cmd.Context(), api, http.MethodGet, opsPath(path, args[0]), nil, nil, &r)
			t := rolesTable([]operatorRole{r})
			t.raw = r
			return t, err
		}),
		c.act(create, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
			in, err := newRole(args[0])
			if err != nil {
				return "", err
			}
			var r operatorRole
			err = ops(ctx, api, http.MethodPost, opsPath(path), nil, in, &r)
			return "created role " + r.ARN, err
		}),
		c.act(update, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
			in, err := change("")
			if err != nil {
				return "", err
			}
			return "updated role " + args[0], ops(ctx, api, http.MethodPatch, opsPath(path, args[0]), nil, in, nil)
		}),
		c.remover("role", path, "Delete a role with its attachments; its sessions are void", "muster role delete fixer"),
		c.revoker("role", path),
	)
	c.owned(cmd, "role", path)
	return cmd
}

// accessKey is an answer about an access key.
type accessKey struct {
	AccessKeyID     string     `json:"accessKeyId"`
	SecretAccessKey string     `json:"secretAccessKey,omitempty"`
	UserName        string     `json:"userName"`
	Status          string     `json:"status"`
	CreatedAt       *time.Time `json:"createdAt,omitempty"`
	LastUsedAt      *time.Time `json:"lastUsedAt,omitempty"`
}

// key is the family of commands about access keys.
func (c *command) key() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Access keys of users", Long: `Access keys sign requests: those of the AWS command line, the SDKs and muster. A
user has at most two, so that one can be replaced while the other is in use.`, Example: `  muster key create alice
  muster key deactivate AKIA...
  muster key delete AKIA...`}
	list := &cobra.Command{Use: "list USER", Short: "List the keys of a user with their last use, to the hour", Args: cobra.ExactArgs(1), Example: "  muster key list alice"}
	create := &cobra.Command{
		Use: "create USER", Short: "Make a key; its secret is shown this once", Args: cobra.ExactArgs(1),
		Example: `  muster key create alice
  muster key create alice -o json > alice.key`,
	}
	status := func(use, status, short string) *cobra.Command {
		cmd := &cobra.Command{Use: use + " KEY", Short: short, Args: cobra.ExactArgs(1), Example: "  muster key " + use + " AKIAIOSFODNN7EXAMPLE"}
		return c.act(cmd, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
			return args[0] + " is " + status, ops(ctx, api, http.MethodPut, opsPath("access-keys", args[0]), nil, map[string]string{"status": status}, nil)
		})
	}
	cmd.AddCommand(
		c.answer(list, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
			var out struct {
				AccessKeys []accessKey `json:"accessKeys"`
			}
			err := ops(cmd.Context(), api, http.MethodGet, opsPath("users", args[0], "access-keys"), nil, nil, &out)
			t := table{header: []string{"ACCESS KEY", "STATUS", "CREATED", "LAST USED"}, raw: out.AccessKeys}
			for _, k := range out.AccessKeys {
				t.add(k.AccessKeyID, k.Status, date(k.CreatedAt), date(k.LastUsedAt))
			}
			return t, err
		}),
		c.answer(create, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
			var k accessKey
			err := ops(cmd.Context(), api, http.MethodPost, opsPath("users", args[0], "access-keys"), nil, nil, &k)
			t := table{header: []string{"ACCESS KEY", "SECRET"}, raw: k}
			t.add(k.AccessKeyID, k.SecretAccessKey)
			return t, err
		}),
		status("deactivate", "INACTIVE", "Let a key sign no more and end the connections it opened"),
		status("activate", "ACTIVE", "Let a key sign again"),
		c.remover("key", "access-keys", "Delete a key and end the connections it opened", "muster key delete AKIAIOSFODNN7EXAMPLE"),
	)
	if c.ResetKey != nil {
		cmd.AddCommand(c.keyReset())
	}
	return cmd
}
