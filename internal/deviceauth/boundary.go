package deviceauth

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// Boundary is what holds a certificate to provisioning, whatever its policies
// say. The zero value holds it to nothing.
type Boundary struct {
	// Kind is one of the Boundary constants.
	Kind string
	// Template is the only one that may be asked for; empty for all.
	Template string
	// Serial is the only client id that may connect; empty for any.
	Serial string
	// Networks are those that it may connect from; none for all.
	Networks []netip.Prefix
	// Session is how long a connection lasts, 0 for as long as it likes, and Until
	// when all of them end, zero for never.
	Session time.Duration
	Until   time.Time
}

// Kinds of boundaries.
const (
	BoundaryBirth = "BIRTH"
	BoundaryClaim = "CLAIM"
	// BoundaryQuarantine is that of the certificates of a thing in quarantine.
	BoundaryQuarantine = "QUARANTINE"
)

// Bootstrap topics are where a device that knows nothing but its birth
// certificate learns what to ask for.
const bootstrapTopic = "$muster/bootstrap/get"

// holds reports whether there is a boundary.
func (b *Boundary) holds() bool { return b.Kind != "" }

// ofPurpose reports whether the certificate itself is for provisioning.
func (b *Boundary) ofPurpose() bool { return b.holds() && b.Kind != BoundaryQuarantine }

// name is what the boundary is called where policies are named. No policy can be
// created with such a name.
func (b *Boundary) name() string {
	switch b.Kind {
	case BoundaryClaim:
		return "system/Claim"
	case BoundaryQuarantine:
		return "system/Quarantine"
	}
	return "system/Birth"
}

// says is the boundary in words.
func (b *Boundary) says() string {
	who := "the certificate is for provisioning only (" + b.Kind + ")"
	if b.Kind == BoundaryQuarantine {
		who = "the certificate's thing is in quarantine"
	}
	what := "connect, ask for a certificate and be provisioned"
	if b.Template != "" {
		what += " by template " + b.Template
	}
	return who + ": it can " + what + " over MQTT and nothing else, whatever policies allow"
}

// fix says how to lift the boundary.
func (b *Boundary) fix(id *Identity) Fix {
	if b.Kind == BoundaryQuarantine {
		return Fix{Text: "Release the thing from quarantine, if what put it there is settled; policies cannot reach beyond it.", Command: "muster quarantine list"}
	}
	return Fix{
		Text:    "Let the device use the certificate that it was provisioned with, or provision it; policies cannot reach beyond the boundary.",
		Command: "muster certificates purpose " + id.Principal.ID,
	}
}

// document is the boundary as a policy. What may be published are the requests
// alone; what may be subscribed to and received are the answers to them.
func (b *Boundary) document(scope fleet.Scope) ([]byte, error) {
	type statement struct {
		Sid      string   `json:"Sid"`
		Effect   string   `json:"Effect"`
		Action   []string `json:"Action"`
		Resource []string `json:"Resource"`
	}
	client, template := "*", "*"
	if b.Serial != "" {
		client = literal(b.Serial)
	}
	if b.Template != "" {
		template = b.Template
	}
	const keys, csr = "$aws/certificates/create/", "$aws/certificates/create-from-csr/"
	provision := "$aws/provisioning-templates/" + template + "/provision/"
	asked := []string{scope.ARN(fleet.ARNTopic, bootstrapTopic)}
	answers := []string{scope.ARN(fleet.ARNTopic, bootstrapTopic+"/*"), scope.ARN(fleet.ARNTopicFilter, bootstrapTopic+"/*")}
	for _, prefix := range []string{keys, csr, provision} {
		asked = append(asked, scope.ARN(fleet.ARNTopic, prefix+"json"), scope.ARN(fleet.ARNTopic, prefix+"cbor"))
		answers = append(answers, scope.ARN(fleet.ARNTopic, prefix+"*"), scope.ARN(fleet.ARNTopicFilter, prefix+"*"))
	}
	document, err := json.Marshal(struct {
		Version   string      `json:"Version"`
		Statement []statement `json:"Statement"`
	}{"2012-10-17", []statement{
		{"Connect", string(iotpolicy.Allow), []string{iotpolicy.ActionConnect}, []string{scope.ARN(fleet.ARNClient, client)}},
		{"Ask", string(iotpolicy.Allow), []string{iotpolicy.ActionPublish}, asked},
		{"Hear", string(iotpolicy.Allow), []string{iotpolicy.ActionSubscribe, iotpolicy.ActionReceive}, answers},
		// A wildcard stands behind a fixed prefix or not at all.
		{"NoWildcardForTemplate", string(iotpolicy.Deny), []string{iotpolicy.ActionSubscribe}, []string{
			scope.ARN(fleet.ARNTopicFilter, "$aws/provisioning-templates/+*"), scope.ARN(fleet.ARNTopicFilter, "$aws/provisioning-templates/*/+/provision/*"),
		}},
	}})
	if err != nil {
		return nil, fmt.Errorf("encode a boundary: %w", err)
	}
	return document, nil
}

// bounds is a boundary that was compiled for a caller; nil holds nobody.
type bounds struct {
	Boundary
	set *iotpolicy.Set
}

// bound compiles a boundary; nil for none.
func (s *Service) bound(b Boundary, account fleet.Account) (*bounds, error) {
	if !b.holds() {
		return nil, nil //nolint:nilnil // most callers have none
	}
	text, err := b.document(s.scope(account))
	if err != nil {
		return nil, unavailable(err)
	}
	var document *iotpolicy.Document
	if b.Serial == "" {
		document, err = s.documents.parse(text)
	} else {
		// One for each device: to keep them would push out those that are shared.
		document, err = parseDocument(text)
	}
	if err != nil {
		return nil, unavailable(err)
	}
	ref := iotpolicy.PolicyRef{Name: b.name(), ARN: s.scope(account).ARN(fleet.ARNPolicy, b.name()), Version: "1", Document: document}
	return &bounds{b, iotpolicy.Compile([]iotpolicy.PolicyRef{ref}, &iotpolicy.Context{})}, nil
}

// within holds a set to the boundary.
func (b *bounds) within(set *iotpolicy.Set) *iotpolicy.Set {
	if b == nil {
		return set
	}
	return set.Within(b.set)
}

// withinCall holds the set of a call outside any connection to the boundary,
// which knows none.
func (b *bounds) withinCall(set *iotpolicy.Set) *iotpolicy.Set {
	if b == nil {
		return set
	}
	b.set = iotpolicy.Compile(nil, &iotpolicy.Context{})
	return set.Within(b.set)
}

// refuses reports whether the boundary is in the way of a request.
func (b *bounds) refuses(q request) bool {
	return b != nil && b.set.Decide(q.action, q.resource).Outcome != iotpolicy.Allowed
}

// mayCome refuses a CONNECT that the boundary does not let in, whatever it is for
// then.
func (s *Service) mayCome(g *Guard, b *bounds, r *Request) error {
	if b == nil {
		return nil
	}
	refuse := func(problem identityProblem, format string, args ...any) error {
		return fault.Wrap(fault.Unauthorized, &identityError{problem: problem}, format, args...)
	}
	from := g.caller.sourceIP
	switch {
	case len(b.Networks) > 0 && !slices.ContainsFunc(b.Networks, func(n netip.Prefix) bool { return n.Contains(from) }):
		return refuse(problemNetwork, "The certificate %s may not connect from %s", g.id.Principal.ID, from)
	case r.Will != nil:
		return refuse(problemWill, "The connection has a will on %s, which a certificate for provisioning cannot leave", brief(r.Will.Topic))
	}
	if s.holds != nil {
		if other, ok := s.holds(g.id.Account, r.ClientID); ok && other != g.id.Principal.ID {
			return refuse(problemTaken, "The client id %s is connected with another certificate, which a certificate for provisioning cannot push out", brief(r.ClientID))
		}
	}
	return nil
}

// ends is when a connection under the boundary ends; zero for never.
func (b *bounds) ends(now time.Time) time.Time {
	if b == nil {
		return time.Time{}
	}
	end := b.Until
	if b.Session > 0 && (end.IsZero() || now.Add(b.Session).Before(end)) {
		end = now.Add(b.Session)
	}
	return end
}

// Bound answers fault.Unauthorized for a certificate under a boundary: whoever has
// shown one comes in by it or not at all. It is for callers that somebody else
// vouches for. A certificate that the account does not have is nothing to it.
func (s *Service) Bound(ctx context.Context, serverName string, certificate *x509.Certificate) error {
	if certificate == nil {
		return nil
	}
	account, err := s.account(serverName)
	if err != nil {
		return fault.Wrap(fault.Unauthorized, &identityError{problemServerName, err}, "The server name selects no account")
	}
	id := CertificateID(certificate)
	found, err := s.registry.Certificate(ctx, account, id)
	switch {
	case fault.CodeOf(err) == fault.ResourceNotFound:
		return nil
	case err != nil:
		return unavailable(err)
	case !found.Boundary.holds():
		return nil
	}
	return fault.Wrap(fault.Unauthorized, &identityError{problem: problemCustom},
		"The certificate %s was shown; %s, and other credentials cannot stand in for it", id, strings.TrimSuffix(found.Boundary.says(), ", whatever policies allow"))
}
