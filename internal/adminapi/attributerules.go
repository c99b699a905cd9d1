package adminapi

import (
	"bytes"
	"context"
	"net/http"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// Actions on the rules of a thing type's attributes, on resource "*".
const (
	ActionGetAttributeRules    = "ops:GetAttributeRules"
	ActionSetAttributeRules    = "ops:SetAttributeRules"
	ActionDeleteAttributeRules = "ops:DeleteAttributeRules"
	// ActionCheckAttributeRules is for seeing which things break rules.
	ActionCheckAttributeRules = "ops:CheckAttributeRules"
)

// AttributeRules keeps the rules of thing types.
type AttributeRules interface {
	AttributeRules(ctx context.Context, account fleet.Account, typeName string) (registry.AttributeRules, error)
	SetAttributeRules(ctx context.Context, account fleet.Account, typeName string, rules registry.AttributeRules) error
	RemoveAttributeRules(ctx context.Context, account fleet.Account, typeName string) error
	CheckAttributeRules(ctx context.Context, account fleet.Account, typeName string, rules *registry.AttributeRules, p registry.Page) (registry.Listed[registry.Violations], error)
}

// checkOutput is a page of the things that break rules. It may be empty and not
// the last.
type checkOutput struct {
	Things    []registry.Violations `json:"things"`
	NextToken string                `json:"nextToken,omitempty"`
}

// handleAttributeRules adds the operations on rules, whose JSON is that of
// registry.AttributeRules.
func (h *handler) handleAttributeRules(mux *routes) {
	const path = Prefix + "thing-types/{type}/attribute-rules"
	mux.HandleFunc("GET "+path, h.read(ActionGetAttributeRules, func(ctx context.Context, r *http.Request) (any, error) {
		return h.o.AttributeRules.AttributeRules(ctx, h.o.Account(ctx), r.PathValue("type"))
	}))
	mux.HandleFunc("PUT "+path, h.operate(ActionSetAttributeRules, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var rules registry.AttributeRules
		if err := decodeStrictly(body, &rules); err != nil {
			return nil, err
		}
		return nil, h.o.AttributeRules.SetAttributeRules(ctx, h.o.Account(ctx), r.PathValue("type"), rules)
	}))
	mux.HandleFunc("DELETE "+path, h.operate(ActionDeleteAttributeRules, func(ctx context.Context, r *http.Request, _ []byte) (any, error) {
		return nil, h.o.AttributeRules.RemoveAttributeRules(ctx, h.o.Account(ctx), r.PathValue("type"))
	}))
	mux.HandleFunc("POST "+path+"/check", h.operate(ActionCheckAttributeRules, h.checkAttributeRules))
}

// checkAttributeRules tries the rules in the body, or those in force without a
// body, on the things that there are. Nothing changes.
func (h *handler) checkAttributeRules(ctx context.Context, r *http.Request, body []byte) (any, error) {
	typeName := r.PathValue("type")
	l, err := h.openList(ctx, r, "ops.attribute-rules.check", typeName)
	if err != nil {
		return nil, err
	}
	// The place where a list goes on does not depend on the rules, so a token is
	// good for other rules too.
	p, err := l.registryPage()
	if err != nil {
		return nil, err
	}
	var rules *registry.AttributeRules
	if len(bytes.TrimSpace(body)) > 0 {
		rules = &registry.AttributeRules{}
		if err := decodeStrictly(body, rules); err != nil {
			return nil, err
		}
	}
	listed, err := h.o.AttributeRules.CheckAttributeRules(ctx, l.account, typeName, rules, p)
	if err != nil {
		return nil, err
	}
	out := checkOutput{Things: listed.Items, NextToken: h.nextToken(&l, listed.Next)}
	if out.Things == nil {
		out.Things = []registry.Violations{}
	}
	return out, nil
}
