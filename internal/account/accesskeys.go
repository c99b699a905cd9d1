package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// States of an access key.
const (
	KeyActive   = "ACTIVE"
	KeyInactive = "INACTIVE"
)

// keyUsed is the first key part of the records of last use; the access key's id
// follows.
const keyUsed = "access-key-used"

// usedEvery is how exactly the last use of an access key is known.
const usedEvery = time.Hour

// KeyInfo describes an access key without its secret.
type KeyInfo struct {
	ID, User, Status string
	CreatedAt        time.Time
	// LastUsed is exact to the hour; zero for never.
	LastUsed time.Time
}

// usedRecord is the stored form of the last use of an access key.
type usedRecord struct {
	Schema int       `json:"v"`
	At     time.Time `json:"at"`
}

// status is that of a record; those of the first version had none.
func (r *accessKeyRecord) status() string {
	if r.Status == "" {
		return KeyActive
	}
	return r.Status
}

// CreateAccessKey makes a key for a user. The secret is shown this once.
func (s *Service) CreateAccessKey(ctx context.Context, account fleet.Account, user string) (AccessKey, error) {
	var made AccessKey
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		u, err := find[userRecord](ctx, s.options.Store, account, kindUser, user)
		if err != nil {
			return err
		}
		if len(u.Keys) >= maxKeysPerUser {
			return fault.New(fault.LimitExceeded, "The user %q has %d access keys, which is the limit; delete one first", user, maxKeysPerUser)
		}
		if made, err = newAccessKey(accessKeyPrefix); err != nil {
			return err
		}
		sealed, err := s.options.Sealer.Seal([]byte(made.Secret))
		if err != nil {
			return fmt.Errorf("seal secret: %w", err)
		}
		u.Keys = append(u.Keys, made.ID)
		record := accessKeyRecord{Schema: schema, Account: account, User: user, Sealed: sealed, CreatedAt: a.now, Status: KeyActive}
		a.batch.Expect = append(a.batch.Expect, store.Expect{Key: store.K(keyAccessKey, made.ID)})
		a.emit(event.OperatorAccessKey, made.ID, "CREATED")
		return errors.Join(a.write(store.K(keyAccessKey, made.ID), record), a.save(kindUser, user, u))
	})
	return made, err
}

// AccessKeys lists the keys of a user.
func (s *Service) AccessKeys(ctx context.Context, account fleet.Account, user string) ([]KeyInfo, error) {
	u, err := find[userRecord](ctx, s.options.Store, account, kindUser, user)
	if err != nil {
		return nil, err
	}
	found := make([]KeyInfo, 0, len(u.Keys))
	for _, id := range u.Keys {
		record, err := read[accessKeyRecord](ctx, s.options.Store, store.K(keyAccessKey, id))
		if errors.Is(err, store.ErrNotFound) {
			continue // it has just gone
		}
		if err != nil {
			return nil, fmt.Errorf("read access key: %w", err)
		}
		used, err := s.lastUsed(ctx, id)
		if err != nil {
			return nil, err
		}
		found = append(found, KeyInfo{ID: id, User: user, Status: record.status(), CreatedAt: record.CreatedAt, LastUsed: used})
	}
	return found, nil
}

// KeyUser is the name of the user whose key this is in the account, empty for a
// key that is no user's: one that is not there, of another account, or of root.
func (s *Service) KeyUser(ctx context.Context, account fleet.Account, id string) string {
	if !validAccessKeyID(id) {
		return ""
	}
	record, err := read[accessKeyRecord](ctx, s.options.Store, store.K(keyAccessKey, id))
	if err != nil || record.Account != account || record.User == rootUser {
		return ""
	}
	return record.User
}

// ownKey finds a key of the account, and its user.
func (a *attempt) ownKey(ctx context.Context, id string) (*accessKeyRecord, *userRecord, error) {
	missing := fault.New(fault.ResourceNotFound, "The access key does not exist")
	if !validAccessKeyID(id) {
		return nil, nil, missing
	}
	record, err := read[accessKeyRecord](ctx, a.s.options.Store, store.K(keyAccessKey, id))
	if errors.Is(err, store.ErrNotFound) || err == nil && record.Account != a.account {
		return nil, nil, missing
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read access key: %w", err)
	}
	if record.User == rootUser {
		return nil, nil, fault.New(fault.InvalidRequest, "This is the root access key; `muster key reset` on the host replaces it")
	}
	u, err := find[userRecord](ctx, a.s.options.Store, a.account, kindUser, record.User)
	return record, u, err
}

// SetAccessKeyStatus makes a key good or not. Connections that it opened end.
func (s *Service) SetAccessKeyStatus(ctx context.Context, account fleet.Account, id, status string) error {
	if status != KeyActive && status != KeyInactive {
		return fault.New(fault.InvalidRequest, "The status of an access key is %s or %s", KeyActive, KeyInactive)
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, _, err := a.ownKey(ctx, id)
		if err != nil || record.status() == status {
			return err
		}
		record.Status = status
		change := "ACTIVATED"
		if status == KeyInactive {
			change = "DEACTIVATED"
		}
		a.emit(event.OperatorAccessKey, id, change)
		return a.write(store.K(keyAccessKey, id), record)
	})
}

// DeleteAccessKey removes a key. Connections that it opened end.
func (s *Service) DeleteAccessKey(ctx context.Context, account fleet.Account, id string) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		_, u, err := a.ownKey(ctx, id)
		if err != nil {
			return err
		}
		u.Keys = slices.DeleteFunc(u.Keys, func(k string) bool { return k == id })
		a.remove(store.K(keyAccessKey, id))
		a.remove(store.K(keyUsed, id))
		a.emit(event.OperatorAccessKey, id, "DELETED")
		return a.save(kindUser, u.Name, u)
	})
}

// lastUsed reads when a key was last used.
func (s *Service) lastUsed(ctx context.Context, id string) (time.Time, error) {
	record, err := s.options.Store.Get(ctx, store.K(keyUsed, id))
	if errors.Is(err, store.ErrNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read last use of an access key: %w", err)
	}
	var used usedRecord
	if err := decode(record.Value, &used, &used.Schema); err != nil {
		return time.Time{}, fmt.Errorf("read last use of an access key: %w", err)
	}
	return used.At, nil
}

// Used notes that an access key was proven. It writes at most once an hour and
// key; what cannot be written is not worth refusing the call.
func (s *Service) Used(ctx context.Context, id string) {
	if id == "" || !validAccessKeyID(id) || sessionKey(id) {
		return
	}
	now := s.options.Now().UTC().Truncate(usedEvery)
	s.usedMu.Lock()
	known := s.used[id]
	if known.Before(now) {
		if len(s.used) >= maxOpened {
			clear(s.used)
		}
		s.used[id] = now
	}
	s.usedMu.Unlock()
	if !known.Before(now) {
		return
	}
	key := store.K(keyUsed, id)
	value, err := json.Marshal(usedRecord{Schema: schema, At: now})
	if err != nil {
		return
	}
	// Without the key there is nothing to note: it may have been deleted since.
	record, err := s.options.Store.Get(ctx, store.K(keyAccessKey, id))
	if err != nil {
		return
	}
	_, _ = s.options.Store.Commit(ctx, store.Batch{ // as the comment says
		Expect: []store.Expect{{Key: store.K(keyAccessKey, id), Version: record.Version}},
		Writes: []store.Write{{Key: key, Value: value}},
	})
}
