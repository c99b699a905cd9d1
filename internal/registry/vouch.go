package registry

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Voucher is what an account says for a certificate whose key a peer has proved to
// hold.
type Voucher struct {
	// CA is the id of the registered authority that has signed it, empty for none.
	CA string
	// Proved says that the account has shown to hold the authority's key, or that the
	// certificate was issued here for it. Otherwise whoever has seen the certificate,
	// or that of its authority, could say the same.
	Proved bool
}

// MayVouch returns which of some accounts have a certificate, or an authority of the
// name that it gives as its issuer: one read for all of them, which proves nothing.
func (s *Service) MayVouch(ctx context.Context, accounts []fleet.Account, c *x509.Certificate) ([]fleet.Account, error) {
	id, issuer := CertificateID(c.Raw), subjectHash(c.RawIssuer)
	keys := make([]store.Key, 0, 2*len(accounts))
	for _, of := range accounts {
		keys = append(keys, key(kindCertificate, of, id), key(kindCASubject, of, issuer))
	}
	found, err := s.store.GetMany(ctx, keys)
	if err != nil {
		return nil, store.Fault(err)
	}
	var may []fleet.Account
	for i, of := range accounts {
		if found[2*i].Version > 0 || found[2*i+1].Version > 0 {
			may = append(may, of)
		}
	}
	return may, nil
}

// Vouch says what an account knows of a certificate: that it is registered and ACTIVE,
// or that an active authority has signed it. A guest (see AdmitGuest) stands for
// nothing but its authority. ResourceNotFound is a certificate that the account does
// not know, any other fault one that it does not stand for, and why.
func (s *Service) Vouch(ctx context.Context, account fleet.Account, c *x509.Certificate) (Voucher, error) {
	id := CertificateID(c.Raw)
	if err := checkNewcomer(c, s.now()); err != nil {
		return Voucher{}, err
	}
	record, _, err := get[certificateRecord](ctx, s.store, key(kindCertificate, account, id))
	if err != nil {
		return Voucher{}, store.Fault(err)
	}
	// One that has registered itself by connecting is known by its authority alone.
	waits := record != nil && record.Status == StatusPendingActivation && record.Pending == nil && record.CA != ""
	if record == nil || record.guest() || waits {
		return s.vouchByAuthority(ctx, account, id, c)
	}
	if record.Status != StatusActive {
		return Voucher{}, fault.New(fault.CertificateState, "certificate %s is %s", id, record.Status)
	}
	v := Voucher{CA: record.CA, Proved: record.Mode == ModeDefault}
	if v.CA == "" {
		// Registered without its authority, which may be known all the same.
		if by, err := s.vouchByAuthority(ctx, account, id, c); err == nil {
			v.CA, v.Proved = by.CA, v.Proved || by.Proved
		}
	}
	return v, nil
}

// vouchByAuthority is Vouch for a certificate that is not registered itself.
func (s *Service) vouchByAuthority(ctx context.Context, account fleet.Account, id string, c *x509.Certificate) (Voucher, error) {
	a := s.attempt(ctx, account)
	candidates, err := loadAuthorities(ctx, a, subjectHash(c.RawIssuer))
	if err != nil {
		return Voucher{}, store.Fault(err)
	}
	candidates = slices.DeleteFunc(candidates, func(one authority) bool { return !hinted(c, one.x509) })
	refused := notFound("certificate", id)
	for _, one := range candidates {
		if err := s.standsFor(&one, a.now); err != nil {
			refused = err
			continue
		}
		signed, err := s.verify(ctx, c, one.x509)
		if err != nil {
			return Voucher{}, err
		}
		if !signed {
			continue
		}
		if err := notListed(ctx, a, one.id, c); err != nil {
			return Voucher{}, store.Fault(err)
		}
		return Voucher{CA: one.id, Proved: one.record.Mode == ModeDefault}, nil
	}
	return Voucher{}, refused
}

// standsFor refuses authorities on whose word nothing is given.
func (s *Service) standsFor(a *authority, now time.Time) error {
	switch {
	case a.record.Status != StatusActive:
		return fault.New(fault.CertificateState, "the CA certificate %s is %s", a.id, a.record.Status)
	case now.Before(moment(a.record.NotBefore)) || !now.Before(moment(a.record.NotAfter)):
		return fault.New(fault.CertificateState, "the CA certificate %s is not valid at this time", a.id)
	case s.requireDeclaration && a.record.Mode == ModeSNIOnly && !a.record.Declaration.stated():
		return fault.New(fault.CertificateState, "the CA certificate %s is in mode SNI_ONLY, and no operator has declared that it is trusted", a.id)
	}
	return nil
}

// guest reports whether a certificate is known to its account by AdmitGuest only.
func (r *certificateRecord) guest() bool { return r.ClaimTemplate != "" && r.Mode == ModeSNIOnly }

// AdmitGuest lets a device provision in an account with a certificate that the account
// does not know, by one template, until a time: as the claim of a trusted user, which is
// in no list, can do nothing else and goes by itself. A certificate that the account has
// registered is left as it is, and must be ACTIVE; one under an authority of birth
// certificates of the account is registered under that, whose limits hold it. It returns until when the device may
// provision, zero for a certificate that does not end with the visit. One that still
// has half of the time is not written again.
func (s *Service) AdmitGuest(ctx context.Context, account fleet.Account, c *x509.Certificate, template string, until time.Time) (time.Time, error) {
	parsed := parsedCertificate{id: CertificateID(c.Raw), pem: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})), x509: c}
	if len(parsed.pem) > maxCertificateLength {
		return time.Time{}, fault.New(fault.CertificateValidation, "the certificate must have at most %d characters", maxCertificateLength)
	}
	if err := checkForeign("certificate", c, s.now()); err != nil {
		return time.Time{}, err
	}
	var created Certificate
	var ends time.Time
	register := s.registering(account, parsed, StatusActive, func(ctx context.Context, a *attempt) (standing, error) {
		err := notUnderBirth(ctx, a, c)
		if fault.CodeOf(err) == fault.CertificateState {
			ends = time.Time{} // it is no guest
			return underAuthority(ctx, a, c, "")
		}
		guest := PendingCommand{Until: until}
		return standing{mode: ModeSNIOnly, claimTemplate: template, pending: guest.record()}, err
	}, &created)
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		ends = time.Time{}
		record, err := load[certificateRecord](ctx, a, key(kindCertificate, account, parsed.id))
		if err != nil {
			return err
		}
		switch {
		case record == nil:
			ends = until
			return register(ctx, a)
		case record.Status != StatusActive:
			return fault.New(fault.CertificateState, "certificate %s is %s in the account that it is sent to", parsed.id, record.Status)
		case !record.guest():
			return nil
		}
		ends = moment(record.Pending.Until)
		if record.ClaimTemplate == template && ends.Sub(a.now) >= until.Sub(a.now)/2 && !ends.After(until) {
			return nil
		}
		for _, row := range pendingRows(account, parsed.id, record) {
			a.remove(row)
		}
		if record.ClaimTemplate != template {
			// Its connections are held to the other template at once.
			a.devices = true
			a.emit(event.CertificateStatusChanged{CertificateID: parsed.id, Status: StatusActive, PreviousStatus: StatusActive})
		}
		record.ClaimTemplate, record.Pending.Until, record.Modified = template, millis(until), millis(a.now)
		for _, row := range pendingRows(account, parsed.id, record) {
			a.row(row)
		}
		ends = until
		return save(a, key(kindCertificate, account, parsed.id), record)
	})
	return ends, err
}
