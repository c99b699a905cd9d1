package sdk

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// authority is a certification authority of a device maker.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  string
}

// newKey makes a P-256 key.
func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newAuthority makes one; edits change its certificate's template.
func newAuthority(t *testing.T, name string, key *ecdsa.PrivateKey, edits ...func(*x509.Certificate)) *authority {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	for _, edit := range edits {
		edit(template)
	}
	a := &authority{t: t, key: key}
	a.cert, a.pem = sign(t, template, template, key, key)
	return a
}

// sign signs a template for a key and returns the certificate, also as PEM.
func sign(t *testing.T, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, string) {
	t.Helper()
	var err error
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// issue signs a certificate for a name that ends at a time.
func (a *authority) issue(name string, end time.Time) string {
	a.t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: end}
	_, text := sign(a.t, template, a.cert, newKey(a.t), a.key)
	return text
}

// device issues a certificate that is good for a day.
func (a *authority) device() string { return a.issue("device", time.Now().AddDate(0, 0, 1)) }

// request signs a request for a certificate.
func request(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// proof is the verification certificate for the account's present code.
func (o *operator) proof(a *authority) *string {
	o.t.Helper()
	code := must(o, o.GetRegistrationCode, &iot.GetRegistrationCodeInput{}).RegistrationCode
	return new(a.issue(*code, time.Now().Add(time.Hour)))
}

// authority registers a fresh one in mode DEFAULT as active and returns its id.
func (o *operator) authority() (a *authority, id *string) {
	o.t.Helper()
	a = newAuthority(o.t, named("maker"), newKey(o.t))
	return a, must(o, o.RegisterCACertificate, &iot.RegisterCACertificateInput{
		CaCertificate: &a.pem, VerificationCertificate: o.proof(a), SetAsActive: true,
	}).CertificateId
}

// deactivate makes an authority inactive.
func (o *operator) deactivate(id *string) {
	o.t.Helper()
	must(o, o.UpdateCACertificate, &iot.UpdateCACertificateInput{CertificateId: id, NewStatus: types.CACertificateStatusInactive})
}

// registered registers a fresh certificate under an authority, inactive.
func (o *operator) registered(a *authority) *string {
	o.t.Helper()
	return must(o, o.RegisterCertificate, &iot.RegisterCertificateInput{CertificatePem: new(a.device())}).CertificateId
}
