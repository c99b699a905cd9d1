package deviceauth

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// Question asks what a device could do as a client right now.
type Question struct {
	ClientID string
	// CertificateID may be empty when the client is connected or was refused
	// lately: then it is the certificate of that.
	CertificateID string
	Action        string
	// Topic is a topic, or a topic filter for iot:Subscribe; Resource is an ARN,
	// or its end, such as "topic/a". One of them is given, none for iot:Connect
	// as the client itself.
	Topic, Resource string
}

// Answer is what would be decided now, from the registry as it is.
type Answer struct {
	ClientID  string          `json:"clientId"`
	Principal fleet.Principal `json:"principal"`
	// Connected says that the values are those of a live connection; without one
	// its address, server name and the features of its CONNECT have no value.
	Connected bool `json:"connected"`
	Explanation
}

// Explain answers a question without doing anything. Faults: InvalidRequest for
// a question that cannot be asked, ResourceNotFound for a certificate that does
// not exist.
func (s *Service) Explain(ctx context.Context, account fleet.Account, q Question) (Answer, error) {
	asked, err := s.requestOf(account, &q)
	if err != nil {
		return Answer{}, err
	}
	if q.CertificateID == "" {
		if q.CertificateID = s.principalOf(account, q.ClientID); q.CertificateID == "" {
			return Answer{}, fault.New(fault.InvalidRequest,
				"certificateId must be given: the client %q is not connected with a certificate and was not refused lately", brief(q.ClientID))
		}
	}
	if g := s.sessions.find(account, q.CertificateID, q.ClientID); g != nil {
		c, err := g.compile(ctx)
		if err != nil {
			return Answer{}, err
		}
		return s.answer(g.subject(c), asked, true), nil
	}
	return s.explainAbsent(ctx, account, &q, asked)
}

// answer explains and says for whom.
func (s *Service) answer(sub *subject, q request, connected bool) Answer {
	return Answer{ClientID: sub.by.clientID, Principal: sub.id.Principal, Connected: connected, Explanation: s.explain(sub, q)}
}

// explainAbsent answers for a client that is away.
func (s *Service) explainAbsent(ctx context.Context, account fleet.Account, q *Question, asked request) (Answer, error) {
	if !fleet.ValidCertificateID(q.CertificateID) {
		return Answer{}, fault.New(fault.InvalidRequest, "certificateId must be 64 hexadecimal digits")
	}
	id, found, err := s.stored(ctx, account, q.CertificateID)
	if err != nil {
		return Answer{}, err
	}
	sub := &subject{id: &id, by: &caller{clientID: q.ClientID}}
	if _, err = s.activeCertificate(ctx, account, found.ID); err == nil {
		err = checkDates(id.certificate, s.now())
	}
	if problem := problemOf(err); problem != "" {
		return Answer{ClientID: q.ClientID, Principal: id.Principal, Explanation: s.explainIdentity(sub, asked, err)}, nil
	}
	if err != nil {
		return Answer{}, err
	}
	thing, attached, err := s.registry.ConnectionThing(ctx, account, found.ARN, q.ClientID)
	if err != nil {
		return Answer{}, unavailable(err)
	}
	if attached {
		sub.thing = &thing
	}
	if sub.set, err = s.compile(ctx, &id, sub.by, sub.thing); err != nil {
		return Answer{}, err
	}
	if sub.bounds, err = s.bound(found.Boundary, account); err != nil {
		return Answer{}, err
	}
	sub.set = sub.bounds.within(sub.set)
	return s.answer(sub, asked, false), nil
}

// stored is the identity of a registered certificate in any state.
func (s *Service) stored(ctx context.Context, account fleet.Account, certificateID string) (Identity, Certificate, error) {
	found, err := s.registry.Certificate(ctx, account, certificateID)
	if err != nil {
		return Identity{}, Certificate{}, err //nolint:wrapcheck // it is a fault
	}
	block, _ := pem.Decode([]byte(found.PEM))
	if block == nil {
		return Identity{}, Certificate{}, fault.New(fault.Internal, "the stored certificate %s cannot be read", certificateID)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return Identity{}, Certificate{}, fault.Wrap(fault.Internal, err, "the stored certificate %s cannot be read", certificateID)
	}
	return Identity{
		Account: account, certificate: certificate, notAfter: certificate.NotAfter,
		Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: found.ID, ARN: found.ARN},
	}, found, nil
}

// principalOf is who a client id was last; empty for nobody known.
func (s *Service) principalOf(account fleet.Account, clientID string) string {
	if s.connected != nil {
		if id, ok := s.connected(account, clientID); ok {
			return id
		}
	}
	return s.known.newestPrincipal(account, clientID)
}

// requestOf makes the question one about an ARN.
func (s *Service) requestOf(account fleet.Account, q *Question) (request, error) {
	asked := request{packet: packetOf(q.Action), action: q.Action}
	kind := fleet.ARNTopic
	switch q.Action {
	case iotpolicy.ActionPublish, iotpolicy.ActionRetainPublish, iotpolicy.ActionReceive:
	case iotpolicy.ActionSubscribe:
		kind = fleet.ARNTopicFilter
	case iotpolicy.ActionConnect:
		asked.packet, kind = PacketConnect, ""
		if q.Resource == "" {
			q.Resource = fleet.ARNClient + "/" + q.ClientID
		}
	default:
		return request{}, fault.New(fault.InvalidRequest, "action must be one of iot:Connect, iot:Publish, iot:RetainPublish, iot:Subscribe and iot:Receive")
	}
	switch {
	case q.ClientID == "":
		return request{}, fault.New(fault.InvalidRequest, "clientId must be given")
	case len(q.Topic)+len(q.Resource)+len(q.ClientID) > 1<<16:
		return request{}, fault.New(fault.InvalidRequest, "clientId, topic and resource are longer than %d bytes", 1<<16)
	case q.Topic != "" && (q.Resource != "" || kind == ""):
		return request{}, fault.New(fault.InvalidRequest, "topic cannot be given with a resource, nor for iot:Connect")
	case q.Topic != "":
		asked.resource = s.scope(account).ARN(kind, q.Topic)
	case strings.HasPrefix(q.Resource, "arn:"):
		asked.resource = q.Resource
	case strings.Contains(q.Resource, "/"):
		kind, name, _ := strings.Cut(q.Resource, "/")
		asked.resource = s.scope(account).ARN(kind, name)
	default:
		return request{}, fault.New(fault.InvalidRequest, "topic or resource must be given; a resource is an ARN or its end, such as topic/a")
	}
	return asked, nil
}
