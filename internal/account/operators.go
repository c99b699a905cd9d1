package account

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First key parts of the operators of an account.
const (
	// keyOperator is followed by account, kind and name.
	keyOperator = "operator"
	// keyMember is followed by account, group and user.
	keyMember = "operator-group-user"
	// keyTarget is followed by account, policy, kind and name of what the policy is
	// attached to.
	keyTarget = "operator-policy-target"
	// keyGuard is the guard of all changes in an account.
	keyGuard = "operators"
)

// Kinds of operators, as they stand in keys.
const (
	kindUser   = "user"
	kindGroup  = "group"
	kindRole   = "role"
	kindPolicy = "policy"
)

const (
	// maxAttempts bounds how often a command decides again after a race.
	maxAttempts = 48
	// maxPause bounds the pause before another attempt.
	maxPause = 20 * time.Millisecond
	// barrierPatience bounds the wait for what a change must be felt by.
	barrierPatience = 5 * time.Second
)

// Limits of an account, those of IAM where it has one.
const (
	maxUsers           = 5000
	maxGroups          = 300
	maxRoles           = 1000
	maxPolicies        = 1500
	maxGroupsPerUser   = 10
	maxKeysPerUser     = 2
	maxManagedPerOwner = 10
	maxInlinePerOwner  = 10
	maxDescription     = 1000
)

// Names as IAM has them.
var (
	shortNamePattern = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)
	longNamePattern  = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
)

// checkName refuses what cannot name something of a kind.
func checkName(kind, name string) error {
	pattern, longest := shortNamePattern, 64
	if kind == kindGroup || kind == kindPolicy {
		pattern, longest = longNamePattern, 128
	}
	if !pattern.MatchString(name) {
		return fault.New(fault.InvalidRequest, "The %s name must have 1 to %d characters: letters, digits and _+=,.@-", kind, longest)
	}
	if kind == kindUser && name == rootUser {
		return fault.New(fault.InvalidRequest, "The user name %q is taken by the account itself", name)
	}
	return nil
}

// owner is what users, groups and roles have in common: policies.
type owner struct {
	Schema    int       `json:"v"`
	Name      string    `json:"name"`
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"createdAt"`
	// Policies are the ARNs of attached policies, Inline own documents by name.
	Policies []string          `json:"policies,omitempty"`
	Inline   map[string]string `json:"inline,omitempty"`
}

// userRecord is the stored form of a user.
type userRecord struct {
	owner

	Groups   []string        `json:"groups,omitempty"`
	Keys     []string        `json:"keys,omitempty"`
	Password *passwordRecord `json:"password,omitempty"`
	// RevokedAt voids sessions that began until then.
	RevokedAt time.Time `json:"revokedAt,omitzero"`
}

// groupRecord is the stored form of a group of users.
type groupRecord struct{ owner }

// roleRecord is the stored form of a role.
type roleRecord struct {
	owner

	Description string    `json:"description,omitempty"`
	Trust       string    `json:"trust"`
	MaxSession  int       `json:"maxSession"`
	RevokedAt   time.Time `json:"revokedAt,omitzero"`
}

// policyRecord is the stored form of an own managed policy.
type policyRecord struct {
	Schema      int       `json:"v"`
	Name        string    `json:"name"`
	ID          string    `json:"id"`
	Description string    `json:"description,omitempty"`
	Document    string    `json:"document"`
	CreatedAt   time.Time `json:"createdAt"`
	UpdatedAt   time.Time `json:"updatedAt"`
}

// stored is any of the records.
type stored interface {
	userRecord | groupRecord | roleRecord | policyRecord | accessKeyRecord
}

// attempt is one try of a command. Every command expects and rewrites the
// account's guard, so that what it read is what it changes.
type attempt struct {
	s       *Service
	account fleet.Account
	now     time.Time
	actor   fleet.Actor
	batch   store.Batch
}

// change runs a command until its batch commits, its decision is an error, or
// too many others were faster; and returns when permissions follow it.
func (s *Service) change(ctx context.Context, account fleet.Account, command func(context.Context, *attempt) error) error {
	guard := store.K(keyGuard, string(account))
	for n := range maxAttempts {
		if n > 0 {
			if err := pause(ctx); err != nil {
				return err
			}
		}
		a := &attempt{s: s, account: account, now: s.options.Now().UTC(), actor: fleet.ActorFrom(ctx)}
		record, err := s.options.Store.Get(ctx, guard)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("read the operators of account %s: %w", account, err)
		}
		a.batch.Expect = append(a.batch.Expect, store.Expect{Key: guard, Version: record.Version})
		if err := command(ctx, a); err != nil {
			return store.Fault(err)
		}
		if len(a.batch.Writes) == 0 {
			return nil
		}
		a.batch.Writes = append(a.batch.Writes, store.Write{Key: guard, Value: []byte(`{"v":1}`)})
		position, err := s.options.Store.Commit(ctx, a.batch)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return store.Fault(fmt.Errorf("change the operators of account %s: %w", account, err))
		}
		s.forget(account)
		s.await(ctx, position)
		return nil
	}
	return fault.New(fault.Throttling, "Too many concurrent changes of operators; try again")
}

// pause waits a short random time or until ctx ends.
func pause(ctx context.Context) error {
	timer := time.NewTimer(mathrand.N(maxPause) + time.Microsecond) //nolint:gosec // spreads retries, guards no secret
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await returns when the change is felt on this node. It is durable already, so
// a slow follower is reported and no error.
func (s *Service) await(ctx context.Context, position store.Position) {
	if s.options.Barrier == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, barrierPatience)
	defer cancel()
	if err := s.options.Barrier.WaitApplied(ctx, position); err != nil && s.options.Logger != nil {
		s.options.Logger.WarnContext(ctx, "answered before connections felt the change of operators",
			slog.Uint64("seq", position.Seq), slog.Any("err", err))
	}
}

// read loads a record; store.ErrNotFound when there is none.
func read[T stored](ctx context.Context, r store.Reader, key store.Key) (*T, error) {
	record, err := r.Get(ctx, key)
	if err != nil {
		return nil, store.Fault(err) // callers test for absence and say what they wanted
	}
	return parse[T](record)
}

// parse decodes a record of a known schema version.
func parse[T stored](record store.Record) (*T, error) {
	var version struct {
		Schema int `json:"v"`
	}
	into := new(T)
	if err := decode(record.Value, &version, &version.Schema); err != nil {
		return nil, fmt.Errorf("%s: %w", record.Key, err)
	}
	if err := json.Unmarshal(record.Value, into); err != nil {
		return nil, fmt.Errorf("%s: decode record: %w", record.Key, err)
	}
	return into, nil
}

// operatorKey is the key of a user, group, role or policy.
func operatorKey(account fleet.Account, kind, name string) store.Key {
	return store.K(keyOperator, string(account), kind, name)
}

// find loads something of the account by kind and name, or says that there is
// no such thing.
func find[T stored](ctx context.Context, r store.Reader, account fleet.Account, kind, name string) (*T, error) {
	// A name that cannot exist would not make a key.
	if err := checkName(kind, name); err != nil {
		return nil, absent(kind, name)
	}
	found, err := read[T](ctx, r, operatorKey(account, kind, name))
	if errors.Is(err, store.ErrNotFound) {
		return nil, absent(kind, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s %q: %w", kind, name, err)
	}
	return found, nil
}

// absent says that something does not exist.
func absent(kind, name string) error {
	if len(name) > 128 {
		name = name[:128]
	}
	return fault.New(fault.ResourceNotFound, "The %s %q does not exist", kind, name)
}

// write puts a record into the batch.
func (a *attempt) write(key store.Key, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	a.batch.Writes = append(a.batch.Writes, store.Write{Key: key, Value: data})
	return nil
}

// save puts a user, group, role or policy into the batch.
func (a *attempt) save(kind, name string, value any) error {
	return a.write(operatorKey(a.account, kind, name), value)
}

// row writes a row that carries nothing but its key.
func (a *attempt) row(key store.Key) {
	a.batch.Writes = append(a.batch.Writes, store.Write{Key: key, Value: []byte("{}")})
}

// remove deletes a record or row.
func (a *attempt) remove(key store.Key) {
	a.batch.Writes = append(a.batch.Writes, store.Write{Key: key, Delete: true})
}

// emit appends an event to the batch.
func (a *attempt) emit(kind event.OperatorKind, name, change string) {
	a.batch.Events = append(a.batch.Events, event.Envelope{
		Account: a.account, At: a.now, Actor: a.actor, Event: event.OperatorChanged{Kind: kind, Name: name, Change: change},
	})
}

// create starts a record of a kind that must not exist and whose number is
// limited.
func (a *attempt) create(ctx context.Context, kind, name, prefix string, most int) (owner, error) {
	if err := checkName(kind, name); err != nil {
		return owner{}, err
	}
	_, err := a.s.options.Store.Get(ctx, operatorKey(a.account, kind, name))
	if err == nil {
		e := fault.New(fault.ResourceAlreadyExists, "The %s %q exists already", kind, name)
		e.ResourceID, e.ResourceARN = name, iamARN(a.account, kind, name)
		return owner{}, e
	}
	if !errors.Is(err, store.ErrNotFound) {
		return owner{}, fmt.Errorf("read %s %q: %w", kind, name, err)
	}
	count := 0
	err = a.s.options.Store.Scan(ctx, store.Under(keyOperator, string(a.account), kind), func(store.Record) error {
		count++
		return nil
	})
	if err != nil {
		return owner{}, fmt.Errorf("count: %w", err)
	}
	if count >= most {
		return owner{}, fault.New(fault.LimitExceeded, "The account has %d %ss already, which is the limit", count, kind)
	}
	id, err := uniqueID(prefix)
	return owner{Schema: schema, Name: name, ID: id, CreatedAt: a.now}, err
}

// iamARN names a user, group, role or policy.
func iamARN(account fleet.Account, kind, name string) string {
	return "arn:" + fleet.Partition + ":iam::" + string(account) + ":" + kind + "/" + name
}

// Prefixes of unique ids, those of IAM.
const (
	prefixUser   = "AIDA"
	prefixGroup  = "AGPA"
	prefixRole   = "AROA"
	prefixPolicy = "ANPA"
)

// uniqueID draws an id that no other resource has or had.
func uniqueID(prefix string) (string, error) {
	var buf [11]byte
	if _, err := rand.Read(buf[:]); err != nil {
		return "", fmt.Errorf("draw id: %w", err)
	}
	return prefix + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(buf[:])[:17], nil
}

// list reads one page of a kind in order of names, after a name. next is empty at
// the end.
func list[T stored](ctx context.Context, r store.Reader, account fleet.Account, kind, after string, limit int) (page []*T, next string, err error) {
	over := store.Under(keyOperator, string(account), kind)
	if after != "" {
		over = over.After(operatorKey(account, kind, after))
	}
	last := ""
	err = r.Scan(ctx, over, func(record store.Record) error {
		if len(page) == limit {
			next = last
			return store.Stop
		}
		found, err := parse[T](record)
		if err != nil {
			return err
		}
		page, last = append(page, found), record.Key.Last()
		return nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("list %ss: %w", kind, err)
	}
	return page, next, nil
}

// names lists the last parts of the rows under a prefix.
func names(ctx context.Context, r store.Reader, parts ...string) ([]string, error) {
	var found []string
	err := r.Scan(ctx, store.Under(parts...), func(record store.Record) error {
		found = append(found, record.Key.Last())
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", strings.Join(parts, "/"), err)
	}
	return found, nil
}

// without returns a list without one of its elements.
func without(all []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == one })
}
