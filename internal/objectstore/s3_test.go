package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// s3 plays the part of S3 that is used: GET and HEAD of objects, in path style.
type s3 struct {
	mu      sync.Mutex
	objects map[string]string
	etag    string
	// paths are those that were asked for.
	paths []string
	// fail, unless it is 0, is the status of every answer.
	fail int
	// cut is after how many bytes the body ends without a word; 0 for never.
	cut int
}

func (s *s3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths = append(s.paths, r.URL.EscapedPath())
	failed := func(status int, code string) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
		}
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	text, ok := s.objects[name]
	bucket, _, _ := strings.Cut(name, "/")
	switch {
	case !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=key/"):
		failed(http.StatusForbidden, "AccessDenied")
	case s.fail != 0:
		failed(s.fail, map[int]string{403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}[s.fail])
	case !strings.HasSuffix(bucket, "bulk"):
		failed(http.StatusNotFound, "NoSuchBucket")
	case !ok:
		failed(http.StatusNotFound, "NoSuchKey")
	default:
		w.Header().Set("ETag", `"`+s.etag+`"`)
		if s.cut > 0 && r.Method == http.MethodGet {
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
			w.Header().Set("Last-Modified", time.Unix(1, 0).UTC().Format(http.TimeFormat))
			_, _ = io.WriteString(w, text[:s.cut])
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", time.Unix(1, 0), strings.NewReader(text))
	}
}

func (s *s3) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func newS3(t *testing.T) (*S3, *s3) {
	t.Helper()
	served := &s3{objects: map[string]string{}, etag: "e1"}
	server := httptest.NewServer(served)
	t.Cleanup(server.Close)
	client, err := NewS3(S3Options{URL: server.URL, Region: "us-east-1", AccessKeyID: "key", Secret: "secret", Default: general})
	if err != nil {
		t.Fatal(err)
	}
	return client, served
}

// Objects of one's own buckets are found; whose a bucket is stands in its name.
func TestS3(t *testing.T) {
	t.Parallel()
	client, served := newS3(t)
	long := strings.Repeat("0123456789", 100_000)
	served.objects = map[string]string{
		"bulk/a.json": "ours", "bulk/deep/er/b.json": "deep", "bulk/with space & ü+.json": "odd", "bulk/empty": "", "bulk/long": long,
		"111111111111-bulk/a.json": "theirs", "000000000000-bulk/a.json": "also ours",
	}
	for _, c := range []struct {
		account           fleet.Account
		bucket, key, want string
	}{
		{general, "bulk", "a.json", "ours"},
		{general, "bulk", "deep/er/b.json", "deep"},
		{general, "bulk", "with space & ü+.json", "odd"},
		{general, "bulk", "empty", ""},
		{general, "bulk", "long", long},
		{general, "000000000000-bulk", "a.json", "also ours"},
		{other, "111111111111-bulk", "a.json", "theirs"},
	} {
		if got := content(t, client, c.account, c.bucket, c.key); got != c.want {
			t.Errorf("%s %s/%s is %.20q, want %.20q", c.account, c.bucket, c.key, got, c.want)
		}
	}
	served.paths = nil
	for _, c := range []struct {
		account     fleet.Account
		bucket, key string
		asked       bool
	}{
		{general, "bulk", "none", true},
		{general, "none", "a.json", true},
		{general, "111111111111-bulk", "a.json", false},
		{other, "bulk", "a.json", false},
		{other, "000000000000-bulk", "a.json", false},
		{other, "111111111111", "a.json", false},
		{other, "1111111111111-bulk", "a.json", false},
		{general, "BULK!", "a.json", false},
		{general, "bulk/deep", "er/b.json", false},
		{general, "..", "a.json", false},
		{general, "", "a.json", false},
		{general, "bulk", "", false},
		{general, "bulk", "../111111111111-bulk/a.json", false},
		{general, "bulk", "deep/../../111111111111-bulk/a.json", false},
		{general, "bulk", "./a.json", false},
		{general, "bulk", "..", false},
		{general, "bulk", "\xff", false},
		{other, "111111111111-bulk", "../bulk/a.json", false},
	} {
		served.set(func() { served.paths = nil })
		object, err := client.Open(t.Context(), c.account, c.bucket, c.key)
		if err == nil {
			_ = object.Close()
		}
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s %s/%s: %v", c.account, c.bucket, c.key, err)
		}
		served.set(func() {
			if asked := len(served.paths) > 0; asked != c.asked {
				t.Errorf("%s %s/%s: the store is asked for %v", c.account, c.bucket, c.key, served.paths)
			}
		})
	}
}

// Trouble is told from what does not exist, and soon.
func TestS3Trouble(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusForbidden, http.StatusInternalServerError, http.StatusServiceUnavailable} {
		client, served := newS3(t)
		served.objects["bulk/a"] = "text"
		served.set(func() { served.fail = status })
		begun := time.Now()
		_, err := client.Open(t.Context(), general, "bulk", "a")
		if err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%d: %v", status, err)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%d: it takes %v", status, took)
		}
	}
	// Nobody is there.
	client, err := NewS3(S3Options{URL: "http://127.0.0.1:1", Region: "us-east-1", AccessKeyID: "key", Secret: "secret", Default: general})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	_, err = client.Open(t.Context(), general, "bulk", "a")
	if err == nil || errors.Is(err, ErrNotFound) || time.Since(begun) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Open(ctx, general, "bulk", "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A body that ends too early is an error, not an end.
func TestS3CutBody(t *testing.T) {
	t.Parallel()
	client, served := newS3(t)
	served.objects["bulk/a"] = strings.Repeat("x", 100_000)
	object, err := client.Open(t.Context(), general, "bulk", "a")
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	served.set(func() { served.cut = 5000 })
	text, err := io.ReadAll(object)
	served.set(func() { served.cut = 0 })
	if err == nil && len(text) != 100_000 {
		t.Errorf("%d bytes, and no error", len(text))
	}
}

// The version is another one when the object is.
func TestS3Version(t *testing.T) {
	t.Parallel()
	client, served := newS3(t)
	served.objects["bulk/a"] = "1"
	var versions []string
	for _, etag := range []string{"e1", "e2"} {
		served.set(func() { served.etag = etag })
		object, err := client.Open(t.Context(), general, "bulk", "a")
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, object.Version)
		_ = object.Close()
	}
	if versions[0] == "" || versions[0] == versions[1] {
		t.Errorf("versions %q", versions)
	}
}

// An object that is written again while it is read does not go on with the new one.
func TestS3ChangedWhileRead(t *testing.T) {
	t.Parallel()
	client, served := newS3(t)
	served.objects["bulk/a"] = strings.Repeat("old\n", 1000)
	object, err := client.Open(t.Context(), general, "bulk", "a")
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	served.set(func() { served.objects["bulk/a"], served.etag = strings.Repeat("new\n", 1000), "e2" })
	text, err := io.ReadAll(object)
	if err == nil || strings.Contains(string(text), "new") {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

func TestNewS3(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "empty.pem", "nothing")
	for name, o := range map[string]S3Options{
		"no address":        {URL: "http://\x00"},
		"no authorities":    {URL: "https://localhost", CAFile: dir + "/none.pem"},
		"empty authorities": {URL: "https://localhost", CAFile: dir + "/empty.pem"},
	} {
		if _, err := NewS3(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
