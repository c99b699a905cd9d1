package authorizer

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account     fleet.Account = "000000000001"
	functionARN string        = "arn:aws:lambda:eu-local-1:000000000001:function:gate"
	allowAll    string        = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
)

var errBusy = errors.New("busy")

// functions is one function, gate, that answers what the test says.
type functions struct {
	mu     sync.Mutex
	answer string
	err    error
	inputs []string
}

func (f *functions) Has(name string) bool { return name == "gate" }

func (f *functions) Invoke(_ context.Context, _ string, input []byte, limit time.Duration) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if limit != InvokeLimit {
		return nil, errors.New("without limit")
	}
	f.inputs = append(f.inputs, string(input))
	return []byte(f.answer), f.err
}

// asked is how often the function was.
func (f *functions) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.inputs)
}

// rig is a Service on an engine in memory.
type rig struct {
	*Service

	t         *testing.T
	engine    store.Store
	functions *functions
	now       time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	engine, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{t: t, engine: engine, functions: &functions{answer: `{"isAuthenticated":false}`}, now: time.UnixMilli(1795412345000).UTC()}
	r.Service, err = New(Options{
		Store: engine, Region: "eu-local-1", Functions: r.functions, IsBusy: func(err error) bool { return errors.Is(err, errBusy) },
		Now: func() time.Time { return r.now }, NewID: func() string { return "made" }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// create adds an authorizer that must be accepted.
func (r *rig) create(c CreateCommand) {
	r.t.Helper()
	if c.FunctionARN == "" {
		c.FunctionARN = functionARN
	}
	if c.Status == "" {
		c.Status = StatusActive
	}
	if _, err := r.Create(r.t.Context(), account, c); err != nil {
		r.t.Fatal(err)
	}
}

// unsigned adds an active authorizer without signing.
func (r *rig) unsigned(name string) {
	r.t.Helper()
	r.create(CreateCommand{Name: name, SigningDisabled: true})
}

// events are the facts in the log with their state.
func (r *rig) events() []event.Event {
	r.t.Helper()
	all, _, err := r.engine.Events(r.t.Context(), store.Cursor{}, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []event.Event
	for _, e := range all {
		if e.Account != account || !e.At.Equal(r.now) {
			r.t.Errorf("event %+v has a wrong place", e)
		}
		out = append(out, e.Event)
	}
	return out
}

func wantCode(t *testing.T, err error, want fault.Code) {
	t.Helper()
	if got := fault.CodeOf(err); got != want {
		t.Errorf("got %v, want code %q", err, want)
	}
}

func wantEqual(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(Authorizer{})); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
}

// signer is a key that signs tokens, made once: making one is slow.
var signer = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// publicPEM is the public half of a key.
func publicPEM(key any) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// sign makes the signature of a token.
func sign(token string) string {
	sum := sha256.Sum256([]byte(token))
	raw, err := rsa.SignPKCS1v15(nil, signer(), crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(raw)
}
