package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// driftKinds explains --kind.
const driftKinds = `Kinds are thing, thing-type, attribute, thing-group, billing-group, certificate,
policy and extra-policy.`

// drifts is the family of commands about what templates promised.
func (c *command) drifts() *cobra.Command {
	cmd := &cobra.Command{
		Use: "drift", Short: "Compare things with what their provisioning template promised, and bring them together",
		Long: `When a device is provisioned, what its template stated and carried out is kept:
type, attributes, groups, billing group, policies of its certificate, and that the
certificate is ACTIVE. These commands show what is otherwise by now, repair it, or
accept it as what is promised from now on. Attributes and groups beyond the promise
are no drift; policies beyond it are shown apart as extra.

muster shadow drift is about something else: shadows in which reported is not
desired.`,
		Example: `  muster drift list
  muster drift show pump-1
  muster drift repair pump-1
  muster drift repair --query 'thingTypeName:Pump AND attributes.site:leeds' --dry-run`,
	}
	cmd.AddCommand(c.driftShow(), c.driftList(), c.driftCount(), c.driftVersions(), c.driftSettle(driftRepair), c.driftSettle(driftAccept))
	return cmd
}

// promisedBy is what promised, for people.
func promisedBy(p *apiclient.ThingPromise) string {
	if p.TemplateName == "" {
		return "a body without a name"
	}
	text := p.TemplateName + " version " + strconv.FormatInt(p.TemplateVersion, 10)
	switch {
	case p.DefaultVersion == 0:
		return text + ", the template is gone"
	case p.Outdated:
		return text + ", version " + strconv.FormatInt(p.DefaultVersion, 10) + " is in force"
	}
	return text
}

// differenceCells are a difference in a row: what, promised, found, and why it
// cannot be repaired.
func differenceCells(d *apiclient.DriftDifference) []string {
	return []string{strings.TrimSpace(d.Kind + " " + d.Name), cmp.Or(d.Promised, "-"), cmp.Or(d.Found, "-"), d.Irreparable}
}

func (c *command) driftShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show THING", Short: "Show what was promised of a thing and is otherwise", Args: cobra.ExactArgs(1),
		Long: `Shows by what a thing was provisioned, what of that is otherwise by now, and which
policies its certificate has beyond it. -o json has the whole promise.`,
		Example: `  muster drift show pump-1
  muster drift show pump-1 -o json`,
	}
	format := c.outputFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		d, err := api.ThingDrift(cmd.Context(), args[0])
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		t := differenceTable(d.Differences, &d)
		for _, policy := range d.ExtraPolicies {
			t.add("EXTRA_POLICY "+policy, "-", policy, "")
		}
		if *format == formatTable {
			p := &d.Promise
			facts := table{header: []string{"thing", d.ThingName}, exact: true}
			facts.add("promised by", promisedBy(p))
			facts.add("at", p.MadeAt+" ("+p.Method+")")
			if p.AcceptedAt != "" {
				facts.add("accepted", p.AcceptedAt)
			}
			for _, k := range p.Kept {
				facts.add("older", fmt.Sprintf("%s by %s version %d", k.Part, k.Template, k.Version))
			}
			if d.CertificateID != "" {
				facts.add("certificate", d.CertificateID+" "+d.CertificateStatus)
			}
			facts.add("differences", strconv.Itoa(len(d.Differences)))
			if err := c.printTable(facts); err != nil || len(t.rows) == 0 {
				return err
			}
			if _, err := fmt.Fprintln(c.Out); err != nil {
				return fmt.Errorf("write report: %w", err)
			}
		}
		return c.print(*format, t)
	})
}

// differenceTable lists differences; raw is for JSON.
func differenceTable(differences []apiclient.DriftDifference, raw any) table {
	t := table{header: []string{"DIFFERENCE", "PROMISED", "FOUND", "NOTE"}, raw: raw}
	for i := range differences {
		t.add(differenceCells(&differences[i])...)
	}
	return t
}

// driftFilterFlags registers what selects things.
func driftFilterFlags(cmd *cobra.Command, f *apiclient.PromiseFilter) {
	cmd.Flags().StringVar(&f.Template, "template", "", "only those that this template promised")
	cmd.Flags().Int64Var(&f.Version, "version", 0, "with --template: only those of this version")
}

// kindsFlag registers --kind.
func kindsFlag(cmd *cobra.Command, what string) *[]string {
	return cmd.Flags().StringArray("kind", nil, what+"; may be repeated")
}

// kindNames are kinds as the server writes them.
func kindNames(kinds []string) []string {
	out := make([]string, len(kinds))
	for i, k := range kinds {
		out[i] = strings.ToUpper(strings.ReplaceAll(k, "-", "_"))
	}
	return out
}

func (c *command) driftList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list [QUERY]", Short: "List things that are not as their template promised", Args: cobra.MaximumNArgs(1),
		Long: `Compares the things that a fleet query finds, without one all that a template
promised something of, and lists those that differ. The server compares when it is
asked; nothing is counted beforehand. Standard error says how many were compared.

` + driftKinds,
		Example: `  muster drift list
  muster drift list 'thingTypeName:Pump AND attributes.site:leeds' --limit 0 -o csv
  muster drift list --kind policy --kind certificate
  muster drift list --kind extra-policy
  muster drift list --template Pumps --version 3
  muster drift list --template Pumps --outdated`,
	}
	var f apiclient.PromiseFilter
	driftFilterFlags(cmd, &f)
	kinds := kindsFlag(cmd, "only those that differ in this kind")
	cmd.Flags().BoolVar(&f.Outdated, "outdated", false, "those that a version promised which is not in force, whether they differ or not")
	cmd.Flags().BoolVar(&f.All, "all", false, "all, whether they differ or not")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		f.Query, f.Kinds = strings.Join(args, ""), kindNames(*kinds)
		if len(args) == 1 && args[0] == "" {
			return table{}, mistake(cmd, errors.New("QUERY is empty; leave it out for all things"))
		}
		found, err := api.ListDrift(cmd.Context(), f, *limit)
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		t := table{header: []string{"THING", "TEMPLATE", "VERSION", "IN FORCE", "DIFFERENCES", "EXTRA POLICIES"}, raw: found}
		for i := range found.Things {
			d := &found.Things[i]
			t.add(d.ThingName, cmp.Or(d.Promise.TemplateName, "-"), numberOr(d.Promise.TemplateVersion), numberOr(d.Promise.DefaultVersion),
				differencesLine(d.Differences), cmp.Or(strings.Join(d.ExtraPolicies, " "), "-"))
		}
		_, err = fmt.Fprintf(c.Err, "%s compared, %d differ\n", counted(found.Examined, "thing", "things"), found.Drifting)
		return t, err //nolint:wrapcheck // standard error says it all
	})
}

// numberOr is a number, "-" for 0.
func numberOr(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

// differencesLine renders differences in one cell.
func differencesLine(differences []apiclient.DriftDifference) string {
	parts := make([]string, len(differences))
	for i := range differences {
		d := &differences[i]
		parts[i] = strings.TrimSpace(d.Kind+" "+d.Name) + ": " + cmp.Or(d.Promised, "-") + ", is " + cmp.Or(d.Found, "-")
	}
	return cmp.Or(strings.Join(parts, "; "), "-")
}

func (c *command) driftCount() *cobra.Command {
	cmd := &cobra.Command{
		Use: "count [QUERY]", Short: "Count the things that differ, by kind", Args: cobra.MaximumNArgs(1),
		Long: `Compares the things that a fleet query finds, without one all that a template
promised something of, and counts those that differ. A thing counts once for each
kind in which it differs.

` + driftKinds,
		Example: `  muster drift count
  muster drift count 'thingGroupNames:leeds' -o json
  muster drift count --template Pumps --version 3`,
	}
	var f apiclient.PromiseFilter
	driftFilterFlags(cmd, &f)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		f.Query = strings.Join(args, "")
		found, err := api.ListDrift(cmd.Context(), f, -1)
		t := table{header: []string{"WHAT", "THINGS"}, raw: found}
		t.add("compared", strconv.Itoa(found.Examined))
		t.add("differ", strconv.Itoa(found.Drifting))
		t.add("by a version not in force", strconv.Itoa(found.Outdated))
		for _, kind := range sortedKeys(found.ByKind) {
			t.add(kind, strconv.Itoa(found.ByKind[kind]))
		}
		return t, err
	})
}

func (c *command) driftVersions() *cobra.Command {
	cmd := &cobra.Command{
		Use: "versions TEMPLATE", Short: "Count the things of a template by the version that promised them", Args: cobra.ExactArgs(1),
		Long: `Counts the things that a provisioning template has promised something of last, by
its version, and says which version is in force. muster drift list --template
TEMPLATE --outdated lists those of the others.`,
		Example: `  muster drift versions Pumps
  muster drift versions Pumps -o json`,
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		found, err := api.DriftVersions(cmd.Context(), args[0])
		t := table{header: []string{"VERSION", "THINGS", "IN FORCE"}, raw: found}
		for _, v := range found.Versions {
			inForce := ""
			if v.Version == found.DefaultVersion {
				inForce = "yes"
			}
			t.add(strconv.FormatInt(v.Version, 10), strconv.Itoa(v.Things), inForce)
		}
		return t, err
	})
}

// driftVerb is one of the two ways to settle what differs.
type driftVerb struct{ name, action, short, long, example string }

var (
	driftRepair = driftVerb{
		"repair", "REPAIR", "Bring things back to what their template promised", `Shows what differs and would be brought back, and asks. Without --kind that is
everything but two kinds: a certificate that was deactivated is mostly meant to be,
and is made ACTIVE only with --kind certificate; extra policies are detached only
with --kind extra-policy. What cannot be repaired, such as a revoked certificate, is
left and said.

One thing is repaired at once. The things of a query are repaired by the server at a
bounded pace, with a receipt for each: muster bulk-edits show, changes and failures.
What somebody changes after it was shown is not overwritten: the repair is refused,
or that thing listed as a conflict.`,
		`  muster drift repair pump-1
  muster drift repair pump-1 --kind attribute --kind policy --yes
  muster drift repair --query 'thingTypeName:Pump' --dry-run
  muster drift repair --query 'attributes.site:leeds' --kind thing-group --per-second 20`,
	}
	driftAccept = driftVerb{
		"accept", "ACCEPT", "Let what things are be what is promised of them", `Shows what differs, asks, and changes what is promised to what is; the things stay
as they are. Extra policies are accepted only with --kind extra-policy. Who accepted
what is in the audit trail. The next provisioning of the device promises anew.`,
		`  muster drift accept pump-1
  muster drift accept pump-1 --kind attribute --yes
  muster drift accept --query 'attributes.site:york' --kind attribute --dry-run`,
	}
)

// driftSettle is repair or accept.
func (c *command) driftSettle(v driftVerb) *cobra.Command {
	cmd := &cobra.Command{
		Use: v.name + " {THING | --query QUERY}", Short: v.short, Args: cobra.MaximumNArgs(1),
		Long: v.long + "\n\n" + driftKinds, Example: v.example,
	}
	var run bulkRun
	run.flags(c, cmd, v.name)
	kinds := kindsFlag(cmd, "only differences of this kind")
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		names := kindNames(*kinds)
		if len(args) == 0 {
			if run.query == "" {
				return mistake(cmd, errors.New("give a THING, or --query"))
			}
			return c.runBulk(cmd, api, &run, apiclient.BulkOperation{Drift: &apiclient.BulkDrift{Action: v.action, Kinds: names}})
		}
		if run.query != "" || run.perSecond != 0 || run.leave {
			return mistake(cmd, errors.New("--query, --per-second and --no-wait are for many things; give them or a THING"))
		}
		return c.settleOne(cmd, api, v, args[0], names, &run)
	})
}

// settleOne shows what would be done to one thing, asks, and does it.
func (c *command) settleOne(cmd *cobra.Command, api *apiclient.Client, v driftVerb, thing string, kinds []string, run *bulkRun) error {
	seen, err := api.ThingDrift(cmd.Context(), thing)
	if err != nil {
		return err //nolint:wrapcheck // the server's own words
	}
	would, err := api.SettleDrift(cmd.Context(), thing, v.name, seen.Revision, kinds, true)
	if err != nil {
		return err //nolint:wrapcheck // the server's own words
	}
	if len(would.Settled) == 0 {
		_, err := fmt.Fprintln(c.Err, "Nothing of it differs, nothing is changed.")
		return err //nolint:wrapcheck // standard error says it all
	}
	if !run.dryRun && !run.yes && *run.format != formatTable {
		return fmt.Errorf("-o %s cannot ask for confirmation: add --yes", *run.format)
	}
	if run.dryRun || !run.yes {
		if err := c.print(*run.format, settledTable(&would)); err != nil || run.dryRun {
			return err
		}
		if err := c.confirmed(cmd, false, "thing", thing); err != nil {
			return err
		}
	}
	did, err := api.SettleDrift(cmd.Context(), thing, v.name, seen.Revision, kinds, false)
	if err != nil {
		return err //nolint:wrapcheck // the server's own words
	}
	if run.yes {
		if err := c.print(*run.format, settledTable(&did)); err != nil {
			return err
		}
	}
	if n := len(did.Left); n > 0 {
		return fmt.Errorf("%s left, since it cannot be repaired", counted(n, "difference is", "differences are"))
	}
	return nil
}

// settledTable lists what is settled, and what is left.
func settledTable(s *apiclient.DriftSettled) table {
	return differenceTable(append(append([]apiclient.DriftDifference{}, s.Settled...), s.Left...), s)
}
