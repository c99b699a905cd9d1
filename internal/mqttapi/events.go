package mqttapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/event"
)

// presencePayload is the message on $aws/events/presence/…; the order of the
// members is the documented one.
type presencePayload struct {
	ClientID                  string `json:"clientId"`
	ThingName                 string `json:"thingName,omitempty"`
	Timestamp                 int64  `json:"timestamp"`
	EventType                 string `json:"eventType"`
	ConnectFailureReason      string `json:"connectFailureReason,omitempty"`
	SessionIdentifier         string `json:"sessionIdentifier"`
	PrincipalIdentifier       string `json:"principalIdentifier"`
	IPAddress                 string `json:"ipAddress,omitempty"`
	ClientInitiatedDisconnect *bool  `json:"clientInitiatedDisconnect,omitempty"`
	DisconnectReason          string `json:"disconnectReason,omitempty"`
	VersionNumber             *int64 `json:"versionNumber,omitempty"`
}

// reasonClientInitiated is the one clean end of a connection.
const reasonClientInitiated = "CLIENT_INITIATED_DISCONNECT"

// Apply follows the event log and publishes lifecycle events.
func (h *Handler) Apply(ctx context.Context, events []event.Envelope) error {
	for _, env := range events {
		switch e := env.Event.(type) {
		case event.DeviceConnected:
			h.presence(ctx, env, e.Session, presencePayload{
				EventType: "connected", IPAddress: e.IPAddress, ThingName: e.ThingName, VersionNumber: &e.Version,
			})
		case event.DeviceDisconnected:
			clean := e.Reason == reasonClientInitiated
			h.presence(ctx, env, e.Session, presencePayload{
				EventType: "disconnected", ThingName: e.ThingName, ClientInitiatedDisconnect: &clean, DisconnectReason: e.Reason, VersionNumber: &e.Version,
			})
		case event.ConnectRefused:
			h.presence(ctx, env, e.Session, presencePayload{
				EventType: "connect_failed", IPAddress: e.IPAddress, ConnectFailureReason: e.Reason,
			})
		case event.ThingCreated, event.ThingUpdated, event.ThingDeleted,
			event.ThingTypeCreated, event.ThingTypeUpdated, event.ThingTypeDeleted,
			event.ThingGroupCreated, event.ThingGroupUpdated, event.ThingGroupDeleted, event.MembershipChanged,
			event.PrincipalAttached, event.PrincipalDetached,
			event.PolicyChanged, event.PolicyAttached, event.PolicyDetached,
			event.CertificateCreated, event.CertificateStatusChanged, event.CertificateDeleted,
			event.ShadowUpdated, event.ShadowDeleted:
			// Registry events are off until they can be switched on; shadow
			// answers are published by the request itself.
		}
	}
	return nil
}

// presence publishes one lifecycle event. A client id with a wildcard makes no
// topic, as on AWS.
func (h *Handler) presence(ctx context.Context, env event.Envelope, s event.Session, p presencePayload) {
	if !publishable(s.ClientID) {
		return
	}
	p.ClientID, p.SessionIdentifier, p.PrincipalIdentifier = s.ClientID, s.SessionID, s.Principal
	p.Timestamp = env.At.UnixMilli()
	payload, err := json.Marshal(p)
	if err != nil {
		h.log.ErrorContext(ctx, "lifecycle event is not published", slog.Any("err", fmt.Errorf("encode: %w", err)))
		return
	}
	m := broker.Message{Topic: "$aws/events/presence/" + p.EventType + "/" + s.ClientID, Payload: payload, QoS: 1}
	if err := h.publish(ctx, env.Account, m); err != nil {
		h.log.ErrorContext(ctx, "lifecycle event is not published", slog.String("topic", m.Topic), slog.Any("err", err))
	}
}
