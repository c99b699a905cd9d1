package adminapi

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/muster-iot/muster/internal/fault"
)

// longestDrain bounds what a drain may be asked to take.
const longestDrain = time.Hour

// DrainStatus is how far a drain has come.
type DrainStatus struct {
	// Draining says that devices are refused and told to leave.
	Draining bool `json:"draining"`
	// Since is when it began, Until when the last device is told.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Connected was the number of devices when it began; Remaining are those who
	// are connected now.
	Connected int `json:"connected"`
	Remaining int `json:"remaining"`
}

// routeDrain adds the operations on /ops/v1/drain.
func (h *handler) routeDrain(mux *routes) {
	mux.HandleFunc("POST "+Prefix+"drain", h.startDrain)
	mux.HandleFunc("GET "+Prefix+"drain", h.drainStatus)
	mux.HandleFunc("DELETE "+Prefix+"drain", h.endDrain)
}

// drainInput is the body of POST /ops/v1/drain; an empty one takes the time
// from the settings.
type drainInput struct {
	// Over is a duration such as 60s.
	Over *string `json:"over"`
}

// over returns the time that is asked for, negative for that of the settings.
func (in *drainInput) over(body []byte) (time.Duration, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return -1, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(in); err != nil || decoder.More() {
		return 0, fault.New(fault.InvalidRequest, `the body must be {"over":"60s"} or empty`)
	}
	if in.Over == nil {
		return -1, nil
	}
	over, err := time.ParseDuration(*in.Over)
	if err != nil || over < 0 || over > longestDrain {
		return 0, fault.New(fault.InvalidRequest, "over must be a duration between 0s and %v, such as 60s", longestDrain)
	}
	return over, nil
}

// startDrain answers as soon as devices are told to leave.
func (h *handler) startDrain(w http.ResponseWriter, r *http.Request) {
	r, body, err := h.enter(w, r, ActionDrain)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	var in drainInput
	over, err := in.over(body)
	if err == nil {
		err = h.o.StartDrain(r.Context(), over) //nolint:contextcheck // enter returned the same request with the actor
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.showDrain(w, r, http.StatusAccepted)
}

// drainStatus tells how far a drain has come.
func (h *handler) drainStatus(w http.ResponseWriter, r *http.Request) {
	r, _, err := h.enter(w, r, ActionDrain)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.showDrain(w, r, http.StatusOK)
}

// endDrain lets devices in again, also when nothing was drained.
func (h *handler) endDrain(w http.ResponseWriter, r *http.Request) {
	r, _, err := h.enter(w, r, ActionDrain)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.o.EndDrain()
	h.showDrain(w, r, http.StatusOK)
}

// showDrain answers with the status.
func (h *handler) showDrain(w http.ResponseWriter, r *http.Request, status int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(h.o.DrainStatus()); err != nil {
		h.o.Logger.InfoContext(r.Context(), "caller left before the answer", slog.Any("err", err))
	}
}
