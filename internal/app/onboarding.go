package app

import (
	"context"
	"slices"

	"github.com/muster-iot/muster/internal/eventlog"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/onboarding"
	"github.com/muster-iot/muster/internal/renewal"
	"github.com/muster-iot/muster/internal/store"
)

// joinOnboarding keeps plans and what devices have come to by them.
func (a *App) joinOnboarding(context.Context) error {
	var err error
	a.onboarding, err = onboarding.New(onboarding.Options{
		Store: a.store, Holds: a.thingMatches,
		Connections: func(ctx context.Context, r store.Reader, fn func(onboarding.Seen) error) error {
			return certificateConnections(ctx, r, func(c renewal.Seen) error {
				return fn(onboarding.Seen{Account: c.Account, CertificateID: c.CertificateID, ClientID: c.ClientID, At: c.At})
			})
		},
		Now: now, Logger: a.component("onboarding"), Registerer: a.metrics,
	})
	return err
}

// onboardingConsumer sees how devices come into service.
func (a *App) onboardingConsumer() eventlog.Consumer {
	return eventlog.Consumer{Name: "onboarding", Durable: a.onboarding.Apply, Rebuild: a.onboarding.Rebuild}
}

// catchUpOnboarding waits a moment until the records have what the log held.
func (a *App) catchUpOnboarding(ctx context.Context) error {
	head, err := a.store.Head(ctx)
	if err != nil {
		return err
	}
	return a.followers.onboarding.WaitCovered(ctx, head)
}

// thingMatches asks the fleet index whether a thing matches a query.
func (a *App) thingMatches(ctx context.Context, account fleet.Account, thing, query string) (bool, error) {
	if err := (searched{a}).Fresh(ctx); err != nil {
		return false, err
	}
	q, err := a.index.ParseThings(query)
	if err != nil {
		return false, err
	}
	// Names that differ in case only match each other's: the right one is looked
	// for among them.
	q.Root = fleetquery.And{Nodes: []fleetquery.Node{q.Root, fleetquery.Match{Field: "thingName", Word: fleetquery.Fold(thing)}}}
	for after := ""; ; {
		found, next, err := a.index.Search(account, q, after, searchedNames)
		if err != nil {
			return false, err
		}
		if slices.Contains(found, thing) || next == "" {
			return slices.Contains(found, thing), nil
		}
		after = next
	}
}

// searchedNames is how many names of an answer are looked at together.
const searchedNames = 100

// onboardedDevices answers from records that have what the log held.
type onboardedDevices struct {
	*onboarding.Service

	app *App
}

// Device implements adminapi.Onboarding.
func (o onboardedDevices) Device(ctx context.Context, account fleet.Account, key string) (onboarding.Device, error) {
	if err := o.fresh(ctx); err != nil {
		return onboarding.Device{}, err
	}
	return o.Service.Device(ctx, account, key)
}

// Devices implements adminapi.Onboarding.
func (o onboardedDevices) Devices(ctx context.Context, account fleet.Account, q onboarding.Query) (found []onboarding.Device, next string, err error) {
	if err := o.fresh(ctx); err != nil {
		return nil, "", err
	}
	return o.Service.Devices(ctx, account, q)
}

// fresh waits a moment for the follower.
func (o onboardedDevices) fresh(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, searchPatience)
	defer cancel()
	if err := o.app.catchUpOnboarding(within); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fault.Wrap(fault.Unavailable, err, "The records of devices are behind the event log; try again")
	}
	return nil
}
