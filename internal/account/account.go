// Package account owns who may operate the installation: accounts, the directory
// of the names that select them, the access keys of their root users, users,
// groups of users, roles and their policies, the credentials of sessions, and the
// answer to Authorize for every adapter. What a certificate may do is asked of an
// injected DeviceAuthorizer. Secrets are sealed before they reach the store,
// passwords hashed. The package knows no transport and no signatures, and starts
// no goroutines. It emits AccountChanged, which the Directory follows, and
// OperatorChanged.
//
// Every change of operators expects and rewrites the guard of its account, so
// that commands see what they change. Each commits OperatorChanged; Apply makes
// permissions follow it, and a command answers once that has happened.
//
// Keys: ("account", account), ("access-key", access key id), ("access-key-used",
// access key id), ("operator", account, kind, name), ("operator-group-user",
// account, group, user), ("operator-policy-target", account, policy, kind, name)
// and ("operators", account).
package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// schema is the version of the records below.
const schema = 1

// First key parts.
const (
	keyAccount   = "account"
	keyAccessKey = "access-key"
)

// rootUser is the name of an account's only user.
const rootUser = "root"

// maxOpened bounds the opened secrets kept in memory. When it is reached the
// whole cache starts anew: opening a secret again is cheap, and there are far
// fewer keys than this.
const maxOpened = 1024

// Sealer encrypts what must be recoverable but not readable in the store.
type Sealer interface {
	Seal(plain []byte) ([]byte, error)
	Open(sealed []byte) ([]byte, error)
}

// DeviceAuthorizer decides what a device certificate may do over HTTPS.
type DeviceAuthorizer interface {
	Authorize(ctx context.Context, principal fleet.Principal, action, resource string) error
}

// Options of New.
type Options struct {
	Store  store.Store
	Sealer Sealer
	// Devices answers for certificates; without one they are refused.
	Devices DeviceAuthorizer
	// Region answers aws:RequestedRegion.
	Region string
	// SessionKey seals session tokens: SessionKeySize secret bytes, the same on
	// every node and after a restart. Without it there are no sessions.
	SessionKey []byte
	// Barrier lets a change wait until this node follows it; nil where nobody
	// does.
	Barrier Barrier
	// Lag is how far Apply is behind the log; nil for never. It is asked for each
	// packet.
	Lag func() time.Duration
	// Logger may be nil.
	Logger *slog.Logger
	// Now is the clock.
	Now func() time.Time
	// Default is the account that manages the others.
	Default fleet.Account
	// Endpoints are the names by which an account's devices reach it; optional.
	Endpoints func(of fleet.Account) Endpoints
	// Applied waits until the Directory of this node has a change; optional.
	Applied func(ctx context.Context, position store.Position) error
}

// Barrier waits until permissions follow the log up to a position.
type Barrier interface {
	WaitApplied(ctx context.Context, position store.Position) error
}

// Service answers who a caller is and what it may do. It is safe for
// concurrent use.
type Service struct {
	options Options

	mu sync.Mutex
	// opened keeps secrets by access key id, valid for one record version.
	opened map[string]openedSecret

	usedMu sync.Mutex
	// used is when the use of an access key was last noted.
	used map[string]time.Time

	permissions permissions
}

// openedSecret is a secret and the version of the record that it came from.
type openedSecret struct {
	version uint64
	secret  string
}

// New returns a service over the store.
func New(o Options) *Service {
	return &Service{options: o, opened: map[string]openedSecret{}, used: map[string]time.Time{}}
}

// accountRecord is the stored form of an account.
type accountRecord struct {
	Schema    int       `json:"v"`
	RootKeyID string    `json:"rootKeyId"`
	CreatedAt time.Time `json:"createdAt"`
	// The rest is empty in records from before there were several accounts.
	Name       string    `json:"name,omitempty"`
	Email      string    `json:"email,omitempty"`
	Status     string    `json:"status,omitempty"`
	ModifiedAt time.Time `json:"modifiedAt,omitzero"`
}

// accessKeyRecord is the stored form of an access key.
type accessKeyRecord struct {
	Schema    int           `json:"v"`
	Account   fleet.Account `json:"account"`
	User      string        `json:"user"`
	Sealed    []byte        `json:"sealed"`
	CreatedAt time.Time     `json:"createdAt"`
	// Status is KeyActive or KeyInactive; empty in records of old means active.
	Status string `json:"status,omitempty"`
}

// AccessKey is what a caller signs with.
type AccessKey struct{ ID, Secret string }

// RootPrincipal is the root user of an account.
func RootPrincipal(account fleet.Account) fleet.Principal {
	return fleet.Principal{
		Kind: fleet.PrincipalUser, ID: rootUser,
		ARN: "arn:" + fleet.Partition + ":iam::" + string(account) + ":" + rootUser,
	}
}

// Root returns the root access key of an account and makes account and key on
// the first call. When two nodes start on one store at once, both get the key
// of the one that was first.
func (s *Service) Root(ctx context.Context, account fleet.Account) (AccessKey, error) {
	key, err := s.existingRoot(ctx, account)
	if !errors.Is(err, store.ErrNotFound) {
		return key, err
	}
	err = s.createRoot(ctx, account)
	if err != nil && !errors.Is(err, store.ErrConflict) {
		return AccessKey{}, fmt.Errorf("create account %s: %w", account, err)
	}
	return s.existingRoot(ctx, account)
}

// existingRoot reads the root key of an account that exists.
func (s *Service) existingRoot(ctx context.Context, account fleet.Account) (AccessKey, error) {
	record, err := s.options.Store.Get(ctx, store.K(keyAccount, string(account)))
	if err != nil {
		return AccessKey{}, fmt.Errorf("read account %s: %w", account, err)
	}
	var stored accountRecord
	if err := decode(record.Value, &stored, &stored.Schema); err != nil {
		return AccessKey{}, fmt.Errorf("read account %s: %w", account, err)
	}
	secret, _, err := s.open(ctx, stored.RootKeyID)
	if err != nil {
		return AccessKey{}, fmt.Errorf("read root access key of account %s: %w", account, err)
	}
	return AccessKey{ID: stored.RootKeyID, Secret: secret}, nil
}

// createRoot commits a new account with its key.
func (s *Service) createRoot(ctx context.Context, account fleet.Account) error {
	batch, _, err := s.newRoot(ctx, account, &accountRecord{Status: StatusActive})
	if err != nil {
		return err
	}
	_, err = s.options.Store.Commit(ctx, batch)
	return err //nolint:wrapcheck // the caller says what was being done
}

// newRoot draws the root access key of an account that does not exist yet, and
// returns the batch that makes both.
func (s *Service) newRoot(ctx context.Context, account fleet.Account, record *accountRecord) (store.Batch, AccessKey, error) {
	key, err := newAccessKey(accessKeyPrefix)
	if err != nil {
		return store.Batch{}, AccessKey{}, err
	}
	sealed, err := s.options.Sealer.Seal([]byte(key.Secret))
	if err != nil {
		return store.Batch{}, AccessKey{}, fmt.Errorf("seal secret: %w", err)
	}
	now := s.options.Now().UTC()
	record.RootKeyID, record.CreatedAt = key.ID, now
	accountValue, err := record.encode()
	if err != nil {
		return store.Batch{}, AccessKey{}, err
	}
	keyValue, err := json.Marshal(accessKeyRecord{Schema: schema, Account: account, User: rootUser, Sealed: sealed, CreatedAt: now})
	if err != nil {
		return store.Batch{}, AccessKey{}, fmt.Errorf("encode access key: %w", err)
	}
	accountKey, accessKey := store.K(keyAccount, string(account)), store.K(keyAccessKey, key.ID)
	return store.Batch{
		Expect: []store.Expect{{Key: accountKey}, {Key: accessKey}},
		Writes: []store.Write{{Key: accountKey, Value: accountValue}, {Key: accessKey, Value: keyValue}},
		Events: []event.Envelope{{
			Account: account, At: now, Actor: fleet.ActorFrom(ctx), Event: event.AccountChanged{Name: record.Name, Status: record.status()},
		}},
	}, key, nil
}

// SecretKey returns what a signature by an access key is checked against, and
// whom it stands for. An unknown id is fault.Unauthorized.
func (s *Service) SecretKey(ctx context.Context, accessKeyID string) (string, fleet.Account, fleet.Principal, error) {
	if !validAccessKeyID(accessKeyID) {
		return "", "", fleet.Principal{}, errUnknownKey()
	}
	secret, record, err := s.open(ctx, accessKeyID)
	if errors.Is(err, store.ErrNotFound) {
		return "", "", fleet.Principal{}, errUnknownKey()
	}
	if err != nil {
		return "", "", fleet.Principal{}, err
	}
	if record.status() != KeyActive {
		return "", "", fleet.Principal{}, errUnknownKey()
	}
	if record.User == rootUser {
		return secret, record.Account, RootPrincipal(record.Account), nil
	}
	return secret, record.Account, userPrincipal(record.Account, record.User), nil
}

// userPrincipal is a user of an account.
func userPrincipal(account fleet.Account, name string) fleet.Principal {
	return fleet.Principal{Kind: fleet.PrincipalUser, ID: name, ARN: iamARN(account, kindUser, name)}
}

// errUnknownKey does not repeat the id: it may be a secret pasted into the
// wrong place.
func errUnknownKey() error {
	return fault.New(fault.Unauthorized, "The security token included in the request is invalid.")
}

// open reads an access key and opens its secret, from memory when the record
// did not change since.
func (s *Service) open(ctx context.Context, id string) (string, accessKeyRecord, error) {
	var stored accessKeyRecord
	record, err := s.options.Store.Get(ctx, store.K(keyAccessKey, id))
	if err != nil {
		return "", stored, store.Fault(fmt.Errorf("read access key: %w", err))
	}
	if err := decode(record.Value, &stored, &stored.Schema); err != nil {
		return "", stored, fmt.Errorf("read access key: %w", err)
	}
	s.mu.Lock()
	cached, ok := s.opened[id]
	s.mu.Unlock()
	if ok && cached.version == record.Version {
		return cached.secret, stored, nil
	}
	plain, err := s.options.Sealer.Open(stored.Sealed)
	if err != nil {
		return "", stored, fmt.Errorf("open the secret of access key %s: %w", id, err)
	}
	s.mu.Lock()
	if len(s.opened) >= maxOpened {
		clear(s.opened)
	}
	s.opened[id] = openedSecret{version: record.Version, secret: string(plain)}
	s.mu.Unlock()
	return string(plain), stored, nil
}

// decode reads a record of a known schema version.
func decode(value []byte, into any, version *int) error {
	if err := json.Unmarshal(value, into); err != nil {
		return fmt.Errorf("decode record: %w", err)
	}
	if *version != schema {
		return fmt.Errorf("record has schema %d, this version reads %d", *version, schema)
	}
	return nil
}

// accountOf returns the account part of an ARN, "" when there is none. It is
// asked for each packet and does not allocate.
func accountOf(arn string) string {
	rest, ok := strings.CutPrefix(arn, "arn:")
	if !ok {
		return ""
	}
	for range 3 { // partition, service, region
		if _, rest, ok = strings.Cut(rest, ":"); !ok {
			return ""
		}
	}
	account, _, ok := strings.Cut(rest, ":")
	if !ok {
		return ""
	}
	return account
}
