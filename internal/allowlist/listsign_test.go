package allowlist

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/listsign"
)

// TestSignedByMuster takes what the command line signs and encrypts, with keys of each
// kind that were made here or elsewhere, and refuses it after a change.
func TestSignedByMuster(t *testing.T) {
	t.Parallel()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})
	for _, algorithm := range []string{listsign.Ed25519, listsign.ES256, listsign.RS256} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			text := elsewhere
			if algorithm != listsign.RS256 {
				made, err := listsign.Generate(algorithm)
				if err != nil {
					t.Fatal(err)
				}
				if text, err = made.PrivatePEM(); err != nil {
					t.Fatal(err)
				}
			}
			key, err := listsign.ParseKey(text)
			if err != nil || key.Algorithm() != algorithm {
				t.Fatalf("%+v, %v", key, err)
			}
			public, err := key.PublicPEM()
			if err != nil {
				t.Fatal(err)
			}
			r.acme(&factory{t: t, kid: "line-1", text: string(public)}, nil)
			list := written(t, "l", r.now, pump("B7-1"))
			compact, err := key.Compact("line-1", list)
			if err != nil {
				t.Fatal(err)
			}
			recipient, err := r.Recipient()
			if err != nil {
				t.Fatal(err)
			}
			sealed, err := listsign.Encrypt(recipient, []byte(compact))
			if err != nil || bytes.Contains(sealed, []byte(compact[:40])) {
				t.Fatal(err)
			}
			if made := r.accepted("l", sealed); made.SignerKey != "line-1" {
				t.Errorf("%+v", made)
			}
			lines := []byte("serial,vetted\nC-1,true\n")
			detached, err := key.Detached("line-1", lines)
			if err != nil {
				t.Fatal(err)
			}
			if sealed, err = listsign.Encrypt(recipient, lines); err != nil {
				t.Fatal(err)
			}
			made, err := r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "l", Body: sealed, Signature: detached})
			if err != nil || made.SignerKey != "line-1" {
				t.Fatalf("%+v, %v", made, err)
			}
			_, err = r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "l", Body: bytes.Replace(lines, []byte("C-1"), []byte("C-2"), 1), Signature: detached})
			says(t, err, fault.InvalidRequest, "signature: is not that of the list")
		})
	}
}

// TestKeyEnds ends a key that is in other hands at once, though it began long ago.
func TestKeyEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := newFactory(t, Ed25519, "line-1")
	r.acme(f, nil)
	r.mu.Lock()
	r.now = r.now.Add(time.Hour)
	now := r.now
	r.mu.Unlock()
	after, err := r.PutSigningKey(r.as("sam"), account, "acme", SigningKey{ID: "line-1", PublicKey: f.text, Until: now.Add(-time.Minute)})
	if err != nil || !after.Keys[0].Until.Equal(now.Add(-time.Minute)) {
		t.Fatalf("%+v, %v", after, err)
	}
	_, err = r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: "l", Body: f.seal(written(t, "l", now, pump("B7-1")))})
	says(t, err, fault.InvalidRequest, "key line-1 of the supplier is not valid at this time")
	_, err = r.PutSigningKey(r.as("sam"), account, "acme", SigningKey{ID: "line-1", PublicKey: f.text, Until: now.Add(-2 * time.Hour)})
	says(t, err, fault.InvalidRequest, "validTo must be after validFrom")
}
