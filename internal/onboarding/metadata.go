package onboarding

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Attributes turns what is known from manufacture, by the names of the facts, into
// thing attributes and a thing type as a plan says; the type is empty for a plan
// that leaves it to others. It refuses facts that the plan does not know, and what
// is required and missing.
func (p *Plan) Attributes(facts map[string]string) (attributes map[string]string, typeName string, err error) {
	attributes = map[string]string{}
	known := map[string]bool{}
	for _, f := range p.Metadata.facts() {
		known[f.name] = true
		value := facts[f.name]
		if value == "" {
			if f.Required {
				return nil, "", fault.New(fault.InvalidRequest, "metadata.%s: is required by plan %s", f.name, p.ID)
			}
			continue
		}
		if wrong := f.wrong(value); wrong != "" {
			return nil, "", fault.New(fault.InvalidRequest, "metadata.%s: %s", f.name, wrong)
		}
		attributes[f.Attribute] = value
		if t := f.ThingTypes[value]; t != "" {
			typeName = t
		}
	}
	for _, name := range slices.Sorted(maps.Keys(facts)) {
		if !known[name] {
			return nil, "", fault.New(fault.InvalidRequest, "metadata.%s: plan %s does not say to which attribute it belongs", name, p.ID)
		}
	}
	return attributes, typeName, nil
}

// metadataPredicate is what an exit criterion about the metadata says.
const metadataPredicate = "the thing is as the plan's metadata says"

// activation is the stage in which devices become active, the last one where no
// step says so.
func (p *Plan) activation() string {
	for i := range p.Stages {
		for j := range p.Stages[i].Steps {
			if p.Stages[i].Steps[j].State == StateActive {
				return p.Stages[i].ID
			}
		}
	}
	return p.Stages[len(p.Stages)-1].ID
}

// wrong says why a value cannot be that of a fact, empty for one that can.
func (f fact) wrong(value string) string {
	if !valuePattern.MatchString(value) {
		return fmt.Sprintf("%q cannot be the value of a thing attribute", value)
	}
	switch f.name {
	case factDate:
		if _, err := time.Parse(dateLayout, value); err != nil {
			return fmt.Sprintf("%q is no date such as 2026-11-26", value)
		}
	case factModel:
		if len(f.ThingTypes) > 0 && f.ThingTypes[value] == "" {
			return fmt.Sprintf("the plan names no thing type for model %q", value)
		}
	case factUniqueID:
		if !keyPattern.MatchString(value) {
			return fmt.Sprintf("%q cannot be the key of a device: it has 1 to 128 letters, digits and :_.#=@-", value)
		}
	}
	return ""
}

// review compares a thing with the plan and with what was announced of the
// device, and puts into words what is not as it should be.
func (p *Plan) review(announced, attributes map[string]string, typeName string) []string {
	var out []string
	for _, f := range p.Metadata.facts() {
		value, said := attributes[f.Attribute], announced[f.name]
		switch {
		case value == "" && f.Required:
			out = append(out, fmt.Sprintf("%s is required, and attribute %s is missing", f.name, f.Attribute))
		case value == "":
		case f.wrong(value) != "":
			out = append(out, fmt.Sprintf("%s: %s", f.name, f.wrong(value)))
		case len(f.ThingTypes) > 0 && f.ThingTypes[value] != typeName:
			out = append(out, fmt.Sprintf("things of model %s have type %s, this one has %q", value, f.ThingTypes[value], typeName))
		}
		if said != "" && value != "" && said != value {
			out = append(out, fmt.Sprintf("%s was announced as %s, the thing says %s", f.name, said, value))
		}
	}
	return out
}

// Newcomer is a device that is about to join by a template.
type Newcomer struct {
	// Template and Authority are empty where there is none.
	Template, Authority string
	// Thing, TypeName and Attributes are what the template comes to.
	Thing, TypeName string
	Attributes      map[string]string
	CertificateID   string
	ClientID        string
}

// Announced returns what was said of a newcomer's manufacture before it came, as
// attributes and thing type by its plan; nothing of a device that nobody has
// announced.
func (s *Service) Announced(ctx context.Context, account fleet.Account, n Newcomer) (attributes map[string]string, typeName string, err error) {
	a := s.attempt()
	f := &follower{attempt: a}
	id, number, err := f.binding(ctx, account, [][2]string{{bindTemplate, n.Template}, {bindAuthority, n.Authority}, {bindType, n.TypeName}})
	if err != nil {
		return nil, "", err
	}
	keys := []string{n.Thing, n.ClientID}
	if id != "" {
		plan, err := a.plan(ctx, account, id, number)
		if err != nil {
			return nil, "", err
		}
		keys = []string{keyOf(plan, &event.DeviceProvisioned{Thing: n.Thing, CertificateID: n.CertificateID, Attributes: n.Attributes})}
	}
	for _, key := range keys {
		if !keyPattern.MatchString(key) {
			continue
		}
		one, err := a.load(ctx, place{account: account, key: key})
		if err != nil {
			return nil, "", err
		}
		if one.now == nil || len(one.now.Metadata) == 0 {
			continue
		}
		// The device keeps the version of the plan that it was announced for.
		plan, err := a.plan(ctx, account, one.now.Plan, one.now.Version)
		if err != nil {
			return nil, "", err
		}
		return plan.Attributes(one.now.Metadata)
	}
	return nil, "", nil
}
