package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/fleet"
)

// What parses must be stable: the stored PEM leads to the same id again.
func FuzzCertificate(f *testing.F) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(selfSigned(k, start)))
	f.Add("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	f.Add("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		if err := checkCSR(text); err == nil && len(text) > maxCSRLength {
			t.Error("accepted an overlong request")
		}
		first, err := parseCertificate(text)
		if err != nil {
			return
		}
		again, err := parseCertificate(first.pem)
		if err != nil || again.id != first.id || !fleet.ValidCertificateID(first.id) {
			t.Errorf("%q became %q, %v", first.id, again.id, err)
		}
	})
}

// What is accepted as a target is exactly one ARN of ours, and survives the
// form that keys have.
func FuzzTarget(f *testing.F) {
	scope := fleet.Scope{Region: "us-east-1", Account: acct}
	f.Add(scope.ARN(fleet.ARNThingGroup, "G"), `{"Resource":"arn:aws:iot:eu-west-1:1:topic/a"}`)
	f.Add(scope.ARN(fleet.ARNCertificate, strings.Repeat("a", 64)), "arn:aws:iot:")
	f.Add("arn:aws:iot:us-east-1:000000000000:cert/x/y\x00", "arn:aws:iot::")
	f.Fuzz(func(t *testing.T, target, document string) {
		if arn, found := foreignARN(scope, document); found && !strings.Contains(document, arn) {
			t.Errorf("%q is not in the document", arn)
		}
		to, err := checkTarget(scope, target)
		if err != nil {
			return
		}
		if to.arn(scope) != target || parseRef(to.ref()) != to || strings.Contains(target, "\x00") {
			t.Errorf("%q became %+v", target, to)
		}
	})
}
