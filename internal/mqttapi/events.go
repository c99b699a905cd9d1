package mqttapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"

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

// subscriptionPayload is the message on $aws/events/subscriptions/…, in the
// documented order.
type subscriptionPayload struct {
	ClientID            string   `json:"clientId"`
	ThingName           string   `json:"thingName,omitempty"`
	Timestamp           int64    `json:"timestamp"`
	EventType           string   `json:"eventType"`
	SessionIdentifier   string   `json:"sessionIdentifier"`
	PrincipalIdentifier string   `json:"principalIdentifier"`
	Topics              []string `json:"topics"`
}

// maxTopicsText bounds the topics of one message, in bytes before they are
// quoted; a longer list makes several messages. A packet of the AWS profile
// fits into one.
const maxTopicsText = 16 << 10

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
		case event.SubscriptionsChanged:
			h.subscriptions(ctx, env, e)
		case event.ConnectivityStateChanged:
			h.connectivityState(ctx, env, &e)
		case event.CertificateAutoRegistered:
			h.certificateRegistered(ctx, env, &e)
		case event.EventConfigurationsChanged:
			h.registryEvents.enable(env.Account, e.Enabled)
		case event.ThingCreated, event.ThingUpdated, event.ThingDeleted,
			event.ThingTypeCreated, event.ThingTypeUpdated, event.ThingTypeDeleted,
			event.ThingGroupCreated, event.ThingGroupUpdated, event.ThingGroupDeleted, event.MembershipChanged:
			for _, m := range h.registryEvents.of(env) {
				h.lifecycle(ctx, env, m.topic, m.payload)
			}
		case event.PrincipalAttached, event.PrincipalDetached,
			event.PolicyChanged, event.PolicyAttached, event.PolicyDetached,
			event.CertificateCreated, event.CertificateStatusChanged, event.CertificateDeleted, event.AuthorizerChanged,
			event.ShadowUpdated, event.ShadowDeleted,
			event.BillingGroupCreated, event.BillingGroupUpdated, event.BillingGroupDeleted,
			event.BillingGroupMembershipChanged, event.ThingDecommissioned, event.AttributeRulesChanged, event.TagsChanged,
			event.CACertificateChanged, event.RegistrationCodeChanged,
			event.RevocationListImported, event.CertificateTransferChanged, event.OperatorChanged, event.AccountChanged,
			event.APICalled, event.ConfigurationChanged, event.IndexingConfigurationChanged,
			event.ConnectivitySettingsChanged, event.LatencyMeasured, event.BulkEditChanged,
			event.ProvisioningTemplateChanged, event.DeviceProvisioned, event.ProvisioningRefused, event.ProvisioningClaimCreated,
			event.RegistrationTaskChanged, event.CertificateProviderChanged, event.CertificateRenewalChanged,
			event.ApprovalChanged, event.ApprovalAuthorityChanged, event.ApprovalBindingChanged,
			event.ProvisioningPlanChanged, event.OnboardingChanged, event.OnboardingCriteriaFailed,
			event.ClaimMisused, event.ClaimMisuseSettled,
			event.SupplierChanged, event.AllowListChanged, event.AllowListRead, event.AllowListEntryChanged, event.DuplicateSerial,
			event.RogueDevice, event.LedgerAnchored,
			event.PromiseSettled,
			event.CertificatePurposeChanged, event.BirthCertificateChanged, event.BirthCertificateMisused, event.ThingQuarantined, event.ThingReleased,
			event.BootstrapAssignmentChanged, event.BootstrapAnswered, event.BootstrapRefused:
			// Nothing of these is published as an event; shadow answers are
			// published by the request itself.
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
	h.lifecycle(ctx, env, "presence/"+p.EventType+"/"+s.ClientID, p)
}

// subscriptions publishes the change that one packet made.
func (h *Handler) subscriptions(ctx context.Context, env event.Envelope, e event.SubscriptionsChanged) {
	if !publishable(e.ClientID) {
		return
	}
	p := subscriptionPayload{
		ClientID: e.ClientID, ThingName: e.ThingName, Timestamp: env.At.UnixMilli(), EventType: "unsubscribed",
		SessionIdentifier: e.SessionID, PrincipalIdentifier: e.Principal,
	}
	if e.Subscribed {
		p.EventType = "subscribed"
	}
	for rest := e.Filters; len(rest) > 0; {
		n, size := 0, 0
		for n == 0 || n < len(rest) && size+len(rest[n]) <= maxTopicsText {
			size += len(rest[n])
			n++
		}
		p.Topics, rest = rest[:n], rest[n:]
		h.lifecycle(ctx, env, "subscriptions/"+p.EventType+"/"+e.ClientID, p)
	}
}

// lifecycle publishes below $aws/events.
func (h *Handler) lifecycle(ctx context.Context, env event.Envelope, name string, content any) {
	payload, err := json.Marshal(content)
	if err != nil {
		h.log.ErrorContext(ctx, "lifecycle event is not published", slog.Any("err", fmt.Errorf("encode: %w", err)))
		return
	}
	m := broker.Message{Topic: "$aws/events/" + name, Payload: payload, QoS: 1}
	if err := h.publish(ctx, env.Account, m); err != nil {
		h.log.ErrorContext(ctx, "lifecycle event is not published", slog.String("topic", m.Topic), slog.Any("err", err))
	}
}

// registeredPayload is the event of a certificate that waits for activation.
type registeredPayload struct {
	CertificateID   string `json:"certificateId"`
	CACertificateID string `json:"caCertificateId"`
	// Timestamp is in milliseconds.
	Timestamp int64  `json:"timestamp"`
	Status    string `json:"certificateStatus"`
	Account   string `json:"awsAccountId"`
	// Registered is a number of milliseconds in a string, as on AWS IoT.
	Registered string `json:"certificateRegistrationTimestamp"`
}

// certificateRegistered publishes what rules and hooks activate certificates
// by.
func (h *Handler) certificateRegistered(ctx context.Context, env event.Envelope, e *event.CertificateAutoRegistered) {
	h.lifecycle(ctx, env, "certificates/registered/"+e.CACertificateID, registeredPayload{
		CertificateID: e.CertificateID, CACertificateID: e.CACertificateID, Timestamp: env.At.UnixMilli(),
		Status: "PENDING_ACTIVATION", Account: string(env.Account), Registered: strconv.FormatInt(e.Registered, 10),
	})
}
