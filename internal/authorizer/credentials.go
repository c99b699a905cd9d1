package authorizer

import (
	"net/url"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
)

// Names under which clients send what is not the token itself: in headers,
// query parameters and the query string at the end of an MQTT user name.
const (
	KeyName      = "x-amz-customauthorizer-name"
	KeySignature = "x-amz-customauthorizer-signature"
	// reservedPrefix keeps tokens from having one of those names.
	reservedPrefix = "x-amz-customauthorizer-"
)

// Bounds of the service model, in bytes.
const (
	maxToken     = 6144
	maxSignature = 2560
)

// Credentials are what a client sent to be let in by a custom authorizer. The
// zero value is a client that sent nothing.
type Credentials struct {
	lookups []func(name string) string
}

// FromUsername reads the query string at the end of an MQTT user name.
func FromUsername(username string) (Credentials, error) {
	_, query, found := strings.Cut(username, "?")
	if !found {
		return Credentials{}, nil
	}
	values, err := parseQuery(query)
	if err != nil {
		return Credentials{}, fault.Wrap(fault.Unauthorized, err, "The query string in the user name is malformed")
	}
	return Credentials{lookups: []func(string) string{values.Get}}, nil
}

// parseQuery takes semicolons for ordinary characters: the device SDKs put some
// into what they say about themselves.
func parseQuery(raw string) (url.Values, error) {
	return url.ParseQuery(strings.ReplaceAll(raw, ";", "%3B")) //nolint:wrapcheck // the callers say what was parsed
}

// FromHTTP reads headers, under canonical names or not, and query parameters of
// a request. A header wins over a parameter.
func FromHTTP(header map[string][]string, rawQuery string) (Credentials, error) {
	values, err := parseQuery(rawQuery)
	if err != nil {
		return Credentials{}, fault.Wrap(fault.Unauthorized, err, "The query string is malformed")
	}
	byName := func(name string) string {
		for key, all := range header {
			if strings.EqualFold(key, name) && len(all) > 0 {
				return all[0]
			}
		}
		return ""
	}
	return Credentials{lookups: []func(string) string{byName, values.Get}}, nil
}

// Or adds credentials that count where these have nothing.
func (c Credentials) Or(others Credentials) Credentials {
	return Credentials{lookups: slices.Concat(c.lookups, others.lookups)}
}

// value is what the client sent under a name.
func (c Credentials) value(name string) string {
	for _, lookup := range c.lookups {
		if v := lookup(name); v != "" {
			return v
		}
	}
	return ""
}

// Authorizer is the name of the authorizer that the client asks for, empty for
// the default one.
func (c Credentials) Authorizer() string { return c.value(KeyName) }

// signature is the base64 of a signature. An unescaped plus sign of a query has
// become a space, which base64 does not have.
func (c Credentials) signature() string {
	return strings.ReplaceAll(c.value(KeySignature), " ", "+")
}
