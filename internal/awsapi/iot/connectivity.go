package iot

import (
	"context"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
)

// Connections reads the connectivity that search answers show; nil for a thing
// that was never connected. The setting says whether the addresses of
// connections may be shown; it is off until it is switched on.
type Connections interface {
	Connectivity(ctx context.Context, account fleet.Account, thing string) (*Connectivity, error)
	SocketInformation(ctx context.Context, account fleet.Account) (bool, error)
	ShowSocketInformation(ctx context.Context, account fleet.Account, show bool) error
}

// Connectivity is what is known about a thing's last connection.
type Connectivity struct {
	Connected bool
	// TimestampMS is the time of the last change in milliseconds.
	TimestampMS  int64
	ClientID     string
	KeepAlive    int
	CleanSession bool
	// SessionExpiry is the life of the session after the connection, in
	// seconds.
	SessionExpiry int64
	// DisconnectReason is empty while connected.
	DisconnectReason string
	// RemoteAddr and LocalAddr are the ends of the connection, with ports.
	RemoteAddr, LocalAddr string
}

// connectivityData is the one call that the filter can show addresses in.
const connectivityData = "GET_THING_CONNECTIVITY_DATA"

// socketsShown reports whether a filter shows the addresses of connections.
func socketsShown(f *iotwire.IndexingFilter) bool {
	return f != nil && f.Connectivity != nil && slices.Contains(f.Connectivity.IncludeSocketInformation, connectivityData)
}

// getThingConnectivityData answers without addresses where they are not asked
// for or not switched on. Whoever may call it may see them: no action is known
// for these alone.
func (a *api) getThingConnectivityData(
	ctx context.Context, c *awsapi.Call, in *iotwire.GetThingConnectivityDataInput,
) (*iotwire.GetThingConnectivityDataOutput, error) {
	if _, err := a.Registry.DescribeThing(ctx, c.Account, in.ThingName); err != nil {
		return nil, err
	}
	if a.Index.Status() == index.Building {
		return nil, fault.New(fault.IndexNotReady, "the index is being built")
	}
	found, err := a.Connections.Connectivity(ctx, c.Account, in.ThingName)
	if err != nil {
		return nil, err
	}
	d := connectivity(found)
	out := &iotwire.GetThingConnectivityDataOutput{
		ThingName: &in.ThingName, Connected: d.Connected, ClientID: d.ClientID, CleanSession: d.CleanSession,
		KeepAliveDuration: d.KeepAliveDuration, SessionExpiry: d.SessionExpiry, DisconnectReason: d.DisconnectReason,
	}
	if d.Timestamp != nil {
		out.Timestamp = new(time.UnixMilli(*d.Timestamp).UTC())
	}
	if found == nil || !value(in.IncludeSocketInformation) {
		return out, nil
	}
	shown, err := a.Connections.SocketInformation(ctx, c.Account)
	if err != nil {
		return nil, err
	}
	if shown {
		out.SourceIP, out.SourcePort = awsapi.Socket(found.RemoteAddr)
		out.TargetIP, out.TargetPort = awsapi.Socket(found.LocalAddr)
	}
	return out, nil
}
