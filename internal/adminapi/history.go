package adminapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/history"
)

// Actions of the connection history, on resource "*".
const (
	// ActionGetConnectionHistory is for one thing or client id.
	ActionGetConnectionHistory = "ops:GetConnectionHistory"
	// ActionListFleetConnections is for who was connected at a moment.
	ActionListFleetConnections = "ops:ListFleetConnections"
)

// defaultResults is a page's size when nobody says.
const defaultResults = 100

// History answers what became of connections.
type History interface {
	OfThing(ctx context.Context, account fleet.Account, thing string, q history.Query) (history.Page, error)
	OfClient(ctx context.Context, account fleet.Account, clientID string, q history.Query) (history.Page, error)
	ConnectedAt(ctx context.Context, account fleet.Account, q history.FleetQuery) (history.FleetPage, error)
}

// PageTokens seals and opens the places where lists go on.
type PageTokens interface {
	Seal(account fleet.Account, operation string, filter []string, last string, now time.Time) string
	Open(account fleet.Account, operation string, filter []string, token string, now time.Time) (string, error)
}

// Status of an entry.
const (
	statusConnected = "CONNECTED"
	statusEnded     = "ENDED"
	statusRefused   = "REFUSED"
)

// connectionOutput is one entry. Times are RFC 3339 in UTC with milliseconds.
type connectionOutput struct {
	Status         string `json:"status"`
	ClientID       string `json:"clientId"`
	Thing          string `json:"thing,omitempty"`
	ConnectedAt    string `json:"connectedAt,omitempty"`
	DisconnectedAt string `json:"disconnectedAt,omitempty"`
	RefusedAt      string `json:"refusedAt,omitempty"`
	// DurationMS is how long it lasted, or has lasted when it was asked for;
	// absent for refused connects and where no begin is known.
	DurationMS    *int64 `json:"durationMs,omitempty"`
	Reason        string `json:"reason,omitempty"`
	RemoteAddress string `json:"remoteAddress,omitempty"`
	LocalAddress  string `json:"localAddress,omitempty"`
	Protocol      string `json:"protocol,omitempty"`
	Transport     string `json:"transport,omitempty"`
	Principal     string `json:"principal,omitempty"`
	PrincipalKind string `json:"principalKind,omitempty"`
	SessionID     string `json:"sessionId,omitempty"`
	ConnectionID  string `json:"connectionId,omitempty"`
	// The rest is absent for refused connects, which had no session.
	Version       *int64 `json:"version,omitempty"`
	KeepAlive     *int   `json:"keepAlive,omitempty"`
	CleanSession  *bool  `json:"cleanSession,omitempty"`
	SessionExpiry *int64 `json:"sessionExpiry,omitempty"`
}

// historyOutput is a page of entries, newest first.
type historyOutput struct {
	Connections []connectionOutput `json:"connections"`
	NextToken   string             `json:"nextToken,omitempty"`
}

// fleetOutput is a page of who was connected at a moment.
type fleetOutput struct {
	At string `json:"at"`
	// Count is on the first page only.
	Count *int `json:"count,omitempty"`
	historyOutput
}

// handleHistory adds the operations about connections. A client id is one
// escaped segment, slashes included.
func (h *handler) handleHistory(mux *routes) {
	mux.HandleFunc("GET "+Prefix+"things/{thing}/connections", h.ofOne("thing", History.OfThing))
	mux.HandleFunc("GET "+Prefix+"connections/{clientId}/history", h.ofOne("clientId", History.OfClient))
	mux.HandleFunc("GET "+Prefix+"fleet/connections", h.fleetConnections)
}

// list is what all lists read from the address.
type list struct {
	values  url.Values
	account fleet.Account
	// operation and filter are what a page token is bound to.
	operation string
	filter    []string
	after     string
	limit     int
}

// openList reads paging and refuses parameters that would be ignored. Filters
// are the parameters that a page token is bound to.
func (h *handler) openList(ctx context.Context, r *http.Request, operation, subject string, filters ...string) (list, error) {
	l := list{values: r.URL.Query(), account: h.o.Account(ctx), operation: operation, filter: []string{subject}, limit: defaultResults}
	for name, values := range l.values {
		if !slices.Contains(filters, name) && name != "maxResults" && name != "nextToken" {
			return l, fault.New(fault.InvalidRequest, "%s: is no parameter of this operation", name)
		}
		if len(values) > 1 {
			return l, fault.New(fault.InvalidRequest, "%s: is given more than once", name)
		}
	}
	for _, name := range filters {
		l.filter = append(l.filter, l.values.Get(name))
	}
	if text := l.values.Get("maxResults"); l.values.Has("maxResults") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return l, fault.New(fault.InvalidRequest, "maxResults: is no whole number")
		}
		l.limit = n
	}
	if token := l.values.Get("nextToken"); l.values.Has("nextToken") {
		var err error
		if l.after, err = h.o.Tokens.Open(l.account, l.operation, l.filter, token, h.o.Now()); err != nil {
			return l, err //nolint:wrapcheck // coded
		}
	}
	return l, nil
}

// time reads a parameter; absent is zero.
func (l *list) time(name string) (time.Time, error) {
	if !l.values.Has(name) {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, l.values.Get(name))
	if err != nil {
		return at, fault.New(fault.InvalidRequest, "%s: is no RFC 3339 time such as 2006-01-02T15:04:05.000Z", name)
	}
	return at, nil
}

// page encodes entries and seals where they go on.
func (h *handler) page(l list, page history.Page) historyOutput {
	now := h.o.Now()
	out := historyOutput{Connections: make([]connectionOutput, len(page.Connections))}
	for i := range page.Connections {
		out.Connections[i] = connection(&page.Connections[i], now)
	}
	if page.Next != "" {
		out.NextToken = h.o.Tokens.Seal(l.account, l.operation, l.filter, page.Next, now)
	}
	return out
}

// ofOne lists the entries of one thing or client id.
func (h *handler) ofOne(subject string, find func(History, context.Context, fleet.Account, string, history.Query) (history.Page, error)) http.HandlerFunc {
	return h.read(ActionGetConnectionHistory, func(ctx context.Context, r *http.Request) (any, error) {
		name := r.PathValue(subject)
		l, err := h.openList(ctx, r, "ops.connections."+subject, name, "from", "to")
		if err != nil {
			return nil, err
		}
		q := history.Query{After: l.after, Limit: l.limit}
		if q.From, err = l.time("from"); err != nil {
			return nil, err
		}
		if q.To, err = l.time("to"); err != nil {
			return nil, err
		}
		found, err := find(h.o.History, ctx, l.account, name, q)
		if err != nil {
			return nil, err
		}
		return h.page(l, found), nil
	})
}

// fleetConnections lists who was connected at a moment.
func (h *handler) fleetConnections(w http.ResponseWriter, r *http.Request) {
	h.read(ActionListFleetConnections, func(ctx context.Context, r *http.Request) (any, error) {
		l, err := h.openList(ctx, r, "ops.fleet.connections", "", "at")
		if err != nil {
			return nil, err
		}
		q := history.FleetQuery{After: l.after, Limit: l.limit}
		if q.At, err = l.time("at"); err != nil {
			return nil, err
		}
		found, err := h.o.History.ConnectedAt(ctx, l.account, q)
		if err != nil {
			return nil, err
		}
		out := fleetOutput{At: stamp(q.At), historyOutput: h.page(l, found.Page)}
		if l.after == "" {
			out.Count = &found.Count
		}
		return out, nil
	})(w, r)
}

// read wraps an operation that takes no body and answers JSON.
func (h *handler) read(action string, do func(ctx context.Context, r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r, _, err := h.enter(w, r, action)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		out, err := do(r.Context(), r) //nolint:contextcheck // enter returned the same request with the actor
		if err != nil {
			h.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(out); err != nil {
			h.o.Logger.InfoContext(r.Context(), "caller left before the answer", slog.Any("err", err)) //nolint:contextcheck // as above
		}
	}
}

// stamp writes a time, "" for none.
func stamp(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format("2006-01-02T15:04:05.000Z")
}

// connection encodes an entry.
func connection(c *history.Connection, now time.Time) connectionOutput {
	out := connectionOutput{
		Status: statusEnded, ClientID: c.ClientID, Thing: c.Thing(), Reason: c.Reason, RemoteAddress: c.RemoteAddr, LocalAddress: c.LocalAddr,
		Protocol: c.Protocol, Transport: c.Transport, Principal: c.Principal, PrincipalKind: c.PrincipalKind,
		SessionID: c.SessionID, ConnectionID: c.ConnectionID,
	}
	if out.RemoteAddress == "" {
		out.RemoteAddress = c.IPAddress
	}
	if c.Refused {
		out.Status, out.RefusedAt = statusRefused, stamp(c.Began)
		return out
	}
	out.ConnectedAt, out.DisconnectedAt = stamp(c.Began), stamp(c.Ended)
	if c.Ended.IsZero() {
		out.Status = statusConnected
	}
	if !c.Began.IsZero() {
		out.DurationMS = new(c.Duration(now).Milliseconds())
	}
	out.Version, out.KeepAlive, out.CleanSession, out.SessionExpiry = &c.Version, &c.KeepAlive, &c.CleanSession, &c.SessionExpiry
	return out
}
