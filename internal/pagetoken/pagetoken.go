// Package pagetoken seals the places at which lists go on, for all front ends.
// It knows no keys and no wire, and starts no goroutines.
package pagetoken

import (
	"crypto/aes"
	"crypto/cipher"
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
	// life is how long a token stays good.
	life = 24 * time.Hour
	// maxToken bounds a token before it is decoded.
	maxToken = 8 << 10
	// KeySize is the size of a sealer's key in bytes.
	KeySize = 32
)

// Sealer seals the last key of a page, so that the next call continues
// after it. A token is bound to account, operation and filters: one that is
// altered, borrowed or old is refused.
type Sealer struct {
	aead cipher.AEAD
}

// New takes a key that all nodes share and that survives a restart.
func New(key []byte) (*Sealer, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("page token key has %d bytes, want %d", len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("page token key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("page token key: %w", err)
	}
	return &Sealer{aead: aead}, nil
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

// Seal makes the token for a page that ended with last.
func (p *Sealer) Seal(account fleet.Account, operation string, filter []string, last string, now time.Time) string {
	plain := binary.BigEndian.AppendUint64(nil, uint64(now.Add(life).Unix()))
	plain = append(plain, last...)
	sealed := p.aead.Seal(nil, nil, plain, binding(account, operation, filter)) //nolint:gosec // this AEAD makes the nonce itself.
	return base64.RawURLEncoding.EncodeToString(sealed)
}

// Open returns the last key of the page before.
func (p *Sealer) Open(account fleet.Account, operation string, filter []string, token string, now time.Time) (string, error) {
	refuse := func(cause error) error {
		return fault.Wrap(fault.InvalidRequest, cause, "The page token is not valid: it was altered, belongs to another call, or is older than a day")
	}
	if len(token) > maxToken {
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
