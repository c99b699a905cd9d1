package adminapi

import (
	"bytes"
	"context"
	"math"
	"net/http"

	"github.com/muster-iot/muster/internal/bulkedit"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Actions on edits by query, on resource "*". What an edit does to things needs
// the actions of the calls that do the same, on each of them.
const (
	ActionGetBulkEditPreview  = "ops:GetBulkEditPreview"
	ActionStartBulkEdit       = "ops:StartBulkEdit"
	ActionListBulkEdits       = "ops:ListBulkEdits"
	ActionDescribeBulkEdit    = "ops:DescribeBulkEdit"
	ActionListBulkEditResults = "ops:ListBulkEditResults"
	ActionPauseBulkEdit       = "ops:PauseBulkEdit"
	ActionResumeBulkEdit      = "ops:ResumeBulkEdit"
	ActionCancelBulkEdit      = "ops:CancelBulkEdit"
	ActionUndoBulkEdit        = "ops:UndoBulkEdit"
)

// BulkEdits changes what a query finds.
type BulkEdits interface {
	Preview(ctx context.Context, account fleet.Account, query string, o bulkedit.Operation) (bulkedit.Preview, error)
	Start(ctx context.Context, account fleet.Account, c bulkedit.StartCommand) (bulkedit.Edit, error)
	Undo(ctx context.Context, account fleet.Account, id string, perSecond int) (bulkedit.Edit, error)
	Pause(ctx context.Context, account fleet.Account, id string) (bulkedit.Edit, error)
	Resume(ctx context.Context, account fleet.Account, id string) (bulkedit.Edit, error)
	Cancel(ctx context.Context, account fleet.Account, id string) (bulkedit.Edit, error)
	Describe(ctx context.Context, account fleet.Account, id string) (bulkedit.Edit, error)
	List(ctx context.Context, account fleet.Account, after string, limit int) ([]bulkedit.Edit, string, error)
	Changes(ctx context.Context, account fleet.Account, id, after string, limit int) ([]bulkedit.Change, string, error)
	Failures(ctx context.Context, account fleet.Account, id, after string, limit int) ([]bulkedit.Failure, string, error)
}

// bulkEditInput is the body of a preview and of a start.
type bulkEditInput struct {
	QueryString       string             `json:"queryString"`
	Operation         bulkedit.Operation `json:"operation"`
	ConfirmationToken string             `json:"confirmationToken"`
	ThingsPerSecond   int                `json:"thingsPerSecond"`
}

// undoInput is the body of an undo; it may be empty.
type undoInput struct {
	ThingsPerSecond int `json:"thingsPerSecond"`
}

// bulkEditPreviewOutput is what an edit would do. Examined are the first of the
// things that match; the three numbers behind it add up to it.
type bulkEditPreviewOutput struct {
	Things    int `json:"things"`
	Examined  int `json:"examined"`
	Changes   int `json:"changes"`
	Unchanged int `json:"unchanged"`
	Refused   int `json:"refused"`
	// Sample are some of the things that would be changed, Refusals some of those
	// that would not be.
	Sample            []bulkChangeOutput  `json:"sample"`
	Refusals          []bulkFailureOutput `json:"refusals"`
	ConfirmationToken string              `json:"confirmationToken"`
	ExpiresAt         string              `json:"expiresAt"`
}

// bulkChangeOutput is what a thing was and is. Times are RFC 3339 in UTC with
// milliseconds.
type bulkChangeOutput struct {
	ThingName string         `json:"thingName"`
	At        string         `json:"at,omitempty"`
	Before    bulkedit.Image `json:"before"`
	After     bulkedit.Image `json:"after"`
	Pending   bool           `json:"pending,omitempty"`
}

// bulkFailureOutput is why a thing was not changed.
type bulkFailureOutput struct {
	ThingName string     `json:"thingName"`
	At        string     `json:"at,omitempty"`
	Code      fault.Code `json:"code"`
	Message   string     `json:"message"`
	// Conflict says that somebody else has changed the thing meanwhile.
	Conflict bool `json:"conflict,omitempty"`
}

// bulkEditOutput is one edit.
type bulkEditOutput struct {
	BulkEditID  string             `json:"bulkEditId"`
	Status      bulkedit.Status    `json:"status"`
	QueryString string             `json:"queryString"`
	Operation   bulkedit.Operation `json:"operation"`
	UndoOf      string             `json:"undoOf,omitempty"`
	UndoneBy    string             `json:"undoneBy,omitempty"`
	StartedBy   fleet.Principal    `json:"startedBy"`
	CreatedAt   string             `json:"createdAt"`
	FinishedAt  string             `json:"finishedAt,omitempty"`
	Things      int                `json:"things"`
	bulkedit.Counts
	Remaining       int `json:"remaining"`
	ThingsPerSecond int `json:"thingsPerSecond"`
	// Rate is how many things it works on per second at present.
	Rate   float64 `json:"rate"`
	Reason string  `json:"reason,omitempty"`
}

// bulkEditsOutput is a page of edits, newest first.
type bulkEditsOutput struct {
	BulkEdits []bulkEditOutput `json:"bulkEdits"`
	NextToken string           `json:"nextToken,omitempty"`
}

// bulkChangesOutput is a page of what an edit has changed.
type bulkChangesOutput struct {
	Changes   []bulkChangeOutput `json:"changes"`
	NextToken string             `json:"nextToken,omitempty"`
}

// bulkFailuresOutput is a page of what it has not.
type bulkFailuresOutput struct {
	Failures  []bulkFailureOutput `json:"failures"`
	NextToken string              `json:"nextToken,omitempty"`
}

// routeBulkEdits adds the operations.
func (h *handler) routeBulkEdits(mux *routes) {
	const edits = Prefix + "bulk-edits"
	mux.HandleFunc("POST "+edits+"/preview", h.operate(ActionGetBulkEditPreview, h.previewBulkEdit))
	mux.HandleFunc("POST "+edits, h.operate(ActionStartBulkEdit, h.startBulkEdit))
	mux.HandleFunc("GET "+edits, h.read(ActionListBulkEdits, h.listBulkEdits))
	mux.HandleFunc("GET "+edits+"/{bulkEdit}", h.read(ActionDescribeBulkEdit, h.describeBulkEdit))
	mux.HandleFunc("GET "+edits+"/{bulkEdit}/changes", h.read(ActionListBulkEditResults, h.bulkEditChanges))
	mux.HandleFunc("GET "+edits+"/{bulkEdit}/failures", h.read(ActionListBulkEditResults, h.bulkEditFailures))
	mux.HandleFunc("POST "+edits+"/{bulkEdit}/pause", h.operate(ActionPauseBulkEdit, h.controlBulkEdit(BulkEdits.Pause)))
	mux.HandleFunc("POST "+edits+"/{bulkEdit}/resume", h.operate(ActionResumeBulkEdit, h.controlBulkEdit(BulkEdits.Resume)))
	mux.HandleFunc("POST "+edits+"/{bulkEdit}/cancel", h.operate(ActionCancelBulkEdit, h.controlBulkEdit(BulkEdits.Cancel)))
	mux.HandleFunc("POST "+edits+"/{bulkEdit}/undo", h.operate(ActionUndoBulkEdit, h.undoBulkEdit))
}

func (h *handler) previewBulkEdit(ctx context.Context, _ *http.Request, body []byte) (any, error) {
	var in bulkEditInput
	if err := decodeStrictly(body, &in); err != nil {
		return nil, err
	}
	if in.ConfirmationToken != "" || in.ThingsPerSecond != 0 {
		return nil, fault.New(fault.InvalidRequest, "confirmationToken and thingsPerSecond are for the start of an edit")
	}
	p, err := h.o.BulkEdits.Preview(ctx, h.o.Account(ctx), in.QueryString, in.Operation)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	return bulkEditPreviewOutput{
		Things: p.Things, Examined: p.Examined, Changes: p.Changes, Unchanged: p.Unchanged, Refused: p.Refused,
		Sample: bulkChanges(p.Sample), Refusals: bulkFailures(p.Refusals), ConfirmationToken: p.Token, ExpiresAt: stamp(p.Expires),
	}, nil
}

func (h *handler) startBulkEdit(ctx context.Context, _ *http.Request, body []byte) (any, error) {
	var in bulkEditInput
	if err := decodeStrictly(body, &in); err != nil {
		return nil, err
	}
	e, err := h.o.BulkEdits.Start(ctx, h.o.Account(ctx), bulkedit.StartCommand{
		Query: in.QueryString, Operation: in.Operation, Token: in.ConfirmationToken, PerSecond: in.ThingsPerSecond,
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	return bulkEdit(e), nil
}

func (h *handler) undoBulkEdit(ctx context.Context, r *http.Request, body []byte) (any, error) {
	var in undoInput
	if len(bytes.TrimSpace(body)) > 0 {
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
	}
	e, err := h.o.BulkEdits.Undo(ctx, h.o.Account(ctx), r.PathValue("bulkEdit"), in.ThingsPerSecond)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	return bulkEdit(e), nil
}

// controlBulkEdit is an operation that takes nothing but the id.
func (h *handler) controlBulkEdit(
	do func(b BulkEdits, ctx context.Context, account fleet.Account, id string) (bulkedit.Edit, error),
) func(ctx context.Context, r *http.Request, body []byte) (any, error) {
	return func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		if len(bytes.TrimSpace(body)) > 0 {
			if err := decodeStrictly(body, &struct{}{}); err != nil {
				return nil, err
			}
		}
		e, err := do(h.o.BulkEdits, ctx, h.o.Account(ctx), r.PathValue("bulkEdit"))
		if err != nil {
			return nil, err
		}
		return bulkEdit(e), nil
	}
}

func (h *handler) describeBulkEdit(ctx context.Context, r *http.Request) (any, error) {
	e, err := h.o.BulkEdits.Describe(ctx, h.o.Account(ctx), r.PathValue("bulkEdit"))
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	return bulkEdit(e), nil
}

func (h *handler) listBulkEdits(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.bulk-edits", "")
	if err != nil {
		return nil, err
	}
	edits, next, err := h.o.BulkEdits.List(ctx, l.account, l.after, l.limit)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := bulkEditsOutput{BulkEdits: make([]bulkEditOutput, len(edits)), NextToken: h.nextToken(&l, next)}
	for i, e := range edits {
		out.BulkEdits[i] = bulkEdit(e)
	}
	return out, nil
}

func (h *handler) bulkEditChanges(ctx context.Context, r *http.Request) (any, error) {
	id := r.PathValue("bulkEdit")
	l, err := h.openList(ctx, r, "ops.bulk-edits.changes", id)
	if err != nil {
		return nil, err
	}
	changes, next, err := h.o.BulkEdits.Changes(ctx, l.account, id, l.after, l.limit)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	return bulkChangesOutput{Changes: bulkChanges(changes), NextToken: h.nextToken(&l, next)}, nil
}

func (h *handler) bulkEditFailures(ctx context.Context, r *http.Request) (any, error) {
	id := r.PathValue("bulkEdit")
	l, err := h.openList(ctx, r, "ops.bulk-edits.failures", id)
	if err != nil {
		return nil, err
	}
	failures, next, err := h.o.BulkEdits.Failures(ctx, l.account, id, l.after, l.limit)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	return bulkFailuresOutput{Failures: bulkFailures(failures), NextToken: h.nextToken(&l, next)}, nil
}

// bulkEdit is an edit as answers show it.
func bulkEdit(e bulkedit.Edit) bulkEditOutput {
	return bulkEditOutput{
		BulkEditID: e.ID, Status: e.Status, QueryString: e.Query, Operation: e.Operation, UndoOf: e.UndoOf, UndoneBy: e.UndoneBy,
		StartedBy: e.StartedBy, CreatedAt: stamp(e.Created), FinishedAt: stamp(e.Finished), Things: e.Things, Counts: e.Done,
		Remaining: e.Remaining(), ThingsPerSecond: e.PerSecond, Rate: math.Round(10*e.Rate) / 10, Reason: e.Reason,
	}
}

func bulkChanges(changes []bulkedit.Change) []bulkChangeOutput {
	out := make([]bulkChangeOutput, len(changes))
	for i, c := range changes {
		out[i] = bulkChangeOutput{ThingName: c.Thing, At: stamp(c.At), Before: c.Before, After: c.After, Pending: c.Pending}
	}
	return out
}

func bulkFailures(failures []bulkedit.Failure) []bulkFailureOutput {
	out := make([]bulkFailureOutput, len(failures))
	for i, f := range failures {
		out[i] = bulkFailureOutput{ThingName: f.Thing, At: stamp(f.At), Code: f.Code, Message: f.Message, Conflict: f.Conflict}
	}
	return out
}
