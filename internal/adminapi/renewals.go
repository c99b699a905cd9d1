package adminapi

import (
	"context"
	"net/http"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/renewal"
)

// ActionListCertificateRenewals is the action on renewals, on resource "*".
const ActionListCertificateRenewals = "ops:ListCertificateRenewals"

// Renewals answers about things that exchange their certificates.
type Renewals interface {
	List(ctx context.Context, account fleet.Account, q renewal.Query) (found []renewal.Renewal, next string, err error)
}

// renewalOutput is one renewal. Times are RFC 3339 in UTC with milliseconds.
type renewalOutput struct {
	ThingName        string                   `json:"thingName"`
	OldCertificateID string                   `json:"oldCertificateId"`
	NewCertificateID string                   `json:"newCertificateId"`
	Step             event.CertificateRenewal `json:"step"`
	BegunAt          string                   `json:"begunAt"`
	ChangedAt        string                   `json:"changedAt"`
	// DueAt is when the next step is taken without anybody's doing.
	DueAt  string              `json:"dueAt,omitempty"`
	Reason string              `json:"reason,omitempty"`
	Proof  *renewalProofOutput `json:"proof,omitempty"`
}

// renewalProofOutput is the first connection with the new certificate.
type renewalProofOutput struct {
	At            string `json:"at"`
	ClientID      string `json:"clientId"`
	ConnectionID  string `json:"connectionId,omitempty"`
	SourceAddress string `json:"sourceAddress,omitempty"`
}

// renewalsOutput is a page of renewals.
type renewalsOutput struct {
	Renewals  []renewalOutput `json:"certificateRenewals"`
	NextToken string          `json:"nextToken,omitempty"`
}

// handleRenewals adds the operation on renewals.
func (h *handler) handleRenewals(mux *routes) {
	mux.HandleFunc("GET "+Prefix+"certificate-renewals", h.read(ActionListCertificateRenewals, h.listRenewals))
}

// listRenewals lists those of one step, or of one thing, or all.
func (h *handler) listRenewals(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.certificate-renewals", "", "step", "thing")
	if err != nil {
		return nil, err
	}
	found, next, err := h.o.Renewals.List(ctx, l.account, renewal.Query{
		Step: event.CertificateRenewal(l.values.Get("step")), Thing: l.values.Get("thing"), After: l.after, Limit: l.limit,
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := renewalsOutput{Renewals: make([]renewalOutput, len(found)), NextToken: h.nextToken(&l, next)}
	for i := range found {
		out.Renewals[i] = renewalOf(&found[i])
	}
	return out, nil
}

// renewalOf is a renewal as answers show it.
func renewalOf(one *renewal.Renewal) renewalOutput {
	out := renewalOutput{
		ThingName: one.Thing, OldCertificateID: one.OldCertificateID, NewCertificateID: one.NewCertificateID, Step: one.Step,
		BegunAt: stamp(one.Begun), ChangedAt: stamp(one.Changed), DueAt: stamp(one.Due), Reason: one.Reason,
	}
	if !one.Proof.At.IsZero() {
		out.Proof = &renewalProofOutput{
			At: stamp(one.Proof.At), ClientID: one.Proof.ClientID, ConnectionID: one.Proof.ConnectionID, SourceAddress: one.Proof.Address,
		}
	}
	return out
}
