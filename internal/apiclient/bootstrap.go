package apiclient

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// BootstrapAssignment says where devices are sent that ask the bootstrap address. The
// fields from ID, and from Version on, are not for requests. Times are RFC 3339.
type BootstrapAssignment struct {
	ID              string            `json:"assignmentId,omitempty"`
	Kind            string            `json:"kind,omitempty"`
	CertificateID   string            `json:"certificateId,omitempty"`
	CACertificateID string            `json:"caCertificateId,omitempty"`
	Serial          string            `json:"serial,omitempty"`
	Account         string            `json:"account,omitempty"`
	Template        string            `json:"templateName,omitempty"`
	Parameters      map[string]string `json:"parameters,omitempty"`
	Configuration   map[string]string `json:"configuration,omitempty"`
	// Enabled is true where it is nil.
	Enabled   *bool  `json:"enabled,omitempty"`
	Expires   string `json:"expiresAt,omitempty"`
	Note      string `json:"note,omitempty"`
	Version   int64  `json:"version,omitempty"`
	Created   string `json:"createdAt,omitempty"`
	Changed   string `json:"changedAt,omitempty"`
	By        string `json:"changedBy,omitempty"`
	Asked     string `json:"askedAt,omitempty"`
	AskedBy   string `json:"askedByCertificateId,omitempty"`
	AskedFrom string `json:"askedFrom,omitempty"`
}

// BootstrapImported is what became of one assignment of an import. Code is empty for one
// that was taken.
type BootstrapImported struct {
	ID     string `json:"assignmentId,omitempty"`
	Change string `json:"change,omitempty"`
	Error  struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error,omitzero"`
}

// MaxBootstrapImport is the most that one import takes.
const MaxBootstrapImport = 250

func assignmentPath(id string) string { return Path("ops", "v1", "bootstrap", "assignments", id) }

// CreateBootstrapAssignment makes an assignment for devices that have none.
func (c *Client) CreateBootstrapAssignment(ctx context.Context, a *BootstrapAssignment) (BootstrapAssignment, error) {
	var out BootstrapAssignment
	return out, c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: "/ops/v1/bootstrap/assignments"}, a, &out)
}

// UpdateBootstrapAssignment replaces all of an assignment but whom it is for; version 0
// is any.
func (c *Client) UpdateBootstrapAssignment(ctx context.Context, id string, a *BootstrapAssignment, version int64) (BootstrapAssignment, error) {
	in := struct {
		Account         string            `json:"account,omitempty"`
		Template        string            `json:"templateName,omitempty"`
		Parameters      map[string]string `json:"parameters,omitempty"`
		Configuration   map[string]string `json:"configuration,omitempty"`
		Enabled         *bool             `json:"enabled,omitempty"`
		Expires         string            `json:"expiresAt,omitempty"`
		Note            string            `json:"note,omitempty"`
		ExpectedVersion int64             `json:"expectedVersion,omitempty"`
	}{a.Account, a.Template, a.Parameters, a.Configuration, a.Enabled, a.Expires, a.Note, version}
	var out BootstrapAssignment
	return out, c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPut, Path: assignmentPath(id)}, in, &out)
}

// BootstrapAssignment describes one.
func (c *Client) BootstrapAssignment(ctx context.Context, id string) (BootstrapAssignment, error) {
	var out BootstrapAssignment
	return out, c.JSON(ctx, get(assignmentPath(id), nil), nil, &out)
}

// BootstrapAssignments lists up to limit, 0 for all, or the one for whom query names by
// certificateId, or by caCertificateId with or without serial.
func (c *Client) BootstrapAssignments(ctx context.Context, query url.Values, limit int) ([]BootstrapAssignment, error) {
	if query == nil {
		query = url.Values{}
	}
	var all []BootstrapAssignment
	for {
		if limit > 0 {
			query.Set("maxResults", strconv.Itoa(min(limit-len(all), maxOpsPage)))
		}
		var page struct {
			Assignments []BootstrapAssignment `json:"assignments"`
			NextToken   string                `json:"nextToken"`
		}
		if err := c.JSON(ctx, get("/ops/v1/bootstrap/assignments", query), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Assignments...)
		if page.NextToken == "" || limit > 0 && len(all) >= limit {
			return all, nil
		}
		query.Set("nextToken", page.NextToken)
	}
}

// DeleteBootstrapAssignment removes one; version 0 is any.
func (c *Client) DeleteBootstrapAssignment(ctx context.Context, id string, version int64) error {
	query := url.Values{}
	if version > 0 {
		query.Set("expectedVersion", strconv.FormatInt(version, 10))
	}
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodDelete, Path: assignmentPath(id), Query: query}, nil, nil)
}

// ImportBootstrapAssignments makes or changes up to MaxBootstrapImport, and says of each
// what became of it.
func (c *Client) ImportBootstrapAssignments(ctx context.Context, all []BootstrapAssignment) ([]BootstrapImported, error) {
	in := map[string][]BootstrapAssignment{"assignments": all}
	var out struct {
		Results []BootstrapImported `json:"results"`
	}
	err := c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: "/ops/v1/bootstrap/assignments/import"}, in, &out)
	return out.Results, err
}
