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

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/ledger"
	"github.com/muster-iot/muster/internal/pagetoken"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

// ledgerRig serves a ledger with three things, of which nobody made one, and one
// refused device.
func ledgerRig(t *testing.T) (*plansRig, store.Store) {
	t.Helper()
	disk, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	r := &plansRig{t: t, now: noon}
	s, err := ledger.New(ledger.Options{
		Store: disk, Key: make([]byte, ledger.KeySize), Now: func() time.Time { return r.now }, Logger: slog.New(slog.DiscardHandler), TrustClaims: true,
		DeviceKey: func(context.Context, fleet.Account, event.DeviceProvisioned) (string, error) { return "", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	by := fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "ada", ARN: "arn:aws:iam::" + string(account) + ":user/ada"}, RequestID: "req"}
	var log []event.Envelope
	for _, e := range []event.Event{
		event.ThingCreated{Thing: event.Thing{Thing: "pump-1"}},
		event.ThingCreated{Thing: event.Thing{Thing: "pump-2"}},
		event.PrincipalAttached{Thing: "ghost", Principal: "arn:aws:iot:r:" + string(account) + ":cert/c1"},
		event.ProvisioningRefused{Method: event.ProvisioningClaim, Template: "T", ClientID: "stranger", Code: "Forbidden"},
	} {
		log = append(log, event.Envelope{Account: account, At: noon, Actor: by, Event: e})
	}
	if _, err := disk.Commit(t.Context(), store.Batch{Events: log}); err != nil {
		t.Fatal(err)
	}
	events, _, err := disk.Events(t.Context(), store.Cursor{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Apply(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	tokens, err := pagetoken.New(make([]byte, pagetoken.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	r.handler = New(Options{
		Authorize: func(req *http.Request, _ []byte, action string) (*http.Request, error) {
			r.actions = append(r.actions, action)
			return req, nil
		},
		Ledger: s, Tokens: tokens, Account: func(context.Context) fleet.Account { return account },
		Now: func() time.Time { return r.now }, Logger: slog.New(slog.DiscardHandler),
	})
	return r, disk
}

func TestLedgerOperations(t *testing.T) {
	t.Parallel()
	r, disk := ledgerRig(t)
	r.ask("GET", "ledger/pump-1", "", 200, ActionDescribeLedger, `"deviceKey":"pump-1"`, `"basis":"OPERATOR"`, `"what":"REGISTERED"`, `"time":"2026-03-01T12:00:00.000Z"`, `"entryCount":1`)
	r.ask("GET", "ledger/nobody", "", 404, ActionDescribeLedger, "there is no ledger of device nobody")
	r.ask("GET", "ledger/pump-1?limit=1", "", 400, ActionDescribeLedger, "limit: is no parameter")
	r.ask("GET", "ledger/pump-1?maxResults=0", "", 400, ActionDescribeLedger, "maxResults:")
	page := r.ask("GET", "ledger/ghost?maxResults=2", "", 200, ActionDescribeLedger, `"rogue":true`, `"what":"FOUND"`, `"what":"RAISED"`)
	next, _ := page["nextToken"].(string)
	if next == "" {
		t.Fatal("the first page of three entries has no next one")
	}
	r.ask("GET", "ledger/ghost?maxResults=2&nextToken="+next, "", 200, ActionDescribeLedger, `"what":"CERTIFICATE_ATTACHED"`)
	r.ask("GET", "ledger/pump-1?maxResults=2&nextToken="+next, "", 400, ActionDescribeLedger, "page token")
	r.ask("GET", "ledger/rogues", "", 200, ActionListRogues, `"kind":"DEVICE"`, `"deviceKey":"ghost"`, `"devices":1,"attempts":1,"refusals":1`)
	r.ask("GET", "ledger/rogues?kind=ATTEMPT", "", 200, ActionListRogues, `"clientId":"stranger"`, `"count":1`)
	r.ask("GET", "ledger/rogues?kind=ANY", "", 400, ActionListRogues, "kind: must be DEVICE or ATTEMPT")
	head := r.ask("GET", "ledger:head", "", 200, ActionVerifyLedger, `"entries":5`)
	r.ask("GET", "ledger:head?x=1", "", 400, ActionVerifyLedger, "x: is no parameter")
	verify := func(path string, want ...string) {
		t.Helper()
		r.actions = nil
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ops/v1/"+path, nil)
		w := recorder{httptest.NewRecorder()}
		r.handler.ServeHTTP(w, req)
		for _, part := range want {
			if !strings.Contains(w.Body.String(), part) {
				t.Errorf("%s: %d %s, want %s in it", path, w.Code, w.Body, part)
			}
		}
		if len(r.actions) != 1 || r.actions[0] != ActionVerifyLedger {
			t.Errorf("%s is asked for by %v", path, r.actions)
		}
	}
	kept, err := json.Marshal(head)
	if err != nil {
		t.Fatal(err)
	}
	verify("ledger:verify?head="+strings.ReplaceAll(string(kept), `"`, "%22"), `{"verdict":{"account":"`+string(account)+`","devices":3,"entries":5`, `"witnessed":1,"findings":0`)
	verify("ledger:verify?head=x", "head: is not what")
	verify("ledger/ghost/verify", `"device":"ghost","devices":1,"entries":3`, `"findings":0`)
	verify("ledger/nobody/verify", "there is no ledger")
	key := store.K("ledger-entry", string(account), "ghost", "0000000000000002")
	found, err := disk.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(found.Value, []byte("RAISED"), []byte("PRAISED"), 1)
	if _, err := disk.Commit(t.Context(), store.Batch{Writes: []store.Write{{Key: key, Value: changed}}}); err != nil {
		t.Fatal(err)
	}
	verify("ledger/ghost/verify", `{"finding":{"device":"ghost","seq":2,"problem":"changed"`, `"findings":1`)
	verify("ledger:verify", `"problem":"changed"`, `"verdict"`)
}

// recorder is one whose deadlines can be set.
type recorder struct{ *httptest.ResponseRecorder }

func (recorder) SetReadDeadline(time.Time) error  { return nil }
func (recorder) SetWriteDeadline(time.Time) error { return nil }
