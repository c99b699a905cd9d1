package apiclient

import (
	"context"
	"net/http"
	"net/url"
)

// Account is one account of the installation. Times are RFC 3339.
type Account struct {
	ID     string `json:"id"`
	Name   string `json:"name,omitempty"`
	Email  string `json:"email,omitempty"`
	Status string `json:"status"`
	// Default marks the account that manages the others.
	Default   bool             `json:"default,omitempty"`
	Endpoints AccountEndpoints `json:"endpoints"`
	CreatedAt string           `json:"createdAt"`
	// ModifiedAt is empty for an account that was never changed.
	ModifiedAt string `json:"modifiedAt,omitempty"`
}

// AccountEndpoints are the host names by which devices reach an account.
type AccountEndpoints struct {
	Data        string `json:"data"`
	Jobs        string `json:"jobs"`
	Credentials string `json:"credentials"`
}

// CreatedAccount is a new account with the root access key that is shown once.
type CreatedAccount struct {
	Account   Account `json:"account"`
	AccessKey struct {
		ID     string `json:"accessKeyId"`
		Secret string `json:"secretAccessKey,omitempty"`
	} `json:"accessKey"`
}

// CreateAccount makes an account; an empty id is drawn by the server, an empty
// email is none.
func (c *Client) CreateAccount(ctx context.Context, id, name, email string) (CreatedAccount, error) {
	var out CreatedAccount
	in := map[string]string{"id": id, "name": name, "email": email}
	err := c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: Path("ops", "v1", "accounts")}, in, &out)
	return out, err
}

// Accounts returns up to limit accounts by number; all for limit 0.
func (c *Client) Accounts(ctx context.Context, limit int) ([]Account, error) {
	all := []Account{}
	err := pages(url.Values{}, limit, func(query url.Values) (int, string, error) {
		var page struct {
			Accounts  []Account `json:"accounts"`
			NextToken string    `json:"nextToken"`
		}
		err := c.JSON(ctx, get(Path("ops", "v1", "accounts"), query), nil, &page)
		all = append(all, page.Accounts...)
		return len(page.Accounts), page.NextToken, err
	})
	return all, err
}

// DescribeAccount shows one account.
func (c *Client) DescribeAccount(ctx context.Context, id string) (Account, error) {
	var out Account
	err := c.JSON(ctx, get(Path("ops", "v1", "accounts", id), nil), nil, &out)
	return out, err
}

// CloseAccount refuses the account's keys and devices from now on.
func (c *Client) CloseAccount(ctx context.Context, id string) (Account, error) {
	return c.changeAccount(ctx, id, "close")
}

// ReopenAccount lets them in again.
func (c *Client) ReopenAccount(ctx context.Context, id string) (Account, error) {
	return c.changeAccount(ctx, id, "reopen")
}

// changeAccount asks for a change that needs no body.
func (c *Client) changeAccount(ctx context.Context, id, change string) (Account, error) {
	var out Account
	err := c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: Path("ops", "v1", "accounts", id, change)}, nil, &out)
	return out, err
}
