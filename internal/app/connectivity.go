package app

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/connectivity"
	"github.com/muster-iot/muster/internal/eventlog"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/presence"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// newConnectivity is the state machine of devices; its consumer is joined later.
func (a *App) newConnectivity() *connectivity.Service {
	begun := now()
	return connectivity.New(connectivity.Options{
		Store: a.store, Sessions: liveSessions{a}, Registry: watchedThings{a.registry, a.settings.Region}, Live: pastConnections, Newest: a.newestConnection,
		Now: now, Elapsed: func() time.Duration { return time.Since(begun) },
		Logger: a.component("connectivity"), Registerer: a.metrics,
	})
}

// connectivityConsumer feeds it. It keeps its own cursor: its records change
// between events too, by timers and declarations.
func (a *App) connectivityConsumer() eventlog.Consumer {
	return eventlog.Consumer{Name: "connectivity", Apply: a.connectivity.Apply, Rebuild: a.connectivity.Rebuild}
}

// liveSessions tells the state machine what the broker knows, which is made
// later.
type liveSessions struct{ app *App }

// Activity implements connectivity.Sessions.
func (l liveSessions) Activity(account fleet.Account, clientID string) (connectivity.Activity, bool) {
	found, ok := l.app.broker.Activity(account, clientID)
	return connectivity.Activity{
		ConnectionID: found.ConnectionID, LastPacket: found.LastPacket, LastPublish: found.LastPublish, Provisioning: ok && found.Transient,
	}, ok && found.Indexed
}

// Draining implements connectivity.Sessions.
func (l liveSessions) Draining() bool { return l.app.broker.Draining() }

// RoundTrips implements connectivity.Sessions: those of connections that count
// for a thing.
func (l liveSessions) RoundTrips() []connectivity.RoundTrips {
	var all []connectivity.RoundTrips
	for _, r := range l.app.broker.TakeRoundTrips() {
		if r.Indexed {
			all = append(all, connectivity.RoundTrips{
				Account: r.Account, Thing: r.ClientID, Last: r.Last, Mean: r.Mean, Max: r.Max, Samples: r.Samples,
			})
		}
	}
	return all
}

// watchedThings tells the state machine what the registry knows.
type watchedThings struct {
	registry *registry.Service
	region   string
}

// attachmentPage is how many attachments are read at a time.
const attachmentPage = 100

// ThingExists implements connectivity.Registry.
func (w watchedThings) ThingExists(ctx context.Context, account fleet.Account, thing string) (exists, attached bool, err error) {
	page, err := w.registry.ListThingPrincipals(ctx, account, thing, "", registry.Page{Limit: 1})
	if fault.CodeOf(err) == fault.ResourceNotFound {
		return false, false, nil
	}
	return err == nil, len(page.Items) > 0, err
}

// Blocked implements connectivity.Registry.
func (w watchedThings) Blocked(ctx context.Context, account fleet.Account, thing string) (bool, error) {
	blocked := false
	page := registry.Page{Limit: attachmentPage}
	for {
		found, err := w.registry.ListThingPrincipals(ctx, account, thing, "", page)
		if fault.CodeOf(err) == fault.ResourceNotFound {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		for _, attached := range found.Items {
			arn, _ := fleet.ParseARN(attached.Name)
			certificate, err := w.registry.Certificate(ctx, account, arn.Name)
			if fault.CodeOf(err) == fault.ResourceNotFound {
				continue // it was deleted meanwhile, and an event says so
			}
			if err != nil {
				return false, err
			}
			if certificate.Status != registry.StatusInactive && certificate.Status != registry.StatusRevoked {
				return false, nil
			}
			blocked = true
		}
		if page.After = found.Next; page.After == "" {
			return blocked, nil
		}
	}
}

// ThingsOf implements connectivity.Registry.
func (w watchedThings) ThingsOf(ctx context.Context, account fleet.Account, certificateID string, fn func(thing string) error) error {
	page := registry.Page{Limit: attachmentPage}
	principal := fleet.Scope{Region: w.region, Account: account}.ARN(fleet.ARNCertificate, certificateID)
	for {
		found, err := w.registry.ListPrincipalThings(ctx, account, principal, "", page)
		if fault.CodeOf(err) == fault.ResourceNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		for _, attached := range found.Items {
			if err := fn(attached.Name); err != nil {
				return err
			}
		}
		if page.After = found.Next; page.After == "" {
			return nil
		}
	}
}

// Groups implements connectivity.Registry.
func (w watchedThings) Groups(ctx context.Context, account fleet.Account, thing string) ([]connectivity.Group, error) {
	t, err := w.registry.DescribeThing(ctx, account, thing)
	if fault.CodeOf(err) == fault.ResourceNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, len(t.Groups))
	for i, m := range t.Groups {
		names[i] = m.Group
	}
	direct, err := w.registry.Groups(ctx, account, names)
	if err != nil {
		return nil, err
	}
	nearest := map[string]int{}
	var ancestors []string
	var all []connectivity.Group
	for _, g := range direct {
		all = append(all, connectivity.Group{Name: g.Name, Created: g.Created})
		for i, name := range g.Ancestors {
			distance := len(g.Ancestors) - i
			if known, ok := nearest[name]; !ok || distance < known {
				if !ok {
					ancestors = append(ancestors, name)
				}
				nearest[name] = distance
			}
		}
	}
	above, err := w.registry.Groups(ctx, account, ancestors)
	if err != nil {
		return nil, err
	}
	for _, g := range above {
		all = append(all, connectivity.Group{Name: g.Name, Distance: nearest[g.Name], Created: g.Created})
	}
	return all, nil
}

// GroupExists implements connectivity.Registry.
func (w watchedThings) GroupExists(ctx context.Context, account fleet.Account, group string) (bool, error) {
	_, err := w.registry.DescribeThingGroup(ctx, account, group)
	if fault.CodeOf(err) == fault.ResourceNotFound {
		return false, nil
	}
	return err == nil, err
}

// EachInactive implements connectivity.Registry.
func (w watchedThings) EachInactive(ctx context.Context, r store.Reader, fn func(account fleet.Account, certificateID string) error) error {
	return registry.EachCertificate(ctx, r, func(account fleet.Account, id, status string) error {
		if status != registry.StatusInactive && status != registry.StatusRevoked {
			return nil
		}
		return fn(account, id)
	})
}

// EachThing implements connectivity.Registry.
func (w watchedThings) EachThing(ctx context.Context, r store.Reader, fn func(account fleet.Account, thing string) error) error {
	return registry.EachThing(ctx, r, func(account fleet.Account, t registry.Thing) error { return fn(account, t.Name) })
}

// pastConnections tells the state machine what presence knows.
func pastConnections(ctx context.Context, r store.Reader, fn func(connectivity.Past) error) error {
	return presence.EachConnection(ctx, r, func(_ fleet.Account, c presence.Connection) error { return fn(pastOf(&c)) })
}

// newestConnection is that of one client, nil for one that never connected.
func (a *App) newestConnection(ctx context.Context, account fleet.Account, clientID string) (*connectivity.Past, error) {
	c, err := a.presence.Get(ctx, account, clientID)
	if fault.CodeOf(err) == fault.ResourceNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := pastOf(&c)
	return &p, nil
}

func pastOf(c *presence.Connection) connectivity.Past {
	return connectivity.Past{
		Account: c.Account, Session: sessionEvent(c), Connected: c.Connected, ConnectedAt: c.ConnectedAt, At: c.Timestamp, Reason: c.Reason,
	}
}

// loadConnectivity brings states and latencies into an index.
func loadConnectivity(ctx context.Context, r store.Reader, b *index.Builder, of fleet.Account) error {
	err := connectivity.EachState(ctx, r, func(account fleet.Account, thing string, v connectivity.Indexed) error {
		if of != "" && of != account {
			return nil
		}
		b.PutConnectivityState(account, thing, index.ConnectivityState{
			State: string(v.State), StateVersion: v.StateVersion, Since: v.Since, Flapping: v.Flapping, LastSeen: v.LastSeen,
			Blips: v.Blips, Gateway: v.Gateway, NoHello: v.NoHello, Reason: v.Reason,
		})
		return nil
	})
	if err != nil {
		return err
	}
	return connectivity.EachLatency(ctx, r, func(account fleet.Account, thing string, v connectivity.Latency) error {
		if of != "" && of != account {
			return nil
		}
		b.PutLatency(account, thing, index.Latency{LastMS: v.LastMS, MeanMS: v.MeanMS, MaxMS: v.MaxMS})
		return nil
	})
}
