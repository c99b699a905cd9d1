package sdk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/mqtt"
	mqttclient "github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// vectorClient is a device that stays connected while a file runs.
type vectorClient struct {
	certificate, id      string
	will                 string
	persistent, retained bool
	// version is that of MQTT. In 3.1.1 a refused PUBLISH ends the connection.
	version mqtt.Version
	// conn is nil until a packet needs it.
	conn *mqttclient.Client
	// got are the payloads that arrived.
	got chan string
}

// publisher is a client that may do everything.
type publisher struct{ *mqttclient.Client }

// opsClient calls the server's own operations.
func opsClient(t *testing.T, server *testkit.Server) *apiclient.Client {
	t.Helper()
	id, secret := server.Credentials()
	api, err := apiclient.New(apiclient.Options{
		Endpoint: "http://" + server.HTTPAddr, Now: time.Now,
		Credentials: apiclient.Credentials{AccessKeyID: id, Secret: secret, Region: signingRegion},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.CloseIdle)
	return api
}

// connectsAs is the client of a section; equal words are the same client.
func (w *vectorWorld) connectsAs(certificate, id string, features []string) *vectorClient {
	w.t.Helper()
	id = w.expand(id)
	key := strings.Join(append([]string{certificate, id}, features...), " ")
	if w.clients[key] == nil {
		w.claim("client", id)
		c := &vectorClient{certificate: certificate, id: id, got: make(chan string, 64), version: mqtt.V5}
		for _, feature := range features {
			switch name, value, _ := strings.Cut(feature, "="); name {
			case "persistent":
				c.persistent = true
			case "retained":
				c.retained = true
			case "v3":
				c.version = mqtt.V311
			case "will":
				c.will = value
			default:
				w.t.Fatalf("unknown feature %q", feature)
			}
		}
		w.clients[key] = c
	}
	return w.clients[key]
}

// test asks TestAuthorization, as the client with that id or, when it is empty,
// without one.
func (w *vectorWorld) test(certificate, clientID, action, resource string) (decision string, missing []string, err error) {
	w.counts.tested.Add(1)
	in := &iot.TestAuthorizationInput{
		Principal: &w.certificate(certificate).arn,
		AuthInfos: []types.AuthInfo{{ActionType: types.ActionType(action), Resources: []string{arnPrefix + resource}}},
	}
	if clientID != "" {
		in.ClientId = &clientID
	}
	out, err := w.TestAuthorization(w.t.Context(), in)
	if err != nil {
		return "", nil, err
	}
	result := out.AuthResults[0]
	return string(result.AuthDecision), result.MissingContextValues, consistent(&result)
}

// consistent compares the decision with what each policy had to say.
func consistent(r *types.AuthResult) error {
	want := types.AuthDecisionImplicitDeny
	switch {
	case len(r.Denied.ExplicitDeny.Policies) > 0:
		want = types.AuthDecisionExplicitDeny
	case len(r.Allowed.Policies) > 0:
		want = types.AuthDecisionAllowed
	}
	if r.AuthDecision != want {
		return fmt.Errorf("TestAuthorization says %s and lists policies for %s", r.AuthDecision, want)
	}
	return nil
}

// explained asks the server what it would decide about the live connection.
func (w *vectorWorld) explained(certificate, clientID, action, resource string) (string, error) {
	var answer struct {
		Outcome string `json:"outcome"`
	}
	segment := apiclient.Path(clientID)
	if strings.Trim(clientID, ".") == "" {
		segment = "/" + strings.ReplaceAll(clientID, ".", "%2E")
	}
	err := w.api.JSON(w.t.Context(), apiclient.Request{
		Service: "iot", Method: http.MethodPost, Path: apiclient.Path("ops", "v1", "connections") + segment + "/explain",
	}, map[string]string{"action": action, "resource": arnPrefix + resource, "certificateId": w.certificate(certificate).id}, &answer)
	if err != nil {
		return "", fmt.Errorf("explain: %w", err)
	}
	return answer.Outcome, nil
}

// dial sends a CONNECT.
func (w *vectorWorld) dial(c *vectorClient, id string, onMessage func(*mqtt.Publish)) (*mqttclient.Client, error) {
	w.t.Helper()
	o := mqttclient.Options{ClientID: id, Version: c.version, Persistent: c.persistent, OnMessage: onMessage}
	if c.persistent && c.version == mqtt.V5 {
		o.Properties.Set, o.Properties.SessionExpiry = mqtt.Of(mqtt.PropSessionExpiry), 60
	}
	if c.will != "" {
		o.Will = &mqtt.Will{Topic: c.will, Retain: c.retained, Payload: []byte("gone")}
	}
	conn, err := mqttclient.Dial(w.t.Context(), w.server.MQTTAddr, w.server.TLSConfig(w.certificate(c.certificate).pair))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	return mqttclient.Connect(ctx, conn, o)
}

// connackNotAuthorized is the return code of MQTT 3.1.1.
const connackNotAuthorized = 5

// granted takes "not authorized" for a refusal, and any other error for one.
func (c *vectorClient) granted(err error) (bool, error) {
	refused, ok := errors.AsType[*mqttclient.RefusedError](err)
	if ok && (refused.Reason == mqtt.NotAuthorized || c.version != mqtt.V5 && refused.Reason == connackNotAuthorized) {
		return false, nil
	}
	return err == nil, err
}

// tryConnect connects as a client id and leaves again, unless that is the client
// of the section, which stays.
func (w *vectorWorld) tryConnect(c *vectorClient, id string) (bool, error) {
	w.counts.mqtt.Add(1)
	if id != c.id {
		w.claim("client", id)
	}
	if id == c.id && c.conn != nil {
		// The connection that is there stays: this asks whether it would be let in
		// again, which its own CONNECT would end it for.
		_ = c.conn.Disconnect()
		c.conn = nil
	}
	conn, err := w.dial(c, id, c.arrived)
	allowed, err := c.granted(err)
	switch {
	case !allowed:
	case id == c.id:
		c.conn = conn
		w.t.Cleanup(func() { _ = conn.Close() })
	default:
		err = conn.Disconnect()
	}
	return allowed, err
}

// arrived notes a message.
func (c *vectorClient) arrived(p *mqtt.Publish) { c.got <- string(p.Payload) }

// connected is the section's client, which must be allowed to connect.
func (w *vectorWorld) connected(c *vectorClient) (*mqttclient.Client, error) {
	if c.conn != nil {
		return c.conn, c.conn.Err()
	}
	conn, err := w.dial(c, c.id, c.arrived)
	if err != nil {
		return nil, fmt.Errorf("connect (does the file lack connects?): %w", err)
	}
	c.conn = conn
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn, nil
}

// tryPublish publishes with quality of service 1.
func (w *vectorWorld) tryPublish(c *vectorClient, topic string, retain bool) (bool, error) {
	w.counts.mqtt.Add(1)
	conn, err := w.connected(c)
	if err != nil {
		return false, err
	}
	err = conn.PublishPacket(w.t.Context(), &mqtt.Publish{Topic: []byte(topic), QoS: 1, Retain: retain, Payload: []byte("v")})
	if err != nil && c.version != mqtt.V5 {
		// 3.1.1 has no way to say it but to end the connection.
		select {
		case <-conn.Done():
			c.conn = nil
			return false, nil
		case <-time.After(10 * time.Second):
		}
	}
	return c.granted(err)
}

// trySubscribe subscribes and leaves.
func (w *vectorWorld) trySubscribe(c *vectorClient, v *vector) (bool, error) {
	w.counts.mqtt.Add(1)
	conn, err := w.connected(c)
	if err != nil {
		return false, err
	}
	codes, err := conn.Subscribe(w.t.Context(), mqtt.Subscription{Filter: v.name, QoS: 1})
	if err != nil {
		return false, err
	}
	if codes[0] == mqtt.NotAuthorized || c.version != mqtt.V5 && codes[0] == mqtt.SubackFailure {
		return false, nil
	}
	if codes[0] != 1 {
		return false, fmt.Errorf("SUBACK 0x%02X", byte(codes[0]))
	}
	return true, conn.Unsubscribe(w.t.Context(), v.name)
}

// tryReceive has somebody with full rights publish to a topic that the client
// subscribes to. What was delivered comes before the answer to a PINGREQ sent
// after the publisher's PUBACK; that it was refused, and how, is what the server
// keeps of it.
func (w *vectorWorld) tryReceive(c *vectorClient, v *vector) (bool, error) {
	w.counts.mqtt.Add(1)
	conn, err := w.connected(c)
	if err != nil {
		return false, err
	}
	codes, err := conn.Subscribe(w.t.Context(), mqtt.Subscription{Filter: v.name, QoS: 0})
	if err != nil || codes[0] != 0 {
		return false, fmt.Errorf("subscribe to receive (does the file lack subscribes?): %v %w", codes, err)
	}
	payload := rand.Text()
	if err := w.fullRights().Publish(w.t.Context(), v.name, 1, []byte(payload)); err != nil {
		return false, err
	}
	if err := conn.Ping(w.t.Context()); err != nil {
		return false, err
	}
	arrived := c.has(payload)
	if !arrived {
		if v.outcome == "ALLOWED" {
			return false, nil
		}
		if err := w.refusedDelivery(c, v); err != nil {
			return false, err
		}
	}
	return arrived, conn.Unsubscribe(w.t.Context(), v.name)
}

// has reports whether a payload is among those that have arrived.
func (c *vectorClient) has(payload string) bool {
	for {
		select {
		case got := <-c.got:
			if got == payload {
				return true
			}
		default:
			return false
		}
	}
}

// refusedDelivery waits for the server's note of the refusal.
func (w *vectorWorld) refusedDelivery(c *vectorClient, v *vector) error {
	type denial struct {
		Action   string `json:"action"`
		Resource string `json:"resource"`
		Outcome  string `json:"outcome"`
	}
	want := denial{"iot:Receive", arnPrefix + v.resource, v.outcome}
	deadline := time.Now().Add(10 * time.Second)
	for {
		var answer struct {
			Denials []denial `json:"denials"`
		}
		err := w.api.JSON(w.t.Context(), apiclient.Request{
			Service: "iot", Method: http.MethodGet, Path: apiclient.Path("ops", "v1", "connections", c.id, "denials"),
		}, nil, &answer)
		if err != nil {
			return fmt.Errorf("ask for refusals: %w", err)
		}
		if slices.Contains(answer.Denials, want) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nothing arrived and the server knows of no refusal %+v: %+v", want, answer.Denials)
		}
	}
}

// fullRights is a client of the plain listener, which lets everybody do
// everything.
func (w *vectorWorld) fullRights() *publisher {
	w.t.Helper()
	if w.publisher == nil {
		w.publisher = &publisher{mqttDial(w.t, w.server.PlainMQTTAddr, nil, mqttclient.Options{ClientID: "publisher-" + w.file, Version: mqtt.V5})}
	}
	return w.publisher
}

// tryHTTPSPublish publishes with the certificate and without a connection.
func (w *vectorWorld) tryHTTPSPublish(c *vectorClient, topic string, retain bool) (bool, error) {
	query := url.Values{"qos": {"1"}}
	if retain {
		query.Set("retain", "true")
	}
	return w.tryHTTPS(c, http.MethodPost, apiclient.Path("topics", topic)+"?"+query.Encode(), "v", http.StatusOK)
}

// tryCall calls an operation about a thing, a shadow of it, or a retained
// message.
func (w *vectorWorld) tryCall(c *vectorClient, v *vector) (bool, error) {
	thing, shadow, _ := strings.Cut(v.name, "/")
	path := apiclient.Path("things", thing, "shadow")
	if shadow != "" {
		path += "?name=" + url.QueryEscape(shadow)
	}
	switch v.action {
	case "GetThingShadow":
		return w.tryHTTPS(c, http.MethodGet, path, "", http.StatusOK, http.StatusNotFound)
	case "UpdateThingShadow":
		return w.tryHTTPS(c, http.MethodPost, path, `{"state":{"reported":{"v":1}}}`, http.StatusOK)
	case "DeleteThingShadow":
		return w.tryHTTPS(c, http.MethodDelete, path, "", http.StatusOK, http.StatusNotFound)
	case "ListNamedShadowsForThing":
		return w.tryHTTPS(c, http.MethodGet, apiclient.Path("api", "things", "shadow", "ListNamedShadowsForThing", thing), "", http.StatusOK)
	case "GetRetainedMessage":
		return w.tryHTTPS(c, http.MethodGet, apiclient.Path("retainedMessage", v.name), "", http.StatusOK, http.StatusNotFound)
	case "GetConnection":
		return w.tryHTTPS(c, http.MethodGet, apiclient.Path("connections", v.name), "", http.StatusOK, http.StatusNotFound)
	case "ListSubscriptions":
		return w.tryHTTPS(c, http.MethodGet, apiclient.Path("connections", v.name, "subscriptions"), "", http.StatusOK, http.StatusNotFound)
	case "DeleteConnection":
		return w.tryHTTPS(c, http.MethodDelete, apiclient.Path("connections", v.name), "", http.StatusOK, http.StatusNotFound)
	case "ListRetainedMessages":
		return w.tryHTTPS(c, http.MethodGet, "/retainedMessage?maxResults=1", "", http.StatusOK)
	}
	return false, fmt.Errorf("%s is no action that a vector can have", v.action)
}

// tryHTTPS sends one request; the statuses are those of one that is allowed.
func (w *vectorWorld) tryHTTPS(c *vectorClient, method, path, body string, statuses ...int) (bool, error) {
	w.counts.https.Add(1)
	request, err := http.NewRequestWithContext(w.t.Context(), method, "https://"+w.server.TLSAddr+path, strings.NewReader(body))
	if err != nil {
		return false, err
	}
	response, err := w.certificate(c.certificate).https.Do(request)
	if err != nil {
		return false, err
	}
	_ = response.Body.Close() // the status says it all
	switch {
	case response.StatusCode == http.StatusForbidden:
		return false, nil
	case slices.Contains(statuses, response.StatusCode):
		return true, nil
	}
	return false, fmt.Errorf("%s %s: %s", method, path, response.Status)
}
