package authorizer

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Request is a caller that wants to be let in.
type Request struct {
	Credentials Credentials
	// TLS, HTTP and MQTT are nil where the protocol is not used.
	TLS  *TLSData
	HTTP *HTTPData
	MQTT *MQTTData
	// ConnectionID names the connection in the function's log.
	ConnectionID string
	// Memory is that of the HTTP connection, nil for none.
	Memory *Memory
}

// Grant is the answer that lets a caller in.
type Grant struct {
	Answer

	Account fleet.Account
	// Authorizer is the name of the one that was asked.
	Authorizer string
}

// Memory keeps the last grant of one HTTP connection, for authorizers that
// allow it. The zero value is empty.
type Memory struct {
	mu    sync.Mutex
	of    [sha256.Size]byte
	until time.Time
	grant Grant
}

// Authenticate asks the authorizer that the credentials name, or the default
// one. It answers fault.Unauthorized for a caller that is not let in,
// fault.Throttling when the function is too busy, fault.Unavailable when there
// is no answer from it, and fault.InvalidResponse when its answer breaks the
// rules.
func (s *Service) Authenticate(ctx context.Context, account fleet.Account, r Request) (Grant, error) {
	grant, err := s.authenticate(ctx, account, r)
	s.attempts.WithLabelValues(outcome(err)).Inc()
	return grant, err
}

// outcome is the label of a result.
func outcome(err error) string {
	switch fault.CodeOf(err) {
	case "":
		return "accepted"
	case fault.Unauthorized:
		return "refused"
	case fault.Throttling:
		return "busy"
	case fault.InvalidResponse:
		return "invalid"
	default:
		return "failed"
	}
}

func (s *Service) authenticate(ctx context.Context, account fleet.Account, r Request) (Grant, error) {
	a, err := s.chosen(ctx, account, r.Credentials.Authorizer())
	if err != nil {
		return Grant{}, err
	}
	token, verified, err := verify(&a, r.Credentials.value(a.TokenKeyName), r.Credentials.signature())
	if err != nil {
		return Grant{}, err
	}
	remembering := a.CacheHTTP && r.Memory != nil && r.MQTT == nil && token != ""
	of := digest(account, &a, token)
	if remembering {
		if grant, ok := r.Memory.get(of, s.now()); ok {
			return grant, nil
		}
	}
	answer, err := s.invoke(ctx, account, &a, token, verified, &r)
	if err != nil {
		return Grant{}, err
	}
	if !answer.Authenticated {
		return Grant{}, fault.New(fault.Unauthorized, "The authorizer %s does not know the caller", a.Name)
	}
	grant := Grant{Answer: answer, Account: account, Authorizer: a.Name}
	if remembering {
		r.Memory.put(of, s.now().Add(answer.RefreshAfter), grant)
	}
	return grant, nil
}

// HasDefault reports whether callers that name no authorizer may be let in by
// one.
func (s *Service) HasDefault(ctx context.Context, account fleet.Account) (bool, error) {
	name, err := s.defaultName(ctx, account)
	return name != "", err
}

// chosen returns the authorizer to ask, which must be active.
func (s *Service) chosen(ctx context.Context, account fleet.Account, name string) (Authorizer, error) {
	if name == "" {
		var err error
		if name, err = s.defaultName(ctx, account); err != nil {
			return Authorizer{}, unavailable(err)
		}
		if name == "" {
			return Authorizer{}, fault.New(fault.Unauthorized, "The caller names no custom authorizer, and there is no default one")
		}
	}
	a, err := s.Describe(ctx, account, name)
	switch code := fault.CodeOf(err); {
	case code == fault.ResourceNotFound || code == fault.InvalidRequest:
		return Authorizer{}, fault.Wrap(fault.Unauthorized, err, "There is no authorizer of the name %.128q", name)
	case err != nil:
		return Authorizer{}, unavailable(err)
	case a.Status != StatusActive:
		return Authorizer{}, fault.New(fault.Unauthorized, "The authorizer %s is %s", name, a.Status)
	}
	return a, nil
}

func unavailable(err error) error {
	return fault.Wrap(fault.Unavailable, err, "The authorizers cannot be read now")
}

// verify checks the token's signature where the authorizer demands one, so that
// strangers do not even reach the function.
func verify(a *Authorizer, token, signature string) (checked string, verified bool, err error) {
	if a.TokenKeyName == "" {
		token = ""
	}
	if len(token) > maxToken {
		return "", false, fault.New(fault.Unauthorized, "The token is longer than %d bytes", maxToken)
	}
	if a.SigningDisabled {
		return token, false, nil
	}
	switch {
	case token == "":
		return "", false, fault.New(fault.Unauthorized, "The authorizer %s needs a token under the name %s", a.Name, a.TokenKeyName)
	case signature == "":
		return "", false, fault.New(fault.Unauthorized, "The authorizer %s needs a signature of the token under the name %s", a.Name, KeySignature)
	case len(signature) > maxSignature:
		return "", false, fault.New(fault.Unauthorized, "The signature is longer than %d bytes", maxSignature)
	}
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return "", false, fault.Wrap(fault.Unauthorized, err, "The signature of the token is no base64")
	}
	sum := sha256.Sum256([]byte(token))
	for _, text := range a.Keys {
		key, err := parseKey(text)
		if err != nil {
			return "", false, err
		}
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], raw) == nil {
			return token, true, nil
		}
	}
	return "", false, fault.New(fault.Unauthorized, "The signature of the token fits no key of the authorizer %s", a.Name)
}

// invoke asks the function.
func (s *Service) invoke(ctx context.Context, account fleet.Account, a *Authorizer, token string, verified bool, r *Request) (Answer, error) {
	name, ok := functionOf(s.scope(account), a.FunctionARN)
	if !ok || !s.functions.Has(name) {
		return Answer{}, fault.New(fault.Unavailable, "This server is not configured with the function %s of the authorizer %s", a.FunctionARN, a.Name)
	}
	in := input{
		Token: token, SignatureVerified: verified,
		ProtocolData:       protocolData{TLS: r.TLS, HTTP: r.HTTP, MQTT: r.MQTT},
		ConnectionMetadata: connectionMetadata{ID: r.ConnectionID},
	}
	if in.ConnectionMetadata.ID == "" {
		in.ConnectionMetadata.ID = s.newID()
	}
	for _, p := range []struct {
		used bool
		name string
	}{{r.TLS != nil, "tls"}, {r.HTTP != nil, "http"}, {r.MQTT != nil, "mqtt"}} {
		if p.used {
			in.Protocols = append(in.Protocols, p.name)
		}
	}
	data, err := json.Marshal(in)
	if err != nil {
		return Answer{}, fault.Wrap(fault.Internal, err, "Internal failure")
	}
	out, err := s.functions.Invoke(ctx, name, data, InvokeLimit)
	switch {
	case err != nil && s.isBusy(err):
		return Answer{}, fault.Wrap(fault.Throttling, err, "The function of the authorizer %s is busy", a.Name)
	case err != nil:
		return Answer{}, fault.Wrap(fault.Unavailable, err, "The function of the authorizer %s gave no answer", a.Name)
	}
	return parseAnswer(a.Name, out)
}

// TestCommand is an invocation on behalf of an operator.
type TestCommand struct {
	Name      string
	Token     string
	Signature string
	TLS       *TLSData
	HTTP      *HTTPData
	MQTT      *MQTTData
}

// Test asks an authorizer, active or not, as for a caller with the given token,
// and returns its answer also when that is no.
func (s *Service) Test(ctx context.Context, account fleet.Account, c TestCommand) (Answer, error) {
	a, err := s.Describe(ctx, account, c.Name)
	if err != nil {
		return Answer{}, err
	}
	token, verified, err := verify(&a, c.Token, c.Signature)
	if err != nil {
		return Answer{}, fault.Wrap(fault.InvalidRequest, err, "%s", fault.From(err).Message)
	}
	return s.invoke(ctx, account, &a, token, verified, &Request{TLS: c.TLS, HTTP: c.HTTP, MQTT: c.MQTT})
}

// digest names what a remembered grant was for: any change of the authorizer
// makes it worthless. One HTTP connection may call several accounts.
func digest(account fleet.Account, a *Authorizer, token string) [sha256.Size]byte {
	data, _ := json.Marshal([]any{account, a.Name, a.version, token}) // texts and a number always have a form
	return sha256.Sum256(data)
}

// get returns the grant if it is for the same and not too old.
func (m *Memory) get(of [sha256.Size]byte, now time.Time) (Grant, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.grant, m.of == of && now.Before(m.until)
}

// put replaces the grant.
func (m *Memory) put(of [sha256.Size]byte, until time.Time, grant Grant) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.of, m.until, m.grant = of, until, grant
}
