package awsapi

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotdatawire"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/awsapi/sigv4"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/pagetoken"
)

const (
	testAccount fleet.Account = "000000000001"
	testKey     string        = "AKTEST"
	testSecret  string        = "secret"
	// sinner is the name that the test authorizer refuses.
	sinner string = "sinner"
)

// testNow is the clock of the test servers.
func testNow() time.Time { return time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC) }

// keyring knows one access key.
type keyring struct{}

func (keyring) SecretKey(_ context.Context, id string) (string, fleet.Account, fleet.Principal, error) {
	switch id {
	case testKey:
		return testSecret, testAccount, fleet.Principal{Kind: fleet.PrincipalUser, ID: "root", ARN: "arn:aws:iam::000000000001:root"}, nil
	case "AKBROKEN":
		return "", "", fleet.Principal{}, io.ErrUnexpectedEOF
	case "AKAWAY":
		return "", "", fleet.Principal{}, fault.New(fault.Unavailable, "The storage is away")
	default:
		return "", "", fleet.Principal{}, fault.New(fault.Unauthorized, "no such key")
	}
}

// certificates knows the certificate of the device, under any server name.
type certificates struct{}

func (certificates) DeviceIdentity(_ context.Context, c *x509.Certificate, name string) (fleet.Account, fleet.Principal, error) {
	if c.Subject.CommonName != "device" {
		return "", fleet.Principal{}, fault.New(fault.Unauthorized, "unknown certificate")
	}
	return testAccount, fleet.Principal{Kind: fleet.PrincipalCertificate, ID: name}, nil
}

// gate denies everything about things called sinner.
type gate struct{}

func (gate) Authorize(_ context.Context, caller Caller, action, resource string) error {
	if caller.Account != testAccount || strings.HasSuffix(resource, sinner) {
		return fault.New(fault.Forbidden, "%s may not %s on %s", caller.Principal.ARN, action, resource)
	}
	return nil
}

func newServer(tb testing.TB) (*Server, *bytes.Buffer) {
	tb.Helper()
	c, err := catalog.New()
	if err != nil {
		tb.Fatal(err)
	}
	logged := &bytes.Buffer{}
	s, err := New(Options{
		Catalog: c, Keys: keyring{}, Devices: certificates{}, Authorizer: gate{}, Region: "eu-local-1",
		TokenKey: bytes.Repeat([]byte{7}, pagetoken.KeySize), Now: testNow,
		Logger:     slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Registerer: prometheus.NewRegistry(), Strict: true,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return s, logged
}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
}

// error returns the exception's name and the message of a REST-JSON error.
func (a answer) error(t *testing.T) (name, message string) {
	t.Helper()
	var body struct {
		Message string `json:"message"`
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		t.Errorf("error body %q: %v", a.body, err)
	}
	return a.header.Get("X-Amzn-Errortype"), body.Message
}

// request makes an unsigned request.
func request(tb testing.TB, method, target, body string) *http.Request {
	tb.Helper()
	return httptest.NewRequestWithContext(tb.Context(), method, target, strings.NewReader(body))
}

// signed makes a request signed for a service.
func signed(t *testing.T, service, method, target, body string) *http.Request {
	t.Helper()
	r := request(t, method, target, body)
	if err := sigv4.Sign(r, []byte(body), sigv4.Key{AccessKeyID: testKey, Secret: testSecret}, sigv4.Scope{Region: "anywhere", Service: service}, testNow()); err != nil {
		t.Fatal(err)
	}
	return r
}

// do sends a request and checks what every answer must have.
func do(t *testing.T, s *Server, r *http.Request) answer {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if len(w.Header().Get("X-Amzn-Requestid")) != 36 {
		t.Errorf("request id %q", w.Header().Get("X-Amzn-Requestid"))
	}
	return answer{status: w.Code, header: w.Header(), body: w.Body.String()}
}

// TestExampleAdapter shows how an adapter is written: one registration, one
// domain call, no decisions.
func TestExampleAdapter(t *testing.T) {
	t.Parallel()
	s, logged := newServer(t)
	known := map[string]map[string]string{} // Stands for the registry.
	create := func(ctx context.Context, call *Call, in *iotwire.CreateThingInput) (*iotwire.CreateThingOutput, error) {
		if _, ok := known[in.ThingName]; ok {
			err := fault.New(fault.ResourceAlreadyExists, "Thing %s already exists", in.ThingName)
			err.ResourceID, err.ResourceARN = in.ThingName, call.ARN(fleet.ARNThing, in.ThingName)
			return nil, err
		}
		known[in.ThingName] = map[string]string{}
		if in.AttributePayload != nil {
			known[in.ThingName] = in.AttributePayload.Attributes
		}
		if actor := fleet.ActorFrom(ctx); actor.RequestID != call.RequestID || actor.SourceAddress != "192.0.2.1" {
			t.Errorf("actor %+v", actor)
		}
		return &iotwire.CreateThingOutput{ThingName: new(in.ThingName), ThingARN: new(call.ARN(fleet.ARNThing, in.ThingName))}, nil
	}
	Handle(s, catalog.IoT, "CreateThing", func(c *Call, in *iotwire.CreateThingInput) []string {
		return []string{c.ARN(fleet.ARNThing, in.ThingName)}
	}, create)

	got := do(t, s, signed(t, "iot", http.MethodPost, "/things/T%3A1", `{"attributePayload":{"attributes":{"a":"b"}}}`))
	const arn = "arn:aws:iot:eu-local-1:000000000001:thing/T:1"
	if got.status != http.StatusOK || got.body != `{"thingArn":"`+arn+`","thingName":"T:1"}` {
		t.Errorf("create: %+v", got)
	}
	if known["T:1"]["a"] != "b" {
		t.Errorf("registry holds %v", known)
	}
	got = do(t, s, signed(t, "iot", http.MethodPost, "/things/T%3A1", ""))
	if name, _ := got.error(t); got.status != http.StatusConflict || name != "ResourceAlreadyExistsException" {
		t.Errorf("create again: %+v", got)
	}
	for _, member := range []string{`"resourceArn":"` + arn + `"`, `"resourceId":"T:1"`} {
		if !strings.Contains(got.body, member) {
			t.Errorf("%s lacks %s", got.body, member)
		}
	}
	got = do(t, s, signed(t, "iot", http.MethodPost, "/things/bad%20name", ""))
	if name, message := got.error(t); got.status != http.StatusBadRequest || name != "InvalidRequestException" || !strings.Contains(message, "thingName") {
		t.Errorf("bad name: %+v", got)
	}
	got = do(t, s, signed(t, "iot", http.MethodPost, "/things/"+sinner, ""))
	if name, _ := got.error(t); got.status != http.StatusForbidden || name != "AccessDeniedException" || known[sinner] != nil {
		t.Errorf("denied: %+v", got)
	}
	if text := logged.String(); !strings.Contains(text, "operation=CreateThing") || !strings.Contains(text, "code=AccessDeniedException") {
		t.Errorf("log: %s", text)
	}
}

func TestRawPayloadPassesThrough(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	Handle(s, catalog.IoTData, "UpdateThingShadow", All[iotdatawire.UpdateThingShadowInput],
		func(_ context.Context, _ *Call, in *iotdatawire.UpdateThingShadowInput) (*iotdatawire.UpdateThingShadowOutput, error) {
			return &iotdatawire.UpdateThingShadowOutput{Payload: append([]byte(*in.ShadowName+":"), in.Payload...)}, nil
		}, MaxBody(10))
	got := do(t, s, signed(t, "iotdata", http.MethodPost, "/things/T/shadow?name=s", `{ "a":1 }`))
	if got.body != `s:{ "a":1 }` {
		t.Errorf("got %q", got.body)
	}
	got = do(t, s, signed(t, "iotdata", http.MethodPost, "/things/T/shadow?name=s", `{ "a": 12 }`))
	if name, _ := got.error(t); got.status != http.StatusRequestEntityTooLarge || name != "RequestEntityTooLargeException" {
		t.Errorf("too large: %+v", got)
	}
	chunked := signed(t, "iotdata", http.MethodPost, "/things/T/shadow?name=s", `{ "a": 12 }`)
	chunked.ContentLength = -1
	if got = do(t, s, chunked); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("too large without length: %+v", got)
	}
	if !strings.Contains(got.body, `"traceId":"`+got.header.Get("X-Amzn-Requestid")) {
		t.Errorf("data plane error without traceId: %s", got.body)
	}
}

// TestAdapterMistakes checks the border that house-style §4 asks for.
func TestAdapterMistakes(t *testing.T) {
	t.Parallel()
	type in = iotwire.DescribeEndpointInput
	type out = iotwire.DescribeEndpointOutput
	for name, c := range map[string]struct {
		resources func(*Call, *in) []string
		adapter   func(context.Context, *Call, *in) (*out, error)
		log       string
		message   string
	}{
		"unlisted code": {
			All[in], func(context.Context, *Call, *in) (*out, error) { return nil, fault.New(fault.IndexNotReady, "x") },
			"", "the adapter of DescribeEndpoint answered IndexNotReady, which its model does not list",
		},
		"neither":     {All[in], func(context.Context, *Call, *in) (*out, error) { return nil, nil }, "neither reply nor error", "Internal failure"},
		"panic":       {All[in], func(context.Context, *Call, *in) (*out, error) { panic("boom") }, "panic: boom", "Internal failure"},
		"plain error": {All[in], func(context.Context, *Call, *in) (*out, error) { return nil, io.ErrClosedPipe }, "closed pipe", "Internal failure"},
		"no resource": {func(*Call, *in) []string { return nil }, func(context.Context, *Call, *in) (*out, error) { return &out{}, nil }, "no resource to authorize", "Internal failure"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, logged := newServer(t)
			Handle(s, catalog.IoT, "DescribeEndpoint", c.resources, c.adapter)
			got := do(t, s, signed(t, "iot", http.MethodGet, "/endpoint", ""))
			exception, message := got.error(t)
			if got.status != http.StatusInternalServerError || exception != "InternalFailureException" || message != c.message {
				t.Errorf("got %+v", got)
			}
			if !strings.Contains(logged.String(), c.log) || !strings.Contains(logged.String(), "level=ERROR") {
				t.Errorf("log lacks %q: %s", c.log, logged)
			}
		})
	}
}

func TestWrongRegistrationPanics(t *testing.T) {
	t.Parallel()
	type in = iotwire.DescribeEndpointInput
	type out = iotwire.DescribeEndpointOutput
	s, _ := newServer(t)
	adapter := func(context.Context, *Call, *in) (*out, error) { return &out{}, nil }
	Handle(s, catalog.IoT, "DescribeEndpoint", All[in], adapter)
	for name, register := range map[string]func(){
		"unknown":      func() { Handle(s, catalog.IoT, "DescribeEndpoints", All[in], adapter) },
		"twice":        func() { Handle(s, catalog.IoT, "DescribeEndpoint", All[in], adapter) },
		"wrong input":  func() { Handle(s, catalog.IoT, "CreateThing", All[in], adapter) },
		"no resources": func() { Handle(s, catalog.IoT, "DescribeEndpoint", nil, adapter) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: accepted", name)
				}
			}()
			register()
		}()
	}
}

func TestPageTokensThroughACall(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	Handle(s, catalog.IoT, "ListThings", All[iotwire.ListThingsInput],
		func(_ context.Context, call *Call, in *iotwire.ListThingsInput) (*iotwire.ListThingsOutput, error) {
			filter := ""
			if in.ThingTypeName != nil {
				filter = *in.ThingTypeName
			}
			after, err := call.PageKey(in.NextToken, filter)
			if err != nil {
				return nil, err
			}
			if after == "last" {
				return &iotwire.ListThingsOutput{Things: []iotwire.ThingAttribute{}}, nil
			}
			return &iotwire.ListThingsOutput{NextToken: call.NextToken("last", filter)}, nil
		})
	var page struct {
		NextToken string `json:"nextToken"`
	}
	got := do(t, s, signed(t, "iot", http.MethodGet, "/things?thingTypeName=a", ""))
	if err := json.Unmarshal([]byte(got.body), &page); err != nil || page.NextToken == "" {
		t.Fatalf("first page %+v: %v", got, err)
	}
	if got = do(t, s, signed(t, "iot", http.MethodGet, "/things?thingTypeName=a&nextToken="+page.NextToken, "")); got.body != `{"things":[]}` {
		t.Errorf("second page %+v", got)
	}
	got = do(t, s, signed(t, "iot", http.MethodGet, "/things?thingTypeName=b&nextToken="+page.NextToken, ""))
	if name, _ := got.error(t); name != "InvalidRequestException" {
		t.Errorf("token with another filter: %+v", got)
	}
}

// resign signs a request again after its headers were set.
func resign(t *testing.T, r *http.Request, service, body string) *http.Request {
	t.Helper()
	if err := sigv4.Sign(r, []byte(body), sigv4.Key{AccessKeyID: testKey, Secret: testSecret}, sigv4.Scope{Region: "r", Service: service}, testNow()); err != nil {
		t.Fatal(err)
	}
	return r
}
