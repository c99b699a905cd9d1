package iotpolicy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// qualifier says how the values of a key combine.
type qualifier uint8

const (
	// plain: a positive operator holds for some value, a negated one for all.
	plain qualifier = iota
	// forAll holds for every value, and without any.
	forAll
	// forAny holds for some value, and never without one.
	forAny
)

// condition compares one key with the policy's values. All conditions of a
// statement must hold.
type condition struct {
	// name is the operator as written.
	name      string
	operator  operator
	qualifier qualifier
	// ifExists makes an absent key satisfy the condition.
	ifExists bool
	key      variable
	values   []template
	// place is where the key stands, valuePlaces where each value does.
	place       Place
	valuePlaces []Place
}

// conditionDraft is a condition whose values are not interpreted yet.
type conditionDraft struct {
	condition
	texts []text
}

// condition parses a Condition block: operator, key, values.
func (p *parser) condition(d *draft) error {
	block, err := p.next()
	if err != nil {
		return err
	}
	return p.object(block, "Condition", func(name value, key string) error {
		c, err := parseOperator(key)
		if err != nil {
			return p.problem(name.at, "%q: %v", clip(key), err)
		}
		keys, err := p.next()
		if err != nil {
			return err
		}
		return p.object(keys, key, func(name value, key string) error {
			return p.conditionKey(d, c, name, key)
		})
	})
}

// parseOperator splits prefix, operator and suffix.
func parseOperator(name string) (condition, error) {
	c := condition{name: name}
	rest := name
	if tail, ok := strings.CutPrefix(rest, "ForAllValues:"); ok {
		c.qualifier, rest = forAll, tail
	} else if tail, ok := strings.CutPrefix(rest, "ForAnyValue:"); ok {
		c.qualifier, rest = forAny, tail
	}
	rest, c.ifExists = strings.CutSuffix(rest, "IfExists")
	op, ok := operatorByName(rest)
	if !ok {
		return c, errors.New("there is no such condition operator")
	}
	if op.family == nullFamily && (c.ifExists || c.qualifier != plain) {
		return c, errors.New("this operator takes neither prefix nor suffix")
	}
	c.operator = op
	return c, nil
}

// conditionKey parses one key of an operator with its values.
func (p *parser) conditionKey(d *draft, c condition, name value, key string) error {
	v, ok := p.dialect.variable(key)
	if !ok {
		return p.problem(name.at, "the condition key %q is not known", clip(key))
	}
	if err := checkKey(c, v); err != nil {
		return p.problem(name.at, "%v", err)
	}
	for i := range d.conditions {
		if d.conditions[i].name == c.name && d.conditions[i].key == v {
			return p.problem(name.at, "%s has the key %q twice", c.name, v.name)
		}
	}
	c.key, c.place = v, name.place
	found := conditionDraft{condition: c}
	err := p.elements(func(v value) error {
		t, err := p.scalar(v)
		found.texts = append(found.texts, t)
		return err
	})
	if err != nil {
		return err
	}
	if len(found.texts) == 0 {
		return p.problem(name.at, "the condition key %q has no values", clip(key))
	}
	d.conditions = append(d.conditions, found)
	return nil
}

// checkKey refuses comparisons with the clock whose next change cannot be
// foreseen.
func checkKey(c condition, v variable) error {
	timed := c.operator.family == dateFamily || c.operator.family == nullFamily
	if v.kind == fromCurrentTime && !timed {
		return fmt.Errorf("%s needs a Date operator", v.name)
	}
	if v.kind == fromEpochTime && !timed && c.operator.family != numericFamily {
		return fmt.Errorf("%s needs a Date or a Numeric operator", v.name)
	}
	return nil
}

// finishConditions checks condition values and their variables.
func (p *parser) finishConditions(d *draft) error {
	for _, c := range d.conditions {
		for _, source := range c.texts {
			t, err := parseTemplate(source.source, p.rules(c.operator.wildcards()))
			if err == nil && t.constant {
				err = c.operator.check(decode(t.joined()))
			}
			if err != nil {
				return p.problem(source.at, "%v", err)
			}
			c.values = append(c.values, t)
			c.valuePlaces = append(c.valuePlaces, source.place)
		}
		d.statement.conditions = append(d.statement.conditions, c.condition)
	}
	return nil
}

// verdict is a condition's answer for one connection.
type verdict struct {
	holds bool
	// missing names the variables and keys without a value.
	missing []string
	// widened says that a value without meaning made a negated condition
	// hold: an Allow statement must not profit from it.
	widened bool
	// until is when the answer may change; zero when it never does.
	until time.Time
}

// evaluate answers the condition.
func (c *condition) evaluate(ctx *Context) verdict {
	var v verdict
	wanted := make([]pattern, 0, len(c.values))
	for i := range c.values {
		p, missing := c.values[i].resolve(ctx)
		if missing != nil {
			v.missing = append(v.missing, missing...)
			v.widened = v.widened || c.operator.negated
			continue
		}
		wanted = append(wanted, p)
		v.until = earlier(v.until, c.change(p.text, ctx.Now))
	}
	actual := ctx.values(c.key)
	v.holds = c.compare(actual, wanted)
	if len(actual) == 0 && (c.operator.family != nullFamily || !v.holds) {
		v.missing = append(v.missing, c.key.name)
	}
	return v
}

// compare applies operator, qualifier and suffix.
func (c *condition) compare(actual []string, wanted []pattern) bool {
	if c.operator.family == nullFamily {
		return slices.ContainsFunc(wanted, func(p pattern) bool {
			absent, _ := boolean(p.text)
			return absent == (len(actual) == 0)
		})
	}
	if len(actual) == 0 {
		return c.ifExists || c.qualifier == forAll || (c.operator.negated && c.qualifier == plain)
	}
	satisfied := func(value string) bool {
		return c.operator.negated != slices.ContainsFunc(wanted, func(p pattern) bool { return c.operator.matches(value, p) })
	}
	if c.qualifier == forAll || (c.qualifier == plain && c.operator.negated) {
		return !slices.ContainsFunc(actual, func(value string) bool { return !satisfied(value) })
	}
	return slices.ContainsFunc(actual, satisfied)
}

// change returns the next moment after now at which a comparison of the clock
// with text may turn, zero for other keys.
func (c *condition) change(text string, now time.Time) time.Time {
	if c.key.kind != fromCurrentTime && c.key.kind != fromEpochTime {
		return time.Time{}
	}
	t, ok := instant(text)
	if n, isNumber := number(text); c.operator.family == numericFamily && isNumber && n >= 0 && n < 1e11 {
		t, ok = time.Unix(int64(n), 0), true
	}
	if !ok {
		return time.Time{}
	}
	// The clock key has nanoseconds, the epoch key whole seconds.
	second := t.Truncate(time.Second)
	var next time.Time
	for _, at := range []time.Time{t, t.Add(1), second.Add(time.Second), second.Add(2 * time.Second)} {
		if at.After(now) {
			next = earlier(next, at)
		}
	}
	return next
}

// earlier returns the earlier of two moments; zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
