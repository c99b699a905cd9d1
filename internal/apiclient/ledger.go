package apiclient

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// DeviceLedger is the life of a device. Times are RFC 3339.
type DeviceLedger struct {
	Device         string   `json:"deviceKey"`
	Life           int      `json:"life"`
	Begun          string   `json:"begunAt,omitempty"`
	Thing          string   `json:"thingName,omitempty"`
	Certificate    string   `json:"certificateId,omitempty"`
	Registered     string   `json:"registeredAt,omitempty"`
	Activated      string   `json:"activatedAt,omitempty"`
	Decommissioned string   `json:"decommissionedAt,omitempty"`
	Suspended      bool     `json:"suspended,omitempty"`
	Rogue          bool     `json:"rogue,omitempty"`
	Basis          string   `json:"basis"`
	Evidence       []string `json:"evidence"`
	EntryCount     uint64   `json:"entryCount"`
	Hash           string   `json:"hash"`
	// Entries are the oldest first, each as the server told it.
	Entries []json.RawMessage `json:"entries"`
}

// Rogue is a device that nobody made: one that joined, or an attempt.
type Rogue struct {
	Kind        string `json:"kind"`
	Device      string `json:"deviceKey"`
	Thing       string `json:"thingName,omitempty"`
	Certificate string `json:"certificateId,omitempty"`
	Claim       string `json:"claimCertificateId,omitempty"`
	Template    string `json:"templateName,omitempty"`
	ClientID    string `json:"clientId,omitempty"`
	Reason      string `json:"reason"`
	First       string `json:"firstAt"`
	Last        string `json:"lastAt"`
	Count       int64  `json:"count,omitempty"`
	Known       bool   `json:"known,omitempty"`
}

// Rogues are devices that nobody made, with how many there were.
type Rogues struct {
	Rogues []Rogue `json:"rogues"`
	// Devices have joined; Attempts were refused, Refusals is how often.
	Devices  int64 `json:"devices"`
	Attempts int64 `json:"attempts"`
	Refusals int64 `json:"refusals"`
}

// Ledger returns the whole life of a device.
func (c *Client) Ledger(ctx context.Context, device string) (DeviceLedger, error) {
	var out DeviceLedger
	err := pages(nil, 0, func(q url.Values) (int, string, error) {
		var page struct {
			DeviceLedger

			NextToken string `json:"nextToken"`
		}
		err := c.JSON(ctx, get(Path("ops", "v1", "ledger", device), q), nil, &page)
		before := out.Entries
		out = page.DeviceLedger
		out.Entries = append(before, page.Entries...)
		return len(page.Entries), page.NextToken, err
	})
	return out, err
}

// ListRogues returns up to limit rogues of a kind, DEVICE or ATTEMPT; all for limit 0.
func (c *Client) ListRogues(ctx context.Context, kind string, limit int) (Rogues, error) {
	var out Rogues
	err := pages(url.Values{"kind": {kind}}, limit, func(q url.Values) (int, string, error) {
		var page struct {
			Rogues

			NextToken string `json:"nextToken"`
		}
		err := c.JSON(ctx, get(Path("ops", "v1", "ledger", "rogues"), q), nil, &page)
		before := out.Rogues
		out = page.Rogues
		out.Rogues = append(before, page.Rogues.Rogues...)
		return len(page.Rogues.Rogues), page.NextToken, err
	})
	return out, err
}

// LedgerVerification is the request to verify the ledger of a device, or all for an
// empty name, also against a head that was kept; its answer is a stream.
func LedgerVerification(device, head string) Request {
	r := Request{Service: ServiceControl, Method: http.MethodGet, Path: Path("ops", "v1", "ledger:verify")}
	if device != "" {
		r.Path = Path("ops", "v1", "ledger", device, "verify")
	}
	if head != "" {
		r.Query = url.Values{"head": {head}}
	}
	return r
}

// LedgerHead is where the ledger ends, as the server writes it.
func (c *Client) LedgerHead(ctx context.Context) ([]byte, error) {
	return c.Raw(ctx, get(Path("ops", "v1", "ledger:head"), nil))
}
