package apiclient

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// Approval is a device that waits for people, or has waited.
type Approval struct {
	ID            string            `json:"requestId"`
	State         string            `json:"state"`
	Template      string            `json:"templateName"`
	Method        string            `json:"method"`
	CertificateID string            `json:"certificateId"`
	ClaimID       string            `json:"claimCertificateId,omitempty"`
	ClientID      string            `json:"clientId,omitempty"`
	SourceIP      string            `json:"sourceIp,omitempty"`
	Thing         string            `json:"thingName,omitempty"`
	Parameters    map[string]string `json:"parameters"`
	Received      string            `json:"receivedAt"`
	Expires       string            `json:"expiresAt"`
	Decisions     []ApprovalVote    `json:"decisions"`
	Lists         []ApprovalListed  `json:"allowLists,omitempty"`
}

// ApprovalListed is where a list authority has found a device.
type ApprovalListed struct {
	Authority string `json:"authority"`
	List      string `json:"listId"`
	Revision  int64  `json:"rev"`
	Supplier  string `json:"supplierId"`
	Match     string `json:"match"`
}

// ApprovalVote is what an authority has said.
type ApprovalVote struct {
	Authority string `json:"authority"`
	Verdict   string `json:"verdict"`
	By        string `json:"by,omitempty"`
	At        string `json:"at"`
	Reason    string `json:"reason,omitempty"`
}

// ApprovalAuthority can say yes to a device.
type ApprovalAuthority struct {
	ID       string `json:"authorityId,omitempty"`
	Kind     string `json:"kind"`
	Group    string `json:"userGroup,omitempty"`
	Function string `json:"function,omitempty"`
	Supplier string `json:"supplierId,omitempty"`
	// SerialParameter and ModelParameter are of lists.
	SerialParameter string `json:"serialParameter,omitempty"`
	ModelParameter  string `json:"modelParameter,omitempty"`
	Created         string `json:"createdAt,omitempty"`
	Changed         string `json:"changedAt,omitempty"`
}

// ApprovalBinding says who decides about the devices of a template.
type ApprovalBinding struct {
	Template      string   `json:"templateName,omitempty"`
	Rule          string   `json:"rule"`
	K             int      `json:"k,omitempty"`
	Authorities   []string `json:"authorities"`
	Claims        []string `json:"claimCertificateIds,omitempty"`
	Networks      []string `json:"sourceNetworks,omitempty"`
	AutoApproveIf string   `json:"autoApproveIf,omitempty"`
	DailyQuota    int      `json:"dailyQuota,omitempty"`
	WindowStart   string   `json:"windowStart,omitempty"`
	WindowEnd     string   `json:"windowEnd,omitempty"`
	Window        string   `json:"approvalWindow,omitempty"`
	Created       string   `json:"createdAt,omitempty"`
	Changed       string   `json:"changedAt,omitempty"`
}

// opsPages walks a list of /ops/v1 up to limit, 0 for all; a page is decoded into out
// and tells how many it had and its token.
func (c *Client) opsPages(ctx context.Context, path string, query url.Values, limit int, take func(page *approvalPage) int) error {
	for taken := 0; ; {
		if limit > 0 {
			query.Set("maxResults", strconv.Itoa(min(limit-taken, maxOpsPage)))
		}
		var page approvalPage
		if err := c.JSON(ctx, get("/ops/v1/"+path, query), nil, &page); err != nil {
			return err
		}
		if taken += take(&page); page.NextToken == "" || limit > 0 && taken >= limit {
			return nil
		}
		query.Set("nextToken", page.NextToken)
	}
}

// maxOpsPage is the most that one page of /ops/v1 has.
const maxOpsPage = 250

// approvalPage is a page of any of the lists below.
type approvalPage struct {
	Approvals   []Approval          `json:"approvals"`
	Authorities []ApprovalAuthority `json:"authorities"`
	Bindings    []ApprovalBinding   `json:"bindings"`
	NextToken   string              `json:"nextToken"`
}

// Approvals lists those of a state, PENDING when it is empty, the newest first.
func (c *Client) Approvals(ctx context.Context, state, template string, limit int) ([]Approval, error) {
	query := url.Values{}
	for name, value := range map[string]string{"state": state, "template": template} {
		if value != "" {
			query.Set(name, value)
		}
	}
	var all []Approval
	err := c.opsPages(ctx, "approvals", query, limit, func(page *approvalPage) int {
		all = append(all, page.Approvals...)
		return len(page.Approvals)
	})
	return all, err
}

// Approval describes one.
func (c *Client) Approval(ctx context.Context, id string) (Approval, error) {
	var out Approval
	return out, c.JSON(ctx, get(Path("ops", "v1", "approvals", id), nil), nil, &out)
}

// Vote says approve, deny or withdraw about one.
func (c *Client) Vote(ctx context.Context, id, word, authority, reason string) (Approval, error) {
	var out Approval
	in := map[string]string{"authority": authority, "reason": reason}
	return out, c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: Path("ops", "v1", "approvals", id, word)}, in, &out)
}

// ApprovalAuthorities lists authorities in the order of their ids.
func (c *Client) ApprovalAuthorities(ctx context.Context, limit int) ([]ApprovalAuthority, error) {
	var all []ApprovalAuthority
	err := c.opsPages(ctx, "approval-authorities", url.Values{}, limit, func(page *approvalPage) int {
		all = append(all, page.Authorities...)
		return len(page.Authorities)
	})
	return all, err
}

// PutApprovalAuthority makes an authority or changes it.
func (c *Client) PutApprovalAuthority(ctx context.Context, id string, a ApprovalAuthority) (ApprovalAuthority, error) {
	var out ApprovalAuthority
	return out, c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPut, Path: Path("ops", "v1", "approval-authorities", id)}, a, &out)
}

// DeleteApprovalAuthority removes one.
func (c *Client) DeleteApprovalAuthority(ctx context.Context, id string) error {
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodDelete, Path: Path("ops", "v1", "approval-authorities", id)}, nil, nil)
}

// ApprovalBindings lists bindings in the order of their templates.
func (c *Client) ApprovalBindings(ctx context.Context, limit int) ([]ApprovalBinding, error) {
	var all []ApprovalBinding
	err := c.opsPages(ctx, "approval-bindings", url.Values{}, limit, func(page *approvalPage) int {
		all = append(all, page.Bindings...)
		return len(page.Bindings)
	})
	return all, err
}

// PutApprovalBinding binds a template or changes its binding.
func (c *Client) PutApprovalBinding(ctx context.Context, template string, b ApprovalBinding) (ApprovalBinding, error) {
	var out ApprovalBinding
	return out, c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPut, Path: Path("ops", "v1", "approval-bindings", template)}, b, &out)
}

// DeleteApprovalBinding unbinds a template.
func (c *Client) DeleteApprovalBinding(ctx context.Context, template string) error {
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodDelete, Path: Path("ops", "v1", "approval-bindings", template)}, nil, nil)
}
