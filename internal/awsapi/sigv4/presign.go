package sigv4

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Parameters of a presigned query, beside those that are named like headers.
const (
	queryAlgorithm     = "X-Amz-Algorithm"
	queryCredential    = "X-Amz-Credential" //nolint:gosec // the name of a parameter, no secret.
	querySignedHeaders = "X-Amz-SignedHeaders"
	querySignature     = "X-Amz-Signature"
	queryExpires       = "X-Amz-Expires"
)

// MaxExpires is how long a presigned query can be good for.
const MaxExpires = 7 * 24 * time.Hour

// maxQuery bounds a presigned query; a session token may be long.
const maxQuery = 16 << 10

// queryIsSigned reports whether a query claims to be presigned.
func queryIsSigned(raw string) bool {
	for part := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(part, "=")
		if name == queryAlgorithm || name == querySignature || name == queryCredential {
			return true
		}
	}
	return false
}

// parseQuery reads a presigned query.
func parseQuery(raw string) (*Authorization, error) {
	if !queryIsSigned(raw) {
		return nil, ErrMissing
	}
	if len(raw) > maxQuery {
		return nil, fmt.Errorf("%w: presigned query is too long", ErrIncomplete)
	}
	found := map[string]string{}
	for part := range strings.SplitSeq(raw, "&") {
		name, escaped, _ := strings.Cut(part, "=")
		switch name {
		case queryAlgorithm, queryCredential, querySignedHeaders, querySignature, queryExpires, headerDate, headerToken:
		default:
			continue
		}
		// Whoever looks at another one than we do would see another caller.
		if _, twice := found[name]; twice {
			return nil, fmt.Errorf("%w: %s is given twice", ErrIncomplete, name)
		}
		value, err := url.QueryUnescape(escaped)
		if err != nil {
			return nil, fmt.Errorf("%w: %s has a bad escape", ErrIncomplete, name)
		}
		found[name] = value
	}
	for _, name := range []string{queryAlgorithm, queryCredential, headerDate, querySignedHeaders, querySignature} {
		if found[name] == "" {
			return nil, fmt.Errorf("%w: presigned query lacks %s", ErrIncomplete, name)
		}
	}
	return presigned(found)
}

// presigned checks the parameters of a query that has all it needs.
func presigned(found map[string]string) (*Authorization, error) {
	if found[queryAlgorithm] != algorithm {
		return nil, fmt.Errorf("%w: %s must be %s", ErrIncomplete, queryAlgorithm, algorithm)
	}
	a := &Authorization{presigned: true, Token: found[headerToken]}
	day, err := a.credential(found[queryCredential])
	if err != nil {
		return nil, err
	}
	if err := a.signedHeaders(found[querySignedHeaders]); err != nil {
		return nil, err
	}
	if err := a.sign(found[querySignature]); err != nil {
		return nil, err
	}
	at, err := time.Parse(timeLayout, found[headerDate])
	if err != nil {
		return nil, fmt.Errorf("%w: %s must look like %s", ErrIncomplete, headerDate, timeLayout)
	}
	if err := a.at(at, day); err != nil {
		return nil, err
	}
	text, given := found[queryExpires]
	if !given {
		return a, nil
	}
	seconds, err := strconv.ParseUint(text, 10, 32)
	a.expires = time.Duration(seconds) * time.Second
	if err != nil || a.expires <= 0 || a.expires > MaxExpires {
		return nil, fmt.Errorf("%w: %s must be 1 to %d seconds", ErrIncomplete, queryExpires, int(MaxExpires/time.Second))
	}
	return a, nil
}

// Presign adds a signature to a request's query, over the host, the query and a
// body that is sent empty. Without expires the query does not say how long it
// is good for, and is so for MaxSkew. A token is appended unsigned, as devices
// on WebSocket do it.
func Presign(r *http.Request, key Key, scope Scope, now time.Time, expires time.Duration) error {
	now = now.UTC()
	day := now.Format(dateLayout)
	added := url.Values{
		queryAlgorithm:     {algorithm},
		queryCredential:    {strings.Join([]string{key.AccessKeyID, day, scope.Region, scope.Service, terminator}, "/")},
		headerDate:         {now.Format(timeLayout)},
		querySignedHeaders: {"host"},
	}
	if expires > 0 {
		added.Set(queryExpires, strconv.FormatInt(int64(expires/time.Second), 10))
	}
	raw := added.Encode()
	if r.URL.RawQuery != "" {
		raw = r.URL.RawQuery + "&" + raw
	}
	query, err := canonicalQuery(raw)
	if err != nil {
		return err
	}
	hash, err := (&Authorization{Scope: scope, presigned: true}).payloadHash(r, nil)
	if err != nil {
		return err
	}
	f := form{host: sentHost(r), path: canonicalPaths(scope.Service, sentPath(r))[0], query: query}
	sig := signature(signingKey(key.Secret, day, scope), scope, now, canonicalRequest(r, f, []string{"host"}, hash))
	raw += "&" + querySignature + "=" + hex.EncodeToString(sig)
	if key.Token != "" {
		raw += "&" + headerToken + "=" + url.QueryEscape(key.Token)
	}
	r.URL.RawQuery = raw
	return nil
}
