package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/shadowhistory"
)

// driftRetry is the time between attempts to fill the rows of drifts.
const driftRetry = time.Minute

// joinShadows joins shadows and their history; its consumer is joined later.
func (a *App) joinShadows() {
	rules := a.settings.Shadow
	o := shadow.Options{
		Store: a.store, Now: now, Shared: a.settings.StoreEngine() != config.StorePebble, Registerer: a.metrics, TellWhole: rules.HistoryVersions > 0,
		Limits: shadow.Limits{
			StateBytes: int(rules.MaxDocumentBytes), Depth: rules.MaxDepth, PerSecond: rules.MaxRequestsPerSecond, InFlight: rules.MaxInFlight,
		},
	}
	if rules.RequireThing {
		o.RequireThing = a.registry
	}
	a.shadows = shadow.New(o)
	a.versions = shadowhistory.New(shadowhistory.Options{
		Store: a.store, Shadows: a.shadows, CatchUp: a.catchUpVersions,
		Versions: rules.HistoryVersions, Age: rules.HistoryAge, Bytes: uint64(rules.HistoryBytes),
		Now: now, Logger: a.component("shadowhistory"), Registerer: a.metrics,
	})
}

// catchUpVersions waits until the history of shadows holds what the log holds.
func (a *App) catchUpVersions(ctx context.Context) error {
	head, err := a.store.Head(ctx)
	if err != nil {
		return err
	}
	return a.followers.versions.WaitCovered(ctx, head)
}

// fillDrifts brings the drift report of a store of an earlier version up to
// date.
func (a *App) fillDrifts(ctx context.Context) error {
	tick := time.NewTicker(driftRetry)
	defer tick.Stop()
	for {
		err := a.shadows.FillDrifts(ctx)
		if err == nil {
			<-ctx.Done() // a part that ends is taken for a failed one
		}
		if ctx.Err() != nil {
			return nil
		}
		a.component("shadow").ErrorContext(ctx, "drift report is not filled", slog.Any("err", err))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// shadowVersions answers operators about shadows of the past.
type shadowVersions struct {
	*shadowhistory.Service
	app *App
}

// Restore implements adminapi.ShadowHistory: devices are told as of any update.
func (v shadowVersions) Restore(ctx context.Context, cmd shadowhistory.RestoreCommand) (*shadow.Updated, error) {
	cmd.Committed = func(u *shadow.Updated) { v.app.topics.AnnounceUpdate(ctx, u) }
	return v.Service.Restore(ctx, cmd)
}

// drifts reports differing shadows of the things that a query finds.
type drifts struct{ app *App }

// Drifts implements adminapi.Drifts.
func (d drifts) Drifts(ctx context.Context, account fleet.Account, query string, q shadow.DriftQuery) (shadow.DriftPage, error) {
	if query != "" {
		parsed, err := d.app.index.ParseThings(query)
		if err != nil {
			return shadow.DriftPage{}, err
		}
		q.Match = func(things []string) ([]bool, error) { return d.app.index.Matching(account, parsed, things) }
	}
	return d.app.shadows.Drifts(ctx, account, q)
}
