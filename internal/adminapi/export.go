package adminapi

import (
	"context"
	"net/http"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// ActionExportThings is what a caller needs for an export, on resource "*".
const ActionExportThings = "ops:ExportThings"

// maxExport is the most things of a page of an export.
const maxExport = 1000

// Exporter lists things with all that an import would set.
type Exporter interface {
	ListThings(ctx context.Context, account fleet.Account, f registry.ListThingsFilter, p registry.Page) (registry.Listed[registry.Thing], error)
}

// exportOutput is one page of things, as an import takes them.
type exportOutput struct {
	Things    []exportThing `json:"things"`
	NextToken string        `json:"nextToken,omitempty"`
}

// exportThing is importThing without its empty members.
type exportThing struct {
	Name         string            `json:"name"`
	TypeName     string            `json:"typeName,omitempty"`
	Attributes   map[string]string `json:"attributes,omitempty"`
	BillingGroup string            `json:"billingGroupName,omitempty"`
	Groups       []string          `json:"groups,omitempty"`
}

// handleExport adds the operation.
func (h *handler) handleExport(mux *routes) {
	mux.HandleFunc("GET "+Prefix+"things/export", h.read(ActionExportThings, h.exportThings))
}

// exportThings answers one page, in order of name. Dynamic groups are left out:
// their queries decide anew.
func (h *handler) exportThings(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.things.export", "")
	if err != nil {
		return nil, err
	}
	if l.limit < 1 || l.limit > maxExport {
		return nil, fault.New(fault.InvalidRequest, "maxResults: is not between 1 and %d", maxExport)
	}
	page, err := h.o.Exporter.ListThings(ctx, l.account, registry.ListThingsFilter{}, registry.Page{After: l.after, Limit: l.limit})
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := exportOutput{Things: make([]exportThing, len(page.Items))}
	for i, t := range page.Items {
		out.Things[i] = exportThing{Name: t.Name, TypeName: t.TypeName, Attributes: t.Attributes, BillingGroup: t.BillingGroup}
		for _, m := range t.Groups {
			if !m.Dynamic {
				out.Things[i].Groups = append(out.Things[i].Groups, m.Group)
			}
		}
	}
	if page.Next != "" {
		out.NextToken = h.o.Tokens.Seal(l.account, l.operation, l.filter, page.Next, h.o.Now())
	}
	return out, nil
}
