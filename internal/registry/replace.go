package registry

import (
	"context"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// ReplaceCommand asks for the end of certificates of a thing that another one
// replaces.
type ReplaceCommand struct {
	Thing string
	// By is the id of the certificate that replaces, Old are those of the ones
	// that it replaces.
	By  string
	Old []string
	// Joined adds to the commit what another domain keeps about it. It is asked in
	// each attempt.
	Joined func([]Replaced) (store.Batch, error)
}

// Replaced is what became of a certificate that another one replaces.
type Replaced struct {
	ID string
	// Status is the state that it is left in, empty for one that does not exist.
	Status string
	// Detached says that it acted as the thing until now.
	Detached bool
	// Shared says that it acts as other things, which keep it as it is.
	Shared bool
}

// NotReplacedError is a certificate that cannot replace another one, since it
// does not let its device act as the thing.
type NotReplacedError struct {
	// Reason is a sentence without a stop.
	Reason string
	// Final says that it never will.
	Final bool
}

// Error is the reason.
func (e *NotReplacedError) Error() string { return e.Reason }

// ReplaceCertificates detaches certificates from a thing and deactivates those
// that act as no other thing, in one commit: but only while the certificate that
// replaces them is ACTIVE, valid and the thing's, else it is a NotReplacedError
// and nothing changes. One that was revoked, deactivated or detached before is
// left as it is, except that one which acts as no thing at all does not stay
// ACTIVE. It does not wait for devices to see the change, and may be repeated.
func (s *Service) ReplaceCertificates(ctx context.Context, account fleet.Account, c ReplaceCommand) error {
	_, _, err := s.commit(ctx, account, s.store, func(ctx context.Context, a *attempt) error {
		record, err := mustReplace(ctx, a, &c)
		if err != nil {
			return err
		}
		ended := make([]Replaced, 0, len(c.Old))
		for _, id := range c.Old {
			one, err := replace(ctx, a, c.Thing, record, id)
			if err != nil {
				return err
			}
			ended = append(ended, one)
		}
		more, err := c.Joined(ended)
		if err != nil {
			return err
		}
		a.add(more)
		return nil
	})
	return err
}

// mustReplace returns the thing's record if the certificate that replaces others
// can act as it.
func mustReplace(ctx context.Context, a *attempt, c *ReplaceCommand) (*thingRecord, error) {
	record, err := load[thingRecord](ctx, a, key(kindThing, a.account, c.Thing))
	if err != nil {
		return nil, err
	}
	by, err := load[certificateRecord](ctx, a, key(kindCertificate, a.account, c.By))
	if err != nil {
		return nil, err
	}
	of := reference{kind: fleet.ARNCertificate, name: c.By}
	row, err := load[rowRecord](ctx, a, key(kindThingPrincipal, a.account, c.Thing, of.ref()))
	if err != nil {
		return nil, err
	}
	switch {
	case record == nil:
		return nil, &NotReplacedError{Reason: "the thing does not exist", Final: true}
	case by == nil:
		return nil, &NotReplacedError{Reason: "the new certificate does not exist", Final: true}
	case by.Status != StatusActive:
		return nil, &NotReplacedError{Reason: "the new certificate is " + by.Status, Final: by.Status == StatusRevoked}
	case row == nil:
		return nil, &NotReplacedError{Reason: "the new certificate is not attached to the thing"}
	case a.now.After(moment(by.NotAfter)):
		return nil, &NotReplacedError{Reason: "the new certificate has expired", Final: true}
	}
	return record, nil
}

// replace ends one certificate of a thing.
func replace(ctx context.Context, a *attempt, thing string, record *thingRecord, id string) (Replaced, error) {
	ended := Replaced{ID: id}
	certificate, err := load[certificateRecord](ctx, a, key(kindCertificate, a.account, id))
	if err != nil || certificate == nil {
		return ended, err
	}
	of := reference{kind: fleet.ARNCertificate, name: id}
	row, err := load[rowRecord](ctx, a, key(kindThingPrincipal, a.account, thing, of.ref()))
	if err != nil {
		return ended, err
	}
	if row != nil {
		ended.Detached = true
		a.part(thing, record, of, certificate)
		if err := saveBoth(a, thing, record, id, certificate); err != nil {
			return ended, err
		}
	}
	ended.Shared = certificate.Things > 0
	if !ended.Shared && certificate.Status == StatusActive {
		err = setStatus(a, a.account, id, certificate, StatusInactive)
	}
	ended.Status = certificate.Status
	return ended, err
}

// CanReplace says whether a certificate can act as a thing, and nothing else; see
// NotReplacedError.
func (s *Service) CanReplace(ctx context.Context, account fleet.Account, thing, id string) error {
	_, err := mustReplace(ctx, s.attempt(ctx, account), &ReplaceCommand{Thing: thing, By: id})
	return store.Fault(err)
}
