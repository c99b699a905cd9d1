package registry

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/crl"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// announceEvery is how often a certificate that waits is announced at most,
	// however often its device connects.
	announceEvery = time.Minute
	// maxVerifying is how many signatures of unknown certificates are checked at a
	// time: whoever has none of ours must not get the processor.
	maxVerifying = 4
)

// Newcomer is a certificate whose key a peer has proved to hold.
type Newcomer struct {
	Certificate *x509.Certificate
	// Named says that the peer has named one of this server's endpoints, and so
	// has chosen the account: mode SNI_ONLY asks for that.
	Named bool
	// Admit, unless it is nil, is asked before a certificate is registered under an
	// authority without a template, with the authority's id. Its error keeps the
	// certificate out; what it returns is asked in each attempt for what has to be
	// committed with the registration, and may be nil.
	Admit func(ctx context.Context, ca string) (joined func(context.Context) (store.Batch, error), err error)
}

// admit asks who decides about a newcomer.
func (n *Newcomer) admit(ctx context.Context, ca *caRecord, id string) (func(context.Context) (store.Batch, error), error) {
	if n.Admit == nil || ca.Registration != nil {
		return nil, nil //nolint:nilnil // nothing has to be committed beside it
	}
	return n.Admit(ctx, id)
}

// Introduction is what AutoRegister found.
type Introduction struct {
	CertificateID string
	// CA is the id of the registered authority that it is under; empty for none.
	CA string
	// Status is the certificate's.
	Status string
	// Waiting says that the certificate is PENDING_ACTIVATION under an authority
	// that registers automatically.
	Waiting bool
	// New says that this call has registered it, Announced that
	// event.CertificateAutoRegistered was emitted.
	New, Announced bool
	// Registration is how devices under the authority are provisioned; nil when
	// others activate the certificate.
	Registration *RegistrationConfig
}

// errKnown is a newcomer that somebody else has registered at the same moment.
var errKnown = errors.New("the certificate is registered by now")

// KnownIssuer reports whether an account has a registered authority of the name
// that a certificate gives as its issuer. That costs one read and proves
// nothing.
func (s *Service) KnownIssuer(ctx context.Context, account fleet.Account, c *x509.Certificate) (bool, error) {
	ids, _, err := get[caSubjectRecord](ctx, s.store, key(kindCASubject, account, subjectHash(c.RawIssuer)))
	return ids != nil && len(ids.IDs) > 0, store.Fault(err)
}

// AutoRegister takes up a certificate that has connected and is not known: if
// one active authority with automatic registration has signed it, it becomes
// PENDING_ACTIVATION under it. One that waits so already is announced again. Any
// other certificate that is registered is left alone, also one that waits for a
// device with an ownership token. Errors say why a certificate is not taken up;
// those cost no commit.
func (s *Service) AutoRegister(ctx context.Context, account fleet.Account, n Newcomer) (Introduction, error) {
	id := CertificateID(n.Certificate.Raw)
	for {
		record, _, err := get[certificateRecord](ctx, s.store, key(kindCertificate, account, id))
		if err != nil {
			return Introduction{}, store.Fault(err)
		}
		if record != nil {
			return s.announceAgain(ctx, account, id, n)
		}
		found, err := s.takeUp(ctx, account, id, n)
		if !errors.Is(err, errKnown) {
			return found, err
		}
	}
}

// takeUp registers a certificate that is not known.
func (s *Service) takeUp(ctx context.Context, account fleet.Account, id string, n Newcomer) (Introduction, error) {
	issuer, err := s.automaticIssuer(ctx, account, n)
	if err != nil {
		return Introduction{}, err
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.Certificate.Raw}))
	if len(text) > maxCertificateLength {
		return Introduction{}, fault.New(fault.CertificateValidation, "the certificate must have at most %d characters", maxCertificateLength)
	}
	authority, err := s.automatic(ctx, s.attempt(ctx, account), issuer, n)
	if err != nil {
		return Introduction{}, err
	}
	joined, err := n.admit(ctx, authority, issuer)
	if err != nil {
		return Introduction{CertificateID: id, CA: issuer}, err
	}
	parsed := parsedCertificate{id: id, pem: text, x509: n.Certificate}
	found := Introduction{CertificateID: id, CA: issuer, Status: StatusPendingActivation, Waiting: true, New: true, Announced: true}
	var created Certificate
	// The authority is looked at again: what decides and what is written are of
	// one moment. Its signature was checked above, once.
	register := s.registering(account, parsed, StatusPendingActivation, func(ctx context.Context, a *attempt) (standing, error) {
		record, err := s.automatic(ctx, a, issuer, n)
		if err != nil {
			return standing{}, err
		}
		found.Registration = registrationOf(record)
		return standing{mode: record.Mode, ca: issuer, serial: crl.SerialText(n.Certificate.SerialNumber)}, nil
	}, &created)
	_, _, err = s.commit(ctx, account, s.store, func(ctx context.Context, a *attempt) error {
		if err := register(ctx, a); err != nil {
			return err
		}
		record, err := loadCertificate(ctx, a, id)
		if err != nil {
			return err
		}
		if joined != nil {
			more, err := joined(ctx)
			if err != nil {
				return err
			}
			a.add(more)
		}
		return announce(a, id, record)
	})
	if fault.CodeOf(err) == fault.ResourceAlreadyExists {
		return Introduction{}, errKnown
	}
	if err != nil {
		return Introduction{CertificateID: id, CA: issuer}, err
	}
	return found, nil
}

// announceAgain looks at a certificate that is known.
func (s *Service) announceAgain(ctx context.Context, account fleet.Account, id string, n Newcomer) (Introduction, error) {
	var found Introduction
	_, _, err := s.commit(ctx, account, s.store, func(ctx context.Context, a *attempt) error {
		record, err := loadCertificate(ctx, a, id)
		if err != nil {
			return err
		}
		found = Introduction{CertificateID: id, CA: record.CA, Status: record.Status}
		if record.Status != StatusPendingActivation || record.Pending != nil || record.CA == "" {
			return nil
		}
		authority, err := s.automatic(ctx, a, record.CA, n)
		if err != nil {
			return err
		}
		found.Waiting, found.Registration = true, registrationOf(authority)
		if a.now.Sub(moment(record.Announced)) < announceEvery {
			return nil
		}
		found.Announced = true
		return announce(a, id, record)
	})
	if fault.CodeOf(err) == fault.ResourceNotFound {
		return found, fault.New(fault.CertificateState, "certificate %s was deleted while it connected", id)
	}
	return found, err
}

// announce tells that a certificate waits, and remembers when.
func announce(a *attempt, id string, record *certificateRecord) error {
	record.Announced = millis(a.now)
	a.emit(event.CertificateAutoRegistered{CertificateID: id, CACertificateID: record.CA, Registered: record.Created})
	return save(a, key(kindCertificate, a.account, id), record)
}

// registrationOf is the public form of an authority's configuration.
func registrationOf(r *caRecord) *RegistrationConfig {
	if r.Registration == nil {
		return nil
	}
	config := RegistrationConfig(*r.Registration)
	return &config
}

// automaticIssuer finds the one authority that has signed a newcomer and may
// register it. The newcomer's own claims are looked at first: a signature is
// checked only against authorities that would take it, once for each of them.
func (s *Service) automaticIssuer(ctx context.Context, account fleet.Account, n Newcomer) (string, error) {
	if err := checkNewcomer(n.Certificate, s.now()); err != nil {
		return "", err
	}
	candidates, err := loadAuthorities(ctx, s.attempt(ctx, account), subjectHash(n.Certificate.RawIssuer))
	if err != nil {
		return "", store.Fault(err)
	}
	candidates = slices.DeleteFunc(candidates, func(c authority) bool { return !hinted(n.Certificate, c.x509) })
	if len(candidates) == 0 {
		return "", unknownIssuer()
	}
	var fits []string
	var unfit error
	for _, c := range candidates {
		if err := s.mayRegister(c.id, c.record, n, s.now()); err != nil {
			unfit = err
			continue
		}
		signed, err := s.verify(ctx, n.Certificate, c.x509)
		if err != nil {
			return "", err
		}
		if signed {
			fits = append(fits, c.id)
		}
	}
	switch {
	case len(fits) == 1:
		return fits[0], nil
	case len(fits) > 1:
		return "", fault.New(fault.CertificateConflict,
			"%d CA certificates with automatic registration have the issuer's subject and key; register the certificate under one of them", len(fits))
	case unfit != nil:
		return "", unfit
	}
	return "", unknownIssuer()
}

// unknownIssuer is the fault for a certificate that nobody vouches for.
func unknownIssuer() error {
	return fault.New(fault.CertificateValidation, "the issuer of the certificate is no registered CA certificate")
}

// checkNewcomer refuses what no authority could make good.
func checkNewcomer(c *x509.Certificate, now time.Time) error {
	if now.Before(c.NotBefore) {
		return fault.New(fault.CertificateValidation, "the certificate is not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
	}
	return checkForeign("certificate", c, now)
}

// hinted reports whether an authority can be the issuer that a certificate
// names. The key identifier is the issuer's own hint: an authority without one
// may be meant, one with another is not.
func hinted(c, authority *x509.Certificate) bool {
	both := len(c.AuthorityKeyId) > 0 && len(authority.SubjectKeyId) > 0
	return !both || bytes.Equal(c.AuthorityKeyId, authority.SubjectKeyId)
}

// verify checks a signature, a few at a time.
func (s *Service) verify(ctx context.Context, c, authority *x509.Certificate) (bool, error) {
	select {
	case s.verifying <- struct{}{}:
		defer func() { <-s.verifying }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	s.verified.Add(1)
	return signedBy(c, authority), nil
}

// automatic loads an authority that must take a newcomer without being asked.
func (s *Service) automatic(ctx context.Context, a *attempt, id string, n Newcomer) (*caRecord, error) {
	if err := checkNewcomer(n.Certificate, a.now); err != nil {
		return nil, err
	}
	record, err := load[caRecord](ctx, a, key(kindCACertificate, a.account, id))
	if err != nil {
		return nil, err
	}
	if record == nil {
		return nil, fault.New(fault.CertificateState, "the CA certificate %s is not registered any more", id)
	}
	if err := s.mayRegister(id, record, n, a.now); err != nil {
		return nil, err
	}
	return record, notListed(ctx, a, id, n.Certificate)
}

// notListed refuses a certificate on its authority's revocation list.
func notListed(ctx context.Context, a *attempt, ca string, c *x509.Certificate) error {
	serial := crl.SerialText(c.SerialNumber)
	listed, err := load[revokedSerialRecord](ctx, a, key(kindRevokedSerial, a.account, ca, serial))
	if err == nil && listed != nil {
		err = fault.New(fault.CertificateValidation,
			"the serial number %s of the certificate is on the revocation list of the CA certificate %s", serial, ca)
	}
	return err
}

// mayRegister refuses authorities that do not register a newcomer on their own.
func (s *Service) mayRegister(id string, r *caRecord, n Newcomer, now time.Time) error {
	switch {
	case r.Status != StatusActive:
		return fault.New(fault.CertificateState, "the CA certificate %s is %s and registers no devices", id, r.Status)
	case !r.AutoRegistration:
		return fault.New(fault.CertificateState, "automatic registration is not enabled for the CA certificate %s", id)
	case now.Before(moment(r.NotBefore)):
		return fault.New(fault.CertificateState, "the CA certificate %s is not valid before %s", id, moment(r.NotBefore).Format(time.RFC3339))
	case !now.Before(moment(r.NotAfter)):
		return fault.New(fault.CertificateState, "the CA certificate %s expired on %s", id, moment(r.NotAfter).Format(time.RFC3339))
	case r.Mode == ModeSNIOnly && !n.Named:
		return fault.New(fault.CertificateState,
			"the CA certificate %s is in mode SNI_ONLY: the TLS server name must be an endpoint name of the account", id)
	case s.requireDeclaration && r.Mode == ModeSNIOnly && !r.Declaration.stated():
		return fault.New(fault.CertificateState,
			"the CA certificate %s is in mode SNI_ONLY, which proves nothing, and no operator has declared that it is trusted; the setting provisioning.require-ca-declaration asks for that", id)
	}
	return nil
}
