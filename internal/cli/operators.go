package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// opsPath is where the operations about operators are; the front end that serves
// them is not for clients to import.
func opsPath(segments ...string) string { return "/ops/v1" + apiclient.Path(segments...) }

// ops makes one call about operators.
func ops(ctx context.Context, api *apiclient.Client, method, path string, query url.Values, in, out any) error {
	return api.JSON(ctx, apiclient.Request{Service: apiclient.ServiceControl, Method: method, Path: path, Query: query}, in, out) //nolint:wrapcheck // the server's own words
}

// opsList reads all pages of a list, whose member is named like key.
func opsList[T any](ctx context.Context, api *apiclient.Client, path, key string, limit int) ([]T, error) {
	all := []T{}
	query := url.Values{"maxResults": {"1000"}}
	for {
		var found struct {
			Token string `json:"nextToken"`
		}
		data, err := api.Raw(ctx, apiclient.Request{Service: apiclient.ServiceControl, Method: http.MethodGet, Path: path, Query: query})
		if err != nil {
			return all, err //nolint:wrapcheck // the server's own words
		}
		var items []T
		if err := decodeMember(data, key, &items, &found); err != nil {
			return all, err
		}
		all = append(all, items...)
		if limit > 0 && len(all) >= limit {
			return all[:limit], nil
		}
		if found.Token == "" {
			return all, nil
		}
		query.Set("nextToken", found.Token)
	}
}

// said prints a line about what was done.
func (c *command) said(format string, args ...any) error {
	_, err := fmt.Fprintf(c.Out, format+"\n", args...)
	return err //nolint:wrapcheck // standard output says it all
}

// act adds a command that changes something and prints one line. sentence is what
// was done, with the arguments of the command line.
func (c *command) act(cmd *cobra.Command, do func(ctx context.Context, api *apiclient.Client, args []string) (string, error)) *cobra.Command {
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		done, err := do(cmd.Context(), api, args)
		if err != nil {
			return err
		}
		return c.said("%s", done)
	})
}

// readText reads a file, or standard input for "-".
func readText(cmd *cobra.Command, path string) (string, error) {
	const longest = 1 << 20
	source := cmd.InOrStdin()
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return "", err //nolint:wrapcheck // it names the file
		}
		defer file.Close() //nolint:errcheck // it was only read
		source = file
	}
	data, err := io.ReadAll(io.LimitReader(source, longest))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return string(data), nil
}

// documentText is a document given in place or as file://PATH, as the AWS command
// line has it; file://- is standard input.
func documentText(cmd *cobra.Command, given string) (string, error) {
	if path, ok := strings.CutPrefix(given, "file://"); ok {
		return readText(cmd, path)
	}
	return given, nil
}

// date shows a moment to the second, nothing for never.
func date(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// owned adds the commands about the policies of users, groups or roles.
func (c *command) owned(family *cobra.Command, noun, path string) {
	name := strings.ToUpper(noun)
	attach := &cobra.Command{
		Use: "attach " + name + " POLICY", Short: "Attach a policy by name or ARN", Args: cobra.ExactArgs(2),
		Example: fmt.Sprintf("  muster %s attach %s MusterViewer", family.Name(), example(noun)),
	}
	detach := &cobra.Command{
		Use: "detach " + name + " POLICY", Short: "Detach a policy", Args: cobra.ExactArgs(2),
		Example: fmt.Sprintf("  muster %s detach %s MusterViewer", family.Name(), example(noun)),
	}
	put := &cobra.Command{
		Use: "put-policy " + name + " NAME DOCUMENT", Short: "Give a document of its own, or replace it; DOCUMENT may be file://PATH", Args: cobra.ExactArgs(3),
		Example: fmt.Sprintf("  muster %s put-policy %s own-site file://policy.json", family.Name(), example(noun)),
	}
	show := &cobra.Command{
		Use: "show-policy " + name + " NAME", Short: "Print a document of its own", Args: cobra.ExactArgs(2),
		Example: fmt.Sprintf("  muster %s show-policy %s own-site", family.Name(), example(noun)),
	}
	remove := &cobra.Command{
		Use: "delete-policy " + name + " NAME", Short: "Take a document of its own away", Args: cobra.ExactArgs(2),
		Example: fmt.Sprintf("  muster %s delete-policy %s own-site", family.Name(), example(noun)),
	}
	family.AddCommand(
		c.act(attach, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
			err := ops(ctx, api, http.MethodPut, opsPath(path, args[0], "policies"), url.Values{"policy": {args[1]}}, nil, nil)
			return fmt.Sprintf("attached %s to %s %s", args[1], noun, args[0]), err
		}),
		c.act(detach, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
			err := ops(ctx, api, http.MethodDelete, opsPath(path, args[0], "policies"), url.Values{"policy": {args[1]}}, nil, nil)
			return fmt.Sprintf("detached %s from %s %s", args[1], noun, args[0]), err
		}),
		c.act(put, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
			document, err := documentText(put, args[2])
			if err != nil {
				return "", err
			}
			err = ops(ctx, api, http.MethodPut, opsPath(path, args[0], "inline-policies", args[1]), nil, map[string]string{"policyDocument": document}, nil)
			return fmt.Sprintf("put %s of %s %s", args[1], noun, args[0]), err
		}),
		c.act(show, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
			var out struct {
				PolicyDocument string `json:"policyDocument"`
			}
			err := ops(ctx, api, http.MethodGet, opsPath(path, args[0], "inline-policies", args[1]), nil, nil, &out)
			return out.PolicyDocument, err
		}),
		c.act(remove, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
			err := ops(ctx, api, http.MethodDelete, opsPath(path, args[0], "inline-policies", args[1]), nil, nil, nil)
			return fmt.Sprintf("deleted %s of %s %s", args[1], noun, args[0]), err
		}),
	)
}

// example is a name in examples.
func example(noun string) string {
	switch noun {
	case "user":
		return "alice"
	case "group":
		return "night-shift"
	default:
		return "fixer"
	}
}

// remover adds a command that deletes by name.
func (c *command) remover(noun, path, short, sample string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete " + strings.ToUpper(noun), Short: short, Args: cobra.ExactArgs(1), Example: "  " + sample,
	}
	return c.act(cmd, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
		return "deleted " + noun + " " + args[0], ops(ctx, api, http.MethodDelete, opsPath(path, args[0]), nil, nil, nil)
	})
}

// revoker adds the command that voids sessions.
func (c *command) revoker(noun, path string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke-sessions " + strings.ToUpper(noun), Short: "Void all sessions that began until now; access keys stay good", Args: cobra.ExactArgs(1),
		Example: fmt.Sprintf("  muster %s revoke-sessions %s", noun, example(noun)),
	}
	return c.act(cmd, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
		return "revoked the sessions of " + noun + " " + args[0], ops(ctx, api, http.MethodPost, opsPath(path, args[0], "revoke-sessions"), nil, nil, nil)
	})
}

// operatorGroup is an answer about a group of users.
type operatorGroup struct {
	GroupName      string    `json:"groupName"`
	GroupID        string    `json:"groupId"`
	ARN            string    `json:"arn"`
	CreatedAt      time.Time `json:"createdAt"`
	Users          []string  `json:"users,omitempty"`
	Policies       []string  `json:"policies,omitempty"`
	InlinePolicies []string  `json:"inlinePolicies,omitempty"`
}

// groupsOfUsersTable shows groups.
func groupsOfUsersTable(groups []operatorGroup) table {
	t := table{header: []string{"GROUP", "USERS", "POLICIES", "INLINE POLICIES", "CREATED"}, raw: groups}
	for _, g := range groups {
		t.add(g.GroupName, strings.Join(g.Users, " "), policyNames(g.Policies), strings.Join(g.InlinePolicies, " "), date(&g.CreatedAt))
	}
	return t
}

// userGroup is the family of commands about groups of users.
func (c *command) userGroup() *cobra.Command {
	const path = "user-groups"
	cmd := &cobra.Command{Use: "user-group", Short: "Groups of users, which share policies", Long: `Groups of users. A policy that is attached to a group applies to all its users.
Groups of things are another matter: muster groups.`}
	list := &cobra.Command{Use: "list", Short: "List groups of users", Args: cobra.NoArgs, Example: "  muster user-group list"}
	limit := limitFlag(list)
	describe := &cobra.Command{Use: "describe GROUP", Short: "Show a group with its users", Args: cobra.ExactArgs(1), Example: "  muster user-group describe night-shift"}
	create := &cobra.Command{Use: "create GROUP", Short: "Make an empty group", Args: cobra.ExactArgs(1), Example: "  muster user-group create night-shift"}
	add := &cobra.Command{Use: "add GROUP USER...", Short: "Add users to a group", Args: cobra.MinimumNArgs(2), Example: "  muster user-group add night-shift alice bob"}
	remove := &cobra.Command{Use: "remove GROUP USER...", Short: "Remove users from a group", Args: cobra.MinimumNArgs(2), Example: "  muster user-group remove night-shift bob"}
	member := func(method, done string) func(context.Context, *apiclient.Client, []string) (string, error) {
		return func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
			for _, user := range args[1:] {
				if err := ops(ctx, api, method, opsPath(path, args[0], "users", user), nil, nil, nil); err != nil {
					return "", fmt.Errorf("%s: %w", user, err)
				}
			}
			return fmt.Sprintf("%s group %s: %s", done, args[0], strings.Join(args[1:], " ")), nil
		}
	}
	cmd.AddCommand(
		c.answer(list, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
			groups, err := opsList[operatorGroup](cmd.Context(), api, opsPath(path), "groups", *limit)
			return groupsOfUsersTable(groups), err
		}),
		c.answer(describe, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
			var g operatorGroup
			err := ops(cmd.Context(), api, http.MethodGet, opsPath(path, args[0]), nil, nil, &g)
			t := groupsOfUsersTable([]operatorGroup{g})
			t.raw = g
			return t, err
		}),
		c.act(create, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
			return "created group " + args[0], ops(ctx, api, http.MethodPost, opsPath(path), nil, map[string]string{"groupName": args[0]}, nil)
		}),
		c.remover("group", path, "Delete a group that has no users", "muster user-group delete night-shift"),
		c.act(add, member(http.MethodPut, "added to")),
		c.act(remove, member(http.MethodDelete, "removed from")),
	)
	c.owned(cmd, "group", path)
	return cmd
}

// policyNames shortens ARNs of policies to names.
func policyNames(arns []string) string {
	names := make([]string, len(arns))
	for i, arn := range arns {
		names[i] = arn[strings.LastIndexByte(arn, '/')+1:]
	}
	return strings.Join(names, " ")
}

// accessPolicy is an answer about a policy of operators.
type accessPolicy struct {
	PolicyName     string     `json:"policyName"`
	PolicyID       string     `json:"policyId,omitempty"`
	ARN            string     `json:"arn"`
	Description    string     `json:"description,omitempty"`
	PolicyDocument string     `json:"policyDocument,omitempty"`
	Builtin        bool       `json:"builtin,omitempty"`
	CreatedAt      *time.Time `json:"createdAt,omitempty"`
	UpdatedAt      *time.Time `json:"updatedAt,omitempty"`
	AttachedTo     []string   `json:"attachedTo,omitempty"`
}

// accessPolicies is the family of commands about policies of operators.
func (c *command) accessPolicies() *cobra.Command {
	const path = "access-policies"
	cmd := &cobra.Command{Use: "access-policy", Short: "Policies of operators: what users, groups and roles may do", Long: `Policies of operators, in the grammar of IAM. They permit actions such as
iot:DescribeThing and ops:Drain on resources. What devices may do is said by
device policies instead: aws iot create-policy.

Muster brings MusterViewer, MusterOperator, MusterFleetAdmin,
MusterSecurityAdmin and MusterProvisioningApprover.`}
	list := &cobra.Command{Use: "list", Short: "List own and built-in policies", Args: cobra.NoArgs, Example: "  muster access-policy list"}
	limit := limitFlag(list)
	describe := &cobra.Command{Use: "describe POLICY", Short: "Show a policy with its document", Args: cobra.ExactArgs(1), Example: "  muster access-policy describe MusterViewer -o json"}
	create := &cobra.Command{Use: "create POLICY DOCUMENT", Short: "Make a policy; DOCUMENT may be file://PATH", Args: cobra.ExactArgs(2), Example: "  muster access-policy create leeds-only file://policy.json --description 'Things of Leeds'"}
	description := create.Flags().String("description", "", "what the policy is for")
	update := &cobra.Command{Use: "update POLICY DOCUMENT", Short: "Replace the document; it is in force at once", Args: cobra.ExactArgs(2), Example: "  muster access-policy update leeds-only file://policy.json"}
	cmd.AddCommand(
		c.answer(list, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
			own, err := opsList[accessPolicy](cmd.Context(), api, opsPath(path), "policies", *limit)
			if err != nil {
				return table{}, err
			}
			var first struct {
				Builtin []accessPolicy `json:"builtin"`
			}
			err = ops(cmd.Context(), api, http.MethodGet, opsPath(path), url.Values{"maxResults": {"1"}}, nil, &first)
			all := append(first.Builtin, own...)
			t := table{header: []string{"POLICY", "BUILT IN", "DESCRIPTION", "UPDATED"}, raw: all}
			for _, p := range all {
				t.add(p.PolicyName, strconv.FormatBool(p.Builtin), p.Description, date(p.UpdatedAt))
			}
			return t, err
		}),
		c.answer(describe, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
			var p accessPolicy
			err := ops(cmd.Context(), api, http.MethodGet, opsPath(path, args[0]), nil, nil, &p)
			t := table{header: []string{"POLICY", "ATTACHED TO", "DOCUMENT"}, raw: p}
			t.add(p.PolicyName, strings.Join(p.AttachedTo, " "), strings.Join(strings.Fields(p.PolicyDocument), " "))
			return t, err
		}),
		c.act(create, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
			document, err := documentText(create, args[1])
			if err != nil {
				return "", err
			}
			in := map[string]string{"policyName": args[0], "description": *description, "policyDocument": document}
			return "created policy " + args[0], ops(ctx, api, http.MethodPost, opsPath(path), nil, in, nil)
		}),
		c.act(update, func(ctx context.Context, api *apiclient.Client, args []string) (string, error) {
			document, err := documentText(update, args[1])
			if err != nil {
				return "", err
			}
			return "updated policy " + args[0], ops(ctx, api, http.MethodPut, opsPath(path, args[0]), nil, map[string]string{"policyDocument": document}, nil)
		}),
		c.remover("policy", path, "Delete a policy that is attached to nothing", "muster access-policy delete leeds-only"),
	)
	return cmd
}
