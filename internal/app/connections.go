package app

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/awsapi/iotdata"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/presence"
)

// disconnectedFor is how long it is told when a client went, and that one
// without a stored session was there at all.
const disconnectedFor = 30 * time.Minute

// clients joins what the broker knows of a client, its connection or stored
// session, and what presence remembers of one that has neither.
type clients struct {
	broker interface {
		Connection(account fleet.Account, clientID string) (broker.ConnectionInfo, bool)
	}
	presence interface {
		Get(ctx context.Context, account fleet.Account, clientID string) (presence.Connection, error)
	}
	now func() time.Time
}

// Connection implements iotdata.Connections.
func (c *clients) Connection(ctx context.Context, account fleet.Account, clientID string) (iotdata.Connection, error) {
	info, ok := c.broker.Connection(account, clientID)
	if ok && info.RemoteAddr != "" {
		return c.known(&info), nil
	}
	gone := fault.New(fault.ResourceNotFound, "Client %s is not connected and has no session", clientID)
	last, err := c.presence.Get(ctx, account, clientID)
	unseen := fault.CodeOf(err) == fault.ResourceNotFound
	if err != nil && !unseen {
		return iotdata.Connection{}, err
	}
	if ok {
		// A session that outlived the process: presence has its addresses.
		if !unseen && last.SessionID == info.SessionID {
			info.RemoteAddr, info.LocalAddr = last.RemoteAddr, last.LocalAddr
		}
		return c.known(&info), nil
	}
	if unseen {
		return iotdata.Connection{}, gone
	}
	found := iotdata.Connection{
		ThingName: thingOf(last.ThingName, last.ClientID, last.Indexed), RemoteAddr: last.RemoteAddr, LocalAddr: last.LocalAddr,
		KeepAlive: last.KeepAlive, SessionExpiry: last.SessionExpiry,
	}
	if last.Connected {
		// It has just gone, and presence has not recorded when and why.
		return found, nil
	}
	if c.now().Sub(last.Timestamp) >= disconnectedFor {
		return iotdata.Connection{}, gone
	}
	found.Since, found.DisconnectReason = last.Timestamp, last.Reason
	return found, nil
}

// known describes what the broker holds.
func (c *clients) known(info *broker.ConnectionInfo) iotdata.Connection {
	found := iotdata.Connection{
		Connected: info.Connected, ThingName: thingOf(info.ThingName, info.ClientID, info.Indexed),
		RemoteAddr: info.RemoteAddr, LocalAddr: info.LocalAddr,
		KeepAlive: int(info.KeepAlive), SessionExpiry: int64(info.SessionExpiry),
	}
	if info.Connected {
		found.Since = info.ConnectedAt
		return found
	}
	found.DisconnectReason = string(info.Reason)
	if c.now().Sub(info.DisconnectedAt) < disconnectedFor {
		found.Since = info.DisconnectedAt
	}
	return found
}

// thingOf is the thing that a connection acts as: the one that has its
// certificate to itself, or the one that is named like the client.
func thingOf(exclusive, clientID string, indexed bool) string {
	if exclusive == "" && indexed {
		return clientID
	}
	return exclusive
}
