package app

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/presence"
	"github.com/muster-iot/muster/internal/registry"
)

// started runs a server on a folder until stop is called.
func started(t *testing.T, s config.Settings) (a *App, stop func()) {
	t.Helper()
	a = newApp(t, s)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a, func() {
		if err := a.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// apiOf calls a server as its root.
func apiOf(t *testing.T, a *App) *apiclient.Client {
	t.Helper()
	credentials, err := apiclient.CredentialSources{DataDir: a.settings.DataDir}.Load()
	if err != nil {
		t.Fatal(err)
	}
	api, err := apiclient.New(apiclient.Options{Endpoint: "http://" + a.Addr(listenerHTTP).String(), Credentials: credentials, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.CloseIdle)
	return api
}

// device is a certificate with its key.
type device struct {
	id, arn string
	pair    tls.Certificate
}

func newDevice(t *testing.T, a *App) device {
	t.Helper()
	made, err := a.registry.CreateKeysAndCertificate(t.Context(), a.settings.AccountID, true)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(made.PEM), []byte(made.PrivatePEM))
	if err != nil {
		t.Fatal(err)
	}
	return device{made.ID, made.ARN, pair}
}

// connect tries to connect as clientID.
func (d device) connect(t *testing.T, a *App, clientID string, version mqtt.Version) (*client.Client, error) {
	t.Helper()
	conn, err := client.Dial(t.Context(), a.Addr(listenerMQTT).String(), &tls.Config{Certificates: []tls.Certificate{d.pair}, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	return client.Connect(t.Context(), conn, client.Options{ClientID: clientID, Version: version})
}

// awaitHistory asks until the newest entry is as wanted, and returns all.
func awaitHistory(t *testing.T, ask func() ([]apiclient.Connection, error), n int, status string) []apiclient.Connection {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == n && got[0].Status == status {
			return got
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("entries %+v, want %d of which the newest is %s", got, n, status)
		}
	}
}

// A device connects and goes for several causes, is refused, and the server is
// started again in between, once after it ended without telling: the API
// shows all of it.
func TestConnectionHistoryThroughTheAPI(t *testing.T) {
	t.Parallel()
	s := settings(t)
	a, stop := started(t, s)
	ctx, account := t.Context(), s.AccountID
	pump, other := newDevice(t, a), newDevice(t, a)
	_, errThing := a.registry.CreateThing(ctx, account, registry.CreateThingCommand{Name: "pump"})
	_, errPolicy := a.registry.CreatePolicy(ctx, account, "connect", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`)
	if err := errors.Join(errThing, errPolicy,
		a.registry.AttachPolicy(ctx, account, "connect", pump.arn),
		a.registry.AttachThingPrincipal(ctx, account, "pump", pump.arn, "")); err != nil {
		t.Fatal(err)
	}
	api := apiOf(t, a)
	ofPump := func() ([]apiclient.Connection, error) {
		return api.ThingConnections(ctx, "pump", apiclient.Span{}, 0)
	}
	begun := time.Now().Add(-time.Second)

	first, err := pump.connect(t, a, "pump", mqtt.V311)
	if err != nil {
		t.Fatal(err)
	}
	awaitHistory(t, ofPump, 1, "CONNECTED")
	if err := first.Disconnect(); err != nil {
		t.Fatal(err)
	}
	awaitHistory(t, ofPump, 1, "ENDED")
	if _, err := other.connect(t, a, "pump", mqtt.V311); err == nil {
		t.Fatal("a certificate without policy was let in")
	}
	awaitHistory(t, ofPump, 2, "REFUSED")
	lost, err := pump.connect(t, a, "pump", mqtt.V5)
	if err != nil {
		t.Fatal(err)
	}
	awaitHistory(t, ofPump, 3, "CONNECTED")
	if err := lost.Close(); err != nil {
		t.Fatal(err)
	}
	awaitHistory(t, ofPump, 3, "ENDED")
	for n := range 2 {
		if _, err := pump.connect(t, a, "pump", mqtt.V5); err != nil {
			t.Fatal(err)
		}
		awaitHistory(t, ofPump, 4+n, "CONNECTED")
	}
	now, err := api.FleetConnections(ctx, time.Now(), 0)
	if err != nil || now.Count != 1 || len(now.Connections) != 1 || now.Connections[0].Thing != "pump" {
		t.Errorf("connected now: %+v, %v; want the pump", now, err)
	}

	stop()
	a, stop = started(t, s)
	api = apiOf(t, a)
	// A connection of a process that ends without telling.
	a.presence.Connected(presence.Session{Account: account, ClientID: "site/1", SessionID: "cut", ConnectionID: "cut-1", Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: pump.id}}, time.Now())
	stop()
	a, _ = started(t, s)
	api = apiOf(t, a)
	cut := awaitHistory(t, func() ([]apiclient.Connection, error) {
		return api.ClientConnections(ctx, "site/1", apiclient.Span{}, 0)
	}, 1, "ENDED")
	if cut[0].Reason != "SERVER_ERROR" || cut[0].Thing != "" {
		t.Errorf("a connection that a crash cut: %+v", cut[0])
	}
	all := awaitHistory(t, ofPump, 5, "ENDED")
	want := []string{"SERVER_INITIATED_DISCONNECT", "DUPLICATE_CLIENTID", "CONNECTION_LOST", "refused AUTHORIZATION_FAILED", "CLIENT_INITIATED_DISCONNECT"}
	var got []string
	for _, c := range all {
		reason, principal := c.Reason, pump.id
		if c.Status == "REFUSED" {
			reason, principal = "refused "+reason, other.id
		}
		got = append(got, reason)
		if !strings.HasPrefix(c.RemoteAddress, "127.0.0.1") || c.Principal != principal || c.ClientID != "pump" {
			t.Errorf("entry %+v has not the right address, certificate and client", c)
		}
		if c.Status == "ENDED" && (c.LocalAddress == "" || !strings.HasPrefix(c.Protocol, "mqtt") || c.Transport != "tls" || c.ConnectionID == "") {
			t.Errorf("entry %+v has not its surroundings", c)
		}
		if c.Status == "ENDED" && (c.DurationMS == nil || c.ConnectedAt == "" || c.DisconnectedAt < c.ConnectedAt) {
			t.Errorf("entry %+v has not its times", c)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	// As of the past, also from before the restarts, and of parts of the time.
	first0, err := time.Parse(time.RFC3339, all[4].ConnectedAt)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Time]int{begun: 0, first0: 1, time.Now(): 0} {
		then, err := api.FleetConnections(ctx, at, 0)
		if err != nil || then.Count != want {
			t.Errorf("at %v %d were connected, %v; want %d", at, then.Count, err, want)
		}
	}
	some, err := api.ThingConnections(ctx, "pump", apiclient.Span{From: begun, To: first0.Add(time.Millisecond)}, 0)
	if err != nil || len(some) != 1 || some[0].ConnectedAt != all[4].ConnectedAt {
		t.Errorf("the first millisecond: %+v, %v", some, err)
	}
	newest, err := api.ThingConnections(ctx, "pump", apiclient.Span{}, 2)
	if err != nil || len(newest) != 2 {
		t.Errorf("the newest two: %+v, %v", newest, err)
	}
}
