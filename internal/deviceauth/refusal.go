package deviceauth

import (
	"context"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// Packet is what was refused.
type Packet string

// Packets. A refused will is of the CONNECT that carries it.
const (
	PacketConnect   Packet = "CONNECT"
	PacketPublish   Packet = "PUBLISH"
	PacketSubscribe Packet = "SUBSCRIBE"
	// PacketDelivery is a message to a subscriber.
	PacketDelivery Packet = "DELIVERY"
	// PacketCall is a call over HTTPS.
	PacketCall Packet = "HTTP"
)

// Outcomes beside those of iotpolicy.
const (
	// OutcomeUnauthenticated is a caller whose certificate was not accepted: no
	// policy was looked at.
	OutcomeUnauthenticated = "UNAUTHENTICATED"
	// OutcomeUnavailable is a request that was refused because its permissions
	// could not be read.
	OutcomeUnavailable = "UNAVAILABLE"
)

// Refusal is something that a device was not let do, with all its repeats.
type Refusal struct {
	FirstAt time.Time `json:"firstAt"`
	LastAt  time.Time `json:"lastAt"`
	Count   int64     `json:"count"`
	Packet  Packet    `json:"packet"`
	// ClientID is empty for calls over HTTPS.
	ClientID string `json:"clientId,omitempty"`
	// Principal has an id without ARN for a certificate that is not registered,
	// and no id without a certificate.
	Principal  fleet.Principal `json:"principal"`
	SourceIP   string          `json:"sourceIp,omitempty"`
	ServerName string          `json:"serverName,omitempty"`
	Explanation
}

// Explanation is why something is allowed or not, for people. Texts are cut to
// a bounded length.
type Explanation struct {
	Action string `json:"action"`
	// Resource is the ARN that was asked about, Name the topic, filter or client
	// id in it.
	Resource string `json:"resource"`
	Name     string `json:"name"`
	// Outcome is one of iotpolicy's or one of the Outcome constants here.
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	// Thing is what the connection acts as; empty for none.
	Thing string `json:"thing,omitempty"`
	// DeniedBy and AllowedBy are the statements that match.
	DeniedBy  []Statement `json:"deniedBy,omitempty"`
	AllowedBy []Statement `json:"allowedBy,omitempty"`
	// Nearest are the Allow statements that come closest, best first.
	Nearest   []NearMiss      `json:"nearest,omitempty"`
	Variables []Variable      `json:"variables,omitempty"`
	Policies  []PolicyInForce `json:"policies,omitempty"`
	Hints     []string        `json:"hints,omitempty"`
	Fixes     []Fix           `json:"fixes,omitempty"`
	// Incomplete says that the explanation was left out, or cut, to bound work
	// and memory.
	Incomplete bool `json:"incomplete,omitempty"`
}

// Statement names one statement of a policy; Index counts from 0.
type Statement struct {
	Policy  string `json:"policy"`
	Version string `json:"version"`
	Index   int    `json:"statement"`
	Sid     string `json:"sid,omitempty"`
}

// NearMiss is an Allow statement that does not allow.
type NearMiss struct {
	Statement
	// Resource is as the policy has it, Resolved with the caller's values.
	Resource string `json:"resource"`
	Resolved string `json:"resolved,omitempty"`
	// ResourceMatches says that only Conditions are in the way.
	ResourceMatches bool `json:"resourceMatches,omitempty"`
	// Excluded says that Resource is a NotResource and names what was asked for.
	Excluded   bool        `json:"excluded,omitempty"`
	Missing    []string    `json:"missing,omitempty"`
	Wants      string      `json:"wants,omitempty"`
	Got        string      `json:"got,omitempty"`
	Conditions []Condition `json:"conditions,omitempty"`
	Hint       string      `json:"hint,omitempty"`
}

// Condition is one that does not hold.
type Condition struct {
	Operator string   `json:"operator"`
	Key      string   `json:"key"`
	Wanted   []string `json:"wanted"`
	Actual   []string `json:"actual"`
}

// Variable is a policy variable or condition key as the caller has it.
type Variable struct {
	Name string `json:"name"`
	// Values is empty for one without a value.
	Values []string `json:"values"`
}

// PolicyInForce is a policy that was considered.
type PolicyInForce struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`
	From    []Source `json:"from,omitempty"`
}

// Source is where a policy comes from.
type Source struct {
	// Kind is "certificate" or "group".
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Through is the thing's own group below this one.
	Through string `json:"through,omitempty"`
}

// Fix is one way to allow what was refused.
type Fix struct {
	Text string `json:"text"`
	// Statement is the smallest policy statement that would do, as JSON.
	Statement string `json:"statement,omitempty"`
	// Command does it, with the AWS command line.
	Command string `json:"command,omitempty"`
}

// subject is who asks, with what decides about it.
type subject struct {
	id    *Identity
	by    *caller
	thing *Thing
	set   *iotpolicy.Set
	// bounds is the boundary that set is within; nil for none.
	bounds *bounds
	// refusal says why the certificate may do nothing.
	refusal string
	problem identityProblem
	// stamp tells the compilations of sets apart.
	stamp uint64
}

// subject is what a guard's decisions are about.
func (g *Guard) subject(c *compiled) *subject {
	return &subject{id: &g.id, by: &g.caller, thing: c.thing, set: c.set, bounds: c.bounds, refusal: c.refusal, problem: c.problem, stamp: c.stamp}
}

// request is what a subject asks for.
type request struct {
	packet           Packet
	action, resource string
}

// packetOf is the packet of a connected session that needs an action.
func packetOf(action string) Packet {
	switch action {
	case iotpolicy.ActionSubscribe:
		return PacketSubscribe
	case iotpolicy.ActionReceive:
		return PacketDelivery
	}
	return PacketPublish
}

// refused keeps a refusal and returns its entry, which can count repeats. It
// explains unless the principal, or all of them together, had their share of
// that work.
func (s *Service) refused(sub *subject, q request) *entry {
	now := s.now()
	key := keyOf(sub, q)
	if e := s.known.repeat(key, sub.stamp, now); e != nil {
		return e
	}
	r := s.refusalOf(sub, q)
	if _, ok := s.explaining.Take(sub.id.Principal.ID, now); ok {
		r.Explanation = s.explain(sub, q)
	}
	return s.known.add(key, sub.stamp, now, &r)
}

// unreadable keeps a refusal for which there is no set to decide.
func (s *Service) unreadable(g *Guard, q request) {
	now := s.now()
	sub := &subject{id: &g.id, by: &g.caller}
	r := s.refusalOf(sub, q)
	r.Outcome, r.Incomplete = OutcomeUnavailable, false
	r.Reason = "the permissions could not be read from the store"
	r.Fixes = []Fix{{Text: "Look at the store: the server's log has the error. The device may try again."}}
	s.known.add(keyOf(sub, q), 0, now, &r)
}

// turnedAway keeps a CONNECT that was refused before any policy was asked. Only
// registered certificates take room from those who are known.
func (s *Service) turnedAway(id *Identity, r *Request, err error) {
	now := s.now()
	q := request{packet: PacketConnect, action: iotpolicy.ActionConnect, resource: s.scope(id.Account).ARN(fleet.ARNClient, r.ClientID)}
	sub := &subject{id: id, by: &caller{clientID: r.ClientID, sourceIP: address(r.RemoteAddr)}}
	refusal := s.refusalOf(sub, q)
	refusal.Explanation = s.explainIdentity(sub, q, err)
	into := &s.strange
	if id.Principal.ARN != "" {
		into = &s.known
	}
	into.add(keyOf(sub, q), 0, now, &refusal)
}

// keyOf says which refusals are the same as this one. It shares no memory with
// the packet.
func keyOf(sub *subject, q request) entryKey {
	q.resource = strings.Clone(brief(q.resource))
	return entryKey{account: sub.id.Account, client: sub.by.clientID, principal: sub.id.Principal.ID, request: q}
}

// NameRefused keeps and logs a CONNECT that a listener refused for its server name,
// before it was asked who it is.
func (s *Service) NameRefused(ctx context.Context, r Request, err error) {
	id := Identity{ServerName: r.ServerName, certificate: r.Certificate}
	id.Account, _ = s.account(r.ServerName) // the account is told of what was refused, also a closed one
	if r.Certificate != nil {
		id.Principal = fleet.Principal{Kind: fleet.PrincipalCertificate, ID: CertificateID(r.Certificate)}
	}
	err = fault.Wrap(fault.Unauthorized, &identityError{problemServerName, err}, "The server name selects no account")
	s.turnedAway(&id, &r, err)
	s.logStranger(ctx, &r, err)
}

// refusalOf is a refusal without explanation.
func (s *Service) refusalOf(sub *subject, q request) Refusal {
	r := Refusal{
		Packet: q.packet, ClientID: brief(sub.by.clientID), Principal: sub.id.Principal, ServerName: brief(sub.id.ServerName),
		Explanation: Explanation{Action: q.action, Resource: brief(q.resource), Name: brief(nameIn(q.resource)), Incomplete: true},
	}
	if sub.set != nil {
		r.Outcome = sub.set.Decide(q.action, q.resource).Outcome.String()
	}
	if sub.by.sourceIP.IsValid() {
		r.SourceIP = sub.by.sourceIP.String()
	}
	return r
}

// Refusals are the newest refusals of one client or one principal, newest
// first. They live as long as the process, and no longer than there is room.
type Refusals struct {
	Refusals []Refusal
	// Evicted counts refusals of all devices that gave way to others since the
	// process began: without any, nothing is missing.
	Evicted int64
}

// ClientRefusals returns those of a client id, also of those who could not prove
// to be a device of the account.
func (s *Service) ClientRefusals(account fleet.Account, clientID string) Refusals {
	return s.refusals(bookKey{account: account, client: true, name: clientID})
}

// PrincipalRefusals returns those of a certificate, by its id.
func (s *Service) PrincipalRefusals(account fleet.Account, principalID string) Refusals {
	return s.refusals(bookKey{account: account, name: principalID})
}

// refusals reads one book of both ledgers.
func (s *Service) refusals(key bookKey) Refusals {
	found := append(s.known.read(key), s.strange.read(key)...)
	// Who reached no account is shown in each.
	found = append(found, s.strange.read(bookKey{client: key.client, name: key.name})...)
	newestFirst(found)
	return Refusals{Refusals: found[:min(len(found), shownRefusals)], Evicted: s.known.evicted.Load() + s.strange.evicted.Load()}
}
