package sigv4

import (
	"bufio"
	"bytes"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const (
	exampleKey    = "AKIDEXAMPLE"
	exampleSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

// TestPublishedExample is the worked IAM ListUsers example of the AWS General
// Reference.
func TestPublishedExample(t *testing.T) {
	t.Parallel()
	raw := "GET /?Action=ListUsers&Version=2010-05-08 HTTP/1.1\r\nHost: iam.amazonaws.com\r\n" +
		"Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\nX-Amz-Date: 20150830T123600Z\r\n" +
		"Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, " +
		"SignedHeaders=content-type;host;x-amz-date, Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7\r\n\r\n"
	r := read(t, raw)
	a, err := Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	if a.AccessKeyID != exampleKey || a.Region != "us-east-1" || a.Service != "iam" {
		t.Errorf("parsed %+v", a)
	}
	now := time.Date(2015, 8, 30, 12, 40, 0, 0, time.UTC)
	if err := a.Verify(r, nil, exampleSecret, now); err != nil {
		t.Error(err)
	}
	if err := a.Verify(r, nil, exampleSecret+"x", now); !errors.Is(err, ErrMismatch) {
		t.Errorf("wrong secret: %v", err)
	}
}

// TestRoundTrip signs as a client does, sends over the wire form, and verifies.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 8, 1, 0, 0, 30, 0, time.UTC)
	for name, c := range map[string]struct{ service, target, body string }{
		"plain":             {"iot", "/things/T", ""},
		"escaped label":     {"iot", "/attached-policies/arn%3Aaws%3Aiot%3A%2FG1?recursive=true", "{}"},
		"unescaped":         {"iotdata", "/things/a:b/shadow?name=c", `{"state":{}}`},
		"query order":       {"iot", "/things?z=1&a=2&a=1&b&a%20b=%2F+x", ""},
		"dollar":            {"iot-jobs-data", "/things/T/jobs/$next", "{}"},
		"doubled slashes":   {"iotdata", "/topics/a//b", "x"},
		"s3 is single":      {"s3", "/bucket/a%20b", "x"},
		"name before value": {"iot", "/x?a=1&a-=0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:8080"+c.target, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			out.Header.Set("Content-Type", "application/json")
			out.Header.Add("X-Amz-Two", "  a   b ")
			out.Header.Add("X-Amz-Two", "c")
			if err := Sign(out, []byte(c.body), Key{AccessKeyID: "AK", Secret: "secret", Token: "tok"}, Scope{Region: "eu-local-1", Service: c.service}, now); err != nil {
				t.Fatal(err)
			}
			var sent bytes.Buffer
			if err := out.Write(&sent); err != nil {
				t.Fatal(err)
			}
			in := read(t, sent.String())
			a, err := Parse(in)
			if err != nil {
				t.Fatal(err)
			}
			if a.Token != "tok" {
				t.Errorf("token %q", a.Token)
			}
			if err := a.Verify(in, []byte(c.body), "secret", now.Add(MaxSkew)); err != nil {
				t.Error(err)
			}
			if err := a.Verify(in, []byte(c.body+" "), "secret", now); !errors.Is(err, ErrMismatch) {
				t.Errorf("changed body: %v", err)
			}
			in.Host = "127.0.0.1"
			if err := a.Verify(in, []byte(c.body), "secret", now); !errors.Is(err, ErrMismatch) {
				t.Errorf("changed host: %v", err)
			}
		})
	}
}

// TestNormalizedPath accepts what botocore signs when a path has empty or dot
// segments: the path without them.
func TestNormalizedPath(t *testing.T) {
	t.Parallel()
	now := time.Now()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/topics/a/b", nil)
	if err := Sign(r, nil, Key{AccessKeyID: "AK", Secret: "s"}, Scope{Region: "r", Service: "iotdata"}, now); err != nil {
		t.Fatal(err)
	}
	r.RequestURI = "/topics//a/./c/../b"
	a, err := Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(r, nil, "s", now); err != nil {
		t.Error(err)
	}
	r.RequestURI = "/topics/a/b/"
	if err := a.Verify(r, nil, "s", now); !errors.Is(err, ErrMismatch) {
		t.Errorf("a final slash was dropped: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	const sig = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
	good := "AWS4-HMAC-SHA256 Credential=AK/20260801/r/iot/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + sig
	for name, c := range map[string]struct {
		auth, date string
		extra      http.Header
		now        time.Time
		want       error
	}{
		"none":               {auth: "", want: ErrMissing},
		"basic":              {auth: "Basic eDp5", want: ErrIncomplete},
		"asymmetric":         {auth: strings.Replace(good, "HMAC", "ECDSA", 1), want: ErrIncomplete},
		"no signature":       {auth: strings.Split(good, ", Signature")[0], want: ErrIncomplete},
		"short signature":    {auth: good[:len(good)-2], want: ErrIncomplete},
		"twice":              {auth: good + ", Signature=" + sig, want: ErrIncomplete},
		"host unsigned":      {auth: strings.Replace(good, "host;", "", 1), want: ErrIncomplete},
		"upper case":         {auth: strings.Replace(good, "host;", "Host;", 1), want: ErrIncomplete},
		"credential parts":   {auth: strings.Replace(good, "/r/iot", "/iot", 1), want: ErrIncomplete},
		"empty region":       {auth: strings.Replace(good, "/r/", "//", 1), want: ErrIncomplete},
		"too many headers":   {auth: strings.Replace(good, "host;", "host;"+strings.Repeat("a;", 70), 1), want: ErrIncomplete},
		"too long":           {auth: good + strings.Repeat(" ", 9000), want: ErrIncomplete},
		"no date":            {auth: good, date: "-", want: ErrIncomplete},
		"other day":          {auth: good, date: "20260802T000000Z", want: ErrIncomplete},
		"bad date":           {auth: good, date: "20260801T256000Z", want: ErrIncomplete},
		"late":               {auth: good, now: now.Add(MaxSkew + time.Second), want: ErrSkew},
		"early":              {auth: good, now: now.Add(-MaxSkew - time.Second), want: ErrSkew},
		"forged":             {auth: good, want: ErrMismatch},
		"wrong hash":         {auth: strings.Replace(good, "host;", "host;x-amz-content-sha256;", 1), extra: http.Header{headerHash: {sig}}, want: ErrMismatch},
		"unsigned payload":   {auth: strings.Replace(good, "host;", "host;x-amz-content-sha256;", 1), extra: http.Header{headerHash: {"UNSIGNED-PAYLOAD"}}, want: ErrIncomplete},
		"streaming payload":  {auth: strings.Replace(good, "host;", "host;x-amz-content-sha256;", 1), extra: http.Header{headerHash: {"STREAMING-UNSIGNED-PAYLOAD-TRAILER"}}, want: ErrIncomplete},
		"added principal":    {auth: good, extra: http.Header{"X-Amzn-Principal": {"arn"}}, want: ErrIncomplete},
		"trace of a proxy":   {auth: good, extra: http.Header{"X-Amzn-Trace-Id": {"Root=1"}}, want: ErrMismatch},
		"two of them":        {auth: good, extra: http.Header{"Authorization": {good}}, want: ErrIncomplete},
		"added x-amz header": {auth: good, extra: http.Header{"X-Amz-Tagging": {"a=b"}}, want: ErrIncomplete},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/things", nil)
			maps.Copy(r.Header, c.extra)
			if c.auth != "" {
				r.Header.Add("Authorization", c.auth)
			}
			switch c.date {
			case "":
				r.Header.Set(headerDate, now.Format(timeLayout))
			case "-":
			default:
				r.Header.Set(headerDate, c.date)
			}
			at := c.now
			if at.IsZero() {
				at = now
			}
			a, err := Parse(r)
			if err == nil {
				err = a.Verify(r, nil, "secret", at)
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestDateHeaderWillDo(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AK/20260801/r/iot/aws4_request,SignedHeaders=date;host,Signature="+strings.Repeat("00", 32))
	r.Header.Set("Date", "Sat, 01 Aug 2026 12:00:00 GMT")
	a, err := Parse(r)
	if err != nil || a.Time.Hour() != 12 {
		t.Errorf("got %v, %v", a, err)
	}
}

// FuzzParse checks that no header makes the parser or the verifier panic, and
// that nothing is accepted that was not signed.
func FuzzParse(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AK/20260801/r/iot/aws4_request, SignedHeaders=host, Signature="+strings.Repeat("ab", 32), "20260801T120000Z", "/a%2", "a=%zz&b")
	f.Add("AWS4-HMAC-SHA256 ,=,", "", "//", "&&=")
	f.Add("AWS4-HMAC-SHA256 Credential=/////", "20260801T120000Z", "/../..", "a+b=%20")
	f.Fuzz(func(t *testing.T, auth, date, path, query string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.RequestURI, r.URL.RawQuery = path, query
		r.Header["Authorization"] = []string{auth}
		r.Header[headerDate] = []string{date}
		a, err := Parse(r)
		if err != nil {
			return
		}
		if a.AccessKeyID == "" || a.Region == "" || a.Service == "" || len(a.SignedHeaders) == 0 {
			t.Fatalf("incomplete %+v", a)
		}
		if a.Verify(r, nil, "a secret that nobody knows", a.Time) == nil {
			t.Fatal("forged signature accepted")
		}
	})
}

// read parses the wire form of a request as a server does.
func read(t *testing.T, raw string) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}
