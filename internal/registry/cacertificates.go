package registry

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

// maxCAsPerSubject bounds an account's authorities with one subject.
const maxCAsPerSubject = 10

// maxTemplateBody bounds a provisioning template, in characters.
const maxTemplateBody = 10_240

// CACertificate is a registered authority of device certificates.
type CACertificate struct {
	ID  string
	ARN string
	PEM string
	// Status is StatusActive or StatusInactive. An inactive authority takes no
	// new certificates; those under it go on.
	Status    string
	Mode      string
	NotBefore time.Time
	NotAfter  time.Time
	Created   time.Time
	Modified  time.Time
	// CustomerVersion starts at 1 and grows with each change.
	CustomerVersion int64
	GenerationID    string
	// AutoRegistration asks that unknown certificates of the authority are
	// registered at their first connect, as RegistrationConfig says.
	AutoRegistration   bool
	RegistrationConfig *RegistrationConfig
	Declaration        CADeclaration
}

// RegistrationConfig is how devices under an authority are provisioned: by a
// template's name, or by its text and the role that it runs as.
type RegistrationConfig struct {
	TemplateBody string
	TemplateName string
	RoleARN      string
}

// RegisterCACommand asks to register an authority.
type RegisterCACommand struct {
	CertificatePEM string
	// VerificationPEM is a certificate that the authority signed for the
	// account's registration code; required in mode DEFAULT, refused in
	// SNI_ONLY.
	VerificationPEM string
	// Mode is ModeDefault when empty.
	Mode               string
	Active             bool
	AutoRegistration   bool
	RegistrationConfig *RegistrationConfig
	Tags               []tag.Tag
}

// caCertificate is the public form of a record.
func (s *Service) caCertificate(account fleet.Account, id string, r *caRecord) CACertificate {
	c := CACertificate{
		ID: id, ARN: s.scope(account).ARN(fleet.ARNCACert, id), PEM: r.PEM, Status: r.Status, Mode: r.Mode,
		NotBefore: moment(r.NotBefore), NotAfter: moment(r.NotAfter), Created: moment(r.Created), Modified: moment(r.Modified),
		CustomerVersion: r.CustomerVersion, GenerationID: r.GenerationID, AutoRegistration: r.AutoRegistration,
		RegistrationConfig: registrationOf(r), Declaration: declarationOf(r),
	}
	return c
}

// RegisterCACertificate registers an authority whose key the caller proved to
// hold, or in mode SNI_ONLY any authority.
func (s *Service) RegisterCACertificate(ctx context.Context, account fleet.Account, c RegisterCACommand) (CACertificate, error) {
	authority, verification, err := s.checkAuthority(&c)
	if err != nil {
		return CACertificate{}, err
	}
	if err := s.checkRegistrationConfig(ctx, account, c.RegistrationConfig); err != nil {
		return CACertificate{}, err
	}
	tags, err := tag.Check(c.Tags)
	if err != nil {
		return CACertificate{}, err
	}
	var created CACertificate
	err = s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		if verification != nil {
			if err := proveCode(ctx, a, verification); err != nil {
				return err
			}
		}
		present, err := load[caRecord](ctx, a, key(kindCACertificate, account, authority.id))
		if err != nil {
			return err
		}
		if present != nil {
			return s.caExists(account, authority.id, "the CA certificate %s is already registered")
		}
		if err := noTemplateForBirth(ctx, a, authority.id, c.RegistrationConfig); err != nil {
			return err
		}
		if c.Mode == ModeDefault {
			if err := s.claimAuthority(ctx, a, authority.id); err != nil {
				return err
			}
		}
		record := newCARecord(a, &c, &authority, s.newID())
		if err := joinSubject(ctx, a, record.Subject, authority.id); err != nil {
			return err
		}
		for _, row := range caRows(account, authority.id, record) {
			a.row(row)
		}
		created = s.caCertificate(account, authority.id, record)
		a.emit(caChanged(authority.id, record, event.CACertificateRegistered))
		if err := a.attachTags(fleet.ARNCACert, authority.id, tags); err != nil {
			return err
		}
		return save(a, key(kindCACertificate, account, authority.id), record)
	})
	return created, err
}

// newCARecord is the record of a new authority.
func newCARecord(a *attempt, c *RegisterCACommand, authority *parsedCertificate, generation string) *caRecord {
	record := &caRecord{
		PEM: authority.pem, Status: StatusInactive, Mode: c.Mode, Subject: subjectHash(authority.x509.RawSubject),
		NotBefore: millis(authority.x509.NotBefore), NotAfter: millis(authority.x509.NotAfter),
		Created: millis(a.now), Modified: millis(a.now), CustomerVersion: 1, GenerationID: generation,
		AutoRegistration: c.AutoRegistration,
		Declaration:      &declarationRecord{Basis: basisOf(c.Mode), By: a.actor.Principal.ARN, At: millis(a.now)},
	}
	if c.Active {
		record.Status = StatusActive
	}
	if c.RegistrationConfig != nil {
		config := registrationConfigRecord(*c.RegistrationConfig)
		record.Registration = &config
	}
	return record
}

// caChanged reports an authority.
func caChanged(id string, r *caRecord, change event.CACertificateChange) event.CACertificateChanged {
	return event.CACertificateChanged{
		CACertificateID: id, Change: change, Status: r.Status, AutoRegistration: r.AutoRegistration, Mode: r.Mode,
	}
}

// checkAuthority checks what the certificates themselves tell. The
// verification certificate is nil in mode SNI_ONLY.
func (s *Service) checkAuthority(c *RegisterCACommand) (authority parsedCertificate, verification *x509.Certificate, err error) {
	switch c.Mode {
	case "":
		c.Mode = ModeDefault
	case ModeDefault, ModeSNIOnly:
	default:
		return authority, nil, fault.New(fault.InvalidRequest, "certificateMode must be %s or %s", ModeDefault, ModeSNIOnly)
	}
	if c.Mode == ModeDefault && c.VerificationPEM == "" {
		return authority, nil, fault.New(fault.InvalidRequest, "verificationCertificate must be given in mode %s", ModeDefault)
	}
	if c.Mode == ModeSNIOnly && c.VerificationPEM != "" {
		return authority, nil, fault.New(fault.InvalidRequest, "verificationCertificate must not be given in mode %s", ModeSNIOnly)
	}
	authority, err = parseMember("caCertificate", c.CertificatePEM)
	if err != nil {
		return authority, nil, err
	}
	if err := checkCA(authority.x509, s.now()); err != nil || c.Mode == ModeSNIOnly {
		return authority, nil, err
	}
	proof, err := parseMember("verificationCertificate", c.VerificationPEM)
	if err != nil {
		return authority, nil, err
	}
	return authority, proof.x509, checkVerification(proof.x509, authority.x509, s.now())
}

// checkCA refuses what cannot be an authority of devices.
func checkCA(c *x509.Certificate, now time.Time) error {
	const field = "caCertificate"
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return fault.New(fault.CertificateValidation, "%s is no CA certificate: its basic constraints do not say CA:TRUE", field)
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return fault.New(fault.CertificateValidation, "%s: its key usage does not allow it to sign certificates", field)
	case now.Before(c.NotBefore):
		return fault.New(fault.CertificateValidation, "%s is not valid before %s", field, c.NotBefore.UTC().Format(time.RFC3339))
	}
	return checkForeign(field, c, now)
}

// checkVerification refuses a verification certificate that proves nothing.
func checkVerification(proof, authority *x509.Certificate, now time.Time) error {
	const field = "verificationCertificate"
	if now.Before(proof.NotBefore) {
		return fault.New(fault.CertificateValidation, "%s is not valid before %s", field, proof.NotBefore.UTC().Format(time.RFC3339))
	}
	if err := checkForeign(field, proof, now); err != nil {
		return err
	}
	if err := proof.CheckSignatureFrom(authority); err != nil {
		return fault.Wrap(fault.CertificateValidation, err, "%s is not signed by the key of caCertificate", field)
	}
	return nil
}

// checkRegistrationConfig refuses a configuration that could not act.
func (s *Service) checkRegistrationConfig(ctx context.Context, account fleet.Account, c *RegistrationConfig) error {
	switch {
	case c == nil:
		return nil
	case (c.TemplateBody == "") == (c.TemplateName == ""):
		return fault.New(fault.InvalidRequest, "registrationConfig must have either templateBody or templateName")
	case c.TemplateBody != "" && c.RoleARN == "":
		return fault.New(fault.InvalidRequest, "registrationConfig: a templateBody needs a roleArn")
	case utf8.RuneCountInString(c.TemplateBody) > maxTemplateBody:
		return fault.New(fault.InvalidRequest, "registrationConfig: templateBody must have at most %d characters", maxTemplateBody)
	case c.TemplateName != "":
		return store.Fault(s.checkRegistrationTemplate(ctx, account, c.TemplateName))
	}
	if _, err := provtemplate.Parse([]byte(c.TemplateBody), provtemplate.JITP, provtemplate.DefaultLimits()); err != nil {
		return fault.Wrap(fault.InvalidRequest, err, "registrationConfig: templateBody: %v", err)
	}
	return nil
}

// caExists is the fault for an authority that is in the way.
func (s *Service) caExists(account fleet.Account, id, format string) error {
	err := fault.New(fault.ResourceAlreadyExists, format, id)
	err.ResourceID, err.ResourceARN = id, s.scope(account).ARN(fleet.ARNCACert, id)
	return err
}

// ownerKey is where the account of an authority in mode DEFAULT stands; it is
// of the installation, not of an account.
func ownerKey(id string) store.Key { return store.K(kindCAOwner, id) }

// claimAuthority takes an authority for the account alone.
func (s *Service) claimAuthority(ctx context.Context, a *attempt, id string) error {
	present, err := load[caOwnerRecord](ctx, a, ownerKey(id))
	if err != nil {
		return err
	}
	if present != nil {
		return s.caExists(a.account, id, "the CA certificate %s is registered in mode DEFAULT by another account; use mode SNI_ONLY")
	}
	return save(a, ownerKey(id), &caOwnerRecord{Account: a.account})
}

// subjectHash is the form of a subject in keys.
func subjectHash(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// joinSubject adds an authority to those of its subject.
func joinSubject(ctx context.Context, a *attempt, subject, id string) error {
	k := key(kindCASubject, a.account, subject)
	record, err := load[caSubjectRecord](ctx, a, k)
	if err != nil {
		return err
	}
	if record == nil {
		record = &caSubjectRecord{}
	}
	if len(record.IDs) >= maxCAsPerSubject {
		return fault.New(fault.LimitExceeded, "the account has %d CA certificates with this subject, the most allowed", len(record.IDs))
	}
	record.IDs = append(record.IDs, id)
	return save(a, k, record)
}

// leaveSubject reverses joinSubject.
func leaveSubject(ctx context.Context, a *attempt, subject, id string) error {
	k := key(kindCASubject, a.account, subject)
	record, err := load[caSubjectRecord](ctx, a, k)
	if err != nil || record == nil {
		return err
	}
	record.IDs = slices.DeleteFunc(record.IDs, func(other string) bool { return other == id })
	if len(record.IDs) == 0 {
		a.remove(k)
		return nil
	}
	return save(a, k, record)
}

// caRows are the rows that find an authority by time.
func caRows(account fleet.Account, id string, r *caRecord) []store.Key {
	created := moment(r.Created)
	return []store.Key{
		key(kindCACertificateOldest, account, rising(created), id),
		key(kindCACertificateNewest, account, falling(created), id),
		key(kindCACertificateExpiry, account, rising(moment(r.NotAfter)), id),
	}
}

// checkCAID refuses what cannot be an authority's id.
func checkCAID(id string) error {
	if fleet.ValidCertificateID(id) {
		return nil
	}
	return fault.New(fault.InvalidRequest, "caCertificateId must have 64 lower-case hexadecimal digits")
}

// loadCA is load for an authority that must exist.
func loadCA(ctx context.Context, a *attempt, id string) (*caRecord, error) {
	record, err := load[caRecord](ctx, a, key(kindCACertificate, a.account, id))
	if err == nil && record == nil {
		err = notFound("CA certificate", id)
	}
	return record, err
}

// DescribeCACertificate returns one authority.
func (s *Service) DescribeCACertificate(ctx context.Context, account fleet.Account, id string) (CACertificate, error) {
	if err := checkCAID(id); err != nil {
		return CACertificate{}, err
	}
	record, _, err := get[caRecord](ctx, s.store, key(kindCACertificate, account, id))
	if err != nil {
		return CACertificate{}, store.Fault(err)
	}
	if record == nil {
		return CACertificate{}, notFound("CA certificate", id)
	}
	return s.caCertificate(account, id, record), nil
}

// ListCACertificates returns one page in order of registration, the newest
// first unless ascending; of those with a template when it is not empty.
func (s *Service) ListCACertificates(ctx context.Context, account fleet.Account, template string, ascending bool, p Page) (Listed[CACertificate], error) {
	kind := kindCACertificateNewest
	if ascending {
		kind = kindCACertificateOldest
	}
	owner := func(k store.Key) store.Key { return key(kindCACertificate, account, k.Last()) }
	listed, err := listRecords[caRecord](ctx, s.store, under(kind, account), p, owner,
		func(k store.Key, r *caRecord) (CACertificate, bool) {
			wanted := template == "" || r.Registration != nil && r.Registration.TemplateName == template
			return s.caCertificate(account, k.Last(), r), wanted
		})
	return listed, store.Fault(err)
}

// UpdateCACommand changes an authority; nil and empty members change nothing.
type UpdateCACommand struct {
	ID string
	// Status is StatusActive or StatusInactive.
	Status             string
	AutoRegistration   *bool
	RegistrationConfig *RegistrationConfig
	// RemoveAutoRegistration ends automatic registration and forgets its
	// configuration.
	RemoveAutoRegistration bool
}

// UpdateCACertificate changes the state of an authority and how its devices
// are provisioned. Certificates under it are not touched.
func (s *Service) UpdateCACertificate(ctx context.Context, account fleet.Account, c UpdateCACommand) error {
	if err := checkCAID(c.ID); err != nil {
		return err
	}
	switch c.Status {
	case "", StatusActive, StatusInactive:
	default:
		return fault.New(fault.InvalidRequest, "newStatus must be ACTIVE or INACTIVE")
	}
	if c.RemoveAutoRegistration && (c.RegistrationConfig != nil || c.AutoRegistration != nil && *c.AutoRegistration) {
		return fault.New(fault.InvalidRequest, "removeAutoRegistration contradicts registrationConfig and newAutoRegistrationStatus ENABLE")
	}
	if err := s.checkRegistrationConfig(ctx, account, c.RegistrationConfig); err != nil {
		return err
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadCA(ctx, a, c.ID)
		if err != nil || !applyCA(record, &c) {
			return err
		}
		if err := noTemplateForBirth(ctx, a, c.ID, c.RegistrationConfig); err != nil {
			return err
		}
		record.Modified = millis(a.now)
		record.CustomerVersion++
		a.emit(caChanged(c.ID, record, event.CACertificateUpdated))
		return save(a, key(kindCACertificate, account, c.ID), record)
	})
}

// applyCA changes a record and tells whether it did.
func applyCA(r *caRecord, c *UpdateCACommand) bool {
	before := *r
	if c.Status != "" {
		r.Status = c.Status
	}
	if c.AutoRegistration != nil {
		r.AutoRegistration = *c.AutoRegistration
	}
	changed := r.Status != before.Status || r.AutoRegistration != before.AutoRegistration
	if c.RegistrationConfig != nil {
		config := registrationConfigRecord(*c.RegistrationConfig)
		changed = changed || r.Registration == nil || *r.Registration != config
		r.Registration = &config
	}
	if c.RemoveAutoRegistration {
		changed = changed || r.AutoRegistration || r.Registration != nil
		r.AutoRegistration, r.Registration = false, nil
	}
	return changed
}

// DeleteCACertificate forgets an authority that is inactive. Certificates under
// it go on, and so does its revocation list: a registration of the same
// authority takes both up again.
func (s *Service) DeleteCACertificate(ctx context.Context, account fleet.Account, id string) error {
	if err := checkCAID(id); err != nil {
		return err
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadCA(ctx, a, id)
		if err != nil {
			return err
		}
		if record.Status != StatusInactive {
			return fault.New(fault.CertificateState, "CA certificate %s is %s; set it to INACTIVE first", id, record.Status)
		}
		if record.Mode == ModeDefault {
			if _, err := load[caOwnerRecord](ctx, a, ownerKey(id)); err != nil {
				return err
			}
			a.remove(ownerKey(id))
		}
		if err := leaveSubject(ctx, a, record.Subject, id); err != nil {
			return err
		}
		for _, row := range caRows(account, id, record) {
			a.remove(row)
		}
		a.removeTags(fleet.ARNCACert, id)
		a.remove(key(kindCACertificate, account, id))
		a.emit(event.CACertificateChanged{CACertificateID: id, Change: event.CACertificateDeleted})
		return nil
	})
}
