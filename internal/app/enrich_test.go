package app

import (
	"crypto/x509"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/registry"
)

// gained is a message with the user properties that came with it.
type gained struct {
	Topic      string
	Properties []mqtt.UserProperty
}

// hears subscribes a client that notes what it gets.
func (s *site) hears(b badge, o client.Options, filter string) (c *client.Client, got <-chan gained) {
	s.t.Helper()
	heard := make(chan gained, 16)
	o.OnMessage = func(p *mqtt.Publish) { heard <- gained{string(p.Topic), p.Properties.UserProperties} }
	c, err := s.dial(b, o)
	s.need(err)
	if _, err := c.Subscribe(s.t.Context(), mqtt.Subscription{Filter: filter, QoS: 1}); err != nil {
		s.t.Fatal(err)
	}
	return c, heard
}

// wants compares the next message.
func (s *site) wants(step string, got <-chan gained, topic string, want ...mqtt.UserProperty) {
	s.t.Helper()
	select {
	case m := <-got:
		if diff := cmp.Diff(gained{topic, want}, m); diff != "" {
			s.t.Errorf("%s (-want +got):\n%s", step, diff)
		}
	case <-time.After(10 * time.Second):
		s.t.Fatalf("%s: nothing was received", step)
	}
}

// fleet-management §1.3 and ruling 7 through a whole server: each change of
// type or attribute is in the very next message of a connection that stays.
func TestEnrichmentFollowsTypesAndAttributes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	device, other := s.badge(&x509.Certificate{}), s.badge(&x509.Certificate{})
	s.policy("all", `{"Effect":"Allow","Action":"iot:*","Resource":"*"}`, device.arn, other.arn)
	_, err := s.registry.CreateThingType(ctx, s.account, registry.CreateThingTypeCommand{Name: "Pump"})
	s.need(err)
	s.thing("pump-7", map[string]string{"site": "leeds"}, device.arn)
	_, five := s.hears(other, client.Options{ClientID: "five"}, "#")
	_, old := s.hears(other, client.Options{ClientID: "old", Version: mqtt.V311}, "#")
	pub := s.connect(device, "pump-7")
	publish := func(step string, want ...mqtt.UserProperty) {
		t.Helper()
		s.need(pub.Publish(ctx, "a", 1, nil))
		s.wants(step, five, "a", want...)
		s.wants(step+", 3.1.1", old, "a")
	}
	list := func(l ...registry.PropagatingAttribute) {
		t.Helper()
		s.need(s.registry.UpdateThingType(ctx, s.account, registry.UpdateThingTypeCommand{Name: "Pump", Propagating: &l}))
	}
	update := func(c registry.UpdateThingCommand) {
		t.Helper()
		c.Name = "pump-7"
		s.need(s.registry.UpdateThing(ctx, s.account, c))
	}
	site := func(v string) *registry.Attributes {
		return &registry.Attributes{Values: map[string]string{"site": v}, Merge: true}
	}
	fromSite := registry.PropagatingAttribute{UserPropertyKey: "site", ThingAttribute: "site"}
	fromID := registry.PropagatingAttribute{UserPropertyKey: "cid", ConnectionAttribute: "iot:ClientId"}
	fromName := registry.PropagatingAttribute{UserPropertyKey: "thing", ConnectionAttribute: "iot:Thing.ThingName"}
	cid, name := mqtt.UserProperty{Key: "cid", Value: "pump-7"}, mqtt.UserProperty{Key: "thing", Value: "pump-7"}
	publish("no type")
	update(registry.UpdateThingCommand{TypeName: "Pump"})
	publish("a type that propagates nothing")
	list(fromSite, fromID, fromName)
	leeds := mqtt.UserProperty{Key: "site", Value: "leeds"}
	publish("a list", leeds, cid, name)
	update(registry.UpdateThingCommand{Attributes: site("osaka")})
	publish("another value", mqtt.UserProperty{Key: "site", Value: "osaka"}, cid, name)
	update(registry.UpdateThingCommand{Attributes: site("")})
	publish("a missing attribute", cid, name)
	update(registry.UpdateThingCommand{Attributes: site("leeds")})
	list(fromSite)
	publish("another list", leeds)
	update(registry.UpdateThingCommand{RemoveType: true})
	publish("the type is gone")
	update(registry.UpdateThingCommand{TypeName: "Pump"})
	publish("and back", leeds)

	// Behind the device's own properties, in retained messages and wills too.
	m := &mqtt.Publish{QoS: 1, Retain: true, Topic: []byte("kept"), Payload: []byte("x")}
	m.Properties.UserProperties = []mqtt.UserProperty{{Key: "own", Value: "1"}}
	s.need(pub.PublishPacket(ctx, m))
	own := mqtt.UserProperty{Key: "own", Value: "1"}
	s.wants("own", five, "kept", own, leeds)
	s.wants("own, 3.1.1", old, "kept")
	_, late := s.hears(other, client.Options{ClientID: "late"}, "kept")
	s.wants("retained", late, "kept", own, leeds)
	dying, err := s.dial(device, client.Options{ClientID: "pump-7", Will: &mqtt.Will{Topic: "gone", QoS: 1}})
	s.need(err)
	update(registry.UpdateThingCommand{Attributes: site("osaka")})
	s.need(dying.Close())
	s.wants("will", five, "gone", mqtt.UserProperty{Key: "site", Value: "osaka"})

	// A client that is not the thing, and a call over HTTPS, which is no
	// connection, gain nothing, though the certificate is the thing's.
	stranger := s.connect(device, "stranger")
	s.need(stranger.Publish(ctx, "a", 1, nil))
	s.wants("another client id", five, "a")
	if status := s.https(device, http.MethodPost, "/topics/a", ""); status != http.StatusOK {
		t.Fatal(status)
	}
	s.wants("HTTPS", five, "a")
	s.need(s.registry.DetachThingPrincipal(ctx, s.account, "pump-7", device.arn))
	s.need(s.registry.AttachThingPrincipal(ctx, s.account, "pump-7", device.arn, registry.ExclusiveThing))
	s.need(stranger.Publish(ctx, "a", 1, nil))
	s.wants("any client id of an exclusive thing", five, "a", mqtt.UserProperty{Key: "site", Value: "osaka"})
}

// Messages that wait for a session have what they gained when they were
// published.
func TestEnrichmentOfWaitingMessages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	device, other := s.badge(&x509.Certificate{}), s.badge(&x509.Certificate{})
	s.policy("all", `{"Effect":"Allow","Action":"iot:*","Resource":"*"}`, device.arn, other.arn)
	_, err := s.registry.CreateThingType(ctx, s.account, registry.CreateThingTypeCommand{
		Name: "Pump", Propagating: []registry.PropagatingAttribute{{UserPropertyKey: "site", ThingAttribute: "site"}},
	})
	s.need(err)
	s.thing("pump-7", map[string]string{"site": "leeds"}, device.arn)
	s.need(s.registry.UpdateThing(ctx, s.account, registry.UpdateThingCommand{Name: "pump-7", TypeName: "Pump"}))
	persistent := client.Options{ClientID: "watch", Persistent: true}
	persistent.Properties.Set, persistent.Properties.SessionExpiry = mqtt.Of(mqtt.PropSessionExpiry), 300
	c, _ := s.hears(other, persistent, "a")
	s.need(c.Disconnect())
	pub := s.connect(device, "pump-7")
	for _, value := range []string{"leeds", "osaka"} {
		s.need(s.registry.UpdateThing(ctx, s.account, registry.UpdateThingCommand{
			Name: "pump-7", Attributes: &registry.Attributes{Values: map[string]string{"site": value}},
		}))
		s.need(pub.Publish(ctx, "a", 1, nil))
	}
	_, got := s.hears(other, persistent, "a")
	s.wants("first", got, "a", mqtt.UserProperty{Key: "site", Value: "leeds"})
	s.wants("second", got, "a", mqtt.UserProperty{Key: "site", Value: "osaka"})
}

// A connection that gains nothing pays nothing for the question.
func TestEnrichmentOfNothingAllocatesNothing(t *testing.T) { //nolint:paralleltest // counts allocations
	s := newSite(t)
	b := s.badge(&x509.Certificate{})
	s.policy("all", mayConnect, b.arn)
	admitted, err := s.gatekeeper.Admit(t.Context(), &broker.ConnectRequest{
		ClientID: "c", ListenerName: listenerMQTT, ServerName: "localhost", PeerCertificate: parsed(t, b),
	})
	s.need(err)
	defer admitted.Guard.Close()
	own := []mqtt.UserProperty{{Key: "own", Value: "1"}}
	if n := testing.AllocsPerRun(100, func() { own = admitted.Guard.Enrich(own) }); n != 0 || len(own) != 1 {
		t.Errorf("%v allocations, %v", n, own)
	}
}

// parsed is the certificate of a badge.
func parsed(t *testing.T, b badge) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(b.pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return c
}
