package adminapi

import (
	"context"
	"net/http"
	"time"

	"github.com/muster-iot/muster/internal/connectivity"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Actions on connectivity, on resource "*".
const (
	// ActionGetConnectivity is for one thing and for the summary.
	ActionGetConnectivity            = "ops:GetConnectivity"
	ActionGetConnectivitySettings    = "ops:GetConnectivitySettings"
	ActionPutConnectivitySettings    = "ops:PutConnectivitySettings"
	ActionDeleteConnectivitySettings = "ops:DeleteConnectivitySettings"
	// ActionAssignGateway is for saying behind which gateway a thing lies.
	ActionAssignGateway = "ops:AssignGateway"
)

// Connectivity knows what state devices have settled to, and watches them by
// settings.
type Connectivity interface {
	Of(ctx context.Context, account fleet.Account, thing string) (connectivity.Status, error)
	Summarize(ctx context.Context, account fleet.Account) (connectivity.Summary, error)
	ListSettings(account fleet.Account) []connectivity.GroupSettings
	SettingsOf(account fleet.Account, group string) (connectivity.Settings, error)
	PutSettings(ctx context.Context, account fleet.Account, group string, s connectivity.Settings) error
	DeleteSettings(ctx context.Context, account fleet.Account, group string) error
	AssignGateway(ctx context.Context, account fleet.Account, thing, gateway string) error
}

// connectivityOutput is what is known of a thing. Times are RFC 3339 in UTC with
// milliseconds, and absent for never.
type connectivityOutput struct {
	ThingName    string `json:"thingName"`
	State        string `json:"state"`
	StateVersion int64  `json:"stateVersion"`
	Since        string `json:"since,omitempty"`
	SettledAt    string `json:"settledAt,omitempty"`
	// Connected is the raw truth of the moment.
	Connected         bool    `json:"connected"`
	ClientID          string  `json:"clientId,omitempty"`
	SessionID         string  `json:"sessionId,omitempty"`
	ConnectionVersion int64   `json:"connectionVersion"`
	DisconnectReason  string  `json:"disconnectReason,omitempty"`
	KeepAliveSeconds  float64 `json:"keepAliveSeconds,omitempty"`
	LastSeen          string  `json:"lastSeen,omitempty"`
	NoHello           bool    `json:"noHello"`
	Flapping          bool    `json:"flapping"`
	FlapScore         float64 `json:"flapScore"`
	Blips             int64   `json:"blips"`
	// Outages counts those that have ended.
	Outages          int64   `json:"outages"`
	CurrentOutageMS  *int64  `json:"currentOutageMs,omitempty"`
	LastOutageMS     int64   `json:"lastOutageMs"`
	TotalOutageMS    int64   `json:"totalOutageMs"`
	LastGapMS        int64   `json:"lastGapMs"`
	HeartbeatSeconds float64 `json:"heartbeatSeconds,omitempty"`
	NextContact      string  `json:"nextContact,omitempty"`
	// Timers are when the state changes if nothing happens.
	Timers  connectivityTimers   `json:"timers"`
	Gateway *connectivityGateway `json:"gateway,omitempty"`
	// Children counts the things that this one speaks for.
	Children int                  `json:"children"`
	Latency  *connectivityLatency `json:"latency,omitempty"`
	Settings settingsInForce      `json:"settings"`
	// Recent are the newest changes, newest first.
	Recent []connectivityChange `json:"recent"`
}

type connectivityTimers struct {
	State    string `json:"state,omitempty"`
	Flapping string `json:"flapping,omitempty"`
}

type connectivityGateway struct {
	ThingName string `json:"thingName"`
	// Assigned says that an operator named it, and not the gateway itself.
	Assigned bool `json:"assigned"`
}

type connectivityLatency struct {
	LastMS     float64 `json:"lastMs"`
	MeanMS     float64 `json:"meanMs"`
	MaxMS      float64 `json:"maxMs"`
	Samples    int     `json:"samples"`
	MeasuredAt string  `json:"measuredAt"`
}

// settingsInForce are settings with what set each of them.
type settingsInForce struct {
	connectivity.Settings

	From map[string]string `json:"from"`
}

type connectivityChange struct {
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

// summaryOutput counts things by state; every state is there.
type summaryOutput struct {
	Things   int            `json:"things"`
	States   map[string]int `json:"states"`
	Flapping int            `json:"flapping"`
}

// groupSettingsOutput are the settings of one group.
type groupSettingsOutput struct {
	Group string `json:"group"`
	connectivity.Settings
}

// settingsOutput is a page of settings by group, with the account's own.
type settingsOutput struct {
	// Default are the account's own; null for none.
	Default   *connectivity.Settings `json:"default"`
	Groups    []groupSettingsOutput  `json:"groups"`
	NextToken string                 `json:"nextToken,omitempty"`
}

// gatewayInput is the body of PUT /ops/v1/things/{thing}/gateway.
type gatewayInput struct {
	Gateway string `json:"gateway"`
}

// handleConnectivity adds the operations on connectivity.
func (h *handler) handleConnectivity(mux *routes) {
	const settings = Prefix + "connectivity/settings"
	mux.HandleFunc("GET "+Prefix+"things/{thing}/connectivity", h.read(ActionGetConnectivity, h.thingConnectivity))
	mux.HandleFunc("GET "+Prefix+"connectivity/summary", h.read(ActionGetConnectivity, h.connectivitySummary))
	mux.HandleFunc("GET "+settings, h.read(ActionGetConnectivitySettings, h.connectivitySettings))
	mux.HandleFunc("PUT "+settings, h.operate(ActionPutConnectivitySettings, h.putConnectivitySettings))
	mux.HandleFunc("DELETE "+settings, h.operate(ActionDeleteConnectivitySettings, h.deleteConnectivitySettings))
	mux.HandleFunc("GET "+settings+"/{group}", h.read(ActionGetConnectivitySettings, func(ctx context.Context, r *http.Request) (any, error) {
		return h.o.Connectivity.SettingsOf(h.o.Account(ctx), r.PathValue("group"))
	}))
	mux.HandleFunc("PUT "+settings+"/{group}", h.operate(ActionPutConnectivitySettings, h.putConnectivitySettings))
	mux.HandleFunc("DELETE "+settings+"/{group}", h.operate(ActionDeleteConnectivitySettings, h.deleteConnectivitySettings))
	mux.HandleFunc("PUT "+Prefix+"things/{thing}/gateway", h.operate(ActionAssignGateway, h.assignGateway))
	mux.HandleFunc("DELETE "+Prefix+"things/{thing}/gateway", h.operate(ActionAssignGateway, func(ctx context.Context, r *http.Request, _ []byte) (any, error) {
		return nil, h.o.Connectivity.AssignGateway(ctx, h.o.Account(ctx), r.PathValue("thing"), "")
	}))
}

// thingConnectivity answers what is known of a thing.
func (h *handler) thingConnectivity(ctx context.Context, r *http.Request) (any, error) {
	v, err := h.o.Connectivity.Of(ctx, h.o.Account(ctx), r.PathValue("thing"))
	if err != nil {
		return nil, err
	}
	out := connectivityOutput{
		ThingName: v.Thing, State: string(v.State), StateVersion: v.StateVersion, Since: stamp(v.Since), SettledAt: stamp(v.Settled),
		Connected: v.Connected, ClientID: v.ClientID, SessionID: v.SessionID, ConnectionVersion: v.ConnectionVersion,
		DisconnectReason: v.DisconnectReason, KeepAliveSeconds: v.KeepAlive.Seconds(), LastSeen: stamp(v.LastSeen), NoHello: v.NoHello,
		Flapping: v.Flapping, FlapScore: v.FlapScore, Blips: v.Blips,
		Outages: v.Outages, LastOutageMS: v.LastOutage.Milliseconds(), TotalOutageMS: v.TotalOutage.Milliseconds(), LastGapMS: v.LastGap.Milliseconds(),
		HeartbeatSeconds: v.Heartbeat.Seconds(), NextContact: stamp(v.NextContact),
		Timers: connectivityTimers{State: stamp(v.TimerDue), Flapping: stamp(v.ReleaseDue)}, Children: v.Children,
		Settings: settingsInForce{v.Settings.Settings, v.Settings.From}, Recent: make([]connectivityChange, len(v.Recent)),
	}
	if v.CurrentOutage > 0 {
		ms := v.CurrentOutage.Milliseconds()
		out.CurrentOutageMS = &ms
	}
	if v.Gateway != "" {
		out.Gateway = &connectivityGateway{v.Gateway, v.Assigned}
	}
	if l := v.Latency; l != nil {
		out.Latency = &connectivityLatency{l.LastMS, l.MeanMS, l.MaxMS, l.Samples, stamp(time.UnixMilli(l.At))}
	}
	for i, c := range v.Recent {
		out.Recent[i] = connectivityChange{
			StateVersion: c.Version, From: string(c.From), To: string(c.To), Since: stamp(c.Since), At: stamp(c.At), DisconnectReason: c.Reason,
			WaitMS: c.Wait.Milliseconds(), OutageMS: c.Outage.Milliseconds(), Alert: c.Alert,
		}
	}
	return out, nil
}

// connectivitySummary counts the caller's things by state.
func (h *handler) connectivitySummary(ctx context.Context, _ *http.Request) (any, error) {
	sum, err := h.o.Connectivity.Summarize(ctx, h.o.Account(ctx))
	if err != nil {
		return nil, err
	}
	out := summaryOutput{Things: sum.Things, States: map[string]int{}, Flapping: sum.Flapping}
	for _, state := range connectivity.States() {
		out.States[string(state)] = sum.ByState[state]
	}
	return out, nil
}

// connectivitySettings lists settings by group.
func (h *handler) connectivitySettings(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.connectivity.settings", "")
	if err != nil {
		return nil, err
	}
	page, err := l.registryPage()
	if err != nil {
		return nil, err
	}
	out := settingsOutput{Groups: []groupSettingsOutput{}}
	for _, s := range h.o.Connectivity.ListSettings(l.account) {
		switch {
		case s.Group == "":
			out.Default = &s.Settings
		case s.Group <= page.After:
		case len(out.Groups) == page.Limit:
			out.NextToken = h.nextToken(&l, out.Groups[len(out.Groups)-1].Group)
			return out, nil
		default:
			out.Groups = append(out.Groups, groupSettingsOutput{s.Group, s.Settings})
		}
	}
	return out, nil
}

// putConnectivitySettings replaces the settings of a group, or the account's own,
// and answers them.
func (h *handler) putConnectivitySettings(ctx context.Context, r *http.Request, body []byte) (any, error) {
	var in connectivity.Settings
	if err := decodeStrictly(body, &in); err != nil {
		return nil, err
	}
	return in, h.o.Connectivity.PutSettings(ctx, h.o.Account(ctx), r.PathValue("group"), in)
}

func (h *handler) deleteConnectivitySettings(ctx context.Context, r *http.Request, _ []byte) (any, error) {
	return nil, h.o.Connectivity.DeleteSettings(ctx, h.o.Account(ctx), r.PathValue("group"))
}

// assignGateway says which thing speaks for another one.
func (h *handler) assignGateway(ctx context.Context, r *http.Request, body []byte) (any, error) {
	var in gatewayInput
	if err := decodeStrictly(body, &in); err != nil {
		return nil, err
	}
	if in.Gateway == "" {
		return nil, fault.New(fault.InvalidRequest, "gateway: is the name of the thing that speaks for this one")
	}
	return nil, h.o.Connectivity.AssignGateway(ctx, h.o.Account(ctx), r.PathValue("thing"), in.Gateway)
}
