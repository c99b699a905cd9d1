package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// approvals is the family of commands on who decides who joins.
func (c *command) approvals() *cobra.Command {
	cmd := &cobra.Command{
		Use: "approvals", Short: "Decide which devices join, and who decides",
		Long: `A provisioning template can be bound to authorities: groups of people, functions
that are asked, and suppliers' allow lists. A device of such a template joins when enough of them
say yes. Until people have decided it waits, and tries again.`,
		Example: `  muster approvals list
  muster approvals approve apr_2f6d…
  muster approvals bind pumps --authority site-leads --authority security --k 2`,
	}
	cmd.AddCommand(c.approvalsList(), c.approvalsShow(), c.approvalsVote("approve", "Let a device in, as far as it is yours to say"),
		c.approvalsVote("deny", "Refuse a device"), c.approvalsVote("withdraw", "Take back what you have said, while others have not decided"),
		c.approvalAuthorities(), c.approvalAuthority(), c.approvalAuthorityDelete(), c.approvalBindings(), c.approvalBind(), c.approvalUnbind())
	return cmd
}

// approvalsTable shows requests.
func approvalsTable(found []apiclient.Approval, raw any) table {
	t := table{header: []string{"REQUEST", "STATE", "TEMPLATE", "THING", "FROM", "RECEIVED", "EXPIRES", "DECISIONS"}, raw: raw}
	for i := range found {
		e := &found[i]
		var said []string
		for _, d := range e.Decisions {
			said = append(said, d.Authority+" "+strings.ToLower(d.Verdict))
		}
		t.add(e.ID, e.State, e.Template, e.Thing, e.SourceIP, e.Received, e.Expires, strings.Join(said, ", "))
	}
	return t
}

func (c *command) approvalsList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List devices that wait for people, the newest first", Args: cobra.NoArgs,
		Example: `  muster approvals list
  muster approvals list --state denied --template pumps -o json`,
	}
	state := cmd.Flags().String("state", "pending", "pending, approved, denied, expired or used")
	template := cmd.Flags().String("template", "", "only those of this template")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.Approvals(cmd.Context(), strings.ToUpper(*state), *template, *limit)
		return approvalsTable(found, found), err
	})
}

func (c *command) approvalsShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show REQUEST", Short: "Show all that is known of one device that waits or has waited", Args: cobra.ExactArgs(1),
		Example: "  muster approvals show apr_2f6d…",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		e, err := api.Approval(cmd.Context(), args[0])
		t := table{header: []string{"FIELD", "VALUE"}, raw: e}
		if err != nil {
			return t, err
		}
		for _, row := range [][2]string{
			{"request", e.ID},
			{"state", e.State},
			{"template", e.Template},
			{"method", e.Method},
			{"thing", e.Thing},
			{"certificate", e.CertificateID},
			{"claim", e.ClaimID},
			{"client id", e.ClientID},
			{"from", e.SourceIP},
			{"received", e.Received},
			{"expires", e.Expires},
		} {
			t.add(row[0], row[1])
		}
		for _, name := range sortedKeys(e.Parameters) {
			t.add("parameter "+name, e.Parameters[name])
		}
		for _, l := range e.Lists {
			t.add("found by "+l.Authority, fmt.Sprintf("revision %d of allow list %s of supplier %s, by %s", l.Revision, l.List, l.Supplier, strings.ToLower(l.Match)))
		}
		for _, d := range e.Decisions {
			t.add("decision of "+d.Authority, strings.TrimSpace(strings.Join([]string{strings.ToLower(d.Verdict), d.By, d.At, d.Reason}, " ")))
		}
		return t, nil
	})
}

func (c *command) approvalsVote(word, short string) *cobra.Command {
	cmd := &cobra.Command{
		Use: word + " REQUEST", Short: short, Args: cobra.ExactArgs(1),
		Example: "  muster approvals " + word + " apr_2f6d… --reason 'on delivery note 4711'",
	}
	authority := cmd.Flags().String("as", "", "authority that you speak for, when you are in several groups that are asked")
	reason := cmd.Flags().String("reason", "", "why, for the record; a denial must have one")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		after, err := api.Vote(cmd.Context(), args[0], word, *authority, *reason)
		return approvalsTable([]apiclient.Approval{after}, after), err
	})
}

func authoritiesTable(found []apiclient.ApprovalAuthority, raw any) table {
	t := table{header: []string{"AUTHORITY", "KIND", "OF", "CREATED", "CHANGED"}, raw: raw}
	for i := range found {
		e := &found[i]
		of := e.Group + e.Function + e.Supplier
		for _, p := range []struct{ what, parameter string }{{"serial", e.SerialParameter}, {"model", e.ModelParameter}} {
			if p.parameter != "" {
				of = strings.TrimSpace(of + " " + p.what + "=" + p.parameter)
			}
		}
		t.add(e.ID, e.Kind, of, e.Created, e.Changed)
	}
	return t
}

func (c *command) approvalAuthorities() *cobra.Command {
	cmd := &cobra.Command{
		Use: "authorities", Short: "List who can say yes", Args: cobra.NoArgs,
		Example: "  muster approvals authorities",
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.ApprovalAuthorities(cmd.Context(), *limit)
		return authoritiesTable(found, found), err
	})
}

func (c *command) approvalAuthority() *cobra.Command {
	cmd := &cobra.Command{
		Use: "authority NAME", Short: "Make an authority, or change what it is", Args: cobra.ExactArgs(1),
		Long: `An authority is one of these:

  --group G        a user group, any member of which speaks for it
  --function F     a function of the setting function.target, which answers
                   {"verdict": "APPROVED"}, "DENIED" or "DEFER" within five seconds
  --allow-list     the accepted allow lists: they say yes to a device that is on one
                   of them and has not joined yet; with --supplier only those of that
                   supplier count
  --supplier S     the same for one supplier alone, as an authority of its own kind
                   (SUPPLIER), for bindings that want the word of several suppliers

Lists find a device by the SHA-256 of its public key first, then by its serial number:
the parameter SerialNumber, or the serial number or common name in its certificate,
unless --serial-parameter names another one. --model-parameter names the parameter that
has the model, for serial numbers that several models share.`,
		Example: `  muster approvals authority site-leads --group leads
  muster approvals authority erp --function delivered
  muster approvals authority lists --allow-list
  muster approvals authority acme-lists --supplier acme --serial-parameter Serial --model-parameter Model`,
	}
	want := apiclient.ApprovalAuthority{}
	f := cmd.Flags()
	f.StringVar(&want.Group, "group", "", "user group that speaks for it")
	f.StringVar(&want.Function, "function", "", "function that is asked")
	lists := f.Bool("allow-list", false, "accepted allow lists speak for it")
	f.StringVar(&want.Supplier, "supplier", "", "only this supplier's lists; without --allow-list the authority is the supplier")
	f.StringVar(&want.SerialParameter, "serial-parameter", "", "parameter of the device that is its serial number")
	f.StringVar(&want.ModelParameter, "model-parameter", "", "parameter of the device that is its model")
	cmd.MarkFlagsMutuallyExclusive("group", "function", "allow-list")
	cmd.MarkFlagsMutuallyExclusive("group", "function", "supplier")
	cmd.MarkFlagsOneRequired("group", "function", "allow-list", "supplier")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		switch {
		case *lists:
			want.Kind = "ALLOW_LIST"
		case want.Supplier != "":
			want.Kind = "SUPPLIER"
		case want.SerialParameter != "" || want.ModelParameter != "":
			return table{}, errors.New("--serial-parameter and --model-parameter are for --allow-list and --supplier")
		case want.Function != "":
			want.Kind = "WEBHOOK"
		default:
			want.Kind = "USER_GROUP"
		}
		made, err := api.PutApprovalAuthority(cmd.Context(), args[0], want)
		return authoritiesTable([]apiclient.ApprovalAuthority{made}, made), err
	})
}

func (c *command) approvalAuthorityDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete-authority NAME", Short: "Remove an authority that no binding asks", Args: cobra.ExactArgs(1),
		Example: "  muster approvals delete-authority erp",
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		return api.DeleteApprovalAuthority(cmd.Context(), args[0])
	})
}

func bindingsTable(found []apiclient.ApprovalBinding, raw any) table {
	t := table{header: []string{"TEMPLATE", "RULE", "AUTHORITIES", "QUOTA", "WINDOW", "AUTOMATIC", "WAITS"}, raw: raw}
	for i := range found {
		e := &found[i]
		rule, quota, window := e.Rule, "", ""
		if e.K > 0 {
			rule += " " + strconv.Itoa(e.K)
		}
		if e.DailyQuota > 0 {
			quota = strconv.Itoa(e.DailyQuota)
		}
		if e.WindowStart != "" {
			window = e.WindowStart + "-" + e.WindowEnd
		}
		t.add(e.Template, rule, strings.Join(e.Authorities, " "), quota, window, e.AutoApproveIf, e.Window)
	}
	return t
}

func (c *command) approvalBindings() *cobra.Command {
	cmd := &cobra.Command{
		Use: "bindings", Short: "List who decides about the devices of which template", Args: cobra.NoArgs,
		Example: "  muster approvals bindings",
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.ApprovalBindings(cmd.Context(), *limit)
		return bindingsTable(found, found), err
	})
}

func (c *command) approvalBind() *cobra.Command {
	cmd := &cobra.Command{
		Use: "bind TEMPLATE", Short: "Say who decides about the devices of a template", Args: cobra.ExactArgs(1),
		Long: `Binds a template to authorities, in place of what it was bound to. All of them must
say yes, unless --any or --k says otherwise. Devices that exchange their certificate
for a new one are not asked about.

--auto-if is a query over the device: template, method, claim, clientId, address,
thing and parameters.NAME. Whoever it finds joins without anybody's word, within
claims, networks, times and quota.`,
		Example: `  muster approvals bind pumps --authority site-leads --authority security
  muster approvals bind pumps --authority site-leads --any --quota 500 --window 06:00-18:00
  muster approvals bind pumps --authority erp --auto-if 'parameters.Site:leeds' --network 10.0.0.0/8`,
	}
	f := cmd.Flags()
	want := apiclient.ApprovalBinding{}
	f.StringArrayVar(&want.Authorities, "authority", nil, "authority that is asked; may be repeated")
	anyOf := f.Bool("any", false, "one yes is enough")
	f.IntVar(&want.K, "k", 0, "so many of the authorities must say yes")
	f.StringArrayVar(&want.Claims, "claim", nil, "id of a claim certificate with which devices may come; may be repeated; any without")
	f.StringArrayVar(&want.Networks, "network", nil, "network that devices may come from; may be repeated; any without")
	f.StringVar(&want.AutoApproveIf, "auto-if", "", "query that lets devices in without a word")
	f.IntVar(&want.DailyQuota, "quota", 0, "how many devices may join in a day of UTC; 0 is no bound")
	window := f.String("window", "", "times of the day in UTC between which devices may join, such as 06:00-18:00")
	f.StringVar(&want.Window, "wait", "", "how long a device waits for people (default the setting provisioning.approval-window)")
	cmd.MarkFlagsMutuallyExclusive("any", "k")
	_ = cmd.MarkFlagRequired("authority") // it is there
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		switch {
		case *anyOf:
			want.Rule = "ANY_OF"
		case want.K > 0:
			want.Rule = "K_OF_N"
		default:
			want.Rule = "ALL_OF"
		}
		want.WindowStart, want.WindowEnd, _ = strings.Cut(*window, "-")
		made, err := api.PutApprovalBinding(cmd.Context(), args[0], want)
		return bindingsTable([]apiclient.ApprovalBinding{made}, made), err
	})
}

func (c *command) approvalUnbind() *cobra.Command {
	cmd := &cobra.Command{
		Use: "unbind TEMPLATE", Short: "Let devices of a template join as its claims, hooks and policies allow", Args: cobra.ExactArgs(1),
		Long:    "With the setting provisioning.require-binding nobody joins by the template then.",
		Example: "  muster approvals unbind pumps",
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		return api.DeleteApprovalBinding(cmd.Context(), args[0])
	})
}
