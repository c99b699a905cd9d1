package iotpolicy

import (
	"slices"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// conditions looks for comparisons that hold always, or never.
func (l *linter) conditions() {
	for i := range l.st.conditions {
		c := &l.st.conditions[i]
		l.absent(c)
		l.literal(c)
		if why := c.impossible(); why != "" {
			l.tell(CodeNeverTrue, Error, c.place, "this condition never holds: %s; the statement has no effect", why)
			continue
		}
		l.overdue(c)
		for j := range i {
			if why := exclusive(&l.st.conditions[j], c); why != "" {
				l.tell(CodeNeverTrue, Error, c.place, "the conditions of this statement never hold together: %s; the statement has no effect", why)
				break
			}
		}
	}
}

// absent looks for conditions that hold for want of a value.
func (l *linter) absent(c *condition) {
	if l.st.Effect != Allow || c.operator.family == nullFamily {
		return
	}
	required := slices.ContainsFunc(l.st.conditions, func(o condition) bool {
		return o.operator.family == nullFamily && o.key.field == c.key.field && o.key.kind == c.key.kind &&
			slices.ContainsFunc(o.values, func(t template) bool { return strings.EqualFold(t.source, "false") })
	})
	switch {
	case required, c.key.kind == fromConnectAttributes, c.key.kind == fromCurrentTime, c.key.kind == fromEpochTime:
	case c.qualifier == forAll:
		l.tell(CodeVacuous, Warning, c.place, "%s holds when %s is absent; add a Null condition to require it", c.name, c.key.name)
	case c.operator.negated && c.qualifier == plain && !c.ifExists && optional(c.key):
		l.tell(CodeAbsentKey, Info, c.place, "%s holds when %s is absent; add a Null condition to require it", c.name, c.key.name)
	}
	if c.key.kind == fromIsAttached && !c.operator.negated && slices.ContainsFunc(c.values, func(t template) bool { return strings.EqualFold(t.source, "false") }) {
		l.tell(CodeNotAttached, Warning, c.place, `this allows connections of no attached thing, whose client id is anything; write "true"`)
	}
}

// optional reports whether a connection can be without a value for the key.
func optional(v variable) bool {
	return v.kind == fromThingName || v.kind == fromThingTypeName || v.kind == fromAttribute || v.kind == fromCertificate
}

// literal looks for wildcards and variables that are plain text where they
// stand.
func (l *linter) literal(c *condition) {
	for i := range c.values {
		source := c.values[i].source
		if l.doc.Version == Version2008 && strings.Contains(source, "${") {
			l.tell(CodeVariablesOff, Error, c.valuePlaces[i], "variables are plain text under version %s; write Version %s", Version2008, Version2012)
		}
		equals := c.operator.family == stringFamily || c.operator.family == stringFoldFamily
		if equals && strings.ContainsAny(withoutVariables(source), "*?") {
			l.tell(CodeEqualsWildcard, Warning, c.valuePlaces[i], "%s takes * and ? as they are; write %s", c.name, likeOf(c))
		}
	}
}

// likeOf is the operator that has wildcards, with the prefix and suffix of c.
func likeOf(c *condition) string {
	name := "StringLike"
	if c.operator.negated {
		name = "StringNotLike"
	}
	switch c.qualifier {
	case forAll:
		name = "ForAllValues:" + name
	case forAny:
		name = "ForAnyValue:" + name
	case plain:
	}
	if c.ifExists {
		name += "IfExists"
	}
	return name
}

// constants are the values of a condition; ok is false when one depends on the
// connection or has wildcards.
func (c *condition) constants() (values []string, ok bool) {
	for i := range c.values {
		if t := &c.values[i]; !t.constant || t.ready.kind != kindExact {
			return nil, false
		}
		values = append(values, c.values[i].joined())
	}
	return values, true
}

// positive reports whether a value of the key must match one of the policy's.
func (c *condition) positive() bool {
	return !c.operator.negated && !c.ifExists && c.qualifier != forAll && c.operator.family != nullFamily
}

// impossible says why a condition can never hold; empty when it can.
func (c *condition) impossible() string {
	values, ok := c.constants()
	if !ok || !c.positive() || c.operator.family != stringFamily && c.operator.family != boolFamily {
		return ""
	}
	none := func(possible func(string) bool) bool { return !slices.ContainsFunc(values, possible) }
	switch c.key.kind {
	case fromIsAttached:
		if none(func(text string) bool { return text == "true" || text == "false" || c.operator.family == boolFamily }) {
			return c.key.name + " is true or false"
		}
	case fromConnectAttributes:
		if none(func(text string) bool { return text == PersistentConnect || text == LastWill }) {
			return c.key.name + " has no values but " + PersistentConnect + " and " + LastWill
		}
	case fromCertificateID:
		if none(fleet.ValidCertificateID) {
			return "a certificate id has 64 hexadecimal digits in lower case"
		}
	case fromThingName, fromThingTypeName:
		if none(fleet.ValidName) {
			return "no thing or type can be called so"
		}
	case fromClientID, fromSourceIP, fromAttribute, fromDomainName, fromCertificate, fromAvailableKeys, fromCurrentTime, fromEpochTime, fromKey:
	}
	return ""
}

// exclusive says why two conditions of a statement can never hold together;
// empty when they can.
func exclusive(a, b *condition) string {
	if a.key != b.key {
		return ""
	}
	if b.operator.family == nullFamily {
		a, b = b, a
	}
	if a.operator.family == nullFamily {
		onlyAbsent := !slices.ContainsFunc(a.values, func(t template) bool { return !strings.EqualFold(t.source, "true") })
		if onlyAbsent && b.positive() {
			return a.key.name + " is to be absent and to have a value"
		}
		return ""
	}
	if !a.positive() || !b.positive() || several(a.key) {
		return ""
	}
	if disjoint(a, b) {
		return a.key.name + " has one value and is to have two"
	}
	if apart(a, b) || apart(b, a) {
		return a.key.name + " is to be below a value and above a higher one"
	}
	return ""
}

// several reports whether the key can have more than one value at a time.
func several(v variable) bool {
	return v.index == wholeList || v.kind == fromConnectAttributes || v.kind == fromAvailableKeys
}

// disjoint reports whether no value equals one of each.
func disjoint(a, b *condition) bool {
	left, ok := a.constants()
	right, also := b.constants()
	exact := func(f family) bool { return f == stringFamily || f == stringFoldFamily || f == boolFamily }
	if !ok || !also || !exact(a.operator.family) || !exact(b.operator.family) {
		return false
	}
	return !slices.ContainsFunc(left, func(x string) bool {
		return slices.ContainsFunc(right, func(y string) bool { return strings.EqualFold(x, y) })
	})
}

// apart reports whether a wants less than what b wants more than.
func apart(a, b *condition) bool {
	below := a.operator.relation == less || a.operator.relation == lessOrEqual
	above := b.operator.relation == greater || b.operator.relation == greaterOrEqual
	if !below || !above || a.operator.family != b.operator.family || len(a.values) != 1 || len(b.values) != 1 {
		return false
	}
	if !a.values[0].constant || !b.values[0].constant {
		return false
	}
	high, low := a.values[0].joined(), b.values[0].joined()
	if a.operator.family == dateFamily {
		until, ok := instant(high)
		from, also := instant(low)
		return ok && also && until.Before(from)
	}
	until, ok := number(high)
	from, also := number(low)
	return ok && also && until < from
}

// overdue looks for dates that are over.
func (l *linter) overdue(c *condition) {
	if l.o.Now.IsZero() || c.key.kind != fromCurrentTime && c.key.kind != fromEpochTime || c.operator.family != dateFamily || !c.positive() {
		return
	}
	if c.operator.relation != less && c.operator.relation != lessOrEqual {
		return
	}
	for i := range c.values {
		if t, ok := instant(c.values[i].source); !ok || t.After(l.o.Now) {
			return
		}
	}
	last := c.values[len(c.values)-1].source
	l.tell(CodeExpired, Warning, c.place, "this condition held until %s and never will again as of %s; take the statement out", last, l.o.Now.UTC().Format(time.RFC3339))
}
