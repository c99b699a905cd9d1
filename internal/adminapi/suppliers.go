package adminapi

import (
	"context"
	"net/http"
	"time"

	"github.com/muster-iot/muster/internal/allowlist"
	"github.com/muster-iot/muster/internal/fault"
)

// Actions on suppliers of allow lists, on resource "*".
const (
	ActionListSuppliers         = "ops:ListSuppliers"
	ActionGetSupplier           = "ops:GetSupplier"
	ActionPutSupplier           = "ops:PutSupplier"
	ActionDeleteSupplier        = "ops:DeleteSupplier"
	suppliersPath, supplierPath = Prefix + "suppliers", Prefix + "suppliers/{supplier}"
)

// supplierBody is a supplier, in requests without id, keys and times.
type supplierBody struct {
	SupplierID string                   `json:"supplierId,omitempty"`
	Name       string                   `json:"name,omitempty"`
	Status     allowlist.SupplierStatus `json:"status,omitempty"`
	// TemplateNames are the only templates by which its devices join; absent for any.
	TemplateNames  []string         `json:"templateNames,omitempty"`
	AcceptUnsigned bool             `json:"acceptUnsigned,omitempty"`
	AcceptSigned   bool             `json:"acceptSigned,omitempty"`
	SigningKeys    []signingKeyBody `json:"signingKeys,omitempty"`
	CreatedAt      string           `json:"createdAt,omitempty"`
	ChangedAt      string           `json:"changedAt,omitempty"`
}

// signingKeyBody is a key with which a supplier signs, in requests without its id.
type signingKeyBody struct {
	KeyID     string              `json:"kid,omitempty"`
	Algorithm allowlist.Algorithm `json:"alg,omitempty"`
	PublicKey string              `json:"publicKey"`
	ValidFrom string              `json:"validFrom,omitempty"`
	ValidTo   string              `json:"validTo,omitempty"`
}

func supplierOf(s *allowlist.Supplier) supplierBody {
	out := supplierBody{
		SupplierID: s.ID, Name: s.Name, Status: s.Status, TemplateNames: s.Templates, AcceptUnsigned: s.AcceptUnsigned, AcceptSigned: s.AcceptSigned,
		SigningKeys: make([]signingKeyBody, len(s.Keys)), CreatedAt: stamp(s.Created), ChangedAt: stamp(s.Modified),
	}
	for i, k := range s.Keys {
		out.SigningKeys[i] = signingKeyBody{KeyID: k.ID, Algorithm: k.Algorithm, PublicKey: k.PublicKey, ValidFrom: stamp(k.From), ValidTo: stamp(k.Until)}
	}
	return out
}

// handleSuppliers adds the operations.
func (h *handler) handleSuppliers(mux *routes) {
	mux.HandleFunc("GET "+suppliersPath, h.read(ActionListSuppliers, func(ctx context.Context, r *http.Request) (any, error) {
		l, err := h.openList(ctx, r, "ops.suppliers", "")
		if err != nil {
			return nil, err
		}
		found, next, err := h.o.AllowLists.Suppliers(ctx, l.account, l.after, l.limit)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		out := struct {
			Suppliers []supplierBody `json:"suppliers"`
			NextToken string         `json:"nextToken,omitempty"`
		}{make([]supplierBody, len(found)), h.nextToken(&l, next)}
		for i := range found {
			out.Suppliers[i] = supplierOf(&found[i])
		}
		return out, nil
	}))
	mux.HandleFunc("GET "+supplierPath, h.read(ActionGetSupplier, func(ctx context.Context, r *http.Request) (any, error) {
		found, err := h.o.AllowLists.Supplier(ctx, h.o.Account(ctx), r.PathValue("supplier"))
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return supplierOf(&found), nil
	}))
	mux.HandleFunc("PUT "+supplierPath, h.operate(ActionPutSupplier, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var in supplierBody
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		if in.SupplierID != "" || in.CreatedAt != "" || in.ChangedAt != "" || in.SigningKeys != nil {
			return nil, fault.New(fault.InvalidRequest, "supplierId, signingKeys, createdAt and changedAt are not for requests")
		}
		made, err := h.o.AllowLists.PutSupplier(ctx, h.o.Account(ctx), allowlist.Supplier{
			ID: r.PathValue("supplier"), Name: in.Name, Status: in.Status, Templates: in.TemplateNames, AcceptUnsigned: in.AcceptUnsigned, AcceptSigned: in.AcceptSigned,
		})
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return supplierOf(&made), nil
	}))
	mux.HandleFunc("PUT "+supplierPath+"/keys/{kid}", h.operate(ActionPutSupplier, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var in signingKeyBody
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		if in.KeyID != "" {
			return nil, fault.New(fault.InvalidRequest, "kid is in the path")
		}
		key := allowlist.SigningKey{ID: r.PathValue("kid"), Algorithm: in.Algorithm, PublicKey: in.PublicKey}
		for _, at := range []struct {
			name, text string
			into       *time.Time
		}{{"validFrom", in.ValidFrom, &key.From}, {"validTo", in.ValidTo, &key.Until}} {
			if at.text == "" {
				continue
			}
			var err error
			if *at.into, err = time.Parse(time.RFC3339, at.text); err != nil {
				return nil, fault.New(fault.InvalidRequest, "%s must be a time in RFC 3339", at.name)
			}
		}
		after, err := h.o.AllowLists.PutSigningKey(ctx, h.o.Account(ctx), r.PathValue("supplier"), key)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return supplierOf(&after), nil
	}))
	mux.HandleFunc("DELETE "+supplierPath, h.operate(ActionDeleteSupplier, func(ctx context.Context, r *http.Request, _ []byte) (any, error) {
		return nil, h.o.AllowLists.DeleteSupplier(ctx, h.o.Account(ctx), r.PathValue("supplier")) //nolint:wrapcheck // coded
	}))
}
