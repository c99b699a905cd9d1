package certprovider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

// kindProvider is the first part of the keys; the account is the second.
//
//	certificate-provider/A  record of the account's provider: its key is the limit
const kindProvider = "certificate-provider"

// schemaVersion is written into every record.
const schemaVersion = 1

// record is the stored form of a provider.
type record struct {
	Schema      int    `json:"v"`
	Name        string `json:"name"`
	FunctionARN string `json:"function"`
	Created     int64  `json:"created"`
	Modified    int64  `json:"modified"`
	// Request is the digest of the request that made it, with its token; empty
	// for one without a token.
	Request string `json:"request,omitempty"`
}

func providerKey(account fleet.Account) store.Key { return store.K(kindProvider, string(account)) }

// digest tells a request that is repeated from another one with the same name;
// empty for one that has no token.
func digest(c CreateCommand, tags tag.Set) (string, error) {
	if c.ClientToken == "" {
		return "", nil
	}
	data, err := json.Marshal([]any{c.ClientToken, c.Name, c.FunctionARN, tags})
	if err != nil {
		return "", fmt.Errorf("encode the request: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// read returns the account's provider, nil for none, with its version.
func (s *Service) read(ctx context.Context, account fleet.Account) (*record, uint64, error) {
	k := providerKey(account)
	found, err := s.o.Store.Get(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, store.Fault(fmt.Errorf("read %s: %w", k, err))
	}
	var r record
	if err := json.Unmarshal(found.Value, &r); err != nil {
		return nil, 0, fmt.Errorf("decode record %s: %w", k, err)
	}
	if r.Schema != schemaVersion {
		return nil, 0, fmt.Errorf("record %s has schema %d, this version reads %d", k, r.Schema, schemaVersion)
	}
	return &r, found.Version, nil
}

// attempt is one try of a command on an account's provider, whose record is
// expected as it was read.
type attempt struct {
	account fleet.Account
	// one is nil when there is none.
	one   *record
	batch store.Batch
}

// change runs a command until its batch commits, its decision is an error, or
// too many others were faster. A command that writes nothing commits nothing.
func (s *Service) change(ctx context.Context, account fleet.Account, command func(a *attempt) error) error {
	return store.Attempt(ctx, s.o.Store, func(ctx context.Context) (store.Batch, error) {
		one, version, err := s.read(ctx, account)
		if err != nil {
			return store.Batch{}, err
		}
		a := &attempt{account: account, one: one}
		a.batch.Expect = []store.Expect{{Key: providerKey(account), Version: version}}
		if err := command(a); err != nil {
			return store.Batch{}, err
		}
		for i := range a.batch.Events {
			a.batch.Events[i].Account, a.batch.Events[i].At, a.batch.Events[i].Actor = account, s.o.Now(), fleet.ActorFrom(ctx)
		}
		return a.batch, nil
	})
}

// save writes the record and reports the change.
func (a *attempt) save(change event.CertificateProviderChange) error {
	a.one.Schema = schemaVersion
	k := providerKey(a.account)
	data, err := json.Marshal(a.one)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", k, err)
	}
	a.batch.Writes = append(a.batch.Writes, store.Write{Key: k, Value: data})
	a.emit(change)
	return nil
}

// emit appends the event to the batch.
func (a *attempt) emit(change event.CertificateProviderChange) {
	a.batch.Events = append(a.batch.Events, event.Envelope{Event: event.CertificateProviderChanged{Provider: a.one.Name, Change: change}})
}
