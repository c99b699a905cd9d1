package mqttapi

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/connectivity"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/mqtt"
)

// declarations takes what is declared and answers by the thing's name.
type declarations struct {
	mu    sync.Mutex
	taken []connectivity.Declaration
}

func (d *declarations) Declare(one connectivity.Declaration) {
	done := one.Done
	one.Done = nil
	d.mu.Lock()
	d.taken = append(d.taken, one)
	d.mu.Unlock()
	if one.Thing == "refused" {
		go done(connectivity.Declared{}, fault.New(fault.Forbidden, "not for %s", one.Thing))
		return
	}
	go done(connectivity.Declared{State: connectivity.Online, StateVersion: 3}, nil)
}

// A declaration is handed on with its connection, acknowledged, and answered to
// whoever subscribed; what is malformed never reaches the domain.
func TestDeclarations(t *testing.T) {
	t.Parallel()
	d := &declarations{}
	w := newWorld(t, func(o *Options) { o.Connectivity = d })
	p := w.connect("pump", mqtt.V5, nil)
	p.subscribe("$muster/connectivity/+/+/+")
	for _, step := range []struct{ topic, payload, answer string }{
		{"pump/hello", `{"heartbeatSeconds":60,"clientToken":"t"}`, `pump/hello/accepted {"timestamp":1795412345000,"state":"ONLINE","stateVersion":3,"clientToken":"t"}`},
		{"pump/heartbeat", ``, `pump/heartbeat/accepted {"timestamp":1795412345000,"state":"ONLINE","stateVersion":3}`},
		{"pump/goodbye", `{"sleepSeconds":1.5}`, `pump/goodbye/accepted {"timestamp":1795412345000,"state":"ONLINE","stateVersion":3}`},
		{"pump/goodbye", `{"nextContact":1795412346000,"lost":true}`, `pump/goodbye/accepted {"timestamp":1795412345000,"state":"ONLINE","stateVersion":3}`},
		{"refused/hello", `{"clientToken":"t"}`, `refused/hello/rejected {"timestamp":1795412345000,"code":403,"message":"not for refused","clientToken":"t"}`},
		{"pump/goodbye", `{"nextContact":1,"sleepSeconds":1}`, `pump/goodbye/rejected {"timestamp":1795412345000,"code":400,"message":"nextContact, sleepSeconds: give one of them"}`},
		{"pump/hello", `{"heartbeatSeconds":0}`, `pump/hello/rejected {"timestamp":1795412345000,"code":400,"message":"heartbeatSeconds: must be above 0 and at most 2147483647"}`},
		{"pump/hello", `[]`, `pump/hello/rejected {"timestamp":1795412345000,"code":400,`},
	} {
		p.publish(connectivityPrefix+step.topic, step.payload)
		got := p.wait(1)
		p.mu.Lock()
		p.got = nil
		p.mu.Unlock()
		if !strings.HasPrefix(strings.TrimPrefix(got[0], connectivityPrefix), step.answer) {
			t.Errorf("%s %s is answered by %s, want %s", step.topic, step.payload, got[0], step.answer)
		}
	}
	want := []connectivity.Declaration{
		{Thing: "pump", Operation: connectivity.Hello, Interval: time.Minute},
		{Thing: "pump", Operation: connectivity.Heartbeat},
		{Thing: "pump", Operation: connectivity.Goodbye, Sleep: 1500 * time.Millisecond},
		{Thing: "pump", Operation: connectivity.Goodbye, NextContact: time.UnixMilli(1795412346000), Lost: true},
		{Thing: "refused", Operation: connectivity.Hello},
	}
	got := d.taken
	for i := range got {
		if got[i].Account != account || got[i].ClientID != "pump" || got[i].ConnectionID == "" || !got[i].At.Equal(instant()) {
			t.Errorf("declared by %+v", got[i])
		}
		got[i].Account, got[i].ClientID, got[i].ConnectionID, got[i].At = "", "", "", time.Time{}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(connectivity.Declaration{})); diff != "" {
		t.Errorf("declared (-want +got):\n%s", diff)
	}
}

// States are the server's to publish, in the documented form.
func TestConnectivityStateMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.connect("watcher", mqtt.V311, nil)
	p.subscribe("$muster/connectivity/+/state")
	at := time.UnixMilli(1795341600123)
	tell := func(e event.ConnectivityStateChanged) {
		t.Helper()
		if err := w.handler.Apply(t.Context(), []event.Envelope{{Account: account, At: at, Event: e}}); err != nil {
			t.Fatal(err)
		}
	}
	tell(event.ConnectivityStateChanged{
		Thing: "pump-7", ClientID: "pump-7", StateVersion: 41, From: "SUSPECT", To: "OFFLINE_DIRTY", Since: time.UnixMilli(1795341582000),
		DisconnectReason: "MQTT_KEEP_ALIVE_TIMEOUT", Wait: 18120 * time.Millisecond, SessionID: "7f0c", ConnectionVersion: 12, FlapScore: 1.7,
		LastSeen: time.UnixMilli(1795341560000), Blips: 3, Alert: true,
	})
	tell(event.ConnectivityStateChanged{Thing: "s-1", StateVersion: 2, From: "OFFLINE_DIRTY", To: "RECOVERED", Since: at, Outage: time.Minute, Gateway: "gw"})
	want := []string{
		`$muster/connectivity/pump-7/state {"thingName":"pump-7","clientId":"pump-7","stateVersion":41,"from":"SUSPECT","to":"OFFLINE_DIRTY",` +
			`"at":1795341600123,"since":1795341582000,"disconnectReason":"MQTT_KEEP_ALIVE_TIMEOUT","clean":false,"waitMs":18120,` +
			`"sessionIdentifier":"7f0c","versionNumber":12,"flapScore":1.7,"flapping":false,"blips":3,"lastSeen":1795341560000,"alert":true}`,
		`$muster/connectivity/s-1/state {"thingName":"s-1","stateVersion":2,"from":"OFFLINE_DIRTY","to":"RECOVERED","at":1795341600123,` +
			`"since":1795341600123,"outageMs":60000,"flapScore":0,"flapping":false,"blips":0,"gateway":"gw","alert":false}`,
	}
	if diff := cmp.Diff(want, p.wait(2)); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	for _, name := range []string{"$muster/connectivity/pump-7/state", "$muster/connectivity/pump-7/hello/accepted", "$muster/connectivity/x", "$muster/x"} {
		if _, ok := w.handler.Reserved(&broker.Publish{Account: account, Topic: name, ConnectionID: "c"}, func(error, ...broker.Message) {}); ok {
			t.Errorf("a client may publish to %s", name)
		}
		if w.handler.CanPublishReserved(name) {
			t.Errorf("a will may go to %s", name)
		}
	}
	if w.handler.CanPublishReserved("$muster/connectivity/pump-7/hello") {
		t.Error("a will may declare")
	}
}

// Whatever a payload holds, it is refused or makes a declaration within bounds.
func FuzzDeclaration(f *testing.F) {
	for _, seed := range []string{``, `{}`, `{"heartbeatSeconds":60,"clientToken":"t"}`, `{"sleepSeconds":1e300}`, `{"nextContact":-1}`, `{"lost":true}`, `[`, `{} {}`} {
		f.Add([]byte(seed), byte(0))
		f.Add([]byte(seed), byte(2))
	}
	operations := []connectivity.Operation{connectivity.Hello, connectivity.Heartbeat, connectivity.Goodbye}
	f.Fuzz(func(t *testing.T, payload []byte, which byte) {
		operation := operations[int(which)%len(operations)]
		token, d, err := readDeclaration(payload, operation)
		if err != nil {
			if code := fault.CodeOf(err); code != fault.InvalidRequest && code != fault.RequestEntityTooLarge {
				t.Errorf("%q: %v", payload, err)
			}
			return
		}
		if len(token) > maxDeclarationToken || d.Interval < 0 || d.Sleep < 0 || !d.NextContact.IsZero() && d.Sleep != 0 {
			t.Errorf("%q: %q, %+v", payload, token, d)
		}
		if operation != connectivity.Goodbye && (d.Sleep != 0 || d.Lost || !d.NextContact.IsZero()) {
			t.Errorf("%s of %q: %+v", operation, payload, d)
		}
	})
}
