package registry

import (
	"context"
	"time"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// While a certificate is being transferred, both accounts have a record of it
// in state PENDING_TRANSFER, so that each finds it in its lists; whatever ends
// the transfer removes one of the two in the commit that changes the other.

// maxTransferMessage bounds the two texts of a transfer, in characters.
const maxTransferMessage = 128

// Transfer is a certificate's way from one account to another.
type Transfer struct {
	From, To fleet.Account
	Message  string
	// Reason is why it was rejected; empty otherwise.
	Reason string
	Began  time.Time
	// Accepted and Rejected are zero as long as that has not happened.
	Accepted, Rejected time.Time
}

// transferOf is the public form of a record.
func transferOf(r *transferRecord) *Transfer {
	if r == nil {
		return nil
	}
	t := &Transfer{From: r.From, To: r.To, Message: r.Message, Reason: r.Reason, Began: moment(r.Began)}
	if r.Accepted != 0 {
		t.Accepted = moment(r.Accepted)
	}
	if r.Rejected != 0 {
		t.Rejected = moment(r.Rejected)
	}
	return t
}

// owner is the account that answers for a certificate: until it is accepted,
// the one that it comes from.
func owner(account fleet.Account, r *certificateRecord) fleet.Account {
	if r.Status == StatusPendingTransfer && r.Transfer != nil {
		return r.Transfer.From
	}
	return account
}

// beingTransferred refuses to change a certificate on its way.
func beingTransferred(id string) error {
	return fault.New(fault.CertificateState, "certificate %s is being transferred; accept, reject or cancel that first", id)
}

// checkTransferText refuses a text of a transfer that is too long.
func checkTransferText(field, text string) error {
	if utf8.RuneCountInString(text) > maxTransferMessage {
		return fault.New(fault.InvalidRequest, "%s must have at most %d characters", field, maxTransferMessage)
	}
	return nil
}

// TransferCertificate offers a certificate to another account and returns the
// ARN that it has there.
func (s *Service) TransferCertificate(ctx context.Context, account fleet.Account, id string, to fleet.Account, message string) (string, error) {
	if err := checkCertificateID(id); err != nil {
		return "", err
	}
	if err := checkTransferText("transferMessage", message); err != nil {
		return "", err
	}
	if err := s.checkTransferTarget(ctx, account, to); err != nil {
		return "", err
	}
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadCertificate(ctx, a, id)
		if err != nil {
			return err
		}
		there, err := load[certificateRecord](ctx, a, key(kindCertificate, to, id))
		if err != nil {
			return err
		}
		if err := decideTransfer(id, to, record, there); err != nil {
			return err
		}
		ca, err := loadCAPurpose(ctx, a, record.CA)
		if err != nil {
			return err
		}
		if p := purposeOf(record, ca); p.Purpose != PurposeOperational {
			return fault.New(fault.CertificateState, "certificate %s is of purpose %s and stays in its account", id, p.Purpose)
		}
		previous := record.Status
		began := transferRecord{From: account, To: to, Message: message, Began: millis(a.now)}
		record.Status, record.Modified, record.Transfer = StatusPendingTransfer, millis(a.now), &began
		record.CustomerVersion++
		offered := offer(record, millis(a.now), s.newID())
		for _, row := range certificateRows(to, id, offered) {
			a.row(row)
		}
		for _, row := range outgoingRows(account, id, &began) {
			a.row(row)
		}
		a.devices = true
		a.emit(event.CertificateStatusChanged{CertificateID: id, Status: record.Status, PreviousStatus: previous})
		a.emitIn(to, event.CertificateCreated{CertificateID: id, Status: offered.Status, NotAfter: moment(offered.NotAfter)})
		a.emitTransfer(id, &began, event.CertificateTransferRequested)
		if err := save(a, key(kindCertificate, to, id), offered); err != nil {
			return err
		}
		return save(a, key(kindCertificate, account, id), record)
	})
	if err != nil {
		return "", err
	}
	return s.scope(to).ARN(fleet.ARNCertificate, id), nil
}

// checkTransferTarget refuses an account that cannot take a certificate.
func (s *Service) checkTransferTarget(ctx context.Context, account, to fleet.Account) error {
	switch {
	case !to.Valid():
		return fault.New(fault.InvalidRequest, "targetAwsAccount must have 12 digits")
	case to == account:
		return fault.New(fault.InvalidRequest, "targetAwsAccount is the account that has the certificate")
	}
	found, err := s.accountExists(ctx, to)
	if err != nil {
		return store.Fault(err)
	}
	if !found {
		return fault.New(fault.InvalidRequest, "targetAwsAccount: there is no account %s", to)
	}
	return nil
}

// decideTransfer tells whether a certificate may be offered. there is what the
// other account has of it.
func decideTransfer(id string, to fleet.Account, r, there *certificateRecord) error {
	switch {
	case r.Status == StatusPendingTransfer:
		return fault.New(fault.CertificateState, "certificate %s is being transferred already", id)
	case r.Status != StatusInactive:
		return fault.New(fault.CertificateState, "certificate %s is %s; only an INACTIVE one can be transferred", id, r.Status)
	case len(r.Policies) > 0:
		return fault.New(fault.TransferConflict, "certificate %s has %d policies; detach them first", id, len(r.Policies))
	case r.Things > 0:
		return fault.New(fault.TransferConflict, "certificate %s is attached to %d things; detach it first", id, r.Things)
	case there != nil:
		return fault.New(fault.TransferConflict, "account %s has certificate %s already", to, id)
	}
	return nil
}

// offer is the record of a certificate in the account that it is offered to.
func offer(r *certificateRecord, now int64, generation string) *certificateRecord {
	return &certificateRecord{
		PEM: r.PEM, Status: StatusPendingTransfer, Mode: r.Mode, NotBefore: r.NotBefore, NotAfter: r.NotAfter,
		Created: now, Modified: now, CustomerVersion: 1, GenerationID: generation, CA: r.CA, Serial: r.Serial, Transfer: r.Transfer,
	}
}

// outgoingRows are the rows of a transfer in the account that it began in.
func outgoingRows(account fleet.Account, id string, t *transferRecord) []store.Key {
	began := moment(t.Began)
	return []store.Key{
		key(kindCertificateOutgoing, account, rising(began), id),
		key(kindCertificateOutgoingDown, account, falling(began), id),
	}
}

// emitTransfer tells both accounts of a step.
func (a *attempt) emitTransfer(id string, t *transferRecord, step event.CertificateTransfer) {
	for _, account := range []fleet.Account{t.From, t.To} {
		a.emitIn(account, event.CertificateTransferChanged{CertificateID: id, Change: step, From: t.From, To: t.To})
	}
}

// forget removes one account's record of a certificate without uses.
func (a *attempt) forget(account fleet.Account, id string, r *certificateRecord) {
	for _, row := range certificateRows(account, id, r) {
		a.remove(row)
	}
	a.remove(key(kindCertificate, account, id))
	a.devices = true
	a.emitIn(account, event.CertificateDeleted{CertificateID: id})
}

// AcceptCertificateTransfer makes an offered certificate the account's own.
func (s *Service) AcceptCertificateTransfer(ctx context.Context, account fleet.Account, id string, active bool) error {
	return s.endTransfer(ctx, account, id, func(ctx context.Context, a *attempt, record *certificateRecord) error {
		t := *record.Transfer
		if err := receives(account, id, &t); err != nil {
			return err
		}
		if record.CA != "" {
			listed, err := load[revokedSerialRecord](ctx, a, key(kindRevokedSerial, account, record.CA, record.Serial))
			if err != nil {
				return err
			}
			if listed != nil {
				return fault.New(fault.InvalidRequest, "certificate %s is on the revocation list of its CA certificate; reject the transfer", id)
			}
		}
		theirs, err := load[certificateRecord](ctx, a, key(kindCertificate, t.From, id))
		if err != nil {
			return err
		}
		if theirs != nil {
			a.forget(t.From, id, theirs)
		}
		for _, row := range outgoingRows(t.From, id, &t) {
			a.remove(row)
		}
		t.Accepted = millis(a.now)
		record.Transfer, record.PreviousOwner = &t, t.From
		a.emitTransfer(id, &t, event.CertificateTransferAccepted)
		if err := save(a, key(kindCertificateGone, t.From, id), &goneRecord{To: account, At: millis(a.now)}); err != nil {
			return err
		}
		a.remove(key(kindCertificateGone, account, id)) // it may have come back
		status := StatusInactive
		if active {
			status = StatusActive
		}
		return setStatus(a, account, id, record, status)
	})
}

// RejectCertificateTransfer refuses an offered certificate: it is INACTIVE in
// the account that it came from.
func (s *Service) RejectCertificateTransfer(ctx context.Context, account fleet.Account, id, reason string) error {
	if err := checkTransferText("rejectReason", reason); err != nil {
		return err
	}
	return s.endTransfer(ctx, account, id, func(ctx context.Context, a *attempt, record *certificateRecord) error {
		t := *record.Transfer
		if err := receives(account, id, &t); err != nil {
			return err
		}
		theirs, err := load[certificateRecord](ctx, a, key(kindCertificate, t.From, id))
		if err != nil {
			return err
		}
		t.Reason, t.Rejected = reason, millis(a.now)
		a.forget(account, id, record)
		a.emitTransfer(id, &t, event.CertificateTransferRejected)
		if theirs == nil {
			return nil
		}
		return a.giveBack(id, theirs, &t, StatusInactive)
	})
}

// CancelCertificateTransfer takes an offer back.
func (s *Service) CancelCertificateTransfer(ctx context.Context, account fleet.Account, id string) error {
	return s.endTransfer(ctx, account, id, func(ctx context.Context, a *attempt, record *certificateRecord) error {
		if record.Transfer.From != account {
			return fault.New(fault.InvalidRequest, "certificate %s is transferred to this account, which can accept or reject it", id)
		}
		return cancelTransfer(ctx, a, id, record, StatusInactive)
	})
}

// receives refuses an account that a certificate is not offered to.
func receives(account fleet.Account, id string, t *transferRecord) error {
	if t.To == account {
		return nil
	}
	return fault.New(fault.InvalidRequest, "certificate %s is transferred from this account, which can only cancel that", id)
}

// endTransfer runs a command on a certificate whose transfer is under way.
func (s *Service) endTransfer(
	ctx context.Context, account fleet.Account, id string, end func(context.Context, *attempt, *certificateRecord) error,
) error {
	if err := checkCertificateID(id); err != nil {
		return err
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := load[certificateRecord](ctx, a, key(kindCertificate, account, id))
		if err != nil {
			return err
		}
		if record == nil {
			gone, err := load[goneRecord](ctx, a, key(kindCertificateGone, account, id))
			if err == nil && gone != nil {
				return fault.New(fault.TransferAlreadyCompleted, "the transfer of certificate %s to account %s is completed", id, gone.To)
			}
			if err == nil {
				err = notFound("certificate", id)
			}
			return err
		}
		switch {
		case record.Transfer == nil:
			return fault.New(fault.InvalidRequest, "certificate %s is not being transferred", id)
		case record.Status != StatusPendingTransfer:
			return fault.New(fault.TransferAlreadyCompleted, "the transfer of certificate %s is over", id)
		}
		return end(ctx, a, record)
	})
}

// cancelTransfer ends a transfer from its beginning's side and leaves the
// certificate in a state.
func cancelTransfer(ctx context.Context, a *attempt, id string, record *certificateRecord, status string) error {
	t := *record.Transfer
	offered, err := load[certificateRecord](ctx, a, key(kindCertificate, t.To, id))
	if err != nil {
		return err
	}
	if offered != nil {
		a.forget(t.To, id, offered)
	}
	a.emitTransfer(id, &t, event.CertificateTransferCancelled)
	return a.giveBack(id, record, &t, status)
}

// giveBack leaves a certificate with the account that offered it.
func (a *attempt) giveBack(id string, record *certificateRecord, t *transferRecord, status string) error {
	for _, row := range outgoingRows(t.From, id, t) {
		a.remove(row)
	}
	record.Transfer = t
	return setStatus(a, t.From, id, record, status)
}

// ListOutgoingCertificates returns one page of the certificates that the
// account offers to others, in order of the offer, the newest first unless
// ascending.
func (s *Service) ListOutgoingCertificates(ctx context.Context, account fleet.Account, ascending bool, p Page) (Listed[Certificate], error) {
	kind := kindCertificateOutgoingDown
	if ascending {
		kind = kindCertificateOutgoing
	}
	recordOf := func(k store.Key) store.Key { return key(kindCertificate, account, k.Last()) }
	listed, err := listRecords[certificateRecord](ctx, s.store, under(kind, account), p, recordOf,
		func(k store.Key, r *certificateRecord) (Certificate, bool) {
			return s.certificate(account, k.Last(), r), r.Status == StatusPendingTransfer && r.Transfer != nil
		})
	return listed, store.Fault(err)
}
