package provisioning

import (
	"context"
	"errors"
	"log/slog"
	"maps"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// performance is a plan with what the registry has to know beside it.
type performance struct {
	plan *provtemplate.Plan
	// report is the event of success; perform fills in what was made.
	report event.DeviceProvisioned
	// proof is the ownership token's, nil when nobody has to prove anything.
	proof *registry.OwnershipProof
	// asking is the id of the certificate with which a device asks for another
	// one; empty for none.
	asking string
	// ca is the id of the authority that the device comes under, where that is known.
	ca string
	// waiting demands that the plan's certificate waits for activation.
	waiting bool
	// pass is what the gate adds to the commit.
	pass Pass
	// joined is RegisterCommand.Joined.
	joined func(Registered) (store.Batch, error)
}

// perform carries out a plan in one commit and reports it.
func (s *Service) perform(ctx context.Context, account fleet.Account, p performance) (Registered, error) {
	method := p.report.Method
	if err := s.addFacts(ctx, account, &p); err != nil {
		return Registered{}, err
	}
	made, err := s.o.Registry.Provision(ctx, account, registry.ProvisionCommand{
		Plan: p.plan, Proof: p.proof, Asking: p.asking, Waiting: p.waiting,
		Origin: registry.PromiseOrigin{Template: p.report.Template, Version: p.report.TemplateVersion, Method: p.report.Method},
		Joined: func(made registry.Provisioned) (store.Batch, error) {
			e := p.report
			e.Thing, e.ThingCreated, e.CertificateID = made.Thing, made.ThingCreated, made.CertificateID
			e.TypeName, e.Attributes, e.CACertificateID = made.TypeName, made.Attributes, made.CA
			e.Evidence = p.pass.Evidence
			renews := made.Renews && p.asking != made.CertificateID
			if renews {
				e.Method = event.ProvisioningRenewal
			}
			method = e.Method
			// What follows from it comes behind it.
			batch := store.Batch{Events: []event.Envelope{{Event: e}}}
			if renews && s.o.Renewals != nil {
				more, err := s.o.Renewals.Begin(ctx, account, made.Thing, p.asking, made.CertificateID)
				if err != nil {
					return store.Batch{}, err
				}
				batch = both(batch, more)
			}
			if p.pass.Join != nil {
				more, err := p.pass.Join(ctx)
				if err != nil {
					return store.Batch{}, err
				}
				batch = both(batch, more)
			}
			if p.joined != nil {
				more, err := p.joined(registered(made))
				if err != nil {
					return store.Batch{}, err
				}
				batch = both(batch, more)
			}
			return batch, nil
		},
	})
	if err != nil {
		return Registered{}, err
	}
	s.metrics.provisioned.WithLabelValues(string(method)).Inc()
	return registered(made), nil
}

// addFacts adds to the plan's thing what is known of its manufacture and the
// template does not state. The rest is as for what the template states: override
// settings leave a thing that exists as it is.
func (s *Service) addFacts(ctx context.Context, account fleet.Account, p *performance) error {
	if s.o.Facts == nil || p.plan.Thing == nil {
		return nil
	}
	n := Newcomer{Template: p.report.Template, CA: p.ca, Thing: p.plan.Thing, ClientID: p.report.ClientID}
	if c := p.plan.Certificate; c != nil {
		n.CertificateID = c.ID
	}
	attributes, typeName, err := s.o.Facts.Announced(ctx, account, n)
	if err != nil || len(attributes) == 0 && typeName == "" {
		return err //nolint:wrapcheck // coded
	}
	plan, thing := *p.plan, *p.plan.Thing
	// FAIL is about what the template itself states.
	if thing.Attributes == nil && thing.OnAttributes == provtemplate.Fail {
		thing.OnAttributes = provtemplate.DoNothing
	}
	maps.Copy(attributes, thing.Attributes)
	thing.Attributes = attributes
	if thing.TypeName == "" {
		thing.TypeName = typeName
		if thing.OnType == provtemplate.Fail {
			thing.OnType = provtemplate.DoNothing
		}
	}
	plan.Thing, p.plan = &thing, &plan
	return nil
}

// both is two batches in one.
func both(b, more store.Batch) store.Batch {
	b.Expect = append(b.Expect, more.Expect...)
	b.Writes = append(b.Writes, more.Writes...)
	b.Events = append(b.Events, more.Events...)
	return b
}

// registered is the public form of what was made.
func registered(made registry.Provisioned) Registered {
	return Registered{CertificatePEM: made.CertificatePEM, ResourceARNs: made.ResourceARNs}
}

// refused reports a device that is not let in. It never fails: who is refused
// stays refused when the report is lost.
func (s *Service) refused(ctx context.Context, account fleet.Account, e event.ProvisioningRefused) {
	s.o.Logger.WarnContext(ctx, "device is not provisioned",
		slog.String("method", string(e.Method)), slog.String("template", e.Template), slog.String("certificate", e.CertificateID),
		slog.String("claim", e.ClaimID), slog.String("client_id", e.ClientID), slog.String("code", e.Code), slog.String("reason", e.Reason))
	s.report(ctx, account, e)
}

// report commits an event about a refusal. It never fails, as refused does not.
func (s *Service) report(ctx context.Context, account fleet.Account, e event.Event) {
	_, err := s.o.Store.Commit(ctx, store.Batch{Events: []event.Envelope{
		{Account: account, At: s.o.Now(), Actor: fleet.ActorFrom(ctx), Event: e},
	}})
	if err != nil && !errors.Is(err, context.Canceled) {
		s.o.Logger.ErrorContext(ctx, "refusal of a device is not recorded", slog.Any("err", err))
	}
}
