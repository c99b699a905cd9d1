package app

import (
	"crypto/x509"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/registry"
)

// stateMessage is what of a message on $muster/connectivity/…/state is looked at.
type stateMessage struct {
	ThingName        string `json:"thingName"`
	StateVersion     int64  `json:"stateVersion"`
	From             string `json:"from"`
	To               string `json:"to"`
	DisconnectReason string `json:"disconnectReason"`
	Gateway          string `json:"gateway"`
}

// mailbox keeps messages by topic.
type mailbox struct {
	s    *site
	mu   sync.Mutex
	got  []string
	more chan struct{}
}

func (s *site) mailbox() *mailbox { return &mailbox{s: s, more: make(chan struct{}, 1)} }

func (m *mailbox) put(p *mqtt.Publish) {
	m.mu.Lock()
	m.got = append(m.got, string(p.Topic)+" "+string(p.Payload))
	m.mu.Unlock()
	select {
	case m.more <- struct{}{}:
	default:
	}
}

// next waits for a message on a topic and takes it and those before it.
func (m *mailbox) next(topic string) string {
	m.s.t.Helper()
	late := time.After(20 * time.Second)
	for {
		m.mu.Lock()
		for i, line := range m.got {
			if payload, ok := strings.CutPrefix(line, topic+" "); ok {
				m.got = m.got[i+1:]
				m.mu.Unlock()
				return payload
			}
		}
		seen := strings.Join(m.got, "\n")
		m.mu.Unlock()
		select {
		case <-m.more:
		case <-late:
			m.s.t.Fatalf("no message on %s; there were:\n%s", topic, seen)
		}
	}
}

// state waits for a thing's next change of state.
func (m *mailbox) state(thing string) stateMessage {
	m.s.t.Helper()
	var out stateMessage
	m.s.need(json.Unmarshal([]byte(m.next("$muster/connectivity/"+thing+"/state")), &out))
	return out
}

// wantState compares a thing's next change of state.
func (m *mailbox) wantState(want stateMessage) {
	m.s.t.Helper()
	if diff := cmp.Diff(want, m.state(want.ThingName)); diff != "" {
		m.s.t.Errorf("state of %s (-want +got):\n%s", want.ThingName, diff)
	}
}

// found waits until a search finds these things.
func (s *site) found(api *apiclient.Client, query string, want ...string) {
	s.t.Helper()
	late := time.Now().Add(10 * time.Second)
	for {
		hits, err := api.Search(s.t.Context(), query, 0)
		s.need(err)
		var names []string
		for _, hit := range hits {
			names = append(names, hit.ThingName)
		}
		diff := cmp.Diff(want, names)
		if diff == "" {
			return
		}
		if time.Now().After(late) {
			s.t.Fatalf("%s (-want +got):\n%s", query, diff)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-s.t.Context().Done():
			s.t.Fatal(s.t.Context().Err())
		}
	}
}

// monitoring §8 and §12 through a whole server: a device whose connection is
// killed is SUSPECT, then OFFLINE_DIRTY, on its topic, in SearchIndex and in the
// answers of /ops/v1; a gateway and what lies behind it are told apart; only the
// server publishes states.
func TestConnectivityOfDevices(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	api := s.operator()
	device, gate, other := s.badge(&x509.Certificate{}), s.badge(&x509.Certificate{}), s.badge(&x509.Certificate{})
	s.policy("all", `{"Effect":"Allow","Action":"iot:*","Resource":"*"}`, device.arn, gate.arn, other.arn)
	s.thing("pump-1", nil, device.arn)
	s.thing("gate-1", nil, gate.arn)
	s.thing("sensor-1", nil)
	s.found(api, "muster.connectivity.state:NEVER_SEEN", "gate-1", "pump-1", "sensor-1")
	wait := 0.5
	s.need(api.PutConnectivitySettings(ctx, "", apiclient.ConnectivitySettings{WaitSeconds: &wait}))

	states := s.mailbox()
	watcher, err := s.dial(other, client.Options{ClientID: "watcher", OnMessage: states.put})
	s.need(err)
	if _, err := watcher.Subscribe(ctx, mqtt.Subscription{Filter: "$muster/connectivity/+/state", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	answers := s.mailbox()
	join := func(b badge, name string, m *mailbox) (*client.Client, net.Conn) {
		t.Helper()
		conn := s.wire(b)
		c, err := client.Connect(ctx, conn, client.Options{ClientID: name, Version: mqtt.V5, KeepAlive: 30, OnMessage: m.put})
		s.need(err)
		if _, err := c.Subscribe(ctx, mqtt.Subscription{Filter: "$muster/connectivity/+/+/+", QoS: 1}, mqtt.Subscription{Filter: "to/" + name, QoS: 1}); err != nil {
			t.Fatal(err)
		}
		return c, conn
	}
	pump, wire := join(device, "pump-1", answers)
	states.wantState(stateMessage{ThingName: "pump-1", StateVersion: 1, From: "NEVER_SEEN", To: "FIRST_CONNECTED"})
	s.need(pump.Publish(ctx, "$muster/connectivity/pump-1/hello", 1, []byte(`{"heartbeatSeconds":60,"clientToken":"t1"}`)))
	if got := answers.next("$muster/connectivity/pump-1/hello/accepted"); !strings.Contains(got, `"state":"ONLINE","stateVersion":2,"clientToken":"t1"`) {
		t.Errorf("hello is answered by %s", got)
	}
	states.wantState(stateMessage{ThingName: "pump-1", StateVersion: 2, From: "FIRST_CONNECTED", To: "ONLINE"})
	for payload, want := range map[string]string{
		`{"heartbeatSeconds":1}`: "heartbeatSeconds", `{"sleepSeconds":9}`: "are for goodbye", `{"x":1}`: "unknown field", `{} {}`: "behind", `[`: "JSON",
		`{"clientToken":"` + strings.Repeat("x", 2000) + `"}`: "longer than",
	} {
		s.need(pump.Publish(ctx, "$muster/connectivity/pump-1/heartbeat", 1, []byte(payload)))
		if got := answers.next("$muster/connectivity/pump-1/heartbeat/rejected"); !strings.Contains(got, want) {
			t.Errorf("%s is answered by %s", payload, got)
		}
	}
	// A device speaks for itself only.
	s.need(pump.Publish(ctx, "$muster/connectivity/gate-1/hello", 1, nil))
	if got := answers.next("$muster/connectivity/gate-1/hello/rejected"); !strings.Contains(got, `"code":403`) {
		t.Errorf("hello for another device is answered by %s", got)
	}
	// What it acknowledges is measured.
	s.need(watcher.Publish(ctx, "to/pump-1", 1, nil))
	answers.next("to/pump-1")

	// Killed: no DISCONNECT is sent.
	s.need(wire.Close())
	states.wantState(stateMessage{ThingName: "pump-1", StateVersion: 3, From: "ONLINE", To: "SUSPECT", DisconnectReason: "CONNECTION_LOST"})
	states.wantState(stateMessage{ThingName: "pump-1", StateVersion: 4, From: "SUSPECT", To: "OFFLINE_DIRTY", DisconnectReason: "CONNECTION_LOST"})
	s.found(api, "muster.connectivity.state:OFFLINE_DIRTY AND muster.connectivity.flapping:false", "pump-1")
	s.found(api, "muster.connectivity.since>1000 AND muster.connectivity.disconnectReason:CONNECTION_LOST", "pump-1")
	s.found(api, "OFFLINE_DIRTY") // a term without a field looks elsewhere
	if trips := (liveSessions{s.App}).RoundTrips(); len(trips) != 1 || trips[0].Thing != "pump-1" || trips[0].Last <= 0 {
		t.Errorf("measured %+v", trips)
	}
	v, err := api.Connectivity(ctx, "pump-1")
	if err != nil || v.State != "OFFLINE_DIRTY" || v.Connected || v.HeartbeatSeconds != 60 || *v.Settings.WaitSeconds != 0.5 ||
		v.Settings.From["waitSeconds"] != "(account)" || len(v.Recent) != 4 || v.Recent[0].WaitMS < 500 {
		t.Errorf("%+v, %v", v, err)
	}
	_, wire = join(device, "pump-1", answers)
	states.wantState(stateMessage{ThingName: "pump-1", StateVersion: 5, From: "OFFLINE_DIRTY", To: "RECOVERED"})

	// Behind the gateway.
	speaker, gateWire := join(gate, "gate-1", answers)
	s.need(speaker.Publish(ctx, "$muster/connectivity/sensor-1/hello", 1, nil))
	answers.next("$muster/connectivity/sensor-1/hello/accepted")
	s.found(api, "muster.connectivity.gateway:gate-1 AND muster.connectivity.state:ONLINE", "sensor-1")
	s.need(gateWire.Close())
	for {
		m := states.state("sensor-1")
		if m.To == "OFFLINE_DIRTY" {
			if m.DisconnectReason != "GATEWAY_OFFLINE" || m.Gateway != "gate-1" {
				t.Errorf("%+v", m)
			}
			break
		}
	}
	sum, err := api.ConnectivitySummary(ctx)
	if err != nil || sum.Things != 3 || sum.States["RECOVERED"] != 1 || sum.States["OFFLINE_DIRTY"] != 2 || sum.States["NEVER_SEEN"] != 0 {
		t.Errorf("%+v, %v", sum, err)
	}

	// Certificate taken out of service.
	s.need(s.registry.UpdateCertificate(ctx, s.account, device.id, registry.StatusInactive))
	s.found(api, "muster.connectivity.state:BLOCKED", "pump-1")
	_ = wire.Close()

	// Only the server tells states.
	for _, topic := range []string{"$muster/connectivity/gate-1/state", "$muster/connectivity/gate-1/hello/accepted", "$muster/connectivity/gate-1/other"} {
		liar := s.connect(gate, "liar")
		if err := liar.Publish(ctx, topic, 1, nil); err == nil {
			t.Errorf("a client published to %s", topic)
		}
	}
	if err := s.topics.PublishReserved(ctx, s.reservedPublish("$muster/connectivity/gate-1/hello")); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("a declaration without a connection: %v", err)
	}
	report, err := s.Doctor(ctx)
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("doctor: %+v, %v", report.Findings, err)
	}
}

// After a kill of the process devices that come back were never offline, and the
// state version goes on where it was.
func TestConnectivityAfterARestart(t *testing.T) {
	t.Parallel()
	settings := settings(t)
	first := &site{App: newApp(t, settings), t: t, account: settings.AccountID}
	first.need(first.Start(t.Context()))
	device := first.badge(&x509.Certificate{})
	first.policy("all", `{"Effect":"Allow","Action":"iot:*","Resource":"*"}`, device.arn)
	first.thing("pump-1", nil, device.arn)
	wait := 0.2
	first.need(first.operator().PutConnectivitySettings(t.Context(), "", apiclient.ConnectivitySettings{WaitSeconds: &wait}))
	pump := first.connect(device, "pump-1")
	first.need(pump.Publish(t.Context(), "$muster/connectivity/pump-1/hello", 1, nil))
	first.found(first.operator(), "muster.connectivity.state:ONLINE", "pump-1")
	first.need(first.Stop(t.Context()))

	second := &site{App: newApp(t, settings), t: t, account: settings.AccountID}
	second.need(second.Start(t.Context()))
	api := second.operator()
	second.found(api, "muster.connectivity.state:SUSPECT", "pump-1")
	// Longer than the wait state, shorter than the grace.
	for until := time.Now().Add(time.Second); time.Now().Before(until); {
		second.found(api, "muster.connectivity.state:SUSPECT", "pump-1")
	}
	second.connect(device, "pump-1")
	second.found(api, "muster.connectivity.state:ONLINE AND muster.connectivity.blips:1", "pump-1")
	v, err := api.Connectivity(t.Context(), "pump-1")
	if err != nil || v.StateVersion != 4 || v.Outages != 0 {
		t.Errorf("%+v, %v", v, err)
	}
	if v.Recent[0].From != "SUSPECT" || v.Recent[1].From != "ONLINE" {
		t.Errorf("changes %+v", v.Recent)
	}
}

// reservedPublish is a publish by HTTP.
func (s *site) reservedPublish(topic string) *broker.Publish {
	return &broker.Publish{Account: s.account, ClientID: "gate-1", Topic: topic, QoS: 1}
}
