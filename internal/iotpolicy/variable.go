package iotpolicy

import (
	"strings"
)

// variableKind says where a variable's values come from.
type variableKind uint8

const (
	fromClientID variableKind = iota
	fromSourceIP
	fromThingName
	fromThingTypeName
	fromAttribute
	fromIsAttached
	fromDomainName
	fromCertificateID
	fromCertificate
	fromAvailableKeys
	fromConnectAttributes
	fromCurrentTime
	fromEpochTime
	// fromKey is a key of a dialect.
	fromKey
)

// wholeList is the index of a variable that stands for all values of a field.
const wholeList = -1

// maxCertificateValues bounds the values of one certificate field; the rest is
// ignored.
const maxCertificateValues = 5

// variable names one value, or list of values, of the evaluation context.
type variable struct {
	kind variableKind
	// name is the canonical spelling.
	name string
	// field is the thing attribute or the certificate field.
	field string
	// index picks one of several values; wholeList means all of them.
	index int
}

// substitutes reports whether the variable may stand in `${…}`: it must have
// a single value that does not change during a connection.
func (v variable) substitutes() bool {
	switch v.kind {
	case fromConnectAttributes, fromCurrentTime, fromEpochTime, fromAvailableKeys:
		return false
	case fromClientID, fromSourceIP, fromThingName, fromThingTypeName, fromAttribute,
		fromIsAttached, fromDomainName, fromCertificateID, fromCertificate, fromKey:
	}
	return v.index != wholeList
}

// scalars lists the variables whose name says everything.
func scalars() []variable {
	return []variable{
		{kind: fromClientID, name: "iot:ClientId"},
		{kind: fromSourceIP, name: "aws:SourceIp"},
		{kind: fromThingName, name: "iot:Connection.Thing.ThingName"},
		{kind: fromThingTypeName, name: "iot:Connection.Thing.ThingTypeName"},
		{kind: fromIsAttached, name: "iot:Connection.Thing.IsAttached"},
		{kind: fromDomainName, name: "iot:DomainName"},
		{kind: fromCertificateID, name: "iot:CertificateId"},
		{kind: fromConnectAttributes, name: "iot:ConnectAttributes", index: wholeList},
		{kind: fromAvailableKeys, name: "iot:Certificate.AvailableKeys", index: wholeList},
		{kind: fromAvailableKeys, name: "iot:Certificate.AvailableKeys.List", index: wholeList},
		{kind: fromCurrentTime, name: "aws:CurrentTime"},
		{kind: fromEpochTime, name: "aws:EpochTime"},
	}
}

// CertificateFields returns the names of the certificate fields that policies
// may refer to, as they follow "iot:Certificate.". They are the keys of
// Context.Certificate.
func CertificateFields() []string {
	fields := []string{"SerialNumber"}
	for _, side := range []string{"Subject.", "Issuer."} {
		for _, name := range []string{
			"DistinguishedNameQualifier", "Country", "Organization", "OrganizationalUnit", "State", "CommonName",
			"SerialNumber", "Title", "Surname", "GivenName", "Initials", "Pseudonym", "GenerationQualifier",
			"AlternativeName.RFC822Name", "AlternativeName.DNSName", "AlternativeName.DirectoryName",
			"AlternativeName.UniformResourceIdentifier", "AlternativeName.IPAddress",
		} {
			fields = append(fields, side+name)
		}
	}
	return fields
}

const (
	attributePrefix   = "iot:Connection.Thing.Attributes["
	certificatePrefix = "iot:Certificate."
)

// parseVariable recognises a variable by name. Names are compared without
// regard to case, attribute names with it.
func parseVariable(text string) (variable, bool) {
	for _, v := range scalars() {
		if strings.EqualFold(v.name, text) {
			return v, true
		}
	}
	if rest, ok := cutPrefixFold(text, attributePrefix); ok {
		return attributeVariable(rest)
	}
	if rest, ok := cutPrefixFold(text, certificatePrefix); ok {
		return certificateVariable(rest)
	}
	return variable{}, false
}

// attributeVariable parses what follows the opening bracket.
func attributeVariable(rest string) (variable, bool) {
	name, ok := strings.CutSuffix(rest, "]")
	if !ok || name == "" || strings.ContainsAny(name, "[]${}*?") {
		return variable{}, false
	}
	return variable{kind: fromAttribute, name: attributePrefix + name + "]", field: name}, true
}

// certificateVariable parses a certificate field with its optional index.
func certificateVariable(rest string) (variable, bool) {
	base, index, suffix := rest, 0, ""
	if dot := strings.LastIndexByte(rest, '.'); dot >= 0 {
		switch tail := rest[dot+1:]; {
		case strings.EqualFold(tail, "List"):
			base, index, suffix = rest[:dot], wholeList, ".List"
		case len(tail) == 1 && tail[0] >= '0' && tail[0] < '0'+maxCertificateValues:
			base, index, suffix = rest[:dot], int(tail[0]-'0'), "."+tail
		}
	}
	for _, field := range CertificateFields() {
		if strings.EqualFold(field, base) {
			return variable{kind: fromCertificate, name: certificatePrefix + field + suffix, field: field, index: index}, true
		}
	}
	return variable{}, false
}

// cutPrefixFold is strings.CutPrefix without regard to ASCII case.
func cutPrefixFold(text, prefix string) (string, bool) {
	if len(text) < len(prefix) || !strings.EqualFold(text[:len(prefix)], prefix) {
		return "", false
	}
	return text[len(prefix):], true
}
