package app

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/audit"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/eventlog"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/ledger"
)

// joinLedger keeps the lives of devices.
func (a *App) joinLedger(context.Context) error {
	key, err := a.secret("ledger-ends", ledger.KeySize)
	if err != nil {
		return err
	}
	a.ledger, err = ledger.New(ledger.Options{
		Store: a.store, Key: key, DeviceKey: a.onboarding.DeviceKey, Witnessed: a.ledgerWitnesses, CatchUp: a.catchUpLedger,
		TrustClaims: a.settings.Ledger.TrustClaims, Now: now, Logger: a.component("ledger"), Registerer: a.metrics,
	})
	if err != nil {
		return err
	}
	return a.metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_ledger_lag_seconds", Help: "Age of the oldest event that is read and not yet in the ledger of devices.",
	}, func() float64 { return a.followers.ledger.Lag().Seconds() }))
}

// ledgerConsumer feeds the ledger.
func (a *App) ledgerConsumer() eventlog.Consumer {
	return eventlog.Consumer{Name: "ledger", Durable: a.ledger.Apply, Rebuild: a.ledger.Rebuild}
}

// catchUpLedger waits until the ledger has what the log held.
func (a *App) catchUpLedger(ctx context.Context) error {
	head, err := a.store.Head(ctx)
	if err != nil {
		return err
	}
	return a.followers.ledger.WaitCovered(ctx, head)
}

// maxWitnessPages bounds how far back the audit trail is searched for ends of the
// ledger.
const maxWitnessPages = 20

// ledgerWitnesses are the ends of an account's ledger that the audit trail was told
// of, the newest.
func (a *App) ledgerWitnesses(ctx context.Context, account fleet.Account) ([]ledger.Head, error) {
	var heads []ledger.Head
	q := audit.Query{Name: event.TypeName(event.LedgerAnchored{}), Limit: audit.MaxPage}
	for range maxWitnessPages {
		page, err := a.audit.List(ctx, account, q)
		if err != nil {
			return nil, err
		}
		for _, line := range page.Records {
			var r audit.Record
			var told event.LedgerAnchored
			if err := json.Unmarshal(line, &r); err != nil || r.EventType != event.CallService {
				continue // a record that cannot be read is for `muster audit verify`
			}
			if err := json.Unmarshal(r.ServiceEventDetails, &told); err != nil {
				continue
			}
			heads = append(heads, ledger.Head{Account: account, Entries: told.Entries, Hash: told.Hash, At: r.EventTime})
		}
		if page.Next == "" || len(heads) >= audit.MaxPage {
			break
		}
		q.After = page.Next
	}
	return heads, nil
}

// checkLedger verifies the ledgers of all accounts.
func (a *App) checkLedger(ctx context.Context, found func(finding)) (checked int, err error) {
	accounts, err := a.everyAccount(ctx, a.ledger.Accounts)
	if err != nil {
		return checked, err
	}
	for _, account := range accounts {
		verdict, err := a.ledger.Verify(ctx, account, nil, ledger.Witness{
			Found: func(f ledger.Finding) error {
				subject := fmt.Sprintf("%s entry %d", account, f.Number)
				if f.Device != "" {
					subject = fmt.Sprintf("%s device %s entry %d", account, f.Device, f.Seq)
				}
				found(finding{account: account, subject: subject, detail: string(f.Problem) + ": " + f.Detail})
				return nil
			},
			Progress: func(int) error { return nil },
		})
		if err != nil {
			return checked, err
		}
		checked += verdict.Entries
	}
	return checked, nil
}
