package adminapi

import (
	"context"
	"net/http"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/provtemplate"
)

// ActionTestProvisioningTemplate is what the caller needs to try a template
// without consequences, on resource "*". The answer shows what a stored template
// says, so for one the caller must be allowed to describe it as well.
const ActionTestProvisioningTemplate = "ops:TestProvisioningTemplate"

const (
	actionDescribeTemplate        = "iot:DescribeProvisioningTemplate"
	actionDescribeTemplateVersion = "iot:DescribeProvisioningTemplateVersion"
)

// Templates tries provisioning templates.
type Templates interface {
	DryRun(ctx context.Context, account fleet.Account, c provisioning.DryRunCommand) (provisioning.DryRun, error)
}

// templateTestInput is the body of POST /ops/v1/provisioning-templates:test: a
// body, or the name of a stored template.
type templateTestInput struct {
	// TemplateBody need not be JSON, which is one of the things to find.
	TemplateBody string `json:"templateBody"`
	// Type is that of the body: FLEET_PROVISIONING when empty, JITP, or BULK for
	// the bodies of RegisterThing and of registration tasks.
	Type         string `json:"type"`
	TemplateName string `json:"templateName"`
	// VersionID is the version in force when 0.
	VersionID int64 `json:"versionId"`
	// Parameters are those of the device, and by their reserved names what its
	// certificate would say.
	Parameters map[string]string `json:"parameters"`
}

// templateTestOutput has a problem or a plan.
type templateTestOutput struct {
	Type string `json:"type"`
	// TemplateName, VersionID and Enabled are absent for a body.
	TemplateName string `json:"templateName,omitempty"`
	VersionID    int64  `json:"versionId,omitempty"`
	Enabled      *bool  `json:"enabled,omitempty"`
	// HookNotAsked is the target of the template's hook, which a dry run leaves
	// alone; it might refuse the device or change its parameters.
	HookNotAsked string `json:"hookNotAsked,omitempty"`
	// StandIns are values made up for what a certificate would bring.
	StandIns map[string]string `json:"standIns,omitempty"`
	// IgnoredParameters are those that the template does not declare.
	IgnoredParameters []string         `json:"ignoredParameters"`
	Problem           *templateProblem `json:"problem,omitempty"`
	Plan              *templatePlan    `json:"plan,omitempty"`
	// Missing is what the plan needs and the account does not have.
	Missing []missingResource `json:"missing"`
	// Refusal is why the device would be refused in spite of a plan.
	Refusal *templateRefusal `json:"refusal,omitempty"`
}

// templateProblem is a mistake in the body, or with a rule of "", parameters
// that do not fit it. Line and column count from 1 and are absent without a
// place.
type templateProblem struct {
	Rule      string `json:"rule,omitempty"`
	Line      int    `json:"line,omitempty"`
	Column    int    `json:"column,omitempty"`
	Pointer   string `json:"pointer,omitempty"`
	Parameter string `json:"parameter,omitempty"`
	Function  string `json:"function,omitempty"`
	Message   string `json:"message"`
}

// templatePlan is what a device would get.
type templatePlan struct {
	Thing               *plannedThing       `json:"thing,omitempty"`
	Certificate         *plannedCertificate `json:"certificate,omitempty"`
	Policies            []plannedPolicy     `json:"policies"`
	DeviceConfiguration map[string]string   `json:"deviceConfiguration"`
}

// plannedThing is a thing that would be made, or changed where it exists as the
// override settings say.
type plannedThing struct {
	LogicalName      string            `json:"logicalName"`
	ThingName        string            `json:"thingName"`
	Exists           bool              `json:"exists"`
	ThingTypeName    string            `json:"thingTypeName,omitempty"`
	Attributes       map[string]string `json:"attributes"`
	ThingGroups      []string          `json:"thingGroups"`
	BillingGroupName string            `json:"billingGroupName,omitempty"`
	OverrideSettings map[string]string `json:"overrideSettings"`
}

// plannedCertificate is the device's certificate.
type plannedCertificate struct {
	LogicalName string `json:"logicalName"`
	// Source is CSR, ID or PEM; only with ID there is a certificateId.
	Source           string            `json:"source"`
	CertificateID    string            `json:"certificateId,omitempty"`
	Status           string            `json:"status"`
	OverrideSettings map[string]string `json:"overrideSettings"`
}

// plannedPolicy is a policy that would be attached; with a document it would be
// made where it does not exist.
type plannedPolicy struct {
	LogicalName    string `json:"logicalName"`
	PolicyName     string `json:"policyName"`
	PolicyDocument string `json:"policyDocument,omitempty"`
	Exists         bool   `json:"exists"`
}

// missingResource is something that does not exist; kind is as in ARNs.
type missingResource struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	ARN  string `json:"arn"`
}

// templateRefusal is what a device would be told.
type templateRefusal struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// routeTemplateTest adds the operation.
func (h *handler) routeTemplateTest(mux *routes) {
	mux.HandleFunc("POST "+Prefix+"provisioning-templates:test", h.operate(ActionTestProvisioningTemplate, h.testTemplate))
}

func (h *handler) testTemplate(ctx context.Context, _ *http.Request, body []byte) (any, error) {
	var in templateTestInput
	if err := decodeStrictly(body, &in); err != nil {
		return nil, err
	}
	if in.TemplateName != "" {
		action := actionDescribeTemplate
		if in.VersionID != 0 {
			action = actionDescribeTemplateVersion
		}
		if err := h.o.Permit(ctx, action, h.o.ARN(ctx, fleet.ARNProvisioningTemplate, in.TemplateName)); err != nil {
			return nil, err
		}
	}
	run, err := h.o.Templates.DryRun(ctx, h.o.Account(ctx), provisioning.DryRunCommand{
		Body: in.TemplateBody, Type: provtemplate.Kind(in.Type), Template: in.TemplateName, Version: in.VersionID, Parameters: in.Parameters,
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	return templateTestOf(&run), nil
}

// templateTestOf encodes a dry run.
func templateTestOf(run *provisioning.DryRun) *templateTestOutput {
	out := &templateTestOutput{
		Type: string(run.Type), TemplateName: run.Template, VersionID: run.Version, HookNotAsked: run.Hook, StandIns: run.StandIns,
		IgnoredParameters: append([]string{}, run.Ignored...), Missing: []missingResource{},
	}
	if run.Template != "" {
		out.Enabled = new(!run.Disabled)
	}
	if p := run.Problem; p != nil {
		out.Problem = &templateProblem{
			Rule: string(p.Rule), Line: p.Line, Column: p.Column, Pointer: p.Pointer, Parameter: p.Parameter, Function: p.Function, Message: p.Text,
		}
		return out
	}
	out.Plan = planOf(run)
	for _, m := range run.Rehearsal.Missing {
		out.Missing = append(out.Missing, missingResource{Kind: m.Kind, Name: m.Name, ARN: m.ARN(m.Kind, m.Name)})
	}
	if run.Rehearsal.Refusal != nil {
		coded := fault.From(run.Rehearsal.Refusal)
		out.Refusal = &templateRefusal{Code: string(coded.Code), Message: coded.Message}
	}
	return out
}

// planOf encodes a plan with what the account has of it.
func planOf(run *provisioning.DryRun) *templatePlan {
	plan := run.Plan
	out := &templatePlan{DeviceConfiguration: plan.DeviceConfiguration, Policies: []plannedPolicy{}}
	if t := plan.Thing; t != nil {
		out.Thing = &plannedThing{
			LogicalName: t.LogicalName, ThingName: t.Name, Exists: run.Rehearsal.ThingExists, ThingTypeName: t.TypeName,
			Attributes: map[string]string{}, ThingGroups: append([]string{}, t.Groups...), BillingGroupName: t.BillingGroup,
			OverrideSettings: map[string]string{
				"AttributePayload": string(t.OnAttributes), "ThingTypeName": string(t.OnType), "ThingGroups": string(t.OnGroups),
			},
		}
		if t.Attributes != nil {
			out.Thing.Attributes = t.Attributes
		}
	}
	if c := plan.Certificate; c != nil {
		out.Certificate = certificateOf(c)
	}
	for _, p := range plan.Policies {
		out.Policies = append(out.Policies, plannedPolicy{
			LogicalName: p.LogicalName, PolicyName: p.Name, PolicyDocument: p.Document, Exists: run.Rehearsal.PolicyExists[p.Name],
		})
	}
	return out
}

// certificateOf encodes the certificate of a plan.
func certificateOf(c *provtemplate.Certificate) *plannedCertificate {
	out := &plannedCertificate{
		LogicalName: c.LogicalName, Source: "PEM", CertificateID: c.ID, Status: "INACTIVE",
		OverrideSettings: map[string]string{"Status": string(c.OnStatus)},
	}
	if c.Active {
		out.Status = "ACTIVE"
	}
	switch {
	case c.CSR != "":
		out.Source = "CSR"
	case c.ID != "":
		out.Source = "ID"
	}
	return out
}
