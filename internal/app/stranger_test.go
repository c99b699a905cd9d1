package app

import (
	"crypto/tls"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/mqtt/client"
)

// TestOnlyOurOwnLeaveConnectFailures connects with three certificates that may
// not: one nobody registered, one that is inactive, one without permission.
// Only the last is one of the fleet, so only its refusal is recorded.
func TestOnlyOurOwnLeaveConnectFailures(t *testing.T) {
	t.Parallel()
	a := newApp(t, settings(t))
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	elsewhere := newApp(t, settings(t))
	for _, c := range []struct {
		maker  *App
		active bool
		id     string
	}{{elsewhere, true, "stranger"}, {a, false, "inactive"}, {a, true, "unauthorized"}} {
		made, err := c.maker.registry.CreateKeysAndCertificate(t.Context(), a.settings.AccountID, c.active)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair([]byte(made.PEM), []byte(made.PrivatePEM))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := client.Dial(t.Context(), a.Addr(listenerMQTT).String(), &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		if connected, err := client.Connect(t.Context(), conn, client.Options{ClientID: c.id}); err == nil {
			t.Errorf("%s was admitted", c.id)
			_ = connected.Close()
		}
	}
	if err := a.presence.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	oldest, err := a.store.Oldest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	events, _, err := a.store.Events(t.Context(), oldest, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var recorded []string
	for _, e := range events {
		if refused, ok := e.Event.(event.ConnectRefused); ok {
			recorded = append(recorded, refused.ClientID)
		}
	}
	if len(recorded) != 1 || recorded[0] != "unauthorized" {
		t.Errorf("recorded refusals of %v, want only unauthorized", recorded)
	}
}
