package app

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/adminapi"
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

// indexLag is how many events the index has not seen yet, and the age of the
// eldest of them.
func (a *App) indexLag(ctx context.Context) (events uint64, age time.Duration, err error) {
	head, err := a.store.Head(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("read the end of the event log: %w", err)
	}
	applied := a.index.Applied()
	if events = applied.Behind(head); events == 0 {
		return 0, 0, nil
	}
	waiting, _, err := a.store.Events(ctx, applied, 1)
	if err != nil {
		// Trimmed: the index is about to be built anew, and how old it is nobody
		// can say but by the log's own beginning.
		oldest, failed := a.store.Oldest(ctx)
		if failed != nil {
			return events, 0, fmt.Errorf("read the event log: %w", err)
		}
		if waiting, _, err = a.store.Events(ctx, oldest, 1); err != nil {
			return events, 0, fmt.Errorf("read the event log: %w", err)
		}
	}
	if len(waiting) > 0 {
		age = max(0, now().Sub(waiting[0].At))
	}
	return events, age, nil
}

// lagPatience bounds how long a look at the metrics waits for the store.
const lagPatience = 2 * time.Second

// measureIndexLag registers how far the index is behind. What cannot be read is
// not a number, so that it is not taken for none.
func (a *App) measureIndexLag() {
	look := func(pick func(events uint64, age time.Duration) float64) func() float64 {
		return func() float64 {
			ctx, cancel := context.WithTimeout(context.Background(), lagPatience)
			defer cancel()
			events, age, err := a.indexLag(ctx)
			if err != nil {
				return math.NaN()
			}
			return pick(events, age)
		}
	}
	a.metrics.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "muster_index_lag_events", Help: "Events that the fleet index has not applied yet.",
		}, look(func(events uint64, _ time.Duration) float64 { return float64(events) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "muster_index_lag_seconds", Help: "Age of the eldest event that the fleet index has not applied yet; 0 for none.",
		}, look(func(_ uint64, age time.Duration) float64 { return age.Seconds() })),
	)
}

// fleetIndex tells operators about the index.
type fleetIndex struct{ app *App }

// Describe implements adminapi.FleetIndex.
func (f fleetIndex) Describe(ctx context.Context, account fleet.Account) (adminapi.IndexDescription, error) {
	config, err := f.app.registry.IndexingConfiguration(ctx, account)
	if err != nil {
		return adminapi.IndexDescription{}, err
	}
	events, age, err := f.app.indexLag(ctx)
	if err != nil {
		return adminapi.IndexDescription{}, err
	}
	things, groups := f.app.index.StatusOf(account, &config)
	r := f.app.index.Report(account)
	out := adminapi.IndexDescription{
		Version: config.Version, AppliedVersion: f.app.index.Indexing(account).Version, Indices: []adminapi.IndexState{},
		DynamicGroups: r.DynamicGroups, Unstable: r.Unstable,
		Lag: adminapi.IndexLag{Events: events, Seconds: age.Seconds()},
	}
	for _, each := range []struct {
		name, schema string
		status       index.Status
		of           index.CorpusReport
	}{
		{"AWS_ThingGroups", config.Groups.Schema(), groups, r.Groups}, {registry.ThingIndex, config.Things.Schema(), things, r.Things},
	} {
		if each.status != "" {
			out.Indices = append(out.Indices, adminapi.IndexState{
				Name: each.name, Status: string(each.status), Schema: each.schema, Documents: each.of.Documents,
				Fields: each.of.Paths, Bytes: each.of.Bytes, Dropped: each.of.Dropped,
			})
		}
	}
	if p := r.Loading; p != nil {
		out.Progress = &adminapi.IndexProgress{ThingsLoaded: p.Things, ShadowsLoaded: p.Shadows, ThingsExpected: p.Expected}
	}
	return out, nil
}

// Fields implements adminapi.FleetIndex.
func (f fleetIndex) Fields(account fleet.Account, groups bool, prefix, after string, limit int) ([]adminapi.IndexField, string, error) {
	found, next, err := f.app.index.Fields(account, groups, prefix, after, limit)
	if err != nil {
		return nil, "", err
	}
	config := f.app.index.Indexing(account)
	custom := config.Things.CustomFields
	if groups {
		custom = config.Groups.CustomFields
	}
	fields := make([]adminapi.IndexField, len(found))
	for i, each := range found {
		fields[i] = adminapi.IndexField{Name: each.Name, Documents: each.Documents, Types: map[string]int{}, Searchable: each.Searchable}
		for of, n := range each.ByType {
			fields[i].Types[string(of)] = n
		}
		if at := slices.IndexFunc(custom, func(c fleet.IndexedField) bool { return c.Name == each.Name }); at >= 0 {
			fields[i].CustomType = string(custom[at].Type)
		}
	}
	return fields, next, nil
}
