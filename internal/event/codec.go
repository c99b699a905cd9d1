package event

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// schemaVersion is written into every stored event. Raise it when a stored
// form stops being readable by the previous code, and keep reading the old.
const schemaVersion = 1

// stored is the durable form of an envelope, which Encode writes by hand; place
// in the log is the key's.
type stored struct {
	Schema  int             `json:"v"`
	Type    string          `json:"type"`
	Account fleet.Account   `json:"account"`
	At      int64           `json:"at"`
	Actor   fleet.Actor     `json:"actor"`
	Event   json.RawMessage `json:"event"`
}

// kinds returns one zero value of every event, the registry for decoding.
func kinds() []Event {
	return []Event{
		ThingCreated{},
		ThingUpdated{},
		ThingDeleted{},
		ThingTypeCreated{},
		ThingTypeUpdated{},
		ThingTypeDeleted{},
		ThingGroupCreated{},
		ThingGroupUpdated{},
		ThingGroupDeleted{},
		MembershipChanged{},
		PrincipalAttached{},
		PrincipalDetached{},
		PolicyChanged{},
		PolicyAttached{},
		PolicyDetached{},
		CertificateCreated{},
		CertificateStatusChanged{},
		CertificateDeleted{},
		AuthorizerChanged{},
		ShadowUpdated{},
		ShadowDeleted{},
		DeviceConnected{},
		DeviceDisconnected{},
		ConnectRefused{},
		SubscriptionsChanged{},
		BillingGroupCreated{},
		BillingGroupUpdated{},
		BillingGroupDeleted{},
		BillingGroupMembershipChanged{},
		ThingDecommissioned{},
		AttributeRulesChanged{},
		TagsChanged{},
		EventConfigurationsChanged{},
		CACertificateChanged{},
		RegistrationCodeChanged{},
		RevocationListImported{},
		CertificateTransferChanged{},
		OperatorChanged{},
		AccountChanged{},
		APICalled{},
		ConfigurationChanged{},
		IndexingConfigurationChanged{},
		ConnectivityStateChanged{},
		ConnectivitySettingsChanged{},
		LatencyMeasured{},
		BulkEditChanged{},
		ProvisioningTemplateChanged{},
		DeviceProvisioned{},
		ProvisioningRefused{},
		CertificateAutoRegistered{},
		ProvisioningClaimCreated{},
		RegistrationTaskChanged{},
		CertificateProviderChanged{},
		CertificateRenewalChanged{},
		ApprovalChanged{},
		ApprovalAuthorityChanged{},
		ApprovalBindingChanged{},
		ProvisioningPlanChanged{},
		OnboardingChanged{},
		OnboardingCriteriaFailed{},
		PromiseSettled{},
		ClaimMisused{},
		ClaimMisuseSettled{},
		SupplierChanged{},
		AllowListChanged{},
		AllowListRead{},
		AllowListEntryChanged{},
		DuplicateSerial{},
		RogueDevice{},
		LedgerAnchored{},
		CertificatePurposeChanged{},
		BirthCertificateChanged{},
		BirthCertificateMisused{},
		ThingQuarantined{},
		ThingReleased{},
		BootstrapAssignmentChanged{},
		BootstrapAnswered{},
		BootstrapRefused{},
		CertificatePurposeChanged{},
		BirthCertificateChanged{},
		BirthCertificateMisused{},
		ThingQuarantined{},
		ThingReleased{},
	}
}

// types maps a stored type name to its Go type; read only after start.
var types = func() map[string]reflect.Type {
	all := map[string]reflect.Type{}
	for _, e := range kinds() {
		all[TypeName(e)] = reflect.TypeOf(e)
	}
	return all
}()

// TypeName returns the stable stored name of an event, which is its Go name.
func TypeName(e Event) string { return reflect.TypeOf(e).Name() }

// Encode returns the durable form of an envelope without its place in the log.
func Encode(env Envelope) ([]byte, error) {
	name := TypeName(env.Event)
	updated, isUpdate := env.Event.(ShadowUpdated)
	out := make([]byte, 0, envelopeSize+len(updated.Patch)+len(updated.Delta))
	out = appendNumber(out, `{"v":`, schemaVersion)
	out = appendText(out, `,"type":`, name)
	out = appendText(out, `,"account":`, string(env.Account))
	out = appendNumber(out, `,"at":`, env.At.UnixNano())
	out = appendActor(append(out, `,"actor":`...), &env.Actor)
	out = append(out, `,"event":`...)
	var err error
	if isUpdate {
		out, err = appendShadowUpdated(out, &updated)
	} else {
		out, err = appendEvent(out, env.Event)
	}
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", name, err)
	}
	return append(out, '}'), nil
}

// Decode reverses Encode; partition and sequence are the caller's to set.
func Decode(data []byte) (Envelope, error) {
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		return Envelope{}, fmt.Errorf("decode envelope: %w", err)
	}
	if s.Schema != schemaVersion {
		return Envelope{}, fmt.Errorf("decode event: schema version %d is not known to this program", s.Schema)
	}
	t, ok := types[s.Type]
	if !ok {
		return Envelope{}, fmt.Errorf("decode event: type %q is not known to this program", s.Type)
	}
	target := reflect.New(t)
	if err := json.Unmarshal(s.Event, target.Interface()); err != nil {
		return Envelope{}, fmt.Errorf("decode event %s: %w", s.Type, err)
	}
	e, ok := reflect.TypeAssert[Event](target.Elem())
	if !ok {
		return Envelope{}, fmt.Errorf("decode event: type %q is no event", s.Type)
	}
	return Envelope{Account: s.Account, At: time.Unix(0, s.At).UTC(), Actor: s.Actor, Event: e}, nil
}
