package awsapi

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/awsapi/sigv4"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// sessionBook knows one session that is good, one that is over, and fails for a
// third.
type sessionBook struct{}

func (sessionBook) SessionKey(_ context.Context, id, token string) (SessionKey, error) {
	key := SessionKey{
		Secret: "session secret", Account: "000000000042", Began: testNow().Add(-time.Hour), Until: testNow().Add(time.Hour),
		Principal: fleet.Principal{Kind: fleet.PrincipalRole, ID: "AROA:s", ARN: "arn:aws:sts::000000000042:assumed-role/r/s"},
	}
	switch {
	case id != "ASIATEST":
	case token == "good":
		return key, nil
	case token == "over":
		key.Until = testNow()
		return key, nil
	case token == "broken":
		return key, fault.New(fault.Internal, "broken")
	}
	return key, fault.New(fault.Unauthorized, "no")
}

// whoami answers with the caller and the parameters.
type whoami struct {
	Arn   string `xml:"Arn"`
	Began string `xml:"Began"`
	Form  string `xml:"Form"`
}

func newQueryServer(t *testing.T) *Server {
	t.Helper()
	s, _ := newServer(t)
	s.options.Sessions = sessionBook{}
	s.HandleQuery(catalog.STS, "2011-06-15", "GetCallerIdentity", func(_ context.Context, c *QueryCall) (any, error) {
		if c.Form.Get("fail") != "" {
			return nil, fault.New(fault.Code(c.Form.Get("fail")), "failed <so>")
		}
		return whoami{c.Caller.Principal.ARN, c.Caller.SessionBegan.Format(time.RFC3339), c.Form.Encode()}, nil
	})
	return s
}

// form makes a signed call of the query protocol.
func form(t *testing.T, body string, key sigv4.Key) *http.Request {
	t.Helper()
	r := request(t, http.MethodPost, "/", body)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if err := sigv4.Sign(r, []byte(body), key, sigv4.Scope{Region: "r", Service: "sts"}, testNow()); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestQueryProtocol(t *testing.T) {
	t.Parallel()
	s := newQueryServer(t)
	root := sigv4.Key{AccessKeyID: testKey, Secret: testSecret}
	session := func(token string) sigv4.Key {
		return sigv4.Key{AccessKeyID: "ASIATEST", Secret: "session secret", Token: token}
	}
	const call = "Action=GetCallerIdentity&Version=2011-06-15"
	for name, c := range map[string]struct {
		body   string
		key    sigv4.Key
		status int
		says   string
	}{
		"answer":          {call + "&a=%3Cb%3E", root, 200, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>`},
		"parameters":      {call + "&a=%3Cb%3E", root, 200, "<Form>a=%3Cb%3E</Form></GetCallerIdentityResult><ResponseMetadata><RequestId>"},
		"session":         {call, session("good"), 200, "assumed-role/r/s</Arn><Began>" + testNow().Add(-time.Hour).Format(time.RFC3339)},
		"over":            {call, session("over"), 403, "<Code>ExpiredToken</Code>"},
		"unknown token":   {call, session("x"), 403, "<Code>InvalidClientTokenId</Code>"},
		"our failure":     {call, session("broken"), 500, "<Type>Receiver</Type><Code>InternalFailure</Code>"},
		"wrong secret":    {call, sigv4.Key{AccessKeyID: "ASIATEST", Secret: "x", Token: "over"}, 403, "<Code>SignatureDoesNotMatch</Code>"},
		"other version":   {"Action=GetCallerIdentity&Version=2010-01-01", root, 400, "<Code>ValidationError</Code>"},
		"not offered":     {"Action=GetSessionToken", root, 400, "GetSessionToken of sts is not offered"},
		"not an action":   {"Action=Fly", root, 400, "has no operation Fly"},
		"no action":       {"x=y", root, 400, "not offered"},
		"malformed":       {"Action=GetCallerIdentity&a=%zz", root, 400, "not offered"},
		"long":            {call + "&a=" + strings.Repeat("x", maxForm), root, 400, "not offered"},
		"refused":         {call + "&fail=Forbidden", root, 403, "<Code>AccessDenied</Code><Message>failed &lt;so&gt;</Message>"},
		"invalid":         {call + "&fail=InvalidRequest", root, 400, "<Code>ValidationError</Code>"},
		"throttled":       {call + "&fail=Throttling", root, 400, "<Code>Throttling</Code>"},
		"unavailable":     {call + "&fail=ServiceUnavailable", root, 503, "<Code>ServiceUnavailable</Code>"},
		"not modelled":    {call + "&fail=NotOffered", root, 400, "<Code>UnsupportedOperation</Code>"},
		"hidden failure":  {call + "&fail=InternalFailure", root, 500, "<Code>InternalFailure</Code>"},
		"action is twice": {"Action=GetCallerIdentity&Action=AssumeRole", root, 200, "GetCallerIdentityResult"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := do(t, s, form(t, c.body, c.key))
			if got.status != c.status || !strings.Contains(got.body, c.says) || got.header.Get("Content-Type") != "text/xml" {
				t.Errorf("got %d %s, want %d with %s", got.status, got.body, c.status, c.says)
			}
		})
	}
}

func TestQueryByPresignedAddress(t *testing.T) {
	t.Parallel()
	s := newQueryServer(t)
	r := request(t, http.MethodGet, "/?"+url.Values{"Action": {"GetCallerIdentity"}, "Version": {"2011-06-15"}}.Encode(), "")
	key := sigv4.Key{AccessKeyID: "ASIATEST", Secret: "session secret", Token: "good"}
	if err := sigv4.Presign(r, key, sigv4.Scope{Region: "r", Service: "sts"}, testNow(), time.Hour); err != nil {
		t.Fatal(err)
	}
	r.RequestURI = r.URL.RequestURI()
	if got := do(t, s, r); got.status != 200 || !strings.Contains(got.body, "<Form></Form>") || !strings.Contains(got.body, "assumed-role/r/s") {
		t.Errorf("got %+v", got)
	}
}

// TestSessionsOnRestServices takes session tokens for ordinary operations.
func TestSessionsOnRestServices(t *testing.T) {
	t.Parallel()
	s := newQueryServer(t)
	for token, want := range map[string]string{"good": "", "over": "ExpiredTokenException", "x": "UnrecognizedClientException", "broken": "InternalFailureException"} {
		r := sign(t, request(t, http.MethodGet, "/things", ""), sigv4.Key{AccessKeyID: "ASIATEST", Secret: "session secret", Token: token}, testNow())
		name, _ := do(t, s, r).error(t)
		if want == "" {
			want = "UnsupportedOperationException" // proven, and nothing is registered
			if name == "InvalidRequestException" {
				continue
			}
		}
		if name != want {
			t.Errorf("%s: %s, want %s", token, name, want)
		}
	}
}
