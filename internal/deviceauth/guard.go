package deviceauth

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// Guard answers for the packets of one connection. It is safe for concurrent
// use: deliveries ask it from the goroutines of the publishers.
type Guard struct {
	service *Service
	id      Identity
	caller  caller
	// open guards of anonymous connections allow everything.
	open bool
	// given are the policies of a connection that the registry has none for; nil
	// for all others.
	given *given

	// epoch and accountEpoch only grow; their sum dates the compiled set.
	epoch        atomic.Uint64
	accountEpoch *atomic.Uint64
	state        atomic.Pointer[compiled]
	// compiling is held while the set is compiled, so that one packet does it
	// and the others wait.
	compiling sync.Mutex
	denials   denialLimit

	// free is set once the connection was admitted under no boundary of a purpose.
	free atomic.Bool

	// links and closed belong to sessions.
	links  [linkKinds]link
	closed bool
}

// caller is what policies may know about a connection beside its certificate
// and its thing.
type caller struct {
	clientID   string
	sourceIP   netip.Addr
	attributes []string
}

// loading returns a context for reading the registry on behalf of a packet. A
// packet bears none, and that of its connection would keep in memory, as long as
// the connection lasts, all that its admission had.
func loading() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), loadTimeout) //nolint:forbidigo // see above
}

// compiled is a set with the answers that it gave.
type compiled struct {
	epoch uint64
	// set is within bounds, which are nil for most.
	set    *iotpolicy.Set
	bounds *bounds
	// thing is what the connection acts as; nil for none.
	thing *Thing
	// gain is what the connection's messages gain.
	gain []Property
	// refusal says why the certificate may do nothing, problem which check it was;
	// then set is empty.
	refusal string
	problem identityProblem
	// stamp tells it apart from other compilations.
	stamp uint64
	cache atomic.Pointer[cache]
}

// CanPublish decides iot:Publish and, for a retained message,
// iot:RetainPublish.
func (g *Guard) CanPublish(topic string, retain bool) bool {
	return g.allows(iotpolicy.ActionPublish, fleet.ARNTopic, topic) &&
		(!retain || g.allows(iotpolicy.ActionRetainPublish, fleet.ARNTopic, topic))
}

// CanSubscribe decides iot:Subscribe on the filter's own text, with the prefix
// of a shared subscription.
func (g *Guard) CanSubscribe(filter string) bool {
	return g.allows(iotpolicy.ActionSubscribe, fleet.ARNTopicFilter, filter)
}

// CanReceive decides iot:Receive. For a topic with the prefix of a shared
// subscription either form may allow, and a Deny of either refuses.
func (g *Guard) CanReceive(topic string) bool {
	rest, shared := strings.CutPrefix(topic, "$share/")
	if !shared {
		return g.allows(iotpolicy.ActionReceive, fleet.ARNTopic, topic)
	}
	_, plain, ok := strings.Cut(rest, "/")
	if !ok || g.open {
		return g.open
	}
	c := g.current()
	if c == nil {
		g.service.unreadable(g, request{PacketDelivery, iotpolicy.ActionReceive, g.service.scope(g.id.Account).ARN(fleet.ARNTopic, topic)})
		return false
	}
	scope := g.service.scope(g.id.Account)
	prefixed, bare := scope.ARN(fleet.ARNTopic, topic), scope.ARN(fleet.ARNTopic, plain)
	first := c.set.Decide(iotpolicy.ActionReceive, prefixed).Outcome
	second := c.set.Decide(iotpolicy.ActionReceive, bare).Outcome
	switch {
	case first == iotpolicy.ExplicitDeny:
		g.report(c, &answer{action: iotpolicy.ActionReceive, resource: prefixed, outcome: first})
	case second == iotpolicy.ExplicitDeny, first != iotpolicy.Allowed && second != iotpolicy.Allowed:
		g.report(c, &answer{action: iotpolicy.ActionReceive, resource: bare, outcome: second})
	default:
		return true
	}
	return false
}

// Close ends the guard's share of events, so it must not be asked afterwards.
// It may be called twice.
func (g *Guard) Close() {
	if !g.open {
		g.service.sessions.remove(g)
	}
}

// allows decides from the cache, or from the set and fills the cache.
func (g *Guard) allows(action, kind, name string) bool {
	if g.open {
		return true
	}
	c := g.current()
	if c == nil {
		g.service.unreadable(g, request{packetOf(action), action, g.service.scope(g.id.Account).ARN(kind, name)})
		return false
	}
	if outcome, fixed := c.set.Fixed(action); fixed && outcome == iotpolicy.Allowed {
		return true
	}
	slot := c.slot(g.service.seed, action, name)
	a := slot.Load()
	if a == nil || !a.isAbout(action, name) {
		resource := g.service.scope(g.id.Account).ARN(kind, name)
		a = &answer{action: action, resource: resource, name: len(resource) - len(name), outcome: c.set.Decide(action, resource).Outcome}
		slot.Store(a)
	}
	if a.outcome != iotpolicy.Allowed {
		g.report(c, a)
	}
	return a.outcome == iotpolicy.Allowed
}

// report counts and keeps a refusal, and logs it unless the session had its
// share.
func (g *Guard) report(c *compiled, a *answer) {
	now := g.service.now()
	g.service.metrics.denials.WithLabelValues(a.action, a.outcome.String()).Inc()
	q := request{packetOf(a.action), a.action, a.resource}
	if kept := a.kept.Load(); kept == nil || !kept.repeat(now) {
		a.kept.Store(g.service.refused(g.subject(c), q))
	}
	last := a.logged.Load()
	if last != 0 && now.Sub(time.Unix(0, last)) < denialRepeat {
		return
	}
	if !a.logged.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	suppressed, ok := g.denials.take(now)
	if !ok {
		return
	}
	others, ok := g.service.told.Take(g.id.Principal.ID, now)
	if !ok {
		return
	}
	suppressed += others
	ctx, cancel := loading()
	defer cancel()
	d, considered := g.service.deny(g.subject(c), q)
	g.service.logDenial(ctx, d, considered, suppressed)
}

// current returns the set in force, compiled now if an event made the last one
// old. Without an answer from the registry there is none.
func (g *Guard) current() *compiled {
	c := g.state.Load()
	if c != nil && c.epoch == g.now() && !c.expired(g.service) && g.service.lag() <= maxLag {
		return c
	}
	ctx, cancel := loading()
	defer cancel()
	c, err := g.refresh(ctx, c)
	if err != nil {
		g.reportFailure(ctx, err)
		return nil
	}
	return c
}

// now is the epoch of the session.
func (g *Guard) now() uint64 { return g.epoch.Load() + g.accountEpoch.Load() }

// expired reports whether a condition on the clock may have turned.
func (c *compiled) expired(s *Service) bool {
	until := c.set.ValidUntil()
	return !until.IsZero() && !s.now().Before(until)
}

// refresh compiles unless another packet did so since seen was current.
func (g *Guard) refresh(ctx context.Context, seen *compiled) (*compiled, error) {
	if g.service.lag() > maxLag {
		// Events are late: nothing tells when this set becomes old, so it is
		// used once.
		return g.compile(ctx)
	}
	g.compiling.Lock()
	defer g.compiling.Unlock()
	if c := g.state.Load(); c != seen && c != nil && c.epoch == g.now() && !c.expired(g.service) {
		return c, nil
	}
	c, err := g.compile(ctx)
	if err != nil {
		return nil, err
	}
	g.state.Store(c)
	return c, nil
}

// compile reads what the session depends on. The session is subject to the
// events of its certificate and its thing before they are read, so that no
// change falls between.
func (g *Guard) compile(ctx context.Context) (*compiled, error) {
	if g.given != nil {
		return g.compileGiven(), nil
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, unavailable(err)
		}
		c := &compiled{epoch: g.now(), stamp: g.service.stamps.Add(1)}
		certificate, err := g.service.activeCertificate(ctx, g.id.Account, g.id.Principal.ID)
		if fault.CodeOf(err) == fault.Unauthorized {
			g.service.metrics.compilations.WithLabelValues("refused").Inc()
			c.refusal, c.problem = fault.From(err).Message, problemOf(err)
			c.set = iotpolicy.Compile(nil, &iotpolicy.Context{})
			return c, nil
		}
		if err != nil {
			return nil, err
		}
		if c.bounds, err = g.service.bound(certificate.Boundary, g.id.Account); err != nil {
			return nil, err
		}
		if certificate.Boundary.ofPurpose() && g.free.Load() {
			g.service.sessions.leaveNow(g) // to come back within the limits of the purpose
		}
		thing, found, err := g.service.registry.ConnectionThing(ctx, g.id.Account, g.id.Principal.ARN, g.caller.clientID)
		if err != nil {
			return nil, unavailable(err)
		}
		if found {
			c.gain = gainOf(&thing, g.caller.clientID)
			thing.Propagating = nil // resolved
			c.thing = &thing
		}
		if g.service.sessions.setThing(g, c.thingName()) {
			continue // read again what may have changed before this
		}
		if c.set, err = g.service.compile(ctx, &g.id, &g.caller, c.thing); err != nil {
			return nil, err
		}
		c.set = c.bounds.within(c.set)
		return c, nil
	}
}

// thingName is the name of the connection's thing, empty for none.
func (c *compiled) thingName() string {
	if c.thing == nil {
		return ""
	}
	return c.thing.Name
}

// reportFailure logs that a packet, or the connection itself, was refused
// because nothing could be read.
func (g *Guard) reportFailure(ctx context.Context, err error) {
	g.service.metrics.compilations.WithLabelValues("error").Inc()
	suppressed, ok := g.denials.take(g.service.now())
	if !ok {
		return
	}
	g.service.log.LogAttrs(ctx, slog.LevelError, "refused a packet because the permissions cannot be read",
		slog.String("client_id", g.caller.clientID), slog.String("principal", g.id.Principal.ID),
		slog.Int("suppressed", suppressed), slog.Any("err", err))
}

// compile reads the policies in force and resolves them.
func (s *Service) compile(ctx context.Context, id *Identity, by *caller, thing *Thing) (*iotpolicy.Set, error) {
	policies, err := s.effective(ctx, id, thing)
	if err != nil {
		return nil, unavailable(err)
	}
	return s.compileThese(policies, id, by, thing)
}

// effective reads the policies in force.
func (s *Service) effective(ctx context.Context, id *Identity, thing *Thing) ([]Policy, error) {
	name := ""
	if thing != nil {
		name = thing.Name
	}
	policies, err := s.registry.EffectivePolicies(ctx, id.Account, id.Principal.ARN, name)
	if err != nil {
		return nil, err //nolint:wrapcheck // callers know whether something missing is their fault or ours
	}
	for i := range policies {
		for j := range policies[i].Attachments {
			if at := &policies[i].Attachments[j]; at.Target == id.Principal.ARN {
				at.Target = id.Principal.ARN // one text for each session
			}
		}
	}
	return policies, nil
}

// compileThese resolves policies for a caller.
func (s *Service) compileThese(policies []Policy, id *Identity, by *caller, thing *Thing) (*iotpolicy.Set, error) {
	refs, err := s.documents.refs(policies)
	if err != nil {
		return nil, unavailable(err)
	}
	s.metrics.compilations.WithLabelValues("ok").Inc()
	return iotpolicy.Compile(refs, policyContext(id, by, thing, id.certificate, s.now())), nil
}

// policyContext gathers what policies may refer to.
func policyContext(id *Identity, by *caller, thing *Thing, certificate *x509.Certificate, now time.Time) *iotpolicy.Context {
	ctx := &iotpolicy.Context{
		ClientID: by.clientID, SourceIP: by.sourceIP, DomainName: id.ServerName,
		ConnectAttributes: by.attributes, Now: now,
	}
	if certificate != nil {
		ctx.CertificateID, ctx.Certificate = id.Principal.ID, certificateFields(certificate)
	}
	if thing != nil {
		ctx.Thing = &iotpolicy.Thing{
			Name: thing.Name, TypeName: thing.TypeName, Attributes: thing.Attributes, Attached: thing.Attached,
		}
	}
	return ctx
}
