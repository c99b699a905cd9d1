package apiclient

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// PastThing is a former life of a thing's name.
type PastThing struct {
	ThingName        string            `json:"thingName"`
	ThingID          string            `json:"thingId"`
	ThingTypeName    string            `json:"thingTypeName,omitempty"`
	Attributes       map[string]string `json:"attributes"`
	Version          int64             `json:"version"`
	ThingGroups      []string          `json:"thingGroups"`
	DynamicGroups    []string          `json:"dynamicGroups,omitempty"`
	Certificates     []PastCertificate `json:"certificates"`
	CreatedAt        string            `json:"createdAt"`
	DecommissionedAt string            `json:"decommissionedAt"`
	By               PastActor         `json:"by"`
	Reason           string            `json:"reason,omitempty"`
	// CompletedAt is empty while something may be left.
	CompletedAt string `json:"completedAt,omitempty"`
}

// PastCertificate is a certificate of a former life.
type PastCertificate struct {
	CertificateID string `json:"certificateId"`
	Revoked       bool   `json:"revoked"`
	Shared        bool   `json:"shared"`
}

// PastActor is who ended a life.
type PastActor struct {
	Principal struct {
		Kind string `json:"kind"`
		ID   string `json:"id,omitempty"`
		ARN  string `json:"arn,omitempty"`
	} `json:"principal"`
	SourceAddress string `json:"sourceAddress,omitempty"`
}

// Decommissioning says how a thing is to end.
type Decommissioning struct {
	// ThingID is the life that is meant; without one, whatever has the name.
	ThingID          string `json:"thingId,omitempty"`
	Reason           string `json:"reason,omitempty"`
	KeepCertificates bool   `json:"keepCertificates,omitempty"`
}

// Decommission takes a thing out of service and returns what it was.
func (c *Client) Decommission(ctx context.Context, thing string, how Decommissioning) (PastThing, error) {
	var past PastThing
	err := c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: Path("ops", "v1", "things", thing, "decommission")}, how, &past)
	return past, err
}

// PastThings returns up to limit former lives of a name, newest first; all for
// limit 0.
func (c *Client) PastThings(ctx context.Context, thing string, limit int) ([]PastThing, error) {
	all := []PastThing{}
	err := pages(url.Values{}, limit, func(query url.Values) (int, string, error) {
		var page struct {
			PastThings []PastThing `json:"pastThings"`
			NextToken  string      `json:"nextToken"`
		}
		err := c.JSON(ctx, get(Path("ops", "v1", "things", thing, "past"), query), nil, &page)
		all = append(all, page.PastThings...)
		return len(page.PastThings), page.NextToken, err
	})
	return all, err
}

// rulesPath is where the rules of a type are.
func rulesPath(typeName string, more ...string) string {
	return Path(append([]string{"ops", "v1", "thing-types", typeName, "attribute-rules"}, more...)...)
}

// AttributeRules returns the rules of a type as the server writes them.
func (c *Client) AttributeRules(ctx context.Context, typeName string) (json.RawMessage, error) {
	return c.Raw(ctx, get(rulesPath(typeName), nil))
}

// SetAttributeRules replaces the rules of a type.
func (c *Client) SetAttributeRules(ctx context.Context, typeName string, rules []byte) error {
	_, err := c.Raw(ctx, Request{Service: ServiceControl, Method: http.MethodPut, Path: rulesPath(typeName), Body: rules})
	return err
}

// RemoveAttributeRules ends the rules of a type.
func (c *Client) RemoveAttributeRules(ctx context.Context, typeName string) error {
	_, err := c.Raw(ctx, Request{Service: ServiceControl, Method: http.MethodDelete, Path: rulesPath(typeName)})
	return err
}

// BrokenRules are the rules that one thing breaks.
type BrokenRules struct {
	Thing      string `json:"thing"`
	Violations []struct {
		Attribute string `json:"attribute"`
		Rule      string `json:"rule"`
		Detail    string `json:"detail"`
	} `json:"violations"`
}

// CheckAttributeRules returns up to limit things of a type that break rules, all
// for limit 0: the given rules, or those in force when there are none.
func (c *Client) CheckAttributeRules(ctx context.Context, typeName string, rules []byte, limit int) ([]BrokenRules, error) {
	all := []BrokenRules{}
	err := pages(url.Values{}, limit, func(query url.Values) (int, string, error) {
		var page struct {
			Things    []BrokenRules `json:"things"`
			NextToken string        `json:"nextToken"`
		}
		request := get(rulesPath(typeName, "check"), query)
		request.Method, request.Body = http.MethodPost, rules
		err := c.JSON(ctx, request, nil, &page)
		all = append(all, page.Things...)
		return len(page.Things), page.NextToken, err
	})
	return all, err
}
