package provisioning

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
)

// standInID stands for the certificate that a device would bring.
var standInID = strings.Repeat("0", 64)

// DryRunCommand asks what a template would do for one device. It has a Body, or
// the name of a Template.
type DryRunCommand struct {
	Body string
	// Type is that of the body, provtemplate.FleetProvisioning when empty;
	// provtemplate.Bulk is for the bodies of RegisterThing and of registration
	// tasks.
	Type     provtemplate.Kind
	Template string
	// Version is the one in force when 0.
	Version int64
	// Parameters are those of the device and, by their reserved names, those that
	// the service would give.
	Parameters map[string]string
}

// DryRun is what a template would do. Nothing of it is done.
type DryRun struct {
	Type provtemplate.Kind
	// Template and Version say which stored template it is about; empty for a
	// body.
	Template string
	Version  int64
	// Disabled says that the stored template lets nobody in at present, Hook what
	// would be asked before, and was not; it might refuse the device or change its
	// parameters.
	Disabled bool
	Hook     string
	// StandIns are the values that the dry run made up for what a certificate
	// would bring.
	StandIns map[string]string
	// Ignored are the names of parameters that the template does not declare.
	Ignored []string
	// Problem is why there is no plan; nil when there is one.
	Problem *Problem
	Plan    *provtemplate.Plan
	// Rehearsal is what the plan would meet in the registry.
	Rehearsal registry.Rehearsal
}

// Problem is a mistake in a body, or parameters that it cannot be resolved with.
type Problem struct {
	// Rule is the rule of the grammar that the body breaks, empty when it is the
	// parameters that do not fit.
	Rule provtemplate.Rule
	// Line and Column count from 1; both are 0 for what has no place in the body.
	Line, Column int
	// Pointer, Parameter and Function are empty when none is meant.
	Pointer, Parameter, Function string
	Text                         string
}

// DryRun resolves a template for one device and finds out what the registry
// would say to it. It writes nothing, asks no hook and signs no certificate.
func (s *Service) DryRun(ctx context.Context, account fleet.Account, c DryRunCommand) (DryRun, error) {
	out, body, err := s.dryRunOf(ctx, account, c)
	if err != nil {
		return DryRun{}, err
	}
	parsed, err := provtemplate.Parse([]byte(body), out.Type, provtemplate.DefaultLimits())
	if wrong, ok := errors.AsType[*provtemplate.SyntaxError](err); ok {
		out.Problem = &Problem{Rule: wrong.Rule, Line: wrong.Line, Column: wrong.Column, Pointer: wrong.Pointer, Text: wrong.Problem}
		return out, nil
	}
	if err != nil {
		return DryRun{}, err
	}
	given, service := out.shareOut(parsed, c.Parameters)
	out.Plan, err = parsed.Evaluate(given, service)
	if wrong, ok := errors.AsType[*provtemplate.EvaluationError](err); ok {
		out.Problem = evaluationProblem(body, wrong)
		return out, nil
	}
	if err != nil {
		return DryRun{}, err
	}
	out.Rehearsal, err = s.o.Registry.Rehearse(ctx, account, out.Plan, standInID)
	return out, err
}

// dryRunOf finds the body that is meant and says what it is.
func (s *Service) dryRunOf(ctx context.Context, account fleet.Account, c DryRunCommand) (out DryRun, body string, err error) {
	switch {
	case (c.Body == "") == (c.Template == ""):
		return out, "", fault.New(fault.InvalidRequest, "templateBody or templateName must be given, not both")
	case c.Template == "" && c.Version != 0:
		return out, "", fault.New(fault.InvalidRequest, "versionId goes with templateName")
	case c.Template != "" && c.Type != "":
		return out, "", fault.New(fault.InvalidRequest, "type goes with templateBody; a stored template has its own")
	case c.Template == "":
		switch c.Type {
		case "":
			c.Type = provtemplate.FleetProvisioning
		case provtemplate.FleetProvisioning, provtemplate.JITP, provtemplate.Bulk:
		default:
			return out, "", fault.New(fault.InvalidRequest, "type must be %s, %s or %s", provtemplate.FleetProvisioning, provtemplate.JITP, provtemplate.Bulk)
		}
		return DryRun{Type: c.Type}, c.Body, nil
	}
	r, _, err := s.findTemplate(ctx, account, c.Template)
	if err != nil {
		return out, "", err
	}
	if c.Version == 0 {
		c.Version = r.Default
	}
	v := r.version(c.Version)
	if v == nil {
		return out, "", noVersion(c.Template, c.Version)
	}
	return DryRun{Type: r.Type, Template: c.Template, Version: v.ID, Disabled: !r.Enabled, Hook: r.HookTarget}, v.Body, nil
}

// shareOut tells what a device would send from what the service would know of
// its certificate.
func (d *DryRun) shareOut(parsed *provtemplate.Template, parameters map[string]string) (given, service map[string]string) {
	given, service = map[string]string{}, map[string]string{}
	ofService := map[string]bool{provtemplate.CertificateID: d.Type != provtemplate.Bulk}
	declared := map[string]bool{}
	for _, p := range parsed.Parameters() {
		ofService[p.Name], declared[p.Name] = p.FromService, true
	}
	for name, value := range parameters {
		switch {
		case ofService[name]:
			service[name] = value
		case declared[name]:
			given[name] = value
		default:
			d.Ignored = append(d.Ignored, name)
		}
	}
	slices.Sort(d.Ignored)
	if _, ok := service[provtemplate.CertificateID]; !ok && ofService[provtemplate.CertificateID] {
		service[provtemplate.CertificateID] = standInID
		d.StandIns = map[string]string{provtemplate.CertificateID: standInID}
	}
	return given, service
}

// evaluationProblem finds the place of what could not be resolved: the
// expression, or else the declaration of the parameter.
func evaluationProblem(body string, wrong *provtemplate.EvaluationError) *Problem {
	p := &Problem{Pointer: wrong.Pointer, Parameter: wrong.Parameter, Function: wrong.Function, Text: wrong.Problem}
	if p.Pointer == "" && p.Parameter != "" {
		p.Pointer = "/Parameters/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(p.Parameter)
	}
	line, column, found := provtemplate.Locate([]byte(body), p.Pointer, provtemplate.DefaultLimits())
	if !found {
		p.Pointer = wrong.Pointer
		return p
	}
	p.Line, p.Column = line, column
	return p
}
