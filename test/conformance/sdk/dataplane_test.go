package sdk

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go/service/iotdataplane" //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/mqtt"
	mqttclient "github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// jsCaller is a running program on the newest SDK for JavaScript, which has
// the operations on connections that the Go clients lack.
type jsCaller struct {
	t     *testing.T
	stdin io.Writer
	lines *bufio.Scanner
}

// outcome is what a call came to. Error is the exception's name, Typed whether
// the SDK made its own class of it.
type outcome struct {
	Status  int             `json:"status"`
	Output  json.RawMessage `json:"output"`
	Error   string          `json:"error"`
	Typed   bool            `json:"typed"`
	Message string          `json:"message"`
}

// newJSCaller starts the program with the root access key.
func newJSCaller(t *testing.T, server *testkit.Server) *jsCaller {
	t.Helper()
	testkit.Need(t, "node", "npm")
	if err := needDevice(); err != nil {
		t.Fatal(err)
	}
	id, secret := server.Credentials()
	cmd := exec.CommandContext(t.Context(), "node", "dataplane.mjs")
	cmd.Dir = javascriptDir
	cmd.Env = append(os.Environ(), "ENDPOINT=http://"+server.HTTPAddr, "REGION="+signingRegion, "ACCESS_KEY="+id, "SECRET_KEY="+secret)
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close() // the program ends with its input
		_ = cmd.Wait()    // killed by the context, when it did not
	})
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	return &jsCaller{t: t, stdin: stdin, lines: lines}
}

// call sends one operation; input is JSON.
func (c *jsCaller) call(operation, input string) outcome {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.stdin, `{"operation":%q,"input":%s}`+"\n", operation, input); err != nil {
		c.t.Fatal(err)
	}
	if !c.lines.Scan() {
		c.t.Fatalf("%s: the caller ended: %v", operation, c.lines.Err())
	}
	var got outcome
	if err := json.Unmarshal(c.lines.Bytes(), &got); err != nil {
		c.t.Fatalf("%s: %s: %v", operation, c.lines.Bytes(), err)
	}
	return got
}

// answers calls an operation that has to succeed and decodes its output.
func (c *jsCaller) answers(operation, input string) map[string]any {
	c.t.Helper()
	got := c.call(operation, input)
	out := map[string]any{}
	if got.Status != http.StatusOK || got.Error != "" || json.Unmarshal(got.Output, &out) != nil {
		c.t.Fatalf("%s %s: %d %s %s", operation, input, got.Status, got.Error, got.Message)
	}
	return out
}

// refuses calls an operation that has to fail with the SDK's own exception.
func (c *jsCaller) refuses(operation, input string, status int, exception string) {
	c.t.Helper()
	got := c.call(operation, input)
	if got.Status != status || got.Error != exception || !got.Typed || got.Message == "" {
		c.t.Errorf("%s %.120s: %d %s (typed: %v) %q, want %d %s", operation, input, got.Status, got.Error, got.Typed, got.Message, status, exception)
	}
}

// connectionPolicy lets pump-1 do all but receive what is secret, and call the
// data plane about itself alone.
const connectionPolicy = `{"Version":"2012-10-17","Statement":[
	{"Effect":"Allow","Action":["iot:Connect","iot:GetConnection","iot:ListSubscriptions","iot:SendDirectMessage","iot:DeleteConnection"],"Resource":"` + arnPrefix + `client/pump-1"},
	{"Effect":"Allow","Action":["iot:Publish","iot:Receive","iot:Subscribe"],"Resource":"*"},
	{"Effect":"Allow","Action":["iot:RetainPublish","iot:GetRetainedMessage"],"Resource":"` + arnPrefix + `topic/plant/pump-1"},
	{"Effect":"Deny","Action":"iot:Receive","Resource":"` + arnPrefix + `topic/secret/*"}]}`

// newPump makes pump-1 with a certificate under connectionPolicy.
func (o *operator) newPump() identity {
	o.t.Helper()
	must(o, o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: new("pump"), PolicyDocument: new(connectionPolicy)})
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new("pump-1")})
	d := o.newIdentity()
	must(o, o.AttachPolicy, &iot.AttachPolicyInput{PolicyName: new("pump"), Target: &d.arn})
	must(o, o.AttachThingPrincipal, &iot.AttachThingPrincipalInput{ThingName: new("pump-1"), Principal: &d.arn})
	return d
}

// mqttDial opens a connection to a listener; config is nil without TLS.
func mqttDial(t *testing.T, addr string, config *tls.Config, options mqttclient.Options) *mqttclient.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := mqttclient.Dial(ctx, addr, config)
	if err != nil {
		t.Fatal(err)
	}
	c, err := mqttclient.Connect(ctx, conn, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// subscribe subscribes with quality of service 1.
func subscribe(t *testing.T, c *mqttclient.Client, filters ...string) {
	t.Helper()
	subscriptions := make([]mqtt.Subscription, len(filters))
	for i, filter := range filters {
		subscriptions[i] = mqtt.Subscription{Filter: filter, QoS: 1}
	}
	codes, err := c.Subscribe(t.Context(), subscriptions...)
	if err != nil {
		t.Fatal(err)
	}
	for i, code := range codes {
		if code != 1 {
			t.Fatalf("SUBACK for %s: 0x%02X", filters[i], byte(code))
		}
	}
}

// received waits for one message as "topic payload qos".
func received(t *testing.T, messages <-chan string) string {
	t.Helper()
	select {
	case m := <-messages:
		return m
	case <-time.After(10 * time.Second):
		t.Fatal("no message in ten seconds")
		return ""
	}
}

// without returns the map less members whose value no test can know, which
// must be there.
func without(t *testing.T, m map[string]any, names ...string) map[string]any {
	t.Helper()
	for _, name := range names {
		if m[name] == nil {
			t.Errorf("%s is missing in %v", name, m)
		}
		delete(m, name)
	}
	return m
}

// connectPump connects pump-1 with a session of an hour. What it gets is told
// on messages; the topic "hold" is not acknowledged before release is closed.
func connectPump(t *testing.T, server *testkit.Server, as identity) (c *mqttclient.Client, messages chan string, release func()) {
	t.Helper()
	messages, held := make(chan string, 16), make(chan struct{})
	release = sync.OnceFunc(func() { close(held) })
	t.Cleanup(release)
	c = mqttDial(t, server.MQTTAddr, server.TLSConfig(as.pair(t)), mqttclient.Options{
		ClientID: "pump-1", Version: mqtt.V5, Persistent: true, KeepAlive: 60,
		Properties: mqtt.Properties{Set: mqtt.Of(mqtt.PropSessionExpiry), SessionExpiry: 3600},
		OnMessage: func(p *mqtt.Publish) {
			messages <- fmt.Sprintf("%s %s %d %s", p.Topic, p.Payload, p.QoS, p.Properties.ContentType)
			if string(p.Topic) == "hold" {
				<-held
			}
		},
	})
	return c, messages, release
}

// Device plane, 8 and trap 23.
func TestConnectionsThroughTheSDK(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	o := newOperator(t, server)
	as := o.newPump()
	js := newJSCaller(t, server)
	const pump = `{"clientId":"pump-1"}`
	for _, operation := range []string{"GetConnection", "ListSubscriptions", "DeleteConnection"} {
		js.refuses(operation, pump, 404, "ResourceNotFoundException")
		js.refuses(operation, `{"clientId":"$pump"}`, 400, "InvalidRequestException")
	}
	device, messages, release := connectPump(t, server, as)
	subscribe(t, device, "cmd/pump-1", "all/#")
	subscribe(t, device, "$aws/things/pump-1/shadow/update/delta")

	common := map[string]any{
		"clientId": "pump-1", "thingName": "pump-1", "connected": true, "cleanSession": false, "keepAliveDuration": 60.0, "sessionExpiry": 3600.0,
	}
	if diff := cmp.Diff(common, without(t, js.answers("GetConnection", pump), "connectedSince")); diff != "" {
		t.Errorf("GetConnection differs (-want +got):\n%s", diff)
	}
	sockets := js.answers("GetConnection", `{"clientId":"pump-1","includeSocketInformation":true}`)
	if sockets["sourceIp"] != "127.0.0.1" || sockets["targetIp"] != "127.0.0.1" || !strings.HasSuffix(server.MQTTAddr, fmt.Sprint(":", sockets["targetPort"])) {
		t.Errorf("socket information %v, listening on %s", sockets, server.MQTTAddr)
	}
	first := js.answers("ListSubscriptions", `{"clientId":"pump-1","maxResults":2}`)
	second := js.answers("ListSubscriptions", fmt.Sprintf(`{"clientId":"pump-1","nextToken":%q}`, first["nextToken"]))
	var filters []string
	for _, page := range []map[string]any{first, second} {
		for _, s := range page["subscriptions"].([]any) {
			filters = append(filters, fmt.Sprint(s.(map[string]any)["topicFilter"], " ", s.(map[string]any)["qos"]))
		}
	}
	if diff := cmp.Diff([]string{"$aws/things/pump-1/shadow/update/delta 1", "all/# 1", "cmd/pump-1 1"}, filters); diff != "" {
		t.Errorf("subscriptions differ (-want +got):\n%s", diff)
	}
	js.refuses("ListSubscriptions", `{"clientId":"pump-1","nextToken":"forged"}`, 400, "InvalidRequestException")
	js.refuses("ListSubscriptions", `{"clientId":"pump-1","maxResults":201}`, 400, "InvalidRequestException")

	sendDirect(t, js, messages, release)
	deleteConnection(t, js, device, common)
}

// sendDirect sends to the connected pump-1.
func sendDirect(t *testing.T, js *jsCaller, messages <-chan string, release func()) {
	t.Helper()
	sent := js.answers("SendDirectMessage", `{"clientId":"pump-1","topic":"only/you","payload":"one","contentType":"text/plain"}`)
	if sent["message"] != "OK" || sent["traceId"] == "" {
		t.Errorf("SendDirectMessage answers %v", sent)
	}
	if got := received(t, messages); got != "only/you one 0 text/plain" {
		t.Errorf("got %q without a subscription", got)
	}
	js.answers("SendDirectMessage", `{"clientId":"pump-1","topic":"cmd/pump-1","payload":"two","confirmation":true,"timeout":15}`)
	if got := received(t, messages); got != "cmd/pump-1 two 1 " {
		t.Errorf("got %q with confirmation", got)
	}
	js.refuses("SendDirectMessage", `{"clientId":"nobody","topic":"a","payload":"x"}`, 404, "ResourceNotFoundException")
	js.refuses("SendDirectMessage", `{"clientId":"pump-1","topic":"secret/a","payload":"x"}`, 403, "ForbiddenException")
	js.refuses("SendDirectMessage", `{"clientId":"pump-1","topic":"a/#","payload":"x"}`, 400, "InvalidRequestException")
	js.refuses("SendDirectMessage", `{"clientId":"pump-1","topic":"a","payload":"x","timeout":16}`, 400, "InvalidRequestException")
	js.refuses("SendDirectMessage", `{"clientId":"pump-1","topic":"a","payload":"`+strings.Repeat("x", 128<<10+1)+`"}`, 413, "RequestEntityTooLargeException")
	js.refuses("SendDirectMessage", `{"clientId":"pump-1","topic":"hold","payload":"x","confirmation":true,"timeout":1}`, 504, "GatewayTimeoutException")
	if got := received(t, messages); got != "hold x 1 " {
		t.Errorf("got %q, want the message that was not acknowledged", got)
	}
	release()
	js.answers("SendDirectMessage", `{"clientId":"pump-1","topic":"after","payload":"x","confirmation":true}`)
	if got := received(t, messages); got != "after x 1 " {
		t.Errorf("got %q after the device went on", got)
	}
}

// deleteConnection ends first the connection of pump-1 and then its session.
func deleteConnection(t *testing.T, js *jsCaller, device *mqttclient.Client, common map[string]any) {
	t.Helper()
	const pump = `{"clientId":"pump-1"}`
	js.answers("DeleteConnection", pump)
	select {
	case <-device.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the device is still connected")
	}
	var away map[string]any
	testkit.Poll(t, 5*time.Second, "the end of the connection", func() error {
		if away = js.answers("GetConnection", pump); away["connected"] != false {
			return fmt.Errorf("answer %v", away)
		}
		return nil
	})
	common["connected"], common["disconnectReason"] = false, "API_INITIATED_DISCONNECT"
	if diff := cmp.Diff(common, without(t, away, "disconnectedSince")); diff != "" {
		t.Errorf("GetConnection of a stored session differs (-want +got):\n%s", diff)
	}
	if got := js.answers("ListSubscriptions", pump)["subscriptions"].([]any); len(got) != 3 {
		t.Errorf("subscriptions of a stored session: %v", got)
	}
	js.refuses("SendDirectMessage", `{"clientId":"pump-1","topic":"a","payload":"x"}`, 404, "ResourceNotFoundException")
	js.answers("DeleteConnection", `{"clientId":"pump-1","cleanSession":true}`)
	js.refuses("ListSubscriptions", pump, 404, "ResourceNotFoundException")
	js.refuses("DeleteConnection", pump, 404, "ResourceNotFoundException")
	// What is left is the memory of the connection.
	if diff := cmp.Diff(common, without(t, js.answers("GetConnection", pump), "disconnectedSince")); diff != "" {
		t.Errorf("GetConnection of a client that is gone differs (-want +got):\n%s", diff)
	}
}

// Device plane, 3.4: by the control plane's client.
func TestConnectivityDataThroughTheSDK(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	o := newOperator(t, server)
	as := o.newPump()
	ask := &iot.GetThingConnectivityDataInput{ThingName: new("pump-1"), IncludeSocketInformation: new(true)}
	never := must(o, o.GetThingConnectivityData, ask)
	if val(never.Connected) || never.Timestamp != nil || never.ClientId != nil || never.CleanSession != nil || never.DisconnectReason != "" {
		t.Errorf("never connected: %+v", never)
	}
	device, _, _ := connectPump(t, server, as)
	var got *iot.GetThingConnectivityDataOutput
	await := func(connected bool) {
		t.Helper()
		testkit.Poll(t, 5*time.Second, "the connectivity", func() error {
			if got = must(o, o.GetThingConnectivityData, ask); val(got.Connected) != connected {
				return fmt.Errorf("answer %+v", got)
			}
			return nil
		})
	}
	await(true)
	if val(got.ClientId) != "pump-1" || val(got.CleanSession) || val(got.SessionExpiry) != 3600 || val(got.KeepAliveDuration) != 60 ||
		time.Since(val(got.Timestamp)).Abs() > time.Minute || got.SourceIp != nil || got.TargetPort != nil {
		t.Errorf("connected: %+v", got)
	}
	must(o, o.UpdateIndexingConfiguration, &iot.UpdateIndexingConfigurationInput{ThingIndexingConfiguration: &types.ThingIndexingConfiguration{
		ThingIndexingMode: types.ThingIndexingModeRegistryAndShadow, ThingConnectivityIndexingMode: types.ThingConnectivityIndexingModeStatus,
		Filter: &types.IndexingFilter{Connectivity: &types.ConnectivityFilter{
			IncludeSocketInformation: []types.FleetIndexingApi{types.FleetIndexingApiGetThingConnectivityData},
		}},
	}})
	got = must(o, o.GetThingConnectivityData, ask)
	if val(got.SourceIp) != "127.0.0.1" || val(got.SourcePort) == 0 || val(got.TargetIp) != "127.0.0.1" ||
		!strings.HasSuffix(server.MQTTAddr, fmt.Sprint(":", val(got.TargetPort))) {
		t.Errorf("sockets: %+v", got)
	}
	if err := device.Disconnect(); err != nil {
		t.Fatal(err)
	}
	await(false)
	if got.DisconnectReason != types.DisconnectReasonValueClientInitiatedDisconnect || val(got.SessionExpiry) != 3600 {
		t.Errorf("disconnected: %+v", got)
	}
	_, err := o.GetThingConnectivityData(t.Context(), &iot.GetThingConnectivityDataInput{ThingName: new("nobody")})
	if code, _ := answered(err); code != "ResourceNotFoundException" {
		t.Errorf("unknown thing: %v", err)
	}
}

// Device plane, 2.6 and 8: by the clients of both SDKs.
func TestRetainedMessagesThroughTheSDK(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	o := newOperator(t, server)
	js := newJSCaller(t, server)
	js.answers("Publish", `{"topic":"plant/a","qos":1,"retain":true,"payload":"one","userProperties":"[{\"k\":\"v\"}]"}`)
	if _, err := o.data.PublishWithContext(t.Context(), &iotdataplane.PublishInput{Topic: new("plant/b"), Retain: new(true), Payload: []byte("three")}); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"topic": "plant/a", "payload": "one", "qos": 1.0, "userProperties": `[{"k":"v"}]`}
	got := js.answers("GetRetainedMessage", `{"topic":"plant/a"}`)
	if at, ok := got["lastModifiedTime"].(float64); !ok || time.Since(time.UnixMilli(int64(at))).Abs() > time.Minute {
		t.Errorf("lastModifiedTime %v is not now in milliseconds", got["lastModifiedTime"])
	}
	if diff := cmp.Diff(want, without(t, got, "lastModifiedTime")); diff != "" {
		t.Errorf("GetRetainedMessage differs (-want +got):\n%s", diff)
	}
	older, err := o.data.GetRetainedMessageWithContext(t.Context(), &iotdataplane.GetRetainedMessageInput{Topic: new("plant/b")})
	if err != nil || string(older.Payload) != "three" || val(older.Qos) != 0 || val(older.Topic) != "plant/b" {
		t.Errorf("by the older client: %+v, %v", older, err)
	}
	var topics []string
	err = o.data.ListRetainedMessagesPagesWithContext(t.Context(), &iotdataplane.ListRetainedMessagesInput{MaxResults: new(int64(1))},
		func(page *iotdataplane.ListRetainedMessagesOutput, _ bool) bool {
			for _, m := range page.RetainedTopics {
				topics = append(topics, fmt.Sprint(val(m.Topic), " ", val(m.PayloadSize), " ", val(m.Qos)))
			}
			return len(topics) < 10
		})
	if diff := cmp.Diff([]string{"plant/a 3 1", "plant/b 5 0"}, topics); diff != "" || err != nil {
		t.Errorf("%v; topics differ (-want +got):\n%s", err, diff)
	}
	js.answers("Publish", `{"topic":"plant/a","retain":true}`)
	js.refuses("GetRetainedMessage", `{"topic":"plant/a"}`, 404, "ResourceNotFoundException")
	js.refuses("GetRetainedMessage", `{"topic":"plant/+"}`, 400, "InvalidRequestException")
	js.refuses("ListRetainedMessages", `{"maxResults":201}`, 400, "InvalidRequestException")
	js.refuses("ListRetainedMessages", `{"nextToken":"forged"}`, 400, "InvalidRequestException")
	js.refuses("Publish", `{"topic":"$aws/things/p/shadow/get","retain":true}`, 400, "InvalidRequestException")
	js.refuses("Publish", `{"topic":"a/#","payload":"x"}`, 400, "InvalidRequestException")
	js.refuses("Publish", `{"topic":"a","payload":"`+strings.Repeat("x", 128<<10+1)+`"}`, 413, "RequestEntityTooLargeException")
}

// A stored session is still described, listed and deleted after a crash.
func TestStoredSessionSurvivesTheProcess(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	as := newOperator(t, server).newPump()
	device, _, _ := connectPump(t, server, as)
	subscribe(t, device, "cmd/pump-1", "all/#")
	server.Kill()
	server.Start()
	js := newJSCaller(t, server)
	const pump = `{"clientId":"pump-1"}`
	want := map[string]any{
		"clientId": "pump-1", "thingName": "pump-1", "connected": false, "cleanSession": false, "keepAliveDuration": 60.0, "sessionExpiry": 3600.0,
		"disconnectReason": "SERVER_ERROR",
	}
	if diff := cmp.Diff(want, without(t, js.answers("GetConnection", pump), "disconnectedSince")); diff != "" {
		t.Errorf("GetConnection differs (-want +got):\n%s", diff)
	}
	if got := js.answers("GetConnection", `{"clientId":"pump-1","includeSocketInformation":true}`); got["sourceIp"] != "127.0.0.1" {
		t.Errorf("socket information %v", got)
	}
	if got := js.answers("ListSubscriptions", pump)["subscriptions"].([]any); len(got) != 2 {
		t.Errorf("subscriptions %v", got)
	}
	js.answers("DeleteConnection", `{"clientId":"pump-1","cleanSession":true}`)
	js.refuses("ListSubscriptions", pump, 404, "ResourceNotFoundException")
}

// A retained publish that was answered is there after a crash.
func TestRetainedMessagesSurviveTheProcess(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	o := newOperator(t, server)
	for _, qos := range []int64{0, 1} {
		if _, err := o.data.PublishWithContext(t.Context(), &iotdataplane.PublishInput{
			Topic: new(fmt.Sprint("plant/", qos)), Qos: &qos, Retain: new(true), Payload: []byte("kept"),
		}); err != nil {
			t.Fatal(err)
		}
	}
	server.Kill()
	server.Start()
	for _, topic := range []string{"plant/0", "plant/1"} {
		got, err := o.data.GetRetainedMessageWithContext(t.Context(), &iotdataplane.GetRetainedMessageInput{Topic: &topic})
		if err != nil || string(got.Payload) != "kept" {
			t.Errorf("%s: %+v, %v", topic, got, err)
		}
	}
}

// Devices call the data plane by their certificate, as far as its policies go.
func TestDataPlaneByCertificate(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	o := newOperator(t, server)
	as := o.newPump()
	_, messages, _ := connectPump(t, server, as)
	transport := &http.Transport{TLSClientConfig: server.TLSConfig(as.pair(t))}
	t.Cleanup(transport.CloseIdleConnections)
	_, port, _ := strings.Cut(server.TLSAddr, ":")
	for _, c := range []struct {
		method, path, exception string
		status                  int
	}{
		{http.MethodGet, "/connections/pump-1?includeSocketInformation=TRUE", "", 200},
		{http.MethodGet, "/connections/pump-2", "ForbiddenException", 403},
		{http.MethodGet, "/connections/pump-1/subscriptions", "", 200},
		{http.MethodGet, "/connections/pump-2/subscriptions", "ForbiddenException", 403},
		{http.MethodPost, "/topics/plant%2Fpump-1?retain=true", "", 200},
		{http.MethodPost, "/topics/plant%2Fpump-2", "", 200},
		{http.MethodPost, "/topics/plant%2Fpump-2?retain=true", "ForbiddenException", 403},
		{http.MethodGet, "/retainedMessage/plant%2Fpump-1", "", 200},
		{http.MethodGet, "/retainedMessage/plant%2Fpump-2", "ForbiddenException", 403},
		{http.MethodGet, "/retainedMessage", "ForbiddenException", 403},
		{http.MethodPost, "/connections/pump-1/messages?topic=cmd&confirmation=TRUE", "", 200},
		{http.MethodPost, "/connections/pump-2/messages?topic=cmd", "ForbiddenException", 403},
		{http.MethodDelete, "/connections/pump-2", "ForbiddenException", 403},
		{http.MethodDelete, "/connections/pump-1?cleanSession=TRUE&preventWillMessage=TRUE", "", 200},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, "https://localhost:"+port+c.path, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close() // it is read
		if response.StatusCode != c.status || response.Header.Get("X-Amzn-Errortype") != c.exception {
			t.Errorf("%s %s: %d %s %s, want %d %s", c.method, c.path, response.StatusCode, response.Header.Get("X-Amzn-Errortype"), body, c.status, c.exception)
		}
	}
	if got := received(t, messages); got != "cmd x 1 " {
		t.Errorf("the device got %q", got)
	}
}

// Device plane, 3.1 and 3.2: connect, subscriptions and end of one connection,
// in order; takeover within one session has versions of its own (trap 7).
func TestLifecycleEventsOfAConnection(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	o := newOperator(t, server)
	as := o.newPump()
	events := make(chan string, 64)
	watcher := mqttDial(t, server.PlainMQTTAddr, nil, mqttclient.Options{
		ClientID: "watcher", Version: mqtt.V5, OnMessage: func(p *mqtt.Publish) {
			var e struct {
				SessionIdentifier   string   `json:"sessionIdentifier"`
				PrincipalIdentifier string   `json:"principalIdentifier"`
				DisconnectReason    string   `json:"disconnectReason"`
				VersionNumber       *int     `json:"versionNumber"`
				Topics              []string `json:"topics"`
			}
			if json.Unmarshal(p.Payload, &e) != nil || !strings.HasSuffix(string(p.Topic), "/pump-1") {
				return
			}
			line := strings.TrimPrefix(string(p.Topic), "$aws/events/")
			if e.VersionNumber != nil {
				line += fmt.Sprint(" ", *e.VersionNumber)
			}
			if e.PrincipalIdentifier != as.id || e.SessionIdentifier == "" {
				line += " of somebody else"
			}
			events <- strings.TrimSpace(line + " " + e.DisconnectReason + strings.Join(e.Topics, ","))
		},
	})
	subscribe(t, watcher, "$aws/events/presence/#", "$aws/events/subscriptions/#")
	expect := func(want ...string) {
		t.Helper()
		for _, line := range want {
			if got := received(t, events); got != line {
				t.Errorf("event %q, want %q", got, line)
			}
		}
	}
	device, _, _ := connectPump(t, server, as)
	subscribe(t, device, "cmd/pump-1", "all/#")
	if err := device.Unsubscribe(t.Context(), "all/#"); err != nil {
		t.Fatal(err)
	}
	expect("presence/connected/pump-1 0", "subscriptions/subscribed/pump-1 cmd/pump-1,all/#", "subscriptions/unsubscribed/pump-1 all/#")
	second, _, _ := connectPump(t, server, as)
	got := []string{received(t, events), received(t, events)}
	want := map[string]bool{"presence/connected/pump-1 1": true, "presence/disconnected/pump-1 0 DUPLICATE_CLIENTID": true}
	for _, line := range got {
		if !want[line] {
			t.Errorf("event %q at the takeover", line)
		}
	}
	if err := second.Disconnect(); err != nil {
		t.Fatal(err)
	}
	expect("presence/disconnected/pump-1 1 CLIENT_INITIATED_DISCONNECT")
}
