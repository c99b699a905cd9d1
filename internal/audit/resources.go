package audit

import (
	"maps"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
)

// maxResources bounds what one record names; each is a row of its own.
const maxResources = 50

// resourcesOf names what events made, changed or removed, each once, in order.
func resourcesOf(scope fleet.Scope, events []event.Envelope) []string {
	var arns []string
	for i := range events {
		of := scope
		of.Account = events[i].Account
		arns = append(arns, resourcesOfEvent(of, events[i].Event)...)
	}
	return distinct(arns)
}

// distinct keeps the first of equal names, up to the bound, and no wildcard.
func distinct(arns []string) []string {
	seen := map[string]bool{"": true, "*": true}
	var kept []string
	for _, arn := range arns {
		if !seen[arn] && len(kept) < maxResources {
			seen[arn] = true
			kept = append(kept, arn)
		}
	}
	return kept
}

// principalARN names what an attachment refers to.
func principalARN(scope fleet.Scope, ref string) string {
	if ref == "" || strings.HasPrefix(ref, "arn:") {
		return ref
	}
	if kind, name, ok := strings.Cut(ref, "/"); ok {
		return scope.ARN(kind, name)
	}
	return scope.ARN(fleet.ARNCertificate, ref)
}

// resourcesOfEvent names what one event is about; all of them are decided about.
func resourcesOfEvent(scope fleet.Scope, e event.Event) []string { //nolint:gocyclo,cyclop // one case for each fact
	arn := func(kind, name string) []string { return []string{scope.ARN(kind, name)} }
	switch v := e.(type) {
	case event.ThingCreated:
		return arn(fleet.ARNThing, v.Thing.Thing)
	case event.ThingUpdated:
		return arn(fleet.ARNThing, v.Thing.Thing)
	case event.ThingDeleted:
		return arn(fleet.ARNThing, v.Thing)
	case event.ThingDecommissioned:
		out := arn(fleet.ARNThing, v.Thing)
		for _, id := range v.Certificates {
			out = append(out, scope.ARN(fleet.ARNCertificate, id))
		}
		return out
	case event.ThingTypeCreated:
		return arn(fleet.ARNThingType, v.TypeName)
	case event.ThingTypeUpdated:
		return arn(fleet.ARNThingType, v.TypeName)
	case event.ThingTypeDeleted:
		return arn(fleet.ARNThingType, v.TypeName)
	case event.AttributeRulesChanged:
		return arn(fleet.ARNThingType, v.TypeName)
	case event.ThingGroupCreated:
		return arn(fleet.ARNThingGroup, v.Group)
	case event.ThingGroupUpdated:
		return arn(fleet.ARNThingGroup, v.Group)
	case event.ThingGroupDeleted:
		return arn(fleet.ARNThingGroup, v.Group)
	case event.MembershipChanged:
		return []string{scope.ARN(fleet.ARNThingGroup, v.Group), scope.ARN(fleet.ARNThing, v.Thing)}
	case event.BillingGroupCreated:
		return arn(fleet.ARNBillingGroup, v.BillingGroup.BillingGroup)
	case event.BillingGroupUpdated:
		return arn(fleet.ARNBillingGroup, v.BillingGroup.BillingGroup)
	case event.BillingGroupDeleted:
		return arn(fleet.ARNBillingGroup, v.BillingGroup)
	case event.BillingGroupMembershipChanged:
		return []string{scope.ARN(fleet.ARNBillingGroup, v.BillingGroup), scope.ARN(fleet.ARNThing, v.Thing)}
	case event.PrincipalAttached:
		return []string{scope.ARN(fleet.ARNThing, v.Thing), principalARN(scope, v.Principal)}
	case event.PrincipalDetached:
		return []string{scope.ARN(fleet.ARNThing, v.Thing), principalARN(scope, v.Principal)}
	case event.PolicyChanged:
		return arn(fleet.ARNPolicy, v.Policy)
	case event.PolicyAttached:
		return []string{scope.ARN(fleet.ARNPolicy, v.Policy), principalARN(scope, v.Target)}
	case event.PolicyDetached:
		return []string{scope.ARN(fleet.ARNPolicy, v.Policy), principalARN(scope, v.Target)}
	case event.CertificateCreated:
		return arn(fleet.ARNCertificate, v.CertificateID)
	case event.CertificateStatusChanged:
		return arn(fleet.ARNCertificate, v.CertificateID)
	case event.CertificateDeleted:
		return arn(fleet.ARNCertificate, v.CertificateID)
	case event.CertificateTransferChanged:
		return arn(fleet.ARNCertificate, v.CertificateID)
	case event.CACertificateChanged:
		return arn(fleet.ARNCACert, v.CACertificateID)
	case event.RevocationListImported:
		return arn(fleet.ARNCACert, v.CACertificateID)
	case event.AuthorizerChanged:
		return arn(fleet.ARNAuthorizer, v.Authorizer)
	case event.CertificateProviderChanged:
		return arn(fleet.ARNCertificateProvider, v.Provider)
	case event.TagsChanged:
		return []string{v.ResourceARN}
	case event.ShadowUpdated:
		return arn(fleet.ARNThing, v.Thing)
	case event.ShadowDeleted:
		return arn(fleet.ARNThing, v.Thing)
	case event.ProvisioningTemplateChanged:
		return arn(fleet.ARNProvisioningTemplate, v.Template)
	case event.DeviceProvisioned:
		return named(scope, map[string]string{
			fleet.ARNProvisioningTemplate: v.Template, fleet.ARNThing: v.Thing, fleet.ARNCertificate: v.CertificateID,
		})
	case event.ProvisioningRefused:
		return named(scope, map[string]string{fleet.ARNProvisioningTemplate: v.Template, fleet.ARNCertificate: v.CertificateID})
	case event.CertificateAutoRegistered:
		return []string{scope.ARN(fleet.ARNCertificate, v.CertificateID), scope.ARN(fleet.ARNCACert, v.CACertificateID)}
	case event.ProvisioningClaimCreated:
		return []string{scope.ARN(fleet.ARNProvisioningTemplate, v.Template), scope.ARN(fleet.ARNCertificate, v.CertificateID)}
	case event.CertificateRenewalChanged:
		return []string{
			scope.ARN(fleet.ARNThing, v.Thing),
			scope.ARN(fleet.ARNCertificate, v.OldCertificateID), scope.ARN(fleet.ARNCertificate, v.NewCertificateID),
		}
	case event.ApprovalChanged:
		return named(scope, map[string]string{
			fleet.ARNProvisioningTemplate: v.Template, fleet.ARNThing: v.Thing, fleet.ARNCertificate: v.CertificateID,
		})
	case event.ApprovalBindingChanged:
		return []string{scope.ARN(fleet.ARNProvisioningTemplate, v.Template)}
	case event.OnboardingChanged:
		return named(scope, map[string]string{fleet.ARNThing: v.Thing})
	case event.OnboardingCriteriaFailed:
		return named(scope, map[string]string{fleet.ARNThing: v.Thing, fleet.ARNCertificate: v.CertificateID})
	case event.PromiseSettled:
		return named(scope, map[string]string{fleet.ARNProvisioningTemplate: v.Template, fleet.ARNThing: v.Thing})
	case event.ClaimMisused:
		return named(scope, map[string]string{
			fleet.ARNProvisioningTemplate: v.Template, fleet.ARNCertificate: v.ClaimID,
		})
	case event.ClaimMisuseSettled:
		return []string{scope.ARN(fleet.ARNCertificate, v.ClaimID)}
	case event.AllowListEntryChanged:
		return named(scope, map[string]string{fleet.ARNThing: v.Thing, fleet.ARNCertificate: v.CertificateID})
	case event.DuplicateSerial:
		return append(
			named(scope, map[string]string{fleet.ARNThing: v.OtherThing, fleet.ARNCertificate: v.OtherCertificateID}),
			named(scope, map[string]string{fleet.ARNThing: v.Thing, fleet.ARNCertificate: v.CertificateID})...,
		)
	case event.BootstrapAssignmentChanged:
		of := scope
		of.Account = v.Target
		return named(of, map[string]string{fleet.ARNProvisioningTemplate: v.Template})
	case event.BootstrapAnswered:
		of := scope
		of.Account = v.Target
		return append([]string{scope.ARN(fleet.ARNCertificate, v.CertificateID)}, named(of, map[string]string{fleet.ARNProvisioningTemplate: v.Template})...)
	case event.BootstrapRefused:
		return []string{scope.ARN(fleet.ARNCertificate, v.CertificateID)}
	case event.RogueDevice:
		return named(scope, map[string]string{
			fleet.ARNProvisioningTemplate: v.Template, fleet.ARNThing: v.Thing, fleet.ARNCertificate: v.CertificateID,
		})
	case event.CertificatePurposeChanged:
		return arn(fleet.ARNCertificate, v.CertificateID)
	case event.BirthCertificateChanged:
		return named(scope, map[string]string{fleet.ARNThing: v.Thing, fleet.ARNCertificate: v.CertificateID})
	case event.BirthCertificateMisused:
		return named(scope, map[string]string{fleet.ARNThing: v.Thing, fleet.ARNCertificate: v.CertificateID})
	case event.ThingQuarantined:
		return arn(fleet.ARNThing, v.Thing)
	case event.ThingReleased:
		return arn(fleet.ARNThing, v.Thing)
	case event.OperatorChanged:
		if v.Kind == event.OperatorSession {
			return nil
		}
		return []string{iamARN(scope.Account, string(v.Kind)+"/"+v.Name)}
	case event.AccountChanged:
		return []string{iamARN(scope.Account, "root")}
	case event.EventConfigurationsChanged, event.RegistrationCodeChanged,
		event.DeviceConnected, event.DeviceDisconnected, event.ConnectRefused, event.SubscriptionsChanged,
		event.APICalled, event.ConfigurationChanged, event.IndexingConfigurationChanged,
		event.ConnectivityStateChanged, event.ConnectivitySettingsChanged, event.LatencyMeasured, event.BulkEditChanged,
		event.RegistrationTaskChanged, event.ApprovalAuthorityChanged, event.ProvisioningPlanChanged, event.LedgerAnchored:
		// They are about the account, or about a connection.
	}
	return nil
}

// named returns the ARNs of those resources that have a name, by kind.
func named(scope fleet.Scope, of map[string]string) []string {
	var arns []string
	for _, kind := range slices.Sorted(maps.Keys(of)) {
		if of[kind] != "" {
			arns = append(arns, scope.ARN(kind, of[kind]))
		}
	}
	return arns
}
