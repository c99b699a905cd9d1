package registry

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
)

// testCA is an authority outside the registry.
type testCA struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  string
	next int64
}

// newCA makes a self-signed authority; edits change its template.
func newCA(t *testing.T, name string, edits ...func(*x509.Certificate)) *testCA {
	t.Helper()
	k := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	return caWithKey(t, name, k, edits...)
}

// caWithKey is newCA for a given key: one authority, renewed.
func caWithKey(t *testing.T, name string, k *ecdsa.PrivateKey, edits ...func(*x509.Certificate)) *testCA {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name, Organization: []string{"Acme"}},
		NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
	for _, edit := range edits {
		edit(template)
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, k.Public(), k))
	return &testCA{
		t: t, key: k, cert: must[*x509.Certificate](t)(x509.ParseCertificate(der)),
		pem: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
	}
}

// serial is a random number.
func serial(t *testing.T) *big.Int {
	t.Helper()
	return must[*big.Int](t)(rand.Int(rand.Reader, big.NewInt(1<<60)))
}

// id is the authority's id in the registry.
func (c *testCA) id() string { return CertificateID(c.cert.Raw) }

// issue signs a certificate; edits change its template.
func (c *testCA) issue(name string, edits ...func(*x509.Certificate)) string {
	c.t.Helper()
	k := must[*ecdsa.PrivateKey](c.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	c.next++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(c.next), Subject: pkix.Name{CommonName: name},
		NotBefore: start.AddDate(0, -1, 0), NotAfter: start.AddDate(2, 0, 0),
	}
	for _, edit := range edits {
		edit(template)
	}
	der := must[[]byte](c.t)(x509.CreateCertificate(rand.Reader, template, c.cert, k.Public(), c.key))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// list signs a revocation list; number 0 is for none.
func (c *testCA) list(number int64, at time.Time, serials ...int64) []byte {
	c.t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: at, NextUpdate: at.AddDate(0, 0, 7)}
	for _, n := range serials {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: at, ReasonCode: 1})
	}
	return must[[]byte](c.t)(x509.CreateRevocationList(rand.Reader, template, c.cert, c.key))
}

// registerCA registers an authority as active in an account.
func (r *rig) registerCA(t *testing.T, c *testCA, mode string) CACertificate {
	t.Helper()
	command := RegisterCACommand{CertificatePEM: c.pem, Mode: mode, Active: true}
	if mode == ModeDefault {
		command.VerificationPEM = c.issue(must[string](t)(r.GetRegistrationCode(t.Context(), acct)))
	}
	return must[CACertificate](t)(r.RegisterCACertificate(t.Context(), acct, command))
}

// registerUnder registers a new certificate of an authority.
func (r *rig) registerUnder(t *testing.T, c *testCA, name string) Certificate {
	t.Helper()
	return must[Certificate](t)(r.RegisterCertificate(t.Context(), acct, RegisterCertificateCommand{CertificatePEM: c.issue(name), Status: StatusActive}))
}
