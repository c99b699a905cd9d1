package app

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
)

// plainClient connects without TLS.
func plainClient(t *testing.T, a *App, id string) (*client.Client, error) {
	t.Helper()
	conn, err := client.Dial(t.Context(), a.Addr(listenerPlain).String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Connect(t.Context(), conn, client.Options{ClientID: id})
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// TestDrainRefusesAndEnds drains a server with two devices, looks at what it
// says meanwhile, and lets devices in again.
func TestDrainRefusesAndEnds(t *testing.T) {
	t.Parallel()
	a := newApp(t, settings(t))
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var devices []*client.Client
	for i := range 2 {
		c, err := plainClient(t, a, fmt.Sprint("device-", i))
		if err != nil {
			t.Fatal(err)
		}
		devices = append(devices, c)
	}
	if err := a.StartDrain(t.Context(), -1); err != nil {
		t.Fatal(err)
	}
	if status, body := get(t, a, "/readyz"); status != 503 || !strings.Contains(body, "draining") {
		t.Errorf("readyz: %d %s", status, body)
	}
	for _, c := range devices {
		<-c.Done()
	}
	a.drains.Wait()
	if s := a.drainStatus(); !s.Draining || s.Connected != 2 || s.Remaining != 0 {
		t.Errorf("%+v", s)
	}
	if _, err := plainClient(t, a, "late"); err == nil || !strings.Contains(err.Error(), "0x89") && !strings.Contains(err.Error(), "0x03") {
		t.Errorf("a device that comes late: %v", err)
	}
	if err := a.StartDrain(t.Context(), 0); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("a second drain: %v", err)
	}
	if !a.endDrain() {
		t.Error("no drain to end")
	}
	if _, err := plainClient(t, a, "late"); err != nil {
		t.Errorf("after the drain: %v", err)
	}
	if status, _ := get(t, a, "/readyz"); status != 200 {
		t.Errorf("readyz after the drain: %d", status)
	}
	if status, _ := get(t, a, "/ops/v1/drain"); status != 403 {
		t.Errorf("unsigned: %d", status)
	}
}

// TestStopTellsDevicesToLeave ends a running server: its devices are told, and
// those who come meanwhile are refused. Somebody in a hurry does not wait.
func TestStopTellsDevicesToLeave(t *testing.T) {
	t.Parallel()
	for _, hurried := range []bool{false, true} {
		s := settings(t)
		s.Drain.Over = time.Hour // a small fleet leaves sooner
		hurry := make(chan struct{})
		a, err := New(t.Context(), Options{Settings: s, LogTo: io.Discard, Version: "test", Hurry: hurry})
		if err != nil {
			t.Fatal(err)
		}
		ctx, interrupt := context.WithCancel(t.Context())
		ready, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- a.Run(ctx, func() { close(ready) }) }()
		<-ready
		var devices []*client.Client
		for i := range 300 {
			c, err := plainClient(t, a, fmt.Sprint("device-", i))
			if err != nil {
				t.Fatal(err)
			}
			devices = append(devices, c)
		}
		if hurried {
			close(hurry)
		}
		begun := time.Now()
		interrupt()
		for _, c := range devices {
			<-c.Done()
		}
		took := time.Since(begun)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if !hurried && took < 200*time.Millisecond {
			t.Errorf("300 devices left within %v", took)
		}
	}
}

// TestPacesAndQuotasAreWired asks the running server to hold a client to a
// quota, and for its pace.
func TestPacesAndQuotasAreWired(t *testing.T) {
	t.Parallel()
	s := settings(t)
	s.Limits.ClientConnects = 1
	s.Limits.AccountRetained = 1
	a := newApp(t, s)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := plainClient(t, a, "often")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plainClient(t, a, "often"); err == nil {
		t.Error("two connections in one second")
	}
	for i, want := range []bool{true, false} {
		err := c.PublishPacket(t.Context(), &mqtt.Publish{Topic: fmt.Appendf(nil, "kept/%d", i), Payload: []byte("x"), QoS: 1, Retain: true})
		if (err == nil) != want {
			t.Errorf("message %d to be retained: %v", i, err)
		}
	}
	if a.admission().ConnectsPerSecond < connectsPerCore {
		t.Errorf("%+v", a.admission())
	}
	status, body := get(t, a, "/metrics")
	for _, want := range []string{
		`muster_broker_quota_exceeded_total{quota="client_connects"} 1`,
		`muster_broker_admissions_total{class="other",outcome="admitted",stage="connect"} 1`,
		`muster_broker_admissions_total{class="returning",outcome="admitted",stage="connect"} 1`,
		`muster_broker_admissions_waiting{class="returning",stage="connect"} 0`,
	} {
		if status != 200 || !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}
