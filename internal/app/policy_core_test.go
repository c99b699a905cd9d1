package app

import (
	"crypto/x509"
	"net/http"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
)

// retained publishes with RETAIN.
func (s *site) retained(c *client.Client, topic, payload string) bool {
	s.t.Helper()
	return s.may(c.PublishPacket(s.t.Context(), &mqtt.Publish{Topic: []byte(topic), QoS: 1, Retain: true, Payload: []byte(payload)}))
}

// A retained publish needs iot:RetainPublish beside iot:Publish, a retained will
// both at CONNECT; who subscribes later needs iot:Receive for the stored copy.
func TestPolicyOfRetained(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b, reader := s.badge(&x509.Certificate{}), s.badge(&x509.Certificate{})
	s.policy("p", mayConnect+`,{"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/r/*"},
	 {"Effect":"Allow","Action":"iot:RetainPublish","Resource":["@:topic/r/kept","@:topic/r/hidden","@:topic/other"]}`, b.arn)
	s.policy("reader", mayConnect+`,{"Effect":"Allow","Action":["iot:Subscribe","iot:Receive"],"Resource":"*"},
	 {"Effect":"Deny","Action":"iot:Receive","Resource":"@:topic/r/hidden"}`, reader.arn)
	c := s.connect(b, "c")
	for topic, want := range map[string]bool{"r/kept": true, "r/hidden": true, "r/live": false, "other": false} {
		if got := s.retained(c, topic, topic); got != want {
			t.Errorf("retained publish to %s: %v, want %v", topic, got, want)
		}
	}
	actions := map[string]string{}
	for _, r := range s.refusals("c") {
		actions[r.Name] = r.Action
	}
	if actions["r/live"] != "iot:RetainPublish" || actions["other"] != "iot:Publish" || len(actions) != 2 {
		t.Errorf("refused %v", actions)
	}
	got := make(chan string, 4)
	sub, err := s.dial(reader, client.Options{ClientID: "reader", OnMessage: func(p *mqtt.Publish) { got <- string(p.Topic) }})
	s.need(err)
	for _, filter := range []string{"r/hidden", "r/kept"} {
		if code := s.code(sub, filter); code != 1 {
			t.Errorf("%s: 0x%02X", filter, code)
		}
	}
	if topic := s.next(got); topic != "r/kept" {
		t.Errorf("received %s", topic)
	}
	for topic, want := range map[string]bool{"r/kept": true, "r/live": false, "other": false} {
		o := client.Options{ClientID: "w", Will: &mqtt.Will{Topic: topic, Retain: true}}
		willing, err := s.dial(b, o)
		if s.may(err) != want {
			t.Errorf("retained will to %s: %v, want %v", topic, err, want)
		}
		if err == nil {
			_ = willing.Close()
		}
	}
}

// A shared subscription is granted by its whole text; its deliveries need
// iot:Receive on the topic.
func TestPolicyOfSharedSubscriptions(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.badge(&x509.Certificate{})
	s.policy("p", mayConnect+`,{"Effect":"Allow","Action":"iot:Publish","Resource":"*"},
	 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"@:topicfilter/$share/*/a/+"},
	 {"Effect":"Allow","Action":"iot:Receive","Resource":"@:topic/a/b"}`, b.arn)
	got := make(chan string, 4)
	c, err := s.dial(b, client.Options{ClientID: "c", OnMessage: func(p *mqtt.Publish) { got <- string(p.Topic) }})
	s.need(err)
	for filter, want := range map[string]mqtt.ReasonCode{"$share/g/a/+": 1, "$share/g/b": mqtt.NotAuthorized, "a/+": mqtt.NotAuthorized} {
		if code := s.code(c, filter); code != want {
			t.Errorf("%s: 0x%02X, want 0x%02X", filter, code, want)
		}
	}
	s.publishes(c, "a/secret")
	s.publishes(c, "a/b")
	if topic := s.next(got); topic != "a/b" {
		t.Errorf("received %s", topic)
	}
}

// What was queued for a session that is away needs iot:Receive when it is
// delivered, by the policies of then.
func TestPolicyOfQueuedMessages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.badge(&x509.Certificate{})
	s.policy("p", `{"Effect":"Allow","Action":"iot:*","Resource":"*"}`, b.arn)
	persistent := client.Options{ClientID: "away", Persistent: true}
	persistent.Properties.Set, persistent.Properties.SessionExpiry = mqtt.Of(mqtt.PropSessionExpiry), 300
	got := make(chan string, 4)
	persistent.OnMessage = func(p *mqtt.Publish) { got <- string(p.Topic) }
	c, err := s.dial(b, persistent)
	s.need(err)
	if code := s.code(c, "a/#"); code != 1 {
		t.Fatalf("SUBACK 0x%02X", code)
	}
	s.need(c.Disconnect())
	<-c.Done()
	pub := s.connect(b, "pub")
	s.publishes(pub, "a/secret")
	s.publishes(pub, "a/1")
	s.policy("deny", `{"Effect":"Deny","Action":"iot:Receive","Resource":"@:topic/a/secret"}`, b.arn)
	c, err = s.dial(b, persistent)
	s.need(err)
	if connack := c.Connack(); !connack.SessionPresent {
		t.Fatal("the session is gone")
	}
	if topic := s.next(got); topic != "a/1" {
		t.Errorf("received %s", topic)
	}
	if r := s.refusals("away"); len(r) != 1 || r[0].Packet != deviceauth.PacketDelivery || r[0].Name != "a/secret" {
		t.Errorf("refusals %+v", r)
	}
}

// Publishing over HTTPS has no client id and no thing.
func TestPolicyOfHTTPSPublish(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.badge(&x509.Certificate{})
	s.thing("pump-7", nil, b.arn)
	s.policy("p", `{"Effect":"Allow","Action":"iot:Publish","Resource":["@:topic/h","@:topic/${iot:ClientId}","@:topic/${iot:Connection.Thing.ThingName}"]},
	 {"Effect":"Allow","Action":"iot:RetainPublish","Resource":"@:topic/h"}`, b.arn)
	for path, want := range map[string]int{
		"/topics/h?qos=1": 200, "/topics/h?qos=1&retain=true": 200, "/topics/pump-7?qos=1": 403,
	} {
		if got := s.https(b, http.MethodPost, path, "x"); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	r := s.devices.PrincipalRefusals(s.account, b.id).Refusals
	if len(r) != 1 || r[0].Packet != deviceauth.PacketCall || r[0].Action != "iot:Publish" || !strings.Contains(r[0].Resource, "topic/pump-7") {
		t.Errorf("refusals %+v", r)
	}
}

// A message that was sent and not acknowledged is sent again only if the policies
// of then allow it.
func TestPolicyOfRedelivery(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.badge(&x509.Certificate{})
	s.policy("p", `{"Effect":"Allow","Action":"iot:*","Resource":"*"}`, b.arn)
	persistent := client.Options{ClientID: "away", Version: mqtt.V5, Persistent: true}
	persistent.Properties.Set, persistent.Properties.SessionExpiry = mqtt.Of(mqtt.PropSessionExpiry), 300
	got, forget := make(chan string, 4), make(chan struct{})
	persistent.OnMessage = func(p *mqtt.Publish) {
		got <- string(p.Topic)
		<-forget // the connection ends before the acknowledgement
	}
	wire := s.wire(b)
	c, err := client.Connect(t.Context(), wire, persistent)
	s.need(err)
	if code := s.code(c, "a/#"); code != 1 {
		t.Fatalf("SUBACK 0x%02X", code)
	}
	pub := s.connect(b, "pub")
	s.publishes(pub, "a/secret")
	s.publishes(pub, "a/1")
	if topic := s.next(got); topic != "a/secret" {
		t.Fatalf("received %s first", topic)
	}
	s.need(wire.Close())
	close(forget)
	<-c.Done()
	s.policy("deny", `{"Effect":"Deny","Action":"iot:Receive","Resource":"@:topic/a/secret"}`, b.arn)
	again := make(chan string, 4)
	persistent.OnMessage = func(p *mqtt.Publish) { again <- string(p.Topic) }
	_, err = s.dial(b, persistent)
	s.need(err)
	if topic := s.next(again); topic != "a/1" {
		t.Errorf("received %s", topic)
	}
}
