package apiclient

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// BulkOperation is what an edit by query does to each thing.
type BulkOperation struct {
	SetAttributes         map[string]string `json:"setAttributes,omitempty"`
	RemoveAttributes      []string          `json:"removeAttributes,omitempty"`
	SetThingType          string            `json:"setThingType,omitempty"`
	RemoveThingType       bool              `json:"removeThingType,omitempty"`
	AddToThingGroups      []string          `json:"addToThingGroups,omitempty"`
	RemoveFromThingGroups []string          `json:"removeFromThingGroups,omitempty"`
	SetBillingGroup       string            `json:"setBillingGroup,omitempty"`
	ClearBillingGroup     bool              `json:"clearBillingGroup,omitempty"`
	Shadow                *BulkShadow       `json:"shadow,omitempty"`
	Delete                *BulkDeletion     `json:"delete,omitempty"`
	Drift                 *BulkDrift        `json:"drift,omitempty"`
}

// BulkShadow is merged into a desired state.
type BulkShadow struct {
	Name    string          `json:"name,omitempty"`
	Desired json.RawMessage `json:"desired"`
}

// BulkDeletion ends things.
type BulkDeletion struct {
	Decommission     bool   `json:"decommission,omitempty"`
	KeepCertificates bool   `json:"keepCertificates,omitempty"`
	Reason           string `json:"reason,omitempty"`
}

// BulkPreview is what an edit would do.
type BulkPreview struct {
	Things            int           `json:"things"`
	Examined          int           `json:"examined"`
	Changes           int           `json:"changes"`
	Unchanged         int           `json:"unchanged"`
	Refused           int           `json:"refused"`
	Sample            []BulkChange  `json:"sample"`
	Refusals          []BulkFailure `json:"refusals"`
	ConfirmationToken string        `json:"confirmationToken"`
	ExpiresAt         string        `json:"expiresAt"`
}

// BulkChange is what a thing was and is.
type BulkChange struct {
	ThingName string    `json:"thingName"`
	At        string    `json:"at,omitempty"`
	Before    BulkImage `json:"before"`
	After     BulkImage `json:"after"`
	Pending   bool      `json:"pending,omitempty"`
}

// BulkImage is what an edit touches of a thing.
type BulkImage struct {
	ThingID          string             `json:"thingId,omitempty"`
	ThingTypeName    *string            `json:"thingTypeName,omitempty"`
	BillingGroupName *string            `json:"billingGroupName,omitempty"`
	Attributes       map[string]*string `json:"attributes,omitempty"`
	ThingGroups      map[string]bool    `json:"thingGroups,omitempty"`
	Desired          json.RawMessage    `json:"desired,omitempty"`
	Drift            []DriftDifference  `json:"drift,omitempty"`
	Thing            *BulkThing         `json:"thing,omitempty"`
}

// BulkThing is a whole thing.
type BulkThing struct {
	ThingTypeName    string            `json:"thingTypeName,omitempty"`
	Attributes       map[string]string `json:"attributes,omitempty"`
	BillingGroupName string            `json:"billingGroupName,omitempty"`
	ThingGroups      []string          `json:"thingGroups,omitempty"`
	Version          int64             `json:"version"`
}

// BulkFailure is why a thing was not changed.
type BulkFailure struct {
	ThingName string `json:"thingName"`
	At        string `json:"at,omitempty"`
	Code      string `json:"code"`
	Message   string `json:"message"`
	Conflict  bool   `json:"conflict,omitempty"`
}

// BulkEdit is one edit.
type BulkEdit struct {
	BulkEditID  string        `json:"bulkEditId"`
	Status      string        `json:"status"`
	QueryString string        `json:"queryString"`
	Operation   BulkOperation `json:"operation"`
	UndoOf      string        `json:"undoOf,omitempty"`
	UndoneBy    string        `json:"undoneBy,omitempty"`
	StartedBy   struct {
		Kind string `json:"kind"`
		ID   string `json:"id,omitempty"`
		ARN  string `json:"arn,omitempty"`
	} `json:"startedBy"`
	CreatedAt       string  `json:"createdAt"`
	FinishedAt      string  `json:"finishedAt,omitempty"`
	Things          int     `json:"things"`
	Changed         int     `json:"changed"`
	Unchanged       int     `json:"unchanged"`
	Failed          int     `json:"failed"`
	Conflicts       int     `json:"conflicts"`
	Remaining       int     `json:"remaining"`
	ThingsPerSecond int     `json:"thingsPerSecond"`
	Rate            float64 `json:"rate"`
	Reason          string  `json:"reason,omitempty"`
}

// bulkPath is where edits are.
func bulkPath(more ...string) string {
	return Path(append([]string{"ops", "v1", "bulk-edits"}, more...)...)
}

// PreviewBulkEdit asks what an edit would do.
func (c *Client) PreviewBulkEdit(ctx context.Context, query string, o BulkOperation) (BulkPreview, error) {
	var out BulkPreview
	in := map[string]any{"queryString": query, "operation": o}
	err := c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: bulkPath("preview")}, in, &out)
	return out, err
}

// StartBulkEdit begins what a preview has shown; perSecond 0 is the server's pace.
func (c *Client) StartBulkEdit(ctx context.Context, query string, o BulkOperation, token string, perSecond int) (BulkEdit, error) {
	var out BulkEdit
	in := map[string]any{"queryString": query, "operation": o, "confirmationToken": token}
	if perSecond != 0 {
		in["thingsPerSecond"] = perSecond
	}
	err := c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: bulkPath()}, in, &out)
	return out, err
}

// UndoBulkEdit begins an edit that takes another back.
func (c *Client) UndoBulkEdit(ctx context.Context, id string, perSecond int) (BulkEdit, error) {
	var out BulkEdit
	in := map[string]any{}
	if perSecond != 0 {
		in["thingsPerSecond"] = perSecond
	}
	err := c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: bulkPath(id, "undo")}, in, &out)
	return out, err
}

// ControlBulkEdit does pause, resume or cancel.
func (c *Client) ControlBulkEdit(ctx context.Context, id, verb string) (BulkEdit, error) {
	var out BulkEdit
	err := c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPost, Path: bulkPath(id, verb)}, nil, &out)
	return out, err
}

// DescribeBulkEdit returns one edit.
func (c *Client) DescribeBulkEdit(ctx context.Context, id string) (BulkEdit, error) {
	var out BulkEdit
	err := c.JSON(ctx, get(bulkPath(id), nil), nil, &out)
	return out, err
}

// BulkEdits returns up to limit edits, newest first; all for limit 0.
func (c *Client) BulkEdits(ctx context.Context, limit int) ([]BulkEdit, error) {
	all := []BulkEdit{}
	err := pages(url.Values{}, limit, func(query url.Values) (int, string, error) {
		var page struct {
			BulkEdits []BulkEdit `json:"bulkEdits"`
			NextToken string     `json:"nextToken"`
		}
		err := c.JSON(ctx, get(bulkPath(), query), nil, &page)
		all = append(all, page.BulkEdits...)
		return len(page.BulkEdits), page.NextToken, err
	})
	return all, err
}

// BulkEditChanges returns up to limit changes of an edit; all for limit 0.
func (c *Client) BulkEditChanges(ctx context.Context, id string, limit int) ([]BulkChange, error) {
	all := []BulkChange{}
	err := pages(url.Values{}, limit, func(query url.Values) (int, string, error) {
		var page struct {
			Changes   []BulkChange `json:"changes"`
			NextToken string       `json:"nextToken"`
		}
		err := c.JSON(ctx, get(bulkPath(id, "changes"), query), nil, &page)
		all = append(all, page.Changes...)
		return len(page.Changes), page.NextToken, err
	})
	return all, err
}

// BulkEditFailures returns up to limit things that an edit has not changed; all
// for limit 0.
func (c *Client) BulkEditFailures(ctx context.Context, id string, limit int) ([]BulkFailure, error) {
	all := []BulkFailure{}
	err := pages(url.Values{}, limit, func(query url.Values) (int, string, error) {
		var page struct {
			Failures  []BulkFailure `json:"failures"`
			NextToken string        `json:"nextToken"`
		}
		err := c.JSON(ctx, get(bulkPath(id, "failures"), query), nil, &page)
		all = append(all, page.Failures...)
		return len(page.Failures), page.NextToken, err
	})
	return all, err
}
