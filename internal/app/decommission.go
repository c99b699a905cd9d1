package app

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

const (
	// farewellPatience bounds how long a decommission waits for connections to end
	// and for the store to have forgotten their sessions.
	farewellPatience = 10 * time.Second
	farewellPoll     = 5 * time.Millisecond
	// pastPage is how many former lives of a name are looked at at once.
	pastPage = 100
)

// decommission ends all that a thing is to this server, in an order in which
// each step leaves less that the device can do: first one commit in the
// registry, which shuts the device out and leaves a record; then its
// connections and stored sessions; then its shadows, which nobody can write any
// more; at last the record says that it is whole. Whoever repeats the call
// completes what a crash has left undone.
type decommission struct {
	registry interface {
		Decommission(ctx context.Context, account fleet.Account, c registry.DecommissionCommand) (registry.PastThing, error)
		CompleteDecommission(ctx context.Context, account fleet.Account, past registry.PastThing) (registry.PastThing, error)
		PastThings(ctx context.Context, account fleet.Account, name string, p registry.Page) (registry.Listed[registry.PastThing], error)
	}
	sessions interface {
		Connection(account fleet.Account, clientID string) (broker.ConnectionInfo, bool)
		Remove(account fleet.Account, clientID string, o broker.RemoveOptions) bool
		RemovePrincipal(account fleet.Account, principalID string, o broker.RemoveOptions) []broker.ConnectionInfo
	}
	// flush waits until the end of sessions is durable.
	flush   func(ctx context.Context) error
	shadows shadowRemover
}

// shadowRemover removes all shadows of a thing.
type shadowRemover interface {
	DeleteAll(ctx context.Context, account fleet.Account, thing string) (int, error)
}

// Decommission implements adminapi.Decommissioner.
func (d *decommission) Decommission(ctx context.Context, account fleet.Account, c registry.DecommissionCommand) (registry.PastThing, error) {
	newest, err := d.registry.Decommission(ctx, account, c)
	if err != nil {
		return registry.PastThing{}, err
	}
	page := registry.Page{Limit: pastPage}
	for {
		lives, err := d.registry.PastThings(ctx, account, c.Name, page)
		if err != nil {
			return registry.PastThing{}, err
		}
		for _, past := range lives.Items {
			if !past.Completed.IsZero() {
				continue
			}
			done, err := d.complete(ctx, account, past)
			if err != nil {
				return registry.PastThing{}, err
			}
			if done.ID == newest.ID {
				newest = done
			}
		}
		if lives.Next == "" {
			return newest, nil
		}
		page.After = lives.Next
	}
}

// complete removes what a past thing has left behind.
func (d *decommission) complete(ctx context.Context, account fleet.Account, past registry.PastThing) (registry.PastThing, error) {
	if err := d.endSessions(ctx, account, past); err != nil {
		return registry.PastThing{}, err
	}
	if _, err := d.shadows.DeleteAll(ctx, account, past.Name); err != nil {
		return registry.PastThing{}, err
	}
	return d.registry.CompleteDecommission(ctx, account, past)
}

// endSessions ends the connections and stored sessions of the client that is
// named like the thing and of the certificates that were the thing's alone, and
// waits until they are gone.
func (d *decommission) endSessions(ctx context.Context, account fleet.Account, past registry.PastThing) error {
	ctx, cancel := context.WithTimeout(ctx, farewellPatience)
	defer cancel()
	whole := broker.RemoveOptions{EndSession: true}
	var ending []broker.ConnectionInfo
	if info, ok := d.sessions.Connection(account, past.Name); ok {
		ending = append(ending, info)
	}
	// Also when there is no connection any more: it may be about to end, and to
	// leave its session behind.
	d.sessions.Remove(account, past.Name, whole)
	for _, c := range past.Certificates {
		if !c.Shared {
			ending = append(ending, d.sessions.RemovePrincipal(account, c.ID, whole)...)
		}
	}
	for _, info := range ending {
		if err := d.awaitEnd(ctx, account, info); err != nil {
			return err
		}
	}
	if err := d.flush(ctx); err != nil {
		return fault.Wrap(fault.Unavailable, err, "The thing is decommissioned, but its sessions are not removed from the store yet; repeat the call")
	}
	return nil
}

// awaitEnd waits until a connection, or the session that is stored of it, is
// there no more; a newer one of the same client id is none of it.
func (d *decommission) awaitEnd(ctx context.Context, account fleet.Account, info broker.ConnectionInfo) error {
	tick := time.NewTicker(farewellPoll)
	defer tick.Stop()
	for {
		now, ok := d.sessions.Connection(account, info.ClientID)
		if !ok || now.SessionID != info.SessionID {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fault.Wrap(fault.Unavailable, ctx.Err(), "The thing is decommissioned, but a session of client %s has not ended yet; repeat the call", info.ClientID)
		}
	}
}

// PastThings implements adminapi.Decommissioner.
func (d *decommission) PastThings(ctx context.Context, account fleet.Account, name string, p registry.Page) (registry.Listed[registry.PastThing], error) {
	return d.registry.PastThings(ctx, account, name, p)
}

// newDecommission joins the parts.
func (a *App) newDecommission() adminapi.Decommissioner {
	return &decommission{registry: a.registry, sessions: a.broker, flush: a.keeper.Flush, shadows: a.shadows}
}

// deleteThing is DeleteThing for installations whose shadows go with their
// things: the thing first, so that nobody can write them again where shadows
// need a thing. Repeating the call removes what an interrupted one has left.
func (a *App) deleteThing(ctx context.Context, account fleet.Account, name string, expected *int64) error {
	if err := a.registry.DeleteThing(ctx, account, name, expected); err != nil {
		return err
	}
	if !a.settings.Registry.DeleteShadowsWithThing {
		return nil
	}
	_, err := a.shadows.DeleteAll(ctx, account, name)
	return err
}
