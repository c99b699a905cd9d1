package audit

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// hidden stands for what must not be in a trail, in the words of CloudTrail.
const hidden = "HIDDEN_DUE_TO_SECURITY_REASONS"

// Bounds of what is kept of a request. A member that is longer is cut, and
// parameters that are larger as a whole are left out.
const (
	maxText       = 12 << 10
	maxParameters = 32 << 10
	maxDepth      = 32
	maxMessage    = 1 << 10
	maxUserAgent  = 512
)

// Parameters writes what a request asked for, without secrets and within bounds.
// It takes what encoding/json makes of any document.
func Parameters(members map[string]any) json.RawMessage {
	if len(members) == 0 {
		return nil
	}
	out, err := marshal(clean("", members, 0))
	if err != nil {
		out = []byte(`{"omitted":"not JSON"}`)
	}
	if len(out) > maxParameters {
		out = fmt.Appendf(nil, `{"omitted":"%d bytes"}`, len(out))
	}
	return out
}

// clean copies a value without secrets.
func clean(name string, value any, depth int) any {
	if depth > maxDepth {
		return "omitted: nested too deeply"
	}
	if value != nil && secret(name) {
		return hidden
	}
	switch v := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, member := range v {
			out[key] = clean(key, member, depth+1)
			if name == "mqttContext" && key == "username" {
				// What devices send to custom authorizers may hold tokens anywhere.
				out[key] = hidden
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, element := range v {
			out[i] = clean("", element, depth+1)
		}
		return out
	case string:
		return cleanText(v)
	default:
		return value
	}
}

// cleanText cuts what is long and hides what must be a private key, wherever it
// was put.
func cleanText(text string) string {
	if strings.Contains(text, "PRIVATE KEY-----") {
		return hidden
	}
	return cut(text, maxText)
}

// cut shortens a text to a number of bytes and says so.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	end := most
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s… (%d bytes)", text[:end], len(text))
}

// secret reports whether a member of that name must not be kept. Names of keys
// that are public, and of what only names a token, do not count.
func secret(name string) bool {
	name = strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
	switch name {
	case "nexttoken", "clienttoken", "clientrequesttoken", "tokenkeyname", "tokensigningpublickeys", "secretid", "secretarn", "secretfile":
		return false
	case "httpcontext", "authorization", "cookie", "code", "codeverifier", "assertion", "credentials":
		return true
	}
	for _, part := range []string{"password", "passphrase", "secret", "privatekey", "token"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return strings.HasSuffix(name, "signature")
}
