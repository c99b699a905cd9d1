package iot

import (
	"slices"
	"strconv"

	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/shadow"
)

// document is one thing as a search answers it, without its connectivity.
func document(thing registry.Thing, shadows []shadow.Document) iotwire.ThingDocument {
	d := iotwire.ThingDocument{
		ThingName: &thing.Name, ThingID: &thing.ID, ThingTypeName: optional(thing.TypeName),
		Attributes:      filled(thing.Attributes),
		ThingGroupNames: each(thing.Groups, func(m registry.Membership) string { return m.Group }),
	}
	if thing.BillingGroup != "" && !slices.Contains(d.ThingGroupNames, thing.BillingGroup) {
		d.ThingGroupNames = append(d.ThingGroupNames, thing.BillingGroup)
	}
	if len(shadows) > 0 {
		d.Shadow = new(string(shadowText(shadows)))
	}
	return d
}

// connectivity is the connectivity part of a document. A thing that was never
// connected is not connected, and nothing else is known.
func connectivity(c *Connectivity) *iotwire.ThingConnectivity {
	if c == nil {
		return &iotwire.ThingConnectivity{Connected: new(false)}
	}
	return &iotwire.ThingConnectivity{
		Connected: &c.Connected, Timestamp: &c.TimestampMS, ClientID: optional(c.ClientID), KeepAliveDuration: new(int32(c.KeepAlive)),
		CleanSession: &c.CleanSession, SessionExpiry: &c.SessionExpiry, DisconnectReason: optional(c.DisconnectReason),
	}
}

// shadowText renders all shadows of a thing as the JSON text that travels
// inside a string: the classic shadow's members at the top, the named shadows
// under "name".
func shadowText(shadows []shadow.Document) []byte {
	out, named := []byte{'{'}, false
	for _, s := range shadows {
		if s.Shadow == "" {
			out = appendShadow(out, s)
			continue
		}
		if !named {
			out = append(separated(out), `"name":{`...)
			named = true
		}
		// A shadow's name has no character that JSON escapes.
		out = strconv.AppendQuote(separated(out), s.Shadow)
		out = append(appendShadow(append(out, ":{"...), s), '}')
	}
	if named {
		out = append(out, '}')
	}
	return append(out, '}')
}

// appendShadow appends the members of one shadow.
func appendShadow(out []byte, s shadow.Document) []byte {
	out = append(append(out, `"reported":`...), s.Reported()...)
	out = append(append(out, `,"desired":`...), s.Desired()...)
	if s.HasDelta() {
		out = append(append(out, `,"delta":`...), s.Delta()...)
	}
	out = strconv.AppendBool(append(out, `,"hasDelta":`...), s.HasDelta())
	out = strconv.AppendInt(append(out, `,"version":`...), s.Version, 10)
	return append(append(out, `,"metadata":`...), s.Metadata()...)
}

// separated puts a comma between members.
func separated(out []byte) []byte {
	if out[len(out)-1] == '{' {
		return out
	}
	return append(out, ',')
}
