package tag

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fault"
)

// Limits of the published service.
const (
	// MaxTags is the most tags of one resource.
	MaxTags  = 50
	maxKey   = 128
	maxValue = 256
)

// reserved is how keys and values must not begin, in any case.
const reserved = "aws:"

var keyPattern = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]+$`)

// Tag is one pair as callers give it.
type Tag struct {
	Key   string
	Value string
}

// Set is the tags of one resource by key; nil when there are none.
type Set map[string]string

// Check returns the set that a caller's list means, or the fault that names
// the rule which the list breaks.
func Check(list []Tag) (Set, error) {
	if len(list) > MaxTags {
		return nil, fault.New(fault.InvalidRequest, "tags must have at most %d entries", MaxTags)
	}
	if len(list) == 0 {
		return nil, nil
	}
	set := make(Set, len(list))
	for _, t := range list {
		if err := checkKey("tags", t.Key); err != nil {
			return nil, err
		}
		if !utf8.ValidString(t.Value) || utf8.RuneCountInString(t.Value) > maxValue {
			return nil, fault.New(fault.InvalidRequest, "tags: the value of %q must have at most %d characters", t.Key, maxValue)
		}
		if isReserved(t.Value) {
			return nil, fault.New(fault.InvalidRequest, "tags: the value of %q must not begin with %s", t.Key, reserved)
		}
		if _, twice := set[t.Key]; twice {
			return nil, fault.New(fault.InvalidRequest, "tags names the key %q twice", t.Key)
		}
		set[t.Key] = t.Value
	}
	return set, nil
}

// checkKey refuses what may not be a key. field is the member it came in.
func checkKey(field, key string) error {
	if utf8.RuneCountInString(key) > maxKey || !keyPattern.MatchString(key) {
		return fault.New(fault.InvalidRequest,
			"%s: keys must have 1 to %d characters, which are letters, digits, spaces and _.:/=+-@", field, maxKey)
	}
	if isReserved(key) {
		return fault.New(fault.InvalidRequest, "%s: the key %q must not begin with %s", field, key, reserved)
	}
	return nil
}

// isReserved reports whether a text begins like the vendor's own tags.
func isReserved(text string) bool {
	return len(text) >= len(reserved) && strings.EqualFold(text[:len(reserved)], reserved)
}
