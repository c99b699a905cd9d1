package app

import (
	"context"
	"log/slog"

	"github.com/muster-iot/muster/internal/history"
	"github.com/muster-iot/muster/internal/store"
)

// endCutConnections returns a part that ends, in the history, connections of before
// this start whose end nobody told. A client that takes its own session over has two
// for a moment, and presence keeps the newer one only: a crash between them leaves
// the elder without an end. It is called when presence has recovered and nobody can
// connect yet.
func (a *App) endCutConnections(ctx context.Context) (func(context.Context) error, error) {
	head, err := a.store.Head(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		if err := a.mendHistory(ctx, head); err != nil && ctx.Err() == nil {
			a.component("history").ErrorContext(ctx, "connections that a crash cut last in the history; `muster doctor --repair` ends them", slog.Any("err", err))
		}
		<-ctx.Done()
		return nil
	}, nil
}

// mendHistory ends what lasts in the history of before a place in the log and not
// in presence.
func (a *App) mendHistory(ctx context.Context, head store.Cursor) error {
	if err := a.followers.history.WaitCovered(ctx, head); err != nil {
		return err
	}
	var rows []store.Key
	_, err := a.history.Differences(ctx, func(d history.Difference) {
		if d.Lasts && d.Seq <= head.Seq(0) {
			rows = append(rows, d.Open)
		}
	})
	if err != nil || len(rows) == 0 {
		return err
	}
	return a.history.Mend(ctx, rows)
}
