package deviceauth

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/iotpolicy"
)

// generalNames encodes one name of each kind, and one that policies ignore.
func generalNames(tb testing.TB, prefix string) []byte {
	tb.Helper()
	directory, err := asn1.Marshal(pkix.Name{CommonName: prefix + "dir", Organization: []string{"O,x"}}.ToRDNSequence())
	if err != nil {
		tb.Fatal(err)
	}
	context := func(tag int, compound bool, content []byte) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: compound, Bytes: content}
	}
	der, err := asn1.Marshal([]asn1.RawValue{
		context(tagDNSName, false, []byte(prefix+"1.example.net")),
		context(tagDNSName, false, []byte(prefix+"2.example.net")),
		context(tagRFC822Name, false, []byte(prefix+"@example.net")),
		context(tagURI, false, []byte("urn:"+prefix)),
		context(tagIPAddress, false, net.IPv4(192, 0, 2, 7).To4()),
		context(tagIPAddress, false, []byte{1, 2, 3}),
		context(tagDirectoryName, true, directory),
		context(8, false, []byte{0x2a}),
		context(tagDNSName, false, []byte("\xff")),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

// The example in the service's documentation: the serial number is decimal,
// fields with several values keep their order.
func TestCertificateFields(t *testing.T) {
	t.Parallel()
	attribute := func(oid string, value any) pkix.AttributeTypeAndValue {
		parsed, err := x509.ParseOID(oid)
		if err != nil {
			t.Fatal(err)
		}
		var arcs asn1.ObjectIdentifier
		der, err := parsed.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := asn1.Unmarshal(append([]byte{6, byte(len(der))}, der...), &arcs); err != nil {
			t.Fatal(err)
		}
		return pkix.AttributeTypeAndValue{Type: arcs, Value: value}
	}
	certificate := &x509.Certificate{
		SerialNumber: new(big.Int).SetUint64(10525622389124227206),
		Subject: pkix.Name{Names: []pkix.AttributeTypeAndValue{
			attribute("2.5.4.6", "US"), attribute("2.5.4.10", "IoT Devices"), attribute("2.5.4.11", "LightBulb"),
			attribute("2.5.4.11", "Second"), attribute("2.5.4.8", "NY"), attribute("2.5.4.3", "Bulb"), attribute("2.5.4.42", "Given"),
			attribute("2.5.4.43", "ZZ"), attribute("2.5.4.46", "Bulb001"), attribute("2.5.4.4", "Multi"), attribute("2.5.4.12", "RGB"),
			attribute("2.5.4.65", "Pseudo"), attribute("2.5.4.44", "4"), attribute("2.5.4.5", "123"),
			attribute("2.5.4.7", "not a variable"), attribute("2.5.4.3", 7), attribute("2.5.4.3", "\xff"),
		}},
		Issuer: pkix.Name{Names: []pkix.AttributeTypeAndValue{attribute("2.5.4.3", "CA")}},
		Extensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: generalNames(t, "s")},
			{Id: asn1.ObjectIdentifier{2, 5, 29, 18}, Value: generalNames(t, "i")},
		},
	}
	want := map[string][]string{
		"SerialNumber":    {"10525622389124227206"},
		"Subject.Country": {"US"}, "Subject.Organization": {"IoT Devices"}, "Subject.OrganizationalUnit": {"LightBulb", "Second"},
		"Subject.State": {"NY"}, "Subject.CommonName": {"Bulb"}, "Subject.GivenName": {"Given"}, "Subject.Initials": {"ZZ"},
		"Subject.DistinguishedNameQualifier": {"Bulb001"}, "Subject.Surname": {"Multi"}, "Subject.Title": {"RGB"},
		"Subject.Pseudonym": {"Pseudo"}, "Subject.GenerationQualifier": {"4"}, "Subject.SerialNumber": {"123"},
		"Issuer.CommonName": {"CA"},
	}
	for side, prefix := range map[string]string{"Subject": "s", "Issuer": "i"} {
		want[side+".AlternativeName.DNSName"] = []string{prefix + "1.example.net", prefix + "2.example.net"}
		want[side+".AlternativeName.RFC822Name"] = []string{prefix + "@example.net"}
		want[side+".AlternativeName.UniformResourceIdentifier"] = []string{"urn:" + prefix}
		want[side+".AlternativeName.IPAddress"] = []string{"192.0.2.7"}
		want[side+".AlternativeName.DirectoryName"] = []string{`CN=` + prefix + `dir,O=O\,x`}
	}
	got := certificateFields(certificate)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	known := iotpolicy.CertificateFields()
	for field := range got {
		if !slices.Contains(known, field) {
			t.Errorf("policies do not know the field %s", field)
		}
	}
}

func FuzzAlternativeNames(f *testing.F) {
	f.Add(generalNames(f, "s"))
	f.Add([]byte{0x30, 0x80})
	f.Add([]byte{0x30, 0x04, 0xa4, 0x02, 0x30, 0x00})
	f.Fuzz(func(t *testing.T, der []byte) {
		fields := fieldMap{}
		fields.addAlternativeNames("Subject.AlternativeName.", der)
		for name, values := range fields {
			for _, value := range values {
				if value == "" || !utf8.ValidString(value) {
					t.Errorf("%s has the value %q", name, value)
				}
			}
		}
	})
}
