package adminapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/connectivity"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/pagetoken"
)

// watched is a state machine that remembers what it was asked.
type watched struct {
	asked    string
	settings []connectivity.GroupSettings
}

func (w *watched) Of(_ context.Context, of fleet.Account, thing string) (connectivity.Status, error) {
	if thing == "ghost" {
		return connectivity.Status{}, fault.New(fault.ResourceNotFound, "there is no thing ghost")
	}
	at := time.UnixMilli(1_795_000_000_000)
	return connectivity.Status{
		Thing: thing, State: connectivity.OfflineDirty, StateVersion: 4, Since: at, Settled: at.Add(30 * time.Second), ClientID: thing,
		DisconnectReason: "CONNECTION_LOST", CurrentOutage: time.Minute, Gateway: "gw", Latency: &connectivity.Latency{LastMS: 1.5, Samples: 1, At: at.UnixMilli()},
		Settings: connectivity.InForce{From: map[string]string{"alert": string(of)}},
		Recent: []connectivity.Change{{
			Version: 4, From: connectivity.Suspect, To: connectivity.OfflineDirty, Since: at, At: at.Add(30 * time.Second), Wait: 30 * time.Second, Alert: true,
		}},
	}, nil
}

func (w *watched) Summarize(context.Context, fleet.Account) (connectivity.Summary, error) {
	return connectivity.Summary{Things: 3, ByState: map[connectivity.State]int{connectivity.Online: 2, connectivity.NeverSeen: 1}, Flapping: 1}, nil
}

func (w *watched) ListSettings(fleet.Account) []connectivity.GroupSettings { return w.settings }

func (w *watched) SettingsOf(_ fleet.Account, group string) (connectivity.Settings, error) {
	for _, s := range w.settings {
		if s.Group == group {
			return s.Settings, nil
		}
	}
	return connectivity.Settings{}, fault.New(fault.ResourceNotFound, "none")
}

func (w *watched) PutSettings(_ context.Context, _ fleet.Account, group string, s connectivity.Settings) error {
	w.asked = fmt.Sprintf("put %q %v", group, *s.WaitSeconds)
	return s.Check()
}

func (w *watched) DeleteSettings(_ context.Context, _ fleet.Account, group string) error {
	w.asked = fmt.Sprintf("delete %q", group)
	return nil
}

func (w *watched) AssignGateway(_ context.Context, _ fleet.Account, thing, gateway string) error {
	w.asked = fmt.Sprintf("assign %q %q", thing, gateway)
	return nil
}

// watchedHandler answers from w; every caller may do everything.
func watchedHandler(t *testing.T, w *watched) func(method, path, body string) (int, string) {
	t.Helper()
	tokens, err := pagetoken.New(make([]byte, pagetoken.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	h := New(Options{
		Connectivity: w, Tokens: tokens, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		Account:   func(context.Context) fleet.Account { return account },
		Authorize: func(r *http.Request, _ []byte, _ string) (*http.Request, error) { return r, nil },
	})
	return func(method, path, body string) (int, string) {
		t.Helper()
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), method, Prefix+path, strings.NewReader(body)))
		return answer.Code, strings.TrimSpace(answer.Body.String())
	}
}

func TestConnectivityOfAThing(t *testing.T) {
	t.Parallel()
	call := watchedHandler(t, &watched{})
	code, body := call(http.MethodGet, "things/pump/connectivity", "")
	want := `{"thingName":"pump","state":"OFFLINE_DIRTY","stateVersion":4,"since":"2026-11-18T11:06:40.000Z","settledAt":"2026-11-18T11:07:10.000Z",` +
		`"connected":false,"clientId":"pump","connectionVersion":0,"disconnectReason":"CONNECTION_LOST","noHello":false,"flapping":false,"flapScore":0,` +
		`"blips":0,"outages":0,"currentOutageMs":60000,"lastOutageMs":0,"totalOutageMs":0,"lastGapMs":0,"timers":{},"gateway":{"thingName":"gw","assigned":false},` +
		`"children":0,"latency":{"lastMs":1.5,"meanMs":0,"maxMs":0,"samples":1,"measuredAt":"2026-11-18T11:06:40.000Z"},"settings":{"from":{"alert":"000000000000"}},` +
		`"recent":[{"stateVersion":4,"from":"SUSPECT","to":"OFFLINE_DIRTY","since":"2026-11-18T11:06:40.000Z","at":"2026-11-18T11:07:10.000Z","waitMs":30000,"alert":true}]}`
	if code != http.StatusOK || body != want {
		t.Errorf("%d (-want +got):\n%s", code, cmp.Diff(want, body))
	}
	if code, _ := call(http.MethodGet, "things/ghost/connectivity", ""); code != http.StatusNotFound {
		t.Errorf("a thing that does not exist: %d", code)
	}
	code, body = call(http.MethodGet, "connectivity/summary", "")
	var sum summaryOutput
	if err := json.Unmarshal([]byte(body), &sum); err != nil || code != http.StatusOK || len(sum.States) != len(connectivity.States()) || sum.States["ONLINE"] != 2 {
		t.Errorf("%d %s, %v", code, body, err)
	}
}

func TestConnectivitySettingsArePaged(t *testing.T) {
	t.Parallel()
	wait := 5.0
	w := &watched{settings: []connectivity.GroupSettings{{}, {Group: "a"}, {Group: "b"}, {Group: "c"}}}
	for i := range w.settings {
		w.settings[i].WaitSeconds = &wait
	}
	call := watchedHandler(t, w)
	var groups []string
	token := ""
	for {
		path := "connectivity/settings?maxResults=2"
		if token != "" {
			path += "&nextToken=" + token
		}
		code, body := call(http.MethodGet, path, "")
		var page settingsOutput
		if err := json.Unmarshal([]byte(body), &page); err != nil || code != http.StatusOK || page.Default == nil {
			t.Fatalf("%d %s, %v", code, body, err)
		}
		for _, g := range page.Groups {
			groups = append(groups, g.Group)
		}
		if token = page.NextToken; token == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, groups); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		method, path, body string
		code               int
		asked              string
	}{
		{http.MethodPut, "connectivity/settings", `{"waitSeconds":3}`, http.StatusOK, `put "" 3`},
		{http.MethodPut, "connectivity/settings/a", `{"waitSeconds":-3}`, http.StatusBadRequest, `put "a" -3`},
		{http.MethodPut, "connectivity/settings/a", `{"waitSecond":3}`, http.StatusBadRequest, ""},
		{http.MethodDelete, "connectivity/settings", "", http.StatusOK, `delete ""`},
		{http.MethodDelete, "connectivity/settings/a", "", http.StatusOK, `delete "a"`},
		{http.MethodGet, "connectivity/settings/x", "", http.StatusNotFound, ""},
		{http.MethodPut, "things/s/gateway", `{"gateway":"g"}`, http.StatusOK, `assign "s" "g"`},
		{http.MethodPut, "things/s/gateway", `{}`, http.StatusBadRequest, ""},
		{http.MethodDelete, "things/s/gateway", "", http.StatusOK, `assign "s" ""`},
	} {
		w.asked = ""
		if code, body := call(c.method, c.path, c.body); code != c.code || w.asked != c.asked {
			t.Errorf("%s %s %s: %d %s, asked %q", c.method, c.path, c.body, code, body, w.asked)
		}
	}
}
