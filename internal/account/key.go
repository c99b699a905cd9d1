package account

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"strings"
)

// Lengths that AWS tools expect of long-lived keys.
const (
	accessKeyPrefix = "AKIA"
	// sessionKeyPrefix begins the ids of keys that come with a session token.
	sessionKeyPrefix = "ASIA"
	accessKeyLength  = 20
	secretBytes      = 30 // 40 characters of base64
	maxKeyIDLength   = 128
)

// newAccessKey draws an id and a secret. Ten random bytes are sixteen
// characters of base32, the alphabet of AWS's ids.
func newAccessKey(prefix string) (AccessKey, error) {
	buf := make([]byte, 10+secretBytes)
	if _, err := rand.Read(buf); err != nil {
		return AccessKey{}, fmt.Errorf("draw access key: %w", err)
	}
	return AccessKey{
		ID:     prefix + base32.StdEncoding.EncodeToString(buf[:10]),
		Secret: base64.StdEncoding.EncodeToString(buf[10:]),
	}, nil
}

// validAccessKeyID keeps hostile text out of storage keys.
func validAccessKeyID(id string) bool {
	if id == "" || len(id) > maxKeyIDLength {
		return false
	}
	return strings.IndexFunc(id, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_'
	}) < 0
}

// sessionKey reports whether an access key belongs to a session.
func sessionKey(id string) bool { return strings.HasPrefix(id, sessionKeyPrefix) }
