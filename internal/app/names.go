package app

import (
	"context"
	"net"
	"time"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/eventlog"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// names chooses the account of a connection by the host name that its client
// asked for.
type names struct {
	*account.Directory

	// required refuses connections with TLS that name none of this server's names.
	required bool
}

// newNames is the directory with the names of the settings.
func (a *App) newNames() *names {
	return &names{
		Directory: account.NewDirectory(account.DirectoryOptions{
			Default: a.settings.AccountID, Region: a.settings.Region, BaseDomain: a.settings.BaseDomain,
			Common: append(append([]string{a.settings.Endpoint}, a.settings.TLSNames...), a.bootstrapNames()...),
		}),
		required: a.settings.TLS.RequireSNI,
	}
}

// check refuses a TLS connection that names no endpoint where that is demanded.
func (n *names) check(serverName string) error {
	if _, named := n.Of(serverName); named || !n.required {
		return nil
	}
	return fault.New(fault.Unauthorized, "the TLS server name %q is no endpoint of this installation", serverName)
}

// account is whose connections with a name are, closed or not.
func (n *names) account(serverName string) fleet.Account {
	of, _ := n.Of(serverName)
	return of
}

// of returns the account that a name selects, with an error when it is closed.
func (n *names) of(serverName string) (fleet.Account, error) {
	of := n.account(serverName)
	if n.Closed(of) {
		return of, fault.New(fault.Unauthorized, "the account of the endpoint is closed")
	}
	return of, nil
}

// named reports whether a name is one of this server's.
func (n *names) named(serverName string) bool {
	_, named := n.Of(serverName)
	return named
}

// agree refuses a request whose Host header is another account's own name than
// the one that is called.
func (n *names) agree(called fleet.Account, host string) error {
	if owner, ok := n.Owner(hostName(host)); ok && owner != called {
		return fault.New(fault.Forbidden, "The request is for another account than the endpoint that was called")
	}
	return nil
}

// hostName drops the port of a Host header.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}

// calledName is the name by which a client reached us: that of TLS, or the Host
// of the request that opened a WebSocket without one.
func calledName(c *broker.ConnectRequest) string {
	if opened, ok := c.Attachment.(*upgrade); ok && c.ServerName == "" {
		return hostName(opened.host)
	}
	return c.ServerName
}

// installationWide reports whether an act under /ops/v1 concerns all accounts at
// once.
func installationWide(action string) bool {
	switch action {
	case adminapi.ActionBackup, adminapi.ActionDoctor, adminapi.ActionRepair, adminapi.ActionDrain:
		return true
	default:
		return false
	}
}

// accountsConsumer keeps the directory, and ends the connections of accounts
// that are closed.
func (a *App) accountsConsumer() eventlog.Consumer {
	return eventlog.Consumer{
		Name: "accounts",
		Apply: func(_ context.Context, events []event.Envelope) error {
			for _, of := range a.names.Apply(events) {
				a.broker.DisconnectAccount(of, broker.ReasonAuthError)
			}
			return nil
		},
		Rebuild: func(ctx context.Context) (store.Cursor, error) {
			snapshot, err := a.store.Snapshot(ctx)
			if err != nil {
				return store.Cursor{}, err
			}
			defer snapshot.Close() //nolint:errcheck // a read-only view
			return snapshot.Cursor(), a.names.Load(ctx, snapshot)
		},
	}
}

// accountApplied waits until this node's directory has a change. Before the
// server has started nobody asks it.
func (a *App) accountApplied(ctx context.Context, position store.Position) error {
	if !a.ready.Load() {
		return nil
	}
	return a.followers.accounts.WaitFor(ctx, position)
}

// sweepAccounts ends connections that were being admitted while their account was
// closed.
func (a *App) sweepAccounts(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, of := range a.names.AllClosed() {
				a.broker.DisconnectAccount(of, broker.ReasonAuthError)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// endpointsOf are an account's names: the configured one for the default
// account, derived ones for others.
func (a *App) endpointsOf(of fleet.Account) account.Endpoints {
	if of == a.settings.AccountID {
		return account.Endpoints{Data: a.settings.Endpoint, Jobs: a.settings.Endpoint, Credentials: a.settings.Endpoint}
	}
	return account.EndpointsOf(of, a.settings.Region, a.settings.BaseDomain)
}
