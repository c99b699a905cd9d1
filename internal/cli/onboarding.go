package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

// onboardings is the family of commands on devices that come into service.
func (c *command) onboardings() *cobra.Command {
	cmd := &cobra.Command{
		Use: "onboarding", Short: "See how far devices are on their way into service, and report steps",
		Long: `Each device that follows a provisioning plan has a record: how far it is, which
steps were done by whom, when and with what evidence, and what is missing. Muster
notes what it sees; what people do is reported with complete.`,
		Example: `  muster onboarding show SN-1042
  muster onboarding complete SN-1042 burn-in --evidence protocol-1042.pdf
  muster onboarding export SN-1042 > SN-1042.md`,
	}
	cmd.AddCommand(c.onboardingExpect(), c.onboardingShow(), c.onboardingList(), c.onboardingStuck(), c.onboardingComplete(), c.onboardingExport())
	return cmd
}

func (c *command) onboardingExpect() *cobra.Command {
	cmd := &cobra.Command{
		Use: "expect DEVICE", Short: "Announce a device that is going to come", Args: cobra.ExactArgs(1),
		Long: `Begins the record of a device, by the key that its plan finds devices by: the
unique id, the name of the thing, or the id of the certificate. --metadata tells
what is known from manufacture: uniqueId, manufacturer, modelNumber, generation,
manufacturingDate.`,
		Example: `  muster onboarding expect SN-1042 --plan pumps-line-a \
    --metadata uniqueId=SN-1042 --metadata manufacturer=acme --metadata modelNumber=P-100 --metadata manufacturingDate=2026-11-26`,
	}
	plan := cmd.Flags().String("plan", "", "the plan that it follows")
	metadata := cmd.Flags().StringArray("metadata", nil, "a fact of manufacture, name=value; may be repeated")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		facts, err := parsePairs(*metadata)
		if err == nil && *plan == "" {
			err = errors.New("--plan is missing")
		}
		if err != nil {
			return table{}, mistake(cmd, err)
		}
		d, err := api.ExpectDevice(cmd.Context(), args[0], *plan, facts)
		return deviceTable(&d), err //nolint:wrapcheck // the server's own words
	})
}

// deviceTable shows how far a device is: what it is, then its steps.
func deviceTable(d *apiclient.OnboardedDevice) table {
	t := table{header: []string{"PROPERTY", "VALUE"}, raw: d}
	stuck := ""
	if d.Stuck {
		stuck = "since " + d.StuckAt
	}
	for _, row := range [][2]string{
		{"device", d.Key},
		{"state", d.State},
		{"plan", d.Plan + " version " + strconv.FormatInt(d.PlanVersion, 10)},
		{"stage", d.Stage},
		{"in stage since", d.StageSince},
		{"stuck", stuck},
		{"completed", d.Completed},
		{"thing", d.Thing},
		{"certificate", d.Certificate},
		{"announced", pairs(d.Metadata)},
		{"problems", strings.Join(d.Problems, "; ")},
	} {
		if row[1] != "" {
			t.add(row[0], row[1])
		}
	}
	for _, s := range d.Steps {
		state := s.Completed
		switch {
		case state != "":
		case len(s.WaitsFor) > 0:
			state = "waits for " + strings.Join(s.WaitsFor, ", ")
		default:
			state = "can be done"
		}
		t.add("step "+s.Stage+"/"+s.Step, state)
	}
	for _, e := range d.ExitCriteria {
		t.add("criterion "+e.Predicate, e.Outcome+", by "+e.Deadline)
	}
	return t
}

func (c *command) onboardingShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show DEVICE", Short: "Show how far a device is, or its history", Args: cobra.ExactArgs(1),
		Example: `  muster onboarding show SN-1042
  muster onboarding show SN-1042 --history`,
	}
	history := cmd.Flags().Bool("history", false, "list what happened to it instead")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		d, err := api.Onboarding(cmd.Context(), args[0])
		if err != nil || !*history {
			return deviceTable(&d), err //nolint:wrapcheck // the server's own words
		}
		t := table{header: []string{"AT", "STEP", "STATE", "RESULT", "BY", "EVIDENCE", "NOTE"}, raw: d.History}
		for i := range d.History {
			e := &d.History[i]
			t.add(e.At, e.Step, e.State, e.Result, named(e.Principal), e.Evidence, e.Note)
		}
		return t, nil
	})
}

// devicesTable lists devices.
func devicesTable(found []apiclient.OnboardedDevice) table {
	t := table{header: []string{"DEVICE", "STATE", "STAGE", "SINCE", "STUCK SINCE", "PLAN", "THING"}, raw: found}
	for i := range found {
		d := &found[i]
		stuck := ""
		if d.Stuck {
			stuck = d.StuckAt
		}
		t.add(d.Key, d.State, d.Stage, d.StageSince, stuck, fmt.Sprintf("%s/%d", d.Plan, d.PlanVersion), d.Thing)
	}
	return t
}

func (c *command) onboardingList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List devices that follow a provisioning plan", Args: cobra.NoArgs,
		Long: `Lists devices by their key; those of a stage by how long they have been in it. The
states are EXPECTED, MANUFACTURED, SHIPPED, REGISTERED, APPROVED, ACTIVE, SUSPENDED,
DECOMMISSIONED and REJECTED.`,
		Example: `  muster onboarding list --state rejected
  muster onboarding list --stage shipping --older-than 168h -o csv`,
	}
	var f apiclient.OnboardingFilter
	cmd.Flags().StringVar(&f.State, "state", "", "only those in this state")
	cmd.Flags().StringVar(&f.Stage, "stage", "", "only those in this stage")
	cmd.Flags().StringVar(&f.OlderThan, "older-than", "", "with --stage: only those that have been in it for longer, as 72h")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		f.State = strings.ToUpper(f.State)
		found, err := api.ListOnboarding(cmd.Context(), f, *limit)
		return devicesTable(found), err //nolint:wrapcheck // the server's own words
	})
}

func (c *command) onboardingStuck() *cobra.Command {
	cmd := &cobra.Command{
		Use: "stuck", Short: "List devices that are in a stage for longer than their plan allows", Args: cobra.NoArgs,
		Long: "Lists stuck devices, the longest stuck first. The metric muster_onboarding_stuck counts them by stage.",
		Example: `  muster onboarding stuck
  muster onboarding stuck -o json`,
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.ListOnboarding(cmd.Context(), apiclient.OnboardingFilter{Stuck: true}, *limit)
		return devicesTable(found), err //nolint:wrapcheck // the server's own words
	})
}

func (c *command) onboardingComplete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "complete DEVICE STEP", Short: "Report that a step was done", Args: cobra.ExactArgs(2),
		Long: `Reports a step that a person or a program has done. It is refused while steps that
it depends on are not done, and without evidence where the plan requires some.
Evidence is a reference: the name of a document, a ticket, an address.`,
		Example: `  muster onboarding complete SN-1042 burn-in --evidence protocol-1042.pdf
  muster onboarding complete SN-1042 hand-over --evidence CMR-7781 --note "box 3 of 4"`,
	}
	evidence := cmd.Flags().String("evidence", "", "what it is proven by")
	note := cmd.Flags().String("note", "", "a remark")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		d, err := api.CompleteStep(cmd.Context(), args[0], args[1], *evidence, *note)
		return deviceTable(&d), err //nolint:wrapcheck // the server's own words
	})
}

func (c *command) onboardingExport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export DEVICE", Short: "Print a device's history with its plan, as an auditor reads it", Args: cobra.ExactArgs(1),
		Example: `  muster onboarding export SN-1042 > SN-1042.md
  muster onboarding export SN-1042 --format md`,
	}
	format := formatFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		if err := checkFormat(cmd, *format); err != nil {
			return err
		}
		text, err := api.OnboardingDocument(cmd.Context(), args[0])
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		_, err = io.WriteString(c.Out, text)
		return err //nolint:wrapcheck // standard output says it all
	})
}
