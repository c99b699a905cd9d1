package adminapi

import (
	"context"
	"net/http"

	"github.com/muster-iot/muster/internal/registry"
)

// Actions on what is declared about authorities, on resource "*".
const (
	ActionGetCADeclaration = "ops:GetCADeclaration"
	ActionPutCADeclaration = "ops:PutCADeclaration"
)

// declarationInput is an operator's statement about an authority.
type declarationInput struct {
	Statement string `json:"statement"`
}

// declarationOutput is what is on record about an authority. Times are RFC 3339
// in UTC.
type declarationOutput struct {
	CACertificateID string `json:"caCertificateId"`
	// Basis is POSSESSION when the key was proved to be at hand, else TRUST.
	Basis string `json:"basis"`
	// RegisteredBy is the ARN of who registered it.
	RegisteredBy string `json:"registeredBy,omitempty"`
	RegisteredAt string `json:"registeredAt"`
	// Statement is an operator's own words; all three are absent without one.
	Statement string `json:"statement,omitempty"`
	StatedBy  string `json:"statedBy,omitempty"`
	StatedAt  string `json:"statedAt,omitempty"`
}

// handleCADeclarations adds the operations on declarations.
func (h *handler) handleCADeclarations(mux *routes) {
	const path = Prefix + "ca-certificates/{caCertificateId}/declaration"
	mux.HandleFunc("GET "+path, h.read(ActionGetCADeclaration, func(ctx context.Context, r *http.Request) (any, error) {
		id := r.PathValue("caCertificateId")
		ca, err := h.o.Certificates.DescribeCACertificate(ctx, h.o.Account(ctx), id)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return declarationOf(id, ca.Declaration), nil
	}))
	mux.HandleFunc("PUT "+path, h.operate(ActionPutCADeclaration, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var in declarationInput
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		id := r.PathValue("caCertificateId")
		declared, err := h.o.Certificates.DeclareCA(ctx, h.o.Account(ctx), id, in.Statement)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return declarationOf(id, declared), nil
	}))
}

// declarationOf encodes a declaration.
func declarationOf(id string, d registry.CADeclaration) declarationOutput {
	out := declarationOutput{
		CACertificateID: id, Basis: d.Basis, RegisteredBy: d.By, RegisteredAt: stamp(d.At), Statement: d.Statement, StatedBy: d.StatedBy,
	}
	if !d.StatedAt.IsZero() {
		out.StatedAt = stamp(d.StatedAt)
	}
	return out
}
