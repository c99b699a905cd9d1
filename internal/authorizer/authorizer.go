package authorizer

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

// States of an authorizer. Devices are refused while it is INACTIVE.
const (
	StatusActive   = "ACTIVE"
	StatusInactive = "INACTIVE"
)

// Authorizer is a custom authorizer.
type Authorizer struct {
	Name string
	ARN  string
	// FunctionARN names what is asked.
	FunctionARN string
	// TokenKeyName is the header, query parameter or part of the MQTT user name
	// that holds the token; empty when nothing is called a token.
	TokenKeyName string
	// Keys are PEM public keys by name; a token signed with any of them is good.
	Keys            map[string]string
	Status          string
	SigningDisabled bool
	// CacheHTTP lets the answer count for later requests on one HTTP connection.
	CacheHTTP bool
	Created   time.Time
	Modified  time.Time
	// version changes with each change of the record.
	version uint64
}

// authorizer is the public form of a record.
func (s *Service) authorizer(account fleet.Account, name string, r *authorizerRecord) Authorizer {
	return Authorizer{
		Name: name, ARN: s.scope(account).ARN(fleet.ARNAuthorizer, name), FunctionARN: r.FunctionARN,
		TokenKeyName: r.TokenKeyName, Keys: maps.Clone(r.Keys), Status: r.Status,
		SigningDisabled: r.SigningDisabled, CacheHTTP: r.CacheHTTP,
		Created: time.UnixMilli(r.Created).UTC(), Modified: time.UnixMilli(r.Modified).UTC(),
	}
}

// CreateCommand describes a new authorizer.
type CreateCommand struct {
	Name         string
	FunctionARN  string
	TokenKeyName string
	Keys         map[string]string
	// Status is INACTIVE when empty.
	Status string
	// SigningDisabled never changes later.
	SigningDisabled bool
	CacheHTTP       bool
	Tags            []tag.Tag
}

// Create adds an authorizer. It is not repeatable.
func (s *Service) Create(ctx context.Context, account fleet.Account, c CreateCommand) (Authorizer, error) {
	if c.Status == "" {
		c.Status = StatusInactive
	}
	made := Authorizer{
		Name: c.Name, FunctionARN: c.FunctionARN, TokenKeyName: c.TokenKeyName, Keys: c.Keys, Status: c.Status, SigningDisabled: c.SigningDisabled,
	}
	if err := checkName(c.Name); err != nil {
		return Authorizer{}, err
	}
	if err := s.check(account, &made); err != nil {
		return Authorizer{}, err
	}
	tags, err := tag.Check(c.Tags)
	if err != nil {
		return Authorizer{}, err
	}
	err = s.change(ctx, account, c.Name, func(a *attempt) error {
		if a.one != nil {
			taken := fault.New(fault.ResourceAlreadyExists, "authorizer %s already exists", c.Name)
			taken.ResourceID, taken.ResourceARN = c.Name, s.scope(account).ARN(fleet.ARNAuthorizer, c.Name)
			return taken
		}
		if len(a.all.Names) >= MaxAuthorizers {
			return fault.New(fault.LimitExceeded, "an account may have at most %d authorizers", MaxAuthorizers)
		}
		now := s.now().UnixMilli()
		a.one = &authorizerRecord{
			FunctionARN: c.FunctionARN, TokenKeyName: c.TokenKeyName, Keys: c.Keys, Status: c.Status,
			SigningDisabled: c.SigningDisabled, CacheHTTP: c.CacheHTTP, Created: now, Modified: now,
		}
		made = s.authorizer(account, c.Name, a.one)
		a.all.Names = append(a.all.Names, c.Name)
		slices.Sort(a.all.Names)
		a.emit(c.Name, event.AuthorizerCreated)
		if err := tag.Attach(&a.batch, event.Envelope{}, s.resource(account, c.Name), tags); err != nil {
			return err
		}
		if err := a.saveAll(); err != nil {
			return err
		}
		return a.saveOne(c.Name)
	})
	return made, err
}

// check refuses an authorizer that breaks a rule.
func (s *Service) check(account fleet.Account, a *Authorizer) error {
	if err := checkStatus(a.Status); err != nil {
		return err
	}
	if err := s.checkFunction(account, a.FunctionARN); err != nil {
		return err
	}
	return checkSigning(a)
}

// UpdateCommand names what changes; nil leaves a member as it is.
type UpdateCommand struct {
	Name         string
	FunctionARN  *string
	TokenKeyName *string
	// Keys replace all keys unless nil.
	Keys      map[string]string
	Status    *string
	CacheHTTP *bool
}

// Update changes an authorizer. Devices that are connected keep what they were
// given until their policies are asked for again.
func (s *Service) Update(ctx context.Context, account fleet.Account, c UpdateCommand) (Authorizer, error) {
	if err := checkName(c.Name); err != nil {
		return Authorizer{}, err
	}
	var updated Authorizer
	err := s.change(ctx, account, c.Name, func(a *attempt) error {
		if a.one == nil {
			return notFound(c.Name)
		}
		set(&a.one.FunctionARN, c.FunctionARN)
		set(&a.one.TokenKeyName, c.TokenKeyName)
		set(&a.one.Status, c.Status)
		set(&a.one.CacheHTTP, c.CacheHTTP)
		if c.Keys != nil {
			a.one.Keys = c.Keys
		}
		a.one.Modified = s.now().UnixMilli()
		updated = s.authorizer(account, c.Name, a.one)
		if err := s.checkUpdate(account, c, &updated); err != nil {
			return err
		}
		a.emit(c.Name, event.AuthorizerUpdated)
		return a.saveOne(c.Name)
	})
	return updated, err
}

// checkUpdate is check, except that an authorizer whose function has left the
// configuration can still be switched off.
func (s *Service) checkUpdate(account fleet.Account, c UpdateCommand, a *Authorizer) error {
	if c.FunctionARN == nil && a.Status == StatusInactive {
		return checkSigning(a)
	}
	return s.check(account, a)
}

// set takes a new value over if there is one.
func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func notFound(name string) error {
	return fault.New(fault.ResourceNotFound, "authorizer %s does not exist", name)
}

// Delete removes an authorizer that is neither active nor the default.
func (s *Service) Delete(ctx context.Context, account fleet.Account, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return s.change(ctx, account, name, func(a *attempt) error {
		switch {
		case a.one == nil:
			return notFound(name)
		case a.all.Default == name:
			return fault.New(fault.DeleteConflict, "authorizer %s is the default; clear the default first", name)
		case a.one.Status == StatusActive:
			return fault.New(fault.InvalidRequest, "authorizer %s is %s; make it %s first", name, StatusActive, StatusInactive)
		}
		a.all.Names = slices.DeleteFunc(a.all.Names, func(n string) bool { return n == name })
		a.batch.Writes = append(a.batch.Writes, store.Write{Key: authorizerKey(account, name), Delete: true})
		tag.Remove(&a.batch, s.resource(account, name))
		a.emit(name, event.AuthorizerDeleted)
		return a.saveAll()
	})
}

// Describe returns an authorizer.
func (s *Service) Describe(ctx context.Context, account fleet.Account, name string) (Authorizer, error) {
	if err := checkName(name); err != nil {
		return Authorizer{}, err
	}
	var record authorizerRecord
	version, err := read(ctx, s.store, authorizerKey(account, name), &record, &record.Schema)
	if err != nil {
		return Authorizer{}, err
	}
	if version == 0 {
		return Authorizer{}, notFound(name)
	}
	found := s.authorizer(account, name, &record)
	found.version = version
	return found, nil
}

// DescribeDefault returns the default authorizer.
func (s *Service) DescribeDefault(ctx context.Context, account fleet.Account) (Authorizer, error) {
	name, err := s.defaultName(ctx, account)
	if err != nil {
		return Authorizer{}, err
	}
	if name == "" {
		return Authorizer{}, fault.New(fault.ResourceNotFound, "there is no default authorizer")
	}
	return s.Describe(ctx, account, name)
}

// defaultName is empty when there is no default.
func (s *Service) defaultName(ctx context.Context, account fleet.Account) (string, error) {
	var all accountRecord
	_, err := read(ctx, s.store, accountKey(account), &all, &all.Schema)
	return all.Default, err
}

// SetDefault makes an authorizer the one for devices that name none. Another
// default has to be cleared first.
func (s *Service) SetDefault(ctx context.Context, account fleet.Account, name string) (Authorizer, error) {
	if err := checkName(name); err != nil {
		return Authorizer{}, err
	}
	var chosen Authorizer
	err := s.change(ctx, account, name, func(a *attempt) error {
		if a.one == nil {
			return notFound(name)
		}
		chosen = s.authorizer(account, name, a.one)
		if a.all.Default == name {
			return nil
		}
		if a.all.Default != "" {
			taken := fault.New(fault.ResourceAlreadyExists, "authorizer %s is the default; clear it first", a.all.Default)
			taken.ResourceID, taken.ResourceARN = a.all.Default, s.scope(account).ARN(fleet.ARNAuthorizer, a.all.Default)
			return taken
		}
		a.all.Default = name
		a.emit(name, event.AuthorizerDefaultSet)
		return a.saveAll()
	})
	return chosen, err
}

// ClearDefault leaves the account without a default.
func (s *Service) ClearDefault(ctx context.Context, account fleet.Account) error {
	return s.change(ctx, account, "", func(a *attempt) error {
		if a.all.Default == "" {
			return fault.New(fault.ResourceNotFound, "there is no default authorizer")
		}
		a.emit(a.all.Default, event.AuthorizerDefaultCleared)
		a.all.Default = ""
		return a.saveAll()
	})
}

// ListQuery asks for a page of authorizers in the order of their names.
type ListQuery struct {
	// Status lists those in one state only, unless empty.
	Status    string
	Ascending bool
	// After is the last name of the page before.
	After string
	// Limit is the most to return; MaxAuthorizers when 0.
	Limit int
}

// List returns a page and the name that the next one begins after, empty on the
// last page.
func (s *Service) List(ctx context.Context, account fleet.Account, q ListQuery) (page []Authorizer, next string, err error) {
	if q.Status != "" {
		if err := checkStatus(q.Status); err != nil {
			return nil, "", err
		}
	}
	limit := q.Limit
	if limit <= 0 {
		limit = MaxAuthorizers
	}
	var all accountRecord
	if _, err := read(ctx, s.store, accountKey(account), &all, &all.Schema); err != nil {
		return nil, "", err
	}
	order := strings.Compare
	if !q.Ascending {
		order = func(a, b string) int { return strings.Compare(b, a) }
	}
	slices.SortFunc(all.Names, order)
	for _, name := range all.Names {
		if q.After != "" && order(name, q.After) <= 0 {
			continue
		}
		found, err := s.Describe(ctx, account, name)
		switch {
		case fault.CodeOf(err) == fault.ResourceNotFound: // deleted since
		case err != nil:
			return nil, "", err
		case q.Status != "" && found.Status != q.Status:
		case len(page) == limit:
			return page, page[limit-1].Name, nil
		default:
			page = append(page, found)
		}
	}
	return page, "", nil
}
