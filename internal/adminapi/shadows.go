package adminapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/shadowhistory"
)

// Actions on the history of shadows and on their drifts, on resource "*".
const (
	// ActionGetShadowHistory is for versions, documents and differences.
	ActionGetShadowHistory = "ops:GetShadowHistory"
	ActionRestoreShadow    = "ops:RestoreShadow"
	ActionGetShadowDrift   = "ops:GetShadowDrift"
)

// ClassicShadow stands in a path for the classic shadow, which has no name; no
// named shadow can be called so.
const ClassicShadow = ".classic"

// ShadowHistory answers what became of shadows.
type ShadowHistory interface {
	List(ctx context.Context, account fleet.Account, thing, shadow string, q shadowhistory.Query) (shadowhistory.Page, error)
	At(ctx context.Context, account fleet.Account, thing, shadow string, version int64) (shadowhistory.State, error)
	Diff(ctx context.Context, account fleet.Account, thing, shadow string, from, to *int64) (shadowhistory.Diff, error)
	Restore(ctx context.Context, cmd shadowhistory.RestoreCommand) (*shadow.Updated, error)
}

// Drifts reports shadows whose reported state is not the desired one, of the
// things that a fleet query finds; the empty query finds all.
type Drifts interface {
	Drifts(ctx context.Context, account fleet.Account, query string, q shadow.DriftQuery) (shadow.DriftPage, error)
}

// What a version did.
const (
	changeUpdated  = "UPDATED"
	changeRestored = "RESTORED"
	changeDeleted  = "DELETED"
)

// shadowVersionOutput is one change of a shadow. Times are RFC 3339 in UTC with
// milliseconds.
type shadowVersionOutput struct {
	// Version is the number that it made, or the deleted one.
	Version int64       `json:"version"`
	Change  string      `json:"change"`
	At      string      `json:"at"`
	By      fleet.Actor `json:"by"`
	// Patch is what was accepted; null removes.
	Patch json.RawMessage `json:"patch,omitempty"`
	// HasDelta says whether desired and reported differed afterwards; absent for
	// a deletion.
	HasDelta        *bool `json:"hasDelta,omitempty"`
	RestoredVersion int64 `json:"restoredVersion,omitempty"`
}

// shadowHistoryOutput is a page of changes, newest first.
type shadowHistoryOutput struct {
	Versions  []shadowVersionOutput `json:"versions"`
	NextToken string                `json:"nextToken,omitempty"`
	// Truncated, on the last page, says that there were earlier versions.
	Truncated bool `json:"truncated,omitempty"`
	// Behind says that the newest versions may be missing still.
	Behind bool `json:"behind,omitempty"`
}

// shadowAtOutput is a shadow as it was.
type shadowAtOutput struct {
	Version int64 `json:"version"`
	// Made is absent where the history does not tell what made the version.
	Made *shadowVersionOutput `json:"made,omitempty"`
	// Document is the answer of GetThingShadow at that time.
	Document json.RawMessage `json:"document"`
}

// shadowDiffOutput is what changed between two versions.
type shadowDiffOutput struct {
	From        int64                    `json:"from"`
	To          int64                    `json:"to"`
	Differences []shadowDifferenceOutput `json:"differences"`
}

// shadowDifferenceOutput is one value. Old is absent where the value was added,
// New where it was removed.
type shadowDifferenceOutput struct {
	// Path is a JSON Pointer that begins with /desired or /reported.
	Path   string          `json:"path"`
	Change string          `json:"change"`
	Old    json.RawMessage `json:"old,omitempty"`
	New    json.RawMessage `json:"new,omitempty"`
}

// restoreShadowInput is the body of a restore.
type restoreShadowInput struct {
	Version int64 `json:"version"`
	// ExpectVersion is the version that the shadow must have now; absent for any.
	ExpectVersion *int64 `json:"expectVersion"`
	// DesiredOnly leaves what the device reported as it is.
	DesiredOnly bool `json:"desiredOnly"`
}

// restoreShadowOutput tells the new version.
type restoreShadowOutput struct {
	Version         int64 `json:"version"`
	RestoredVersion int64 `json:"restoredVersion"`
	// Accepted is what devices are told.
	Accepted json.RawMessage `json:"accepted"`
}

// driftOutput is a shadow that differs.
type driftOutput struct {
	ThingName string `json:"thingName"`
	// ShadowName is absent for the classic shadow.
	ShadowName string `json:"shadowName,omitempty"`
	Version    int64  `json:"version"`
	// Since is when the oldest outstanding value was desired.
	Since      string            `json:"since"`
	AgeSeconds int64             `json:"ageSeconds"`
	Leaves     []driftLeafOutput `json:"leaves"`
}

// driftLeafOutput is one outstanding value.
type driftLeafOutput struct {
	// Path is a JSON Pointer below desired.
	Path    string          `json:"path"`
	Desired json.RawMessage `json:"desired"`
	// Reported is absent where the device reports nothing.
	Reported json.RawMessage `json:"reported,omitempty"`
	// Since is absent for an empty object, which has no time.
	Since      string `json:"since,omitempty"`
	AgeSeconds *int64 `json:"ageSeconds,omitempty"`
}

// driftsOutput is a page of shadows that differ, oldest first.
type driftsOutput struct {
	Shadows   []driftOutput `json:"shadows"`
	NextToken string        `json:"nextToken,omitempty"`
	// Incomplete says that shadows may be missing which were last written by an
	// earlier version of Muster.
	Incomplete bool `json:"incomplete,omitempty"`
}

// routeShadows adds the operations about shadows of the past and drifts.
func (h *handler) routeShadows(mux *routes) {
	const one = Prefix + "things/{thing}/shadows/{shadow}/"
	mux.HandleFunc("GET "+one+"history", h.read(ActionGetShadowHistory, h.shadowHistory))
	mux.HandleFunc("GET "+one+"versions/{version}", h.read(ActionGetShadowHistory, h.shadowAt))
	mux.HandleFunc("GET "+one+"diff", h.read(ActionGetShadowHistory, h.shadowDiff))
	mux.HandleFunc("POST "+one+"restore", h.operate(ActionRestoreShadow, h.restoreShadow))
	mux.HandleFunc("GET "+Prefix+"shadows/drift", h.read(ActionGetShadowDrift, h.shadowDrift))
}

// shadowName is the shadow in a path.
func shadowName(r *http.Request) string {
	if name := r.PathValue("shadow"); name != ClassicShadow {
		return name
	}
	return ""
}

// shadowVersion encodes a change.
func shadowVersion(v *shadowhistory.Version) shadowVersionOutput {
	out := shadowVersionOutput{
		Version: v.Version, Change: changeUpdated, At: stamp(v.At), By: v.Actor, Patch: v.Patch, HasDelta: &v.Delta, RestoredVersion: v.Restored,
	}
	switch {
	case v.Deleted:
		out.Change, out.HasDelta = changeDeleted, nil
	case v.Restored > 0:
		out.Change = changeRestored
	}
	return out
}

// shadowHistory lists versions.
func (h *handler) shadowHistory(ctx context.Context, r *http.Request) (any, error) {
	thing := r.PathValue("thing")
	l, err := h.openList(ctx, r, "ops.shadow.history", thing+"/"+r.PathValue("shadow"), "from", "to")
	if err != nil {
		return nil, err
	}
	q := shadowhistory.Query{After: l.after, Limit: l.limit}
	if q.From, err = l.time("from"); err != nil {
		return nil, err
	}
	if q.To, err = l.time("to"); err != nil {
		return nil, err
	}
	page, err := h.o.ShadowHistory.List(ctx, l.account, thing, shadowName(r), q)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := shadowHistoryOutput{Versions: make([]shadowVersionOutput, len(page.Versions)), Truncated: page.Truncated, Behind: page.Behind}
	for i := range page.Versions {
		out.Versions[i] = shadowVersion(&page.Versions[i])
	}
	if page.Next != "" {
		out.NextToken = h.o.Tokens.Seal(l.account, l.operation, l.filter, page.Next, h.o.Now())
	}
	return out, nil
}

// shadowAt answers the document at a version.
func (h *handler) shadowAt(ctx context.Context, r *http.Request) (any, error) {
	version, err := strconv.ParseInt(r.PathValue("version"), 10, 64)
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, "version: is no whole number")
	}
	if len(r.URL.Query()) > 0 {
		return nil, fault.New(fault.InvalidRequest, "this operation has no parameters")
	}
	state, err := h.o.ShadowHistory.At(ctx, h.o.Account(ctx), r.PathValue("thing"), shadowName(r), version)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := shadowAtOutput{Version: version, Document: state.GetDocument("", state.At.Unix())}
	if state.Made != nil {
		out.Made = new(shadowVersion(state.Made))
	}
	return out, nil
}

// shadowDiff compares two versions.
func (h *handler) shadowDiff(ctx context.Context, r *http.Request) (any, error) {
	var versions [2]*int64
	query := r.URL.Query()
	for i, name := range []string{"from", "to"} {
		values, given := query[name]
		if delete(query, name); !given {
			continue
		}
		n, err := strconv.ParseInt(values[0], 10, 64)
		if err != nil || len(values) > 1 {
			return nil, fault.New(fault.InvalidRequest, "%s: is no whole number", name)
		}
		versions[i] = &n
	}
	for name := range query {
		return nil, fault.New(fault.InvalidRequest, "%s: is no parameter of this operation", name)
	}
	diff, err := h.o.ShadowHistory.Diff(ctx, h.o.Account(ctx), r.PathValue("thing"), shadowName(r), versions[0], versions[1])
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := shadowDiffOutput{From: diff.From, To: diff.To, Differences: make([]shadowDifferenceOutput, len(diff.Differences))}
	for i, d := range diff.Differences {
		change := "CHANGED"
		switch {
		case d.Old == nil:
			change = "ADDED"
		case d.New == nil:
			change = "REMOVED"
		}
		out.Differences[i] = shadowDifferenceOutput{Path: d.Path, Change: change, Old: d.Old, New: d.New}
	}
	return out, nil
}

// restoreShadow makes a new version with the state of an earlier one.
func (h *handler) restoreShadow(ctx context.Context, r *http.Request, body []byte) (any, error) {
	var in restoreShadowInput
	if err := decodeStrictly(bytes.TrimSpace(body), &in); err != nil {
		return nil, err
	}
	updated, err := h.o.ShadowHistory.Restore(ctx, shadowhistory.RestoreCommand{
		Account: h.o.Account(ctx), Thing: r.PathValue("thing"), Shadow: shadowName(r),
		Version: in.Version, Expect: in.ExpectVersion, DesiredOnly: in.DesiredOnly,
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	return restoreShadowOutput{Version: updated.Version, RestoredVersion: updated.Restored, Accepted: updated.AcceptedDocument()}, nil
}

// shadowDrift reports shadows that differ.
func (h *handler) shadowDrift(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.shadow.drift", "", "thing", "query", "olderThan")
	if err != nil {
		return nil, err
	}
	now := h.o.Now()
	q := shadow.DriftQuery{Thing: l.values.Get("thing"), After: l.after, Limit: l.limit}
	if l.values.Has("thing") && q.Thing == "" {
		return nil, fault.New(fault.InvalidRequest, "thing: must not be empty")
	}
	if text := l.values.Get("olderThan"); l.values.Has("olderThan") {
		age, err := time.ParseDuration(text)
		if err != nil || age < 0 {
			return nil, fault.New(fault.InvalidRequest, "olderThan: is no duration such as 90m or 24h")
		}
		q.Before = now.Add(-age)
	}
	page, err := h.o.Drifts.Drifts(ctx, l.account, l.values.Get("query"), q)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := driftsOutput{Shadows: make([]driftOutput, len(page.Drifts)), Incomplete: page.Filling}
	for i := range page.Drifts {
		out.Shadows[i] = shadowDrift(&page.Drifts[i], now)
	}
	if page.Next != "" {
		out.NextToken = h.o.Tokens.Seal(l.account, l.operation, l.filter, page.Next, now)
	}
	return out, nil
}

// shadowDrift encodes a shadow that differs.
func shadowDrift(d *shadow.Drift, now time.Time) driftOutput {
	age := func(since time.Time) int64 { return max(0, int64(now.Sub(since)/time.Second)) }
	out := driftOutput{
		ThingName: d.Thing, ShadowName: d.Shadow, Version: d.Version, Since: stamp(d.Since), AgeSeconds: age(d.Since), Leaves: make([]driftLeafOutput, len(d.Leaves)),
	}
	for i, l := range d.Leaves {
		out.Leaves[i] = driftLeafOutput{Path: l.Path, Desired: l.Desired, Reported: l.Reported, Since: stamp(l.Since)}
		if !l.Since.IsZero() {
			out.Leaves[i].AgeSeconds = new(age(l.Since))
		}
	}
	return out
}
