package iot

import (
	"context"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fleet"
)

// Connections reads the connectivity that search answers show; nil for a thing
// that was never connected.
type Connections interface {
	Connectivity(ctx context.Context, account fleet.Account, thing string) (*Connectivity, error)
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

// getThingConnectivityData answers without addresses where they are not asked
// for or not switched on. Whoever may call it may see them: no action is known
// for these alone.
func (a *api) getThingConnectivityData(
	ctx context.Context, c *awsapi.Call, in *iotwire.GetThingConnectivityDataInput,
) (*iotwire.GetThingConnectivityDataOutput, error) {
	if _, err := a.Registry.DescribeThing(ctx, c.Account, in.ThingName); err != nil {
		return nil, err
	}
	config, err := a.Registry.IndexingConfiguration(ctx, c.Account)
	if err != nil {
		return nil, err
	}
	if err := a.showsConnectivity(c.Account, &config); err != nil {
		return nil, err
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
	if slices.Contains(config.Things.SocketInformation, fleet.SocketInformationConnectivityData) {
		out.SourceIP, out.SourcePort = awsapi.Socket(found.RemoteAddr)
		out.TargetIP, out.TargetPort = awsapi.Socket(found.LocalAddr)
	}
	return out, nil
}
