package provtemplate

import (
	"strings"

	"github.com/muster-iot/muster/internal/fleet"
)

// Resource types (documented).
const (
	typeThing       = "AWS::IoT::Thing"
	typeCertificate = "AWS::IoT::Certificate"
	typePolicy      = "AWS::IoT::Policy"
)

// resources parses the Resources section: at most one thing and one
// certificate (ours: a device has one of each), any number of policies.
func (p *parser) resources(n *node) error {
	if err := p.named(n, "Resources"); err != nil {
		return err
	}
	if len(n.members) == 0 {
		return p.problem(n, RuleMissing, "Resources is empty")
	}
	for _, m := range n.members {
		p.logical[m.name] = true
	}
	for _, m := range n.members {
		if err := p.resource(m); err != nil {
			return err
		}
	}
	// Only a certificate that the template names gets active (ours).
	if kind := p.template.kind; kind != Bulk && p.template.certificate == nil {
		return p.problem(n, RuleMissing, "a template of type %s needs a resource of type %s", kind, typeCertificate)
	}
	return nil
}

// resource parses one resource.
func (p *parser) resource(m member) error {
	if err := p.object(m.value, "a resource", "Type", "Properties", "OverrideSettings"); err != nil {
		return err
	}
	kind, properties, overrides := m.value.member("Type"), m.value.member("Properties"), m.value.member("OverrideSettings")
	switch {
	case kind == nil:
		return p.problem(m.value, RuleMissing, "the resource has no Type")
	case kind.shape != shapeText:
		return p.problem(kind, RuleType, "the Type of a resource must be a text, not %s", kind.shape)
	case properties == nil:
		return p.problem(m.value, RuleMissing, "the resource has no Properties")
	}
	switch kind.text {
	case typeThing:
		if p.template.thing != nil {
			return p.problem(kind, RuleDuplicate, "a template has one resource of type %s", typeThing)
		}
		p.template.thing = &thing{logical: m.name}
		return p.thing(p.template.thing, properties, overrides)
	case typeCertificate:
		if p.template.certificate != nil {
			return p.problem(kind, RuleDuplicate, "a template has one resource of type %s", typeCertificate)
		}
		p.template.certificate = &certificate{logical: m.name}
		return p.certificate(p.template.certificate, properties, overrides)
	case typePolicy:
		if overrides != nil {
			return p.problem(overrides, RuleUnknown, "policies have no OverrideSettings")
		}
		return p.policy(m.name, properties)
	default:
		return p.problem(kind, RuleUnknown, "there is no resource type %q", clip(kind.text))
	}
}

// thing parses a thing: ThingName, AttributePayload, ThingTypeName,
// ThingGroups, BillingGroup (documented).
func (p *parser) thing(t *thing, properties, overrides *node) error {
	// The guide has it; Muster has no package catalogue yet.
	if packages := properties.member("PackageVersions"); packages != nil {
		return p.problem(packages, RuleUnknown, "PackageVersions is not offered")
	}
	err := p.object(properties, "a thing", "ThingName", "AttributePayload", "ThingTypeName", "ThingGroups", "BillingGroup")
	if err != nil {
		return err
	}
	// Without a name no thing can be made (ours): the guide calls none of the
	// others mandatory.
	if properties.member("ThingName") == nil {
		return p.problem(properties, RuleMissing, "the thing has no ThingName")
	}
	for _, m := range properties.members {
		switch m.name {
		case "ThingName":
			t.name, err = p.name(m.value)
		case "ThingTypeName":
			t.typeName, err = p.name(m.value)
		case "BillingGroup":
			t.billing, err = p.name(m.value)
		case "ThingGroups":
			t.groups, err = p.groups(m.value)
		case "AttributePayload":
			t.hasAttributes = true
			t.attributes, err = p.attributes(m.value)
		}
		if err != nil {
			return err
		}
	}
	t.onAttributes, t.onType, t.onGroups = DoNothing, DoNothing, DoNothing
	return p.overrides(overrides, map[string]setting{
		"AttributePayload": {value: &t.onAttributes, merges: true},
		"ThingTypeName":    {value: &t.onType},
		"ThingGroups":      {value: &t.onGroups, merges: true},
	})
}

// name parses a name of a thing, a type or a group.
func (p *parser) name(n *node) (*expression, error) {
	e, err := p.text(n)
	if err == nil && e.op == opLiteral && !fleet.ValidName(e.text) {
		return nil, p.problem(n, RuleValue, "%q is no valid name", clip(e.text))
	}
	return e, err
}

// groups parses ThingGroups.
func (p *parser) groups(n *node) (*expression, error) {
	e, err := p.list(n, false)
	if err != nil {
		return nil, err
	}
	for i, group := range e.args {
		if e.op == opList && group.op == opLiteral && !fleet.ValidName(group.text) {
			return nil, p.problem(n.elements[i], RuleValue, "%q is no valid name", clip(group.text))
		}
	}
	return e, nil
}

// attributes parses AttributePayload. Names are literal, values may be
// functions.
func (p *parser) attributes(n *node) ([]property, error) {
	if err := p.named(n, "AttributePayload"); err != nil {
		return nil, err
	}
	if isFunction(n) {
		return nil, p.problemName(n.members[0], RuleType, "AttributePayload takes names and values, not a function")
	}
	return p.properties(n)
}

// certificate parses a certificate: exactly one way to say which, and a Status
// (documented).
func (p *parser) certificate(c *certificate, properties, overrides *node) error {
	// The guide lists CertificateID and writes CertificateId in its examples.
	err := p.object(properties, "a certificate", "CertificateSigningRequest", "CertificateId", "CertificateID", "CertificatePem", "CACertificatePem", "Status")
	if err != nil {
		return err
	}
	ways := 0
	for _, m := range properties.members {
		switch m.name {
		case "CertificateSigningRequest":
			ways++
			c.csr, err = p.text(m.value)
		case "CertificateId", "CertificateID":
			ways++
			c.id, err = p.certificateID(m.value)
		case "CertificatePem":
			ways++
			c.pem, err = p.text(m.value)
		case "CACertificatePem":
			c.authority, err = p.text(m.value)
		case "Status":
			c.status, err = p.status(m.value)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case ways == 0:
		return p.problem(properties, RuleMissing, "the certificate needs CertificateSigningRequest, CertificateId or CertificatePem")
	case ways > 1:
		return p.problem(properties, RuleExclusive, "the certificate must have only one of CertificateSigningRequest, CertificateId and CertificatePem")
	case c.authority != nil && c.pem == nil:
		return p.problem(properties.member("CACertificatePem"), RuleExclusive, "CACertificatePem goes with CertificatePem only")
	case c.id == nil && p.template.kind != Bulk:
		return p.problem(properties, RuleKind, "a template of type %s must name its certificate by CertificateId", p.template.kind)
	}
	c.onStatus = DoNothing
	return p.overrides(overrides, map[string]setting{"Status": {value: &c.onStatus}})
}

// certificateID parses CertificateId. In a named template it must be the
// certificate that is being provisioned (ours): with any other, a device could
// choose whose policies it changes.
func (p *parser) certificateID(n *node) (*expression, error) {
	e, err := p.text(n)
	switch kind := p.template.kind; {
	case err != nil:
		return nil, err
	case kind != Bulk && (e.op != opRef || e.text != CertificateID):
		return nil, p.problem(n, RuleKind, "CertificateId in a template of type %s must be {\"Ref\": %q}", kind, CertificateID)
	case e.op == opLiteral && !fleet.ValidCertificateID(e.text):
		return nil, p.problem(n, RuleValue, "CertificateId must have 64 hexadecimal digits in lower case")
	default:
		return e, nil
	}
}

// status parses Status.
func (p *parser) status(n *node) (*expression, error) {
	e, err := p.text(n)
	if err != nil {
		return nil, err
	}
	if _, ok := activeOf(e.text); e.op == opLiteral && !ok {
		return nil, p.problem(n, RuleValue, "Status must be ACTIVE or INACTIVE")
	}
	return e, nil
}

// activeOf reads a Status. Case does not count: the guide's examples say
// "Active" (documented).
func activeOf(status string) (active, ok bool) {
	switch {
	case strings.EqualFold(status, "ACTIVE"):
		return true, true
	case strings.EqualFold(status, "INACTIVE"):
		return false, true
	default:
		return false, false
	}
}

// policy parses a policy: either the name of one that exists or a document
// (documented).
func (p *parser) policy(logical string, properties *node) error {
	if err := p.object(properties, "a policy", "PolicyName", "PolicyDocument"); err != nil {
		return err
	}
	name, document := properties.member("PolicyName"), properties.member("PolicyDocument")
	declared := policy{logical: logical}
	var err error
	switch {
	case name == nil && document == nil:
		return p.problem(properties, RuleMissing, "the policy needs PolicyName or PolicyDocument")
	case name != nil && document != nil:
		return p.problem(properties, RuleExclusive, "the policy must have only one of PolicyName and PolicyDocument")
	case name != nil:
		declared.name, err = p.text(name)
		if err == nil && declared.name.op == opLiteral && !fleet.ValidPolicyName(declared.name.text) {
			return p.problem(name, RuleValue, "%q is no valid name of a policy", clip(declared.name.text))
		}
	default:
		declared.document, err = p.policyDocument(document)
	}
	p.template.policies = append(p.template.policies, declared)
	return err
}

// policyDocument parses a document that is an object, or JSON in a text
// (documented: the guide's examples have both).
func (p *parser) policyDocument(n *node) (*expression, error) {
	if n.shape == shapeObject && !isFunction(n) {
		return p.document(n)
	}
	if n.shape != shapeObject && n.shape != shapeText {
		return nil, p.problem(n, RuleType, "PolicyDocument must be an object or JSON in a text, not %s", n.shape)
	}
	e, err := p.text(n)
	if err != nil {
		return nil, err
	}
	if e.op == opLiteral {
		if problem := checkDocument(e.text, p.limits); problem != "" {
			return nil, p.problem(n, RuleValue, "PolicyDocument: %s", problem)
		}
	}
	return e, nil
}

// setting is an override that a resource has.
type setting struct {
	value  *Override
	merges bool
}

// upperSnake are the spellings that the guide's list of overrides has; its
// examples have those of the properties (documented).
var upperSnake = map[string]string{
	"ATTRIBUTE_PAYLOAD": "AttributePayload",
	"THING_TYPE_NAME":   "ThingTypeName",
	"THING_GROUPS":      "ThingGroups",
	"STATUS":            "Status",
}

// overrides parses OverrideSettings. They are literal (ours), so that what a
// template may do to things that exist is known before any device comes.
func (p *parser) overrides(n *node, settings map[string]setting) error {
	if n == nil {
		return nil
	}
	if err := p.named(n, "OverrideSettings"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, m := range n.members {
		name := m.name
		if property, ok := upperSnake[name]; ok {
			name = property
		}
		s, ok := settings[name]
		switch value := Override(m.value.text); {
		case !ok:
			return p.problemName(m, RuleUnknown, "the resource has no override %q", clip(m.name))
		case seen[name]:
			return p.problemName(m, RuleDuplicate, "the override of %s comes twice", name)
		case m.value.shape != shapeText:
			return p.problem(m.value, RuleType, "an override must be a literal text, not %s", m.value.shape)
		case value == Merge && !s.merges:
			return p.problem(m.value, RuleValue, "%s cannot be merged", name)
		case value != DoNothing && value != Replace && value != Fail && value != Merge:
			return p.problem(m.value, RuleValue, "an override must be %s, %s, %s or %s", DoNothing, Replace, Fail, Merge)
		default:
			*s.value = value
		}
		seen[name] = true
	}
	return nil
}
