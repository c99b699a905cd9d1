package presence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// settingsKind is the first part of the key of an account's settings.
const settingsKind = "connection-settings"

// settings is what an account has chosen.
type settings struct {
	Schema int `json:"v"`
	// SocketInformation shows addresses and ports of connections.
	SocketInformation bool `json:"socketInformation,omitempty"`
}

func settingsKey(account fleet.Account) store.Key { return store.K(settingsKind, string(account)) }

// SocketInformation reports whether connectivity answers of an account may show
// addresses and ports; off until it is switched on.
func (s *Service) SocketInformation(ctx context.Context, account fleet.Account) (bool, error) {
	found, _, err := s.settings(ctx, account)
	return found.SocketInformation, err
}

// ShowSocketInformation switches that on or off.
func (s *Service) ShowSocketInformation(ctx context.Context, account fleet.Account, show bool) error {
	for {
		found, version, err := s.settings(ctx, account)
		if err != nil || found.SocketInformation == show {
			return err
		}
		found.SocketInformation = show
		value, err := json.Marshal(found)
		if err != nil {
			return fmt.Errorf("encode settings of connections: %w", err)
		}
		key := settingsKey(account)
		_, err = s.store.Commit(ctx, store.Batch{
			Expect: []store.Expect{{Key: key, Version: version}}, Writes: []store.Write{{Key: key, Value: value}},
		})
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("commit settings of connections: %w", err)
		}
		return nil
	}
}

// settings reads an account's settings and their version, 0 for none yet.
func (s *Service) settings(ctx context.Context, account fleet.Account) (settings, uint64, error) {
	found := settings{Schema: schema}
	stored, err := s.store.Get(ctx, settingsKey(account))
	if errors.Is(err, store.ErrNotFound) {
		return found, 0, nil
	}
	if err != nil {
		return found, 0, fmt.Errorf("read settings of connections: %w", err)
	}
	if err := json.Unmarshal(stored.Value, &found); err != nil {
		return found, 0, fmt.Errorf("decode %s: %w", stored.Key, err)
	}
	if found.Schema != schema {
		return found, 0, fmt.Errorf("decode %s: schema version %d is not known to this program", stored.Key, found.Schema)
	}
	return found, stored.Version, nil
}
