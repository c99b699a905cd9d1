package app

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/audit"
	"github.com/muster-iot/muster/internal/eventlog"
	"github.com/muster-iot/muster/internal/fleet"
)

// recordCalls puts the recording of calls in front of the store, before any
// domain gets it.
func (a *App) recordCalls(context.Context) error {
	a.recorder = audit.NewRecorder(audit.RecorderOptions{
		Store: a.store, Region: a.settings.Region, DefaultAccount: a.settings.AccountID, DataEvents: a.settings.Audit.DataEvents,
		Now: now, Logger: a.component("audit"), Registerer: a.metrics,
	})
	a.bare = a.store
	a.store = audit.Recording(a.store)
	return nil
}

// joinAudit joins the trail itself; its consumer is joined later.
func (a *App) joinAudit(context.Context) error {
	seed, err := a.secret("audit-heads", audit.SeedSize)
	if err != nil {
		return err
	}
	a.audit, err = audit.New(audit.Options{
		Store: a.bare, Region: a.settings.Region, DefaultAccount: a.settings.AccountID, Seed: seed, CatchUp: a.catchUpAudit,
		RetentionAge: a.settings.Audit.RetentionAge, Now: now, Logger: a.component("audit"), Registerer: a.metrics,
	})
	if err != nil {
		return err
	}
	return a.metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_audit_lag_seconds", Help: "Age of the oldest event that is read and not yet in the audit trail.",
	}, func() float64 { return a.followers.audit.Lag().Seconds() }))
}

// auditConsumer feeds the trail.
func (a *App) auditConsumer() eventlog.Consumer {
	return eventlog.Consumer{Name: "audit", Durable: a.audit.Apply, Rebuild: a.audit.Rebuild}
}

// catchUpAudit waits until the trail holds the calls that have ended.
func (a *App) catchUpAudit(ctx context.Context) error {
	if err := a.recorder.Drain(ctx); err != nil {
		return err
	}
	head, err := a.store.Head(ctx)
	if err != nil {
		return err
	}
	return a.followers.audit.WaitCovered(ctx, head)
}

// recordStart tells the trail that the server runs, and with which settings when
// those are others than before. A store that takes nothing now is no reason not
// to start: the next start tells the settings.
func (a *App) recordStart(ctx context.Context) {
	a.recorder.Service(ctx, a.settings.AccountID, "ServerStarted", map[string]any{"version": a.version, "store": a.settings.StoreEngine()})
	if err := a.recordSettings(ctx); err != nil {
		a.component("audit").ErrorContext(ctx, "settings are not recorded", slog.Any("err", err))
	}
}

func (a *App) recordSettings(ctx context.Context) error {
	err := audit.RecordSettings(ctx, a.bare, a.settings.AccountID, a.settings.Report(), a.version, now())
	if err != nil {
		return fmt.Errorf("record the settings: %w", err)
	}
	return nil
}

// recordReload tells the trail which settings are others now. The reload is done
// already, so a failure is reported and no error.
func (a *App) recordReload() {
	ctx, cancel := context.WithTimeout(context.Background(), settingsPatience)
	defer cancel()
	if err := a.recordSettings(ctx); err != nil {
		a.component("audit").ErrorContext(ctx, "reload is not recorded", slog.Any("err", err))
	}
}

// settingsPatience bounds how long a reload waits for its record.
const settingsPatience = 10 * time.Second

// checkAudit verifies the trails of all accounts.
func (a *App) checkAudit(ctx context.Context, found func(finding)) (checked int, err error) {
	accounts, err := a.everyAccount(ctx, a.audit.Accounts)
	if err != nil {
		return checked, err
	}
	for _, account := range accounts {
		verdict, err := a.audit.Verify(ctx, account, nil, audit.Witness{
			Found: func(f audit.Finding) error {
				found(finding{account: account, subject: fmt.Sprintf("%s record %d", account, f.Seq), detail: string(f.Problem) + ": " + f.Detail})
				return nil
			},
			Progress: func(int) error { return nil },
		})
		if err != nil {
			return checked, err
		}
		checked += verdict.Records
	}
	return checked, nil
}

// everyAccount are those of which something tells, and all that there are: whoever
// removed what tells of one would keep it from being looked at.
func (a *App) everyAccount(ctx context.Context, told func(context.Context) ([]fleet.Account, error)) ([]fleet.Account, error) {
	accounts, err := told(ctx)
	if err != nil {
		return nil, err
	}
	known, err := a.accounts.AllAccounts(ctx)
	if err != nil {
		return nil, err
	}
	accounts = append(append(accounts, a.settings.AccountID), known...)
	slices.Sort(accounts)
	return slices.Compact(accounts), nil
}
