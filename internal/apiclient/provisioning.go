package apiclient

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// Template is a provisioning template. Times are seconds since 1970.
type Template struct {
	Name        string  `json:"templateName"`
	ARN         string  `json:"templateArn,omitempty"`
	Type        string  `json:"type,omitempty"`
	Description string  `json:"description,omitempty"`
	Enabled     bool    `json:"enabled"`
	RoleARN     string  `json:"provisioningRoleArn,omitempty"`
	Hook        *Hook   `json:"preProvisioningHook,omitempty"`
	Created     float64 `json:"creationDate"`
	Modified    float64 `json:"lastModifiedDate"`
	// DefaultVersion and Body are not in lists.
	DefaultVersion int64  `json:"defaultVersionId,omitempty"`
	Body           string `json:"templateBody,omitempty"`
}

// Hook is what is asked before a device is provisioned.
type Hook struct {
	PayloadVersion string `json:"payloadVersion,omitempty"`
	TargetARN      string `json:"targetArn"`
}

// TemplateVersion is one version of a template.
type TemplateVersion struct {
	ID      int64   `json:"versionId"`
	Default bool    `json:"isDefaultVersion"`
	Created float64 `json:"creationDate,omitempty"`
	// Body is not in lists.
	Body string `json:"templateBody,omitempty"`
}

// TemplateCreation asks for a template; empty members are left out.
type TemplateCreation struct {
	Name        string `json:"templateName"`
	Body        string `json:"templateBody"`
	RoleARN     string `json:"provisioningRoleArn"`
	Type        string `json:"type,omitempty"`
	Description string `json:"description,omitempty"`
	Enabled     bool   `json:"enabled"`
	Hook        *Hook  `json:"preProvisioningHook,omitempty"`
}

// TemplateUpdate changes a template; nil and false change nothing.
type TemplateUpdate struct {
	Description    *string `json:"description,omitempty"`
	Enabled        *bool   `json:"enabled,omitempty"`
	DefaultVersion *int64  `json:"defaultVersionId,omitempty"`
	RoleARN        *string `json:"provisioningRoleArn,omitempty"`
	Hook           *Hook   `json:"preProvisioningHook,omitempty"`
	RemoveHook     bool    `json:"removePreProvisioningHook,omitempty"`
}

// Claim is what a trusted user hands to a device. Expires is seconds since 1970.
type Claim struct {
	ID      string  `json:"certificateId"`
	PEM     string  `json:"certificatePem"`
	Expires float64 `json:"expiration"`
	KeyPair struct {
		PublicKey  string `json:"PublicKey"`
		PrivateKey string `json:"PrivateKey"`
	} `json:"keyPair"`
}

// TemplateTrial asks what a template would do for one device: a body of a type,
// or a stored template in a version, 0 for the one in force.
type TemplateTrial struct {
	Body       string            `json:"templateBody,omitempty"`
	Type       string            `json:"type,omitempty"`
	Name       string            `json:"templateName,omitempty"`
	Version    int64             `json:"versionId,omitempty"`
	Parameters map[string]string `json:"parameters,omitempty"`
}

// TemplateTrialResult has a problem or a plan.
type TemplateTrialResult struct {
	Type    string `json:"type"`
	Name    string `json:"templateName,omitempty"`
	Version int64  `json:"versionId,omitempty"`
	// Enabled is nil for a body.
	Enabled           *bool             `json:"enabled,omitempty"`
	HookNotAsked      string            `json:"hookNotAsked,omitempty"`
	StandIns          map[string]string `json:"standIns,omitempty"`
	IgnoredParameters []string          `json:"ignoredParameters"`
	Problem           *TemplateProblem  `json:"problem,omitempty"`
	Plan              *TemplatePlan     `json:"plan,omitempty"`
	Missing           []MissingResource `json:"missing"`
	Refusal           *TemplateRefusal  `json:"refusal,omitempty"`
}

// TemplateProblem is a mistake and its place; line 0 is for none.
type TemplateProblem struct {
	Rule      string `json:"rule,omitempty"`
	Line      int    `json:"line,omitempty"`
	Column    int    `json:"column,omitempty"`
	Pointer   string `json:"pointer,omitempty"`
	Parameter string `json:"parameter,omitempty"`
	Function  string `json:"function,omitempty"`
	Message   string `json:"message"`
}

// TemplatePlan is what a device would get.
type TemplatePlan struct {
	Thing *struct {
		LogicalName      string            `json:"logicalName"`
		ThingName        string            `json:"thingName"`
		Exists           bool              `json:"exists"`
		ThingTypeName    string            `json:"thingTypeName,omitempty"`
		Attributes       map[string]string `json:"attributes"`
		ThingGroups      []string          `json:"thingGroups"`
		BillingGroupName string            `json:"billingGroupName,omitempty"`
		OverrideSettings map[string]string `json:"overrideSettings"`
	} `json:"thing,omitempty"`
	Certificate *struct {
		LogicalName      string            `json:"logicalName"`
		Source           string            `json:"source"`
		CertificateID    string            `json:"certificateId,omitempty"`
		Status           string            `json:"status"`
		OverrideSettings map[string]string `json:"overrideSettings"`
	} `json:"certificate,omitempty"`
	Policies []struct {
		LogicalName    string `json:"logicalName"`
		PolicyName     string `json:"policyName"`
		PolicyDocument string `json:"policyDocument,omitempty"`
		Exists         bool   `json:"exists"`
	} `json:"policies"`
	DeviceConfiguration map[string]string `json:"deviceConfiguration"`
}

// MissingResource is something that a plan needs and that does not exist; kind
// is as in ARNs.
type MissingResource struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	ARN  string `json:"arn"`
}

// TemplateRefusal is what a device would be told.
type TemplateRefusal struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// templatePath is where templates are.
func templatePath(more ...string) string {
	return Path(append([]string{"provisioning-templates"}, more...)...)
}

// change is a request of the control plane that changes something.
func change(method, path string, query url.Values) Request {
	return Request{Service: ServiceControl, Method: method, Path: path, Query: query}
}

// ListTemplates returns up to limit templates by name; all for limit 0.
func (c *Client) ListTemplates(ctx context.Context, limit int) ([]Template, error) {
	all := []Template{}
	err := pages(nil, limit, func(query url.Values) (int, string, error) {
		var page struct {
			Templates []Template `json:"templates"`
			NextToken string     `json:"nextToken"`
		}
		err := c.JSON(ctx, get(templatePath(), query), nil, &page)
		all = append(all, page.Templates...)
		return len(page.Templates), page.NextToken, err
	})
	return all, err
}

// DescribeTemplate returns one template with the body in force.
func (c *Client) DescribeTemplate(ctx context.Context, name string) (Template, error) {
	var out Template
	err := c.JSON(ctx, get(templatePath(name), nil), nil, &out)
	return out, err
}

// CreateTemplate makes a template with version 1 in force.
func (c *Client) CreateTemplate(ctx context.Context, t TemplateCreation) error {
	return c.JSON(ctx, change(http.MethodPost, templatePath(), nil), t, nil)
}

// UpdateTemplate changes what a template says beside its versions.
func (c *Client) UpdateTemplate(ctx context.Context, name string, u TemplateUpdate) error {
	return c.JSON(ctx, change(http.MethodPatch, templatePath(name), nil), u, nil)
}

// DeleteTemplate removes a template with all its versions.
func (c *Client) DeleteTemplate(ctx context.Context, name string) error {
	return c.JSON(ctx, change(http.MethodDelete, templatePath(name), nil), nil, nil)
}

// ListTemplateVersions returns up to limit versions, the newest first; all for
// limit 0.
func (c *Client) ListTemplateVersions(ctx context.Context, name string, limit int) ([]TemplateVersion, error) {
	all := []TemplateVersion{}
	err := pages(nil, limit, func(query url.Values) (int, string, error) {
		var page struct {
			Versions  []TemplateVersion `json:"versions"`
			NextToken string            `json:"nextToken"`
		}
		err := c.JSON(ctx, get(templatePath(name, "versions"), query), nil, &page)
		all = append(all, page.Versions...)
		return len(page.Versions), page.NextToken, err
	})
	return all, err
}

// DescribeTemplateVersion returns one version with its body.
func (c *Client) DescribeTemplateVersion(ctx context.Context, name string, id int64) (TemplateVersion, error) {
	var out TemplateVersion
	err := c.JSON(ctx, get(templatePath(name, "versions", strconv.FormatInt(id, 10)), nil), nil, &out)
	return out, err
}

// CreateTemplateVersion adds a version and returns its id.
func (c *Client) CreateTemplateVersion(ctx context.Context, name, body string, asDefault bool) (int64, error) {
	var out TemplateVersion
	query := url.Values{"setAsDefault": {strconv.FormatBool(asDefault)}}
	err := c.JSON(ctx, change(http.MethodPost, templatePath(name, "versions"), query), map[string]string{"templateBody": body}, &out)
	return out.ID, err
}

// DeleteTemplateVersion removes a version that is not in force.
func (c *Client) DeleteTemplateVersion(ctx context.Context, name string, id int64) error {
	return c.JSON(ctx, change(http.MethodDelete, templatePath(name, "versions", strconv.FormatInt(id, 10)), nil), nil, nil)
}

// TryTemplate asks what a template would do, without doing it.
func (c *Client) TryTemplate(ctx context.Context, t TemplateTrial) (TemplateTrialResult, error) {
	var out TemplateTrialResult
	// The colon stays as it is: it belongs to the operation's name.
	err := c.JSON(ctx, change(http.MethodPost, "/ops/v1/provisioning-templates:test", nil), t, &out)
	return out, err
}

// CreateClaim makes a claim for one template that is good for minutes.
func (c *Client) CreateClaim(ctx context.Context, template string) (Claim, error) {
	var out Claim
	err := c.JSON(ctx, change(http.MethodPost, templatePath(template, "provisioning-claim"), nil), struct{}{}, &out)
	return out, err
}

// CallerAccount returns the number of the account that the credentials are of.
func (c *Client) CallerAccount(ctx context.Context) (string, error) {
	data, err := c.Raw(ctx, Request{
		Service: "sts", Method: http.MethodPost, Path: "/", Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
		Body: []byte("Action=GetCallerIdentity&Version=2011-06-15"),
	})
	if err != nil {
		return "", err
	}
	var out struct {
		Account string `xml:"GetCallerIdentityResult>Account"`
	}
	if err := xml.Unmarshal(data, &out); err != nil {
		return "", fmt.Errorf("decode answer of GetCallerIdentity: %w", err)
	}
	if out.Account == "" {
		return "", errors.New("answer of GetCallerIdentity names no account")
	}
	return out.Account, nil
}

// Declaration is what is on record about an authority. Times are RFC 3339.
type Declaration struct {
	CACertificateID string `json:"caCertificateId"`
	Basis           string `json:"basis"`
	RegisteredBy    string `json:"registeredBy,omitempty"`
	RegisteredAt    string `json:"registeredAt"`
	Statement       string `json:"statement,omitempty"`
	StatedBy        string `json:"statedBy,omitempty"`
	StatedAt        string `json:"statedAt,omitempty"`
}

// CADeclaration returns what is on record about an authority.
func (c *Client) CADeclaration(ctx context.Context, ca string) (Declaration, error) {
	var out Declaration
	err := c.JSON(ctx, get(Path("ops", "v1", "ca-certificates", ca, "declaration"), nil), nil, &out)
	return out, err
}

// DeclareCA puts a statement about an authority on record.
func (c *Client) DeclareCA(ctx context.Context, ca, statement string) (Declaration, error) {
	var out Declaration
	path := Path("ops", "v1", "ca-certificates", ca, "declaration")
	err := c.JSON(ctx, change(http.MethodPut, path, nil), map[string]string{"statement": statement}, &out)
	return out, err
}
