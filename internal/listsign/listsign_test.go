package listsign

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
)

// TestKeysThatAreRefused names what a file has instead of a key that suppliers may have.
// What is signed is taken by allowlist's TestSignedByMuster.
func TestKeysThatAreRefused(t *testing.T) {
	t.Parallel()
	block := func(kind string, der []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	good, err := Generate(ES256)
	if err != nil {
		t.Fatal(err)
	}
	public, err := good.PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	wide, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	large, err := x509.MarshalPKCS8PrivateKey(wide)
	weak, weakErr := rsa.GenerateKey(rand.Reader, 1024)
	if weakErr != nil {
		t.Fatal(weakErr)
	}
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"nothing":   {nil, "is no private key"},
		"text":      {[]byte("key"), "is no private key"},
		"public":    {public, "is no private key"},
		"damaged":   {block("PRIVATE KEY", []byte("x"), nil), "is no private key"},
		"encrypted": {block("ENCRYPTED PRIVATE KEY", []byte("x"), nil), "is no private key in PEM that is not encrypted"},
		"P-384":     {block("PRIVATE KEY", large, err), "must be a key for Ed25519, P-256, or RSA"},
		"short RSA": {block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(weak), nil), "must be a key for Ed25519, P-256, or RSA"},
	} {
		if _, err := ParseKey(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	// What openssl ecparam writes has the curve first.
	private, err := x509.MarshalECPrivateKey(good.private.(*ecdsa.PrivateKey)) //nolint:forcetypeassert // Generate has made it
	if key, err := ParseKey(append(block("EC PARAMETERS", []byte{6, 1, 0}, nil), block("EC PRIVATE KEY", private, err)...)); err != nil || key.Algorithm() != ES256 {
		t.Errorf("%+v, %v", key, err)
	}
	if _, err := Generate(RS256); err == nil {
		t.Error("a key for RS256 is made")
	}
	if _, err := Encrypt("age1x", []byte("list")); err == nil || !strings.Contains(err.Error(), "must be one age recipient") {
		t.Error(err)
	}
}
