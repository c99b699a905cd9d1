package apiclient

import (
	"context"
	"net/http"
	"net/url"
)

// CertificateFromCSR has an active certificate signed for a key that never
// leaves its owner.
func (c *Client) CertificateFromCSR(ctx context.Context, csrPEM []byte) (Certificate, error) {
	var out Certificate
	request := Request{Service: ServiceControl, Method: http.MethodPost, Path: "/certificates", Query: url.Values{"setAsActive": {"true"}}}
	err := c.JSON(ctx, request, map[string]any{"certificateSigningRequest": string(csrPEM)}, &out)
	return out, err
}

// CreatePolicy makes a policy with its first version.
func (c *Client) CreatePolicy(ctx context.Context, name, document string) error {
	in := map[string]any{"policyDocument": document}
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: Path("policies", name)}, in, nil)
}

// ListPolicies walks the names of all policies, up to limit; 0 means all.
func (c *Client) ListPolicies(ctx context.Context, limit int) ([]string, error) {
	var names []string
	query := url.Values{"pageSize": {"250"}}
	for {
		var page struct {
			Policies []struct {
				PolicyName string `json:"policyName"`
			} `json:"policies"`
			NextMarker string `json:"nextMarker"`
		}
		if err := c.JSON(ctx, get("/policies", query), nil, &page); err != nil {
			return nil, err
		}
		for _, p := range page.Policies {
			if names = append(names, p.PolicyName); len(names) == limit {
				return names, nil
			}
		}
		if page.NextMarker == "" {
			return names, nil
		}
		query.Set("marker", page.NextMarker)
	}
}

// AttachPolicy puts a policy in force for a certificate or a group.
func (c *Client) AttachPolicy(ctx context.Context, policy, target string) error {
	in := map[string]any{"target": target}
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPut, Path: Path("target-policies", policy)}, in, nil)
}

// AttachThingPrincipal lets a certificate act as a thing.
func (c *Client) AttachThingPrincipal(ctx context.Context, thing, principal string) error {
	request := Request{Service: ServiceControl, Method: http.MethodPut, Path: Path("things", thing, "principals"), Header: http.Header{}}
	request.Header.Set("x-amzn-principal", principal)
	return c.JSON(ctx, request, nil, nil)
}
