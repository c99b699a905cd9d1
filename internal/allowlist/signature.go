package allowlist

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
)

// Algorithm is how a supplier signs.
type Algorithm string

// Algorithms, with their names in JWS: EdDSA, ES256 and RS256.
const (
	Ed25519 Algorithm = "ed25519"
	ES256   Algorithm = "es256"
	RS256   Algorithm = "rs256"
)

const (
	// minRSA and maxRSA bound keys in bits.
	minRSA, maxRSA = 2048, 8192
	// maxSignature bounds a detached signature in bytes of its text.
	maxSignature = 16 << 10
	// coordinate is the length of half an ES256 signature in JWS.
	coordinate = 32
)

// jwsNames are the algorithms as JWS headers name them.
var jwsNames = map[string]Algorithm{"EdDSA": Ed25519, "ES256": ES256, "RS256": RS256}

// parseKey reads a public key in PEM and tells how its owner signs.
func parseKey(text string) (crypto.PublicKey, Algorithm, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, "", fault.New(fault.InvalidRequest, "publicKey: must be one PEM block PUBLIC KEY")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, "", fault.New(fault.InvalidRequest, "publicKey: cannot be read")
	}
	switch k := key.(type) {
	case ed25519.PublicKey:
		return k, Ed25519, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return k, ES256, nil
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits >= minRSA && bits <= maxRSA {
			return k, RS256, nil
		}
	}
	return nil, "", fault.New(fault.InvalidRequest, "publicKey: must be Ed25519, P-256, or RSA with %d to %d bits", minRSA, maxRSA)
}

// verify reports whether a signature over a message is that of a key. Of ES256 both
// forms are taken, that of JWS and DER, which other tools write.
func verify(key crypto.PublicKey, message, signature []byte) bool {
	sum := sha256.Sum256(message)
	switch k := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, signature)
	case *ecdsa.PublicKey:
		if len(signature) == 2*coordinate {
			r, s := new(big.Int).SetBytes(signature[:coordinate]), new(big.Int).SetBytes(signature[coordinate:])
			if ecdsa.Verify(k, sum[:], r, s) {
				return true
			}
		}
		return ecdsa.VerifyASN1(k, sum[:], signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], signature) == nil
	}
	return false
}

// signed is what an upload says about its signature: the list itself, and over which
// bytes somebody has signed. An upload without a signature has none.
type signed struct {
	// content is the list.
	content []byte
	// message and signature are empty when nobody has signed.
	message, signature []byte
	// kid and alg are what the signature names; either may be empty.
	kid string
	alg Algorithm
}

// unwrap finds list and signature in an upload: a compact JWS, or a list with a
// detached signature, which is a JWS without its middle part or the base64 of a plain
// signature over the bytes of the list.
func unwrap(body []byte, detached string) (signed, error) {
	detached = strings.TrimSpace(detached)
	if len(detached) > maxSignature {
		return signed{}, fault.New(fault.InvalidRequest, "signature: has more than %d characters", maxSignature)
	}
	if compact := bytes.TrimSpace(body); isCompact(compact) {
		if detached != "" {
			return signed{}, fault.New(fault.InvalidRequest, "signature: the list is a JWS and has one of its own")
		}
		return fromCompact(string(compact))
	}
	switch {
	case detached == "":
		return signed{content: body}, nil
	case strings.Contains(detached, "."):
		header, rest, _ := strings.Cut(detached, ".")
		middle, signature, ok := strings.Cut(rest, ".")
		if !ok || middle != "" || strings.Contains(signature, ".") {
			return signed{}, fault.New(fault.InvalidRequest, "signature: a detached JWS has the form header..signature")
		}
		return fromParts(header, base64.RawURLEncoding.EncodeToString(body), signature, body)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(detached), ""))
	if err != nil {
		return signed{}, fault.New(fault.InvalidRequest, "signature: must be base64 or a detached JWS")
	}
	return signed{content: body, message: body, signature: raw}, nil
}

// isCompact reports whether bytes look like header.payload.signature.
func isCompact(b []byte) bool {
	return bytes.HasPrefix(b, []byte("eyJ")) && bytes.Count(b, []byte(".")) == 2 && !bytes.ContainsAny(b, " \t\r\n{")
}

func fromCompact(text string) (signed, error) {
	header, rest, _ := strings.Cut(text, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	content, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return signed{}, fault.New(fault.InvalidRequest, "list: the payload of the JWS is no base64url")
	}
	return fromParts(header, payload, signature, content)
}

// fromParts reads the parts of a JWS (RFC 7515). What its header does not say in one
// of the members known here is refused: a critical extension must not be overlooked.
func fromParts(header, payload, signature string, content []byte) (signed, error) {
	text, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil {
		return signed{}, fault.New(fault.InvalidRequest, "signature: the header of the JWS is no base64url")
	}
	var h struct {
		Alg string `json:"alg"`
		Kid string `json:"kid"`
		Typ string `json:"typ"`
		Cty string `json:"cty"`
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&h); err != nil {
		return signed{}, fault.New(fault.InvalidRequest, "signature: the header of the JWS may have alg, kid, typ and cty")
	}
	alg, ok := jwsNames[h.Alg]
	if !ok {
		return signed{}, fault.New(fault.InvalidRequest, "signature: alg must be EdDSA, ES256 or RS256")
	}
	if h.Kid == "" {
		return signed{}, fault.New(fault.InvalidRequest, "signature: the header of the JWS has no kid")
	}
	raw, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil || len(raw) == 0 {
		return signed{}, fault.New(fault.InvalidRequest, "signature: is no base64url")
	}
	return signed{content: content, message: []byte(header + "." + payload), signature: raw, kid: h.Kid, alg: alg}, nil
}
