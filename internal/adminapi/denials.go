package adminapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"

	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/fault"
)

// ActionGetDenials is what the caller needs to see refusals and to ask what
// would be refused, on resource "*".
const ActionGetDenials = "ops:GetDenials"

// Devices answers why devices were refused.
type Devices interface {
	ClientRefusals(ctx context.Context, clientID string) deviceauth.Refusals
	PrincipalRefusals(ctx context.Context, principalID string) deviceauth.Refusals
	Explain(ctx context.Context, q deviceauth.Question) (deviceauth.Answer, error)
}

// denialsOutput is the answer about one client or one principal, newest first.
type denialsOutput struct {
	ClientID      string               `json:"clientId,omitempty"`
	CertificateID string               `json:"certificateId,omitempty"`
	Denials       []deviceauth.Refusal `json:"denials"`
	// Evicted counts denials of all devices that gave way since the server's
	// start.
	Evicted int64 `json:"evicted"`
}

// explainInput is the body of POST /ops/v1/connections/{clientId}/explain.
type explainInput struct {
	Action        string `json:"action"`
	Topic         string `json:"topic"`
	Resource      string `json:"resource"`
	CertificateID string `json:"certificateId"`
}

// handleDenials adds the operations about refusals. A client id is one escaped
// segment, slashes included.
func (h *handler) handleDenials(mux *routes) {
	mux.HandleFunc("GET "+Prefix+"connections/{clientId}/denials", h.clientDenials)
	mux.HandleFunc("GET "+Prefix+"principals/{certificateId}/denials", h.principalDenials)
	mux.HandleFunc("POST "+Prefix+"connections/{clientId}/explain", h.explain)
}

func (h *handler) clientDenials(w http.ResponseWriter, r *http.Request) {
	r, _, err := h.enter(w, r, ActionGetDenials)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	id := r.PathValue("clientId")
	found := h.o.Devices.ClientRefusals(r.Context(), id) //nolint:contextcheck // enter returned the same request with the actor
	h.answer(w, r, denialsOutput{ClientID: id, Denials: found.Refusals, Evicted: found.Evicted})
}

func (h *handler) principalDenials(w http.ResponseWriter, r *http.Request) {
	r, _, err := h.enter(w, r, ActionGetDenials)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	id := r.PathValue("certificateId")
	found := h.o.Devices.PrincipalRefusals(r.Context(), id) //nolint:contextcheck // as above
	h.answer(w, r, denialsOutput{CertificateID: id, Denials: found.Refusals, Evicted: found.Evicted})
}

func (h *handler) explain(w http.ResponseWriter, r *http.Request) {
	r, body, err := h.enter(w, r, ActionGetDenials)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	var in explainInput
	if err := decodeStrictly(body, &in); err != nil {
		h.fail(w, r, err)
		return
	}
	answer, err := h.o.Devices.Explain(r.Context(), deviceauth.Question{ //nolint:contextcheck // as above
		ClientID: r.PathValue("clientId"), CertificateID: in.CertificateID, Action: in.Action, Topic: in.Topic, Resource: in.Resource,
	})
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.answer(w, r, answer)
}

// decodeStrictly reads one JSON value; members that are not known are refused.
func decodeStrictly(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fault.Wrap(fault.InvalidRequest, err, "the body is not what this operation takes: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fault.New(fault.InvalidRequest, "the body has something after its JSON value")
	}
	return nil
}

// answer writes a JSON answer.
func (h *handler) answer(w http.ResponseWriter, r *http.Request, out any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(out); err != nil {
		h.o.Logger.InfoContext(r.Context(), "caller left before the answer", slog.Any("err", err))
	}
}
