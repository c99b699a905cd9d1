package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/sim"
)

// factoryFlags are the properties of a simulated factory.
type factoryFlags struct {
	on           bool
	rogues       int
	run, out     string
	outputAsJSON bool
}

// factoryFlags registers them.
func (*command) factoryFlags(cmd *cobra.Command) *factoryFlags {
	f := &factoryFlags{}
	flags := cmd.Flags()
	flags.BoolVar(&f.on, "factory", false, "take devices from a signed list to active service, once, and report; needs allow-list.identity-file on the server")
	flags.IntVar(&f.rogues, "rogues", 50, "devices that try to join and must not, with --factory")
	flags.StringVar(&f.run, "run", "", "beginning of the names that --factory makes, new for each run (default f and the time)")
	flags.StringVar(&f.out, "out", "", "folder for the documents of the plan, of one device and of its ledger, with --factory")
	flags.BoolVar(&f.outputAsJSON, "json", false, "report of --factory as JSON")
	return f
}

// factory runs a simulated factory and fails when anything is not as it should be.
func (c *command) factory(ctx context.Context, t *target, f *factoryFlags, api *apiclient.Client, devices int, broker string, bars *progress) error {
	if f.run == "" {
		const base = 36
		f.run = "f" + strconv.FormatInt(c.Now().Unix(), base)
	}
	factory, err := sim.NewFactory(sim.FactoryOptions{
		API: api, Broker: broker, CAFile: t.caFile(), Run: f.run, Devices: devices, Rogues: f.rogues, Progress: bars.update,
		As: func(accessKeyID, secret string) (*apiclient.Client, error) {
			return t.clientAs(apiclient.Credentials{AccessKeyID: accessKeyID, Secret: secret, Region: api.Region()})
		},
		Logger: slog.New(slog.NewTextHandler(c.Err, nil)),
	})
	if err != nil {
		return err //nolint:wrapcheck // it names the option
	}
	report, err := factory.Run(ctx)
	bars.end()
	if err != nil {
		return errors.Join(c.factoryReport(&report), err)
	}
	if err := f.save(&report, c.Now()); err != nil {
		return err
	}
	if f.outputAsJSON {
		encoder := json.NewEncoder(c.Out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	} else {
		err = c.factoryReport(&report)
	}
	if err == nil && len(report.Problems) > 0 {
		err = fmt.Errorf("%d problems", len(report.Problems))
	}
	return err //nolint:wrapcheck // standard output says it all
}

// save writes the documents.
func (f *factoryFlags) save(r *sim.FactoryReport, at time.Time) error {
	if f.out == "" {
		return nil
	}
	entries, err := decodeEntries(r.Ledger.Entries)
	if err != nil {
		return err
	}
	const folder, document = 0o755, 0o644
	if err := os.MkdirAll(f.out, folder); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	for name, text := range map[string]string{"plan.md": r.PlanDocument, "device.md": r.DeviceDocument, "ledger.md": ledgerDocument(&r.Ledger, entries, at)} {
		if err := os.WriteFile(filepath.Join(f.out, name), []byte(text), document); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	return nil
}

// factoryReport is a report for people.
func (c *command) factoryReport(r *sim.FactoryReport) error {
	var b strings.Builder
	fmt.Fprintf(&b, "devices made        %6d\n", r.Devices)
	fmt.Fprintf(&b, "joined              %6d  (%d of them approved by a person)\n", r.Joined, r.Approved)
	fmt.Fprintf(&b, "active              %6d\n", r.Active)
	fmt.Fprintf(&b, "rogues              %6d  (%d refused, %d raised)\n", r.Rogues, r.Refused, r.Raised)
	fmt.Fprintf(&b, "in quarantine       %6d  (a rogue has used their entry of the list as well)\n", r.Quarantined)
	verified := "do not hold"
	if r.Verified {
		verified = "verified"
	}
	fmt.Fprintf(&b, "complete ledgers    %6d  (chains %s)\n", r.Complete, verified)
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "problem: %s\n", p)
	}
	_, err := fmt.Fprint(c.Out, b.String())
	return err //nolint:wrapcheck // standard output says it all
}
