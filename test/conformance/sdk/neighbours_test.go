package sdk

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
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/testkit"
)

// neighbour is one account of an installation with several, seen by its owner.
type neighbour struct {
	*operator

	// account is its number, arns how the names of its resources begin.
	account, arns string
	// secret stands in everything that the account keeps for itself.
	secret string
	key    apiclient.Credentials
	api    *apiclient.Client
	// endpoint is the account's own data endpoint.
	endpoint string
	// A certificate that somebody else issued, registered under its id.
	certID, certPEM string
	cert            tls.Certificate
	// An authority, a certificate of it, and one that is on its way to the default
	// account.
	caID, caPEM, leafID, leafPEM, outID, outPEM string
	// An edit by query, once there is one, and a confirmation of another.
	bulkEdit, bulkToken string
	// taskID is that of a registration task, once there is one.
	taskID string
	// linkID and linkPath are those of an upload link of the list w47, once there is one.
	linkID, linkPath string
	// operatorKey is the access key of the account's user alice, once it has one.
	operatorKey string
}

// certARN is that of the account's certificate.
func (n *neighbour) certARN() string { return n.arns + "cert/" + n.certID }

// neighbourhood is a server on which accounts are made.
type neighbourhood struct {
	t      *testing.T
	server *testkit.Server
	api    *apiclient.Client
	made   int
}

// newNeighbourhood starts a server with a function that lets everybody in who
// knows the word, in any account.
func newNeighbourhood(t *testing.T, extra ...string) *neighbourhood {
	t.Helper()
	if err := built(); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "gate.sh")
	answer := `{"isAuthenticated":true,"principalId":"gatekept","disconnectAfterInSeconds":86400,"refreshAfterInSeconds":3600,"policyDocuments":[` +
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}]}`
	if err := os.WriteFile(script, []byte("#!/bin/sh\ncat >/dev/null\necho '"+answer+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	identity := filepath.Join(t.TempDir(), "allow-list.age")
	if out, err := exec.CommandContext(t.Context(), testkit.Binary(t), "allowlist", "identity", identity).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	flags := append([]string{"--function.target", "gate=exec:" + script, "--allow-list.identity-file", identity}, extra...)
	h := &neighbourhood{t: t, server: testkit.StartServer(t, flags...)}
	id, secret := h.server.Credentials()
	h.api = h.client(apiclient.Credentials{AccessKeyID: id, Secret: secret, Region: signingRegion})
	return h
}

// client signs with a key.
func (h *neighbourhood) client(key apiclient.Credentials) *apiclient.Client {
	h.t.Helper()
	c, err := apiclient.New(apiclient.Options{Endpoint: "http://" + h.server.HTTPAddr, Credentials: key, Now: time.Now})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(c.CloseIdle)
	return c
}

// settle makes an account with a secret of its own.
func (h *neighbourhood) settle(secret string) *neighbour {
	h.t.Helper()
	h.made++
	number := fmt.Sprintf("7%011d", h.made)
	made, err := h.api.CreateAccount(h.t.Context(), number, "Account "+secret, secret+"@plant.example")
	if err != nil {
		h.t.Fatal(err)
	}
	n := &neighbour{
		account: number, arns: "arn:aws:iot:us-east-1:" + number + ":", secret: secret, endpoint: made.Account.Endpoints.Data,
		key: apiclient.Credentials{AccessKeyID: made.AccessKey.ID, Secret: made.AccessKey.Secret, Region: signingRegion},
	}
	n.operator = &operator{
		t: h.t, server: h.server, Client: controlPlane(h.server, n.key.AccessKeyID, n.key.Secret),
		data: dataPlane(h.t, h.server, n.key.AccessKeyID, n.key.Secret),
	}
	n.api = h.client(n.key)
	told := must(n.operator, n.DescribeEndpoint, &iot.DescribeEndpointInput{EndpointType: new("iot:Data-ATS")})
	if n.endpoint != *told.EndpointAddress || !strings.HasSuffix(n.endpoint, "-ats.iot.us-east-1.muster.internal") {
		h.t.Errorf("account %s is at %q, DescribeEndpoint says %q", number, n.endpoint, *told.EndpointAddress)
	}
	var ca, leaf, out tls.Certificate
	n.certPEM, n.cert = selfSigned(h.t, secret)
	n.outPEM, out = selfSigned(h.t, secret)
	n.caPEM, ca = issued(h.t, secret, nil)
	n.leafPEM, leaf = issued(h.t, secret, &ca)
	n.certID, n.caID, n.leafID, n.outID = idOf(n.cert), idOf(ca), idOf(leaf), idOf(out)
	return n
}

// idOf is the id under which a certificate is registered.
func idOf(c tls.Certificate) string {
	sum := sha256.Sum256(c.Certificate[0])
	return hex.EncodeToString(sum[:])
}

// selfSigned makes a device certificate that no authority of the server knows.
func selfSigned(t *testing.T, name string) (string, tls.Certificate) {
	t.Helper()
	return issuedAs(t, name, nil, false)
}

// issued makes an authority, or a certificate of one.
func issued(t *testing.T, name string, by *tls.Certificate) (string, tls.Certificate) {
	t.Helper()
	return issuedAs(t, name, by, by == nil)
}

// issuedAs makes a certificate, self-signed without an authority.
func issuedAs(t *testing.T, name string, by *tls.Certificate, isCA bool) (string, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	if isCA {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	}
	parent, signer := template, any(key)
	if by != nil {
		if parent, err = x509.ParseCertificate(by.Certificate[0]); err != nil {
			t.Fatal(err)
		}
		signer = by.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// csr is a signing request.
func csr(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// tlsAs is a client configuration that shows a certificate, nil for none, to a
// server name, empty for none. The server's certificate must bear the name.
func (h *neighbourhood) tlsAs(certificate *tls.Certificate, serverName string, alpn ...string) *tls.Config {
	h.t.Helper()
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: h.server.CAPool(), ServerName: serverName, NextProtos: alpn}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
	}
	if serverName == "" {
		// An address is no server name; it is checked all the same.
		config.ServerName = "127.0.0.1"
	}
	return config
}

// leaks returns what of an account's own shows in a text. What the caller sent
// itself may come back.
func (n *neighbour) leaks(text, sent string) []string {
	plain := strings.NewReplacer(`\n`, "", "\n", "")
	text, sent = plain.Replace(text), plain.Replace(sent)
	marks := []string{n.secret, n.account}
	for id, text := range map[string]string{n.certID: n.certPEM, n.caID: n.caPEM, n.leafID: n.leafPEM, n.outID: n.outPEM} {
		body := plain.Replace(text)
		marks = append(marks, body[len(body)/2-20:len(body)/2+20])
		if !strings.Contains(sent, body) { // whoever has the certificate knows its digest
			marks = append(marks, id)
		}
	}
	var found []string
	for _, mark := range marks {
		if strings.Contains(text, mark) && !strings.Contains(sent, mark) {
			found = append(found, mark)
		}
	}
	return found
}

// raw calls an operation that the Go clients do not have yet.
func (n *neighbour) raw(ctx context.Context, r apiclient.Request) (string, error) {
	out, err := n.api.Raw(ctx, r)
	return string(out), err
}
