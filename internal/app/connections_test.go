package app

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/awsapi/iotdata"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/presence"
)

// brokerHas is what a broker knows of a client; nil for nothing.
type brokerHas struct{ *broker.ConnectionInfo }

func (b brokerHas) Connection(fleet.Account, string) (broker.ConnectionInfo, bool) {
	if b.ConnectionInfo == nil {
		return broker.ConnectionInfo{}, false
	}
	return *b.ConnectionInfo, true
}

// recorded is what presence has of a client; nil for nothing.
type recorded struct {
	*presence.Connection
	err error
}

func (r recorded) Get(context.Context, fleet.Account, string) (presence.Connection, error) {
	switch {
	case r.err != nil:
		return presence.Connection{}, r.err
	case r.Connection == nil:
		return presence.Connection{}, fault.New(fault.ResourceNotFound, "never")
	}
	return *r.Connection, nil
}

// Device plane, 8: GetConnection knows connected clients, stored sessions, and
// for half an hour those that left nothing behind.
func TestConnectionJoinsBrokerAndPresence(t *testing.T) {
	t.Parallel()
	at := time.Unix(1795412345, 0)
	info := broker.SessionInfo{
		ClientID: "pump-7", Indexed: true, RemoteAddr: "192.0.2.44:40123", LocalAddr: "192.0.2.1:8883", SessionExpiry: 3600, KeepAlive: 60,
		ConnectedAt: at.Add(-2 * time.Hour),
	}
	exclusive := info
	exclusive.ThingName, exclusive.Indexed = "thing-7", false
	recovered := info
	recovered.SessionID, recovered.RemoteAddr, recovered.LocalAddr = "kept", "", ""
	session := presence.Session{
		ClientID: "pump-7", SessionID: "kept", RemoteAddr: "192.0.2.44:40123", LocalAddr: "192.0.2.1:8883", KeepAlive: 60,
	}
	want := iotdata.Connection{RemoteAddr: "192.0.2.44:40123", LocalAddr: "192.0.2.1:8883", KeepAlive: 60}
	with := func(change func(*iotdata.Connection)) *iotdata.Connection {
		c := want
		change(&c)
		return &c
	}
	stale := &presence.Connection{Session: session, Timestamp: at, Reason: "THROTTLED"}
	for name, c := range map[string]struct {
		broker   brokerHas
		presence recorded
		want     *iotdata.Connection
	}{
		"connected": {
			brokerHas{&broker.ConnectionInfo{SessionInfo: info, Connected: true}},
			recorded{stale, nil},
			with(func(c *iotdata.Connection) {
				c.Connected, c.ThingName, c.SessionExpiry, c.Since = true, "pump-7", 3600, info.ConnectedAt
			}),
		},
		"connected for an exclusive thing": {
			brokerHas{&broker.ConnectionInfo{SessionInfo: exclusive, Connected: true}},
			recorded{},
			with(func(c *iotdata.Connection) {
				c.Connected, c.ThingName, c.SessionExpiry, c.Since = true, "thing-7", 3600, info.ConnectedAt
			}),
		},
		"stored session": {
			brokerHas{&broker.ConnectionInfo{SessionInfo: info, DisconnectedAt: at.Add(-29 * time.Minute), Reason: broker.ReasonConnectionLost}},
			recorded{stale, nil},
			with(func(c *iotdata.Connection) {
				c.ThingName, c.SessionExpiry, c.Since, c.DisconnectReason = "pump-7", 3600, at.Add(-29*time.Minute), "CONNECTION_LOST"
			}),
		},
		"stored session of long ago": {
			brokerHas{&broker.ConnectionInfo{SessionInfo: info, DisconnectedAt: at.Add(-30 * time.Minute), Reason: broker.ReasonConnectionLost}},
			recorded{},
			with(func(c *iotdata.Connection) {
				c.ThingName, c.SessionExpiry, c.DisconnectReason = "pump-7", 3600, "CONNECTION_LOST"
			}),
		},
		"stored session of the process before": {
			brokerHas{&broker.ConnectionInfo{SessionInfo: recovered, DisconnectedAt: at, Reason: broker.ReasonServerError}},
			recorded{stale, nil},
			with(func(c *iotdata.Connection) {
				c.ThingName, c.SessionExpiry, c.Since, c.DisconnectReason = "pump-7", 3600, at, "SERVER_ERROR"
			}),
		},
		"stored session that presence does not know": {
			brokerHas{&broker.ConnectionInfo{SessionInfo: recovered, DisconnectedAt: at, Reason: broker.ReasonServerError}},
			recorded{},
			&iotdata.Connection{ThingName: "pump-7", KeepAlive: 60, SessionExpiry: 3600, Since: at, DisconnectReason: "SERVER_ERROR"},
		},
		"clean session that went": {
			brokerHas{},
			recorded{&presence.Connection{Session: session, Timestamp: at.Add(-29 * time.Minute), Reason: "CLIENT_ERROR"}, nil},
			with(func(c *iotdata.Connection) { c.Since, c.DisconnectReason = at.Add(-29*time.Minute), "CLIENT_ERROR" }),
		},
		"clean session of half an hour ago": {
			brokerHas{}, recorded{&presence.Connection{Session: session, Timestamp: at.Add(-30 * time.Minute), Reason: "CLIENT_ERROR"}, nil}, nil,
		},
		"end not recorded yet": {
			brokerHas{},
			recorded{&presence.Connection{Session: session, Connected: true, Timestamp: at.Add(-time.Hour)}, nil},
			with(func(*iotdata.Connection) {}),
		},
		"never seen": {brokerHas{}, recorded{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			joined := &clients{broker: c.broker, presence: c.presence, now: func() time.Time { return at }}
			got, err := joined.Connection(t.Context(), "000000000000", "pump-7")
			if c.want == nil {
				if fault.CodeOf(err) != fault.ResourceNotFound {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(*c.want, got); diff != "" {
				t.Errorf("connection differs (-want +got):\n%s", diff)
			}
		})
	}
	broken := &clients{broker: brokerHas{}, presence: recorded{err: errors.New("no disk")}, now: func() time.Time { return at }}
	if _, err := broken.Connection(t.Context(), "000000000000", "pump-7"); fault.CodeOf(err) != fault.Internal {
		t.Errorf("error of the store: %v", err)
	}
}
