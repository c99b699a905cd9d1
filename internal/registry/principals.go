package registry

import (
	"context"
	"fmt"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Kinds of attachment between a thing and a principal.
const (
	ExclusiveThing    = "EXCLUSIVE_THING"
	NonExclusiveThing = "NON_EXCLUSIVE_THING"
)

// AttachThingPrincipal lets a certificate act as a thing. An EXCLUSIVE_THING
// attachment is the only one its certificate can have; kind is
// NON_EXCLUSIVE_THING when empty. It may be repeated, but not with the other
// kind.
func (s *Service) AttachThingPrincipal(ctx context.Context, account fleet.Account, thing, principal, kind string) error {
	of, err := s.checkAttachment(account, thing, principal)
	if err != nil {
		return err
	}
	exclusive, err := checkKind(kind)
	if err != nil {
		return err
	}
	return s.change(ctx, account, joining(thing, of, exclusive))
}

// joining is the command that lets a certificate act as a thing.
func joining(thing string, of reference, exclusive bool) func(context.Context, *attempt) error {
	return func(ctx context.Context, a *attempt) error {
		record, err := loadThing(ctx, a, thing)
		if err != nil {
			return err
		}
		certificate, err := loadCertificate(ctx, a, of.name)
		if err != nil {
			return err
		}
		present, err := load[rowRecord](ctx, a, key(kindThingPrincipal, a.account, thing, of.ref()))
		if err != nil {
			return err
		}
		if present != nil {
			return sameAttachment(present, exclusive)
		}
		if err := decideAttach(certificate, thing, exclusive); err != nil {
			return err
		}
		record.Principals++
		if record.Quarantine != nil {
			certificate.Quarantined++
		}
		a.flagged(key(kindThingPrincipal, a.account, thing, of.ref()), exclusive)
		a.flagged(key(kindPrincipalThing, a.account, of.ref(), thing), exclusive)
		a.emit(event.PrincipalAttached{Thing: thing, Principal: of.arn(a.scope), Exclusive: exclusive})
		return saveBoth(a, thing, record, of.name, certificate)
	}
}

// checkAttachment checks the two ends of an attachment.
func (s *Service) checkAttachment(account fleet.Account, thing, principal string) (reference, error) {
	if err := checkName("thingName", thing); err != nil {
		return reference{}, err
	}
	return checkPrincipal(s.scope(account), principal)
}

// checkKind tells whether a kind of attachment is the exclusive one.
func checkKind(kind string) (exclusive bool, err error) {
	switch kind {
	case "", NonExclusiveThing:
		return false, nil
	case ExclusiveThing:
		return true, nil
	}
	return false, fault.New(fault.InvalidRequest, "thingPrincipalType must be %s or %s", ExclusiveThing, NonExclusiveThing)
}

// sameAttachment refuses to change the kind of an attachment.
func sameAttachment(present *rowRecord, exclusive bool) error {
	if present.Claim == exclusive {
		return nil
	}
	return fault.New(fault.InvalidRequest, "the principal is attached to the thing with another thingPrincipalType; detach it first")
}

// decideAttach counts a new thing in the certificate's record, or refuses it.
func decideAttach(c *certificateRecord, thing string, exclusive bool) error {
	if c.Status == StatusPendingTransfer {
		return fault.New(fault.InvalidRequest, "the principal is being transferred to another account")
	}
	if c.ClaimTemplate != "" {
		return fault.New(fault.InvalidRequest, "the principal is the claim of a trusted user, which cannot act as a thing")
	}
	if c.ExclusiveThing != "" {
		return fault.New(fault.InvalidRequest, "the principal is attached to thing %s exclusively", c.ExclusiveThing)
	}
	if exclusive && c.Things > 0 {
		return fault.New(fault.InvalidRequest,
			"the principal is attached to %d other things; an exclusive attachment must be its only one", c.Things)
	}
	c.Things++
	if exclusive {
		c.ExclusiveThing = thing
	}
	return nil
}

// saveBoth writes the two ends of a changed attachment.
func saveBoth(a *attempt, thing string, record *thingRecord, id string, certificate *certificateRecord) error {
	a.devices = true
	if err := save(a, key(kindThing, a.account, thing), record); err != nil {
		return err
	}
	return save(a, key(kindCertificate, a.account, id), certificate)
}

// DetachThingPrincipal ends an attachment.
func (s *Service) DetachThingPrincipal(ctx context.Context, account fleet.Account, thing, principal string) error {
	of, err := s.checkAttachment(account, thing, principal)
	if err != nil {
		return err
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadThing(ctx, a, thing)
		if err != nil {
			return err
		}
		certificate, err := loadCertificate(ctx, a, of.name)
		if err != nil {
			return err
		}
		present, err := load[rowRecord](ctx, a, key(kindThingPrincipal, account, thing, of.ref()))
		if err != nil {
			return err
		}
		if present == nil {
			return fault.New(fault.ResourceNotFound, "principal %s is not attached to thing %s", principal, thing)
		}
		a.part(thing, record, of, certificate)
		return saveBoth(a, thing, record, of.name, certificate)
	})
}

// part ends an attachment; the two records are saved afterwards.
func (a *attempt) part(thing string, record *thingRecord, of reference, certificate *certificateRecord) {
	record.Principals--
	if record.Quarantine != nil {
		certificate.Quarantined = max(0, certificate.Quarantined-1)
	}
	certificate.Things--
	certificate.ExclusiveThing = ""
	a.remove(key(kindThingPrincipal, a.account, thing, of.ref()))
	a.remove(key(kindPrincipalThing, a.account, of.ref(), thing))
	a.emit(event.PrincipalDetached{Thing: thing, Principal: of.arn(a.scope)})
}

// Attachment is one end of an attachment, seen from the other.
type Attachment struct {
	// Name is the principal's ARN or the thing's name.
	Name string
	// Kind is ExclusiveThing or NonExclusiveThing.
	Kind string
}

// ListThingPrincipals returns one page of the principals that may act as a
// thing. kind is empty to list both kinds.
func (s *Service) ListThingPrincipals(ctx context.Context, account fleet.Account, thing, kind string, p Page) (Listed[Attachment], error) {
	if _, err := s.DescribeThing(ctx, account, thing); err != nil {
		return Listed[Attachment]{}, err
	}
	scope := s.scope(account)
	return s.listAttachments(ctx, under(kindThingPrincipal, account, thing), kind, p, func(k store.Key) string {
		return parseRef(k.Last()).arn(scope)
	})
}

// ListPrincipalThings returns one page of the things that a principal may act
// as. kind is empty to list both kinds.
func (s *Service) ListPrincipalThings(ctx context.Context, account fleet.Account, principal, kind string, p Page) (Listed[Attachment], error) {
	of, err := checkPrincipal(s.scope(account), principal)
	if err != nil {
		return Listed[Attachment]{}, err
	}
	if _, err := s.findCertificate(ctx, account, of.name); err != nil {
		return Listed[Attachment]{}, err
	}
	return s.listAttachments(ctx, under(kindPrincipalThing, account, of.ref()), kind, p, store.Key.Last)
}

// listAttachments pages through the rows of attachments of the wanted kind.
func (s *Service) listAttachments(
	ctx context.Context, within store.Range, kind string, p Page, name func(store.Key) string,
) (Listed[Attachment], error) {
	if _, err := checkKind(kind); err != nil {
		return Listed[Attachment]{}, err
	}
	self := func(k store.Key) store.Key { return k }
	listed, err := listRecords[rowRecord](ctx, s.store, within, p, self, func(k store.Key, r *rowRecord) (Attachment, bool) {
		made := Attachment{Name: name(k), Kind: NonExclusiveThing}
		if r.Claim {
			made.Kind = ExclusiveThing
		}
		return made, kind == "" || kind == made.Kind
	})
	if err != nil {
		return Listed[Attachment]{}, store.Fault(fmt.Errorf("list attachments: %w", err))
	}
	return listed, nil
}
