package app

import (
	"context"
	"fmt"
	"maps"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

// tags joins what can have tags: each domain says how its resources are found.
func (a *App) tags() (*tag.Service, error) {
	finders := a.registry.TagFinders()
	maps.Copy(finders, a.authorizers.TagFinders())
	maps.Copy(finders, a.provisioning.TagFinders())
	maps.Copy(finders, a.providers.TagFinders())
	return tag.New(tag.Options{Store: a.store, Region: a.settings.Region, Now: now, Finders: finders})
}

// loadEventConfigurations tells the event topics which kinds of registry events
// are published, and returns the place in the log that this holds for. What
// happened before is not published any more: nobody waits for it after a
// restart.
func (a *App) loadEventConfigurations(ctx context.Context) (store.Cursor, error) {
	snapshot, err := a.store.Snapshot(ctx)
	if err != nil {
		return store.Cursor{}, fmt.Errorf("freeze the store: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // a read-only view
	enabled := map[fleet.Account][]string{}
	err = registry.EachEventConfiguration(ctx, snapshot, func(account fleet.Account, kinds []string) error {
		enabled[account] = kinds
		return nil
	})
	if err != nil {
		return store.Cursor{}, err
	}
	a.topics.LoadEventConfigurations(enabled)
	return snapshot.Cursor(), nil
}
