package iotpolicy

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// family groups the operators that read values alike.
type family uint8

const (
	stringFamily family = iota
	stringFoldFamily
	likeFamily
	numericFamily
	dateFamily
	boolFamily
	ipFamily
	arnFamily
	nullFamily
)

// relation is how a key's value must stand to the policy's.
type relation uint8

const (
	equal relation = iota
	less
	lessOrEqual
	greater
	greaterOrEqual
)

// operator is a condition operator without prefix and suffix.
type operator struct {
	family   family
	relation relation
	// negated operators hold when no value of the policy matches.
	negated bool
}

// operatorByName knows every operator. Names are case-sensitive.
func operatorByName(name string) (operator, bool) {
	switch name {
	case "Bool":
		return operator{family: boolFamily}, true
	case "Null":
		return operator{family: nullFamily}, true
	case "IpAddress":
		return operator{family: ipFamily}, true
	case "NotIpAddress":
		return operator{family: ipFamily, negated: true}, true
	case "StringEqualsIgnoreCase":
		return operator{family: stringFoldFamily}, true
	case "StringNotEqualsIgnoreCase":
		return operator{family: stringFoldFamily, negated: true}, true
	case "StringLike":
		return operator{family: likeFamily}, true
	case "StringNotLike":
		return operator{family: likeFamily, negated: true}, true
	case "ArnEquals", "ArnLike":
		return operator{family: arnFamily}, true
	case "ArnNotEquals", "ArnNotLike":
		return operator{family: arnFamily, negated: true}, true
	case "StringEquals":
		return operator{family: stringFamily}, true
	case "StringNotEquals":
		return operator{family: stringFamily, negated: true}, true
	}
	if rest, ok := strings.CutPrefix(name, "Numeric"); ok {
		return ordered(numericFamily, rest)
	}
	if rest, ok := strings.CutPrefix(name, "Date"); ok {
		return ordered(dateFamily, rest)
	}
	return operator{}, false
}

// ordered returns the operator of a family whose values have an order.
func ordered(f family, rest string) (operator, bool) {
	switch rest {
	case "Equals":
		return operator{family: f}, true
	case "NotEquals":
		return operator{family: f, negated: true}, true
	case "LessThan":
		return operator{family: f, relation: less}, true
	case "LessThanEquals":
		return operator{family: f, relation: lessOrEqual}, true
	case "GreaterThan":
		return operator{family: f, relation: greater}, true
	case "GreaterThanEquals":
		return operator{family: f, relation: greaterOrEqual}, true
	}
	return operator{}, false
}

// wildcards reports whether * and ? in the policy's values match others.
func (o operator) wildcards() bool { return o.family == likeFamily || o.family == arnFamily }

// check refuses a value that could never match, which is always a mistake.
func (o operator) check(text string) error {
	ok := true
	switch o.family {
	case numericFamily:
		_, ok = number(text)
	case dateFamily:
		_, ok = instant(text)
	case boolFamily, nullFamily:
		_, ok = boolean(text)
	case ipFamily:
		_, ok = network(text)
	case stringFamily, stringFoldFamily, likeFamily, arnFamily:
	}
	if !ok {
		kind := map[family]string{
			numericFamily: "a number", dateFamily: "a date", boolFamily: "true or false",
			nullFamily: "true or false", ipFamily: "an IP address or a network",
		}
		return fmt.Errorf("the condition value %q is not %s", clip(text), kind[o.family])
	}
	return nil
}

// matches compares one value of the key with one of the policy, ignoring
// negation. Values that cannot be read match nothing.
func (o operator) matches(actual string, wanted pattern) bool {
	switch o.family {
	case stringFamily:
		return actual == wanted.text
	case stringFoldFamily:
		return strings.EqualFold(actual, wanted.text)
	case likeFamily:
		return wanted.match(actual)
	case numericFamily:
		a, okA := number(actual)
		b, okB := number(wanted.text)
		return okA && okB && o.holds(compareNumbers(a, b))
	case dateFamily:
		a, okA := instant(actual)
		b, okB := instant(wanted.text)
		return okA && okB && o.holds(a.Compare(b))
	case boolFamily:
		a, okA := boolean(actual)
		b, okB := boolean(wanted.text)
		return okA && okB && a == b
	case ipFamily:
		return inNetwork(actual, wanted.text)
	case arnFamily:
		return arnMatches(actual, wanted.text)
	case nullFamily:
	}
	return false
}

// holds applies the relation to a three-way comparison.
func (o operator) holds(order int) bool {
	switch o.relation {
	case equal:
		return order == 0
	case less:
		return order < 0
	case lessOrEqual:
		return order <= 0
	case greater:
		return order > 0
	case greaterOrEqual:
		return order >= 0
	}
	return false
}

// compareNumbers orders two finite numbers.
func compareNumbers(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// number reads a decimal number with double precision.
func number(text string) (float64, bool) {
	if text == "" || strings.Trim(text, "0123456789+-.eE") != "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(text, 64)
	return n, err == nil && !math.IsInf(n, 0)
}

// instant reads an ISO 8601 date, with or without time, or seconds since 1970.
// Four digits are a year.
func instant(text string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00", time.DateOnly, "2006-01", "2006"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, true
		}
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	const farthest = 253_402_300_799 // the end of year 9999
	if err != nil || seconds < 0 || seconds > farthest {
		return time.Time{}, false
	}
	return time.Unix(seconds, 0), true
}

// boolean reads true or false in any case.
func boolean(text string) (yes, ok bool) {
	yes = strings.EqualFold(text, "true")
	return yes, yes || strings.EqualFold(text, "false")
}

// network reads an address or a network in CIDR notation.
func network(text string) (netip.Prefix, bool) {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return prefix.Masked(), true
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, false
	}
	address = address.Unmap().WithZone("")
	return netip.PrefixFrom(address, address.BitLen()), true
}

// inNetwork reports whether an address lies in a network.
func inNetwork(address, prefix string) bool {
	a, err := netip.ParseAddr(address)
	n, ok := network(prefix)
	return err == nil && ok && n.Contains(a.Unmap().WithZone(""))
}

// arnMatches compares the six parts of two ARNs one by one, so that a wildcard
// does not reach across a colon; the last part holds the rest.
func arnMatches(actual, encoded string) bool {
	a, w := strings.SplitN(actual, ":", 6), strings.SplitN(encoded, ":", 6)
	if len(a) != 6 || len(w) != 6 {
		return false
	}
	for i := range a {
		if !newPattern(w[i]).match(a[i]) {
			return false
		}
	}
	return true
}
