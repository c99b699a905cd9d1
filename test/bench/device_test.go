//go:build bench

package bench_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// serverCertificate is one that both servers are given, with its authority.
type serverCertificate struct {
	certFile, keyFile string
	client            *tls.Config
}

func (s serverCertificate) flags() []string {
	return []string{"--tls-cert", s.certFile, "--tls-key", s.keyFile}
}

// newServerCertificate makes one for localhost; its authority's key is P-256.
func newServerCertificate(t *testing.T, useRSA bool) serverCertificate {
	t.Helper()
	dir := t.TempDir()
	authority, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var key crypto.Signer
	if useRSA {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	issuer := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench CA"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	issuerDER, err := x509.CreateCertificate(rand.Reader, issuer, issuer, authority.Public(), authority)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: issuer.NotBefore, NotAfter: issuer.NotAfter,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, issuer, key.Public(), authority)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	root, err := x509.ParseCertificate(issuerDER)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	return serverCertificate{
		certFile: write("server.pem", "CERTIFICATE", leafDER), keyFile: write("server-key.pem", "PRIVATE KEY", keyDER),
		client: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "localhost"},
	}
}

// devicePolicy has wildcards and a variable: what a fleet's policy has.
const devicePolicy = `{"Version":"2012-10-17","Statement":[
{"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:us-east-1:000000000000:client/*"},
{"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":["arn:aws:iot:us-east-1:000000000000:topic/bench/*","arn:aws:iot:us-east-1:000000000000:topic/$aws/things/${iot:ClientId}/*"]},
{"Effect":"Allow","Action":"iot:Subscribe","Resource":["arn:aws:iot:us-east-1:000000000000:topicfilter/bench/*","arn:aws:iot:us-east-1:000000000000:topicfilter/$aws/things/${iot:ClientId}/*"]}]}`

// deviceCertificates is how many are registered; client ids share them.
const deviceCertificates = 500

// registerDevices has certificates signed for keys made here and puts the
// policy in force for each.
func registerDevices(t *testing.T, server *testkit.Server) []tls.Certificate {
	t.Helper()
	api := newAPI(t, server)
	if err := api.CreatePolicy(t.Context(), "bench", devicePolicy); err != nil {
		t.Fatal(err)
	}
	devices := make([]tls.Certificate, deviceCertificates)
	each(t, len(devices), func(ctx context.Context, i int) error {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		request := &x509.CertificateRequest{Subject: pkix.Name{CommonName: fmt.Sprintf("bench-%04d", i)}}
		csr, err := x509.CreateCertificateRequest(rand.Reader, request, key)
		if err != nil {
			return err
		}
		issued, err := api.CertificateFromCSR(ctx, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))
		if err != nil {
			return err
		}
		block, _ := pem.Decode([]byte(issued.PEM))
		if block == nil {
			return fmt.Errorf("certificate %d is no PEM", i)
		}
		devices[i] = tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
		return api.AttachPolicy(ctx, "bench", issued.ARN)
	})
	return devices
}
