package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/muster-iot/muster/internal/authorizer"
	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/function"
	"github.com/muster-iot/muster/internal/mqtt"
)

const (
	// minFunctionSecret and maxFunctionSecret bound the secret of functions, in
	// bytes.
	minFunctionSecret = 16
	maxFunctionSecret = 4 << 10
	// refreshRetry is how long an authorizer that gave no answer about a live
	// connection is left alone; up to as much again spreads the connections.
	refreshRetry = 30 * time.Second
)

// joinFunctions opens the functions of the settings and the authorizers that
// call them.
func (a *App) joinFunctions(context.Context) error {
	var definitions []function.Definition
	for _, text := range a.settings.Function.Targets {
		target, err := config.ParseTarget(text)
		if err != nil {
			return fmt.Errorf("function.target %w", err)
		}
		definitions = append(definitions, function.Definition(target))
	}
	secret, err := functionSecret(a.settings.Function.SecretFile)
	if err != nil {
		return err
	}
	functions, err := function.New(function.Options{
		Definitions: definitions, Secret: secret, Now: now, Logger: a.component("function"), Registerer: a.metrics,
	})
	if err != nil {
		return fmt.Errorf("function.target: %w", err)
	}
	a.cleanups.push("functions", func(context.Context) error {
		functions.Close()
		return nil
	})
	a.functions = functions
	a.authorizers, err = authorizer.New(authorizer.Options{
		Store: a.store, Region: a.settings.Region, Functions: functions, Now: now, NewID: uuid.NewString,
		IsBusy: func(err error) bool { return errors.Is(err, function.ErrBusy) },
		Logger: a.component("authorizer"), Registerer: a.metrics,
	})
	return err
}

// functionSecret reads the file without the line end that editors leave.
func functionSecret(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("function.secret-file: %w", err)
	}
	secret := []byte(strings.TrimRight(string(data), "\r\n"))
	if len(secret) < minFunctionSecret || len(secret) > maxFunctionSecret {
		return nil, fmt.Errorf("function.secret-file: %s has %d bytes; %d to %d are allowed", path, len(secret), minFunctionSecret, maxFunctionSecret)
	}
	return secret, nil
}

// joinCustom prepares the way of devices through custom authorizers.
func (a *App) joinCustom() *customDoor {
	ctx, cancel := context.WithCancel(context.Background())
	door := &customDoor{
		authorizers: a.authorizers, devices: a.devices, names: a.names, log: a.component("authorizer"), ctx: ctx,
		disconnect: func(of fleet.Account, clientID string) { a.broker.Disconnect(of, clientID, broker.ReasonAuthError) },
	}
	a.cleanups.push("refreshes of custom authorizers", func(context.Context) error {
		door.mu.Lock()
		door.stopped = true
		door.mu.Unlock()
		cancel()
		door.refreshing.Wait()
		return nil
	})
	return door
}

// customDoor lets in devices that a custom authorizer vouches for, by MQTT and
// by HTTP.
type customDoor struct {
	authorizers *authorizer.Service
	devices     *deviceauth.Service
	names       *names
	disconnect  func(of fleet.Account, clientID string)
	log         *slog.Logger

	// ctx is that of refreshes, which belong to no packet.
	ctx        context.Context //nolint:containedctx // timers bear none
	mu         sync.Mutex
	stopped    bool
	refreshing sync.WaitGroup
}

// Admit asks the authorizer that a CONNECT names.
func (d *customDoor) Admit(ctx context.Context, c *broker.ConnectRequest) (broker.Admission, error) {
	called := calledName(c)
	connect := deviceauth.Request{ServerName: called, ClientID: c.ClientID, RemoteAddr: c.RemoteAddr, Persistent: c.Persistent()}
	if c.Will != nil {
		connect.Will = &deviceauth.Will{Topic: c.Will.Topic, Retain: c.Will.Retain}
	}
	account, err := d.names.of(called)
	if err != nil {
		d.devices.NameRefused(ctx, connect, err)
		return broker.Admission{}, err
	}
	request, err := connectRequest(c)
	var grant authorizer.Grant
	if err == nil {
		grant, err = d.authorizers.Authenticate(ctx, account, request)
	}
	if err != nil {
		d.devices.CustomRefused(ctx, account, connect, err)
		return broker.Admission{}, err
	}
	custom := customCaller(grant, called)
	admitted, err := d.devices.AdmitCustom(ctx, custom, connect)
	if err != nil {
		c.Account, c.Principal = account, custom.Principal
		return broker.Admission{}, err
	}
	lease := &lease{Guard: admitted.Guard, door: d, clientID: c.ClientID, grant: grant, request: request}
	if grant.RefreshAfter < grant.DisconnectAfter {
		lease.schedule(grant.RefreshAfter)
	}
	return broker.Admission{
		Account: account, Principal: custom.Principal, Guard: lease,
		Until: now().Add(grant.DisconnectAfter), UntilReason: broker.ReasonCustomAuthorExpired,
	}, nil
}

// customCaller is what deviceauth needs to know of a grant.
func customCaller(g authorizer.Grant, serverName string) deviceauth.Custom {
	return deviceauth.Custom{
		Account: g.Account, ServerName: serverName, Policies: g.Policies,
		Principal: fleet.Principal{Kind: fleet.PrincipalCustom, ID: g.PrincipalID},
	}
}

// connectRequest gathers what an authorizer may look at. The password is
// copied: it is needed as long as the connection lasts.
func connectRequest(c *broker.ConnectRequest) (authorizer.Request, error) {
	credentials, err := authorizer.FromUsername(c.Username)
	if err != nil {
		return authorizer.Request{}, err
	}
	r := authorizer.Request{
		MQTT:         &authorizer.MQTTData{Username: c.Username, Password: slices.Clone(c.Password), ClientID: c.ClientID},
		ConnectionID: uuid.NewString(),
	}
	if c.Secured {
		r.TLS = &authorizer.TLSData{ServerName: c.ServerName}
	}
	if opened, ok := c.Attachment.(*upgrade); ok {
		shown, err := authorizer.FromHTTP(opened.header, opened.query)
		if err != nil {
			return authorizer.Request{}, err
		}
		credentials = shown.Or(credentials)
		r.HTTP = httpData(opened.header, opened.query)
	}
	r.Credentials = credentials
	return r, nil
}

// Offered reports whether a connection without certificate and signature may be
// let in by an authorizer.
func (d *customDoor) Offered(ctx context.Context, serverName string) bool {
	account, err := d.names.of(serverName)
	if err != nil {
		return false
	}
	page, _, err := d.authorizers.List(ctx, account, authorizer.ListQuery{Status: authorizer.StatusActive, Limit: 1})
	return err == nil && len(page) > 0
}

// httpData is what an authorizer may look at in a request.
func httpData(header http.Header, rawQuery string) *authorizer.HTTPData {
	data := &authorizer.HTTPData{Headers: make(map[string]string, len(header))}
	for name, values := range header {
		data.Headers[name] = strings.Join(values, ",")
	}
	if rawQuery != "" {
		data.QueryString = "?" + rawQuery
	}
	return data
}

// lease is the guard of a connection that an authorizer has vouched for. It
// asks again when the answer has become old.
type lease struct {
	*deviceauth.Guard

	door     *customDoor
	clientID string
	grant    authorizer.Grant
	request  authorizer.Request

	mu     sync.Mutex
	closed bool
	timer  *time.Timer
}

// schedule asks again after a time.
func (l *lease) schedule(after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.timer = time.AfterFunc(after, l.refresh)
	}
}

// Enrich implements broker.Guard: whom an authorizer vouches for acts as no
// thing.
func (l *lease) Enrich(own []mqtt.UserProperty) []mqtt.UserProperty { return own }

// Close ends the asking with the connection.
func (l *lease) Close() {
	l.mu.Lock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mu.Unlock()
	l.Guard.Close()
}

// over reports whether the connection has ended.
func (l *lease) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// refresh puts the policies of a new answer in force. A caller that is not
// known any more, or is somebody else now, loses the connection; without an
// answer it keeps what it has, until the connection ends as was said at first.
func (l *lease) refresh() {
	if !l.door.enter() {
		return
	}
	defer l.door.refreshing.Done()
	grant, err := l.door.authorizers.Authenticate(l.door.ctx, l.grant.Account, l.request)
	if l.over() {
		return
	}
	switch code := fault.CodeOf(err); {
	case err == nil && grant.PrincipalID == l.grant.PrincipalID:
		l.Replace(grant.Policies)
		l.schedule(grant.RefreshAfter)
		return
	case err == nil || code == fault.Unauthorized:
		l.Replace(nil)
		l.door.disconnect(l.grant.Account, l.clientID)
	default:
		l.schedule(refreshRetry + jitter(refreshRetry))
	}
	l.door.log.WarnContext(l.door.ctx, "policies of a connection are not refreshed", slog.String("client_id", l.clientID),
		slog.String("principal", l.grant.PrincipalID), slog.String("authorizer", l.grant.Authorizer), slog.Any("err", err))
}

// enter reports whether a refresh may begin; it then ends with Done.
func (d *customDoor) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return false
	}
	d.refreshing.Add(1)
	return true
}

// jitter is a random part of a time.
func jitter(most time.Duration) time.Duration {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(most)))
	if err != nil {
		return 0
	}
	return time.Duration(n.Int64())
}

// memoryKey carries what is remembered of an HTTP connection.
type memoryKey struct{}

// httpMemory is what later requests on a connection may use again.
type httpMemory struct {
	id string
	authorizer.Memory
}

func withMemory(ctx context.Context) context.Context {
	return context.WithValue(ctx, memoryKey{}, &httpMemory{id: uuid.NewString()})
}

// CustomIdentity implements awsapi.Custom.
func (d *customDoor) CustomIdentity(r *http.Request, serverName string) (awsapi.CustomIdentity, bool, error) {
	ctx := r.Context()
	account, err := d.names.of(serverName)
	if err != nil {
		return awsapi.CustomIdentity{}, false, err
	}
	credentials, err := authorizer.FromHTTP(r.Header, r.URL.RawQuery)
	if err != nil {
		return awsapi.CustomIdentity{}, false, nil //nolint:nilerr // a query that cannot be read names no authorizer
	}
	if credentials.Authorizer() == "" {
		if found, err := d.authorizers.HasDefault(ctx, account); err != nil || !found {
			return awsapi.CustomIdentity{}, false, err
		}
	}
	request := authorizer.Request{Credentials: credentials, HTTP: httpData(r.Header, r.URL.RawQuery)}
	if r.TLS != nil {
		if err := d.names.check(serverName); err != nil {
			return awsapi.CustomIdentity{}, false, err
		}
		request.TLS = &authorizer.TLSData{ServerName: r.TLS.ServerName}
	}
	if m, ok := ctx.Value(memoryKey{}).(*httpMemory); ok {
		request.Memory, request.ConnectionID = &m.Memory, m.id
	}
	grant, err := d.authorizers.Authenticate(ctx, account, request)
	if err != nil {
		return awsapi.CustomIdentity{}, false, err
	}
	custom := customCaller(grant, serverName)
	return awsapi.CustomIdentity{Account: custom.Account, Principal: custom.Principal, Grant: custom}, true, nil
}
