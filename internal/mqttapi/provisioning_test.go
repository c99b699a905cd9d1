package mqttapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provisioning"
)

// fakeProvisioning answers every request, or refuses with err.
type fakeProvisioning struct {
	err   error
	block chan struct{}
	mu    sync.Mutex
	asked []any
}

func (f *fakeProvisioning) note(what any) error {
	f.mu.Lock()
	f.asked = append(f.asked, what)
	f.mu.Unlock()
	if f.block != nil {
		<-f.block
	}
	return f.err
}

func (f *fakeProvisioning) CreateKeys(_ context.Context, r provisioning.Requester) (provisioning.Issued, error) {
	return provisioning.Issued{CertificateID: "id", CertificatePEM: "pem\n", PrivatePEM: "key\n", Token: "token"}, f.note(r)
}

func (f *fakeProvisioning) CreateFromCSR(_ context.Context, _ provisioning.Requester, csr string) (provisioning.Issued, error) {
	return provisioning.Issued{CertificateID: "id", CertificatePEM: "pem\n", Token: "token"}, f.note(csr)
}

func (f *fakeProvisioning) Provision(_ context.Context, _ provisioning.Requester, c provisioning.ProvisionCommand) (provisioning.Provisioned, error) {
	return provisioning.Provisioned{ThingName: "pump-1", DeviceConfiguration: map[string]string{}}, f.note(c)
}

// provisioner is a handler with a fake behind it.
func provisioner(t *testing.T, f *fakeProvisioning) *Handler {
	t.Helper()
	h := New(Options{Provisioning: f, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() {
		if err := h.Drain(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return h
}

// ask publishes a request and returns topic and payload of the answer.
func ask(t *testing.T, h *Handler, name string, payload []byte) (answerTopic string, answer []byte) {
	t.Helper()
	type reply struct {
		topic   string
		payload []byte
	}
	replies := make(chan reply, 2)
	acknowledged := make(chan error, 1)
	deferred, ok := h.Reserved(&broker.Publish{
		Account: "000000000001", ClientID: "dev", Topic: name, Payload: payload, RemoteAddr: "192.0.2.1:4000",
		Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: "claim"},
		ReplyTo:   func(topic string, payload []byte) { replies <- reply{topic, payload} },
	}, func(err error, answers ...broker.Message) {
		if len(answers) > 0 {
			t.Errorf("%d answers were routed", len(answers))
		}
		acknowledged <- err
	})
	if !ok {
		t.Fatalf("%s is not taken in", name)
	}
	if deferred {
		if err := <-acknowledged; err != nil {
			t.Errorf("acknowledged with %v", err)
		}
	}
	got := <-replies
	return got.topic, got.payload
}

// inFormat encodes a value as a topic's format does.
func inFormat(t *testing.T, format string, v any) []byte {
	t.Helper()
	encode := json.Marshal
	if format == "cbor" {
		encode = cbor.Marshal
	}
	data, err := encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// decoded reverses inFormat.
func decoded(t *testing.T, format string, data []byte) map[string]any {
	t.Helper()
	decode := json.Unmarshal
	if format == "cbor" {
		mode, err := cbor.DecOptions{DefaultMapType: nil}.DecMode()
		if err != nil {
			t.Fatal(err)
		}
		decode = mode.Unmarshal
	}
	into := map[string]any{}
	if err := decode(data, &into); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	return into
}

// device-plane §5.1.
func TestProvisioningAnswers(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "cbor"} {
		f := &fakeProvisioning{}
		h := provisioner(t, f)
		for name, c := range map[string]struct {
			request any
			want    map[string]any
		}{
			"$aws/certificates/create/": {nil, map[string]any{
				"certificateId": "id", "certificatePem": "pem\n", "privateKey": "key\n", "certificateOwnershipToken": "token",
			}},
			"$aws/certificates/create-from-csr/": {map[string]any{"certificateSigningRequest": "csr\n", "other": 1}, map[string]any{
				"certificateId": "id", "certificatePem": "pem\n", "certificateOwnershipToken": "token",
			}},
			"$aws/provisioning-templates/Pumps/provision/": {
				map[string]any{"certificateOwnershipToken": "token", "parameters": map[string]string{"SerialNumber": "1"}},
				map[string]any{"thingName": "pump-1", "deviceConfiguration": map[string]any{}},
			},
		} {
			var payload []byte
			if c.request != nil {
				payload = inFormat(t, format, c.request)
			}
			topic, answer := ask(t, h, name+format, payload)
			if topic != name+format+"/accepted" {
				t.Errorf("%s%s is answered at %s: %q", name, format, topic, answer)
				continue
			}
			got := decoded(t, format, answer)
			if m, ok := got["deviceConfiguration"].(map[any]any); ok && len(m) == 0 {
				got["deviceConfiguration"] = map[string]any{}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s%s (-want +got):\n%s", name, format, diff)
			}
		}
		if topic, _ := ask(t, h, "$aws/certificates/create/"+format, inFormat(t, format, map[string]any{})); !strings.HasSuffix(topic, "/accepted") {
			t.Errorf("an empty object is answered at %s", topic)
		}
	}
}

func TestProvisioningCommand(t *testing.T) {
	t.Parallel()
	f := &fakeProvisioning{}
	ask(t, provisioner(t, f), "$aws/provisioning-templates/Pumps/provision/json", []byte(`{"certificateOwnershipToken":"t","parameters":{"A":"1"}}`))
	want := []any{provisioning.ProvisionCommand{Template: "Pumps", Token: "t", Parameters: map[string]string{"A": "1"}}}
	if diff := cmp.Diff(want, f.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestProvisioningRefusesPayloads(t *testing.T) {
	t.Parallel()
	const (
		csr       = "$aws/certificates/create-from-csr/"
		provision = "$aws/provisioning-templates/Pumps/provision/"
	)
	deep := any("x")
	for range 20 {
		deep = map[string]any{"a": deep}
	}
	many := map[string]string{}
	for i := range 3000 {
		many[strings.Repeat("a", i/100)+string(rune('a'+i%26))+time.Duration(i).String()] = "x"
	}
	for name, c := range map[string]struct {
		topic   string
		payload []byte
		code    string
		text    string
	}{
		"json: nothing":            {csr + "json", nil, "InvalidPayload", "object"},
		"json: a list":             {csr + "json", []byte(`[1]`), "InvalidPayload", "object"},
		"json: cut":                {csr + "json", []byte(`{"certificateSigningRequest":"a`), "InvalidPayload", "JSON"},
		"json: not UTF-8":          {csr + "json", []byte("{\"certificateSigningRequest\":\"\xff\"}"), "InvalidPayload", "UTF-8"},
		"json: number":             {csr + "json", []byte(`{"certificateSigningRequest":1}`), "InvalidPayload", "certificateSigningRequest"},
		"json: create from a list": {"$aws/certificates/create/json", []byte(`[]`), "InvalidPayload", "object"},
		"json: no token":           {provision + "json", []byte(`{"parameters":{}}`), "InvalidCertificateOwnershipToken", "cannot be empty"},
		"json: token is a number":  {provision + "json", []byte(`{"certificateOwnershipToken":5}`), "InvalidPayload", "certificateOwnershipToken"},
		"json: parameter number":   {provision + "json", []byte(`{"certificateOwnershipToken":"t","parameters":{"A":1}}`), "InvalidParameters", "text"},
		"json: parameter null":     {provision + "json", []byte(`{"certificateOwnershipToken":"t","parameters":{"A":null}}`), "InvalidParameters", "value of A"},
		"cbor: parameter null":     {provision + "cbor", inFormat(t, "cbor", map[string]any{"certificateOwnershipToken": "t", "parameters": map[string]any{"A": nil}}), "InvalidParameters", "value of A"},
		"json: parameters list":    {provision + "json", []byte(`{"certificateOwnershipToken":"t","parameters":[]}`), "InvalidParameters", "parameters"},
		"cbor: nothing":            {csr + "cbor", nil, "InvalidPayload", "map"},
		"cbor: a list":             {csr + "cbor", inFormat(t, "cbor", []int{1}), "InvalidPayload", "map"},
		"cbor: cut":                {csr + "cbor", []byte{0xa1, 0x78}, "InvalidPayload", "CBOR"},
		"cbor: twice":              {csr + "cbor", []byte{0xa2, 0x61, 'a', 0x01, 0x61, 'a', 0x02}, "InvalidPayload", "CBOR"},
		"cbor: number":             {csr + "cbor", inFormat(t, "cbor", map[string]int{"certificateSigningRequest": 1}), "InvalidPayload", "certificateSigningRequest"},
		"cbor: parameter number":   {provision + "cbor", inFormat(t, "cbor", map[string]any{"certificateOwnershipToken": "t", "parameters": map[string]int{"A": 1}}), "InvalidParameters", "parameters"},
		"cbor: deep":               {csr + "cbor", inFormat(t, "cbor", deep), "InvalidPayload", "CBOR"},
		"cbor: many":               {csr + "cbor", inFormat(t, "cbor", many), "InvalidPayload", "CBOR"},
		"cbor: two items":          {csr + "cbor", append(inFormat(t, "cbor", map[string]int{}), 0x01), "InvalidPayload", "CBOR"},
		"cbor: huge map":           {csr + "cbor", []byte{0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "InvalidPayload", "CBOR"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fakeProvisioning{}
			topic, answer := ask(t, provisioner(t, f), c.topic, c.payload)
			if topic != c.topic+"/rejected" {
				t.Fatalf("answered at %s: %q", topic, answer)
			}
			got := decoded(t, c.topic[len(c.topic)-4:], answer)
			text, _ := got["errorMessage"].(string)
			if got["errorCode"] != c.code || !strings.Contains(text, c.text) {
				t.Errorf("got %v", got)
			}
			if len(f.asked) > 0 {
				t.Errorf("it was carried out: %v", f.asked)
			}
		})
	}
}

// device-plane §5.2.
func TestProvisioningErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err    error
		status float64
		code   string
	}{
		"token":       {fault.Wrap(fault.InvalidRequest, provisioning.ErrToken, "x"), 400, "InvalidCertificateOwnershipToken"},
		"parameters":  {fault.Wrap(fault.InvalidRequest, provisioning.ErrParameters, "x"), 400, "InvalidParameters"},
		"a thing":     {fault.New(fault.InvalidRequest, "x"), 400, "InvalidParameters"},
		"hook":        {fault.New(fault.Forbidden, "x"), 403, "AccessDenied"},
		"template":    {fault.New(fault.ResourceNotFound, "x"), 404, "ResourceNotFound"},
		"conflict":    {fault.New(fault.Conflict, "x"), 409, "ResourceConflict"},
		"throttled":   {fault.New(fault.Throttling, "x"), 429, "Throttled"},
		"unavailable": {fault.New(fault.Unavailable, "x"), 500, "InternalError"},
		"ours":        {context.DeadlineExceeded, 500, "InternalError"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topic, answer := ask(t, provisioner(t, &fakeProvisioning{err: c.err}),
				"$aws/provisioning-templates/T/provision/json", []byte(`{"certificateOwnershipToken":"t"}`))
			got := decoded(t, "json", answer)
			if !strings.HasSuffix(topic, "/rejected") || got["statusCode"] != c.status || got["errorCode"] != c.code {
				t.Errorf("%s: %v", topic, got)
			}
			if strings.Contains(got["errorMessage"].(string), "deadline") {
				t.Errorf("the device learns %q", got["errorMessage"])
			}
		})
	}
	_, answer := ask(t, provisioner(t, &fakeProvisioning{err: fault.New(fault.InvalidRequest, "bad request")}),
		"$aws/certificates/create-from-csr/json", []byte(`{"certificateSigningRequest":"x"}`))
	if got := decoded(t, "json", answer); got["errorCode"] != "InvalidPayload" || got["errorMessage"] != "bad request" {
		t.Errorf("a bad request is answered with %v", got)
	}
}

// A client has a few requests in line; others are not kept waiting by it.
func TestProvisioningIsBounded(t *testing.T) {
	t.Parallel()
	f := &fakeProvisioning{block: make(chan struct{})}
	h := provisioner(t, f)
	defer close(f.block)
	rejected := make(chan []byte, 16)
	publish := func(client string) {
		_, ok := h.Reserved(&broker.Publish{
			ClientID: client, Topic: "$aws/certificates/create/json",
			ReplyTo: func(topic string, payload []byte) {
				if strings.HasSuffix(topic, "/rejected") {
					rejected <- payload
				}
			},
		}, func(error, ...broker.Message) {})
		if !ok {
			t.Fatal("not taken in")
		}
	}
	for range provisioningPerClient {
		publish("greedy")
	}
	if len(rejected) > 0 {
		t.Fatal("refused within the bound")
	}
	publish("greedy")
	if got := decoded(t, "json", <-rejected); got["errorCode"] != "Throttled" {
		t.Errorf("got %v", got)
	}
	publish("other")
	if len(rejected) > 0 {
		t.Error("another client is refused")
	}
}

func TestProvisioningTopics(t *testing.T) {
	t.Parallel()
	h := provisioner(t, &fakeProvisioning{})
	for name, want := range map[string]bool{
		"$aws/certificates/create/json":                       true,
		"$aws/certificates/create/cbor":                       true,
		"$aws/certificates/create/json/accepted":              false,
		"$aws/certificates/create/xml":                        false,
		"$aws/certificates/create":                            false,
		"$aws/certificates/create/json/x":                     false,
		"$aws/certificates/provision/json":                    false,
		"$aws/certificates/create-from-csr/cbor":              true,
		"$aws/provisioning-templates/T/provision/json":        true,
		"$aws/provisioning-templates/T/provision/json/x":      false,
		"$aws/provisioning-templates//provision/json":         false,
		"$aws/provisioning-templates/T/create/json":           false,
		"$aws/provisioning-templates/T/provision/cbor":        true,
		"$aws/provisioning-templates/T/U/provision/json":      false,
		"$aws/provisioning-templates/T/provision/json/reject": false,
	} {
		if _, ok := parseProvisioningTopic(name); ok != want {
			t.Errorf("parseProvisioningTopic(%q) = %v", name, ok)
		}
		if h.Private(name) != want {
			t.Errorf("Private(%q) = %v", name, !want)
		}
		if h.CanPublishReserved(name) {
			t.Errorf("a will may go to %q", name)
		}
	}
	for _, filter := range []string{
		"$aws/certificates/create/json/accepted", "$aws/certificates/create/json/+", "$aws/certificates/create-from-csr/cbor/rejected",
		"$aws/provisioning-templates/T/provision/json/accepted", "$aws/provisioning-templates/T/provision/#",
	} {
		if !h.CanSubscribeReserved(filter) {
			t.Errorf("CanSubscribeReserved(%q) = false", filter)
		}
	}
	// By HTTP there is nobody to answer.
	err := h.PublishReserved(t.Context(), &broker.Publish{Topic: "$aws/certificates/create/json"})
	if fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("by HTTP: %v", err)
	}
}

func FuzzProvisioningPayload(f *testing.F) {
	f.Add("json", []byte(`{"certificateOwnershipToken":"t","parameters":{"A":"1"}}`))
	f.Add("cbor", []byte{0xa1, 0x61, 'a', 0x01})
	f.Add("cbor", []byte{0xbf, 0x61, 'a', 0x01, 0xff})
	f.Fuzz(func(t *testing.T, name string, payload []byte) {
		format, ok := formats()[name]
		if !ok {
			return
		}
		var body struct {
			Token      string            `json:"certificateOwnershipToken"`
			Parameters map[string]string `json:"parameters"`
		}
		if err := format.read(payload, &body); err != nil {
			if code := rejectedAnswerOf(err).ErrorCode; code != "InvalidPayload" && code != "InvalidParameters" {
				t.Errorf("%v is answered with %s", err, code)
			}
			return
		}
		again, err := format.write(body)
		if err != nil {
			t.Fatal(err)
		}
		if err := format.read(again, &body); err != nil {
			t.Errorf("what was read cannot be read again: %v", err)
		}
	})
}
