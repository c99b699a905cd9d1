package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/muster-iot/muster/internal/connectivity"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/registry"
)

// issued is a certificate of our own authority.
func (s *site) issued() badge {
	s.t.Helper()
	made, err := s.registry.CreateKeysAndCertificate(s.t.Context(), s.account, true)
	s.need(err)
	pair, err := tls.X509KeyPair([]byte(made.PEM), []byte(made.PrivatePEM))
	s.need(err)
	return badge{id: made.ID, arn: made.ARN, pair: pair}
}

// mark says what a certificate is for.
func (s *site) mark(b badge, c registry.SetPurposeCommand) {
	s.t.Helper()
	c.ID = b.id
	_, err := s.registry.SetCertificatePurpose(s.t.Context(), s.account, c)
	s.need(err)
}

// birthSite is a server with a template, a policy for everything, and a birth
// certificate that has it.
func birthSite(t *testing.T, c registry.SetPurposeCommand) (*site, badge) {
	t.Helper()
	s := newSite(t, func(a *App) { a.gatekeeper.custom = customEveryone{life: time.Hour} })
	_, err := s.provisioning.CreateTemplate(t.Context(), s.account, provisioning.CreateTemplateCommand{
		Name: "join", Body: renewalTemplate, RoleARN: "arn:aws:iam::000000000000:role/p", Enabled: true,
	})
	s.need(err)
	b := s.issued()
	s.policy("all", mayAll, b.arn)
	c.Purpose = registry.PurposeBirth
	s.mark(b, c)
	return s, b
}

// everyFamily are topics of all families that there are.
var everyFamily = []string{
	"plant/leeds/t", "a", "$aws/things/victim/shadow/update", "$aws/things/victim/shadow/get", "$aws/things/victim/shadow/delete",
	"$aws/things/victim/shadow/name/n/update", "$aws/things/victim/shadow/update/delta", "$aws/things/victim/jobs/get", "$aws/things/victim/jobs/start-next",
	"$aws/things/victim/defender/metrics/json", "$aws/things/victim/streams/s/get/json", "$aws/things/victim/greengrass/health/json",
	"$aws/rules/r", "$aws/rules/r/plant/t", "$aws/events/presence/connected/victim", "$aws/events/thing/victim/created",
	"$aws/certificates/delete/json", "$aws/certificates/create", "$aws/certificates/create/json/accepted", "$aws/certificates/create/xml",
	"$aws/provisioning-templates/join/provision/json/accepted", "$aws/provisioning-templates/join/provision/xml", "$aws/provisioning-templates/join",
	"$aws/commands/things/victim/executions/e/request/json", "$muster/things/victim/hello", "$muster/connectivity/victim/goodbye", "$muster/bootstrap/put", "$SYS/broker",
}

// everyFilter are filters that reach beyond provisioning.
var everyFilter = []string{
	"#", "+/#", "plant/#", "$aws/#", "$aws/+/create/json/accepted", "$aws/certificates/#", "$aws/certificates/+/json/accepted",
	"$aws/provisioning-templates/#", "$aws/provisioning-templates/+/provision/#", "$aws/provisioning-templates/join/#",
	"$aws/things/+/shadow/#", "$aws/things/victim/shadow/get/accepted", "$aws/things/victim/jobs/notify-next", "$aws/events/#", "$aws/events/presence/+/#",
	"$muster/#", "$share/g/#", "$share/g/plant/t", "$share/g/$aws/certificates/create/json/accepted", "$share/g/$aws/provisioning-templates/join/provision/#",
}

// TestBirthCertificateAchievesNothingElse has a birth certificate with a policy
// that allows everything try all there is: over MQTT 3.1.1 and 5, over HTTPS, over
// WebSockets, and beside a custom authorizer.
func TestBirthCertificateAchievesNothingElse(t *testing.T) {
	t.Parallel()
	s, birth := birthSite(t, registry.SetPurposeCommand{Serial: "B7-0042"})
	own := s.issued()
	s.thing("victim", nil, own.arn)
	s.need(s.registry.AttachPolicy(t.Context(), s.account, "all", own.arn))
	var heard atomic.Int32
	witness, err := s.dial(own, client.Options{ClientID: "victim", OnMessage: func(*mqtt.Publish) { heard.Add(1) }})
	s.need(err)
	for _, filter := range []string{"#", "$aws/things/victim/shadow/update/documents"} {
		if code := s.code(witness, filter); code > 2 {
			t.Fatalf("the witness cannot subscribe to %s: 0x%02X", filter, code)
		}
	}
	if status := s.https(own, http.MethodPost, "/things/victim/shadow", `{"state":{"reported":{"a":1}}}`); status != http.StatusOK {
		t.Fatalf("the witness has no shadow: %d", status)
	}
	s.need(witness.PublishPacket(t.Context(), &mqtt.Publish{Topic: []byte("kept"), QoS: 1, Retain: true, Payload: []byte("x")}))
	s.eventually("the witness hears", func() bool { return heard.Load() == 2 })

	refused := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s is allowed", what)
		}
	}
	for _, version := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		options := client.Options{ClientID: "B7-0042", Version: version}
		// A refused publish ends the connection before MQTT 5, and one to a topic that
		// nobody can publish to in every version.
		fresh := func() *client.Client {
			t.Helper()
			c, err := s.dial(birth, options)
			s.need(err)
			return c
		}
		for _, name := range everyFamily {
			for _, retain := range []bool{false, true} {
				c := fresh()
				refused(fmt.Sprintf("version %d: publish %s, retained %t", version, name, retain),
					c.PublishPacket(t.Context(), &mqtt.Publish{Topic: []byte(name), QoS: 1, Retain: retain, Payload: []byte(`{"state":{"reported":{"a":2}}}`)}))
				s.need(c.Close())
			}
		}
		c := fresh()
		refused("a retained request", c.PublishPacket(t.Context(), &mqtt.Publish{Topic: []byte("$aws/certificates/create/json"), QoS: 1, Retain: true}))
		for _, filter := range everyFilter {
			c := fresh()
			codes, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: filter, QoS: 1})
			if err == nil && codes[0] < 0x80 {
				t.Errorf("version %d: subscribe %s is allowed", version, filter)
			}
			s.need(c.Close())
		}
		for _, name := range []string{"plant/t", "$aws/certificates/create/json", "$aws/things/victim/shadow/update"} {
			for _, retain := range []bool{false, true} {
				o := options
				o.Will = &mqtt.Will{Topic: name, Retain: retain, Payload: []byte("x")}
				_, err := s.dial(birth, o)
				refused("a will on "+name, err)
			}
		}
		for _, id := range []string{"victim", "B7-0043", "other"} {
			o := options
			o.ClientID = id
			_, err := s.dial(birth, o)
			refused("client id "+id, err)
		}
		// A session ends with its connection.
		o := options
		o.Persistent = true
		if version == mqtt.V5 {
			o.Properties.Set, o.Properties.SessionExpiry = mqtt.Of(mqtt.PropSessionExpiry), 600
		}
		kept, err := s.dial(birth, o)
		s.need(err)
		if connack := kept.Connack(); version == mqtt.V5 && connack.Properties.SessionExpiry != 0 {
			t.Errorf("the session lasts %d seconds", connack.Properties.SessionExpiry)
		}
		s.need(kept.Close())
		again, err := s.dial(birth, o)
		s.need(err)
		if connack := again.Connack(); connack.SessionPresent {
			t.Errorf("version %d: a session has waited", version)
		}
		s.need(again.Close())
	}
	for _, call := range [][2]string{
		{http.MethodPost, "/topics/plant/t?qos=1"}, {http.MethodPost, "/topics/%24aws/certificates/create/json?qos=1"},
		{http.MethodPost, "/topics/%24aws/provisioning-templates/join/provision/json"}, {http.MethodPost, "/topics/a?retain=true"},
		{http.MethodGet, "/things/victim/shadow"}, {http.MethodPost, "/things/victim/shadow"}, {http.MethodDelete, "/things/victim/shadow"},
		{http.MethodPost, "/things/B7-0042/shadow?name=n"}, {http.MethodGet, "/things/victim/shadow?name=n"}, {http.MethodDelete, "/things/victim/shadow?name=n"},
		{http.MethodGet, "/api/things/shadow/ListNamedShadowsForThing/victim"}, {http.MethodGet, "/retainedMessage/kept"}, {http.MethodGet, "/retainedMessage"},
	} {
		if status := s.https(birth, call[0], call[1], `{"state":{"reported":{"a":3}}}`); status != http.StatusForbidden {
			t.Errorf("%s %s: %d", call[0], call[1], status)
		}
	}
	// The same credentials of a custom authorizer let in whoever shows no birth
	// certificate.
	for _, show := range []*badge{nil, &own, &birth} {
		c, err := s.customSocket(show)
		if show == &birth {
			refused("a custom authorizer beside it", err)
			continue
		}
		s.need(err)
		s.need(c.Close())
	}
	if heard.Load() != 2 || s.https(own, http.MethodGet, "/retainedMessage/a", "") != http.StatusNotFound {
		t.Errorf("something of it was heard or kept: %d messages", heard.Load())
	}
	select {
	case <-witness.Done():
		t.Errorf("the witness was pushed out: %v", witness.Err())
	default:
	}

	// And it does what it is for.
	device := s.asking(birth, "B7-0042")
	made := device.renew("B7-0042")
	s.eventually("the used certificate is out", func() bool {
		select {
		case <-device.Done():
			return true
		default:
			return false
		}
	})
	if s.status(s.account, birth.id) != registry.StatusInactive {
		t.Error("the birth certificate is still active")
	}
	if c := s.connect(made, "B7-0042"); !s.publishes(c, "plant/t") {
		t.Error("the operational certificate is held as well")
	}
	_, err = s.dial(birth, client.Options{ClientID: "B7-0042"})
	refused("a used certificate", err)
}

// customSocket connects over a WebSocket with credentials that the custom admitter
// takes, beside a certificate or none.
func (s *site) customSocket(show *badge) (*client.Client, error) {
	s.t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}
	if show != nil {
		config.Certificates = []tls.Certificate{show.pair}
	}
	transport := &http.Transport{DisableKeepAlives: true, DialTLSContext: (&tls.Dialer{Config: config}).DialContext}
	defer transport.CloseIdleConnections()
	socket, _, err := websocket.Dial(s.t.Context(), "https://"+s.Addr(listenerTLS).String()+webSocketPath, &websocket.DialOptions{ //nolint:bodyclose // the library has replaced it by bytes
		HTTPClient: &http.Client{Transport: transport}, HTTPHeader: http.Header{"Token": {"open sesame"}}, Subprotocols: []string{webSocketProtocol},
	})
	s.need(err)
	s.t.Cleanup(func() { _ = socket.CloseNow() })
	return client.Connect(s.t.Context(), websocket.NetConn(context.WithoutCancel(s.t.Context()), socket, websocket.MessageBinary), client.Options{ClientID: "by-custom"})
}

// ended waits until a connection is over, and how.
func (s *site) ended(c *client.Client, want mqtt.ReasonCode) {
	s.t.Helper()
	select {
	case <-c.Done():
	case <-time.After(10 * time.Second):
		s.t.Fatal("the connection lasts")
	}
	if refused := (*client.RefusedError)(nil); !errors.As(c.Err(), &refused) || refused.Reason != want {
		s.t.Errorf("the connection ended with %v", c.Err())
	}
}

// A connection for provisioning lasts as long as its certificate says.
func TestBirthSessionEnds(t *testing.T) {
	t.Parallel()
	s, birth := birthSite(t, registry.SetPurposeCommand{Limits: registry.BirthLimits{Session: 1}})
	begun := time.Now()
	s.ended(s.connect(birth, "B7-0042"), mqtt.MaximumConnectTime)
	if lasted := time.Since(begun); lasted < 900*time.Millisecond {
		t.Errorf("it lasted %s", lasted)
	}
}

// A live session obeys a mark, of its own or of its authority, by the time that the
// call answers, and comes back within the limits.
func TestMarkedWhileConnected(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.issued()
	s.policy("all", mayAll, b.arn)
	c := s.connect(b, "pump")
	if !s.publishes(c, "plant/t") {
		t.Fatal("refused before the mark")
	}
	s.mark(b, registry.SetPurposeCommand{Purpose: registry.PurposeClaim})
	if err := c.Publish(t.Context(), "plant/t", 1, nil); err == nil {
		t.Error("the session does not obey")
	}
	s.ended(c, mqtt.NotAuthorized)

	a := s.authority(registry.ModeDefault)
	under := a.badge(200, time.Hour)
	s.need(s.registry.AttachPolicy(t.Context(), s.account, "all", under.arn))
	live := s.connect(under, "pump-2")
	if !s.publishes(live, "plant/t") {
		t.Fatal("refused before the mark")
	}
	_, err := s.registry.DeclareCA(t.Context(), s.account, a.id, "ours")
	s.need(err)
	_, err = s.registry.SetCAPurpose(t.Context(), s.account, registry.SetCAPurposeCommand{CA: a.id, Purpose: registry.PurposeBirth, Fingerprint: a.id})
	s.need(err)
	if err := live.Publish(t.Context(), "plant/t", 1, nil); err == nil {
		t.Error("the session does not obey its authority's purpose")
	}
	s.ended(live, mqtt.NotAuthorized)
}

// A thing in quarantine keeps its connection and can do nothing with it but be
// provisioned, and is there after a restart too; released, it goes on.
func TestQuarantineWhileConnected(t *testing.T) {
	t.Parallel()
	settings := settings(t)
	s := startSite(t, settings)
	b := s.issued()
	s.policy("all", mayAll, b.arn)
	s.thing("pump", nil, b.arn)
	c := s.connect(b, "pump")
	_, err := s.registry.Quarantine(t.Context(), s.account, "pump", "why", "a test")
	s.need(err)
	if s.publishes(c, "plant/t") || s.code(c, "plant/t") < 0x80 || !s.publishes(c, "$aws/certificates/create/json") {
		t.Error("the session does not obey")
	}
	if state := s.state(t.Context(), "pump"); state != connectivity.FirstConnected && state != connectivity.Online {
		t.Errorf("a device in quarantine is %s", state)
	}
	s.need(s.Stop(context.WithoutCancel(t.Context())))
	s = startSite(t, settings)
	c = s.connect(b, "pump")
	if s.publishes(c, "plant/t") {
		t.Error("a restart has released it")
	}
	_, err = s.registry.Release(t.Context(), s.account, "pump", "because")
	s.need(err)
	if !s.publishes(c, "plant/t") {
		t.Error("the session is not released")
	}
}

// state waits until a thing has one.
func (s *site) state(ctx context.Context, thing string) (state connectivity.State) {
	s.t.Helper()
	s.eventually("a state of "+thing, func() bool {
		d, err := s.connectivity.Of(ctx, s.account, thing)
		state = d.State
		return err == nil && state != connectivity.NeverSeen
	})
	return state
}

// A device that is being provisioned is not in service: PROVISIONING, and not
// connected in the fleet index.
func TestConnectivityOfADeviceThatIsProvisioned(t *testing.T) {
	t.Parallel()
	s, birth := birthSite(t, registry.SetPurposeCommand{})
	device := s.asking(birth, "B7-0042")
	s.thing("B7-0042", nil, birth.arn)
	if state := s.state(t.Context(), "B7-0042"); state != connectivity.Provisioning {
		t.Errorf("the device is %s", state)
	}
	s.need(device.Disconnect())
	again := s.asking(birth, "B7-0042")
	made := again.renew("B7-0042")
	s.connect(made, "B7-0042")
	s.eventually("the device is in service", func() bool {
		d, err := s.connectivity.Of(t.Context(), s.account, "B7-0042")
		return err == nil && d.State == connectivity.FirstConnected
	})
	var connected []event.DeviceConnected
	for _, e := range s.log(t) {
		if c, ok := e.(event.DeviceConnected); ok {
			connected = append(connected, c)
		}
	}
	if len(connected) != 3 || !connected[0].Provisioning || connected[0].Indexed || !connected[1].Provisioning || connected[2].Provisioning || !connected[2].Indexed {
		t.Errorf("told %+v", connected)
	}
}

// log is all that was told.
func (s *site) log(t *testing.T) []event.Event {
	t.Helper()
	s.need(s.presence.Drain(t.Context()))
	oldest, err := s.store.Oldest(t.Context())
	s.need(err)
	envelopes, _, err := s.store.Events(t.Context(), oldest, 10_000)
	s.need(err)
	out := make([]event.Event, len(envelopes))
	for i := range envelopes {
		out[i] = envelopes[i].Event
	}
	return out
}

// What the operator is told of a refusal names the boundary.
func TestBoundaryIsExplained(t *testing.T) {
	t.Parallel()
	s, birth := birthSite(t, registry.SetPurposeCommand{})
	s.publishes(s.connect(birth, "pump"), "plant/t")
	refusals := s.refusals("pump")
	if len(refusals) != 1 || !strings.Contains(refusals[0].Reason, "system/Birth") || refusals[0].Principal.ARN != s.arn(fleet.ARNCertificate, birth.id) {
		t.Errorf("told %+v", refusals)
	}
}
