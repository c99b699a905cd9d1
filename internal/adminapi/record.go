package adminapi

import (
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/muster-iot/muster/internal/audit"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// eventSource is how the audit trail names this front end.
const eventSource = "ops.muster"

// maxRecordedBody bounds the bodies whose members are recorded, in bytes.
const maxRecordedBody = 64 << 10

// recorded lets each request leave a record in the audit trail, whatever becomes
// of it, and gives it an id. Authorize fills in who calls.
func (h *handler) recorded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := uuid.NewString()
		w.Header().Set("X-Amzn-Requestid", id)
		fact := event.APICalled{Source: eventSource, Name: "UnknownOperation", UserAgent: r.UserAgent(), ReadOnly: r.Method == http.MethodGet}
		address := r.RemoteAddr
		if host, _, err := net.SplitHostPort(address); err == nil {
			address = host
		}
		call := h.o.Recorder.Begin("", fleet.Actor{SourceAddress: address, RequestID: id}, fact)
		call.Ask(map[string]any{"method": r.Method, "path": r.URL.Path})
		if r.TLS != nil {
			call.Secured(r.TLS.Version, r.TLS.CipherSuite, r.TLS.ServerName)
		}
		defer func() {
			cause := recover()
			if cause != nil {
				call.Fail(string(fault.Internal), "The answer broke off")
			}
			call.Finish()
			if cause != nil {
				panic(cause)
			}
		}()
		next.ServeHTTP(&answering{ResponseWriter: w, call: call}, r.WithContext(call.In(r.Context())))
	})
}

// answering finishes the record before the first byte of the answer, so that who
// has an answer finds the call in the trail.
type answering struct {
	http.ResponseWriter
	call *audit.Call
}

// WriteHeader implements http.ResponseWriter.
func (a *answering) WriteHeader(status int) {
	a.call.Finish()
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answering) Write(p []byte) (int, error) {
	a.call.Finish()
	return a.ResponseWriter.Write(p) //nolint:wrapcheck // as if it were the writer itself
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answering) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// callOf is the call that is answered through w, nil where there is no trail.
func callOf(w http.ResponseWriter) *audit.Call {
	if a, ok := w.(*answering); ok {
		return a.call
	}
	return nil
}

// describe notes what is asked for: the action without its prefix, and the
// members of path, query and body.
func describe(w http.ResponseWriter, r *http.Request, body []byte, action string) {
	call := callOf(w)
	if call == nil {
		return
	}
	name := strings.TrimPrefix(action, "ops:")
	call.Describe(eventSource, name, r.Method == http.MethodGet)
	asked := askedFor(r)
	var members map[string]any
	switch {
	case len(body) > maxRecordedBody:
		asked["bodyBytes"] = len(body)
	case len(body) > 0 && json.Unmarshal(body, &members) == nil:
		asked["body"] = members
	}
	call.Ask(asked)
}

// askedFor is what the request's address says.
func askedFor(r *http.Request) map[string]any {
	asked := map[string]any{"method": r.Method, "path": r.URL.Path}
	if query := r.URL.Query(); len(query) > 0 {
		members := map[string]any{}
		for name, values := range query {
			// A presigned query is how the caller proved itself.
			if !strings.HasPrefix(name, "X-Amz-") {
				members[name] = strings.Join(slices.Clone(values), ",")
			}
		}
		asked["query"] = members
	}
	return asked
}

// refused notes why. What a request holds that no operation understood, or that
// nobody has proven to have sent, is not kept: it may be anything.
func refused(w http.ResponseWriter, r *http.Request, coded *fault.Error) {
	call := callOf(w)
	if call == nil {
		return
	}
	switch coded.Code {
	case fault.InvalidRequest, fault.ResourceNotFound, fault.Unauthorized:
		call.Ask(askedFor(r))
	default:
	}
	call.Fail(string(coded.Code), coded.Message)
}
