package apiclient

import (
	"context"
	"net/http"
	"net/url"
)

// ThingConnectivity is what state a thing has settled to. Times are RFC 3339 in UTC.
type ThingConnectivity struct {
	ThingName         string                `json:"thingName"`
	State             string                `json:"state"`
	StateVersion      int64                 `json:"stateVersion"`
	Since             string                `json:"since,omitempty"`
	SettledAt         string                `json:"settledAt,omitempty"`
	Connected         bool                  `json:"connected"`
	ClientID          string                `json:"clientId,omitempty"`
	SessionID         string                `json:"sessionId,omitempty"`
	ConnectionVersion int64                 `json:"connectionVersion"`
	DisconnectReason  string                `json:"disconnectReason,omitempty"`
	KeepAliveSeconds  float64               `json:"keepAliveSeconds,omitempty"`
	LastSeen          string                `json:"lastSeen,omitempty"`
	NoHello           bool                  `json:"noHello"`
	Flapping          bool                  `json:"flapping"`
	FlapScore         float64               `json:"flapScore"`
	Blips             int64                 `json:"blips"`
	Outages           int64                 `json:"outages"`
	CurrentOutageMS   *int64                `json:"currentOutageMs,omitempty"`
	LastOutageMS      int64                 `json:"lastOutageMs"`
	TotalOutageMS     int64                 `json:"totalOutageMs"`
	LastGapMS         int64                 `json:"lastGapMs"`
	HeartbeatSeconds  float64               `json:"heartbeatSeconds,omitempty"`
	NextContact       string                `json:"nextContact,omitempty"`
	Timers            ConnectivityTimers    `json:"timers"`
	Gateway           *ConnectivityGateway  `json:"gateway,omitempty"`
	Children          int                   `json:"children"`
	Latency           *ConnectivityLatency  `json:"latency,omitempty"`
	Settings          SettingsInForce       `json:"settings"`
	Recent            []ConnectivityChanged `json:"recent"`
}

// ConnectivityTimers are when the state changes if nothing happens, and when
// flapping ends at the earliest; empty for never.
type ConnectivityTimers struct {
	State    string `json:"state,omitempty"`
	Flapping string `json:"flapping,omitempty"`
}

// ConnectivityGateway is the thing that speaks for another one.
type ConnectivityGateway struct {
	ThingName string `json:"thingName"`
	// Assigned says that an operator named it.
	Assigned bool `json:"assigned"`
}

// ConnectivityLatency sums up round trips, in milliseconds.
type ConnectivityLatency struct {
	LastMS     float64 `json:"lastMs"`
	MeanMS     float64 `json:"meanMs"`
	MaxMS      float64 `json:"maxMs"`
	Samples    int     `json:"samples"`
	MeasuredAt string  `json:"measuredAt"`
}

// ConnectivitySettings say how things are watched; nil is not said.
type ConnectivitySettings struct {
	WaitSeconds       *float64 `json:"waitSeconds,omitempty"`
	WaitCleanSeconds  *float64 `json:"waitCleanSeconds,omitempty"`
	HelloSeconds      *float64 `json:"helloSeconds,omitempty"`
	StaleSeconds      *float64 `json:"staleSeconds,omitempty"`
	SleepGraceSeconds *float64 `json:"sleepGraceSeconds,omitempty"`
	FlapSuppress      *float64 `json:"flapSuppress,omitempty"`
	FlapRelease       *float64 `json:"flapRelease,omitempty"`
	Alert             *bool    `json:"alert,omitempty"`
}

// SettingsInForce are settings with what set each of them.
type SettingsInForce struct {
	ConnectivitySettings

	From map[string]string `json:"from"`
}

// GroupConnectivitySettings are those of one group.
type GroupConnectivitySettings struct {
	Group string `json:"group"`
	ConnectivitySettings
}

// AllConnectivitySettings are those of an account and of its groups.
type AllConnectivitySettings struct {
	Default *ConnectivitySettings       `json:"default"`
	Groups  []GroupConnectivitySettings `json:"groups"`
}

// ConnectivityChanged is one settled change.
type ConnectivityChanged struct {
	StateVersion     int64  `json:"stateVersion"`
	From             string `json:"from"`
	To               string `json:"to"`
	Since            string `json:"since"`
	At               string `json:"at"`
	DisconnectReason string `json:"disconnectReason,omitempty"`
	WaitMS           int64  `json:"waitMs,omitempty"`
	OutageMS         int64  `json:"outageMs,omitempty"`
	Alert            bool   `json:"alert"`
}

// ConnectivitySummary counts things by state.
type ConnectivitySummary struct {
	Things   int            `json:"things"`
	States   map[string]int `json:"states"`
	Flapping int            `json:"flapping"`
}

// Connectivity returns what state a thing has settled to.
func (c *Client) Connectivity(ctx context.Context, thing string) (ThingConnectivity, error) {
	var out ThingConnectivity
	err := c.JSON(ctx, get(Path("ops", "v1", "things", thing, "connectivity"), nil), nil, &out)
	return out, err
}

// ConnectivitySummary counts the account's things by state.
func (c *Client) ConnectivitySummary(ctx context.Context) (ConnectivitySummary, error) {
	var out ConnectivitySummary
	err := c.JSON(ctx, get(Path("ops", "v1", "connectivity", "summary"), nil), nil, &out)
	return out, err
}

// ConnectivitySettings returns all settings of the account, those of up to limit
// groups; all for limit 0.
func (c *Client) ConnectivitySettings(ctx context.Context, limit int) (AllConnectivitySettings, error) {
	all := AllConnectivitySettings{Groups: []GroupConnectivitySettings{}}
	err := pages(nil, limit, func(query url.Values) (int, string, error) {
		var page struct {
			AllConnectivitySettings

			NextToken string `json:"nextToken"`
		}
		err := c.JSON(ctx, get(settingsPath(""), query), nil, &page)
		all.Default = page.Default
		all.Groups = append(all.Groups, page.Groups...)
		return len(page.Groups), page.NextToken, err
	})
	return all, err
}

// settingsPath is that of a group's settings, or of the account's own.
func settingsPath(group string) string {
	if group == "" {
		return Path("ops", "v1", "connectivity", "settings")
	}
	return Path("ops", "v1", "connectivity", "settings", group)
}

// GroupConnectivitySettings returns the settings of a group.
func (c *Client) GroupConnectivitySettings(ctx context.Context, group string) (ConnectivitySettings, error) {
	var out ConnectivitySettings
	err := c.JSON(ctx, get(settingsPath(group), nil), nil, &out)
	return out, err
}

// PutConnectivitySettings replaces the settings of a group, or the account's own
// for an empty one.
func (c *Client) PutConnectivitySettings(ctx context.Context, group string, s ConnectivitySettings) error {
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodPut, Path: settingsPath(group)}, s, nil)
}

// DeleteConnectivitySettings removes the settings of a group, or the account's
// own.
func (c *Client) DeleteConnectivitySettings(ctx context.Context, group string) error {
	return c.JSON(ctx, Request{Service: ServiceControl, Method: http.MethodDelete, Path: settingsPath(group)}, nil, nil)
}

// AssignGateway says which thing speaks for another one; an empty gateway says
// that none does.
func (c *Client) AssignGateway(ctx context.Context, thing, gateway string) error {
	request := Request{Service: ServiceControl, Method: http.MethodPut, Path: Path("ops", "v1", "things", thing, "gateway")}
	if gateway == "" {
		request.Method = http.MethodDelete
		return c.JSON(ctx, request, nil, nil)
	}
	return c.JSON(ctx, request, map[string]string{"gateway": gateway}, nil)
}
