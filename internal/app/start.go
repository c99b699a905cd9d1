package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/eventlog"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqttapi"
	"github.com/muster-iot/muster/internal/mqttstore"
	"github.com/muster-iot/muster/internal/presence"
	"github.com/muster-iot/muster/internal/quarantine"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/topic"
)

// accountID and checkPolicy keep the wiring short.
type accountID = fleet.Account

func checkPolicy(document []byte) error { return deviceauth.CheckPolicy(document, iotpolicy.Limits{}) }

const (
	sweepEvery     = time.Second
	retentionEvery = time.Minute
	// indexPatience is how long a start waits for the fleet index.
	indexPatience = 3 * time.Second
)

// joinDevicePlane joins broker, device authorization and reserved topics.
func (a *App) joinDevicePlane(context.Context) error {
	var err error
	a.devices, err = deviceauth.New(deviceauth.Options{
		Registry: deviceRegistry{a.registry, birthSession}, Region: a.settings.Region, Account: a.names.of, Named: a.names.named,
		AllowAnonymous: a.settings.MQTTInsecureAddr != "",
		Disconnect: func(of fleet.Account, certificateID string) {
			a.broker.DisconnectPrincipal(of, certificateID, broker.ReasonAuthError)
		},
		Lag: func() time.Duration { return a.followers.devices.Lag() },
		Connected: func(of fleet.Account, clientID string) (string, bool) {
			c, ok := a.broker.Connection(of, clientID)
			return c.Principal.ID, ok && c.Principal.ID != ""
		},
		Holds: func(of fleet.Account, clientID string) (string, bool) {
			c, ok := a.broker.Connection(of, clientID)
			return c.Principal.ID, ok && c.Connected
		},
		Introduce: func(ctx context.Context, who deviceauth.Stranger) string {
			return a.provisioning.Introduce(ctx, who.Account, registry.Newcomer{Certificate: who.Certificate, Named: who.Named}, who.Registered)
		},
		Now: now, Logger: a.component("deviceauth"), Registerer: a.metrics,
	})
	if err != nil {
		return err
	}
	a.custom = a.joinCustom()
	a.topics = mqttapi.New(mqttapi.Options{
		Shadows: a.shadows, Connectivity: a.connectivity, Provisioning: a.provisioning, Bootstrap: a.askBootstrap(), Region: a.settings.Region, Now: now, Logger: a.component("mqttapi"), Registerer: a.metrics,
		Limits: mqttapi.ExecutorLimits{PerThing: a.settings.Shadow.MaxInFlight},
		Publish: func(ctx context.Context, of fleet.Account, m broker.Message) error {
			return a.broker.Publish(ctx, of, m)
		},
	})
	a.keeper = mqttstore.New(mqttstore.Options{Store: a.store, Logger: a.component("mqttstore"), Registerer: a.metrics})
	a.gatekeeper = &gatekeeper{
		devices: a.devices, operators: a.accounts, signed: &signedConnections{}, names: a.names, region: a.settings.Region, custom: a.custom, plain: listenerPlain,
	}
	a.broker = broker.New(broker.Options{
		Profile: a.profile(), Limits: a.brokerLimits(), Keeper: a.keeper,
		Gatekeeper: a.gatekeeper,
		Service:    a.topics,
		Observer:   &observer{presence: a.presence},
		Quotas:     a.quotas(), Admission: a.admission(),
		Logger: a.component("broker"), Registerer: a.metrics, Now: now,
	})
	a.cleanups.push("broker", a.broker.Shutdown)
	return nil
}

// brokerLimits are the profile's limits as far as settings do not move them.
func (a *App) brokerLimits() *broker.Limits {
	l := broker.DefaultLimits(a.profile())
	if a.settings.MQTT.SessionExpiry > 0 {
		l.MaxSessionExpiry = uint32(a.settings.MQTT.SessionExpiry / time.Second)
	}
	l.MaxQueue = a.settings.MQTT.MaxQueuedMessages
	l.MaxQueuedTotal = a.settings.MQTT.MaxQueuedBytes
	l.MaxRetained = a.settings.Limits.AccountRetained
	return &l
}

// profile is how far the broker keeps to AWS's departures from MQTT.
func (a *App) profile() topic.Profile {
	if a.settings.MQTT.Profile == config.ProfileStandard {
		return topic.Standard
	}
	return topic.AWS
}

// observer hands the life of sessions to presence. Refused packets are logged
// by deviceauth, which knows why.
type observer struct{ presence *presence.Service }

func session(s *broker.SessionInfo) presence.Session {
	return presence.Session{
		Account: s.Account, ClientID: s.ClientID, SessionID: s.SessionID, ConnectionID: s.ConnectionID, Principal: s.Principal, ThingName: s.ThingName,
		RemoteAddr: s.RemoteAddr, IPAddress: s.RemoteIP, LocalAddr: s.LocalAddr, Protocol: protocol(s.Version), Transport: string(s.Transport),
		Indexed: s.Indexed, Provisioning: s.Transient, KeepAlive: int(s.KeepAlive), SessionExpiry: int64(s.SessionExpiry),
	}
}

// protocol names a version of MQTT as events do.
func protocol(version byte) string {
	switch mqtt.Version(version) {
	case mqtt.V31:
		return "mqtt3.1"
	case mqtt.V311:
		return "mqtt3.1.1"
	default:
		return "mqtt5"
	}
}

// Connected implements broker.Observer.
func (o *observer) Connected(s *broker.SessionInfo) { o.presence.Connected(session(s), s.ConnectedAt) }

// Disconnected implements broker.Observer.
func (o *observer) Disconnected(s *broker.SessionInfo, reason broker.DisconnectReason, _ bool, at time.Time) {
	o.presence.Disconnected(session(s), string(reason), at)
}

// ConnectFailed implements broker.Observer. Only a client that proved to be one
// of ours leaves a record: strangers could fill the log with any client id.
func (o *observer) ConnectFailed(s *broker.SessionInfo, reason string) {
	if s.Principal.ID == "" {
		return
	}
	o.presence.ConnectFailed(session(s), reason, now())
}

// Subscribed implements broker.Observer.
func (o *observer) Subscribed(s *broker.SessionInfo, filters []string, at time.Time) {
	o.presence.Subscribed(session(s), filters, at)
}

// Unsubscribed implements broker.Observer.
func (o *observer) Unsubscribed(s *broker.SessionInfo, filters []string, at time.Time) {
	o.presence.Unsubscribed(session(s), filters, at)
}

// Denied implements broker.Observer.
func (o *observer) Denied(broker.Denial) {}

// joinFollowers prepares the consumers of the event log.
func (a *App) joinFollowers(context.Context) error {
	load := &loader{store: a.store}
	consumers := []struct {
		into     **eventlog.Runner
		consumer eventlog.Consumer
	}{
		{&a.followers.index, eventlog.Consumer{
			Name: "index", Apply: a.index.Apply, Restore: a.restoreIndex,
			Rebuild: func(ctx context.Context) (store.Cursor, error) { return load.load(ctx, a.index) },
		}},
		{&a.followers.devices, eventlog.Consumer{
			Name: "deviceauth",
			Apply: func(_ context.Context, events []event.Envelope) error {
				a.devices.Apply(events)
				a.applyOperators(events)
				return nil
			},
		}},
		{&a.followers.topics, eventlog.Consumer{Name: "mqttapi", Apply: a.topics.Apply, Rebuild: a.loadEventConfigurations}},
		{&a.followers.history, a.historyConsumer()},
		{&a.followers.memberships, a.membershipConsumer()},
		{&a.followers.versions, eventlog.Consumer{Name: "shadow-history", Durable: a.versions.Apply}},
		{&a.followers.crl, eventlog.Consumer{
			Name: "crl", Apply: a.revocations.Apply,
			// Nobody knows what was trimmed: the next list is made anew.
			Rebuild: func(ctx context.Context) (store.Cursor, error) {
				a.revocations.heard.Add(1)
				return a.store.Head(ctx)
			},
		}},
		{&a.followers.accounts, a.accountsConsumer()},
		{&a.followers.audit, a.auditConsumer()},
		{&a.followers.connectivity, a.connectivityConsumer()},
		{&a.followers.renewals, a.renewalConsumer()},
		{&a.followers.onboarding, a.onboardingConsumer()},
		{&a.followers.claimUses, eventlog.Consumer{Name: "claim-uses", Durable: a.claimUses.Apply}},
		{&a.followers.ledger, a.ledgerConsumer()},
		{&a.followers.quarantine, eventlog.Consumer{Name: "quarantine", Durable: quarantine.New(a.registry).Apply}},
	}
	for _, c := range consumers {
		runner, err := eventlog.NewRunner(c.consumer, eventlog.Options{Store: a.store, Now: now, Logger: a.component("eventlog"), Registerer: a.metrics})
		if err != nil {
			return err
		}
		*c.into = runner
	}
	return nil
}

// Start runs all parts and returns when the server is ready: the index is
// built and every listener accepts.
func (a *App) Start(ctx context.Context) error {
	begun := now()
	if err := a.presence.Recover(ctx); err != nil {
		return err
	}
	endCut, err := a.endCutConnections(ctx)
	if err != nil {
		return err
	}
	a.cleanups.push("index snapshot", a.leaveIndexSnapshot)
	background := &parts{fatal: a.fail}
	background.start(ctx,
		part{"pki", a.pki.Run},
		part{"accounts follower", a.followers.accounts.Run},
		part{"index follower", a.followers.index.Run},
		part{"index", a.index.Run},
		part{"index snapshots", a.keepIndexSnapshots(a.settings.Index.SnapshotEvery)},
		part{"deviceauth follower", a.followers.devices.Run},
		part{"event topics follower", a.followers.topics.Run},
		part{"history follower", a.followers.history.Run},
		part{"connectivity follower", a.followers.connectivity.Run},
		part{"connectivity", a.connectivity.Run},
		part{"renewal follower", a.followers.renewals.Run},
		part{"renewals", a.renewals.Run},
		part{"onboarding follower", a.followers.onboarding.Run},
		part{"claim uses follower", a.followers.claimUses.Run},
		part{"quarantine follower", a.followers.quarantine.Run},
		part{"onboarding", a.onboarding.Run},
		part{"ledger follower", a.followers.ledger.Run},
		part{"ledger", a.ledger.Run},
		part{"revocation list follower", a.followers.crl.Run},
		part{"history retention", a.history.Run},
		part{"cut connections", endCut},
		part{"membership follower", a.followers.memberships.Run},
		part{"membership retention", a.memberships.Run},
		part{"shadow history follower", a.followers.versions.Run},
		part{"shadow history retention", a.versions.Run},
		part{"drifts", a.fillDrifts},
		part{"audit follower", a.followers.audit.Run},
		part{"audit retention", a.audit.Run},
		part{"audit recorder", a.recorder.Run},
		part{"retention", eventlog.Retention{
			Store: a.store, MaxAge: a.settings.EventLog.RetentionAge, MaxBytes: uint64(a.settings.EventLog.RetentionBytes),
			Every: retentionEvery, Now: now, Logger: a.component("eventlog"),
		}.Run},
		part{"shadow clean-up", a.cleanShadows},
		part{"certificate sweep", a.sweep},
		part{"closed accounts", a.sweepAccounts},
		part{"pending certificates", a.sweepPending},
		part{"presence", a.presence.Run},
		part{"strangers", a.forgetStrangers},
		part{"stored sessions", a.keeper.Run},
		part{"bulk edits", a.bulk.Run},
		part{"approvals", a.sweepApprovals},
		part{"allow lists", a.resumeAllowLists},
		part{"registration tasks", a.tasks.Run},
		part{"uploads", a.sweepUploads},
		part{"introductions", a.provisioning.RunIntroductions},
	)
	a.cleanups.push("background parts", background.stop)
	a.cleanups.push("connectivity", a.connectivity.Drain)
	a.cleanups.push("audit recorder", a.recorder.Drain)
	a.cleanups.push("presence", a.presence.Drain)
	a.cleanups.push("stored sessions", a.keeper.Drain)
	a.cleanups.push("reserved topics", a.topics.Drain)
	// The broker's own step, pushed by New, would come after the parts that
	// it needs; it must come before them.
	a.cleanups.push("drain", a.awaitDrain)
	a.cleanups.push("sessions", a.broker.Shutdown)
	if err := a.awaitFollowers(ctx); err != nil {
		return err
	}
	if err := a.broker.Recover(ctx); err != nil {
		return err
	}
	a.recordStart(ctx)
	if err := a.listen(ctx); err != nil {
		return err
	}
	a.cleanups.push("audit followers", a.audit.Close)
	a.ready.Store(true)
	a.log.InfoContext(ctx, "server is ready", slog.Duration("took", now().Sub(begun)), slog.Any("listeners", a.listeners.describe()))
	return nil
}

// awaitFollowers waits for the first build of each projection.
func (a *App) awaitFollowers(ctx context.Context) error {
	head, err := a.store.Head(ctx)
	if err != nil {
		return err
	}
	for _, runner := range []*eventlog.Runner{a.followers.accounts, a.followers.devices, a.followers.topics} {
		if err := runner.WaitCovered(ctx, head); err != nil {
			return err
		}
	}
	// Devices do not wait for a large index; who searches meanwhile is told.
	patient, cancel := context.WithTimeout(ctx, indexPatience)
	defer cancel()
	if a.followers.index.WaitCovered(patient, head) != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "server goes on while the fleet index is being built")
	}
	return ctx.Err()
}

func (a *App) cleanShadows(ctx context.Context) error {
	return a.shadows.Run(ctx, func(err error) {
		a.component("shadow").ErrorContext(ctx, "deleted shadows are not forgotten", slog.Any("err", err))
	})
}

// sweep ends connections whose certificate has expired.
func (a *App) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case at := <-tick.C:
			a.devices.Sweep(at)
		case <-ctx.Done():
			return nil
		}
	}
}

// forgetStrangers forgets clients that are no things.
func (a *App) forgetStrangers(ctx context.Context) error {
	return a.presence.Trim(ctx, func(ctx context.Context, of fleet.Account, names []string) (map[string]bool, error) {
		found, err := a.registry.Things(ctx, of, names)
		things := make(map[string]bool, len(found))
		for i := range found {
			things[found[i].Name] = true
		}
		return things, err
	})
}
