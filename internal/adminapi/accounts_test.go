package adminapi_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/pagetoken"
)

// registrar is a domain of accounts that remembers what it was asked.
type registrar struct {
	asked []string
	err   error
}

var plant = account.Account{ //nolint:gochecknoglobals // a constant of a kind that Go has not
	ID: "210000000001", Name: "Plant", Email: "a@b.c", Status: "ACTIVE", Created: time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC),
	Endpoints: account.Endpoints{Data: "d", Jobs: "j", Credentials: "c"},
}

func (r *registrar) note(parts ...string) { r.asked = append(r.asked, strings.Join(parts, " ")) }

func (r *registrar) CreateAccount(_ context.Context, by fleet.Account, in account.NewAccount) (account.Account, account.AccessKey, error) {
	r.note("create", string(by), string(in.ID), in.Name, in.Email)
	switch in.Name {
	case "slow":
		return plant, account.AccessKey{ID: "AKIA", Secret: "s"}, errors.New("not applied yet")
	case "taken":
		return account.Account{}, account.AccessKey{}, fault.New(fault.ResourceAlreadyExists, "taken")
	}
	return plant, account.AccessKey{ID: "AKIA", Secret: "s"}, nil
}

func (r *registrar) ListAccounts(_ context.Context, by fleet.Account, after string, limit int) (account.AccountPage, error) {
	r.note("list", string(by), after)
	if limit != 1 {
		return account.AccountPage{}, fault.New(fault.InvalidRequest, "maxResults")
	}
	if after == "" {
		return account.AccountPage{Accounts: []account.Account{plant}, Next: string(plant.ID)}, nil
	}
	return account.AccountPage{Accounts: []account.Account{}}, nil
}

func (r *registrar) one(verb string, by, id fleet.Account) (account.Account, error) {
	r.note(verb, string(by), string(id))
	return plant, r.err
}

func (r *registrar) DescribeAccount(_ context.Context, by, id fleet.Account) (account.Account, error) {
	return r.one("describe", by, id)
}

func (r *registrar) CloseAccount(_ context.Context, by, id fleet.Account) (account.Account, error) {
	return r.one("close", by, id)
}

func (r *registrar) ReopenAccount(_ context.Context, by, id fleet.Account) (account.Account, error) {
	return r.one("reopen", by, id)
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	r := &registrar{}
	tokens, err := pagetoken.New(bytes.Repeat([]byte{1}, pagetoken.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	h := adminapi.New(adminapi.Options{
		Authorize: func(r *http.Request, _ []byte, action string) (*http.Request, error) {
			actions = append(actions, action)
			return r, nil
		},
		Accounts: r, Account: func(context.Context) fleet.Account { return "000000000042" }, Tokens: tokens,
		Now: func() time.Time { return plant.Created }, Logger: slog.New(slog.DiscardHandler),
	})
	call := func(method, path, body string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/ops/v1/accounts"+path, strings.NewReader(body)))
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	const shown = `{"id":"210000000001","name":"Plant","email":"a@b.c","status":"ACTIVE","endpoints":{"data":"d","jobs":"j","credentials":"c"},"createdAt":"2026-11-23T03:00:00.000Z"}`
	const made = `{"account":` + shown + `,"accessKey":{"accessKeyId":"AKIA","secretAccessKey":"s"}}`
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "", `{"name":"Plant","id":"210000000001","email":"a@b.c"}`, 201, made},
		{"POST", "", `{"name":"slow"}`, 201, made}, // nobody could ask for the key again
		{"POST", "", `{"name":"taken"}`, 409, `{"message":"taken"}`},
		{"POST", "", `{"nam":"x"}`, 400, `{"message":"the body is not what this operation takes: json: unknown field \"nam\""}`},
		{"GET", "/210000000001", "", 200, shown},
		{"POST", "/210000000001/close", "", 200, shown},
		{"POST", "/210000000001/reopen", "", 200, shown},
		{"GET", "?maxResults=2", "", 400, `{"message":"maxResults"}`},
		{"GET", "?x=2", "", 400, `{"message":"x: is no parameter of this operation"}`},
	} {
		if status, got := call(c.method, c.path, c.body); status != c.status || got != c.want {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, status, got)
		}
	}
	status, page := call("GET", "?maxResults=1", "")
	_, token, ok := strings.Cut(page, `"nextToken":"`)
	if status != 200 || !ok {
		t.Fatalf("%d %s", status, page)
	}
	if status, page := call("GET", "?maxResults=1&nextToken="+strings.TrimSuffix(token, `"}`), ""); status != 200 || page != `{"accounts":[]}` {
		t.Errorf("second page: %d %s", status, page)
	}
	r.err = fault.New(fault.Forbidden, "no")
	if status, got := call("POST", "/1/close", ""); status != 403 || got != `{"message":"no"}` {
		t.Errorf("%d %s", status, got)
	}
	want := []string{
		"create 000000000042 210000000001 Plant a@b.c", "create 000000000042  slow ", "create 000000000042  taken ",
		"describe 000000000042 210000000001", "close 000000000042 210000000001", "reopen 000000000042 210000000001",
		"list 000000000042 ", "list 000000000042 ", "list 000000000042 210000000001", "close 000000000042 1",
	}
	if diff := cmp.Diff(want, r.asked); diff != "" {
		t.Error(diff)
	}
	wantActions := []string{
		"ops:CreateAccount", "ops:CreateAccount", "ops:CreateAccount", "ops:CreateAccount", "ops:DescribeAccount", "ops:CloseAccount", "ops:ReopenAccount",
		"ops:ListAccounts", "ops:ListAccounts", "ops:ListAccounts", "ops:ListAccounts", "ops:CloseAccount",
	}
	if diff := cmp.Diff(wantActions, actions); diff != "" {
		t.Error(diff)
	}
}
