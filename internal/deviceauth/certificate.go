package deviceauth

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/netip"
	"unicode/utf8"
)

// certificateFields returns the values that policies can refer to, under the
// names that iotpolicy.CertificateFields lists. Values that are no UTF-8 are
// left out. The serial number is decimal.
func certificateFields(certificate *x509.Certificate) map[string][]string {
	fields := fieldMap{}
	if certificate == nil {
		return fields
	}
	if certificate.SerialNumber != nil {
		fields.add("SerialNumber", certificate.SerialNumber.String())
	}
	fields.addName("Subject.", certificate.Subject)
	fields.addName("Issuer.", certificate.Issuer)
	for _, extension := range certificate.Extensions {
		switch extension.Id.String() {
		case "2.5.29.17":
			fields.addAlternativeNames("Subject.AlternativeName.", extension.Value)
		case "2.5.29.18":
			fields.addAlternativeNames("Issuer.AlternativeName.", extension.Value)
		}
	}
	return fields
}

// fieldMap collects values in the order of the certificate.
type fieldMap map[string][]string

// add appends a readable value.
func (f fieldMap) add(name, value string) {
	if value != "" && utf8.ValidString(value) {
		f[name] = append(f[name], value)
	}
}

// addName adds the attributes of a distinguished name.
func (f fieldMap) addName(side string, name pkix.Name) {
	for _, attribute := range name.Names {
		field := nameField(attribute.Type)
		if value, ok := attribute.Value.(string); ok && field != "" {
			f.add(side+field, value)
		}
	}
}

// nameField returns the policy name of an attribute type of X.520.
func nameField(oid asn1.ObjectIdentifier) string {
	switch oid.String() {
	case "2.5.4.3":
		return "CommonName"
	case "2.5.4.4":
		return "Surname"
	case "2.5.4.5":
		return "SerialNumber"
	case "2.5.4.6":
		return "Country"
	case "2.5.4.8":
		return "State"
	case "2.5.4.10":
		return "Organization"
	case "2.5.4.11":
		return "OrganizationalUnit"
	case "2.5.4.12":
		return "Title"
	case "2.5.4.42":
		return "GivenName"
	case "2.5.4.43":
		return "Initials"
	case "2.5.4.44":
		return "GenerationQualifier"
	case "2.5.4.46":
		return "DistinguishedNameQualifier"
	case "2.5.4.65":
		return "Pseudonym"
	}
	return ""
}

// Tags of GeneralName in RFC 5280.
const (
	tagRFC822Name    = 1
	tagDNSName       = 2
	tagDirectoryName = 4
	tagURI           = 6
	tagIPAddress     = 7
)

// addAlternativeNames adds the general names of an extension; what cannot be
// read ends the list. The standard library keeps neither directory names nor
// the issuer's alternative names.
func (f fieldMap) addAlternativeNames(side string, der []byte) {
	var names asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &names); err != nil || len(rest) > 0 || names.Tag != asn1.TagSequence {
		return
	}
	for rest := names.Bytes; len(rest) > 0; {
		var name asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &name); err != nil {
			return
		}
		if name.Class == asn1.ClassContextSpecific {
			f.addGeneralName(side, name)
		}
	}
}

// addGeneralName adds one alternative name of a kind that policies know.
func (f fieldMap) addGeneralName(side string, name asn1.RawValue) {
	switch name.Tag {
	case tagRFC822Name:
		f.add(side+"RFC822Name", string(name.Bytes))
	case tagDNSName:
		f.add(side+"DNSName", string(name.Bytes))
	case tagURI:
		f.add(side+"UniformResourceIdentifier", string(name.Bytes))
	case tagIPAddress:
		if address, ok := netip.AddrFromSlice(name.Bytes); ok {
			f.add(side+"IPAddress", address.String())
		}
	case tagDirectoryName:
		var sequence pkix.RDNSequence
		if rest, err := asn1.Unmarshal(name.Bytes, &sequence); err == nil && len(rest) == 0 {
			f.add(side+"DirectoryName", sequence.String())
		}
	}
}
