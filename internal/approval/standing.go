package approval

import (
	"context"

	"github.com/muster-iot/muster/internal/allowlist"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provisioning"
)

// Standing is how a device stands that has not asked to join yet.
type Standing struct {
	// Bound says that somebody decides about devices of the template.
	Bound bool
	// Request is the newest one that waits, or was approved and not used up; its id is
	// empty for none.
	Request Request
}

// Standing looks ahead of Decide, which asks again: the fault is Forbidden for a device
// that no authority could let in from there at this time. With own the claim is this
// device's alone, and its requests are looked for among the newest of the template;
// those of others are nothing to it.
func (s *Service) Standing(ctx context.Context, c provisioning.Candidate, own bool) (Standing, error) {
	binding, err := s.bound(ctx, &c)
	if err != nil {
		return Standing{}, err
	}
	if binding.version == 0 {
		return Standing{}, s.unbound(binding.target)
	}
	if err := s.admissible(&binding, &c); err != nil || !own {
		return Standing{Bound: true}, err
	}
	if err := s.hopeless(ctx, &binding, &c); err != nil {
		return Standing{Bound: true}, err
	}
	for _, state := range []State{Pending, Approved} {
		r, err := s.newestOf(ctx, c.Account, binding.target, c.ClaimID, state)
		if err != nil || r.ID != "" {
			return Standing{Bound: true, Request: r}, err
		}
	}
	return Standing{Bound: true}, nil
}

// newestOf finds a claim's request among the newest of a template in a state.
func (s *Service) newestOf(ctx context.Context, account fleet.Account, template, claim string, state State) (Request, error) {
	page, _, err := s.Requests(ctx, account, state, template, "", maxPage)
	if err != nil {
		return Request{}, err
	}
	for i := range page {
		if page[i].ClaimID == claim && s.o.Now().Before(page[i].Expires) {
			return page[i], nil
		}
	}
	return Request{}, nil
}

// hopeless refuses a device that no list has, or whose entry lets nobody in, where all
// authorities must say yes. With which key it will join is not known yet, nor whether it
// is the one that has joined before.
func (s *Service) hopeless(ctx context.Context, binding *bindingRecord, c *provisioning.Candidate) error {
	if binding.Rule != AllOf {
		return nil
	}
	asked, err := s.asked(ctx, c.Account, binding)
	if err != nil {
		return err
	}
	for i := range asked {
		if !asked[i].Kind.isList() {
			continue
		}
		m, err := s.o.Lists.Match(ctx, c.Account, asked[i].query(c))
		if err != nil {
			return err //nolint:wrapcheck // coded
		}
		switch m.Reason {
		case "", allowlist.OtherKey, allowlist.KeyNeeded, allowlist.Used:
		case allowlist.Unknown, allowlist.OtherSerial, allowlist.Ambiguous, allowlist.NotVetted, allowlist.TooLate, allowlist.Blocked,
			allowlist.SupplierSuspended, allowlist.TemplateNotAllowed:
			return unwanted(m.Words())
		}
	}
	return nil
}

// unbound refuses devices of a template, or of an authority, that nobody is bound to,
// where that is demanded.
func (s *Service) unbound(target string) error {
	if !s.o.RequireBinding {
		return nil
	}
	return refusal("nobody is bound to decide about devices of %s, and provisioning.require-binding is on", named(target))
}
