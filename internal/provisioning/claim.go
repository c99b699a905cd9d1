package provisioning

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/store"
)

// Claim is what a trusted user hands to a device. Its keys are kept nowhere.
type Claim struct {
	CertificateID  string
	CertificatePEM string
	PublicPEM      string
	PrivatePEM     string
	// Expires is ClaimLife from now.
	Expires time.Time
}

// CreateClaim makes a claim that can provision devices by one template, which
// must be enabled, for ClaimLife, and do nothing else.
func (s *Service) CreateClaim(ctx context.Context, account fleet.Account, template string) (Claim, error) {
	if _, err := s.inForce(ctx, account, template, provtemplate.FleetProvisioning); err != nil {
		return Claim{}, err
	}
	expires := s.o.Now().Add(ClaimLife)
	made, err := s.o.Registry.CreateClaim(ctx, account, template, expires, func(certificateID string) store.Batch {
		return store.Batch{Events: []event.Envelope{
			{Event: event.ProvisioningClaimCreated{Template: template, CertificateID: certificateID, Expires: expires.UTC()}},
		}}
	})
	if err != nil {
		return Claim{}, err
	}
	return Claim{
		CertificateID: made.ID, CertificatePEM: made.PEM, PublicPEM: made.PublicPEM, PrivatePEM: made.PrivatePEM, Expires: expires,
	}, nil
}
