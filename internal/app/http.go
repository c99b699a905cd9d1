package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/audit"
	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog"
	awsiot "github.com/muster-iot/muster/internal/awsapi/iot"
	"github.com/muster-iot/muster/internal/awsapi/iotdata"
	"github.com/muster-iot/muster/internal/awsapi/sts"
	"github.com/muster-iot/muster/internal/backup"
	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/pagetoken"
	"github.com/muster-iot/muster/internal/presence"
	"github.com/muster-iot/muster/internal/topic"
)

// joinAPI joins the AWS front end and its adapters.
func (a *App) joinAPI(context.Context) error {
	operations, err := catalog.New()
	if err != nil {
		return err
	}
	key, err := a.secret("page-tokens", pagetoken.KeySize)
	if err != nil {
		return err
	}
	if a.tokens, err = pagetoken.New(key); err != nil {
		return err
	}
	a.api, err = awsapi.New(awsapi.Options{
		Catalog: operations, Keys: a.accounts, Sessions: sessions{a.accounts}, Authorizer: &permissions{devices: a.devices, operators: a.accounts},
		Devices: &apiDevices{devices: a.devices, names: a.names}, Directory: a.names, Custom: a.custom, Region: a.settings.Region, TokenKey: key,
		Trail: a.recorder,
		Now:   now, Logger: a.component("awsapi"), Registerer: a.metrics,
	})
	if err != nil {
		return err
	}
	tags, err := a.tags()
	if err != nil {
		return err
	}
	a.drift = a.newDrift()
	a.bulk = a.newBulkEdits()
	a.reports = a.reportLinks()
	awsiot.Register(a.api, awsiot.Deps{
		Registry: a.registry, Index: a.index, Shadows: a.shadows, Connections: connections{a.presence}, Authorizers: a.authorizers, Provisioning: a.provisioning,
		CertificateProviders: a.providers, Tasks: a.tasks, Reports: a.reports,
		Tags: tags, Devices: a.devices,
		DeleteThing: a.deleteThing,
	})
	sts.Register(a.api, sts.Deps{Operators: a.accounts, Proven: func(ctx context.Context, caller awsapi.Caller) context.Context {
		// These operations ask nobody else about the key.
		a.accounts.Used(ctx, caller.AccessKeyID)
		return proven(ctx, caller)
	}})
	iotdata.Register(a.api, iotdata.Deps{
		Shadows: a.shadows, Publisher: a.broker, Topics: a.topics, Retained: a.broker, Sessions: a.broker, Now: now,
		Connections: &clients{broker: a.broker, presence: a.presence, now: now},
		CheckTopic:  func(name string) error { return topic.ValidateName(name, topic.DefaultLimits(a.profile())) },
	})
	return nil
}

// connections lets search answers show presence.
type connections struct{ *presence.Service }

// Connectivity implements the port of the control plane's adapters.
func (c connections) Connectivity(ctx context.Context, account fleet.Account, thing string) (*awsiot.Connectivity, error) {
	found, err := c.Get(ctx, account, thing)
	if fault.CodeOf(err) == fault.ResourceNotFound || err == nil && !found.Indexed {
		return nil, nil //nolint:nilnil // never connected is neither
	}
	if err != nil {
		return nil, err
	}
	return &awsiot.Connectivity{
		Connected: found.Connected, TimestampMS: found.Timestamp.UnixMilli(), ClientID: found.ClientID,
		KeepAlive: found.KeepAlive, CleanSession: found.CleanSession(), SessionExpiry: found.SessionExpiry, DisconnectReason: found.Reason,
		RemoteAddr: found.RemoteAddr, LocalAddr: found.LocalAddr,
	}, nil
}

// secret loads random bytes from a private file and makes them on the first
// start.
func (a *App) secret(name string, size int) ([]byte, error) {
	folder, err := a.dir.Sub(datadir.SecretsDir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(folder, name)
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, size)
		if _, err := rand.Read(key); err != nil {
			return nil, fmt.Errorf("make secret %s: %w", name, err)
		}
		return key, datadir.WriteFile(path, key, datadir.PrivateMode)
	}
	if err != nil {
		return nil, fmt.Errorf("read secret %s: %w", name, err)
	}
	if len(key) != size {
		return nil, fmt.Errorf("secret %s has %d bytes instead of %d", path, len(key), size)
	}
	return key, nil
}

// localHandler serves everything that stays on this machine.
func (a *App) localHandler(listener string) http.Handler {
	metrics := promhttp.HandlerFor(a.metrics, promhttp.HandlerOpts{})
	rest := a.deviceHandler(listener)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			metrics.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

// deviceHandler serves what may leave the machine. It is no ServeMux: that
// would redirect topics with empty levels.
func (a *App) deviceHandler(listener string) http.Handler {
	admin := adminapi.New(adminapi.Options{
		Authorize: a.authorizeOps, AuthenticateHead: a.api.AuthenticateHead, AuthorizeOn: a.authorizeOpsOn, Operators: a.accounts, SignIn: a.signIn, SignedIn: a.signedIn, Backup: a.Backup, Doctor: a.Doctor, Repair: a.Repair, Logger: a.component("adminapi"),
		StartDrain: a.StartDrain, DrainStatus: a.drainStatus, EndDrain: a.endDrain,
		Devices: refusals{a.devices}, Accounts: a.accounts,
		Decommissioner: a.newDecommission(), AttributeRules: a.registry,
		Certificates: a.registry, Births: a.registry, Recorder: a.recorder, Audit: a.audit,
		Policies: policyLint{a.registry, a.devices}, FleetIndex: fleetIndex{a},
		Memberships: a.memberships, WhyMember: a.whyMember,
		Connectivity: a.connectivity, ShadowHistory: shadowVersions{a.versions, a}, Drifts: drifts{a},
		History: a.history, Tokens: a.tokens, Account: callerAccount, Now: now,
		BulkEdits: a.bulk, Templates: a.provisioning, Renewals: a.renewals, Approvals: a.approvals, ClaimUses: a.claimUses, AllowLists: a.allowLists, Bootstrap: a.bootstrap,
		Plans: a.onboarding, Onboarding: onboardedDevices{a.onboarding, a}, Ledger: a.ledger, Promises: a.drift,
		Importer: a.registry, Exporter: a.registry, Permit: a.permit, ARN: a.callerARN,
	})
	mqtt, buckets, uploads := a.webSocketHandler(listener), a.bucketHandler(), adminapi.UploadLinks(a.allowLists)
	served := a.bootstrapHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case awsapi.SignedForS3(r):
			// A bucket may have the name of anything below.
			buckets.ServeHTTP(w, r)
		case r.URL.Path == webSocketPath:
			mqtt.ServeHTTP(w, r)
		case r.URL.Path == "/healthz":
			answer(w, http.StatusOK, "ok")
		case r.URL.Path == "/readyz":
			a.readyz(w)
		case r.URL.Path == crlPath:
			a.revocations.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, awsiot.ReportPath):
			a.reports.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, adminapi.UploadLinkPrefix):
			uploads.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, adminapi.Prefix):
			admin.ServeHTTP(w, r)
		default:
			a.api.ServeHTTP(w, r)
		}
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// net/http finds the state by itself only on a bare tls.Conn.
		if c, ok := r.Context().Value(connKey{}).(*peekedConn); ok && r.TLS == nil {
			state := c.ConnectionState()
			r.TLS = &state
		}
		served.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // the caller may have left
}

func (a *App) readyz(w http.ResponseWriter) {
	switch {
	case !a.ready.Load():
		answer(w, http.StatusServiceUnavailable, "starting or stopping")
	case a.broker.Draining():
		answer(w, http.StatusServiceUnavailable, "draining")
	case a.index.Status() == index.Building:
		// Devices, registry and shadows are served; searches are refused in words.
		answer(w, http.StatusOK, "ready; the fleet index is being built")
	case a.index.Status() == index.Rebuilding:
		answer(w, http.StatusOK, "ready; the fleet index answers from before and is catching up")
	default:
		answer(w, http.StatusOK, "ready")
	}
}

// authorizeOps proves who calls /ops/v1 and asks whether it may.
func (a *App) authorizeOps(r *http.Request, body []byte, action string) (*http.Request, error) {
	return a.authorizeOpsOn(r, body, action, func(fleet.Account) string { return awsapi.AnyResource })
}

// authorizeOpsOn does so for one resource.
func (a *App) authorizeOpsOn(r *http.Request, body []byte, action string, resource func(of fleet.Account) string) (*http.Request, error) {
	caller, err := a.api.Authenticate(r, body)
	if err != nil {
		return nil, err
	}
	call := audit.From(r.Context())
	actor := fleet.Actor{Principal: caller.Principal, SourceAddress: caller.SourceAddress, AccessKeyID: caller.AccessKeyID, RequestID: call.RequestID()}
	call.Caller(caller.Account, actor)
	call.Session(caller.SessionBegan)
	on := resource(caller.Account)
	call.About(on)
	ctx := proven(context.WithValue(fleet.WithActor(r.Context(), actor), callerKey{}, caller.Account), caller)
	a.accounts.Used(ctx, caller.AccessKeyID)
	if err := a.accounts.Authorize(ctx, caller.Principal, action, on); err != nil {
		return nil, err
	}
	if installationWide(action) {
		if err := a.accounts.MayManageInstallation(caller.Account, action); err != nil {
			return nil, err
		}
	}
	a.component("adminapi").InfoContext(ctx, "operation", slog.String("action", action), slog.String("principal", caller.Principal.ARN))
	return r.WithContext(ctx), nil
}

// backedUp is what of the data folder goes into an archive beside the store.
func backedUp() []string {
	return []string{datadir.PKIDir, datadir.SecretsDir, datadir.CAFile, datadir.CredentialsFile}
}

// Backup streams an archive of keys and store, encrypted to an age recipient.
func (a *App) Backup(ctx context.Context, w io.Writer, recipient string) error {
	if _, err := backup.ParseRecipient(recipient); err != nil {
		return fault.Wrap(fault.InvalidRequest, err, "recipient must be an age public key, age1…")
	}
	return backup.Write(ctx, w, recipient, backup.Source{
		Root: a.dir.Root(), Files: backedUp(), Checkpoint: a.store.Checkpoint, Version: a.version, Now: now(),
	})
}
