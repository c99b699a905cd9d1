package apiclient

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
)

// ShadowVersion is one change of a shadow. Times are RFC 3339.
type ShadowVersion struct {
	Version int64 `json:"version"`
	// Change is UPDATED, RESTORED or DELETED.
	Change          string          `json:"change"`
	At              string          `json:"at"`
	By              ShadowAuthor    `json:"by"`
	Patch           json.RawMessage `json:"patch,omitempty"`
	HasDelta        *bool           `json:"hasDelta,omitempty"`
	RestoredVersion int64           `json:"restoredVersion,omitempty"`
}

// ShadowAuthor is who made a version.
type ShadowAuthor struct {
	PastActor

	AccessKeyID string `json:"accessKeyId,omitempty"`
	RequestID   string `json:"requestId,omitempty"`
	ClientID    string `json:"clientId,omitempty"`
	Trace       string `json:"trace,omitempty"`
}

// ShadowHistory is a shadow's versions, newest first.
type ShadowHistory struct {
	Versions []ShadowVersion `json:"versions"`
	// Truncated says that there were earlier ones, Behind that the newest may be
	// missing still.
	Truncated bool `json:"truncated,omitempty"`
	Behind    bool `json:"behind,omitempty"`
}

// ShadowDifference is a value that two versions do not have alike.
type ShadowDifference struct {
	Path   string          `json:"path"`
	Change string          `json:"change"`
	Old    json.RawMessage `json:"old,omitempty"`
	New    json.RawMessage `json:"new,omitempty"`
}

// ShadowDiff is what changed between two versions.
type ShadowDiff struct {
	From        int64              `json:"from"`
	To          int64              `json:"to"`
	Differences []ShadowDifference `json:"differences"`
}

// ShadowAt is a shadow as it was.
type ShadowAt struct {
	Version  int64           `json:"version"`
	Made     *ShadowVersion  `json:"made,omitempty"`
	Document json.RawMessage `json:"document"`
}

// RestoreShadow says what to restore.
type RestoreShadow struct {
	Version       int64  `json:"version"`
	ExpectVersion *int64 `json:"expectVersion,omitempty"`
	DesiredOnly   bool   `json:"desiredOnly,omitempty"`
}

// RestoredShadow is the version that a restore made.
type RestoredShadow struct {
	Version         int64           `json:"version"`
	RestoredVersion int64           `json:"restoredVersion"`
	Accepted        json.RawMessage `json:"accepted"`
}

// Drift is a shadow whose reported state is not the desired one.
type Drift struct {
	ThingName  string      `json:"thingName"`
	ShadowName string      `json:"shadowName,omitempty"`
	Version    int64       `json:"version"`
	Since      string      `json:"since"`
	AgeSeconds int64       `json:"ageSeconds"`
	Leaves     []DriftLeaf `json:"leaves"`
}

// DriftLeaf is one outstanding value.
type DriftLeaf struct {
	Path       string          `json:"path"`
	Desired    json.RawMessage `json:"desired"`
	Reported   json.RawMessage `json:"reported,omitempty"`
	Since      string          `json:"since,omitempty"`
	AgeSeconds *int64          `json:"ageSeconds,omitempty"`
}

// Drifts are shadows that differ, oldest first.
type Drifts struct {
	Shadows    []Drift `json:"shadows"`
	Incomplete bool    `json:"incomplete,omitempty"`
}

// shadowPath is where the past of a shadow is, the classic one without a name.
func shadowPath(thing, shadow string, rest ...string) string {
	if shadow == "" {
		shadow = ".classic"
	}
	return Path(append([]string{"ops", "v1", "things", thing, "shadows", shadow}, rest...)...)
}

// ShadowHistory returns up to limit versions of a shadow; all for limit 0.
func (c *Client) ShadowHistory(ctx context.Context, thing, shadow string, span Span, limit int) (ShadowHistory, error) {
	all := ShadowHistory{Versions: []ShadowVersion{}}
	err := pages(span.query(), limit, func(query url.Values) (int, string, error) {
		var page struct {
			ShadowHistory

			NextToken string `json:"nextToken"`
		}
		err := c.JSON(ctx, get(shadowPath(thing, shadow, "history"), query), nil, &page)
		all.Versions = append(all.Versions, page.Versions...)
		all.Truncated, all.Behind = page.Truncated, all.Behind || page.Behind
		return len(page.Versions), page.NextToken, err
	})
	return all, err
}

// ShadowAt returns a shadow at a version.
func (c *Client) ShadowAt(ctx context.Context, thing, shadow string, version int64) (ShadowAt, error) {
	var out ShadowAt
	return out, c.JSON(ctx, get(shadowPath(thing, shadow, "versions", strconv.FormatInt(version, 10)), nil), nil, &out)
}

// ShadowDiff compares two versions; without to the newest, without from the one
// before.
func (c *Client) ShadowDiff(ctx context.Context, thing, shadow string, from, to *int64) (ShadowDiff, error) {
	query := url.Values{}
	for name, version := range map[string]*int64{"from": from, "to": to} {
		if version != nil {
			query.Set(name, strconv.FormatInt(*version, 10))
		}
	}
	var out ShadowDiff
	return out, c.JSON(ctx, get(shadowPath(thing, shadow, "diff"), query), nil, &out)
}

// RestoreShadow makes a new version with the state of an earlier one.
func (c *Client) RestoreShadow(ctx context.Context, thing, shadow string, in RestoreShadow) (RestoredShadow, error) {
	var out RestoredShadow
	request := Request{Service: ServiceControl, Method: http.MethodPost, Path: shadowPath(thing, shadow, "restore")}
	return out, c.JSON(ctx, request, in, &out)
}

// DriftFilter narrows the report; empty members do not.
type DriftFilter struct {
	Thing, Query, OlderThan string
}

// ShadowDrift returns up to limit shadows that differ; all for limit 0.
func (c *Client) ShadowDrift(ctx context.Context, filter DriftFilter, limit int) (Drifts, error) {
	query := url.Values{}
	for name, value := range map[string]string{"thing": filter.Thing, "query": filter.Query, "olderThan": filter.OlderThan} {
		if value != "" {
			query.Set(name, value)
		}
	}
	all := Drifts{Shadows: []Drift{}}
	err := pages(query, limit, func(query url.Values) (int, string, error) {
		var page struct {
			Drifts

			NextToken string `json:"nextToken"`
		}
		err := c.JSON(ctx, get(Path("ops", "v1", "shadows", "drift"), query), nil, &page)
		all.Shadows = append(all.Shadows, page.Shadows...)
		all.Incomplete = all.Incomplete || page.Incomplete
		return len(page.Shadows), page.NextToken, err
	})
	return all, err
}
