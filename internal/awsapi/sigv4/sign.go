package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Key is an access key with its secret.
type Key struct {
	AccessKeyID string
	Secret      string
	// Token is sent with temporary keys.
	Token string
}

// Sign adds date and Authorization headers to a client's request. The body is
// passed apart because a request's own can be read only once. It signs the
// host, the content type and every x-amz header.
func Sign(r *http.Request, body []byte, key Key, scope Scope, now time.Time) error {
	now = now.UTC()
	r.Header.Set(headerDate, now.Format(timeLayout))
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	if scope.Service == serviceS3 {
		r.Header.Set(headerHash, hash)
	}
	if key.Token != "" {
		r.Header.Set(headerToken, key.Token)
	}
	signed := []string{"host"}
	for name := range r.Header {
		lower := strings.ToLower(name)
		if lower == "content-type" || strings.HasPrefix(lower, "x-amz") {
			signed = append(signed, lower)
		}
	}
	slices.Sort(signed)
	query, err := canonicalQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	f := form{host: sentHost(r), path: canonicalPaths(scope.Service, sentPath(r))[0], query: query}
	secret := signingKey(key.Secret, now.Format(dateLayout), scope)
	sig := signature(secret, scope, now, canonicalRequest(r, f, signed, hash))
	r.Header.Set("Authorization", fmt.Sprintf("%s Credential=%s/%s/%s/%s/%s, SignedHeaders=%s, Signature=%s",
		algorithm, key.AccessKeyID, now.Format(dateLayout), scope.Region, scope.Service, terminator,
		strings.Join(signed, ";"), hex.EncodeToString(sig)))
	return nil
}
