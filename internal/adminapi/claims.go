package adminapi

import (
	"context"
	"net/http"

	"github.com/muster-iot/muster/internal/claimwatch"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Actions on what provisioning claims are used for, on resource "*".
const (
	ActionListClaimUses     = "ops:ListClaimUses"
	ActionGetClaimUse       = "ops:GetClaimUse"
	ActionSettleClaimMisuse = "ops:SettleClaimMisuse"
	claimUsesPath           = Prefix + "claim-uses"
)

// ClaimUses is what claims are used for.
type ClaimUses interface {
	Uses(ctx context.Context, account fleet.Account, misused bool, after string, limit int) (page []claimwatch.Use, next string, err error)
	Use(ctx context.Context, account fleet.Account, claim string) (claimwatch.Use, error)
	Settle(ctx context.Context, account fleet.Account, claim, note string) (claimwatch.Use, error)
}

// claimUseOutput is what a claim was used for. Times are RFC 3339 in UTC with
// milliseconds.
type claimUseOutput struct {
	ClaimCertificateID string `json:"claimCertificateId"`
	FirstAt            string `json:"firstAt"`
	LastAt             string `json:"lastAt"`
	Provisioned        int64  `json:"provisioned"`
	Refused            int64  `json:"refused"`
	// Networks are the first 64; OtherNetworks counts requests from more of them.
	Networks      []claimNetworkOutput `json:"networks"`
	OtherNetworks int64                `json:"otherNetworks,omitempty"`
	Findings      []claimFindingOutput `json:"findings"`
}

type claimNetworkOutput struct {
	Network     string `json:"network"`
	FirstAt     string `json:"firstAt"`
	LastAt      string `json:"lastAt"`
	Provisioned int64  `json:"provisioned"`
	Refused     int64  `json:"refused"`
}

type claimFindingOutput struct {
	Kind          event.ClaimMisuse `json:"kind"`
	Network       string            `json:"network,omitempty"`
	FirstAt       string            `json:"firstAt"`
	LastAt        string            `json:"lastAt"`
	Times         int64             `json:"times"`
	TemplateName  string            `json:"templateName,omitempty"`
	CertificateID string            `json:"certificateId,omitempty"`
	Reason        string            `json:"reason,omitempty"`
	// SettledAt is absent while the finding waits for somebody.
	SettledAt string `json:"settledAt,omitempty"`
	SettledBy string `json:"settledBy,omitempty"`
	Note      string `json:"note,omitempty"`
}

func claimUseOf(u *claimwatch.Use) claimUseOutput {
	out := claimUseOutput{
		ClaimCertificateID: u.ClaimID, FirstAt: stamp(u.First), LastAt: stamp(u.Last), Provisioned: u.Provisioned, Refused: u.Refused,
		Networks: make([]claimNetworkOutput, len(u.Networks)), OtherNetworks: u.Forgotten, Findings: make([]claimFindingOutput, len(u.Findings)),
	}
	for i, n := range u.Networks {
		out.Networks[i] = claimNetworkOutput{Network: n.Network, FirstAt: stamp(n.First), LastAt: stamp(n.Last), Provisioned: n.Provisioned, Refused: n.Refused}
	}
	for i, f := range u.Findings {
		out.Findings[i] = claimFindingOutput{
			Kind: f.Kind, Network: f.Network, FirstAt: stamp(f.First), LastAt: stamp(f.Last), Times: f.Times, TemplateName: f.Template,
			CertificateID: f.CertificateID, Reason: f.Reason, SettledAt: stamp(f.Settled), SettledBy: f.SettledBy, Note: f.Note,
		}
	}
	return out
}

// handleClaimUses adds the operations.
func (h *handler) handleClaimUses(mux *routes) {
	mux.HandleFunc("GET "+claimUsesPath, h.read(ActionListClaimUses, func(ctx context.Context, r *http.Request) (any, error) {
		l, err := h.openList(ctx, r, "ops.claim-uses", "", "misused")
		if err != nil {
			return nil, err
		}
		misused := l.values.Get("misused")
		if misused != "" && misused != "true" && misused != "false" {
			return nil, fault.New(fault.InvalidRequest, "misused must be true or false")
		}
		found, next, err := h.o.ClaimUses.Uses(ctx, l.account, misused == "true", l.after, l.limit)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		out := struct {
			Claims    []claimUseOutput `json:"claims"`
			NextToken string           `json:"nextToken,omitempty"`
		}{make([]claimUseOutput, len(found)), h.nextToken(&l, next)}
		for i := range found {
			out.Claims[i] = claimUseOf(&found[i])
		}
		return out, nil
	}))
	mux.HandleFunc("GET "+claimUsesPath+"/{claim}", h.read(ActionGetClaimUse, func(ctx context.Context, r *http.Request) (any, error) {
		found, err := h.o.ClaimUses.Use(ctx, h.o.Account(ctx), r.PathValue("claim"))
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return claimUseOf(&found), nil
	}))
	mux.HandleFunc("POST "+claimUsesPath+"/{claim}/settle", h.operate(ActionSettleClaimMisuse, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var in struct {
			Note string `json:"note"`
		}
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		after, err := h.o.ClaimUses.Settle(ctx, h.o.Account(ctx), r.PathValue("claim"), in.Note)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return claimUseOf(&after), nil
	}))
}
