package certprovider

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

// Provider is a certificate provider. It signs for Operation.
type Provider struct {
	Name string
	ARN  string
	// FunctionARN names what is asked.
	FunctionARN string
	Created     time.Time
	Modified    time.Time
}

// provider is the public form of a record.
func (s *Service) provider(account fleet.Account, r *record) Provider {
	return Provider{
		Name: r.Name, ARN: s.scope(account).ARN(fleet.ARNCertificateProvider, r.Name), FunctionARN: r.FunctionARN,
		Created: time.UnixMilli(r.Created).UTC(), Modified: time.UnixMilli(r.Modified).UTC(),
	}
}

// CreateCommand describes a new provider.
type CreateCommand struct {
	Name        string
	FunctionARN string
	// Operations must be Operation alone.
	Operations []string
	// ClientToken, unless it is empty, lets the same request come twice.
	ClientToken string
	Tags        []tag.Tag
}

// Create gives an account its provider, from now on. Repeated with the same
// token and members, it answers as the first time as long as there is the
// provider that it has made.
func (s *Service) Create(ctx context.Context, account fleet.Account, c CreateCommand) (Provider, error) {
	if err := checkName(c.Name); err != nil {
		return Provider{}, err
	}
	if err := checkOperations(c.Operations); err != nil {
		return Provider{}, err
	}
	if err := s.checkFunction(account, c.FunctionARN); err != nil {
		return Provider{}, err
	}
	tags, err := tag.Check(c.Tags)
	if err != nil {
		return Provider{}, err
	}
	request, err := digest(c, tags)
	if err != nil {
		return Provider{}, err
	}
	var made Provider
	err = s.change(ctx, account, func(a *attempt) error {
		if a.one != nil && request != "" && a.one.Request == request {
			made = s.provider(account, a.one)
			return nil
		}
		if err := s.checkRoom(account, a.one, c.Name); err != nil {
			return err
		}
		now := s.o.Now().UnixMilli()
		a.one = &record{Name: c.Name, FunctionARN: c.FunctionARN, Created: now, Modified: now, Request: request}
		made = s.provider(account, a.one)
		if err := a.save(event.CertificateProviderCreated); err != nil {
			return err
		}
		return tag.Attach(&a.batch, event.Envelope{}, s.resource(account, c.Name), tags)
	})
	return made, err
}

// checkRoom refuses a second provider.
func (s *Service) checkRoom(account fleet.Account, present *record, name string) error {
	switch {
	case present == nil:
		return nil
	case present.Name != name:
		return fault.New(fault.LimitExceeded, "an account may have one certificate provider; there is %s", present.Name)
	}
	taken := fault.New(fault.ResourceAlreadyExists, "certificate provider %s already exists", name)
	taken.ResourceID, taken.ResourceARN = name, s.scope(account).ARN(fleet.ARNCertificateProvider, name)
	return taken
}

// UpdateCommand names what changes; nil leaves a member as it is.
type UpdateCommand struct {
	Name        string
	FunctionARN *string
	// Operations must be nil or Operation alone.
	Operations []string
}

// Update changes which function is asked, from the next request on.
func (s *Service) Update(ctx context.Context, account fleet.Account, c UpdateCommand) (Provider, error) {
	if err := checkName(c.Name); err != nil {
		return Provider{}, err
	}
	if c.Operations != nil {
		if err := checkOperations(c.Operations); err != nil {
			return Provider{}, err
		}
	}
	if c.FunctionARN != nil {
		if err := s.checkFunction(account, *c.FunctionARN); err != nil {
			return Provider{}, err
		}
	}
	var updated Provider
	err := s.change(ctx, account, func(a *attempt) error {
		if err := a.is(c.Name); err != nil {
			return err
		}
		if c.FunctionARN != nil {
			a.one.FunctionARN = *c.FunctionARN
		}
		a.one.Modified = s.o.Now().UnixMilli()
		updated = s.provider(account, a.one)
		return a.save(event.CertificateProviderUpdated)
	})
	return updated, err
}

// is refuses a name that is not the one of the account's provider.
func (a *attempt) is(name string) error { return named(a.one, name) }

// named refuses a record that is not the one of a name.
func named(r *record, name string) error {
	if r != nil && r.Name == name {
		return nil
	}
	return fault.New(fault.ResourceNotFound, "certificate provider %s does not exist", name)
}

// Delete lets the server's own authority sign again, from the next request on.
func (s *Service) Delete(ctx context.Context, account fleet.Account, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return s.change(ctx, account, func(a *attempt) error {
		if err := a.is(name); err != nil {
			return err
		}
		a.batch.Writes = append(a.batch.Writes, store.Write{Key: providerKey(account), Delete: true})
		tag.Remove(&a.batch, s.resource(account, name))
		a.emit(event.CertificateProviderDeleted)
		return nil
	})
}

// Describe returns a provider.
func (s *Service) Describe(ctx context.Context, account fleet.Account, name string) (Provider, error) {
	found, _, err := s.find(ctx, account, name)
	if err != nil {
		return Provider{}, err
	}
	return s.provider(account, found), nil
}

// find reads a provider that must exist, with the version of its record.
func (s *Service) find(ctx context.Context, account fleet.Account, name string) (*record, uint64, error) {
	if err := checkName(name); err != nil {
		return nil, 0, err
	}
	found, version, err := s.read(ctx, account)
	if err != nil {
		return nil, 0, err
	}
	return found, version, named(found, name)
}

// List returns the account's providers: one or none.
func (s *Service) List(ctx context.Context, account fleet.Account) ([]Provider, error) {
	found, _, err := s.read(ctx, account)
	if err != nil || found == nil {
		return nil, err
	}
	return []Provider{s.provider(account, found)}, nil
}

// resource names a provider among all that can have tags.
func (s *Service) resource(account fleet.Account, name string) fleet.ARN {
	return fleet.ARN{Scope: s.scope(account), Kind: fleet.ARNCertificateProvider, Name: name}
}

// TagFinders prove the existence of providers, which can have tags.
func (s *Service) TagFinders() map[string]tag.Finder {
	return map[string]tag.Finder{fleet.ARNCertificateProvider: func(ctx context.Context, account fleet.Account, name string) (store.Expect, error) {
		_, version, err := s.find(ctx, account, name)
		return store.Expect{Key: providerKey(account), Version: version}, err
	}}
}
