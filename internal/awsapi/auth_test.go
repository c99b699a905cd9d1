package awsapi

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotdatawire"
	"github.com/muster-iot/muster/internal/awsapi/sigv4"
	"github.com/muster-iot/muster/internal/fault"
)

// sign signs with the given key at the given time.
func sign(t *testing.T, r *http.Request, key sigv4.Key, at time.Time) *http.Request {
	t.Helper()
	if err := sigv4.Sign(r, nil, key, sigv4.Scope{Region: "r", Service: "iot"}, at); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWhoIsRefused(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	good := sigv4.Key{AccessKeyID: testKey, Secret: testSecret}
	get := func() *http.Request { return request(t, http.MethodGet, "/things", "") }
	broken := get()
	broken.Header.Set("Authorization", "Bearer x")
	for name, c := range map[string]struct {
		r      *http.Request
		status int
		want   string
	}{
		"unsigned":      {get(), 403, "MissingAuthenticationTokenException"},
		"other scheme":  {broken, 400, "IncompleteSignatureException"},
		"unknown key":   {sign(t, get(), sigv4.Key{AccessKeyID: "AKNONE", Secret: "x"}, testNow()), 403, "UnrecognizedClientException"},
		"session token": {sign(t, get(), sigv4.Key{AccessKeyID: testKey, Secret: testSecret, Token: "t"}, testNow()), 403, "UnrecognizedClientException"},
		"wrong secret":  {sign(t, get(), sigv4.Key{AccessKeyID: testKey, Secret: "x"}, testNow()), 403, "InvalidSignatureException"},
		"slow clock":    {sign(t, get(), good, testNow().Add(-6*time.Minute)), 403, "RequestTimeTooSkewed"},
		"our failure":   {sign(t, get(), sigv4.Key{AccessKeyID: "AKBROKEN", Secret: "x"}, testNow()), 500, "InternalFailureException"},
		"storage away":  {sign(t, get(), sigv4.Key{AccessKeyID: "AKAWAY", Secret: "x"}, testNow()), 503, "ServiceUnavailableException"},
		"good":          {sign(t, get(), good, testNow().Add(-4*time.Minute)), 400, "InvalidRequestException"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := do(t, s, c.r)
			if exception, _ := got.error(t); got.status != c.status || exception != c.want {
				t.Errorf("got %d %s, want %d %s: %s", got.status, exception, c.status, c.want, got.body)
			}
		})
	}
}

// Front ends beside this one tell a stranger from a failure of ours.
func TestAuthenticateTellsWhoseFaultItIs(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	for key, want := range map[string]fault.Code{"AKNONE": fault.Unauthorized, "AKBROKEN": fault.Unavailable, "AKAWAY": fault.Unavailable} {
		r := sign(t, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ops/v1/doctor", nil), sigv4.Key{AccessKeyID: key, Secret: "x"}, testNow())
		if _, err := s.Authenticate(r, nil); fault.CodeOf(err) != want {
			t.Errorf("%s: %v, want %s", key, err, want)
		}
	}
}

// TestNothingIsSaidBeforeProof checks that an unsigned caller cannot tell
// operations apart.
func TestNothingIsSaidBeforeProof(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	for _, target := range []string{"/things", "/nothing/here", "/things/T/shadow"} {
		got := do(t, s, request(t, http.MethodGet, target, ""))
		if name, _ := got.error(t); name != "MissingAuthenticationTokenException" {
			t.Errorf("%s: %+v", target, got)
		}
	}
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	Handle(s, catalog.IoTData, "GetThingShadow", All[iotdatawire.GetThingShadowInput],
		func(_ context.Context, call *Call, _ *iotdatawire.GetThingShadowInput) (*iotdatawire.GetThingShadowOutput, error) {
			return &iotdatawire.GetThingShadowOutput{Payload: []byte(call.Caller.Principal.ID)}, nil
		})
	call := func(target, subject, sni string) answer {
		r := request(t, http.MethodGet, target, "")
		r.TLS = &tls.ConnectionState{ServerName: sni, PeerCertificates: []*x509.Certificate{{Subject: pkix.Name{CommonName: subject}}}}
		return do(t, s, r)
	}
	if got := call("https://x.example:8443/things/T/shadow", "device", "a.example"); got.body != "a.example" {
		t.Errorf("server name: %+v", got)
	}
	if got := call("https://x.example:8443/things/T/shadow", "device", ""); got.body != "x.example" {
		t.Errorf("host instead of server name: %+v", got)
	}
	if got := call("https://x.example:8443/things/T/shadow", "stranger", ""); got.status != http.StatusForbidden {
		t.Errorf("stranger: %+v", got)
	}
	// fleet-management §0: mutual TLS without signature means the data plane, so
	// a path of both planes is the jobs data plane's.
	got := call("https://x.example:8443/things/T/jobs", "device", "")
	if _, message := got.error(t); !strings.Contains(message, "GetPendingJobExecutions") {
		t.Errorf("jobs: %+v", got)
	}
	got = call("https://iot.eu-local-1.example/things", "device", "")
	if name, _ := got.error(t); name != "MissingAuthenticationTokenException" {
		t.Errorf("control plane by certificate: %+v", got)
	}
}

// TestSignaturesStayWithTheirService sends to IoT's endpoints what was signed
// for a service whose bodies may be unsigned, and for a foreign one.
func TestSignaturesStayWithTheirService(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	for _, service := range []string{"s3", "sts", "dynamodb"} {
		for _, host := range []string{"https://iot.eu-local-1.example", "https://abc-ats.iot.eu-local-1.example"} {
			got := do(t, s, signed(t, service, http.MethodPost, host+"/topics/a", "x"))
			if strings.Contains(got.body, "Publish") || got.status != http.StatusBadRequest && got.status != http.StatusNotFound {
				t.Errorf("%s at %s: %+v", service, host, got)
			}
		}
		if _, err := s.Authenticate(signed(t, service, http.MethodPost, "http://127.0.0.1/ops/v1/backup", "{}"), []byte("{}")); fault.CodeOf(err) != fault.Unauthorized {
			t.Errorf("%s beside the operations: %v", service, err)
		}
	}
	if _, err := s.Authenticate(signed(t, "iot", http.MethodPost, "http://127.0.0.1/ops/v1/backup", "{}"), []byte("{}")); err != nil {
		t.Error(err)
	}
}

// A head proves its sender by the hash that it states, and no less than the
// whole request does.
func TestAuthenticateHead(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	const target = "http://127.0.0.1/ops/v1/x"
	sum := sha256.Sum256([]byte("list"))
	stated := request(t, http.MethodPost, target, "list")
	stated.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
	key := sigv4.Key{AccessKeyID: testKey, Secret: testSecret}
	if err := sigv4.Sign(stated, []byte("list"), key, sigv4.Scope{Region: "r", Service: "iot"}, testNow()); err != nil {
		t.Fatal(err)
	}
	if err := s.AuthenticateHead(stated); err != nil {
		t.Error(err)
	}
	if _, err := s.Authenticate(stated, []byte("list")); err != nil {
		t.Errorf("with its body: %v", err)
	}
	if _, err := s.Authenticate(stated, []byte("other")); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("with another body: %v", err)
	}
	if err := s.AuthenticateHead(signed(t, "iot", http.MethodPost, target, "list")); fault.CodeOf(err) != fault.Unauthorized || !strings.Contains(err.Error(), "x-amz-content-sha256") {
		t.Errorf("without a hash: %v", err)
	}
	forged := stated.Clone(t.Context())
	forged.Header.Set("X-Amz-Content-Sha256", strings.Repeat("0", 64))
	if err := s.AuthenticateHead(forged); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("with another hash: %v", err)
	}
	unsigned := httptest.NewRequestWithContext(t.Context(), http.MethodPost, target, nil)
	if err := s.AuthenticateHead(unsigned); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("unsigned: %v", err)
	}
}

// unread fails the test when somebody reads it.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body of an unproven caller was read")
	return 0, io.EOF
}

// TestNobodyReadsAnUnsignedBody refuses before a stranger can send megabytes.
func TestNobodyReadsAnUnsignedBody(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/topics/a", unread{t})
	r.ContentLength = 1000
	if got := do(t, s, r); got.status != http.StatusForbidden {
		t.Errorf("got %+v", got)
	}
}

// TestStrangersDoNotFloodTheLog refuses more often than the log has lines for.
func TestStrangersDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	s, logged := newServer(t)
	for range 10 * strangerLines {
		do(t, s, request(t, http.MethodGet, "/things", ""))
	}
	lines := strings.Count(logged.String(), "\n")
	if lines != strangerLines || !strings.Contains(logged.String(), "source_address=192.0.2.1") {
		t.Errorf("%d lines, want %d, with the address", lines, strangerLines)
	}
	do(t, s, sign(t, request(t, http.MethodGet, "/nothing", ""), sigv4.Key{AccessKeyID: testKey, Secret: testSecret}, testNow()))
	if strings.Count(logged.String(), "\n") != lines+1 {
		t.Error("a proven caller shares the strangers' lines")
	}
}
