package connectivity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// GroupSettings are the settings of one group; the account's own have no group.
type GroupSettings struct {
	Group string
	Settings
}

// ListSettings returns the settings of an account, its own first, then those of
// groups by name.
func (s *Service) ListSettings(account fleet.Account) []GroupSettings {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.settings[account]
	all := make([]GroupSettings, 0, len(of))
	for _, group := range slices.Sorted(maps.Keys(of)) {
		all = append(all, GroupSettings{group, *of[group]})
	}
	return all
}

// SettingsOf returns the settings of a group, or the account's own for an empty
// one; ResourceNotFound when there are none.
func (s *Service) SettingsOf(account fleet.Account, group string) (Settings, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.settings[account][group]
	if found == nil {
		return Settings{}, noSettings(group)
	}
	return *found, nil
}

func noSettings(group string) error {
	if group == "" {
		return fault.New(fault.ResourceNotFound, "the account has no settings of its own, those built in hold")
	}
	return fault.New(fault.ResourceNotFound, "thing group %s has no connectivity settings", group)
}

// PutSettings replaces the settings of a group, or the account's own for an
// empty one.
func (s *Service) PutSettings(ctx context.Context, account fleet.Account, group string, v Settings) error {
	if err := v.Check(); err != nil {
		return err
	}
	if group != "" {
		if !fleet.ValidName(group) {
			return fault.New(fault.InvalidRequest, "group: %q is no name of a thing group", group)
		}
		exists, err := s.o.Registry.GroupExists(ctx, account, group)
		if err != nil {
			return fmt.Errorf("look at group %q: %w", group, err)
		}
		if !exists {
			return fault.New(fault.ResourceNotFound, "there is no thing group %s", group)
		}
	}
	value, err := json.Marshal(settingsRecord{Schema: schema, Settings: v})
	if err != nil {
		return fmt.Errorf("encode settings: %w", err)
	}
	return s.configure(ctx, account, group, &v, value)
}

// DeleteSettings removes the settings of a group, or the account's own.
func (s *Service) DeleteSettings(ctx context.Context, account fleet.Account, group string) error {
	return s.configure(ctx, account, group, nil, nil)
}

// configure commits settings and takes them over.
func (s *Service) configure(ctx context.Context, account fleet.Account, group string, v *Settings, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	if v == nil && s.settings[account][group] == nil {
		return noSettings(group)
	}
	b := s.newBatch()
	b.writes = append(b.writes, store.Write{Key: settingsKey(account, group), Value: value, Delete: v == nil})
	b.events = append(b.events, event.Envelope{
		Account: account, At: s.o.Now(), Actor: fleet.ActorFrom(ctx), Event: event.ConnectivitySettingsChanged{Group: group, Removed: v == nil},
	})
	b.done = append(b.done, func() { s.takeOver(account, group, v) })
	return s.commit(ctx, b)
}

// takeOver changes the settings in memory and has connected things looked at.
func (s *Service) takeOver(account fleet.Account, group string, v *Settings) {
	if s.settings[account] == nil {
		s.settings[account] = map[string]*Settings{}
	}
	if v == nil {
		delete(s.settings[account], group)
	} else {
		s.settings[account][group] = v
	}
	s.sweeps[account] = ""
}

// dropSettings removes the settings of a group that is gone.
func (b *batch) dropSettings(account fleet.Account, group string) {
	if b.s.settings[account][group] == nil {
		return
	}
	b.writes = append(b.writes, store.Write{Key: settingsKey(account, group), Delete: true})
	b.events = append(b.events, event.Envelope{
		Account: account, At: time.UnixMilli(b.now).UTC(), Actor: fleet.System, Event: event.ConnectivitySettingsChanged{Group: group, Removed: true},
	})
	b.done = append(b.done, func() { b.s.takeOver(account, group, nil) })
}

// sweep gives connected things the timers that new settings want, a batch at a
// time. A restart ends it: sessions begin anew then, with the new settings.
func (s *Service) sweep(ctx context.Context) error {
	for account, after := range s.sweeps {
		var things []thingKey
		within := store.Under(kindRecord, string(account))
		if after != "" {
			within = within.After(after)
		}
		var last store.Key
		err := s.store.Scan(ctx, within, func(stored store.Record) error {
			last = stored.Key
			things = append(things, thingKey{account, stored.Key.Last()})
			if len(things) == batchThings {
				return store.Stop
			}
			return nil
		})
		if err != nil && !errors.Is(err, store.Stop) {
			return fmt.Errorf("read connectivity: %w", err)
		}
		b := s.newBatch()
		if err := b.load(ctx, things...); err != nil {
			return err
		}
		for _, k := range things {
			if err := b.rearm(ctx, b.slots[k]); err != nil {
				return err
			}
		}
		if err := s.commit(ctx, b); err != nil {
			return err
		}
		if len(things) < batchThings {
			delete(s.sweeps, account)
		} else {
			s.sweeps[account] = last
			s.line.again()
		}
	}
	return nil
}

// rearm begins to watch a connected thing for silence, or ceases to.
func (b *batch) rearm(ctx context.Context, one *slot) error {
	if one.record == nil || one.record.State != Online {
		return nil
	}
	set, err := b.s.inForce(ctx, one.thingKey)
	if err != nil {
		return err
	}
	silence := set.stale(one.record.Interval)
	if (silence > 0) == (one.record.Due > 0) && one.record.Due <= b.now+silence {
		return nil // when its timer comes due, the new settings are asked
	}
	one.record = one.record.clone()
	one.record.Due = 0
	if silence > 0 {
		one.record.Due = b.now + silence
	}
	return nil
}
