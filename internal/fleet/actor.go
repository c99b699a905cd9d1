package fleet

import "context"

// Principal kinds.
const (
	// PrincipalUser is a caller that signed its request with an access key.
	PrincipalUser = "user"
	// PrincipalRole is a caller that signed with the credentials of a session in
	// a role.
	PrincipalRole = "role"
	// PrincipalCertificate is a device that presented a registered certificate.
	PrincipalCertificate = "certificate"
	// PrincipalCustom is a device that a custom authorizer vouched for.
	PrincipalCustom = "custom"
	// PrincipalSystem is Muster itself: timers, projections, recovery.
	PrincipalSystem = "system"
	// PrincipalAnonymous is a connection of the plain listener for tests.
	PrincipalAnonymous = "anonymous"
)

// Principal is who acts: an operator, a device or the system.
type Principal struct {
	Kind string `json:"kind"`
	// ID is the access key's user name, the certificate id, or what a custom
	// authorizer calls its caller.
	ID string `json:"id,omitempty"`
	// ARN names the principal; empty for the system, anonymous connections and
	// those of custom authorizers.
	ARN string `json:"arn,omitempty"`
}

// Actor is the origin of a command, carried into every event so that the
// audit trail is a projection of the log.
type Actor struct {
	Principal Principal `json:"principal"`
	// SourceAddress is the peer's IP address without port.
	SourceAddress string `json:"sourceAddress,omitempty"`
	// AccessKeyID is what the caller signed with; empty for other proofs.
	AccessKeyID string `json:"accessKeyId,omitempty"`
	// RequestID is the id that the reply carries.
	RequestID string `json:"requestId,omitempty"`
	// ClientID is the MQTT client id, when the act came over MQTT.
	ClientID string `json:"clientId,omitempty"`
	// Trace is a W3C traceparent, when there is one.
	Trace string `json:"trace,omitempty"`
}

// System is the actor of what Muster does on its own.
var System = Actor{Principal: Principal{Kind: PrincipalSystem}}

type actorKey struct{}

// WithActor returns a context whose commands are recorded as done by actor.
func WithActor(ctx context.Context, actor Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// ActorFrom returns the context's actor, or System when none was set.
func ActorFrom(ctx context.Context) Actor {
	if actor, ok := ctx.Value(actorKey{}).(Actor); ok {
		return actor
	}
	return System
}
