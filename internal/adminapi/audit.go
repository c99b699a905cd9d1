package adminapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/muster-iot/muster/internal/audit"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Actions of the audit trail, on resource "*".
const (
	// ActionListAuditRecords is to search and to follow.
	ActionListAuditRecords = "ops:ListAuditRecords"
	ActionExportAudit      = "ops:ExportAudit"
	// ActionVerifyAudit is to check the trail and to read its signed head.
	ActionVerifyAudit = "ops:VerifyAudit"
)

// Audit is the trail.
type Audit interface {
	List(ctx context.Context, account fleet.Account, q audit.Query) (audit.Page, error)
	Follow(ctx context.Context, account fleet.Account, q audit.Query, after uint64, fn func(line []byte) error) error
	Export(ctx context.Context, account fleet.Account, from, to time.Time, fn func(line []byte) error) error
	Verify(ctx context.Context, account fleet.Account, kept []audit.Head, w audit.Witness) (audit.Verdict, error)
	Head(ctx context.Context, account fleet.Account) (audit.Head, error)
}

// Bounds of answers that are streams.
const (
	// streamPatience is how long a reader may take nothing.
	streamPatience = time.Minute
	// longestFollow is when a follower has to ask again.
	longestFollow = time.Hour
)

// auditOutput is a page of records, newest first.
type auditOutput struct {
	Records   []json.RawMessage `json:"records"`
	NextToken string            `json:"nextToken,omitempty"`
}

// verifyOutput is a line of the answer to verify: one of the three.
type verifyOutput struct {
	Progress int            `json:"progress,omitempty"`
	Finding  *audit.Finding `json:"finding,omitempty"`
	// Verdict ends the answer; one without was cut.
	Verdict *audit.Verdict `json:"verdict,omitempty"`
}

// routeAudit adds the operations on /ops/v1/audit.
func (h *handler) routeAudit(mux *routes) {
	mux.HandleFunc("GET "+Prefix+"audit/records", h.auditRecords)
	mux.HandleFunc("GET "+Prefix+"audit/follow", h.stream(ActionListAuditRecords, h.auditFollow))
	mux.HandleFunc("GET "+Prefix+"audit/export", h.stream(ActionExportAudit, h.auditExport))
	mux.HandleFunc("GET "+Prefix+"audit/verify", h.stream(ActionVerifyAudit, h.auditVerify))
	mux.HandleFunc("GET "+Prefix+"audit/head", h.read(ActionVerifyAudit, func(ctx context.Context, r *http.Request) (any, error) {
		l, err := h.openList(ctx, r, "ops.audit.head", "")
		if err != nil {
			return nil, err
		}
		return h.o.Audit.Head(ctx, l.account)
	}))
}

// auditQuery reads the filters.
func (l *list) auditQuery() (audit.Query, error) {
	q := audit.Query{
		Actor: l.values.Get("actor"), Resource: l.values.Get("resource"), Name: l.values.Get("name"), Error: l.values.Get("error"),
		After: l.after, Limit: l.limit,
	}
	var errFrom, errTo error
	q.From, errFrom = l.time("from")
	q.To, errTo = l.time("to")
	return q, errors.Join(errFrom, errTo)
}

// auditRecords lists records, newest first.
func (h *handler) auditRecords(w http.ResponseWriter, r *http.Request) {
	h.read(ActionListAuditRecords, func(ctx context.Context, r *http.Request) (any, error) {
		l, err := h.openList(ctx, r, "ops.audit.records", "", "from", "to", "actor", "resource", "name", "error")
		if err != nil {
			return nil, err
		}
		q, err := l.auditQuery()
		if err != nil {
			return nil, err
		}
		page, err := h.o.Audit.List(ctx, l.account, q)
		if err != nil {
			return nil, err
		}
		out := auditOutput{Records: page.Records}
		if page.Next != "" {
			out.NextToken = h.o.Tokens.Seal(l.account, l.operation, l.filter, page.Next, h.o.Now())
		}
		return out, nil
	})(w, r)
}

// lines writes an answer of lines. Until the first one it can still be refused.
type lines struct {
	w       http.ResponseWriter
	out     *bufio.Writer
	control *http.ResponseController
	now     func() time.Time
	begun   bool
}

// begin sends the head of the answer.
func (l *lines) begin() {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.w.WriteHeader(http.StatusOK)
	}
}

// line writes one line; nil is an empty one.
func (l *lines) line(text []byte) error {
	l.begin()
	if l.out.Available() < len(text)+1 {
		if err := l.control.SetWriteDeadline(l.now().Add(streamPatience)); err != nil {
			return err //nolint:wrapcheck // there is nobody to tell
		}
	}
	_, err := l.out.Write(text)
	return errors.Join(err, l.out.WriteByte('\n'))
}

// value writes one line of JSON.
func (l *lines) value(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err //nolint:wrapcheck // our own structs encode
	}
	return l.line(text)
}

// flush sends what was written.
func (l *lines) flush() error {
	l.begin()
	err := l.control.SetWriteDeadline(l.now().Add(streamPatience))
	return errors.Join(err, l.out.Flush(), l.control.Flush())
}

// stream wraps an operation that answers lines of any number.
func (h *handler) stream(action string, do func(ctx context.Context, r *http.Request, out *lines) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r, _, err := h.enter(w, r, action)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		out := &lines{w: w, out: bufio.NewWriterSize(w, 64<<10), control: http.NewResponseController(w), now: h.o.Now}
		// The request is read; its time must not end a long answer.
		if err := out.control.SetReadDeadline(time.Time{}); err != nil {
			h.fail(w, r, err)
			return
		}
		err = do(r.Context(), r, out) //nolint:contextcheck // enter returned the same request with the actor
		if err == nil {
			err = out.flush()
		}
		if err == nil {
			return
		}
		if !out.begun {
			h.fail(w, r, err)
			return
		}
		// The reader sees a broken answer and does not take it for whole.
		h.o.Logger.InfoContext(r.Context(), "answer broke off", slog.String("path", r.URL.Path), slog.Any("err", err)) //nolint:contextcheck // as above
		panic(http.ErrAbortHandler)
	}
}

// auditFollow sends records as they are made, and an empty line when there were
// none for a while.
func (h *handler) auditFollow(ctx context.Context, r *http.Request, out *lines) error {
	l, err := h.openList(ctx, r, "ops.audit.follow", "", "after", "actor", "resource", "name", "error")
	if err != nil {
		return err
	}
	q, err := l.auditQuery()
	if err != nil {
		return err
	}
	var after uint64
	if l.values.Has("after") {
		if after, err = audit.ParseAfter(l.values.Get("after")); err != nil {
			return err //nolint:wrapcheck // coded
		}
	} else {
		head, err := h.o.Audit.Head(ctx, l.account)
		if err != nil {
			return err //nolint:wrapcheck // coded
		}
		after = head.Seq
	}
	if err := out.flush(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, longestFollow)
	defer cancel()
	return h.o.Audit.Follow(ctx, l.account, q, after, func(line []byte) error { //nolint:wrapcheck // coded
		return errors.Join(out.line(line), out.flush())
	})
}

// auditExport sends the records of a time and the signed end.
func (h *handler) auditExport(ctx context.Context, r *http.Request, out *lines) error {
	l, err := h.openList(ctx, r, "ops.audit.export", "", "from", "to")
	if err != nil {
		return err
	}
	q, err := l.auditQuery()
	if err != nil {
		return err
	}
	return h.o.Audit.Export(ctx, l.account, q.From, q.To, out.line) //nolint:wrapcheck // coded
}

// auditVerify checks the trail, also against heads that the caller kept.
func (h *handler) auditVerify(ctx context.Context, r *http.Request, out *lines) error {
	l, err := h.openList(ctx, r, "ops.audit.verify", "", "head")
	if err != nil {
		return err
	}
	var kept []audit.Head
	if l.values.Has("head") {
		head, err := audit.ParseHead([]byte(l.values.Get("head")))
		if err != nil {
			return fault.Wrap(fault.InvalidRequest, err, "head: %v", err)
		}
		kept = append(kept, head)
	}
	verdict, err := h.o.Audit.Verify(ctx, l.account, kept, audit.Witness{
		Found:    func(f audit.Finding) error { return out.value(verifyOutput{Finding: &f}) },
		Progress: func(n int) error { return errors.Join(out.value(verifyOutput{Progress: n}), out.flush()) },
	})
	if err != nil {
		return err //nolint:wrapcheck // coded
	}
	return out.value(verifyOutput{Verdict: &verdict})
}
