package adminapi

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/history"
	"github.com/muster-iot/muster/internal/pagetoken"
)

const account fleet.Account = "000000000000"

// asked is a history that remembers what it was asked and answers one entry
// of each status, and a next page.
type asked struct {
	name  string
	query history.Query
	at    time.Time
}

func (a *asked) page(name string, q history.Query) (history.Page, error) {
	a.name, a.query = name, q
	if q.Limit > history.MaxPage {
		return history.Page{}, fault.New(fault.InvalidRequest, "maxResults: too many")
	}
	began := time.UnixMilli(1_750_000_000_123).UTC()
	session := event.Session{
		ClientID: "a/b", SessionID: "s", ConnectionID: "k", Principal: "c0", RemoteAddr: "192.0.2.1:1", LocalAddr: "192.0.2.9:8883", IPAddress: "192.0.2.1",
		Protocol: "mqtt5", Transport: "tls", Version: 3, Indexed: true, KeepAlive: 60, SessionExpiry: 90,
	}
	return history.Page{Next: "key\x00" + name, Connections: []history.Connection{
		{Session: session, PrincipalKind: "certificate", Began: began},
		{Session: event.Session{ClientID: "a/b", IPAddress: "192.0.2.1"}, Refused: true, Began: began, Ended: began, Reason: "AUTHORIZATION_FAILED"},
		{Session: event.Session{ClientID: "a/b"}, Ended: began, Reason: "CONNECTION_LOST"},
	}}, nil
}

func (a *asked) OfThing(_ context.Context, _ fleet.Account, thing string, q history.Query) (history.Page, error) {
	return a.page("thing "+thing, q)
}

func (a *asked) OfClient(_ context.Context, of fleet.Account, clientID string, q history.Query) (history.Page, error) {
	return a.page(string(of)+" client "+clientID, q)
}

func (a *asked) ConnectedAt(_ context.Context, _ fleet.Account, q history.FleetQuery) (history.FleetPage, error) {
	a.at = q.At
	page, err := a.page("fleet", history.Query{After: q.After, Limit: q.Limit})
	return history.FleetPage{Page: page, Count: 17}, err
}

// server is the front end with a history; it notes the actions that it asks for.
func server(t *testing.T) (h http.Handler, a *asked, actions *[]string) {
	t.Helper()
	tokens, err := pagetoken.New(bytes.Repeat([]byte{1}, pagetoken.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	a, actions = &asked{}, &[]string{}
	return New(Options{
		Authorize: func(r *http.Request, _ []byte, action string) (*http.Request, error) {
			*actions = append(*actions, action)
			if r.Header.Get("Authorization") == "" {
				return nil, fault.New(fault.Unauthorized, "who are you")
			}
			return r, nil
		},
		History: a, Tokens: tokens, Account: func(context.Context) fleet.Account { return account },
		Now: func() time.Time { return time.UnixMilli(1_750_000_001_000) }, Logger: slog.New(slog.DiscardHandler),
	}), a, actions
}

func get(t *testing.T, h http.Handler, target string) (status int, body map[string]any) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	r.Header.Set("Authorization", "x")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("%s: %v in %s", target, err, w.Body)
	}
	return w.Code, body
}

func TestHistoryIsEncoded(t *testing.T) {
	t.Parallel()
	h, a, actions := server(t)
	status, body := get(t, h, "/ops/v1/connections/a%2Fb/history?from=2025-06-15T15:06:40.5%2B02:00&maxResults=3")
	if status != http.StatusOK || a.name != string(account)+" client a/b" || a.query.Limit != 3 || !a.query.From.Equal(time.Date(2025, 6, 15, 13, 6, 40, 5e8, time.UTC)) || !a.query.To.IsZero() {
		t.Errorf("status %d; asked %q %+v", status, a.name, a.query)
	}
	token, _ := body["nextToken"].(string)
	delete(body, "nextToken")
	want := map[string]any{"connections": []any{
		map[string]any{
			"status": "CONNECTED", "clientId": "a/b", "thing": "a/b", "connectedAt": "2025-06-15T15:06:40.123Z", "durationMs": 877.0,
			"remoteAddress": "192.0.2.1:1", "localAddress": "192.0.2.9:8883", "protocol": "mqtt5", "transport": "tls",
			"principal": "c0", "principalKind": "certificate", "sessionId": "s", "connectionId": "k",
			"version": 3.0, "keepAlive": 60.0, "cleanSession": false, "sessionExpiry": 90.0,
		},
		map[string]any{"status": "REFUSED", "clientId": "a/b", "thing": "a/b", "refusedAt": "2025-06-15T15:06:40.123Z", "reason": "AUTHORIZATION_FAILED", "remoteAddress": "192.0.2.1"},
		map[string]any{
			"status": "ENDED", "clientId": "a/b", "disconnectedAt": "2025-06-15T15:06:40.123Z", "reason": "CONNECTION_LOST",
			"version": 0.0, "keepAlive": 0.0, "cleanSession": false, "sessionExpiry": 0.0,
		},
	}}
	if diff := cmp.Diff(want, body); diff != "" {
		t.Error(diff)
	}
	// The token goes on in the same list, with the same bounds, and no other.
	same := "/ops/v1/connections/a%2Fb/history?from=2025-06-15T15:06:40.5%2B02:00&nextToken=" + token
	if status, _ := get(t, h, same); status != http.StatusOK || a.query.After != "key\x00"+string(account)+" client a/b" {
		t.Errorf("next page: %d, %+v", status, a.query)
	}
	for _, other := range []string{
		"/ops/v1/connections/a/history?from=2025-06-15T15:06:40.5%2B02:00&nextToken=" + token,
		"/ops/v1/connections/a%2Fb/history?nextToken=" + token,
		"/ops/v1/things/a%2Fb/connections?from=2025-06-15T15:06:40.5%2B02:00&nextToken=" + token,
		same + "x", "/ops/v1/things/a/connections?nextToken=",
	} {
		if status, body := get(t, h, other); status != http.StatusBadRequest {
			t.Errorf("%s: %d %v", other, status, body)
		}
	}
	if len(*actions) != 7 || (*actions)[0] != ActionGetConnectionHistory {
		t.Errorf("asked for %v", *actions)
	}
}

func TestFleetConnections(t *testing.T) {
	t.Parallel()
	h, a, actions := server(t)
	status, body := get(t, h, "/ops/v1/fleet/connections?at=2025-06-15T15:06:40Z")
	if status != http.StatusOK || body["count"] != 17.0 || body["at"] != "2025-06-15T15:06:40.000Z" || !a.at.Equal(time.Unix(1_750_000_000, 0)) || a.query.Limit != defaultResults {
		t.Errorf("%d %v; asked %+v", status, body, a)
	}
	status, body = get(t, h, "/ops/v1/fleet/connections?at=2025-06-15T15:06:40Z&nextToken="+body["nextToken"].(string))
	if _, counted := body["count"]; status != http.StatusOK || counted {
		t.Errorf("the second page: %d %v", status, body)
	}
	if (*actions)[0] != ActionListFleetConnections {
		t.Errorf("asked for %v", *actions)
	}
}

func TestHistoryRefusesByNameAndRule(t *testing.T) {
	t.Parallel()
	h, _, _ := server(t)
	for target, want := range map[string]string{
		"/ops/v1/things/a/connections?from=yesterday":               "from: is no RFC 3339 time",
		"/ops/v1/things/a/connections?to=2025-06-15":                "to: is no RFC 3339 time",
		"/ops/v1/things/a/connections?maxResults=many":              "maxResults: is no whole number",
		"/ops/v1/things/a/connections?maxResults=251":               "maxResults: too many",
		"/ops/v1/things/a/connections?at=2025-06-15T15:06:40Z":      "at: is no parameter",
		"/ops/v1/things/a/connections?maxResults=1&maxResults=2":    "maxResults: is given more than once",
		"/ops/v1/fleet/connections?at=":                             "at: is no RFC 3339 time",
		"/ops/v1/fleet/connections?at=2025-06-15T15:06:40Z&from=":   "from: is no parameter",
		"/ops/v1/fleet/connections?at=2025-06-15T15:06:40Z&limit=1": "limit: is no parameter",
	} {
		if status, body := get(t, h, target); status != http.StatusBadRequest || !strings.HasPrefix(body["message"].(string), want) {
			t.Errorf("%s: %d %v, want %s", target, status, body, want)
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ops/v1/things/a/connections", nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusForbidden {
		t.Errorf("nobody got %d", w.Code)
	}
}
