package deviceauth

import (
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
)

// Apply takes committed events in order. When it returns, no packet that
// arrives later is decided by what they replaced, and the connections of
// certificates that may no longer connect were told to end.
//
// An event that concerns one certificate or one thing is felt by its sessions
// only; a policy, one attached to a group, or what a thing type propagates, by
// all sessions of the account.
func (s *Service) Apply(envelopes []event.Envelope) {
	for i := range envelopes {
		s.apply(envelopes[i].Account, envelopes[i].Event)
	}
}

// apply finds the sessions that an event concerns.
func (s *Service) apply(account fleet.Account, fact event.Event) {
	switch e := fact.(type) {
	case event.ThingUpdated:
		s.sessions.touch(account, byThing, e.Thing.Thing)
	case event.ThingDeleted:
		s.sessions.touch(account, byThing, e.Thing)
	case event.MembershipChanged:
		if !e.Dynamic { // dynamic groups carry no policies
			s.sessions.touch(account, byThing, e.Thing)
		}
	case event.ThingGroupDeleted:
		if !e.Dynamic {
			s.sessions.touchAccount(account)
		}
	case event.PrincipalAttached:
		s.touchPrincipal(account, e.Principal)
	case event.PrincipalDetached:
		s.touchPrincipal(account, e.Principal)
	case event.PolicyAttached:
		s.touchTarget(account, e.Target)
	case event.PolicyDetached:
		s.touchTarget(account, e.Target)
	case event.PolicyChanged:
		if changesDecisions(e) {
			s.sessions.touchAccount(account)
		}
	case event.CertificateStatusChanged:
		if e.Used {
			s.sessions.leaveAt(account, e.CertificateID, s.now().Add(usedGrace))
			return
		}
		s.certificateChanged(account, e.CertificateID, e.Status)
	case event.CertificateDeleted:
		s.certificateChanged(account, e.CertificateID, "")
	case event.CertificatePurposeChanged:
		s.purposeChanged(account, e)
	case event.CACertificateChanged:
		if e.Change == event.CACertificatePurposeSet {
			s.sessions.touchAccount(account)
		}
	case event.ThingQuarantined:
		s.touchCertificates(account, e.Certificates)
	case event.ThingReleased:
		s.touchCertificates(account, e.Certificates)
	case event.ThingTypeUpdated:
		if e.PropagatingChanged {
			s.sessions.touchAccount(account)
		}
	case event.ThingCreated, event.ThingTypeCreated, event.ThingTypeDeleted,
		event.ThingGroupCreated, event.ThingGroupUpdated, event.CertificateCreated, event.AuthorizerChanged,
		event.ShadowUpdated, event.ShadowDeleted,
		event.DeviceConnected, event.DeviceDisconnected, event.ConnectRefused, event.SubscriptionsChanged,
		event.BillingGroupCreated, event.BillingGroupUpdated, event.BillingGroupDeleted,
		event.BillingGroupMembershipChanged, event.ThingDecommissioned, event.AttributeRulesChanged, event.TagsChanged,
		event.EventConfigurationsChanged, event.RegistrationCodeChanged,
		event.RevocationListImported, event.CertificateTransferChanged, event.OperatorChanged, event.AccountChanged,
		event.APICalled, event.ConfigurationChanged, event.IndexingConfigurationChanged,
		event.ConnectivityStateChanged, event.ConnectivitySettingsChanged, event.LatencyMeasured, event.BulkEditChanged,
		event.ProvisioningTemplateChanged, event.DeviceProvisioned, event.ProvisioningRefused, event.CertificateAutoRegistered,
		event.ProvisioningClaimCreated, event.RegistrationTaskChanged, event.CertificateProviderChanged, event.CertificateRenewalChanged,
		event.ApprovalChanged, event.ApprovalAuthorityChanged, event.ApprovalBindingChanged,
		event.ProvisioningPlanChanged, event.OnboardingChanged, event.OnboardingCriteriaFailed,
		event.ClaimMisused, event.ClaimMisuseSettled,
		event.SupplierChanged, event.AllowListChanged, event.AllowListRead, event.AllowListEntryChanged, event.DuplicateSerial,
		event.RogueDevice, event.LedgerAnchored,
		event.PromiseSettled,
		event.BirthCertificateChanged, event.BirthCertificateMisused,
		event.BootstrapAssignmentChanged, event.BootstrapAnswered, event.BootstrapRefused:
		// Nothing that a permission depends on: a new thing, group or
		// certificate is attached to nothing, and parents of groups never
		// change. Custom authorizers are asked again when their answer is old.
	}
}

// changesDecisions reports whether the version in force is another one.
func changesDecisions(e event.PolicyChanged) bool {
	switch e.Change {
	case event.PolicyDefaultVersionSet, event.PolicyDeleted:
		return true
	case event.PolicyVersionCreated:
		return e.VersionID == e.DefaultVersionID
	case event.PolicyCreated, event.PolicyVersionDeleted:
	}
	return false
}

// usedGrace is how long the connection of a certificate lasts that has just
// provisioned its device: the answer is on its way.
const usedGrace = 5 * time.Second

// certificateChanged ends the connections of a certificate unless it is
// active.
func (s *Service) certificateChanged(account fleet.Account, id, status string) {
	revoked := status != StatusActive
	s.sessions.setRevoked(account, id, revoked)
	if revoked {
		s.disconnect(account, id)
	}
}

// purposeChanged lets the connections of a certificate look again. Those that are
// for provisioning from now on, or within other limits, end: limits are asked
// about at CONNECT.
func (s *Service) purposeChanged(account fleet.Account, e event.CertificatePurposeChanged) {
	s.sessions.touch(account, byPrincipal, e.CertificateID)
	if e.Purpose != purposeOperational {
		s.disconnect(account, e.CertificateID)
	}
}

// purposeOperational is the purpose of a certificate without a boundary.
const purposeOperational = "OPERATIONAL"

// touchCertificates concerns the sessions of certificates.
func (s *Service) touchCertificates(account fleet.Account, ids []string) {
	for _, id := range ids {
		s.sessions.touch(account, byPrincipal, id)
	}
}

// touchPrincipal concerns the sessions of a certificate.
func (s *Service) touchPrincipal(account fleet.Account, arn string) {
	if parsed, ok := fleet.ParseARN(arn); ok && parsed.Kind == fleet.ARNCertificate {
		s.sessions.touch(account, byPrincipal, parsed.Name)
	}
}

// touchTarget concerns whoever a policy was attached to or detached from.
func (s *Service) touchTarget(account fleet.Account, arn string) {
	parsed, ok := fleet.ParseARN(arn)
	if ok && parsed.Kind == fleet.ARNCertificate {
		s.sessions.touch(account, byPrincipal, parsed.Name)
		return
	}
	s.sessions.touchAccount(account)
}
