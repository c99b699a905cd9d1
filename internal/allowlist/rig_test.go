package allowlist

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
	"github.com/muster-iot/muster/internal/store/postgres"
	"github.com/muster-iot/muster/internal/testkit"
)

// cluster is the PostgreSQL of this binary's tests.
var cluster testkit.PostgresPool

func TestMain(m *testing.M) {
	code := m.Run()
	if err := cluster.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const account = fleet.Account("000000000042")

// rig is a Service with a supplier acme, whose keys the test holds.
type rig struct {
	*Service

	t      *testing.T
	engine store.Store
	log    *bytes.Buffer
	mu     sync.Mutex
	now    time.Time
	ids    int
}

func newIdentity(t *testing.T) *Identity {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	identity, err := ParseIdentity([]byte("# a comment\n" + key.String() + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

// newRig is a rig over the engine that is embedded.
func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigOver(t, func(t *testing.T) (store.Store, error) {
		t.Helper()
		return embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	})
}

func newRigOver(t *testing.T, open func(*testing.T) (store.Store, error)) *rig {
	t.Helper()
	r := &rig{t: t, log: &bytes.Buffer{}, now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	engine, err := open(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	r.engine = engine
	r.Service = r.over(engine, newIdentity(t))
	return r
}

// onEngines runs a test on each engine.
func onEngines(t *testing.T, test func(*testing.T, func(*testing.T) *rig)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, newRig)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, func(t *testing.T) *rig {
			t.Helper()
			return newRigOver(t, func(t *testing.T) (store.Store, error) {
				t.Helper()
				return postgres.Open(t.Context(), postgres.Options{URL: cluster.Get(t).Database(t), Logger: slog.New(slog.DiscardHandler)})
			})
		})
	})
}

// over is a Service of the rig's over a store.
func (r *rig) over(engine store.Store, identity *Identity) *Service {
	return New(Options{
		Store: engine, Identity: identity, Logger: slog.New(slog.NewTextHandler(r.log, nil)),
		Now: func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.now },
		NewID: func() string {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.ids++
			return fmt.Sprintf("id-%d", r.ids)
		},
	})
}

// as is a context in which a user calls.
func (r *rig) as(name string) context.Context {
	return fleet.WithActor(r.t.Context(), fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: name, ARN: "arn:aws:iam::000000000042:user/" + name}})
}

// events are all that was committed.
func (r *rig) events() []event.Event {
	r.t.Helper()
	var all []event.Event
	for cursor := (store.Cursor{}); ; {
		page, next, err := r.engine.Events(r.t.Context(), cursor, 1000)
		if err != nil {
			r.t.Fatal(err)
		}
		if len(page) == 0 {
			return all
		}
		for _, env := range page {
			all = append(all, env.Event)
		}
		cursor = next
	}
}

// factory signs lists as its own tools would.
type factory struct {
	t    *testing.T
	kid  string
	key  crypto.Signer
	jws  string
	text string
}

func newFactory(t *testing.T, algorithm Algorithm, kid string) *factory {
	t.Helper()
	f := &factory{t: t, kid: kid}
	var err error
	switch algorithm {
	case Ed25519:
		_, f.key, err = ed25519.GenerateKey(rand.Reader)
		f.jws = "EdDSA"
	case ES256:
		f.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		f.jws = "ES256"
	case RS256:
		f.key, err = rsa.GenerateKey(rand.Reader, 2048)
		f.jws = "RS256"
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(f.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	f.text = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	return f
}

// sign is a plain signature; of ECDSA in DER.
func (f *factory) sign(message []byte) []byte {
	f.t.Helper()
	var hash crypto.Hash
	input := message
	if f.jws != "EdDSA" {
		sum := sha256.Sum256(message)
		hash, input = crypto.SHA256, sum[:]
	}
	signature, err := f.key.Sign(rand.Reader, input, hash)
	if err != nil {
		f.t.Fatal(err)
	}
	return signature
}

// seal is a compact JWS, whose ES256 signatures are two numbers.
func (f *factory) seal(payload []byte) []byte {
	f.t.Helper()
	header, err := json.Marshal(map[string]string{"alg": f.jws, "kid": f.kid})
	if err != nil {
		f.t.Fatal(err)
	}
	message := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	signature := f.sign([]byte(message))
	if key, ok := f.key.(*ecdsa.PrivateKey); ok {
		sum := sha256.Sum256([]byte(message))
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			f.t.Fatal(err)
		}
		signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	return []byte(message + "." + base64.RawURLEncoding.EncodeToString(signature))
}

// plain is the base64 of a plain signature.
func (f *factory) plain(list []byte) string { return base64.StdEncoding.EncodeToString(f.sign(list)) }

// print is a made-up fingerprint.
func print(of string) string {
	sum := sha256.Sum256([]byte(of))
	return hex.EncodeToString(sum[:])
}

// written is the JSON form of a list.
func written(t *testing.T, list string, issued time.Time, entries ...Entry) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]any{"v": 1, "list": list, "model": "pump-g2", "issuedAt": issued.Format(time.RFC3339), "entries": append([]Entry{}, entries...)})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// acme registers the supplier with a factory's key.
func (r *rig) acme(f *factory, change func(*Supplier)) {
	r.t.Helper()
	s := Supplier{ID: "acme", Name: "Acme Pumps"}
	if change != nil {
		change(&s)
	}
	if _, err := r.PutSupplier(r.as("sam"), account, s); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.PutSigningKey(r.as("sam"), account, "acme", SigningKey{ID: f.kid, PublicKey: f.text}); err != nil {
		r.t.Fatal(err)
	}
}

// accepted uploads a list as uma and lets vic accept it.
func (r *rig) accepted(list string, body []byte) Revision {
	r.t.Helper()
	made, err := r.Upload(r.as("uma"), account, Upload{Supplier: "acme", List: list, Body: body})
	if err != nil {
		r.t.Fatal(err)
	}
	made, err = r.Accept(r.as("vic"), account, list, made.Number, "")
	if err != nil || made.Status != Accepted {
		r.t.Fatalf("%+v, %v", made, err)
	}
	return made
}

// pump is an entry.
func pump(serial string) Entry {
	return Entry{Serial: serial, Vetted: true, Fingerprint: print(serial), ManufacturedAt: "2026-11-18", Batch: "secret-batch", VetReport: "qa/8841", Generation: "2"}
}

// says fails unless an error has a code and words.
func says(t *testing.T, err error, code fault.Code, text string) {
	t.Helper()
	if fault.CodeOf(err) != code || !strings.Contains(fault.From(err).Message, text) {
		t.Errorf("got %s: %v, want %s: %s", fault.CodeOf(err), err, code, text)
	}
}
