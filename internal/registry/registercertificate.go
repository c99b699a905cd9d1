package registry

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/crl"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// RegisterCertificateCommand asks to register a certificate that a registered
// authority issued.
type RegisterCertificateCommand struct {
	CertificatePEM string
	// CACertificatePEM chooses among authorities that fit alike; empty when one
	// does.
	CACertificatePEM string
	// Status is INACTIVE when empty.
	Status string
}

// RegisterCertificate registers a certificate under its authority, whose mode
// it takes. The signature is checked here and never again: the certificate's
// id is the hash of what was signed.
func (s *Service) RegisterCertificate(ctx context.Context, account fleet.Account, c RegisterCertificateCommand) (Certificate, error) {
	status, err := initialStatus(c.Status)
	if err != nil {
		return Certificate{}, err
	}
	parsed, stand, err := s.foreign(c)
	if err != nil {
		return Certificate{}, err
	}
	return s.register(ctx, account, parsed, status, stand)
}

// foreign reads a certificate that a registered authority issued, and returns
// what decides under which.
func (s *Service) foreign(c RegisterCertificateCommand) (parsedCertificate, func(context.Context, *attempt) (standing, error), error) {
	parsed, err := parseCertificate(c.CertificatePEM)
	if err != nil {
		return parsedCertificate{}, nil, err
	}
	if err := checkForeign("certificatePem", parsed.x509, s.now()); err != nil {
		return parsedCertificate{}, nil, err
	}
	named := ""
	if c.CACertificatePEM != "" {
		authority, err := parseMember("caCertificatePem", c.CACertificatePEM)
		if err != nil {
			return parsedCertificate{}, nil, err
		}
		if !signedBy(parsed.x509, authority.x509) {
			return parsedCertificate{}, nil, fault.New(fault.CertificateConflict, "certificatePem is not signed by caCertificatePem")
		}
		named = authority.id
	}
	return parsed, func(ctx context.Context, a *attempt) (standing, error) {
		return underAuthority(ctx, a, parsed.x509, named)
	}, nil
}

// Vouched reads a certificate that is not registered yet and finds the active
// registered authority that has signed it. The answer is of now: registering it
// decides again. Errors are those of RegisterCertificate.
func (s *Service) Vouched(ctx context.Context, account fleet.Account, certificatePEM string) (c *x509.Certificate, ca string, err error) {
	parsed, stand, err := s.foreign(RegisterCertificateCommand{CertificatePEM: certificatePEM})
	if err != nil {
		return nil, "", err
	}
	under, err := stand(ctx, s.attempt(ctx, account))
	if err != nil {
		return nil, "", store.Fault(err)
	}
	return parsed.x509, under.ca, nil
}

// authority is a candidate for the issuer of a certificate.
type authority struct {
	id     string
	record *caRecord
	x509   *x509.Certificate
}

// underAuthority finds the authority of a certificate and decides whether it
// may register there. named is the id of the one that the caller means; empty
// for none.
func underAuthority(ctx context.Context, a *attempt, c *x509.Certificate, named string) (standing, error) {
	issuer, err := issuerOf(ctx, a, c, named)
	if err != nil {
		return standing{}, err
	}
	if issuer.record.Status != StatusActive {
		return standing{}, fault.New(fault.CertificateState,
			"the CA certificate %s is %s and takes no new certificates", issuer.id, issuer.record.Status)
	}
	if !a.now.Before(issuer.x509.NotAfter) {
		return standing{}, fault.New(fault.CertificateValidation,
			"the CA certificate %s expired on %s", issuer.id, issuer.x509.NotAfter.UTC().Format(time.RFC3339))
	}
	serial := crl.SerialText(c.SerialNumber)
	listed, err := load[revokedSerialRecord](ctx, a, key(kindRevokedSerial, a.account, issuer.id, serial))
	if err != nil {
		return standing{}, err
	}
	if listed != nil {
		return standing{}, fault.New(fault.CertificateValidation,
			"certificatePem: its serial number %s is on the revocation list of the CA certificate %s", serial, issuer.id)
	}
	return standing{mode: issuer.record.Mode, ca: issuer.id, serial: serial}, nil
}

// issuerOf finds the one registered authority that signed a certificate.
func issuerOf(ctx context.Context, a *attempt, c *x509.Certificate, named string) (authority, error) {
	candidates, err := loadAuthorities(ctx, a, subjectHash(c.RawIssuer))
	if err != nil {
		return authority{}, err
	}
	if named != "" {
		for _, candidate := range candidates {
			if candidate.id == named {
				return candidate, nil
			}
		}
		return authority{}, fault.New(fault.CertificateValidation, "caCertificatePem: the CA certificate %s is not registered", named)
	}
	fits := slices.DeleteFunc(candidates, func(candidate authority) bool {
		return !hinted(c, candidate.x509) || !signedBy(c, candidate.x509)
	})
	switch len(fits) {
	case 0:
		return authority{}, fault.New(fault.CertificateValidation, "certificatePem: its issuer is no registered CA certificate")
	case 1:
		return fits[0], nil
	}
	return authority{}, fault.New(fault.CertificateConflict,
		"%d registered CA certificates have the issuer's subject and key; say with caCertificatePem which one is meant", len(fits))
}

// loadAuthorities loads the authorities of one subject.
func loadAuthorities(ctx context.Context, a *attempt, subject string) ([]authority, error) {
	ids, err := load[caSubjectRecord](ctx, a, key(kindCASubject, a.account, subject))
	if err != nil || ids == nil {
		return nil, err
	}
	keys := make([]store.Key, len(ids.IDs))
	for i, id := range ids.IDs {
		keys[i] = key(kindCACertificate, a.account, id)
	}
	records, err := loadMany[caRecord](ctx, a, keys)
	if err != nil {
		return nil, err
	}
	var found []authority
	for i, record := range records {
		if record == nil {
			continue
		}
		parsed, err := storedCertificate(record.PEM)
		if err != nil {
			return nil, fmt.Errorf("read CA certificate %s: %w", ids.IDs[i], err)
		}
		found = append(found, authority{id: ids.IDs[i], record: record, x509: parsed})
	}
	return found, nil
}

// storedCertificate reads a certificate that was checked when it came in.
func storedCertificate(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("the stored text of %d bytes is no PEM", len(text))
	}
	return x509.ParseCertificate(block.Bytes) //nolint:wrapcheck // callers say which
}

// signedBy reports whether an authority's key signed a certificate.
func signedBy(c, authority *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, authority.RawSubject) && c.CheckSignatureFrom(authority) == nil
}

// ListCertificatesByCA returns one page of the certificates under an authority
// in order of creation, the newest first unless ascending. One that is not
// registered has none.
func (s *Service) ListCertificatesByCA(ctx context.Context, account fleet.Account, ca string, ascending bool, p Page) (Listed[Certificate], error) {
	if err := checkCAID(ca); err != nil {
		return Listed[Certificate]{}, err
	}
	kind := kindCertificateByCADown
	if ascending {
		kind = kindCertificateByCA
	}
	owner := func(k store.Key) store.Key { return key(kindCertificate, account, k.Last()) }
	listed, err := listRecords[certificateRecord](ctx, s.store, under(kind, account, ca), p, owner,
		func(k store.Key, r *certificateRecord) (Certificate, bool) {
			return s.certificate(account, k.Last(), r), true
		})
	return listed, store.Fault(err)
}
