package e2e_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// maker is an authority outside the server, for birth certificates.
type maker struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newMaker(t *testing.T) *maker {
	t.Helper()
	m := &maker{t: t}
	var err error
	m.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Acme birth"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, m.key.Public(), m.key)
	must(t, err)
	m.cert, err = x509.ParseCertificate(der)
	must(t, err)
	return m
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// birth makes the certificate and key of a device.
func (m *maker) birth(serial string) (certificate, key string) {
	m.t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(m.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{SerialNumber: serial}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, m.cert, own.Public(), m.key)
	must(m.t, err)
	private, err := x509.MarshalPKCS8PrivateKey(own)
	must(m.t, err)
	return pemText("CERTIFICATE", der), pemText("PRIVATE KEY", private)
}

// TestBootstrapByCommand: assignments from the command line and from a file, against a
// server; a device that is tried learns where to join, also after kill -9, and joins
// with a client that is not ours.
func TestBootstrapByCommand(t *testing.T) {
	t.Parallel()
	const leeds = "210000000001"
	folder := t.TempDir()
	server := testkit.StartServer(t, "--log.level", "warn", "--bootstrap.server-name", "join.example.com", "--bootstrap.certificate-rate", "0")
	c := commands{t, server}
	m := newMaker(t)

	// The default account knows the birth CA; leeds has a template, made with its own key.
	ca := c.file(folder, "ca.pem", pemText("CERTIFICATE", m.cert.Raw))
	var registered struct {
		CertificateID string `json:"certificateId"`
	}
	must(t, json.Unmarshal([]byte(c.run(words("ca register", ca, "--mode", "SNI_ONLY", "--set-as-active", "-o", "json"))), &registered))
	issuer := registered.CertificateID
	credentials := filepath.Join(folder, "keys")
	c.run(words("account create Leeds --id "+leeds+" --save-profile leeds --credentials-file", credentials))
	inLeeds := func(line string, more ...string) []string {
		return append(words(line, more...), "--credentials", credentials, "--profile", "leeds", "--region", "us-east-1")
	}
	body := strings.Replace(claimBody, `"ThingTypeName": "Pump", `, "", 1)
	c.refused(words("bootstrap assign --ca-id "+issuer+" --account "+leeds+" --template pumps"), "account "+leeds+` has no provisioning template "pumps"`)
	c.run(inLeeds("template create pumps --body", c.file(folder, "claim.json", body)))
	c.run(inLeeds("template update pumps --enable"))

	certificate, key := m.birth("B7-0042")
	cert, private := c.file(folder, "birth.crt", certificate), c.file(folder, "birth.key", key)
	try := words("bootstrap try join.example.com:8443 --cert "+cert+" --key "+private+" --connect", server.TLSAddr)
	c.refused(try, "refused: ResourceNotFound: Nothing is assigned to the certificate")
	stranger, strangerKey := newMaker(t).birth("B7-0042")
	c.refused(words("bootstrap try join.example.com:8443 --cert "+c.file(folder, "s.crt", stranger)+" --key "+c.file(folder, "s.key", strangerKey)+" --connect", server.TLSAddr),
		"refused: AccessDenied: The certificate is not known here")

	// A file of which one line is wrong: the rest is made, and can be sent again.
	csv := "ca,serial,account,template,param.Serial,conf.ntp,enabled\n" +
		issuer + ",B7-0042," + leeds + ",pumps,B7-0042,ntp.example,\n" +
		issuer + ",B7-0043,999999999999,pumps,B7-0043,,\n" +
		issuer + ",B7-0013," + leeds + ",pumps,,,maybe\n" +
		issuer + ",,,,,,false\n"
	file := c.file(folder, "devices.csv", csv)
	for range 2 {
		out, err := server.Muster(t.Context(), words("bootstrap import", file)...)
		if err == nil || !strings.Contains(err.Error(), "2 of 4 lines failed") {
			t.Errorf("import: %v", err)
		}
		for _, want := range []string{"line 3  InvalidRequest: account: there is no account 999999999999", `line 4  enabled: "maybe" is neither true nor false`} {
			if !strings.Contains(out, want) {
				t.Errorf("import: no %q in\n%s", want, out)
			}
		}
	}
	c.run(words("bootstrap list"), `^serial-[0-9a-f]{64} +serial B7-0042 +`+leeds+` +pumps +enabled +1$`, `^ca-`+issuer+` +all of the CA +000000000000 +disabled +1$`)
	c.refused(inLeeds("bootstrap assign --ca-id "+issuer+" --account 000000000000"), "only operators of the default account")
	c.run(inLeeds("bootstrap list"), `\AASSIGNMENT[^\n]*\n\z`)
	c.refused(words("bootstrap assign --ca-id "+issuer), "exists")
	c.refused(words("bootstrap assign --ca-id "+issuer+" --disable --replace --version 7"), "expectedVersion is 7 but the version is 1")
	c.run(words("bootstrap assign --ca-id "+issuer+" --disable --note nobody --replace --version 1"), ` disabled +2$`)

	answer := []string{`^account +` + leeds + `$`, `^method +CLAIM$`, `^template +pumps$`, `^approval +NOT_NEEDED$`, `^parameter Serial +B7-0042$`, `^configuration ntp +ntp.example$`}
	c.run(try, answer...)
	server.Kill()
	server.Start()
	var where struct {
		Endpoint     string            `json:"endpoint"`
		ServerRoots  string            `json:"serverRoots"`
		TemplateName string            `json:"templateName"`
		Parameters   map[string]string `json:"parameters"`
	}
	must(t, json.Unmarshal([]byte(c.run(append(try, "-o", "json"))), &where))
	shown := c.run(words("bootstrap list --ca-id " + issuer + " --serial B7-0042"))
	if !strings.Contains(shown, "Z") {
		t.Errorf("it does not show when the device asked:\n%s", shown)
	}
	c.run(words("audit search --name BootstrapAnswered"), `BootstrapAnswered`)
	c.run(inLeeds("audit search --name BootstrapAnswered"), `BootstrapAnswered`)

	// With the answer alone, and the certificate, the device joins.
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(where.ServerRoots)) {
		t.Fatal("no authorities in the answer")
	}
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	must(t, err)
	// The endpoint resolves to this machine.
	conn, err := client.Dial(t.Context(), server.MQTTAddr, &tls.Config{ServerName: where.Endpoint, RootCAs: roots, Certificates: []tls.Certificate{pair}})
	must(t, err)
	heard := make(chan *mqtt.Publish, 4)
	device, err := client.Connect(t.Context(), conn, client.Options{ClientID: "anything", Version: mqtt.V311, OnMessage: func(p *mqtt.Publish) {
		heard <- &mqtt.Publish{Topic: bytes.Clone(p.Topic), Payload: bytes.Clone(p.Payload)}
	}})
	must(t, err)
	defer device.Close()
	ask := func(topic string, request, answer any) {
		t.Helper()
		for _, end := range []string{"/accepted", "/rejected"} {
			_, err := device.Subscribe(t.Context(), mqtt.Subscription{Filter: topic + end, QoS: 1})
			must(t, err)
		}
		text, err := json.Marshal(request)
		must(t, err)
		must(t, device.Publish(t.Context(), topic, 1, text))
		select {
		case p := <-heard:
			if string(p.Topic) != topic+"/accepted" {
				t.Fatalf("%s: %s", p.Topic, p.Payload)
			}
			must(t, json.Unmarshal(p.Payload, answer))
		case <-time.After(20 * time.Second):
			t.Fatal("no answer from " + topic)
		}
	}
	var own struct{ CertificateOwnershipToken string }
	ask("$aws/certificates/create/json", struct{}{}, &own)
	var joined struct{ ThingName string }
	ask("$aws/provisioning-templates/"+where.TemplateName+"/provision/json", map[string]any{"certificateOwnershipToken": own.CertificateOwnershipToken, "parameters": where.Parameters}, &joined)
	if joined.ThingName != "pump-B7-0042" {
		t.Errorf("joined as %q", joined.ThingName)
	}
	c.run(inLeeds("things list"), `^pump-B7-0042 `)
	c.run(words("things list"), `\ATHING[^\n]*\n\z`)
}
