package signin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/testkit/oidctest"
)

// clock is the time of the doors that newDoor makes.
func clock() time.Time { return time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC) }

func optionsFor(p *oidctest.Provider) *OIDCOptions {
	return &OIDCOptions{
		Issuer: p.URL, ClientID: oidctest.Client, ClientSecret: oidctest.Secret, RedirectURL: "https://iot.example/ops/v1/sign-in/oidc/callback",
		Scopes: []string{"profile"}, Claim: "groups", Key: []byte(strings.Repeat("k", 32)),
		Roles: []RoleMapping{{Value: "admins", Account: home, Role: "admin"}, {Value: "ops", Account: home, Role: "operator"}, {Value: "old", Account: home, Role: "gone"}},
	}
}

// enter is a person who is let in by the provider.
func enter(p *oidctest.Provider, address string) Returned {
	state, code := p.Enter(address)
	return Returned{State: state, Code: code}
}

// challengeOf is what a page sends instead of its secret.
func challengeOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func TestOIDC(t *testing.T) {
	t.Parallel()
	p := oidctest.New(t, clock)
	d := newDoor(t, Limits{}, optionsFor(p))
	address, err := d.StartOIDC(t.Context(), challengeOf("page secret"), "/console/things?x=1")
	if err != nil {
		t.Fatal(err)
	}
	back := enter(p, address)
	vouched, err := d.FinishOIDC(t.Context(), back)
	if err != nil {
		t.Fatal(err)
	}
	if vouched.Return != "/console/things?x=1" || vouched.Account != home || d.role != "operator" || d.name != "alice" {
		t.Errorf("got %+v as %s in %s", vouched, d.name, d.role)
	}
	if _, err := d.FetchOIDC(t.Context(), rand.Text(), "page secret"); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("another code: %v", err)
	}
	session, err := d.FetchOIDC(t.Context(), vouched.Code, "page secret")
	if err != nil || session.Token != "operator for 1h0m0s" {
		t.Errorf("got %+v %v", session, err)
	}
	if _, err := d.FetchOIDC(t.Context(), vouched.Code, "page secret"); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("the code is good twice: %v", err)
	}
	if _, err := d.FinishOIDC(t.Context(), back); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("the provider's code is good twice: %v", err)
	}
}

// TestOIDCRefuses has somebody meddle at each step.
func TestOIDCRefuses(t *testing.T) {
	t.Parallel()
	claim := func(name string, value any) func(*door, *oidctest.Provider, *Returned) {
		return func(_ *door, p *oidctest.Provider, _ *Returned) {
			p.Bend(func(c map[string]any) { c[name] = value })
		}
	}
	for name, c := range map[string]struct {
		meddle func(*door, *oidctest.Provider, *Returned)
		code   fault.Code
	}{
		"nothing":           {func(*door, *oidctest.Provider, *Returned) {}, ""},
		"other nonce":       {claim("nonce", "x"), fault.Unauthorized},
		"no nonce":          {claim("nonce", nil), fault.Unauthorized},
		"other audience":    {claim("aud", "another"), fault.Unauthorized},
		"other issuer":      {claim("iss", "https://evil.example"), fault.Unauthorized},
		"expired":           {claim("exp", clock().Add(-time.Hour).Unix()), fault.Unauthorized},
		"other signer":      {func(_ *door, p *oidctest.Provider, _ *Returned) { p.ForgeKey() }, fault.Unauthorized},
		"no signature":      {func(_ *door, p *oidctest.Provider, _ *Returned) { p.Unsigned("none") }, fault.Unauthorized},
		"signed by secret":  {func(_ *door, p *oidctest.Provider, _ *Returned) { p.Unsigned("HS256") }, fault.Unauthorized},
		"long code":         {func(_ *door, _ *oidctest.Provider, r *Returned) { r.Code = strings.Repeat("A", 9999) }, fault.Unauthorized},
		"no role":           {claim("groups", []string{"visitors"}), fault.Forbidden},
		"no claim":          {claim("groups", nil), fault.Forbidden},
		"claim of a number": {claim("groups", 5), fault.Forbidden},
		"role that is gone": {claim("groups", "old"), fault.Forbidden},
		"one text":          {claim("groups", "ops"), ""},
		"two groups":        {claim("groups", []string{"ops", "admins"}), ""},
		"altered state":     {func(_ *door, _ *oidctest.Provider, r *Returned) { r.State = "AAAA" + r.State[4:] }, fault.Unauthorized},
		"no state":          {func(_ *door, _ *oidctest.Provider, r *Returned) { r.State = "" }, fault.Unauthorized},
		"long state":        {func(_ *door, _ *oidctest.Provider, r *Returned) { r.State = strings.Repeat("A", 9999) }, fault.Unauthorized},
		"too late":          {func(d *door, _ *oidctest.Provider, _ *Returned) { d.pass(11 * time.Minute) }, fault.Unauthorized},
		"other code":        {func(_ *door, _ *oidctest.Provider, r *Returned) { r.Code = "x" }, fault.Unauthorized},
		"refused there":     {func(_ *door, _ *oidctest.Provider, r *Returned) { r.Code, r.Error = "", "access_denied" }, fault.Unauthorized},
		"state of another flow": {func(d *door, p *oidctest.Provider, r *Returned) {
			other, err := d.StartOIDC(t.Context(), challengeOf("x"), "")
			if err == nil {
				r.State, _ = p.Enter(other)
			}
		}, fault.Unauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := oidctest.New(t, clock)
			d := newDoor(t, Limits{}, optionsFor(p))
			address, err := d.StartOIDC(t.Context(), challengeOf("page secret"), "")
			if err != nil {
				t.Fatal(err)
			}
			back := enter(p, address)
			c.meddle(d, p, &back)
			vouched, err := d.FinishOIDC(t.Context(), back)
			if code := fault.CodeOf(err); code != c.code {
				t.Fatalf("got %v, want %s", err, c.code)
			}
			if err != nil {
				return
			}
			if _, err := d.FetchOIDC(t.Context(), vouched.Code, "another page"); fault.CodeOf(err) != fault.Unauthorized {
				t.Errorf("another page fetches the credentials: %v", err)
			}
			if _, err := d.FetchOIDC(t.Context(), vouched.Code, "page secret"); fault.CodeOf(err) != fault.Unauthorized {
				t.Error("a code that was tried wrongly is still good")
			}
			if name == "two groups" && d.role != "admin" {
				t.Errorf("took %s, want the first of the map", d.role)
			}
		})
	}
}

func TestStartOIDCRefuses(t *testing.T) {
	t.Parallel()
	p := oidctest.New(t, clock)
	d := newDoor(t, Limits{}, optionsFor(p))
	good := challengeOf("x")
	for _, c := range [][2]string{
		{"", "/"},
		{"x", "/"},
		{good + "=", "/"},
		{good, "https://evil.example"},
		{good, "//evil.example"},
		{good, `/\evil.example`},
		{good, "/a#b"},
		{good, "/a\r\nSet-Cookie: x"},
		{good, "x"},
		{good, "/" + strings.Repeat("x", 600)},
	} {
		if _, err := d.StartOIDC(t.Context(), c[0], c[1]); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%.80q: %v", c, err)
		}
	}
	without := newDoor(t, Limits{}, nil)
	if _, err := without.StartOIDC(t.Context(), good, "/"); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("without a provider: %v", err)
	}
	away := optionsFor(p)
	away.Issuer = "http://127.0.0.1:1"
	if _, err := newDoor(t, Limits{}, away).StartOIDC(t.Context(), good, "/"); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("provider away: %v", err)
	}
}

// TestProviderThatHangs has a crowd begin while the provider does not answer: one
// asks it, the others leave when they lose patience, and for a while nobody asks
// again.
func TestProviderThatHangs(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	hangs := make(chan struct{})
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		<-hangs
		w.WriteHeader(http.StatusBadGateway)
	}))
	t.Cleanup(p.Close)
	d := newDoor(t, Limits{}, &OIDCOptions{Issuer: p.URL, Key: []byte(strings.Repeat("k", 32))})
	start := func(ctx context.Context) error {
		_, err := d.StartOIDC(ctx, challengeOf("x"), "/")
		return err
	}
	first := make(chan error, 1)
	go func() { first <- start(context.WithoutCancel(t.Context())) }()
	for asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	impatient, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	for range 5 {
		if err := start(impatient); fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("in the crowd: %v", err)
		}
	}
	close(hangs)
	if err := <-first; fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("the first: %v", err)
	}
	if err := start(t.Context()); fault.CodeOf(err) != fault.Unavailable || asked.Load() != 1 {
		t.Errorf("a moment later: %v, asked %d times", err, asked.Load())
	}
	d.pass(providerPause)
	if err := start(t.Context()); fault.CodeOf(err) != fault.Unavailable || asked.Load() != 2 {
		t.Errorf("after the pause: %v, asked %d times", err, asked.Load())
	}
}

// TestCodesAreExchangedAFewAtATime fills the places.
func TestCodesAreExchangedAFewAtATime(t *testing.T) {
	t.Parallel()
	p := oidctest.New(t, clock)
	d := newDoor(t, Limits{}, optionsFor(p))
	address, err := d.StartOIDC(t.Context(), challengeOf("page secret"), "/")
	if err != nil {
		t.Fatal(err)
	}
	back := enter(p, address)
	for range maxRedeeming {
		d.oidc.redeeming <- struct{}{}
	}
	if _, err := d.FinishOIDC(t.Context(), back); !errors.As(err, new(*ThrottledError)) {
		t.Errorf("without a place: %v", err)
	}
	<-d.oidc.redeeming
	if _, err := d.FinishOIDC(t.Context(), back); err != nil {
		t.Errorf("with a place: %v", err)
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	var claims map[string]any
	if err := json.Unmarshal([]byte(`{"a":"x","realm_access":{"roles":["r1",2,"r2"]},"b.c":["dotted"],"d":{"e":{"f":"deep"}}}`), &claims); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "[x]", "realm_access.roles": "[r1 r2]", "b.c": "[dotted]", "d.e.f": "[deep]", "d.e": "[]", "none": "[]", "a.b": "[]"} {
		if got := fmt.Sprint(claimValues(claims, name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for want, c := range map[string]map[string]any{
		"al-ce@x.org": {"preferred_username": "alïce@x.org"}, "a@x.org": {"email": "a@x.org"}, "s1": {"email": "a@x.org", "email_verified": false, "sub": "s1"},
		"oidc": {"sub": "x"}, strings.Repeat("y", 64): {"sub": strings.Repeat("y", 99)},
	} {
		if got := sessionName(c); got != want {
			t.Errorf("%v: %q, want %q", c, got, want)
		}
	}
}
