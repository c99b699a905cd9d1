package adminapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// ActionImportThings is what a caller needs for an import, on resource "*". For
// each thing it needs those of the operations that the import stands for.
const ActionImportThings = "ops:ImportThings"

const (
	actionCreateThing = "iot:CreateThing"
	actionUpdateThing = "iot:UpdateThing"
	actionAddToGroup  = "iot:AddThingToThingGroup"
	// actionAddBilling is needed where a thing may exist already.
	actionAddBilling = "iot:AddThingToBillingGroup"
)

// maxImportBody bounds the body of an import in bytes.
const maxImportBody = 4 << 20

// Importer makes and changes many things at once.
type Importer interface {
	ImportThings(ctx context.Context, account fleet.Account, c registry.ImportCommand) ([]registry.ThingImported, error)
}

// importThingsInput is the body of POST /ops/v1/things/import.
type importThingsInput struct {
	// Mode is create, also when it is empty, or upsert.
	Mode   string       `json:"mode"`
	DryRun bool         `json:"dryRun"`
	Things importThings `json:"things"`
}

// importThings are the things of an import.
type importThings []importThing

var errTooManyThings = fault.New(fault.InvalidRequest, "things must have at most %d entries", registry.MaxImport)

// UnmarshalJSON implements json.Unmarshaler. What it is given is valid JSON.
func (t *importThings) UnmarshalJSON(list []byte) (err error) {
	*t, err = listUpTo[importThing](list, registry.MaxImport, "things", errTooManyThings)
	return err
}

// listUpTo decodes the list of a member that has so many entries at most. More than may
// be are not decoded: in a body of {},{},… they would take many times its size.
func listUpTo[T any](list []byte, most int, member string, tooMany error) ([]T, error) {
	decoder := json.NewDecoder(bytes.NewReader(list))
	decoder.DisallowUnknownFields()
	open, err := decoder.Token()
	if err != nil || open == nil {
		return nil, err //nolint:wrapcheck // the caller says what it is about
	}
	if open != json.Delim('[') {
		return nil, errors.New(member + " is no list")
	}
	var all []T
	for decoder.More() {
		if len(all) == most {
			return nil, tooMany
		}
		var one T
		if err := decoder.Decode(&one); err != nil {
			return nil, err //nolint:wrapcheck // as above
		}
		all = append(all, one)
	}
	return all, nil
}

// importThing is one thing of an import.
type importThing struct {
	Name         string            `json:"name"`
	TypeName     string            `json:"typeName"`
	Attributes   map[string]string `json:"attributes"`
	BillingGroup string            `json:"billingGroupName"`
	Groups       []string          `json:"groups"`
}

// importThingsOutput is the answer, with one result for each thing in its order.
type importThingsOutput struct {
	Account string         `json:"account"`
	Results []importResult `json:"results"`
}

// importResult is what became of one thing.
type importResult struct {
	// Result is created, updated, unchanged or error.
	Result  string     `json:"result"`
	Code    fault.Code `json:"code,omitempty"`
	Message string     `json:"message,omitempty"`
}

// handleImport adds the operation.
func (h *handler) handleImport(mux *routes) {
	mux.HandleFunc("POST "+Prefix+"things/import", h.importThings)
}

func (h *handler) importThings(w http.ResponseWriter, r *http.Request) {
	r, body, err := h.enterUpTo(w, r, ActionImportThings, maxImportBody)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	command, err := h.importCommand(r.Context(), body) //nolint:contextcheck // enter returned the same request with the actor
	if err != nil {
		h.fail(w, r, err)
		return
	}
	account := h.o.Account(r.Context())                                      //nolint:contextcheck // as above
	answers, err := h.o.Importer.ImportThings(r.Context(), account, command) //nolint:contextcheck // as above
	if err != nil {
		h.fail(w, r, err)
		return
	}
	out := importThingsOutput{Account: string(account), Results: make([]importResult, len(answers))}
	for i, a := range answers {
		out.Results[i] = h.importResult(r.Context(), a) //nolint:contextcheck // as above
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(out); err != nil {
		h.o.Logger.InfoContext(r.Context(), "caller left before the answer", slog.Any("err", err)) //nolint:contextcheck // as above
	}
}

// importCommand decodes a body and finds out which of its things the caller
// may import.
func (h *handler) importCommand(ctx context.Context, body []byte) (registry.ImportCommand, error) {
	var in importThingsInput
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&in)
	if errors.Is(err, errTooManyThings) {
		return registry.ImportCommand{}, err
	}
	if err == nil && decoder.More() {
		err = errors.New("there is something behind its end")
	}
	if err != nil {
		return registry.ImportCommand{}, fault.Wrap(fault.InvalidRequest, err,
			`the body must be {"mode":"create","things":[{"name":"…","typeName":"…","attributes":{},"groups":[]}]}: %v`, err)
	}
	c := registry.ImportCommand{DryRun: in.DryRun, Things: make([]registry.ThingImport, 0, len(in.Things))}
	switch in.Mode {
	case "", "create":
		c.Mode = registry.ImportCreate
	case "upsert":
		c.Mode = registry.ImportUpsert
	default:
		return c, fault.New(fault.InvalidRequest, "mode must be create or upsert")
	}
	for _, t := range in.Things {
		c.Things = append(c.Things, registry.ThingImport{
			CreateThingCommand: registry.CreateThingCommand{
				Name: t.Name, TypeName: t.TypeName, Attributes: t.Attributes, BillingGroup: t.BillingGroup,
			},
			Groups: t.Groups, Refused: h.mayImport(ctx, c.Mode, t),
		})
	}
	return c, nil
}

// mayImport asks for the actions that one thing needs.
func (h *handler) mayImport(ctx context.Context, mode registry.ImportMode, t importThing) error {
	if len(t.Groups) > registry.MaxImportGroups {
		return fault.New(fault.InvalidRequest, "groups must have at most %d entries", registry.MaxImportGroups)
	}
	thing := h.o.ARN(ctx, fleet.ARNThing, t.Name)
	err := h.o.Permit(ctx, actionCreateThing, thing)
	if err == nil && mode == registry.ImportUpsert {
		err = h.o.Permit(ctx, actionUpdateThing, thing)
	}
	if err == nil && mode == registry.ImportUpsert && t.BillingGroup != "" {
		err = h.o.Permit(ctx, actionAddBilling, thing)
		if err == nil {
			err = h.o.Permit(ctx, actionAddBilling, h.o.ARN(ctx, fleet.ARNBillingGroup, t.BillingGroup))
		}
	}
	if err == nil && len(t.Groups) > 0 {
		err = h.o.Permit(ctx, actionAddToGroup, thing)
	}
	for _, group := range t.Groups {
		if err == nil {
			err = h.o.Permit(ctx, actionAddToGroup, h.o.ARN(ctx, fleet.ARNThingGroup, group))
		}
	}
	return err
}

// importResult renders one answer. What is our fault goes to the log.
func (h *handler) importResult(ctx context.Context, a registry.ThingImported) importResult {
	switch a.Result {
	case registry.ImportCreated:
		return importResult{Result: "created"}
	case registry.ImportUpdated:
		return importResult{Result: "updated"}
	case registry.ImportUnchanged:
		return importResult{Result: "unchanged"}
	case registry.ImportFailed:
	}
	coded := fault.From(a.Err)
	if coded.Code == fault.Internal {
		h.o.Logger.ErrorContext(ctx, "import of a thing failed", slog.Any("err", a.Err))
	}
	return importResult{Result: "error", Code: coded.Code, Message: coded.Message}
}
