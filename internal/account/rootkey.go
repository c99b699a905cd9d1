package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// ResetRoot replaces the root access key of an account that exists. The old one
// is void. It is for the host alone, on a store that no server uses: whoever may
// read the data folder is root already.
func (s *Service) ResetRoot(ctx context.Context, account fleet.Account) (AccessKey, error) {
	accountKey := store.K(keyAccount, string(account))
	record, err := s.options.Store.Get(ctx, accountKey)
	if errors.Is(err, store.ErrNotFound) {
		return AccessKey{}, fault.New(fault.ResourceNotFound, "There is no account %s in this store", account)
	}
	if err != nil {
		return AccessKey{}, fmt.Errorf("read account %s: %w", account, err)
	}
	var stored accountRecord
	if err := decode(record.Value, &stored, &stored.Schema); err != nil {
		return AccessKey{}, fmt.Errorf("read account %s: %w", account, err)
	}
	key, err := newAccessKey(accessKeyPrefix)
	if err != nil {
		return AccessKey{}, err
	}
	sealed, err := s.options.Sealer.Seal([]byte(key.Secret))
	if err != nil {
		return AccessKey{}, fmt.Errorf("seal secret: %w", err)
	}
	old, now := stored.RootKeyID, s.options.Now().UTC()
	stored.RootKeyID = key.ID
	accountValue, err := json.Marshal(stored)
	if err != nil {
		return AccessKey{}, fmt.Errorf("encode account: %w", err)
	}
	keyValue, err := json.Marshal(accessKeyRecord{Schema: schema, Account: account, User: rootUser, Sealed: sealed, CreatedAt: now, Status: KeyActive})
	if err != nil {
		return AccessKey{}, fmt.Errorf("encode access key: %w", err)
	}
	fact := func(id, change string) event.Envelope {
		return event.Envelope{
			Account: account, At: now, Actor: fleet.ActorFrom(ctx),
			Event: event.OperatorChanged{Kind: event.OperatorAccessKey, Name: id, Change: change},
		}
	}
	_, err = s.options.Store.Commit(ctx, store.Batch{
		Expect: []store.Expect{{Key: accountKey, Version: record.Version}, {Key: store.K(keyAccessKey, key.ID)}},
		Writes: []store.Write{
			{Key: accountKey, Value: accountValue},
			{Key: store.K(keyAccessKey, key.ID), Value: keyValue},
			{Key: store.K(keyAccessKey, old), Delete: true},
			{Key: store.K(keyUsed, old), Delete: true},
		},
		Events: []event.Envelope{fact(old, "DELETED"), fact(key.ID, "CREATED")},
	})
	if err != nil {
		return AccessKey{}, store.Fault(fmt.Errorf("replace the root access key: %w", err))
	}
	return key, nil
}
