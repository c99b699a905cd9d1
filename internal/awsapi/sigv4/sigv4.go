// Package sigv4 checks and makes AWS Signature Version 4, by header and by
// presigned query. It owns parsing, canonical form and the comparison; which
// secret belongs to an access key is for the caller. It knows no service and no
// account, and starts no goroutines.
//
// The path is encoded twice except for s3. There is no replay cache: equal
// calls within one second carry equal signatures, so only the clock bounds a
// replay.
package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	algorithm   = "AWS4-HMAC-SHA256"
	timeLayout  = "20060102T150405Z"
	dateLayout  = "20060102"
	terminator  = "aws4_request"
	serviceS3   = "s3"
	headerDate  = "X-Amz-Date"
	headerToken = "X-Amz-Security-Token" //nolint:gosec // the name of a header, no secret.
	headerHash  = "X-Amz-Content-Sha256"
)

// Limits checked before anything is split or allocated.
const (
	maxHeader        = 8 << 10
	maxSignedHeaders = 64
)

// Reasons for a refusal. Parse and Verify wrap them with detail that is safe
// to show to the caller.
var (
	// ErrMissing is a request without any signature.
	ErrMissing = errors.New("missing authentication token")
	// ErrIncomplete is a signature that cannot be read or lacks a part.
	ErrIncomplete = errors.New("incomplete signature")
	// ErrSkew is a signature outside the accepted time window.
	ErrSkew = errors.New("request time too skewed")
	// ErrMismatch is a signature that does not belong to the request.
	ErrMismatch = errors.New("signature does not match")
)

// Scope is what a signing key is bound to besides the day.
type Scope struct {
	Region  string
	Service string
}

// Authorization is a parsed signature that has not been verified.
type Authorization struct {
	Scope
	AccessKeyID string
	// Time is when the client signed.
	Time time.Time
	// SignedHeaders are lower-case names in the order given.
	SignedHeaders []string
	// Token is the session token, empty for long-term keys.
	Token     string
	signature []byte
	// presigned is set for a signature in the query, expires when that says how
	// long it is good for.
	presigned bool
	expires   time.Duration
	// headOnly is set by HeadOnly.
	headOnly bool
}

// Parse reads the signature of a request and what belongs to it: from the
// Authorization header, or from a presigned query.
func Parse(r *http.Request) (*Authorization, error) {
	header := r.Header.Get("Authorization")
	switch {
	case header == "":
		return parseQuery(r.URL.RawQuery)
	case queryIsSigned(r.URL.RawQuery):
		return nil, fmt.Errorf("%w: the request is signed by header and by query, use one of them", ErrIncomplete)
	case len(r.Header.Values("Authorization")) > 1:
		// Whoever looks at another one than we do would see another caller.
		return nil, fmt.Errorf("%w: more than one Authorization header", ErrIncomplete)
	case len(header) > maxHeader:
		return nil, fmt.Errorf("%w: Authorization header is too long", ErrIncomplete)
	}
	rest, ok := strings.CutPrefix(header, algorithm)
	if !ok || rest == "" || rest[0] != ' ' {
		return nil, fmt.Errorf("%w: Authorization header must begin with %s", ErrIncomplete, algorithm)
	}
	a := &Authorization{Token: r.Header.Get(headerToken)}
	var date string
	seen := map[string]bool{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || seen[name] {
			return nil, fmt.Errorf("%w: Authorization header is malformed", ErrIncomplete)
		}
		seen[name] = true
		var err error
		switch name {
		case "Credential":
			date, err = a.credential(value)
		case "SignedHeaders":
			err = a.signedHeaders(value)
		case "Signature":
			err = a.sign(value)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"Credential", "SignedHeaders", "Signature"} {
		if !seen[name] {
			return nil, fmt.Errorf("%w: Authorization header lacks %s", ErrIncomplete, name)
		}
	}
	return a, a.time(r, date)
}

// credential splits key/day/region/service/aws4_request and returns the day.
func (a *Authorization) credential(value string) (string, error) {
	parts := strings.Split(value, "/")
	// Only the access key could hold a slash, and ours never do.
	if len(parts) != 5 || parts[4] != terminator || slices.Contains(parts, "") {
		return "", fmt.Errorf("%w: Credential must be key/day/region/service/%s", ErrIncomplete, terminator)
	}
	a.AccessKeyID, a.Region, a.Service = parts[0], parts[2], parts[3]
	return parts[1], nil
}

// signedHeaders splits the list and insists on the host.
func (a *Authorization) signedHeaders(value string) error {
	if strings.Count(value, ";") >= maxSignedHeaders {
		return fmt.Errorf("%w: more than %d signed headers", ErrIncomplete, maxSignedHeaders)
	}
	a.SignedHeaders = strings.Split(value, ";")
	for _, name := range a.SignedHeaders {
		if name == "" || name != strings.ToLower(name) {
			return fmt.Errorf("%w: SignedHeaders must be lower-case names", ErrIncomplete)
		}
	}
	if !slices.Contains(a.SignedHeaders, "host") {
		return fmt.Errorf("%w: the host header must be signed", ErrIncomplete)
	}
	return nil
}

// sign takes the signature itself.
func (a *Authorization) sign(value string) error {
	signature, err := hex.DecodeString(value)
	if err != nil || len(signature) != sha256.Size {
		return fmt.Errorf("%w: Signature must be %d hexadecimal digits", ErrIncomplete, 2*sha256.Size)
	}
	a.signature = signature
	return nil
}

// time takes the signing time, which must lie on the day of the credential.
func (a *Authorization) time(r *http.Request, day string) error {
	text, layouts := r.Header.Get(headerDate), []string{timeLayout}
	if text == "" {
		text, layouts = r.Header.Get("Date"), []string{timeLayout, http.TimeFormat, time.RFC1123Z}
	}
	for _, layout := range layouts {
		if at, err := time.Parse(layout, text); err == nil {
			return a.at(at, day)
		}
	}
	return fmt.Errorf("%w: needs a valid %s or Date header", ErrIncomplete, headerDate)
}

// at sets the signing time.
func (a *Authorization) at(at time.Time, day string) error {
	a.Time = at.UTC()
	if a.Time.Format(dateLayout) != day {
		return fmt.Errorf("%w: date and Credential name different days", ErrIncomplete)
	}
	return nil
}

// signingKey derives the key for a day and scope from the secret.
func signingKey(secret, day string, scope Scope) []byte {
	key := mac([]byte("AWS4"+secret), day)
	key = mac(key, scope.Region)
	key = mac(key, scope.Service)
	return mac(key, terminator)
}

// signature computes what the client must have computed with the key of the
// day.
func signature(key []byte, scope Scope, at time.Time, canonical string) []byte {
	day := at.Format(dateLayout)
	digest := sha256.Sum256([]byte(canonical))
	text := strings.Join([]string{
		algorithm, at.Format(timeLayout),
		strings.Join([]string{day, scope.Region, scope.Service, terminator}, "/"),
		hex.EncodeToString(digest[:]),
	}, "\n")
	return mac(key, text)
}

// mac is HMAC-SHA256.
func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
