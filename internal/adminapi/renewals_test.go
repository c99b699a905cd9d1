package adminapi

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/pagetoken"
	"github.com/muster-iot/muster/internal/renewal"
)

// askedRenewals remembers what it was asked.
type askedRenewals struct {
	of fleet.Account
	q  renewal.Query
}

func (a *askedRenewals) List(_ context.Context, of fleet.Account, q renewal.Query) ([]renewal.Renewal, string, error) {
	a.of, a.q = of, q
	if q.Step == "X" {
		return nil, "", fault.New(fault.InvalidRequest, "step: must be another")
	}
	return []renewal.Renewal{
		{
			Thing: "pump-1", OldCertificateID: "c1", NewCertificateID: "c2", Step: event.RenewalProven, Begun: noon, Changed: noon.Add(time.Hour),
			Due: noon.Add(25 * time.Hour), Proof: renewal.Seen{At: noon.Add(time.Hour), ClientID: "pump-1", ConnectionID: "x", Address: "192.0.2.7"},
		},
		{Thing: "pump-2", OldCertificateID: "c3", NewCertificateID: "c4", Step: event.RenewalUnproven, Begun: noon, Changed: noon, Reason: "nobody"},
	}, "next\x00key", nil
}

func TestCertificateRenewals(t *testing.T) {
	t.Parallel()
	tokens, err := pagetoken.New(bytes.Repeat([]byte{1}, pagetoken.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	asked, action := &askedRenewals{}, ""
	h := New(Options{
		Authorize: func(r *http.Request, _ []byte, a string) (*http.Request, error) {
			action = a
			return r, nil
		},
		Renewals: asked, Tokens: tokens, Account: func(context.Context) fleet.Account { return account },
		Now: func() time.Time { return noon }, Logger: slog.New(slog.DiscardHandler),
	})
	const path = "/ops/v1/certificate-renewals?step=PROVEN&thing=pump-1"
	status, body := get(t, h, path+"&maxResults=2")
	if status != http.StatusOK || asked.of != account || asked.q != (renewal.Query{Step: "PROVEN", Thing: "pump-1", Limit: 2}) {
		t.Errorf("status %d, asked of %s for %+v", status, asked.of, asked.q)
	}
	if action != ActionListCertificateRenewals {
		t.Errorf("the action is %s", action)
	}
	token, _ := body["nextToken"].(string)
	delete(body, "nextToken")
	want := map[string]any{"certificateRenewals": []any{
		map[string]any{
			"thingName": "pump-1", "oldCertificateId": "c1", "newCertificateId": "c2", "step": "PROVEN",
			"begunAt": "2026-03-01T12:00:00.000Z", "changedAt": "2026-03-01T13:00:00.000Z", "dueAt": "2026-03-02T13:00:00.000Z",
			"proof": map[string]any{"at": "2026-03-01T13:00:00.000Z", "clientId": "pump-1", "connectionId": "x", "sourceAddress": "192.0.2.7"},
		},
		map[string]any{
			"thingName": "pump-2", "oldCertificateId": "c3", "newCertificateId": "c4", "step": "UNPROVEN",
			"begunAt": "2026-03-01T12:00:00.000Z", "changedAt": "2026-03-01T12:00:00.000Z", "reason": "nobody",
		},
	}}
	if diff := cmp.Diff(want, body); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if get(t, h, path+"&nextToken="+token); asked.q.After != "next\x00key" {
		t.Errorf("the next page is asked for after %q", asked.q.After)
	}
	for query, says := range map[string]string{
		"step=X": "step:", "status=PROVEN": "status: is no parameter", "step=BEGUN&nextToken=" + token: "page token", "maxResults=x": "maxResults:",
	} {
		status, body := get(t, h, "/ops/v1/certificate-renewals?"+query)
		if message, _ := body["message"].(string); status != http.StatusBadRequest || !strings.Contains(message, says) {
			t.Errorf("%s: %d %v", query, status, body)
		}
	}
}
