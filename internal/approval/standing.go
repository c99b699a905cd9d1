package approval

import (
	"context"

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
	for _, state := range []State{Pending, Approved} {
		r, err := s.newestOf(ctx, c.Account, c.Template, c.ClaimID, state)
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

// unbound refuses devices of what nobody is bound to, where that is demanded.
func (s *Service) unbound(target string) error {
	if !s.o.RequireBinding {
		return nil
	}
	return refusal("nobody is bound to decide about devices of %s, and provisioning.require-binding is on", named(target))
}
