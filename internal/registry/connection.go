package registry

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// CertificateInfo is what admission of a connection needs of a certificate.
type CertificateInfo struct {
	ID       string
	ARN      string
	Status   string
	Mode     string
	NotAfter time.Time
	PEM      string
	// ClaimTemplate is set for the claim of a trusted user.
	ClaimTemplate string
	Purpose       Purpose
}

// Certificate returns a certificate by id, or ResourceNotFound.
func (s *Service) Certificate(ctx context.Context, account fleet.Account, id string) (CertificateInfo, error) {
	if err := checkCertificateID(id); err != nil {
		return CertificateInfo{}, err
	}
	record, err := s.findCertificate(ctx, account, id)
	if err != nil {
		return CertificateInfo{}, err
	}
	purpose, err := s.findPurpose(ctx, account, record)
	if err != nil {
		return CertificateInfo{}, err
	}
	c := s.certificate(account, id, record)
	info := CertificateInfo{
		ID: c.ID, ARN: c.ARN, Status: c.Status, Mode: c.Mode, NotAfter: c.NotAfter, PEM: c.PEM, ClaimTemplate: c.ClaimTemplate, Purpose: purpose,
	}
	if info.Status == StatusActive && !purpose.ReopenedUntil.IsZero() && !s.now().Before(purpose.ReopenedUntil) {
		info.Status = StatusInactive // the window is over, and is about to be closed
	}
	return info, nil
}

// ThingInfo is the thing that a connection acts as.
type ThingInfo struct {
	Name       string
	TypeName   string
	Attributes map[string]string
	// Exclusive is true when the certificate acts as this thing only, whatever
	// the client id.
	Exclusive bool
	// Attached is true: without an attachment a connection acts as no thing.
	Attached bool
	Version  int64
	// Propagating is what the thing's type has its messages gain.
	Propagating []PropagatingAttribute
}

// ConnectionThing returns the thing that a connection acts as: the one that
// its certificate is attached to exclusively, else the one named like the
// client id if the certificate is attached to it; ok is false for none.
func (s *Service) ConnectionThing(ctx context.Context, account fleet.Account, principalARN, clientID string) (info ThingInfo, ok bool, err error) {
	of, err := checkPrincipal(s.scope(account), principalARN)
	if err != nil {
		return ThingInfo{}, false, err
	}
	certificate, err := s.findCertificate(ctx, account, of.name)
	if err != nil {
		return ThingInfo{}, false, err
	}
	name := certificate.ExclusiveThing
	if name == "" {
		if !fleet.ValidName(clientID) {
			return ThingInfo{}, false, nil
		}
		row, _, err := get[rowRecord](ctx, s.store, key(kindThingPrincipal, account, clientID, of.ref()))
		if err != nil || row == nil {
			return ThingInfo{}, false, store.Fault(err)
		}
		name = clientID
	}
	thing, _, err := get[thingRecord](ctx, s.store, key(kindThing, account, name))
	if err != nil || thing == nil {
		return ThingInfo{}, false, store.Fault(err)
	}
	info = ThingInfo{
		Name: name, TypeName: thing.TypeName, Attributes: thing.Attributes,
		Exclusive: certificate.ExclusiveThing != "", Attached: true, Version: thing.Version,
	}
	if thing.TypeName != "" {
		of, _, err := get[typeRecord](ctx, s.store, key(kindThingType, account, thing.TypeName))
		if err != nil {
			return ThingInfo{}, false, store.Fault(err)
		}
		if of != nil {
			info.Propagating = of.Propagating
		}
	}
	return info, true, nil
}
