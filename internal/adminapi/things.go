package adminapi

import (
	"bytes"
	"context"
	"net/http"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// Actions on things, on resource "*".
const (
	ActionDecommissionThing = "ops:DecommissionThing"
	ActionListPastThings    = "ops:ListPastThings"
)

// Decommissioner takes things out of service and knows those of the past.
type Decommissioner interface {
	Decommission(ctx context.Context, account fleet.Account, c registry.DecommissionCommand) (registry.PastThing, error)
	PastThings(ctx context.Context, account fleet.Account, name string, p registry.Page) (registry.Listed[registry.PastThing], error)
}

// decommissionInput is the body of POST /ops/v1/things/{thing}/decommission; it
// may be empty.
type decommissionInput struct {
	// ThingID guards against another thing that has the name by now.
	ThingID          string `json:"thingId"`
	Reason           string `json:"reason"`
	KeepCertificates bool   `json:"keepCertificates"`
}

// pastThingOutput is a former life of a name. Times are RFC 3339 in UTC with
// milliseconds.
type pastThingOutput struct {
	ThingName     string            `json:"thingName"`
	ThingID       string            `json:"thingId"`
	ThingTypeName string            `json:"thingTypeName,omitempty"`
	Attributes    map[string]string `json:"attributes"`
	BillingGroup  string            `json:"billingGroupName,omitempty"`
	Version       int64             `json:"version"`
	// ThingGroups are the groups that it was in, DynamicGroups those of them that
	// a query had put it into.
	ThingGroups   []string `json:"thingGroups"`
	DynamicGroups []string `json:"dynamicGroups,omitempty"`
	// Certificates are those that it was attached to.
	Certificates     []pastCertificateOutput `json:"certificates"`
	CreatedAt        string                  `json:"createdAt"`
	DecommissionedAt string                  `json:"decommissionedAt"`
	By               fleet.Actor             `json:"by"`
	Reason           string                  `json:"reason,omitempty"`
	// CompletedAt is absent while sessions or shadows may be left; repeating the
	// call removes them.
	CompletedAt string `json:"completedAt,omitempty"`
}

// pastCertificateOutput is a certificate of a former life.
type pastCertificateOutput struct {
	CertificateID string `json:"certificateId"`
	// Revoked with the thing; Shared with other things, and only detached.
	Revoked bool `json:"revoked"`
	Shared  bool `json:"shared"`
}

// pastThingsOutput is a page of former lives, newest first.
type pastThingsOutput struct {
	PastThings []pastThingOutput `json:"pastThings"`
	NextToken  string            `json:"nextToken,omitempty"`
}

// handleThings adds the operations on things.
func (h *handler) handleThings(mux *routes) {
	mux.HandleFunc("POST "+Prefix+"things/{thing}/decommission", h.operate(ActionDecommissionThing, h.decommission))
	mux.HandleFunc("GET "+Prefix+"things/{thing}/past", h.read(ActionListPastThings, h.pastThings))
}

// pastThing is a former life as answers show it.
func pastThing(p registry.PastThing) pastThingOutput {
	out := pastThingOutput{
		ThingName: p.Name, ThingID: p.ID, ThingTypeName: p.TypeName, Attributes: p.Attributes, BillingGroup: p.BillingGroup, Version: p.Version,
		ThingGroups: []string{}, Certificates: []pastCertificateOutput{},
		CreatedAt: stamp(p.Created), DecommissionedAt: stamp(p.Ended), CompletedAt: stamp(p.Completed), By: p.Actor, Reason: p.Reason,
	}
	if out.Attributes == nil {
		out.Attributes = map[string]string{}
	}
	for _, g := range p.Groups {
		out.ThingGroups = append(out.ThingGroups, g.Group)
		if g.Dynamic {
			out.DynamicGroups = append(out.DynamicGroups, g.Group)
		}
	}
	for _, c := range p.Certificates {
		out.Certificates = append(out.Certificates, pastCertificateOutput{CertificateID: c.ID, Revoked: c.Revoked, Shared: c.Shared})
	}
	return out
}

// decommission answers the thing as it was.
func (h *handler) decommission(ctx context.Context, r *http.Request, body []byte) (any, error) {
	var in decommissionInput
	if len(bytes.TrimSpace(body)) > 0 {
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
	}
	past, err := h.o.Decommissioner.Decommission(ctx, h.o.Account(ctx), registry.DecommissionCommand{
		Name: r.PathValue("thing"), ThingID: in.ThingID, Reason: in.Reason, KeepCertificates: in.KeepCertificates,
	})
	if err != nil {
		return nil, err
	}
	return pastThing(past), nil
}

// pastThings lists the former lives of a name.
func (h *handler) pastThings(ctx context.Context, r *http.Request) (any, error) {
	thing := r.PathValue("thing")
	l, err := h.openList(ctx, r, "ops.things.past", thing)
	if err != nil {
		return nil, err
	}
	p, err := l.registryPage()
	if err != nil {
		return nil, err
	}
	listed, err := h.o.Decommissioner.PastThings(ctx, l.account, thing, p)
	if err != nil {
		return nil, err
	}
	out := pastThingsOutput{PastThings: make([]pastThingOutput, len(listed.Items)), NextToken: h.nextToken(&l, listed.Next)}
	for i, past := range listed.Items {
		out.PastThings[i] = pastThing(past)
	}
	return out, nil
}

// operate wraps an operation that takes a body and answers JSON; an answer of
// nil is an empty object.
func (h *handler) operate(action string, do func(ctx context.Context, r *http.Request, body []byte) (any, error)) http.HandlerFunc {
	return h.operateUpTo(maxBody, action, do)
}

// operateUpTo is operate for a body of another size.
func (h *handler) operateUpTo(limit int64, action string, do func(ctx context.Context, r *http.Request, body []byte) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r, body, err := h.enterUpTo(w, r, action, limit)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		out, err := do(r.Context(), r, body) //nolint:contextcheck // enter returned the same request with the actor
		if err != nil {
			h.fail(w, r, err)
			return
		}
		if out == nil {
			out = struct{}{}
		}
		h.answer(w, r, out)
	}
}

// mostResults bounds a page of the registry's lists.
const mostResults = 250

// registryPage is what a list of the registry is asked for.
func (l *list) registryPage() (registry.Page, error) {
	if l.limit < 1 || l.limit > mostResults {
		return registry.Page{}, fault.New(fault.InvalidRequest, "maxResults: must be from 1 to %d", mostResults)
	}
	return registry.Page{After: l.after, Limit: l.limit}, nil
}

// nextToken seals where a list goes on; empty for its end.
func (h *handler) nextToken(l *list, next string) string {
	if next == "" {
		return ""
	}
	return h.o.Tokens.Seal(l.account, l.operation, l.filter, next, h.o.Now())
}
