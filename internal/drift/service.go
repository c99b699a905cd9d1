package drift

import (
	"context"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// Registry keeps promises.
type Registry interface {
	Promised(ctx context.Context, account fleet.Account, name string) (registry.Promised, error)
	PromisedAll(ctx context.Context, account fleet.Account, names []string) ([]registry.Promised, error)
	PromisedNames(ctx context.Context, account fleet.Account, f registry.PromiseFilter, p registry.Page) (registry.Listed[string], error)
	CountPromises(ctx context.Context, account fleet.Account, template, after string, limit int) ([]registry.PromiseCount, string, error)
	KeepPromise(ctx context.Context, account fleet.Account, c registry.KeepCommand) error
}

// Index finds things.
type Index interface {
	// Fresh returns when the index holds all that was committed before the call.
	Fresh(ctx context.Context) error
	Find(account fleet.Account, query, after string, limit int) (names []string, next string, err error)
}

// Options of New; all are required.
type Options struct {
	Registry Registry
	Index    Index
	// DefaultVersion is the version of a template that is in force, 0 for a template
	// that is not there.
	DefaultVersion func(ctx context.Context, account fleet.Account, template string) (int64, error)
	// Permit asks whether the caller in the context may do an action of AWS or
	// Muster to a resource of the account; an empty kind is any resource.
	Permit func(ctx context.Context, account fleet.Account, action, kind, name string) error
}

// Service compares the things of all accounts. It is safe for concurrent use.
type Service struct{ o Options }

// New returns a service.
func New(o Options) *Service { return &Service{o: o} }

// Show compares one thing.
func (s *Service) Show(ctx context.Context, account fleet.Account, thing string) (Report, error) {
	p, err := s.o.Registry.Promised(ctx, account, thing)
	if err != nil {
		return Report{}, err //nolint:wrapcheck // coded
	}
	r := Compare(p)
	err = versions{s: s, account: account}.fill(ctx, &r)
	return r, err
}

// versions remembers which versions are in force during one call.
type versions struct {
	s       *Service
	account fleet.Account
	known   map[string]int64
}

// fill says of a report which version is in force.
func (v versions) fill(ctx context.Context, r *Report) error {
	name := r.Promise.Template
	if name == "" {
		return nil
	}
	version, ok := v.known[name]
	if !ok {
		var err error
		if version, err = v.s.o.DefaultVersion(ctx, v.account, name); err != nil {
			return err
		}
		if v.known != nil {
			v.known[name] = version
		}
	}
	r.DefaultVersion = version
	return nil
}

// CheckAll compares several things; those that nothing was promised of are left
// out.
func (s *Service) CheckAll(ctx context.Context, account fleet.Account, things []string) ([]Report, error) {
	all, err := s.o.Registry.PromisedAll(ctx, account, things)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	reports := make([]Report, len(all))
	for i, p := range all {
		reports[i] = Compare(p)
	}
	return reports, nil
}

// ErrMoved is a thing that no longer differs in the way that was shown; compare
// with errors.Is.
var ErrMoved = fault.New(fault.Conflict, "what differs has changed since it was shown; look again")

// SettleCommand asks to settle the differences of one thing.
type SettleCommand struct {
	Thing  string
	Choice Choice
	// Revision is that of the report which the caller has seen.
	Revision string
	// Joined, unless it is nil, adds to the commit what another domain keeps of it.
	Joined func(Plan) (store.Batch, error)
	// DryRun decides and commits nothing.
	DryRun bool
}

// Settle carries out a choice in one commit, if what differs is still what the
// caller has seen; else it is ErrMoved. What cannot be repaired is left; when that
// is all, the answer is why. An empty plan says that nothing of it differs.
func (s *Service) Settle(ctx context.Context, account fleet.Account, c SettleCommand) (Plan, error) {
	if err := c.Choice.Check(""); err != nil {
		return Plan{}, err
	}
	if c.Revision == "" {
		return Plan{}, fault.New(fault.InvalidRequest, "revision: is missing; GET /ops/v1/drift/things/THING shows it with what differs")
	}
	var plan Plan
	err := s.o.Registry.KeepPromise(ctx, account, registry.KeepCommand{
		Thing: c.Thing, DryRun: c.DryRun,
		Decide: func(p registry.Promised) (*registry.Keeping, error) {
			r := Compare(p)
			plan = c.Choice.PlanFor(&r)
			switch {
			case len(plan.Settles)+len(plan.Leaves) == 0:
				return nil, nil //nolint:nilnil // nothing to do is no error
			case r.Revision != c.Revision:
				return nil, ErrMoved
			case len(plan.Settles) == 0:
				return nil, plan.refusal()
			}
			return c.Choice.keeping(&r, &plan), nil
		},
		Joined: func() (store.Batch, error) {
			if c.Joined == nil {
				return store.Batch{}, nil
			}
			return c.Joined(plan)
		},
	})
	if err != nil {
		return Plan{}, err //nolint:wrapcheck // coded
	}
	return plan, nil
}

// SettleFor is Settle for a caller who needs the permission for all that it does.
func (s *Service) SettleFor(ctx context.Context, account fleet.Account, c SettleCommand) (Plan, error) {
	if err := c.Choice.Check(""); err != nil {
		return Plan{}, err
	}
	r, err := s.Show(ctx, account, c.Thing)
	if err != nil {
		return Plan{}, err
	}
	// What is done is what this report says, or nothing.
	for _, n := range c.Choice.Needs(&r) {
		if err := s.o.Permit(ctx, account, n.Action, n.Kind, n.Name); err != nil {
			return Plan{}, err
		}
	}
	if c.Revision != "" && c.Revision != r.Revision && r.has(c.Choice.Kinds) {
		return Plan{}, ErrMoved
	}
	return s.Settle(ctx, account, c)
}
