package app

import (
	"context"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/eventlog"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/history"
	"github.com/muster-iot/muster/internal/presence"
	"github.com/muster-iot/muster/internal/store"
)

// newHistory is the connection history; its consumer is joined later.
func (a *App) newHistory() *history.Service {
	return history.New(history.Options{
		Store: a.store, Live: liveConnections, CatchUp: a.catchUpHistory,
		RetentionAge: a.settings.History.RetentionAge, RetentionBytes: uint64(a.settings.History.RetentionBytes),
		Now: now, Logger: a.component("history"), Registerer: a.metrics,
	})
}

// historyConsumer feeds the connection history.
func (a *App) historyConsumer() eventlog.Consumer {
	return eventlog.Consumer{Name: "history", Durable: a.history.Apply, Rebuild: a.history.Rebuild}
}

// catchUpHistory waits until the history holds what the log holds.
func (a *App) catchUpHistory(ctx context.Context) error {
	head, err := a.store.Head(ctx)
	if err != nil {
		return err
	}
	return a.followers.history.WaitCovered(ctx, head)
}

// liveConnections tells the history what presence knows.
func liveConnections(ctx context.Context, r store.Reader, fn func(history.Live) error) error {
	return presence.EachConnection(ctx, r, func(account fleet.Account, c presence.Connection) error {
		return fn(history.Live{
			Account: account, PrincipalKind: c.Principal.Kind, Connected: c.Connected, At: c.Timestamp, Reason: c.Reason,
			Session: sessionEvent(&c),
		})
	})
}

// sessionEvent is a recorded connection as events tell it.
func sessionEvent(c *presence.Connection) event.Session {
	return event.Session{
		ClientID: c.ClientID, SessionID: c.SessionID, ConnectionID: c.ConnectionID, Principal: c.Principal.ID, ThingName: c.ThingName,
		IPAddress: c.IPAddress, RemoteAddr: c.RemoteAddr, LocalAddr: c.LocalAddr, Protocol: c.Protocol, Transport: c.Transport,
		Version: c.Version, Indexed: c.Indexed, Provisioning: c.Provisioning, KeepAlive: c.KeepAlive, CleanSession: c.CleanSession(), SessionExpiry: c.SessionExpiry,
	}
}

// callerKey finds the caller's account in a context.
type callerKey struct{}

// callerAccount is whose fleet a request to /ops/v1 is about.
func callerAccount(ctx context.Context) fleet.Account {
	account, _ := ctx.Value(callerKey{}).(fleet.Account)
	return account
}
