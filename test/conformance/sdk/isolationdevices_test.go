package sdk

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/gorilla/websocket"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/awsapi/sigv4"
	"github.com/muster-iot/muster/internal/mqtt"
	mqttclient "github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// heard collects what a client receives.
type heard struct {
	mu   sync.Mutex
	all  []string
	told chan struct{}
}

func newHeard() *heard { return &heard{told: make(chan struct{}, 1024)} }

func (h *heard) take(m *mqtt.Publish) {
	h.mu.Lock()
	h.all = append(h.all, string(m.Topic)+" "+string(m.Payload))
	h.mu.Unlock()
	h.told <- struct{}{}
}

func (h *heard) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.all, "\n")
}

// await waits until something was heard that contains a text.
func (h *heard) await(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for !strings.Contains(h.text(), text) {
		select {
		case <-h.told:
		case <-timeout:
			t.Fatalf("not heard: %q; heard:\n%s", text, h.text())
		}
	}
}

// twins are two accounts with the same names and devices that may do everything.
func twins(t *testing.T, extra ...string) (*neighbourhood, *neighbour, *neighbour) {
	t.Helper()
	h := newNeighbourhood(t, extra...)
	a, b := h.settle("alphasecret"), h.settle("betasecret")
	a.build()
	b.build()
	return h, a, b
}

// mayConnect tries a CONNECT to a port and returns the refusal.
func (h *neighbourhood) mayConnect(addr string, config *tls.Config, o mqttclient.Options) error {
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	conn, err := mqttclient.Dial(ctx, addr, config)
	if err != nil {
		return err
	}
	c, err := mqttclient.Connect(ctx, conn, o)
	if err == nil {
		_ = c.Close()
	}
	return err
}

// notAuthorized demands a CONNACK that says so.
func notAuthorized(t *testing.T, what string, err error) {
	t.Helper()
	if refused, ok := errors.AsType[*mqttclient.RefusedError](err); !ok || byte(refused.Reason) != mqtt.ReturnNotAuthorized {
		t.Errorf("%s: %v, want a CONNACK not authorized", what, err)
	}
}

// The name in SNI chooses the account in which a certificate is looked for.
func TestIsolationOfServerNames(t *testing.T) {
	t.Parallel()
	h, a, b := twins(t)
	// A certificate that both have, registered without a CA.
	shared := h.settle("shared")
	for _, n := range []*neighbour{a, b} {
		must(n.operator, n.RegisterCertificateWithoutCA, &iot.RegisterCertificateWithoutCAInput{CertificatePem: &shared.certPEM, Status: types.CertificateStatusActive})
		must(n.operator, n.AttachPolicy, &iot.AttachPolicyInput{PolicyName: new("may"), Target: new(n.arns + "cert/" + shared.certID)})
	}
	host := newOperator(t, h.server)
	must(host, host.CreatePolicy, &iot.CreatePolicyInput{PolicyName: new("may"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`)})
	issued := host.newIdentity()
	must(host, host.AttachPolicy, &iot.AttachPolicyInput{PolicyName: new("may"), Target: &issued.arn})
	foreignPEM, foreign := selfSigned(t, "nameless")
	registered := must(host, host.RegisterCertificateWithoutCA, &iot.RegisterCertificateWithoutCAInput{CertificatePem: &foreignPEM, Status: types.CertificateStatusActive})
	must(host, host.AttachPolicy, &iot.AttachPolicyInput{PolicyName: new("may"), Target: registered.CertificateArn})
	byCA := issued.pair(t)

	for i, c := range []struct {
		what string
		cert *tls.Certificate
		name string
		in   *neighbour // nil for refused
		ours bool       // the default account
	}{
		{"a's certificate at a's name", &a.cert, a.endpoint, a, false},
		{"a's certificate at a's name in capitals", &a.cert, strings.ToUpper(a.endpoint), a, false},
		{"a's certificate at b's name", &a.cert, b.endpoint, nil, false},
		{"b's certificate at a's name", &b.cert, a.endpoint, nil, false},
		{"a's certificate at the default name", &a.cert, "localhost", nil, false},
		{"a's certificate without a name", &a.cert, "", nil, false},
		{"the shared certificate at a's name", &shared.cert, a.endpoint, a, false},
		{"the shared certificate at b's name", &shared.cert, b.endpoint, b, false},
		{"the shared certificate without a name", &shared.cert, "", nil, false},
		{"the shared certificate at an account that does not have it", &shared.cert, shared.endpoint, nil, false},
		{"the default account's certificate at its name", &byCA, "localhost", nil, true},
		{"the default account's certificate without a name", &byCA, "", nil, true},
		{"the default account's certificate at a's name", &byCA, a.endpoint, nil, false},
		{"a certificate without CA at the default name", &foreign, "localhost", nil, true},
		{"a certificate without CA without a name", &foreign, "", nil, false},
	} {
		for port, addr := range map[string]string{"8883": h.server.MQTTAddr, "8443": h.server.TLSAddr} {
			what := c.what + " on " + port
			var alpn []string
			if port == "8443" {
				alpn = []string{"x-amzn-mqtt-ca"}
			}
			id := fmt.Sprintf("device-%d-%s", i, port)
			err := h.mayConnect(addr, h.tlsAs(c.cert, c.name, alpn...), mqttclient.Options{ClientID: id})
			if c.in == nil && !c.ours {
				notAuthorized(t, what, err)
			} else if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			// Where it came in is told by that account alone, refused or not.
			for _, n := range []*neighbour{a, b, shared} {
				testkit.Poll(t, 20*time.Second, what+": the history of "+n.secret, func() error {
					all, err := n.api.ClientConnections(t.Context(), id, apiclient.Span{}, 0)
					if err == nil && (len(all) > 0) != (n == c.in) {
						err = fmt.Errorf("%d connections", len(all))
					}
					return err
				})
			}
		}
		// The same by HTTPS, where the name is that of SNI or else the host.
		status, answer := h.post(t, c.cert, c.name, "", "/topics/plant/https?qos=1", "by https")
		if want := c.in != nil || c.ours; (status == http.StatusOK) != want {
			t.Errorf("%s by HTTPS: %d %s", c.what, status, answer)
		}
	}
	// A Host header does not lead past the name of TLS.
	for what, c := range map[string]struct{ name, host string }{"b's name, a's host": {b.endpoint, a.endpoint}, "a's name, b's host": {a.endpoint, b.endpoint}} {
		if status, answer := h.post(t, &shared.cert, c.name, c.host, "/topics/plant/https", "x"); status != http.StatusForbidden {
			t.Errorf("%s: %d %s", what, status, answer)
		}
	}
	// Without SNI the host selects.
	if status, answer := h.post(t, &shared.cert, "", b.endpoint, "/topics/plant/https", "x"); status != http.StatusOK {
		t.Errorf("b's host without a name: %d %s", status, answer)
	}
}

// post sends a request with a client certificate to the shared port.
func (h *neighbourhood) post(t *testing.T, certificate *tls.Certificate, serverName, host, path, body string) (int, string) {
	t.Helper()
	if serverName == "" && host == "" {
		host = "127.0.0.1"
	}
	client := h.https(certificate, serverName)
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+h.server.TLSAddr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	if host == "" {
		r.Host = serverName
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

// https is a client that reaches the server by any name.
func (h *neighbourhood) https(certificate *tls.Certificate, serverName string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: h.tlsAs(certificate, serverName),
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, h.server.TLSAddr)
		},
	}}
}

// Access keys are of one account. They are refused at the names of another, and
// everywhere else the key decides.
func TestIsolationOfSignatures(t *testing.T) {
	t.Parallel()
	h, a, b := twins(t)
	plain := h.server.HTTPAddr
	for _, c := range []struct {
		what, url, host string
		key             *neighbour
		refused         bool
	}{
		{"a's key at a's host", "http://" + plain, a.endpoint, a, false},
		{"b's key at a's host", "http://" + plain, a.endpoint, b, true},
		{"b's key at a's host with a port", "http://" + plain, a.endpoint + ":443", b, true},
		{"b's key at the server's address", "http://" + plain, "", b, false},
		{"b's key at the server's name", "http://" + plain, "localhost", b, false},
		{"a's key at b's host over TLS", "https://" + h.server.TLSAddr, b.endpoint, a, true},
		{"b's key at b's host over TLS", "https://" + h.server.TLSAddr, b.endpoint, b, false},
	} {
		for service, path := range map[string]string{"iotdata": "/things/pump/shadow", "iot": "/ops/v1/accounts"} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.host != "" {
				r.Host = c.host
			}
			if err := sigv4.Sign(r, nil, sigv4.Key{AccessKeyID: c.key.key.AccessKeyID, Secret: c.key.key.Secret}, sigv4.Scope{Region: signingRegion, Service: service}, time.Now()); err != nil {
				t.Fatal(err)
			}
			client := h.https(nil, strings.TrimSuffix(c.host, ":443"))
			if strings.HasPrefix(c.url, "http:") {
				client = &http.Client{Transport: &http.Transport{}}
			}
			response, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer, _ := io.ReadAll(response.Body)
			_ = response.Body.Close()
			client.CloseIdleConnections()
			if c.refused != (response.StatusCode == http.StatusForbidden) || !c.refused && (response.StatusCode != http.StatusOK || !bytes.Contains(answer, []byte(c.key.secret))) {
				t.Errorf("%s, %s: %d %s", c.what, service, response.StatusCode, answer)
			}
			other := a
			if c.key == a {
				other = b
			}
			if marks := other.leaks(string(answer), ""); len(marks) > 0 {
				t.Errorf("%s, %s shows %q: %s", c.what, service, marks, answer)
			}
		}
		// MQTT over WebSocket.
		got := newHeard()
		client, status, err := h.webSocket(t, c.url, c.host, c.key, got)
		if c.refused {
			if status != http.StatusForbidden {
				t.Errorf("%s by WebSocket: status %d, %v", c.what, status, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s by WebSocket: %v", c.what, err)
			continue
		}
		if _, err := client.Subscribe(t.Context(), mqtt.Subscription{Filter: "plant/kept", QoS: 1}); err != nil {
			t.Fatal(err)
		}
		got.await(t, "plant/kept "+c.key.secret)
		_ = client.Close()
	}
}

// webSocket connects with a signature.
func (h *neighbourhood) webSocket(t *testing.T, url, host string, as *neighbour, got *heard) (*mqttclient.Client, int, error) {
	t.Helper()
	signed, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/mqtt", nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		signed.Host = host
	}
	key := sigv4.Key{AccessKeyID: as.key.AccessKeyID, Secret: as.key.Secret}
	if err := sigv4.Sign(signed, nil, key, sigv4.Scope{Region: signingRegion, Service: "iotdevicegateway"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	dialer := websocket.Dialer{Subprotocols: []string{"mqtt"}, TLSClientConfig: h.tlsAs(nil, strings.TrimSuffix(host, ":443"))}
	header := signed.Header
	header.Set("Host", signed.Host)
	socket, response, err := dialer.DialContext(t.Context(), strings.Replace(url, "http", "ws", 1)+"/mqtt", header)
	status := 0
	if response != nil {
		status = response.StatusCode
		defer response.Body.Close()
	}
	if err != nil {
		return nil, status, err
	}
	c, err := mqttclient.Connect(t.Context(), &frames{Conn: socket.NetConn(), socket: socket}, mqttclient.Options{ClientID: "page", OnMessage: got.take})
	return c, status, err
}

// frames are the binary messages of a WebSocket as a stream.
type frames struct {
	net.Conn
	socket *websocket.Conn
	rest   io.Reader
}

// Read returns bytes of the next messages.
func (f *frames) Read(p []byte) (int, error) {
	for {
		if f.rest == nil {
			_, r, err := f.socket.NextReader()
			if err != nil {
				return 0, err
			}
			f.rest = r
		}
		n, err := f.rest.Read(p)
		if errors.Is(err, io.EOF) {
			f.rest, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write sends one message.
func (f *frames) Write(p []byte) (int, error) {
	return len(p), f.socket.WriteMessage(websocket.BinaryMessage, p)
}

// Custom authorizers are those of the account that is called.
func TestIsolationOfAuthorizers(t *testing.T) {
	t.Parallel()
	h, a, b := twins(t)
	must(b.operator, b.ClearDefaultAuthorizer, &iot.ClearDefaultAuthorizerInput{})
	must(b.operator, b.UpdateAuthorizer, &iot.UpdateAuthorizerInput{AuthorizerName: new("gate"), Status: types.AuthorizerStatusInactive})
	connect := func(n *neighbour) error {
		o := mqttclient.Options{ClientID: "kept", Username: "x?x-amz-customauthorizer-name=gate"}
		return h.mayConnect(h.server.TLSAddr, h.tlsAs(nil, n.endpoint, "mqtt"), o)
	}
	if err := connect(a); err != nil {
		t.Error(err)
	}
	notAuthorized(t, "an authorizer that is active in another account only", connect(b))
	for n, want := range map[*neighbour]int{a: http.StatusOK, b: http.StatusForbidden} {
		if status, answer := h.post(t, nil, n.endpoint, "", "/topics/plant/https?x-amz-customauthorizer-name=gate", "x"); status != want {
			t.Errorf("%s by HTTPS: %d %s", n.secret, status, answer)
		}
	}
	// One connection without SNI may call several accounts by their hosts.
	client := h.https(nil, "")
	defer client.CloseIdleConnections()
	for _, c := range []struct {
		of   *neighbour
		want int
	}{{a, http.StatusOK}, {b, http.StatusForbidden}, {a, http.StatusOK}} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+h.server.TLSAddr+"/topics/plant/https?x-amz-customauthorizer-name=gate", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = c.of.endpoint
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if response.StatusCode != c.want {
			t.Errorf("%s by host: %d", c.of.secret, response.StatusCode)
		}
	}
}

// TestIsolationOfMessages lets devices of two accounts with the same client ids
// and topics do everything: none hears of the other.
func TestIsolationOfMessages(t *testing.T) {
	t.Parallel()
	h, a, b := twins(t)
	ears := map[*neighbour]*heard{}
	listeners := map[*neighbour]*mqttclient.Client{}
	for _, n := range []*neighbour{a, b} {
		ears[n] = newHeard()
		listeners[n] = h.device(n, mqttclient.Options{ClientID: "ears", OnMessage: ears[n].take})
		for _, filter := range []string{"#", "+/+", "$aws/things/#", "$aws/events/#", "$aws/things/+/shadow/#", "$share/crew/shared/#"} {
			if codes, err := listeners[n].Subscribe(t.Context(), mqtt.Subscription{Filter: filter, QoS: 1}); err != nil || codes[0] > 1 {
				t.Fatalf("%s is not granted: %v %v", filter, codes, err)
			}
		}
	}
	// Persistent sessions of the same id, which are away.
	away := mqttclient.Options{ClientID: "away", Persistent: true}
	away.Properties.Set, away.Properties.SessionExpiry = mqtt.Of(mqtt.PropSessionExpiry), 300
	for _, n := range []*neighbour{a, b} {
		c := h.device(n, away)
		if _, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: "later/#", QoS: 1}); err != nil {
			t.Fatal(err)
		}
		if err := c.Disconnect(); err != nil {
			t.Fatal(err)
		}
		<-c.Done()
	}
	// The same client id is connected in both, and neither takes the other over.
	speakers := map[*neighbour]*mqttclient.Client{a: h.device(a, mqttclient.Options{ClientID: "pump"}), b: h.device(b, mqttclient.Options{ClientID: "pump"})}
	for n, c := range speakers {
		for _, topic := range []string{"plant/live", "shared/1", "later/1"} {
			if err := c.Publish(t.Context(), topic, 1, []byte(n.secret+" live")); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.PublishPacket(t.Context(), &mqtt.Publish{Topic: []byte("plant/kept"), QoS: 1, Retain: true, Payload: []byte(n.secret + " again")}); err != nil {
			t.Fatal(err)
		}
		if err := c.Publish(t.Context(), "$aws/things/pump/shadow/update", 1, []byte(`{"state":{"reported":{"s":"`+n.secret+` shadow"}}}`)); err != nil {
			t.Fatal(err)
		}
		must(n.operator, n.UpdateThing, &iot.UpdateThingInput{ThingName: new("pump"), AttributePayload: &types.AttributePayload{Attributes: map[string]string{"event": n.secret}}})
		n.updateShadow("pump", `{"state":{"desired":{"s":"`+n.secret+` desired"}}}`)
	}
	for _, n := range []*neighbour{a, b} {
		for _, text := range []string{"plant/live " + n.secret, "shared/1 " + n.secret, "plant/kept " + n.secret, n.secret + " shadow", n.secret + " desired", "$aws/events/presence/connected/pump", "$aws/events/thing/pump/updated"} {
			ears[n].await(t, text)
		}
	}
	// Lifecycle events and the ends of connections.
	for _, c := range speakers {
		if err := c.Disconnect(); err != nil {
			t.Fatal(err)
		}
		<-c.Done()
	}
	for _, n := range []*neighbour{a, b} {
		ears[n].await(t, "$aws/events/presence/disconnected/pump")
	}
	// What waited, after a restart too.
	h.server.Stop()
	h.server.Start()
	late := map[*neighbour]*heard{a: newHeard(), b: newHeard()}
	for _, n := range []*neighbour{a, b} {
		o := away
		o.OnMessage = late[n].take
		c := h.device(n, o)
		if !c.Connack().SessionPresent {
			t.Errorf("%s: the session is gone", n.secret)
		}
		late[n].await(t, "later/1 "+n.secret)
		if _, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: "plant/kept", QoS: 1}); err != nil {
			t.Fatal(err)
		}
		late[n].await(t, "plant/kept "+n.secret+" again")
	}
	var report struct{ Findings []any }
	if err := h.api.JSON(t.Context(), apiclient.Request{Service: apiclient.ServiceControl, Method: http.MethodGet, Path: "/ops/v1/doctor"}, nil, &report); err != nil || len(report.Findings) > 0 {
		t.Errorf("the doctor finds %v, %v", report.Findings, err)
	}
	for n, other := range map[*neighbour]*neighbour{a: b, b: a} {
		if marks := other.leaks(ears[n].text()+late[n].text(), ""); len(marks) > 0 {
			t.Errorf("%s heard %q:\n%s\n%s", n.secret, marks, ears[n].text(), late[n].text())
		}
	}
}

// A closed account's keys and devices are refused; what it owns comes back.
func TestClosedAccount(t *testing.T) {
	t.Parallel()
	checkClosedAccount(t)
}

// checkClosedAccount closes one of two accounts of a server with the flags.
func checkClosedAccount(t *testing.T, flags ...string) {
	t.Helper()
	h, a, b := twins(t, flags...)
	live := map[*neighbour]*mqttclient.Client{a: h.device(a, mqttclient.Options{ClientID: "pump"}), b: h.device(b, mqttclient.Options{ClientID: "pump"})}
	page, _, err := h.webSocket(t, "http://"+h.server.HTTPAddr, "", a, newHeard())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.api.CloseAccount(t.Context(), a.account); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*mqttclient.Client{live[a], page} {
		select {
		case <-c.Done():
		case <-time.After(20 * time.Second):
			t.Error("a connection of the closed account lasts")
		}
	}
	refused := func() {
		t.Helper()
		notAuthorized(t, "a device of the closed account", h.mayConnect(h.server.MQTTAddr, h.tlsAs(&a.cert, a.endpoint), mqttclient.Options{ClientID: "x"}))
		notAuthorized(t, "a caller of its authorizer", h.mayConnect(h.server.TLSAddr, h.tlsAs(nil, a.endpoint, "mqtt"), mqttclient.Options{ClientID: "x", Username: "x?x-amz-customauthorizer-name=gate"}))
		if _, err := a.DescribeThing(t.Context(), &iot.DescribeThingInput{ThingName: new("pump")}); code(err) != "UnrecognizedClientException" {
			t.Errorf("its key: %v", err)
		}
		if status, answer := h.post(t, &a.cert, a.endpoint, "", "/topics/plant/x", "x"); status != http.StatusForbidden {
			t.Errorf("its device by HTTPS: %d %s", status, answer)
		}
		if _, status, _ := h.webSocket(t, "http://"+h.server.HTTPAddr, "", a, newHeard()); status != http.StatusForbidden {
			t.Errorf("its key by WebSocket: %d", status)
		}
	}
	refused()
	select {
	case <-live[b].Done():
		t.Error("another account's device lost its connection")
	default:
	}
	h.server.Kill()
	h.server.Start()
	refused()
	if _, err := h.api.ReopenAccount(t.Context(), a.account); err != nil {
		t.Fatal(err)
	}
	h.device(a, mqttclient.Options{ClientID: "pump"})
	out := must(a.operator, a.DescribeThing, &iot.DescribeThingInput{ThingName: new("pump")})
	if out.Attributes["kept"] != a.secret {
		t.Errorf("the thing has %v", out.Attributes)
	}
}

// With tls.require-sni every account is reached by its names and by no other.
func TestRequiredServerName(t *testing.T) {
	t.Parallel()
	h, a, _ := twins(t, "--tls.require-sni")
	if err := h.mayConnect(h.server.MQTTAddr, h.tlsAs(&a.cert, a.endpoint), mqttclient.Options{ClientID: "x"}); err != nil {
		t.Error(err)
	}
	host := newOperator(t, h.server)
	must(host, host.CreatePolicy, &iot.CreatePolicyInput{PolicyName: new("may"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`)})
	d := host.newIdentity()
	must(host, host.AttachPolicy, &iot.AttachPolicyInput{PolicyName: new("may"), Target: &d.arn})
	pair := d.pair(t)
	if err := h.mayConnect(h.server.MQTTAddr, h.tlsAs(&pair, "localhost"), mqttclient.Options{ClientID: "x"}); err != nil {
		t.Error(err)
	}
	notAuthorized(t, "without a name", h.mayConnect(h.server.MQTTAddr, h.tlsAs(&pair, ""), mqttclient.Options{ClientID: "x"}))
	if status, answer := h.post(t, &pair, "", "", "/topics/x", "x"); status != http.StatusForbidden {
		t.Errorf("HTTPS without a name: %d %s", status, answer)
	}
}
