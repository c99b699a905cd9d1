package apiclient

import (
	"context"
	"net/url"
)

// BillingGroup is what DescribeBillingGroup tells.
type BillingGroup struct {
	Name       string `json:"billingGroupName"`
	ARN        string `json:"billingGroupArn"`
	ID         string `json:"billingGroupId"`
	Version    int64  `json:"version"`
	Properties struct {
		Description string `json:"billingGroupDescription,omitempty"`
	} `json:"billingGroupProperties"`
}

// ListBillingGroups returns up to limit billing groups whose name has the
// prefix, all for limit 0.
func (c *Client) ListBillingGroups(ctx context.Context, prefix string, limit int) ([]Group, error) {
	query := url.Values{}
	if prefix != "" {
		query.Set("namePrefixFilter", prefix)
	}
	var all []Group
	err := pages(query, limit, func(q url.Values) (int, string, error) {
		var page struct {
			BillingGroups []Group
			NextToken     string
		}
		err := c.JSON(ctx, get("/billing-groups", q), nil, &page)
		all = append(all, page.BillingGroups...)
		return len(page.BillingGroups), page.NextToken, err
	})
	return all, err
}

// DescribeBillingGroup returns one billing group.
func (c *Client) DescribeBillingGroup(ctx context.Context, name string) (BillingGroup, error) {
	var out BillingGroup
	err := c.JSON(ctx, get(Path("billing-groups", name), nil), nil, &out)
	return out, err
}

// BillingGroupMembers returns up to limit things of a billing group.
func (c *Client) BillingGroupMembers(ctx context.Context, name string, limit int) ([]string, error) {
	var all []string
	err := pages(nil, limit, func(q url.Values) (int, string, error) {
		var page struct {
			Things    []string
			NextToken string
		}
		err := c.JSON(ctx, get(Path("billing-groups", name, "things"), q), nil, &page)
		all = append(all, page.Things...)
		return len(page.Things), page.NextToken, err
	})
	return all, err
}
