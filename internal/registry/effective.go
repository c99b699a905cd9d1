package registry

import (
	"context"
	"maps"
	"slices"

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
	// Attachments say where it comes from, the principal's own first.
	Attachments []PolicyAttachment
}

// PolicyAttachment is one reason why a policy applies to a device.
type PolicyAttachment struct {
	// Target is the ARN of the certificate or group that has the policy.
	Target string
	// Through is the thing's own group when Target is a group above it; empty
	// otherwise.
	Through string
}

// grants collects attachments by policy.
type grants map[string][]PolicyAttachment

// add notes the policies of one target.
func (g grants) add(policies []string, target, through string) {
	for _, name := range policies {
		g[name] = append(g[name], PolicyAttachment{Target: target, Through: through})
	}
}

// EffectivePolicies returns what applies to a connection: the policies of the
// principal and, when the connection acts as a thing, those of the thing's
// static groups and of all groups above them. Either argument may be empty. A
// principal may also be a group, which then stands for itself and the groups
// above. The claim of a trusted user has one policy that nobody can change, and
// no others, whatever it connects as.
func (s *Service) EffectivePolicies(ctx context.Context, account fleet.Account, principalARN, thingName string) ([]EffectivePolicy, error) {
	found := grants{}
	if principalARN != "" {
		of, err := checkTarget(s.scope(account), principalARN)
		if err != nil {
			return nil, err
		}
		if claim, err := s.claimPolicies(ctx, account, of); err != nil || claim != nil {
			return claim, err
		}
		if err := s.grantsOn(ctx, account, of, true, found); err != nil {
			return nil, err
		}
	}
	if thingName != "" {
		if err := s.grantsOfThing(ctx, account, thingName, found); err != nil {
			return nil, err
		}
	}
	return s.inForce(ctx, account, found)
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

// grantsOn adds the policies of a certificate or a group, with inherited also
// those of all groups above.
func (s *Service) grantsOn(ctx context.Context, account fleet.Account, of reference, inherited bool, found grants) error {
	if of.kind == fleet.ARNCertificate {
		record, err := s.findCertificate(ctx, account, of.name)
		if err != nil {
			return err
		}
		found.add(record.Policies, s.scope(account).ARN(fleet.ARNCertificate, of.name), "")
		return nil
	}
	record, err := s.findGroup(ctx, account, of.name)
	if err != nil {
		return err
	}
	found.add(record.Policies, s.scope(account).ARN(fleet.ARNThingGroup, of.name), "")
	if !inherited {
		return nil
	}
	return s.grantsAbove(ctx, account, record.Ancestors, found, func(string) string { return of.name })
}

// grantsOfThing adds the policies of the thing's static groups and of all
// groups above them; dynamic groups carry none.
func (s *Service) grantsOfThing(ctx context.Context, account fleet.Account, name string, found grants) error {
	thing, _, err := get[thingRecord](ctx, s.store, key(kindThing, account, name))
	if err != nil {
		return store.Fault(err)
	}
	if thing == nil {
		return notFound("thing", name)
	}
	var direct []string
	for _, link := range thing.Groups {
		if !link.Dynamic {
			direct = append(direct, link.Group)
		}
	}
	records, err := s.groupRecords(ctx, account, direct)
	if err != nil {
		return err
	}
	var above []string
	through := map[string]string{}
	for i, record := range records {
		if record == nil {
			continue
		}
		found.add(record.Policies, s.scope(account).ARN(fleet.ARNThingGroup, direct[i]), "")
		above = append(above, record.Ancestors...)
		for _, ancestor := range record.Ancestors {
			if _, ok := through[ancestor]; !ok {
				through[ancestor] = direct[i]
			}
		}
	}
	return s.grantsAbove(ctx, account, compact(above), found, func(group string) string { return through[group] })
}

// grantsAbove adds the policies of groups above the one that through names.
// Groups that are gone have none.
func (s *Service) grantsAbove(ctx context.Context, account fleet.Account, groups []string, found grants, through func(string) string) error {
	records, err := s.groupRecords(ctx, account, groups)
	if err != nil {
		return err
	}
	for i, record := range records {
		if record != nil {
			found.add(record.Policies, s.scope(account).ARN(fleet.ARNThingGroup, groups[i]), through(groups[i]))
		}
	}
	return nil
}

// inForce returns the default versions of the policies by name; one deleted in
// the meantime applies no longer.
func (s *Service) inForce(ctx context.Context, account fleet.Account, found grants) ([]EffectivePolicy, error) {
	names := slices.Sorted(maps.Keys(found))
	keys := make([]store.Key, len(names))
	for i, name := range names {
		keys[i] = key(kindPolicy, account, name)
	}
	records, _, err := getMany[policyRecord](ctx, s.store, keys)
	if err != nil {
		return nil, store.Fault(err)
	}
	policies := make([]EffectivePolicy, 0, len(names))
	for i, record := range records {
		if record == nil {
			continue
		}
		p := s.policy(account, names[i], record)
		policies = append(policies, EffectivePolicy{
			Name: p.Name, ARN: p.ARN, VersionID: p.DefaultVersionID, Document: []byte(p.Document),
			Attachments: found[names[i]],
		})
	}
	return policies, nil
}
