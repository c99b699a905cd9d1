package onboarding

import (
	"fmt"
	"regexp"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// Limits of a plan.
const (
	maxStages       = 20
	maxStageSteps   = 50
	maxCriteria     = 10
	maxApplies      = 100
	maxModels       = 200
	maxText         = 256
	maxInstruction  = 8192
	maxProblems     = 20
	shortestWithin  = time.Second
	dateLayout      = "2006-01-02"
	maxDependencies = 20
)

//nolint:gochecknoglobals // compiled once
var (
	idPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,63}$`)
	// keyPattern is for device keys, which are parts of paths.
	keyPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9:_.#=@-]{0,127}$`)
	// attributePattern is for names of thing attributes, valuePattern for values.
	attributePattern = regexp.MustCompile(`^[a-zA-Z0-9_.,@/:#-]{1,128}$`)
	valuePattern     = regexp.MustCompile(`^[a-zA-Z0-9_.,@/:#=\[\]-]{1,800}$`)
)

// checker collects what is wrong.
type checker struct{ problems []Problem }

// fail notes a problem, unless there are many.
func (c *checker) fail(field, rule string, args ...any) {
	if len(c.problems) < maxProblems {
		c.problems = append(c.problems, Problem{Field: field, Rule: fmt.Sprintf(rule, args...)})
	}
}

// check returns what is wrong with a plan.
func check(p *Plan) []Problem {
	c := &checker{}
	c.id("id", p.ID)
	c.text("name", p.Name, true, maxText)
	c.text("productLine", p.ProductLine, false, maxText)
	c.text("ownershipCheck", p.OwnershipCheck, false, maxInstruction)
	c.names("appliesTo.templates", p.AppliesTo.Templates, fleet.ValidName, "a name of a template")
	c.names("appliesTo.authorities", p.AppliesTo.Authorities, fleet.ValidCertificateID, "an id of a CA certificate: 64 hexadecimal digits")
	c.names("appliesTo.thingTypes", p.AppliesTo.ThingTypes, fleet.ValidName, "a name of a thing type")
	switch p.DeviceKey {
	case "", KeyThingName, KeyCertificate:
	case KeyUniqueID:
		if p.Metadata.UniqueID == nil {
			c.fail("deviceKey", "UNIQUE_ID needs metadata.uniqueId")
		}
	default:
		c.fail("deviceKey", "must be %s, %s or %s", KeyUniqueID, KeyThingName, KeyCertificate)
	}
	c.metadata(&p.Metadata)
	c.stages(p)
	return c.problems
}

func (c *checker) id(field, id string) {
	if !idPattern.MatchString(id) {
		c.fail(field, "must be 1 to 64 letters, digits, _ and -, and begin with a letter or digit")
	}
}

func (c *checker) text(field, text string, required bool, most int) {
	switch {
	case required && text == "":
		c.fail(field, "is needed")
	case utf8.RuneCountInString(text) > most:
		c.fail(field, "has %d characters at most", most)
	}
}

// names checks a list of names, each once.
func (c *checker) names(field string, names []string, valid func(string) bool, what string) {
	if len(names) > maxApplies {
		c.fail(field, "has %d names at most", maxApplies)
		return
	}
	for i, name := range names {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case !valid(name):
			c.fail(at, "is not %s", what)
		case slices.Contains(names[:i], name):
			c.fail(at, "is there twice")
		}
	}
}

func (c *checker) metadata(m *Metadata) {
	if m.Within != "" && m.Within.Duration() < shortestWithin {
		c.fail("metadata.within", "must be a time of %s to %dd, such as 10m or 2d", shortestWithin, maxDays)
	}
	if m.Within != "" && len(m.facts()) == 0 {
		c.fail("metadata.within", "goes with facts, such as modelNumber")
	}
	attributes := map[string]string{}
	for _, f := range m.facts() {
		field := "metadata." + f.name
		if !attributePattern.MatchString(f.Attribute) {
			c.fail(field+".attribute", "is no name of a thing attribute")
		} else if other := attributes[f.Attribute]; other != "" {
			c.fail(field+".attribute", "is the attribute of %s already", other)
		}
		attributes[f.Attribute] = f.name
		switch {
		case len(f.ThingTypes) == 0:
		case f.name != factModel:
			c.fail(field+".thingTypes", "only modelNumber has thing types")
		case len(f.ThingTypes) > maxModels:
			c.fail(field+".thingTypes", "has %d models at most", maxModels)
		default:
			for model, name := range f.ThingTypes {
				if !valuePattern.MatchString(model) || !fleet.ValidName(name) {
					c.fail(field+".thingTypes", "%q: %q are not a value of an attribute and a name of a thing type", model, name)
				}
			}
		}
	}
}

func (c *checker) stages(p *Plan) {
	if len(p.Stages) == 0 || len(p.Stages) > maxStages {
		c.fail("stages", "a plan has 1 to %d stages", maxStages)
		return
	}
	stages, steps := map[string]bool{}, map[string]string{}
	reached := map[State]string{}
	for i := range p.Stages {
		s := &p.Stages[i]
		at := fmt.Sprintf("stages[%d]", i)
		if c.id(at+".id", s.ID); stages[s.ID] {
			c.fail(at+".id", "is the id of another stage")
		}
		stages[s.ID] = true
		if s.Order < 0 || s.Order != 0 && i > 0 && s.Order <= p.Stages[i-1].Order {
			c.fail(at+".order", "must be greater than that of the stage before: stages stand in their order")
		}
		c.text(at+".title", s.Title, false, maxText)
		switch s.Kind {
		case KindManufacture, KindRegistration, KindActivation, KindCustom:
		default:
			c.fail(at+".kind", "must be %s, %s, %s or %s", KindManufacture, KindRegistration, KindActivation, KindCustom)
		}
		c.text(at+".actor.role", s.Actor.Role, true, maxText)
		c.text(at+".actor.organisation", s.Actor.Organisation, false, maxText)
		c.text(at+".actor.contact", s.Actor.Contact, false, maxText)
		if s.Limit != "" && s.Limit.Duration() < time.Second {
			c.fail(at+".limit", "must be a time of 1s to %dd, such as 12h or 30d", maxDays)
		}
		if len(s.Steps) == 0 || len(s.Steps) > maxStageSteps {
			c.fail(at+".steps", "a stage has 1 to %d steps", maxStageSteps)
		}
		for j := range s.Steps {
			before := 0
			if j > 0 {
				before = s.Steps[j-1].Order
			}
			c.step(fmt.Sprintf("%s.steps[%d]", at, j), &s.Steps[j], before, steps, reached)
		}
		c.criteria(at, s.ExitCriteria)
	}
}

// step checks one step; steps are those before it, reached the states that they
// bring.
func (c *checker) step(at string, s *Step, before int, steps map[string]string, reached map[State]string) {
	if c.id(at+".id", s.ID); steps[s.ID] != "" {
		c.fail(at+".id", "is the id of another step, %s", steps[s.ID])
	}
	if s.Order < 0 || s.Order != 0 && s.Order <= before {
		c.fail(at+".order", "must be greater than that of the step before: steps stand in their order")
	}
	c.text(at+".title", s.Title, true, maxText)
	c.text(at+".instruction", s.Instruction, false, maxInstruction)
	c.text(at+".apiRef", s.APIRef, false, maxText)
	switch s.Mode {
	case Manual:
		if s.APIRef != "" {
			c.fail(at+".apiRef", "is for PROGRAMMATIC steps")
		}
		if s.Instruction == "" {
			c.fail(at+".instruction", "a MANUAL step needs one: somebody has to know what to do")
		}
		if s.State != "" && s.State != StateManufactured && s.State != StateShipped {
			c.fail(at+".state", "a MANUAL step can bring a device to %s or %s only: the rest the platform has to see", StateManufactured, StateShipped)
		}
	case Programmatic:
		if s.State != "" && s.State.rank() == 0 {
			c.fail(at+".state", "must be %s, %s, %s, %s, %s or %s", StateExpected, StateManufactured, StateShipped, StateRegistered, StateApproved, StateActive)
		}
		if s.State != "" && s.EvidenceRequired {
			c.fail(at+".evidenceRequired", "nobody hands in evidence for what the platform sees: it refers to the event")
		}
	default:
		c.fail(at+".mode", "must be %s or %s", Manual, Programmatic)
	}
	if s.State != "" {
		if other := reached[s.State]; other != "" {
			c.fail(at+".state", "is the state of another step, %s", other)
		}
		reached[s.State] = at
	}
	if len(s.DependsOn) > maxDependencies {
		c.fail(at+".dependsOn", "has %d steps at most", maxDependencies)
	}
	for k, on := range s.DependsOn {
		// Steps come after what they depend on, so there are no circles.
		if steps[on] == "" || on == s.ID {
			c.fail(fmt.Sprintf("%s.dependsOn[%d]", at, k), "%q is no step that stands before this one", on)
		}
	}
	steps[s.ID] = at
}

func (c *checker) criteria(at string, criteria []Criterion) {
	if len(criteria) > maxCriteria {
		c.fail(at+".exitCriteria", "a stage has %d at most", maxCriteria)
		return
	}
	for k, one := range criteria {
		field := fmt.Sprintf("%s.exitCriteria[%d]", at, k)
		if _, err := fleetquery.Parse(one.Predicate); err != nil {
			c.fail(field+".predicate", "is no fleet query: %s", fault.From(err).Message)
		}
		if one.Within.Duration() < shortestWithin {
			c.fail(field+".within", "must be a time of %s to %dd, such as 10m or 2d", shortestWithin, maxDays)
		}
	}
}
