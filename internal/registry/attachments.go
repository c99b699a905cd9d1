package registry

import (
	"context"
	"maps"
	"slices"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// AttachPolicy applies a policy to a certificate or to a static group. It may
// be repeated.
func (s *Service) AttachPolicy(ctx context.Context, account fleet.Account, name, target string) error {
	if err := checkPolicyName(name); err != nil {
		return err
	}
	to, err := checkTarget(s.scope(account), target)
	if err != nil {
		return err
	}
	return s.attach(ctx, account, name, to)
}

// attach joins a policy and its target.
func (s *Service) attach(ctx context.Context, account fleet.Account, name string, to reference) error {
	return s.change(ctx, account, s.attaching(account, name, to))
}

// attaching is the command of attach.
func (s *Service) attaching(account fleet.Account, name string, to reference) func(context.Context, *attempt) error {
	target := to.arn(s.scope(account))
	return func(ctx context.Context, a *attempt) error {
		record, err := loadPolicy(ctx, a, name)
		if err != nil {
			return err
		}
		holder, err := s.loadHolder(ctx, a, to)
		if err != nil || slices.Contains(*holder.policies, name) {
			return err
		}
		if holder.claim {
			return claimAlone(to.name)
		}
		if holder.leaving {
			return fault.New(fault.InvalidRequest, "%s is being transferred to another account", target)
		}
		if len(*holder.policies) >= holder.limit {
			return fault.New(fault.LimitExceeded, "%s has %d policies, the most allowed", target, holder.limit)
		}
		*holder.policies = append(*holder.policies, name)
		if record.Sealed {
			record.Sealed = false
			if err := save(a, key(kindPolicy, account, name), record); err != nil {
				return err
			}
		}
		a.row(key(kindPolicyTarget, account, name, to.ref()))
		a.devices = true
		a.emit(event.PolicyAttached{Policy: name, Target: target})
		return holder.save(a)
	}
}

// DetachPolicy ends an attachment. It is no error when there was none; the
// operation's model lists no not-found error, so an unknown policy is an
// invalid request.
func (s *Service) DetachPolicy(ctx context.Context, account fleet.Account, name, target string) error {
	if err := checkPolicyName(name); err != nil {
		return err
	}
	to, err := checkTarget(s.scope(account), target)
	if err != nil {
		return err
	}
	err = s.detach(ctx, account, name, to)
	if fault.CodeOf(err) == fault.ResourceNotFound {
		return fault.New(fault.InvalidRequest, "%s", fault.From(err).Message)
	}
	return err
}

// detach parts a policy and its target, both of which must exist.
func (s *Service) detach(ctx context.Context, account fleet.Account, name string, to reference) error {
	return s.change(ctx, account, s.detaching(name, to))
}

// detaching is the command of detach.
func (s *Service) detaching(name string, to reference) func(context.Context, *attempt) error {
	return func(ctx context.Context, a *attempt) error {
		record, err := load[policyRecord](ctx, a, key(kindPolicy, a.account, name))
		if err != nil {
			return err
		}
		if record == nil {
			return notFound("policy", name)
		}
		holder, err := s.loadHolder(ctx, a, to)
		if err != nil || !slices.Contains(*holder.policies, name) {
			return err
		}
		*holder.policies = slices.DeleteFunc(*holder.policies, func(p string) bool { return p == name })
		a.remove(key(kindPolicyTarget, a.account, name, to.ref()))
		a.devices = true
		a.emit(event.PolicyDetached{Policy: name, Target: to.arn(a.scope)})
		return holder.save(a)
	}
}

// holder is a record that lists the policies attached to it.
type holder struct {
	policies *[]string
	limit    int
	save     func(*attempt) error
	// leaving is a certificate on its way to another account.
	leaving bool
	// claim is the claim of a trusted user.
	claim bool
}

// loadHolder loads the record behind a target.
func (s *Service) loadHolder(ctx context.Context, a *attempt, to reference) (holder, error) {
	if to.kind == fleet.ARNCertificate {
		record, err := loadCertificate(ctx, a, to.name)
		if err != nil {
			return holder{}, err
		}
		return holder{&record.Policies, s.limits.PoliciesPerCertificate, func(a *attempt) error {
			return save(a, key(kindCertificate, a.account, to.name), record)
		}, record.Status == StatusPendingTransfer, record.ClaimTemplate != ""}, nil
	}
	record, err := loadGroup(ctx, a, to.name)
	if err != nil {
		return holder{}, err
	}
	if record.Query != "" {
		return holder{}, fault.New(fault.InvalidRequest, "target: %s is a dynamic group, which cannot have policies", to.name)
	}
	return holder{&record.Policies, s.limits.PoliciesPerGroup, func(a *attempt) error {
		return save(a, key(kindGroup, a.account, to.name), record)
	}, false, false}, nil
}

// ListTargetsForPolicy returns one page of the ARNs that a policy is attached
// to.
func (s *Service) ListTargetsForPolicy(ctx context.Context, account fleet.Account, name string, p Page) (Listed[string], error) {
	if _, err := s.findPolicy(ctx, account, name); err != nil {
		return Listed[string]{}, err
	}
	scope := s.scope(account)
	listed, err := listKeys(ctx, s.store, under(kindPolicyTarget, account, name), p, func(k store.Key) string {
		return parseRef(k.Last()).arn(scope)
	})
	return listed, store.Fault(err)
}

// ListAttachedPolicies returns one page of the names of a target's policies in
// order. With recursive those of a group's ancestors are among them.
func (s *Service) ListAttachedPolicies(ctx context.Context, account fleet.Account, target string, recursive bool, p Page) (Listed[string], error) {
	of, err := checkTarget(s.scope(account), target)
	if err != nil {
		return Listed[string]{}, err
	}
	found := grants{}
	if err := s.grantsOn(ctx, account, of, recursive, found); err != nil {
		return Listed[string]{}, err
	}
	return listNames(slices.Sorted(maps.Keys(found)), p), nil
}

// groupRecords reads groups, nil for one that is gone.
func (s *Service) groupRecords(ctx context.Context, account fleet.Account, groups []string) ([]*groupRecord, error) {
	keys := make([]store.Key, len(groups))
	for i, group := range groups {
		keys[i] = key(kindGroup, account, group)
	}
	records, _, err := getMany[groupRecord](ctx, s.store, keys)
	return records, store.Fault(err)
}
