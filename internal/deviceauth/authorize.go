package deviceauth

import (
	"context"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// Call is a request on the data plane over mutual TLS, outside any MQTT
// connection.
type Call struct {
	// Action is for example iotpolicy.ActionGetThingShadow.
	Action string
	// Kind and Name make the ARN that the action is on; a named shadow is of kind
	// thing, its name that of the thing, a slash and its own. An empty Kind is an
	// action without resource, which policies allow on an asterisk.
	Kind, Name string
	// RemoteAddr is the peer's address, with or without port.
	RemoteAddr string
}

// Authorize decides about a call of an identified device. There is no
// connection, so the variables of the client id and of the connection's thing
// have no value, and policies of groups do not apply. A certificate under a
// boundary is let do nothing here. It answers
// fault.Forbidden, or fault.Unauthorized when the certificate was deactivated
// since it was identified.
func (s *Service) Authorize(ctx context.Context, id Identity, c Call) error {
	if id.certificate == nil {
		return fault.New(fault.Unauthorized, "A client certificate is required")
	}
	found, err := s.activeCertificate(ctx, id.Account, id.Principal.ID)
	if err != nil {
		return err
	}
	if err := checkDates(id.certificate, s.now()); err != nil {
		return err
	}
	sub := &subject{id: &id, by: &caller{sourceIP: address(c.RemoteAddr)}}
	if sub.set, err = s.compile(ctx, &id, sub.by, nil); err != nil {
		return err
	}
	if sub.bounds, err = s.bound(found.Boundary, id.Account); err != nil {
		return err
	}
	sub.set = sub.bounds.withinCall(sub.set)
	return s.decideCall(ctx, sub, &c)
}

// decideCall decides about a call by the subject's set.
func (s *Service) decideCall(ctx context.Context, sub *subject, c *Call) error {
	resource := "*"
	if c.Kind != "" {
		resource = s.scope(sub.id.Account).ARN(c.Kind, c.Name)
	}
	if thing, _, named := strings.Cut(c.Name, "/"); named && c.Kind == fleet.ARNThing {
		resource = decisive(sub.set, c.Action, resource, s.scope(sub.id.Account).ARN(c.Kind, thing))
	}
	return s.decide(ctx, sub, request{PacketCall, c.Action, resource})
}

// decisive returns which of the two ARNs of a named shadow decides: policies may
// name the shadow or its thing. Either may allow, and a Deny of either refuses.
func decisive(set *iotpolicy.Set, action, shadow, thing string) string {
	switch set.Decide(action, thing).Outcome {
	case iotpolicy.ExplicitDeny:
		return thing
	case iotpolicy.Allowed:
		if set.Decide(action, shadow).Outcome == iotpolicy.ImplicitDeny {
			return thing
		}
	case iotpolicy.ImplicitDeny:
	}
	return shadow
}
