package adminapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"

	accounts "github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/fleet"
)

// Actions on accounts, on resource "*". All but listing and describing are for
// callers of the default account.
const (
	ActionCreateAccount   = "ops:CreateAccount"
	ActionListAccounts    = "ops:ListAccounts"
	ActionDescribeAccount = "ops:DescribeAccount"
	ActionCloseAccount    = "ops:CloseAccount"
	ActionReopenAccount   = "ops:ReopenAccount"
)

// Accounts makes, shows and closes accounts. by is the caller's own account,
// which decides what it may see and change.
type Accounts interface {
	CreateAccount(ctx context.Context, by fleet.Account, in accounts.NewAccount) (accounts.Account, accounts.AccessKey, error)
	ListAccounts(ctx context.Context, by fleet.Account, after string, limit int) (accounts.AccountPage, error)
	DescribeAccount(ctx context.Context, by, id fleet.Account) (accounts.Account, error)
	CloseAccount(ctx context.Context, by, id fleet.Account) (accounts.Account, error)
	ReopenAccount(ctx context.Context, by, id fleet.Account) (accounts.Account, error)
}

// createAccountInput is the body of POST /ops/v1/accounts.
type createAccountInput struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
}

// endpointsOutput are the host names by which devices reach an account.
type endpointsOutput struct {
	Data        string `json:"data"`
	Jobs        string `json:"jobs"`
	Credentials string `json:"credentials"`
}

// accountOutput is one account.
type accountOutput struct {
	ID        string          `json:"id"`
	Name      string          `json:"name,omitempty"`
	Email     string          `json:"email,omitempty"`
	Status    string          `json:"status"`
	Default   bool            `json:"default,omitempty"`
	Endpoints endpointsOutput `json:"endpoints"`
	CreatedAt string          `json:"createdAt"`
	// ModifiedAt is absent for an account that was never changed.
	ModifiedAt string `json:"modifiedAt,omitempty"`
}

// accessKeyOutput is a key with its secret, which is shown this once.
type accessKeyOutput struct {
	AccessKeyID     string `json:"accessKeyId"`
	SecretAccessKey string `json:"secretAccessKey"`
}

// createAccountOutput is a new account.
type createAccountOutput struct {
	Account   accountOutput   `json:"account"`
	AccessKey accessKeyOutput `json:"accessKey"`
}

// listAccountsOutput is a page of accounts by number.
type listAccountsOutput struct {
	Accounts  []accountOutput `json:"accounts"`
	NextToken string          `json:"nextToken,omitempty"`
}

// handleAccounts adds the operations on /ops/v1/accounts.
func (h *handler) handleAccounts(mux *routes) {
	mux.HandleFunc("POST "+Prefix+"accounts", h.createAccount)
	mux.HandleFunc("GET "+Prefix+"accounts", h.read(ActionListAccounts, h.listAccounts))
	mux.HandleFunc("GET "+Prefix+"accounts/{account}", h.read(ActionDescribeAccount, h.ofAccount(Accounts.DescribeAccount)))
	mux.HandleFunc("POST "+Prefix+"accounts/{account}/close", h.read(ActionCloseAccount, h.ofAccount(Accounts.CloseAccount)))
	mux.HandleFunc("POST "+Prefix+"accounts/{account}/reopen", h.read(ActionReopenAccount, h.ofAccount(Accounts.ReopenAccount)))
}

// createAccount answers with the root access key.
func (h *handler) createAccount(w http.ResponseWriter, r *http.Request) {
	r, body, err := h.enter(w, r, ActionCreateAccount)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	var in createAccountInput
	if err := decodeStrictly(body, &in); err != nil {
		h.fail(w, r, err)
		return
	}
	ctx := r.Context()
	made, key, err := h.o.Accounts.CreateAccount(ctx, h.o.Account(ctx), accounts.NewAccount{ID: fleet.Account(in.ID), Name: in.Name, Email: in.Email}) //nolint:contextcheck // enter returned the same request with the actor
	if key.ID == "" {
		h.fail(w, r, err)
		return
	}
	if err != nil {
		// The account is there, and nobody could ask for its key again.
		h.o.Logger.WarnContext(ctx, "account is made but not served yet", slog.String("account", string(made.ID)), slog.Any("err", err)) //nolint:contextcheck // as above
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	out := createAccountOutput{Account: showAccount(&made), AccessKey: accessKeyOutput{AccessKeyID: key.ID, SecretAccessKey: key.Secret}}
	if err := json.NewEncoder(w).Encode(out); err != nil {
		h.o.Logger.WarnContext(ctx, "caller left before it got the key of its new account", slog.String("account", string(made.ID)), slog.Any("err", err)) //nolint:contextcheck // as above
	}
}

// listAccounts answers a page.
func (h *handler) listAccounts(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.accounts", "")
	if err != nil {
		return nil, err
	}
	page, err := h.o.Accounts.ListAccounts(ctx, l.account, l.after, l.limit)
	if err != nil {
		return nil, err
	}
	out := listAccountsOutput{Accounts: make([]accountOutput, len(page.Accounts))}
	for i := range page.Accounts {
		out.Accounts[i] = showAccount(&page.Accounts[i])
	}
	if page.Next != "" {
		out.NextToken = h.o.Tokens.Seal(l.account, l.operation, l.filter, page.Next, h.o.Now())
	}
	return out, nil
}

// ofAccount wraps an operation on the account of the path.
func (h *handler) ofAccount(do func(a Accounts, ctx context.Context, by, id fleet.Account) (accounts.Account, error)) func(context.Context, *http.Request) (any, error) {
	return func(ctx context.Context, r *http.Request) (any, error) {
		found, err := do(h.o.Accounts, ctx, h.o.Account(ctx), fleet.Account(r.PathValue("account")))
		if err != nil {
			return nil, err
		}
		return showAccount(&found), nil
	}
}

// showAccount encodes an account.
func showAccount(a *accounts.Account) accountOutput {
	return accountOutput{
		ID: string(a.ID), Name: a.Name, Email: a.Email, Status: a.Status, Default: a.Default,
		Endpoints: endpointsOutput{Data: a.Endpoints.Data, Jobs: a.Endpoints.Jobs, Credentials: a.Endpoints.Credentials},
		CreatedAt: stamp(a.Created), ModifiedAt: stamp(a.Modified),
	}
}
