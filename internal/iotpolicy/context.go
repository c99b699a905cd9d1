package iotpolicy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Connect attributes, the values of iot:ConnectAttributes.
const (
	// PersistentConnect is a CONNECT that asks for a session that outlives it.
	PersistentConnect = "PersistentConnect"
	// LastWill is a CONNECT that carries a will.
	LastWill = "LastWill"
)

// maxSubstituted is the length in characters above which a certificate value
// is not substituted.
const maxSubstituted = 1024

// Context is what policies can know about the caller. A zero field has no
// value; Compile keeps nothing of it.
type Context struct {
	// ClientID is the MQTT client id; empty for callers without a connection.
	ClientID   string
	SourceIP   netip.Addr
	DomainName string
	// CertificateID names the presented certificate.
	CertificateID string
	// Certificate holds the populated certificate fields under the names of
	// CertificateFields, values in the certificate's order.
	Certificate map[string][]string
	// Thing is the connection's thing; nil when it has none.
	Thing *Thing
	// ConnectAttributes describe the CONNECT packet for as long as the
	// connection lasts.
	ConnectAttributes []string
	// Now answers aws:CurrentTime and aws:EpochTime.
	Now time.Time
	// Keys answers the keys of a dialect by their names.
	Keys map[string][]string
}

// Thing is the registry entry behind a connection.
type Thing struct {
	Name       string
	TypeName   string
	Attributes map[string]string
	// Attached says that the thing is attached to the presented principal.
	Attached bool
}

// values returns the values that a condition key has; none means absent.
func (c *Context) values(v variable) []string {
	switch v.kind {
	case fromClientID:
		return present(c.ClientID)
	case fromSourceIP:
		if !c.SourceIP.IsValid() {
			return nil
		}
		return []string{c.SourceIP.Unmap().WithZone("").String()}
	case fromThingName, fromThingTypeName, fromAttribute, fromIsAttached:
		return c.thingValues(v)
	case fromDomainName:
		return present(c.DomainName)
	case fromCertificateID:
		return present(c.CertificateID)
	case fromCertificate:
		return c.certificateValues(v)
	case fromAvailableKeys:
		return c.availableKeys()
	case fromConnectAttributes:
		return c.ConnectAttributes
	case fromCurrentTime:
		return []string{c.Now.UTC().Format(time.RFC3339Nano)}
	case fromKey:
		return c.Keys[v.name]
	case fromEpochTime:
		return []string{strconv.FormatInt(c.Now.Unix(), 10)}
	}
	return nil
}

// thingValues answers the variables of the connection's thing. IsAttached is
// known for every connection: without a thing it is false.
func (c *Context) thingValues(v variable) []string {
	if v.kind == fromIsAttached {
		if c.Thing == nil && c.ClientID == "" {
			return nil
		}
		return []string{strconv.FormatBool(c.Thing != nil && c.Thing.Attached)}
	}
	if c.Thing == nil {
		return nil
	}
	if v.kind == fromThingName {
		return present(c.Thing.Name)
	}
	if v.kind == fromThingTypeName {
		return present(c.Thing.TypeName)
	}
	value, ok := c.Thing.Attributes[v.field]
	if !ok {
		return nil
	}
	return []string{value}
}

// certificateValues answers one value or all values of a certificate field.
func (c *Context) certificateValues(v variable) []string {
	all := c.Certificate[v.field]
	if len(all) > maxCertificateValues {
		all = all[:maxCertificateValues]
	}
	if v.index == wholeList {
		return all
	}
	if v.index >= len(all) {
		return nil
	}
	return all[v.index : v.index+1]
}

// availableKeys lists the certificate variables that have a value.
func (c *Context) availableKeys() []string {
	keys := make([]string, 0, len(c.Certificate))
	for field, values := range c.Certificate {
		if len(values) > 0 {
			keys = append(keys, certificatePrefix+field)
		}
	}
	slices.Sort(keys)
	return keys
}

// substitute returns the text that replaces a variable. Values that are no
// UTF-8 are never substituted, so that they cannot imitate a wildcard marker;
// certificate values also not when they are long or contain a character that
// means something in a policy or a topic filter.
func (c *Context) substitute(v variable) (string, bool) {
	values := c.values(v)
	if len(values) == 0 || !utf8.ValidString(values[0]) {
		return "", false
	}
	if v.kind == fromCertificate {
		if strings.ContainsAny(values[0], "*$+?#") || utf8.RuneCountInString(values[0]) > maxSubstituted {
			return "", false
		}
	}
	return values[0], true
}

// present makes an empty text an absent value.
func present(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}
