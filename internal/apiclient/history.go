package apiclient

import (
	"context"
	"net/url"
	"time"
)

// Connection is an entry of the connection history. Times are RFC 3339.
type Connection struct {
	// Status is CONNECTED, ENDED or REFUSED.
	Status         string `json:"status"`
	ClientID       string `json:"clientId"`
	Thing          string `json:"thing,omitempty"`
	ConnectedAt    string `json:"connectedAt,omitempty"`
	DisconnectedAt string `json:"disconnectedAt,omitempty"`
	RefusedAt      string `json:"refusedAt,omitempty"`
	DurationMS     *int64 `json:"durationMs,omitempty"`
	Reason         string `json:"reason,omitempty"`
	RemoteAddress  string `json:"remoteAddress,omitempty"`
	LocalAddress   string `json:"localAddress,omitempty"`
	Protocol       string `json:"protocol,omitempty"`
	Transport      string `json:"transport,omitempty"`
	Principal      string `json:"principal,omitempty"`
	PrincipalKind  string `json:"principalKind,omitempty"`
	SessionID      string `json:"sessionId,omitempty"`
	ConnectionID   string `json:"connectionId,omitempty"`
	Version        *int64 `json:"version,omitempty"`
	KeepAlive      *int   `json:"keepAlive,omitempty"`
	CleanSession   *bool  `json:"cleanSession,omitempty"`
	SessionExpiry  *int64 `json:"sessionExpiry,omitempty"`
}

// FleetConnections is who was connected at a moment.
type FleetConnections struct {
	At string `json:"at"`
	// Count is how many there were, also when fewer were fetched.
	Count       int          `json:"count"`
	Connections []Connection `json:"connections"`
}

// Span bounds a history in time; a zero time is no bound.
type Span struct{ From, To time.Time }

// query is the span as parameters.
func (s Span) query() url.Values {
	query := url.Values{}
	if !s.From.IsZero() {
		query.Set("from", s.From.UTC().Format(time.RFC3339Nano))
	}
	if !s.To.IsZero() {
		query.Set("to", s.To.UTC().Format(time.RFC3339Nano))
	}
	return query
}

// ThingConnections returns up to limit of a thing's connections, newest first;
// all for limit 0.
func (c *Client) ThingConnections(ctx context.Context, thing string, span Span, limit int) ([]Connection, error) {
	found, err := c.connections(ctx, Path("ops", "v1", "things", thing, "connections"), span.query(), limit)
	return found.Connections, err
}

// ClientConnections is ThingConnections for a client id.
func (c *Client) ClientConnections(ctx context.Context, clientID string, span Span, limit int) ([]Connection, error) {
	found, err := c.connections(ctx, Path("ops", "v1", "connections", clientID, "history"), span.query(), limit)
	return found.Connections, err
}

// FleetConnections returns who was connected at a moment, up to limit of them;
// all for limit 0.
func (c *Client) FleetConnections(ctx context.Context, at time.Time, limit int) (FleetConnections, error) {
	return c.connections(ctx, Path("ops", "v1", "fleet", "connections"), url.Values{"at": {at.UTC().Format(time.RFC3339Nano)}}, limit)
}

// connections walks a list.
func (c *Client) connections(ctx context.Context, path string, query url.Values, limit int) (FleetConnections, error) {
	all := FleetConnections{Connections: []Connection{}}
	err := pages(query, limit, func(query url.Values) (int, string, error) {
		var page struct {
			FleetConnections

			NextToken string `json:"nextToken"`
		}
		err := c.JSON(ctx, get(path, query), nil, &page)
		if all.At == "" {
			all.At, all.Count = page.At, page.Count
		}
		all.Connections = append(all.Connections, page.Connections...)
		return len(page.Connections), page.NextToken, err
	})
	return all, err
}
