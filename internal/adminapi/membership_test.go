package adminapi

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/membership"
	"github.com/muster-iot/muster/internal/pagetoken"
)

// askedMemberships remembers what it was asked and answers one entry with more
// to come.
type askedMemberships struct {
	name  string
	query membership.Query
	since time.Time
}

func (a *askedMemberships) OfGroup(_ context.Context, _ fleet.Account, group string, q membership.Query) (membership.Page, error) {
	a.name, a.query = "group "+group, q
	began := time.UnixMilli(1_750_000_000_123).UTC()
	return membership.Page{Next: "key", Entries: []membership.Entry{{
		Group: group, Thing: "a", Dynamic: true, Began: began, Joined: &membership.Cause{Kind: membership.CauseValue, Field: "f", Predicate: "f<1", Value: "0", Seq: 7, SourceAt: began.UnixMilli()},
	}}}, nil
}

func (a *askedMemberships) OfThing(ctx context.Context, of fleet.Account, thing string, q membership.Query) (membership.Page, error) {
	page, err := a.OfGroup(ctx, of, "g", q)
	a.name = "thing " + thing
	return page, err
}

func (a *askedMemberships) CompleteSince(context.Context, fleet.Account) (time.Time, error) {
	return a.since, nil
}

func TestMembershipsAreEncoded(t *testing.T) {
	t.Parallel()
	tokens, err := pagetoken.New(bytes.Repeat([]byte{1}, pagetoken.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	a := &askedMemberships{since: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)}
	h := New(Options{
		Authorize:   func(r *http.Request, _ []byte, _ string) (*http.Request, error) { return r, nil },
		Memberships: a, Tokens: tokens, Account: func(context.Context) fleet.Account { return account },
		Now: func() time.Time { return time.UnixMilli(1_750_000_001_000) }, Logger: slog.New(slog.DiscardHandler),
	})
	status, body := get(t, h, "/ops/v1/groups/low/history?from=2025-02-01T00:00:00Z&maxResults=3")
	if status != http.StatusOK || a.name != "group low" || a.query.Limit != 3 || !a.query.From.Equal(time.Date(2025, 2, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("status %d; asked %q %+v", status, a.name, a.query)
	}
	token, _ := body["nextToken"].(string)
	delete(body, "nextToken")
	want := map[string]any{"completeSince": "2025-01-01T00:00:00.000Z", "memberships": []any{map[string]any{
		"groupName": "low", "thingName": "a", "dynamic": true, "joinedAt": "2025-06-15T15:06:40.123Z",
		"joined": map[string]any{"kind": "VALUE", "field": "f", "predicate": "f<1", "value": "0", "position": 7.0, "at": "2025-06-15T15:06:40.123Z"},
	}}}
	if diff := cmp.Diff(want, body); diff != "" {
		t.Error(diff)
	}
	if status, _ := get(t, h, "/ops/v1/groups/low/history?from=2025-02-01T00:00:00Z&nextToken="+token); status != http.StatusOK || a.query.After != "key" {
		t.Errorf("next page: %d %+v", status, a.query)
	}
	if status, _ := get(t, h, "/ops/v1/things/t/group-history?at=2025-02-01T00:00:00Z"); status != http.StatusOK || a.name != "thing t" || a.query.To.Sub(a.query.From) != time.Millisecond {
		t.Errorf("at a moment: %d %q %+v", status, a.name, a.query)
	}
	for _, bad := range []string{
		"/ops/v1/groups/other/history?from=2025-02-01T00:00:00Z&nextToken=" + token,
		"/ops/v1/groups/low/history?at=2025-02-01T00:00:00Z&to=2025-02-02T00:00:00Z",
		"/ops/v1/groups/low/history?at=2024-12-31T23:59:59Z", // before the history begins
		"/ops/v1/groups/low/history?when=now",
		"/ops/v1/groups/low/history?from=yesterday",
		"/ops/v1/groups/low/things/t/why?deep=1",
	} {
		if status, body := get(t, h, bad); status != http.StatusBadRequest {
			t.Errorf("%s: %d %v", bad, status, body)
		}
	}
}
