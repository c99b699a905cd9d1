package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// IndexingOptions say how the registry keeps indexing configurations; the zero
// value lets every account begin with everything indexed.
type IndexingOptions struct {
	// Default is the configuration of an account that never changed it; nil is
	// fleet.DefaultIndexing.
	Default *fleet.Indexing
	// Check refuses a query that names what an index of this configuration does
	// not hold; without it none is refused.
	Check func(query string, things *fleet.ThingIndexing) error
	// Fields are the fields that a query names, an empty one for terms that look at
	// every field; without it none are known.
	Fields func(query string) ([]string, error)
	// Built tells whether the index of the account answers; without it it does.
	Built func(account fleet.Account, config *fleet.Indexing) bool
	// Barrier tells when the index has heard of a change; optional.
	Barrier Barrier
	// These bound the lists of a configuration, 0 is no bound.
	MaxNamedShadows, MaxGeoLocations, MaxCustomFields int
}

// UpdateIndexingCommand replaces the parts of the configuration that it holds; a
// part that is nil stays.
type UpdateIndexingCommand struct {
	Things *fleet.ThingIndexing
	Groups *fleet.GroupIndexing
	// ManagedThingFields and ManagedGroupFields are what a caller sends back of
	// the fields that nobody can choose.
	ManagedThingFields, ManagedGroupFields []fleet.IndexedField
}

// indexingRecord is an account's own indexing configuration.
type indexingRecord struct {
	schema

	Config   fleet.Indexing `json:"config"`
	Modified int64          `json:"modified"`
}

// keySocketSetting is the key at which earlier versions kept whether answers show
// addresses of connections. It counts for an account without a record.
func keySocketSetting(account fleet.Account) store.Key {
	return store.K("connection-settings", string(account))
}

// IndexingConfiguration returns what the fleet index of an account holds.
func (s *Service) IndexingConfiguration(ctx context.Context, account fleet.Account) (fleet.Indexing, error) {
	config, _, _, err := s.readIndexing(ctx, s.store, account)
	return config, store.Fault(err)
}

// readIndexing reads the configuration with the versions of its two records.
func (s *Service) readIndexing(ctx context.Context, r store.Reader, account fleet.Account) (config fleet.Indexing, version, old uint64, err error) {
	record, version, err := get[indexingRecord](ctx, r, key(kindIndexing, account))
	if err != nil {
		return fleet.Indexing{}, 0, 0, err
	}
	if record != nil {
		return record.Config, version, 0, nil
	}
	config = s.defaultIndexing()
	shown, old, err := socketsShown(ctx, r, account)
	if shown && config.Things.Connectivity {
		config.Things.SocketInformation = []string{fleet.SocketInformationConnectivityData}
	}
	return config, 0, old, err
}

// defaultIndexing is the configuration of an account without a record.
func (s *Service) defaultIndexing() fleet.Indexing {
	if s.indexing.Default != nil {
		return *s.indexing.Default
	}
	return fleet.DefaultIndexing()
}

// socketsShown reads the setting of earlier versions.
func socketsShown(ctx context.Context, r store.Reader, account fleet.Account) (shown bool, version uint64, err error) {
	record, err := r.Get(ctx, keySocketSetting(account))
	if errors.Is(err, store.ErrNotFound) {
		return false, 0, nil
	}
	if err != nil {
		return false, 0, fmt.Errorf("read settings of connections: %w", err)
	}
	var before struct {
		Shown bool `json:"socketInformation"`
	}
	if err := json.Unmarshal(record.Value, &before); err != nil {
		return false, 0, fmt.Errorf("decode %s: %w", record.Key, err)
	}
	return before.Shown, record.Version, nil
}

// loadIndexing is readIndexing whose answer the attempt expects to stay.
func (s *Service) loadIndexing(ctx context.Context, a *attempt) (fleet.Indexing, error) {
	config, version, old, err := s.readIndexing(ctx, a.reader, a.account)
	if err != nil {
		return fleet.Indexing{}, err
	}
	a.expect(key(kindIndexing, a.account), version)
	if version == 0 {
		a.expect(keySocketSetting(a.account), old)
	}
	return config, nil
}

// UpdateIndexingConfiguration changes what the fleet index holds and returns the
// whole configuration. What dynamic groups ask for cannot be taken away. The
// index follows behind the answer; its state tells when it is there.
func (s *Service) UpdateIndexingConfiguration(ctx context.Context, account fleet.Account, c UpdateIndexingCommand) (fleet.Indexing, error) {
	if err := s.checkIndexing(c); err != nil {
		return fleet.Indexing{}, err
	}
	var config fleet.Indexing
	position, _, err := s.commit(ctx, account, s.store, func(ctx context.Context, a *attempt) error {
		before, err := s.loadIndexing(ctx, a)
		if err != nil {
			return err
		}
		config = before
		if c.Things != nil {
			config.Things = tidied(*c.Things)
		}
		if c.Groups != nil {
			config.Groups = *c.Groups
			config.Groups.CustomFields = listed(config.Groups.CustomFields)
		}
		if reflect.DeepEqual(config, before) {
			return nil
		}
		if err := s.checkInUse(ctx, a, &before, &config); err != nil {
			return err
		}
		config.Version = before.Version + 1
		a.emit(event.IndexingConfigurationChanged{Indexing: config})
		return save(a, key(kindIndexing, account), &indexingRecord{Config: config, Modified: millis(a.now)})
	})
	if err != nil {
		return fleet.Indexing{}, err
	}
	if position != (store.Position{}) {
		s.awaitIndex(ctx, position)
	}
	return config, nil
}

// tidied has no lists without members, as records have none.
func tidied(t fleet.ThingIndexing) fleet.ThingIndexing {
	t.ShadowNames, t.GeoLocations = listed(t.ShadowNames), listed(t.GeoLocations)
	t.SocketInformation, t.CustomFields = listed(t.SocketInformation), listed(t.CustomFields)
	return t
}

// listed is nil for an empty list.
func listed[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}

// awaitIndex waits until the index has heard of the change, so that its state
// tells of it. An index that is late is no error.
func (s *Service) awaitIndex(ctx context.Context, position store.Position) {
	if s.indexing.Barrier == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, barrierPatience)
	defer cancel()
	if err := s.indexing.Barrier.WaitApplied(ctx, position); err != nil {
		s.log.WarnContext(ctx, "answered before the index heard of its configuration",
			slog.Uint64("seq", position.Seq), slog.Any("err", err))
	}
}

// checkInUse refuses to take away what a dynamic group asks for. Whoever makes
// or changes the query of one writes the guard that is expected here.
func (s *Service) checkInUse(ctx context.Context, a *attempt, before, after *fleet.Indexing) error {
	if !narrower(&before.Things, &after.Things) {
		return nil
	}
	guard, err := load[dynamicGroupsRecord](ctx, a, key(kindDynamicGroups, a.account))
	if err != nil || guard == nil || guard.Count == 0 {
		return err
	}
	if !after.Things.Registry {
		return fault.New(fault.InvalidRequest,
			"thingIndexingConfiguration.thingIndexingMode cannot be OFF while there are dynamic groups, %d of them", guard.Count)
	}
	gone := changedFields(before.Things.CustomFields, after.Things.CustomFields)
	return a.reader.Scan(ctx, under(kindGroup, a.account), func(stored store.Record) error {
		group, err := decode[groupRecord](stored)
		if err != nil || group.Query == "" || group.Deleting {
			return err
		}
		return s.checkGroupUse(stored.Key.Last(), group.Query, gone, before, after)
	})
}

// checkGroupUse refuses a change that takes something from the query of a group
// which it had before.
func (s *Service) checkGroupUse(name, query string, gone []string, before, after *fleet.Indexing) error {
	if s.indexing.Check != nil && s.indexing.Check(query, &before.Things) == nil {
		if err := s.indexing.Check(query, &after.Things); err != nil {
			return fault.New(fault.InvalidRequest, "thingIndexingConfiguration: dynamic group %s needs what would no longer be indexed: %s",
				name, fault.From(err).Message)
		}
	}
	if s.indexing.Fields == nil {
		return nil
	}
	fields, err := s.indexing.Fields(query)
	if err != nil {
		return nil //nolint:nilerr // a stored query that cannot be read asks for nothing
	}
	wide := fewerTexts(&before.Things, &after.Things)
	for _, field := range fields {
		if wide && (field == "" || field == "shadow" || field == "shadow.name") {
			return fault.New(fault.InvalidRequest,
				"thingIndexingConfiguration: dynamic group %s looks at every shadow, some of which would no longer be indexed", name)
		}
		if slices.Contains(gone, field) {
			return fault.New(fault.InvalidRequest,
				"thingIndexingConfiguration.customFields: %s is used by dynamic group %s and can be neither changed nor removed", field, name)
		}
	}
	return nil
}

// narrower reports whether anything of before is missing in after.
func narrower(before, after *fleet.ThingIndexing) bool {
	lost := func(had, has bool) bool { return had && !has }
	return lost(before.Registry, after.Registry) || lost(before.Shadows, after.Shadows) || lost(before.Connectivity, after.Connectivity) ||
		lost(before.Violations, after.Violations) || lost(before.NamedShadows, after.NamedShadows) ||
		fewerShadows(before.ShadowNames, after.ShadowNames) ||
		slices.ContainsFunc(before.GeoLocations, func(g fleet.GeoLocation) bool { return !slices.Contains(after.GeoLocations, g) }) ||
		len(changedFields(before.CustomFields, after.CustomFields)) > 0
}

// fewerTexts reports whether terms without a field look at less than before.
func fewerTexts(before, after *fleet.ThingIndexing) bool {
	return before.Shadows && !after.Shadows || before.NamedShadows && !after.NamedShadows || before.Violations && !after.Violations ||
		after.NamedShadows && fewerShadows(before.ShadowNames, after.ShadowNames)
}

// fewerShadows reports whether a filter lets less through; no names are all.
func fewerShadows(before, after []string) bool {
	if len(after) == 0 {
		return false
	}
	return len(before) == 0 || slices.ContainsFunc(before, func(name string) bool { return !slices.Contains(after, name) })
}

// changedFields are the names of fields that are gone or of another type.
func changedFields(before, after []fleet.IndexedField) []string {
	var names []string
	for _, f := range before {
		if !slices.Contains(after, f) {
			names = append(names, f.Name)
		}
	}
	return names
}

// checkIndexed refuses the query of a dynamic group that the account's index
// cannot answer, and holds the configuration to what it is until the commit.
func (s *Service) checkIndexed(ctx context.Context, a *attempt, query string) error {
	config, err := s.loadIndexing(ctx, a)
	if err != nil {
		return err
	}
	if !config.Things.Registry {
		return fault.New(fault.InvalidRequest, "dynamic groups need the index of things; switch it on by UpdateIndexingConfiguration")
	}
	if s.indexing.Built != nil && !s.indexing.Built(a.account, &config) {
		return fault.New(fault.InvalidRequest, "the index of things is being built; dynamic groups can be defined when it is done")
	}
	if s.indexing.Check == nil {
		return nil
	}
	return languageFault(fault.InvalidQuery, "queryString", s.indexing.Check(query, &config.Things))
}

// EachIndexing calls fn for every account that has an indexing configuration of
// its own.
func EachIndexing(ctx context.Context, r store.Reader, fn func(account fleet.Account, config fleet.Indexing) error) error {
	return each[indexingRecord](ctx, r, kindIndexing, func(account fleet.Account, _ string, record *indexingRecord) error {
		return fn(account, record.Config)
	})
}

// IndexingOf reads the configuration that an account has of its own from a view
// of the store, false for none.
func IndexingOf(ctx context.Context, r store.Reader, account fleet.Account) (config fleet.Indexing, own bool, err error) {
	record, _, err := get[indexingRecord](ctx, r, key(kindIndexing, account))
	if err != nil || record == nil {
		return fleet.Indexing{}, false, err
	}
	return record.Config, true, nil
}
