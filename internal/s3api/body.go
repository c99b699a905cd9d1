package s3api

import (
	"bufio"
	"crypto/md5"  //nolint:gosec // a checksum that clients may state
	"crypto/sha1" //nolint:gosec // as above
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/crc64nvme"

	"github.com/muster-iot/muster/internal/awsapi/sigv4"
)

// checksums are those that a client can state, by the end of the header's name.
func checksums() map[string]func() hash.Hash {
	return map[string]func() hash.Hash{
		"crc32":     func() hash.Hash { return crc32.NewIEEE() },
		"crc32c":    func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) },
		"crc64nvme": func() hash.Hash { return crc64nvme.New() },
		"sha1":      sha1.New,
		"sha256":    sha256.New,
	}
}

const (
	checksumPrefix = "x-amz-checksum-"
	// maxChunkLine bounds the line ahead of a chunk, and those behind the last one.
	maxChunkLine = 1 << 10
	// maxTrailers bounds how many lines come behind the last chunk.
	maxTrailers = 16
)

// body is what a client sends as an object. It ends with an error instead of
// io.EOF when it is not what the client said that it would be.
type body struct {
	from io.Reader
	// length is what was stated, got what has come.
	length, got int64
	checks      []check
	chunks      *chunks
}

// check compares one digest.
type check struct {
	hash.Hash

	// name is the trailer's when want comes behind the body.
	name string
	want []byte
}

// openBody reads the head of a request.
func openBody(r *http.Request) (*body, error) {
	b := &body{from: r.Body, length: r.ContentLength}
	stated := r.Header.Get("X-Amz-Content-Sha256")
	chunked := strings.EqualFold(r.Header.Get("Content-Encoding"), "aws-chunked")
	switch {
	case stated == sigv4.UnsignedTrailer:
		b.chunks = &chunks{from: bufio.NewReaderSize(r.Body, maxChunkLine*2)}
		b.from = b.chunks
		var err error
		if b.length, err = strconv.ParseInt(r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64); err != nil || b.length < 0 {
			return nil, problemf(http.StatusLengthRequired, "MissingContentLength", "x-amz-decoded-content-length must say how long the object is")
		}
	case chunked:
		return nil, problemf(http.StatusNotImplemented, "NotImplemented", "Of bodies in chunks only x-amz-content-sha256: %s is offered", sigv4.UnsignedTrailer)
	case b.length < 0:
		return nil, problemf(http.StatusLengthRequired, "MissingContentLength", "Content-Length must say how long the object is")
	}
	if sum, err := hex.DecodeString(stated); err == nil && len(sum) == sha256.Size {
		b.checks = append(b.checks, check{Hash: sha256.New(), want: sum})
	}
	if text := r.Header.Get("Content-Md5"); text != "" {
		sum, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(sum) != md5.Size {
			return nil, problemf(http.StatusBadRequest, "InvalidDigest", "Content-MD5 is not valid")
		}
		b.checks = append(b.checks, check{Hash: md5.New(), want: sum}) //nolint:gosec // as above
	}
	return b, b.stated(r.Header)
}

// stated takes the checksums of head and trailers.
func (b *body) stated(header http.Header) error {
	for name, fresh := range checksums() {
		text := header.Get(checksumPrefix + name)
		if text == "" {
			continue
		}
		digest := fresh()
		sum, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(sum) != digest.Size() {
			return problemf(http.StatusBadRequest, "InvalidRequest", "Value for %s%s header is invalid", checksumPrefix, name)
		}
		b.checks = append(b.checks, check{Hash: digest, want: sum})
	}
	for _, trailer := range header.Values("X-Amz-Trailer") {
		lower := strings.ToLower(strings.TrimSpace(trailer))
		fresh := checksums()[strings.TrimPrefix(lower, checksumPrefix)]
		if b.chunks == nil || fresh == nil || !strings.HasPrefix(lower, checksumPrefix) {
			return problemf(http.StatusNotImplemented, "NotImplemented", "The trailer %.64q is not offered", lower)
		}
		b.checks = append(b.checks, check{Hash: fresh(), name: lower})
	}
	return nil
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	b.got += int64(n)
	for _, c := range b.checks {
		c.Write(p[:n]) //nolint:gosec // a digest never fails
	}
	switch {
	case b.got > b.length:
		return n, problemf(http.StatusBadRequest, "IncompleteBody", "The body has more bytes than were stated")
	case errors.Is(err, io.EOF):
		return n, b.end()
	case err != nil:
		return n, fmt.Errorf("read body: %w", err)
	}
	return n, nil
}

// end is io.EOF for a body that is what it should be.
func (b *body) end() error {
	if b.got != b.length {
		return problemf(http.StatusBadRequest, "IncompleteBody", "The body has %d bytes, %d were stated", b.got, b.length)
	}
	for _, c := range b.checks {
		want := c.want
		if c.name != "" {
			sum, err := base64.StdEncoding.DecodeString(b.chunks.trailers[c.name])
			if err != nil || len(sum) != c.Size() {
				return problemf(http.StatusBadRequest, "InvalidRequest", "The trailer %s is missing or not valid", c.name)
			}
			want = sum
		}
		if subtle.ConstantTimeCompare(want, c.Sum(nil)) != 1 {
			return problemf(http.StatusBadRequest, "BadDigest", "The body is not what its checksum says")
		}
	}
	return io.EOF
}

// chunks decodes the transfer form of SDKs: the length of a chunk in hexadecimal
// digits, a line feed, the chunk, a line feed; an empty chunk, and trailers.
type chunks struct {
	from *bufio.Reader
	// rest is of the present chunk.
	rest     int64
	begun    bool
	ended    bool
	trailers map[string]string
}

var errChunk = problemf(http.StatusBadRequest, "InvalidRequest", "The chunks of the body are not well formed")

// Read implements io.Reader.
func (c *chunks) Read(p []byte) (int, error) {
	if c.ended {
		return 0, io.EOF
	}
	if c.rest == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
		if c.ended {
			return 0, io.EOF
		}
	}
	if int64(len(p)) > c.rest {
		p = p[:c.rest]
	}
	n, err := c.from.Read(p)
	c.rest -= int64(n)
	if errors.Is(err, io.EOF) {
		err = errChunk
	}
	return n, err //nolint:wrapcheck // Read of body does
}

// next reads what is ahead of a chunk, or behind the last one.
func (c *chunks) next() error {
	if c.begun {
		if line, err := c.line(); err != nil || line != "" {
			return errChunk
		}
	}
	c.begun = true
	line, err := c.line()
	if err != nil {
		return err
	}
	if c.rest, err = strconv.ParseInt(line, 16, 64); err != nil || c.rest < 0 {
		return errChunk
	}
	if c.rest > 0 {
		return nil
	}
	c.ended, c.trailers = true, map[string]string{}
	for range maxTrailers {
		line, err := c.line()
		if errors.Is(err, io.EOF) || err == nil && line == "" {
			return nil
		}
		if err != nil {
			return err
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return errChunk
		}
		c.trailers[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
	}
	return errChunk
}

// line reads up to a line feed.
func (c *chunks) line() (string, error) {
	line, err := c.from.ReadSlice('\n')
	if errors.Is(err, io.EOF) && len(line) == 0 {
		return "", io.EOF
	}
	if err != nil || len(line) > maxChunkLine {
		return "", errChunk
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}
