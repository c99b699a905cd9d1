package config

import (
	"errors"
	"strconv"
	"strings"
)

// value is a setting seen as text; it is also what pflag asks of a flag.
type value interface {
	Set(text string) error
	String() string
	Type() string
}

// Reasons why a text is no value; the setting's path is put before them.
var (
	errDuration = errors.New("is no duration; write for example 90m or 168h")
	errBoolean  = errors.New("is neither true nor false")
	errSize     = errors.New("is no number of bytes; write for example 500MiB or 1GiB")
	errCount    = errors.New("is no whole number")
)

// text is any string.
type text string

// Set keeps the text; validation judges it.
func (t *text) Set(in string) error { *t = text(in); return nil }

// String returns the text.
func (t *text) String() string { return string(*t) }

// Type names the kind in help.
func (*text) Type() string { return "string" }

// flag is true or false, nothing else.
type flag bool

// Set accepts the two words only.
func (b *flag) Set(in string) error {
	switch in {
	case "true":
		*b = true
	case "false":
		*b = false
	default:
		return errBoolean
	}
	return nil
}

// String returns the word.
func (b *flag) String() string { return strconv.FormatBool(bool(*b)) }

// Type names the kind in help; pflag shows no placeholder for this word.
func (*flag) Type() string { return "bool" }

// IsBoolFlag lets the flag stand without a value.
func (*flag) IsBoolFlag() bool { return true }

// list is a comma-separated list of texts.
type list []string

// Set replaces the list.
func (l *list) Set(in string) error {
	*l = nil
	for part := range strings.SplitSeq(in, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*l = append(*l, part)
		}
	}
	return nil
}

// String joins with commas.
func (l *list) String() string { return strings.Join(*l, ",") }

// Type names the kind in help.
func (*list) Type() string { return "strings" }

// count is a whole number.
type count int

// Set accepts decimal digits.
func (c *count) Set(in string) error {
	n, err := strconv.Atoi(in)
	if err != nil {
		return errCount
	}
	*c = count(n)
	return nil
}

// String returns the digits.
func (c *count) String() string { return strconv.Itoa(int(*c)) }

// Type names the kind in help.
func (*count) Type() string { return "number" }

// size is a number of bytes.
type size int64

// unit is a suffix of a size. Only binary units are offered: with both kinds
// side by side, people misread one for the other.
type unit struct {
	name  string
	shift uint
}

// units are ordered from large to small.
func units() []unit { return []unit{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}} }

// Set accepts a plain number or one with a unit.
func (s *size) Set(in string) error {
	digits, shift := in, uint(0)
	for _, u := range units() {
		if rest, ok := strings.CutSuffix(in, u.name); ok {
			digits, shift = rest, u.shift
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 62)
	if err != nil || n<<shift>>shift != n || n<<shift > 1<<62 {
		return errSize
	}
	*s = size(n << shift)
	return nil
}

// String uses the largest unit that divides the number.
func (s *size) String() string {
	n := int64(*s)
	for _, u := range units() {
		if n != 0 && n%(1<<u.shift) == 0 {
			return strconv.FormatInt(n>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// Type names the kind in help.
func (*size) Type() string { return "bytes" }
