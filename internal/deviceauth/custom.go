package deviceauth

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// Custom is a caller whose identity and policies somebody else has decided
// about: a custom authorizer. It has no certificate and, since nothing can be
// attached to it, no thing; the variables of both have no value.
type Custom struct {
	Account fleet.Account
	// Principal is what the caller is called from now on.
	Principal  fleet.Principal
	ServerName string
	// Policies are all that the caller may do.
	Policies []iotpolicy.PolicyRef
}

// identity is the caller as decisions and the log see it.
func (c *Custom) identity() Identity {
	return Identity{Account: c.Account, Principal: c.Principal, ServerName: c.ServerName}
}

// given are the policies of a guard, which may be replaced.
type given struct {
	mu       sync.RWMutex
	policies []iotpolicy.PolicyRef
}

// get returns the policies in force.
func (g *given) get() []iotpolicy.PolicyRef {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.policies
}

// AdmitCustom decides about the CONNECT of a custom caller like Admit: the same
// permissions are needed, and refusals are told in the same way. No event of
// the registry concerns the connection.
func (s *Service) AdmitCustom(ctx context.Context, c Custom, r Request) (Admission, error) {
	g := &Guard{service: s, id: c.identity(), caller: callerOf(&r), given: &given{policies: c.Policies}, accountEpoch: &atomic.Uint64{}}
	compiled, err := g.refresh(ctx, nil)
	if err == nil {
		err = s.mayConnect(ctx, g, compiled, &r)
	}
	if err != nil {
		g.Close()
		return Admission{}, err
	}
	return Admission{Account: c.Account, Principal: c.Principal, Guard: g}, nil
}

// Replace puts other policies in force for the connection of a custom caller,
// from its next packet on.
func (g *Guard) Replace(policies []iotpolicy.PolicyRef) {
	g.given.mu.Lock()
	g.given.policies = policies
	g.given.mu.Unlock()
	g.epoch.Add(1)
}

// compileGiven resolves the policies in force.
func (g *Guard) compileGiven() *compiled {
	c := &compiled{epoch: g.now(), stamp: g.service.stamps.Add(1)}
	c.set = iotpolicy.Compile(g.given.get(), policyContext(&g.id, &g.caller, nil, nil, g.service.now()))
	return c
}

// AuthorizeCustom decides about a call of a custom caller outside any MQTT
// connection like Authorize.
func (s *Service) AuthorizeCustom(ctx context.Context, c Custom, call Call) error {
	id := c.identity()
	sub := &subject{id: &id, by: &caller{sourceIP: address(call.RemoteAddr)}}
	sub.set = iotpolicy.Compile(c.Policies, policyContext(&id, sub.by, nil, nil, s.now()))
	return s.decideCall(ctx, sub, &call)
}

// CustomRefused keeps and logs a CONNECT that no custom authorizer vouched for,
// before any policy was asked.
func (s *Service) CustomRefused(ctx context.Context, account fleet.Account, r Request, err error) {
	cause := fault.From(err)
	if cause.Code == fault.Unauthorized {
		err = fault.Wrap(fault.Unauthorized, &identityError{problemCustom, err}, "%s", cause.Message)
	}
	s.turnedAway(&Identity{Account: account, ServerName: r.ServerName}, &r, err)
	s.logStranger(ctx, &r, err)
}
