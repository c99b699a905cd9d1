package apiclient

import (
	"context"
	"net/http"
	"net/url"
)

// Found is one device that answers a fleet query.
type Found struct {
	ThingName       string            `json:"thingName"`
	ThingID         string            `json:"thingId,omitempty"`
	ThingTypeName   string            `json:"thingTypeName,omitempty"`
	ThingGroupNames []string          `json:"thingGroupNames,omitempty"`
	Attributes      map[string]string `json:"attributes,omitempty"`
	// Shadow is JSON text.
	Shadow       string        `json:"shadow,omitempty"`
	Connectivity *Connectivity `json:"connectivity,omitempty"`
}

// Connectivity is what the index knows of a device's connection.
type Connectivity struct {
	Connected bool `json:"connected"`
	// Timestamp is in milliseconds.
	Timestamp        int64  `json:"timestamp,omitempty"`
	DisconnectReason string `json:"disconnectReason,omitempty"`
}

// Search returns up to limit devices that answer a query, all for limit 0.
func (c *Client) Search(ctx context.Context, query string, limit int) ([]Found, error) {
	var all []Found
	token := ""
	for {
		size := searchPage
		if limit > 0 {
			size = min(size, limit-len(all))
		}
		in := map[string]any{"queryString": query, "maxResults": size}
		if token != "" {
			in["nextToken"] = token
		}
		var page struct {
			Things    []Found
			NextToken string
		}
		if err := c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: "/indices/search"}, in, &page); err != nil {
			return all, err
		}
		all = append(all, page.Things...)
		if token = page.NextToken; token == "" || (limit > 0 && len(all) >= limit) {
			return all, nil
		}
	}
}

// shadowRequest addresses a classic shadow, or a named one.
func shadowRequest(method, thing, name string, body []byte) Request {
	request := Request{Service: ServiceData, Method: method, Path: Path("things", thing, "shadow"), Body: body}
	if name != "" {
		request.Query = url.Values{"name": {name}}
	}
	return request
}

// GetShadow returns the shadow document as the server wrote it.
func (c *Client) GetShadow(ctx context.Context, thing, name string) ([]byte, error) {
	return c.Raw(ctx, shadowRequest(http.MethodGet, thing, name, nil))
}

// UpdateShadow sends an update and returns the accepted state.
func (c *Client) UpdateShadow(ctx context.Context, thing, name string, body []byte) ([]byte, error) {
	return c.Raw(ctx, shadowRequest(http.MethodPost, thing, name, body))
}
