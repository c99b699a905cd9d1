package adminapi

import (
	"context"
	"errors"
	"io"
	"math"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	operators "github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/signin"
)

// maxSignIn bounds the body of a sign-in, whose sender nobody knows.
const maxSignIn = 8 << 10

// sessionOutput is the credentials of a session.
type sessionOutput struct {
	Account         string    `json:"account"`
	ARN             string    `json:"arn"`
	AccessKeyID     string    `json:"accessKeyId"`
	SecretAccessKey string    `json:"secretAccessKey"`
	SessionToken    string    `json:"sessionToken"`
	Expiration      time.Time `json:"expiration"`
}

func showSession(s operators.Session) sessionOutput {
	return sessionOutput{
		Account: string(s.Account), ARN: s.Principal.ARN, AccessKeyID: s.ID, SecretAccessKey: s.Secret, SessionToken: s.Token, Expiration: s.Until,
	}
}

// signInInput is the body of POST /ops/v1/sign-in.
type signInInput struct {
	Account     string `json:"account"`
	User        string `json:"user"`
	Password    string `json:"password"`
	NewPassword string `json:"newPassword"`
}

// routeSignIn adds the operations that nobody has signed.
func (h *handler) routeSignIn(mux *routes) {
	mux.HandleFunc("GET "+Prefix+"sign-in", h.signInMethods)
	mux.HandleFunc("POST "+Prefix+"sign-in", h.signIn)
	mux.HandleFunc("POST "+Prefix+"sign-out", h.signOut)
	mux.HandleFunc("GET "+Prefix+"sign-in/oidc/start", h.startOIDC)
	mux.HandleFunc("GET "+Prefix+"sign-in/oidc/callback", h.finishOIDC)
	mux.HandleFunc("POST "+Prefix+"sign-in/oidc/token", h.fetchOIDC)
}

// peer is the address that a request came from, without port.
func peer(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// unsigned reads the body of a request without signature. A page of another site
// cannot send JSON here.
func unsigned(w http.ResponseWriter, r *http.Request, into any) error {
	w.Header().Set("Cache-Control", "no-store")
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return fault.New(fault.InvalidRequest, "the body must be application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSignIn))
	if err != nil {
		return fault.Wrap(fault.InvalidRequest, err, "the body is longer than %d bytes or ends early", maxSignIn)
	}
	return decodeStrictly(body, into)
}

// signedIn is the one place that tells of a sign-in, whether it succeeded or not.
func (h *handler) signedIn(ctx context.Context, w http.ResponseWriter, of fleet.Account, who fleet.Principal, method string, err error) {
	if who.Kind == fleet.PrincipalAnonymous {
		callOf(w).SignIn("", who, method)
	} else {
		callOf(w).SignIn(of, who, method)
	}
	if h.o.SignedIn != nil {
		h.o.SignedIn(ctx, of, who, method, err)
	}
}

// signInMethods tells a page what to offer.
func (h *handler) signInMethods(w http.ResponseWriter, r *http.Request) {
	h.answer(w, r, map[string]bool{"password": true, "oidc": h.o.SignIn.HasOIDC()})
}

// signIn lets a user in by password.
func (h *handler) signIn(w http.ResponseWriter, r *http.Request) {
	var in signInInput
	if err := unsigned(w, r, &in); err != nil {
		h.fail(w, r, err)
		return
	}
	result, err := h.o.SignIn.Password(r.Context(), signin.Attempt{
		Account: fleet.Account(in.Account), User: in.User, Password: in.Password, NewPassword: in.NewPassword, SourceAddress: peer(r),
	})
	// What was typed as a name may be a password: it is told of only when there is
	// such a user.
	who, of := fleet.Principal{Kind: fleet.PrincipalAnonymous}, fleet.Account(in.Account)
	if of == "" {
		of = h.o.SignIn.DefaultAccount()
	}
	if err == nil || result.KnownUser {
		who = signin.UserPrincipal(of, in.User)
	}
	h.signedIn(r.Context(), w, of, who, "password", err)
	if err == nil && in.NewPassword != "" {
		callOf(w).Ask(map[string]any{"method": "password", "newPassword": true}) // the trail hides what it was
	}
	switch {
	case err != nil:
		h.failSignIn(w, r, err)
	case result.MustChange:
		h.answer(w, r, map[string]bool{"passwordChangeRequired": true})
	default:
		h.answer(w, r, showSession(result.Session))
	}
}

// failSignIn answers a refusal, with when to come again if it is for now.
func (h *handler) failSignIn(w http.ResponseWriter, r *http.Request, err error) {
	if throttled, ok := errors.AsType[*signin.ThrottledError](err); ok {
		seconds := int(math.Ceil(throttled.After.Seconds()))
		w.Header().Set("Retry-After", strconv.Itoa(max(1, seconds)))
		err = fault.Wrap(fault.Throttling, err, "Too many failed sign-ins; try again in %d seconds", max(1, seconds))
	}
	h.fail(w, r, err)
}

// signOut makes the browser forget what pages of this server keep. The
// credentials are good until they end: revoke-sessions voids them.
func (h *handler) signOut(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Clear-Site-Data", `"cache", "storage"`)
	h.answer(w, r, struct{}{})
}

// startOIDC sends the browser to the provider.
func (h *handler) startOIDC(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	address, err := h.o.SignIn.StartOIDC(r.Context(), query.Get("challenge"), query.Get("return"))
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, address, http.StatusFound) //nolint:gosec // the provider of the settings, not of the request
}

// finishOIDC takes the browser back. The code travels in the fragment, which
// browsers send to nobody, and is worth nothing without the page's secret.
func (h *handler) finishOIDC(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	vouched, err := h.o.SignIn.FinishOIDC(r.Context(), signin.Returned{State: query.Get("state"), Code: query.Get("code"), Error: query.Get("error")})
	who := vouched.Principal
	if err != nil {
		who = fleet.Principal{Kind: fleet.PrincipalAnonymous}
	}
	h.signedIn(r.Context(), w, vouched.Account, who, "oidc", err)
	if err != nil {
		h.failSignIn(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.Redirect(w, r, vouched.Return+"#"+url.Values{"sign-in-code": {vouched.Code}}.Encode(), http.StatusSeeOther)
}

// fetchOIDC hands the credentials to the page that began.
func (h *handler) fetchOIDC(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Code   string `json:"code"`
		Secret string `json:"secret"`
	}
	if err := unsigned(w, r, &in); err != nil {
		h.fail(w, r, err)
		return
	}
	session, err := h.o.SignIn.FetchOIDC(r.Context(), in.Code, in.Secret)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.answer(w, r, showSession(session))
}
