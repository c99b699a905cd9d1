package app

import (
	"context"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// indexing is what the registry needs to keep indexing configurations.
func (a *App) indexing() registry.IndexingOptions {
	o := registry.IndexingOptions{
		Check: func(query string, things *fleet.ThingIndexing) error {
			q, err := a.index.ParseThings(query)
			if err != nil {
				return err
			}
			return index.CheckIndexed(q, things)
		},
		Fields: func(query string) ([]string, error) {
			q, err := a.index.ParseThings(query)
			if err != nil {
				return nil, err
			}
			return index.QueryFields(q), nil
		},
		Built: func(account fleet.Account, config *fleet.Indexing) bool {
			things, _ := a.index.StatusOf(account, config)
			return things == index.Active || things == index.Rebuilding
		},
		Barrier:         indexBarrier{a},
		MaxNamedShadows: a.settings.Index.MaxNamedShadows,
		MaxGeoLocations: a.settings.Index.MaxGeoLocations,
		MaxCustomFields: a.settings.Index.MaxCustomFields,
	}
	if a.settings.Index.DefaultOff {
		o.Default = &fleet.Indexing{}
	}
	return o
}

// indexBarrier lets a change of the indexing configuration wait until the index
// has heard of it.
type indexBarrier struct{ app *App }

// WaitApplied implements registry.Barrier.
func (b indexBarrier) WaitApplied(ctx context.Context, position store.Position) error {
	if !b.app.ready.Load() {
		return nil
	}
	return b.app.index.WaitApplied(ctx, store.CursorAt(position))
}
