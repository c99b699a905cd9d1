package pki

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fault"
)

// contextWithCancel is the test's context with a handle to end it early.
func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(t.Context())
}

// request makes a PEM request with a subject and extensions a device must not get.
func request(tb testing.TB, key crypto.Signer, algorithm x509.SignatureAlgorithm) []byte {
	tb.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:            pkix.Name{CommonName: "pump-1", SerialNumber: "SN42", Organization: []string{"Example"}},
		DNSNames:           []string{"iot.example.com"},
		SignatureAlgorithm: algorithm,
	}, key)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// curveKey makes a key on a curve.
func curveKey(tb testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// rsaKey makes an RSA key of any size.
func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Skipf("this Go makes no RSA key of %d bits: %v", bits, err)
	}
	return key
}

// leaf parses a PEM certificate and checks it against the device authority.
func leaf(t *testing.T, p *PKI, certPEM []byte) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(certPEM)
	if block == nil || len(rest) != 0 {
		t.Fatalf("not one PEM block: %q", certPEM)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.CheckSignatureFrom(p.device.cert); err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestCreateKeysAndCertificate cites security-provisioning 2.2: a 2048-bit RSA
// pair as RSA PRIVATE KEY and PUBLIC KEY, valid to the end of 2049.
func TestCreateKeysAndCertificate(t *testing.T) {
	t.Parallel()
	p := open(t, options(t.TempDir(), start()))
	certPEM, publicPEM, privatePEM, err := p.CreateKeysAndCertificate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cert := leaf(t, p, certPEM)
	if want := time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC); !cert.NotAfter.Equal(want) {
		t.Errorf("ends %v, want %v", cert.NotAfter, want)
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok || key.N.BitLen() != 2048 {
		t.Errorf("key is %T", cert.PublicKey)
	}
	if !strings.HasPrefix(string(privatePEM), "-----BEGIN RSA PRIVATE KEY-----\n") || !strings.HasPrefix(string(publicPEM), "-----BEGIN PUBLIC KEY-----\n") {
		t.Error("the keys are not in the documented PEM forms")
	}
	if _, err := tls.X509KeyPair(certPEM, privatePEM); err != nil {
		t.Errorf("certificate and private key do not belong together: %v", err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: poolOf(p.device), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, CurrentTime: start()}); err == nil {
		t.Error("a device certificate passes for a server")
	}
	second, _, _, err := p.CreateKeysAndCertificate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if leaf(t, p, second).SerialNumber.Cmp(cert.SerialNumber) == 0 {
		t.Error("two certificates share a serial number")
	}
}

// poolOf makes a pool of one authority.
func poolOf(id *identity) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(id.cert)
	return pool
}

func TestSignCSRAccepts(t *testing.T) {
	t.Parallel()
	p := open(t, options(t.TempDir(), start()))
	for name, c := range map[string]struct {
		key       crypto.Signer
		algorithm x509.SignatureAlgorithm
	}{
		"P-256":        {curveKey(t, elliptic.P256()), x509.ECDSAWithSHA256},
		"P-384":        {curveKey(t, elliptic.P384()), x509.ECDSAWithSHA384},
		"P-521":        {curveKey(t, elliptic.P521()), x509.ECDSAWithSHA512},
		"RSA 2048":     {rsaKey(t, 2048), x509.SHA256WithRSA},
		"RSA 2048 PSS": {rsaKey(t, 2048), x509.SHA384WithRSAPSS},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			certPEM, err := p.SignCSR(t.Context(), request(t, c.key, c.algorithm))
			if err != nil {
				t.Fatal(err)
			}
			cert := leaf(t, p, certPEM)
			if cert.Subject.CommonName != "pump-1" || cert.Subject.SerialNumber != "SN42" {
				t.Errorf("subject %v", cert.Subject)
			}
			if len(cert.DNSNames) != 0 || cert.IsCA {
				t.Errorf("extensions of the request were taken over: %v, CA %v", cert.DNSNames, cert.IsCA)
			}
		})
	}
}

func TestSignCSRRefuses(t *testing.T) {
	t.Parallel()
	p := open(t, options(t.TempDir(), start()))
	good := request(t, curveKey(t, elliptic.P256()), x509.ECDSAWithSHA256)
	block, _ := pem.Decode(good)
	tampered := append([]byte(nil), block.Bytes...)
	tampered[len(tampered)-1] ^= 1
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		csr  []byte
		want string
	}{
		"empty":         {nil, "not a PEM certificate request"},
		"text":          {[]byte("hello"), "not a PEM certificate request"},
		"wrong block":   {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}), "not a PEM certificate request"},
		"not DER":       {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")}), "cannot be parsed"},
		"two blocks":    {append(append([]byte(nil), good...), good...), "more than one"},
		"too long":      {append(append([]byte(nil), good...), make([]byte, 4096)...), "longer than 4096"},
		"signature":     {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: tampered}), "signature"},
		"P-224":         {request(t, curveKey(t, elliptic.P224()), x509.ECDSAWithSHA256), "curve P-224"},
		"Ed25519":       {request(t, edKey, x509.PureEd25519), "neither RSA nor ECDSA"},
		"RSA 1024 bits": {request(t, rsaKey(t, 1024), x509.SHA256WithRSA), "1024 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := p.SignCSR(t.Context(), c.csr)
			if fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want InvalidRequest with %q", err, c.want)
			}
		})
	}
}

func TestKeyPoolHonoursTheDeadline(t *testing.T) {
	t.Parallel()
	k := newKeyPool(1, true)
	k.turn <- struct{}{} // somebody else is making a key
	ctx, cancel := contextWithCancel(t)
	cancel()
	if _, err := k.take(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzParseCSR(f *testing.F) {
	f.Add(request(f, curveKey(f, elliptic.P256()), x509.ECDSAWithSHA256))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, data []byte) {
		csr, err := parseCSR(data)
		if err == nil && csr.CheckSignature() != nil {
			t.Error("accepted without a valid signature")
		}
		if err != nil && fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("not a caller's error: %v", err)
		}
	})
}

func TestRevocationList(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), start())
	o.CRLURL = "http://ca.example/crl"
	p := open(t, o)
	at := p.options.Now().UTC().Truncate(time.Second)
	der, err := p.RevocationList(big.NewInt(9), at, at.Add(time.Hour), []Revoked{{Serial: big.NewInt(77), At: at}})
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(p.device.cert); err != nil {
		t.Error(err)
	}
	if len(list.RevokedCertificateEntries) != 1 || list.RevokedCertificateEntries[0].SerialNumber.Int64() != 77 || list.Number.Int64() != 9 {
		t.Errorf("list %+v", list)
	}
	// Certificates say where the list is, if it was said to us.
	made, _, _, err := p.CreateKeysAndCertificate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(made)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if len(cert.CRLDistributionPoints) != 1 || cert.CRLDistributionPoints[0] != "http://ca.example/crl" {
		t.Errorf("distribution points %v", cert.CRLDistributionPoints)
	}
}
