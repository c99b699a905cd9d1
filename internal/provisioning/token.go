package provisioning

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"

	"github.com/muster-iot/muster/internal/registry"
)

const (
	idSize     = sha256.Size
	secretSize = 32
)

// newToken returns a fresh secret and the hash under which it is kept.
func newToken() (secret []byte, hash string) {
	secret = make([]byte, secretSize)
	rand.Read(secret)
	return secret, hashOf(secret)
}

// hashOf is what is kept of a secret.
func hashOf(secret []byte) string {
	sum := sha256.Sum256(secret)
	return hex.EncodeToString(sum[:])
}

// sealToken is the ownership token of a certificate: its id and a secret that
// nobody keeps.
func sealToken(certificateID string, secret []byte) string {
	id, err := hex.DecodeString(certificateID)
	if err != nil || len(id) != idSize {
		panic("a certificate's id is the hash of the certificate")
	}
	return base64.RawURLEncoding.EncodeToString(append(id, secret...))
}

// openToken reverses sealToken. Whether the certificate knows the secret is
// another question.
func openToken(token string) (certificateID, hash string, ok bool) {
	if len(token) != base64.RawURLEncoding.EncodedLen(idSize+secretSize) {
		return "", "", false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return "", "", false
	}
	return hex.EncodeToString(raw[:idSize]), hashOf(raw[idSize:]), true
}

// proof is an ownership token of a requester.
type proof struct {
	certificateID string
	ownership     registry.OwnershipProof
}

// prove reads a requester's token.
func prove(r Requester, token string) (proof, bool) {
	id, hash, ok := openToken(token)
	return proof{certificateID: id, ownership: registry.OwnershipProof{Claim: r.Principal.ID, TokenHash: hash}}, ok
}
