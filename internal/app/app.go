// Package app is the composition root: the only package that imports
// everything. New opens the data folder, keys and store and joins the parts;
// Start runs them; Stop undoes all of it in reverse; Reload takes over what
// can change while running.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/allowlist"
	"github.com/muster-iot/muster/internal/approval"
	"github.com/muster-iot/muster/internal/audit"
	"github.com/muster-iot/muster/internal/authorizer"
	"github.com/muster-iot/muster/internal/awsapi"
	awsiot "github.com/muster-iot/muster/internal/awsapi/iot"
	"github.com/muster-iot/muster/internal/bootstrap"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/bulkedit"
	"github.com/muster-iot/muster/internal/certprovider"
	"github.com/muster-iot/muster/internal/claimwatch"
	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/connectivity"
	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/drift"
	"github.com/muster-iot/muster/internal/eventlog"
	"github.com/muster-iot/muster/internal/function"
	"github.com/muster-iot/muster/internal/history"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/inlet"
	"github.com/muster-iot/muster/internal/ledger"
	"github.com/muster-iot/muster/internal/membership"
	"github.com/muster-iot/muster/internal/mqttapi"
	"github.com/muster-iot/muster/internal/mqttstore"
	"github.com/muster-iot/muster/internal/objectstore"
	"github.com/muster-iot/muster/internal/onboarding"
	"github.com/muster-iot/muster/internal/pagetoken"
	"github.com/muster-iot/muster/internal/pki"
	"github.com/muster-iot/muster/internal/presence"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/registrationtask"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/renewal"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/shadowhistory"
	"github.com/muster-iot/muster/internal/signin"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/telemetry"
)

// stopPatience bounds an ordered stop; what is not done by then is cut.
const stopPatience = 20 * time.Second

// Options of New.
type Options struct {
	Settings config.Settings
	// LogTo receives the structured log.
	LogTo io.Writer
	// Version is shown in metrics and archives.
	Version string
	// Hurry, when it is closed, lets a stop not wait for devices to leave one
	// after the other; nil for never.
	Hurry <-chan struct{}
}

// App is one server.
type App struct {
	settings config.Settings
	version  string
	log      *telemetry.Log
	metrics  *prometheus.Registry
	cleanups *cleanups

	dir *datadir.Dir
	// indexed are the options of the fleet index; doctor builds another one with them.
	indexed index.Options
	// snapshotAt is how far the newest index snapshot has followed the log. Only
	// keepIndexSnapshots and, after it, the stop touch it.
	snapshotAt store.Cursor
	store      store.Store
	pki        *pki.PKI
	accounts   *account.Service
	registry   *registry.Service
	shadows    *shadow.Service
	versions   *shadowhistory.Service
	presence   *presence.Service
	history    *history.Service
	// memberships is who was in which group.
	memberships *membership.Service
	// connectivity settles what state devices are in.
	connectivity *connectivity.Service
	// recorder brings calls into the log, audit keeps the trail; bare is the
	// store without the recording of calls.
	recorder *audit.Recorder
	audit    *audit.Service
	bare     store.Store
	index    *index.Index
	devices  *deviceauth.Service
	// revocations publishes what our device authority issued in vain.
	revocations *revocations
	// authorizers and custom are for devices that show neither certificate nor
	// signature.
	authorizers *authorizer.Service
	// functions stand in for cloud functions; provisioning lets devices join, and
	// providers sign for them.
	functions    *function.Set
	provisioning *provisioning.Service
	providers    *certprovider.Service
	// renewals follows things from one certificate to the next.
	renewals *renewal.Service
	// approvals lets authorities decide who joins.
	approvals *approval.Service
	// allowLists is what suppliers have made.
	allowLists *allowlist.Service
	// claimUses watches what claims are used for.
	claimUses *claimwatch.Service
	// bootstrap tells devices where to join.
	bootstrap *bootstrap.Service
	// onboarding keeps plans, and what devices have come to by them.
	onboarding *onboarding.Service
	// ledger keeps the lives of devices.
	ledger *ledger.Service
	// tasks registers devices from files, which are among objects; reports serves what became of them.
	tasks   *registrationtask.Service
	objects objectstore.Store
	reports *awsiot.ReportLinks
	// signIn lets people in who have no key.
	signIn *signin.Service
	// signInLines bounds the lines about failed sign-ins.
	signInLines *inlet.Quota
	custom      *customDoor
	broker      *broker.Broker
	keeper      *mqttstore.Keeper
	topics      *mqttapi.Handler
	api         *awsapi.Server
	tokens      *pagetoken.Sealer
	bulk        *bulkedit.Service
	drift       *drift.Service
	names       *names
	followers   followers
	// repairing is held by the one repair that runs.
	repairing sync.Mutex
	listeners listeners
	// limit bounds the connections of the listeners with TLS, localLimit those
	// of the one on loopback; from Start on.
	limit, localLimit *inlet.Limit
	// thrift spends processor time on memory while a crowd comes back.
	thrift inlet.Thrift

	// gatekeeper admits connections to the broker.
	gatekeeper *gatekeeper

	hurry     <-chan struct{}
	drains    sync.WaitGroup
	ready     atomic.Bool
	stopOnce  sync.Once
	stopError error
	fatalOnce sync.Once
	// fatal is closed when a component failed; fatalError says why.
	fatal      chan struct{}
	fatalError error
}

// followers are the consumers of the event log.
type followers struct {
	index   *eventlog.Runner
	devices *eventlog.Runner
	topics  *eventlog.Runner
	history *eventlog.Runner
	// memberships keeps who was in which group.
	memberships *eventlog.Runner
	// versions keeps the history of shadows.
	versions *eventlog.Runner
	crl      *eventlog.Runner
	// accounts keeps the directory of names.
	accounts *eventlog.Runner
	audit    *eventlog.Runner
	// renewals sees connections with new certificates.
	renewals *eventlog.Runner
	// onboarding sees how devices come into service.
	onboarding *eventlog.Runner
	// claimUses sees what claims are used for.
	claimUses *eventlog.Runner
	// ledger sees the lives of devices.
	ledger *eventlog.Runner
	// quarantine sees what is a reason for one.
	quarantine *eventlog.Runner
	// connectivity follows connections, attachments and certificates.
	connectivity *eventlog.Runner
}

// New opens folder, keys and store and joins all parts, but serves nothing. On
// an error everything is undone.
func New(ctx context.Context, o Options) (*App, error) {
	log, err := telemetry.NewLog(o.LogTo, o.Settings.Log.Level, o.Settings.Log.Format)
	if err != nil {
		return nil, err
	}
	a := &App{
		settings: o.Settings, version: o.Version, log: log,
		metrics: telemetry.NewRegistry(o.Version), fatal: make(chan struct{}), hurry: o.Hurry,
	}
	a.cleanups = &cleanups{log: log.Logger}
	steps := []func(context.Context) error{
		a.openFolder, a.openStore, a.recordCalls, a.openKeys, a.joinDomains, a.joinRevocations, a.joinAudit,
		a.joinSignIn, a.joinFunctions, a.joinRenewals, a.joinOnboarding, a.joinLedger, a.joinAllowLists, a.joinProvisioning, a.joinBootstrap, a.joinRegistrationTasks, a.joinDevicePlane, a.joinFollowers, a.joinAPI,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, a.cleanups.run(ctx))
		}
	}
	return a, nil
}

// component is a logger that names the part.
func (a *App) component(name string) *slog.Logger {
	return a.log.With(slog.String("component", name))
}

// now is the wall clock.
func now() time.Time { return time.Now() }

func (a *App) openFolder(context.Context) error {
	dir, err := datadir.Open(a.settings.DataDir)
	if err != nil {
		return err
	}
	a.dir = dir
	a.cleanups.push("data folder", func(context.Context) error { return dir.Close() })
	return checkRestored(dir)
}

func (a *App) openStore(ctx context.Context) error {
	opened, err := openStore(ctx, a.settings, a.dir, a.component("store"), a.metrics)
	if err != nil {
		return err
	}
	a.store = opened
	a.cleanups.push("store", func(context.Context) error { return opened.Close() })
	return nil
}

// openKeys brings up authorities and the root access key, and writes what
// clients need into the folder.
func (a *App) openKeys(ctx context.Context) error {
	a.names = a.newNames()
	dir, err := a.dir.Sub(datadir.PKIDir)
	if err != nil {
		return err
	}
	certificateNames := append([]string{a.settings.Endpoint}, a.settings.TLSNames...)
	certificateNames = append(certificateNames, a.bootstrapNames()...)
	certificateNames = append(certificateNames, account.Wildcards(a.settings.Region, a.settings.BaseDomain)...)
	a.pki, err = pki.New(pki.Options{
		Dir: dir, CAFile: a.dir.Path(datadir.CAFile), Names: certificateNames,
		CertFile: a.settings.TLSCert, KeyFile: a.settings.TLSKey, CRLURL: a.settings.PKI.CRLURL,
		Pool: a.settings.PKI.KeyPool, P256: a.settings.PKI.DeviceKey == config.DeviceKeyP256, Now: now, Logger: a.component("pki"),
	})
	if err != nil {
		return err
	}
	secrets, err := a.dir.Sub(datadir.SecretsDir)
	if err != nil {
		return err
	}
	sealer, err := account.OpenSealer(secrets + "/seal.age")
	if err != nil {
		return err
	}
	sessionKey, err := a.secret("session-tokens", account.SessionKeySize)
	if err != nil {
		return err
	}
	a.accounts = account.New(account.Options{
		Store: a.store, Sealer: sealer, Now: now, Region: a.settings.Region, SessionKey: sessionKey, Barrier: barrier{a},
		Lag: func() time.Duration { return a.followers.devices.Lag() }, Logger: a.component("account"),
		Default: a.settings.AccountID, Endpoints: a.endpointsOf, Applied: a.accountApplied,
	})
	root, err := a.accounts.Root(ctx, a.settings.AccountID)
	if err != nil {
		return err
	}
	return account.WriteCredentials(a.dir.Path(datadir.CredentialsFile), a.settings.Region, root)
}

func (a *App) joinDomains(context.Context) error {
	var err error
	limits := registry.DefaultLimits()
	limits.DynamicGroups, limits.GroupChildren = a.settings.Registry.MaxDynamicGroups, a.settings.Registry.MaxGroupChildren
	limits.GroupsPerThing = a.settings.Registry.MaxGroupsPerThing
	limits.TypeDeletionDelay = a.settings.Registry.TypeDeletionDelay
	a.registry, err = registry.New(registry.Options{
		Store: a.store, Region: a.settings.Region, Now: now, NewID: uuid.NewString, Issuer: a.pki, Limits: limits,
		Barrier: barrier{a},
		CheckQuery: func(query string) error {
			_, err := a.index.ParseThings(query)
			return err
		},
		CheckGroupQuery: func(group, query string) error { return a.index.CheckGroupQuery(group, query) },
		CheckPolicy:     checkPolicy,
		GroupStatus:     func(of accountID, group, query string) string { return string(a.index.GroupStatus(of, group, query)) },
		Endpoints:       a.endpoints(),
		Indexing:        a.indexing(),
		Logger:          a.component("registry"),
		AccountExists:   a.accounts.AccountExists,
		CheckRegistrationTemplate: func(ctx context.Context, of accountID, name string) error {
			return a.provisioning.CheckRegistrationTemplate(ctx, of, name)
		},
		RequireDeclaration: a.settings.Provisioning.RequireCADeclaration,
	})
	if err != nil {
		return err
	}
	a.joinShadows()
	a.presence = presence.New(presence.Options{Store: a.store, Now: now, Logger: a.component("presence"), Registerer: a.metrics})
	a.history = a.newHistory()
	a.memberships = a.newMemberships()
	a.connectivity = a.newConnectivity()
	a.indexed = a.indexOptions()
	a.index = index.New(a.indexed)
	a.measureIndexLag() //nolint:contextcheck // looked at by scrapes, which bring no context
	return nil
}

// indexOptions are those of the fleet index.
func (a *App) indexOptions() index.Options {
	return index.Options{
		Committer: &memberCommitter{a.registry}, Source: &thingState{shadows: a.shadows, presence: a.presence}, Originals: originals{a.registry}, Logger: a.component("index"),
		GroupLimit: a.settings.Registry.MaxGroupsPerThing, Certificates: thingCertificates{a.registry}, Registerer: a.metrics,
		IndexingOff: a.settings.Index.DefaultOff, Reloader: &loader{store: a.store},
		Stored: (&loader{store: a.store}).storedMemberships, Program: a.version,
	}
}

// endpoints are what DescribeEndpoint answers.
func (a *App) endpoints() registry.Endpoints {
	choose := func(one func(account.Endpoints) string) func(of accountID) string {
		return func(of accountID) string { return one(a.endpointsOf(of)) }
	}
	return registry.Endpoints{
		Data:        choose(func(e account.Endpoints) string { return e.Data }),
		Jobs:        choose(func(e account.Endpoints) string { return e.Jobs }),
		Credentials: choose(func(e account.Endpoints) string { return e.Credentials }),
	}
}

// barrier lets a control plane call wait until live connections feel it.
type barrier struct{ app *App }

// WaitApplied implements registry.Barrier. Before the server has started there
// are no connections to wait for.
func (b barrier) WaitApplied(ctx context.Context, position store.Position) error {
	if !b.app.ready.Load() {
		return nil
	}
	return b.app.followers.devices.WaitFor(ctx, position)
}

// fail notes the first failure of a component.
func (a *App) fail(err error) {
	a.fatalOnce.Do(func() {
		a.fatalError = err
		close(a.fatal)
	})
}

// Addr returns the bound address of a listener by name: http, mqtt, tls or
// mqtt-insecure; nil for one that is off.
func (a *App) Addr(name string) net.Addr { return a.listeners.addr(name) }

// Run starts the server, tells when it is ready, waits until ctx ends or a
// component fails, and stops.
func (a *App) Run(ctx context.Context, ready func()) error {
	if err := a.Start(ctx); err != nil {
		return errors.Join(err, a.Stop(context.WithoutCancel(ctx)))
	}
	ready()
	var failed error
	select {
	case <-ctx.Done():
		a.drainBeforeStop(context.WithoutCancel(ctx))
	case <-a.fatal:
		failed = fmt.Errorf("server cannot go on: %w", a.fatalError)
		a.log.ErrorContext(ctx, "server cannot go on", slog.Any("err", a.fatalError))
	}
	return errors.Join(failed, a.Stop(context.WithoutCancel(ctx)))
}

// Stop ends the server in order: listeners, sessions, presence, consumers,
// store, folder. It is idempotent and bounded in time.
func (a *App) Stop(ctx context.Context) error {
	a.stopOnce.Do(func() {
		a.ready.Store(false)
		a.log.InfoContext(ctx, "server stops")
		ctx, cancel := context.WithTimeout(ctx, stopPatience)
		defer cancel()
		a.stopError = a.cleanups.run(ctx)
	})
	return a.stopError
}

// Reload takes over the settings that can change while running. On an error
// nothing has changed. It returns the names of changed settings that need a
// restart.
func (a *App) Reload(next config.Settings) (needRestart []string, err error) {
	merged, needRestart := config.Reload(a.settings, next)
	if _, err := telemetry.ParseLevel(merged.Log.Level); err != nil {
		return nil, err
	}
	if err := a.pki.Reload(merged.TLSCert, merged.TLSKey); err != nil {
		return nil, err
	}
	if err := a.log.SetLevel(merged.Log.Level); err != nil {
		return nil, err
	}
	a.settings = merged
	a.recordReload()
	a.log.Info("settings reloaded", slog.Any("need_restart", needRestart))
	return needRestart, nil
}

// Complain logs a failure outside of the server's own parts.
func (a *App) Complain(message string, err error) { a.log.Error(message, slog.Any("err", err)) } //nolint:sloglint // the caller's constant sentence
