// Package quarantine puts things into quarantine for what is found out about them.
// It follows the event log and decides which findings are a reason; what a
// quarantine is, and its state, are the registry's. Its orders and its cursor
// commit together, so that a finding counts once: a thing that was released stays
// so over a restart.
package quarantine

import (
	"context"
	"fmt"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// Who has found the reason.
const (
	byOnboarding = "onboarding"
	byAllowLists = "allow lists"
)

// Things are put into quarantine.
type Things interface {
	QuarantineBatch(ctx context.Context, orders []registry.QuarantineOrder) (store.Batch, error)
}

// Service follows the log. It is safe for concurrent use.
type Service struct{ things Things }

// New returns a Service that puts things into quarantine.
func New(things Things) *Service { return &Service{things: things} }

// Apply is a durable consumer of the event log.
func (s *Service) Apply(ctx context.Context, events []event.Envelope) (store.Batch, error) {
	var orders []registry.QuarantineOrder
	for i := range events {
		env := &events[i]
		switch e := env.Event.(type) {
		case event.OnboardingCriteriaFailed:
			if e.Thing == "" {
				continue // it was never registered, so there is nothing to hold
			}
			orders = append(orders, registry.QuarantineOrder{
				Account: env.Account, Thing: e.Thing, By: byOnboarding,
				Reason: fmt.Sprintf("exit criterion of stage %s of plan %s version %d was not met within %s of the activation: %s",
					e.Stage, e.Plan, e.PlanVersion, e.Within, e.Predicate),
			})
		case event.DuplicateSerial:
			// Which of the two is the right one nobody knows. The second one was not let in,
			// and what it calls itself is what it likes: no thing is held for that.
			if e.OtherThing == "" {
				continue
			}
			orders = append(orders, registry.QuarantineOrder{
				Account: env.Account, Thing: e.OtherThing, By: byAllowLists,
				Reason: fmt.Sprintf("two devices came with one entry of allow list %s, revision %d: certificates %s and %s", e.ListID, e.Revision, e.OtherCertificateID, e.CertificateID),
			})
		default:
			// The rest is no reason.
		}
	}
	if len(orders) == 0 {
		return store.Batch{}, nil
	}
	batch, err := s.things.QuarantineBatch(ctx, orders)
	if err != nil {
		return store.Batch{}, fmt.Errorf("put things into quarantine: %w", err)
	}
	return batch, nil
}
