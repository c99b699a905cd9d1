package registry

import (
	"context"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// CAPurpose is what the certificates under an authority are for.
type CAPurpose struct {
	BirthLimits

	// Purpose is PurposeBirth or PurposeOperational.
	Purpose string
	// SerialFrom is the part of a subject that holds the device's serial; empty for
	// certificates that are bound to no serial.
	SerialFrom string
	// Fingerprint is the SHA-256 of the authority's certificate that an operator has
	// given; empty for an authority of no purpose of its own.
	Fingerprint string
	By          string
	At          time.Time
	Declaration CADeclaration
}

// SetCAPurposeCommand says what the certificates under an authority are for.
type SetCAPurposeCommand struct {
	CA string
	// Purpose is PurposeBirth or PurposeOperational.
	Purpose string
	// Fingerprint is the SHA-256 of the authority's certificate in hexadecimal
	// digits, with colons or without, as the operator knows it from elsewhere.
	Fingerprint string
	SerialFrom  string
	// Limits are those of each certificate under it.
	Limits BirthLimits
}

// check refuses what is wrong without looking at the authority.
func (c *SetCAPurposeCommand) check() error {
	if err := checkCAID(c.CA); err != nil {
		return err
	}
	switch c.Purpose {
	case PurposeOperational:
		if c.SerialFrom != "" || c.Fingerprint != "" || !c.Limits.none() {
			return fault.New(fault.InvalidRequest, "fingerprint, serialFrom and limits are for CA certificates of purpose %s", PurposeBirth)
		}
		return nil
	case PurposeBirth:
	default:
		return fault.New(fault.InvalidRequest, "purpose must be %s or %s: a claim is one certificate and no authority", PurposeBirth, PurposeOperational)
	}
	switch c.SerialFrom {
	case "", SerialFromCommonName, SerialFromSerialNumber:
	default:
		return fault.New(fault.InvalidRequest, "serialFrom must be empty, %s or %s", SerialFromCommonName, SerialFromSerialNumber)
	}
	c.Fingerprint = strings.ToLower(strings.ReplaceAll(c.Fingerprint, ":", ""))
	if !fleet.ValidCertificateID(c.Fingerprint) {
		return fault.New(fault.InvalidRequest,
			"fingerprint must be the SHA-256 of the CA certificate in 64 hexadecimal digits, as you know it from its owner and not from this server")
	}
	return c.Limits.check()
}

// SetCAPurpose says what all certificates under an authority are for, those that
// are registered already included. A BIRTH authority must have an operator's
// declaration and the fingerprint that the operator expects. It stays one as long
// as a certificate is registered under it.
func (s *Service) SetCAPurpose(ctx context.Context, account fleet.Account, c SetCAPurposeCommand) (CAPurpose, error) {
	if err := c.check(); err != nil {
		return CAPurpose{}, err
	}
	var made CAPurpose
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		authority, err := loadCA(ctx, a, c.CA)
		if err != nil {
			return err
		}
		before, err := loadCAPurpose(ctx, a, c.CA)
		if err != nil {
			return err
		}
		previous := PurposeOperational
		if before != nil {
			previous = before.Purpose
		}
		switch {
		case c.Purpose == PurposeBirth:
			err = mayBeBirth(&c, authority)
		case previous == PurposeBirth:
			err = noneUnder(ctx, a, c.CA)
		default:
			made = caPurpose(authority, before)
			return nil
		}
		if err != nil {
			return err
		}
		record := &caPurposeRecord{
			BirthLimits: c.Limits, Purpose: c.Purpose, SerialFrom: c.SerialFrom, Fingerprint: c.Fingerprint,
			By: a.actor.Principal.ARN, At: millis(a.now),
		}
		made = caPurpose(authority, record)
		a.devices = true
		changed := caChanged(c.CA, authority, event.CACertificatePurposeSet)
		changed.Purpose, changed.PreviousPurpose, changed.Fingerprint = c.Purpose, previous, c.Fingerprint
		a.emit(changed)
		if c.Purpose == PurposeOperational {
			a.remove(key(kindCAPurpose, account, c.CA))
			return nil
		}
		// The authority's own record is the guard against a template or a withdrawal
		// at the same moment.
		if err := save(a, key(kindCACertificate, account, c.CA), authority); err != nil {
			return err
		}
		return save(a, key(kindCAPurpose, account, c.CA), record)
	})
	return made, err
}

// mayBeBirth tells whether an authority may be one of birth certificates.
func mayBeBirth(c *SetCAPurposeCommand, authority *caRecord) error {
	switch {
	case c.Fingerprint != c.CA:
		return fault.New(fault.CertificateValidation,
			"fingerprint is not that of the CA certificate %s: it is another certificate than the one that you expect", c.CA)
	case !authority.Declaration.stated():
		return fault.New(fault.CertificateState,
			"no operator has declared that the CA certificate %s is owned or trusted: say so first with muster ca declare", c.CA)
	case authority.Registration != nil:
		return fault.New(fault.CertificateState,
			"the CA certificate %s has a registration template, which would make operational devices of birth certificates; remove it first", c.CA)
	}
	return nil
}

// noneUnder refuses to let certificates become operational that were made for
// provisioning.
func noneUnder(ctx context.Context, a *attempt, ca string) error {
	rows, _, err := keysOf(ctx, a.reader, under(kindCertificateByCA, a.account, ca), "", 1)
	if err == nil && len(rows) > 0 {
		err = fault.New(fault.CertificateState,
			"certificates are registered under the CA certificate %s of purpose %s, as which they stay; delete them first", ca, PurposeBirth)
	}
	return err
}

// caPurpose is the public form.
func caPurpose(authority *caRecord, r *caPurposeRecord) CAPurpose {
	p := CAPurpose{Purpose: PurposeOperational, Declaration: declarationOf(authority)}
	if r != nil {
		p.Purpose, p.BirthLimits, p.SerialFrom, p.Fingerprint, p.By, p.At = r.Purpose, r.BirthLimits, r.SerialFrom, r.Fingerprint, r.By, moment(r.At)
	}
	return p
}

// DescribeCAPurpose returns what the certificates under an authority are for.
func (s *Service) DescribeCAPurpose(ctx context.Context, account fleet.Account, ca string) (CAPurpose, error) {
	if err := checkCAID(ca); err != nil {
		return CAPurpose{}, err
	}
	authority, _, err := get[caRecord](ctx, s.store, key(kindCACertificate, account, ca))
	if err != nil {
		return CAPurpose{}, store.Fault(err)
	}
	if authority == nil {
		return CAPurpose{}, notFound("CA certificate", ca)
	}
	record, _, err := get[caPurposeRecord](ctx, s.store, key(kindCAPurpose, account, ca))
	if err != nil {
		return CAPurpose{}, store.Fault(err)
	}
	return caPurpose(authority, record), nil
}

// noTemplateForBirth refuses a registration template for an authority of birth
// certificates: its devices would be operational with what they were made with.
func noTemplateForBirth(ctx context.Context, a *attempt, ca string, config *RegistrationConfig) error {
	if config == nil {
		return nil
	}
	purpose, err := loadCAPurpose(ctx, a, ca)
	if err == nil && purpose != nil && purpose.Purpose == PurposeBirth {
		err = fault.New(fault.InvalidRequest,
			"registrationConfig: the CA certificate %s is of purpose %s: its certificates are exchanged by fleet provisioning and run no registration template", ca, PurposeBirth)
	}
	return err
}

// notUnderBirth refuses to register a certificate without its authority when that
// is one of birth certificates.
func notUnderBirth(ctx context.Context, a *attempt, c *x509.Certificate) error {
	candidates, err := loadAuthorities(ctx, a, subjectHash(c.RawIssuer))
	if err != nil {
		return err
	}
	for _, candidate := range slices.DeleteFunc(candidates, func(of authority) bool { return !hinted(c, of.x509) }) {
		purpose, err := loadCAPurpose(ctx, a, candidate.id)
		if err != nil {
			return err
		}
		if purpose != nil && purpose.Purpose == PurposeBirth && signedBy(c, candidate.x509) {
			return fault.New(fault.CertificateState,
				"certificatePem is signed by the CA certificate %s of purpose %s: register it under that, with aws iot register-certificate", candidate.id, PurposeBirth)
		}
	}
	return nil
}
