package registry

import (
	"context"
	"crypto/subtle"
	"errors"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// noClaim stands in keys for a principal without an id.
const noClaim = "-"

// PendingCommand asks for a certificate that waits for its device.
type PendingCommand struct {
	// Claim is the id of the principal that asks.
	Claim string
	// TokenHash is the SHA-256 of the ownership token in hexadecimal digits.
	TokenHash string
	// Until is when it is deleted if nothing was made of it.
	Until time.Time
}

// record is the stored form.
func (c PendingCommand) record() *pendingRecord {
	return &pendingRecord{Until: millis(c.Until), Claim: c.Claim, Token: c.TokenHash}
}

// stand puts what waits under a standing.
func (c PendingCommand) stand(under standing) func(context.Context, *attempt) (standing, error) {
	return func(context.Context, *attempt) (standing, error) {
		under.pending = c.record()
		return under, nil
	}
}

// CreatePendingKeys is CreateKeysAndCertificate for a certificate that waits
// for its device: it is PENDING_ACTIVATION until Provision.
func (s *Service) CreatePendingKeys(ctx context.Context, account fleet.Account, c PendingCommand) (KeysAndCertificate, error) {
	certificatePEM, public, private, err := s.issuer.CreateKeysAndCertificate(ctx)
	if err != nil {
		return KeysAndCertificate{}, err
	}
	created, err := s.recordPending(ctx, account, certificatePEM, c)
	return KeysAndCertificate{Certificate: created, PublicPEM: string(public), PrivatePEM: string(private)}, err
}

// CreatePendingFromCSR is CreatePendingKeys for the key of a request.
func (s *Service) CreatePendingFromCSR(ctx context.Context, account fleet.Account, csrPEM string, c PendingCommand) (Certificate, error) {
	if err := checkCSR(csrPEM); err != nil {
		return Certificate{}, err
	}
	certificatePEM, err := s.issuer.SignCSR(ctx, []byte(csrPEM))
	if err != nil {
		return Certificate{}, err
	}
	return s.recordPending(ctx, account, certificatePEM, c)
}

// RegisterPending is CreatePendingFromCSR for a certificate that a registered
// authority has signed already.
func (s *Service) RegisterPending(ctx context.Context, account fleet.Account, certificatePEM string, c PendingCommand) (Certificate, error) {
	parsed, err := parseCertificate(certificatePEM)
	if err != nil {
		return Certificate{}, err
	}
	if err := checkForeign("certificatePem", parsed.x509, s.now()); err != nil {
		return Certificate{}, err
	}
	return s.register(ctx, account, parsed, StatusPendingActivation, func(ctx context.Context, a *attempt) (standing, error) {
		under, err := underAuthority(ctx, a, parsed.x509, "")
		under.pending = c.record()
		return under, err
	})
}

// recordPending registers what our own issuer made.
func (s *Service) recordPending(ctx context.Context, account fleet.Account, certificatePEM []byte, c PendingCommand) (Certificate, error) {
	parsed, err := parseCertificate(string(certificatePEM))
	if err != nil {
		return Certificate{}, fault.Wrap(fault.Internal, err, "Internal failure")
	}
	return s.register(ctx, account, parsed, StatusPendingActivation, c.stand(standing{mode: ModeDefault}))
}

// CreateClaim issues the claim of a trusted user: an active certificate that can
// do nothing but provision devices by one template, is in no list, and is
// deleted when its time is over. Joined adds to the commit what another domain
// keeps of the certificate with an id.
func (s *Service) CreateClaim(
	ctx context.Context, account fleet.Account, template string, until time.Time, joined func(id string) store.Batch,
) (KeysAndCertificate, error) {
	certificatePEM, public, private, err := s.issuer.CreateClaim(ctx, until)
	if err != nil {
		return KeysAndCertificate{}, err
	}
	parsed, err := parseCertificate(string(certificatePEM))
	if err != nil {
		return KeysAndCertificate{}, fault.Wrap(fault.Internal, err, "Internal failure")
	}
	var created Certificate
	stand := PendingCommand{Until: until}.stand(standing{mode: ModeDefault, claimTemplate: template})
	register := s.registering(account, parsed, StatusActive, stand, &created)
	err = s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		if err := register(ctx, a); err != nil {
			return err
		}
		a.add(joined(parsed.id))
		return nil
	})
	return KeysAndCertificate{Certificate: created, PublicPEM: string(public), PrivatePEM: string(private)}, err
}

// claimAlone is the fault for a claim that is to get a policy.
func claimAlone(id string) error {
	return fault.New(fault.InvalidRequest, "certificate %s is the claim of a trusted user: it can provision by its template and cannot get policies", id)
}

// pendingRows are the rows of what waits.
func pendingRows(account fleet.Account, id string, r *certificateRecord) []store.Key {
	if r.Pending == nil {
		return nil
	}
	rows := []store.Key{key(kindCertificatePending, account, rising(moment(r.Pending.Until)), id)}
	if r.ClaimTemplate == "" {
		rows = append(rows, key(kindCertificatePendingClaim, account, claimPart(r.Pending.Claim), id))
	}
	return rows
}

// claimPart is a claim's id in keys.
func claimPart(claim string) string {
	if claim == "" {
		return noClaim
	}
	return claim
}

// endPending ends the wait of a certificate whose record is saved afterwards.
func endPending(a *attempt, id string, r *certificateRecord) {
	for _, row := range pendingRows(a.account, id, r) {
		a.remove(row)
	}
	r.Pending = nil
}

// Prolong lets a certificate wait for its device until a time, if that is later, in
// one commit with a batch. One that does not wait by a token is left as it is; the
// batch is committed all the same.
func (s *Service) Prolong(ctx context.Context, account fleet.Account, id string, until time.Time, joined store.Batch) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		a.add(joined)
		record, err := loadCertificate(ctx, a, id)
		if err != nil || record.Pending == nil || record.ClaimTemplate != "" || millis(until) <= record.Pending.Until {
			return err
		}
		for _, row := range pendingRows(account, id, record) {
			a.remove(row)
		}
		record.Pending.Until = millis(until)
		for _, row := range pendingRows(account, id, record) {
			a.row(row)
		}
		return save(a, key(kindCertificate, account, id), record)
	})
}

// ErrNotOwned is a certificate that does not wait for the device with the proof,
// whatever the reason; test with errors.Is.
var ErrNotOwned = errors.New("the certificate does not wait for this device")

// notOwned is the fault for it.
func notOwned(id string) error {
	return fault.Wrap(fault.ResourceNotFound, ErrNotOwned, "certificate %s does not wait for this device", id)
}

// OwnershipProof is what shows that a device has asked for a certificate.
type OwnershipProof struct {
	Claim, TokenHash string
}

// proves reports whether the proof is the certificate's, at a time. Which part
// of it is wrong is nobody's business.
func (p OwnershipProof) proves(r *certificateRecord, now time.Time) bool {
	if r.Pending == nil || r.ClaimTemplate != "" || r.Status != StatusPendingActivation || !now.Before(moment(r.Pending.Until)) {
		return false
	}
	token := subtle.ConstantTimeCompare([]byte(p.TokenHash), []byte(r.Pending.Token)) == 1
	claim := subtle.ConstantTimeCompare([]byte(p.Claim), []byte(r.Pending.Claim)) == 1
	return token && claim
}

// Owned returns a certificate that waits for the device with the proof. It is
// ErrNotOwned for any other.
func (s *Service) Owned(ctx context.Context, account fleet.Account, id string, proof OwnershipProof) (Certificate, error) {
	record, err := s.findCertificate(ctx, account, id)
	if fault.CodeOf(err) == fault.ResourceNotFound {
		return Certificate{}, notOwned(id)
	}
	if err != nil {
		return Certificate{}, err
	}
	if !proof.proves(record, s.now()) {
		return Certificate{}, notOwned(id)
	}
	return s.certificate(account, id, record), nil
}

// CountPending returns how many certificates wait that a claim has asked for,
// at most a number.
func (s *Service) CountPending(ctx context.Context, account fleet.Account, claim string, most int) (int, error) {
	rows, _, err := keysOf(ctx, s.store, under(kindCertificatePendingClaim, account, claimPart(claim)), "", most)
	return len(rows), store.Fault(err)
}

// SweepPending deletes what has waited too long and was used for nothing, and
// claims whose time is over. It returns how many it deleted.
func (s *Service) SweepPending(ctx context.Context) (int, error) {
	const batch = 256
	var deleted int
	within := store.Under(kindCertificatePending)
	for after := ""; ; {
		rows, _, err := keysOf(ctx, s.store, within, after, batch)
		if err != nil || len(rows) == 0 {
			return deleted, store.Fault(err)
		}
		for _, row := range rows {
			parts := row.Parts()
			account := fleet.Account(parts[1])
			after = string(row)
			if parts[2] > rising(s.now()) {
				// The rest of the account waits longer still.
				after = string(under(kindCertificatePending, account).To)
				break
			}
			gone, err := s.sweepPending(ctx, account, row.Last())
			if err != nil {
				return deleted, err
			}
			if gone {
				deleted++
			}
		}
	}
}

// sweepPending ends one wait that is over.
func (s *Service) sweepPending(ctx context.Context, account fleet.Account, id string) (gone bool, err error) {
	_, _, err = s.commit(ctx, account, s.store, func(ctx context.Context, a *attempt) error {
		gone = false
		record, err := load[certificateRecord](ctx, a, key(kindCertificate, account, id))
		if err != nil || record == nil || record.Pending == nil || a.now.Before(moment(record.Pending.Until)) {
			return err
		}
		unused := record.Status == StatusPendingActivation && record.Things == 0 && len(record.Policies) == 0
		if record.ClaimTemplate == "" && !unused {
			endPending(a, id, record)
			return save(a, key(kindCertificate, account, id), record)
		}
		gone = true
		a.forget(account, id, record)
		return nil
	})
	return gone, err
}
