package iot

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/awsapi/sigv4"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/iotpolicy"
	"github.com/muster-iot/muster/internal/pagetoken"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
	"github.com/muster-iot/muster/internal/tag"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account fleet.Account = "000000000001"
	arnBase string        = "arn:aws:iot:eu-local-1:000000000001:"
)

// start is the time at which the clock of a rig stands.
var start = time.Date(2026, 3, 1, 12, 0, 0, 500e6, time.UTC)

// rig is the control plane over HTTP with everything behind it but the broker.
type rig struct {
	t           *testing.T
	url         string
	engine      *embedded.Engine
	registry    *registry.Service
	index       *index.Index
	shadows     *shadow.Service
	connections connections
	applied     store.Cursor
}

// connections knows what the test says.
type connections map[string]*Connectivity

func (c connections) Connectivity(_ context.Context, _ fleet.Account, thing string) (*Connectivity, error) {
	return c[thing], nil
}

// keys knows one access key.
type keys struct{}

func (keys) SecretKey(context.Context, string) (string, fleet.Account, fleet.Principal, error) {
	return "secret", account, fleet.Principal{Kind: fleet.PrincipalUser, ID: "root"}, nil
}

// everyone may do everything that names a resource of the account.
type everyone struct{}

func (everyone) Authorize(_ context.Context, _ awsapi.Caller, action, resource string) error {
	if resource != awsapi.AnyResource && !strings.HasPrefix(resource, arnBase) {
		return fault.New(fault.Forbidden, "%s on %s", action, resource)
	}
	return nil
}

// source knows no shadow and no connection.
type source struct{}

func (source) ThingState(context.Context, fleet.Account, string) (index.State, error) {
	return index.State{}, nil
}

// committer hands memberships to the registry.
type committer struct{ r **registry.Service }

func (c committer) CommitMembership(ctx context.Context, changes []index.MembershipChange, _ store.Cursor) error {
	made := make([]registry.MembershipChange, len(changes))
	for i, change := range changes {
		made[i] = registry.MembershipChange(change)
	}
	return (*c.r).CommitMembership(ctx, made)
}

func (c committer) CommitComplete(ctx context.Context, groups []index.CompleteGroup) error {
	made := make([]registry.CompleteGroup, len(groups))
	for i, g := range groups {
		made[i] = registry.CompleteGroup(g)
	}
	return (*c.r).CommitComplete(ctx, made)
}

// issuer makes self-signed certificates.
type issuer struct{}

func (issuer) CreateKeysAndCertificate(ctx context.Context) (certificate, public, private []byte, err error) {
	certificate, err = issuer{}.SignCSR(ctx, nil)
	return certificate, []byte("public key"), []byte("private key"), err
}

func (issuer) CreateClaim(ctx context.Context, _ time.Time) (certificate, public, private []byte, err error) {
	return issuer{}.CreateKeysAndCertificate(ctx)
}

func (issuer) SignCSR(context.Context, []byte) ([]byte, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: start, NotAfter: start.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, connections: connections{}}
	log, now := slog.New(slog.DiscardHandler), func() time.Time { return start }
	var err error
	r.engine, err = embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: log, CacheBytes: 1 << 20, ReserveBytes: -1})
	r.check(err)
	t.Cleanup(func() { r.check(r.engine.Close()) })
	r.index = index.New(index.Options{Committer: committer{&r.registry}, Source: source{}, Logger: log})
	r.check(r.index.Build().Finish(t.Context(), store.Cursor{}))
	r.shadows = shadow.New(shadow.Options{Store: r.engine, Now: now})
	var ids atomic.Int64
	r.registry, err = registry.New(registry.Options{
		Store: r.engine, Region: "eu-local-1", Now: now, Issuer: issuer{}, Logger: log,
		NewID:      func() string { return fmt.Sprintf("id-%d", ids.Add(1)) },
		CheckQuery: func(q string) error { _, err := r.index.ParseThings(q); return err },
		CheckPolicy: func(d []byte) error {
			_, err := iotpolicy.Parse(d, iotpolicy.Limits{})
			return err
		},
		GroupStatus: func(a fleet.Account, g, q string) string { return string(r.index.GroupStatus(a, g, q)) },
		Indexing: registry.IndexingOptions{
			Check: func(query string, things *fleet.ThingIndexing) error {
				q, err := r.index.ParseThings(query)
				if err != nil {
					return err
				}
				return index.CheckIndexed(q, things)
			},
		},
		Endpoints: registry.Endpoints{
			Data:        func(fleet.Account) string { return "data.example" },
			Jobs:        func(fleet.Account) string { return "jobs.example" },
			Credentials: func(fleet.Account) string { return "credentials.example" },
		},
	})
	r.check(err)
	c, err := catalog.New()
	r.check(err)
	s, err := awsapi.New(awsapi.Options{
		Catalog: c, Keys: keys{}, Authorizer: everyone{}, Region: "eu-local-1", TokenKey: bytes.Repeat([]byte{7}, pagetoken.KeySize),
		Now: now, Logger: log, Registerer: prometheus.NewRegistry(), Strict: true,
	})
	r.check(err)
	tags, err := tag.New(tag.Options{Store: r.engine, Region: "eu-local-1", Now: now, Finders: r.registry.TagFinders()})
	r.check(err)
	Register(s, Deps{Registry: r.registry, Index: r.index, Shadows: r.shadows, Connections: r.connections, Tags: tags})
	listener := httptest.NewServer(s)
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		listener.Close()
	})
	r.url = listener.URL
	return r
}

func (r *rig) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// follow lets the index apply what was committed since the last time, and what
// it commits itself.
func (r *rig) follow() {
	r.t.Helper()
	for {
		events, next, err := r.engine.Events(r.t.Context(), r.applied, 1000)
		r.check(err)
		if len(events) == 0 {
			return
		}
		r.check(r.index.Apply(r.t.Context(), events))
		r.applied = next
	}
}

// reply is what came back.
type reply struct {
	status int
	kind   string
	body   map[string]any
}

// call sends a signed request. The body is JSON text; headers are pairs.
func (r *rig) call(method, path, body string, headers ...string) reply {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	r.check(err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	r.check(sigv4.Sign(request, []byte(body), sigv4.Key{AccessKeyID: "AK", Secret: "secret"}, sigv4.Scope{Region: "eu-local-1", Service: "iot"}, start))
	response, err := http.DefaultClient.Do(request)
	r.check(err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	r.check(err)
	got := reply{status: response.StatusCode, kind: response.Header.Get("X-Amzn-Errortype")}
	if len(data) > 0 {
		if err := json.Unmarshal(data, &got.body); err != nil {
			r.t.Fatalf("%s %s: %q: %v", method, path, data, err)
		}
	}
	return got
}

// answers fails unless the call succeeds with a body that has at least what
// the wanted JSON has. In it, "*" stands for any value.
func (r *rig) answers(method, path, body, want string, headers ...string) map[string]any {
	r.t.Helper()
	got := r.call(method, path, body, headers...)
	if got.status != http.StatusOK {
		r.t.Fatalf("%s %s: %d %s %v", method, path, got.status, got.kind, got.body)
	}
	var wanted any
	r.check(json.Unmarshal([]byte(want), &wanted))
	if where := lacks(wanted, got.body, ""); where != "" {
		r.t.Fatalf("%s %s: %s in %v", method, path, where, got.body)
	}
	return got.body
}

// refuses fails unless the call is refused with the status and exception.
func (r *rig) refuses(method, path, body string, status int, exception string, headers ...string) map[string]any {
	r.t.Helper()
	got := r.call(method, path, body, headers...)
	if got.status != status || got.kind != exception {
		r.t.Fatalf("%s %s: %d %s %v, want %d %s", method, path, got.status, got.kind, got.body, status, exception)
	}
	return got.body
}

// lacks names the first place where got has not what is wanted.
func lacks(want, got any, at string) string {
	if want == "*" && got != nil {
		return ""
	}
	wanted, isObject := want.(map[string]any)
	if !isObject {
		if !reflect.DeepEqual(want, got) {
			return fmt.Sprintf("%s is %v, want %v", at, got, want)
		}
		return ""
	}
	object, isObject := got.(map[string]any)
	if !isObject {
		return fmt.Sprintf("%s is %v, want an object", at, got)
	}
	for name, value := range wanted {
		if where := lacks(value, object[name], at+"/"+name); where != "" {
			return where
		}
	}
	return ""
}

// names reads a list page by page, following the token, and returns one member
// of each item, or the items themselves when it is empty.
func (r *rig) names(method, path, list, member, tokenIn, tokenOut string) []string {
	r.t.Helper()
	var all []string
	next := ""
	for range 100 {
		got := r.answers(method, path+next, "", `{"`+list+`":"*"}`)
		items, _ := got[list].([]any)
		for _, item := range items {
			if member != "" {
				item = item.(map[string]any)[member]
			}
			all = append(all, fmt.Sprint(item))
		}
		token, more := got[tokenOut].(string)
		if !more {
			return all
		}
		separator := "?"
		if strings.Contains(path, "?") {
			separator = "&"
		}
		next = separator + tokenIn + "=" + url.QueryEscape(token)
	}
	r.t.Fatal("the list does not end")
	return nil
}

// wantNames compares lists.
func wantNames(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}
