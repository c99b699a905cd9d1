package iotdata

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
)

// clients stands for the broker and for presence: one client, what it has, and
// what was asked.
type clients struct {
	connection    *Connection
	subscriptions []broker.SubscriptionInfo
	retained      []broker.RetainedMessage
	removed       []broker.RemoveOptions
	direct        []broker.Message
	// patience is what was left of the context's time for each of direct.
	patience []time.Duration
	// refusal is what Direct answers.
	refusal error
}

func (c *clients) Connection(_ context.Context, _ fleet.Account, clientID string) (Connection, error) {
	if c.connection == nil || clientID != "pump-7" {
		return Connection{}, fault.New(fault.ResourceNotFound, "no %s", clientID)
	}
	return *c.connection, nil
}

func (c *clients) Remove(_ fleet.Account, clientID string, o broker.RemoveOptions) bool {
	if clientID != "pump-7" {
		return false
	}
	c.removed = append(c.removed, o)
	return true
}

func (c *clients) Subscriptions(_ fleet.Account, clientID, after string, limit int) (page []broker.SubscriptionInfo, next string, ok bool) {
	if clientID != "pump-7" {
		return nil, "", false
	}
	for _, s := range c.subscriptions {
		switch {
		case s.Filter <= after:
		case len(page) == limit:
			return page, page[limit-1].Filter, true
		default:
			page = append(page, s)
		}
	}
	return page, "", true
}

func (c *clients) Direct(ctx context.Context, _ fleet.Account, _ string, m broker.Message) error {
	c.direct = append(c.direct, m)
	left := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	c.patience = append(c.patience, left)
	return c.refusal
}

func (c *clients) Retained(_ fleet.Account, topic string) (broker.RetainedMessage, bool) {
	for _, m := range c.retained {
		if m.Topic == topic {
			return m, true
		}
	}
	return broker.RetainedMessage{}, false
}

func (c *clients) RetainedTopics(_ fleet.Account, after string, limit int) (page []broker.RetainedMessage, next string) {
	for _, m := range c.retained {
		switch {
		case m.Topic <= after:
		case len(page) == limit:
			return page, page[limit-1].Topic
		default:
			page = append(page, m)
		}
	}
	return page, ""
}

// Device plane, 8: which members are there when.
func TestGetConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const path = "/connections/pump-7"
	r.refuses(http.MethodGet, path, "", 404, "ResourceNotFoundException", "no pump-7")
	connected := Connection{
		Connected: true, ThingName: "pump-7", RemoteAddr: "192.0.2.44:40123", LocalAddr: "[::ffff:192.0.2.1]:8883", KeepAlive: 60, Since: time.UnixMilli(1795412345123),
	}
	r.clients.connection = &connected
	common := `"cleanSession":true,"clientId":"pump-7","connected":true,"connectedSince":1795412345123,"keepAliveDuration":60,"sessionExpiry":0`
	r.answers(http.MethodGet, path, "", "{"+common+`,"thingName":"pump-7"}`)
	r.answers(http.MethodGet, path+"?includeSocketInformation=false", "", "{"+common+`,"thingName":"pump-7"}`)
	socket := "{" + common + `,"sourceIp":"192.0.2.44","sourcePort":40123,"targetIp":"192.0.2.1","targetPort":8883,"thingName":"pump-7"}`
	for _, word := range []string{"true", "TRUE", "True"} {
		r.answers(http.MethodGet, path+"?includeSocketInformation="+word, "", socket)
	}
	r.refuses(http.MethodGet, path+"?includeSocketInformation=yes", "", 400, "InvalidRequestException", "includeSocketInformation")
	r.clients.connection = &Connection{RemoteAddr: "pipe", KeepAlive: 30, SessionExpiry: 3600, Since: time.UnixMilli(5), DisconnectReason: "CONNECTION_LOST"}
	r.answers(http.MethodGet, path+"?includeSocketInformation=true", "",
		`{"cleanSession":false,"clientId":"pump-7","connected":false,"disconnectReason":"CONNECTION_LOST","disconnectedSince":5,"keepAliveDuration":30,"sessionExpiry":3600}`)
	r.clients.connection.Since = time.Time{}
	r.answers(http.MethodGet, path, "",
		`{"cleanSession":false,"clientId":"pump-7","connected":false,"disconnectReason":"CONNECTION_LOST","keepAliveDuration":30,"sessionExpiry":3600}`)
	r.asked.refuse = "iot:GetConnection"
	r.refuses(http.MethodGet, path, "", 403, "ForbiddenException", "not allowed")
}

// Trap 23: session and will by request.
func TestDeleteConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, query := range []string{"", "?cleanSession=TRUE", "?preventWillMessage=true&cleanSession=False", "?preventWillMessage=TRUE&cleanSession=true"} {
		if status, exception, body := r.call(http.MethodDelete, "/connections/pump-7"+query, ""); status != http.StatusOK || body != "{}" {
			t.Errorf("%s: %d %s %q", query, status, exception, body)
		}
	}
	want := []broker.RemoveOptions{{}, {EndSession: true}, {WithholdWill: true}, {EndSession: true, WithholdWill: true}}
	if diff := cmp.Diff(want, r.clients.removed); diff != "" {
		t.Errorf("removals differ (-want +got):\n%s", diff)
	}
	r.refuses(http.MethodDelete, "/connections/nobody", "", 404, "ResourceNotFoundException", "nobody")
	r.refuses(http.MethodDelete, "/connections/$hidden", "", 400, "InvalidRequestException", "clientId")
	r.refuses(http.MethodDelete, "/connections/"+strings.Repeat("x", 129), "", 400, "InvalidRequestException", "clientId")
	r.asked.refuse = "iot:DeleteConnection"
	r.refuses(http.MethodDelete, "/connections/pump-7", "", 403, "ForbiddenException", "not allowed")
	if len(r.clients.removed) != len(want) {
		t.Error("a refused call ended the connection")
	}
}

func TestListSubscriptions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const path = "/connections/pump-7/subscriptions"
	r.answers(http.MethodGet, path, "", `{"subscriptions":[]}`)
	for i := range 25 {
		r.clients.subscriptions = append(r.clients.subscriptions, broker.SubscriptionInfo{Filter: fmt.Sprintf("f/%02d/#", i), QoS: byte(i % 2)})
	}
	var first, second struct {
		Subscriptions []struct {
			TopicFilter string `json:"topicFilter"`
			QoS         int    `json:"qos"`
		} `json:"subscriptions"`
		NextToken string `json:"nextToken"`
	}
	r.decodes(path, &first)
	r.decodes(path+"?nextToken="+first.NextToken, &second)
	if len(first.Subscriptions) != 20 || len(second.Subscriptions) != 5 || second.NextToken != "" {
		t.Fatalf("%d and %d subscriptions, then %q", len(first.Subscriptions), len(second.Subscriptions), second.NextToken)
	}
	if s := second.Subscriptions[0]; s.TopicFilter != "f/20/#" || s.QoS != 0 || second.Subscriptions[1].QoS != 1 {
		t.Errorf("second page %+v", second.Subscriptions)
	}
	r.refuses(http.MethodGet, "/connections/other/subscriptions?nextToken="+first.NextToken, "", 400, "InvalidRequestException", "token")
	r.refuses(http.MethodGet, path+"?nextToken=forged", "", 400, "InvalidRequestException", "token")
	r.refuses(http.MethodGet, path+"?maxResults=0", "", 400, "InvalidRequestException", "maxResults")
	r.refuses(http.MethodGet, path+"?maxResults=201", "", 400, "InvalidRequestException", "maxResults")
	r.refuses(http.MethodGet, "/connections/nobody/subscriptions", "", 404, "ResourceNotFoundException", "nobody")
	r.asked.refuse = "iot:ListSubscriptions"
	r.refuses(http.MethodGet, path, "", 403, "ForbiddenException", "not allowed")
}

func TestSendDirectMessage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const path = "/connections/pump-7/messages"
	send := func(query string, headers ...string) {
		t.Helper()
		var answer struct {
			Message string `json:"message"`
			TraceID string `json:"traceId"`
		}
		status, exception, body := r.call(http.MethodPost, path+query, "now", headers...)
		if status != http.StatusOK || json.Unmarshal([]byte(body), &answer) != nil || answer.Message != "OK" || answer.TraceID == "" {
			t.Fatalf("%d %s %s", status, exception, body)
		}
	}
	send("?topic=cmd%2Fpump-7&timeout=9")
	send("?topic=cmd&confirmation=true&contentType=text%2Fplain&responseTopic=re",
		"x-amz-mqtt5-user-properties", base64.StdEncoding.EncodeToString([]byte(`[{"a":"b"}]`)), "x-amz-mqtt5-correlation-data", "Yw==",
		"x-amz-mqtt5-payload-format-indicator", "UTF8_DATA")
	send("?topic=cmd&confirmation=TRUE&timeout=15")
	want := []broker.Message{
		{Topic: "cmd/pump-7", Payload: []byte("now")},
		{Topic: "cmd", Payload: []byte("now"), QoS: 1, Properties: mqtt.Properties{
			Set:         mqtt.Of(mqtt.PropContentType, mqtt.PropResponseTopic, mqtt.PropPayloadFormat, mqtt.PropCorrelationData),
			ContentType: "text/plain", ResponseTopic: "re", PayloadFormat: 1, CorrelationData: []byte("c"),
			UserProperties: []mqtt.UserProperty{{Key: "a", Value: "b"}},
		}},
		{Topic: "cmd", Payload: []byte("now"), QoS: 1},
	}
	if diff := cmp.Diff(want, r.clients.direct); diff != "" {
		t.Errorf("messages differ (-want +got):\n%s", diff)
	}
	for i, most := range []time.Duration{0, 5 * time.Second, 15 * time.Second} {
		if got := r.clients.patience[i]; got > most || most > 0 && got < most-3*time.Second {
			t.Errorf("message %d waits for %v, want %v", i, got, most)
		}
	}
}

func TestSendDirectMessageRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const path = "/connections/pump-7/messages"
	for query, about := range map[string]string{
		"":                                  "topic",
		"?topic=a%2F%2B":                    "topic",
		"?topic=$aws%2Fthings%2Fp%2Fshadow": "reserved",
		"?topic=a&timeout=0":                "timeout",
		"?topic=a&confirmation=1":           "confirmation",
		"?topic=a&timeout=16":               "timeout",
		"?topic=a&responseTopic=%23":        "responseTopic",
	} {
		r.refuses(http.MethodPost, path+query, "x", 400, "InvalidRequestException", about)
	}
	r.refuses(http.MethodPost, path+"?topic=a", strings.Repeat("x", 128<<10+1), 413, "RequestEntityTooLargeException", "")
	r.asked.refuse = "iot:SendDirectMessage"
	r.refuses(http.MethodPost, path+"?topic=a", "x", 403, "ForbiddenException", "not allowed")
	r.asked.refuse = ""
	if len(r.clients.direct) != 0 {
		t.Errorf("refused calls sent %v", r.clients.direct)
	}
	for code, want := range map[fault.Code]struct {
		status    int
		exception string
	}{
		fault.ResourceNotFound:      {404, "ResourceNotFoundException"},
		fault.Forbidden:             {403, "ForbiddenException"},
		fault.Timeout:               {504, "GatewayTimeoutException"},
		fault.Throttling:            {429, "ThrottlingException"},
		fault.RequestEntityTooLarge: {413, "RequestEntityTooLargeException"},
		fault.Internal:              {500, "InternalFailureException"},
	} {
		r.clients.refusal = fault.New(code, "the broker says so")
		r.refuses(http.MethodPost, path+"?topic=a&confirmation=true", "x", want.status, want.exception, "the broker says so")
	}
}

// Device plane, 2.6 and 8.
func TestRetainedMessages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.answers(http.MethodGet, "/retainedMessage", "", `{"retainedTopics":[]}`)
	r.refuses(http.MethodGet, "/retainedMessage/plant%2Fa", "", 404, "ResourceNotFoundException", "plant/a")
	r.refuses(http.MethodGet, "/retainedMessage/plant%2F%23", "", 400, "InvalidRequestException", "topic")
	for i, name := range []string{"plant/a", "plant/b", "plant/c"} {
		r.clients.retained = append(r.clients.retained, broker.RetainedMessage{
			Message:  broker.Message{Topic: name, Payload: []byte("on"), QoS: byte(i % 2), Retain: true},
			StoredAt: time.UnixMilli(1795412345123),
		})
	}
	r.clients.retained[1].Properties.UserProperties = []mqtt.UserProperty{{Key: "k", Value: "v"}, {Key: "k", Value: "w"}}
	// Slashes arrive encoded or as they are.
	for _, path := range []string{"/retainedMessage/plant%2Fa", "/retainedMessage/plant/a"} {
		r.answers(http.MethodGet, path, "", `{"lastModifiedTime":1795412345123,"payload":"b24=","qos":0,"topic":"plant/a"}`)
	}
	r.answers(http.MethodGet, "/retainedMessage/plant%2Fb", "",
		`{"lastModifiedTime":1795412345123,"payload":"b24=","qos":1,"topic":"plant/b","userProperties":"`+base64.StdEncoding.EncodeToString([]byte(`[{"k":"v"},{"k":"w"}]`))+`"}`)
	var page struct {
		RetainedTopics []struct {
			Topic                         string
			PayloadSize, LastModifiedTime int64
			QoS                           int
		}
		NextToken string
	}
	r.decodes("/retainedMessage?maxResults=2", &page)
	if len(page.RetainedTopics) != 2 || page.NextToken == "" {
		t.Fatalf("first page %+v", page)
	}
	if m := page.RetainedTopics[1]; m.Topic != "plant/b" || m.PayloadSize != 2 || m.QoS != 1 || m.LastModifiedTime != 1795412345123 {
		t.Errorf("second topic %+v", m)
	}
	r.answers(http.MethodGet, "/retainedMessage?maxResults=2&nextToken="+page.NextToken, "",
		`{"retainedTopics":[{"lastModifiedTime":1795412345123,"payloadSize":2,"qos":0,"topic":"plant/c"}]}`)
	r.refuses(http.MethodGet, "/retainedMessage?nextToken=forged", "", 400, "InvalidRequestException", "token")
	r.refuses(http.MethodGet, "/retainedMessage?maxResults=201", "", 400, "InvalidRequestException", "maxResults")
	r.asked.refuse = "iot:GetRetainedMessage"
	r.refuses(http.MethodGet, "/retainedMessage/plant%2Fa", "", 403, "ForbiddenException", "not allowed")
	r.asked.refuse = "iot:ListRetainedMessages"
	r.refuses(http.MethodGet, "/retainedMessage", "", 403, "ForbiddenException", "not allowed")
}

// Retained and acknowledged messages are stored before the answer; a retained
// one needs a permission of its own.
func TestPublishDurably(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, query := range []string{"", "?qos=1", "?retain=true", "?retain=TRUE&qos=1"} {
		if status, exception, body := r.call(http.MethodPost, "/topics/a"+query, "x"); status != http.StatusOK {
			t.Fatalf("%s: %d %s %s", query, status, exception, body)
		}
	}
	if status, _, body := r.call(http.MethodPost, "/topics/a?retain=true", ""); status != http.StatusOK {
		t.Fatalf("delete a retained message: %s", body)
	}
	if r.durable != 4 || len(r.sent) != 5 || r.sent[0].Retain || !r.sent[2].Retain || !r.sent[4].Retain || len(r.sent[4].Payload) != 0 {
		t.Errorf("%d of %d durable: %+v", r.durable, len(r.sent), r.sent)
	}
	r.asked.refuse = "iot:RetainPublish"
	r.refuses(http.MethodPost, "/topics/a?retain=true", "x", 403, "ForbiddenException", "not allowed")
	if len(r.sent) != 5 {
		t.Error("a refused publish was sent")
	}
}
