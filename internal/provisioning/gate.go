package provisioning

import (
	"context"
	"errors"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// Candidate is a device that its template would let in.
type Candidate struct {
	Account  fleet.Account
	Method   event.ProvisioningMethod
	Template string
	// Version is the template's that is in force.
	Version int64
	// CertificateID and CertificatePEM are of the certificate that it would have.
	CertificateID, CertificatePEM string
	// ClaimID and ClaimPEM are of the certificate with which it asks, CA is the authority
	// that it comes under; either is empty.
	ClaimID, ClaimPEM, CA string
	// ClientID and Address are of its connection; empty where there is none.
	ClientID, Address string
	Parameters        map[string]string
	Thing             string
}

// Gate decides whether a candidate joins. ErrPending keeps it waiting; any other
// error refuses it, with its message.
type Gate interface {
	Decide(ctx context.Context, c Candidate) (Pass, error)
}

// Pass is the permission of a gate.
type Pass struct {
	// Join, unless it is nil, returns what has to be committed with the
	// registration. It is asked in each attempt.
	Join func(ctx context.Context) (store.Batch, error)
	// Evidence is why the device may join, for its record.
	Evidence []event.ProvisioningEvidence
}

// ErrPending is a device about which nobody has decided yet; test with errors.Is.
var ErrPending = errors.New("the approval is pending")

// Waits is the fault for a device that has to come again.
func Waits(request string) error {
	return fault.Wrap(fault.Forbidden, ErrPending, "request %s", request)
}

// Misused is the fault for a device whose claim is used in a way that it is not for.
func Misused(how event.ClaimMisuse, format string, args ...any) error {
	return fault.Wrap(fault.Forbidden, misuse(how), format, args...)
}

// misuse says in an error how a claim was misused.
type misuse event.ClaimMisuse

func (m misuse) Error() string { return "misuse of the claim, " + string(m) }

// misuseOf is how a claim was misused, empty when it was not.
func misuseOf(err error) event.ClaimMisuse {
	if _, other := errors.AsType[*registry.MisusedError](err); other {
		return event.ClaimOtherSerial
	}
	m, _ := errors.AsType[misuse](err)
	return event.ClaimMisuse(m)
}

// decide asks the gate, if there is one.
func (s *Service) decide(ctx context.Context, c Candidate) (Pass, error) {
	if s.o.Gate == nil {
		return Pass{}, nil
	}
	return s.o.Gate.Decide(ctx, c) //nolint:wrapcheck // coded
}
