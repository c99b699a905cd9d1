package awsapi

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/awsapi/sigv4"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Keys looks access keys up. An unknown or inactive key is a fault of code
// Unauthorized or ResourceNotFound; any other error is ours.
type Keys interface {
	SecretKey(ctx context.Context, accessKeyID string) (secret string, account fleet.Account, principal fleet.Principal, err error)
}

// Sessions opens the credentials of sessions: what comes with a session token. A
// token that does not belong to the access key is a fault of code Unauthorized,
// and so is one that was revoked. The expiry is for the caller to
// check, after the signature.
type Sessions interface {
	SessionKey(ctx context.Context, accessKeyID, token string) (SessionKey, error)
}

// SessionKey is what a signature by a session is checked against, and whom it
// stands for.
type SessionKey struct {
	Secret    string
	Account   fleet.Account
	Principal fleet.Principal
	// Began is when the session was handed out, Until when it ends.
	Began, Until time.Time
}

// Devices recognizes client certificates on the data plane. The server name is
// the one of the TLS handshake, or else the host header. A certificate that is
// unknown or not active is a fault of code Unauthorized or Forbidden.
type Devices interface {
	DeviceIdentity(ctx context.Context, certificate *x509.Certificate, serverName string) (fleet.Account, fleet.Principal, error)
}

// Custom proves callers of the data plane by what an operator's own code
// understands: neither a signature nor a certificate.
type Custom interface {
	// CustomIdentity answers false for a request that brings nothing of the kind.
	// A caller that is not let in is a fault of code Unauthorized. The server name
	// is that of Devices.
	CustomIdentity(r *http.Request, serverName string) (CustomIdentity, bool, error)
}

// CustomIdentity is a caller that Custom has proven.
type CustomIdentity struct {
	Account   fleet.Account
	Principal fleet.Principal
	// Grant is handed to the Authorizer with each question about the caller.
	Grant any
}

// Authorizer decides whether a caller may. It is asked before every adapter,
// once per resource; a refusal is a fault of code Forbidden.
type Authorizer interface {
	Authorize(ctx context.Context, caller Caller, action, resource string) error
}

// Caller is who sent a request, proven.
type Caller struct {
	Account   fleet.Account
	Principal fleet.Principal
	// AccessKeyID is what the request was signed with; empty for other proofs.
	AccessKeyID string
	// SessionBegan and SessionUntil are when the session began and ends whose
	// credentials signed; zero for long-term keys.
	SessionBegan, SessionUntil time.Time
	// SourceAddress is the peer's IP address without port, Secure whether the
	// request came over TLS.
	SourceAddress string
	Secure        bool
	// Certificate is set when a client certificate was the proof, Grant when it
	// was the word of Custom, ServerName in both cases.
	Certificate *x509.Certificate
	Grant       any
	ServerName  string
}

// authenticate proves who calls: by signature, or on the data plane by client
// certificate. signature is nil for a request without one. Callers without either
// are left to byCustom.
func (s *Server) authenticate(r *http.Request, services []catalog.Service, signature *sigv4.Authorization, body []byte) (Caller, *problem) {
	caller := Caller{SourceAddress: sourceAddress(r), Secure: r.TLS != nil}
	if signature != nil {
		return s.bySignature(r, caller, signature, body)
	}
	if s.certified(r, services) {
		return s.byCertificate(r, caller)
	}
	return caller, signatureProblem(sigv4.ErrMissing)
}

// onDataPlane reports whether a request is for devices.
func onDataPlane(services []catalog.Service) bool {
	return len(services) > 0 && (services[0] == catalog.IoTData || services[0] == catalog.IoTJobsData)
}

// byCustom asks whether the caller brings credentials of the third kind.
func (s *Server) byCustom(r *http.Request, services []catalog.Service, caller Caller) (Caller, *problem) {
	missing := signatureProblem(sigv4.ErrMissing)
	if s.options.Custom == nil || !onDataPlane(services) {
		return caller, missing
	}
	caller.ServerName = serverName(r)
	id, found, err := s.options.Custom.CustomIdentity(r, caller.ServerName)
	switch code := fault.CodeOf(err); {
	case err == nil && !found:
		return caller, missing
	case err == nil:
		caller.Account, caller.Principal, caller.Grant = id.Account, id.Principal, id.Grant
		return caller, nil
	case code == fault.Unauthorized || code == fault.Forbidden:
		return caller, &problem{name: "ForbiddenException", status: http.StatusForbidden, message: "The custom authorizer does not let the caller in", cause: err}
	case code == fault.Throttling:
		return caller, &problem{name: "ThrottlingException", status: http.StatusTooManyRequests, message: fault.From(err).Message, cause: err}
	default:
		// What the operator's own code did is for the log, as on AWS.
		return caller, &problem{name: internalFailure, status: http.StatusInternalServerError, message: "Internal failure", cause: err}
	}
}

// serverName is the name that the client asked for.
func serverName(r *http.Request) string {
	if r.TLS != nil && r.TLS.ServerName != "" {
		return r.TLS.ServerName
	}
	return hostName(r.Host)
}

// certified reports whether a client certificate is proof for these services.
func (s *Server) certified(r *http.Request, services []catalog.Service) bool {
	return onDataPlane(services) && s.options.Devices != nil && r.TLS != nil && len(r.TLS.PeerCertificates) > 0
}

// bySignature checks the signature against the key's secret. hosts are further
// names of this server that the client may have signed.
func (s *Server) bySignature(r *http.Request, caller Caller, signature *sigv4.Authorization, body []byte, hosts ...string) (Caller, *problem) {
	key, p := s.signingKey(r.Context(), signature)
	if p != nil {
		return caller, p
	}
	if err := signature.Verify(r, body, key.Secret, s.options.Now(), hosts...); err != nil {
		return caller, signatureProblem(err)
	}
	if !key.Until.IsZero() && !s.options.Now().Before(key.Until) {
		return caller, &problem{name: "ExpiredTokenException", status: http.StatusForbidden, message: "The security token included in the request is expired"}
	}
	caller.Account, caller.Principal = key.Account, key.Principal
	caller.AccessKeyID, caller.SessionBegan, caller.SessionUntil = signature.AccessKeyID, key.Began, key.Until
	return caller, nil
}

// signingKey finds the secret of the key that a request names, or what is wrong
// with the key.
func (s *Server) signingKey(ctx context.Context, signature *sigv4.Authorization) (SessionKey, *problem) {
	var key SessionKey
	var err error
	switch {
	case signature.Token == "":
		key.Secret, key.Account, key.Principal, err = s.options.Keys.SecretKey(ctx, signature.AccessKeyID)
	case s.options.Sessions == nil:
		err = fault.New(fault.Unauthorized, "no session tokens here")
	default:
		key, err = s.options.Sessions.SessionKey(ctx, signature.AccessKeyID, signature.Token)
	}
	switch code := fault.CodeOf(err); code {
	case "":
		return key, nil
	case fault.Unauthorized, fault.ResourceNotFound:
		return key, &problem{name: "UnrecognizedClientException", status: http.StatusForbidden, message: "The security token included in the request is invalid", cause: err}
	default:
		return key, failed(err)
	}
}

// failed is what callers learn who could not be proven by our own failure.
func failed(err error) *problem {
	if f := fault.From(err); f.Code == fault.Unavailable {
		return &problem{name: "ServiceUnavailableException", status: http.StatusServiceUnavailable, message: f.Message, cause: err}
	}
	return &problem{name: internalFailure, status: http.StatusInternalServerError, message: "Internal failure", cause: err}
}

// byCertificate asks whose certificate it is.
func (s *Server) byCertificate(r *http.Request, caller Caller) (Caller, *problem) {
	caller.Certificate, caller.ServerName = r.TLS.PeerCertificates[0], serverName(r)
	account, principal, err := s.options.Devices.DeviceIdentity(r.Context(), caller.Certificate, caller.ServerName)
	if err != nil {
		p := &problem{name: "ForbiddenException", status: http.StatusForbidden, message: "The client certificate is not accepted", cause: err}
		if code := fault.CodeOf(err); code == fault.Internal || code == fault.Unavailable {
			p = failed(err)
		}
		return caller, p
	}
	caller.Account, caller.Principal = account, principal
	return caller, nil
}

// signatureProblem words a refused signature. Clients correct their clock when
// they read RequestTimeTooSkewed.
func signatureProblem(err error) *problem {
	p := &problem{status: http.StatusForbidden, message: capitalized(err.Error()), cause: err}
	switch {
	case errors.Is(err, sigv4.ErrMissing):
		p.name, p.message = "MissingAuthenticationTokenException", "Missing Authentication Token"
	case errors.Is(err, sigv4.ErrSkew):
		p.name = "RequestTimeTooSkewed"
	case errors.Is(err, sigv4.ErrMismatch):
		p.name, p.message = "InvalidSignatureException", "The signature does not match the request: check the secret access key and that nothing on the way changes the request"
	default:
		p.name, p.status = "IncompleteSignatureException", http.StatusBadRequest
	}
	return p
}

// capitalized begins a sentence with the text of an error.
func capitalized(text string) string {
	if text == "" || text[0] < 'a' || text[0] > 'z' {
		return text
	}
	return string(text[0]-'a'+'A') + text[1:]
}

// randomID returns a version 4 UUID.
func randomID() string {
	var b [16]byte
	// Read never fails; it ends the process rather than return weak bytes.
	_, _ = rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
