package wire

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fault"
)

// violations collects what is wrong with a request, so that one answer names
// every mistake.
type violations struct {
	texts []string
	more  int
}

// add notes one mistake of the member at path.
func (v *violations) add(path, format string, args ...any) {
	if len(v.texts) >= maxViolations {
		v.more++
		return
	}
	v.texts = append(v.texts, "'"+path+"' "+fmt.Sprintf(format, args...))
}

// err returns the mistakes as one fault, nil when there are none.
func (v *violations) err() error {
	if len(v.texts) == 0 {
		return nil
	}
	text := "Invalid request: " + strings.Join(v.texts, "; ")
	if v.more > 0 {
		text += "; and " + strconv.Itoa(v.more) + " more"
	}
	return fault.New(fault.InvalidRequest, "%s", text)
}

// text checks a string.
func (v *violations) text(r *rule, path, value string) {
	if r == nil {
		return
	}
	length := utf8.RuneCountInString(value)
	v.length(r, path, length, "characters")
	if len(r.Enum) > 0 && !slices.Contains(r.Enum, value) {
		v.add(path, "must be one of %s%s", strings.Join(r.Enum, ", "), got(r, value))
	}
	// An overlong value is not worth matching.
	tooLong := r.Max != nil && float64(length) > *r.Max
	if r.pattern != nil && !tooLong && !r.pattern.MatchString(value) {
		v.add(path, "must match %s%s", r.Shown, got(r, value))
	}
}

// number checks an integer or a float.
func (v *violations) number(r *rule, path string, value float64) {
	if r == nil {
		return
	}
	if r.Min != nil && value < *r.Min {
		v.add(path, "must be at least %s", bound(r.Min))
	}
	if r.Max != nil && value > *r.Max {
		v.add(path, "must be at most %s", bound(r.Max))
	}
}

// length checks how many of unit a value has.
func (v *violations) length(r *rule, path string, length int, unit string) {
	if r == nil {
		return
	}
	if r.Min != nil && float64(length) < *r.Min {
		v.add(path, "must have at least %s %s", bound(r.Min), unit)
	}
	if r.Max != nil && float64(length) > *r.Max {
		v.add(path, "must have at most %s %s", bound(r.Max), unit)
	}
}

// got quotes a refused value, shortened, unless it is secret.
func got(r *rule, value string) string {
	const shown = 100
	if r.Secret {
		return ""
	}
	if utf8.RuneCountInString(value) > shown {
		value = string([]rune(value)[:shown]) + "…"
	}
	return ", not " + strconv.Quote(value)
}

// bound prints a limit without exponent.
func bound(limit *float64) string { return strconv.FormatFloat(*limit, 'f', -1, 64) }
