package signin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"

	"github.com/muster-iot/muster/internal/fault"
)

// provider is an OpenID provider that vouches for everybody, with real signatures.
type provider struct {
	*httptest.Server

	t   *testing.T
	key *ecdsa.PrivateKey

	mu sync.Mutex
	// codes are the requests that were let in, by code.
	codes  map[string]url.Values
	claims map[string]any
	// bend changes the token before it is signed, signer is another key to sign
	// with.
	bend   func(map[string]any)
	signer *ecdsa.PrivateKey
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{t: t, key: key, signer: key, codes: map[string]url.Values{}, claims: map[string]any{"sub": "0001", "preferred_username": "alice", "groups": []string{"ops"}}}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/auth", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"ES256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &p.key.PublicKey, KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	})
	mux.HandleFunc("POST /token", p.token)
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

// enter is the person at the provider's page: it returns what the browser brings
// back.
func (p *provider) enter(address string) Returned {
	p.t.Helper()
	u, err := url.Parse(address)
	if err != nil || !strings.HasPrefix(address, p.URL+"/auth?") {
		p.t.Fatalf("sent to %q", address)
	}
	q := u.Query()
	if q.Get("client_id") != "muster" || q.Get("code_challenge_method") != "S256" || q.Get("response_type") != "code" || q.Get("nonce") == "" || !strings.Contains(q.Get("scope"), "openid") {
		p.t.Errorf("asked with %v", q)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	code := rand.Text()
	p.codes[code] = q
	return Returned{State: q.Get("state"), Code: code}
}

// token exchanges a code once, for whoever knows the verifier and the secret.
func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked, ok := p.codes[r.PostFormValue("code")]
	delete(p.codes, r.PostFormValue("code"))
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	if !ok || id != "muster" || secret != "s3cret" || oauth2.S256ChallengeFromVerifier(r.PostFormValue("code_verifier")) != asked.Get("code_challenge") ||
		r.PostFormValue("redirect_uri") != asked.Get("redirect_uri") {
		http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
		return
	}
	claims := map[string]any{
		"iss": p.URL, "aud": "muster", "nonce": asked.Get("nonce"), "iat": clock().Unix(), "exp": clock().Add(time.Minute).Unix(),
	}
	for name, value := range p.claims {
		claims[name] = value
	}
	if p.bend != nil {
		p.bend(claims)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: p.signer, KeyID: "k1"}}, nil)
	if err != nil {
		p.t.Error(err)
		return
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		p.t.Error(err)
		return
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		p.t.Error(err)
		return
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		p.t.Error(err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": raw})
}

// clock is the time of the doors that newDoor makes.
func clock() time.Time { return time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC) }

func (p *provider) options() *OIDCOptions {
	return &OIDCOptions{
		Issuer: p.URL, ClientID: "muster", ClientSecret: "s3cret", RedirectURL: "https://iot.example/ops/v1/sign-in/oidc/callback",
		Scopes: []string{"profile"}, Claim: "groups", Key: []byte(strings.Repeat("k", 32)),
		Roles: []RoleMapping{{Value: "admins", Account: home, Role: "admin"}, {Value: "ops", Account: home, Role: "operator"}, {Value: "old", Account: home, Role: "gone"}},
	}
}

// challengeOf is what a page sends instead of its secret.
func challengeOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func TestOIDC(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	d := newDoor(t, Limits{}, p.options())
	address, err := d.StartOIDC(t.Context(), challengeOf("page secret"), "/console/things?x=1")
	if err != nil {
		t.Fatal(err)
	}
	back := p.enter(address)
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
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	claim := func(name string, value any) func(*door, *provider, *Returned) {
		return func(_ *door, p *provider, _ *Returned) { p.bend = func(c map[string]any) { c[name] = value } }
	}
	for name, c := range map[string]struct {
		meddle func(*door, *provider, *Returned)
		code   fault.Code
	}{
		"nothing":           {func(*door, *provider, *Returned) {}, ""},
		"other nonce":       {claim("nonce", "x"), fault.Unauthorized},
		"no nonce":          {claim("nonce", nil), fault.Unauthorized},
		"other audience":    {claim("aud", "another"), fault.Unauthorized},
		"other issuer":      {claim("iss", "https://evil.example"), fault.Unauthorized},
		"expired":           {claim("exp", clock().Add(-time.Hour).Unix()), fault.Unauthorized},
		"other signer":      {func(_ *door, p *provider, _ *Returned) { p.signer = stranger }, fault.Unauthorized},
		"no role":           {claim("groups", []string{"visitors"}), fault.Forbidden},
		"no claim":          {claim("groups", nil), fault.Forbidden},
		"claim of a number": {claim("groups", 5), fault.Forbidden},
		"role that is gone": {claim("groups", "old"), fault.Forbidden},
		"one text":          {claim("groups", "ops"), ""},
		"two groups":        {claim("groups", []string{"ops", "admins"}), ""},
		"altered state":     {func(_ *door, _ *provider, r *Returned) { r.State = "AAAA" + r.State[4:] }, fault.Unauthorized},
		"no state":          {func(_ *door, _ *provider, r *Returned) { r.State = "" }, fault.Unauthorized},
		"long state":        {func(_ *door, _ *provider, r *Returned) { r.State = strings.Repeat("A", 9999) }, fault.Unauthorized},
		"too late":          {func(d *door, _ *provider, _ *Returned) { d.pass(11 * time.Minute) }, fault.Unauthorized},
		"other code":        {func(_ *door, _ *provider, r *Returned) { r.Code = "x" }, fault.Unauthorized},
		"refused there":     {func(_ *door, _ *provider, r *Returned) { r.Code, r.Error = "", "access_denied" }, fault.Unauthorized},
		"state of another flow": {func(d *door, p *provider, r *Returned) {
			other, err := d.StartOIDC(p.t.Context(), challengeOf("x"), "")
			if err != nil {
				p.t.Error(err)
			}
			r.State = p.enter(other).State
		}, fault.Unauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			d := newDoor(t, Limits{}, p.options())
			address, err := d.StartOIDC(t.Context(), challengeOf("page secret"), "")
			if err != nil {
				t.Fatal(err)
			}
			back := p.enter(address)
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
	p := newProvider(t)
	d := newDoor(t, Limits{}, p.options())
	good := challengeOf("x")
	for _, c := range [][2]string{
		{"", "/"}, {"x", "/"}, {good + "=", "/"}, {good, "https://evil.example"}, {good, "//evil.example"}, {good, `/\evil.example`},
		{good, "/a#b"}, {good, "/a\r\nSet-Cookie: x"}, {good, "x"}, {good, "/" + strings.Repeat("x", 600)},
	} {
		if _, err := d.StartOIDC(t.Context(), c[0], c[1]); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%.80q: %v", c, err)
		}
	}
	without := newDoor(t, Limits{}, nil)
	if _, err := without.StartOIDC(t.Context(), good, "/"); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("without a provider: %v", err)
	}
	away := p.options()
	away.Issuer = "http://127.0.0.1:1"
	if _, err := newDoor(t, Limits{}, away).StartOIDC(t.Context(), good, "/"); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("provider away: %v", err)
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
