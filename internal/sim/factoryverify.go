package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/apiclient"
)

// verify looks whether the server knows all of it: each device's ledger has its whole
// way, the chains hold, and every rogue is on record.
func (f *Factory) verify(ctx context.Context) error {
	err := until(ctx, "all devices are active in the ledger", func(ctx context.Context) (bool, error) {
		last := f.devices[len(f.devices)-1]
		l, err := f.o.API.Ledger(ctx, last.serial)
		return err == nil && l.Activated != "", nil //nolint:nilerr // it may not be there yet
	})
	if err != nil {
		return err
	}
	if err := each(ctx, f, "ledgers", f.devices, f.checkLedger); err != nil {
		return err
	}
	if err := f.checkRogues(ctx); err != nil {
		return err
	}
	return f.checkChains(ctx)
}

// ledgerKinds are what every device's ledger must tell. That it was seen with the claim
// is not among them: connections are told a moment later, and a quick device is
// registered by then.
var ledgerKinds = []string{"EXPECTED", "LIST_CLAIMED", "REGISTERED", "ACTIVATED"}

// checkLedger compares a ledger with what the device has done.
func (f *Factory) checkLedger(ctx context.Context, d *made) error {
	var l apiclient.DeviceLedger
	err := until(ctx, d.serial+" is active in the ledger", func(ctx context.Context) (bool, error) {
		var err error
		l, err = f.o.API.Ledger(ctx, d.serial)
		return err == nil && l.Activated != "", err //nolint:wrapcheck // the server's own words
	})
	if err != nil {
		return err
	}
	var missing []string
	for _, kind := range ledgerKinds {
		if !slices.ContainsFunc(l.Entries, func(entry json.RawMessage) bool { return strings.Contains(string(entry), kind) }) {
			missing = append(missing, kind)
		}
	}
	if len(missing) > 0 || l.Rogue {
		return fmt.Errorf("%s: the ledger lacks %v, rogue %v", d.serial, missing, l.Rogue)
	}
	f.count(&f.report.Complete)
	return nil
}

// checkRogues counts what was raised.
func (f *Factory) checkRogues(ctx context.Context) error {
	raised := map[string]bool{}
	err := until(ctx, "all rogues are raised", func(ctx context.Context) (bool, error) {
		all, err := f.o.API.ListRogues(ctx, "ATTEMPT", 0)
		if err != nil {
			return false, err //nolint:wrapcheck // the server's own words
		}
		clear(raised)
		for _, r := range all.Rogues {
			if r.Template == f.name("pumps") {
				raised[r.Certificate] = true
			}
		}
		return len(raised) >= f.o.Rogues, nil
	})
	if f.report.Raised = len(raised); err != nil {
		f.problem("%v", err)
	}
	want := 0
	for _, d := range f.devices {
		if d.doubled {
			want++
		}
	}
	err = until(ctx, fmt.Sprintf("%d devices with a double are in quarantine", want), func(ctx context.Context) (bool, error) {
		members, err := f.o.API.GroupMembers(ctx, "quarantine", false, 0)
		if apiclient.Is(err, "ResourceNotFoundException") {
			err = nil
		}
		f.report.Quarantined = 0
		for _, name := range members {
			if strings.HasPrefix(name, f.o.Run+"-") {
				f.report.Quarantined++
			}
		}
		return f.report.Quarantined >= want, err //nolint:wrapcheck // the server's own words
	})
	if err != nil {
		f.problem("%v", err)
	}
	return ctx.Err() //nolint:wrapcheck // the caller's
}

// checkChains lets the server verify its ledger.
func (f *Factory) checkChains(ctx context.Context) error {
	verdict, err := f.o.API.Raw(ctx, apiclient.LedgerVerification("", ""))
	if err != nil {
		return fmt.Errorf("verify the ledger: %w", err)
	}
	for line := range strings.Lines(string(verdict)) {
		var one struct {
			Verdict *struct {
				Findings int `json:"findings"`
			} `json:"verdict"`
		}
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			return fmt.Errorf("read the verdict on the ledger: %w", err)
		}
		f.report.Verified = one.Verdict != nil && one.Verdict.Findings == 0
	}
	if !f.report.Verified {
		f.problem("the ledger does not hold: %.300s", verdict)
	}
	return nil
}

// documents are what an auditor reads of the plan and of one device.
func (f *Factory) documents(ctx context.Context) error {
	one := f.devices[len(f.devices)/2]
	for _, d := range f.devices {
		if d.inspect {
			one = d // somebody has looked at it
			break
		}
	}
	for _, step := range [][2]string{{"list", "revision 1 of allow list " + f.name("shift")}, {"hand-over", "consignment note NF-4711"}} {
		if _, err := f.o.API.CompleteStep(ctx, one.serial, step[0], step[1], ""); err != nil {
			return fmt.Errorf("complete step %s: %w", step[0], err)
		}
	}
	err := until(ctx, one.serial+" has met its exit criterion", func(ctx context.Context) (bool, error) {
		d, err := f.o.API.Onboarding(ctx, one.serial)
		return err == nil && len(d.ExitCriteria) == 1 && d.ExitCriteria[0].Outcome == "MET", err //nolint:wrapcheck // the server's own words
	})
	if err != nil {
		return err
	}
	if f.report.PlanDocument, err = f.o.API.PlanDocument(ctx, f.name("plan"), 0); err != nil {
		return fmt.Errorf("print the plan: %w", err)
	}
	if f.report.DeviceDocument, err = f.o.API.OnboardingDocument(ctx, one.serial); err != nil {
		return fmt.Errorf("print the device: %w", err)
	}
	if f.report.Ledger, err = f.o.API.Ledger(ctx, one.serial); err != nil {
		return fmt.Errorf("read the device's ledger: %w", err)
	}
	return nil
}
