package deviceauth

import (
	"context"
	"crypto/x509"
	"net/netip"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// Request is a CONNECT to decide about.
type Request struct {
	// Certificate is the one that the peer proved to own; nil for none.
	Certificate *x509.Certificate
	ServerName  string
	ClientID    string
	// RemoteAddr is the peer's address, with or without port.
	RemoteAddr string
	// Persistent asks for a session that outlives the connection.
	Persistent bool
	// Will is nil without one.
	Will *Will
	// Plain marks the listener for tests, the only one on which a connection
	// without certificate can be let in.
	Plain bool
}

// Will is the part of a will that permissions are about.
type Will struct {
	Topic  string
	Retain bool
}

// Admission is an accepted CONNECT.
type Admission struct {
	Account   fleet.Account
	Principal fleet.Principal
	// ThingName is set for exclusive attachments only, as in lifecycle events.
	ThingName string
	// Indexed says that the connection counts as that of the thing named like
	// the client id.
	Indexed bool
	// Provisioning says that the certificate can be provisioned and no more: the
	// device is not in service by this connection.
	Provisioning bool
	// Until is when the connection ends; zero for no such time.
	Until time.Time
	// Guard must be closed when the connection ends.
	Guard *Guard
}

// Admit decides about a CONNECT: identity, then iot:Connect on the client id,
// then the will's topic. It answers fault.Unauthorized without an acceptable
// identity, fault.Forbidden without permission and fault.Unavailable when that
// could not be found out; the reason is in the log.
func (s *Service) Admit(ctx context.Context, r Request) (Admission, error) {
	if r.Certificate == nil && r.Plain && s.allowAnonymous {
		return s.admitAnonymous(r)
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	id, err := s.identify(ctx, r.ServerName, r.Certificate)
	if err != nil {
		s.turnedAway(&id, &r, err)
		s.logStranger(ctx, &r, err)
		s.introduce(ctx, &id)
		return Admission{}, err
	}
	g := s.newGuard(id, &r)
	c, err := g.refresh(ctx, nil)
	if err != nil {
		s.turnedAway(&g.id, &r, err)
		g.reportFailure(ctx, err)
	} else {
		err = s.mayConnect(ctx, g, c, &r)
	}
	if err != nil {
		g.Close()
		return Admission{}, err
	}
	a := Admission{Account: id.Account, Principal: id.Principal, Guard: g}
	if c.thing != nil && c.thing.Exclusive {
		a.ThingName = c.thing.Name
	}
	g.free.Store(c.bounds == nil || !c.bounds.ofPurpose())
	a.Provisioning, a.Until = !g.free.Load(), c.bounds.ends(s.now())
	a.Indexed = c.thing != nil && c.thing.Attached && c.thing.Name == r.ClientID && !a.Provisioning
	return a, nil
}

// admitAnonymous lets a connection of the plain listener do everything.
func (s *Service) admitAnonymous(r Request) (Admission, error) {
	account, err := s.account(r.ServerName)
	if err != nil {
		return Admission{}, fault.Wrap(fault.Unauthorized, err, "The server name selects no account")
	}
	principal := fleet.Principal{Kind: fleet.PrincipalAnonymous}
	return Admission{Account: account, Principal: principal, Guard: &s.open}, nil
}

// newGuard returns a guard that is subject to events and knows nothing yet.
func (s *Service) newGuard(id Identity, r *Request) *Guard {
	g := &Guard{service: s, id: id, caller: callerOf(r)}
	s.sessions.add(g)
	return g
}

// callerOf takes what policies may know of the CONNECT itself.
func callerOf(r *Request) caller {
	c := caller{clientID: r.ClientID, sourceIP: address(r.RemoteAddr)}
	if r.Persistent {
		c.attributes = append(c.attributes, iotpolicy.PersistentConnect)
	}
	if r.Will != nil {
		c.attributes = append(c.attributes, iotpolicy.LastWill)
	}
	return c
}

// mayConnect checks every permission that a CONNECT needs.
func (s *Service) mayConnect(ctx context.Context, g *Guard, c *compiled, r *Request) error {
	if c.refusal != "" {
		err := fault.Wrap(fault.Unauthorized, &identityError{problem: c.problem}, "%s", c.refusal)
		s.turnedAway(&g.id, r, err)
		s.logStranger(ctx, r, err)
		return err
	}
	if err := s.mayCome(g, c.bounds, r); err != nil {
		s.turnedAway(&g.id, r, err)
		s.logStranger(ctx, r, err)
		return err
	}
	needs := [][3]string{{iotpolicy.ActionConnect, fleet.ARNClient, r.ClientID}}
	if r.Will != nil {
		needs = append(needs, [3]string{iotpolicy.ActionPublish, fleet.ARNTopic, r.Will.Topic})
		if r.Will.Retain {
			needs = append(needs, [3]string{iotpolicy.ActionRetainPublish, fleet.ARNTopic, r.Will.Topic})
		}
	}
	for _, need := range needs {
		resource := s.scope(g.id.Account).ARN(need[1], need[2])
		if err := s.decide(ctx, g.subject(c), request{PacketConnect, need[0], resource}); err != nil {
			return err
		}
	}
	return nil
}

// decide turns a decision into an error, and keeps and logs a refusal.
func (s *Service) decide(ctx context.Context, sub *subject, q request) error {
	if sub.set.Decide(q.action, q.resource).Outcome == iotpolicy.Allowed {
		return nil
	}
	d, considered := s.deny(sub, q)
	s.metrics.denials.WithLabelValues(q.action, d.Outcome.String()).Inc()
	s.refused(sub, q)
	if suppressed, ok := s.told.Take(sub.id.Principal.ID, s.now()); ok {
		s.logDenial(ctx, d, considered, suppressed)
	}
	return fault.Wrap(fault.Forbidden, d, "Not authorized to perform %s on %s", q.action, q.resource)
}

// address reads the peer's IP address; the zero value is an unknown one.
func address(remote string) netip.Addr {
	if with, err := netip.ParseAddrPort(remote); err == nil {
		return with.Addr().Unmap().WithZone("")
	}
	if without, err := netip.ParseAddr(remote); err == nil {
		return without.Unmap().WithZone("")
	}
	return netip.Addr{}
}
