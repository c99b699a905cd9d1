package app

import (
	"context"
	"crypto/x509"
	"net/netip"
	"time"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/registry"
)

// gatekeeper chooses by what a connection has shown who decides about it.
type gatekeeper struct {
	devices   *deviceauth.Service
	operators operators
	signed    *signedConnections
	names     *names
	region    string
	// custom decides about connections that have shown neither certificate nor
	// signature.
	custom customAdmitter
	// plain is the name of the listener without TLS.
	plain string
}

// customAdmitter decides by credentials that an operator's own code understands:
// those in the CONNECT, or in the request that opened a WebSocket, which is the
// request's Attachment, an *upgrade.
type customAdmitter interface {
	Admit(ctx context.Context, c *broker.ConnectRequest) (broker.Admission, error)
	// Offered reports whether anybody can be let in so at a server name.
	Offered(ctx context.Context, serverName string) bool
}

// Admit implements broker.Gatekeeper.
func (g *gatekeeper) Admit(ctx context.Context, c *broker.ConnectRequest) (broker.Admission, error) {
	plain := c.ListenerName == g.plain
	request := deviceRequest(c, plain)
	if !plain && c.ListenerName != listenerHTTP {
		if err := g.names.check(c.ServerName); err != nil {
			g.devices.NameRefused(ctx, request, err)
			return broker.Admission{}, err
		}
	}
	opened, isWebSocket := c.Attachment.(*upgrade)
	switch {
	case isWebSocket && opened.caller != nil:
		return g.admitSigned(ctx, c, opened)
	// A certificate is no proof on a WebSocket, where AWS IoT does not look at it.
	case isWebSocket:
		// But one that is for provisioning comes in by that or not at all.
		if err := g.devices.Bound(ctx, c.ServerName, c.PeerCertificate); err != nil {
			g.devices.CustomRefused(ctx, c.Account, request, err)
			return broker.Admission{}, err //nolint:wrapcheck // it is a fault
		}
		admitted, err := g.custom.Admit(ctx, c)
		if admitted.Until.IsZero() || opened.until.Before(admitted.Until) {
			admitted.Until, admitted.UntilReason = opened.until, broker.ReasonWebSocketExpired
		}
		return admitted, err //nolint:wrapcheck // it is a fault
	case c.PeerCertificate == nil && !plain:
		return g.custom.Admit(ctx, c) //nolint:wrapcheck // it is a fault
	}
	return g.admitDevice(ctx, c, request)
}

// deviceRequest is the CONNECT as deviceauth sees it.
func deviceRequest(c *broker.ConnectRequest, plain bool) deviceauth.Request {
	request := deviceauth.Request{
		Certificate: c.PeerCertificate,
		ServerName:  c.ServerName,
		ClientID:    c.ClientID,
		RemoteAddr:  c.RemoteAddr,
		Persistent:  c.Persistent(),
		Plain:       plain,
	}
	if c.Will != nil {
		request.Will = &deviceauth.Will{Topic: c.Will.Topic, Retain: c.Will.Retain}
	}
	return request
}

// admitDevice lets policies of a certificate decide.
func (g *gatekeeper) admitDevice(ctx context.Context, c *broker.ConnectRequest, request deviceauth.Request) (broker.Admission, error) {
	admitted, err := g.devices.Admit(ctx, request)
	if err != nil {
		// A certificate that is not registered or not active is nobody: what it
		// asked for is no fact about the fleet.
		if c.PeerCertificate != nil && fault.CodeOf(err) == fault.Forbidden {
			c.Principal = fleet.Principal{Kind: fleet.PrincipalCertificate, ID: deviceauth.CertificateID(c.PeerCertificate)}
		}
		return broker.Admission{}, err
	}
	return broker.Admission{
		Account:   admitted.Account,
		Principal: admitted.Principal,
		ThingName: admitted.ThingName,
		Indexed:   admitted.Indexed,
		Transient: admitted.Provisioning,
		Guard:     deviceGuard{admitted.Guard},
		Until:     admitted.Until, UntilReason: broker.ReasonServerInitiated,
	}, nil
}

// deviceGuard speaks of user properties as the broker does.
type deviceGuard struct{ *deviceauth.Guard }

// Enrich implements broker.Guard.
func (g deviceGuard) Enrich(own []mqtt.UserProperty) []mqtt.UserProperty {
	gain := g.Gain()
	if len(gain) == 0 {
		return own
	}
	all := make([]mqtt.UserProperty, len(own), len(own)+len(gain))
	copy(all, own)
	for _, p := range gain {
		all = append(all, mqtt.UserProperty(p))
	}
	return all
}

// admitSigned lets the permissions of an access key decide: on the CONNECT, the
// will, and each packet after that.
func (g *gatekeeper) admitSigned(ctx context.Context, c *broker.ConnectRequest, opened *upgrade) (broker.Admission, error) {
	c.Account, c.Principal = opened.caller.Account, opened.caller.Principal
	if g.names.Closed(c.Account) {
		return broker.Admission{}, fault.New(fault.Unauthorized, "the account of the access key is closed")
	}
	guard := &signedGuard{
		operators: g.operators, principal: c.Principal, opened: g.signed,
		scope: fleet.Scope{Region: g.region, Account: c.Account},
		ctx:   proven(context.WithoutCancel(ctx), *opened.caller),
	}
	ctx = proven(ctx, *opened.caller)
	// Before the question, so that a key that is taken away after the answer finds
	// the connection.
	g.signed.add(guard, c.ClientID)
	err := guard.authorize(ctx, broker.ActionConnect, fleet.ARNClient, c.ClientID)
	if err == nil && c.Will != nil {
		err = guard.authorize(ctx, broker.ActionPublish, fleet.ARNTopic, c.Will.Topic)
		if err == nil && c.Will.Retain {
			err = guard.authorize(ctx, broker.ActionRetain, fleet.ARNTopic, c.Will.Topic)
		}
	}
	if err != nil {
		guard.Close()
		return broker.Admission{}, err
	}
	g.operators.Used(ctx, opened.caller.AccessKeyID)
	return broker.Admission{
		Account: c.Account, Principal: c.Principal, Guard: guard,
		Until: opened.until, UntilReason: broker.ReasonWebSocketExpired,
	}, nil
}

// signedGuard asks for each packet what the access key may do that opened the
// connection. There is nothing to keep: the answer is made from memory.
type signedGuard struct {
	operators operators
	principal fleet.Principal
	scope     fleet.Scope
	opened    *signedConnections
	// ctx carries the proof of the caller to the question about each packet.
	ctx context.Context //nolint:containedctx // packets have none, and it ends with nothing
}

// authorize asks about one resource.
func (g *signedGuard) authorize(ctx context.Context, action, kind, name string) error {
	return g.operators.Authorize(ctx, g.principal, action, g.scope.ARN(kind, name)) //nolint:wrapcheck // it is a fault
}

// may asks about a packet, which has no context.
func (g *signedGuard) may(action, kind, name string) bool {
	return g.authorize(g.ctx, action, kind, name) == nil
}

// CanPublish implements broker.Guard.
func (g *signedGuard) CanPublish(topic string, retain bool) bool {
	return g.may(broker.ActionPublish, fleet.ARNTopic, topic) && (!retain || g.may(broker.ActionRetain, fleet.ARNTopic, topic))
}

// CanSubscribe implements broker.Guard.
func (g *signedGuard) CanSubscribe(filter string) bool {
	return g.may(broker.ActionSubscribe, fleet.ARNTopicFilter, filter)
}

// CanReceive implements broker.Guard.
func (g *signedGuard) CanReceive(topic string) bool {
	return g.may(broker.ActionReceive, fleet.ARNTopic, topic)
}

// Enrich implements broker.Guard: an access key acts as no thing.
func (g *signedGuard) Enrich(own []mqtt.UserProperty) []mqtt.UserProperty { return own }

// Close implements broker.Guard.
func (g *signedGuard) Close() { g.opened.remove(g) }

// deviceRegistry lets deviceauth ask the registry: the same answers under the
// names that each side chose.
type deviceRegistry struct {
	*registry.Service

	// session is how long a connection for provisioning lasts that has no limit of
	// its own.
	session time.Duration
}

// Certificate implements deviceauth.Registry.
func (d deviceRegistry) Certificate(ctx context.Context, account fleet.Account, id string) (deviceauth.Certificate, error) {
	c, err := d.Service.Certificate(ctx, account, id)
	return deviceauth.Certificate{
		ID: c.ID, ARN: c.ARN, Status: c.Status, NotAfter: c.NotAfter, PEM: c.PEM, SNIOnly: c.Mode == registry.ModeSNIOnly,
		Boundary: d.boundaryOf(&c.Purpose),
	}, err
}

// boundaryOf is what a purpose holds a certificate to.
func (d deviceRegistry) boundaryOf(p *registry.Purpose) deviceauth.Boundary {
	b := deviceauth.Boundary{Template: p.Template, Serial: p.Serial, Until: p.ReopenedUntil, Session: d.session}
	switch {
	case p.Purpose == registry.PurposeBirth:
		b.Kind = deviceauth.BoundaryBirth
	case p.Purpose == registry.PurposeClaim:
		b.Kind = deviceauth.BoundaryClaim
	case p.Quarantined:
		return deviceauth.Boundary{Kind: deviceauth.BoundaryQuarantine}
	default:
		return deviceauth.Boundary{}
	}
	if p.Session > 0 {
		b.Session = time.Duration(p.Session) * time.Second
	}
	for _, text := range p.Networks {
		network, _ := netip.ParsePrefix(text) // it was checked when it was set; what cannot be read contains nothing
		b.Networks = append(b.Networks, network)
	}
	return b
}

// ConnectionThing implements deviceauth.Registry.
func (d deviceRegistry) ConnectionThing(ctx context.Context, account fleet.Account, principalARN, clientID string) (deviceauth.Thing, bool, error) {
	t, ok, err := d.Service.ConnectionThing(ctx, account, principalARN, clientID)
	thing := deviceauth.Thing{
		Name: t.Name, TypeName: t.TypeName, Attributes: t.Attributes, Exclusive: t.Exclusive, Attached: t.Attached, Version: t.Version,
	}
	for _, p := range t.Propagating {
		thing.Propagating = append(thing.Propagating, deviceauth.Propagation{
			Key: p.UserPropertyKey, ThingAttribute: p.ThingAttribute, ConnectionAttribute: p.ConnectionAttribute,
		})
	}
	return thing, ok, err
}

// EffectivePolicies implements deviceauth.Registry.
func (d deviceRegistry) EffectivePolicies(ctx context.Context, account fleet.Account, principalARN, thing string) ([]deviceauth.Policy, error) {
	found, err := d.Service.EffectivePolicies(ctx, account, principalARN, thing)
	policies := make([]deviceauth.Policy, len(found))
	for i, p := range found {
		policies[i] = deviceauth.Policy{Name: p.Name, ARN: p.ARN, VersionID: p.VersionID, Document: p.Document}
		for _, a := range p.Attachments {
			policies[i].Attachments = append(policies[i].Attachments, iotpolicy.Attachment(a))
		}
	}
	return policies, err
}

// Policy implements deviceauth.Registry.
func (d deviceRegistry) Policy(ctx context.Context, account fleet.Account, name string) (deviceauth.Policy, error) {
	p, err := d.DescribePolicy(ctx, account, name)
	return deviceauth.Policy{Name: p.Name, ARN: p.ARN, VersionID: p.DefaultVersionID, Document: []byte(p.Document)}, err
}

// apiDevices recognizes client certificates on HTTPS.
type apiDevices struct {
	devices *deviceauth.Service
	names   *names
}

// DeviceIdentity implements awsapi.Devices.
func (a *apiDevices) DeviceIdentity(ctx context.Context, certificate *x509.Certificate, serverName string) (fleet.Account, fleet.Principal, error) {
	if err := a.names.check(serverName); err != nil {
		return "", fleet.Principal{}, err
	}
	id, err := a.devices.Identify(ctx, serverName, certificate)
	return id.Account, id.Principal, err
}

// operators decides about access keys.
type operators interface {
	Authorize(ctx context.Context, principal fleet.Principal, action, resource string) error
	// Used notes that an access key was proven.
	Used(ctx context.Context, accessKeyID string)
}

// permissions answers every adapter: policies for devices, accounts for
// operators.
type permissions struct {
	devices   *deviceauth.Service
	operators operators
}

// Authorize implements awsapi.Authorizer.
func (a *permissions) Authorize(ctx context.Context, caller awsapi.Caller, action, resource string) error {
	kind := caller.Principal.Kind
	if kind != fleet.PrincipalCertificate && kind != fleet.PrincipalCustom {
		a.operators.Used(ctx, caller.AccessKeyID)
		return a.operators.Authorize(proven(ctx, caller), caller.Principal, action, resource)
	}
	call := deviceauth.Call{Action: action, RemoteAddr: caller.SourceAddress}
	if resource != awsapi.AnyResource {
		arn, ok := fleet.ParseARN(resource)
		if !ok {
			return fault.New(fault.Forbidden, "%s is no resource of a device policy", resource)
		}
		call.Kind, call.Name = arn.Kind, arn.Name
	}
	if custom, ok := caller.Grant.(deviceauth.Custom); ok && kind == fleet.PrincipalCustom {
		return a.devices.AuthorizeCustom(ctx, custom, call)
	}
	id, err := a.devices.Identify(ctx, caller.ServerName, caller.Certificate)
	if err != nil {
		return err
	}
	return a.devices.Authorize(ctx, id, call)
}

// refusals lets operators ask why devices of their account were refused.
type refusals struct{ devices *deviceauth.Service }

// ClientRefusals implements adminapi.Devices.
func (r refusals) ClientRefusals(ctx context.Context, clientID string) deviceauth.Refusals {
	return r.devices.ClientRefusals(callerAccount(ctx), clientID)
}

// PrincipalRefusals implements adminapi.Devices.
func (r refusals) PrincipalRefusals(ctx context.Context, principalID string) deviceauth.Refusals {
	return r.devices.PrincipalRefusals(callerAccount(ctx), principalID)
}

// Explain implements adminapi.Devices.
func (r refusals) Explain(ctx context.Context, q deviceauth.Question) (deviceauth.Answer, error) {
	return r.devices.Explain(ctx, callerAccount(ctx), q)
}
