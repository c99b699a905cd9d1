package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// settingsRecord is what a server last ran with.
type settingsRecord struct {
	Schema   int               `json:"v"`
	Settings map[string]string `json:"settings"`
	Version  string            `json:"version"`
}

// removedSetting stands for a setting that this version does not have any more.
const removedSetting = "(no longer a setting)"

// RecordSettings appends ConfigurationChanged with the settings that are not as
// they were when it was last called, all of them the first time, and nothing when
// nothing changed. The settings must hold no secrets.
func RecordSettings(ctx context.Context, s store.Store, account fleet.Account, settings map[string]string, version string, now time.Time) error {
	for {
		key := store.K(kindSettings)
		var before settingsRecord
		stored, err := s.Get(ctx, key)
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return fmt.Errorf("read the settings of before: %w", err)
		default:
			if err := json.Unmarshal(stored.Value, &before); err != nil {
				return fmt.Errorf("decode the settings of before: %w", err)
			}
		}
		changed := differing(before.Settings, settings)
		if len(changed) == 0 && before.Version == version {
			return nil
		}
		value, err := marshal(settingsRecord{schema, settings, version})
		if err != nil {
			return fmt.Errorf("encode the settings: %w", err)
		}
		_, err = s.Commit(ctx, store.Batch{
			Expect: []store.Expect{{Key: key, Version: stored.Version}},
			Writes: []store.Write{{Key: key, Value: value}},
			Events: []event.Envelope{{
				Account: account, At: now, Actor: fleet.System, Event: event.ConfigurationChanged{Settings: changed, Version: version},
			}},
		})
		if !errors.Is(err, store.ErrConflict) {
			return err //nolint:wrapcheck // the caller says what it was
		}
	}
}

// differing lists what is new, other or gone.
func differing(before, after map[string]string) map[string]string {
	changed := map[string]string{}
	for name, value := range after {
		if was, ok := before[name]; !ok || was != value {
			changed[name] = value
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			changed[name] = removedSetting
		}
	}
	return changed
}
