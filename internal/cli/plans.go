package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// plans is the family of commands on provisioning plans.
func (c *command) plans() *cobra.Command {
	cmd := &cobra.Command{
		Use: "plan", Short: "Write, publish and compare provisioning plans",
		Long: `A provisioning plan says how devices of a product line come into service: stages
with the actor who is answerable for each, steps by hand and by program, what
comes after what, which evidence is kept, and what must hold after the activation.

A plan is written as YAML. create makes it, update changes its draft, publish
freezes the draft and puts it in force. Devices go on by the version that they
began with. muster onboarding shows how far each device is.`,
		Example: `  muster plan create -f plan.yaml
  muster plan publish pumps-line-a
  muster plan export pumps-line-a > plan.md`,
	}
	cmd.AddCommand(c.planCreate(), c.planUpdate(), c.planList(), c.planShow(), c.planPublish(), c.planDiff(), c.planRetire(), c.planExport())
	return cmd
}

// fileFlag registers the file of a plan.
func fileFlag(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("file", "f", "", "file with the plan, in YAML; - is standard input")
}

// maxPlanFile bounds a file in bytes: the server takes less.
const maxPlanFile = 64 << 10

// readPlan reads the file of a plan.
func readPlan(cmd *cobra.Command, file string) (string, error) {
	in := cmd.InOrStdin()
	switch file {
	case "":
		return "", mistake(cmd, errors.New("--file is missing"))
	case "-":
	default:
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("read plan: %w", err)
		}
		defer f.Close() //nolint:errcheck // it was only read
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxPlanFile+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read plan: %w", err)
	case len(data) == 0:
		return "", fmt.Errorf("read plan: %s is empty", file)
	case len(data) > maxPlanFile:
		return "", fmt.Errorf("read plan: %s is longer than %d bytes", file, maxPlanFile)
	}
	return string(data), nil
}

// planTable shows one version of a plan.
func planTable(p *apiclient.Plan) table {
	t := table{header: []string{"PROPERTY", "VALUE"}, raw: p}
	for _, row := range [][2]string{
		{"plan", p.ID},
		{"version", strconv.FormatInt(p.Version, 10)},
		{"status", p.Status},
		{"written", p.WrittenAt},
		{"written by", named(p.WrittenBy)},
		{"published", p.PublishedAt},
		{"published by", named(p.PublishedBy)},
		{"retired", p.RetiredAt},
		{"retired by", named(p.RetiredBy)},
	} {
		if row[1] != "" {
			t.add(row[0], row[1])
		}
	}
	return t
}

// named is the shortest that names somebody.
func named(p apiclient.Principal) string {
	if p.ARN != "" {
		return p.ARN
	}
	return strings.TrimSpace(p.Kind + " " + p.ID)
}

func (c *command) planCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "create", Short: "Make a provisioning plan from a file, as a draft", Args: cobra.NoArgs,
		Long: `Makes a provisioning plan as the draft of version 1. What is wrong with the file
is told with its line, its field and the rule that it breaks.`,
		Example: `  muster plan create -f plan.yaml
  cat plan.yaml | muster plan create -f -`,
	}
	file := fileFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		body, err := readPlan(cmd, *file)
		if err != nil {
			return table{}, err
		}
		p, err := api.CreatePlan(cmd.Context(), body)
		return planTable(&p), err //nolint:wrapcheck // the server's own words
	})
}

func (c *command) planUpdate() *cobra.Command {
	cmd := &cobra.Command{
		Use: "update PLAN", Short: "Change the draft of a provisioning plan, or begin the next one", Args: cobra.ExactArgs(1),
		Long: `Replaces the draft of a plan. Where there is none, since all versions were
published, it begins the draft of the next version: published ones stay as they
are.`,
		Example: "  muster plan update pumps-line-a -f plan.yaml",
	}
	file := fileFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		body, err := readPlan(cmd, *file)
		if err != nil {
			return table{}, err
		}
		p, err := api.UpdatePlan(cmd.Context(), args[0], body)
		return planTable(&p), err //nolint:wrapcheck // the server's own words
	})
}

func (c *command) planList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List provisioning plans by id", Args: cobra.NoArgs,
		Example: `  muster plan list
  muster plan list -o json`,
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.ListPlans(cmd.Context(), *limit)
		t := table{header: []string{"PLAN", "NAME", "STATUS", "IN FORCE", "DRAFT", "CHANGED"}, raw: found}
		for i := range found {
			e := &found[i]
			t.add(e.ID, e.Name, e.Status, count(e.Published), count(e.Draft), e.Changed)
		}
		return t, err
	})
}

// count is a number, empty for none.
func count(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func (c *command) planShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show PLAN", Short: "Show a provisioning plan, or the text of one of its versions", Args: cobra.ExactArgs(1),
		Long: "Shows the version in force, or the newest of a plan of which none is.",
		Example: `  muster plan show pumps-line-a
  muster plan show pumps-line-a --version 2 --body > plan.yaml`,
	}
	version := cmd.Flags().Int64("version", 0, "this version")
	body := cmd.Flags().Bool("body", false, "print the text as it was handed in")
	format := c.outputFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		p, err := api.DescribePlan(cmd.Context(), args[0], *version)
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		if *body {
			_, err := io.WriteString(c.Out, p.Body)
			return err //nolint:wrapcheck // standard output says it all
		}
		return c.print(*format, planTable(&p))
	})
}

func (c *command) planPublish() *cobra.Command {
	cmd := &cobra.Command{
		Use: "publish PLAN", Short: "Freeze the draft of a provisioning plan and put it in force", Args: cobra.ExactArgs(1),
		Long: `Freezes the draft of a plan: nobody can change it any more. Devices that begin
from now on follow it; those under way go on by their version.`,
		Example: "  muster plan publish pumps-line-a",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		p, err := api.PublishPlan(cmd.Context(), args[0])
		return planTable(&p), err //nolint:wrapcheck // the server's own words
	})
}

func (c *command) planDiff() *cobra.Command {
	cmd := &cobra.Command{
		Use: "diff PLAN", Short: "Compare two versions of a provisioning plan", Args: cobra.ExactArgs(1),
		Long: `Lists the fields that differ between two versions, by default the newest one and
the one before it.`,
		Example: `  muster plan diff pumps-line-a
  muster plan diff pumps-line-a --from 1 --to 3`,
	}
	from := cmd.Flags().Int64("from", 0, "the older version")
	to := cmd.Flags().Int64("to", 0, "the newer version")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		d, err := api.DiffPlan(cmd.Context(), args[0], *from, *to)
		t := table{header: []string{"FIELD", fmt.Sprintf("VERSION %d", d.From), fmt.Sprintf("VERSION %d", d.To)}, raw: d}
		for _, e := range d.Differences {
			t.add(e.Field, e.Before, e.After)
		}
		return t, err
	})
}

func (c *command) planRetire() *cobra.Command {
	cmd := &cobra.Command{
		Use: "retire PLAN", Short: "Let no further device follow a provisioning plan", Args: cobra.ExactArgs(1),
		Long: `Retires the version in force: no device begins by the plan any more. Devices under
way go on. Publishing a later draft puts the plan in force again.`,
		Example: `  muster plan retire pumps-line-a
  muster plan retire pumps-line-a --yes`,
	}
	yes := yesFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if err := c.confirmed(cmd, *yes, "plan", args[0]); err != nil {
			return table{}, err
		}
		p, err := api.RetirePlan(cmd.Context(), args[0])
		return planTable(&p), err //nolint:wrapcheck // the server's own words
	})
}

// formatFlag registers --format of documents.
func formatFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("format", "md", "md, which is Markdown; there is no other")
}

// checkFormat refuses other formats.
func checkFormat(cmd *cobra.Command, format string) error {
	if format != "md" {
		return mistake(cmd, fmt.Errorf("--format %q is not md", format))
	}
	return nil
}

func (c *command) planExport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export PLAN", Short: "Print a provisioning plan as a document", Args: cobra.ExactArgs(1),
		Example: `  muster plan export pumps-line-a > plan.md
  muster plan export pumps-line-a --version 2`,
	}
	version := cmd.Flags().Int64("version", 0, "this version instead of the one in force")
	format := formatFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		if err := checkFormat(cmd, *format); err != nil {
			return err
		}
		text, err := api.PlanDocument(cmd.Context(), args[0], *version)
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		_, err = io.WriteString(c.Out, text)
		return err //nolint:wrapcheck // standard output says it all
	})
}
