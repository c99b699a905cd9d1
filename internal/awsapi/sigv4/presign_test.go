package sigv4

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestPublishedPresignedExample is the worked GET Object example of the Amazon
// S3 API reference.
func TestPublishedPresignedExample(t *testing.T) {
	t.Parallel()
	r := read(t, "GET /test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"+
		"&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"+
		"&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404 HTTP/1.1\r\nHost: examplebucket.s3.amazonaws.com\r\n\r\n")
	a, err := Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	const secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	signed := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	for at, want := range map[time.Time]error{
		signed: nil, signed.Add(24 * time.Hour): nil, signed.Add(-MaxSkew): nil,
		signed.Add(24*time.Hour + time.Second): ErrSkew, signed.Add(-MaxSkew - time.Second): ErrSkew,
	} {
		if err := a.Verify(r, nil, secret, at); !errors.Is(err, want) {
			t.Errorf("at %v: %v, want %v", at, err, want)
		}
	}
	if err := a.Verify(r, nil, secret+"x", signed); !errors.Is(err, ErrMismatch) {
		t.Errorf("wrong secret: %v", err)
	}
}

// presignedRequest signs GET /mqtt for a host and puts what the client sends
// into a server's form.
func presignedRequest(t *testing.T, host, query string, key Key, at time.Time, expires time.Duration) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/mqtt?"+query, nil)
	r.Host = host
	if err := Presign(r, key, Scope{Region: "r", Service: "iotdevicegateway"}, at, expires); err != nil {
		t.Fatal(err)
	}
	r.RequestURI = r.URL.RequestURI()
	return r
}

// TestTokenIsCoveredOrNot cites trap 2 of the device plane: device SDKs append
// the token after signing; others sign it. Nothing else may be appended.
func TestTokenIsCoveredOrNot(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	const token = "a/b+c=="
	verify := func(r *http.Request) error {
		a, err := Parse(r)
		if err != nil {
			return err
		}
		if a.Token != token {
			t.Errorf("token %q", a.Token)
		}
		return a.Verify(r, nil, "secret", now)
	}
	appended := presignedRequest(t, "h", "", Key{AccessKeyID: "AK", Secret: "secret", Token: token}, now, 0)
	if err := verify(appended); err != nil {
		t.Errorf("appended: %v", err)
	}
	covered := presignedRequest(t, "h", headerToken+"="+url.QueryEscape(token), Key{AccessKeyID: "AK", Secret: "secret"}, now, 0)
	if err := verify(covered); err != nil {
		t.Errorf("covered: %v", err)
	}
	empty := presignedRequest(t, "h", "", Key{AccessKeyID: "AK", Secret: "secret"}, now, 0)
	empty.URL.RawQuery += "&" + headerToken + "="
	if a, err := Parse(empty); err != nil || a.Token != "" || a.Verify(empty, nil, "secret", now) != nil {
		t.Errorf("an empty token: %+v, %v", a, err)
	}
	for name, raw := range map[string]string{
		"another parameter": appended.URL.RawQuery + "&x=1",
		"without a value":   appended.URL.RawQuery + "&x",
		"another token":     strings.Replace(covered.URL.RawQuery, "c%3D%3D", "d", 1),
	} {
		r := appended.Clone(t.Context())
		r.URL.RawQuery = raw
		a, err := Parse(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Verify(r, nil, "secret", now); !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFurtherHosts verifies with names of this server that are not the one sent.
func TestFurtherHosts(t *testing.T) {
	t.Parallel()
	now := time.Now()
	r := presignedRequest(t, "iot.example.com", "", Key{AccessKeyID: "AK", Secret: "secret"}, now, 0)
	a, err := Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "iot.example.com:8443"
	if err := a.Verify(r, nil, "secret", now); !errors.Is(err, ErrMismatch) {
		t.Errorf("another host: %v", err)
	}
	if err := a.Verify(r, nil, "secret", now, "other", "iot.example.com"); err != nil {
		t.Error(err)
	}
}

func TestPresignedRefusals(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	good := presignedRequest(t, "h", "", Key{AccessKeyID: "AK", Secret: "secret"}, now, time.Minute).URL.RawQuery
	sig := good[strings.Index(good, querySignature+"=")+len(querySignature)+1:]
	for name, c := range map[string]struct {
		query string
		want  error
	}{
		"good":             {good, nil},
		"no query":         {"", ErrMissing},
		"other query":      {"a=b&x-amz-signature=1", ErrMissing},
		"no algorithm":     {strings.Replace(good, queryAlgorithm, "X-Amz-A", 1), ErrIncomplete},
		"asymmetric":       {strings.Replace(good, "HMAC", "ECDSA", 1), ErrIncomplete},
		"no credential":    {strings.Replace(good, queryCredential, "X-Amz-C", 1), ErrIncomplete},
		"short credential": {strings.Replace(good, "%2Fr%2F", "%2F", 1), ErrIncomplete},
		"no date":          {strings.Replace(good, headerDate, "X-Amz-D", 1), ErrIncomplete},
		"bad date":         {strings.Replace(good, "T120000Z", "T250000Z", 1), ErrIncomplete},
		"other day":        {strings.Replace(good, "20260801T120000Z", "20260802T120000Z", 1), ErrIncomplete},
		"host unsigned":    {strings.Replace(good, "SignedHeaders=host", "SignedHeaders=date", 1), ErrIncomplete},
		"no signature":     {strings.Replace(good, sig, "", 1), ErrIncomplete},
		"short signature":  {good[:len(good)-2], ErrIncomplete},
		"signature twice":  {good + "&" + querySignature + "=" + sig, ErrIncomplete},
		"credential twice": {good + "&" + queryCredential + "=x", ErrIncomplete},
		"bad escape":       {good + "&" + headerToken + "=%zz", ErrIncomplete},
		"bad other escape": {good + "&x=%zz", ErrIncomplete},
		"expires never":    {strings.Replace(good, "Expires=60", "Expires=0", 1), ErrIncomplete},
		"expires late":     {strings.Replace(good, "Expires=60", "Expires=604801", 1), ErrIncomplete},
		"expires backward": {strings.Replace(good, "Expires=60", "Expires=-60", 1), ErrIncomplete},
		"expires empty":    {strings.Replace(good, "Expires=60", "Expires=", 1), ErrIncomplete},
		"longer":           {strings.Replace(good, "Expires=60", "Expires=61", 1), ErrMismatch},
		"too long":         {good + "&x=" + strings.Repeat("a", maxQuery), ErrIncomplete},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/mqtt", nil)
			r.Host, r.URL.RawQuery = "h", c.query
			a, err := Parse(r)
			if err == nil {
				err = a.Verify(r, nil, "secret", now)
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/mqtt?"+good, nil)
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 x")
	if _, err := Parse(r); !errors.Is(err, ErrIncomplete) {
		t.Errorf("signed twice: %v", err)
	}
}

// FuzzParsePresigned checks that no query makes the parser or the verifier
// panic, and that nothing is accepted that was not signed.
func FuzzParsePresigned(f *testing.F) {
	f.Add("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F20260801%2Fr%2Fiot%2Faws4_request&X-Amz-Date=20260801T120000Z"+
		"&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature="+strings.Repeat("ab", 32)+"&X-Amz-Security-Token=a%2Fb", "h", "h:1")
	f.Add("X-Amz-Signature=&X-Amz-Credential=%2F%2F%2F%2F", "", "")
	f.Add("X%2DAmz-Signature=1&X-Amz-Algorithm=%zz", "h", "[::1]:1")
	f.Fuzz(func(t *testing.T, query, host, other string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/mqtt", nil)
		r.URL.RawQuery, r.Host = query, host
		a, err := Parse(r)
		if err != nil {
			return
		}
		if a.AccessKeyID == "" || a.Region == "" || a.Service == "" || len(a.SignedHeaders) == 0 || a.expires < 0 || a.expires > MaxExpires {
			t.Fatalf("incomplete %+v", a)
		}
		if a.Verify(r, nil, "a secret that nobody knows", a.Time, other) == nil {
			t.Fatal("forged signature accepted")
		}
	})
}

// FuzzPresign signs any query for any host: what was signed is accepted, and not
// with another secret.
func FuzzPresign(f *testing.F) {
	f.Add("a=b&c", "h:1", "tok/en+==", uint32(60))
	f.Add("a=%2F&a=", "[::1]", "", uint32(0))
	f.Fuzz(func(t *testing.T, query, host, token string, expires uint32) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/mqtt", nil)
		r.URL.RawQuery, r.Host = query, host
		if queryIsSigned(query) || strings.Contains(query, "Amz") || strings.Contains(query, "%") || len(query)+3*len(token) > maxQuery/2 || host == "" {
			return
		}
		at := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
		life := time.Duration(expires) * time.Second % MaxExpires
		if err := Presign(r, Key{AccessKeyID: "AK", Secret: "secret", Token: token}, Scope{Region: "r", Service: "iotdevicegateway"}, at, life); err != nil {
			return
		}
		a, err := Parse(r)
		if err != nil {
			t.Fatalf("%q: %v", r.URL.RawQuery, err)
		}
		if err := a.Verify(r, nil, "secret", at); err != nil {
			t.Fatalf("%q: %v", r.URL.RawQuery, err)
		}
		if a.Verify(r, nil, "secreu", at) == nil {
			t.Fatal("another secret is accepted")
		}
	})
}
