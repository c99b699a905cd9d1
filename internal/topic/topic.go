// Package topic is the language of MQTT topic names and filters as AWS IoT
// narrows it: what is well formed, what is within the limits, and which names
// a filter matches. It is pure: no I/O, no state, no goroutines. It knows no
// subscribers and no policies; the meaning of reserved topics lives elsewhere.
package topic

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// Profile selects whose reading of the language applies.
type Profile uint8

const (
	// AWS is the dialect of the service: `a/#` does not match `a`.
	AWS Profile = iota
	// Standard is the dialect of the OASIS specifications.
	Standard
)

// Limits bounds names and filters. Zero fields mean what the MQTT encoding
// itself allows.
type Limits struct {
	// MaxBytes is the length in UTF-8 bytes.
	MaxBytes int
	// MaxSlashes is one less than the number of levels.
	MaxSlashes int
}

// encodingMax is the longest string that an MQTT packet can carry.
const encodingMax = 65535

// maxShareName bounds the group name of a shared subscription, in characters.
const maxShareName = 128

// Prefixes that do not count towards the limits.
const (
	rulesPrefix = "$aws/rules/"
	sharePrefix = "$share/"
)

// Errors of validation. They are sentences for logs and reason strings.
var (
	ErrEmpty        = errors.New("topic is empty")
	ErrTooLong      = errors.New("topic is too long")
	ErrTooDeep      = errors.New("topic has too many slashes")
	ErrNotUTF8      = errors.New("topic is not UTF-8 without U+0000")
	ErrWildcardName = errors.New("topic name contains a wildcard")
	ErrWildcard     = errors.New("wildcard does not stand alone in its level")
	ErrHashNotLast  = errors.New("multi-level wildcard is not the last level")
	ErrShare        = errors.New("shared subscription has no usable group or filter")
)

// DefaultLimits returns the service's limits for AWS (256 bytes, 7 slashes)
// and none beyond the encoding for Standard.
func DefaultLimits(p Profile) Limits {
	if p == AWS {
		return Limits{MaxBytes: 256, MaxSlashes: 7}
	}
	return Limits{}
}

// ValidateName checks a topic that a message is published to. The first three
// levels of `$aws/rules/{rule}/…` do not count towards the limits.
func ValidateName(name string, limits Limits) error {
	if strings.ContainsAny(name, "+#") {
		return ErrWildcardName
	}
	return limits.check(name)
}

// ValidateFilter checks a subscription's filter, shared or not. The prefixes
// `$share/{name}/` and `$aws/rules/{rule}/` do not count towards the limits.
func ValidateFilter(filter string, limits Limits) error {
	shared, ok, err := ParseShared(filter)
	if err != nil {
		return err
	}
	if ok {
		if utf8.RuneCountInString(shared.Group) > maxShareName || !utf8.ValidString(shared.Group) || strings.IndexByte(shared.Group, 0) >= 0 {
			return ErrShare
		}
		filter = shared.Filter
	}
	if err := limits.check(filter); err != nil {
		return err
	}
	return checkWildcards(filter)
}

// check applies the rules that names and filters share.
func (l Limits) check(text string) error {
	if text == "" {
		return ErrEmpty
	}
	if len(text) > encodingMax {
		return ErrTooLong
	}
	counted := withoutRule(text)
	if l.MaxBytes > 0 && len(counted) > l.MaxBytes {
		return ErrTooLong
	}
	if l.MaxSlashes > 0 && strings.Count(counted, "/") > l.MaxSlashes {
		return ErrTooDeep
	}
	if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
		return ErrNotUTF8
	}
	return nil
}

// withoutRule cuts `$aws/rules/{rule}/` off.
func withoutRule(text string) string {
	rest, ok := strings.CutPrefix(text, rulesPrefix)
	if !ok {
		return text
	}
	if _, after, found := strings.Cut(rest, "/"); found {
		return after
	}
	return text
}

// checkWildcards wants `+` and `#` alone in their level and `#` at the end.
func checkWildcards(filter string) error {
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if len(level) > 1 && strings.ContainsAny(level, "+#") {
			return ErrWildcard
		}
		if level == "#" && more {
			return ErrHashNotLast
		}
	}
	return nil
}

// HasWildcard reports whether a filter can match more than one name.
func HasWildcard(filter string) bool { return strings.ContainsAny(filter, "+#") }

// Reserved reports whether a name or filter lies in a `$` tree. A shared
// subscription counts by the filter behind its prefix.
func Reserved(text string) bool {
	if shared, ok, err := ParseShared(text); ok && err == nil {
		text = shared.Filter
	}
	return strings.HasPrefix(text, "$")
}
