package provisioning

import (
	"context"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/store"
)

// performance is a plan with what the registry has to know beside it.
type performance struct {
	plan *provtemplate.Plan
	// report is the event of success; perform fills in what was made.
	report event.DeviceProvisioned
	// proof is the ownership token's, nil when nobody has to prove anything.
	proof *proof
	// joined is RegisterCommand.Joined.
	joined func(Registered) (store.Batch, error)
}

// proof is an ownership token of a requester.
type proof struct {
	requester Requester
	token     string
}

// perform carries out a plan in one commit and reports it.
func (s *Service) perform(ctx context.Context, account fleet.Account, p performance) (Registered, error) {
	panic("soon")
}

// refused reports a device that is not let in. It never fails: who is refused
// stays refused when the report is lost.
func (s *Service) refused(ctx context.Context, account fleet.Account, e event.ProvisioningRefused) {
	panic("soon")
}
