package registry

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

// Policy is a policy with the version in force.
type Policy struct {
	Name             string
	ARN              string
	Document         string
	DefaultVersionID string
	Created          time.Time
	Modified         time.Time
	GenerationID     string
}

// policy is the public form of a record.
func (s *Service) policy(account fleet.Account, name string, r *policyRecord) Policy {
	p := Policy{
		Name: name, ARN: s.scope(account).ARN(fleet.ARNPolicy, name), DefaultVersionID: r.Default,
		Created: moment(r.Created), Modified: moment(r.Modified), GenerationID: r.GenerationID,
	}
	if v := r.version(r.Default); v != nil {
		p.Document = v.Document
	}
	return p
}

// version returns one of the policy's versions, nil when there is none.
func (r *policyRecord) version(id string) *versionRecord {
	i := slices.IndexFunc(r.Versions, func(v versionRecord) bool { return v.ID == id })
	if i < 0 {
		return nil
	}
	return &r.Versions[i]
}

// add appends a version and returns its id.
func (r *policyRecord) add(document string, now time.Time) string {
	r.Next++
	id := strconv.Itoa(r.Next)
	r.Versions = append(r.Versions, versionRecord{ID: id, Document: document, Created: millis(now)})
	return id
}

// CreatePolicy adds a policy with version 1 in force. Unlike other creations
// it is not repeatable. list is the policy's tags.
func (s *Service) CreatePolicy(ctx context.Context, account fleet.Account, name, document string, list ...tag.Tag) (Policy, error) {
	if err := checkPolicyName(name); err != nil {
		return Policy{}, err
	}
	if err := s.checkDocument(document); err != nil {
		return Policy{}, err
	}
	tags, err := tag.Check(list)
	if err != nil {
		return Policy{}, err
	}
	var created Policy
	err = s.change(ctx, account, s.creatingPolicy(account, name, document, tags, &created))
	if err == nil {
		s.warnForeign(ctx, account, name, document)
	}
	return created, err
}

// creatingPolicy is the command of a checked policy.
func (s *Service) creatingPolicy(account fleet.Account, name, document string, tags tag.Set, created *Policy) func(context.Context, *attempt) error {
	return func(ctx context.Context, a *attempt) error {
		k := key(kindPolicy, account, name)
		present, err := load[policyRecord](ctx, a, k)
		if err != nil {
			return err
		}
		if present != nil {
			taken := fault.New(fault.ResourceAlreadyExists, "policy %s already exists", name)
			taken.ResourceID, taken.ResourceARN = name, a.scope.ARN(fleet.ARNPolicy, name)
			return taken
		}
		record := &policyRecord{GenerationID: s.newID(), Created: millis(a.now), Modified: millis(a.now)}
		record.Default = record.add(document, a.now)
		*created = s.policy(account, name, record)
		for _, row := range policyRows(account, name, record) {
			a.row(row)
		}
		a.emit(policyEvent(name, event.PolicyCreated, record.Default, record))
		if err := a.attachTags(fleet.ARNPolicy, name, tags); err != nil {
			return err
		}
		return save(a, k, record)
	}
}

// policyEvent reports a change of a policy.
func policyEvent(name string, change event.PolicyChange, version string, r *policyRecord) event.PolicyChanged {
	return event.PolicyChanged{Policy: name, Change: change, VersionID: version, DefaultVersionID: r.Default}
}

// policyRows are the rows that find a policy by time.
func policyRows(account fleet.Account, name string, r *policyRecord) []store.Key {
	created := moment(r.Created)
	return []store.Key{
		key(kindPolicyOldest, account, rising(created), name),
		key(kindPolicyNewest, account, falling(created), name),
	}
}

// checkDocument refuses a document that could not be evaluated.
func (s *Service) checkDocument(document string) error {
	return languageFault(fault.MalformedPolicy, "policyDocument", s.checkPolicy([]byte(document)))
}

// warnForeign reports ARNs of another region or account, which match nothing
// here: such a policy was probably carried over and needs rewriting.
func (s *Service) warnForeign(ctx context.Context, account fleet.Account, name, document string) {
	if arn, found := foreignARN(s.scope(account), document); found {
		s.log.WarnContext(ctx, "policy names another region or account and matches nothing there",
			slog.String("policy", name), slog.String("arn", arn))
	}
}

// foreignARN returns the first iot ARN in the text that is of another region
// or account than the scope's. Patterns and variables count as ours.
func foreignARN(scope fleet.Scope, text string) (string, bool) {
	const start = "arn:" + fleet.Partition + ":iot:"
	for {
		_, after, ok := strings.Cut(text, start)
		if !ok {
			return "", false
		}
		text = after
		arn, _, _ := strings.Cut(after, `"`)
		parts := strings.SplitN(arn, ":", 3)
		if len(parts) < 3 || strings.ContainsAny(parts[0]+parts[1], "*?$") {
			continue
		}
		if parts[0] != scope.Region || parts[1] != string(scope.Account) {
			return start + arn, true
		}
	}
}

// DescribePolicy returns a policy with the document in force.
func (s *Service) DescribePolicy(ctx context.Context, account fleet.Account, name string) (Policy, error) {
	record, err := s.findPolicy(ctx, account, name)
	if err != nil {
		return Policy{}, err
	}
	return s.policy(account, name, record), nil
}

// findPolicy reads a policy that must exist, outside a change.
func (s *Service) findPolicy(ctx context.Context, account fleet.Account, name string) (*policyRecord, error) {
	if err := checkPolicyName(name); err != nil {
		return nil, err
	}
	record, _, err := get[policyRecord](ctx, s.store, key(kindPolicy, account, name))
	if err != nil {
		return nil, store.Fault(err)
	}
	if record == nil {
		return nil, notFound("policy", name)
	}
	return record, nil
}

// loadPolicy is load for a policy that must exist. The caller breaks the seal
// of a deletion under way by saving the record.
func loadPolicy(ctx context.Context, a *attempt, name string) (*policyRecord, error) {
	record, err := load[policyRecord](ctx, a, key(kindPolicy, a.account, name))
	if err == nil && record == nil {
		err = notFound("policy", name)
	}
	return record, err
}

// ListPolicies returns one page in order of creation, the newest first unless
// ascending.
func (s *Service) ListPolicies(ctx context.Context, account fleet.Account, ascending bool, p Page) (Listed[Policy], error) {
	kind := kindPolicyNewest
	if ascending {
		kind = kindPolicyOldest
	}
	owner := func(k store.Key) store.Key { return key(kindPolicy, account, k.Last()) }
	listed, err := listRecords[policyRecord](ctx, s.store, under(kind, account), p, owner,
		func(k store.Key, r *policyRecord) (Policy, bool) { return s.policy(account, k.Last(), r), true })
	return listed, store.Fault(err)
}

// DeletePolicy removes a policy that has one version and no targets.
//
// Attaching does not rewrite the policy, so a look for targets alone could
// miss one that is on its way. The deletion therefore seals the record first:
// an attachment decided before fails, one decided after breaks the seal, and
// then the deletion looks again.
func (s *Service) DeletePolicy(ctx context.Context, account fleet.Account, name string) error {
	if err := checkPolicyName(name); err != nil {
		return err
	}
	for range maxAttempts {
		if err := s.sealPolicy(ctx, account, name); err != nil {
			return err
		}
		deleted, err := s.deleteSealed(ctx, account, name)
		if err != nil || deleted {
			return err
		}
	}
	return fault.New(fault.Throttling, "Too many concurrent changes of the same resource; try again")
}

// sealPolicy marks the record unless the policy must stay.
func (s *Service) sealPolicy(ctx context.Context, account fleet.Account, name string) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadPolicy(ctx, a, name)
		if err != nil {
			return err
		}
		if err := decideDeletePolicy(ctx, a, name, record); err != nil {
			return err
		}
		if record.Sealed {
			return nil
		}
		record.Sealed = true
		return save(a, key(kindPolicy, account, name), record)
	})
}

// deleteSealed removes a sealed policy; false when the seal is broken.
func (s *Service) deleteSealed(ctx context.Context, account fleet.Account, name string) (bool, error) {
	deleted := false
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		deleted = false
		record, err := loadPolicy(ctx, a, name)
		if err != nil || !record.Sealed {
			return err
		}
		if err := decideDeletePolicy(ctx, a, name, record); err != nil {
			return err
		}
		for _, row := range policyRows(account, name, record) {
			a.remove(row)
		}
		a.remove(key(kindPolicy, account, name))
		a.removeTags(fleet.ARNPolicy, name)
		a.devices = true
		a.emit(event.PolicyChanged{Policy: name, Change: event.PolicyDeleted, VersionID: record.Default})
		deleted = true
		return nil
	})
	return deleted, err
}

// decideDeletePolicy tells whether the policy may go.
func decideDeletePolicy(ctx context.Context, a *attempt, name string, r *policyRecord) error {
	if len(r.Versions) > 1 {
		return fault.New(fault.DeleteConflict, "policy %s has %d versions; delete all but the default one first", name, len(r.Versions))
	}
	targets, _, err := keysOf(ctx, a.reader, under(kindPolicyTarget, a.account, name), "", 1)
	if err != nil {
		return err
	}
	if len(targets) > 0 {
		return fault.New(fault.DeleteConflict, "policy %s is attached to %s; detach it first", name, parseRef(targets[0].Last()).arn(a.scope))
	}
	return nil
}
