package iotdata

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/awsapi/sigv4"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqttapi"
	"github.com/muster-iot/muster/internal/pagetoken"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store/embedded"
	"github.com/muster-iot/muster/internal/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account fleet.Account = "000000000001"
	arnBase string        = "arn:aws:iot:eu-local-1:000000000001:"
)

func instant() time.Time { return time.Unix(1795412345, 0).UTC() }

// keys knows one access key.
type keys struct{}

func (keys) SecretKey(context.Context, string) (string, fleet.Account, fleet.Principal, error) {
	return "secret", account, fleet.Principal{Kind: fleet.PrincipalUser, ID: "root"}, nil
}

// asked remembers what was authorized and refuses what it is told to.
type asked struct {
	mu     sync.Mutex
	log    []string
	refuse string
}

func (a *asked) Authorize(_ context.Context, _ awsapi.Caller, action, resource string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.log = append(a.log, action+" "+resource)
	if a.refuse == action {
		return fault.New(fault.Forbidden, "not allowed: %s", action)
	}
	return nil
}

// rig is the data plane over HTTP with shadows and reserved topics behind it;
// in the broker's place it keeps what is published.
type rig struct {
	t       *testing.T
	url     string
	asked   *asked
	shadows *shadow.Service
	topics  *mqttapi.Handler
	clients *clients
	mu      sync.Mutex
	sent    []broker.Message
	// durable counts those of sent that had to be stored.
	durable int
}

// PublishDurably implements Publisher.
func (r *rig) PublishDurably(ctx context.Context, of fleet.Account, m broker.Message) error {
	if err := r.Publish(ctx, of, m); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.durable++
	return nil
}

// Publish implements Publisher.
func (r *rig) Publish(_ context.Context, of fleet.Account, m broker.Message) error {
	if of != account {
		return errors.New("another account: " + string(of))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, m)
	return nil
}

func (r *rig) messages() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, m := range r.sent {
		out = append(out, m.Topic+" "+string(m.Payload))
	}
	return out
}

func newRig(t *testing.T) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	engine, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: log, CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, asked: &asked{}, clients: &clients{}, shadows: shadow.New(shadow.Options{Store: engine, Now: instant})}
	r.topics = mqttapi.New(mqttapi.Options{Shadows: r.shadows, Publish: r.Publish, Now: instant, Logger: log})
	c, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	s, err := awsapi.New(awsapi.Options{
		Catalog: c, Keys: keys{}, Authorizer: r.asked, Region: "eu-local-1", TokenKey: bytes.Repeat([]byte{7}, pagetoken.KeySize),
		Now: instant, Logger: log, Registerer: prometheus.NewRegistry(), Strict: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	Register(s, Deps{
		Shadows: r.shadows, Topics: r.topics, Publisher: r, Retained: r.clients, Connections: r.clients, Sessions: r.clients, Now: instant,
		CheckTopic: func(name string) error { return topic.ValidateName(name, topic.DefaultLimits(topic.AWS)) },
	})
	listener := httptest.NewServer(s)
	r.url = listener.URL
	t.Cleanup(func() {
		listener.Close()
		if err := errors.Join(r.topics.Drain(context.WithoutCancel(t.Context())), engine.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// call sends a signed request and returns status, exception and body.
func (r *rig) call(method, path, body string, headers ...string) (status int, exception, answer string) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	key := sigv4.Key{AccessKeyID: "AK", Secret: "secret"}
	if err := sigv4.Sign(request, []byte(body), key, sigv4.Scope{Region: "eu-local-1", Service: "iotdata"}, instant()); err != nil {
		r.t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response.StatusCode, response.Header.Get("X-Amzn-Errortype"), string(data)
}

// answers fails unless the call succeeds with exactly this body.
func (r *rig) answers(method, path, body, want string) {
	r.t.Helper()
	status, exception, got := r.call(method, path, body)
	if status != http.StatusOK || got != want {
		r.t.Errorf("%s %s: %d %s\n got %s\nwant %s", method, path, status, exception, got, want)
	}
}

// refuses fails unless the call is refused with status, exception and text.
func (r *rig) refuses(method, path, body string, status int, exception, message string, headers ...string) {
	r.t.Helper()
	gotStatus, gotException, answer := r.call(method, path, body, headers...)
	var got struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal([]byte(answer), &got)
	if gotStatus != status || gotException != exception || !strings.Contains(got.Message, message) {
		r.t.Errorf("%s %s: %d %s %s, want %d %s %s", method, path, gotStatus, gotException, answer, status, exception, message)
	}
}

// decodes fails unless the call succeeds with a JSON body that fits into.
func (r *rig) decodes(path string, into any) {
	r.t.Helper()
	status, exception, body := r.call(http.MethodGet, path, "")
	if err := json.Unmarshal([]byte(body), into); err != nil || status != http.StatusOK {
		r.t.Fatalf("%s: %d %s %s", path, status, exception, body)
	}
}

// Device plane, 4.10: the documents of the topics as raw bodies; HTTP changes
// are told to subscribers.
func TestShadowByHTTP(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ query, topic string }{
		"classic": {"", "$aws/things/pump-7/shadow/"},
		"named":   {"?name=cfg", "$aws/things/pump-7/shadow/name/cfg/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			path := "/things/pump-7/shadow" + c.query
			accepted := `{"state":{"desired":{"led":"on"}},"metadata":{"desired":{"led":{"timestamp":1795412345}}},"version":1,"timestamp":1795412345,"clientToken":"t"}`
			r.answers(http.MethodPost, path, `{"state":{"desired":{"led":"on"}},"clientToken":"t"}`, accepted)
			r.answers(http.MethodGet, path, "", `{"state":{"desired":{"led":"on"},"delta":{"led":"on"}},"metadata":{"desired":{"led":{"timestamp":1795412345}}},"version":1,"timestamp":1795412345}`)
			deleted := `{"version":1,"timestamp":1795412345}`
			r.answers(http.MethodDelete, path, "", deleted)
			r.refuses(http.MethodGet, path, "", 404, "ResourceNotFoundException", "No shadow exists with name: '"+map[string]string{"": "pump-7", "?name=cfg": "cfg"}[c.query]+"'")
			r.refuses(http.MethodDelete, path, "", 404, "ResourceNotFoundException", "No shadow exists")
			want := []string{
				c.topic + "update/accepted " + accepted,
				c.topic + `update/delta {"version":1,"timestamp":1795412345,"state":{"led":"on"},"metadata":{"led":{"timestamp":1795412345}},"clientToken":"t"}`,
				c.topic + `update/documents {"previous":{"state":{},"metadata":{},"version":0},"current":{"state":{"desired":{"led":"on"}},"metadata":{"desired":{"led":{"timestamp":1795412345}}},"version":1},"timestamp":1795412345,"clientToken":"t"}`,
				c.topic + "delete/accepted " + deleted,
			}
			if diff := cmp.Diff(want, r.messages()); diff != "" {
				t.Errorf("messages differ (-want +got):\n%s", diff)
			}
		})
	}
}

// An HTTP failure makes no message (4.8).
func TestShadowRefusalsByHTTP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const path = "/things/pump-7/shadow"
	r.refuses(http.MethodPost, path, `{`, 400, "InvalidRequestException", "Invalid JSON")
	r.refuses(http.MethodPost, path, `{}`, 400, "InvalidRequestException", "Missing required node: state")
	r.refuses(http.MethodPost, path, `{"state":{},"version":4}`, 409, "ConflictException", "Version conflict")
	r.refuses(http.MethodPost, path, `{"state":{"reported":{"a":"`+strings.Repeat("x", 9000)+`"}}}`, 413, "RequestEntityTooLargeException", "The payload exceeds the maximum size allowed")
	r.refuses(http.MethodPost, path, `{"state":{"reported":{"a":"`+strings.Repeat("x", 200_000)+`"}}}`, 413, "RequestEntityTooLargeException", "The payload exceeds the maximum size allowed")
	r.refuses(http.MethodPost, path, "{\"state\":{\"reported\":{\"a\":\"\xff\"}}}", 415, "UnsupportedDocumentEncodingException", "Unsupported documented encoding")
	r.refuses(http.MethodGet, "/things/bad%20name/shadow", "", 400, "InvalidRequestException", "")
	if got := r.messages(); len(got) != 0 {
		t.Errorf("messages %v", got)
	}
}

func TestListNamedShadowsByHTTP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range []string{"", "ota", "cfg", "net"} {
		if _, err := r.shadows.Update(t.Context(), shadow.UpdateCommand{Account: account, Thing: "pump-7", Shadow: name, Body: []byte(`{"state":{}}`)}); err != nil {
			t.Fatal(err)
		}
	}
	const path = "/api/things/shadow/ListNamedShadowsForThing/pump-7?pageSize=2"
	type page struct {
		Results   []string `json:"results"`
		NextToken string   `json:"nextToken"`
		Timestamp int64    `json:"timestamp"`
	}
	get := func(path string) (p page) {
		t.Helper()
		status, exception, body := r.call(http.MethodGet, path, "")
		if err := json.Unmarshal([]byte(body), &p); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s %s", path, status, exception, body)
		}
		return p
	}
	first := get(path)
	second := get(path + "&nextToken=" + first.NextToken)
	if got := fmt.Sprint(first.Results, second.Results); got != "[cfg net] [ota]" || second.NextToken != "" || first.Timestamp != 1795412345 {
		t.Errorf("pages %+v, %+v", first, second)
	}
	r.answers(http.MethodGet, "/api/things/shadow/ListNamedShadowsForThing/nobody", "", `{"results":[],"timestamp":1795412345}`)
	r.refuses(http.MethodGet, path+"&nextToken=forged", "", 400, "InvalidRequestException", "")
}

func TestActionsAndResources(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.call(http.MethodPost, "/things/pump-7/shadow", `{"state":{}}`)
	r.call(http.MethodGet, "/things/pump-7/shadow?name=cfg", "")
	r.call(http.MethodDelete, "/things/pump-7/shadow", "")
	r.call(http.MethodGet, "/api/things/shadow/ListNamedShadowsForThing/pump-7", "")
	r.call(http.MethodPost, "/topics/plant%2Fpump-7%2Ftemp?qos=1", "21")
	r.call(http.MethodPost, "/topics/plant%2Fpump-7%2Ftemp?retain=TRUE", "21")
	r.call(http.MethodGet, "/retainedMessage/plant%2Fpump-7%2Ftemp", "")
	r.call(http.MethodGet, "/retainedMessage", "")
	r.call(http.MethodGet, "/connections/plant%2Fpump-7", "")
	r.call(http.MethodDelete, "/connections/pump-7", "")
	r.call(http.MethodGet, "/connections/pump-7/subscriptions", "")
	r.call(http.MethodPost, "/connections/pump-7/messages?topic=cmd", "x")
	want := []string{
		"iot:UpdateThingShadow " + arnBase + "thing/pump-7",
		"iot:GetThingShadow " + arnBase + "thing/pump-7/cfg",
		"iot:DeleteThingShadow " + arnBase + "thing/pump-7",
		"iot:ListNamedShadowsForThing " + arnBase + "thing/pump-7",
		"iot:Publish " + arnBase + "topic/plant/pump-7/temp",
		"iot:Publish " + arnBase + "topic/plant/pump-7/temp",
		"iot:RetainPublish " + arnBase + "topic/plant/pump-7/temp",
		"iot:GetRetainedMessage " + arnBase + "topic/plant/pump-7/temp",
		"iot:ListRetainedMessages *",
		"iot:GetConnection " + arnBase + "client/plant/pump-7",
		"iot:DeleteConnection " + arnBase + "client/pump-7",
		"iot:ListSubscriptions " + arnBase + "client/pump-7",
		"iot:SendDirectMessage " + arnBase + "client/pump-7",
	}
	if diff := cmp.Diff(want, r.asked.log); diff != "" {
		t.Errorf("questions differ (-want +got):\n%s", diff)
	}
	r.asked.refuse = "iot:UpdateThingShadow"
	before := len(r.messages())
	if status, _, _ := r.call(http.MethodPost, "/things/pump-7/shadow", `{"state":{}}`); status != http.StatusForbidden {
		t.Errorf("refused caller: status %d", status)
	}
	if got := len(r.messages()); got != before {
		t.Errorf("a refused call sent %d messages", got-before)
	}
}

// Device plane, section 8.
func TestPublishByHTTP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	properties := base64.StdEncoding.EncodeToString([]byte(`[{"site":"oslo"},{"site":"bergen"}]`))
	status, exception, body := r.call(http.MethodPost, "/topics/plant/pump-7?qos=1&contentType=text%2Fplain&responseTopic=re%2Fply&messageExpiry=0", "21",
		"x-amz-mqtt5-user-properties", properties,
		"x-amz-mqtt5-payload-format-indicator", "UTF8_DATA",
		"x-amz-mqtt5-correlation-data", base64.StdEncoding.EncodeToString([]byte("c1")))
	var answer struct {
		Message string `json:"message"`
		TraceID string `json:"traceId"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK || answer.Message != "OK" || answer.TraceID == "" {
		t.Fatalf("%d %s %s", status, exception, body)
	}
	want := []broker.Message{{
		Topic: "plant/pump-7", Payload: []byte("21"), QoS: 1,
		Properties: mqtt.Properties{
			Set:         mqtt.Of(mqtt.PropContentType, mqtt.PropResponseTopic, mqtt.PropPayloadFormat, mqtt.PropMessageExpiry, mqtt.PropCorrelationData),
			ContentType: "text/plain", ResponseTopic: "re/ply", PayloadFormat: 1, MessageExpiry: 1, CorrelationData: []byte("c1"),
			UserProperties: []mqtt.UserProperty{{Key: "site", Value: "oslo"}, {Key: "site", Value: "bergen"}},
		},
	}}
	if diff := cmp.Diff(want, r.sent); diff != "" {
		t.Errorf("messages differ (-want +got):\n%s", diff)
	}
}

func TestPublishRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	for name, c := range map[string]struct {
		path    string
		headers []string
		message string
	}{
		"retained on a reserved":  {"/topics/$aws/things/p/shadow/get?retain=true", nil, "retain"},
		"wildcard":                {"/topics/a%2F%2B", nil, "topic"},
		"too deep":                {"/topics/1/2/3/4/5/6/7/8/9", nil, "topic"},
		"output topic":            {"/topics/$aws/events/presence/connected/x", nil, "reserved"},
		"unknown topic":           {"/topics/$nothing", nil, "reserved"},
		"response wildcard":       {"/topics/a?responseTopic=b%2F%23", nil, "responseTopic"},
		"zero byte in type":       {"/topics/a?contentType=x%00y", nil, "contentType"},
		"no UTF-8 in type":        {"/topics/a?contentType=%ff", nil, "contentType"},
		"long type":               {"/topics/a?contentType=" + strings.Repeat("x", 257), nil, "contentType"},
		"negative expiry":         {"/topics/a?messageExpiry=-1", nil, "messageExpiry"},
		"properties no base64":    {"/topics/a", []string{"x-amz-mqtt5-user-properties", "%"}, "userProperties"},
		"properties no list":      {"/topics/a", []string{"x-amz-mqtt5-user-properties", encode(`{"a":"b"}`)}, "userProperties"},
		"properties two members":  {"/topics/a", []string{"x-amz-mqtt5-user-properties", encode(`[{"a":"b","c":"d"}]`)}, "userProperties"},
		"properties with numbers": {"/topics/a", []string{"x-amz-mqtt5-user-properties", encode(`[{"a":1}]`)}, "userProperties"},
		"properties with zero":    {"/topics/a", []string{"x-amz-mqtt5-user-properties", encode(`[{"a":"\u0000"}]`)}, "userProperties"},
		"properties too long":     {"/topics/a", []string{"x-amz-mqtt5-user-properties", encode(`[{"a":"` + strings.Repeat("x", 8192) + `"}]`)}, "userProperties"},
		"correlation no base64":   {"/topics/a", []string{"x-amz-mqtt5-correlation-data", "%"}, "correlationData"},
		"correlation too long":    {"/topics/a", []string{"x-amz-mqtt5-correlation-data", encode(strings.Repeat("x", 2049))}, "correlationData"},
	} {
		t.Run(name, func(t *testing.T) {
			status, exception, body := r.call(http.MethodPost, c.path, "x", c.headers...)
			if status != http.StatusBadRequest || exception != "InvalidRequestException" || !strings.Contains(body, c.message) {
				t.Errorf("%d %s %s, want 400 InvalidRequestException about %s", status, exception, body, c.message)
			}
		})
	}
	if len(r.sent) != 0 {
		t.Errorf("refused publishes sent %v", r.messages())
	}
	r.refuses(http.MethodPost, "/topics/a", strings.Repeat("x", 128<<10+1), 413, "RequestEntityTooLargeException", "")
}

// A publish by HTTP to a shadow topic is a shadow request like any other.
func TestPublishToAShadowTopic(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	status, exception, body := r.call(http.MethodPost, "/topics/$aws/things/pump-7/shadow/update?qos=1", `{"state":{"reported":{"a":1}}}`)
	if status != http.StatusOK {
		t.Fatalf("%d %s %s", status, exception, body)
	}
	d, err := r.shadows.Get(t.Context(), account, "pump-7", "")
	if err != nil || string(d.Reported()) != `{"a":1}` {
		t.Fatalf("shadow %v, %v", d, err)
	}
	got := r.messages()
	if len(got) != 3 || !strings.Contains(strings.Join(got, "\n"), "$aws/things/pump-7/shadow/update {") {
		t.Errorf("messages %v; want accepted, documents and the request itself", got)
	}
}
