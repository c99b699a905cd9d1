package apiclient

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// Thing is a registry entry.
type Thing struct {
	ThingName     string            `json:"thingName"`
	ThingTypeName string            `json:"thingTypeName,omitempty"`
	ThingARN      string            `json:"thingArn,omitempty"`
	ThingID       string            `json:"thingId,omitempty"`
	Attributes    map[string]string `json:"attributes,omitempty"`
	BillingGroup  string            `json:"billingGroupName,omitempty"`
	Version       int64             `json:"version,omitempty"`
}

// ThingFilter narrows ListThings; empty members do not.
type ThingFilter struct{ TypeName, AttributeName, AttributeValue string }

// Group is a group as lists have it.
type Group struct {
	Name string `json:"groupName"`
	ARN  string `json:"groupArn"`
}

// GroupDetail is what DescribeThingGroup tells.
type GroupDetail struct {
	Name       string `json:"thingGroupName"`
	ARN        string `json:"thingGroupArn"`
	ID         string `json:"thingGroupId"`
	Version    int64  `json:"version"`
	Properties struct {
		Description string `json:"thingGroupDescription,omitempty"`
		Attributes  struct {
			Attributes map[string]string `json:"attributes,omitempty"`
		} `json:"attributePayload"`
	} `json:"thingGroupProperties"`
	Metadata struct {
		Parent       string  `json:"parentGroupName,omitempty"`
		RootToParent []Group `json:"rootToParentThingGroups,omitempty"`
	} `json:"thingGroupMetadata"`
	QueryString string `json:"queryString,omitempty"`
	Status      string `json:"status,omitempty"`
}

// get is a GET of the control plane.
func get(path string, query url.Values) Request {
	return Request{Service: ServiceControl, Method: http.MethodGet, Path: path, Query: query}
}

// pages walks a paged list until it ends or more than limit items came; limit
// 0 means all. fetch returns the number of items and the next token.
func pages(query url.Values, limit int, fetch func(url.Values) (int, string, error)) error {
	if query == nil {
		query = url.Values{}
	}
	got := 0
	for {
		size := listPage
		if limit > 0 {
			size = min(size, limit-got)
		}
		query.Set("maxResults", strconv.Itoa(size))
		n, next, err := fetch(query)
		if err != nil {
			return err
		}
		got += n
		if next == "" || (limit > 0 && got >= limit) {
			return nil
		}
		query.Set("nextToken", next)
	}
}

// Page sizes that the service models allow.
const (
	listPage   = 250
	searchPage = 100
)

// ListThings returns up to limit things, all for limit 0.
func (c *Client) ListThings(ctx context.Context, filter ThingFilter, limit int) ([]Thing, error) {
	query := url.Values{}
	for name, value := range map[string]string{
		"thingTypeName": filter.TypeName, "attributeName": filter.AttributeName, "attributeValue": filter.AttributeValue,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	var all []Thing
	err := pages(query, limit, func(q url.Values) (int, string, error) {
		var page struct {
			Things    []Thing
			NextToken string
		}
		err := c.JSON(ctx, get("/things", q), nil, &page)
		all = append(all, page.Things...)
		return len(page.Things), page.NextToken, err
	})
	return all, err
}

// DescribeThing returns one thing.
func (c *Client) DescribeThing(ctx context.Context, name string) (Thing, error) {
	var out Thing
	err := c.JSON(ctx, get(Path("things", name), nil), nil, &out)
	return out, err
}

// CreateThing makes a thing; an equal one that exists is no error.
func (c *Client) CreateThing(ctx context.Context, name, typeName string, attributes map[string]string) (Thing, error) {
	in := map[string]any{}
	if typeName != "" {
		in["thingTypeName"] = typeName
	}
	if len(attributes) > 0 {
		in["attributePayload"] = map[string]any{"attributes": attributes}
	}
	var out Thing
	err := c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: Path("things", name)}, in, &out)
	return out, err
}

// DeleteThing removes a thing.
func (c *Client) DeleteThing(ctx context.Context, name string) error {
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodDelete, Path: Path("things", name)}, nil, nil)
}

// CreateThingType makes a type; one of the same name is no error.
func (c *Client) CreateThingType(ctx context.Context, name, description string, searchable []string) error {
	in := map[string]any{"thingTypeProperties": map[string]any{"thingTypeDescription": description, "searchableAttributes": searchable}}
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: Path("thing-types", name)}, in, nil)
}

// ListGroups returns groups, all of them or those right below a parent.
func (c *Client) ListGroups(ctx context.Context, parent string, limit int) ([]Group, error) {
	query := url.Values{}
	if parent != "" {
		query.Set("parentGroup", parent)
	}
	var all []Group
	err := pages(query, limit, func(q url.Values) (int, string, error) {
		var page struct {
			ThingGroups []Group
			NextToken   string
		}
		err := c.JSON(ctx, get("/thing-groups", q), nil, &page)
		all = append(all, page.ThingGroups...)
		return len(page.ThingGroups), page.NextToken, err
	})
	return all, err
}

// DescribeGroup returns one group, static or dynamic.
func (c *Client) DescribeGroup(ctx context.Context, name string) (GroupDetail, error) {
	var out GroupDetail
	err := c.JSON(ctx, get(Path("thing-groups", name), nil), nil, &out)
	return out, err
}

// GroupMembers returns the things of a group, with recursive also those of
// the groups below it.
func (c *Client) GroupMembers(ctx context.Context, name string, recursive bool, limit int) ([]string, error) {
	query := url.Values{}
	if recursive {
		query.Set("recursive", "true")
	}
	var all []string
	err := pages(query, limit, func(q url.Values) (int, string, error) {
		var page struct {
			Things    []string
			NextToken string
		}
		err := c.JSON(ctx, get(Path("thing-groups", name, "things"), q), nil, &page)
		all = append(all, page.Things...)
		return len(page.Things), page.NextToken, err
	})
	return all, err
}

// CreateGroup makes a static group below a parent, or a root for an empty one.
func (c *Client) CreateGroup(ctx context.Context, name, parent, description string) error {
	in := map[string]any{"thingGroupProperties": map[string]any{"thingGroupDescription": description}}
	if parent != "" {
		in["parentGroupName"] = parent
	}
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: Path("thing-groups", name)}, in, nil)
}

// CreateDynamicGroup makes a group whose members answer a query.
func (c *Client) CreateDynamicGroup(ctx context.Context, name, query, description string) error {
	in := map[string]any{"queryString": query, "thingGroupProperties": map[string]any{"thingGroupDescription": description}}
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: Path("dynamic-thing-groups", name)}, in, nil)
}

// AddToGroup puts a thing into a static group.
func (c *Client) AddToGroup(ctx context.Context, thing, group string) error {
	in := map[string]any{"thingName": thing, "thingGroupName": group}
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPut, Path: "/thing-groups/addThingToThingGroup"}, in, nil)
}

// ThingPrincipals returns the ARNs of the principals that act as a thing.
func (c *Client) ThingPrincipals(ctx context.Context, thing string) ([]string, error) {
	all := []string{}
	err := pages(nil, 0, func(q url.Values) (int, string, error) {
		var page struct {
			Principals []string `json:"principals"`
			NextToken  string   `json:"nextToken"`
		}
		err := c.JSON(ctx, get(Path("things", thing, "principals"), q), nil, &page)
		all = append(all, page.Principals...)
		return len(page.Principals), page.NextToken, err
	})
	return all, err
}
