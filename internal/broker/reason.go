package broker

import (
	"errors"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/mqtt"
)

// DisconnectReason says why a connection ended, in the words of AWS's
// lifecycle events.
type DisconnectReason string

// Reasons.
const (
	ReasonAuthError           DisconnectReason = "AUTH_ERROR"
	ReasonClientInitiated     DisconnectReason = "CLIENT_INITIATED_DISCONNECT"
	ReasonClientError         DisconnectReason = "CLIENT_ERROR"
	ReasonConnectionLost      DisconnectReason = "CONNECTION_LOST"
	ReasonDuplicateClientID   DisconnectReason = "DUPLICATE_CLIENTID"
	ReasonForbiddenAccess     DisconnectReason = "FORBIDDEN_ACCESS"
	ReasonKeepAliveTimeout    DisconnectReason = "MQTT_KEEP_ALIVE_TIMEOUT"
	ReasonServerError         DisconnectReason = "SERVER_ERROR"
	ReasonServerInitiated     DisconnectReason = "SERVER_INITIATED_DISCONNECT"
	ReasonAPIInitiated        DisconnectReason = "API_INITIATED_DISCONNECT"
	ReasonThrottled           DisconnectReason = "THROTTLED"
	ReasonWebSocketExpired    DisconnectReason = "WEBSOCKET_TTL_EXPIRATION"
	ReasonCustomAuthorExpired DisconnectReason = "CUSTOMAUTH_TTL_EXPIRATION"
)

// code returns what an MQTT 5 client is told when the broker ends a connection
// for a reason.
func (r DisconnectReason) code() mqtt.ReasonCode {
	switch r {
	case ReasonAuthError, ReasonForbiddenAccess:
		return mqtt.NotAuthorized
	case ReasonClientError:
		return mqtt.ProtocolError
	case ReasonDuplicateClientID:
		return mqtt.SessionTakenOver
	case ReasonKeepAliveTimeout:
		return mqtt.KeepAliveTimeout
	case ReasonServerInitiated:
		return mqtt.ServerShuttingDown
	case ReasonAPIInitiated:
		return mqtt.AdministrativeAction
	case ReasonThrottled:
		return mqtt.QuotaExceeded
	case ReasonWebSocketExpired, ReasonCustomAuthorExpired:
		return mqtt.MaximumConnectTime
	case ReasonClientInitiated, ReasonConnectionLost, ReasonServerError:
		return mqtt.UnspecifiedError
	default:
		return mqtt.UnspecifiedError
	}
}

// cause is why a session ends. The first one that is given counts.
type cause struct {
	reason DisconnectReason
	// code goes into the DISCONNECT of MQTT 5; Success sends none.
	code mqtt.ReasonCode
	// noWill withholds the will.
	noWill bool
	// endSession ends a persistent session with the connection.
	endSession bool
	// err is for the log.
	err error
}

// because returns the cause of an end that the broker decides on.
func because(r DisconnectReason) *cause { return &cause{reason: r, code: r.code()} }

// clientError returns the cause of a violation with its own code.
func clientError(code mqtt.ReasonCode, err error) *cause {
	return &cause{reason: ReasonClientError, code: code, err: err}
}

// causeOf turns a codec's error into a cause.
func causeOf(err error) *cause {
	if wire, ok := errors.AsType[*mqtt.Error](err); ok {
		return clientError(wire.Reason, err)
	}
	return &cause{reason: ReasonServerError, code: mqtt.UnspecifiedError, err: err}
}

// ErrPeerLeft is what reading from a connection fails with when its peer said
// goodbye below MQTT, as a Close frame of WebSocket does. That is as good as a
// DISCONNECT.
var ErrPeerLeft = errors.New("peer has left")

// finalCause is the one place that decides why a connection ended: for the
// first cause that somebody recorded, else because reading failed. A write that
// failed because the peer had left just before is no cause of its own.
func finalCause(recorded *cause, readErr error) cause {
	if errors.Is(readErr, ErrPeerLeft) && (recorded == nil || recorded.reason == ReasonConnectionLost) {
		return cause{reason: ReasonClientInitiated, noWill: true}
	}
	if recorded != nil {
		return *recorded
	}
	return cause{reason: ReasonConnectionLost, err: readErr}
}

// connackCode returns how a refusal by the gatekeeper is told: MQTT 5 code,
// return code before, and the reason for the observer.
func connackCode(err error) (code mqtt.ReasonCode, before byte, reason string) {
	switch fault.CodeOf(err) {
	case fault.Forbidden, fault.Unauthorized:
		return mqtt.NotAuthorized, mqtt.ReturnNotAuthorized, ConnectFailureAuthorization
	case fault.Throttling:
		return mqtt.QuotaExceeded, mqtt.ReturnServerUnavailable, ConnectFailureThrottled
	default:
		return mqtt.ServerUnavailable, mqtt.ReturnServerUnavailable, ConnectFailureUnavailable
	}
}

// pubackCode returns what a publisher is told whose message was not taken in.
func pubackCode(err error) mqtt.ReasonCode {
	switch fault.CodeOf(err) {
	case "":
		return mqtt.Success
	case fault.Forbidden, fault.Unauthorized:
		return mqtt.NotAuthorized
	case fault.Throttling:
		return mqtt.QuotaExceeded
	default:
		return mqtt.UnspecifiedError
	}
}
