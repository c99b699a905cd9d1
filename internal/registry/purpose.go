package registry

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// What a certificate is for.
const (
	// PurposeOperational is a certificate for which its policies alone speak.
	PurposeOperational = "OPERATIONAL"
	// PurposeBirth is one that a device is made with, to be exchanged for an
	// operational one.
	PurposeBirth = "BIRTH"
	// PurposeClaim is one that many devices share, for the same end.
	PurposeClaim = "CLAIM"
)

const (
	// maxNetworks bounds the networks that a certificate may come from.
	maxNetworks = 32
	// maxSerial bounds a serial, in characters, as a client id is bounded.
	maxSerial = 128
	// MaxBirthSession bounds how long one connection may last that is there to be
	// provisioned.
	MaxBirthSession = 24 * time.Hour
	// maxUses and maxRequests bound what a limit may be.
	maxUses     = 1_000_000_000
	maxRequests = 10_000
)

// BirthLimits bound what a certificate for provisioning can be used for. Zero
// values are the installation's or no limit.
type BirthLimits struct {
	// Template is the only one that may be asked for; empty for all.
	Template string `json:"template,omitempty"`
	// Networks are those from which it may connect, as CIDR; none for all.
	Networks []string `json:"networks,omitempty"`
	// Session is how many seconds one connection may last.
	Session int64 `json:"session,omitempty"`
	// Requests is how many certificates it may ask for in a minute.
	Requests int `json:"requests,omitempty"`
	// MaxUses is how many devices it may provision: 0 is one for a birth
	// certificate and no limit for a claim.
	MaxUses int `json:"maxUses,omitempty"`
}

// purposeRecord is what is kept of a certificate that is, or was, for
// provisioning.
type purposeRecord struct {
	BirthLimits

	// Purpose is empty for a certificate that has the one of its authority.
	Purpose string `json:"purpose,omitempty"`
	// Serial is the device's; empty for a certificate that is bound to none.
	Serial string `json:"serial,omitempty"`
	By     string `json:"by,omitempty"`
	At     int64  `json:"at,omitempty"`

	// Uses counts the devices that were provisioned with it. It is kept where it
	// has a limit.
	Uses int `json:"uses,omitempty"`
	// Thing and ReplacedBy are of the last use, at UsedAt.
	Thing      string `json:"thing,omitempty"`
	ReplacedBy string `json:"replacedBy,omitempty"`
	UsedAt     int64  `json:"usedAt,omitempty"`
	// ReopenedUntil is the end of the window in which its thing may be provisioned
	// again, 0 for none.
	ReopenedUntil int64 `json:"reopenedUntil,omitempty"`
}

// caPurposeRecord is what the certificates under an authority are for. It
// outlives the authority's own record, as its revocation list does.
type caPurposeRecord struct {
	schema
	BirthLimits

	Purpose string `json:"purpose"`
	// SerialFrom is the part of a subject that holds the device's serial; empty for
	// none.
	SerialFrom string `json:"serialFrom,omitempty"`
	// Fingerprint is the SHA-256 of the authority's certificate as an operator has
	// given it.
	Fingerprint string `json:"fingerprint,omitempty"`
	By          string `json:"by,omitempty"`
	At          int64  `json:"at"`
}

// Parts of a subject that can hold a device's serial.
const (
	SerialFromCommonName   = "COMMON_NAME"
	SerialFromSerialNumber = "SERIAL_NUMBER"
)

// Purpose is what a certificate is for, and how far that has come.
type Purpose struct {
	BirthLimits

	Purpose string
	// CA is the id of the authority that it has the purpose from; empty for a mark
	// of its own and for an operational certificate.
	CA string
	// Serial is the one device that may use it; empty for any.
	Serial string
	// By is the ARN of who has said so, At when.
	By string
	At time.Time
	// Uses counts the devices that were provisioned with it, where that is limited.
	Uses              int
	Thing, ReplacedBy string
	UsedAt            time.Time
	// ReopenedUntil is the end of the present window; zero for none.
	ReopenedUntil time.Time
	// Quarantined says that it acts as a thing in quarantine.
	Quarantined bool
}

// Bound reports whether the certificate can do nothing but be provisioned.
func (p *Purpose) Bound() bool { return p.Purpose != PurposeOperational || p.Quarantined }

// maxUses is how many devices may be provisioned; 0 is no limit.
func (p *Purpose) maxUses() int {
	if p.MaxUses == 0 && p.Purpose == PurposeBirth {
		return 1
	}
	return p.MaxUses
}

// Counted reports whether it may provision so many devices and no more.
func (p *Purpose) Counted() bool { return p.Purpose != PurposeOperational && p.maxUses() > 0 }

// Used reports whether it has provisioned all that it may and is in no window.
func (p *Purpose) Used() bool {
	most := p.maxUses()
	return p.Purpose != PurposeOperational && most > 0 && p.Uses >= most && p.ReopenedUntil.IsZero()
}

// purposeOf is the purpose of a certificate under an authority whose purpose is
// ca, nil for none.
func purposeOf(r *certificateRecord, ca *caPurposeRecord) Purpose {
	p := Purpose{Purpose: PurposeOperational, Quarantined: r.Quarantined > 0}
	own := r.Purpose
	switch {
	case r.ClaimTemplate != "":
		p.Purpose, p.Template, p.At = PurposeClaim, r.ClaimTemplate, moment(r.Created)
	case own != nil && own.Purpose != "":
		p.Purpose, p.BirthLimits, p.Serial, p.By, p.At = own.Purpose, own.BirthLimits, own.Serial, own.By, moment(own.At)
	case ca != nil && ca.Purpose == PurposeBirth:
		p.Purpose, p.BirthLimits, p.CA, p.By, p.At = PurposeBirth, ca.BirthLimits, r.CA, ca.By, moment(ca.At)
		p.Serial = serialIn(r.PEM, ca.SerialFrom)
	}
	if own != nil {
		p.Uses, p.Thing, p.ReplacedBy = own.Uses, own.Thing, own.ReplacedBy
		if own.UsedAt != 0 {
			p.UsedAt = moment(own.UsedAt)
		}
		if own.ReopenedUntil != 0 {
			p.ReopenedUntil = moment(own.ReopenedUntil)
		}
	}
	return p
}

// serialIn reads a device's serial from its certificate. A certificate that
// should have one and has none is bound to a serial that no client id can be.
func serialIn(text, from string) string {
	if from == "" {
		return ""
	}
	found := ""
	if c, err := storedCertificate(text); err == nil {
		found = c.Subject.CommonName
		if from == SerialFromSerialNumber {
			found = c.Subject.SerialNumber
		}
	}
	if checkSerial(found) != nil {
		return noSerial
	}
	return found
}

// noSerial is no client id that a device could have.
const noSerial = "\x00"

// checkSerial refuses what cannot be the client id of a device.
func checkSerial(serial string) error {
	n := utf8.RuneCountInString(serial)
	if n < 1 || n > maxSerial || !utf8.ValidString(serial) || strings.ContainsFunc(serial, unicode.IsControl) {
		return fault.New(fault.InvalidRequest, "serial must have 1 to %d characters, none of them a control character", maxSerial)
	}
	return nil
}

// check refuses limits that could not be kept.
func (l *BirthLimits) check() error {
	switch {
	case l.Template != "" && !templateNamePattern.MatchString(l.Template):
		return fault.New(fault.InvalidRequest, "template must have 1 to 36 characters and match [0-9A-Za-z_-]+")
	case len(l.Networks) > maxNetworks:
		return fault.New(fault.InvalidRequest, "networks must have at most %d elements", maxNetworks)
	case l.Session < 0 || l.Session > int64(MaxBirthSession/time.Second):
		return fault.New(fault.InvalidRequest, "sessionSeconds must be from 0, for the installation's, to %d", int64(MaxBirthSession/time.Second))
	case l.Requests < 0 || l.Requests > maxRequests:
		return fault.New(fault.InvalidRequest, "requestsPerMinute must be from 0, for the installation's, to %d", maxRequests)
	case l.MaxUses < 0 || l.MaxUses > maxUses:
		return fault.New(fault.InvalidRequest, "maxUses must be from 0 to %d", maxUses)
	}
	for i, text := range l.Networks {
		network, err := netip.ParsePrefix(text)
		if err != nil || network.Masked() != network {
			return fault.New(fault.InvalidRequest, "networks[%d] must be a network such as 192.0.2.0/24, with no bits behind its prefix: %q is none", i, text)
		}
	}
	return nil
}

// none reports whether nothing is limited.
func (l *BirthLimits) none() bool {
	return l.Template == "" && len(l.Networks) == 0 && l.Session == 0 && l.Requests == 0 && l.MaxUses == 0
}

// SetPurposeCommand marks a certificate.
type SetPurposeCommand struct {
	ID string
	// Purpose is one of the Purpose constants.
	Purpose string
	Serial  string
	Limits  BirthLimits
}

// check refuses what is wrong without looking at the certificate.
func (c *SetPurposeCommand) check() error {
	if err := checkCertificateID(c.ID); err != nil {
		return err
	}
	if c.Serial != "" {
		if err := checkSerial(c.Serial); err != nil {
			return err
		}
	}
	switch c.Purpose {
	case PurposeBirth:
		return c.Limits.check()
	case PurposeClaim:
		if c.Serial != "" {
			return fault.New(fault.InvalidRequest, "serial: a claim is shared by devices and bound to none; use purpose %s", PurposeBirth)
		}
		return c.Limits.check()
	case PurposeOperational:
		if c.Serial != "" || !c.Limits.none() {
			return fault.New(fault.InvalidRequest, "serial and limits are for certificates of purpose %s and %s", PurposeBirth, PurposeClaim)
		}
		return nil
	}
	return fault.New(fault.InvalidRequest, "purpose must be %s, %s or %s", PurposeBirth, PurposeClaim, PurposeOperational)
}

// SetCertificatePurpose says what a certificate is for. A mark in place of an
// earlier one keeps what the certificate was used for. A certificate for
// provisioning must be issued here or come under an authority that is owned or
// declared to be trusted.
func (s *Service) SetCertificatePurpose(ctx context.Context, account fleet.Account, c SetPurposeCommand) (Purpose, error) {
	if err := c.check(); err != nil {
		return Purpose{}, err
	}
	var made Purpose
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadCertificate(ctx, a, c.ID)
		if err != nil {
			return err
		}
		ca, err := loadCAPurpose(ctx, a, record.CA)
		if err != nil {
			return err
		}
		before := purposeOf(record, ca)
		if err := decidePurpose(ctx, a, &c, record, &before); err != nil {
			return err
		}
		own := purposeRecord{}
		if record.Purpose != nil {
			own = *record.Purpose
		}
		own.Purpose, own.Serial, own.BirthLimits = c.Purpose, c.Serial, c.Limits
		own.By, own.At = a.actor.Principal.ARN, millis(a.now)
		record.Purpose = &own
		if c.Purpose == PurposeOperational {
			record.Purpose = nil
		}
		if made = purposeOf(record, ca); samePurpose(&before, &made) {
			made = before
			return nil
		}
		a.devices = true
		a.emit(event.CertificatePurposeChanged{
			CertificateID: c.ID, Purpose: made.Purpose, PreviousPurpose: before.Purpose, Serial: made.Serial, Template: made.Template,
		})
		return save(a, key(kindCertificate, account, c.ID), record)
	})
	return made, err
}

// samePurpose reports whether nothing differs but who has said so.
func samePurpose(a, b *Purpose) bool {
	return a.Purpose == b.Purpose && a.CA == b.CA && a.Serial == b.Serial && sameLimits(&a.BirthLimits, &b.BirthLimits)
}

func sameLimits(a, b *BirthLimits) bool {
	return a.Template == b.Template && slices.Equal(a.Networks, b.Networks) && a.Session == b.Session && a.Requests == b.Requests && a.MaxUses == b.MaxUses
}

// decidePurpose tells whether a certificate may get a purpose.
func decidePurpose(ctx context.Context, a *attempt, c *SetPurposeCommand, record *certificateRecord, before *Purpose) error {
	switch {
	case record.ClaimTemplate != "":
		return fault.New(fault.CertificateState, "certificate %s is the claim of a trusted user, whose purpose is fixed", c.ID)
	case record.Status == StatusPendingTransfer:
		return beingTransferred(c.ID)
	case record.Pending != nil:
		return fault.New(fault.CertificateState, "certificate %s waits for a device that is being provisioned: it is operational", c.ID)
	case before.CA != "" && c.Purpose != PurposeBirth:
		return fault.New(fault.CertificateState,
			"certificate %s is under the CA certificate %s of purpose %s, as which it stays; issue another one", c.ID, before.CA, PurposeBirth)
	case c.Purpose == PurposeOperational && !before.UsedAt.IsZero():
		return fault.New(fault.CertificateState, "certificate %s has provisioned thing %s and cannot become operational; issue another one", c.ID, before.Thing)
	case c.Purpose == PurposeOperational:
		return nil
	}
	return trusted(ctx, a, c.ID, record)
}

// trusted refuses a certificate of which nobody vouches for the issuer.
func trusted(ctx context.Context, a *attempt, id string, record *certificateRecord) error {
	const only = "a certificate for provisioning must be issued here, or be signed by a registered CA certificate that is owned or declared to be trusted"
	if record.CA == "" {
		if record.Mode == ModeSNIOnly {
			return fault.New(fault.CertificateState, "certificate %s was registered without its CA certificate: %s", id, only)
		}
		return nil
	}
	ca, err := load[caRecord](ctx, a, key(kindCACertificate, a.account, record.CA))
	if err != nil {
		return err
	}
	switch {
	case ca == nil:
		return fault.New(fault.CertificateState, "the CA certificate %s of certificate %s is not registered any more: %s", record.CA, id, only)
	case basisOf(ca.Mode) != BasisPossession && !ca.Declaration.stated():
		return fault.New(fault.CertificateState,
			"the CA certificate %s of certificate %s is in mode %s, which proves nothing, and no operator has declared that it is trusted: %s",
			record.CA, id, ca.Mode, only)
	}
	return nil
}

// notSpent refuses to activate a certificate that has provisioned all that it may.
func notSpent(ctx context.Context, a *attempt, id string, record *certificateRecord, status string) error {
	if status != StatusActive || record.Status == StatusActive || record.Purpose == nil {
		return nil
	}
	ca, err := loadCAPurpose(ctx, a, record.CA)
	if err != nil {
		return err
	}
	if p := purposeOf(record, ca); p.Used() {
		return fault.New(fault.CertificateState,
			"certificate %s has provisioned thing %s and is used up; muster things reprovision opens it again for a time", id, p.Thing)
	}
	return nil
}

// loadCAPurpose is load for the purpose of an authority; nil for none and for an
// empty id.
func loadCAPurpose(ctx context.Context, a *attempt, ca string) (*caPurposeRecord, error) {
	if ca == "" {
		return nil, nil //nolint:nilnil // none is no error
	}
	return load[caPurposeRecord](ctx, a, key(kindCAPurpose, a.account, ca))
}

// findPurpose reads the purpose of a certificate, outside a change.
func (s *Service) findPurpose(ctx context.Context, account fleet.Account, record *certificateRecord) (Purpose, error) {
	var ca *caPurposeRecord
	if record.CA != "" {
		var err error
		if ca, _, err = get[caPurposeRecord](ctx, s.store, key(kindCAPurpose, account, record.CA)); err != nil {
			return Purpose{}, store.Fault(err)
		}
	}
	return purposeOf(record, ca), nil
}

// CertificatePurpose returns what a certificate is for.
func (s *Service) CertificatePurpose(ctx context.Context, account fleet.Account, id string) (Purpose, error) {
	if err := checkCertificateID(id); err != nil {
		return Purpose{}, err
	}
	record, err := s.findCertificate(ctx, account, id)
	if err != nil {
		return Purpose{}, err
	}
	return s.findPurpose(ctx, account, record)
}
