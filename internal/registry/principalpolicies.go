package registry

import (
	"context"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// The four operations here are older than groups: they know policies of
// certificates only.

// AttachPrincipalPolicy is AttachPolicy for a certificate.
func (s *Service) AttachPrincipalPolicy(ctx context.Context, account fleet.Account, name, principal string) error {
	to, err := s.checkPair(account, name, principal)
	if err != nil {
		return err
	}
	return s.attach(ctx, account, name, to)
}

// DetachPrincipalPolicy ends an attachment to a certificate. Unlike
// DetachPolicy it can say that the policy or the certificate does not exist.
func (s *Service) DetachPrincipalPolicy(ctx context.Context, account fleet.Account, name, principal string) error {
	to, err := s.checkPair(account, name, principal)
	if err != nil {
		return err
	}
	return s.detach(ctx, account, name, to)
}

// checkPair refuses what cannot be a policy's name or a certificate.
func (s *Service) checkPair(account fleet.Account, name, principal string) (reference, error) {
	if err := checkPolicyName(name); err != nil {
		return reference{}, err
	}
	return checkPrincipal(s.scope(account), principal)
}

// ListPrincipalPolicies returns one page of the names of a certificate's
// policies in order.
func (s *Service) ListPrincipalPolicies(ctx context.Context, account fleet.Account, principal string, p Page) (Listed[string], error) {
	if _, err := checkPrincipal(s.scope(account), principal); err != nil {
		return Listed[string]{}, err
	}
	return s.ListAttachedPolicies(ctx, account, principal, false, p)
}

// ListPolicyPrincipals returns one page of the ARNs of the certificates that a
// policy is attached to.
func (s *Service) ListPolicyPrincipals(ctx context.Context, account fleet.Account, name string, p Page) (Listed[string], error) {
	if _, err := s.findPolicy(ctx, account, name); err != nil {
		return Listed[string]{}, err
	}
	scope := s.scope(account)
	certificates := withPrefix(kindPolicyTarget, account, reference{kind: fleet.ARNCertificate}.ref(), name)
	listed, err := listKeys(ctx, s.store, certificates, p, func(k store.Key) string { return parseRef(k.Last()).arn(scope) })
	return listed, store.Fault(err)
}
