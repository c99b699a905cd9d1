package broker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// The CONNACK properties are those observed on AWS IoT.
func TestConnackProperties(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		p := w.dial(mqtt.V5)
		p.send(connectPacket(mqtt.V5, "c", func(c *mqtt.Connect) {
			c.KeepAlive = 5
			c.Properties = mqtt.Properties{Set: mqtt.Of(mqtt.PropSessionExpiry), SessionExpiry: 3600}
		}))
		want := &mqtt.Connack{Properties: mqtt.Properties{
			Set: mqtt.Of(mqtt.PropReceiveMaximum, mqtt.PropMaximumQoS, mqtt.PropRetainAvailable, mqtt.PropMaximumPacketSize,
				mqtt.PropTopicAliasMaximum, mqtt.PropWildcardAvailable, mqtt.PropSubscriptionIDAllowed, mqtt.PropSharedAvailable,
				mqtt.PropServerKeepAlive, mqtt.PropSessionExpiry),
			ReceiveMaximum: 100, MaximumQoS: 1, RetainAvailable: 1, MaximumPacketSize: 149504, TopicAliasMaximum: 8, WildcardAvailable: 1,
			SharedAvailable: 1, ServerKeepAlive: 30, SessionExpiry: 3600,
		}}
		if diff := cmp.Diff(mqtt.Packet(want), p.next()); diff != "" {
			t.Errorf("CONNACK (-want +got):\n%s", diff)
		}
	})
}

func TestConnectRefused(t *testing.T) {
	t.Parallel()
	will := func(c func(*mqtt.Will)) func(*mqtt.Connect) {
		return func(p *mqtt.Connect) {
			p.Will = &mqtt.Will{Topic: "a"}
			c(p.Will)
		}
	}
	long := make([]byte, 129)
	for i := range long {
		long[i] = 'x'
	}
	tests := map[string]struct {
		id     string
		change func(*mqtt.Connect)
		v5, v4 mqtt.ReasonCode
	}{
		"leading $":              {"$c", func(*mqtt.Connect) {}, mqtt.ClientIDNotValid, 2},
		"129 bytes":              {string(long), func(*mqtt.Connect) {}, mqtt.ClientIDNotValid, 2},
		"will of QoS 2":          {"c", will(func(w *mqtt.Will) { w.QoS = 2 }), mqtt.QoSNotSupported, 5},
		"will retained, $ topic": {"c", will(func(w *mqtt.Will) { w.Topic, w.Retain = "$aws/things/x", true }), mqtt.TopicNameInvalid, 5},
		"will topic too deep":    {"c", will(func(w *mqtt.Will) { w.Topic = "1/2/3/4/5/6/7/8/9" }), mqtt.TopicNameInvalid, 5},
		"will topic undefined":   {"c", will(func(w *mqtt.Will) { w.Topic = "$nobody/x" }), mqtt.TopicNameInvalid, 5},
		"authentication method":  {"c", func(c *mqtt.Connect) { c.Properties.Set, c.Properties.AuthMethod = mqtt.Of(mqtt.PropAuthMethod), "m" }, mqtt.BadAuthenticationMethod, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, topic.AWS, func(w *world) {
				t := w.t
				for v, want := range map[mqtt.Version]mqtt.ReasonCode{mqtt.V5: tt.v5, mqtt.V311: tt.v4} {
					p := w.dial(v)
					p.send(connectPacket(v, tt.id, tt.change))
					got, ok := p.next().(*mqtt.Connack)
					if !ok || got.Reason != want {
						t.Errorf("version %d: %+v, want 0x%02X", v, got, byte(want))
					}
					if p.isClosed() != want.Failed() && want != 2 && want != 5 {
						t.Errorf("version %d: closed is %v", v, p.isClosed())
					}
				}
			})
		})
	}
}

func TestGatekeeperRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err    error
		v5, v4 mqtt.ReasonCode
		failed string
		denied []string
	}{
		"forbidden":    {fault.New(fault.Forbidden, "no"), mqtt.NotAuthorized, 5, "c AUTHORIZATION_FAILED", []string{"iot:Connect c"}},
		"unauthorized": {fault.New(fault.Unauthorized, "no"), mqtt.NotAuthorized, 5, "c AUTHORIZATION_FAILED", []string{"iot:Connect c"}},
		"throttled":    {fault.New(fault.Throttling, "no"), mqtt.QuotaExceeded, 3, "c THROTTLED", nil},
		"unavailable":  {fault.New(fault.Unavailable, "no"), mqtt.ServerUnavailable, 3, "c SERVER_ERROR", nil},
		"uncoded":      {errors.New("disk"), mqtt.ServerUnavailable, 3, "c SERVER_ERROR", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, topic.AWS, func(w *world) {
				t := w.t
				w.gate.err = tt.err
				for v, want := range map[mqtt.Version]mqtt.ReasonCode{mqtt.V5: tt.v5, mqtt.V311: tt.v4} {
					p := w.dial(v)
					p.send(connectPacket(v, "c"))
					if got, ok := p.next().(*mqtt.Connack); !ok || got.Reason != want {
						t.Errorf("version %d: %+v, want 0x%02X", v, got, byte(want))
					}
					if !p.isClosed() {
						t.Errorf("version %d: still open", v)
					}
				}
				if w.seen.failed[0] != tt.failed || len(w.seen.failed) != 2 {
					t.Errorf("ConnectFailed %q", w.seen.failed)
				}
				if diff := cmp.Diff(append(tt.denied, tt.denied...), w.seen.denials()); diff != "" {
					t.Errorf("denials (-want +got):\n%s", diff)
				}
				if len(w.seen.connected) != 0 || w.gate.guards() != 0 {
					t.Error("a refused client counts as connected")
				}
			})
		})
	}
}

func TestEmptyClientID(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		p := w.dial(mqtt.V5)
		p.send(connectPacket(mqtt.V5, ""))
		got, ok := p.next().(*mqtt.Connack)
		if !ok || got.Properties.AssignedClientID == "" || got.Properties.AssignedClientID != w.seen.connected[0].ClientID {
			t.Errorf("assigned %+v, session of %q", got, w.seen.connected[0].ClientID)
		}
		// Clients that keep the id come back with it.
		again := w.dial(mqtt.V5)
		again.send(connectPacket(mqtt.V5, got.Properties.AssignedClientID))
		if second, ok := again.next().(*mqtt.Connack); !ok || second.Reason != mqtt.Success {
			t.Errorf("reconnect with %s: %+v", got.Properties.AssignedClientID, second)
		}
		w.connect(mqtt.V311, "") // clean session: accepted
		refused := w.dial(mqtt.V311)
		refused.send(connectPacket(mqtt.V311, "", func(c *mqtt.Connect) { c.CleanStart = false }))
		if got, ok := refused.next().(*mqtt.Connack); !ok || got.Reason != 2 {
			t.Errorf("empty id with persistent session: %+v", got)
		}
	})
}

// MQTT 3.1 exists in the standard profile only.
func TestOldVersions(t *testing.T) {
	t.Parallel()
	for profile, want := range map[topic.Profile]mqtt.ReasonCode{topic.AWS: 1, topic.Standard: 0} {
		inWorld(t, profile, func(w *world) {
			t := w.t
			p := w.dial(mqtt.V31)
			p.send(connectPacket(mqtt.V31, "c"))
			if got, ok := p.next().(*mqtt.Connack); !ok || got.Reason != want {
				t.Errorf("profile %d: %+v, want %d", profile, got, want)
			}
		})
	}
}

// A persistent session waits for its client, with its subscriptions and what
// came meanwhile at QoS 1.
func TestPersistentSession(t *testing.T) {
	t.Parallel()
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		inWorld(t, topic.AWS, func(w *world) {
			t := w.t
			persistent := func(c *mqtt.Connect) {
				c.CleanStart = false
				if v == mqtt.V5 {
					c.Properties = mqtt.Properties{Set: mqtt.Of(mqtt.PropSessionExpiry), SessionExpiry: 600}
				}
			}
			first := w.connect(v, "c", persistent)
			first.subscribe(mqtt.Subscription{Filter: "a", QoS: 1})
			first.send(&mqtt.Disconnect{})
			pub := w.connect(v, "pub")
			pub.send(message(0, "a", "lost"), message(1, "a", "1"), message(1, "a", "2"))
			second := w.dial(v)
			second.send(connectPacket(v, "c", persistent))
			if got, ok := second.next().(*mqtt.Connack); !ok || !got.SessionPresent {
				t.Errorf("CONNACK %+v", got)
			}
			if diff := cmp.Diff([]string{"a 1", "a 2"}, second.messages()); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(w.seen.connected[0].SessionID, w.seen.connected[2].SessionID); diff != "" {
				t.Errorf("session identifier (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFirstPacketWithinTenSeconds(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		silent, slow := w.dial(mqtt.V311), w.dial(mqtt.V311)
		slow.raw([]byte{0x10, 0x20, 0})
		time.Sleep(9 * time.Second)
		if silent.isClosed() || slow.isClosed() {
			t.Fatal("closed after 9 s")
		}
		time.Sleep(2 * time.Second)
		if !silent.isClosed() || !slow.isClosed() {
			t.Error("still open after 11 s")
		}
	})
}

// Clients should wait for CONNACK; those that do not are served all the same.
func TestEarlyData(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		together := w.dial(mqtt.V311)
		together.send(connectPacket(mqtt.V311, "a"), &mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "t"}}}, message(0, "t", "1"))
		bytewise := w.dial(mqtt.V311)
		var b []byte
		for _, p := range []mqtt.Packet{connectPacket(mqtt.V311, "b"), &mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "u"}}}, message(0, "u", "1")} {
			b, _ = p.Append(b, mqtt.V311)
		}
		for i := range b {
			bytewise.raw(b[i : i+1])
		}
		for _, p := range []*peer{together, bytewise} {
			got := p.all()
			if len(got) != 3 || got[0].Type() != mqtt.TypeConnack || got[1].Type() != mqtt.TypeSuback || got[2].Type() != mqtt.TypePublish {
				t.Errorf("received %+v", got)
			}
		}
	})
}

func TestConnectRequestIsComplete(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		w.connect(mqtt.V5, "c", func(c *mqtt.Connect) {
			c.HasUsername, c.Username, c.HasPassword, c.Password = true, "?SDK=x", true, []byte("p")
			c.Will = &mqtt.Will{Topic: "w", Payload: []byte("x"), QoS: 1}
			c.Properties = mqtt.Properties{Set: mqtt.Of(mqtt.PropSessionExpiry), SessionExpiry: 9}
		})
		want := broker.ConnectRequest{
			ClientID: "c", RemoteAddr: "pipe", LocalAddr: "pipe", Transport: broker.TransportTCP, Version: 5, CleanStart: true, SessionExpiry: 9, ListenerName: "pipe",
			Will: &broker.Message{Topic: "w", Payload: []byte("x"), QoS: 1}, Username: "?SDK=x", Password: []byte("p"),
		}
		if diff := cmp.Diff(want, w.gate.asked[0]); diff != "" {
			t.Errorf("request (-want +got):\n%s", diff)
		}
		if !w.gate.asked[0].Persistent() {
			t.Error("a session expiry above 0 is persistent")
		}
	})
}

func TestHandleAfterShutdown(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		if err := w.broker.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
		p := w.dial(mqtt.V311)
		if !p.isClosed() {
			t.Error("connection is still taken")
		}
	})
}
