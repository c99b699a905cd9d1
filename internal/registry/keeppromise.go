package registry

import (
	"context"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Keeping is what is to become of a thing and of what is promised of it, all of it
// in one commit.
type Keeping struct {
	// TypeName, Attributes, the groups and BillingGroup are those of EditCommand.
	TypeName                *string
	Attributes              map[string]string
	AddGroups, RemoveGroups []string
	BillingGroup            *string
	// AttachPolicies and DetachPolicies are of the certificate by which the thing is
	// judged; Activate makes it ACTIVE.
	AttachPolicies, DetachPolicies []string
	Activate                       bool
	// Promise, unless it is nil, takes the place of the present one; Forget ends it.
	Promise *Promise
	Forget  bool
	// Event reports it.
	Event event.Event
}

// KeepCommand asks for a thing to be brought together with what is promised of it.
type KeepCommand struct {
	Thing string
	// Decide says what to do by what is; the answer commits only while that holds. A
	// nil answer changes nothing. It may be asked several times.
	Decide func(Promised) (*Keeping, error)
	// Joined, unless it is nil, adds to the commit what another domain keeps of it.
	Joined func() (store.Batch, error)
	// DryRun decides and commits nothing.
	DryRun bool
}

// KeepPromise changes a thing, its certificate and its promise as decided, by the
// rules of the single commands, or nothing of them.
func (s *Service) KeepPromise(ctx context.Context, account fleet.Account, c KeepCommand) error {
	if err := checkName("thingName", c.Thing); err != nil {
		return err
	}
	command := func(ctx context.Context, a *attempt) error {
		p, record, err := s.promisedOf(ctx, a, c.Thing)
		if err != nil {
			return err
		}
		if record == nil {
			return noPromise(c.Thing)
		}
		k, err := c.Decide(p)
		if err != nil || k == nil {
			return err
		}
		if err := s.keepThing(ctx, a, &p, k); err != nil {
			return err
		}
		if err := s.keepCertificate(ctx, a, &p, k); err != nil {
			return err
		}
		if err := keepRecord(a, &p, record, k); err != nil {
			return err
		}
		a.emit(k.Event)
		if c.Joined == nil {
			return nil
		}
		more, err := c.Joined()
		if err != nil {
			return err
		}
		a.add(more)
		return nil
	}
	if c.DryRun {
		return store.Fault(command(ctx, s.attempt(ctx, account)))
	}
	return s.change(ctx, account, command)
}

// keepThing changes the thing's entry.
func (s *Service) keepThing(ctx context.Context, a *attempt, p *Promised, k *Keeping) error {
	if p.Thing == nil || k.TypeName == nil && len(k.Attributes)+len(k.AddGroups)+len(k.RemoveGroups) == 0 && k.BillingGroup == nil {
		return nil
	}
	edit := EditCommand{
		Thing: p.Name, ThingID: p.Thing.ID, TypeName: k.TypeName, Attributes: k.Attributes, AddGroups: k.AddGroups,
		RemoveGroups: k.RemoveGroups, BillingGroup: k.BillingGroup,
	}
	if err := checkEdit(edit); err != nil {
		return err
	}
	var edited Edited
	return s.editing(a.account, edit, &edited)(ctx, a)
}

// keepCertificate changes policies and state of the certificate.
func (s *Service) keepCertificate(ctx context.Context, a *attempt, p *Promised, k *Keeping) error {
	if p.Certificate == nil {
		return nil
	}
	of := reference{kind: fleet.ARNCertificate, name: p.Certificate.ID}
	for _, policy := range k.DetachPolicies {
		if err := s.detaching(policy, of)(ctx, a); err != nil {
			return err
		}
	}
	for _, policy := range k.AttachPolicies {
		if err := s.attaching(a.account, policy, of)(ctx, a); err != nil {
			return err
		}
	}
	if !k.Activate {
		return nil
	}
	record, err := loadCertificate(ctx, a, p.Certificate.ID)
	if err != nil {
		return err
	}
	return decideStatus(ctx, a, p.Certificate.ID, record, StatusActive)
}

// keepRecord changes what is promised.
func keepRecord(a *attempt, p *Promised, before *promiseRecord, k *Keeping) error {
	switch {
	case k.Forget:
		return savePromise(a, p.Name, before, nil)
	case k.Promise == nil:
		return nil
	}
	after := *before
	after.TypeName, after.Attributes, after.Groups = k.Promise.TypeName, k.Promise.Attributes, k.Promise.Groups
	after.BillingGroup, after.Certificate, after.Active = k.Promise.BillingGroup, k.Promise.CertificateID, k.Promise.Active
	after.Policies, after.Accepted = k.Promise.Policies, millis(a.now)
	return savePromise(a, p.Name, before, &after)
}
