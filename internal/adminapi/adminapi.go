// Package adminapi is the REST front end under /ops/v1: what operators need
// and AWS has no call for. It decodes, calls, encodes, and decides nothing; it
// starts no goroutines.
package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	operators "github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/audit"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/signin"
)

// Prefix is the path that all of this front end lies under.
const Prefix = "/ops/v1/"

// maxBody bounds a request body in bytes; no request here needs more.
const maxBody = 64 << 10

// Actions that the caller needs, on resource "*".
const (
	ActionBackup = "ops:Backup"
	ActionDoctor = "ops:Doctor"
	ActionDrain  = "ops:Drain"
	ActionRepair = "ops:Repair"
)

// Finding is one thing that doctor found wrong.
type Finding struct {
	// Check is the comparison that failed, for example "index".
	Check string `json:"check"`
	// Subject is the key or name that differs.
	Subject string `json:"subject"`
	Detail  string `json:"detail"`
	// Have and Want are what it is and what it should be; empty for a check that
	// can only say what is wrong.
	Have string `json:"have,omitempty"`
	Want string `json:"want,omitempty"`
	// Repairable says that repair can make it right.
	Repairable bool `json:"repairable"`
}

// Notice is something that is not wrong, and that an operator may not know.
type Notice struct {
	Check   string `json:"check"`
	Subject string `json:"subject"`
	Detail  string `json:"detail"`
}

// Report is what doctor looked at and found.
type Report struct {
	// Checked counts what each comparison looked at.
	Checked  map[string]int `json:"checked"`
	Findings []Finding      `json:"findings"`
	// Notices do not count as differences.
	Notices []Notice `json:"notices,omitempty"`
}

// Repaired is what a repair did.
type Repaired struct {
	// Repaired counts the differences that are gone, by check.
	Repaired map[string]int `json:"repaired"`
	// Remaining is what doctor says afterwards.
	Remaining Report `json:"remaining"`
}

// Options are the calls that this front end makes.
type Options struct {
	// Authorize authenticates a request, checks the action and returns the
	// request with a context that carries the actor.
	Authorize func(r *http.Request, body []byte, action string) (*http.Request, error)
	// AuthorizeOn is Authorize for an action on one resource of the caller's account.
	AuthorizeOn func(r *http.Request, body []byte, action string, resource func(of fleet.Account) string) (*http.Request, error)
	// Operators are users, groups, roles, policies and keys.
	Operators *operators.Service
	// SignIn lets people in who have no key.
	SignIn *signin.Service
	// SignedIn is told of every sign-in and every failed one; method is password or
	// oidc, who is anonymous for a failed one that names no user. It may be nil.
	SignedIn func(ctx context.Context, of fleet.Account, who fleet.Principal, method string, err error)
	// AuthenticateHead refuses a request that nobody known can have sent, before
	// its body is read; optional.
	AuthenticateHead func(r *http.Request) error
	// Backup streams an archive encrypted to an age recipient.
	Backup func(ctx context.Context, w io.Writer, recipient string) error
	// Doctor compares store, log and projections.
	Doctor func(ctx context.Context) (Report, error)
	// Repair makes projections agree with the store again.
	Repair func(ctx context.Context) (Repaired, error)
	// StartDrain begins to tell devices to leave over a time, that of the
	// settings when over is negative; EndDrain lets them in again.
	StartDrain  func(ctx context.Context, over time.Duration) error
	DrainStatus func() DrainStatus
	EndDrain    func() bool
	// Devices explains refusals.
	Devices Devices
	// Accounts manages accounts.
	Accounts Accounts
	// Policies looks for mistakes in policies.
	Policies Policies
	// History answers what became of connections.
	History History
	// Memberships answers who was in which group, WhyMember why somebody is.
	Memberships Memberships
	WhyMember   func(ctx context.Context, account fleet.Account, group, thing string) (MembershipReason, error)
	// Connectivity answers what state devices have settled to.
	Connectivity Connectivity
	// ShadowHistory and Drifts answer what became of shadows.
	ShadowHistory ShadowHistory
	Drifts        Drifts
	// Decommissioner and AttributeRules act on things and their types.
	Decommissioner Decommissioner
	AttributeRules AttributeRules
	// Certificates answers what expires and takes over revocation lists.
	Certificates Certificates
	// Births says what certificates are for, and which things are in quarantine.
	Births Births
	// Templates tries provisioning templates.
	Templates Templates
	// Renewals answers about exchanged certificates.
	Renewals Renewals
	// Approvals decides who joins.
	Approvals Approvals
	// AllowLists is what suppliers have made.
	AllowLists AllowLists
	// ClaimUses is what claims are used for.
	ClaimUses ClaimUses
	// Bootstrap says where devices are sent.
	Bootstrap Bootstrap
	// Plans are how devices come into service, Onboarding how far each is.
	Plans      Plans
	Onboarding Onboarding
	// Ledger keeps the lives of devices.
	Ledger Ledger
	// Promises compares things with what their templates promised.
	Promises Promises
	// BulkEdits changes what a query finds.
	BulkEdits BulkEdits
	// Importer makes and changes things in bulk.
	Importer Importer
	// Exporter lists them.
	Exporter Exporter
	// Permit asks whether the caller, known from the context that Authorize
	// returned, may do a further action on a resource.
	Permit func(ctx context.Context, action, resource string) error
	// ARN names a resource of the caller's account; kinds are those of fleet.
	ARN func(ctx context.Context, kind, name string) string
	// Tokens seals the places where lists go on.
	Tokens PageTokens
	// Account is the caller's, from the context that Authorize returned.
	Account func(ctx context.Context) fleet.Account
	// FleetIndex tells about the index.
	FleetIndex FleetIndex
	// Recorder keeps what is called in the audit trail, which Audit answers from.
	Recorder *audit.Recorder
	Audit    Audit
	Now      func() time.Time
	Logger   *slog.Logger
}

type handler struct {
	o Options
	// imports bounds the revocation lists that are held at a time.
	imports chan struct{}
}

// New returns the handler for everything under Prefix.
func New(o Options) http.Handler {
	h := &handler{o: o, imports: make(chan struct{}, maxImports)}
	return h.recorded(h.routes())
}

// routes are all operations, and what answers where there is none.
func (h *handler) routes() *routes {
	mux := newRoutes()
	mux.HandleFunc("POST "+Prefix+"backup", h.backup)
	mux.HandleFunc("GET "+Prefix+"doctor", h.doctor)
	mux.HandleFunc("POST "+Prefix+"doctor/repair", h.repair)
	h.handleDenials(mux)
	h.handleHistory(mux)
	h.handleMemberships(mux)
	h.handleConnectivity(mux)
	h.routeShadows(mux)
	h.handleThings(mux)
	h.handleAttributeRules(mux)
	h.handleImport(mux)
	h.handleExport(mux)
	h.routeDrain(mux)
	h.routeOperators(mux)
	h.routeSignIn(mux)
	h.handleCertificates(mux)
	h.handleAccounts(mux)
	h.routeAudit(mux)
	h.routePolicyLint(mux)
	h.routeIndex(mux)
	h.routeBulkEdits(mux)
	h.routeTemplateTest(mux)
	h.routePlans(mux)
	h.routeOnboarding(mux)
	h.routeBootstrap(mux)
	h.routeLedger(mux)
	h.routeDrift(mux)
	mux.HandleFunc(Prefix, func(w http.ResponseWriter, r *http.Request) {
		h.fail(w, r, fault.New(fault.ResourceNotFound, "%s %s is no operation of %s", r.Method, r.URL.Path, Prefix))
	})
	return mux
}

// backupInput is the body of POST /ops/v1/backup.
type backupInput struct {
	// Recipient is an age public key, age1….
	Recipient string `json:"recipient"`
}

// enter reads the body and asks for permission.
func (h *handler) enter(w http.ResponseWriter, r *http.Request, action string) (*http.Request, []byte, error) {
	return h.enterUpTo(w, r, action, maxBody)
}

// enterUpTo is enter for a body of another size.
func (h *handler) enterUpTo(w http.ResponseWriter, r *http.Request, action string, limit int64) (*http.Request, []byte, error) {
	return h.enterWith(w, r, action, limit, func(body []byte) []byte { return body })
}

// enterSilently is enterUpTo for a body of which nothing goes into the audit trail.
func (h *handler) enterSilently(w http.ResponseWriter, r *http.Request, action string, limit int64) (*http.Request, []byte, error) {
	return h.enterWith(w, r, action, limit, func([]byte) []byte { return nil })
}

// enterWith is enter with what of the body goes into the audit trail.
func (h *handler) enterWith(w http.ResponseWriter, r *http.Request, action string, limit int64, recorded func(body []byte) []byte) (*http.Request, []byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return r, nil, fault.Wrap(fault.InvalidRequest, err, "the body is longer than %d bytes or ends early", limit)
	}
	describe(w, r, recorded(body), action)
	authorized, err := h.o.Authorize(r, body, action)
	if err != nil {
		return r, nil, err
	}
	callOf(w).Grant()
	return authorized, body, nil
}

// enterOn is enter for an action on one resource of the caller's account.
func (h *handler) enterOn(w http.ResponseWriter, r *http.Request, action string, resource func(of fleet.Account) string) (*http.Request, []byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return r, nil, fault.Wrap(fault.InvalidRequest, err, "the body is longer than %d bytes or ends early", maxBody)
	}
	describe(w, r, body, action)
	authorized, err := h.o.AuthorizeOn(r, body, action, resource)
	if err != nil {
		return r, nil, err
	}
	callOf(w).Grant()
	return authorized, body, nil
}

func (h *handler) backup(w http.ResponseWriter, r *http.Request) {
	r, body, err := h.enter(w, r, ActionBackup)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	var in backupInput
	if err := json.Unmarshal(body, &in); err != nil || in.Recipient == "" {
		h.fail(w, r, fault.New(fault.InvalidRequest, `the body must be {"recipient":"age1…"}`))
		return
	}
	out := &startedWriter{ResponseWriter: w}
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := h.o.Backup(r.Context(), out, in.Recipient); err != nil { //nolint:contextcheck // enter returned the same request with the actor
		if !out.started {
			w.Header().Del("Content-Type")
			h.fail(w, r, err)
			return
		}
		// The reader sees a broken stream, and the archive's authentication
		// fails: nobody takes it for whole.
		h.o.Logger.ErrorContext(r.Context(), "backup broke off", slog.Any("err", err)) //nolint:contextcheck // as above
		panic(http.ErrAbortHandler)
	}
}

func (h *handler) doctor(w http.ResponseWriter, r *http.Request) {
	r, _, err := h.enter(w, r, ActionDoctor)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	report, err := h.o.Doctor(r.Context()) //nolint:contextcheck // as above
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if report.Findings == nil {
		report.Findings = []Finding{}
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(report); err != nil {
		h.o.Logger.InfoContext(r.Context(), "caller left before the answer", slog.Any("err", err)) //nolint:contextcheck // as above
	}
}

func (h *handler) repair(w http.ResponseWriter, r *http.Request) {
	r, body, err := h.enter(w, r, ActionRepair)
	if err == nil && len(body) > 0 {
		err = fault.New(fault.InvalidRequest, "the body must be empty")
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	repaired, err := h.o.Repair(r.Context()) //nolint:contextcheck // as above
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if repaired.Remaining.Findings == nil {
		repaired.Remaining.Findings = []Finding{}
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(repaired); err != nil {
		h.o.Logger.InfoContext(r.Context(), "caller left before the answer", slog.Any("err", err)) //nolint:contextcheck // as above
	}
}

// statuses of the codes that these operations raise; others are 500.
func status(code fault.Code) int {
	switch code {
	case fault.InvalidRequest, fault.InvalidQuery, fault.InvalidAggregation, fault.MalformedPolicy, fault.LimitExceeded, fault.CertificateValidation, fault.NotOffered, fault.IndexNotReady:
		return http.StatusBadRequest
	case fault.Throttling:
		return http.StatusTooManyRequests
	case fault.Unauthorized, fault.Forbidden:
		return http.StatusForbidden
	case fault.ResourceNotFound:
		return http.StatusNotFound
	case fault.Conflict, fault.ResourceAlreadyExists, fault.DeleteConflict, fault.VersionConflict:
		return http.StatusConflict
	case fault.RequestEntityTooLarge:
		return http.StatusRequestEntityTooLarge
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	coded := fault.From(err)
	code := status(coded.Code)
	if code >= http.StatusInternalServerError && !errors.Is(err, context.Canceled) {
		h.o.Logger.ErrorContext(r.Context(), "operation failed", slog.String("path", r.URL.Path), slog.Any("err", err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Amzn-ErrorType", string(coded.Code))
	refused(w, r, coded)
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(map[string]string{"message": coded.Message}); err != nil {
		h.o.Logger.InfoContext(r.Context(), "caller left before the answer", slog.Any("err", err))
	}
}

// startedWriter remembers whether the status line is out.
type startedWriter struct {
	http.ResponseWriter
	started bool
}

// Write notes that the answer has begun.
func (s *startedWriter) Write(p []byte) (int, error) {
	s.started = true
	return s.ResponseWriter.Write(p)
}
