// Package oidctest is an OpenID provider for tests, with real signatures. Only tests
// import it.
package oidctest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"
)

// The client that a Provider knows.
const (
	Client = "muster"
	Secret = "s3cret"
)

// Provider is an OpenID provider on loopback that vouches for everybody, with
// real signatures.
type Provider struct {
	*httptest.Server

	t   testing.TB
	key *ecdsa.PrivateKey
	now func() time.Time

	mu sync.Mutex
	// codes are the requests that were let in, by code.
	codes  map[string]url.Values
	bend   func(map[string]any)
	signer *ecdsa.PrivateKey
	// claimed is the algorithm of tokens that nobody with the key has signed.
	claimed string
}

// New starts a provider whose tokens are of the given time and say
// that everybody is alice of the group ops.
func New(tb testing.TB, now func() time.Time) *Provider {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	p := &Provider{t: tb, key: key, signer: key, now: now, codes: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/auth", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"ES256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &p.key.PublicKey, KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	})
	mux.HandleFunc("POST /token", p.token)
	p.Server = httptest.NewServer(mux)
	tb.Cleanup(p.Close)
	return p
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // whoever asked is gone if this fails
}

// Bend changes the claims of tokens from now on, before they are signed.
func (p *Provider) Bend(change func(map[string]any)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bend = change
}

// ForgeKey signs from now on with a key that the provider does not publish.
func (p *Provider) ForgeKey() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signer = key
}

// Unsigned makes tokens from now on without the key: of the algorithm none, or of
// HS256 with what every client knows.
func (p *Provider) Unsigned(algorithm string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claimed = algorithm
}

// Enter is a person at the provider's page, to which a browser was sent: it
// returns what the browser brings back.
func (p *Provider) Enter(address string) (state, code string) {
	p.t.Helper()
	u, err := url.Parse(address)
	if err != nil || !strings.HasPrefix(address, p.URL+"/auth?") {
		p.t.Fatalf("sent to %q", address)
	}
	q := u.Query()
	if q.Get("client_id") != Client || q.Get("code_challenge_method") != "S256" || q.Get("response_type") != "code" || q.Get("nonce") == "" || !strings.Contains(q.Get("scope"), "openid") {
		p.t.Errorf("asked with %v", q)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	code = rand.Text()
	p.codes[code] = q
	return q.Get("state"), code
}

// token exchanges a code once, for whoever knows the verifier and the secret.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked, ok := p.codes[r.PostFormValue("code")]
	delete(p.codes, r.PostFormValue("code"))
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	if !ok || id != Client || secret != Secret || oauth2.S256ChallengeFromVerifier(r.PostFormValue("code_verifier")) != asked.Get("code_challenge") ||
		r.PostFormValue("redirect_uri") != asked.Get("redirect_uri") {
		http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
		return
	}
	claims := map[string]any{
		"iss": p.URL, "aud": Client, "nonce": asked.Get("nonce"), "iat": p.now().Unix(), "exp": p.now().Add(time.Minute).Unix(),
	}
	maps.Copy(claims, map[string]any{"sub": "0001", "preferred_username": "alice", "groups": []string{"ops"}})
	if p.bend != nil {
		p.bend(claims)
	}
	signed, err := p.sign(claims)
	if err != nil {
		p.t.Error(err)
		return
	}
	answerJSON(w, map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": signed})
}

// sign makes a token.
func (p *Provider) sign(claims map[string]any) (string, error) {
	if p.claimed != "" {
		return p.unsigned(claims)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: p.signer, KeyID: "k1"}}, nil)
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// unsigned makes a token of the claimed algorithm.
func (p *Provider) unsigned(claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	head := encode([]byte(`{"alg":"`+p.claimed+`","kid":"k1"}`)) + "." + encode(payload)
	if p.claimed == "none" {
		return head + ".", nil
	}
	mac := hmac.New(sha256.New, []byte(Secret))
	mac.Write([]byte(head))
	return head + "." + encode(mac.Sum(nil)), nil
}
