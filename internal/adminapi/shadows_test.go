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

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/pagetoken"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/shadowhistory"
)

// past is a history of shadows that remembers what it was asked.
type past struct {
	shadow  string
	query   shadowhistory.Query
	from    *int64
	restore shadowhistory.RestoreCommand
	drift   shadow.DriftQuery
	fleet   string
}

func (p *past) List(_ context.Context, _ fleet.Account, thing, name string, q shadowhistory.Query) (shadowhistory.Page, error) {
	p.shadow, p.query = thing+"|"+name, q
	return shadowhistory.Page{Next: "k", Versions: []shadowhistory.Version{
		{Version: 2, At: time.UnixMilli(1_750_000_000_123), Patch: json.RawMessage(`{"desired":{"a":1.50}}`), Delta: true, Restored: 1},
		{Version: 1, Deleted: true},
	}}, nil
}

func (p *past) At(_ context.Context, of fleet.Account, thing, name string, version int64) (shadowhistory.State, error) {
	p.shadow = thing + "|" + name
	if version != 3 {
		return shadowhistory.State{}, fault.New(fault.ResourceNotFound, "no version %d", version)
	}
	return shadowhistory.State{Document: shadow.Nothing(of, thing, name)}, nil
}

func (p *past) Diff(_ context.Context, _ fleet.Account, _, _ string, from, to *int64) (shadowhistory.Diff, error) {
	p.from = from
	return shadowhistory.Diff{From: 1, To: *to, Differences: []shadow.Difference{
		{Path: "/desired/a", New: json.RawMessage("1")}, {Path: "/desired/b", Old: json.RawMessage("1")}, {Path: "/desired/c", Old: json.RawMessage("1"), New: json.RawMessage("2")},
	}}, nil
}

func (p *past) Restore(_ context.Context, cmd shadowhistory.RestoreCommand) (*shadow.Updated, error) {
	p.restore = cmd
	return nil, fault.New(fault.RequestEntityTooLarge, "too large")
}

func (p *past) Drifts(_ context.Context, _ fleet.Account, query string, q shadow.DriftQuery) (shadow.DriftPage, error) {
	p.fleet, p.drift = query, q
	return shadow.DriftPage{Next: "k", Drifts: []shadow.Drift{{Thing: "t", Since: time.Unix(1_750_000_000, 0), Leaves: []shadow.DriftLeaf{{Path: "/a", Desired: json.RawMessage("{}")}}}}}, nil
}

func TestShadowsOfThePast(t *testing.T) {
	t.Parallel()
	tokens, err := pagetoken.New(bytes.Repeat([]byte{1}, pagetoken.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	p, action := &past{}, ""
	h := New(Options{
		Authorize: func(r *http.Request, _ []byte, a string) (*http.Request, error) {
			action = a
			return r, nil
		},
		ShadowHistory: p, Drifts: p, Tokens: tokens, Account: func(context.Context) fleet.Account { return account },
		Now: func() time.Time { return time.Unix(1_750_000_100, 0) }, Logger: slog.New(slog.DiscardHandler),
	})
	call := func(method, target, body string) (int, string) {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), method, Prefix+target, strings.NewReader(body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	for _, x := range []struct {
		method, target, body string
		status               int
		says, action         string
	}{
		{"GET", "things/a/shadows/.classic/history?maxResults=2&from=2025-01-01T00:00:00Z", "", 200, `"versions":[{"version":2,"change":"RESTORED","at":"2025-06-15T15:06:40.123Z","by":{"principal":{"kind":""}},"patch":{"desired":{"a":1.50}},"hasDelta":true,"restoredVersion":1},{"version":1,"change":"DELETED",`, ActionGetShadowHistory},
		{"GET", "things/a/shadows/.classic/history?to=yesterday", "", 400, "to: is no RFC 3339 time", ""},
		{"GET", "things/a/shadows/.classic/history?since=1", "", 400, "since: is no parameter", ""},
		{"GET", "things/a/shadows/cfg/versions/3", "", 200, `{"version":3,"document":{"state":{}`, ActionGetShadowHistory},
		{"GET", "things/a/shadows/cfg/versions/4", "", 404, "no version 4", ""},
		{"GET", "things/a/shadows/cfg/versions/x", "", 400, "version: is no whole number", ""},
		{"GET", "things/a/shadows/cfg/versions/3?x=1", "", 400, "no parameters", ""},
		{"GET", "things/a/shadows/cfg/diff?to=7", "", 200, `{"from":1,"to":7,"differences":[{"path":"/desired/a","change":"ADDED","new":1},{"path":"/desired/b","change":"REMOVED","old":1},{"path":"/desired/c","change":"CHANGED","old":1,"new":2}]}`, ActionGetShadowHistory},
		{"GET", "things/a/shadows/cfg/diff?to=7&from=x", "", 400, "from: is no whole number", ""},
		{"GET", "things/a/shadows/cfg/diff?to=7&at=1", "", 400, "at: is no parameter", ""},
		{"POST", "things/a/shadows/cfg/restore", `{"version":7,"expectVersion":9,"desiredOnly":true}`, 413, "too large", ActionRestoreShadow},
		{"POST", "things/a/shadows/cfg/restore", `{"versions":7}`, 400, "versions", ""},
		{"GET", "shadows/drift?olderThan=1m&query=a:b&thing=t", "", 200, `"shadows":[{"thingName":"t","version":0,"since":"2025-06-15T15:06:40.000Z","ageSeconds":100,"leaves":[{"path":"/a","desired":{}}]}],"nextToken":"`, ActionGetShadowDrift},
		{"GET", "shadows/drift?olderThan=-1m", "", 400, "olderThan: is no duration", ""},
		{"GET", "shadows/drift?thing=", "", 400, "thing: must not be empty", ""},
	} {
		status, body := call(x.method, x.target, x.body)
		if status != x.status || !strings.Contains(body, x.says) || x.action != "" && action != x.action {
			t.Errorf("%s %s: %d %s (%s)", x.method, x.target, status, body, action)
		}
	}
	if p.shadow != "a|cfg" || p.query.Limit != 2 || p.query.From.Year() != 2025 || p.from != nil {
		t.Errorf("asked %+v", p)
	}
	if p.restore.Version != 7 || *p.restore.Expect != 9 || !p.restore.DesiredOnly || p.restore.Shadow != "cfg" {
		t.Errorf("restore %+v", p.restore)
	}
	if p.fleet != "a:b" || p.drift.Thing != "t" || p.drift.Before.Unix() != 1_750_000_040 {
		t.Errorf("drift %q %+v", p.fleet, p.drift)
	}
	// A token of one shadow is none of another.
	_, body := call("GET", "things/a/shadows/.classic/history", "")
	if p.shadow != "a|" {
		t.Errorf("the classic shadow is asked for as %q", p.shadow)
	}
	var page struct {
		NextToken string `json:"nextToken"`
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		t.Fatal(err)
	}
	if status, _ := call("GET", "things/a/shadows/.classic/history?nextToken="+page.NextToken, ""); status != 200 || p.query.After != "k" {
		t.Errorf("next page: %d, %q", status, p.query.After)
	}
	if status, _ := call("GET", "things/a/shadows/b/history?nextToken="+page.NextToken, ""); status != 400 {
		t.Errorf("token of another shadow: %d", status)
	}
}
