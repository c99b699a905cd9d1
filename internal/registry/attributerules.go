package registry

import (
	"context"
	"errors"
	"maps"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// AttributeRules are what the attributes of a type's things must be like. They
// are Muster's own: AWS's types demand nothing.
type AttributeRules struct {
	// Attributes has the rules of each attribute by name.
	Attributes map[string]AttributeRule `json:"attributes,omitempty"`
	// RefuseUnknown forbids attributes that Attributes does not name.
	RefuseUnknown bool `json:"refuseUnknown,omitempty"`
}

// AttributeRule is what one attribute must be like; what is not set demands
// nothing. All but Required concern an attribute that is there.
type AttributeRule struct {
	Required bool `json:"required,omitempty"`
	// Pattern is an RE2 expression that the whole value must match.
	Pattern string `json:"pattern,omitempty"`
	// Enum lists the values that are allowed.
	Enum []string `json:"enum,omitempty"`
	// Minimum and Maximum demand a decimal number within them.
	Minimum *float64 `json:"minimum,omitempty"`
	Maximum *float64 `json:"maximum,omitempty"`
	// MaxLength is in bytes; 0 is the registry's own limit.
	MaxLength int `json:"maxLength,omitempty"`
}

// Names of rules, in violations and in errors.
const (
	ruleRequired  = "required"
	rulePattern   = "pattern"
	ruleEnum      = "enum"
	ruleMinimum   = "minimum"
	ruleMaximum   = "maximum"
	ruleMaxLength = "maxLength"
	ruleUnknown   = "refuseUnknown"
)

// Bounds of rules.
const (
	maxRuledAttributes = maxTypedAttributes
	maxRulePattern     = 256
	maxRuleEnum        = 100
)

// Violation is a rule that the attributes of a thing break.
type Violation struct {
	Attribute string `json:"attribute"`
	// Rule is the member of the rules that is broken.
	Rule string `json:"rule"`
	// Detail says what is demanded.
	Detail string `json:"detail"`
}

// Violations are all that is wrong with one thing.
type Violations struct {
	Thing      string      `json:"thing"`
	Violations []Violation `json:"violations"`
}

// ruleSet is AttributeRules with their patterns compiled.
type ruleSet struct {
	rules    *AttributeRules
	patterns map[string]*regexp.Regexp
}

// compileRules refuses rules that cannot be kept, naming attribute and rule.
func (p *patterns) compileRules(r *AttributeRules) (*ruleSet, error) {
	set := &ruleSet{rules: r, patterns: map[string]*regexp.Regexp{}}
	if len(r.Attributes) > maxRuledAttributes {
		return nil, fault.New(fault.InvalidRequest, "attributes must have at most %d entries", maxRuledAttributes)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Attributes)) {
		if !attributeNamePattern.MatchString(name) {
			return nil, fault.New(fault.InvalidRequest, "attributes: names must have 1 to 128 characters and match [a-zA-Z0-9_.,@/:#-]+")
		}
		rule := r.Attributes[name]
		if err := rule.check(name); err != nil {
			return nil, err
		}
		if rule.Pattern == "" {
			continue
		}
		pattern, err := p.anchored(rule.Pattern)
		switch {
		case errors.Is(err, errLargePattern):
			return nil, badRule(name, rulePattern, "is too large: what is repeated in it comes to more than "+strconv.Itoa(maxRuleProgram)+" steps")
		case err != nil:
			return nil, badRule(name, rulePattern, "is no RE2 expression: "+err.Error())
		}
		set.patterns[name] = pattern
	}
	return set, nil
}

// patterns keeps compiled expressions by their text: rules are followed with
// each thing that is created or changed, and compiling takes far longer than
// matching.
type patterns struct {
	mu       sync.Mutex
	compiled map[string]*regexp.Regexp
	// steps is the size of what is kept.
	steps int
}

const (
	// maxRuleProgram bounds a pattern in steps of its program, which repetition
	// can make thousands of times longer than its text; time and memory follow it.
	maxRuleProgram = 5000
	// maxKeptPatterns bounds patterns in the same unit, about 20 MB.
	maxKeptPatterns = 100 * maxRuleProgram
)

var errLargePattern = errors.New("the pattern is too large")

// anchored compiles an expression that has to match all of a value. It is
// parsed by itself first: "a)|(b" must not get out of its anchors.
func (p *patterns) anchored(pattern string) (*regexp.Regexp, error) {
	p.mu.Lock()
	found := p.compiled[pattern]
	p.mu.Unlock()
	if found != nil {
		return found, nil
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err //nolint:wrapcheck // the caller says what it is about
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err //nolint:wrapcheck // as above
	}
	if len(program.Inst) > maxRuleProgram {
		return nil, errLargePattern
	}
	made, err := regexp.Compile(`^(?:` + pattern + `)$`)
	if err != nil {
		return nil, err //nolint:wrapcheck // as above
	}
	p.keep(pattern, made, len(program.Inst))
	return made, nil
}

// keep remembers a pattern; of too many the old ones are forgotten.
func (p *patterns) keep(pattern string, made *regexp.Regexp, steps int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.compiled == nil || p.steps+steps > maxKeptPatterns {
		p.compiled, p.steps = map[string]*regexp.Regexp{}, 0
	}
	if p.compiled[pattern] == nil {
		p.compiled[pattern] = made
		p.steps += steps
	}
}

// badRule is the fault of a rule that cannot be kept.
func badRule(name, rule, text string) error {
	return fault.New(fault.InvalidRequest, "attributes.%s.%s %s", name, rule, text)
}

// check refuses a rule that makes no sense; the pattern is checked elsewhere.
func (r *AttributeRule) check(name string) error {
	switch {
	case len(r.Pattern) > maxRulePattern:
		return badRule(name, rulePattern, "must have at most "+strconv.Itoa(maxRulePattern)+" characters")
	case r.Enum != nil && (len(r.Enum) == 0 || len(r.Enum) > maxRuleEnum):
		return badRule(name, ruleEnum, "must have 1 to "+strconv.Itoa(maxRuleEnum)+" values")
	case r.Minimum != nil && !finite(*r.Minimum):
		return badRule(name, ruleMinimum, "must be a finite number")
	case r.Maximum != nil && !finite(*r.Maximum):
		return badRule(name, ruleMaximum, "must be a finite number")
	case r.Minimum != nil && r.Maximum != nil && *r.Minimum > *r.Maximum:
		return badRule(name, ruleMinimum, "must not be above maximum")
	case r.MaxLength < 0 || r.MaxLength > maxAttributeValue:
		return badRule(name, ruleMaxLength, "must be from 1 to "+strconv.Itoa(maxAttributeValue))
	}
	for i, value := range r.Enum {
		switch {
		case value == "" || len(value) > maxAttributeValue || !attributeValuePattern.MatchString(value):
			return badRule(name, ruleEnum, "has a value that no attribute can have: "+strconv.Quote(value))
		case slices.Contains(r.Enum[:i], value):
			return badRule(name, ruleEnum, "has the value "+strconv.Quote(value)+" twice")
		}
	}
	return nil
}

// finite reports whether a number is one.
func finite(n float64) bool { return !math.IsInf(n, 0) && !math.IsNaN(n) }

// violations returns all that is wrong with attributes, by attribute.
func (s *ruleSet) violations(attributes map[string]string) []Violation {
	var found []Violation
	for _, name := range slices.Sorted(maps.Keys(s.rules.Attributes)) {
		rule := s.rules.Attributes[name]
		value, ok := attributes[name]
		if !ok {
			if rule.Required {
				found = append(found, Violation{name, ruleRequired, "must be given"})
			}
			continue
		}
		found = append(found, s.of(name, &rule, value)...)
	}
	if !s.rules.RefuseUnknown {
		return found
	}
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		if _, ok := s.rules.Attributes[name]; !ok {
			found = append(found, Violation{name, ruleUnknown, "is none of the type's attributes"})
		}
	}
	return found
}

// of returns what is wrong with one value.
func (s *ruleSet) of(name string, rule *AttributeRule, value string) []Violation {
	var found []Violation
	broken := func(which, detail string) { found = append(found, Violation{name, which, detail}) }
	if p := s.patterns[name]; p != nil && !p.MatchString(value) {
		broken(rulePattern, "must match "+rule.Pattern)
	}
	if rule.Enum != nil && !slices.Contains(rule.Enum, value) {
		broken(ruleEnum, "must be one of "+strings.Join(rule.Enum, ", "))
	}
	if rule.MaxLength > 0 && len(value) > rule.MaxLength {
		broken(ruleMaxLength, "must have at most "+strconv.Itoa(rule.MaxLength)+" characters")
	}
	if rule.Minimum == nil && rule.Maximum == nil {
		return found
	}
	n, ok := decimal(value)
	if rule.Minimum != nil && (!ok || n < *rule.Minimum) {
		broken(ruleMinimum, "must be a number, at least "+number(*rule.Minimum))
	}
	if rule.Maximum != nil && (!ok || n > *rule.Maximum) {
		broken(ruleMaximum, "must be a number, at most "+number(*rule.Maximum))
	}
	return found
}

// decimalPattern is a number as people write it: neither hexadecimal nor "inf",
// which strconv takes too.
var decimalPattern = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?([eE]-?[0-9]{1,3})?$`)

// decimal reads a value as a finite number.
func decimal(value string) (float64, bool) {
	if !decimalPattern.MatchString(value) {
		return 0, false
	}
	n, err := strconv.ParseFloat(value, 64)
	return n, err == nil
}

// number writes a bound.
func number(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }

// followRules refuses attributes that break the rules of their type, naming the
// first rule that is broken.
func (p *patterns) followRules(of *typeRecord, attributes map[string]string) error {
	if of == nil || of.Rules == nil {
		return nil
	}
	set, err := p.compileRules(of.Rules)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "The stored attribute rules cannot be read")
	}
	found := set.violations(attributes)
	if len(found) == 0 {
		return nil
	}
	first := found[0]
	more := ""
	if len(found) > 1 {
		more = " (and " + strconv.Itoa(len(found)-1) + " more)"
	}
	return fault.New(fault.InvalidRequest, "attribute %s %s: rule %s of the thing type%s", first.Attribute, first.Detail, first.Rule, more)
}

// AttributeRules returns the rules of a type, or ResourceNotFound when it has
// none.
func (s *Service) AttributeRules(ctx context.Context, account fleet.Account, typeName string) (AttributeRules, error) {
	record, err := s.findType(ctx, account, typeName)
	if err != nil {
		return AttributeRules{}, err
	}
	if record.Rules == nil {
		return AttributeRules{}, fault.New(fault.ResourceNotFound, "thing type %s has no attribute rules", typeName)
	}
	return *record.Rules, nil
}

// findType reads a type that must exist, outside a change.
func (s *Service) findType(ctx context.Context, account fleet.Account, name string) (*typeRecord, error) {
	if err := checkName("thingTypeName", name); err != nil {
		return nil, err
	}
	record, _, err := get[typeRecord](ctx, s.store, key(kindThingType, account, name))
	if err != nil {
		return nil, store.Fault(err)
	}
	if record == nil {
		return nil, notFound("thing type", name)
	}
	return record, nil
}

// SetAttributeRules replaces the rules of a type. From then on they hold for
// each thing that is created with the type or changed to it, and for each
// change of attributes of its things; what is there stays as it is until then.
func (s *Service) SetAttributeRules(ctx context.Context, account fleet.Account, typeName string, rules AttributeRules) error {
	if err := checkName("thingTypeName", typeName); err != nil {
		return err
	}
	if _, err := s.patterns.compileRules(&rules); err != nil {
		return err
	}
	return s.changeRules(ctx, account, typeName, &rules)
}

// RemoveAttributeRules ends the rules of a type; it may be repeated.
func (s *Service) RemoveAttributeRules(ctx context.Context, account fleet.Account, typeName string) error {
	if err := checkName("thingTypeName", typeName); err != nil {
		return err
	}
	return s.changeRules(ctx, account, typeName, nil)
}

// changeRules puts rules in force. Whoever creates or changes a thing of the
// type expects the type's record unchanged, so that none slips through.
func (s *Service) changeRules(ctx context.Context, account fleet.Account, typeName string, rules *AttributeRules) error {
	return s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadType(ctx, a, typeName)
		if err != nil {
			return err
		}
		if rules == nil && record.Rules == nil {
			return nil
		}
		record.Rules = rules
		a.emit(event.AttributeRulesChanged{TypeName: typeName, Removed: rules == nil})
		return save(a, key(kindThingType, account, typeName), record)
	})
}

// CheckAttributeRules returns one page of the things of a type that break
// rules: those given, or the type's own when rules is nil. It changes nothing.
// A page may be short, even empty, and not the last.
func (s *Service) CheckAttributeRules(
	ctx context.Context, account fleet.Account, typeName string, rules *AttributeRules, p Page,
) (Listed[Violations], error) {
	record, err := s.findType(ctx, account, typeName)
	if err != nil {
		return Listed[Violations]{}, err
	}
	if rules == nil {
		rules = record.Rules
	}
	if rules == nil {
		return Listed[Violations]{}, fault.New(fault.ResourceNotFound, "thing type %s has no attribute rules", typeName)
	}
	set, err := s.patterns.compileRules(rules)
	if err != nil {
		return Listed[Violations]{}, err
	}
	owner := func(k store.Key) store.Key { return key(kindThing, account, k.Last()) }
	listed, err := listRecords[thingRecord](ctx, s.store, under(kindThingByType, account, typeName), p, owner,
		func(k store.Key, r *thingRecord) (Violations, bool) {
			if r.TypeName != typeName {
				return Violations{}, false
			}
			found := set.violations(r.Attributes)
			return Violations{Thing: k.Last(), Violations: found}, len(found) > 0
		})
	return listed, store.Fault(err)
}
