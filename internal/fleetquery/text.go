package fleetquery

import (
	"math"
	"strconv"
	"strings"
)

// Fold returns text in the form in which it is compared: queries and values
// are both folded, field names never.
func Fold(text string) string { return strings.ToLower(text) }

// Words folds a string value and splits it at white space.
func Words(text string) []string { return strings.Fields(Fold(text)) }

// ParseNumber reads text as a JSON number within the range of a double. It
// serves query literals and registry attributes, which are text on the wire.
func ParseNumber(text string) (float64, bool) {
	if !isJSONNumber(text) {
		return 0, false
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(n, 0) {
		return 0, false
	}
	if n == 0 {
		return 0, true // minus zero equals zero
	}
	return n, true
}

// isJSONNumber reports whether text has the grammar of a JSON number:
// no leading plus, no leading zeros, digits on both sides of the point.
func isJSONNumber(text string) bool {
	s := strings.TrimPrefix(text, "-")
	whole := digits(s)
	if whole == 0 || (whole > 1 && s[0] == '0') {
		return false
	}
	s = s[whole:]
	if strings.HasPrefix(s, ".") {
		n := digits(s[1:])
		if n == 0 {
			return false
		}
		s = s[1+n:]
	}
	if s == "" {
		return true
	}
	if s[0] != 'e' && s[0] != 'E' {
		return false
	}
	s = s[1:]
	if s != "" && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	return s != "" && digits(s) == len(s)
}

// digits counts the leading decimal digits.
func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
