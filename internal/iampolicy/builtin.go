package iampolicy

import (
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// BuiltinPrefix begins the ARNs of the policies that come with Muster.
const BuiltinPrefix = "arn:" + fleet.Partition + ":iam::aws:policy/"

// Names of the policies that come with Muster.
const (
	Viewer               = "MusterViewer"
	Operator             = "MusterOperator"
	FleetAdmin           = "MusterFleetAdmin"
	SecurityAdmin        = "MusterSecurityAdmin"
	ProvisioningApprover = "MusterProvisioningApprover"
	AllowListUploader    = "MusterAllowListUploader"
	AllowListVetter      = "MusterAllowListVetter"
)

// Actions that must not be in one hand: who approves what is provisioned is not
// who says what may be.
func approvals() []string {
	return []string{"ops:ApproveProvisioning"}
}

// supplies are the other side of approvals.
func supplies() []string {
	return []string{
		"ops:PutAllowList", "ops:DeleteAllowList", "ops:CreateAllowListLink", "ops:PutSupplier", "iot:CreateProvisioningTemplate", "iot:CreateProvisioningTemplateVersion",
		"iot:UpdateProvisioningTemplate",
	}
}

// Builtin is a policy that comes with Muster and cannot be changed.
type Builtin struct {
	Name, ARN, Description, Document string
}

// look is what everybody may who may anything. The audit trail is no part of it.
const look = `
  {"Sid":"Look","Effect":"Allow","Resource":"*","Action":["iot:Describe*","iot:Get*","iot:List*","iot:SearchIndex",
    "ops:Describe*","ops:Get*","ops:Check*","ops:ExportThings","ops:LintPolicy","ops:TestProvisioningTemplate","ops:ListFleet*","ops:ListPast*","ops:ListExpiring*","ops:ListCertificate*",
    "ops:ListUser*","ops:ListBulkEdit*","ops:ListProvisioningPlans","ops:ListOnboarding","ops:ListRole*","ops:ListAccess*","ops:ListApproval*","ops:ListClaimUses","ops:ListBootstrapAssignments","ops:ListSuppliers","ops:ListAllowList*","ops:ListRogues","ops:ListDrift","ops:ListQuarantine"]}`

// Builtins returns the policies that come with Muster.
func Builtins() []Builtin {
	of := func(name, description, statements string) Builtin {
		return Builtin{
			Name: name, ARN: BuiltinPrefix + name, Description: description,
			Document: `{"Version":"2012-10-17","Statement":[` + statements + "\n]}",
		}
	}
	return []Builtin{
		of(Viewer, "Sees the fleet: registry, shadows, index, jobs, history and refusals. Changes nothing, sees no secrets.", look),
		of(Operator, "Daily work: sees everything, edits things and shadows, moves things between groups, runs jobs, publishes, ends connections.", look+`,
  {"Sid":"Work","Effect":"Allow","Resource":"*","Action":["iot:CreateThing","iot:UpdateThing","iot:AddThingToThingGroup","iot:RemoveThingFromThingGroup",
    "iot:UpdateThingGroupsForThing","iot:AddThingToBillingGroup","iot:RemoveThingFromBillingGroup",
    "iot:UpdateThingShadow","iot:DeleteThingShadow","iot:Publish","iot:RetainPublish","iot:DeleteConnection","iot:SendDirectMessage",
    "ops:RestoreShadow","ops:*BulkEdit*","ops:RepairDrift","ops:ExpectDevice","ops:CompleteOnboardingStep","iot:CreateJob","iot:UpdateJob","iot:CancelJob","iot:CancelJobExecution","iot:DeleteJobExecution","iot:TestAuthorization"]},
  {"Sid":"Watch","Effect":"Allow","Resource":"*","Action":["iot:Subscribe","iot:Receive"]},
  {"Sid":"WatchAsConsole","Effect":"Allow","Resource":"arn:aws:iot:*:*:client/console-*","Action":"iot:Connect"}`),
		of(FleetAdmin, "Everything about the fleet, also provisioning templates and allow lists. Neither operators and their permissions, nor the audit trail, nor approvals.", look+`,
  {"Sid":"Fleet","Effect":"Allow","Resource":"*","Action":["iot:*","s3:*","ops:Drain","ops:Doctor","ops:Repair","ops:DecommissionThing","ops:SetAttributeRules","ops:RestoreShadow","ops:*BulkEdit*","ops:VerifyLedger","ops:*Drift","ops:PutCertificatePurpose","ops:ReprovisionThing","ops:*Quarantine",
    "ops:DeleteAttributeRules","ops:PutConnectivitySettings","ops:DeleteConnectivitySettings","ops:AssignGateway","ops:PutAllowList","ops:DeleteAllowList","ops:CreateAllowListLink","ops:RevokeAllowListLink","ops:PutSupplier","ops:DeleteSupplier","ops:Import*","ops:*BootstrapAssignment*","ops:*ProvisioningPlan*","ops:ExpectDevice","ops:CompleteOnboardingStep"]}`),
		of(SecurityAdmin, "Who may what: users, groups, roles, keys and their policies; certificates, authorities, device policies, authorizers; the audit trail; backups.", look+`,
  {"Sid":"Identities","Effect":"Allow","Resource":"*","Action":["iot:*Certificate*","iot:*CACertificate*","iot:*Policy*","iot:*Policies","iot:*Principal*",
    "iot:*Authorizer*","iot:*RegistrationCode","iot:*RoleAlias*","iot:TestAuthorization","iot:TestInvokeAuthorizer","iot:DeleteConnection",
    "iot:*ProvisioningTemplate*","iot:CreateProvisioningClaim"]},
  {"Sid":"Operators","Effect":"Allow","Resource":"*","Action":["ops:*User*","ops:*Group*","ops:*Role*","ops:*AccessKey*","ops:*AccessPolicy*","ops:*Session*",
    "ops:*Audit*","ops:ImportRevocationList","ops:PutCADeclaration","ops:PutApproval*","ops:DeleteApproval*","ops:SettleClaimMisuse","ops:PutAllowList","ops:DeleteAllowList","ops:VetAllowList","ops:ReadAllowList","ops:LookUpAllowListEntry","ops:SetAllowListEntry","ops:Backup","ops:Doctor","ops:VerifyLedger","ops:Put*Purpose","ops:ReprovisionThing","ops:*Quarantine"]}`),
		of(ProvisioningApprover, "Approves or denies what is provisioned. Cannot be combined with permissions to supply allow lists or templates.", look+`,
  {"Sid":"Approve","Effect":"Allow","Resource":"*","Action":["ops:ApproveProvisioning","ops:DenyProvisioning"]}`),
		of(AllowListUploader, "Uploads allow lists and sees how they stand. Reads none back, not even its own.", `
  {"Sid":"Upload","Effect":"Allow","Resource":"*","Action":["ops:PutAllowList","ops:ListAllowLists","ops:GetAllowList"]}`),
		of(AllowListVetter, "Reads allow lists that others have uploaded, and accepts or rejects them; blocks entries and sets them free.", look+`,
  {"Sid":"Vet","Effect":"Allow","Resource":"*","Action":["ops:VetAllowList","ops:ReadAllowList","ops:LookUpAllowListEntry","ops:SetAllowListEntry"]}`),
	}
}

// Separated returns an approving and a supplying action that the documents
// together allow to one principal, and false when they do not. A Deny of the
// action on everything, without conditions, takes a permission away; conditions
// and resources of an Allow do not count, since they can come true.
func Separated(documents []*iotpolicy.Document) (approval, supply string, both bool) {
	granted := func(actions []string) string {
		for _, action := range actions {
			allowed, denied := false, false
			for _, d := range documents {
				allowed = allowed || d.Touches(iotpolicy.Allow, action)
				denied = denied || d.AlwaysDenies(action)
			}
			if allowed && !denied {
				return action
			}
		}
		return ""
	}
	approval, supply = granted(approvals()), granted(supplies())
	return approval, supply, approval != "" && supply != ""
}
