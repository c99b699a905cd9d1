package registry

import (
	"context"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// MaxReopening bounds the window in which a device may be provisioned again.
const MaxReopening = 24 * time.Hour

// MisusedError is a certificate for provisioning that was used for another device
// than its own; test with errors.As.
type MisusedError struct {
	// Serial or Thing is what the certificate is for, the others are what was asked
	// for.
	Serial, OtherSerial, Thing, OtherThing string
}

// Error says which.
func (e *MisusedError) Error() string {
	if e.Serial != "" {
		return "the certificate is for the device " + e.Serial
	}
	return "the certificate is that of thing " + e.Thing
}

// Misused is the fault for it.
func Misused(id string, e *MisusedError) error {
	return fault.Wrap(fault.Forbidden, e, "The birth certificate %s is another device's", id)
}

// askingPurpose is the purpose of the certificate with which a device asks for
// another one; nil for one that acts for itself, and for none.
func askingPurpose(ctx context.Context, a *attempt, id string) (*certificateRecord, *Purpose, error) {
	if id == "" {
		return nil, nil, nil
	}
	record, err := load[certificateRecord](ctx, a, key(kindCertificate, a.account, id))
	if err != nil || record == nil {
		return nil, nil, err
	}
	ca, err := loadCAPurpose(ctx, a, record.CA)
	if err != nil {
		return nil, nil, err
	}
	p := purposeOf(record, ca)
	if p.Purpose == PurposeOperational {
		return nil, nil, nil
	}
	return record, &p, nil
}

// stillInForce refuses a certificate that is not good for asking any more: those who
// decide about its device may have taken their time.
func stillInForce(ctx context.Context, a *attempt, id string) error {
	if id == "" {
		return nil
	}
	record, err := load[certificateRecord](ctx, a, key(kindCertificate, a.account, id))
	switch {
	case err != nil:
		return err
	case record == nil:
		return fault.New(fault.Forbidden, "The certificate %s is not registered any more", id)
	case record.Status != StatusActive:
		return fault.New(fault.Forbidden, "The certificate %s is %s", id, record.Status)
	}
	return nil
}

// useBirth counts what a certificate for provisioning was used for, in the commit
// of that use. One that has done all that it may becomes INACTIVE and keeps what
// it was replaced by.
func useBirth(ctx context.Context, a *attempt, id string, made *Provisioned) error {
	if err := stillInForce(ctx, a, id); err != nil {
		return err
	}
	record, p, err := askingPurpose(ctx, a, id)
	if err != nil || p == nil || p.maxUses() == 0 || made.CertificateID == id {
		return err
	}
	open := !p.ReopenedUntil.IsZero() && a.now.Before(p.ReopenedUntil)
	switch {
	case p.Purpose == PurposeBirth && p.Thing != "" && p.Thing != made.Thing:
		return Misused(id, &MisusedError{Thing: p.Thing, OtherThing: made.Thing})
	case p.Uses >= p.maxUses() && !open:
		return fault.New(fault.Forbidden, "The certificate %s has provisioned %d devices, the most that it may", id, p.Uses)
	}
	if record.Purpose == nil {
		record.Purpose = &purposeRecord{}
	}
	own := record.Purpose
	closeWindow(a, id, record)
	own.Uses++
	own.Thing, own.ReplacedBy, own.UsedAt = made.Thing, made.CertificateID, millis(a.now)
	a.emit(event.BirthCertificateChanged{CertificateID: id, Change: event.BirthUsed, Thing: own.Thing, ReplacedBy: own.ReplacedBy, Uses: own.Uses})
	if own.Uses >= p.maxUses() {
		record.Status, record.Modified = StatusInactive, millis(a.now)
		record.CustomerVersion++
		a.devices = true
		a.emit(event.CertificateStatusChanged{CertificateID: id, Status: StatusInactive, PreviousStatus: StatusActive, Used: true})
	}
	if err := save(a, key(kindCertificate, a.account, id), record); err != nil || p.Purpose != PurposeBirth || made.Thing == "" {
		return err
	}
	thing, err := loadThing(ctx, a, made.Thing)
	if err != nil {
		return err
	}
	thing.Birth = id
	return save(a, key(kindThing, a.account, made.Thing), thing)
}

// reopenedRow finds a certificate by the end of its window.
func reopenedRow(account fleet.Account, id string, until int64) store.Key {
	return key(kindCertificateReopened, account, rising(moment(until)), id)
}

// closeWindow ends the window of a certificate whose record is saved afterwards.
func closeWindow(a *attempt, id string, record *certificateRecord) {
	if until := record.Purpose.ReopenedUntil; until != 0 {
		a.remove(reopenedRow(a.account, id, until))
		record.Purpose.ReopenedUntil = 0
	}
}

// ReopenCommand asks to let a device be provisioned again with the certificate
// that it was made with.
type ReopenCommand struct {
	Thing string
	// For is how long, at most MaxReopening.
	For time.Duration
	// Reason is for those who look back; it may be empty.
	Reason string
}

// Reopened is an open window.
type Reopened struct {
	Thing, CertificateID string
	Until                time.Time
}

// Reopen activates the birth certificate of a thing for one more provisioning of
// the same thing within a time. The thing's operational certificates must be gone:
// none of them may be ACTIVE and valid.
func (s *Service) Reopen(ctx context.Context, account fleet.Account, c ReopenCommand) (Reopened, error) {
	switch {
	case c.For < time.Second || c.For > MaxReopening:
		return Reopened{}, fault.New(fault.InvalidRequest, "forSeconds must be from 1 to %d", int64(MaxReopening/time.Second))
	case utf8.RuneCountInString(c.Reason) > maxReason || !utf8.ValidString(c.Reason):
		return Reopened{}, fault.New(fault.InvalidRequest, "reason must have at most %d characters", maxReason)
	}
	if err := checkName("thingName", c.Thing); err != nil {
		return Reopened{}, err
	}
	var made Reopened
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		thing, err := loadThing(ctx, a, c.Thing)
		if err != nil {
			return err
		}
		if thing.Birth == "" {
			return fault.New(fault.CertificateState, "thing %s was provisioned with no birth certificate", c.Thing)
		}
		if err := noneInForce(ctx, a, c.Thing, thing.Birth); err != nil {
			return err
		}
		record, p, err := askingPurpose(ctx, a, thing.Birth)
		if err != nil {
			return err
		}
		switch {
		case record == nil:
			return fault.New(fault.CertificateState, "certificate %s, with which thing %s was provisioned, is no birth certificate any more", thing.Birth, c.Thing)
		case p.Thing != c.Thing:
			return fault.New(fault.CertificateState, "certificate %s has provisioned thing %s since", thing.Birth, p.Thing)
		case record.Status == StatusRevoked:
			return fault.New(fault.CertificateState, "certificate %s is revoked, which is final", thing.Birth)
		case !a.now.Before(moment(record.NotAfter)):
			return fault.New(fault.CertificateState, "certificate %s expired on %s", thing.Birth, moment(record.NotAfter).Format(time.RFC3339))
		case !p.ReopenedUntil.IsZero() && a.now.Before(p.ReopenedUntil):
			return fault.New(fault.CertificateState, "certificate %s is open until %s already", thing.Birth, p.ReopenedUntil.Format(time.RFC3339))
		}
		closeWindow(a, thing.Birth, record)
		until := millis(a.now.Add(c.For))
		record.Purpose.ReopenedUntil = until
		a.row(reopenedRow(account, thing.Birth, until))
		made = Reopened{Thing: c.Thing, CertificateID: thing.Birth, Until: moment(until)}
		a.emit(event.BirthCertificateChanged{CertificateID: thing.Birth, Change: event.BirthReopened, Thing: c.Thing, Until: made.Until, Reason: c.Reason})
		if record.Status == StatusActive {
			return save(a, key(kindCertificate, account, thing.Birth), record)
		}
		return setStatus(a, account, thing.Birth, record, StatusActive)
	})
	return made, err
}

// noneInForce refuses a thing of which another certificate than one can connect.
func noneInForce(ctx context.Context, a *attempt, thing, but string) error {
	rows, more, err := keysOf(ctx, a.reader, under(kindThingPrincipal, a.account, thing), "", maxRetired)
	if err != nil {
		return err
	}
	if more {
		return fault.New(fault.InvalidRequest, "thing %s has more than %d attached principals; detach some first", thing, maxRetired)
	}
	for _, row := range rows {
		id := parseRef(row.Last()).name
		if id == but {
			continue
		}
		c, err := load[certificateRecord](ctx, a, key(kindCertificate, a.account, id))
		if err != nil {
			return err
		}
		if c != nil && c.Status == StatusActive && a.now.Before(moment(c.NotAfter)) {
			return fault.New(fault.CertificateState,
				"thing %s has the ACTIVE certificate %s: if its key is lost, say so first with aws iot update-certificate --new-status REVOKED", thing, id)
		}
	}
	return nil
}

// CloseReopened ends the windows whose time is over and that nobody has used, and
// returns how many.
func (s *Service) CloseReopened(ctx context.Context) (closed int, err error) {
	var errs error
	err = s.store.Scan(ctx, store.Under(kindCertificateReopened), func(row store.Record) error {
		parts := row.Key.Parts()
		if parts[2] > rising(s.now()) {
			return nil // few are open at a time
		}
		if err := s.closeReopened(ctx, fleet.Account(parts[1]), row.Key); err != nil {
			errs = errors.Join(errs, err)
			return nil
		}
		closed++
		return nil
	})
	return closed, errors.Join(store.Fault(err), errs)
}

// closeReopened ends one window.
func (s *Service) closeReopened(ctx context.Context, account fleet.Account, row store.Key) error {
	id := row.Last()
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := load[certificateRecord](ctx, a, key(kindCertificate, account, id))
		if err != nil {
			return err
		}
		if record == nil || record.Purpose == nil || record.Purpose.ReopenedUntil == 0 || a.now.Before(moment(record.Purpose.ReopenedUntil)) {
			a.remove(row)
			return nil
		}
		closeWindow(a, id, record)
		a.emit(event.BirthCertificateChanged{CertificateID: id, Change: event.BirthClosed, Thing: record.Purpose.Thing})
		if record.Status == StatusActive {
			return setStatus(a, account, id, record, StatusInactive)
		}
		return save(a, key(kindCertificate, account, id), record)
	})
}
