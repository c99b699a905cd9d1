package sigv4

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// MaxSkew is how far a client's clock may differ from ours, either way.
const MaxSkew = 5 * time.Minute

// Verify checks the signature over the request and its body, which the caller
// has read. The host is taken as sent.
func (a *Authorization) Verify(r *http.Request, body []byte, secret string, now time.Time) error {
	if skew := now.Sub(a.Time); skew > MaxSkew || skew < -MaxSkew {
		return fmt.Errorf("%w: signed at %s, the time here is %s", ErrSkew, a.Time.Format(timeLayout), now.UTC().Format(timeLayout))
	}
	if err := a.covers(r); err != nil {
		return err
	}
	hash, err := payloadHash(r, a.Service, body)
	if err != nil {
		return err
	}
	query, err := canonicalQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	for _, path := range canonicalPaths(a.Service, sentPath(r)) {
		want := signature(secret, a.Scope, a.Time, canonicalRequest(r, path, query, a.SignedHeaders, hash))
		if subtle.ConstantTimeCompare(want, a.signature) == 1 {
			return nil
		}
	}
	return ErrMismatch
}

// covers refuses a request with x-amz or x-amzn headers that are not signed:
// anyone on the way could have added them, and some carry what an operation is
// about, such as x-amzn-principal. Proxies add trace ids, which mean nothing
// here.
func (a *Authorization) covers(r *http.Request) error {
	for name := range r.Header {
		lower := strings.ToLower(name)
		meant := strings.HasPrefix(lower, "x-amz-") || strings.HasPrefix(lower, "x-amzn-") && lower != "x-amzn-trace-id"
		if meant && !slices.Contains(a.SignedHeaders, lower) {
			return fmt.Errorf("%w: header %s is not signed", ErrIncomplete, lower)
		}
	}
	return nil
}

// payloadHash returns the hash that the canonical request carries. A hash that
// the client states must be the body's own; only s3 may leave the body unsigned.
func payloadHash(r *http.Request, service string, body []byte) (string, error) {
	const unsigned = "UNSIGNED-PAYLOAD"
	sum := sha256.Sum256(body)
	computed := hex.EncodeToString(sum[:])
	stated := r.Header.Get(headerHash)
	switch {
	case stated == "" || stated == computed:
		return computed, nil
	case stated == unsigned && service == serviceS3:
		return unsigned, nil
	case stated == unsigned || strings.HasPrefix(stated, "STREAMING-"):
		return "", fmt.Errorf("%w: %s must be the hash of the body, %s is not offered", ErrIncomplete, strings.ToLower(headerHash), stated)
	default:
		return "", fmt.Errorf("%w: %s is not the hash of the body", ErrMismatch, strings.ToLower(headerHash))
	}
}
