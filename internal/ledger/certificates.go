package ledger

import (
	"context"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
)

// certificateCreated keeps where a certificate comes from until a device has it.
func (f *follower) certificateCreated(ctx context.Context, e *event.CertificateCreated) error {
	n, err := f.certificate(ctx, f.env.Account, e.CertificateID)
	if err != nil {
		return err
	}
	if n.certificate == nil || n.deleted {
		n.certificate, n.deleted = &certificateRecord{}, false
	}
	n.changed = true
	entry := f.draft(CertificateIssued, map[string]string{labelCert: e.CertificateID, "status": e.Status})
	n.certificate.Status = e.Status
	n.certificate.Origin = &origin{At: entry.At, By: entry.Principal, Event: f.position()}
	if f.env.Actor.Principal.Kind == fleet.PrincipalCertificate {
		entry.Facts["claim"] = f.env.Actor.Principal.ID
	}
	return f.tell(ctx, e.CertificateID, "", entry)
}

// certificateAnnounced keeps under which authority a certificate has come.
func (f *follower) certificateAnnounced(ctx context.Context, e *event.CertificateAutoRegistered) error {
	n, err := f.certificate(ctx, f.env.Account, e.CertificateID)
	if err != nil {
		return err
	}
	if n.certificate == nil {
		n.certificate = &certificateRecord{}
	}
	if n.certificate.Authority == e.CACertificateID {
		return nil // it is announced again and again while it waits
	}
	n.certificate.Authority, n.changed = e.CACertificateID, true
	return f.tell(ctx, e.CertificateID, "", f.draft(CertificateAnnounced, map[string]string{labelCert: e.CertificateID, "authority": e.CACertificateID}))
}

// certificateStatus enters the state of a certificate, and what that does to its
// device.
func (f *follower) certificateStatus(ctx context.Context, e *event.CertificateStatusChanged) error {
	n, err := f.certificate(ctx, f.env.Account, e.CertificateID)
	if err != nil {
		return err
	}
	if n.certificate != nil {
		n.certificate.Status, n.changed = e.Status, true
	}
	facts := map[string]string{labelCert: e.CertificateID, "previous": e.PreviousStatus}
	switch e.Status {
	case certificateActive:
		err = f.tell(ctx, e.CertificateID, "", f.draft(CertificateActivated, facts))
	case certificateInactive:
		err = f.tell(ctx, e.CertificateID, "", f.draft(CertificateDeactivated, facts))
	case certificateRevoked:
		err = f.tell(ctx, e.CertificateID, "", f.draft(CertificateRevoked, facts))
	}
	if err != nil {
		return err
	}
	d, err := f.ofCertificate(ctx, e.CertificateID)
	if err != nil || d == nil || d.Ended != 0 || d.Certificate != e.CertificateID {
		return err
	}
	d.Status, d.changed = e.Status, true
	if e.Status == certificateActive {
		return f.resume(ctx, d, e.CertificateID)
	}
	return f.suspend(ctx, d, e.CertificateID, e.Status)
}

// suspend enters that a device is not let in, unless its end follows.
func (f *follower) suspend(ctx context.Context, d *device, id, status string) error {
	if d.Suspended || d.Activated == 0 || f.endsAhead(d.Thing) {
		return nil
	}
	d.Suspended, d.changed = true, true
	return f.add(ctx, d, f.draft(Suspended, map[string]string{labelCert: id, "status": status}))
}

func (f *follower) resume(ctx context.Context, d *device, id string) error {
	if !d.Suspended {
		return nil
	}
	d.Suspended, d.changed = false, true
	return f.add(ctx, d, f.draft(Resumed, map[string]string{labelCert: id}))
}

// certificateDeleted forgets a certificate; a device that is nothing else has come to
// its end.
func (f *follower) certificateDeleted(ctx context.Context, id string) error {
	n, err := f.certificate(ctx, f.env.Account, id)
	if err != nil || n.certificate == nil {
		return err
	}
	d, err := f.ofCertificate(ctx, id)
	if err != nil {
		return err
	}
	n.certificate, n.deleted, n.changed = nil, true, true
	if d == nil {
		return nil
	}
	if err := f.add(ctx, d, f.draft(CertificateDeleted, map[string]string{labelCert: id})); err != nil || d.Ended != 0 || d.Certificate != id {
		return err
	}
	d.Status, d.changed = "", true
	if d.Thing != "" || d.Registered == 0 {
		return f.suspend(ctx, d, id, "DELETED")
	}
	d.Ended = f.env.At.UnixMilli()
	return f.add(ctx, d, f.draft(Decommissioned, map[string]string{labelCert: id, "reason": "its certificate was deleted, and it is no thing"}))
}

// renewed enters that a device has come to another certificate.
func (f *follower) renewed(ctx context.Context, e *event.CertificateRenewalChanged) error {
	facts := map[string]string{"from": e.OldCertificateID, "to": e.NewCertificateID, "step": string(e.Step)}
	what := CertificateRotated
	switch e.Step {
	case event.RenewalProven:
	case event.RenewalCompleted:
		what = CertificateRetired
		facts = map[string]string{labelCert: e.OldCertificateID, "replacedBy": e.NewCertificateID}
	case event.RenewalBegun, event.RenewalUnproven, event.RenewalSuperseded, event.RenewalAbandoned:
		return nil // the certificates have events of their own
	}
	d, err := f.thingDevice(ctx, e.Thing)
	if err != nil {
		return err
	}
	if e.Step == event.RenewalProven {
		d.Certificate, d.changed = e.NewCertificateID, true
		if n, err := f.certificate(ctx, f.env.Account, e.NewCertificateID); err != nil {
			return err
		} else if n.certificate != nil {
			d.Status = n.certificate.Status
		}
	}
	return f.add(ctx, d, f.draft(what, facts))
}

// authorityChanged keeps who has registered an authority.
func (f *follower) authorityChanged(ctx context.Context, e *event.CACertificateChanged) error {
	n, err := f.name(ctx, authorityKey(f.env.Account, e.CACertificateID))
	if err != nil {
		return err
	}
	by := f.draft(Registered, nil).Principal
	switch e.Change {
	case event.CACertificateRegistered:
		n.authority = &authorityRecord{Origin: origin{At: f.env.At.UnixMilli(), By: by, Event: f.position()}}
	case event.CACertificateDeclared:
		if n.authority == nil {
			n.authority = &authorityRecord{Origin: origin{At: f.env.At.UnixMilli(), By: by, Event: f.position()}}
		}
		n.authority.Declared = true
	case event.CACertificateUpdated, event.CACertificatePurposeSet, event.CACertificateDeleted:
		return nil // who came under it is known by it
	}
	n.changed = true
	return nil
}
