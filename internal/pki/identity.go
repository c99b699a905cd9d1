package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"time"

	"github.com/muster-iot/muster/internal/datadir"
)

// errNoIdentity is a file that does not exist yet.
var errNoIdentity = errors.New("no such certificate")

// PEM block types.
const (
	pemCertificate = "CERTIFICATE"
	pemPKCS8       = "PRIVATE KEY"
	pemPKCS1       = "RSA PRIVATE KEY"
	pemSEC1        = "EC PRIVATE KEY"
	pemPublic      = "PUBLIC KEY"
)

// rsaBits is the size of every RSA key made here: the one AWS IoT hands out.
const rsaBits = 2048

// serverAuthorityYears outlives the devices that have the authority burnt in.
const serverAuthorityYears = 20

// clockSkew lets devices with a slow clock accept what was made just now.
const clockSkew = 24 * time.Hour

// endOfService is the last second of every device certificate and of the
// device authority, as on AWS IoT.
func endOfService() time.Time { return time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC) }

// identity is a certificate with its key and, for server certificates, the
// chain below the root. It is kept in one file, so that a crash cannot leave a
// certificate without its key.
type identity struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// authoritySpec describes an authority to make; years 0 means until
// endOfService.
type authoritySpec struct {
	name  string
	years int
	rsa   bool
}

// newAuthority makes a self-signed authority that signs leaves only.
func newAuthority(spec authoritySpec, now time.Time) (*identity, error) {
	key, err := newKey(spec.rsa)
	if err != nil {
		return nil, err
	}
	until := endOfService()
	if spec.years > 0 {
		until = now.AddDate(spec.years, 0, 0)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: spec.name, Organization: []string{"Muster"}},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              until,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return sign(template, key, nil)
}

// sign issues the template for the key, self-signed when issuer is nil.
func sign(template *x509.Certificate, key crypto.Signer, issuer *identity) (*identity, error) {
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
	}
	cert, err := issue(template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	return &identity{cert: cert, key: key}, nil
}

// issue signs one certificate with a fresh serial number.
func issue(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate %q: %w", template.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse own certificate %q: %w", template.Subject.CommonName, err)
	}
	return cert, nil
}

// newSerial returns a positive number of at most 20 bytes, the limit of X.509.
func newSerial() (*big.Int, error) {
	const bits = 159
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), bits))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

// newKey makes a P-256 or an RSA key.
func newKey(useRSA bool) (crypto.Signer, error) {
	if useRSA {
		key, err := rsa.GenerateKey(rand.Reader, rsaBits)
		if err != nil {
			return nil, fmt.Errorf("make RSA key: %w", err)
		}
		return key, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make P-256 key: %w", err)
	}
	return key, nil
}

// save writes certificate and key into one private file.
func (id *identity) save(path string) error {
	key, err := x509.MarshalPKCS8PrivateKey(id.key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	data := append(id.certPEM(), pem.EncodeToMemory(&pem.Block{Type: pemPKCS8, Bytes: key})...)
	if err := datadir.WriteFile(path, data, datadir.PrivateMode); err != nil {
		return fmt.Errorf("save certificate and key: %w", err)
	}
	return nil
}

// loadIdentity reads what save wrote. A damaged file is an error, never a
// reason to make a new authority: the fleet would no longer trust the server.
func loadIdentity(path string) (*identity, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoIdentity
	}
	if err != nil {
		return nil, fmt.Errorf("read certificate and key: %w", err)
	}
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, fmt.Errorf("read certificate and key from %s: %w", path, err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read certificate and key from %s: the key cannot sign", path)
	}
	return &identity{cert: pair.Leaf, key: key}, nil
}

// certPEM encodes the certificate.
func (id *identity) certPEM() []byte { return encodeCertificate(id.cert.Raw) }

// encodeCertificate encodes one DER certificate.
func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})
}

// tls returns the form for handshakes, without the root, which clients have.
func (id *identity) tls() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{id.cert.Raw}, PrivateKey: id.key, Leaf: id.cert}
}

// signedBy reports whether the issuer's key signed the certificate.
func (id *identity) signedBy(issuer *identity) bool {
	return bytes.Equal(id.cert.RawIssuer, issuer.cert.RawSubject) && id.cert.CheckSignatureFrom(issuer.cert) == nil
}
