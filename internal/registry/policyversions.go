package registry

import (
	"context"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// PolicyVersion is one version of a policy.
type PolicyVersion struct {
	Policy       string
	ARN          string
	ID           string
	Document     string
	Default      bool
	Created      time.Time
	Modified     time.Time
	GenerationID string
}

// policyVersion is the public form of a version.
func (s *Service) policyVersion(account fleet.Account, name string, r *policyRecord, v versionRecord) PolicyVersion {
	return PolicyVersion{
		Policy: name, ARN: s.scope(account).ARN(fleet.ARNPolicy, name), ID: v.ID, Document: v.Document,
		Default: v.ID == r.Default, Created: moment(v.Created), Modified: moment(v.Created), GenerationID: r.GenerationID,
	}
}

// CreatePolicyVersion adds a version; no older one makes room for it.
func (s *Service) CreatePolicyVersion(ctx context.Context, account fleet.Account, name, document string, asDefault bool) (PolicyVersion, error) {
	if err := checkPolicyName(name); err != nil {
		return PolicyVersion{}, err
	}
	if err := s.checkDocument(document); err != nil {
		return PolicyVersion{}, err
	}
	var created PolicyVersion
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadPolicy(ctx, a, name)
		if err != nil {
			return err
		}
		if len(record.Versions) >= s.limits.PolicyVersions {
			return fault.New(fault.VersionsLimitExceeded, "policy %s has %d versions, the most allowed", name, len(record.Versions))
		}
		id := record.add(document, a.now)
		if asDefault {
			record.Default, a.devices = id, true
		}
		created = s.policyVersion(account, name, record, *record.version(id))
		a.emit(policyEvent(name, event.PolicyVersionCreated, id, record))
		return savePolicy(a, name, record)
	})
	if err == nil {
		s.warnForeign(ctx, account, name, document)
	}
	return created, err
}

// savePolicy writes a changed policy and breaks the seal of a deletion.
func savePolicy(a *attempt, name string, r *policyRecord) error {
	r.Modified, r.Sealed = millis(a.now), false
	return save(a, key(kindPolicy, a.account, name), r)
}

// checkVersionID refuses what cannot be a version's id.
func checkVersionID(id string) error {
	if versionIDPattern.MatchString(id) {
		return nil
	}
	return fault.New(fault.InvalidRequest, "policyVersionId must be a decimal number")
}

// noVersion is the fault for a version that the policy does not have.
func noVersion(name, id string) error {
	return fault.New(fault.ResourceNotFound, "policy %s has no version %s", name, id)
}

// DescribePolicyVersion returns one version with its document.
func (s *Service) DescribePolicyVersion(ctx context.Context, account fleet.Account, name, id string) (PolicyVersion, error) {
	if err := checkVersionID(id); err != nil {
		return PolicyVersion{}, err
	}
	record, err := s.findPolicy(ctx, account, name)
	if err != nil {
		return PolicyVersion{}, err
	}
	v := record.version(id)
	if v == nil {
		return PolicyVersion{}, noVersion(name, id)
	}
	return s.policyVersion(account, name, record, *v), nil
}

// ListPolicyVersions returns all versions, the newest first.
func (s *Service) ListPolicyVersions(ctx context.Context, account fleet.Account, name string) ([]PolicyVersion, error) {
	record, err := s.findPolicy(ctx, account, name)
	if err != nil {
		return nil, err
	}
	versions := make([]PolicyVersion, 0, len(record.Versions))
	for _, v := range slices.Backward(record.Versions) {
		versions = append(versions, s.policyVersion(account, name, record, v))
	}
	return versions, nil
}

// SetDefaultPolicyVersion puts a version in force.
func (s *Service) SetDefaultPolicyVersion(ctx context.Context, account fleet.Account, name, id string) error {
	return s.changeVersion(ctx, account, name, id, func(a *attempt, r *policyRecord) error {
		if r.Default == id {
			return nil
		}
		r.Default, a.devices = id, true
		a.emit(policyEvent(name, event.PolicyDefaultVersionSet, id, r))
		return savePolicy(a, name, r)
	})
}

// DeletePolicyVersion removes a version that is not in force.
func (s *Service) DeletePolicyVersion(ctx context.Context, account fleet.Account, name, id string) error {
	return s.changeVersion(ctx, account, name, id, func(a *attempt, r *policyRecord) error {
		if r.Default == id {
			return fault.New(fault.DeleteConflict, "version %s of policy %s is the default one", id, name)
		}
		r.Versions = slices.DeleteFunc(r.Versions, func(v versionRecord) bool { return v.ID == id })
		a.emit(policyEvent(name, event.PolicyVersionDeleted, id, r))
		return savePolicy(a, name, r)
	})
}

// changeVersion runs a decision about an existing version.
func (s *Service) changeVersion(
	ctx context.Context, account fleet.Account, name, id string, decide func(*attempt, *policyRecord) error,
) error {
	if err := checkPolicyName(name); err != nil {
		return err
	}
	if err := checkVersionID(id); err != nil {
		return err
	}
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadPolicy(ctx, a, name)
		if err != nil {
			return err
		}
		if record.version(id) == nil {
			return noVersion(name, id)
		}
		return decide(a, record)
	})
}
