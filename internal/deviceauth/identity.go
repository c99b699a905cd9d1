package deviceauth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Identity is a caller whose certificate, if it has one, was accepted.
type Identity struct {
	Account   fleet.Account
	Principal fleet.Principal
	// ServerName is the TLS server name that the caller asked for.
	ServerName  string
	certificate *x509.Certificate
	notAfter    time.Time
	// strange says that the certificate is unknown or waits for activation.
	strange bool
}

// CertificateID returns the id under which a certificate is registered: the
// SHA-256 of its DER form.
func CertificateID(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.Raw)
	return hex.EncodeToString(sum[:])
}

// Identify finds the registered certificate behind a TLS connection. It
// answers fault.Unauthorized, with the reason as cause, for one that is not
// registered in the account, not active or not valid now.
func (s *Service) Identify(ctx context.Context, serverName string, certificate *x509.Certificate) (Identity, error) {
	id, err := s.identify(ctx, serverName, certificate)
	if err != nil {
		s.introduce(ctx, &id)
		return Identity{}, err
	}
	return id, nil
}

// identify is Identify that also says what it found out of a caller that is
// refused: the principal has an ARN when the certificate is registered.
func (s *Service) identify(ctx context.Context, serverName string, certificate *x509.Certificate) (Identity, error) {
	id := Identity{ServerName: serverName, certificate: certificate}
	if certificate != nil {
		id.Principal = fleet.Principal{Kind: fleet.PrincipalCertificate, ID: CertificateID(certificate)}
		id.notAfter = certificate.NotAfter
	}
	account, err := s.account(serverName)
	id.Account = account
	if err != nil {
		return id, fault.Wrap(fault.Unauthorized, &identityError{problemServerName, err}, "The server name selects no account")
	}
	if certificate == nil {
		return id, fault.Wrap(fault.Unauthorized, &identityError{problem: problemAbsent}, "A client certificate is required")
	}
	found, err := s.activeCertificate(ctx, account, id.Principal.ID)
	id.Principal.ARN = found.ARN
	if err != nil {
		id.strange = problemOf(err) == problemUnregistered || found.Status == statusPendingActivation
		return id, err
	}
	if found.SNIOnly && !s.named(serverName) {
		return id, fault.Wrap(fault.Unauthorized, &identityError{problem: problemNameless},
			"The certificate %s is in mode SNI_ONLY: the TLS server name must be an endpoint name of its account", id.Principal.ID)
	}
	return id, checkDates(certificate, s.now())
}

// activeCertificate reads a certificate that may connect. One that is there and
// may not is returned with the error.
func (s *Service) activeCertificate(ctx context.Context, account fleet.Account, id string) (Certificate, error) {
	found, err := s.registry.Certificate(ctx, account, id)
	switch {
	case fault.CodeOf(err) == fault.ResourceNotFound:
		return Certificate{}, fault.Wrap(fault.Unauthorized, &identityError{problemUnregistered, err}, "The certificate %s is not registered", id)
	case err != nil:
		return Certificate{}, unavailable(err)
	case found.Status != StatusActive:
		return found, fault.Wrap(fault.Unauthorized, &identityError{problem: problemStatus},
			"The certificate %s is %s, not %s", id, found.Status, StatusActive)
	}
	return found, nil
}

// checkDates refuses a certificate outside its validity.
func checkDates(certificate *x509.Certificate, now time.Time) error {
	const layout = time.RFC3339
	if now.Before(certificate.NotBefore) {
		return fault.Wrap(fault.Unauthorized, &identityError{problem: problemNotYetValid},
			"The certificate is not valid before %s", certificate.NotBefore.UTC().Format(layout))
	}
	if now.After(certificate.NotAfter) {
		return fault.Wrap(fault.Unauthorized, &identityError{problem: problemExpired},
			"The certificate expired at %s", certificate.NotAfter.UTC().Format(layout))
	}
	return nil
}

// unavailable marks a failure to read the registry: the caller may be right
// and should come back.
func unavailable(err error) error {
	return fault.Wrap(fault.Unavailable, err, "The permissions cannot be read now")
}
