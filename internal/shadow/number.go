package shadow

import (
	"strconv"
	"strings"
)

// equalNumbers compares two JSON number texts by value and exactly, so that 1,
// 1.0 and 10e-1 are the same. No conversion to a float is involved.
func equalNumbers(a, b string) bool {
	if a == b {
		return true
	}
	x, okX := parseDecimal(a)
	y, okY := parseDecimal(b)
	return okX && okY && x == y
}

// decimal is a number in scientific form: digits without zeros at either end,
// read as 0.digits × 10^exponent. Zero is the zero value.
type decimal struct {
	digits   string
	exponent int64
	negative bool
}

// parseDecimal brings a valid JSON number into its one scientific form. It
// reports false when the exponent is too large to be told apart.
func parseDecimal(text string) (decimal, bool) {
	rest, negative := strings.CutPrefix(text, "-")
	mantissa, exponent := rest, int64(0)
	if i := strings.IndexAny(rest, "eE"); i >= 0 {
		n, err := strconv.ParseInt(strings.TrimPrefix(rest[i+1:], "+"), 10, 32)
		mantissa, exponent = rest[:i], n
		if err != nil && strings.Trim(mantissa, "0.") != "" {
			return decimal{}, false
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := whole + fraction
	exponent += int64(len(whole))
	trimmed := strings.TrimLeft(digits, "0")
	exponent -= int64(len(digits) - len(trimmed))
	trimmed = strings.TrimRight(trimmed, "0")
	if trimmed == "" {
		return decimal{}, true
	}
	return decimal{digits: trimmed, exponent: exponent, negative: negative}, true
}
