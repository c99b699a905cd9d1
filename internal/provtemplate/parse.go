package provtemplate

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Parse checks the body of a template of a kind. Every error is a
// *SyntaxError. Zero limits mean DefaultLimits.
func Parse(body []byte, kind Kind, limits Limits) (*Template, error) {
	if limits == (Limits{}) {
		limits = DefaultLimits()
	}
	t, root, err := readTree(body, limits)
	if err != nil {
		return nil, err
	}
	p := &parser{tree: t, template: &Template{kind: kind, limits: limits}, logical: map[string]bool{}}
	if err := p.root(root); err != nil {
		return nil, err
	}
	return p.template, nil
}

// parser checks nodes and fills a template.
type parser struct {
	*tree
	template *Template
	// logical are the names of resources, for a better message.
	logical map[string]bool
}

// maxName bounds names of parameters and resources, in characters (ours).
const maxName = 256

// root parses the sections: declarations first, wherever they stand. There is
// no Conditions section (documented), nor any other.
func (p *parser) root(n *node) error {
	err := p.object(n, "the template", "Parameters", "Mappings", "Resources", "DeviceConfiguration")
	if err != nil {
		return err
	}
	resources := n.member("Resources")
	if resources == nil {
		return p.problem(n, RuleMissing, "the template has no Resources")
	}
	for _, section := range []string{"Mappings", "DeviceConfiguration"} {
		if s := n.member(section); s != nil && p.template.kind != FleetProvisioning {
			return p.problem(s, RuleKind, "%s belongs to templates of type %s only", section, FleetProvisioning)
		}
	}
	if parameters := n.member("Parameters"); parameters != nil {
		if err := p.parameters(parameters); err != nil {
			return err
		}
	}
	if mappings := n.member("Mappings"); mappings != nil {
		if err := p.mappings(mappings); err != nil {
			return err
		}
	}
	if err := p.resources(resources); err != nil {
		return err
	}
	if device := n.member("DeviceConfiguration"); device != nil {
		return p.deviceConfiguration(device)
	}
	return nil
}

// object checks that a node is an object with no other members than these.
func (p *parser) object(n *node, what string, allowed ...string) error {
	if n.shape != shapeObject {
		return p.problem(n, RuleType, "%s must be an object, not %s", what, n.shape)
	}
	for _, m := range n.members {
		if !slices.Contains(allowed, m.name) {
			return p.problemName(m, RuleUnknown, "%s has no member %q", what, clip(m.name))
		}
	}
	return nil
}

// named checks that a node is an object with names of a sensible length.
func (p *parser) named(n *node, what string) error {
	if n.shape != shapeObject {
		return p.problem(n, RuleType, "%s must be an object, not %s", what, n.shape)
	}
	for _, m := range n.members {
		if m.name == "" || utf8.RuneCountInString(m.name) > maxName {
			return p.problemName(m, RuleValue, "a name in %s must have 1 to %d characters", what, maxName)
		}
	}
	return nil
}

// parameters parses the Parameters section.
func (p *parser) parameters(n *node) error {
	if err := p.named(n, "Parameters"); err != nil {
		return err
	}
	for _, m := range n.members {
		if err := p.parameter(m); err != nil {
			return err
		}
	}
	return nil
}

// parameter parses one declaration: {"Type": "String", "Default": text}.
func (p *parser) parameter(m member) error {
	if err := p.parameterName(m); err != nil {
		return err
	}
	if err := p.object(m.value, "a parameter", "Type", "Default"); err != nil {
		return err
	}
	kind := m.value.member("Type")
	if kind == nil {
		return p.problem(m.value, RuleMissing, "the parameter has no Type")
	}
	if kind.shape != shapeText || kind.text != "String" {
		return p.problem(kind, RuleValue, "the Type of a parameter must be \"String\"")
	}
	declared := Parameter{Name: m.name, FromService: p.template.kind.fromService(m.name)}
	if def := m.value.member("Default"); def != nil {
		switch {
		case def.shape != shapeText:
			return p.problem(def, RuleType, "the Default of a parameter must be a text, not %s", def.shape)
		case utf8.RuneCountInString(def.text) > p.limits.MaxValue:
			return p.problem(def, RuleSize, "the Default is longer than %d characters", p.limits.MaxValue)
		case declared.FromService && m.name == CertificateID:
			return p.problem(def, RuleValue, "the id of the certificate cannot have a Default")
		}
		declared.Default, declared.HasDefault = def.text, true
	}
	// A certificate must have a value for each parameter (documented), so one
	// that no certificate can have needs a default.
	if p.template.kind == JITP && !declared.FromService && !declared.HasDefault {
		return p.problemName(m, RuleKind, "nobody gives %q a value: a template of type %s is told of the certificate only", clip(m.name), JITP)
	}
	p.template.parameters = append(p.template.parameters, declared)
	return nil
}

// parameterName checks a name that only the service gives a meaning to.
func (p *parser) parameterName(m member) error {
	switch kind := p.template.kind; {
	case !strings.HasPrefix(m.name, reservedPrefix), kind.offers(m.name):
		return nil
	case subjectParameters[m.name]:
		return p.problemName(m, RuleKind, "%s is given to templates of type %s only", m.name, JITP)
	default:
		return p.problemName(m, RuleUnknown, "there is no parameter %q; names with %s are reserved", clip(m.name), reservedPrefix)
	}
}

// mappings parses the Mappings section: two levels of plain values, no
// functions (documented).
func (p *parser) mappings(n *node) error {
	if err := p.named(n, "Mappings"); err != nil {
		return err
	}
	p.template.mappings = map[string]map[string]map[string]string{}
	for _, table := range n.members {
		if err := p.named(table.value, "a map"); err != nil {
			return err
		}
		rows := map[string]map[string]string{}
		for _, row := range table.value.members {
			if err := p.named(row.value, "a key of a map"); err != nil {
				return err
			}
			values := map[string]string{}
			for _, value := range row.value.members {
				switch value.value.shape {
				case shapeText, shapeNumber, shapeBoolean:
					values[value.name] = value.value.text
				default:
					return p.problem(value.value, RuleType, "a value in Mappings must be a text, not %s", value.value.shape)
				}
			}
			rows[row.name] = values
		}
		p.template.mappings[table.name] = rows
	}
	return nil
}

// deviceConfiguration parses the section of that name: one level of values,
// which the device gets as texts (documented).
func (p *parser) deviceConfiguration(n *node) error {
	if err := p.named(n, "DeviceConfiguration"); err != nil {
		return err
	}
	if isFunction(n) {
		return p.problemName(n.members[0], RuleType, "DeviceConfiguration takes names and values, not a function")
	}
	device, err := p.properties(n)
	p.template.device = device
	return err
}

// properties parses an object of names and texts.
func (p *parser) properties(n *node) ([]property, error) {
	var list []property
	for _, m := range n.members {
		value, err := p.text(m.value)
		if err != nil {
			return nil, err
		}
		list = append(list, property{name: m.name, value: value})
	}
	return list, nil
}
