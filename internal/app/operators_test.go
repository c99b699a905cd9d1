package app

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
)

// ended waits until a client's connection is over.
func ended(t *testing.T, c *client.Client) {
	t.Helper()
	select {
	case <-c.Done():
	case <-time.After(5 * time.Second):
		t.Error("the connection goes on")
	}
}

// operatorOn makes a user that may use MQTT and connects it.
func operatorOn(t *testing.T, s *liveApp, name string, onMessage func(*mqtt.Publish)) (*client.Client, account.AccessKey) {
	t.Helper()
	ctx, of := t.Context(), s.settings.AccountID
	if _, err := s.accounts.CreateUser(ctx, of, name); err != nil {
		t.Fatal(err)
	}
	allow(t, s, name, `["iot:Connect","iot:Publish","iot:Subscribe","iot:Receive"]`)
	key, err := s.accounts.CreateAccessKey(ctx, of, name)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := s.connect(opening{keyID: key.ID, secret: key.Secret}, client.Options{ClientID: name, Version: mqtt.V5, OnMessage: onMessage})
	return c, key
}

// allow replaces what a user may do.
func allow(t *testing.T, s *liveApp, name, actions string) {
	t.Helper()
	err := s.accounts.PutInlinePolicy(t.Context(), s.settings.AccountID, account.Owner{Kind: "user", Name: name}, "own",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Resource":"*","Action":`+actions+`}}`)
	if err != nil {
		t.Fatal(err)
	}
}

// TestTakenPermissionActsOnLiveWebSocket changes what an operator may do while it
// is connected; the change must be felt by the next packet after the call.
func TestTakenPermissionActsOnLiveWebSocket(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	var got atomic.Int32
	reader, _ := operatorOn(t, s, "reader", func(*mqtt.Publish) { got.Add(1) })
	writer, _ := s.connect(opening{}, client.Options{ClientID: "root"})
	if codes, err := reader.Subscribe(t.Context(), mqtt.Subscription{Filter: "a/#", QoS: 1}); err != nil || codes[0] > 1 {
		t.Fatal(codes, err)
	}
	// A publish to itself comes after what was delivered before.
	echo := func() {
		t.Helper()
		if err := reader.Publish(t.Context(), "a/echo", 1, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Publish(t.Context(), "a/b", 1, nil); err != nil {
		t.Fatal(err)
	}
	echo()
	deadline := time.Now().Add(5 * time.Second)
	for got.Load() < 2 {
		if time.Now().After(deadline) {
			t.Fatalf("%d messages, want 2", got.Load())
		}
		if err := reader.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	allow(t, s, "reader", `["iot:Connect","iot:Publish"]`)
	if err := writer.Publish(t.Context(), "a/b", 1, nil); err != nil {
		t.Fatal(err)
	}
	if err := reader.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := got.Load(); n != 2 {
		t.Errorf("%d messages: one came after the permission to receive was gone", n)
	}
	if codes, err := reader.Subscribe(t.Context(), mqtt.Subscription{Filter: "b/#", QoS: 1}); err != nil || codes[0] != mqtt.NotAuthorized {
		t.Errorf("subscribe: %v %v", codes, err)
	}
}

// TestTakenKeyEndsLiveWebSocket takes a key, a user and a session away.
func TestTakenKeyEndsLiveWebSocket(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	of := s.settings.AccountID
	other, _ := operatorOn(t, s, "other", nil)
	for name, take := range map[string]func(user string, key account.AccessKey) error{
		"deactivated": func(_ string, key account.AccessKey) error {
			return s.accounts.SetAccessKeyStatus(t.Context(), of, key.ID, account.KeyInactive)
		},
		"deleted": func(_ string, key account.AccessKey) error {
			return s.accounts.DeleteAccessKey(t.Context(), of, key.ID)
		},
		"gone": func(user string, _ account.AccessKey) error { return s.accounts.DeleteUser(t.Context(), of, user) },
	} {
		c, key := operatorOn(t, s, name, nil)
		if err := c.Publish(t.Context(), "x", 1, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := take(name, key); err != nil {
			t.Fatal(err)
		}
		ended(t, c)
		if _, status, _ := s.open(opening{keyID: key.ID, secret: key.Secret}); status != 403 {
			t.Errorf("%s: opened again: %d", name, status)
		}
	}
	if err := other.Ping(t.Context()); err != nil {
		t.Errorf("another operator's connection ended: %v", err)
	}
}

// TestSessionsOpenWebSockets uses the credentials of a session, which bound the
// connection's life and void it.
func TestSessionsOpenWebSockets(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	ctx, of := t.Context(), s.settings.AccountID
	if _, err := s.accounts.CreateRole(ctx, of, "watch", account.RoleSpec{Trust: `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + string(of) + `"},"Action":"sts:AssumeRole"}}`}); err != nil {
		t.Fatal(err)
	}
	if err := s.accounts.AttachPolicy(ctx, of, account.Owner{Kind: "role", Name: "watch"}, "MusterOperator"); err != nil {
		t.Fatal(err)
	}
	session, err := s.accounts.Assume(ctx, account.RootPrincipal(of), account.AssumeRole{RoleARN: "arn:aws:iam::" + string(of) + ":role/watch", SessionName: "console"})
	if err != nil {
		t.Fatal(err)
	}
	as := opening{keyID: session.ID, secret: session.Secret, token: session.Token}
	c, _ := s.connect(as, client.Options{ClientID: "console-1", Version: mqtt.V5})
	if err := c.Publish(ctx, "x", 1, nil); err != nil {
		t.Error(err)
	}
	found := s.gatekeeper.signed.of(of)
	if len(found) != 1 {
		t.Errorf("%d signed connections are known, want 1", len(found))
	}
	for g := range found {
		if g.principal != session.Principal || g.principal.Kind != fleet.PrincipalRole {
			t.Errorf("connected as %+v", g.principal)
		}
	}
	if err := s.accounts.RevokeSessions(ctx, of, account.Owner{Kind: "role", Name: "watch"}); err != nil {
		t.Fatal(err)
	}
	ended(t, c)
	if _, status, _ := s.open(as); status != 403 {
		t.Errorf("opened again: %d", status)
	}
	deadline := time.Now().Add(5 * time.Second)
	for len(s.gatekeeper.signed.of(of)) > 0 {
		if time.Now().After(deadline) {
			t.Fatal("ended connections are kept")
		}
	}
}

// TestWebSocketEndsWithItsSession opens a WebSocket by a session that has a moment
// left.
func TestWebSocketEndsWithItsSession(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	ctx, of := t.Context(), s.settings.AccountID
	if _, err := s.accounts.CreateRole(ctx, of, "watch", account.RoleSpec{Trust: `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + string(of) + `"},"Action":"sts:AssumeRole"}}`}); err != nil {
		t.Fatal(err)
	}
	if err := s.accounts.AttachPolicy(ctx, of, account.Owner{Kind: "role", Name: "watch"}, "MusterOperator"); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(s.settings.DataDir, datadir.SecretsDir, "session-tokens"))
	if err != nil {
		t.Fatal(err)
	}
	const left = 3 * time.Second
	earlier := account.New(account.Options{Store: s.store, SessionKey: key, Now: func() time.Time { return time.Now().Add(left - 15*time.Minute) }})
	session, err := earlier.RoleSession(ctx, of, "watch", "console", 15*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	as := opening{keyID: session.ID, secret: session.Secret, token: session.Token}
	c, _ := s.connect(as, client.Options{ClientID: "console-1", Version: mqtt.V5})
	select {
	case <-c.Done():
	case <-time.After(2 * left):
		t.Fatal("the connection outlives its session")
	}
	if now := time.Now(); now.Before(session.Until) {
		t.Errorf("ended %v before the session", session.Until.Sub(now))
	}
	var refused *client.RefusedError
	if !errors.As(c.Err(), &refused) || refused.Reason != mqtt.MaximumConnectTime {
		t.Errorf("ended by %v", c.Err())
	}
	if _, status, body := s.open(as); status != 403 || !strings.Contains(body, "expired") {
		t.Errorf("opened again: %d %s", status, body)
	}
}
