package adminapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/pagetoken"
	"github.com/muster-iot/muster/internal/registry"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// book is a registry that remembers what it was asked.
type book struct {
	until time.Time
	page  registry.Page
	ca    string
	list  int
	// hold is closed to let imports end; entered tells of each that began.
	hold    chan struct{}
	entered chan struct{}
	// takes is how long an import lasts.
	takes time.Duration
	// unknown is what a head proves nothing with.
	unknown error
}

func (b *book) ListExpiring(_ context.Context, _ fleet.Account, until time.Time, p registry.Page) (registry.Listed[registry.Expiring], error) {
	b.until, b.page = until, p
	return registry.Listed[registry.Expiring]{Next: "next\x00key", Items: []registry.Expiring{
		{ID: "ca", ARN: "arn-ca", Authority: true, Status: "ACTIVE", NotAfter: noon.Add(-time.Hour), Owner: account},
		{ID: "c", ARN: "arn-c", Status: "INACTIVE", NotAfter: noon.Add(time.Hour), Owner: account, Things: []string{"pump-1"}, ThingCount: 12},
	}}, nil
}

func (b *book) DescribeCACertificate(_ context.Context, _ fleet.Account, ca string) (registry.CACertificate, error) {
	b.ca = ca
	return registry.CACertificate{Declaration: registry.CADeclaration{Basis: registry.BasisTrust, By: "arn-kim", At: noon}}, nil
}

func (b *book) DeclareCA(_ context.Context, _ fleet.Account, ca, statement string) (registry.CADeclaration, error) {
	b.ca = ca
	return registry.CADeclaration{Basis: registry.BasisTrust, By: "arn-kim", At: noon, Statement: statement, StatedBy: "arn-lee", StatedAt: noon.Add(time.Hour)}, nil
}

func (b *book) ImportRevocationList(ctx context.Context, _ fleet.Account, ca string, list []byte) (registry.RevocationImport, error) {
	b.ca, b.list = ca, len(list)
	if hold := b.hold; hold != nil {
		b.entered <- struct{}{}
		<-hold
	}
	if b.takes > 0 {
		select {
		case <-time.After(b.takes):
		case <-ctx.Done():
			return registry.RevocationImport{}, ctx.Err()
		}
	}
	if string(list) == "old" {
		return registry.RevocationImport{}, fault.New(fault.Conflict, "older")
	}
	return registry.RevocationImport{CACertificateID: ca, Number: "7", ThisUpdate: noon, Entries: 3, Revoked: 2, Removed: 1}, nil
}

// certificateServer is the front end with a book.
func certificateServer(t *testing.T, b *book) (h http.Handler, actions *[]string) {
	t.Helper()
	tokens, err := pagetoken.New(bytes.Repeat([]byte{1}, pagetoken.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	actions = &[]string{}
	return New(Options{
		Authorize: func(r *http.Request, _ []byte, action string) (*http.Request, error) {
			if b.hold == nil {
				*actions = append(*actions, action)
			}
			return r, nil
		},
		AuthenticateHead: func(*http.Request) error { return b.unknown },
		Certificates:     b, Tokens: tokens, Account: func(context.Context) fleet.Account { return account },
		ARN: func(_ context.Context, kind, name string) string { return kind + "/" + name },
		Now: func() time.Time { return noon }, Logger: slog.New(slog.DiscardHandler),
	}), actions
}

func TestExpiringCertificates(t *testing.T) {
	t.Parallel()
	b := &book{}
	h, actions := certificateServer(t, b)
	status, body := get(t, h, "/ops/v1/certificates/expiring?within=7d&maxResults=2")
	if status != http.StatusOK || !b.until.Equal(noon.AddDate(0, 0, 7)) || b.page != (registry.Page{Limit: 2}) {
		t.Errorf("status %d, asked until %v, page %+v", status, b.until, b.page)
	}
	token, _ := body["nextToken"].(string)
	delete(body, "nextToken")
	want := map[string]any{"until": "2026-03-08T12:00:00.000Z", "certificates": []any{
		map[string]any{
			"kind": "caCertificate", "certificateId": "ca", "certificateArn": "arn-ca", "status": "ACTIVE", "notAfter": "2026-03-01T11:00:00.000Z",
			"expired": true, "ownedBy": string(account), "things": []any{}, "thingCount": 0.0,
		},
		map[string]any{
			"kind": "certificate", "certificateId": "c", "certificateArn": "arn-c", "status": "INACTIVE", "notAfter": "2026-03-01T13:00:00.000Z",
			"expired": false, "ownedBy": string(account), "things": []any{"pump-1"}, "thingCount": 12.0,
		},
	}}
	if diff := cmp.Diff(want, body); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	get(t, h, "/ops/v1/certificates/expiring?within=7d&nextToken="+token)
	if b.page.After != "next\x00key" {
		t.Errorf("the next page is asked for after %q", b.page.After)
	}
	get(t, h, "/ops/v1/certificates/expiring")
	if !b.until.Equal(noon.AddDate(0, 0, 30)) {
		t.Errorf("without a span: until %v", b.until)
	}
	for query, says := range map[string]string{
		"within=x": "within:", "within=-1h": "within:", "within=99999999999d": "within:", "within=-1d": "within:", "within=36501d": "within:",
		"maxResults=0": "maxResults:", "maxResults=1001": "maxResults:", "status=ACTIVE": "status: is no parameter",
		"within=8d&nextToken=" + token: "", "nextToken=x": "",
	} {
		status, body := get(t, h, "/ops/v1/certificates/expiring?"+query)
		if message, _ := body["message"].(string); status != http.StatusBadRequest || !strings.Contains(message, says) {
			t.Errorf("%s: %d %v", query, status, body)
		}
	}
	if got := (*actions)[0]; got != "ops:ListExpiringCertificates" {
		t.Errorf("asked for %s", got)
	}
}

// post sends a body and returns status and answer.
func post(t *testing.T, h http.Handler, target string, body []byte) (status int, answer map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, target, bytes.NewReader(body)))
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Errorf("%s: %v in %s", target, err, w.Body)
	}
	return w.Code, answer
}

func TestImportRevocationListOverHTTP(t *testing.T) {
	t.Parallel()
	b := &book{}
	h, actions := certificateServer(t, b)
	const path = "/ops/v1/ca-certificates/ca7/revocation-list"
	status, answer := post(t, h, path, make([]byte, 1<<20))
	want := map[string]any{
		"caCertificateId": "ca7", "number": "7", "thisUpdate": "2026-03-01T12:00:00.000Z", "entries": 3.0, "revoked": 2.0, "removed": 1.0, "unchanged": false,
	}
	if diff := cmp.Diff(want, answer); status != http.StatusOK || diff != "" || b.ca != "ca7" || b.list != 1<<20 {
		t.Errorf("status %d, asked %s with %d bytes, -want +got\n%s", status, b.ca, b.list, diff)
	}
	if status, _ := post(t, h, path, []byte("old")); status != http.StatusConflict {
		t.Errorf("an older list: %d", status)
	}
	if status, answer := post(t, h, path, make([]byte, maxRevocationList+1)); status != http.StatusBadRequest {
		t.Errorf("too long: %d %v", status, answer)
	}
	if got := *actions; len(got) != 2 || got[0] != "ops:ImportRevocationList" {
		t.Errorf("asked for %v", got)
	}
}

func TestFewImportsAtATime(t *testing.T) {
	t.Parallel()
	b := &book{hold: make(chan struct{}), entered: make(chan struct{}, maxImports)}
	h, _ := certificateServer(t, b)
	const path = "/ops/v1/ca-certificates/ca7/revocation-list"
	done := make(chan int, maxImports)
	var hold chan struct{}
	for range maxImports {
		go func() {
			status, _ := post(t, h, path, make([]byte, maxBody+1))
			done <- status
		}()
		<-b.entered
	}
	if status, _ := post(t, h, path, make([]byte, maxBody+1)); status != http.StatusTooManyRequests {
		t.Errorf("one more: %d", status)
	}
	b.hold, hold = nil, b.hold
	if status, _ := post(t, h, path, []byte("short")); status != http.StatusOK {
		t.Errorf("a short one, which takes no room: %d", status)
	}
	close(hold)
	for range maxImports {
		if status := <-done; status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	}
}

// Nobody unknown keeps others from importing by sending a long body slowly.
func TestLongListsOfUnknownSendersAreNotRead(t *testing.T) {
	t.Parallel()
	b := &book{unknown: fault.New(fault.Unauthorized, "unknown")}
	h, actions := certificateServer(t, b)
	body := &unread{}
	for _, length := range []int64{maxBody + 1, -1} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/ops/v1/ca-certificates/ca7/revocation-list", body)
		request.ContentLength = length
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request)
		if w.Code != http.StatusForbidden || body.reads != 0 || len(*actions) != 0 {
			t.Errorf("length %d: status %d after %d reads", length, w.Code, body.reads)
		}
	}
}

// unread counts reads.
type unread struct{ reads int }

func (u *unread) Read([]byte) (int, error) {
	u.reads++
	return 0, errors.New("read")
}

// An import goes on behind the time that a request may take to arrive.
func TestLongImportOutlivesTheRequestTime(t *testing.T) {
	t.Parallel()
	b := &book{takes: 400 * time.Millisecond}
	h, _ := certificateServer(t, b)
	server := httptest.NewUnstartedServer(h)
	server.Config.ReadTimeout, server.Config.WriteTimeout = b.takes/4, b.takes/4
	server.Start()
	t.Cleanup(server.Close)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/ops/v1/ca-certificates/ca7/revocation-list", strings.NewReader("list"))
	if err != nil {
		t.Fatal(err)
	}
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("status %d", response.StatusCode)
	}
}
