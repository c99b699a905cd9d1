package adminapi

import (
	"context"
	"net/http"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/membership"
)

// Actions about memberships, on resource "*".
const (
	// ActionGetMembershipHistory is for who was in a group and which groups a
	// thing was in.
	ActionGetMembershipHistory = "ops:GetMembershipHistory"
	// ActionGetMembershipReason is for why a thing is in a group or not.
	ActionGetMembershipReason = "ops:GetMembershipReason"
)

// Memberships answers who was in which group.
type Memberships interface {
	OfGroup(ctx context.Context, account fleet.Account, group string, q membership.Query) (membership.Page, error)
	OfThing(ctx context.Context, account fleet.Account, thing string, q membership.Query) (membership.Page, error)
	CompleteSince(ctx context.Context, account fleet.Account) (time.Time, error)
}

// MembershipReason is what there is to say about a thing and a group.
type MembershipReason struct {
	Group, Thing string
	Dynamic      bool
	// Member says what is recorded.
	Member bool
	// Entry is the membership's begin; nil when there is none or it is not known.
	Entry *membership.Entry
	// Explanation is the index's word on a dynamic group; nil for a static one.
	Explanation *index.Explanation
}

// causeOutput is why a membership began or ended. Times are RFC 3339 in UTC with
// milliseconds.
type causeOutput struct {
	Kind      string       `json:"kind"`
	By        *fleet.Actor `json:"by,omitempty"`
	Field     string       `json:"field,omitempty"`
	Predicate string       `json:"predicate,omitempty"`
	Value     string       `json:"value,omitempty"`
	// Position is the event of the log that it follows from, At its time.
	Position uint64 `json:"position,omitempty"`
	At       string `json:"at,omitempty"`
}

// membershipOutput is one membership.
type membershipOutput struct {
	GroupName string `json:"groupName"`
	ThingName string `json:"thingName"`
	Dynamic   bool   `json:"dynamic"`
	// JoinedAt is absent where no begin is known, LeftAt while it lasts.
	JoinedAt string       `json:"joinedAt,omitempty"`
	LeftAt   string       `json:"leftAt,omitempty"`
	Joined   *causeOutput `json:"joined,omitempty"`
	Left     *causeOutput `json:"left,omitempty"`
}

// membershipsOutput is a page of memberships, those that began last first.
type membershipsOutput struct {
	Memberships []membershipOutput `json:"memberships"`
	// CompleteSince is the time from which on the history has everything; absent
	// when it always had.
	CompleteSince string `json:"completeSince,omitempty"`
	NextToken     string `json:"nextToken,omitempty"`
}

// partOutput is a part of a dynamic group's query, decided for the thing.
type partOutput struct {
	Kind  string        `json:"kind"`
	Parts []*partOutput `json:"parts,omitempty"`
	// Predicate is the part in words, Field what it looks at.
	Predicate string        `json:"predicate,omitempty"`
	Field     string        `json:"field,omitempty"`
	Holds     bool          `json:"holds"`
	Values    []valueOutput `json:"values,omitempty"`
	// WouldChange marks the parts that would have to be the opposite for the
	// thing to be on the other side of the query.
	WouldChange bool `json:"wouldChange,omitempty"`
}

// valueOutput is what the thing has at a field.
type valueOutput struct {
	Field  string   `json:"field"`
	Values []string `json:"values"`
	// Since is absent where nobody recorded when the value came to be.
	Since string `json:"since,omitempty"`
}

// refusalOutput says who has the places of a thing that fits.
type refusalOutput struct {
	MaxGroupsPerThing int      `json:"maxGroupsPerThing"`
	StaticGroups      []string `json:"staticGroups"`
	ElderGroups       []string `json:"elderGroups"`
}

// reasonOutput is why a thing is in a group or not.
type reasonOutput struct {
	GroupName string `json:"groupName"`
	ThingName string `json:"thingName"`
	Dynamic   bool   `json:"dynamic"`
	Member    bool   `json:"member"`
	// JoinedAt and Joined are absent for who is no member.
	JoinedAt string       `json:"joinedAt,omitempty"`
	Joined   *causeOutput `json:"joined,omitempty"`
	// The rest is for dynamic groups.
	QueryString string `json:"queryString,omitempty"`
	Status      string `json:"status,omitempty"`
	// Matches says whether the thing meets the query just now; a moment later
	// Member follows.
	Matches    *bool          `json:"matches,omitempty"`
	Evaluation *partOutput    `json:"evaluation,omitempty"`
	Refused    *refusalOutput `json:"refused,omitempty"`
}

// handleMemberships adds the operations about memberships.
func (h *handler) handleMemberships(mux *routes) {
	mux.HandleFunc("GET "+Prefix+"groups/{group}/history", h.memberships("group", Memberships.OfGroup))
	mux.HandleFunc("GET "+Prefix+"things/{thing}/group-history", h.memberships("thing", Memberships.OfThing))
	mux.HandleFunc("GET "+Prefix+"groups/{group}/things/{thing}/why", h.read(ActionGetMembershipReason, h.why))
}

// memberships lists those of one group or thing.
func (h *handler) memberships(
	subject string, find func(Memberships, context.Context, fleet.Account, string, membership.Query) (membership.Page, error),
) http.HandlerFunc {
	return h.read(ActionGetMembershipHistory, func(ctx context.Context, r *http.Request) (any, error) {
		name := r.PathValue(subject)
		l, err := h.openList(ctx, r, "ops.memberships."+subject, name, "from", "to", "at")
		if err != nil {
			return nil, err
		}
		since, err := h.o.Memberships.CompleteSince(ctx, l.account)
		if err != nil {
			return nil, err //nolint:wrapcheck // coded, or internal
		}
		q, err := l.membershipQuery(since)
		if err != nil {
			return nil, err
		}
		found, err := find(h.o.Memberships, ctx, l.account, name, q)
		if err != nil {
			return nil, err
		}
		out := membershipsOutput{Memberships: make([]membershipOutput, len(found.Entries)), CompleteSince: stamp(since)}
		for i := range found.Entries {
			out.Memberships[i] = membershipOf(&found.Entries[i])
		}
		if found.Next != "" {
			out.NextToken = h.o.Tokens.Seal(l.account, l.operation, l.filter, found.Next, h.o.Now())
		}
		return out, nil
	})
}

// membershipQuery reads the time that a list is about. A moment has to be one
// that the history knows everything of.
func (l *list) membershipQuery(since time.Time) (q membership.Query, err error) {
	if q.From, err = l.time("from"); err != nil {
		return q, err
	}
	if q.To, err = l.time("to"); err != nil {
		return q, err
	}
	if l.values.Has("at") {
		if l.values.Has("from") || l.values.Has("to") {
			return q, fault.New(fault.InvalidRequest, "at: is one moment, it takes no from and to")
		}
		at, err := l.time("at")
		if err != nil {
			return q, err
		}
		if at.Before(since) {
			return q, fault.New(fault.InvalidRequest, "at: the history is complete since %s only", stamp(since))
		}
		q = membership.At(at)
	}
	q.After, q.Limit = l.after, l.limit
	return q, nil
}

// membershipOf encodes an entry.
func membershipOf(e *membership.Entry) membershipOutput {
	return membershipOutput{
		GroupName: e.Group, ThingName: e.Thing, Dynamic: e.Dynamic, JoinedAt: stamp(e.Began), LeftAt: stamp(e.Ended),
		Joined: causeOf(e.Joined), Left: causeOf(e.Left),
	}
}

// causeOf encodes a cause.
func causeOf(c *membership.Cause) *causeOutput {
	if c == nil {
		return nil
	}
	out := &causeOutput{Kind: c.Kind, By: c.Actor, Field: c.Field, Predicate: c.Predicate, Value: c.Value, Position: c.Seq}
	if c.SourceAt != 0 {
		out.At = stamp(time.UnixMilli(c.SourceAt))
	}
	return out
}

// why tells why a thing is in a group or not.
func (h *handler) why(ctx context.Context, r *http.Request) (any, error) {
	for name := range r.URL.Query() {
		return nil, fault.New(fault.InvalidRequest, "%s: is no parameter of this operation", name)
	}
	found, err := h.o.WhyMember(ctx, h.o.Account(ctx), r.PathValue("group"), r.PathValue("thing"))
	if err != nil {
		return nil, err
	}
	out := reasonOutput{GroupName: found.Group, ThingName: found.Thing, Dynamic: found.Dynamic, Member: found.Member}
	if found.Entry != nil {
		out.JoinedAt, out.Joined = stamp(found.Entry.Began), causeOf(found.Entry.Joined)
	}
	if e := found.Explanation; e != nil {
		out.QueryString, out.Status, out.Evaluation = e.Query, string(e.Status), partOf(e.Root)
		if e.Root != nil {
			out.Matches = &e.Fits
		}
		if e.Fits && !e.Member && e.Limit > 0 {
			out.Refused = &refusalOutput{
				MaxGroupsPerThing: e.Limit, StaticGroups: append([]string{}, e.Static...), ElderGroups: append([]string{}, e.Elder...),
			}
		}
	}
	return out, nil
}

// partOf encodes a part of a query.
func partOf(p *index.Part) *partOutput {
	if p == nil {
		return nil
	}
	out := &partOutput{Kind: p.Kind, Predicate: p.Text, Field: p.Field, Holds: p.Holds, WouldChange: p.Change}
	for _, kid := range p.Parts {
		out.Parts = append(out.Parts, partOf(kid))
	}
	for _, v := range p.Values {
		out.Values = append(out.Values, valueOutput{Field: v.Field, Values: v.Values, Since: stamp(v.Since)})
	}
	return out
}
