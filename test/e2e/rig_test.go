// Package e2e_test runs the built binary as people and machines run it: the
// demo, upgrades from older data folders, backup and restore, and clients that
// mean harm. It talks to processes over files, pipes and sockets only.
package e2e_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// devicePolicy grants a device its own shadows.
const devicePolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:us-east-1:000000000000:client/${iot:Connection.Thing.ThingName}"},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"arn:aws:iot:us-east-1:000000000000:topic/$aws/things/${iot:Connection.Thing.ThingName}/shadow/*"},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:us-east-1:000000000000:topicfilter/$aws/things/${iot:Connection.Thing.ThingName}/shadow/*"}]}`

// newAPI signs with the root access key of the server's data folder.
func newAPI(t *testing.T, server *testkit.Server) *apiclient.Client {
	t.Helper()
	id, secret := server.Credentials()
	api, err := apiclient.New(apiclient.Options{
		Endpoint:    "http://" + server.HTTPAddr,
		Credentials: apiclient.Credentials{AccessKeyID: id, Secret: secret, Region: "us-east-1"}, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.CloseIdle)
	return api
}

// identity is a device's certificate.
type identity struct {
	certificate apiclient.Certificate
	keyPEM      []byte
}

func (i identity) pair(t *testing.T) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(i.certificate.PEM), i.keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// newIdentity has a certificate signed and the device policy attached.
func newIdentity(t *testing.T, api *apiclient.Client) identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "e2e"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := api.CertificateFromCSR(t.Context(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}))
	if err != nil {
		t.Fatal(err)
	}
	must(t, api.AttachPolicy(t.Context(), "device", certificate.ARN))
	return identity{certificate: certificate, keyPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})}
}

// newDevice registers a thing with a certificate of its own. The policy
// "device" must exist.
func newDevice(t *testing.T, api *apiclient.Client, thing string) identity {
	t.Helper()
	if _, err := api.CreateThing(t.Context(), thing, "", map[string]string{"site": "leeds"}); err != nil {
		t.Fatal(err)
	}
	i := newIdentity(t, api)
	must(t, api.AttachThingPrincipal(t.Context(), thing, i.certificate.ARN))
	return i
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// device is a connected thing that updates its shadow.
type device struct {
	*client.Client
	thing   string
	answers chan answer
}

// answer is the part of a shadow response that the tests read.
type answer struct {
	Version     int64  `json:"version"`
	Code        int    `json:"code"`
	Message     string `json:"message"`
	ClientToken string `json:"clientToken"`
}

// connect opens a session by mutual TLS that lasts until the test ends or the
// server does.
func connect(ctx context.Context, addr, thing string, config *tls.Config) (*device, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := client.Dial(ctx, addr, config)
	if err != nil {
		return nil, err
	}
	d := &device{thing: thing, answers: make(chan answer, 16)}
	d.Client, err = client.Connect(ctx, conn, client.Options{ClientID: thing, KeepAlive: 60, OnMessage: func(p *mqtt.Publish) {
		var a answer
		if json.Unmarshal(p.Payload, &a) != nil {
			return // the request times out
		}
		select {
		case d.answers <- a:
		default:
		}
	}})
	if err != nil {
		return nil, err
	}
	prefix := "$aws/things/" + thing + "/shadow/update/"
	codes, err := d.Subscribe(ctx, mqtt.Subscription{Filter: prefix + "accepted", QoS: 1}, mqtt.Subscription{Filter: prefix + "rejected", QoS: 1})
	if err == nil && (codes[0] > 1 || codes[1] > 1) {
		err = fmt.Errorf("SUBACK %v", codes)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// online is connect with the thing's own certificate on the MQTT port.
func online(t *testing.T, server *testkit.Server, thing string, i identity) *device {
	t.Helper()
	d, err := connect(t.Context(), server.MQTTAddr, thing, server.TLSConfig(i.pair(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() }) // the server may have ended before
	return d
}

// report updates the shadow and waits for the answer to just that.
func (d *device) report(ctx context.Context, n int64) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	token := fmt.Sprintf("n%d", n)
	body := fmt.Sprintf(`{"state":{"reported":{"n":%d}},"clientToken":%q}`, n, token)
	if err := d.Publish(ctx, "$aws/things/"+d.thing+"/shadow/update", 1, []byte(body)); err != nil {
		return answer{}, err
	}
	for {
		select {
		case a := <-d.answers:
			if a.ClientToken != token {
				continue
			}
			if a.Code != 0 {
				return a, fmt.Errorf("rejected with %d: %s", a.Code, a.Message)
			}
			return a, nil
		case <-d.Done():
			return answer{}, fmt.Errorf("the connection ended: %w", d.Err())
		case <-ctx.Done():
			return answer{}, ctx.Err()
		}
	}
}

// refused runs the binary, which must fail with a message that has the texts.
func refused(t *testing.T, args []string, texts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, testkit.Binary(t), args...)
	out, err := cmd.CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 1 {
		t.Errorf("%v: ended with %v, want exit code 1\n%s", args, err, out)
	}
	for _, text := range texts {
		if !bytes.Contains(out, []byte(text)) {
			t.Errorf("%v: said %q, which lacks %q", args, out, text)
		}
	}
	if bytes.Contains(out, []byte("goroutine ")) {
		t.Errorf("%v: panicked:\n%s", args, out)
	}
}

// serveArgs are flags for a server that is not expected to serve.
func serveArgs(dataDir string) []string {
	return []string{
		"serve", "--data-dir", dataDir, "--http-addr", "127.0.0.1:0", "--mqtt-addr", "127.0.0.1:0", "--tls-addr", "127.0.0.1:0",
	}
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
