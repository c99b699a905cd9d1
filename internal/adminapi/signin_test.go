package adminapi

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/signin"
)

// TestUnsignedRequests are those of pages that nobody has signed.
func TestUnsignedRequests(t *testing.T) {
	t.Parallel()
	service, err := signin.New(signin.Options{
		Default: account, Session: time.Hour, Limits: signin.Limits{Failures: 1, Total: 1, Window: time.Minute}, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	h := New(Options{SignIn: service, Logger: slog.New(slog.DiscardHandler), Account: nil, Now: time.Now})
	for name, c := range map[string]struct {
		method, path, kind, body string
		status                   int
		says                     string
	}{
		"methods":              {http.MethodGet, "sign-in", "", "", 200, `{"oidc":false,"password":true}`},
		"sign out":             {http.MethodPost, "sign-out", "", "", 200, "{}"},
		"form of another site": {http.MethodPost, "sign-in", "text/plain", `{"user":"a"}`, 400, "application/json"},
		"no type":              {http.MethodPost, "sign-in", "", `{"user":"a"}`, 400, "application/json"},
		"unknown member":       {http.MethodPost, "sign-in", "application/json", `{"remember":1}`, 400, "remember"},
		"two values":           {http.MethodPost, "sign-in", "application/json", `{} {}`, 400, "something after"},
		"no provider":          {http.MethodGet, "sign-in/oidc/start", "", "", 404, "not set up"},
		"no provider to leave": {http.MethodGet, "sign-in/oidc/callback", "", "", 404, "not set up"},
		"no provider to fetch": {http.MethodPost, "sign-in/oidc/token", "application/json", `{"code":"a","secret":"b"}`, 404, "not set up"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), c.method, Prefix+c.path, strings.NewReader(c.body))
		if c.kind != "" {
			r.Header.Set("Content-Type", c.kind)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) || len(w.Result().Cookies()) > 0 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if c.path == "sign-out" && w.Header().Get("Clear-Site-Data") == "" {
			t.Error("the browser forgets nothing")
		}
	}
}
