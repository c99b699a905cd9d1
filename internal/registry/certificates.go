package registry

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Certificate states. A certificate authenticates only while it is ACTIVE.
const (
	StatusActive            = "ACTIVE"
	StatusInactive          = "INACTIVE"
	StatusRevoked           = "REVOKED"
	StatusPendingActivation = "PENDING_ACTIVATION"
	StatusPendingTransfer   = "PENDING_TRANSFER"
)

// Certificate modes.
const (
	// ModeDefault is a certificate issued here or under a registered CA.
	ModeDefault = "DEFAULT"
	// ModeSNIOnly is one registered without its CA; the connection has to name
	// the account.
	ModeSNIOnly = "SNI_ONLY"
)

// Certificate is a registered device certificate.
type Certificate struct {
	ID        string
	ARN       string
	PEM       string
	Status    string
	Mode      string
	NotBefore time.Time
	NotAfter  time.Time
	Created   time.Time
	Modified  time.Time
	// CustomerVersion starts at 1 and grows with each change of state.
	CustomerVersion int64
	GenerationID    string
	// CA is the id of the registered authority that it came under; empty for
	// one issued here or registered without its authority.
	CA string
	// Owner is the account that answers for it, PreviousOwner the one that it
	// was transferred from; empty for none.
	Owner, PreviousOwner fleet.Account
	// Transfer is the last transfer, under way or over; nil for none.
	Transfer *Transfer
	// ClaimTemplate is set for the claim of a trusted user: it can do nothing
	// but provision by this template.
	ClaimTemplate string
}

// certificate is the public form of a record.
func (s *Service) certificate(account fleet.Account, id string, r *certificateRecord) Certificate {
	return Certificate{
		ID: id, ARN: s.scope(account).ARN(fleet.ARNCertificate, id), PEM: r.PEM, Status: r.Status, Mode: r.Mode,
		NotBefore: moment(r.NotBefore), NotAfter: moment(r.NotAfter), Created: moment(r.Created), Modified: moment(r.Modified),
		CustomerVersion: r.CustomerVersion, GenerationID: r.GenerationID,
		CA: r.CA, Owner: owner(account, r), PreviousOwner: r.PreviousOwner, Transfer: transferOf(r.Transfer), ClaimTemplate: r.ClaimTemplate,
	}
}

// KeysAndCertificate is a new certificate with the key pair made for it. The
// private key is kept nowhere.
type KeysAndCertificate struct {
	Certificate

	PublicPEM  string
	PrivatePEM string
}

// CreateKeysAndCertificate issues a certificate for a key pair made here.
func (s *Service) CreateKeysAndCertificate(ctx context.Context, account fleet.Account, active bool) (KeysAndCertificate, error) {
	certificatePEM, public, private, err := s.issuer.CreateKeysAndCertificate(ctx)
	if err != nil {
		return KeysAndCertificate{}, err
	}
	created, err := s.recordIssued(ctx, account, certificatePEM, active)
	return KeysAndCertificate{Certificate: created, PublicPEM: string(public), PrivatePEM: string(private)}, err
}

// CreateCertificateFromCSR issues a certificate for the key of a request.
func (s *Service) CreateCertificateFromCSR(ctx context.Context, account fleet.Account, csrPEM string, active bool) (Certificate, error) {
	if err := checkCSR(csrPEM); err != nil {
		return Certificate{}, err
	}
	certificatePEM, err := s.issuer.SignCSR(ctx, []byte(csrPEM))
	if err != nil {
		return Certificate{}, err
	}
	return s.recordIssued(ctx, account, certificatePEM, active)
}

// recordIssued registers what our own issuer made.
func (s *Service) recordIssued(ctx context.Context, account fleet.Account, certificatePEM []byte, active bool) (Certificate, error) {
	parsed, err := parseCertificate(string(certificatePEM))
	if err != nil {
		return Certificate{}, fault.Wrap(fault.Internal, err, "Internal failure")
	}
	status := StatusInactive
	if active {
		status = StatusActive
	}
	return s.register(ctx, account, parsed, status, issued)
}

// issued is the standing of what our own authority made.
func issued(context.Context, *attempt) (standing, error) { return standing{mode: ModeDefault}, nil }

// unvouched is the standing of what nobody vouches for.
func unvouched(c parsedCertificate) func(context.Context, *attempt) (standing, error) {
	return func(ctx context.Context, a *attempt) (standing, error) {
		return standing{mode: ModeSNIOnly}, notUnderBirth(ctx, a, c.x509)
	}
}

// standing is under whom a certificate is registered, and for what.
type standing struct {
	mode, ca, serial string
	pending          *pendingRecord
	claimTemplate    string
}

// RegisterCertificateWithoutCA registers a certificate that somebody else
// issued. status is INACTIVE when empty.
func (s *Service) RegisterCertificateWithoutCA(ctx context.Context, account fleet.Account, certificatePEM, status string) (Certificate, error) {
	status, err := initialStatus(status)
	if err != nil {
		return Certificate{}, err
	}
	parsed, err := parseCertificate(certificatePEM)
	if err != nil {
		return Certificate{}, err
	}
	if err := checkForeign("certificatePem", parsed.x509, s.now()); err != nil {
		return Certificate{}, err
	}
	return s.register(ctx, account, parsed, status, unvouched(parsed))
}

// initialStatus is the state of a newly registered certificate; INACTIVE when
// nothing is asked for.
func initialStatus(status string) (string, error) {
	switch status {
	case "":
		return StatusInactive, nil
	case StatusActive, StatusInactive:
		return status, nil
	}
	return "", fault.New(fault.InvalidRequest, "status must be ACTIVE or INACTIVE")
}

// register records a certificate that the account does not have yet. stand
// decides under whom, in the same attempt.
func (s *Service) register(
	ctx context.Context, account fleet.Account, c parsedCertificate, status string,
	stand func(context.Context, *attempt) (standing, error),
) (Certificate, error) {
	var created Certificate
	err := s.change(ctx, account, s.registering(account, c, status, stand, &created))
	return created, err
}

// registering is the command of register.
func (s *Service) registering(
	account fleet.Account, c parsedCertificate, status string,
	stand func(context.Context, *attempt) (standing, error), created *Certificate,
) func(context.Context, *attempt) error {
	return func(ctx context.Context, a *attempt) error {
		k := key(kindCertificate, account, c.id)
		present, err := load[certificateRecord](ctx, a, k)
		if err != nil {
			return err
		}
		if present != nil {
			arn := a.scope.ARN(fleet.ARNCertificate, c.id)
			taken := fault.New(fault.ResourceAlreadyExists, "certificate %s is already registered", c.id)
			taken.ResourceID, taken.ResourceARN = c.id, arn
			return taken
		}
		under, err := stand(ctx, a)
		if err != nil {
			return err
		}
		record := &certificateRecord{
			PEM: c.pem, Status: status, Mode: under.mode, CA: under.ca, Serial: under.serial,
			NotBefore: millis(c.x509.NotBefore), NotAfter: millis(c.x509.NotAfter),
			Created: millis(a.now), Modified: millis(a.now), CustomerVersion: 1, GenerationID: s.newID(),
			Pending: under.pending, ClaimTemplate: under.claimTemplate,
		}
		*created = s.certificate(account, c.id, record)
		for _, row := range certificateRows(account, c.id, record) {
			a.row(row)
		}
		a.devices = true
		a.emit(event.CertificateCreated{CertificateID: c.id, Status: status, NotAfter: moment(record.NotAfter)})
		return save(a, k, record)
	}
}

// certificateRows are the rows that find a certificate by time. Claims of
// trusted users are found only to be deleted.
func certificateRows(account fleet.Account, id string, r *certificateRecord) []store.Key {
	if r.ClaimTemplate != "" {
		return pendingRows(account, id, r)
	}
	created := moment(r.Created)
	rows := pendingRows(account, id, r)
	if r.Purpose != nil && r.Purpose.ReopenedUntil != 0 {
		rows = append(rows, reopenedRow(account, id, r.Purpose.ReopenedUntil))
	}
	rows = append(rows,
		key(kindCertificateOldest, account, rising(created), id),
		key(kindCertificateNewest, account, falling(created), id),
		key(kindCertificateExpiry, account, rising(moment(r.NotAfter)), id))
	if r.CA == "" {
		return rows
	}
	return append(rows,
		key(kindCertificateByCA, account, r.CA, rising(created), id),
		key(kindCertificateByCADown, account, r.CA, falling(created), id),
		key(kindCertificateSerial, account, r.CA, r.Serial, id))
}

// checkCertificateID refuses what cannot be a certificate's id.
func checkCertificateID(id string) error {
	if fleet.ValidCertificateID(id) {
		return nil
	}
	return fault.New(fault.InvalidRequest, "certificateId must have 64 lower-case hexadecimal digits")
}

// DescribeCertificate returns one certificate.
func (s *Service) DescribeCertificate(ctx context.Context, account fleet.Account, id string) (Certificate, error) {
	if err := checkCertificateID(id); err != nil {
		return Certificate{}, err
	}
	record, err := s.findCertificate(ctx, account, id)
	if err != nil {
		return Certificate{}, err
	}
	return s.certificate(account, id, record), nil
}

// findCertificate reads a certificate that must exist, outside a change.
func (s *Service) findCertificate(ctx context.Context, account fleet.Account, id string) (*certificateRecord, error) {
	record, _, err := get[certificateRecord](ctx, s.store, key(kindCertificate, account, id))
	if err != nil {
		return nil, store.Fault(err)
	}
	if record == nil {
		return nil, notFound("certificate", id)
	}
	return record, nil
}

// loadCertificate is load for a certificate that must exist.
func loadCertificate(ctx context.Context, a *attempt, id string) (*certificateRecord, error) {
	record, err := load[certificateRecord](ctx, a, key(kindCertificate, a.account, id))
	if err == nil && record == nil {
		err = notFound("certificate", id)
	}
	return record, err
}

// ListCertificates returns one page in order of creation, the newest first
// unless ascending.
func (s *Service) ListCertificates(ctx context.Context, account fleet.Account, ascending bool, p Page) (Listed[Certificate], error) {
	kind := kindCertificateNewest
	if ascending {
		kind = kindCertificateOldest
	}
	owner := func(k store.Key) store.Key { return key(kindCertificate, account, k.Last()) }
	listed, err := listRecords[certificateRecord](ctx, s.store, under(kind, account), p, owner,
		func(k store.Key, r *certificateRecord) (Certificate, bool) {
			return s.certificate(account, k.Last(), r), true
		})
	return listed, store.Fault(err)
}

// UpdateCertificate sets a certificate's state. Setting the state that it has
// changes nothing; a revoked certificate stays revoked.
func (s *Service) UpdateCertificate(ctx context.Context, account fleet.Account, id, status string) error {
	if err := checkCertificateID(id); err != nil {
		return err
	}
	switch status {
	case StatusActive, StatusInactive, StatusRevoked:
	default:
		return fault.New(fault.InvalidRequest, "newStatus must be ACTIVE, INACTIVE or REVOKED")
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadCertificate(ctx, a, id)
		if err != nil {
			return err
		}
		return decideStatus(ctx, a, id, record, status)
	})
}

// decideStatus gives a certificate another state where that may be.
func decideStatus(ctx context.Context, a *attempt, id string, record *certificateRecord, status string) error {
	switch record.Status {
	case status:
		return nil
	case StatusRevoked:
		return fault.New(fault.CertificateState, "certificate %s is revoked, which is final", id)
	case StatusPendingTransfer:
		return beingTransferred(id)
	}
	if err := notSpent(ctx, a, id, record, status); err != nil {
		return err
	}
	return setStatus(a, a.account, id, record, status)
}

// setStatus gives a certificate another state and saves it. Our own revocation
// list gains what our own authority issued.
func setStatus(a *attempt, account fleet.Account, id string, record *certificateRecord, status string) error {
	previous := record.Status
	record.Status, record.Modified = status, millis(a.now)
	record.CustomerVersion++
	a.devices = true
	a.emitIn(account, event.CertificateStatusChanged{CertificateID: id, Status: status, PreviousStatus: previous})
	if status == StatusRevoked && issuedHere(record) {
		if err := listRevoked(a, account, id, record); err != nil {
			return err
		}
	}
	return save(a, key(kindCertificate, account, id), record)
}

// DeleteCertificate removes a certificate that is not active and acts as no
// thing. With force it may have policies, which are detached.
func (s *Service) DeleteCertificate(ctx context.Context, account fleet.Account, id string, force bool) error {
	if err := checkCertificateID(id); err != nil {
		return err
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadCertificate(ctx, a, id)
		if err != nil {
			return err
		}
		if err := decideDeleteCertificate(id, record, force); err != nil {
			return err
		}
		self := reference{kind: fleet.ARNCertificate, name: id}
		for _, policy := range record.Policies {
			a.remove(key(kindPolicyTarget, account, policy, self.ref()))
			a.emit(event.PolicyDetached{Policy: policy, Target: self.arn(a.scope)})
		}
		for _, row := range certificateRows(account, id, record) {
			a.remove(row)
		}
		a.remove(key(kindCertificate, account, id))
		a.devices = true
		a.emit(event.CertificateDeleted{CertificateID: id})
		return nil
	})
}

// decideDeleteCertificate tells whether the certificate may go.
func decideDeleteCertificate(id string, r *certificateRecord, force bool) error {
	switch {
	case r.Status == StatusPendingTransfer:
		return beingTransferred(id)
	case r.Status == StatusActive:
		return fault.New(fault.CertificateState, "certificate %s is ACTIVE; set it to INACTIVE first", id)
	case r.Things > 0:
		return fault.New(fault.DeleteConflict, "certificate %s is attached to %d things; detach it first", id, r.Things)
	case len(r.Policies) > 0 && !force:
		return fault.New(fault.DeleteConflict, "certificate %s has %d policies; detach them first or use forceDelete", id, len(r.Policies))
	}
	return nil
}
