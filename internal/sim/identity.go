package sim

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/muster-iot/muster/internal/apiclient"
)

// Modes of what is kept on disk.
const (
	folderMode = 0o700
	keyMode    = 0o600
)

// errNoIdentity is a device without a usable file.
var errNoIdentity = errors.New("no identity")

// identity is a certificate that the server issued, with its key.
type identity struct {
	certificate tls.Certificate
	arn         string
	certPEM     []byte
	keyPEM      []byte
}

// certificateID is how the server names a certificate.
func certificateID(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// newRequest makes a key and a request for a certificate of it.
func newRequest(name string) (keyPEM, requestPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name, Organization: []string{"Muster simulator"}}}
	request, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate request: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}), nil
}

// newIdentity makes a key and has an operator ask for a certificate of it.
func newIdentity(ctx context.Context, api *apiclient.Client, name string) (identity, error) {
	key, request, err := newRequest(name)
	if err != nil {
		return identity{}, err
	}
	issued, err := api.CertificateFromCSR(ctx, request)
	if err != nil {
		return identity{}, fmt.Errorf("register certificate: %w", err)
	}
	return assemble([]byte(issued.PEM), key, issued.ARN)
}

// assemble pairs certificate and key.
func assemble(certPEM, keyPEM []byte, arn string) (identity, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return identity{}, fmt.Errorf("pair certificate and key: %w", err)
	}
	return identity{certificate: pair, arn: arn, certPEM: certPEM, keyPEM: keyPEM}, nil
}

// loadIdentity reads an identity and asks the server whether it still knows
// the certificate: the state may belong to another installation.
func loadIdentity(ctx context.Context, api *apiclient.Client, certFile, keyFile string) (identity, error) {
	certPEM, err := os.ReadFile(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		return identity{}, errNoIdentity
	}
	if err != nil {
		return identity{}, fmt.Errorf("read identity: %w", err)
	}
	keyPEM, err := os.ReadFile(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return identity{}, errNoIdentity
	}
	if err != nil {
		return identity{}, fmt.Errorf("read identity: %w", err)
	}
	id, err := assemble(certPEM, keyPEM, "")
	if err != nil {
		return identity{}, errNoIdentity // cut short by a crash: it is made anew
	}
	registered, err := api.DescribeCertificate(ctx, certificateID(id.certificate.Certificate[0]))
	if apiclient.Is(err, "ResourceNotFoundException") || (err == nil && registered.Status != "ACTIVE") {
		return identity{}, errNoIdentity
	}
	if err != nil {
		return identity{}, fmt.Errorf("look certificate up: %w", err)
	}
	return id, nil
}

// save writes the key first: without the certificate's file the identity does
// not exist.
func (id identity) save(certFile, keyFile string) error {
	if err := os.WriteFile(keyFile, id.keyPEM, keyMode); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	if err := os.WriteFile(certFile, id.certPEM, keyMode); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	return nil
}
