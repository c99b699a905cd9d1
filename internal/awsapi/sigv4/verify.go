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

// These stand for the hash of a body that is not signed; behind the second comes
// one with its checksum.
const (
	unsignedPayload = "UNSIGNED-PAYLOAD"
	// UnsignedTrailer is a body in chunks of its own making, of s3 only.
	UnsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// Verify checks the signature over the request and its body, which the caller
// has read. The host is taken as sent, and then as each of hosts: what else the
// client may have called this server.
func (a *Authorization) Verify(r *http.Request, body []byte, secret string, now time.Time, hosts ...string) error {
	if err := a.timely(now); err != nil {
		return err
	}
	if err := a.covers(r); err != nil {
		return err
	}
	hash, err := a.payloadHash(r, body)
	if err != nil {
		return err
	}
	hashes := []string{hash}
	if a.presigned && len(body) == 0 && hash != unsignedPayload {
		// Some presign without a body as unsigned. That is as good as long as there
		// is none: nobody can have added one.
		hashes = append(hashes, unsignedPayload)
	}
	queries, err := a.queries(r.URL.RawQuery)
	if err != nil {
		return err
	}
	key := signingKey(secret, a.Time.Format(dateLayout), a.Scope)
	for _, host := range append([]string{sentHost(r)}, hosts...) {
		for _, path := range canonicalPaths(a.Service, sentPath(r)) {
			for _, query := range queries {
				if a.signs(r, form{host, path, query}, hashes, key) {
					return nil
				}
			}
		}
	}
	return ErrMismatch
}

// signs reports whether the signature is over a form of the request with one of
// the hashes of its body.
func (a *Authorization) signs(r *http.Request, f form, hashes []string, key []byte) bool {
	for _, hash := range hashes {
		want := signature(key, a.Scope, a.Time, canonicalRequest(r, f, a.SignedHeaders, hash))
		if subtle.ConstantTimeCompare(want, a.signature) == 1 {
			return true
		}
	}
	return false
}

// timely checks the time window. A query that says how long it is good for is
// good for that long; its beginning still bears a clock that is ahead.
func (a *Authorization) timely(now time.Time) error {
	latest := a.Time.Add(MaxSkew)
	if a.expires > 0 {
		latest = a.Time.Add(a.expires)
	}
	if now.Before(a.Time.Add(-MaxSkew)) || now.After(latest) {
		return fmt.Errorf("%w: signed at %s, good until %s, the time here is %s", ErrSkew,
			a.Time.Format(timeLayout), latest.Format(timeLayout), now.UTC().Format(timeLayout))
	}
	return nil
}

// queries returns the canonical queries that clients sign. In a presigned one
// the signature cannot be part of itself, and device SDKs append the session
// token after signing where others sign it.
func (a *Authorization) queries(raw string) ([]string, error) {
	if !a.presigned {
		query, err := canonicalQuery(raw)
		return []string{query}, err
	}
	without, err := canonicalQuery(raw, querySignature, headerToken)
	if err != nil {
		return nil, err
	}
	signed, err := canonicalQuery(raw, querySignature)
	if signed == without {
		return []string{signed}, err
	}
	return []string{without, signed}, err
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

// HeadOnly is the same signature for a request whose body has not come: Verify
// then goes by the hash that the request must state. It is to be verified again
// with the body.
func (a *Authorization) HeadOnly() *Authorization {
	head := *a
	head.headOnly = true
	return &head
}

// payloadHash returns the hash that the canonical request carries. A hash that
// the client states must be the body's own; only s3 may leave the body unsigned,
// and does so when presigned.
func (a *Authorization) payloadHash(r *http.Request, body []byte) (string, error) {
	if a.presigned && a.Service == serviceS3 {
		return unsignedPayload, nil
	}
	if a.headOnly {
		stated := r.Header.Get(headerHash)
		if a.Service == serviceS3 && (stated == unsignedPayload || stated == UnsignedTrailer) {
			return stated, nil
		}
		if sum, err := hex.DecodeString(stated); err != nil || len(sum) != sha256.Size {
			return "", fmt.Errorf("%w: %s must be the hash of the body, which is long", ErrIncomplete, strings.ToLower(headerHash))
		}
		return stated, nil
	}
	sum := sha256.Sum256(body)
	computed := hex.EncodeToString(sum[:])
	stated := r.Header.Get(headerHash)
	switch {
	case stated == "" || stated == computed:
		return computed, nil
	case stated == unsignedPayload && a.Service == serviceS3:
		return unsignedPayload, nil
	case stated == unsignedPayload || strings.HasPrefix(stated, "STREAMING-"):
		return "", fmt.Errorf("%w: %s must be the hash of the body, %s is not offered", ErrIncomplete, strings.ToLower(headerHash), stated)
	default:
		return "", fmt.Errorf("%w: %s is not the hash of the body", ErrMismatch, strings.ToLower(headerHash))
	}
}
