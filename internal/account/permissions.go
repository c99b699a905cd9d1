package account

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iampolicy"
	"github.com/muster-iot/muster/internal/iotpolicy"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// maxIdentities bounds the callers whose permissions are kept, maxSets the
	// compiled forms of one of them. When a bound is reached all are made anew.
	maxIdentities = 4096
	maxSets       = 64
	// maxLag is how late events may be before what is kept is not trusted.
	maxLag = 5 * time.Second
)

// Proof is what policies can ask about the way in which a caller was proven. It
// travels in the context of Authorize.
type Proof struct {
	// AccessKeyID is what the caller signed with.
	AccessKeyID string
	// SessionBegan is zero for long-term keys.
	SessionBegan time.Time
	// SourceAddress is an IP address.
	SourceAddress string
	// Secure says that the request came over TLS.
	Secure bool
}

// proofKey carries a Proof.
type proofKey struct{}

// WithProof returns a context that carries a proof to Authorize.
func WithProof(ctx context.Context, p Proof) context.Context {
	return context.WithValue(ctx, proofKey{}, p)
}

// proofOf returns the context's proof, or what of it the actor knows.
func proofOf(ctx context.Context) Proof {
	if p, ok := ctx.Value(proofKey{}).(Proof); ok {
		return p
	}
	actor := fleet.ActorFrom(ctx)
	return Proof{AccessKeyID: actor.AccessKeyID, SourceAddress: actor.SourceAddress}
}

// permissions keeps what callers may do, for as long as nothing about operators
// changes in their account.
type permissions struct {
	mu sync.RWMutex
	// epochs count the changes of each account.
	epochs     map[fleet.Account]uint64
	identities map[identityKey]*identity
}

// identityKey is a caller with its proof.
type identityKey struct {
	arn, accessKeyID string
	began            time.Time
}

// identity is what the store says about a caller.
type identity struct {
	epoch uint64
	// refused is why the caller may nothing at all: its key or session is void.
	refused error
	root    bool
	request iampolicy.Request
	refs    []iotpolicy.PolicyRef
	// conditional says that the answer depends on the proof and the time.
	conditional bool

	mu   sync.RWMutex
	sets map[setKey]*iotpolicy.Set
}

// setKey is what compiled permissions depend on besides the time.
type setKey struct {
	source string
	secure bool
}

// Authorize returns nil when the principal may do the action on the resource.
// Root may do everything inside its account; a resource without an account,
// such as "*", is inside. Others may do inside their account what a policy
// allows and none denies. The answer is made from memory, and follows each
// change before the call that made it returns.
func (s *Service) Authorize(ctx context.Context, principal fleet.Principal, action, resource string) error {
	switch principal.Kind {
	case fleet.PrincipalSystem:
		return nil
	case fleet.PrincipalUser, fleet.PrincipalRole:
		own := accountOf(principal.ARN)
		if account := accountOf(resource); own != "" && (account == "" || account == own) {
			return s.decide(ctx, principal, action, resource)
		}
	case fleet.PrincipalCertificate:
		if s.options.Devices != nil {
			return s.options.Devices.Authorize(ctx, principal, action, resource) //nolint:wrapcheck // its refusal explains itself
		}
	}
	return refused(principal.ARN, action, resource, "")
}

// refused words a refusal as AWS does.
func refused(arn, action, resource, why string) error {
	return fault.New(fault.Forbidden, "User: %s is not authorized to perform: %s on resource: %s%s", arn, action, resource, why)
}

// decide asks the permissions of a user or of a session in a role.
func (s *Service) decide(ctx context.Context, principal fleet.Principal, action, resource string) error {
	d, err := s.outcome(ctx, principal, action, resource)
	if err != nil {
		return err
	}
	switch d.Outcome {
	case iotpolicy.Allowed:
		return nil
	case iotpolicy.ExplicitDeny:
		return refused(principal.ARN, action, resource, " with an explicit deny in an identity-based policy: "+d.Policy)
	case iotpolicy.ImplicitDeny:
	}
	return refused(principal.ARN, action, resource, " because no identity-based policy allows the "+action+" action")
}

// outcome is what the principal's own policies say, whatever the resource's
// account. The error is a caller that is void or an internal failure.
func (s *Service) outcome(ctx context.Context, principal fleet.Principal, action, resource string) (iotpolicy.Decision, error) {
	proof := proofOf(ctx)
	id, err := s.identity(ctx, principal, proof)
	if err != nil {
		return iotpolicy.Decision{}, err
	}
	if id.refused != nil {
		return iotpolicy.Decision{}, id.refused
	}
	if id.root {
		return iotpolicy.Decision{Outcome: iotpolicy.Allowed}, nil
	}
	return id.set(proof, s.options.Now).Decide(action, resource), nil
}

// set returns the permissions compiled for a request.
func (i *identity) set(proof Proof, now func() time.Time) *iotpolicy.Set {
	key := setKey{}
	if i.conditional {
		key = setKey{source: proof.SourceAddress, secure: proof.Secure}
	}
	i.mu.RLock()
	set := i.sets[key]
	i.mu.RUnlock()
	if set != nil && (set.ValidUntil().IsZero() || now().Before(set.ValidUntil())) {
		return set
	}
	request := i.request
	request.Now, request.Secure = now(), proof.Secure
	if addr, err := netip.ParseAddr(proof.SourceAddress); err == nil {
		request.SourceIP = addr
	}
	set = iotpolicy.Compile(i.refs, request.Context())
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.sets == nil || len(i.sets) >= maxSets {
		i.sets = map[setKey]*iotpolicy.Set{}
	}
	i.sets[key] = set
	return set
}

// identity returns what is known of a caller, from memory when nothing has
// changed since.
func (s *Service) identity(ctx context.Context, principal fleet.Principal, proof Proof) (*identity, error) {
	account := fleet.Account(accountOf(principal.ARN))
	root := principal.Kind == fleet.PrincipalUser && principal.ID == rootUser
	if root && proof.AccessKeyID == "" {
		return &identity{root: true}, nil
	}
	key := identityKey{arn: principal.ARN, accessKeyID: proof.AccessKeyID, began: proof.SessionBegan}
	s.permissions.mu.RLock()
	epoch := s.permissions.epochs[account]
	known := s.permissions.identities[key]
	s.permissions.mu.RUnlock()
	if known != nil && known.epoch == epoch && (s.options.Lag == nil || s.options.Lag() <= maxLag) {
		return known, nil
	}
	loaded, err := s.loadIdentity(ctx, account, principal, proof)
	if err != nil {
		return nil, store.Fault(fmt.Errorf("read the permissions of %s: %w", principal.ARN, err))
	}
	loaded.epoch, loaded.root = epoch, root
	s.permissions.mu.Lock()
	defer s.permissions.mu.Unlock()
	if s.permissions.identities == nil || len(s.permissions.identities) >= maxIdentities {
		s.permissions.identities = map[identityKey]*identity{}
	}
	s.permissions.identities[key] = loaded
	return loaded, nil
}

// void is the refusal of a caller whose key, session, user or role is no more.
func void() error {
	return fault.New(fault.Forbidden, "The security token included in the request is invalid: its access key, session, user or role is no longer in force")
}

// loadIdentity reads a caller from the store.
func (s *Service) loadIdentity(ctx context.Context, account fleet.Account, principal fleet.Principal, proof Proof) (*identity, error) {
	id := &identity{request: iampolicy.Request{
		PrincipalARN: principal.ARN, Account: account, TokenIssued: proof.SessionBegan, Region: s.options.Region,
	}}
	good, err := s.keyGood(ctx, account, principal, proof)
	if err != nil || !good {
		id.refused = void()
		return id, err
	}
	var owners []*owner
	switch {
	case principal.Kind == fleet.PrincipalUser && principal.ID == rootUser:
		return id, nil
	case principal.Kind == fleet.PrincipalUser:
		u, err := read[userRecord](ctx, s.options.Store, operatorKey(account, kindUser, principal.ID))
		// A session from before the user is that of another one of the same name.
		if errors.Is(err, store.ErrNotFound) ||
			err == nil && !proof.SessionBegan.IsZero() && (!proof.SessionBegan.After(u.RevokedAt) || proof.SessionBegan.Before(u.CreatedAt.Truncate(time.Microsecond))) {
			id.refused = void()
			return id, nil
		}
		if err != nil {
			return nil, err
		}
		id.request.Type, id.request.UserName, id.request.UserID = iampolicy.TypeUser, u.Name, u.ID
		if owners, err = s.groupsOf(ctx, account, u, nil); err != nil {
			return nil, err
		}
	default:
		r, err := s.sessionRole(ctx, account, principal)
		if err != nil {
			return nil, err
		}
		if r == nil || !proof.SessionBegan.After(r.RevokedAt) {
			id.refused = void()
			return id, nil
		}
		// As with IAM, policies speak of the role, not of the session.
		id.request.PrincipalARN = iamARN(account, kindRole, r.Name)
		id.request.Type, id.request.UserID = iampolicy.TypeAssumedRole, principal.ID
		owners = []*owner{&r.owner}
	}
	if id.refs, err = s.documents(ctx, account, nil, owners...); err != nil {
		return nil, err
	}
	id.conditional = slices.ContainsFunc(id.refs, func(r iotpolicy.PolicyRef) bool { return r.Document.Conditional() })
	return id, nil
}

// keyGood reports whether a long-term key is still in force.
func (s *Service) keyGood(ctx context.Context, account fleet.Account, principal fleet.Principal, proof Proof) (bool, error) {
	if proof.AccessKeyID == "" || sessionKey(proof.AccessKeyID) {
		return true, nil
	}
	if !validAccessKeyID(proof.AccessKeyID) {
		return false, nil
	}
	record, err := read[accessKeyRecord](ctx, s.options.Store, store.K(keyAccessKey, proof.AccessKeyID))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return record.Account == account && record.User == principal.ID && record.status() == KeyActive, nil
}

// sessionRole finds the role of a session, nil when that is gone: also when
// another one has its name.
func (s *Service) sessionRole(ctx context.Context, account fleet.Account, principal fleet.Principal) (*roleRecord, error) {
	_, rest, _ := strings.Cut(principal.ARN, ":assumed-role/")
	name, _, _ := strings.Cut(rest, "/")
	roleID, _, _ := strings.Cut(principal.ID, ":")
	if checkName(kindRole, name) != nil {
		return nil, nil //nolint:nilnil // absent is neither.
	}
	r, err := read[roleRecord](ctx, s.options.Store, operatorKey(account, kindRole, name))
	if errors.Is(err, store.ErrNotFound) || err == nil && r.ID != roleID {
		return nil, nil //nolint:nilnil // absent is neither.
	}
	return r, err
}

// forget makes the permissions of an account be read anew.
func (s *Service) forget(account fleet.Account) {
	s.permissions.mu.Lock()
	defer s.permissions.mu.Unlock()
	if s.permissions.epochs == nil {
		s.permissions.epochs = map[fleet.Account]uint64{}
	}
	s.permissions.epochs[account]++
}

// Apply takes committed events in order. When it returns, Authorize follows them.
// The result names the accounts whose operators changed, so that connections can
// be asked about.
func (s *Service) Apply(envelopes []event.Envelope) []fleet.Account {
	var changed []fleet.Account
	for i := range envelopes {
		if _, ok := envelopes[i].Event.(event.OperatorChanged); ok && !slices.Contains(changed, envelopes[i].Account) {
			changed = append(changed, envelopes[i].Account)
		}
	}
	for _, account := range changed {
		s.forget(account)
	}
	return changed
}

// Valid reports whether a caller's key or session is still in force, for those
// who hold a connection open in its name.
func (s *Service) Valid(ctx context.Context, principal fleet.Principal) error {
	id, err := s.identity(ctx, principal, proofOf(ctx))
	if err != nil {
		return err
	}
	return id.refused
}

// Whoami returns the unique id of a caller: the account of a root user, a user's
// id, or a role's with the session's name.
func (s *Service) Whoami(ctx context.Context, principal fleet.Principal) (string, error) {
	id, err := s.identity(ctx, principal, proofOf(ctx))
	switch {
	case err != nil:
		return "", err
	case id.refused != nil:
		return "", id.refused
	case id.root:
		return accountOf(principal.ARN), nil
	}
	return id.request.UserID, nil
}
