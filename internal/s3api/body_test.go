package s3api

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/awsapi/sigv4"
)

// sumOf is a checksum as headers have it.
func sumOf(name, text string) string {
	digest := checksums()[name]()
	digest.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(digest.Sum(nil))
}

// put is a request with a body and headers in pairs.
func put(body string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPut, "/bucket/key", strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// inChunks is a body in the transfer form, with a trailer.
func inChunks(trailer string, chunks ...string) string {
	var b strings.Builder
	for _, c := range append(chunks, "") {
		fmt.Fprintf(&b, "%x\r\n%s", len(c), c)
		if c != "" {
			b.WriteString("\r\n")
		}
	}
	return b.String() + trailer + "\r\n\r\n"
}

// codeOf reads a whole body and returns the code of what is wrong with it.
func codeOf(t *testing.T, r *http.Request) (text, code string) {
	t.Helper()
	b, err := openBody(r)
	if err == nil {
		var all []byte
		all, err = io.ReadAll(b)
		text = string(all)
	}
	if err == nil {
		return text, ""
	}
	p, ok := errors.AsType[*problem](err)
	if !ok {
		t.Fatalf("error %v has no code", err)
	}
	return text, p.code
}

func TestBodies(t *testing.T) {
	t.Parallel()
	sum, digest := sha256.Sum256([]byte("hello")), md5.Sum([]byte("hello"))
	hash, md := hex.EncodeToString(sum[:]), base64.StdEncoding.EncodeToString(digest[:])
	const stated, chunked, length = "X-Amz-Content-Sha256", sigv4.UnsignedTrailer, "X-Amz-Decoded-Content-Length"
	type item struct {
		r    *http.Request
		code string
	}
	short := put("hello")
	short.ContentLength = 6
	unknown := put("hello")
	unknown.ContentLength = -1
	cases := map[string]item{
		"plain":                    {put("hello"), ""},
		"unsigned":                 {put("hello", stated, "UNSIGNED-PAYLOAD"), ""},
		"its hash":                 {put("hello", stated, hash), ""},
		"another hash":             {put("hullo", stated, hash), "BadDigest"},
		"its MD5":                  {put("hello", "Content-Md5", md), ""},
		"another MD5":              {put("hullo", "Content-Md5", md), "BadDigest"},
		"no MD5":                   {put("hello", "Content-Md5", "x"), "InvalidDigest"},
		"no checksum":              {put("hello", "X-Amz-Checksum-Crc32", "AAAA"), "InvalidRequest"},
		"shorter than stated":      {short, "IncompleteBody"},
		"of no length":             {unknown, "MissingContentLength"},
		"trailer without chunks":   {put("hello", "X-Amz-Trailer", "x-amz-checksum-crc32"), "NotImplemented"},
		"signed chunks":            {put("5;chunk-signature=0\r\nhello", "Content-Encoding", "aws-chunked"), "NotImplemented"},
		"chunks":                   {put(inChunks("", "he", "llo"), stated, chunked, length, "5"), ""},
		"chunks of another length": {put(inChunks("", "he", "llo"), stated, chunked, length, "6"), "IncompleteBody"},
		"more chunks than stated":  {put(inChunks("", "he", "llo"), stated, chunked, length, "4"), "IncompleteBody"},
		"chunks of no length":      {put(inChunks("", "hello"), stated, chunked), "MissingContentLength"},
		"chunks cut off":           {put("5\r\nhel", stated, chunked, length, "5"), "InvalidRequest"},
		"a chunk of length -1":     {put("-1\r\nhello\r\n0\r\n\r\n", stated, chunked, length, "5"), "InvalidRequest"},
		"a chunk of no length":     {put("x\r\nhello\r\n0\r\n\r\n", stated, chunked, length, "5"), "InvalidRequest"},
		"a chunk without its end":  {put("5\r\nhello0\r\n\r\n", stated, chunked, length, "5"), "InvalidRequest"},
		"a long line":              {put(strings.Repeat("0", 5000)+"5\r\nhello\r\n0\r\n\r\n", stated, chunked, length, "5"), "InvalidRequest"},
		"a trailer that is none":   {put(inChunks("nothing", "hello"), stated, chunked, length, "5"), "InvalidRequest"},
		"a missing trailer": {
			put(inChunks("", "hello"), stated, chunked, length, "5", "X-Amz-Trailer", "x-amz-checksum-crc32"), "InvalidRequest",
		},
		"an unknown trailer": {
			put(inChunks("", "hello"), stated, chunked, length, "5", "X-Amz-Trailer", "x-amz-checksum-crc16"), "NotImplemented",
		},
		"many trailers": {
			put("5\r\nhello\r\n0\r\n"+strings.Repeat("a:b\r\n", 100)+"\r\n", stated, chunked, length, "5"), "InvalidRequest",
		},
	}
	for name := range checksums() {
		header := "X-Amz-Checksum-" + name
		cases["its "+name] = item{put("hello", header, sumOf(name, "hello")), ""}
		cases["another "+name] = item{put("hullo", header, sumOf(name, "hello")), "BadDigest"}
		trailer := checksumPrefix + name
		behind := []string{stated, chunked, length, "5", "X-Amz-Trailer", trailer}
		cases["its "+name+" behind"] = item{put(inChunks(trailer+":"+sumOf(name, "hello"), "he", "llo"), behind...), ""}
		cases["another "+name+" behind"] = item{put(inChunks(trailer+":"+sumOf(name, "hullo"), "he", "llo"), behind...), "BadDigest"}
	}
	for name, c := range cases {
		text, code := codeOf(t, c.r)
		if code != c.code || code == "" && text != "hello" {
			t.Errorf("%s: got %q, %q, want %q", name, text, code, c.code)
		}
	}
}

// FuzzChunks: whatever comes, no more is handed on than is in the chunks, and what is
// well formed comes out whole.
func FuzzChunks(f *testing.F) {
	f.Add(inChunks("x-amz-checksum-crc32:"+sumOf("crc32", "hello"), "he", "llo"), 5)
	f.Add("5\r\nhel", 5)
	f.Add("ffffffffffffffff\r\nx", 1)
	f.Add("0\r\n\r\n", 0)
	f.Fuzz(func(t *testing.T, sent string, length int) {
		text, code := codeOf(t, put(sent, "X-Amz-Content-Sha256", sigv4.UnsignedTrailer, "X-Amz-Decoded-Content-Length", strconv.Itoa(length)))
		if len(text) > len(sent) {
			t.Errorf("%d bytes of %d", len(text), len(sent))
		}
		if code != "" {
			return
		}
		again, code := codeOf(t, put(inChunks("", text), "X-Amz-Content-Sha256", sigv4.UnsignedTrailer, "X-Amz-Decoded-Content-Length", strconv.Itoa(length)))
		if text != "" && (code != "" || !bytes.Equal([]byte(again), []byte(text))) {
			t.Errorf("%q came out as %q, %q", text, again, code)
		}
	})
}
