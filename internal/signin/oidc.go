package signin

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

const (
	// flowLife is how long somebody may take at the provider.
	flowLife = 10 * time.Minute
	// codeLife is how long a page may take to fetch its credentials.
	codeLife = time.Minute
	// maxCodes bounds the sign-ins whose page has not fetched its credentials yet.
	maxCodes = 1024
	// providerTimeout bounds each call to the provider.
	providerTimeout = 10 * time.Second
	// providerPause is how long a provider that was not to be reached is left alone.
	providerPause = 5 * time.Second
	// maxRedeeming bounds the codes that are exchanged at a time.
	maxRedeeming = 16
	// maxProviderCode bounds the code that comes back.
	maxProviderCode = 4 << 10
	// maxState bounds what comes back in the state parameter.
	maxState = 4 << 10
	// challengeSize is that of a SHA-256 in unpadded base64.
	challengeSize = 43
)

// RoleMapping lets people act in a role for whom the provider says a value.
type RoleMapping struct {
	Value   string
	Account fleet.Account
	Role    string
}

// OIDCOptions describe a provider of OpenID Connect and what its word is worth.
type OIDCOptions struct {
	Issuer, ClientID, ClientSecret string
	// RedirectURL is the address of the callback, as the provider knows it.
	RedirectURL string
	// Scopes are asked for beside openid.
	Scopes []string
	// Claim names the claim that roles are mapped by; dots lead into objects.
	Claim string
	// Roles are tried in order; the first whose value the claim has is taken.
	Roles []RoleMapping
	// Key is secret bytes, the same on every node.
	Key []byte
	// Client reaches the provider; nil is one with a time limit.
	Client *http.Client
}

// oidcFlow is the authorization code flow with PKCE. What belongs to a person on
// the way is sealed into the state parameter, so that starting flows costs no
// memory.
type oidcFlow struct {
	o     *OIDCOptions
	codes bounded[fetchable]

	// redeeming bounds the calls that strangers can cause.
	redeeming chan struct{}
	// turn is held while the provider is asked for its description.
	turn chan struct{}

	mu       sync.Mutex
	provider *oidc.Provider
	// failed is when and how it was last not to be reached.
	failed   time.Time
	failedBy error
}

// fetchable is a session that waits for the page that began the sign-in.
type fetchable struct {
	session   account.Session
	challenge string
}

// flowState is what the state parameter seals.
type flowState struct {
	Nonce string `json:"n"`
	// Verifier is that of PKCE.
	Verifier string `json:"v"`
	// Challenge is the page's, Return where it wants to go on.
	Challenge string `json:"c"`
	Return    string `json:"r"`
	At        int64  `json:"t"`
}

func newOIDCFlow(o *OIDCOptions) *oidcFlow {
	if o.Client == nil {
		o.Client = &http.Client{Timeout: providerTimeout}
	}
	return &oidcFlow{o: o, turn: make(chan struct{}, 1), redeeming: make(chan struct{}, maxRedeeming), codes: bounded[fetchable]{life: codeLife, most: maxCodes}}
}

// HasOIDC reports whether a provider vouches for people.
func (s *Service) HasOIDC() bool { return s.oidc != nil }

// flow returns the flow or says that there is none.
func (s *Service) flow() (*oidcFlow, error) {
	if s.oidc == nil {
		return nil, fault.New(fault.ResourceNotFound, "Sign-in with OpenID Connect is not set up; see the settings sign-in.oidc")
	}
	return s.oidc, nil
}

// known returns the provider's description if it was asked for, or why it could
// not be a moment ago.
func (f *oidcFlow) known(now time.Time) (*oidc.Provider, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.provider == nil && f.failedBy != nil && now.Sub(f.failed) < providerPause {
		return nil, f.failedBy
	}
	return f.provider, nil
}

// discover returns the provider's description, which is asked for once. Anybody
// may begin a sign-in, so one at a time asks a provider that does not answer, and
// not again at once.
func (f *oidcFlow) discover(ctx context.Context, now func() time.Time) (*oidc.Provider, error) {
	if found, err := f.known(now()); found != nil || err != nil {
		return found, err
	}
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "The OpenID provider cannot be reached")
	}
	if found, err := f.known(now()); found != nil || err != nil {
		return found, err
	}
	// The provider keeps this context for fetching keys later.
	found, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), f.o.Client), f.o.Issuer)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failed, f.failedBy = now(), fault.Wrap(fault.Unavailable, err, "The OpenID provider cannot be reached")
		return nil, f.failedBy
	}
	f.provider = found
	return found, nil
}

// client is the description of this server as a client of the provider.
func (f *oidcFlow) client(p *oidc.Provider) *oauth2.Config {
	return &oauth2.Config{
		ClientID: f.o.ClientID, ClientSecret: f.o.ClientSecret, RedirectURL: f.o.RedirectURL,
		Endpoint: p.Endpoint(), Scopes: append([]string{oidc.ScopeOpenID}, f.o.Scopes...),
	}
}

// aead seals the state parameter.
func (f *oidcFlow) aead() (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, f.o.Key, nil, "muster sign-in state", 32)
	if err != nil {
		return nil, fmt.Errorf("derive state key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("state key: %w", err)
	}
	sealer, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("state key: %w", err)
	}
	return sealer, nil
}

// StartOIDC returns the provider's address to send a browser to. challenge is the
// unpadded base64 of the SHA-256 of a secret that the page keeps; back is the
// path to which the browser returns in the end.
func (s *Service) StartOIDC(ctx context.Context, challenge, back string) (address string, err error) {
	f, err := s.flow()
	if err != nil {
		return "", err
	}
	if raw, err := base64.RawURLEncoding.Strict().DecodeString(challenge); err != nil || len(raw) != sha256.Size || len(challenge) != challengeSize {
		return "", fault.New(fault.InvalidRequest, "challenge: must be the SHA-256 of the page's secret in unpadded base64url")
	}
	if back == "" {
		back = "/"
	}
	if !localPath(back) {
		return "", fault.New(fault.InvalidRequest, "return: must be a path on this server")
	}
	p, err := f.discover(ctx, s.o.Now)
	if err != nil {
		return "", err
	}
	state := flowState{
		Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Challenge: challenge, Return: back, At: s.o.Now().Unix(),
	}
	plain, err := json.Marshal(state)
	if err != nil {
		return "", fmt.Errorf("encode state: %w", err)
	}
	sealer, err := f.aead()
	if err != nil {
		return "", err
	}
	sealed := base64.RawURLEncoding.EncodeToString(sealer.Seal(nil, nil, plain, nil)) //nolint:gosec // this AEAD makes the nonce itself.
	return f.client(p).AuthCodeURL(sealed, oidc.Nonce(state.Nonce), oauth2.S256ChallengeOption(state.Verifier)), nil
}

// localPath reports whether a browser stays on this server with a path. A second
// slash or a backslash would name another one.
func localPath(path string) bool {
	return len(path) <= 512 && strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") &&
		strings.IndexFunc(path, func(r rune) bool { return r <= ' ' || r == '\\' || r == '#' || r >= 0x7f }) < 0
}

// open reads a state parameter.
func (f *oidcFlow) open(sealed string, now time.Time) (flowState, error) {
	var state flowState
	refuse := func(cause error) (flowState, error) {
		return state, fault.Wrap(fault.Unauthorized, cause, "The sign-in did not begin here or took too long; begin again")
	}
	if len(sealed) > maxState {
		return refuse(errors.New("state is too long"))
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(sealed)
	if err != nil {
		return refuse(err)
	}
	sealer, err := f.aead()
	if err != nil {
		return state, err
	}
	plain, err := sealer.Open(nil, nil, raw, nil)
	if err == nil {
		err = json.Unmarshal(plain, &state)
	}
	if err != nil {
		return refuse(err)
	}
	if age := now.Sub(time.Unix(state.At, 0)); age < -time.Minute || age > flowLife {
		return refuse(errors.New("state is old"))
	}
	return state, nil
}

// Returned is what a browser brings back from the provider.
type Returned struct {
	State, Code string
	// Error is what the provider says when it does not vouch.
	Error string
}

// Vouched is a sign-in that a provider vouched for.
type Vouched struct {
	Account   fleet.Account
	Principal fleet.Principal
	// Code fetches the credentials once, Return is where the page goes on.
	Code, Return string
}

// FinishOIDC takes what the provider says about a person. The credentials wait
// for the page that began; what is returned is safe to show in an address.
func (s *Service) FinishOIDC(ctx context.Context, in Returned) (Vouched, error) {
	f, err := s.flow()
	if err != nil {
		return Vouched{}, err
	}
	state, err := f.open(in.State, s.o.Now())
	if err != nil {
		return Vouched{}, err
	}
	if in.Error != "" || in.Code == "" || len(in.Code) > maxProviderCode {
		return Vouched{}, fault.New(fault.Unauthorized, "The OpenID provider does not let you in: %.100q", in.Error)
	}
	// Anybody may bring any code, and each is a call to the provider.
	select {
	case f.redeeming <- struct{}{}:
		defer func() { <-f.redeeming }()
	default:
		return Vouched{}, &ThrottledError{After: time.Second}
	}
	claims, err := f.redeem(ctx, in.Code, state, s.o.Now)
	if err != nil {
		return Vouched{}, err
	}
	mapping, ok := f.role(claims)
	if !ok {
		return Vouched{}, fault.New(fault.Forbidden, "No role is mapped to what the OpenID provider says in %q", f.o.Claim)
	}
	session, err := s.o.Accounts.RoleSession(ctx, mapping.Account, mapping.Role, sessionName(claims), s.o.Session)
	if err != nil {
		s.o.Logger.WarnContext(ctx, "sign-in with OpenID Connect is mapped to a role that cannot be taken",
			slog.String("role", mapping.Role), slog.Any("err", err))
		return Vouched{}, fault.Wrap(fault.Forbidden, err, "The role %q, which you are mapped to, cannot be taken", mapping.Role)
	}
	code := rand.Text()
	f.codes.put(code, fetchable{session, state.Challenge}, s.o.Now())
	return Vouched{Account: session.Account, Principal: session.Principal, Code: code, Return: state.Return}, nil
}

// redeem exchanges the code for a token about the person and checks it.
func (f *oidcFlow) redeem(ctx context.Context, code string, state flowState, now func() time.Time) (map[string]any, error) {
	refuse := func(cause error) error {
		return fault.Wrap(fault.Unauthorized, cause, "What the OpenID provider sent is not valid")
	}
	p, err := f.discover(ctx, now)
	if err != nil {
		return nil, err
	}
	ctx = oidc.ClientContext(ctx, f.o.Client)
	token, err := f.client(p).Exchange(ctx, code, oauth2.VerifierOption(state.Verifier))
	if err != nil {
		return nil, refuse(fmt.Errorf("exchange the code: %w", err))
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return nil, refuse(errors.New("no id_token in the answer"))
	}
	id, err := p.VerifierContext(ctx, &oidc.Config{ClientID: f.o.ClientID, Now: now}).Verify(ctx, raw)
	if err != nil {
		return nil, refuse(err)
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(state.Nonce)) != 1 {
		return nil, refuse(errors.New("nonce is another one"))
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return nil, refuse(err)
	}
	return claims, nil
}

// role finds the first mapping whose value the claim has.
func (f *oidcFlow) role(claims map[string]any) (RoleMapping, bool) {
	values := claimValues(claims, f.o.Claim)
	for _, mapping := range f.o.Roles {
		if slices.Contains(values, mapping.Value) {
			return mapping, true
		}
	}
	return RoleMapping{}, false
}

// claimValues returns the texts of a claim. A name with dots is a claim of that
// name, or leads into objects.
func claimValues(claims map[string]any, name string) []string {
	found, ok := claims[name]
	for at := claims; !ok; {
		head, rest, more := strings.Cut(name, ".")
		if !more {
			found = at[head]
			break
		}
		next, isObject := at[head].(map[string]any)
		if !isObject {
			return nil
		}
		at, name = next, rest
	}
	switch v := found.(type) {
	case string:
		return []string{v}
	case []any:
		var all []string
		for _, each := range v {
			if text, ok := each.(string); ok {
				all = append(all, text)
			}
		}
		return all
	}
	return nil
}

// sessionName is what a person is called in ARNs and in the audit trail.
func sessionName(claims map[string]any) string {
	const longest = 64
	for _, name := range []string{"preferred_username", "email", "sub"} {
		text, _ := claims[name].(string)
		if name == "email" && claims["email_verified"] == false {
			continue
		}
		clean := strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_+=,.@-", r) {
				return r
			}
			return '-'
		}, text)
		if len(clean) > longest {
			clean = clean[:longest]
		}
		if len(clean) >= 2 {
			return clean
		}
	}
	return "oidc"
}

// FetchOIDC hands out the credentials of a sign-in, once, to the page that began
// it: secret is what its challenge was made of.
func (s *Service) FetchOIDC(_ context.Context, code, secret string) (account.Session, error) {
	f, err := s.flow()
	if err != nil {
		return account.Session{}, err
	}
	found, ok := f.codes.take(code, s.o.Now())
	sum := sha256.Sum256([]byte(secret))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	if !ok || subtle.ConstantTimeCompare([]byte(challenge), []byte(found.challenge)) != 1 {
		return account.Session{}, fault.New(fault.Unauthorized, "The code is not known, was used, is too old, or belongs to another page")
	}
	return found.session, nil
}
