package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

const (
	// bulkEvery is the time between two looks at an edit.
	bulkEvery = 500 * time.Millisecond
	// shownRefusals is how many of the things are shown that are not changed.
	shownRefusals = 10
)

// bulkRun are the flags of commands that begin an edit.
type bulkRun struct {
	query              string
	yes, dryRun, leave bool
	perSecond          int
	format             *string
}

// flags registers them; what says what the things are asked for.
func (b *bulkRun) flags(c *command, cmd *cobra.Command, what string) {
	f := cmd.Flags()
	f.StringVar(&b.query, "query", "", "fleet query that finds the things to "+what)
	f.BoolVar(&b.yes, "yes", false, "do not ask for confirmation")
	f.BoolVar(&b.dryRun, "dry-run", false, "only show what would be done")
	paceFlags(cmd, &b.perSecond, &b.leave)
	b.format = c.outputFlag(cmd)
}

// paceFlags registers how fast, and whether to wait.
func paceFlags(cmd *cobra.Command, perSecond *int, leave *bool) {
	cmd.Flags().IntVar(perSecond, "per-second", 0, "most things to work on in a second (default the server's setting)")
	cmd.Flags().BoolVar(leave, "no-wait", false, "do not wait for the end")
}

// editFlags are what thingsEdit is asked for.
type editFlags struct {
	set              []string
	desired, shadow  string
	operation        apiclient.BulkOperation
	removeAttributes []string
}

// thingsEdit changes what a query finds.
func (c *command) thingsEdit() *cobra.Command {
	cmd := &cobra.Command{
		Use: "edit --query QUERY", Short: "Change all things that a query finds", Args: cobra.NoArgs,
		Long: `Change all things that a fleet query finds: attributes, type, group memberships
and billing group together, or the desired state of one shadow.

First it shows what would be changed, and asks for the number of things. Then the
server works on exactly the things that matched, at a bounded pace, also when this
command ends or the server restarts. What each thing was before is kept:
muster bulk-edits undo ID brings it back.

The exit code is 0 when every thing is as asked for. When all are so before, no
edit begins, and with --yes nothing is printed but a note to standard error.`,
		Example: `  muster things edit --query 'attributes.site:leeds' --set-attribute owner=ops --dry-run
  muster things edit --query 'attributes.site:leeds' --set-attribute owner=ops --remove-attribute old
  muster things edit --query 'thingTypeName:Pump AND attributes.hw:r2' --set-type PumpR2 --add-group r2
  muster things edit --query 'thingGroupNames:pilot' --shadow-desired '{"reportIntervalSeconds":60}' --per-second 20
  muster things edit --query 'connectivity.connected:false' --set-billing-group idle --yes --no-wait`,
	}
	var run bulkRun
	var e editFlags
	run.flags(c, cmd, "change")
	f, o := cmd.Flags(), &e.operation
	f.StringArrayVar(&e.set, "set-attribute", nil, "NAME=VALUE; may be repeated")
	f.StringArrayVar(&e.removeAttributes, "remove-attribute", nil, "NAME; may be repeated")
	f.StringVar(&o.SetThingType, "set-type", "", "thing type")
	f.BoolVar(&o.RemoveThingType, "remove-type", false, "leave things without a type")
	f.StringArrayVar(&o.AddToThingGroups, "add-group", nil, "static thing group to add to; may be repeated")
	f.StringArrayVar(&o.RemoveFromThingGroups, "remove-group", nil, "static thing group to remove from; may be repeated")
	f.StringVar(&o.SetBillingGroup, "set-billing-group", "", "billing group to move to, out of another one")
	f.BoolVar(&o.ClearBillingGroup, "clear-billing-group", false, "leave things in no billing group")
	f.StringVar(&e.desired, "shadow-desired", "", "JSON object to merge into the desired state; null removes")
	f.StringVar(&e.shadow, "shadow", "", "named shadow (default the classic one)")
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) error {
		if err := e.read(cmd); err != nil {
			return err
		}
		return c.runBulk(cmd, api, &run, e.operation)
	})
}

// changing are the flags that say what to change.
var changing = []string{
	"set-attribute", "remove-attribute", "set-type", "remove-type", "add-group", "remove-group", "set-billing-group", "clear-billing-group", "shadow-desired", "shadow",
}

// read makes the operation of what the flags say. An empty value, as of a variable
// that is not set, would pass for a flag that is not there.
func (e *editFlags) read(cmd *cobra.Command) error {
	if !slices.ContainsFunc(changing, cmd.Flags().Changed) {
		return mistake(cmd, errors.New("say what to change: --set-attribute NAME=VALUE, --add-group GROUP, --shadow-desired JSON or the like"))
	}
	for _, name := range []string{"set-type", "set-billing-group", "shadow-desired", "shadow"} {
		if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
			return mistake(cmd, fmt.Errorf("--%s is empty", name))
		}
	}
	attributes, err := parsePairs(e.set)
	if err != nil {
		return fmt.Errorf("--set-attribute %w", err)
	}
	e.operation.SetAttributes, e.operation.RemoveAttributes = attributes, e.removeAttributes
	if e.desired == "" {
		if e.shadow != "" {
			return errors.New("--shadow is for --shadow-desired")
		}
		return nil
	}
	if !json.Valid([]byte(e.desired)) {
		return fmt.Errorf("--shadow-desired is not JSON: %s", e.desired)
	}
	e.operation.Shadow = &apiclient.BulkShadow{Name: e.shadow, Desired: json.RawMessage(e.desired)}
	return nil
}

// runBulk previews, asks, starts and waits.
func (c *command) runBulk(cmd *cobra.Command, api *apiclient.Client, run *bulkRun, o apiclient.BulkOperation) error {
	if run.query == "" {
		return mistake(cmd, errors.New("--query is missing"))
	}
	p, err := api.PreviewBulkEdit(cmd.Context(), run.query, o)
	if err != nil {
		return err //nolint:wrapcheck // the server's own words
	}
	if run.dryRun && *run.format == formatJSON {
		return c.printJSON(p)
	}
	if !run.dryRun && *run.format != formatTable && !run.yes {
		return fmt.Errorf("-o %s cannot ask for confirmation: add --yes", *run.format)
	}
	if run.dryRun || !run.yes {
		if err := c.printPreview(*run.format, p, o.Drift != nil); err != nil {
			return err
		}
	}
	if p.Things == 0 && (o.Drift == nil || p.Examined == 0) && !run.dryRun {
		return errors.New("nothing matches, nothing is changed")
	}
	if run.dryRun {
		return nil
	}
	if p.Changes == 0 && (p.Examined == p.Things || o.Drift != nil) {
		if p.Refused > 0 {
			if run.yes {
				if err := c.sayRefused(p.Refusals); err != nil {
					return err
				}
			}
			return fmt.Errorf("nothing would be changed, and %s refused", counted(p.Refused, "thing would be", "things would be"))
		}
		_, err := fmt.Fprintln(c.Err, "All things are so already, nothing is changed.")
		return err //nolint:wrapcheck // standard error says it all
	}
	if !run.yes {
		if err := c.confirm(cmd, p.Things); err != nil {
			return err
		}
	}
	e, err := api.StartBulkEdit(cmd.Context(), run.query, o, p.ConfirmationToken, run.perSecond)
	if err != nil {
		return err //nolint:wrapcheck // the server's own words
	}
	return c.followBulk(cmd.Context(), api, e, *run.format, run.leave)
}

// printPreview shows what would be done; for an operation on drift not all that
// match are meant.
func (c *command) printPreview(format string, p apiclient.BulkPreview, compared bool) error {
	t := table{header: []string{"THING", "BEFORE", "AFTER"}}
	for _, s := range p.Sample {
		t.add(s.ThingName, image(s.Before), image(s.After))
	}
	for i, f := range p.Refusals {
		if format == formatTable && i == shownRefusals {
			t.add(fmt.Sprintf("… %d more", p.Refused-i), "refused", "")
			break
		}
		t.add(f.ThingName, "refused", f.Code+": "+f.Message)
	}
	if format == formatCSV {
		return c.print(format, t)
	}
	if len(t.rows) > 0 {
		if err := c.print(format, t); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(c.Out); err != nil {
			return fmt.Errorf("write preview: %w", err)
		}
	}
	looked := ""
	if p.Examined < p.Things {
		looked = fmt.Sprintf("; of the first %d", p.Examined)
	}
	matches := counted(p.Things, "thing matches", "things match")
	if compared {
		matches = fmt.Sprintf("%s compared, %d to be settled", counted(p.Examined, "thing", "things"), p.Things)
	}
	_, err := fmt.Fprintf(c.Out, "%s\n", fmt.Sprintf("%s%s: %d would change, %d %s so already, %d would be refused",
		matches, looked, p.Changes, p.Unchanged, oneOr(p.Unchanged, "is", "are"), p.Refused))
	if err != nil {
		return fmt.Errorf("write preview: %w", err)
	}
	return nil
}

// counted is a number with its noun.
func counted(n int, one, more string) string { return strconv.Itoa(n) + " " + oneOr(n, one, more) }

// oneOr is the singular for 1.
func oneOr(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// image renders what an edit touches.
func image(i apiclient.BulkImage) string {
	if i.Thing != nil {
		return whole(i.Thing)
	}
	var parts []string
	add := func(name string, value *string) {
		if value != nil {
			parts = append(parts, name+"="+cmp.Or(*value, "-"))
		}
	}
	none := ""
	add("type", i.ThingTypeName)
	for _, name := range sortedKeys(i.Attributes) {
		value := i.Attributes[name]
		if value == nil {
			value = &none
		}
		add(name, value)
	}
	for _, group := range sortedKeys(i.ThingGroups) {
		member := "no"
		if i.ThingGroups[group] {
			member = "yes"
		}
		parts = append(parts, "group:"+group+"="+member)
	}
	add("billing", i.BillingGroupName)
	if len(i.Desired) > 0 {
		parts = append(parts, string(i.Desired))
	}
	if len(i.Drift) > 0 {
		parts = append(parts, differencesLine(i.Drift))
	}
	return cmp.Or(strings.Join(parts, " "), "-")
}

// whole renders a thing that ends or begins.
func whole(t *apiclient.BulkThing) string {
	parts := []string{"thing"}
	if t.ThingTypeName != "" {
		parts = append(parts, "type="+t.ThingTypeName)
	}
	if len(t.Attributes) > 0 {
		parts = append(parts, pairs(t.Attributes))
	}
	for _, group := range t.ThingGroups {
		parts = append(parts, "group:"+group)
	}
	if t.BillingGroupName != "" {
		parts = append(parts, "billing="+t.BillingGroupName)
	}
	return strings.Join(parts, " ")
}

// confirm wants the number of things typed.
func (c *command) confirm(cmd *cobra.Command, n int) error {
	return c.typed(cmd, "Type the number of things", strconv.Itoa(n))
}

// followBulk shows an edit until it ends, and what became of it.
func (c *command) followBulk(ctx context.Context, api *apiclient.Client, e apiclient.BulkEdit, format string, leave bool) error {
	if leave {
		return c.print(format, bulkTable([]apiclient.BulkEdit{e}, e))
	}
	bars := &progress{out: c.Err, terminal: c.Terminal}
	for id := e.BulkEditID; !bulkEnded(e.Status) && e.Status != bulkPaused; {
		bars.update("things", e.Things-e.Remaining, e.Things)
		timer := time.NewTimer(bulkEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			bars.end()
			_, _ = fmt.Fprintf(c.Err, "The edit goes on: muster bulk-edits show %s\n", id) // the command ends anyway
			return ctx.Err()
		}
		now, err := api.DescribeBulkEdit(ctx, id)
		if err != nil {
			bars.end()
			return fmt.Errorf("the edit goes on, but cannot be watched (muster bulk-edits show %s): %w", id, err)
		}
		e = now
	}
	bars.update("things", e.Things-e.Remaining, e.Things)
	bars.end()
	if err := c.print(format, bulkTable([]apiclient.BulkEdit{e}, e)); err != nil {
		return err
	}
	return c.judgeBulk(ctx, api, e)
}

// Statuses of edits.
const (
	bulkPaused    = "PAUSED"
	bulkCompleted = "COMPLETED"
)

// bulkEnded reports a status after which nothing happens.
func bulkEnded(status string) bool {
	return status == bulkCompleted || status == "CANCELED" || status == "FAILED"
}

// judgeBulk is an error when not every thing is as asked for.
func (c *command) judgeBulk(ctx context.Context, api *apiclient.Client, e apiclient.BulkEdit) error {
	if n := e.Failed + e.Conflicts; n > 0 {
		failures, err := api.BulkEditFailures(ctx, e.BulkEditID, shownRefusals)
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		if err := c.sayRefused(failures); err != nil {
			return err
		}
		return fmt.Errorf("%s not changed; all of them: muster bulk-edits failures %s", counted(n, "thing was", "things were"), e.BulkEditID)
	}
	if e.Status != bulkCompleted {
		return errors.New(strings.TrimSpace("the edit is " + e.Status + " " + e.Reason))
	}
	return nil
}

// sayRefused tells of the first things that are not changed and why.
func (c *command) sayRefused(failures []apiclient.BulkFailure) error {
	for _, f := range failures[:min(len(failures), shownRefusals)] {
		if _, err := fmt.Fprintf(c.Err, "%s: %s: %s\n", printable(f.ThingName), f.Code, printable(f.Message)); err != nil {
			return fmt.Errorf("write failures: %w", err)
		}
	}
	return nil
}

// bulkTable shows edits; raw is for JSON.
func bulkTable(edits []apiclient.BulkEdit, raw any) table {
	t := table{header: []string{"ID", "STATUS", "THINGS", "CHANGED", "UNCHANGED", "FAILED", "CONFLICTS", "REMAINING", "CREATED", "BY", "WHAT"}, raw: raw}
	for i := range edits {
		e := &edits[i]
		t.add(e.BulkEditID, e.Status, strconv.Itoa(e.Things), strconv.Itoa(e.Changed), strconv.Itoa(e.Unchanged), strconv.Itoa(e.Failed),
			strconv.Itoa(e.Conflicts), strconv.Itoa(e.Remaining), e.CreatedAt, cmp.Or(e.StartedBy.ARN, e.StartedBy.ID, e.StartedBy.Kind), bulkWhat(e))
	}
	return t
}

// bulkWhat says what an edit does to what.
func bulkWhat(e *apiclient.BulkEdit) string {
	if e.UndoOf != "" {
		return "undo " + e.UndoOf
	}
	o := &e.Operation
	var parts []string
	if len(o.SetAttributes) > 0 {
		parts = append(parts, "set "+pairs(o.SetAttributes))
	}
	for _, each := range []struct {
		say   string
		names []string
	}{{"remove ", o.RemoveAttributes}, {"into group ", o.AddToThingGroups}, {"out of group ", o.RemoveFromThingGroups}} {
		if len(each.names) > 0 {
			parts = append(parts, each.say+strings.Join(each.names, " "))
		}
	}
	for _, each := range []struct {
		is  bool
		say string
	}{
		{o.SetThingType != "", "type " + o.SetThingType},
		{o.RemoveThingType, "remove type"},
		{o.SetBillingGroup != "", "billing group " + o.SetBillingGroup},
		{o.ClearBillingGroup, "clear billing group"},
		{o.Delete != nil && o.Delete.Decommission, "decommission"},
		{o.Delete != nil && !o.Delete.Decommission, "delete"},
	} {
		if each.is {
			parts = append(parts, each.say)
		}
	}
	if o.Drift != nil {
		parts = append(parts, strings.ToLower(o.Drift.Action+" drift of "+strings.Join(o.Drift.Kinds, " ")))
	}
	if o.Shadow != nil {
		parts = append(parts, strings.TrimSpace("desired "+o.Shadow.Name)+" "+string(o.Shadow.Desired))
	}
	return strings.Join(parts, ", ") + " where " + e.QueryString
}

// bulkEdits is the family of commands about edits by query.
func (c *command) bulkEdits() *cobra.Command {
	cmd := &cobra.Command{Use: "bulk-edits", Short: "Watch, pause, cancel and undo edits of many things"}
	cmd.AddCommand(c.bulkList(), c.bulkShow(), c.bulkFailures(), c.bulkChanges(), c.bulkUndo(),
		c.bulkControl("pause", "Let an edit rest", "Things under way are finished first. muster bulk-edits resume goes on."),
		c.bulkControl("resume", "Go on with a paused edit", "It goes on where it was."),
		c.bulkControl("cancel", "End an edit for good", "What it has done stays done; muster bulk-edits undo takes it back."))
	return cmd
}

func (c *command) bulkList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List edits, newest first", Args: cobra.NoArgs,
		Example: "  muster bulk-edits list\n  muster bulk-edits list --limit 5 -o json",
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		edits, err := api.BulkEdits(cmd.Context(), *limit)
		return bulkTable(edits, edits), err
	})
}

func (c *command) bulkShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show one edit and how far it is", Args: cobra.ExactArgs(1),
		Example: "  muster bulk-edits show 7c9e6679-7425-40de-944b-e07fc1f90ae7\n  muster bulk-edits show 7c9e6679-7425-40de-944b-e07fc1f90ae7 --wait",
	}
	format := c.outputFlag(cmd)
	wait := cmd.Flags().Bool("wait", false, "wait for the end")
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		e, err := api.DescribeBulkEdit(cmd.Context(), args[0])
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		if *wait {
			return c.followBulk(cmd.Context(), api, e, *format, false)
		}
		if *format != formatTable {
			return c.print(*format, bulkTable([]apiclient.BulkEdit{e}, e))
		}
		return c.printTable(bulkPage(&e))
	})
}

// bulkPage shows one edit, a line a fact.
func bulkPage(e *apiclient.BulkEdit) table {
	t := table{header: []string{"bulk edit", e.BulkEditID}, exact: true}
	add := func(name, value string) {
		if value != "" {
			t.add(name, value)
		}
	}
	add("status", strings.TrimSpace(e.Status+" "+e.Reason))
	add("what", bulkWhat(e))
	add("undone by", e.UndoneBy)
	add("started by", cmp.Or(e.StartedBy.ARN, e.StartedBy.ID, e.StartedBy.Kind))
	add("created", e.CreatedAt)
	add("finished", e.FinishedAt)
	add("things", strconv.Itoa(e.Things))
	add("changed", strconv.Itoa(e.Changed))
	add("unchanged", strconv.Itoa(e.Unchanged))
	add("failed", strconv.Itoa(e.Failed))
	if e.UndoOf != "" || e.Operation.Drift != nil {
		add("conflicts", strconv.Itoa(e.Conflicts))
	}
	add("remaining", strconv.Itoa(e.Remaining))
	pace := fmt.Sprintf("%d/s at most", e.ThingsPerSecond)
	if e.Rate > 0 {
		pace = fmt.Sprintf("%.1f/s of %d/s", e.Rate, e.ThingsPerSecond)
		left := time.Duration(float64(e.Remaining) / e.Rate * float64(time.Second))
		add("ends in about", left.Round(time.Second).String())
	}
	add("pace", pace)
	return t
}

func (c *command) bulkFailures() *cobra.Command {
	cmd := &cobra.Command{
		Use: "failures ID", Short: "List the things that an edit has not changed, and why", Args: cobra.ExactArgs(1),
		Example: "  muster bulk-edits failures 7c9e6679-7425-40de-944b-e07fc1f90ae7 -o csv >failures.csv",
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		failures, err := api.BulkEditFailures(cmd.Context(), args[0], *limit)
		t := table{header: []string{"THING", "AT", "CODE", "MESSAGE"}, raw: failures}
		for _, f := range failures {
			t.add(f.ThingName, f.At, f.Code, f.Message)
		}
		return t, err
	})
}

func (c *command) bulkChanges() *cobra.Command {
	cmd := &cobra.Command{
		Use: "changes ID", Short: "List what an edit has changed, before and after", Args: cobra.ExactArgs(1),
		Long: "List what each thing was before the edit and is after it: what an undo goes by.",
		Example: `  muster bulk-edits changes 7c9e6679-7425-40de-944b-e07fc1f90ae7
  muster bulk-edits changes 7c9e6679-7425-40de-944b-e07fc1f90ae7 --limit 0 -o json >before.json`,
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		changes, err := api.BulkEditChanges(cmd.Context(), args[0], *limit)
		t := table{header: []string{"THING", "AT", "BEFORE", "AFTER"}, raw: changes}
		for _, change := range changes {
			t.add(change.ThingName, change.At, image(change.Before), image(change.After))
		}
		return t, err
	})
}

// bulkControl is a command that takes an id alone.
func (c *command) bulkControl(verb, short, long string) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " ID", Short: short, Long: short + ".\n" + long, Args: cobra.ExactArgs(1),
		Example: "  muster bulk-edits " + verb + " 7c9e6679-7425-40de-944b-e07fc1f90ae7",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		e, err := api.ControlBulkEdit(cmd.Context(), args[0], verb)
		return bulkTable([]apiclient.BulkEdit{e}, e), err
	})
}

func (c *command) bulkUndo() *cobra.Command {
	cmd := &cobra.Command{
		Use: "undo ID", Short: "Bring things back to what they were before an edit", Args: cobra.ExactArgs(1),
		Long: `Bring things back to what they were before an edit that is finished or canceled.
A thing that is no longer as the edit left it is left alone and listed as a
conflict. Deleted things are made anew, with attributes, type, billing group and
static groups: they have other ids, and neither shadows nor certificates.`,
		Example: `  muster bulk-edits undo 7c9e6679-7425-40de-944b-e07fc1f90ae7
  muster bulk-edits undo 7c9e6679-7425-40de-944b-e07fc1f90ae7 --per-second 10 --no-wait`,
	}
	format := c.outputFlag(cmd)
	var perSecond int
	var leave bool
	paceFlags(cmd, &perSecond, &leave)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		e, err := api.UndoBulkEdit(cmd.Context(), args[0], perSecond)
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		return c.followBulk(cmd.Context(), api, e, *format, leave)
	})
}
