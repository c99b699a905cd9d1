package provtemplate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fleet"
)

// Evaluate resolves the template for one device. Given are the parameters from
// whoever provisions, with what a hook replaced; service are the reserved ones
// of a named template, which nobody else can set. Parameters that the template
// does not declare are ignored (ours). Every error is an *EvaluationError.
func (t *Template) Evaluate(given, service map[string]string) (*Plan, error) {
	values, err := t.values(given, service)
	if err != nil {
		return nil, err
	}
	e := &evaluator{template: t, values: values, left: t.limits.MaxWork}
	return e.plan()
}

// value is the value of a parameter.
type value struct {
	text string
	// given says that it is not the Default, which the author of the template
	// chose.
	given bool
}

// values returns the value of every parameter that functions may refer to. A
// parameter without value and default is an error: for JITP (documented), for
// fleet provisioning (recalled), and for bulk registration, where leaving the
// reference as it is would put its text into names (ours).
func (t *Template) values(given, service map[string]string) (map[string]value, error) {
	parameters := t.parameters
	if t.kind != Bulk && !slices.ContainsFunc(parameters, func(p Parameter) bool { return p.Name == CertificateID }) {
		parameters = append(t.Parameters(), Parameter{Name: CertificateID, FromService: true})
	}
	values := make(map[string]value, len(parameters))
	for _, p := range parameters {
		source := given
		if p.FromService {
			source = service
			// Some devices repeat what the service knows; others must not
			// choose whose certificate it is (ours).
			if text, ok := given[p.Name]; ok && text != service[p.Name] {
				return nil, &EvaluationError{Parameter: p.Name, Problem: "the value is set by the service"}
			}
		}
		text, ok := source[p.Name]
		switch {
		case !ok && p.HasDefault:
			text = p.Default
		case !ok && p.FromService && p.Name != CertificateID:
			return nil, &EvaluationError{Parameter: p.Name, Problem: "the subject of the certificate has no such field, and there is no Default"}
		case !ok:
			return nil, &EvaluationError{Parameter: p.Name, Problem: "there is no value and no Default"}
		case len(text) > utf8.UTFMax*t.limits.MaxValue || utf8.RuneCountInString(text) > t.limits.MaxValue:
			return nil, &EvaluationError{Parameter: p.Name, Problem: fmt.Sprintf("the value is longer than %d characters", t.limits.MaxValue)}
		case !utf8.ValidString(text):
			return nil, &EvaluationError{Parameter: p.Name, Problem: "the value is not UTF-8"}
		}
		values[p.Name] = value{text: text, given: ok}
	}
	return values, nil
}

// evaluator resolves expressions within bounds.
type evaluator struct {
	template *Template
	values   map[string]value
	// guarded is set while a document of a policy is resolved from what a device
	// gives.
	guarded bool
	// left is how many bytes functions may still give.
	left int
}

// problem returns an error about an expression.
func problem(e *expression, format string, args ...any) error {
	failed := &EvaluationError{Pointer: e.pointer, Function: e.op.name(), Problem: fmt.Sprintf(format, args...)}
	if e.op == opRef {
		failed.Parameter = e.text
	}
	return failed
}

// charge counts what a function is about to give, before memory is taken for
// it.
func (v *evaluator) charge(e *expression, size int) error {
	if size > v.template.limits.MaxText {
		return problem(e, "the result is longer than %d bytes", v.template.limits.MaxText)
	}
	if size > v.left {
		return problem(e, "the functions of the template give more than %d bytes together", v.template.limits.MaxWork)
	}
	v.left -= size
	return nil
}

// plan resolves everything in the order of the plan.
func (v *evaluator) plan() (*Plan, error) {
	plan := &Plan{}
	var err error
	if plan.Thing, err = v.thing(v.template.thing); err != nil {
		return nil, err
	}
	if plan.Certificate, err = v.certificate(v.template.certificate); err != nil {
		return nil, err
	}
	for _, declared := range v.template.policies {
		resolved, err := v.policy(declared)
		if err != nil {
			return nil, err
		}
		plan.Policies = append(plan.Policies, resolved)
	}
	if plan.DeviceConfiguration, err = v.properties(v.template.device); err != nil {
		return nil, err
	}
	return plan, nil
}

// thing resolves a thing, nil if there is none.
func (v *evaluator) thing(t *thing) (*Thing, error) {
	if t == nil {
		return nil, nil //nolint:nilnil // a template without a thing is one
	}
	resolved := &Thing{LogicalName: t.logical, OnAttributes: t.onAttributes, OnType: t.onType, OnGroups: t.onGroups}
	for _, name := range []struct {
		e    *expression
		into *string
	}{{t.name, &resolved.Name}, {t.typeName, &resolved.TypeName}, {t.billing, &resolved.BillingGroup}} {
		if name.e == nil {
			continue
		}
		text, err := v.text(name.e)
		if err != nil {
			return nil, err
		}
		if err := checkName(name.e, text); err != nil {
			return nil, err
		}
		*name.into = text
	}
	if t.hasAttributes {
		attributes, err := v.properties(t.attributes)
		if err != nil {
			return nil, err
		}
		resolved.Attributes = attributes
	}
	if t.groups != nil {
		groups, err := v.groups(t.groups)
		if err != nil {
			return nil, err
		}
		resolved.Groups = groups
	}
	return resolved, nil
}

// checkName checks what names of things, types and groups have in common.
func checkName(e *expression, name string) error {
	if !fleet.ValidName(name) {
		return problem(e, "the result is no valid name: 1 to %d letters, digits, _, - and :", fleet.MaxNameLength)
	}
	return nil
}

// groups resolves ThingGroups; a name that repeats counts once.
func (v *evaluator) groups(e *expression) ([]string, error) {
	names, err := v.list(e)
	if err != nil {
		return nil, err
	}
	groups := []string{}
	seen := map[string]bool{}
	for i, name := range names {
		at := e
		if e.op == opList {
			at = e.args[i]
		}
		if err := checkName(at, name); err != nil {
			return nil, err
		}
		if !seen[name] {
			seen[name] = true
			groups = append(groups, name)
		}
	}
	return groups, nil
}

// properties resolves names and values.
func (v *evaluator) properties(list []property) (map[string]string, error) {
	resolved := make(map[string]string, len(list))
	for _, p := range list {
		value, err := v.text(p.value)
		if err != nil {
			return nil, err
		}
		resolved[p.name] = value
	}
	return resolved, nil
}

// certificate resolves a certificate, nil if there is none.
func (v *evaluator) certificate(c *certificate) (*Certificate, error) {
	if c == nil {
		return nil, nil //nolint:nilnil // a bulk template without a certificate is one
	}
	resolved := &Certificate{LogicalName: c.logical, Active: true, OnStatus: c.onStatus}
	for _, field := range []struct {
		e    *expression
		into *string
	}{{c.csr, &resolved.CSR}, {c.id, &resolved.ID}, {c.pem, &resolved.PEM}, {c.authority, &resolved.AuthorityPEM}} {
		if field.e == nil {
			continue
		}
		text, err := v.text(field.e)
		if err != nil {
			return nil, err
		}
		if text == "" {
			return nil, problem(field.e, "the result is empty")
		}
		*field.into = text
	}
	if c.id != nil && !fleet.ValidCertificateID(resolved.ID) {
		return nil, problem(c.id, "the result is no id of a certificate: 64 hexadecimal digits in lower case")
	}
	if c.status != nil {
		status, err := v.text(c.status)
		if err != nil {
			return nil, err
		}
		active, ok := activeOf(status)
		if !ok {
			return nil, problem(c.status, "the result must be ACTIVE or INACTIVE")
		}
		resolved.Active = active
	}
	return resolved, nil
}

// policy resolves a policy. One with a document is named by its hash
// (documented): SHA-256 over the document without white space, in hexadecimal
// digits (ours; the guide does not say which hash).
func (v *evaluator) policy(p policy) (Policy, error) {
	resolved := Policy{LogicalName: p.logical}
	if p.name != nil {
		name, err := v.text(p.name)
		if err != nil {
			return Policy{}, err
		}
		if !fleet.ValidPolicyName(name) {
			return Policy{}, problem(p.name, "the result is no valid name of a policy")
		}
		resolved.Name = name
		return resolved, nil
	}
	v.guarded = v.template.kind != Bulk
	document, err := v.text(p.document)
	v.guarded = false
	if err != nil {
		return Policy{}, err
	}
	if found := checkDocument(document, v.template.limits); found != "" {
		return Policy{}, problem(p.document, "the result is no policy document: %s", found)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(document)); err != nil {
		return Policy{}, problem(p.document, "the result is no policy document: %v", err)
	}
	sum := sha256.Sum256(compact.Bytes())
	resolved.Name, resolved.Document = hex.EncodeToString(sum[:]), document
	return resolved, nil
}

// checkDocument says what keeps a text from being a JSON object, "" if
// nothing. What a policy may say is not its business.
func checkDocument(document string, limits Limits) string {
	limits.MaxBody = limits.MaxText
	_, root, err := readTree([]byte(document), limits)
	if found := (*SyntaxError)(nil); errors.As(err, &found) {
		return found.Problem
	}
	if root.shape != shapeObject {
		return "it is " + root.shape.String() + ", not an object"
	}
	return ""
}

// text resolves an expression that gives one text.
func (v *evaluator) text(e *expression) (string, error) {
	switch e.op {
	case opLiteral:
		return e.text, nil
	case opRef:
		value, err := v.parameter(e, e.text)
		if err != nil {
			return "", err
		}
		return value, v.charge(e, len(value))
	case opJoin:
		return v.join(e)
	case opSelect:
		return v.choose(e)
	case opFindInMap:
		return v.findInMap(e)
	case opSub, opDocument:
		return v.pieces(e)
	default:
		return "", problem(e, "there is no text")
	}
}

// parameter returns the value of a parameter. What a device gives must not
// change what a policy of a named template says (ours): quotes could add
// statements, wildcards and variables could widen resources.
func (v *evaluator) parameter(e *expression, name string) (string, error) {
	value := v.values[name]
	if v.guarded && value.given && strings.ContainsFunc(value.text, func(r rune) bool {
		return r < ' ' || strings.ContainsRune("\"\\*?$", r)
	}) {
		return "", &EvaluationError{
			Pointer: e.pointer, Parameter: name, Function: e.op.name(),
			Problem: "the value has a quote, backslash, wildcard, dollar or control character, which a policy document cannot take",
		}
	}
	return value.text, nil
}

// texts resolves several expressions.
func (v *evaluator) texts(list []*expression) ([]string, error) {
	resolved := make([]string, 0, len(list))
	for _, e := range list {
		text, err := v.text(e)
		if err != nil {
			return nil, err
		}
		resolved = append(resolved, text)
	}
	return resolved, nil
}

// list resolves an expression that gives a list.
func (v *evaluator) list(e *expression) ([]string, error) {
	if e.op == opList {
		return v.texts(e.args)
	}
	args, err := v.texts(e.args)
	if err != nil {
		return nil, err
	}
	delimiter, text := args[0], args[1]
	if delimiter == "" {
		return nil, problem(e, "the delimiter is empty")
	}
	// An element takes memory even if it is empty.
	if err := v.charge(e, len(text)+strings.Count(text, delimiter)); err != nil {
		return nil, err
	}
	return strings.Split(text, delimiter), nil
}

// join resolves Fn::Join.
func (v *evaluator) join(e *expression) (string, error) {
	delimiter, err := v.text(e.args[0])
	if err != nil {
		return "", err
	}
	elements, err := v.list(e.args[1])
	if err != nil {
		return "", err
	}
	size := len(delimiter) * max(0, len(elements)-1)
	for _, element := range elements {
		size += len(element)
	}
	if err := v.charge(e, size); err != nil {
		return "", err
	}
	return strings.Join(elements, delimiter), nil
}

// choose resolves Fn::Select. Elements that are not selected are not resolved.
func (v *evaluator) choose(e *expression) (string, error) {
	text, err := v.text(e.args[0])
	if err != nil {
		return "", err
	}
	index, ok := indexOf(text)
	if !ok {
		return "", problem(e, "the index is no whole number from 0")
	}
	list := e.args[1]
	if list.op == opList {
		switch {
		case index >= len(list.args):
			return "", problem(e, "the index is %d, the list has %d elements", index, len(list.args))
		case list.args[index].op == opNull:
			return "", problem(e, "element %d is null", index)
		}
		return v.text(list.args[index])
	}
	elements, err := v.list(list)
	if err != nil {
		return "", err
	}
	if index >= len(elements) {
		return "", problem(e, "the index is %d, the list has %d elements", index, len(elements))
	}
	return elements[index], nil
}

// indexOf reads an index: digits only, few enough for any list.
func indexOf(text string) (int, bool) {
	if len(text) > 9 {
		return 0, false
	}
	index, err := strconv.ParseUint(text, 10, 31)
	return int(index), err == nil
}

// findInMap resolves Fn::FindInMap.
func (v *evaluator) findInMap(e *expression) (string, error) {
	args, err := v.texts(e.args)
	if err != nil {
		return "", err
	}
	table, ok := v.template.mappings[args[0]]
	if !ok {
		return "", problem(e, "there is no map of the name in the first argument")
	}
	row, ok := table[args[1]]
	if !ok {
		return "", problem(e, "the map has no key as in the second argument")
	}
	value, ok := row[args[2]]
	if !ok {
		return "", problem(e, "the map has no key as in the third argument")
	}
	return value, v.charge(e, len(value))
}

// pieces puts a Sub or a document together. In a document, what a function
// gives becomes a JSON text or a list of them, so no value can change what the
// document says around it.
func (v *evaluator) pieces(e *expression) (string, error) {
	args := make([]string, 0, len(e.args))
	for _, arg := range e.args {
		text, err := v.argument(e, arg)
		if err != nil {
			return "", err
		}
		args = append(args, text)
	}
	parts := make([]string, 0, len(e.pieces))
	size := 0
	for _, p := range e.pieces {
		part, err := v.piece(e, p, args)
		if err != nil {
			return "", err
		}
		parts = append(parts, part)
		size += len(part)
	}
	if err := v.charge(e, size); err != nil {
		return "", err
	}
	return strings.Join(parts, ""), nil
}

// piece returns what a piece of an expression stands for.
func (v *evaluator) piece(e *expression, p piece, args []string) (string, error) {
	switch {
	case p.argument > 0:
		return args[p.argument-1], nil
	case p.parameter != "":
		return v.parameter(e, p.parameter)
	default:
		return p.literal, nil
	}
}

// argument resolves an argument of a Sub or a document.
func (v *evaluator) argument(e, arg *expression) (string, error) {
	if e.op == opSub {
		return v.text(arg)
	}
	if arg.op != opSplit {
		text, err := v.text(arg)
		return string(quote(text)), err
	}
	elements, err := v.list(arg)
	if err != nil {
		return "", err
	}
	quoted := make([]string, 0, len(elements))
	for _, element := range elements {
		quoted = append(quoted, string(quote(element)))
	}
	return "[" + strings.Join(quoted, ",") + "]", nil
}
