package provisioning

import (
	"context"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
)

// Usable refuses a template that devices with a claim cannot provision by now: the
// account must have it, enabled and of the type for that.
func (s *Service) Usable(ctx context.Context, account fleet.Account, template string) error {
	_, err := s.inForce(ctx, account, template, provtemplate.FleetProvisioning)
	return err
}
