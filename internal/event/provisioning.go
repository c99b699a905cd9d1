package event

import "time"

// ProvisioningTemplateChanged reports a provisioning template as it is after
// the change; after a deletion only its name holds.
type ProvisioningTemplateChanged struct {
	Template string         `json:"template"`
	Change   TemplateChange `json:"change"`
	Type     string         `json:"type,omitempty"`
	Enabled  bool           `json:"enabled,omitempty"`
	// Version is the version that was made or deleted, 0 for other changes.
	Version        int64 `json:"version,omitempty"`
	DefaultVersion int64 `json:"defaultVersion,omitempty"`
}

// TemplateChange says what happened to a provisioning template.
type TemplateChange string

// Changes of provisioning templates.
const (
	TemplateCreated        TemplateChange = "CREATED"
	TemplateUpdated        TemplateChange = "UPDATED"
	TemplateVersionCreated TemplateChange = "VERSION_CREATED"
	TemplateVersionDeleted TemplateChange = "VERSION_DELETED"
	TemplateDeleted        TemplateChange = "DELETED"
)

// ProvisioningMethod is the way by which a device joins.
type ProvisioningMethod string

// Ways of joining.
const (
	// ProvisioningClaim is fleet provisioning by a claim that is built into
	// devices, ProvisioningTrustedUser by one that CreateProvisioningClaim made.
	ProvisioningClaim       ProvisioningMethod = "CLAIM"
	ProvisioningTrustedUser ProvisioningMethod = "TRUSTED_USER"
	// ProvisioningJITP runs the template of the device's authority,
	// ProvisioningJITR registers the certificate and leaves the rest to others.
	ProvisioningJITP ProvisioningMethod = "JITP"
	ProvisioningJITR ProvisioningMethod = "JITR"
	// ProvisioningRegisterThing is the call of an operator, ProvisioningBulk a
	// line of a registration task.
	ProvisioningRegisterThing ProvisioningMethod = "REGISTER_THING"
	ProvisioningBulk          ProvisioningMethod = "BULK"
	// ProvisioningRenewal is a device that exchanges its own certificate.
	ProvisioningRenewal ProvisioningMethod = "RENEWAL"
)

// DeviceProvisioned reports a template that was carried out for one device. What
// it made has events of its own in the same commit.
type DeviceProvisioned struct {
	Method ProvisioningMethod `json:"method"`
	// Template and TemplateVersion are empty for a body that has no name.
	Template        string `json:"template,omitempty"`
	TemplateVersion int64  `json:"templateVersion,omitempty"`
	// Thing is empty when the template has none.
	Thing         string `json:"thing,omitempty"`
	ThingCreated  bool   `json:"thingCreated,omitempty"`
	CertificateID string `json:"certificateId,omitempty"`
	// ClaimID is the id of the certificate with which the device asked.
	ClaimID  string `json:"claimId,omitempty"`
	ClientID string `json:"clientId,omitempty"`
	// Task is the id of the registration task.
	Task string `json:"task,omitempty"`
	// TypeName and Attributes are the thing's after it, CACertificateID the
	// registered authority of the certificate; events of earlier programs lack them.
	TypeName        string            `json:"typeName,omitempty"`
	Attributes      map[string]string `json:"attributes,omitempty"`
	CACertificateID string            `json:"caCertificateId,omitempty"`
	// Evidence is why the gate let the device in; empty without a gate.
	Evidence []ProvisioningEvidence `json:"evidence,omitempty"`
}

// ProvisioningEvidence is something that speaks for a device. It carries nothing of
// a list's content.
type ProvisioningEvidence struct {
	Kind EvidenceKind `json:"kind"`
	// Ref names it: the list with its revision, the request, the template that is
	// bound.
	Ref string `json:"ref"`
	// Detail is how it speaks for the device: what matched, who said yes.
	Detail string `json:"detail,omitempty"`
}

// EvidenceKind is what a ProvisioningEvidence is.
type EvidenceKind string

// Kinds of evidence.
const (
	// EvidenceList is an entry of an allow list.
	EvidenceList EvidenceKind = "ALLOW_LIST"
	// EvidenceApproval is a yes of authorities, EvidenceRule one of a rule without
	// anybody being asked.
	EvidenceApproval EvidenceKind = "APPROVAL"
	EvidenceRule     EvidenceKind = "RULE"
)

// ProvisioningRefused reports a device that a template, a hook or a state has
// refused. Nothing of it was carried out.
type ProvisioningRefused struct {
	Method        ProvisioningMethod `json:"method"`
	Template      string             `json:"template,omitempty"`
	CertificateID string             `json:"certificateId,omitempty"`
	ClaimID       string             `json:"claimId,omitempty"`
	ClientID      string             `json:"clientId,omitempty"`
	// Code is the error code that the device got, Reason what the operator
	// should know.
	Code   string `json:"code"`
	Reason string `json:"reason"`
	// Misuse is set when the claim was used in a way that it is not for.
	Misuse ClaimMisuse `json:"misuse,omitempty"`
}

// CertificateAutoRegistered reports a certificate of a registered authority that
// has connected and waits for activation: at its first connect, and again at
// later ones.
type CertificateAutoRegistered struct {
	CertificateID   string `json:"certificateId"`
	CACertificateID string `json:"caCertificateId"`
	// Registered is when the certificate was registered, in milliseconds.
	Registered int64 `json:"registered"`
}

// ProvisioningClaimCreated reports a claim for a trusted user.
type ProvisioningClaimCreated struct {
	Template      string    `json:"template"`
	CertificateID string    `json:"certificateId"`
	Expires       time.Time `json:"expires"`
}

// RegistrationTaskChanged reports a step of a bulk registration. What it did for
// each line has events of its own.
type RegistrationTaskChanged struct {
	Task   string `json:"task"`
	Status string `json:"status"`
	// Succeeded and Failed count the lines done so far.
	Succeeded int64  `json:"succeeded,omitempty"`
	Failed    int64  `json:"failed,omitempty"`
	Message   string `json:"message,omitempty"`
}

// CertificateProviderChanged reports that certificate requests of an account are
// signed by another function, or by none.
type CertificateProviderChanged struct {
	Provider string                    `json:"provider"`
	Change   CertificateProviderChange `json:"change"`
}

// CertificateProviderChange says what happened to a certificate provider.
type CertificateProviderChange string

// Changes of certificate providers.
const (
	CertificateProviderCreated CertificateProviderChange = "CREATED"
	CertificateProviderUpdated CertificateProviderChange = "UPDATED"
	CertificateProviderDeleted CertificateProviderChange = "DELETED"
)

// ApprovalChanged reports that a device waits for people, that one of them has
// spoken, or what has become of it.
type ApprovalChanged struct {
	Request       string `json:"request"`
	State         string `json:"state"`
	Template      string `json:"template"`
	CertificateID string `json:"certificateId"`
	Thing         string `json:"thing,omitempty"`
	// Authority, Verdict and Reason are of a vote.
	Authority string `json:"authority,omitempty"`
	Verdict   string `json:"verdict,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// ApprovalAuthorityChanged reports that somebody else decides, or nobody.
type ApprovalAuthorityChanged struct {
	Authority string         `json:"authority"`
	Change    ApprovalChange `json:"change"`
}

// ApprovalBindingChanged reports that others decide about the devices of a template.
type ApprovalBindingChanged struct {
	Template string         `json:"template"`
	Change   ApprovalChange `json:"change"`
}

// ApprovalChange says what happened to an authority or a binding.
type ApprovalChange string

// Changes of authorities and bindings.
const (
	ApprovalCreated ApprovalChange = "CREATED"
	ApprovalUpdated ApprovalChange = "UPDATED"
	ApprovalDeleted ApprovalChange = "DELETED"
)

// CertificateRenewalChanged reports a step of a thing's way from one certificate
// to the next.
type CertificateRenewalChanged struct {
	Thing            string             `json:"thing"`
	OldCertificateID string             `json:"oldCertificateId"`
	NewCertificateID string             `json:"newCertificateId"`
	Step             CertificateRenewal `json:"step"`
	// ProvenAt and ClientID are of the connection that proves the new one, from
	// PROVEN on.
	ProvenAt time.Time `json:"provenAt,omitzero"`
	ClientID string    `json:"clientId,omitempty"`
	// Reason says what became of the old certificate, or why the step was taken.
	Reason string `json:"reason,omitempty"`
}

// CertificateRenewal is a step of a renewal.
type CertificateRenewal string

// Steps of a renewal.
const (
	// RenewalBegun attached the new certificate beside the old one.
	RenewalBegun CertificateRenewal = "BEGUN"
	// RenewalProven saw the thing connect with the new one.
	RenewalProven CertificateRenewal = "PROVEN"
	// RenewalCompleted retired the old one.
	RenewalCompleted CertificateRenewal = "COMPLETED"
	// RenewalUnproven came to the end of its time without a proof that holds: the
	// old certificate stays.
	RenewalUnproven CertificateRenewal = "UNPROVEN"
	// RenewalSuperseded was not proven when the thing began another one with the
	// same old certificate.
	RenewalSuperseded CertificateRenewal = "SUPERSEDED"
	// RenewalAbandoned can come to no end any more: the new certificate or the
	// thing is gone.
	RenewalAbandoned CertificateRenewal = "ABANDONED"
)

// ProvisioningPlanChanged reports a provisioning plan, the document of how
// devices of a product line come into service.
type ProvisioningPlanChanged struct {
	Plan   string     `json:"plan"`
	Change PlanChange `json:"change"`
	// Version is the version that was written, published or retired.
	Version int64 `json:"version"`
}

// PlanChange says what happened to a provisioning plan.
type PlanChange string

// Changes of provisioning plans.
const (
	// PlanDrafted wrote the plan's draft.
	PlanDrafted PlanChange = "DRAFTED"
	// PlanPublished put the draft in force and froze it.
	PlanPublished PlanChange = "PUBLISHED"
	// PlanRetired lets no further device follow the plan.
	PlanRetired PlanChange = "RETIRED"
)

// OnboardingChanged reports that a device came on along its provisioning plan: a
// step of the plan, a state, or both.
type OnboardingChanged struct {
	// Device is the device's key: its serial, or the id of its certificate.
	Device      string `json:"device"`
	Plan        string `json:"plan"`
	PlanVersion int64  `json:"planVersion"`
	Thing       string `json:"thing,omitempty"`
	// State is the device's after the change; PreviousState the one before, empty
	// for a device that is new.
	State         string `json:"state"`
	PreviousState string `json:"previousState,omitempty"`
	// Stage is the stage that it is in after the change; empty when all are done.
	Stage string `json:"stage,omitempty"`
	// Steps are the steps of the plan that were completed.
	Steps []string `json:"steps,omitempty"`
}

// OnboardingCriteriaFailed reports an active device for which an exit criterion of
// its plan did not come to hold in time.
type OnboardingCriteriaFailed struct {
	Device        string `json:"device"`
	Plan          string `json:"plan"`
	PlanVersion   int64  `json:"planVersion"`
	Thing         string `json:"thing,omitempty"`
	CertificateID string `json:"certificateId,omitempty"`
	Stage         string `json:"stage"`
	// Predicate is the fleet query that did not hold.
	Predicate   string        `json:"predicate"`
	Within      time.Duration `json:"within"`
	ActivatedAt time.Time     `json:"activatedAt"`
}

// ClaimMisuse says how a claim was used that it is not for.
type ClaimMisuse string

// The ways.
const (
	// ClaimOtherNetwork is a network that the claim was not used from before, or that
	// the binding of the template does not have.
	ClaimOtherNetwork ClaimMisuse = "NETWORK"
	// ClaimOtherTemplate is a template that the claim is not for.
	ClaimOtherTemplate ClaimMisuse = "TEMPLATE"
	// ClaimAtOtherTime is outside the hours of the binding.
	ClaimAtOtherTime ClaimMisuse = "TIME"
	// ClaimOverQuota is more devices than the binding allows in a day.
	ClaimOverQuota ClaimMisuse = "QUOTA"
	// ClaimOtherSerial is a birth certificate with which more than one device was to
	// be made.
	ClaimOtherSerial ClaimMisuse = "SERIAL"
)

// ClaimMisused reports a use of a claim that its owner did not mean; the same one
// again is told once an hour until somebody settles it.
type ClaimMisused struct {
	ClaimID string      `json:"claimId"`
	Kind    ClaimMisuse `json:"kind"`
	// Network is /24 of IPv4 or /48 of IPv6; empty where there was no address.
	Network       string `json:"network,omitempty"`
	Template      string `json:"template,omitempty"`
	CertificateID string `json:"certificateId,omitempty"`
	Reason        string `json:"reason,omitempty"`
}

// ClaimMisuseSettled reports that somebody has looked into the misuse of a claim.
type ClaimMisuseSettled struct {
	ClaimID string `json:"claimId"`
	Note    string `json:"note"`
}
