package app

import (
	"context"

	"github.com/muster-iot/muster/internal/eventlog"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/presence"
	"github.com/muster-iot/muster/internal/renewal"
	"github.com/muster-iot/muster/internal/store"
)

// joinRenewals follows things from one certificate to the next.
func (a *App) joinRenewals(context.Context) error {
	var err error
	a.renewals, err = renewal.New(renewal.Options{
		Store: a.store, Registry: a.registry,
		Overlap: a.settings.Provisioning.RenewalOverlap, Patience: a.settings.Provisioning.RenewalPatience,
		Connections: certificateConnections, CatchUp: a.catchUpRenewals,
		Now: now, Logger: a.component("renewal"), Registerer: a.metrics,
	})
	return err
}

// renewalConsumer shows connections with new certificates.
func (a *App) renewalConsumer() eventlog.Consumer {
	return eventlog.Consumer{Name: "renewal", Durable: a.renewals.Apply, Rebuild: a.renewals.Rebuild}
}

// catchUpRenewals waits until all that the log holds was seen.
func (a *App) catchUpRenewals(ctx context.Context) error {
	head, err := a.store.Head(ctx)
	if err != nil {
		return err
	}
	return a.followers.renewals.WaitCovered(ctx, head)
}

// certificateConnections are the newest connections, as presence knows them, that
// were made with certificates.
func certificateConnections(ctx context.Context, r store.Reader, fn func(renewal.Seen) error) error {
	return presence.EachConnection(ctx, r, func(account fleet.Account, c presence.Connection) error {
		if c.Principal.Kind != fleet.PrincipalCertificate {
			return nil
		}
		at := c.ConnectedAt
		if at.IsZero() {
			at = c.Timestamp
		}
		return fn(renewal.Seen{
			Account: account, CertificateID: c.Principal.ID, At: at, ClientID: c.ClientID, ConnectionID: c.ConnectionID, Address: c.IPAddress,
		})
	})
}
