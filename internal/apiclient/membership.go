package apiclient

import (
	"context"
	"net/url"
	"time"
)

// MembershipCause is why a thing came into a group or left it.
type MembershipCause struct {
	// Kind is REQUEST, VALUE, QUERY, THING, GROUP, LIMIT or UNKNOWN.
	Kind string `json:"kind"`
	// By is who asked for it; nil where nobody did.
	By *PastActor `json:"by,omitempty"`
	// Field, Predicate and Value are what changed, for VALUE.
	Field     string `json:"field,omitempty"`
	Predicate string `json:"predicate,omitempty"`
	Value     string `json:"value,omitempty"`
	Position  uint64 `json:"position,omitempty"`
	At        string `json:"at,omitempty"`
}

// Membership is a thing's time in a group. Times are RFC 3339.
type Membership struct {
	GroupName string           `json:"groupName"`
	ThingName string           `json:"thingName"`
	Dynamic   bool             `json:"dynamic"`
	JoinedAt  string           `json:"joinedAt,omitempty"`
	LeftAt    string           `json:"leftAt,omitempty"`
	Joined    *MembershipCause `json:"joined,omitempty"`
	Left      *MembershipCause `json:"left,omitempty"`
}

// MembershipSpan bounds a history of memberships: by a span, or by one moment.
type MembershipSpan struct {
	Span

	At time.Time
}

// GroupHistory returns up to limit of a group's memberships, those that began
// last first; all for limit 0.
func (c *Client) GroupHistory(ctx context.Context, group string, span MembershipSpan, limit int) ([]Membership, error) {
	return c.memberships(ctx, Path("ops", "v1", "groups", group, "history"), span, limit)
}

// ThingGroupHistory is GroupHistory for the groups of a thing.
func (c *Client) ThingGroupHistory(ctx context.Context, thing string, span MembershipSpan, limit int) ([]Membership, error) {
	return c.memberships(ctx, Path("ops", "v1", "things", thing, "group-history"), span, limit)
}

// memberships walks a list.
func (c *Client) memberships(ctx context.Context, path string, span MembershipSpan, limit int) ([]Membership, error) {
	query := span.query()
	if !span.At.IsZero() {
		query.Set("at", span.At.UTC().Format(time.RFC3339Nano))
	}
	all := []Membership{}
	err := pages(query, limit, func(query url.Values) (int, string, error) {
		var page struct {
			Memberships []Membership `json:"memberships"`
			NextToken   string       `json:"nextToken"`
		}
		err := c.JSON(ctx, get(path, query), nil, &page)
		all = append(all, page.Memberships...)
		return len(page.Memberships), page.NextToken, err
	})
	return all, err
}

// ThingGroups returns up to limit of the groups that a thing is in; all for
// limit 0.
func (c *Client) ThingGroups(ctx context.Context, thing string, limit int) ([]Group, error) {
	all := []Group{}
	err := pages(url.Values{}, limit, func(query url.Values) (int, string, error) {
		var page struct {
			ThingGroups []Group
			NextToken   string
		}
		err := c.JSON(ctx, get(Path("things", thing, "thing-groups"), query), nil, &page)
		all = append(all, page.ThingGroups...)
		return len(page.ThingGroups), page.NextToken, err
	})
	return all, err
}

// QueryPart is a part of a group's query, decided for a thing.
type QueryPart struct {
	// Kind is AND, OR, NOT or TEST.
	Kind      string       `json:"kind"`
	Parts     []*QueryPart `json:"parts,omitempty"`
	Predicate string       `json:"predicate,omitempty"`
	Field     string       `json:"field,omitempty"`
	Holds     bool         `json:"holds"`
	Values    []struct {
		Field  string   `json:"field"`
		Values []string `json:"values"`
		Since  string   `json:"since,omitempty"`
	} `json:"values,omitempty"`
	// WouldChange marks what would have to be the opposite.
	WouldChange bool `json:"wouldChange,omitempty"`
}

// MembershipReason is why a thing is in a group or not.
type MembershipReason struct {
	GroupName   string           `json:"groupName"`
	ThingName   string           `json:"thingName"`
	Dynamic     bool             `json:"dynamic"`
	Member      bool             `json:"member"`
	JoinedAt    string           `json:"joinedAt,omitempty"`
	Joined      *MembershipCause `json:"joined,omitempty"`
	QueryString string           `json:"queryString,omitempty"`
	Status      string           `json:"status,omitempty"`
	Matches     *bool            `json:"matches,omitempty"`
	Evaluation  *QueryPart       `json:"evaluation,omitempty"`
	// Refused is set for a thing that meets the query and is in too many groups.
	Refused *struct {
		MaxGroupsPerThing int      `json:"maxGroupsPerThing"`
		StaticGroups      []string `json:"staticGroups"`
		ElderGroups       []string `json:"elderGroups"`
	} `json:"refused,omitempty"`
}

// WhyMember asks why a thing is in a group or not.
func (c *Client) WhyMember(ctx context.Context, group, thing string) (MembershipReason, error) {
	var reason MembershipReason
	err := c.JSON(ctx, get(Path("ops", "v1", "groups", group, "things", thing, "why"), nil), nil, &reason)
	return reason, err
}
