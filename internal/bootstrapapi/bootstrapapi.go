// Package bootstrapapi is the front end of the bootstrap address over HTTPS: one path, on
// a server name of its own, for devices that show a certificate. It decodes, asks,
// encodes, and decides nothing; it starts no goroutines. The form of the answer is
// that of MQTT too.
package bootstrapapi

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/bootstrap"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// Path is the one that is served.
const Path = "/bootstrap"

// maxBody bounds a request body in bytes: there is nothing to say.
const maxBody = 1 << 10

// AnswerPayload is where and how a device joins.
type AnswerPayload struct {
	Account string `json:"account"`
	Region  string `json:"region"`
	// Endpoint is the host name to connect to and to name in TLS: it selects the account.
	Endpoint string       `json:"endpoint"`
	Ports    PortsPayload `json:"ports"`
	// ServerRoots are the authorities to trust there, PEM.
	ServerRoots string `json:"serverRoots,omitempty"`
	// Method is CLAIM or BIRTH_CERTIFICATE.
	Method        bootstrap.Method  `json:"method"`
	TemplateName  string            `json:"templateName,omitempty"`
	Parameters    map[string]string `json:"parameters"`
	Configuration map[string]string `json:"configuration"`
	Approval      ApprovalPayload   `json:"approval"`
	// ExpiresAt is when to ask again at the latest, RFC 3339 in UTC; absent for never.
	ExpiresAt string `json:"expiresAt,omitempty"`
}

// PortsPayload are those of the endpoint; absent where nothing listens.
type PortsPayload struct {
	MQTT  int `json:"mqtt,omitempty"`
	HTTPS int `json:"https,omitempty"`
}

// ApprovalPayload is how the device stands with those who decide about it.
type ApprovalPayload struct {
	State     bootstrap.Approval `json:"state"`
	RequestID string             `json:"requestId,omitempty"`
}

// PayloadOf is the wire form of an answer.
func PayloadOf(a *bootstrap.Answer) AnswerPayload {
	out := AnswerPayload{
		Account: string(a.Account), Region: a.Region, Endpoint: a.Endpoint, Ports: PortsPayload(a.Ports), ServerRoots: a.Roots,
		Method: a.Method, TemplateName: a.Template, Parameters: a.Parameters, Configuration: a.Configuration,
		Approval: ApprovalPayload{State: a.Standing.Approval, RequestID: a.Standing.Request},
	}
	if out.Parameters == nil {
		out.Parameters = map[string]string{}
	}
	if out.Configuration == nil {
		out.Configuration = map[string]string{}
	}
	if !a.Expires.IsZero() {
		out.ExpiresAt = a.Expires.UTC().Format(time.RFC3339)
	}
	return out
}

// RefusalPayload is what a device learns that is not told, as with fleet provisioning.
type RefusalPayload struct {
	StatusCode   int    `json:"statusCode"`
	ErrorCode    string `json:"errorCode"`
	ErrorMessage string `json:"errorMessage"`
}

// refusalOf chooses status, code and text of a refusal.
func refusalOf(err error) RefusalPayload {
	f := fault.From(err)
	switch f.Code { //nolint:exhaustive // the rest is the server's
	case fault.InvalidRequest:
		return RefusalPayload{http.StatusBadRequest, "InvalidPayload", f.Message}
	case fault.Unauthorized:
		return RefusalPayload{http.StatusUnauthorized, "Unauthorized", f.Message}
	case fault.Forbidden:
		return RefusalPayload{http.StatusForbidden, "AccessDenied", f.Message}
	case fault.ResourceNotFound:
		return RefusalPayload{http.StatusNotFound, "ResourceNotFound", f.Message}
	case fault.NotOffered:
		return RefusalPayload{http.StatusMethodNotAllowed, "MethodNotAllowed", f.Message}
	case fault.Conflict:
		return RefusalPayload{http.StatusConflict, "ResourceConflict", f.Message}
	case fault.RequestEntityTooLarge:
		return RefusalPayload{http.StatusRequestEntityTooLarge, "InvalidPayload", f.Message}
	case fault.Throttling:
		return RefusalPayload{http.StatusTooManyRequests, "Throttled", f.Message}
	case fault.Unavailable:
		return RefusalPayload{http.StatusServiceUnavailable, "ServiceUnavailable", f.Message}
	}
	return RefusalPayload{http.StatusInternalServerError, "InternalError", "Internal service failure"}
}

// Options of New; all are required.
type Options struct {
	Ask    func(ctx context.Context, q bootstrap.Question) (bootstrap.Answer, error)
	Logger *slog.Logger
}

// New returns the handler of the bootstrap's server name: it serves Path, and says so
// everywhere else.
func New(o Options) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := serve(o.Ask, r)
		if err != nil {
			refusal := refusalOf(err)
			if refusal.StatusCode == http.StatusInternalServerError {
				o.Logger.ErrorContext(r.Context(), "bootstrap request failed", slog.String("remote_addr", r.RemoteAddr), slog.Any("err", err))
			}
			reply(w, refusal.StatusCode, refusal)
			return
		}
		reply(w, http.StatusOK, PayloadOf(&answer))
	})
}

// serve asks for one request.
func serve(ask func(context.Context, bootstrap.Question) (bootstrap.Answer, error), r *http.Request) (bootstrap.Answer, error) {
	switch {
	case r.URL.Path != Path:
		return bootstrap.Answer{}, fault.New(fault.ResourceNotFound, "This name serves %s and nothing else", Path)
	case r.Method != http.MethodGet && r.Method != http.MethodPost:
		return bootstrap.Answer{}, fault.New(fault.NotOffered, "The method must be GET or POST")
	case r.TLS == nil || len(r.TLS.PeerCertificates) == 0:
		return bootstrap.Answer{}, fault.New(fault.Unauthorized, "A client certificate is required")
	}
	if err := nothing(r); err != nil {
		return bootstrap.Answer{}, err
	}
	c := r.TLS.PeerCertificates[0]
	ctx := fleet.WithActor(r.Context(), ActorOf(c, r.RemoteAddr))
	return ask(ctx, bootstrap.Question{Certificate: c, Transport: bootstrap.HTTPS, Address: r.RemoteAddr})
}

// ActorOf is who asks with a certificate.
func ActorOf(c *x509.Certificate, address string) fleet.Actor {
	return fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: registry.CertificateID(c.Raw)}, SourceAddress: hostOf(address)}
}

// hostOf drops the port of an address.
func hostOf(address string) string {
	if i := strings.LastIndexByte(address, ':'); i > 0 {
		return strings.Trim(address[:i], "[]")
	}
	return address
}

// nothing takes no body, or an object without members.
func nothing(r *http.Request) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return fault.Wrap(fault.InvalidRequest, err, "The body cannot be read")
	case len(body) > maxBody:
		return fault.New(fault.RequestEntityTooLarge, "The body must have at most %d bytes", maxBody)
	case len(body) == 0:
		return nil
	}
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.DisallowUnknownFields()
	var empty *struct{}
	if err := decoder.Decode(&empty); err != nil || empty == nil {
		return fault.Wrap(fault.InvalidRequest, err, "The body must be empty or {}")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return fault.New(fault.InvalidRequest, "The body must be empty or {}")
	}
	return nil
}

// retryAfter is what a device that asks too often is told, in seconds.
const retryAfter = "60"

// reply writes an answer that nobody may keep.
func reply(w http.ResponseWriter, status int, payload any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", retryAfter)
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(payload) // the caller may have left
}
