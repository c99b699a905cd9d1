package deviceauth

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// DeniedError explains one refusal: what was asked for, what decided, and what
// was missing. It is the cause of the fault.Forbidden that callers get.
type DeniedError struct {
	Account   fleet.Account
	Principal fleet.Principal
	ClientID  string
	// Action and Resource name the permission that was missing.
	Action   string
	Resource string
	Outcome  iotpolicy.Outcome
	// Policy, Statement and Sid name an explicit denial's statement.
	Policy    string
	Statement int
	Sid       string
	// Considered are the policies in force, by name.
	Considered []string
	// Missing are the variables and condition keys without a value.
	Missing []string
	// Reason is set when not the policies but the certificate's state decided, or
	// its boundary.
	Reason string
}

// Error returns the permission and the outcome.
func (d *DeniedError) Error() string {
	return fmt.Sprintf("%s on %s: %s", d.Action, d.Resource, d.Outcome)
}

// deny explains a decision that is not Allowed; considered are the policies that
// it was made by.
func (s *Service) deny(sub *subject, q request) (d *DeniedError, considered []iotpolicy.PolicyRef) {
	ctx := policyContext(sub.id, sub.by, sub.thing, sub.id.certificate, s.now())
	e := sub.set.Explain(ctx, q.action, q.resource)
	d = &DeniedError{
		Account: sub.id.Account, Principal: sub.id.Principal, ClientID: sub.by.clientID,
		Action: q.action, Resource: q.resource, Outcome: e.Outcome,
		Policy: e.Policy, Statement: e.Statement, Sid: e.Sid, Missing: e.Unresolved, Reason: sub.refusal,
	}
	if d.Reason == "" && sub.bounds.refuses(q) {
		d.Reason = sub.bounds.says()
	}
	for _, p := range e.Considered {
		d.Considered = append(d.Considered, p.Name)
	}
	return d, e.Considered
}

// oddities are what is odd about policies, for example that one names another
// region. Looking for that takes far longer than the decision, so it is for
// refusals that are told of.
func (s *Service) oddities(policies []iotpolicy.PolicyRef, account fleet.Account) []string {
	var hints []string
	for _, p := range policies {
		for _, f := range s.ineffective(p.Document, account) {
			hints = append(hints, fmt.Sprintf("%s[%d]: %s", p.Name, f.Statement, f.Text))
		}
	}
	return hints
}

// ineffective are the findings about a document that can explain a refusal:
// parts that match nothing. What a document grants too much of refuses nobody.
func (s *Service) ineffective(doc *iotpolicy.Document, account fleet.Account) []iotpolicy.Finding {
	return slices.DeleteFunc(doc.Lint(iotpolicy.LintOptions{Scope: s.scope(account)}), func(f iotpolicy.Finding) bool {
		return f.Severity != iotpolicy.Error
	})
}

// logDenial writes the line that says which permission was missing, and what is
// odd about the policies that did not give it.
func (s *Service) logDenial(ctx context.Context, d *DeniedError, considered []iotpolicy.PolicyRef, suppressed int) {
	attrs := []slog.Attr{
		slog.String("account", string(d.Account)),
		slog.String("action", d.Action),
		slog.String("resource", d.Resource),
		slog.String("client_id", d.ClientID),
		slog.String("principal", d.Principal.ID),
		slog.String("outcome", d.Outcome.String()),
		slog.Any("policies", d.Considered),
	}
	if d.Reason != "" {
		attrs = append(attrs, slog.String("reason", d.Reason))
	}
	if d.Policy != "" {
		attrs = append(attrs, slog.String("policy", d.Policy), slog.Int("statement", d.Statement), slog.String("sid", d.Sid))
	}
	if len(d.Missing) > 0 {
		attrs = append(attrs, slog.Any("missing", d.Missing))
	}
	if hints := s.oddities(considered, d.Account); len(hints) > 0 {
		attrs = append(attrs, slog.Any("hints", hints))
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("suppressed", suppressed))
	}
	s.log.LogAttrs(ctx, slog.LevelInfo, "denied", attrs...)
}

// logStranger writes the line about a connection without an acceptable
// certificate, unless its source had its share.
func (s *Service) logStranger(ctx context.Context, r *Request, err error) {
	suppressed, ok := s.strangers.Take(address(r.RemoteAddr).String(), s.now())
	if !ok {
		return
	}
	s.log.LogAttrs(ctx, slog.LevelInfo, "denied", slog.String("action", iotpolicy.ActionConnect), slog.String("client_id", r.ClientID),
		slog.String("server_name", r.ServerName), slog.String("remote_addr", r.RemoteAddr), slog.Int("suppressed", suppressed), slog.Any("err", err))
}

const (
	// denialWindow and denialsPerWindow bound the log lines of one session, and
	// those of one source of connections without an acceptable certificate.
	denialWindow     = 10 * time.Second
	denialsPerWindow = 10
	// principalDenials bounds the lines of one certificate over all of its
	// sessions, which end with a refusal and begin anew; allDenials those of all
	// certificates together, and as many again are for strangers.
	principalDenials = 100
	allDenials       = 1000
	// denialRepeat is how often the same denial of a session is logged.
	denialRepeat = time.Minute
)

// denialLimit keeps a device that is refused in a loop from flooding the log.
type denialLimit struct {
	mu         sync.Mutex
	window     time.Time
	lines      int
	suppressed int
}

// take reports whether a line may be written now, and how many were not since
// the last one.
func (l *denialLimit) take(now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.window) >= denialWindow {
		l.window, l.lines = now, 0
	}
	if l.lines >= denialsPerWindow {
		l.suppressed++
		return 0, false
	}
	l.lines++
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}
