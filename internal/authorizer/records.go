package authorizer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of the keys; the account is the second.
//
//	authorizer/A/<name>  record of one authorizer
//	authorizers/A        record: all names, the default one; guard of the limit
const (
	kindAuthorizer  = "authorizer"
	kindAuthorizers = "authorizers"
)

// schemaVersion is written into every record.
const schemaVersion = 1

// authorizerRecord is the stored form of an authorizer.
type authorizerRecord struct {
	Schema          int               `json:"v"`
	FunctionARN     string            `json:"function"`
	TokenKeyName    string            `json:"tokenKey,omitempty"`
	Keys            map[string]string `json:"keys,omitempty"`
	Status          string            `json:"status"`
	SigningDisabled bool              `json:"signingDisabled,omitempty"`
	CacheHTTP       bool              `json:"cacheHttp,omitempty"`
	Created         int64             `json:"created"`
	Modified        int64             `json:"modified"`
}

// accountRecord is what decides about an account's authorizers together.
type accountRecord struct {
	Schema int `json:"v"`
	// Names are in order.
	Names []string `json:"names"`
	// Default is empty when there is none.
	Default string `json:"default,omitempty"`
}

func authorizerKey(account fleet.Account, name string) store.Key {
	return store.K(kindAuthorizer, string(account), name)
}

func accountKey(account fleet.Account) store.Key { return store.K(kindAuthorizers, string(account)) }

// read decodes the record at a key into to; version 0 means that there is none.
func read(ctx context.Context, r store.Reader, k store.Key, to any, schema *int) (version uint64, err error) {
	found, err := r.Get(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, store.Fault(fmt.Errorf("read %s: %w", k, err))
	}
	if err := json.Unmarshal(found.Value, to); err != nil {
		return 0, fmt.Errorf("decode record %s: %w", k, err)
	}
	if *schema != schemaVersion {
		return 0, fmt.Errorf("record %s has schema %d, this version reads %d", k, *schema, schemaVersion)
	}
	return found.Version, nil
}

// attempt is one try of a command on an account's authorizers: both records
// are expected as they were read.
type attempt struct {
	account fleet.Account
	// all is the account's record, never nil.
	all *accountRecord
	// one is the authorizer that the command names, nil when there is none.
	one   *authorizerRecord
	batch store.Batch
}

// change runs a command until its batch commits, its decision is an error, or
// too many others were faster. What it emits carries the context's actor.
func (s *Service) change(ctx context.Context, account fleet.Account, name string, command func(a *attempt) error) error {
	return store.Attempt(ctx, s.store, func(ctx context.Context) (store.Batch, error) {
		a, err := s.load(ctx, account, name)
		if err != nil {
			return store.Batch{}, err
		}
		if err := command(a); err != nil {
			return store.Batch{}, err
		}
		for i := range a.batch.Events {
			a.batch.Events[i].Account, a.batch.Events[i].At, a.batch.Events[i].Actor = account, s.now(), fleet.ActorFrom(ctx)
		}
		return a.batch, nil
	})
}

// load reads what a command decides on.
func (s *Service) load(ctx context.Context, account fleet.Account, name string) (*attempt, error) {
	a := &attempt{account: account, all: &accountRecord{}}
	version, err := read(ctx, s.store, accountKey(account), a.all, &a.all.Schema)
	if err != nil {
		return nil, err
	}
	a.batch.Expect = append(a.batch.Expect, store.Expect{Key: accountKey(account), Version: version})
	if name == "" {
		return a, nil
	}
	a.one = &authorizerRecord{}
	version, err = read(ctx, s.store, authorizerKey(account, name), a.one, &a.one.Schema)
	if err != nil {
		return nil, err
	}
	if version == 0 {
		a.one = nil
	}
	a.batch.Expect = append(a.batch.Expect, store.Expect{Key: authorizerKey(account, name), Version: version})
	return a, nil
}

// save writes a record in the present schema.
func (a *attempt) save(k store.Key, record any) error {
	data, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", k, err)
	}
	a.batch.Writes = append(a.batch.Writes, store.Write{Key: k, Value: data})
	return nil
}

func (a *attempt) saveAll() error {
	a.all.Schema = schemaVersion
	return a.save(accountKey(a.account), a.all)
}

func (a *attempt) saveOne(name string) error {
	a.one.Schema = schemaVersion
	return a.save(authorizerKey(a.account, name), a.one)
}

// emit appends the event to the batch.
func (a *attempt) emit(name string, change event.AuthorizerChange) {
	e := event.AuthorizerChanged{Authorizer: name, Change: change}
	if a.one != nil && change != event.AuthorizerDeleted {
		e.Status = a.one.Status
	}
	a.batch.Events = append(a.batch.Events, event.Envelope{Event: e})
}
