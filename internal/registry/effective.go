package registry

import (
	"context"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// EffectivePolicy is a policy that applies to a device, with the document in
// force.
type EffectivePolicy struct {
	Name      string
	ARN       string
	VersionID string
	Document  []byte
}

// EffectivePolicies returns what applies to a connection: the policies of the
// principal and, when the connection acts as a thing, those of the thing's
// static groups and of all groups above them. Either argument may be empty. A
// principal may also be a group, which then stands for itself and the groups
// above.
func (s *Service) EffectivePolicies(ctx context.Context, account fleet.Account, principalARN, thingName string) ([]EffectivePolicy, error) {
	var names []string
	if principalARN != "" {
		of, err := checkTarget(s.scope(account), principalARN)
		if err != nil {
			return nil, err
		}
		if names, err = s.policiesOn(ctx, account, of, true); err != nil {
			return nil, err
		}
	}
	if thingName != "" {
		inherited, err := s.policiesOfThing(ctx, account, thingName)
		if err != nil {
			return nil, err
		}
		names = append(names, inherited...)
	}
	return s.inForce(ctx, account, compact(names))
}

// GetEffectivePolicies is EffectivePolicies for people, who must ask about
// something.
func (s *Service) GetEffectivePolicies(ctx context.Context, account fleet.Account, principalARN, thingName string) ([]EffectivePolicy, error) {
	if principalARN == "" && thingName == "" {
		return nil, fault.New(fault.InvalidRequest, "principal or thingName must be given")
	}
	if thingName != "" {
		if err := checkName("thingName", thingName); err != nil {
			return nil, err
		}
	}
	return s.EffectivePolicies(ctx, account, principalARN, thingName)
}

// policiesOfThing returns the names of the policies of the thing's static
// groups and of all groups above them.
func (s *Service) policiesOfThing(ctx context.Context, account fleet.Account, name string) ([]string, error) {
	thing, _, err := get[thingRecord](ctx, s.store, key(kindThing, account, name))
	if err != nil {
		return nil, storageFault(err)
	}
	if thing == nil {
		return nil, notFound("thing", name)
	}
	var direct []string
	for _, link := range thing.Groups {
		if !link.Dynamic {
			direct = append(direct, link.Group)
		}
	}
	records, err := s.groupRecords(ctx, account, direct)
	if err != nil {
		return nil, err
	}
	var names, above []string
	for _, record := range records {
		if record != nil {
			names = append(names, record.Policies...)
			above = append(above, record.Ancestors...)
		}
	}
	inherited, err := s.policiesOnGroups(ctx, account, compact(above))
	return append(names, inherited...), err
}

// inForce returns the default versions of the named policies; one deleted in
// the meantime applies no longer.
func (s *Service) inForce(ctx context.Context, account fleet.Account, names []string) ([]EffectivePolicy, error) {
	keys := make([]store.Key, len(names))
	for i, name := range names {
		keys[i] = key(kindPolicy, account, name)
	}
	records, _, err := getMany[policyRecord](ctx, s.store, keys)
	if err != nil {
		return nil, storageFault(err)
	}
	policies := make([]EffectivePolicy, 0, len(names))
	for i, record := range records {
		if record == nil {
			continue
		}
		p := s.policy(account, names[i], record)
		policies = append(policies, EffectivePolicy{
			Name: p.Name, ARN: p.ARN, VersionID: p.DefaultVersionID, Document: []byte(p.Document),
		})
	}
	return policies, nil
}
