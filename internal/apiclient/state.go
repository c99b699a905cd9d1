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

// FoundGroup is one thing group that answers a query of groups.
type FoundGroup struct {
	ThingGroupName        string            `json:"thingGroupName"`
	ThingGroupID          string            `json:"thingGroupId,omitempty"`
	ThingGroupDescription string            `json:"thingGroupDescription,omitempty"`
	Attributes            map[string]string `json:"attributes,omitempty"`
	// ParentGroupNames are all groups above, not only the next one.
	ParentGroupNames []string `json:"parentGroupNames,omitempty"`
}

// GroupIndex is the index of thing groups; the other one is that of things.
const GroupIndex = "AWS_ThingGroups"

// Search returns up to limit devices that answer a query, all for limit 0.
func (c *Client) Search(ctx context.Context, query string, limit int) ([]Found, error) {
	return searched(ctx, c, "", query, limit, func(p *foundPage) []Found { return p.Things })
}

// SearchGroups returns up to limit thing groups that answer a query, all for
// limit 0.
func (c *Client) SearchGroups(ctx context.Context, query string, limit int) ([]FoundGroup, error) {
	return searched(ctx, c, GroupIndex, query, limit, func(p *foundPage) []FoundGroup { return p.ThingGroups })
}

// foundPage is an answer of SearchIndex.
type foundPage struct {
	Things      []Found
	ThingGroups []FoundGroup
	NextToken   string
}

// searched asks an index page by page.
func searched[T any](ctx context.Context, c *Client, index, query string, limit int, hits func(*foundPage) []T) ([]T, error) {
	var all []T
	token := ""
	for {
		size := searchPage
		if limit > 0 {
			size = min(size, limit-len(all))
		}
		in := map[string]any{"queryString": query, "maxResults": size}
		if index != "" {
			in["indexName"] = index
		}
		if token != "" {
			in["nextToken"] = token
		}
		var page foundPage
		if err := c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: "/indices/search"}, in, &page); err != nil {
			return all, err
		}
		all = append(all, hits(&page)...)
		if token = page.NextToken; token == "" || (limit > 0 && len(all) >= limit) {
			return all, nil
		}
	}
}

// Count returns how many things, or thing groups, answer a query.
func (c *Client) Count(ctx context.Context, groups bool, query string) (int, error) {
	in := map[string]any{"queryString": query}
	if groups {
		in["indexName"], in["aggregationField"] = GroupIndex, "thingGroupName"
	}
	var out struct{ Statistics struct{ Count int } }
	err := c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: "/indices/statistics"}, in, &out)
	return out.Statistics.Count, err
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
