package account

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iampolicy"
	"github.com/muster-iot/muster/internal/iotpolicy"
	"github.com/muster-iot/muster/internal/store"
)

// Policy says what those may do whom it is attached to. It has one document and
// no versions: a change is in force at once, and the audit trail keeps what was.
type Policy struct {
	Name, ID, ARN, Description string
	// Document is left out of lists.
	Document string
	// Builtin policies come with Muster and cannot be changed.
	Builtin              bool
	CreatedAt, UpdatedAt time.Time
	// Attached names what an own policy is attached to, as kind/name; lists leave
	// it out.
	Attached []string
}

// Owner names a user, a group or a role that policies apply to.
type Owner struct {
	// Kind is user, group or role.
	Kind, Name string
}

// policyOf describes a record.
func policyOf(account fleet.Account, r *policyRecord) Policy {
	return Policy{
		Name: r.Name, ID: r.ID, ARN: iamARN(account, kindPolicy, r.Name), Description: r.Description, Document: r.Document,
		CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
	}
}

// builtin finds a policy that comes with Muster by ARN.
func builtin(arn string) (Policy, bool) {
	for _, b := range iampolicy.Builtins() {
		if b.ARN == arn {
			return Policy{Name: b.Name, ARN: b.ARN, Description: b.Description, Document: b.Document, Builtin: true}, true
		}
	}
	return Policy{}, false
}

// BuiltinPolicies are the policies that come with Muster, without documents.
func (s *Service) BuiltinPolicies() []Policy {
	var all []Policy
	for _, b := range iampolicy.Builtins() {
		all = append(all, Policy{Name: b.Name, ARN: b.ARN, Description: b.Description, Builtin: true})
	}
	return all
}

// malformed words what is wrong with a document.
func malformed(err error) error {
	return fault.Wrap(fault.MalformedPolicy, err, "The policy document is not valid: %v", err)
}

// checkDocument refuses a document that is no operator policy, or that puts into
// one hand what must be apart.
func checkDocument(document string) error {
	parsed, err := iampolicy.Parse(document)
	if err != nil {
		return malformed(err)
	}
	return separated("the document itself", []*iotpolicy.Document{parsed})
}

// CreatePolicy makes an own policy.
func (s *Service) CreatePolicy(ctx context.Context, account fleet.Account, name, description, document string) (Policy, error) {
	if len(description) > maxDescription {
		return Policy{}, fault.New(fault.InvalidRequest, "The description is longer than %d bytes", maxDescription)
	}
	var made Policy
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		o, err := a.create(ctx, kindPolicy, name, prefixPolicy, maxPolicies)
		if err != nil {
			return err
		}
		if err := checkDocument(document); err != nil {
			return err
		}
		record := &policyRecord{
			Schema: schema, Name: name, ID: o.ID, Description: description, Document: document, CreatedAt: a.now, UpdatedAt: a.now,
		}
		made = policyOf(account, record)
		a.emit(event.OperatorPolicy, name, "CREATED")
		return a.save(kindPolicy, name, record)
	})
	return made, err
}

// UpdatePolicy replaces the document of an own policy.
func (s *Service) UpdatePolicy(ctx context.Context, account fleet.Account, name, document string) (Policy, error) {
	var made Policy
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := find[policyRecord](ctx, s.options.Store, account, kindPolicy, name)
		if err != nil {
			return err
		}
		if err := checkDocument(document); err != nil {
			return err
		}
		record.Document, record.UpdatedAt = document, a.now
		made = policyOf(account, record)
		if err := a.separateTargets(ctx, record); err != nil {
			return err
		}
		a.emit(event.OperatorPolicy, name, "UPDATED")
		return a.save(kindPolicy, name, record)
	})
	return made, err
}

// Policy describes a policy by name, with what it is attached to. An own policy
// hides a built-in one of its name.
func (s *Service) Policy(ctx context.Context, account fleet.Account, name string) (Policy, error) {
	record, err := find[policyRecord](ctx, s.options.Store, account, kindPolicy, name)
	if fault.CodeOf(err) == fault.ResourceNotFound {
		if b, ok := builtin(iampolicy.BuiltinPrefix + name); ok {
			return b, nil
		}
	}
	if err != nil {
		return Policy{}, err
	}
	found := policyOf(account, record)
	targets, err := a(s, account).targets(ctx, name)
	for _, t := range targets {
		found.Attached = append(found.Attached, t.Kind+"/"+t.Name)
	}
	return found, err
}

// a returns an attempt that only reads.
func a(s *Service, account fleet.Account) *attempt { return &attempt{s: s, account: account} }

// Policies lists own policies in order of their names, after one of them.
func (s *Service) Policies(ctx context.Context, account fleet.Account, after string, limit int) ([]Policy, string, error) {
	records, next, err := list[policyRecord](ctx, s.options.Store, account, kindPolicy, after, limit)
	policies := make([]Policy, len(records))
	for i, r := range records {
		policies[i] = policyOf(account, r)
		policies[i].Document = ""
	}
	return policies, next, err
}

// DeletePolicy removes an own policy that is attached to nothing.
func (s *Service) DeletePolicy(ctx context.Context, account fleet.Account, name string) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		if _, err := find[policyRecord](ctx, s.options.Store, account, kindPolicy, name); err != nil {
			return err
		}
		targets, err := a.targets(ctx, name)
		if err != nil {
			return err
		}
		if len(targets) > 0 {
			return fault.New(fault.DeleteConflict, "The policy %q is attached to %s %q and %d more; detach it first", name, targets[0].Kind, targets[0].Name, len(targets)-1)
		}
		a.remove(operatorKey(account, kindPolicy, name))
		a.emit(event.OperatorPolicy, name, "DELETED")
		return nil
	})
}

// AttachPolicy makes a policy apply to a user, group or role; again it changes
// nothing. policy is an ARN, or the name of an own or built-in policy.
func (s *Service) AttachPolicy(ctx context.Context, account fleet.Account, to Owner, policy string) error {
	return s.changeOwner(ctx, account, to, func(ctx context.Context, a *attempt, o *owner) (string, error) {
		arn, own, err := a.policyARN(ctx, policy)
		if err != nil || slices.Contains(o.Policies, arn) {
			return "", err
		}
		if len(o.Policies) >= maxManagedPerOwner {
			return "", fault.New(fault.LimitExceeded, "The %s %q has %d policies attached, which is the limit", to.Kind, to.Name, maxManagedPerOwner)
		}
		o.Policies = append(o.Policies, arn)
		slices.Sort(o.Policies)
		if own != "" {
			a.row(store.K(keyTarget, string(account), own, to.Kind, to.Name))
		}
		return "POLICY_ATTACHED", nil
	})
}

// DetachPolicy ends an attachment.
func (s *Service) DetachPolicy(ctx context.Context, account fleet.Account, from Owner, policy string) error {
	return s.changeOwner(ctx, account, from, func(ctx context.Context, a *attempt, o *owner) (string, error) {
		arn, own, err := a.policyARN(ctx, policy)
		if err != nil {
			return "", err
		}
		if !slices.Contains(o.Policies, arn) {
			return "", fault.New(fault.ResourceNotFound, "The policy %s is not attached to the %s %q", arn, from.Kind, from.Name)
		}
		o.Policies = without(o.Policies, arn)
		if own != "" {
			a.remove(store.K(keyTarget, string(account), own, from.Kind, from.Name))
		}
		return "POLICY_DETACHED", nil
	})
}

// PutInlinePolicy gives a user, group or role a document of its own, or replaces
// it.
func (s *Service) PutInlinePolicy(ctx context.Context, account fleet.Account, to Owner, name, document string) error {
	if err := checkName(kindPolicy, name); err != nil {
		return err
	}
	if err := checkDocument(document); err != nil {
		return err
	}
	return s.changeOwner(ctx, account, to, func(_ context.Context, _ *attempt, o *owner) (string, error) {
		if _, ok := o.Inline[name]; !ok && len(o.Inline) >= maxInlinePerOwner {
			return "", fault.New(fault.LimitExceeded, "The %s %q has %d inline policies, which is the limit", to.Kind, to.Name, maxInlinePerOwner)
		}
		if o.Inline == nil {
			o.Inline = map[string]string{}
		}
		o.Inline[name] = document
		return "INLINE_POLICY_PUT", nil
	})
}

// DeleteInlinePolicy takes a document of its own from a user, group or role.
func (s *Service) DeleteInlinePolicy(ctx context.Context, account fleet.Account, from Owner, name string) error {
	return s.changeOwner(ctx, account, from, func(_ context.Context, _ *attempt, o *owner) (string, error) {
		if _, ok := o.Inline[name]; !ok {
			return "", fault.New(fault.ResourceNotFound, "The %s %q has no inline policy %q", from.Kind, from.Name, name)
		}
		delete(o.Inline, name)
		return "INLINE_POLICY_DELETED", nil
	})
}

// InlinePolicy returns a document of a user, group or role.
func (s *Service) InlinePolicy(ctx context.Context, account fleet.Account, of Owner, name string) (string, error) {
	var o *owner
	switch of.Kind {
	case kindUser:
		r, err := find[userRecord](ctx, s.options.Store, account, kindUser, of.Name)
		if err != nil {
			return "", err
		}
		o = &r.owner
	case kindGroup:
		r, err := find[groupRecord](ctx, s.options.Store, account, kindGroup, of.Name)
		if err != nil {
			return "", err
		}
		o = &r.owner
	default:
		r, err := find[roleRecord](ctx, s.options.Store, account, kindRole, of.Name)
		if err != nil {
			return "", err
		}
		o = &r.owner
	}
	document, ok := o.Inline[name]
	if !ok {
		return "", fault.New(fault.ResourceNotFound, "The %s %q has no inline policy %q", of.Kind, of.Name, name)
	}
	return document, nil
}

// changeOwner changes the policies of a user, group or role. edit returns what
// happened, nothing when nothing did.
func (s *Service) changeOwner(ctx context.Context, account fleet.Account, of Owner, edit func(context.Context, *attempt, *owner) (string, error)) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		var record any
		var o *owner
		var separate func() error
		kind := event.OperatorUser
		switch of.Kind {
		case kindUser:
			u, err := find[userRecord](ctx, s.options.Store, account, kindUser, of.Name)
			if err != nil {
				return err
			}
			record, o = u, &u.owner
			separate = func() error { return a.separateUser(ctx, u, nil) }
		case kindGroup:
			g, err := find[groupRecord](ctx, s.options.Store, account, kindGroup, of.Name)
			if err != nil {
				return err
			}
			record, o, kind = g, &g.owner, event.OperatorGroup
			separate = func() error { return a.separateGroup(ctx, g) }
		case kindRole:
			r, err := find[roleRecord](ctx, s.options.Store, account, kindRole, of.Name)
			if err != nil {
				return err
			}
			record, o, kind = r, &r.owner, event.OperatorRole
			separate = func() error { return a.separateOwners(ctx, "the role "+r.Name, nil, &r.owner) }
		default:
			return fault.New(fault.InvalidRequest, "Policies belong to a user, a group or a role, not to a %s", of.Kind)
		}
		happened, err := edit(ctx, a, o)
		if err != nil || happened == "" {
			return err
		}
		if err := separate(); err != nil {
			return err
		}
		a.emit(kind, of.Name, happened)
		return a.save(of.Kind, of.Name, record)
	})
}

// policyARN resolves what a caller names a policy by. own is the name of an own
// policy, empty for a built-in one.
func (a *attempt) policyARN(ctx context.Context, policy string) (arn, own string, err error) {
	if _, ok := builtin(policy); ok {
		return policy, "", nil
	}
	name := policy
	if strings.HasPrefix(policy, "arn:") {
		var found bool
		if name, found = strings.CutPrefix(policy, iamARN(a.account, kindPolicy, "")); !found {
			return "", "", fault.New(fault.ResourceNotFound, "The policy %.200s does not exist in this account", policy)
		}
	}
	_, err = find[policyRecord](ctx, a.s.options.Store, a.account, kindPolicy, name)
	if fault.CodeOf(err) == fault.ResourceNotFound && name == policy {
		if b, ok := builtin(iampolicy.BuiltinPrefix + name); ok {
			return b.ARN, "", nil
		}
	}
	return iamARN(a.account, kindPolicy, name), name, err
}

// targets lists what an own policy is attached to.
func (a *attempt) targets(ctx context.Context, policy string) ([]Owner, error) {
	var found []Owner
	err := a.s.options.Store.Scan(ctx, store.Under(keyTarget, string(a.account), policy), func(r store.Record) error {
		parts := r.Key.Parts()
		found = append(found, Owner{Kind: parts[len(parts)-2], Name: parts[len(parts)-1]})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list targets of policy %q: %w", policy, err)
	}
	return found, nil
}

// unlink removes the rows that say where policies are attached.
func (a *attempt) unlink(o *owner, kind string) {
	for _, arn := range o.Policies {
		if name, ok := strings.CutPrefix(arn, iamARN(a.account, kindPolicy, "")); ok {
			a.remove(store.K(keyTarget, string(a.account), name, kind, o.Name))
		}
	}
}

// inlineNames lists the names of inline policies in order.
func inlineNames(inline map[string]string) []string { return slices.Sorted(maps.Keys(inline)) }

// documents parses the policies of owners, under names that say where they come
// from. changed takes the place of the stored policy of its name.
func (s *Service) documents(ctx context.Context, account fleet.Account, changed *policyRecord, owners ...*owner) ([]iotpolicy.PolicyRef, error) {
	var all []iotpolicy.PolicyRef
	seen := map[string]bool{}
	add := func(name, text string) error {
		parsed, err := iampolicy.Parse(text)
		if err != nil {
			return fmt.Errorf("policy %s is stored and not valid: %w", name, err)
		}
		all = append(all, iotpolicy.PolicyRef{Name: name, ARN: name, Document: parsed})
		return nil
	}
	for _, o := range owners {
		for _, arn := range o.Policies {
			if seen[arn] {
				continue
			}
			seen[arn] = true
			text, err := s.document(ctx, account, changed, arn)
			if err == nil {
				err = add(arn, text)
			}
			if err != nil {
				return nil, err
			}
		}
		for _, name := range inlineNames(o.Inline) {
			if err := add(o.ID+"/"+name, o.Inline[name]); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// document returns the text of an attached policy.
func (s *Service) document(ctx context.Context, account fleet.Account, changed *policyRecord, arn string) (string, error) {
	if b, ok := builtin(arn); ok {
		return b.Document, nil
	}
	name := strings.TrimPrefix(arn, iamARN(account, kindPolicy, ""))
	if changed != nil && changed.Name == name {
		return changed.Document, nil
	}
	record, err := read[policyRecord](ctx, s.options.Store, operatorKey(account, kindPolicy, name))
	if err != nil {
		return "", fmt.Errorf("read policy %s: %w", arn, err)
	}
	return record.Document, nil
}

// groupsOf loads the groups of a user. changed takes the place of the stored one.
func (s *Service) groupsOf(ctx context.Context, account fleet.Account, u *userRecord, changed *groupRecord) ([]*owner, error) {
	owners := []*owner{&u.owner}
	for _, name := range u.Groups {
		if changed != nil && changed.Name == name {
			owners = append(owners, &changed.owner)
			continue
		}
		g, err := read[groupRecord](ctx, s.options.Store, operatorKey(account, kindGroup, name))
		if errors.Is(err, store.ErrNotFound) {
			continue // it has just gone, and its permissions with it
		}
		if err != nil {
			return nil, fmt.Errorf("read group %q: %w", name, err)
		}
		owners = append(owners, &g.owner)
	}
	return owners, nil
}

// separateUser refuses a user in whose hand a change puts what must be apart.
func (a *attempt) separateUser(ctx context.Context, u *userRecord, changed *groupRecord) error {
	owners, err := a.s.groupsOf(ctx, a.account, u, changed)
	if err != nil {
		return err
	}
	return a.separateOwners(ctx, "the user "+u.Name, nil, owners...)
}

// separateGroup does so for all members of a group.
func (a *attempt) separateGroup(ctx context.Context, g *groupRecord) error {
	if err := a.separateOwners(ctx, "the group "+g.Name, nil, &g.owner); err != nil {
		return err
	}
	members, err := names(ctx, a.s.options.Store, keyMember, string(a.account), g.Name)
	if err != nil {
		return err
	}
	for _, name := range members {
		u, err := find[userRecord](ctx, a.s.options.Store, a.account, kindUser, name)
		if err != nil {
			return err
		}
		if err := a.separateUser(ctx, u, g); err != nil {
			return err
		}
	}
	return nil
}

// separateTargets does so for all that a policy applies to.
func (a *attempt) separateTargets(ctx context.Context, changed *policyRecord) error {
	targets, err := a.targets(ctx, changed.Name)
	if err != nil {
		return err
	}
	for _, t := range targets {
		users := []string{t.Name}
		if t.Kind == kindRole {
			r, err := find[roleRecord](ctx, a.s.options.Store, a.account, kindRole, t.Name)
			if err != nil {
				return err
			}
			if err := a.separateOwners(ctx, "the role "+t.Name, changed, &r.owner); err != nil {
				return err
			}
			continue
		}
		if t.Kind == kindGroup {
			if users, err = names(ctx, a.s.options.Store, keyMember, string(a.account), t.Name); err != nil {
				return err
			}
		}
		for _, name := range users {
			u, err := find[userRecord](ctx, a.s.options.Store, a.account, kindUser, name)
			if err != nil {
				return err
			}
			owners, err := a.s.groupsOf(ctx, a.account, u, nil)
			if err != nil {
				return err
			}
			if err := a.separateOwners(ctx, "the user "+name, changed, owners...); err != nil {
				return err
			}
		}
	}
	return nil
}

// separateOwners refuses owners whose policies together are in one hand.
func (a *attempt) separateOwners(ctx context.Context, who string, changed *policyRecord, owners ...*owner) error {
	refs, err := a.s.documents(ctx, a.account, changed, owners...)
	if err != nil {
		return err
	}
	documents := make([]*iotpolicy.Document, len(refs))
	for i := range refs {
		documents[i] = refs[i].Document
	}
	return separated(who, documents)
}

// separated words the separation of duties.
func separated(who string, documents []*iotpolicy.Document) error {
	approval, supply, both := iampolicy.Separated(documents)
	if !both {
		return nil
	}
	return fault.New(fault.InvalidRequest,
		"Separation of duties: this would let %s both approve what is provisioned (%s) and supply what is approved (%s); give these to different people, or deny one of them on all resources",
		who, approval, supply)
}
