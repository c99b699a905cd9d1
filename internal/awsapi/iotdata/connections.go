package iotdata

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/awsapi"
	wire "github.com/muster-iot/muster/internal/awsapi/catalog/iotdatawire"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Connections describes a client that is connected, has a stored session, or
// went a short time ago; any other is fault.ResourceNotFound.
type Connections interface {
	Connection(ctx context.Context, account fleet.Account, clientID string) (Connection, error)
}

// Connection is a client's newest connection.
type Connection struct {
	Connected bool
	// ThingName is the thing that the connection acts as, empty for none.
	ThingName string
	// RemoteAddr and LocalAddr are the ends of the connection, with ports.
	RemoteAddr, LocalAddr string
	// KeepAlive and SessionExpiry are in seconds.
	KeepAlive     int
	SessionExpiry int64
	// Since is when it connected or went; zero when that is no longer told.
	Since time.Time
	// DisconnectReason is empty while connected.
	DisconnectReason string
}

// Sessions acts on connected clients and stored sessions.
type Sessions interface {
	Remove(account fleet.Account, clientID string, o broker.RemoveOptions) bool
	Subscriptions(account fleet.Account, clientID, after string, limit int) (page []broker.SubscriptionInfo, next string, ok bool)
	Direct(ctx context.Context, account fleet.Account, clientID string, m broker.Message) error
}

// registerConnections offers the operations on one client. Each needs its own
// action on the client; whoever may see a connection may see its addresses,
// since no action is known for these alone.
func (a *api) registerConnections(s *awsapi.Server) {
	handle(s, "GetConnection", func(c *awsapi.Call, in *wire.GetConnectionInput) []string {
		return client(c, in.ClientID)
	}, a.getConnection)
	handle(s, "DeleteConnection", func(c *awsapi.Call, in *wire.DeleteConnectionInput) []string {
		return client(c, in.ClientID)
	}, a.deleteConnection)
	handle(s, "ListSubscriptions", func(c *awsapi.Call, in *wire.ListSubscriptionsInput) []string {
		return client(c, in.ClientID)
	}, a.listSubscriptions)
	handle(s, "SendDirectMessage", func(c *awsapi.Call, in *wire.SendDirectMessageInput) []string {
		return client(c, in.ClientID)
	}, a.sendDirectMessage, awsapi.MaxBody(maxPayload))
}

func client(c *awsapi.Call, id string) []string { return []string{c.ARN(fleet.ARNClient, id)} }

// isTrue reports whether a flag is given and set.
func isTrue(flag *bool) bool { return flag != nil && *flag }

func (a *api) getConnection(ctx context.Context, c *awsapi.Call, in *wire.GetConnectionInput) (*wire.GetConnectionOutput, error) {
	found, err := a.Connections.Connection(ctx, c.Account, in.ClientID)
	if err != nil {
		return nil, err
	}
	out := &wire.GetConnectionOutput{
		Connected: &found.Connected, ClientID: &in.ClientID, ThingName: optional(found.ThingName),
		CleanSession: new(found.SessionExpiry == 0), SessionExpiry: &found.SessionExpiry,
		KeepAliveDuration: new(int32(found.KeepAlive)), DisconnectReason: optional(found.DisconnectReason),
	}
	switch {
	case found.Since.IsZero():
	case found.Connected:
		out.ConnectedSince = new(found.Since.UnixMilli())
	default:
		out.DisconnectedSince = new(found.Since.UnixMilli())
	}
	if isTrue(in.IncludeSocketInformation) {
		out.SourceIP, out.SourcePort = awsapi.Socket(found.RemoteAddr)
		out.TargetIP, out.TargetPort = awsapi.Socket(found.LocalAddr)
	}
	return out, nil
}

// optional leaves out an empty text.
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// unknownClient is the refusal of a client that is neither connected nor has a
// stored session.
func unknownClient(id string) error {
	return fault.New(fault.ResourceNotFound, "Client %s is not connected and has no session", id)
}

func (a *api) deleteConnection(_ context.Context, c *awsapi.Call, in *wire.DeleteConnectionInput) (*wire.DeleteConnectionOutput, error) {
	o := broker.RemoveOptions{EndSession: isTrue(in.CleanSession), WithholdWill: isTrue(in.PreventWillMessage)}
	if !a.Sessions.Remove(c.Account, in.ClientID, o) {
		return nil, unknownClient(in.ClientID)
	}
	return &wire.DeleteConnectionOutput{}, nil
}

// defaultSubscriptions is the page of ListSubscriptions without a page size.
const defaultSubscriptions = 20

func (a *api) listSubscriptions(_ context.Context, c *awsapi.Call, in *wire.ListSubscriptionsInput) (*wire.ListSubscriptionsOutput, error) {
	after, err := c.PageKey(in.NextToken, in.ClientID)
	if err != nil {
		return nil, err
	}
	page, next, ok := a.Sessions.Subscriptions(c.Account, in.ClientID, after, limitOf(in.MaxResults, defaultSubscriptions))
	if !ok {
		return nil, unknownClient(in.ClientID)
	}
	subscriptions := make([]wire.SubscriptionSummary, len(page))
	for i, subscription := range page {
		subscriptions[i] = wire.SubscriptionSummary{TopicFilter: &subscription.Filter, QoS: new(int32(subscription.QoS))}
	}
	return &wire.ListSubscriptionsOutput{Subscriptions: subscriptions, NextToken: c.NextToken(next, in.ClientID)}, nil
}
