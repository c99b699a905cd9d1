package broker_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// Every way in which a connection can end has its reason, its DISCONNECT in
// MQTT 5, and its will or none: the table of AWS's lifecycle events.
func TestEnds(t *testing.T) {
	t.Parallel()
	disconnect := func(reason broker.DisconnectReason) func(*world, *peer) {
		return func(w *world, _ *peer) { w.broker.Disconnect(account, "c", reason) }
	}
	sends := func(packets ...mqtt.Packet) func(*world, *peer) {
		return func(_ *world, p *peer) { p.send(packets...) }
	}
	tests := map[string]struct {
		act      func(*world, *peer)
		reason   broker.DisconnectReason
		code     mqtt.ReasonCode // Success: no DISCONNECT is sent
		noWill   bool
		byClient bool
	}{
		"DISCONNECT":              {sends(&mqtt.Disconnect{}), broker.ReasonClientInitiated, 0, true, true},
		"DISCONNECT with will":    {sends(&mqtt.Disconnect{Reason: mqtt.DisconnectWithWill}), broker.ReasonClientInitiated, 0, false, true},
		"transport dropped":       {func(_ *world, p *peer) { _ = p.conn.Close() }, broker.ReasonConnectionLost, 0, false, false},
		"second CONNECT":          {sends(connectPacket(mqtt.V5, "c")), broker.ReasonClientError, mqtt.ProtocolError, false, false},
		"AUTH":                    {sends(&mqtt.Auth{}), broker.ReasonClientError, mqtt.ProtocolError, false, false},
		"PUBREL":                  {sends(&mqtt.Ack{Kind: mqtt.TypePubrel, PacketID: 1}), broker.ReasonClientError, mqtt.ProtocolError, false, false},
		"packet of servers":       {sends(&mqtt.Pingresp{}), broker.ReasonClientError, mqtt.ProtocolError, false, false},
		"malformed SUBSCRIBE":     {func(_ *world, p *peer) { p.raw([]byte{0x82, 6, 0, 1, 0, 0, 1, 'a'}) }, broker.ReasonClientError, mqtt.MalformedPacket, false, false},
		"oversized packet":        {func(_ *world, p *peer) { p.raw([]byte{0x30, 0xFF, 0xFF, 0xFF, 0x7F}) }, broker.ReasonClientError, mqtt.PacketTooLarge, false, false},
		"QoS 2":                   {sends(message(2, "a", "")), broker.ReasonClientError, mqtt.QoSNotSupported, false, false},
		"retained, $ topic":       {sends(&mqtt.Publish{Retain: true, Topic: []byte("$aws/things/x")}), broker.ReasonClientError, mqtt.TopicNameInvalid, false, false},
		"topic too deep":          {sends(message(0, "1/2/3/4/5/6/7/8/9", "")), broker.ReasonClientError, mqtt.TopicNameInvalid, false, false},
		"undefined reserved":      {sends(message(0, "$aws/nothing", "")), broker.ReasonClientError, mqtt.TopicNameInvalid, false, false},
		"undefined reserved sub":  {sends(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "$aws/no/+"}}}), broker.ReasonClientError, mqtt.TopicFilterInvalid, false, false},
		"malformed filter":        {sends(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a#"}}}), broker.ReasonClientError, mqtt.TopicFilterInvalid, false, false},
		"QoS 2 subscription":      {sends(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a", QoS: 2}}}), broker.ReasonClientError, mqtt.QoSNotSupported, false, false},
		"subscription identifier": {sends(&mqtt.Subscribe{PacketID: 1, Properties: mqtt.Properties{SubscriptionIDs: []uint32{1}}, Subscriptions: []mqtt.Subscription{{Filter: "a"}}}), broker.ReasonClientError, mqtt.SubscriptionIDNotSupported, false, false},
		"shared without local":    {sends(&mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "$share/g/a", NoLocal: true}}}), broker.ReasonClientError, mqtt.ProtocolError, false, false},
		"expiry raised from 0": {
			sends(&mqtt.Disconnect{Properties: mqtt.Properties{Set: mqtt.Of(mqtt.PropSessionExpiry), SessionExpiry: 1}}),
			broker.ReasonClientError, mqtt.ProtocolError, false, false,
		},
		"user properties too large": {sends(&mqtt.Publish{Topic: []byte("a"), Properties: mqtt.Properties{
			UserProperties: []mqtt.UserProperty{{Key: "k", Value: string(make20k())}},
		}}), broker.ReasonClientError, mqtt.QuotaExceeded, false, false},
		"too many empty user properties": {sends(&mqtt.Publish{Topic: []byte("a"), Properties: mqtt.Properties{
			UserProperties: make([]mqtt.UserProperty, 20_000),
		}}), broker.ReasonClientError, mqtt.QuotaExceeded, false, false},
		"unauthorized QoS 0": {sends(message(0, "forbidden", "")), broker.ReasonAuthError, mqtt.NotAuthorized, false, false},
		"recheck": {func(w *world, _ *peer) {
			w.broker.Recheck(func(s broker.SessionInfo) bool { return s.ClientID != "c" })
		}, broker.ReasonAuthError, mqtt.NotAuthorized, false, false},
		"principal":             {func(w *world, _ *peer) { w.broker.DisconnectPrincipal(account, "cert-c", broker.ReasonAuthError) }, broker.ReasonAuthError, mqtt.NotAuthorized, false, false},
		"taken over":            {func(w *world, _ *peer) { w.connect(mqtt.V311, "c") }, broker.ReasonDuplicateClientID, mqtt.SessionTakenOver, false, false},
		"keep-alive":            {func(*world, *peer) { time.Sleep(1802 * time.Second) }, broker.ReasonKeepAliveTimeout, mqtt.KeepAliveTimeout, false, false},
		"deleted by API":        {disconnect(broker.ReasonAPIInitiated), broker.ReasonAPIInitiated, mqtt.AdministrativeAction, false, false},
		"forbidden access":      {disconnect(broker.ReasonForbiddenAccess), broker.ReasonForbiddenAccess, mqtt.NotAuthorized, false, false},
		"throttled":             {disconnect(broker.ReasonThrottled), broker.ReasonThrottled, mqtt.QuotaExceeded, false, false},
		"server error":          {disconnect(broker.ReasonServerError), broker.ReasonServerError, mqtt.UnspecifiedError, false, false},
		"WebSocket lifetime":    {disconnect(broker.ReasonWebSocketExpired), broker.ReasonWebSocketExpired, mqtt.MaximumConnectTime, false, false},
		"authorizer's lifetime": {disconnect(broker.ReasonCustomAuthorExpired), broker.ReasonCustomAuthorExpired, mqtt.MaximumConnectTime, false, false},
		"server action":         {disconnect(broker.ReasonServerInitiated), broker.ReasonServerInitiated, mqtt.ServerShuttingDown, false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, topic.AWS, func(w *world) {
				t := w.t
				w.gate.refuse("publish forbidden")
				// The watcher's keep-alive outlives the longest case.
				watcher := w.connect(mqtt.V311, "watcher")
				watcher.subscribe(mqtt.Subscription{Filter: "will"})
				p := w.connect(mqtt.V5, "c", withWill("will"))
				synctest.Wait()
				go keepAlive(t.Context(), watcher)
				tt.act(w, p)
				if !p.isClosed() {
					t.Fatal("connection is still open")
				}
				if diff := cmp.Diff([]ending{{"c", tt.reason, tt.byClient}}, w.seen.ends()); diff != "" {
					t.Errorf("ends (-want +got):\n%s", diff)
				}
				checkFarewell(t, p, tt.code)
				wills := 0
				for _, packet := range watcher.all() {
					if packet.Type() == mqtt.TypePublish {
						wills++
					}
				}
				if (wills == 0) != tt.noWill || wills > 1 {
					t.Errorf("%d wills", wills)
				}
			})
		})
	}
}

// make20k returns more than the limit of user properties.
func make20k() []byte {
	b := make([]byte, 20<<10)
	for i := range b {
		b[i] = 'x'
	}
	return b
}

// keepAlive pings for a client until the test ends.
func keepAlive(ctx context.Context, p *peer) {
	ticker := time.NewTicker(10 * time.Minute)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if _, err := p.conn.Write([]byte{0xC0, 0}); err != nil {
				return
			}
		}
	}
}

// checkFarewell wants a DISCONNECT with the code as the last packet, or none.
func checkFarewell(t *testing.T, p *peer, code mqtt.ReasonCode) {
	t.Helper()
	got := p.all()
	if code == mqtt.Success {
		if len(got) != 0 {
			t.Errorf("received %+v", got)
		}
		return
	}
	if len(got) == 0 {
		t.Fatal("no DISCONNECT")
	}
	if d, ok := got[len(got)-1].(*mqtt.Disconnect); !ok || d.Reason != code {
		t.Errorf("last packet %+v, want DISCONNECT 0x%02X", got[len(got)-1], byte(code))
	}
}

// MQTT 3.1.1 has no DISCONNECT from the server: the connection is closed.
func TestEndsSilentlyBefore5(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		w.gate.refuse("publish forbidden")
		p := w.connect(mqtt.V311, "c")
		p.send(message(1, "forbidden", ""))
		if !p.isClosed() || len(p.all()) != 0 {
			t.Error("not closed, or not silently")
		}
		if diff := cmp.Diff([]ending{{"c", broker.ReasonAuthError, false}}, w.seen.ends()); diff != "" {
			t.Errorf("ends (-want +got):\n%s", diff)
		}
	})
}

// A message that a service could not take in is not acknowledged: MQTT 3.1.1
// has no other way to say so than to close.
func TestServiceFails(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		old, current := w.connect(mqtt.V311, "old"), w.connect(mqtt.V5, "current")
		old.send(message(1, "$aws/things/a/later", ""))
		current.send(message(1, "$aws/things/b/later", ""))
		synctest.Wait()
		w.service.finish(0, fault.New(fault.Unavailable, "disk"))
		w.service.finish(1, fault.New(fault.Throttling, "busy"))
		if !old.isClosed() || len(old.all()) != 0 {
			t.Error("3.1.1 is told something else than the end")
		}
		if diff := cmp.Diff([]ending{{"old", broker.ReasonServerError, false}}, w.seen.ends()); diff != "" {
			t.Errorf("ends (-want +got):\n%s", diff)
		}
		if got, ok := current.next().(*mqtt.Ack); !ok || got.Reason != mqtt.QuotaExceeded {
			t.Errorf("PUBACK %+v", got)
		}
	})
}

func TestKeepAlive(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		profile  topic.Profile
		asked    uint16
		deadline time.Duration // 0: none
	}{
		"kept":              {topic.AWS, 60, 90 * time.Second},
		"raised to 30":      {topic.AWS, 1, 45 * time.Second},
		"lowered to 1200":   {topic.AWS, 65535, 1800 * time.Second},
		"0 is 1200":         {topic.AWS, 0, 1800 * time.Second},
		"standard: kept":    {topic.Standard, 2, 3 * time.Second},
		"standard: longest": {topic.Standard, 65535, 98303 * time.Second},
		"standard: 0":       {topic.Standard, 0, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, tt.profile, func(w *world) {
				t := w.t
				p := w.connect(mqtt.V311, "c", func(c *mqtt.Connect) { c.KeepAlive = tt.asked })
				if tt.deadline == 0 {
					time.Sleep(200000 * time.Second)
					if p.isClosed() {
						t.Error("closed without a keep-alive")
					}
					return
				}
				for range 3 { // a packet begins the time anew
					time.Sleep(tt.deadline - time.Second)
					p.send(&mqtt.Pingreq{})
				}
				time.Sleep(tt.deadline - time.Second)
				if p.isClosed() {
					t.Fatal("closed too early")
				}
				time.Sleep(3 * time.Second)
				if !p.isClosed() {
					t.Error("still open")
				}
			})
		})
	}
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		reader := w.connect(mqtt.V5, "reader")
		stuck := w.dialSilent(mqtt.V5) // takes its CONNACK and nothing else
		stuck.sendLater(connectPacket(mqtt.V5, "stuck"))
		if _, err := stuck.conn.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		half := w.dial(mqtt.V311) // no CONNECT yet
		synctest.Wait()
		began := time.Now()
		if err := w.broker.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
		checkFarewell(t, reader, mqtt.ServerShuttingDown)
		if !half.isClosed() {
			t.Error("connection without a session is still open")
		}
		for _, e := range w.seen.ends() {
			if e.Reason != broker.ReasonServerInitiated {
				t.Errorf("%s ended with %s", e.ClientID, e.Reason)
			}
		}
		if len(w.seen.ends()) != 2 || w.gate.guards() != 0 {
			t.Errorf("%d ends, %d guards left", len(w.seen.ends()), w.gate.guards())
		}
	})
}

// lifelong admits for a time that the gatekeeper sets.
type lifelong struct {
	*gate
	life   time.Duration
	reason broker.DisconnectReason
}

func (g lifelong) Admit(ctx context.Context, c *broker.ConnectRequest) (broker.Admission, error) {
	a, err := g.gate.Admit(ctx, c)
	a.Until, a.UntilReason = time.Now().Add(g.life), g.reason
	return a, err
}

// A connection ends when its gatekeeper said, for the reason it gave, whatever
// the client sends meanwhile; its will is published.
func TestLifetimes(t *testing.T) {
	t.Parallel()
	for _, reason := range []broker.DisconnectReason{broker.ReasonCustomAuthorExpired, broker.ReasonWebSocketExpired} {
		inWorld(t, topic.AWS, func(w *world) {
			t := w.t
			p := w.connect(mqtt.V5, "c", withWill("$aws/things/x/will"))
			time.Sleep(299 * time.Second)
			p.send(&mqtt.Pingreq{})
			if p.isClosed() {
				t.Fatal("ended too early")
			}
			p.all()
			time.Sleep(2 * time.Second)
			if got, ok := p.next().(*mqtt.Disconnect); !ok || got.Reason != mqtt.MaximumConnectTime || !p.isClosed() {
				t.Errorf("%s: farewell %+v", reason, got)
			}
			if diff := cmp.Diff([]ending{{"c", reason, false}}, w.seen.ends()); diff != "" {
				t.Errorf("ends (-want +got):\n%s", diff)
			}
		}, func(o *broker.Options) {
			o.Gatekeeper = lifelong{o.Gatekeeper.(*gate), 300 * time.Second, reason}
		})
	}
}
