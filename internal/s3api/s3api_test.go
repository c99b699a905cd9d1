package s3api

import (
	"context"
	"encoding/xml"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/objectstore"
)

// front is a front end whose callers name their account in a header, and may do
// all but what touches a key with "denied" in it.
func front(t *testing.T) (h *Handler, dir string) {
	t.Helper()
	dir = t.TempDir()
	return New(Options{
		Store:  &objectstore.Local{Dir: dir, Default: "000000000000", MaxBytes: 100},
		Region: "eu-test-1",
		Prove: func(r *http.Request) (*http.Request, fleet.Account, error) {
			account := r.Header.Get("Account")
			if account == "" {
				return nil, "", fault.New(fault.Unauthorized, "nobody")
			}
			return r, fleet.Account(account), nil
		},
		Permit: func(_ context.Context, action, resource string) error {
			bucketOnly := strings.HasSuffix(action, "Object") && !strings.Contains(strings.TrimPrefix(resource, "arn:aws:s3:::"), "/")
			if strings.Contains(resource, "denied") || bucketOnly {
				return fault.New(fault.Forbidden, "not allowed")
			}
			return nil
		},
		Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	}), dir
}

// send makes a request of the default account, with headers in pairs.
func send(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Account", "000000000000")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Each refusal has S3's status and code, and leaves nothing.
func TestRefusals(t *testing.T) {
	t.Parallel()
	h, dir := front(t)
	if w := send(h, http.MethodPut, "/bulk", ""); w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body)
	}
	for _, c := range []struct {
		method, target, body string
		headers              []string
		status               int
		code                 string
	}{
		{"PUT", "/bulk/a", "x", []string{"Account", ""}, 403, "AccessDenied"},
		{"PUT", "/bulk/denied", "x", nil, 403, "AccessDenied"},
		{"GET", "/bulk/denied", "", nil, 403, "AccessDenied"},
		{"PUT", "/bulk/a", "x", []string{"X-Amz-Content-Sha256", strings.Repeat("0", 64)}, 400, "BadDigest"},
		{"PUT", "/bulk/a", "x", []string{"X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}, 501, "NotImplemented"},
		{"PUT", "/bulk/a", strings.Repeat("x", 101), nil, 400, "EntityTooLarge"},
		{"PUT", "/bulk/a", "x", []string{"Content-Encoding", "gzip"}, 501, "NotImplemented"},
		{"PUT", "/bulk/a", "x", []string{"X-Amz-Meta-A", "b"}, 501, "NotImplemented"},
		{"PUT", "/bulk/a", "x", []string{"X-Amz-Acl", "public-read"}, 501, "NotImplemented"},
		{"PUT", "/bulk/a", "x", []string{"X-Amz-Copy-Source", "/bulk/b"}, 501, "NotImplemented"},
		{"PUT", "/bulk/a", "x", []string{"If-None-Match", "*"}, 501, "NotImplemented"},
		{"PUT", "/bulk/a?tagging", "x", nil, 501, "NotImplemented"},
		{"PUT", "/bulk?versioning", "", nil, 501, "NotImplemented"},
		{"PATCH", "/bulk/a", "", nil, 501, "NotImplemented"},
		{"PUT", "/bulk/a/../b", "x", nil, 400, "InvalidArgument"},
		{"PUT", "/none/a", "x", nil, 404, "NoSuchBucket"},
		{"GET", "/bulk/a", "", nil, 404, "NoSuchKey"},
		{"GET", "/bulk?list-type=2&max-keys=-1", "", nil, 400, "InvalidArgument"},
		{"GET", "/bulk?list-type=2&continuation-token=x", "", nil, 400, "InvalidArgument"},
		{"GET", "/bulk?encoding-type=xml", "", nil, 400, "InvalidArgument"},
		{"GET", "/bulk", "", []string{"Account", "111111111111"}, 404, "NoSuchBucket"},
		{"PUT", "/key", "", []string{"Host", "bulk.iot.example.net:8443"}, 400, "InvalidRequest"},
		{"PUT", "/key", "text", nil, 400, "MalformedXML"},
		{"PUT", "/key", "", []string{"X-Amz-Meta-A", "b"}, 501, "NotImplemented"},
		{"PUT", "/bulk", "", nil, 409, "BucketAlreadyOwnedByYou"},
		{"PUT", "/bulk/a?partNumber=0&uploadId=x", "x", nil, 400, "InvalidArgument"},
		{"PUT", "/bulk/a?partNumber=1&uploadId=x", "x", nil, 404, "NoSuchUpload"},
	} {
		w := send(h, c.method, c.target, c.body, c.headers...)
		var got errorBody
		err := xml.Unmarshal(w.Body.Bytes(), &got)
		if w.Code != c.status || err != nil || got.Code != c.code || got.RequestID == "" {
			t.Errorf("%s %s %v: %d %s %v, want %d %s", c.method, c.target, c.headers, w.Code, w.Body, err, c.status, c.code)
		}
	}
	if w := send(h, http.MethodHead, "/bulk/a", ""); w.Code != http.StatusNotFound || w.Body.Len() != 0 {
		t.Errorf("HEAD: %d %s", w.Code, w.Body)
	}
	if left, err := os.ReadDir(dir + "/bulk"); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	elsewhere := *h
	elsewhere.o.Store = nil
	if w := send(&elsewhere, http.MethodGet, "/bulk", ""); w.Code != http.StatusNotImplemented || !strings.Contains(w.Body.String(), "objects.s3-url") {
		t.Errorf("elsewhere: %d %s", w.Code, w.Body)
	}
}

// Pages have every key once, whatever their size, also keys that XML cannot carry.
func TestPages(t *testing.T) {
	t.Parallel()
	h, _ := front(t)
	send(h, http.MethodPut, "/bulk", "")
	for _, key := range []string{"a", "b%01", "b%02", "d/1", "d/2", "e"} {
		if w := send(h, http.MethodPut, "/bulk/"+key, "x"); w.Code != http.StatusOK {
			t.Fatal(key, w.Code, w.Body)
		}
	}
	for query, want := range map[string]string{
		"": "a b%01 b%02 d/1 d/2 e", "&delimiter=/": "a b%01 b%02 e d/", "&prefix=d/": "d/1 d/2", "&prefix=d/&delimiter=/": "d/1 d/2", "&start-after=c": "d/1 d/2 e",
	} {
		for _, size := range []string{"1", "2", "1000"} {
			var keys, prefixes []string
			token := ""
			for range 10 {
				w := send(h, http.MethodGet, "/bulk?list-type=2&encoding-type=url&max-keys="+size+query+"&continuation-token="+token, "")
				var page objectList
				if err := xml.Unmarshal(w.Body.Bytes(), &page); err != nil { //nolint:musttag // names are as in the document
					t.Fatal(w.Code, w.Body, err)
				}
				for _, o := range page.Contents {
					keys = append(keys, o.Key)
				}
				for _, p := range page.CommonPrefixes {
					prefixes = append(prefixes, p.Prefix)
				}
				if token = page.NextContinuationToken; !page.IsTruncated {
					break
				}
			}
			if got := strings.Join(append(keys, prefixes...), " "); got != want {
				t.Errorf("%s by %s: %q, want %q", query, size, got, want)
			}
		}
	}
	if w := send(h, http.MethodGet, "/bulk?max-keys=0", ""); strings.Contains(w.Body.String(), "<Key>") || !strings.Contains(w.Body.String(), "<IsTruncated>false") {
		t.Errorf("none: %s", w.Body)
	}
}

// Each object of many is deleted by a permission of its own.
func TestDeleteObjects(t *testing.T) {
	t.Parallel()
	h, _ := front(t)
	send(h, http.MethodPut, "/bulk", "")
	send(h, http.MethodPut, "/bulk/a", "x")
	w := send(h, http.MethodPost, "/bulk?delete", "<Delete><Object><Key>a</Key></Object><Object><Key>denied</Key></Object></Delete>")
	if text := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(text, "<Deleted><Key>a</Key></Deleted>") || !strings.Contains(text, "<Error><Key>denied</Key><Code>AccessDenied</Code>") {
		t.Errorf("%d %s", w.Code, text)
	}
	if w := send(h, http.MethodGet, "/bulk/a", ""); w.Code != http.StatusNotFound {
		t.Errorf("it is there: %d", w.Code)
	}
}

// Ranges and conditions are as HTTP has them.
func TestGet(t *testing.T) {
	t.Parallel()
	h, _ := front(t)
	send(h, http.MethodPut, "/bulk", "")
	tag := send(h, http.MethodPut, "/bulk/a", "hello").Header().Get("Etag")
	for _, c := range []struct {
		header, value string
		status        int
		text          string
	}{
		{"Range", "bytes=1-3", 206, "ell"},
		{"Range", "bytes=-2", 206, "lo"},
		{"If-None-Match", tag, 304, ""},
		{"If-Match", tag, 200, "hello"},
		{"If-Match", `"x"`, 412, ""},
	} {
		if w := send(h, http.MethodGet, "/bulk/a", "", c.header, c.value); w.Code != c.status || w.Body.String() != c.text {
			t.Errorf("%s %s: %d %q", c.header, c.value, w.Code, w.Body)
		}
	}
}
