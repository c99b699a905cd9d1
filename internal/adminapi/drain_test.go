package adminapi_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/fault"
)

// TestDrain calls the three operations and what they refuse.
func TestDrain(t *testing.T) {
	t.Parallel()
	draining := false
	var asked []time.Duration
	var actions []string
	h := adminapi.New(adminapi.Options{
		Authorize: func(r *http.Request, _ []byte, action string) (*http.Request, error) {
			actions = append(actions, action)
			if r.Header.Get("Authorization") == "" {
				return nil, fault.New(fault.Forbidden, "%s is not allowed", action)
			}
			return r, nil
		},
		StartDrain: func(_ context.Context, over time.Duration) error {
			if draining {
				return fault.New(fault.Conflict, "the server is draining already")
			}
			draining, asked = true, append(asked, over)
			return nil
		},
		DrainStatus: func() adminapi.DrainStatus {
			return adminapi.DrainStatus{Draining: draining, Connected: 3, Remaining: 2}
		},
		EndDrain: func() bool { was := draining; draining = false; return was },
		Logger:   slog.New(slog.DiscardHandler),
	})
	call := func(method, body string, signed bool) (int, map[string]any) {
		r := httptest.NewRequestWithContext(t.Context(), method, "/ops/v1/drain", strings.NewReader(body))
		if signed {
			r.Header.Set("Authorization", "yes")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var got map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%s %s: %v in %s", method, body, err, w.Body)
		}
		return w.Code, got
	}
	for _, c := range []struct {
		method, body string
		status       int
	}{
		{http.MethodPost, `{"over":"60s"}`, http.StatusAccepted},
		{http.MethodPost, `{"over":"60s"}`, http.StatusConflict},
		{http.MethodGet, ``, http.StatusOK},
		{http.MethodDelete, ``, http.StatusOK},
		{http.MethodDelete, ``, http.StatusOK},
		{http.MethodPost, ``, http.StatusAccepted},
		{http.MethodDelete, ``, http.StatusOK},
		{http.MethodPost, `{}`, http.StatusAccepted},
		{http.MethodDelete, ``, http.StatusOK},
		{http.MethodPost, `{"over":"0s"}`, http.StatusAccepted},
		{http.MethodDelete, ``, http.StatusOK},
		{http.MethodPost, `{"over":"2h"}`, http.StatusBadRequest},
		{http.MethodPost, `{"over":"-1s"}`, http.StatusBadRequest},
		{http.MethodPost, `{"over":60}`, http.StatusBadRequest},
		{http.MethodPost, `{"within":"60s"}`, http.StatusBadRequest},
		{http.MethodPost, `{} {}`, http.StatusBadRequest},
		{http.MethodPost, `no`, http.StatusBadRequest},
	} {
		status, got := call(c.method, c.body, true)
		if status != c.status {
			t.Errorf("%s %s: %d %v", c.method, c.body, status, got)
		}
		if status < 300 && got["remaining"] != 2.0 || status >= 300 && got["message"] == "" {
			t.Errorf("%s %s: %v", c.method, c.body, got)
		}
	}
	if diff := cmp.Diff([]time.Duration{time.Minute, -1, -1, 0}, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodDelete} {
		if status, _ := call(method, "", false); status != http.StatusForbidden {
			t.Errorf("%s without permission: %d", method, status)
		}
	}
	for _, action := range actions {
		if action != adminapi.ActionDrain {
			t.Errorf("asked for %s", action)
		}
	}
	if draining {
		t.Error("somebody without permission has begun a drain")
	}
}
