package provisioning

import (
	"errors"
	"regexp"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/provtemplate"
)

// Character rules of the published service model.
var (
	templateNamePattern = regexp.MustCompile(`^[0-9A-Za-z_-]{1,36}$`)
	descriptionPattern  = regexp.MustCompile(`^[^\p{C}]*$`)
)

// Lengths of the published service model, in characters.
const (
	maxDescription = 500
	minRoleARN     = 20
	maxRoleARN     = 2048
	maxTargetARN   = 2048
)

// checkTemplateName refuses what may not name a template.
func checkTemplateName(name string) error {
	if templateNamePattern.MatchString(name) {
		return nil
	}
	return fault.New(fault.InvalidRequest, `templateName must have 1 to 36 characters and match [0-9A-Za-z_-]+`)
}

// noTemplate is the fault for a template that does not exist.
func noTemplate(name string) error {
	return fault.New(fault.ResourceNotFound, "provisioning template %s does not exist", name)
}

// noVersion is the fault for a version that a template does not have.
func noVersion(name string, id int64) error {
	return fault.New(fault.ResourceNotFound, "provisioning template %s has no version %d", name, id)
}

// checkTemplateType refuses a word that is no type of a template.
func checkTemplateType(kind provtemplate.Kind) error {
	switch kind {
	case provtemplate.FleetProvisioning, provtemplate.JITP:
		return nil
	case provtemplate.Bulk:
	}
	return fault.New(fault.InvalidRequest, "type must be %s or %s", provtemplate.FleetProvisioning, provtemplate.JITP)
}

// checkDescription refuses what the service model does.
func checkDescription(text string) error {
	if !utf8.ValidString(text) || utf8.RuneCountInString(text) > maxDescription || !descriptionPattern.MatchString(text) {
		return fault.New(fault.InvalidRequest, "description must have at most %d characters, without control characters", maxDescription)
	}
	return nil
}

// checkRole refuses what cannot be the ARN of a role. The role need not exist:
// whoever may change templates decides what they do.
func checkRole(arn string) error {
	if n := utf8.RuneCountInString(arn); n < minRoleARN || n > maxRoleARN || !utf8.ValidString(arn) {
		return fault.New(fault.InvalidRequest, "provisioningRoleArn must have %d to %d characters", minRoleARN, maxRoleARN)
	}
	return nil
}

// checkHook returns the hook as it is kept. JITP has none, and its function
// must be there: a template whose hook cannot be asked lets nobody in.
func (s *Service) checkHook(kind provtemplate.Kind, h *Hook) (*Hook, error) {
	switch {
	case h == nil:
		return nil, nil //nolint:nilnil // a template without a hook
	case kind == provtemplate.JITP:
		return nil, fault.New(fault.InvalidRequest, "preProvisioningHook: a template of type %s can have no hook", provtemplate.JITP)
	case h.PayloadVersion != "" && h.PayloadVersion != hookVersion:
		return nil, fault.New(fault.InvalidRequest, "preProvisioningHook: payloadVersion must be %s", hookVersion)
	case h.TargetARN == "" || len(h.TargetARN) > maxTargetARN:
		return nil, fault.New(fault.InvalidRequest, "preProvisioningHook: targetArn must have 1 to %d characters", maxTargetARN)
	}
	if name := functionName(h.TargetARN); !s.o.Functions.Has(name) {
		return nil, fault.New(fault.InvalidRequest,
			"preProvisioningHook: targetArn names the function %.64q, which this server is not configured with (setting function.target)", name)
	}
	return &Hook{TargetARN: h.TargetARN, PayloadVersion: hookVersion}, nil
}

// checkBody parses the body of a template.
func checkBody(body string, kind provtemplate.Kind) (*provtemplate.Template, error) {
	parsed, err := provtemplate.Parse([]byte(body), kind, provtemplate.DefaultLimits())
	if err != nil {
		return nil, bodyFault(err)
	}
	return parsed, nil
}

// bodyFault says where a body is wrong and which rule it breaks.
func bodyFault(err error) error {
	if wrong, ok := errors.AsType[*provtemplate.SyntaxError](err); ok {
		return fault.Wrap(fault.InvalidRequest, err, "templateBody: %s (rule: %s)", wrong.Error(), wrong.Rule)
	}
	return fault.Wrap(fault.InvalidRequest, err, "templateBody: %s", err.Error())
}
