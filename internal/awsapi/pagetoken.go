package awsapi

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

const (
	// pageTokenLife is how long a page token stays good.
	pageTokenLife = 24 * time.Hour
	// maxPageToken bounds a token before it is decoded.
	maxPageToken = 8 << 10
	// TokenKeySize is the size of Options.TokenKey in bytes.
	TokenKeySize = 32
)

// pageTokens seals the last key of a page, so that the next call continues
// after it. A token is bound to account, operation and filters: one that is
// altered, borrowed or old is refused.
type pageTokens struct {
	aead cipher.AEAD
}

// newPageTokens takes a key that all nodes share and that survives a restart.
func newPageTokens(key []byte) (*pageTokens, error) {
	if len(key) != TokenKeySize {
		return nil, fmt.Errorf("page token key has %d bytes, want %d", len(key), TokenKeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("page token key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("page token key: %w", err)
	}
	return &pageTokens{aead: aead}, nil
}

// binding digests what a token belongs to. Lengths keep the parts apart.
func binding(account fleet.Account, operation string, filter []string) []byte {
	h := sha256.New()
	for _, part := range append([]string{string(account), operation}, filter...) {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	return h.Sum(nil)
}

// seal makes the token for a page that ended with last.
func (p *pageTokens) seal(account fleet.Account, operation string, filter []string, last string, now time.Time) string {
	plain := binary.BigEndian.AppendUint64(nil, uint64(now.Add(pageTokenLife).Unix()))
	plain = append(plain, last...)
	sealed := p.aead.Seal(nil, nil, plain, binding(account, operation, filter)) //nolint:gosec // this AEAD makes the nonce itself.
	return base64.RawURLEncoding.EncodeToString(sealed)
}

// open returns the last key of the page before.
func (p *pageTokens) open(account fleet.Account, operation string, filter []string, token string, now time.Time) (string, error) {
	refuse := func(cause error) error {
		return fault.Wrap(fault.InvalidRequest, cause, "The page token is not valid: it was altered, belongs to another call, or is older than a day")
	}
	if len(token) > maxPageToken {
		return "", refuse(errors.New("too long"))
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return "", refuse(err)
	}
	plain, err := p.aead.Open(nil, nil, sealed, binding(account, operation, filter))
	if err != nil {
		return "", refuse(err)
	}
	if len(plain) < 8 || now.Unix() > int64(binary.BigEndian.Uint64(plain)) {
		return "", refuse(errors.New("expired"))
	}
	return string(plain[8:]), nil
}

// randomID returns a version 4 UUID.
func randomID() string {
	var b [16]byte
	// Read never fails; it ends the process rather than return weak bytes.
	_, _ = rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
