package adminapi

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/bootstrap"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Actions on where devices are sent that ask the bootstrap address, on resource "*".
const (
	ActionListBootstrapAssignments  = "ops:ListBootstrapAssignments"  //nolint:gosec // the name of an action
	ActionGetBootstrapAssignment    = "ops:GetBootstrapAssignment"    //nolint:gosec // the name of an action
	ActionPutBootstrapAssignment    = "ops:PutBootstrapAssignment"    //nolint:gosec // the name of an action
	ActionDeleteBootstrapAssignment = "ops:DeleteBootstrapAssignment" //nolint:gosec // the name of an action
	assignmentsPath                 = Prefix + "bootstrap/assignments"
)

// Bootstrap says where devices are sent.
type Bootstrap interface {
	Assignments(ctx context.Context, owner fleet.Account, after string, limit int) (page []bootstrap.Assignment, next string, err error)
	Assignment(ctx context.Context, owner fleet.Account, id string) (bootstrap.Assignment, error)
	Find(ctx context.Context, owner fleet.Account, who bootstrap.Who) (bootstrap.Assignment, error)
	Put(ctx context.Context, owner fleet.Account, c bootstrap.PutCommand) (bootstrap.Assignment, bootstrap.Change, error)
	Update(ctx context.Context, owner fleet.Account, id string, next bootstrap.Assignment, version *int64) (bootstrap.Assignment, error)
	Delete(ctx context.Context, owner fleet.Account, id string, version *int64) error
	Import(ctx context.Context, owner fleet.Account, all []bootstrap.Assignment) ([]bootstrap.Imported, error)
}

// whoBody is by what devices are recognised.
type whoBody struct {
	Kind            bootstrap.Kind `json:"kind,omitempty"`
	CertificateID   string         `json:"certificateId,omitempty"`
	CACertificateID string         `json:"caCertificateId,omitempty"`
	Serial          string         `json:"serial,omitempty"`
}

// whereBody is where they are sent.
type whereBody struct {
	// Account is the caller's when it is absent.
	Account       fleet.Account     `json:"account,omitempty"`
	TemplateName  string            `json:"templateName,omitempty"`
	Parameters    map[string]string `json:"parameters,omitempty"`
	Configuration map[string]string `json:"configuration,omitempty"`
	// Enabled is true when it is absent.
	Enabled *bool `json:"enabled,omitempty"`
	// ExpiresAt is RFC 3339; absent for never.
	ExpiresAt string `json:"expiresAt,omitempty"`
	Note      string `json:"note,omitempty"`
}

// assignmentInput is an assignment in requests.
type assignmentInput struct {
	whoBody
	whereBody
}

// assignmentOutput is an assignment. Times are RFC 3339 in UTC with milliseconds.
type assignmentOutput struct {
	AssignmentID string `json:"assignmentId"`
	whoBody
	whereBody

	Version   int64  `json:"version"`
	CreatedAt string `json:"createdAt"`
	ChangedAt string `json:"changedAt"`
	ChangedBy string `json:"changedBy,omitempty"`
	// AskedAt is when a device was told about it last; absent for never.
	AskedAt   string `json:"askedAt,omitempty"`
	AskedBy   string `json:"askedByCertificateId,omitempty"`
	AskedFrom string `json:"askedFrom,omitempty"`
}

func assignmentOf(a *bootstrap.Assignment) assignmentOutput {
	enabled := a.Enabled
	return assignmentOutput{
		AssignmentID: a.ID, whoBody: whoBody(a.Who),
		whereBody: whereBody{
			Account: a.Account, TemplateName: a.Template, Parameters: a.Parameters, Configuration: a.Configuration, Enabled: &enabled, ExpiresAt: stamp(a.Expires), Note: a.Note,
		},
		Version: a.Version, CreatedAt: stamp(a.Created), ChangedAt: stamp(a.Modified), ChangedBy: a.By, AskedAt: stamp(a.Asked), AskedBy: a.AskedBy, AskedFrom: a.AskedFrom,
	}
}

// wish is the domain's form of a request.
func (in *assignmentInput) wish() (bootstrap.Assignment, error) {
	out := bootstrap.Assignment{
		Who: bootstrap.Who(in.whoBody), Account: in.Account, Template: in.TemplateName, Parameters: in.Parameters, Configuration: in.Configuration,
		Enabled: in.Enabled == nil || *in.Enabled, Note: in.Note,
	}
	if in.ExpiresAt != "" {
		var err error
		if out.Expires, err = time.Parse(time.RFC3339, in.ExpiresAt); err != nil {
			return out, fault.New(fault.InvalidRequest, "expiresAt must be a time such as 2026-12-31T00:00:00Z")
		}
	}
	return out, nil
}

// routeBootstrap adds the operations.
func (h *handler) routeBootstrap(mux *routes) {
	const one = assignmentsPath + "/{assignment}"
	mux.HandleFunc("GET "+assignmentsPath, h.read(ActionListBootstrapAssignments, h.listAssignments))
	mux.HandleFunc("GET "+one, h.read(ActionGetBootstrapAssignment, func(ctx context.Context, r *http.Request) (any, error) {
		found, err := h.o.Bootstrap.Assignment(ctx, h.o.Account(ctx), r.PathValue("assignment"))
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return assignmentOf(&found), nil
	}))
	mux.HandleFunc("POST "+assignmentsPath, h.operate(ActionPutBootstrapAssignment, func(ctx context.Context, _ *http.Request, body []byte) (any, error) {
		var in assignmentInput
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		want, err := in.wish()
		if err != nil {
			return nil, err
		}
		made, _, err := h.o.Bootstrap.Put(ctx, h.o.Account(ctx), bootstrap.PutCommand{Assignment: want, New: true})
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return assignmentOf(&made), nil
	}))
	mux.HandleFunc("PUT "+one, h.operate(ActionPutBootstrapAssignment, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var in struct {
			whereBody

			ExpectedVersion *int64 `json:"expectedVersion"`
		}
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		want, err := (&assignmentInput{whereBody: in.whereBody}).wish()
		if err != nil {
			return nil, err
		}
		changed, err := h.o.Bootstrap.Update(ctx, h.o.Account(ctx), r.PathValue("assignment"), want, in.ExpectedVersion)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return assignmentOf(&changed), nil
	}))
	mux.HandleFunc("DELETE "+one, h.operate(ActionDeleteBootstrapAssignment, func(ctx context.Context, r *http.Request, _ []byte) (any, error) {
		version, err := expectedVersion(r)
		if err != nil {
			return nil, err
		}
		return nil, h.o.Bootstrap.Delete(ctx, h.o.Account(ctx), r.PathValue("assignment"), version) //nolint:wrapcheck // coded
	}))
	mux.HandleFunc("POST "+assignmentsPath+"/import", h.operateUpTo(maxImportBody, ActionPutBootstrapAssignment, h.importAssignments))
}

// expectedVersion reads the parameter of that name, nil for none.
func expectedVersion(r *http.Request) (*int64, error) {
	text := r.URL.Query().Get("expectedVersion")
	if text == "" {
		return nil, nil //nolint:nilnil // any version is no version
	}
	version, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, "expectedVersion must be a whole number")
	}
	return &version, nil
}

// listAssignments lists all, or the one that is for somebody.
func (h *handler) listAssignments(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.bootstrap-assignments", "", "certificateId", "caCertificateId", "serial")
	if err != nil {
		return nil, err
	}
	type page struct {
		Assignments []assignmentOutput `json:"assignments"`
		NextToken   string             `json:"nextToken,omitempty"`
	}
	who := bootstrap.Who{CertificateID: l.values.Get("certificateId"), CACertificateID: l.values.Get("caCertificateId"), Serial: l.values.Get("serial")}
	switch {
	case who.CertificateID != "":
		who.Kind = bootstrap.Certificate
	case who.Serial != "":
		who.Kind = bootstrap.Serial
	case who.CACertificateID != "":
		who.Kind = bootstrap.Authority
	}
	if who.Kind != "" {
		found, err := h.o.Bootstrap.Find(ctx, l.account, who)
		if fault.CodeOf(err) == fault.ResourceNotFound {
			return page{Assignments: []assignmentOutput{}}, nil
		}
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return page{Assignments: []assignmentOutput{assignmentOf(&found)}}, nil
	}
	found, next, err := h.o.Bootstrap.Assignments(ctx, l.account, l.after, l.limit)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := page{make([]assignmentOutput, len(found)), h.nextToken(&l, next)}
	for i := range found {
		out.Assignments[i] = assignmentOf(&found[i])
	}
	return out, nil
}

// importedOutput is what became of one entry of an import, in the order of the request.
type importedOutput struct {
	AssignmentID string           `json:"assignmentId,omitempty"`
	Change       bootstrap.Change `json:"change,omitempty"`
	// Error is absent for one that was taken.
	Error *importedError `json:"error,omitempty"`
}

type importedError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// assignmentInputs are the entries of an import.
type assignmentInputs []assignmentInput

// UnmarshalJSON implements json.Unmarshaler. What it is given is valid JSON.
func (a *assignmentInputs) UnmarshalJSON(list []byte) (err error) {
	*a, err = listUpTo[assignmentInput](list, bootstrap.MaxPage, "assignments", fmt.Errorf("assignments has more than %d entries", bootstrap.MaxPage))
	return err
}

// importAssignments makes or changes many.
func (h *handler) importAssignments(ctx context.Context, _ *http.Request, body []byte) (any, error) {
	var in struct {
		Assignments assignmentInputs `json:"assignments"`
	}
	if err := decodeStrictly(body, &in); err != nil {
		return nil, err
	}
	out := make([]importedOutput, len(in.Assignments))
	var want []bootstrap.Assignment
	var places []int
	for i := range in.Assignments {
		one, err := in.Assignments[i].wish()
		if err != nil {
			out[i].Error = errorOf(err)
			continue
		}
		want, places = append(want, one), append(places, i)
	}
	if len(want) == 0 && len(out) > 0 {
		return importResults(out), nil
	}
	done, err := h.o.Bootstrap.Import(ctx, h.o.Account(ctx), want)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	for i, one := range done {
		out[places[i]] = importedOutput{AssignmentID: one.ID, Change: one.Change}
		if one.Err != nil {
			out[places[i]].Error = errorOf(one.Err)
		}
	}
	return importResults(out), nil
}

func importResults(all []importedOutput) any {
	return struct {
		Results []importedOutput `json:"results"`
	}{all}
}

func errorOf(err error) *importedError {
	f := fault.From(err)
	return &importedError{Code: string(f.Code), Message: f.Message}
}
