// Package listsign does the supplier's side of allow lists: it makes signing keys,
// signs lists as JSON Web Signatures (RFC 7515), and encrypts them with age. It knows
// bytes only, neither what a list says nor who takes it; it starts no goroutines and
// emits no events.
package listsign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"filippo.io/age"
)

// Algorithms of keys, as suppliers' keys name them.
const (
	Ed25519 = "ed25519"
	ES256   = "es256"
	RS256   = "rs256"
)

const (
	// coordinate is the length of half an ES256 signature.
	coordinate = 32
	// minRSA and maxRSA are bounds of RSA keys in bits.
	minRSA, maxRSA = 2048, 8192
)

// Key signs lists.
type Key struct {
	private   crypto.Signer
	algorithm string
}

// Generate makes a key for Ed25519 or ES256.
func Generate(algorithm string) (*Key, error) {
	switch algorithm {
	case Ed25519:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		return &Key{private, algorithm}, nil
	case ES256:
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		return &Key{private, algorithm}, nil
	}
	return nil, fmt.Errorf("%q is no algorithm of keys that are made here; take %s or %s", algorithm, Ed25519, ES256)
}

// errNoKey is a file without a private key.
var errNoKey = errors.New("is no private key in PEM that is not encrypted")

// ParseKey reads a private key in PEM: PKCS#8, and the older forms that openssl writes.
func ParseKey(text []byte) (*Key, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PARAMETERS":
			continue // openssl puts them before the key
		default:
			return nil, errNoKey
		}
		if err != nil {
			return nil, errNoKey
		}
		return keyOf(key)
	}
	return nil, errNoKey
}

func keyOf(key any) (*Key, error) {
	switch k := key.(type) {
	case ed25519.PrivateKey:
		return &Key{k, Ed25519}, nil
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P256() {
			return &Key{k, ES256}, nil
		}
	case *rsa.PrivateKey:
		if bits := k.N.BitLen(); bits >= minRSA && bits <= maxRSA {
			return &Key{k, RS256}, nil
		}
	}
	return nil, fmt.Errorf("must be a key for Ed25519, P-256, or RSA with %d to %d bits", minRSA, maxRSA)
}

// Algorithm is one of Ed25519, ES256 and RS256.
func (k *Key) Algorithm() string { return k.algorithm }

// PrivatePEM is the key in PKCS#8, not encrypted.
func (k *Key) PrivatePEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// PublicPEM is what the operator is given.
func (k *Key) PublicPEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.private.Public())
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// jwsNames are the algorithms as JWS headers name them.
var jwsNames = map[string]string{Ed25519: "EdDSA", ES256: "ES256", RS256: "RS256"}

// Compact is the list in a compact JWS.
func (k *Key) Compact(kid string, list []byte) (string, error) {
	header, signature, err := k.sign(kid, list)
	return header + "." + base64.RawURLEncoding.EncodeToString(list) + "." + signature, err
}

// Detached is the same signature without the list.
func (k *Key) Detached(kid string, list []byte) (string, error) {
	header, signature, err := k.sign(kid, list)
	return header + ".." + signature, err
}

func (k *Key) sign(kid string, list []byte) (header, signature string, err error) {
	text, err := json.Marshal(struct {
		Alg string `json:"alg"`
		Kid string `json:"kid"`
	}{jwsNames[k.algorithm], kid})
	if err != nil {
		return "", "", fmt.Errorf("encode a header: %w", err)
	}
	header = base64.RawURLEncoding.EncodeToString(text)
	message := []byte(header + "." + base64.RawURLEncoding.EncodeToString(list))
	raw, err := k.raw(message)
	return header, base64.RawURLEncoding.EncodeToString(raw), err
}

// raw is a signature in the form of JWS: of ES256 two numbers, not DER.
func (k *Key) raw(message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	var out []byte
	var err error
	switch private := k.private.(type) {
	case *ecdsa.PrivateKey:
		r, s, signErr := ecdsa.Sign(rand.Reader, private, sum[:])
		if err = signErr; err == nil {
			out = append(r.FillBytes(make([]byte, coordinate)), s.FillBytes(make([]byte, coordinate))...)
		}
	case *rsa.PrivateKey:
		out, err = rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, sum[:])
	default:
		out, err = private.Sign(rand.Reader, message, crypto.Hash(0))
	}
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return out, nil
}

// Encrypt makes a list readable for the owner of an age recipient only.
func Encrypt(recipient string, list []byte) ([]byte, error) {
	to, err := age.ParseRecipients(bytes.NewReader([]byte(recipient)))
	if err != nil || len(to) != 1 {
		return nil, errors.New("must be one age recipient, age1…")
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if _, err := w.Write(list); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return out.Bytes(), nil
}

// Identity makes an age identity, as the text of a file, and its recipient.
func Identity() (text, recipient string, err error) {
	made, err := age.GenerateX25519Identity()
	if err != nil {
		return "", "", fmt.Errorf("make an identity: %w", err)
	}
	recipient = made.Recipient().String()
	return "# public key: " + recipient + "\n" + made.String() + "\n", recipient, nil
}
