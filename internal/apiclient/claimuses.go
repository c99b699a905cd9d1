package apiclient

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// ClaimUse is what a provisioning claim was used for. Times are RFC 3339 in UTC.
type ClaimUse struct {
	ClaimID       string         `json:"claimCertificateId"`
	First         string         `json:"firstAt"`
	Last          string         `json:"lastAt"`
	Provisioned   int64          `json:"provisioned"`
	Refused       int64          `json:"refused"`
	Networks      []ClaimNetwork `json:"networks"`
	OtherNetworks int64          `json:"otherNetworks,omitempty"`
	Findings      []ClaimFinding `json:"findings"`
}

// ClaimNetwork is a network from which a claim was used.
type ClaimNetwork struct {
	Network     string `json:"network"`
	First       string `json:"firstAt"`
	Last        string `json:"lastAt"`
	Provisioned int64  `json:"provisioned"`
	Refused     int64  `json:"refused"`
}

// ClaimFinding is a way in which a claim was misused; Settled is empty while it waits
// for somebody.
type ClaimFinding struct {
	Kind          string `json:"kind"`
	Network       string `json:"network,omitempty"`
	First         string `json:"firstAt"`
	Last          string `json:"lastAt"`
	Times         int64  `json:"times"`
	Template      string `json:"templateName,omitempty"`
	CertificateID string `json:"certificateId,omitempty"`
	Reason        string `json:"reason,omitempty"`
	Settled       string `json:"settledAt,omitempty"`
	SettledBy     string `json:"settledBy,omitempty"`
	Note          string `json:"note,omitempty"`
}

// ClaimUses lists up to limit claims by id, 0 for all; with misused only those with
// findings that nobody has settled.
func (c *Client) ClaimUses(ctx context.Context, misused bool, limit int) ([]ClaimUse, error) {
	query := url.Values{"misused": {strconv.FormatBool(misused)}}
	var all []ClaimUse
	for {
		if limit > 0 {
			query.Set("maxResults", strconv.Itoa(min(limit-len(all), maxOpsPage)))
		}
		var page struct {
			Claims    []ClaimUse `json:"claims"`
			NextToken string     `json:"nextToken"`
		}
		if err := c.JSON(ctx, get("/ops/v1/claim-uses", query), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Claims...)
		if page.NextToken == "" || limit > 0 && len(all) >= limit {
			return all, nil
		}
		query.Set("nextToken", page.NextToken)
	}
}

// ClaimUse describes one.
func (c *Client) ClaimUse(ctx context.Context, claim string) (ClaimUse, error) {
	var out ClaimUse
	return out, c.JSON(ctx, get(Path("ops", "v1", "claim-uses", claim), nil), nil, &out)
}

// SettleClaimMisuse says what was found out about the misuse of a claim.
func (c *Client) SettleClaimMisuse(ctx context.Context, claim, note string) (ClaimUse, error) {
	var out ClaimUse
	in := map[string]string{"note": note}
	return out, c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: Path("ops", "v1", "claim-uses", claim, "settle")}, in, &out)
}
