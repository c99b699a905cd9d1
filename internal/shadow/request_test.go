package shadow

import (
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/fault"
)

// nested returns n objects within each other around a number.
func nested(n int) string {
	return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n)
}

// The texts are those of the error table in the device plane's section 4.8.
func TestRequestRefusals(t *testing.T) {
	t.Parallel()
	token64 := strings.Repeat("x", 64)
	for name, c := range map[string]struct {
		body    string
		code    fault.Code
		message string
	}{
		"empty body":              {``, fault.InvalidRequest, "Invalid JSON"},
		"white space":             {`  `, fault.InvalidRequest, "Invalid JSON"},
		"no object":               {`[]`, fault.InvalidRequest, "Invalid JSON"},
		"text behind":             {`{"state":{}} x`, fault.InvalidRequest, "Invalid JSON"},
		"open object":             {`{"state":{}`, fault.InvalidRequest, "Invalid JSON"},
		"trailing comma":          {`{"state":{},}`, fault.InvalidRequest, "Invalid JSON"},
		"missing colon":           {`{"state"{}}`, fault.InvalidRequest, "Invalid JSON"},
		"name without quotes":     {`{state:{}}`, fault.InvalidRequest, "Invalid JSON"},
		"leading zero":            {`{"state":{"reported":{"a":01}}}`, fault.InvalidRequest, "Invalid JSON"},
		"bare fraction":           {`{"state":{"reported":{"a":.5}}}`, fault.InvalidRequest, "Invalid JSON"},
		"open fraction":           {`{"state":{"reported":{"a":1.}}}`, fault.InvalidRequest, "Invalid JSON"},
		"open exponent":           {`{"state":{"reported":{"a":1e}}}`, fault.InvalidRequest, "Invalid JSON"},
		"NaN":                     {`{"state":{"reported":{"a":NaN}}}`, fault.InvalidRequest, "Invalid JSON"},
		"half a word":             {`{"state":{"reported":{"a":tru}}}`, fault.InvalidRequest, "Invalid JSON"},
		"control character":       {"{\"state\":{\"reported\":{\"a\":\"\x01\"}}}", fault.InvalidRequest, "Invalid JSON"},
		"control behind escape":   {"{\"state\":{\"reported\":{\"a\":\"\\n\x01\"}}}", fault.InvalidRequest, "Invalid JSON"},
		"unknown escape":          {`{"state":{"reported":{"a":"\x"}}}`, fault.InvalidRequest, "Invalid JSON"},
		"open escape":             {`{"state":{"reported":{"a":"\`, fault.InvalidRequest, "Invalid JSON"},
		"short unicode escape":    {`{"state":{"reported":{"a":"\u00`, fault.InvalidRequest, "Invalid JSON"},
		"half a surrogate pair":   {`{"state":{"reported":{"a":"\ud800"}}}`, fault.InvalidRequest, "Invalid JSON"},
		"low surrogate first":     {`{"state":{"reported":{"a":"\udc00\ud800"}}}`, fault.InvalidRequest, "Invalid JSON"},
		"byte order mark":         {"\ufeff{\"state\":{}}", fault.InvalidRequest, "Invalid JSON"},
		"not UTF-8":               {"{\"state\":{\"reported\":{\"a\":\"\xff\"}}}", fault.UnsupportedDocumentEncoding, "Unsupported documented encoding; supported encoding is UTF-8"},
		"no state":                {`{"clientToken":"x"}`, fault.InvalidRequest, "Missing required node: state"},
		"state is null":           {`{"state":null}`, fault.InvalidRequest, "State node must be an object"},
		"state is an array":       {`{"state":[]}`, fault.InvalidRequest, "State node must be an object"},
		"desired is a number":     {`{"state":{"desired":1}}`, fault.InvalidRequest, "Desired node must be an object"},
		"desired is an array":     {`{"state":{"desired":[{}]}}`, fault.InvalidRequest, "Desired node must be an object"},
		"reported is a text":      {`{"state":{"reported":"x"}}`, fault.InvalidRequest, "Reported node must be an object"},
		"third section":           {`{"state":{"wanted":{}}}`, fault.InvalidRequest, "State contains an invalid node"},
		"null in an array":        {`{"state":{"reported":{"a":[1,null]}}}`, fault.InvalidRequest, "State contains an invalid node"},
		"null deep in an array":   {`{"state":{"reported":{"a":[{"b":[null]}]}}}`, fault.InvalidRequest, "State contains an invalid node"},
		"null in object in array": {`{"state":{"reported":{"a":[{"b":null}]}}}`, fault.InvalidRequest, "State contains an invalid node"},
		"version is a text":       {`{"state":{},"version":"1"}`, fault.InvalidRequest, "Invalid version"},
		"version is a fraction":   {`{"state":{},"version":1.5}`, fault.InvalidRequest, "Invalid version"},
		"version is negative":     {`{"state":{},"version":-1}`, fault.InvalidRequest, "Invalid version"},
		"version overflows":       {`{"state":{},"version":9223372036854775808}`, fault.InvalidRequest, "Invalid version"},
		"token is a number":       {`{"state":{},"clientToken":1}`, fault.InvalidRequest, "Invalid clientToken"},
		"token of 65 bytes":       {`{"state":{},"clientToken":"` + token64 + `x"}`, fault.InvalidRequest, "Invalid clientToken"},
		"nine levels":             {`{"state":{"reported":` + nested(9) + `}}`, fault.InvalidRequest, "JSON contains too many levels of nesting; maximum is 8"},
		"arrays are levels":       {`{"state":{"reported":{"a":` + strings.Repeat("[", 8) + strings.Repeat("]", 8) + `}}}`, fault.InvalidRequest, "JSON contains too many levels of nesting; maximum is 8"},
		"bottomless":              {`{"state":{"reported":` + strings.Repeat(`[`, 100_000) + `}}`, fault.InvalidRequest, "Invalid JSON"},
		"body over the limit":     {`{"state":{}}` + strings.Repeat(" ", 128<<10), fault.RequestEntityTooLarge, "The payload exceeds the maximum size allowed"},
		"state far over":          {`{"state":{"reported":{"a":"` + strings.Repeat("x", 20_000) + `"}}}`, fault.RequestEntityTooLarge, "The payload exceeds the maximum size allowed"},
		"many small values":       {`{"state":{"reported":{"a":[` + strings.Repeat("1,", 20_000) + `1]}}}`, fault.RequestEntityTooLarge, "The payload exceeds the maximum size allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseRequest([]byte(c.body), 1, Limits{}.withDefaults())
			if fault.CodeOf(err) != c.code || fault.From(err).Message != c.message {
				t.Errorf("refusal = %v, want %s %s", err, c.code, c.message)
			}
		})
	}
}

func TestRequestAccepts(t *testing.T) {
	t.Parallel()
	token64 := strings.Repeat("x", 64)
	for name, c := range map[string]struct {
		body    string
		version int64
		token   Token
	}{
		"eight levels":             {`{"state":{"reported":` + nested(8) + `}}`, -1, ""},
		"token of 64 bytes":        {`{"state":{},"clientToken":"` + token64 + `"}`, -1, Token(`"` + token64 + `"`)},
		"escapes count once":       {`{"state":{},"clientToken":"` + strings.Repeat(`\u0061`, 64) + `"}`, -1, Token(`"` + strings.Repeat("a", 64) + `"`)},
		"needed escapes too":       {`{"state":{},"clientToken":"` + strings.Repeat(`\u0001\n`, 32) + `"}`, -1, Token(`"` + strings.Repeat(`\u0001\n`, 32) + `"`)},
		"null version and token":   {`{"version":null,"clientToken":null,"state":{}}`, -1, ""},
		"empty token":              {`{"clientToken":"","state":{}}`, -1, `""`},
		"version":                  {`{"version":9223372036854775807,"state":{}}`, 9223372036854775807, ""},
		"white space anywhere":     {" \t\r\n{ \"state\" : { \"desired\" : { \"a\" : [ 1 , 2 ] } } , \"version\" : 3 } \n", 3, ""},
		"nested unknown member":    {`{"x":` + strings.Repeat("[", 150) + strings.Repeat("]", 150) + `,"state":{}}`, -1, ""},
		"null member of a section": {`{"state":{"desired":{"a":null}}}`, -1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := parseRequest([]byte(c.body), 1, Limits{}.withDefaults())
			if err != nil {
				t.Fatal(err)
			}
			if r.version != c.version || r.token != c.token {
				t.Errorf("version, token = %d, %s, want %d, %s", r.version, r.token, c.version, c.token)
			}
		})
	}
}

// Clients drop a rejection without their token, so it must be found also when
// the document is refused.
func TestTokenOfARefusedDocument(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"token first":    `{"clientToken":"t","state":[]}`,
		"token behind":   `{"state":{"reported":{"a":[null]}},"clientToken":"t"}`,
		"too deep":       `{"state":{"reported":` + nested(20) + `},"clientToken":"t"}`,
		"syntax behind":  `{"clientToken":"t","state":{]}`,
		"no state":       `{"clientToken":"t"}`,
		"wrong version":  `{"version":"x","clientToken":"t","state":{}}`,
		"big state":      `{"state":{"reported":{"a":"` + strings.Repeat("x", 20_000) + `"}},"clientToken":"t"}`,
		"duplicate":      `{"clientToken":"u","state":[],"clientToken":"t"}`,
		"spelt by codes": `{"client\u0054oken":"\u0074","state":[]}`,
	} {
		if _, err := parseRequest([]byte(body), 1, Limits{}.withDefaults()); err == nil && name != "no state" {
			t.Errorf("%s: accepted", name)
		}
		if token, _ := ParseToken([]byte(body)); token != `"t"` {
			t.Errorf("%s: token = %s", name, token)
		}
	}
}

func TestParseToken(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]struct {
		token Token
		err   string
	}{
		``:                       {"", ""},
		`{}`:                     {"", ""},
		`{"clientToken":"a1"}`:   {`"a1"`, ""},
		`{"clientToken":null}`:   {"", ""},
		`{"clientToken":{}}`:     {"", "Invalid clientToken"},
		`hello`:                  {"", "Invalid JSON"},
		`{"clientToken":"a"} {}`: {`"a"`, "Invalid JSON"},
		"\xff":                   {"", "Unsupported documented encoding; supported encoding is UTF-8"},
	} {
		token, err := ParseToken([]byte(body))
		message := ""
		if err != nil {
			message = fault.From(err).Message
		}
		if token != want.token || message != want.err {
			t.Errorf("ParseToken(%q) = %s, %q; want %s, %q", body, token, message, want.token, want.err)
		}
	}
}

func TestEqualNumbers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"1", "1.0", true},
		{"100", "1e2", true},
		{"1E+2", "10e1", true},
		{"0.001", "1e-3", true},
		{"-0", "0", true},
		{"0e999999999999999999999", "0", true},
		{"1e999999999999999999999", "1e999999999999999999998", false},
		{"1e999999999999999999999", "1e999999999999999999999", true},
		{"-1", "1", false},
		{"0.1", "0.10000000000000000001", false},
		{"10", "1", false},
		{"1e2147483647", "10e2147483646", true},
	} {
		if got := equalNumbers(c.a, c.b); got != c.want {
			t.Errorf("equalNumbers(%s, %s) = %v", c.a, c.b, got)
		}
		if got := equalNumbers(c.b, c.a); got != c.want {
			t.Errorf("equalNumbers(%s, %s) = %v", c.b, c.a, got)
		}
	}
}
